//! The words for a panic that passes through a world.

use std::any::Any;

use context::Timestamp;

/// The panic with its task, host and time named, where its message can be read.
pub(crate) fn with_blame(
    panic: Box<dyn Any + Send>,
    task: &str,
    host: &str,
    incarnation: u64,
    now: Timestamp,
) -> Box<dyn Any + Send> {
    let message = panic.downcast_ref::<String>().map(String::as_str);
    match message.or_else(|| panic.downcast_ref::<&str>().copied()) {
        Some(message) => {
            let passed = now.since(crate::EPOCH);
            Box::new(format!(
                "task `{task}` of {host}#{incarnation} panicked {passed:?} into the run: {message}"
            ))
        }
        None => panic,
    }
}

//! The run's clock: simulated time as the engine last set it, for every host to read.

use std::sync::atomic::{AtomicU64, Ordering};

use context::Timestamp;

use crate::EPOCH;

/// Simulated time, in whole milliseconds.
///
/// It can be read outside a runtime too, where tokio's paused clock shows the real time.
#[derive(Debug)]
pub(crate) struct Clock(AtomicU64);

impl Clock {
    /// A clock that stands at [`EPOCH`].
    pub(crate) fn new() -> Clock {
        Clock(AtomicU64::new(EPOCH.as_millis()))
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.millis())
    }

    /// Milliseconds since the Unix epoch.
    pub(crate) fn millis(&self) -> u64 {
        // One thread writes and reads; it is an atomic only because hosts must be `Sync`.
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, millis: u64) {
        assert!(millis >= self.millis(), "time must not run backward");
        self.0.store(millis, Ordering::Relaxed);
    }
}

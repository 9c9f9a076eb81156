//! The run's clock, to be read from anywhere on its thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use context::Timestamp;

use crate::EPOCH;

/// Simulated time as the engine last set it. Clones show the same time; a recorder keeps one to stamp its events.
#[derive(Clone, Debug)]
pub struct Clock(Arc<AtomicU64>);

impl Clock {
    /// A clock that stands at [`EPOCH`].
    pub fn new() -> Clock {
        Clock(Arc::new(AtomicU64::new(EPOCH.as_millis())))
    }

    /// Simulated time, in whole milliseconds.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.millis())
    }

    pub(crate) fn millis(&self) -> u64 {
        // One thread writes and reads; the atomic is there only because recorders must be `Sync`.
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set_millis(&self, millis: u64) {
        assert!(millis >= self.millis(), "time must not run backward");
        self.0.store(millis, Ordering::Relaxed);
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

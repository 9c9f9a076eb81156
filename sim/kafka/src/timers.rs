//! The deadlines of a core. They fire in order of time, then of kind, so that ties replay.

use std::collections::BTreeSet;

use context::Timestamp;

/// Deadlines, soonest first. Whoever set a timer checks, when it fires, whether it still matters; those that mostly do not
/// come to fire are cancelled.
#[derive(Clone, Debug)]
pub(crate) struct Timers<T> {
    set: BTreeSet<(Timestamp, T)>,
}

impl<T: Ord> Timers<T> {
    pub(crate) fn new() -> Timers<T> {
        Timers { set: BTreeSet::new() }
    }

    pub(crate) fn set(&mut self, at: Timestamp, timer: T) {
        self.set.insert((at, timer));
    }

    pub(crate) fn cancel(&mut self, at: Timestamp, timer: T) {
        self.set.remove(&(at, timer));
    }

    /// The next that is due.
    pub(crate) fn due(&mut self, now: Timestamp) -> Option<T> {
        if self.set.first()?.0 > now {
            return None;
        }
        self.set.pop_first().map(|(_, timer)| timer)
    }

    /// When the next is due.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.set.first().map(|(at, _)| *at)
    }
}

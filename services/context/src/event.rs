//! What happened, as it happened: the input of the run's hash, trace and checks.

use std::fmt;

use crate::Timestamp;

/// The kinds of events that a run records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// Bytes that the network delivered.
    Frame,
    /// A timer that fired.
    Timer,
    /// A transaction that a store committed.
    Commit,
    /// A fault that began or ended, or a host that started or stopped.
    Fault,
    /// Something a person would want to read in the trace: a saga's step, a rebalance, an election.
    Note,
    /// A note of something that goes wrong and is dealt with: tried again, waited for, given up. A trace shows it as any other
    /// note; a log of a program shows it to those who do not want to read of every step.
    Trouble,
}

impl EventKind {
    /// A fixed word for traces, the same in every release.
    pub fn word(self) -> &'static str {
        match self {
            EventKind::Frame => "frame",
            EventKind::Timer => "timer",
            EventKind::Commit => "commit",
            EventKind::Fault => "fault",
            EventKind::Note | EventKind::Trouble => "note",
        }
    }

    /// Whether it is a note, of trouble or not.
    pub fn is_note(self) -> bool {
        matches!(self, EventKind::Note | EventKind::Trouble)
    }
}

/// One event. Text and bytes both go into the run's hash, so neither may hold anything that differs from process to
/// process: no address, no walk over a `HashMap`.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// When it happened, on the clock of its host (for the world itself: the world's).
    pub at: Timestamp,
    /// The host on which it happened; empty for the world itself.
    pub host: &'a str,
    /// Its kind.
    pub kind: EventKind,
    /// What the trace shows.
    pub text: fmt::Arguments<'a>,
    /// What was carried: frame bytes, committed writes. May be empty.
    pub bytes: &'a [u8],
}

/// Takes events in the order in which they happen.
pub trait Recorder: Send + Sync + 'static {
    /// Records one event. Called with no lock held that an observer of the run may want: a store records its commit
    /// after it has let go of its tables.
    fn record(&self, event: Event<'_>);
}

/// Forgets everything: for production, where tracing and metrics do this work, and for tests that do not look.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRecorder;

impl Recorder for NoRecorder {
    fn record(&self, _event: Event<'_>) {}
}

//! A broken claim and what shows it.

use std::time::Duration;

/// One thing that a run found to be otherwise than the scenario claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What sort of claim is broken; decides the exit code.
    pub kind: FindingKind,
    /// The check or the key of `[expect]`: `charged_exactly_once`, `order_latency_p95`.
    pub check: String,
    /// What is wrong, a sentence with names and numbers, without a full stop.
    pub says: String,
    /// What shows it, in the order of time.
    pub evidence: Vec<Evidence>,
}

/// What sort of claim is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingKind {
    /// Something happened that must never happen: a check broke. Exit code 100.
    Safety,
    /// The system did not come to its end: sagas are stuck, or it was not quiet in time. Exit code 103.
    NoProgress,
    /// A rate or a latency is not as claimed, or a `breaks` did not. Exit code 104.
    Missed,
}

/// One piece of evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// When it happened, from the start of the run; `None` for a state that was found at the end.
    pub at: Option<Duration>,
    /// The number of the run's event, to find it in the trace.
    pub event: Option<u64>,
    /// Where it is, if it is a record: `payment.commands/0@17`.
    pub place: Option<String>,
    /// What happened, without a full stop.
    pub what: String,
}

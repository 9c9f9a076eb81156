//! What a fault did.

use std::collections::BTreeMap;
use std::time::Duration;

/// One `[[fault]]` of the scenario and its effects in one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultReport {
    /// The line of the fault in the scenario file.
    pub line: usize,
    /// The fault in a few words, the same on every seed: `crash_broker broker-1 for 12s`.
    pub what: String,
    /// From when to when it was active, from the start of the run; one entry for each time. What the seed drew is here.
    pub active: Vec<(Duration, Duration)>,
    /// What it met and how often: `connections cut` = 7. Only what counts as an effect; entries of 0 are left out.
    pub effects: BTreeMap<String, u64>,
}

impl FaultReport {
    /// It did nothing to anyone.
    pub fn inert(&self) -> bool {
        self.effects.values().all(|count| *count == 0)
    }
}

//! One scenario run with one seed.

use std::ops::Add;
use std::time::Duration;

use crate::{Durations, FaultReport, Finding};

/// What one run of one scenario with one seed left. Plain data; two simulated runs of the same binary, scenario and seed
/// give the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedResult {
    /// The scenario's name.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// What ran it: the engine `jump` or `turmoil`, or `kafka`.
    pub engine: String,
    /// The running hash over all events; `None` where a seed does not give the same run again.
    pub hash: Option<u64>,
    /// How many events there were.
    pub events: u64,
    /// How long the run was in the time of its world: simulated, or real on `kafka`.
    pub simulated: Duration,
    /// From the moment that all was healed to the moment that the system was quiet; `None` if it never was.
    pub recovered_in: Option<Duration>,
    /// What became of the sagas.
    pub sagas: Sagas,
    /// Saga started to its terminal state; sagas without an end are not in here.
    pub saga_durations: Durations,
    /// Order placed to customer notified; orders that were not notified are not in here.
    pub order_latencies: Durations,
    /// How long records waited from produced to handled, by topic and handler, in the order of their names.
    pub hops: Vec<Hop>,
    /// The faults of the scenario, in the order of the file.
    pub faults: Vec<FaultReport>,
    /// Broken claims, in the order in which they were found; none means that the run held.
    pub findings: Vec<Finding>,
}

impl SeedResult {
    /// Nothing was found.
    pub fn held(&self) -> bool {
        self.findings.is_empty()
    }

    /// The hash as it is printed: 16 hexadecimal digits, or `-`.
    pub fn hash_text(&self) -> String {
        self.hash.map_or_else(|| "-".to_owned(), |hash| format!("{hash:016x}"))
    }
}

/// What became of the sagas of one or more runs. `started = completed + compensated + stuck`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sagas {
    /// Started.
    pub started: u64,
    /// Ended in the effect they were started for.
    pub completed: u64,
    /// Ended by undoing what they had done.
    pub compensated: u64,
    /// Without an end when the run ended.
    pub stuck: u64,
}

impl Sagas {
    /// Completed of started, in parts per million, rounded down; `None` if none was started.
    pub fn success_rate_ppm(&self) -> Option<u32> {
        let ppm = (self.completed * 1_000_000).checked_div(self.started)?;
        u32::try_from(ppm).ok()
    }
}

impl Add for Sagas {
    type Output = Sagas;
    fn add(self, other: Sagas) -> Sagas {
        Sagas {
            started: self.started + other.started,
            completed: self.completed + other.completed,
            compensated: self.compensated + other.compensated,
            stuck: self.stuck + other.stuck,
        }
    }
}

/// One step of a message's way: from the moment it was produced to the moment its handler had committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The topic and who reads it: `payment.commands > payment`.
    pub name: String,
    /// One for each record handled.
    pub latencies: Durations,
}

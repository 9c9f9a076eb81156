//! The order service's settings.

use std::collections::BTreeSet;
use std::time::Duration;

use kit::ServiceConfig;

use crate::saga::Timing;

/// How the service runs. The same on every replica.
#[derive(Clone, Debug)]
pub struct Config {
    /// The kit's settings.
    pub service: ServiceConfig,
    /// How long sagas wait.
    pub timing: Timing,
    /// How long stock stays set aside for an order that comes to no end. Longer than the steps take together.
    pub reservation: Duration,
    /// A snapshot of an order is kept every so many of its events; 0 for never.
    pub snapshot_every: u64,
    /// Planted defects; none in earnest.
    pub defects: BTreeSet<Defect>,
}

/// A defect that a scenario can plant, to see the harness find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Defect {
    /// Cancels orders without undoing what was done for them (D1.1).
    NoCompensation,
}

impl Defect {
    /// All there are.
    pub const ALL: [Defect; 1] = [Defect::NoCompensation];

    /// As a scenario names it.
    pub fn name(self) -> &'static str {
        match self {
            Defect::NoCompensation => "no_compensation",
        }
    }

    /// What it does wrong.
    pub fn about(self) -> &'static str {
        match self {
            Defect::NoCompensation => "cancels orders without undoing what was done for them",
        }
    }
}

impl Config {
    /// Whether a defect is planted.
    pub fn has(&self, defect: Defect) -> bool {
        self.defects.contains(&defect)
    }
}

impl Default for Config {
    /// Steps of 30 s, reservations of 10 min, a snapshot every 10 events, no defect.
    fn default() -> Config {
        Config {
            service: ServiceConfig::default(),
            timing: Timing::default(),
            reservation: Duration::from_secs(600),
            snapshot_every: 10,
            defects: BTreeSet::new(),
        }
    }
}

//! One scenario over many seeds.

use std::path::PathBuf;

use crate::{Durations, Finding, Sagas, SeedResult};

/// What one scenario left over all of its seeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScenarioResult {
    /// The file's name without `.toml`.
    pub name: String,
    /// The file, as it was named on the command line.
    pub file: PathBuf,
    /// The claim.
    pub claim: String,
    /// One for each seed, in the order of the seeds. Where the claim is a `breaks`, the findings that it asks for are
    /// not findings any more.
    pub seeds: Vec<SeedResult>,
    /// What is wrong with all seeds together: a fault that was inert on each, a `breaks` that never did.
    pub findings: Vec<Finding>,
}

impl ScenarioResult {
    /// Nothing was found, on any seed or over all.
    pub fn held(&self) -> bool {
        self.findings.is_empty() && self.seeds.iter().all(SeedResult::held)
    }

    /// What became of the sagas of all seeds.
    pub fn sagas(&self) -> Sagas {
        self.seeds.iter().fold(Sagas::default(), |sum, seed| sum + seed.sagas)
    }

    /// The durations of the sagas of all seeds.
    pub fn saga_durations(&self) -> Durations {
        self.seeds.iter().flat_map(|seed| seed.saga_durations.iter()).collect()
    }

    /// The latencies of the orders of all seeds.
    pub fn order_latencies(&self) -> Durations {
        self.seeds.iter().flat_map(|seed| seed.order_latencies.iter()).collect()
    }

    /// The command that runs one seed again, to the byte.
    pub fn replay_command(&self, seed: &SeedResult) -> String {
        let engine = match seed.engine.as_str() {
            "jump" => String::new(),
            other => format!(" --engine {other}"),
        };
        format!("shakedown replay {} --seed {}{engine}", self.file.display(), seed.seed)
    }
}

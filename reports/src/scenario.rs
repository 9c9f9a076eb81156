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
    /// The seeds that gave no result: nothing is known of the claim on them.
    pub failed: Vec<FailedSeed>,
}

/// A seed whose run did not come to a result: a panic, as a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedSeed {
    /// The seed.
    pub seed: u64,
    /// The engine that ran it.
    pub engine: String,
    /// What was said of it.
    pub why: String,
}

/// A scenario of a folder that did not run, because its backend cannot bring it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file's name without `.toml`.
    pub name: String,
    /// The file, as it was named on the command line.
    pub file: PathBuf,
    /// The claim.
    pub claim: String,
    /// What cannot be brought.
    pub why: String,
}

impl ScenarioResult {
    /// Every seed gave a result, and nothing was found, on any seed or over all.
    pub fn held(&self) -> bool {
        self.failed.is_empty() && !self.is_broken()
    }

    /// Something was found, on a seed or over all.
    pub fn is_broken(&self) -> bool {
        !self.findings.is_empty() || !self.seeds.iter().all(SeedResult::held)
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
        self.replay(seed.seed, &seed.engine)
    }

    /// The same for a seed without a result.
    pub fn replay_command_of_failed(&self, failed: &FailedSeed) -> String {
        self.replay(failed.seed, &failed.engine)
    }

    fn replay(&self, seed: u64, engine: &str) -> String {
        let engine = match engine {
            "jump" => String::new(),
            // The same orders and faults at the same times; what comes of it may differ.
            "kafka" => {
                let (file, next) = (self.file.display(), seed + 1);
                return format!("shakedown run {file} --backend kafka --seeds {seed}..{next}");
            }
            other => format!(" --engine {other}"),
        };
        format!("shakedown replay {} --seed {seed}{engine}", self.file.display())
    }
}

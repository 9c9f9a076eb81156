//! What a run leaves: plain results and how they are shown.
//!
//! [`SeedResult`] is one scenario run with one seed, [`ScenarioResult`] the same over many. Both are plain data without
//! behaviour of their own beyond sums: the harness fills them in, the program shows them. Start reading at
//! [`SeedResult`]; [`text`], [`json`] and [`junit`] show results.
//!
//! Absent on purpose: the decision whether a claim holds (the harness makes it and leaves a [`Finding`]), and any
//! knowledge of a service, a broker or a world.

mod durations;
mod fault;
mod finding;
mod scenario;
mod seed;

pub mod json;
pub mod junit;
pub mod text;

#[cfg(test)]
mod tests;

pub use durations::Durations;
pub use fault::FaultReport;
pub use finding::{Evidence, Finding, FindingKind};
pub use scenario::{FailedSeed, ScenarioResult, Skipped};
pub use seed::{Hop, Sagas, SeedResult};

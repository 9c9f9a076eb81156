//! What the program's exit code says. Scripts may rely on these numbers; they do not change.
//!
//! The numbers from 64 to 69 are those of `sysexits.h`, those from 100 on are ours: what a run found out.

use std::process::ExitCode;

use reports::{FindingKind, ScenarioResult};

/// Every claim held.
pub const HELD: u8 = 0;
/// A bug of Shakedown's own, panics included.
pub const BUG: u8 = 1;
/// The command line is wrong. (This is clap's number, too.)
pub const USAGE: u8 = 2;
/// A scenario file does not say what can be run.
pub const SCENARIO_INVALID: u8 = 65;
/// A scenario file cannot be read, or a folder has none.
pub const SCENARIO_UNREADABLE: u8 = 66;
/// The backend is not available, or it or the engine cannot bring a fault of the scenario.
pub const UNAVAILABLE: u8 = 69;
/// Something happened that must never happen: `exactly_once` or any check broke.
pub const SAFETY: u8 = 100;
/// The same binary, scenario and seed gave two different runs.
pub const NOT_DETERMINISTIC: u8 = 102;
/// The system did not come to its end: `stuck_sagas`, `recovers_within`.
pub const NO_PROGRESS: u8 = 103;
/// An expectation was missed: a rate, a latency, a `breaks` that did not, a fault that was inert on every seed.
pub const MISSED: u8 = 104;
/// Somebody asked it to end (SIGINT, SIGTERM) before it was done, as a shell says it.
pub const INTERRUPTED: u8 = 130;

/// Of several, the first of these. What was found out comes before what could not be tried.
const PRECEDENCE: [u8; 9] =
    [BUG, NOT_DETERMINISTIC, SAFETY, NO_PROGRESS, MISSED, SCENARIO_INVALID, UNAVAILABLE, USAGE, INTERRUPTED];

/// The exit code of a whole command from the codes of its parts: [`HELD`] if there is none other.
pub fn worst(codes: impl IntoIterator<Item = u8>) -> u8 {
    let codes: Vec<u8> = codes.into_iter().collect();
    PRECEDENCE.into_iter().find(|code| codes.contains(code)).unwrap_or(HELD)
}

/// What one scenario's findings say.
pub fn of_result(result: &ScenarioResult) -> u8 {
    let findings = result.seeds.iter().flat_map(|seed| &seed.findings).chain(&result.findings);
    worst(findings.map(|finding| of_finding(finding.kind)))
}

fn of_finding(kind: FindingKind) -> u8 {
    match kind {
        FindingKind::Safety => SAFETY,
        FindingKind::NoProgress => NO_PROGRESS,
        FindingKind::Missed => MISSED,
    }
}

/// As the operating system takes it.
pub fn code(code: u8) -> ExitCode {
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_check_outranks_a_missed_rate() {
        assert_eq!(worst([MISSED, HELD, SAFETY, NO_PROGRESS]), SAFETY);
        assert_eq!(worst([MISSED, NO_PROGRESS]), NO_PROGRESS);
        assert_eq!(worst([UNAVAILABLE, MISSED]), MISSED);
        assert_eq!(worst([UNAVAILABLE, HELD]), UNAVAILABLE);
        assert_eq!(worst([SAFETY, BUG, NOT_DETERMINISTIC]), BUG);
        assert_eq!(worst([]), HELD);
    }
}

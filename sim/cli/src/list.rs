//! `list`: what there is, one line each.

use std::path::{Path, PathBuf};

use harness::scenario::{FaultKind, Scenario, ScenarioError};
use harness::system::System;

use crate::args::Listing;

/// Where `list scenarios` looks.
const SCENARIOS: &str = "scenarios";

/// The lines.
///
/// # Errors
/// [`ScenarioError`] if a scenario in the folder cannot be read or is wrong.
pub(crate) fn list(what: Listing, system: &dyn System) -> Result<String, ScenarioError> {
    let lines = match what {
        Listing::Faults => FaultKind::WORDS.iter().map(|(word, does)| line(word, does)).collect(),
        Listing::Checks => {
            harness::checks(system).iter().map(|check| line(check.name, check.claim)).collect()
        }
        Listing::Services => services(system),
        Listing::Scenarios => scenarios(Path::new(SCENARIOS), system)?,
    };
    Ok(lines)
}

fn services(system: &dyn System) -> String {
    let mut lines = String::new();
    for (name, words) in system.services() {
        lines.push_str(&line(&name, &words.about));
        for (flaw, does) in words.flaws {
            lines.push_str(&line("", &format!("naive = [\"{flaw}\"]: {does}")));
        }
    }
    lines
}

fn scenarios(folder: &Path, system: &dyn System) -> Result<String, ScenarioError> {
    let scenarios = Scenario::load_all(&[PathBuf::from(folder)], &harness::vocabulary(system))?;
    Ok(scenarios.iter().map(|scenario| line(&scenario.name, &scenario.claim)).collect())
}

fn line(name: &str, text: &str) -> String {
    format!("{name:<26} {text}\n")
}

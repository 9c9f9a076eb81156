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
        Listing::Faults => {
            FaultKind::WORDS.iter().map(|(word, does)| (word.to_string(), does.to_string())).collect()
        }
        Listing::Checks => {
            let checks = harness::checks(system).into_iter();
            checks.map(|check| (check.name.to_owned(), check.claim.to_owned())).collect()
        }
        Listing::Services => services(system),
        Listing::Scenarios => scenarios(Path::new(SCENARIOS), system)?,
    };
    Ok(columns(&lines))
}

/// A name and what is said of it.
type Line = (String, String);

fn services(system: &dyn System) -> Vec<Line> {
    let mut lines = Vec::new();
    for (name, words) in system.services() {
        lines.push((name, words.about));
        for (flaw, does) in words.flaws {
            lines.push((String::new(), format!("naive = [\"{flaw}\"]: {does}")));
        }
    }
    lines
}

fn scenarios(folder: &Path, system: &dyn System) -> Result<Vec<Line>, ScenarioError> {
    let scenarios = Scenario::load_all(&[PathBuf::from(folder)], &harness::vocabulary(system))?;
    Ok(scenarios.into_iter().map(|scenario| (scenario.name, scenario.claim)).collect())
}

/// The names in a column as wide as the longest.
fn columns(lines: &[Line]) -> String {
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    lines.iter().map(|(name, text)| format!("{name:<width$}  {text}\n")).collect()
}

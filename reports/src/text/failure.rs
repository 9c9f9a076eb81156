//! A broken claim: the claim, the evidence, the files, the replay command, in this order.

use std::fmt::Write as _;

use super::seconds;
use crate::{Evidence, Finding, ScenarioResult, SeedResult};

/// More of one finding is in the files.
const EVIDENCE_MAX: usize = 8;
/// One cause breaks several checks as a rule: the first is shown at length, the others to recognise them.
const EVIDENCE_MAX_OF_OTHERS: usize = 2;
/// More of one run is in the files.
const FINDINGS_MAX: usize = 4;

/// So many seeds without a result are shown with what was said of them.
const FAILED_MAX: usize = 2;

/// What is wrong with a scenario; empty if it held. The first seed that broke it is shown in full, the others named.
/// `files` are what was written for that seed, or for the first one without a result if none broke it.
pub fn failure(result: &ScenarioResult, files: &[String]) -> String {
    if result.held() {
        return String::new();
    }
    let verdict = if result.is_broken() { "broken" } else { "failed" };
    let mut text = format!("\n{}: {verdict}\n", result.name);
    entry(&mut text, "claim", &result.claim);
    for finding in &result.findings {
        tell(&mut text, "over all seeds", finding, EVIDENCE_MAX);
    }
    let broken: Vec<&SeedResult> = result.seeds.iter().filter(|seed| !seed.held()).collect();
    if let Some(seed) = broken.first() {
        let (shown, more) = seed.findings.split_at(seed.findings.len().min(FINDINGS_MAX));
        for (number, finding) in shown.iter().enumerate() {
            let evidence = if number == 0 { EVIDENCE_MAX } else { EVIDENCE_MAX_OF_OTHERS };
            tell(&mut text, &format!("seed {}", seed.seed), finding, evidence);
        }
        if !more.is_empty() {
            entry(&mut text, "", &format!("and {} more findings on this seed: see the files", more.len()));
        }
    }
    if let [_, others @ ..] = broken.as_slice()
        && !others.is_empty()
    {
        let seeds: Vec<String> = others.iter().map(|seed| seed.seed.to_string()).collect();
        entry(&mut text, "also", &format!("broken on seeds {}", seeds.join(", ")));
    }
    for (number, file) in files.iter().enumerate() {
        entry(&mut text, if number == 0 { "files" } else { "" }, file);
    }
    // What is wrong only over all seeds shows on any of them.
    let shows = broken.first().copied().or(result.seeds.first().filter(|_| result.is_broken()));
    if let Some(seed) = shows {
        entry(&mut text, "replay", &result.replay_command(seed));
    }
    let (told, more) = result.failed.split_at(result.failed.len().min(FAILED_MAX));
    for failed in told {
        entry(&mut text, "failed", &format!("seed {}: {}", failed.seed, failed.why));
        entry(&mut text, "replay", &result.replay_command_of_failed(failed));
    }
    if !more.is_empty() {
        let seeds: Vec<String> = more.iter().map(|failed| failed.seed.to_string()).collect();
        entry(&mut text, "also", &format!("no result on seeds {}", seeds.join(", ")));
    }
    text
}

fn tell(text: &mut String, scope: &str, finding: &Finding, evidence_max: usize) {
    entry(text, "broken", &format!("{}, {scope}: {}", finding.check, finding.says));
    let (shown, more) = finding.evidence.split_at(finding.evidence.len().min(evidence_max));
    for (number, evidence) in shown.iter().enumerate() {
        entry(text, if number == 0 { "evidence" } else { "" }, &piece(evidence));
    }
    if !more.is_empty() {
        entry(text, "", &format!("       and {} more: see the files", more.len()));
    }
}

/// `12.345 s  event 4711  payment.commands/0@17  charge …`
fn piece(evidence: &Evidence) -> String {
    let at = evidence.at.map_or_else(|| "at the end".to_owned(), seconds);
    let mut text = format!("{at:>10}");
    if let Some(event) = evidence.event {
        let _ = write!(text, "  event {event}");
    }
    if let Some(place) = &evidence.place {
        let _ = write!(text, "  {place}");
    }
    let _ = write!(text, "  {}", evidence.what);
    text
}

fn entry(text: &mut String, word: &str, what: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "  {word:<9} {what}");
}

//! Whether a scenario's claim held: from what was measured to findings.
//!
//! Checks bring findings of their own (safety). Here are the others: progress, the rates and latencies of `[expect]`,
//! and what only all seeds together can show.

use std::collections::BTreeSet;
use std::time::Duration;

use reports::{Evidence, FaultReport, Finding, FindingKind, ScenarioResult, SeedResult};

use crate::scenario::{Bound, Expect, Scenario, Statistic};
use crate::system::Measurements;

/// How a system came to rest after everything was healed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// It did.
    pub at_rest: bool,
    /// From the healing to the moment when it became quiet, and stayed so.
    pub took: Option<Duration>,
    /// What was left to do, in a few words; `None` if nothing was.
    pub open: Option<String>,
    /// What was not at its end.
    pub unfinished: Vec<Evidence>,
}

/// `stuck_sagas` and `recovers_within`. A system that comes to rest late has missed the second only; one that never does
/// is named by its stuck sagas if there are more than allowed.
pub fn progress(expect: &Expect, measured: &Measurements, recovery: &Recovery) -> Vec<Finding> {
    let no_progress = |check: &str, says: String| Finding {
        kind: FindingKind::NoProgress,
        check: check.to_owned(),
        says,
        evidence: evidence(recovery),
    };
    let stuck = measured.sagas.stuck;
    let limit = expect.recovers_within;
    match recovery.took {
        Some(took) if took <= limit => Vec::new(),
        Some(took) => {
            vec![no_progress(
                "recovers_within",
                format!("the system took {took:?} to come to rest, claimed was {limit:?}"),
            )]
        }
        None if stuck > expect.stuck_sagas => {
            let (started, allowed) = (measured.sagas.started, expect.stuck_sagas);
            let says = format!("{stuck} of {started} sagas have no end, claimed was {allowed}");
            vec![no_progress("stuck_sagas", says)]
        }
        None => {
            let open = recovery.open.as_deref().unwrap_or("something is open");
            vec![no_progress("recovers_within", format!("the system did not come to rest: {open}"))]
        }
    }
}

fn evidence(recovery: &Recovery) -> Vec<Evidence> {
    let open =
        recovery.open.iter().map(|what| Evidence { at: None, event: None, place: None, what: what.clone() });
    recovery.unfinished.iter().cloned().chain(open).collect()
}

/// The rates, counts and latencies of `[expect]`.
pub fn expectations(expect: &Expect, measured: &Measurements) -> Vec<Finding> {
    let mut findings = Vec::new();
    let sagas = &measured.sagas;
    if let Some(bound) = &expect.saga_success_rate {
        // Without a saga there is no rate, and a claim about it is not fulfilled.
        let rate = sagas.success_rate_ppm();
        if !rate.is_some_and(|rate| bound.holds(&rate)) {
            let was = rate
                .map_or("there was none".to_owned(), |_| format!("{} of {}", sagas.completed, sagas.started));
            findings.push(missed("saga_success_rate", was, rate.map(percent), bound, percent(bound.limit)));
        }
    }
    for (key, bound, count) in [
        ("completed_sagas", &expect.completed_sagas, sagas.completed),
        ("compensated_sagas", &expect.compensated_sagas, sagas.compensated),
    ] {
        if let Some(bound) = bound.as_ref().filter(|bound| !bound.holds(&count)) {
            let was = format!("of {} sagas", sagas.started);
            findings.push(missed(key, was, Some(count.to_string()), bound, bound.limit.to_string()));
        }
    }
    for (key, bounds, durations) in [
        ("order_latency", &expect.order_latency, &measured.order_latencies),
        ("saga_duration", &expect.saga_duration, &measured.saga_durations),
    ] {
        for (statistic, bound) in bounds {
            let figure = figure(*statistic, durations);
            if !figure.is_some_and(|figure| bound.holds(&figure)) {
                let was = format!("over {} measured", durations.count());
                let (figure, limit) =
                    (figure.map(|figure| format!("{figure:?}")), format!("{:?}", bound.limit));
                findings.push(missed(&format!("{key}_{statistic}"), was, figure, bound, limit));
            }
        }
    }
    findings
}

fn missed<T>(key: &str, over: String, was: Option<String>, bound: &Bound<T>, limit: String) -> Finding {
    let was = was.unwrap_or_else(|| "nothing".to_owned());
    let says = format!("{key} was {was} ({over}), claimed was {} {limit}", bound.comparison);
    Finding { kind: FindingKind::Missed, check: key.to_owned(), says, evidence: Vec::new() }
}

fn percent(ppm: u32) -> String {
    format!("{}%", f64::from(ppm) / 10_000.0)
}

fn figure(statistic: Statistic, durations: &reports::Durations) -> Option<Duration> {
    match statistic {
        Statistic::Mean => durations.mean(),
        Statistic::P50 => durations.percentile(50),
        Statistic::P95 => durations.percentile(95),
        Statistic::P99 => durations.percentile(99),
        Statistic::Max => durations.longest(),
    }
}

/// What a scenario left over its seeds. With `breaks` the findings that it asks for are no findings any more; that it
/// never broke, or that a fault was inert on every seed, is judged only over at least as many seeds as the file runs by
/// itself: on a few it may be chance.
pub fn over_all_seeds(scenario: &Scenario, mut seeds: Vec<SeedResult>) -> ScenarioResult {
    let different: BTreeSet<u64> = seeds.iter().map(|seed| seed.seed).collect();
    let enough = different.len() as u64 >= scenario.run.seeds;
    let mut findings = Vec::new();
    if let Some(check) = &scenario.expect.breaks {
        let mut broke = false;
        for seed in &mut seeds {
            let before = seed.findings.len();
            seed.findings.retain(|finding| finding.check != *check);
            broke |= seed.findings.len() < before;
        }
        if enough && !broke {
            let says =
                format!("`{check}` held on all {} seeds, claimed was that it breaks on one", seeds.len());
            findings.push(over_all("breaks", says));
        }
    }
    if enough {
        let inert = scenario.faults.iter().enumerate().filter(|(number, _)| {
            !seeds.is_empty()
                && seeds.iter().all(|seed| seed.faults.get(*number).is_none_or(FaultReport::inert))
        });
        for (_, fault) in inert {
            let (word, line, count) = (fault.kind.word(), fault.line, seeds.len());
            let says = format!("the fault `{word}` of line {line} had no effect on any of {count} seeds");
            findings.push(over_all("inert_fault", says));
        }
    }
    ScenarioResult {
        name: scenario.name.clone(),
        file: scenario.file.clone(),
        claim: scenario.claim.clone(),
        seeds,
        findings,
    }
}

fn over_all(check: &str, says: String) -> Finding {
    Finding { kind: FindingKind::Missed, check: check.to_owned(), says, evidence: Vec::new() }
}

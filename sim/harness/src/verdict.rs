//! Whether a scenario's claim held: from what was measured to findings.
//!
//! Checks bring findings of their own (safety). Here are the others: progress, the rates and latencies of `[expect]`,
//! and what only all seeds together can show.

use std::collections::BTreeSet;
use std::time::Duration;

use reports::{Evidence, FaultReport, Finding, FindingKind, ScenarioResult, SeedResult};

use crate::fault::RECORDS_LOST;
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

/// What a scenario left over its seeds. With `breaks` the findings that it asks for are no findings any more, nor those
/// that `may_break` lets be; that it never broke, or that a fault was inert on every seed, is judged only over at least as many seeds as the file runs by
/// itself: on a few it may be chance. A broker's power loss that took no record on any of them counts as inert too, unless
/// the file has logs flushed early (`log.flush.interval.messages` or `.ms`): then there may be nothing to lose.
pub fn over_all_seeds(scenario: &Scenario, mut seeds: Vec<SeedResult>) -> ScenarioResult {
    let different: BTreeSet<u64> = seeds.iter().map(|seed| seed.seed).collect();
    let enough = different.len() as u64 >= scenario.run.seeds;
    let mut findings = Vec::new();
    for check in &scenario.expect.breaks {
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
    for seed in &mut seeds {
        seed.findings.retain(|finding| !scenario.expect.may_break.contains(&finding.check));
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
        let some = |number: usize, did: fn(&FaultReport) -> bool| {
            seeds.iter().filter_map(|seed| seed.faults.get(number)).any(did)
        };
        let acted = |number| some(number, |report| !report.inert());
        let took_records = |number| some(number, |report| report.effects.contains_key(RECORDS_LOST));
        let may_lose = scenario.cluster.leaves_flushing_to_the_kernel();
        for (number, fault) in scenario.faults.iter().enumerate().filter(|_| may_lose) {
            if fault.kind.takes_power_from_brokers() && acted(number) && !took_records(number) {
                let (word, line, count) = (fault.kind.word(), fault.line, seeds.len());
                let says = format!(
                    "the power loss of `{word}` in line {line} took no record from any disk on any of {count} seeds"
                );
                findings.push(over_all("inert_fault", says));
            }
        }
    }
    ScenarioResult {
        name: scenario.name.clone(),
        file: scenario.file.clone(),
        claim: scenario.claim.clone(),
        seeds,
        findings,
        failed: Vec::new(),
    }
}

fn over_all(check: &str, says: String) -> Finding {
    Finding { kind: FindingKind::Missed, check: check.to_owned(), says, evidence: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Comparison, Fault, FaultKind, Start};
    use reports::{Durations, Sagas};
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    fn expect() -> Expect {
        Expect {
            saga_success_rate: None,
            completed_sagas: None,
            compensated_sagas: None,
            stuck_sagas: 0,
            order_latency: BTreeMap::new(),
            saga_duration: BTreeMap::new(),
            exactly_once: true,
            recovers_within: Duration::from_secs(60),
            breaks: Vec::new(),
            may_break: Vec::new(),
        }
    }

    fn measured(completed: u64, compensated: u64, stuck: u64) -> Measurements {
        let started = completed + compensated + stuck;
        let durations: Durations = (1..=20).map(Duration::from_secs).collect();
        Measurements {
            sagas: Sagas { started, completed, compensated, stuck },
            saga_durations: durations.clone(),
            order_latencies: durations,
            hops: Vec::new(),
        }
    }

    fn said(findings: &[Finding]) -> Vec<&str> {
        findings.iter().map(|finding| finding.says.as_str()).collect()
    }

    #[test]
    fn a_rate_below_its_claim_is_missed() {
        let bound = Bound { comparison: Comparison::AtLeast, limit: 950_000 };
        let expect = Expect { saga_success_rate: Some(bound), ..expect() };
        let findings = expectations(&expect, &measured(141, 9, 0));
        assert_eq!(said(&findings), ["saga_success_rate was 94% (141 of 150), claimed was >= 95%"]);
        assert_eq!(findings[0].kind, FindingKind::Missed);
        assert!(expectations(&expect, &measured(143, 7, 0)).is_empty());
    }

    #[test]
    fn a_rate_of_nothing_fulfils_no_claim() {
        let bound = Bound { comparison: Comparison::AtLeast, limit: 0 };
        let findings =
            expectations(&Expect { saga_success_rate: Some(bound), ..expect() }, &measured(0, 0, 0));
        assert_eq!(said(&findings), ["saga_success_rate was nothing (there was none), claimed was >= 0%"]);
    }

    #[test]
    fn counts_and_latencies_are_held_against_their_claims() {
        let count = Bound { comparison: Comparison::Equal, limit: 9 };
        let latency = Bound { comparison: Comparison::AtMost, limit: Duration::from_secs(15) };
        let expect = Expect {
            compensated_sagas: Some(count),
            order_latency: [(Statistic::P95, latency), (Statistic::P50, latency)].into(),
            saga_duration: [(Statistic::Max, latency)].into(),
            ..expect()
        };
        assert_eq!(
            said(&expectations(&expect, &measured(12, 8, 0))),
            [
                "compensated_sagas was 8 (of 20 sagas), claimed was = 9",
                "order_latency_p95 was 19s (over 20 measured), claimed was <= 15s",
                "saga_duration_max was 20s (over 20 measured), claimed was <= 15s",
            ]
        );
    }

    #[test]
    fn late_is_told_from_never_and_never_is_told_by_its_sagas() {
        let recovered =
            |took: Option<Duration>| Recovery { at_rest: took.is_some(), took, ..Recovery::default() };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert!(progress(&expect(), &measured(5, 0, 0), &recovered(seconds(60))).is_empty());

        let late = progress(&expect(), &measured(5, 0, 0), &recovered(seconds(61)));
        assert_eq!(said(&late), ["the system took 61s to come to rest, claimed was 60s"]);
        let stuck = progress(&expect(), &measured(4, 0, 1), &recovered(None));
        assert_eq!(said(&stuck), ["1 of 5 sagas have no end, claimed was 0"]);
        let open = Recovery { open: Some("3 outbox rows".into()), ..recovered(None) };
        let open = progress(&expect(), &measured(5, 0, 0), &open);
        assert_eq!(said(&open), ["the system did not come to rest: 3 outbox rows"]);

        let checks = [late, stuck, open].concat();
        assert!(checks.iter().all(|finding| finding.kind == FindingKind::NoProgress));
        let names: Vec<&str> = checks.iter().map(|finding| finding.check.as_str()).collect();
        assert_eq!(names, ["recovers_within", "stuck_sagas", "recovers_within"]);
    }

    fn scenario(seeds: u64, breaks: Option<&str>) -> Scenario {
        let kind = FaultKind::Pause { host: "a".into() };
        let lasts = Duration::from_secs(1);
        let vocabulary = crate::scenario::Vocabulary {
            services: BTreeMap::new(),
            outside: Vec::new(),
            others: Vec::new(),
            topics: Vec::new(),
            refusals: Vec::new(),
            checks: Vec::new(),
            exactly_once_checks: Vec::new(),
            consumer_session_timeout: Duration::from_secs(6),
        };
        let text = format!("claim = \"x\"\n[run]\nseeds = {seeds}\norders = 1\narrival = \"1/s\"\n");
        let mut scenario = Scenario::parse(&PathBuf::from("x.toml"), &text, &vocabulary).unwrap();
        scenario.faults = vec![Fault { line: 7, start: Start::At(Duration::ZERO), lasts, kind }];
        scenario.expect.breaks = breaks.map(str::to_owned).into_iter().collect();
        scenario
    }

    fn seed(seed: u64, effect: u64, broken: &[&str]) -> SeedResult {
        let finding = |check: &&str| Finding {
            kind: FindingKind::Safety,
            check: (*check).to_owned(),
            says: "broken".to_owned(),
            evidence: Vec::new(),
        };
        let effects = BTreeMap::from([("wakes deferred".to_owned(), effect)]);
        SeedResult {
            scenario: "x".into(),
            seed,
            engine: "jump".into(),
            hash: Some(0),
            events: 0,
            simulated: Duration::ZERO,
            recovered_in: None,
            sagas: Sagas::default(),
            saga_durations: Durations::default(),
            order_latencies: Durations::default(),
            hops: Vec::new(),
            faults: vec![FaultReport { line: 7, what: "pause a".into(), active: Vec::new(), effects }],
            findings: broken.iter().map(finding).collect(),
        }
    }

    #[test]
    fn a_fault_that_was_inert_on_every_seed_fails_the_scenario() {
        let inert = over_all_seeds(&scenario(2, None), vec![seed(0, 0, &[]), seed(1, 0, &[])]);
        assert_eq!(said(&inert.findings), ["the fault `pause` of line 7 had no effect on any of 2 seeds"]);
        assert_eq!(inert.findings[0].kind, FindingKind::Missed);
        assert!(over_all_seeds(&scenario(2, None), vec![seed(0, 0, &[]), seed(1, 3, &[])]).held());
    }

    #[test]
    fn a_power_loss_that_took_no_record_on_any_seed_fails_the_scenario() {
        let mut scenario = scenario(2, None);
        scenario.faults[0].kind =
            FaultKind::CrashBroker { broker: crate::scenario::BrokerChoice::Number(1), power_loss: true };
        let lost = |number, count| {
            let mut seed = seed(number, 1, &[]);
            seed.faults[0].effects.extend((count > 0).then(|| (RECORDS_LOST.to_owned(), count)));
            seed
        };
        let dry = over_all_seeds(&scenario, vec![lost(0, 0), lost(1, 0)]);
        assert_eq!(
            said(&dry.findings),
            ["the power loss of `crash_broker` in line 7 took no record from any disk on any of 2 seeds"]
        );
        assert!(over_all_seeds(&scenario, vec![lost(0, 0), lost(1, 3)]).held());
        assert!(over_all_seeds(&scenario, vec![lost(0, 0)]).held(), "one seed may be chance");
    }

    #[test]
    fn a_power_loss_need_not_take_a_record_where_logs_are_flushed_early() {
        let kind =
            FaultKind::CrashBroker { broker: crate::scenario::BrokerChoice::Number(1), power_loss: true };
        let judged = |name: &str, value: &str, effect| {
            let mut scenario = scenario(2, None);
            scenario.faults[0].kind = kind.clone();
            scenario.cluster.config.insert(name.to_owned(), value.to_owned());
            over_all_seeds(&scenario, vec![seed(0, effect, &[]), seed(1, effect, &[])])
        };
        for (name, value) in [
            ("log.flush.interval.messages", "1"),
            ("log.flush.interval.ms", "10"),
            ("log.flush.scheduler.interval.ms", "10"),
        ] {
            assert!(judged(name, value, 1).held(), "{name}");
            assert!(!judged(name, value, 0).held(), "{name}: a fault that did nothing at all is inert still");
        }
        let default = i64::MAX.to_string();
        assert!(!judged("log.flush.interval.messages", &default, 1).held(), "that is the default");
        assert!(!judged("num.partitions", "4", 1).held());
    }

    #[test]
    fn a_fault_is_not_called_inert_over_fewer_seeds_than_the_file_runs() {
        assert!(over_all_seeds(&scenario(2, None), vec![seed(0, 0, &[])]).held());
        // One seed twice is one seed.
        assert!(over_all_seeds(&scenario(2, None), vec![seed(0, 0, &[]), seed(0, 0, &[])]).held());
    }

    #[test]
    fn breaks_holds_if_that_check_and_no_other_breaks_on_a_seed() {
        let scenario = scenario(2, Some("a"));
        assert!(over_all_seeds(&scenario, vec![seed(0, 1, &[]), seed(1, 1, &["a"])]).held());

        let never = over_all_seeds(&scenario, vec![seed(0, 1, &[]), seed(1, 1, &[])]);
        assert_eq!(said(&never.findings), ["`a` held on all 2 seeds, claimed was that it breaks on one"]);
        assert_eq!(never.findings[0].kind, FindingKind::Missed);

        let other = over_all_seeds(&scenario, vec![seed(0, 1, &["a", "b"]), seed(1, 1, &[])]);
        assert!(!other.held());
        assert_eq!(other.seeds[0].findings.len(), 1);
    }

    #[test]
    fn a_check_that_may_break_need_not_and_excuses_no_other() {
        let mut scenario = scenario(2, Some("a"));
        scenario.expect.may_break = vec!["b".into()];
        assert!(over_all_seeds(&scenario, vec![seed(0, 1, &["a"]), seed(1, 1, &[])]).held());
        assert!(over_all_seeds(&scenario, vec![seed(0, 1, &["a", "b"]), seed(1, 1, &["b"])]).held());
        assert!(!over_all_seeds(&scenario, vec![seed(0, 1, &["b"]), seed(1, 1, &[])]).held());
        assert!(!over_all_seeds(&scenario, vec![seed(0, 1, &["a", "c"]), seed(1, 1, &[])]).held());
    }

    #[test]
    fn each_check_that_breaks_names_must_break_on_a_seed_of_its_own_or_the_same() {
        let mut scenario = scenario(2, None);
        scenario.expect.breaks = vec!["a".into(), "b".into()];
        assert!(over_all_seeds(&scenario, vec![seed(0, 1, &["b"]), seed(1, 1, &["a"])]).held());
        assert!(over_all_seeds(&scenario, vec![seed(0, 1, &["a", "b"]), seed(1, 1, &[])]).held());
        let one = over_all_seeds(&scenario, vec![seed(0, 1, &["a"]), seed(1, 1, &[])]);
        assert_eq!(said(&one.findings), ["`b` held on all 2 seeds, claimed was that it breaks on one"]);
    }
}

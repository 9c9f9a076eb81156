//! What a person and a program read, under snapshot, from results that are made up.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::*;

fn millis(spans: impl IntoIterator<Item = u64>) -> Durations {
    spans.into_iter().map(Duration::from_millis).collect()
}

fn crash(connections: u64) -> FaultReport {
    let effects = if connections > 0 {
        BTreeMap::from([("connections cut".to_owned(), connections), ("tasks killed".to_owned(), 40)])
    } else {
        BTreeMap::new()
    };
    FaultReport {
        line: 12,
        what: "crash_broker broker-1 for 12s".to_owned(),
        active: vec![(Duration::from_secs(5), Duration::from_secs(17))],
        effects,
    }
}

fn seed(seed: u64) -> SeedResult {
    SeedResult {
        scenario: "broker-crash".to_owned(),
        seed,
        engine: "jump".to_owned(),
        hash: Some(0x0123_4567_89ab_cdef + seed),
        events: 48_211,
        simulated: Duration::from_millis(31_250),
        recovered_in: Some(Duration::from_millis(4_002)),
        sagas: Sagas { started: 150, completed: 141, compensated: 9, stuck: 0 },
        saga_durations: millis((1..=150).map(|number| number * 20)),
        order_latencies: millis((1..=141).map(|number| number * 25)),
        hops: vec![Hop {
            name: "payment.commands > payment".to_owned(),
            latencies: millis([3, 4, 5, 9_000]),
        }],
        faults: vec![crash(7)],
        findings: Vec::new(),
    }
}

fn scenario(seeds: Vec<SeedResult>) -> ScenarioResult {
    ScenarioResult {
        name: "broker-crash".to_owned(),
        file: PathBuf::from("scenarios/broker-crash.toml"),
        claim: "every order ends while a broker crashes & comes back".to_owned(),
        seeds,
        findings: Vec::new(),
        failed: Vec::new(),
    }
}

fn charged_twice() -> Finding {
    let charge = |at, event, offset| Evidence {
        at: Some(Duration::from_millis(at)),
        event: Some(event),
        place: Some(format!("payment.commands/0@{offset}")),
        what: "payment-1 charged 4200 under key ch-1".to_owned(),
    };
    Finding {
        kind: FindingKind::Safety,
        check: "charged_exactly_once".to_owned(),
        says: "order `o-17` was charged 2 times, 8400 instead of 4200".to_owned(),
        evidence: vec![
            charge(5_120, 801, 17),
            charge(5_341, 844, 23),
            Evidence {
                at: None,
                event: None,
                place: None,
                what: "the gateway's ledger holds 2 charges".to_owned(),
            },
        ],
    }
}

fn broken() -> ScenarioResult {
    let mut bad = seed(3);
    bad.findings = vec![charged_twice()];
    let mut worse = SeedResult { seed: 4, engine: "jump".to_owned(), ..bad.clone() };
    worse.findings.extend(vec![charged_twice(); 5]);
    scenario(vec![seed(0), bad, worse])
}

fn inert() -> ScenarioResult {
    let mut result = scenario(vec![SeedResult { faults: vec![crash(0)], ..seed(0) }]);
    result.findings = vec![Finding {
        kind: FindingKind::Missed,
        check: "faults_take_effect".to_owned(),
        says: "the fault in line 12, crash_broker broker-1 for 12s, had no effect on any seed".to_owned(),
        evidence: Vec::new(),
    }];
    result
}

fn skipped() -> Skipped {
    Skipped {
        name: "power-loss".to_owned(),
        file: PathBuf::from("scenarios/power-loss.toml"),
        claim: "nothing acknowledged is lost with the power".to_owned(),
        why: "the backend `kafka` cannot take the power from broker-1: it is a process".to_owned(),
    }
}

fn files() -> Vec<String> {
    ["trace.txt", "result.json"].map(|file| format!("reports/out/broker-crash/seed-3/{file}")).to_vec()
}

#[test]
fn a_scenario_that_held_is_one_line() {
    let held = scenario(vec![seed(0), seed(1)]);
    assert_eq!(text::failure(&held, &[]), "");
    insta::assert_snapshot!(text::line(&held));
}

#[test]
fn a_scenario_without_a_result_did_not_hold() {
    assert!(text::line(&scenario(Vec::new())).starts_with("not run "));
}

#[test]
fn a_broken_claim_shows_claim_evidence_files_and_replay_in_this_order() {
    let shown = text::failure(&broken(), &files());
    let places: Vec<usize> = ["claim ", "evidence ", "files ", "replay "]
        .map(|word| shown.find(word).unwrap_or_else(|| panic!("no `{word}` in {shown}")))
        .to_vec();
    assert!(places.is_sorted(), "{shown}");
    insta::assert_snapshot!(shown);
}

#[test]
fn what_does_not_fit_a_screen_is_counted() {
    let mut result = broken();
    result.seeds.remove(1);
    result.seeds[1].findings[0].evidence = vec![charged_twice().evidence[0].clone(); 30];
    insta::assert_snapshot!(text::failure(&result, &[]));
}

#[test]
fn a_fault_without_effect_is_called_inert() {
    let result = inert();
    insta::assert_snapshot!(format!("{}{}", text::failure(&result, &[]), text::tables(&[result])));
}

#[test]
fn the_tables_keep_saga_duration_and_order_latency_apart() {
    insta::assert_snapshot!(text::tables(&[scenario(vec![seed(0), seed(1)]), inert()]));
}

#[test]
fn nothing_measured_shows_as_a_dash() {
    let nothing = SeedResult {
        sagas: Sagas::default(),
        saga_durations: Durations::default(),
        order_latencies: Durations::default(),
        hops: Vec::new(),
        faults: Vec::new(),
        ..seed(0)
    };
    insta::assert_snapshot!(text::tables(&[scenario(vec![nothing])]));
}

/// On real Kafka: a bit slower, and not to be had again by its hash.
fn real(seed_number: u64) -> SeedResult {
    SeedResult {
        engine: "kafka".to_owned(),
        hash: None,
        order_latencies: millis((1..=141).map(|number| number * 27)),
        ..seed(seed_number)
    }
}

#[test]
fn two_worlds_stand_side_by_side() {
    let alone =
        ScenarioResult { name: "calm-sea".into(), file: "calm-sea.toml".into(), ..scenario(vec![real(0)]) };
    let (simulated, real) = ([scenario(vec![seed(0), seed(1)])], [scenario(vec![real(0)]), alone]);
    insta::assert_snapshot!(text::side_by_side(&simulated, &real));
}

#[test]
fn a_run_on_real_kafka_has_no_hash_and_is_run_again_in_place_of_replayed() {
    let result = scenario(vec![real(7)]);
    let run = text::run(&result, &result.seeds[0]);
    assert!(run.contains("events, hash -") && run.contains("in real time"), "{run}");
    assert_eq!(json::seed(&result, &result.seeds[0])["hash"], serde_json::Value::Null);
    let command = result.replay_command(&result.seeds[0]);
    assert_eq!(command, "shakedown run scenarios/broker-crash.toml --backend kafka --seeds 7..8");
}

#[test]
fn a_replay_prints_hash_and_size() {
    let result = scenario(vec![seed(7)]);
    insta::assert_snapshot!(text::run(&result, &result.seeds[0]));
}

#[test]
fn another_engine_stands_in_the_replay_command() {
    let result = scenario(Vec::new());
    let other = SeedResult { engine: "turmoil".to_owned(), ..seed(7) };
    let command = result.replay_command(&other);
    assert_eq!(command, "shakedown replay scenarios/broker-crash.toml --seed 7 --engine turmoil");
}

/// Seed 0 held; seeds 1 to 3 panicked.
fn failed() -> ScenarioResult {
    let failed = |seed| FailedSeed { seed, engine: "jump".to_owned(), why: format!("panicked: \"{seed}\"") };
    ScenarioResult { failed: [1, 2, 3].map(failed).to_vec(), ..scenario(vec![seed(0)]) }
}

#[test]
fn a_seed_without_a_result_is_no_claim_that_held() {
    let result = failed();
    assert!(!result.held() && !result.is_broken());
    insta::assert_snapshot!(format!("{}{}", text::line(&result), text::failure(&result, &[])));
    let json = json::results(std::slice::from_ref(&result), &[]);
    assert_eq!((&json["held"], &json["scenarios"][0]["failed"][2]["seed"]), (&false.into(), &3.into()));
    let junit = junit::results(&[result], &[]);
    assert!(junit.contains("tests=\"5\" failures=\"0\" errors=\"3\""), "{junit}");
    assert!(
        junit.contains("<error message=\"panicked: &quot;2&quot;\">replay: shakedown replay "),
        "{junit}"
    );
}

#[test]
fn programs_get_json() {
    let json = json::results(&[broken(), inert()], &[skipped()]);
    insta::assert_snapshot!(format!("{json:#}"));
}

#[test]
fn ci_servers_get_junit() {
    insta::assert_snapshot!(junit::results(&[broken(), inert()], &[skipped()]));
}

//! Whole runs of the toy system: phases, findings, and the same bytes again.

mod toy;

use std::time::Duration;

use reports::FindingKind;
use shakedown_harness::recorder::{Detail, Trace};
use shakedown_harness::scenario::Scenario;
use toy::{Toy, broken, run, scenario};
use world::Engine;

#[test]
fn a_run_in_calm_weather_holds_and_measures() {
    let result = run(&scenario(20, ""), 1);
    assert_eq!(result.findings, vec![], "{result:#?}");
    assert_eq!((result.sagas.started, result.sagas.completed, result.sagas.stuck), (20, 20, 0));
    assert_eq!(result.saga_durations.count(), 20);
    assert!(result.recovered_in.is_some());
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    let scenario = scenario(20, "");
    assert_eq!(run(&scenario, 7), run(&scenario, 7));
    assert_ne!(run(&scenario, 7).hash, run(&scenario, 8).hash);
}

#[test]
fn one_flipped_bit_of_one_record_changes_the_hash_and_nothing_else() {
    let (right, wrong) = (run(&scenario(20, ""), 1), flawed("errs_in_one_bit", ""));
    assert_ne!(right.hash, wrong.hash);
    assert_eq!(reports::SeedResult { hash: right.hash, ..wrong }, right);
}

/// A flaw of `echo`, and what the run says of it.
fn flawed(flaw: &str, rest: &str) -> reports::SeedResult {
    run(&scenario(20, &format!("[services.echo]\nnaive = [\"{flaw}\"]\n{rest}")), 1)
}

#[test]
fn a_planted_double_effect_is_found_with_its_evidence() {
    let duplicates = "[[fault]]\nduring = \"0s..3s\"\nduplicate_records = { topic = \"questions\", probability = \"50%\" }\n";
    let result = flawed("stamps_again", duplicates);
    assert_eq!(broken(&result), ["stamped_once"]);
    let finding = &result.findings[0];
    assert_eq!(finding.kind, FindingKind::Safety);
    assert!(finding.says.contains("has 2 stamps"), "{}", finding.says);
    assert!(finding.evidence.len() >= 2 && finding.evidence.iter().all(|evidence| evidence.at.is_some()));

    let tolerant = flawed("stamps_again", &format!("{duplicates}[expect]\nexactly_once = false\n"));
    assert_eq!(broken(&tolerant), Vec::<&str>::new());
}

#[test]
fn a_system_that_never_answers_is_stuck_and_each_saga_is_named() {
    let result = flawed("never_answers", "[expect]\nrecovers_within = \"20s\"\n");
    assert_eq!(broken(&result), ["stuck_sagas"]);
    assert_eq!(result.findings[0].kind, FindingKind::NoProgress);
    assert_eq!(result.findings[0].says, "20 of 20 sagas have no end, claimed was 0");
    assert!(
        result.findings[0].evidence.iter().any(|evidence| evidence.what.contains("question 7 was asked"))
    );
    assert_eq!(result.recovered_in, None);
}

#[test]
fn a_question_that_is_committed_before_it_is_handled_is_lost_in_a_crash() {
    let crash = "[[fault]]\nat = \"1s\"\ncrash_service = { service = \"echo\", down_for = \"1s\" }\n";
    assert_eq!(broken(&run(&scenario(20, crash), 1)), Vec::<&str>::new(), "it is the flaw, not the crash");
    assert_eq!(broken(&flawed("commits_first", crash)), ["stuck_sagas"]);
}

#[test]
fn a_system_whose_groups_have_not_read_on_is_not_at_rest() {
    let result = flawed("never_commits", "[expect]\nrecovers_within = \"20s\"\n");
    assert_eq!(broken(&result), ["recovers_within"]);
    let says = &result.findings[0].says;
    assert!(says.starts_with("the system did not come to rest: group echo is at 0 of "), "{says}");
    assert_eq!(result.sagas.completed, 20, "every question has its answer all the same");
}

#[test]
fn a_run_ends_when_the_system_was_quiet_for_two_seconds() {
    let crash = "[[fault]]\nat = \"1s\"\ncrash_service = { service = \"sink\", down_for = \"1s\" }\n";
    let (result, text) = traced(&scenario(60, crash));
    let time_of = |note: &str| {
        let line = text.lines().find(|line| line.contains(note)).unwrap_or_else(|| panic!("no `{note}`"));
        let seconds = line.trim_start_matches('[').split('s').next().map(str::trim);
        Duration::from_secs_f64(seconds.and_then(|seconds| seconds.parse().ok()).expect("a line has a time"))
    };
    let (healed, rest) = (time_of("world note all is healed"), time_of("world note the system is at rest"));
    let took = result.recovered_in.expect("it came to rest");
    assert!(took > Duration::ZERO, "the dead consumer's session must be waited out");
    assert_eq!(rest - healed, took + Duration::from_secs(2));
}

#[test]
fn a_commit_ahead_of_what_was_read_is_found_in_a_run() {
    let result = flawed("commits_ahead", "[expect]\nrecovers_within = \"20s\"\n");
    let found = result.findings.iter().find(|finding| finding.check == "commits_follow_reads");
    let finding = found.unwrap_or_else(|| panic!("{:#?}", result.findings));
    assert_eq!(finding.kind, FindingKind::Safety);
    assert!(finding.says.starts_with("echo-1 commits questions/"), "{}", finding.says);
}

#[test]
fn an_acknowledged_record_that_a_broker_loses_with_its_power_is_found() {
    // One replica, and nothing flushed: Kafka promises nothing here, and the check must see what that means.
    let power_loss = "[[fault]]\nat = \"800ms\"\n\
                      crash_broker = { leader_of = \"questions/0\", down_for = \"1s\", power_loss = true }\n";
    let result = run(&scenario(20, power_loss), 1);
    let found = result.findings.iter().find(|finding| finding.check == "no_acknowledged_loss");
    let finding = found.unwrap_or_else(|| panic!("{:#?}", result.findings));
    let [sent, acknowledged, read, ..] = finding.evidence.as_slice() else { panic!("{finding:#?}") };
    assert!(sent.at < acknowledged.at && acknowledged.at < read.at, "{finding:#?}");
    assert!(acknowledged.place.as_ref().is_some_and(|place| place.contains("/0@")), "{finding:#?}");
}

#[test]
fn a_group_that_never_settles_is_named_and_nothing_is_sent() {
    let result = flawed("never_joins", "");
    assert_eq!(broken(&result), ["start"]);
    assert_eq!(result.findings[0].kind, FindingKind::NoProgress);
    assert_eq!(result.findings[0].evidence[0].what, "group echo of questions is not stable");
    assert_eq!(result.sagas.started, 0);
}

#[test]
fn a_system_that_comes_to_rest_late_misses_recovers_within_only() {
    // The new member waits until the dead one's session of 6 s is over.
    let crash = "[[fault]]\nat = \"900ms\"\ncrash_service = { service = \"sink\", down_for = \"100ms\" }\n";
    let mut scenario = scenario(20, crash);
    // Shorter than a file may say: that is refused, and this test wants to see it missed.
    scenario.expect.recovers_within = Duration::from_secs(1);
    let result = run(&scenario, 1);
    assert_eq!(broken(&result), ["recovers_within"], "{result:#?}");
    assert_eq!(result.sagas.stuck, 0);
}

#[test]
fn each_claim_of_a_rate_or_a_latency_can_be_missed() {
    for (key, claim) in [
        ("saga_success_rate", "< 50%"),
        ("completed_sagas", "3"),
        ("compensated_sagas", "3"),
        ("order_latency_p95", "<= 1ms"),
        ("saga_duration_mean", "<= 1ms"),
    ] {
        let claim = if claim == "3" { claim.to_owned() } else { format!("\"{claim}\"") };
        let result = run(&scenario(20, &format!("[expect]\n{key} = {claim}\n")), 1);
        assert_eq!(broken(&result), [key], "{:#?}", result.findings);
        assert_eq!(result.findings[0].kind, FindingKind::Missed);
    }
}

#[test]
fn a_panic_is_an_error_of_the_run_with_its_seed() {
    let flawed = scenario(20, "[services.echo]\nnaive = [\"panics\"]\n");
    let error = shakedown_harness::run(&Toy, &flawed, 5, Engine::Jump, None).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("scenario `toy` panicked with seed 5 on engine `jump`: "), "{text}");
    assert!(text.ends_with("a planted panic"), "{text}");
    // And the thread can run another.
    assert_eq!(broken(&run(&scenario(5, ""), 5)), Vec::<&str>::new());
}

/// A run with seed 1, and its trace.
#[expect(clippy::disallowed_methods, reason = "the trace is a file")]
fn traced(scenario: &Scenario) -> (reports::SeedResult, String) {
    let path = tempfile::NamedTempFile::new().unwrap();
    let trace = Trace::new(path.reopen().unwrap(), Detail::Events);
    let result = shakedown_harness::run(&Toy, scenario, 1, Engine::Jump, Some(trace)).unwrap();
    (result, std::fs::read_to_string(path.path()).unwrap())
}

#[test]
fn a_trace_holds_every_event_and_its_last_line_the_hash() {
    let (result, text) = traced(&scenario(5, ""));
    assert_eq!(text.lines().count() as u64, result.events);
    let plan = "world note scenario toy, seed 1, engine jump, latency";
    assert!(text.lines().any(|line| line.contains(plan)), "{}", text.lines().take(5).collect::<String>());
    assert!(text.lines().last().unwrap().ends_with(&format!("#{:08x}", result.hash.unwrap() >> 32)));
    // Looking changes nothing.
    assert_eq!(result, run(&scenario(5, ""), 1));
}

#[test]
fn results_of_a_sweep_do_not_depend_on_the_number_of_jobs() {
    let (one, other) = (scenario(5, ""), scenario(6, ""));
    let work = [
        shakedown_harness::Work { scenario: &one, seeds: &[3, 1, 2] },
        shakedown_harness::Work { scenario: &other, seeds: &[1] },
    ];
    let swept = |jobs: usize| {
        let jobs = jobs.try_into().unwrap();
        let swept = shakedown_harness::sweep(&Toy, &work, Engine::Jump, jobs, &|_, _| {});
        swept.into_iter().map(|swept| swept.result).collect::<Vec<_>>()
    };
    let alone = swept(1);
    assert_eq!(alone, swept(4));
    assert_eq!(alone[0].seeds.iter().map(|seed| seed.seed).collect::<Vec<_>>(), [3, 1, 2]);
    assert!(alone.iter().all(reports::ScenarioResult::held));
}

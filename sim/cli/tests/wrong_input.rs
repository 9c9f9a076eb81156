//! Wrong input: a clear error, the documented exit code, and nothing is run.

mod common;

use common::{Outcome, Place, shakedown};

fn refused(code: i32, outcome: &Outcome) {
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
    assert_eq!(outcome.out, "", "something was run");
}

macro_rules! wrong_files {
    ($($claim:ident: $text:expr;)*) => {$(
        #[test]
        fn $claim() {
            let place = Place::with("wrong", &format!("claim = \"a claim\"\n{}", $text));
            let outcome = place.run(&[]);
            refused(65, &outcome);
            insta::assert_snapshot!(place.anonymous(&outcome.err));
        }
    )*};
}

wrong_files! {
    a_misspelt_service_is_refused: "[services.paymnet]\nreplicas = 2";
    an_unknown_fault_is_refused: "[[fault]]\nat = \"5s\"\ncrash_brokr = { broker = 1, down_for = \"3s\" }";
    a_negative_duration_is_refused: "[[fault]]\nat = \"-5s\"\ncrash_broker = { broker = 1, down_for = \"3s\" }";
    a_recovery_shorter_than_the_detection_is_refused:
        "[[fault]]\nat = \"5s\"\ncrash_service = { service = \"payment\", down_for = \"1s\" }\n[expect]\nrecovers_within = \"8s\"";
    hosts_that_match_nothing_are_refused:
        "[[fault]]\nat = \"5s\"\nhold = { from = [\"payment-7\"], to = [\"broker-*\"], for = \"1s\" }";
    an_unknown_check_is_refused: "[expect]\nbreaks = \"charged_once\"";
    more_replicas_than_brokers_are_refused: "[cluster]\nreplication_factor = 4";
    transactions_are_refused_so_far: "[services.payment]\ndelivery = \"transactions\"";
}

#[test]
fn one_wrong_file_keeps_the_others_from_running() {
    let place = Place::with("wrong", "claim = \"a claim\"\nsed = 3");
    let outcome = shakedown(["run".as_ref(), "scenarios/calm-sea.toml".as_ref(), place.file.as_os_str()]);
    refused(65, &outcome);
}

#[test]
fn a_missing_file_is_refused() {
    let outcome = shakedown(["run", "scenarios/no-such.toml"]);
    refused(66, &outcome);
    insta::assert_snapshot!(outcome.err);
}

#[test]
fn a_folder_without_a_scenario_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let outcome = shakedown(["run".as_ref(), folder.path().as_os_str()]);
    refused(66, &outcome);
    insta::assert_snapshot!(outcome.err.replace(&folder.path().display().to_string(), "FOLDER"));
}

#[test]
fn seeds_that_end_before_they_begin_are_refused() {
    let outcome = shakedown(["run", "scenarios/calm-sea.toml", "--seeds", "9..3"]);
    refused(2, &outcome);
    insta::assert_snapshot!(outcome.err);
}

#[test]
fn an_unknown_engine_is_refused() {
    refused(2, &shakedown(["run", "scenarios/calm-sea.toml", "--engine", "jmup"]));
}

#[test]
fn commands_that_later_work_brings_are_unknown() {
    refused(2, &shakedown(["shrink"]));
}

#[test]
fn worlds_stand_side_by_side_only_in_the_text_of_a_run_on_real_kafka() {
    let run = |more: &[&str]| {
        let outcome = shakedown([&["run", "scenarios/calm-sea.toml", "--side-by-side"], more].concat());
        refused(2, &outcome);
        outcome.err
    };
    assert!(run(&[]).contains("`--side-by-side` is for `--backend kafka`"));
    for format in ["json", "junit"] {
        let said = run(&["--backend", "kafka", "--format", format]);
        assert!(said.contains("`--side-by-side` is a table for people"), "{said}");
    }
}

#[cfg(not(feature = "kafka"))]
#[test]
fn real_kafka_is_refused_with_what_to_do_instead() {
    let outcome = shakedown(["run", "scenarios/calm-sea.toml", "--backend", "kafka"]);
    refused(69, &outcome);
    insta::assert_snapshot!(outcome.err);
}

#[test]
fn replaying_a_missing_file_is_refused() {
    refused(66, &shakedown(["replay", "scenarios/no-such.toml", "--seed", "7"]));
}

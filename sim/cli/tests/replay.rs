//! The same binary, scenario and seed: the same bytes, in another process, however many run at once.

#![expect(clippy::disallowed_methods, reason = "reads the trace of a real process")]

mod common;

use std::fs;

use common::{Outcome, shakedown};

const FILE: &str = "scenarios/broker-crash.toml";

fn held(outcome: Outcome) -> String {
    assert_eq!(outcome.code, Some(0), "{}{}", outcome.out, outcome.err);
    outcome.out
}

#[test]
fn a_seed_replays_to_the_same_hash_and_trace() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let replay = |name: &str| {
        let trace = folder.path().join(name);
        let shown = held(shakedown([
            "replay".as_ref(),
            FILE.as_ref(),
            "--seed".as_ref(),
            "7".as_ref(),
            "--trace".as_ref(),
            trace.as_os_str(),
        ]));
        (shown, fs::read(trace).expect("the trace was written"))
    };
    let (one, other) = (replay("one"), replay("other"));
    assert!(one.0.contains("events, hash "), "{}", one.0);
    assert_eq!(one.0, other.0);
    assert!(one.1 == other.1, "the traces differ");
    assert!(one.1.len() > 10_000, "the trace is all but empty");
}

#[test]
fn another_seed_is_another_run() {
    let replay = |seed| held(shakedown(["replay", FILE, "--seed", seed]));
    let hash = |shown: &str| shown.lines().find_map(|line| line.split(", hash ").nth(1)).map(str::to_owned);
    let (one, other) = (hash(&replay("1")), hash(&replay("2")));
    assert!(one.is_some() && one != other, "{one:?} and {other:?}");
}

#[test]
fn results_do_not_depend_on_the_number_of_jobs() {
    for format in ["text", "json", "junit"] {
        let run = |jobs| {
            held(shakedown([
                "run",
                "scenarios/payment-declines.toml",
                "--seeds",
                "3",
                "--jobs",
                jobs,
                "--format",
                format,
            ]))
        };
        assert_eq!(run("1"), run("3"));
    }
}

#[test]
fn two_processes_agree_on_every_event() {
    let outcome = shakedown(["check-determinism", "scenarios/duplicate-delivery.toml", "--seeds", "2"]);
    insta::assert_snapshot!(held(outcome));
}

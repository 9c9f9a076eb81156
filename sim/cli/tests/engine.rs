//! What the reference engine cannot bring is refused by name, and nothing is run.

mod common;

use common::{Outcome, Place, shakedown};

const PAUSE: &str = "claim = \"a claim\"\n[run]\norders = 5\n[[fault]]\nat = \"1s\"\n\
    pause = { host = \"payment-1\", for = \"1s\" }\n";

fn refused(outcome: &Outcome) {
    assert_eq!(outcome.code, Some(69), "{outcome:?}");
    assert_eq!(outcome.out, "", "something was run");
    let says = "error: the engine `turmoil` cannot pause payment-1; use the engine `jump` (`pause` in ";
    assert!(
        outcome.err.starts_with(says) && outcome.err.ends_with("pause.toml, line 4)\n"),
        "{}",
        outcome.err
    );
}

#[test]
fn a_fault_that_turmoil_cannot_bring_is_refused_once_whatever_the_seeds() {
    let place = Place::with("pause", PAUSE);
    refused(&place.run(&["--engine", "turmoil", "--seeds", "3"]));
    assert_eq!(place.run(&["--seeds", "1"]).code, Some(0), "the engine `jump` refuses nothing");
}

#[test]
fn one_scenario_that_an_engine_cannot_bring_keeps_the_others_from_running() {
    let place = Place::with("pause", PAUSE);
    refused(&place.run(&["scenarios/calm-sea.toml", "--engine", "turmoil"]));
}

#[test]
fn replay_and_check_determinism_refuse_alike() {
    let place = Place::with("pause", PAUSE);
    let file = place.file.to_str().expect("a temporary folder has a plain name");
    refused(&shakedown(["replay", file, "--seed", "1", "--engine", "turmoil"]));
    refused(&shakedown(["check-determinism", file, "--engine", "turmoil"]));
}

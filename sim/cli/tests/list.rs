//! `list` and the help: what there is to choose from.

mod common;

use common::{Outcome, shakedown};

fn shown(outcome: Outcome) -> String {
    assert_eq!(outcome.code, Some(0), "{}{}", outcome.out, outcome.err);
    outcome.out
}

#[test]
fn everything_is_listed_by_name() {
    for what in ["faults", "checks", "services", "scenarios"] {
        insta::assert_snapshot!(what, shown(shakedown(["list", what])));
    }
}

#[test]
fn the_help_names_commands_and_exit_codes() {
    insta::assert_snapshot!("help", shown(shakedown(["--help"])));
    insta::assert_snapshot!("help_run", shown(shakedown(["run", "--help"])));
}

//! A fault without effect proves nothing: a scenario whose fault was inert on every seed fails.

mod common;

use common::Place;

/// The mail provider has nothing to say to the carrier.
fn inert() -> Place {
    let text = "claim = \"a claim\"\n[run]\norders = 5\nseeds = 2\n[[fault]]\nat = \"1s\"\n\
        hold = { from = [\"mail\"], to = [\"carrier\"], for = \"1s\" }\n";
    Place::with("inert", text)
}

#[test]
fn a_fault_that_is_inert_on_every_seed_is_missed_and_its_line_named() {
    let outcome = inert().run(&[]);
    assert_eq!(outcome.code, Some(104), "{}{}", outcome.out, outcome.err);
    let says =
        "  broken    inert_fault, over all seeds: the fault `hold` of line 5 had no effect on any of 2 seeds";
    assert!(outcome.out.contains(says), "{}", outcome.out);
}

#[test]
fn it_is_not_judged_over_fewer_seeds_than_the_file_runs_but_shown() {
    for seeds in ["1", "7..8"] {
        let outcome = inert().run(&["--seeds", seeds]);
        assert_eq!(outcome.code, Some(0), "{}{}", outcome.out, outcome.err);
        let fault = outcome.out.lines().find(|line| line.contains("hold mail -> carrier for 1s"));
        assert!(
            fault.is_some_and(|line| line.contains("0 of 1") && line.contains("inert")),
            "{}",
            outcome.out
        );
    }
}

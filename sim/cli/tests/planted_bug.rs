//! A bug that many payment services have had, planted: each delivery of a command charges, under a key of its own.

#![expect(clippy::disallowed_methods, reason = "reads and writes scenario files")]

mod common;

use std::fs;
use std::path::Path;

use common::{Outcome, Place, shakedown, top};

const NAIVE: &str = "\n[services.payment]\nnaive = [\"no_inbox\", \"fresh_keys\"]\n";

/// The README's example.
fn duplicate_delivery_with_a_naive_payment_service() -> Place {
    let text = fs::read_to_string(top().join("examples/charged-twice.toml"));
    Place::with("charged-twice", &text.expect("the example is there"))
}

/// The part of a failure that tells what is wrong with the seed.
fn findings(outcome: &Outcome) -> Vec<&str> {
    let told =
        |line: &&str| ["  broken ", "  evidence ", "           "].iter().any(|start| line.starts_with(start));
    let findings = outcome.out.lines().skip_while(|line| !line.starts_with("  claim"));
    findings.take_while(|line| !line.starts_with("  files")).filter(told).collect()
}

fn line<'a>(outcome: &'a Outcome, word: &str) -> &'a str {
    let start = format!("  {word:<9} ");
    let line = outcome.out.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap_or_else(|| panic!("no line `{word}`\n{}{}", outcome.out, outcome.err))
}

#[test]
fn a_double_charge_is_found_shown_and_replayed() {
    let place = duplicate_delivery_with_a_naive_payment_service();
    let outcome = place.run(&["--seeds", "1"]);
    assert_eq!(outcome.code, Some(100), "{}{}", outcome.out, outcome.err);

    // In this order: the claim, the evidence, the files, the replay command.
    let words = ["claim", "broken", "evidence", "files", "replay"];
    let places = words.map(|word| outcome.out.find(&format!("\n  {word:<9} ")));
    assert!(places.is_sorted() && places[0].is_some(), "{}", outcome.out);
    assert!(line(&outcome, "claim").starts_with("no order is"), "{}", outcome.out);
    // Which order, which charges, when.
    let broken = line(&outcome, "broken");
    assert!(broken.starts_with("charged_exactly_once, seed 0: order o-"), "{broken}");
    let order =
        broken.split_whitespace().find(|word| word.starts_with("o-")).expect("the finding names an order");
    let charge = |line: &&&str| line.contains(" s  ") && line.contains(&format!("captured for {order},"));
    assert!(findings(&outcome).iter().filter(charge).count() >= 2, "{}", outcome.out);

    let files: Vec<&str> = outcome
        .out
        .lines()
        .skip_while(|line| !line.starts_with("  files"))
        .take_while(|line| !line.starts_with("  replay"))
        .filter_map(|line| line.split_whitespace().last())
        .collect();
    assert_eq!(files.len(), 2, "{}", outcome.out);
    for file in files {
        assert!(
            fs::metadata(Path::new(file)).expect("a file that is named is there").len() > 0,
            "{file} is empty"
        );
    }

    let command = line(&outcome, "replay");
    let replayed = shakedown(command.split_whitespace().skip(1));
    assert_eq!(replayed.code, Some(100), "{}{}", replayed.out, replayed.err);
    assert_eq!(findings(&outcome), findings(&replayed));
}

/// A notification service that knows neither its own messages nor its own calls tells customers twice, and does no other
/// harm.
fn duplicate_delivery_breaks(check: &str) -> Outcome {
    let file = top().join("scenarios/duplicate-delivery.toml");
    let text = fs::read_to_string(file).expect("the scenario is there");
    let text = text.replace("[expect]\n", &format!("[expect]\nbreaks = \"{check}\"\n"));
    let naive = NAIVE.replace("payment", "notification");
    Place::with("turned-round", &format!("{text}{naive}").replace("seeds = 10", "seeds = 1")).run(&[])
}

#[test]
fn a_claim_that_a_check_breaks_holds_if_it_does() {
    let outcome = duplicate_delivery_breaks("told_once");
    assert_eq!(outcome.code, Some(0), "{}{}", outcome.out, outcome.err);
}

#[test]
fn a_claim_that_a_check_breaks_is_broken_by_another() {
    let outcome = duplicate_delivery_breaks("charged_exactly_once");
    assert_eq!(outcome.code, Some(100), "{}{}", outcome.out, outcome.err);
    assert!(line(&outcome, "broken").starts_with("breaks, over all seeds: "), "{}", outcome.out);
}

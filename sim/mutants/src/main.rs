//! The mutant table: breaks the simulated Kafka and its client on purpose, one feature at a time, and sees the tests
//! notice.
//!
//! `cargo run --release -p shakedown-mutants [NAME…]` takes every line of the [`table`], or the named ones. The cases
//! that a line names must go red while its feature is off. It prints one line a mutant and fails
//! - with 1 if a mutant survives: a case that must notice stayed green;
//! - with 2 if the table is out of date (a place that is not in its file exactly once, a case that no suite has), if the
//!   mutants do not compile, or if a suite is red with every feature on.
//!
//! All mutants are built at once: each place becomes `if mutant("name") { broken } else { as it was }` in a copy of the
//! sources, and an environment variable switches one of them on in each run of the tests (mutant schemata, after Untch,
//! Offutt and Harrold). So the table costs two builds and some seconds a mutant. The copy and its build are in
//! `target/mutants`; the sources themselves are never changed.
//!
//! Start reading at [`table`], which is what there is to maintain; then [`source`], which makes the copy, and [`suite`],
//! which builds and runs tests. Deliberately absent: mutants made by a machine from the syntax. Each line is a feature
//! that Kafka's users know, and the cases that claim it.

#![expect(clippy::disallowed_methods, reason = "copies files, builds them and runs what was built")]

mod source;
mod suite;
mod table;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use source::Tree;
use suite::{Run, Suite, Suites};
use table::Mutant;

/// A suite may take so many times what it takes with every feature on, and [`PATIENCE`] more.
const LONGER: u32 = 5;
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    match run(&wanted) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(survivors) => {
            eprintln!("{survivors} survive: the tests do not notice that a feature is gone");
            ExitCode::from(1)
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Runs the wanted mutants, or all; gives how many survive.
fn run(wanted: &[String]) -> Result<usize, String> {
    let all = table::mutants();
    if let Some(unknown) = wanted.iter().find(|name| all.iter().all(|mutant| mutant.name != name.as_str())) {
        return Err(format!("there is no mutant `{unknown}`; their names are in sim/mutants/src/table"));
    }
    let chosen: Vec<&Mutant> = all
        .iter()
        .filter(|mutant| wanted.is_empty() || wanted.iter().any(|name| name == mutant.name))
        .collect();

    let tree = Tree::make(&source::repository(), &all)?;
    let suites = Suites::build(&tree, chosen.iter().flat_map(|mutant| mutant.suites()))?;
    let sound = with_every_feature(&suites, &chosen)?;
    let mut survivors = 0;
    for mutant in &chosen {
        if !is_caught(&suites, mutant, &sound)? {
            survivors += 1;
        }
    }
    println!("{} of {} mutants are caught", chosen.len() - survivors, chosen.len());
    Ok(survivors)
}

/// Runs each suite as it is: it must be green, and have the cases that the table names. Gives how long each took.
fn with_every_feature(suites: &Suites, chosen: &[&Mutant]) -> Result<BTreeMap<Suite, Duration>, String> {
    let mut took = BTreeMap::new();
    for suite in suites.all() {
        let began = now();
        let run = suites.run(suite, None, Duration::from_secs(600))?;
        let span = now() - began;
        if !run.red.is_empty() || !run.finished {
            let red = &run.red;
            return Err(format!(
                "`{suite}` is not green with every feature on; red: {red:?}\n{}",
                run.output
            ));
        }
        println!(
            "{:<9} {:<44} {:>6.1} s  {} cases",
            "green",
            suite.to_string(),
            span.as_secs_f64(),
            run.green.len()
        );
        let missing = chosen.iter().flat_map(|mutant| {
            let cases = mutant.red.iter().filter(|case| Suite::of(case) == suite);
            cases.filter(|case| !run.green.contains(**case)).map(move |case| (mutant.name, case))
        });
        if let Some((name, case)) = missing.into_iter().next() {
            return Err(format!(
                "mutant `{name}` names `{case}`, which `{suite}` does not have; mend the table"
            ));
        }
        took.insert(suite, span);
    }
    Ok(took)
}

/// Switches one feature off; whether every case that must notice does.
fn is_caught(suites: &Suites, mutant: &Mutant, sound: &BTreeMap<Suite, Duration>) -> Result<bool, String> {
    let began = now();
    let mut seen = Run::default();
    for suite in mutant.suites() {
        seen.add(suites.run(suite, Some(mutant.name), sound[&suite] * LONGER + PATIENCE)?);
    }
    let missed: Vec<_> = mutant.red.iter().filter(|case| !seen.red.contains(**case)).collect();
    let verdict = if missed.is_empty() { "caught" } else { "SURVIVES" };
    let hangs = if seen.finished { "" } else { ", and hangs" };
    let seconds = (now() - began).as_secs_f64();
    println!("{verdict:<9} {:<44} {seconds:>6.1} s  {} red{hangs}", mutant.name, seen.red.len());
    if !missed.is_empty() {
        println!("          {}", mutant.breaks);
        println!("          still green: {missed:?}");
    }
    for case in &seen.red {
        let named = if mutant.red.contains(&case.as_str()) { "*" } else { " " };
        println!("        {named} {case}");
    }
    Ok(missed.is_empty())
}

#[expect(clippy::disallowed_methods, reason = "measures how long real tests take")]
fn now() -> Instant {
    Instant::now()
}

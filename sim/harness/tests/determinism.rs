//! The same run in two processes: this program runs itself twice.
//!
//! A harness of its own, because a child process must write a run to its standard output and nothing else.

#![expect(clippy::disallowed_methods, reason = "a program with a command line")]

mod toy;

use std::process::Command;

use libtest_mimic::{Arguments, Failed, Trial};
use shakedown_harness::determinism::{CheckError, Difference, check, child};
use shakedown_harness::recorder::Detail;
use toy::{Toy, scenario};
use world::Engine;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, word, flaw, seed, detail] = args.as_slice()
        && word == "child"
    {
        one_run(flaw, seed.parse().expect("a seed"), detail.parse().expect("a detail"));
        return;
    }
    let trials = vec![
        Trial::test("a_seed_runs_alike_in_two_processes", a_seed_runs_alike_in_two_processes),
        Trial::test(
            "a_walk_over_a_hash_map_that_reaches_the_trace_is_caught",
            a_walk_over_a_hash_map_that_reaches_the_trace_is_caught,
        ),
        Trial::test("a_child_that_panics_is_an_error", a_child_that_panics_is_an_error),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn one_run(flaw: &str, seed: u64, detail: Detail) {
    let naive =
        if flaw == "none" { String::new() } else { format!("[services.echo]\nnaive = [\"{flaw}\"]\n") };
    let done = child(&Toy, &scenario(10, &naive), seed, Engine::Jump, detail, std::io::stdout());
    if let Err(error) = done {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn checked(flaw: &str) -> Result<Option<Difference>, CheckError> {
    check(|detail| {
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.args(["child", flaw, "7", &detail.to_string()]);
        command
    })
}

fn a_seed_runs_alike_in_two_processes() -> Result<(), Failed> {
    match checked("none")? {
        None => Ok(()),
        Some(difference) => Err(difference.to_string().into()),
    }
}

fn a_walk_over_a_hash_map_that_reaches_the_trace_is_caught() -> Result<(), Failed> {
    let difference = checked("walks_a_hash_map")?.ok_or("two walks over 32 keys came out alike")?;
    let named = [&difference.first, &difference.second]
        .iter()
        .all(|line| line.as_ref().is_some_and(|line| line.contains("echo-1 note questions [")));
    match named && difference.event.is_some() {
        true => Ok(()),
        false => Err(format!("the event is not named: {difference}").into()),
    }
}

fn a_child_that_panics_is_an_error() -> Result<(), Failed> {
    match checked("panics") {
        Err(CheckError::Child(status)) if status.code() == Some(1) => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

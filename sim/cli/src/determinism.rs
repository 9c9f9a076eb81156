//! `check-determinism`: each seed in two processes, compared; and the hidden command `child`, which is one of the two.

use std::env;
use std::io;
use std::path::Path;
use std::process::Command;

use harness::determinism::{self, CheckError};
use harness::recorder::Detail;
use harness::scenario::Scenario;
use harness::system::System;

use crate::args::{ChildArgs, DeterminismArgs};
use crate::run::failed_to_run;
use crate::{cannot_bring, exit, invalid, terminal};

pub(crate) fn check(args: &DeterminismArgs, system: &dyn System) -> u8 {
    let scenarios = match Scenario::load_all(&args.paths, &harness::vocabulary(system)) {
        Ok(scenarios) => scenarios,
        Err(error) => return invalid(&error),
    };
    if let Some(code) = cannot_bring(&scenarios, args.engine) {
        return code;
    }
    let program = match env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            terminal::complain(&format!("error: this program cannot find itself to run twice: {error}"));
            return exit::BUG;
        }
    };
    let seeds =
        |scenario: &Scenario| args.seeds.as_ref().map_or(0..scenario.run.seeds, |seeds| seeds.0.clone());
    let bar = terminal::progress(scenarios.iter().map(|scenario| seeds(scenario).count()).sum());
    let width = scenarios.iter().map(|scenario| scenario.name.len()).max().unwrap_or_default();
    let mut codes = Vec::new();
    for scenario in &scenarios {
        let (mut same, seeds) = (0, seeds(scenario));
        bar.set_message(scenario.name.clone());
        for seed in seeds.clone() {
            let found = determinism::check(|detail| child_of(&program, scenario, seed, args, detail));
            bar.inc(1);
            match found {
                Ok(None) => same += 1,
                Ok(Some(difference)) => {
                    let name = &scenario.name;
                    bar.suspend(|| terminal::say(&format!("{name}, seed {seed}: {difference}\n")));
                    codes.push(exit::NOT_DETERMINISTIC);
                }
                Err(error) => {
                    let place = format!("{}, seed {seed}", scenario.file.display());
                    bar.suspend(|| terminal::complain(&format!("error: {place}: {error}")));
                    codes.push(failed_to_compare(&error));
                }
            }
        }
        let of = seeds.count();
        let name = &scenario.name;
        let line = format!("{name:<width$} {same:>4} of {of} seeds are the same run in two processes\n");
        bar.suspend(|| terminal::say(&line));
    }
    bar.finish_and_clear();
    exit::worst(codes)
}

fn child_of(
    program: &Path,
    scenario: &Scenario,
    seed: u64,
    args: &DeterminismArgs,
    detail: Detail,
) -> Command {
    let mut command = Command::new(program);
    command.arg("child").arg(&scenario.file);
    command.args([
        "--seed",
        &seed.to_string(),
        "--engine",
        args.engine.name(),
        "--detail",
        &detail.to_string(),
    ]);
    command
}

/// A child has said by its exit code why there is nothing to compare.
fn failed_to_compare(error: &CheckError) -> u8 {
    match error {
        CheckError::Io(_) => exit::BUG,
        CheckError::Child(status) => {
            status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::BUG)
        }
    }
}

pub(crate) fn child(args: &ChildArgs, system: &dyn System) -> u8 {
    let scenario = match Scenario::load(&args.file, &harness::vocabulary(system)) {
        Ok(scenario) => scenario,
        Err(error) => return invalid(&error),
    };
    match determinism::child(system, &scenario, args.seed, args.engine, args.detail, io::stdout()) {
        Ok(()) => exit::HELD,
        Err(error) => failed_to_run(&error),
    }
}

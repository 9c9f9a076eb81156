//! `run`: scenarios over seeds.
//!
//! What is printed depends on scenarios and seeds only: not on `--jobs`, not on which seed was done first.

use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::str::FromStr as _;
use std::thread;

use harness::recorder::{Detail, Trace};
use harness::scenario::Scenario;
use harness::system::System;
use harness::{RunError, Swept, Work, sweep};
use reports::{ScenarioResult, Skipped, json, junit, text};
use world::Engine;

use crate::args::{Backend, Format, RunArgs};
use crate::files::{SeedFolder, scenario_folders};
use crate::{cannot_bring, exit, invalid, terminal};

#[cfg(not(feature = "kafka"))]
const NO_KAFKA: &str = "error: this build has no backend `kafka`: it was built without librdkafka\n  \
    = help: build it in with `cargo run --release --features kafka -- run …`, or leave `--backend` out to run on the \
    simulated Kafka";

pub(crate) fn run(args: &RunArgs, system: &dyn System) -> u8 {
    if let Some(why) = not_side_by_side(args) {
        terminal::complain(&format!("error: {why}"));
        return exit::USAGE;
    }
    if args.backend == Backend::Kafka {
        return on_kafka(args, system);
    }
    let scenarios = match Scenario::load_all(&args.paths, &harness::vocabulary(system)) {
        Ok(scenarios) => scenarios,
        Err(error) => return invalid(&error),
    };
    if let Some(code) = cannot_bring(&scenarios, args.engine) {
        return code;
    }
    let seeds: Vec<Vec<u64>> = scenarios.iter().map(|scenario| seeds(scenario, args)).collect();
    let work: Vec<Work<'_>> =
        scenarios.iter().zip(&seeds).map(|(scenario, seeds)| Work { scenario, seeds }).collect();
    let jobs = args.jobs.or_else(|| thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);

    let bar = terminal::progress(seeds.iter().map(Vec::len).sum());
    let swept = sweep(system, &work, args.engine, jobs, &|_, _| bar.inc(1));
    bar.finish_and_clear();

    let errors = swept.iter().flat_map(|swept| &swept.errors).map(failed_to_run);
    let mut codes: Vec<u8> = errors.collect();
    let results: Vec<&ScenarioResult> = swept.iter().map(|swept| &swept.result).collect();
    codes.extend(results.iter().map(|result| exit::of_result(result)));
    let files = match files(args, system, &scenarios, &swept) {
        Ok(files) => files,
        Err(error) => {
            terminal::complain(&format!("error: cannot write below `{}`: {error}", args.report.display()));
            codes.push(exit::USAGE);
            vec![Vec::new(); results.len()]
        }
    };
    terminal::say(&shown(args.format, &results_of(swept), &[], &files));
    exit::worst(codes)
}

/// Why `--side-by-side` cannot be: its table stands below the text of a run on real Kafka.
fn not_side_by_side(args: &RunArgs) -> Option<&'static str> {
    match (args.side_by_side, args.backend, args.format) {
        (true, Backend::Sim, _) => Some(
            "`--side-by-side` is for `--backend kafka`: it shows the simulated runs beside the real ones",
        ),
        (true, Backend::Kafka, Format::Json | Format::Junit) => Some(
            "`--side-by-side` is a table for people: leave `--format` out, or run the two backends one after the other",
        ),
        _ => None,
    }
}

#[cfg(feature = "kafka")]
use crate::kafka_backend::run as on_kafka;

#[cfg(not(feature = "kafka"))]
fn on_kafka(_: &RunArgs, _: &dyn System) -> u8 {
    terminal::complain(NO_KAFKA);
    exit::UNAVAILABLE
}

/// The seeds of one scenario on this machine.
pub(crate) fn seeds(scenario: &Scenario, args: &RunArgs) -> Vec<u64> {
    let seeds = args.seeds.as_ref().map_or(0..scenario.run.seeds, |seeds| seeds.0.clone());
    seeds.filter(|seed| args.shard.is_none_or(|shard| shard.has(*seed))).collect()
}

pub(crate) fn results_of(swept: Vec<Swept>) -> Vec<ScenarioResult> {
    swept.into_iter().map(|swept| swept.result).collect()
}

pub(crate) fn shown(
    format: Format,
    results: &[ScenarioResult],
    skipped: &[Skipped],
    files: &[Vec<String>],
) -> String {
    match format {
        Format::Json => format!("{:#}\n", json::results(results, skipped)),
        Format::Junit => junit::results(results, skipped),
        Format::Text => {
            let lines = results.iter().map(text::line);
            let failures = results.iter().zip(files).map(|(result, files)| text::failure(result, files));
            lines.chain(failures).chain([text::tables(results)]).collect()
        }
    }
}

/// Says why a seed gave no result, or what is left of one that did; gives its exit code.
pub(crate) fn failed_to_run(error: &RunError) -> u8 {
    match error {
        RunError::Panicked(panic) => {
            let help = match Engine::from_str(&panic.engine) {
                Ok(_) => "the seed finds it again",
                // A run on real Kafka is not the same run again.
                Err(_) => "what is known of the run is in its seed's files",
            };
            terminal::complain(&format!("error: {panic}\n  = help: this is a bug; {help}"));
            exit::BUG
        }
        RunError::Bug(_) => {
            terminal::complain(&format!("error: {error}\n  = help: this is a bug of Shakedown's own"));
            exit::BUG
        }
        RunError::Unsupported(_) | RunError::NotReady(_) | RunError::Unavailable(_) | RunError::Stage(_) => {
            terminal::complain(&format!("error: {error}"));
            exit::UNAVAILABLE
        }
        RunError::Cluster(_) => {
            terminal::complain(&format!("error: {error}"));
            exit::SCENARIO_INVALID
        }
        RunError::Trace(_) => {
            terminal::complain(&format!("error: {error}"));
            exit::USAGE
        }
        RunError::Interrupted => exit::INTERRUPTED,
    }
}

/// Writes what broken seeds leave; gives, for each scenario, the files of its first one.
///
/// Every broken seed leaves its result; the first one a trace as well, for which it runs again. `replay --trace` makes
/// the trace of any other.
fn files(
    args: &RunArgs,
    system: &dyn System,
    scenarios: &[Scenario],
    swept: &[Swept],
) -> io::Result<Vec<Vec<String>>> {
    let folders = scenario_folders(scenarios).into_iter().map(|folder| args.report.join(folder));
    let each = scenarios.iter().zip(swept).zip(folders);
    each.map(|((scenario, swept), folder)| files_of(&folder, args.engine, system, scenario, &swept.result))
        .collect()
}

fn files_of(
    folder: &Path,
    engine: Engine,
    system: &dyn System,
    scenario: &Scenario,
    result: &ScenarioResult,
) -> io::Result<Vec<String>> {
    let mut files = Vec::new();
    for seed in result.seeds.iter().filter(|seed| !seed.held()) {
        let folder = SeedFolder::create(folder, seed.seed)?;
        let written = folder.write_result(result, seed)?;
        if !files.is_empty() {
            continue;
        }
        let (trace, file) = folder.create_trace()?;
        let again = harness::run(system, scenario, seed.seed, engine, Some(Trace::new(file, Detail::Events)))
            .map_err(io::Error::other)?;
        assert_eq!(
            (again.hash, again.events),
            (seed.hash, seed.events),
            "seed {} of `{}` gave another run when it was traced",
            seed.seed,
            result.name
        );
        files.extend([trace, written]);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_says_and_nobody_understands_is_a_bug_and_no_missing_backend() {
        assert_eq!(failed_to_run(&RunError::Bug("what gateway told cannot be read".to_owned())), exit::BUG);
        assert_eq!(failed_to_run(&RunError::Stage("node 2 is not there".to_owned())), exit::UNAVAILABLE);
    }

    #[test]
    fn both_worlds_are_shown_only_to_people_and_below_a_run_on_real_kafka() {
        let args = |backend, format| RunArgs {
            paths: Vec::new(),
            seeds: None,
            jobs: None,
            shard: None,
            backend,
            side_by_side: true,
            engine: Engine::Jump,
            report: "reports/out".into(),
            format,
        };
        assert_eq!(not_side_by_side(&args(Backend::Kafka, Format::Text)), None);
        for (backend, format) in
            [(Backend::Sim, Format::Text), (Backend::Kafka, Format::Json), (Backend::Kafka, Format::Junit)]
        {
            assert!(not_side_by_side(&args(backend, format)).is_some(), "{backend:?}, {format:?}");
        }
    }
}

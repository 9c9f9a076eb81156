//! `run --backend kafka`, and the hidden command `host`, which is one service of such a run.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::OsString;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use harness::recorder::{Detail, Trace};
use harness::scenario::{Expect, Scenario};
use harness::stage::Backend as _;
use harness::system::System;
use harness::{Ran, RunError, Work, one_by_one, sweep};
use real::{HostCommand, RealBackend};
use reports::{ScenarioResult, SeedResult, Skipped, text};

use crate::args::{Format, RunArgs};
use crate::files::{SeedFolder, scenario_folders};
use crate::run::{failed_to_run, results_of, seeds, shown};
use crate::{cannot_bring, exit, invalid, terminal};

pub(crate) fn run(args: &RunArgs, system: &dyn System) -> u8 {
    let scenarios = match Scenario::load_all(&args.paths, &harness::vocabulary(system)) {
        Ok(scenarios) => scenarios,
        Err(error) => return invalid(&error),
    };
    let mut backend = match backend(system) {
        Ok(backend) => backend,
        Err(code) => return code,
    };
    let Bringable { scenarios, skipped } = match bringable(&backend, args, scenarios) {
        Ok(bringable) => bringable,
        Err(code) => return code,
    };
    if scenarios.is_empty() {
        if args.format != Format::Text {
            terminal::say(&shown(args.format, &[], &skipped, &[]));
        }
        return exit::UNAVAILABLE;
    }
    if args.side_by_side
        && let Some(code) = cannot_bring(&scenarios, args.engine)
    {
        return code;
    }
    if args.jobs.is_some_and(|jobs| jobs.get() > 1) {
        terminal::complain("note: on real Kafka seeds run one after the other, whatever `--jobs` says");
    }

    let seeds: Vec<Vec<u64>> = scenarios.iter().map(|scenario| seeds(scenario, args)).collect();
    let work: Vec<Work<'_>> =
        scenarios.iter().zip(&seeds).map(|(scenario, seeds)| Work { scenario, seeds }).collect();
    let bar = terminal::progress(seeds.iter().map(Vec::len).sum());
    let (page, leavings) = (Page::default(), backend.leavings());
    let mut kept: Vec<Kept> = Vec::new();
    let mut broker_logs = BTreeSet::new();
    let place = |scenario: &Scenario| scenarios.iter().position(|other| std::ptr::eq(other, scenario));
    let swept = one_by_one(
        &mut backend,
        system,
        &work,
        &mut |_, _| Some(Trace::new(page.clone(), Detail::Events)),
        &mut |scenario, seed, ended| {
            let (trace, printed) = (page.take(), leavings.take_printed());
            // What happens here happens once: what is known of a run that did not hold must be kept as it was.
            if is_evidence(ended) {
                let place = place(scenario).expect("only scenarios of the work are run");
                kept.push(Kept { place, seed, trace, printed });
            }
            if is_unexpected(scenario, ended) {
                match leavings.keep_broker_logs() {
                    Ok(folder) => broker_logs.extend(folder),
                    Err(error) => {
                        terminal::complain(&format!("error: the brokers' logs cannot be kept: {error}"))
                    }
                }
            }
            bar.inc(1);
        },
    );
    bar.finish_and_clear();
    if let Some(cluster) = backend.describe() {
        terminal::complain(&format!("real Kafka: {cluster}"));
    }
    for folder in &broker_logs {
        terminal::complain(&format!("note: the brokers' logs are kept in `{}`", folder.display()));
    }
    let is_interrupted = backend.is_interrupted();
    // Clusters end before anything else is done. From here on a signal ends the program.
    drop(backend);

    let mut codes: Vec<u8> = swept.iter().flat_map(|swept| &swept.errors).map(failed_to_run).collect();
    codes.extend(swept.iter().map(|swept| exit::of_result(&swept.result)));
    codes.extend(is_interrupted.then_some(exit::INTERRUPTED));
    let results = results_of(swept);
    let files = write_all(args, &scenarios, &results, &kept).unwrap_or_else(|error| {
        terminal::complain(&format!("error: cannot write below `{}`: {error}", args.report.display()));
        codes.push(exit::USAGE);
        vec![Vec::new(); results.len()]
    });
    terminal::say(&shown(args.format, &results, &skipped, &files));
    if args.side_by_side && !is_interrupted {
        codes.extend(beside(args, system, &work, &results));
    }
    exit::worst(codes)
}

/// Runs the same seeds on the simulated Kafka, and shows both worlds; gives the exit codes of the simulated one.
fn beside(args: &RunArgs, system: &dyn System, work: &[Work<'_>], real: &[ScenarioResult]) -> Vec<u8> {
    let swept = sweep(system, work, args.engine, NonZeroUsize::MIN, &|_, _| {});
    let mut codes: Vec<u8> = swept.iter().flat_map(|swept| &swept.errors).map(failed_to_run).collect();
    let simulated = results_of(swept);
    codes.extend(simulated.iter().map(exit::of_result));
    let failures: String = simulated.iter().map(|result| text::failure(result, &[])).collect();
    if !failures.is_empty() {
        terminal::say(&format!("\nOn the simulated Kafka:\n{failures}"));
    }
    terminal::say(&text::side_by_side(&simulated, real));
    codes
}

/// What was kept of a run.
struct Kept {
    /// The scenario's.
    place: usize,
    seed: u64,
    trace: Vec<u8>,
    printed: BTreeMap<String, Vec<u8>>,
}

/// Whether a run may have to be looked into: nothing is known yet of what its scenario asks for over all seeds.
fn is_evidence(ended: &Result<Ran, RunError>) -> bool {
    match ended {
        Ok(ran) => !ran.result.held(),
        // Nothing has happened, or nobody wants to know.
        Err(RunError::Unavailable(_) | RunError::Interrupted) => false,
        Err(_) => true,
    }
}

/// Whether it did what its scenario does not ask for.
fn is_unexpected(scenario: &Scenario, ended: &Result<Ran, RunError>) -> bool {
    let Expect { breaks, may_break, .. } = &scenario.expect;
    let asked_for = |check: &String| breaks.contains(check) || may_break.contains(check);
    is_evidence(ended)
        && ended
            .as_ref()
            .map_or(true, |ran| ran.result.findings.iter().any(|finding| !asked_for(&finding.check)))
}

/// This program, able to start itself as a host.
fn backend(system: &dyn System) -> Result<RealBackend<'_>, u8> {
    let program = env::current_exe().map_err(|error| {
        terminal::complain(&format!("error: this program cannot find itself to start its services: {error}"));
        exit::BUG
    })?;
    let command = HostCommand { program, args: vec![OsString::from("host")] };
    RealBackend::new(system, command).map_err(|error| failed_to_run(&error))
}

/// What of the scenarios runs.
struct Bringable {
    scenarios: Vec<Scenario>,
    skipped: Vec<Skipped>,
}

/// The scenarios that the backend can bring. Of a folder the others are skipped, each by name with its reason; one that was
/// named itself ends the command, so that nobody takes a part for the whole.
fn bringable(backend: &RealBackend<'_>, args: &RunArgs, all: Vec<Scenario>) -> Result<Bringable, u8> {
    let (mut scenarios, mut skipped, mut refused) = (Vec::new(), Vec::new(), false);
    for scenario in all {
        match backend.supported(&scenario) {
            Ok(()) => scenarios.push(scenario),
            Err(error) if args.paths.contains(&scenario.file) => {
                refused = true;
                terminal::complain(&format!("error: {error}"));
            }
            Err(error) => {
                terminal::complain(&format!("skipped {}: {error}", scenario.name));
                let Scenario { name, file, claim, .. } = scenario;
                skipped.push(Skipped { name, file, claim, why: error.to_string() });
            }
        }
    }
    if refused { Err(exit::UNAVAILABLE) } else { Ok(Bringable { scenarios, skipped }) }
}

/// Writes what was kept of the seeds that did not hold; gives, for each scenario, the files of its first broken one, or of the
/// first without a result.
fn write_all(
    args: &RunArgs,
    scenarios: &[Scenario],
    results: &[ScenarioResult],
    kept: &[Kept],
) -> io::Result<Vec<Vec<String>>> {
    let folders: Vec<_> =
        scenario_folders(scenarios).into_iter().map(|folder| args.report.join(folder)).collect();
    let mut files = Vec::new();
    for (place, (result, folder)) in results.iter().zip(&folders).enumerate() {
        let (mut of_broken, mut of_failed) = (Vec::new(), Vec::new());
        for kept in kept.iter().filter(|kept| kept.place == place) {
            let seed = result.seeds.iter().find(|seed| seed.seed == kept.seed);
            // What its scenario asks for is no evidence any more.
            if seed.is_some_and(SeedResult::held) {
                continue;
            }
            let written = write(folder, result, seed, kept)?;
            let first = if seed.is_some() { &mut of_broken } else { &mut of_failed };
            if first.is_empty() {
                *first = written;
            }
        }
        files.push(if of_broken.is_empty() { of_failed } else { of_broken });
    }
    Ok(files)
}

fn write(
    folder: &Path,
    result: &ScenarioResult,
    seed: Option<&SeedResult>,
    kept: &Kept,
) -> io::Result<Vec<String>> {
    let folder = SeedFolder::create(folder, kept.seed)?;
    let (name, mut file) = folder.create_trace()?;
    io::Write::write_all(&mut file, &kept.trace)?;
    io::Write::flush(&mut file)?;
    let mut written = vec![name];
    if let Some(seed) = seed {
        written.push(folder.write_result(result, seed)?);
    }
    for (host, printed) in &kept.printed {
        written.push(folder.write_log(host, printed)?);
    }
    Ok(written)
}

/// The trace of the run under way.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Page {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl io::Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn host(name: &str, system: &dyn System) -> u8 {
    match real::host(system) {
        Ok(()) => exit::HELD,
        Err(error) => {
            terminal::complain(&format!("error: {name}: {error}"));
            exit::BUG
        }
    }
}

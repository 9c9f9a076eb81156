//! `run --backend kafka`, and the hidden command `host`, which is one service of such a run.

use std::env;
use std::ffi::OsString;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use harness::recorder::{Detail, Trace};
use harness::scenario::Scenario;
use harness::stage::Backend as _;
use harness::system::System;
use harness::{Swept, Work, one_by_one, sweep};
use real::{HostCommand, RealBackend};
use reports::{ScenarioResult, SeedResult, text};

use crate::args::{Format, RunArgs};
use crate::files::{SeedFolder, scenario_folders};
use crate::run::{failed_to_run, seeds, shown};
use crate::{exit, invalid, terminal};

pub(crate) fn run(args: &RunArgs, system: &dyn System) -> u8 {
    let scenarios = match Scenario::load_all(&args.paths, &harness::vocabulary(system)) {
        Ok(scenarios) => scenarios,
        Err(error) => return invalid(&error),
    };
    let mut backend = match backend(system) {
        Ok(backend) => backend,
        Err(code) => return code,
    };
    let scenarios = match bringable(&backend, args, scenarios) {
        Ok(scenarios) => scenarios,
        Err(code) => return code,
    };
    if args.jobs.is_some_and(|jobs| jobs.get() > 1) {
        terminal::complain("note: on real Kafka seeds run one after the other, whatever `--jobs` says");
    }

    let seeds: Vec<Vec<u64>> = scenarios.iter().map(|scenario| seeds(scenario, args)).collect();
    let work: Vec<Work<'_>> =
        scenarios.iter().zip(&seeds).map(|(scenario, seeds)| Work { scenario, seeds }).collect();
    let folders: Vec<_> =
        scenario_folders(&scenarios).into_iter().map(|folder| args.report.join(folder)).collect();
    let bar = terminal::progress(seeds.iter().map(Vec::len).sum());
    let page = Page::default();
    let mut pages: Vec<(usize, u64, Vec<u8>)> = Vec::new();
    let place = |scenario: &Scenario| scenarios.iter().position(|other| std::ptr::eq(other, scenario));
    let swept = one_by_one(
        &mut backend,
        system,
        &work,
        &mut |_, _| Some(Trace::new(page.clone(), Detail::Events)),
        &mut |scenario, seed, result| {
            let trace = page.take();
            // What happens here happens once: the trace of a broken run must be kept as it was written.
            if result.as_ref().is_ok_and(|result| !result.held()) {
                pages.extend(place(scenario).map(|place| (place, seed, trace)));
            }
            bar.inc(1);
        },
    );
    bar.finish_and_clear();
    if let Some(cluster) = backend.describe() {
        terminal::complain(&format!("real Kafka: {cluster}"));
    }
    drop(backend);

    let mut codes: Vec<u8> = swept.iter().flat_map(|swept| &swept.errors).map(failed_to_run).collect();
    codes.extend(swept.iter().map(|swept| exit::of_result(&swept.result)));
    let mut files = vec![Vec::new(); swept.len()];
    for (place, seed, trace) in &pages {
        let result = &swept[*place].result;
        let Some(broken) = result.seeds.iter().find(|result| result.seed == *seed && !result.held()) else {
            continue;
        };
        match write(&folders[*place], result, broken, trace) {
            Ok(written) if files[*place].is_empty() => files[*place] = written,
            Ok(_) => {}
            Err(error) => {
                terminal::complain(&format!(
                    "error: cannot write below `{}`: {error}",
                    args.report.display()
                ));
                codes.push(exit::USAGE);
            }
        }
    }
    let beside = match args.side_by_side {
        true => {
            let simulated = sweep(system, &work, args.engine, NonZeroUsize::MIN, &|_, _| {});
            codes.extend(simulated.iter().flat_map(|swept| &swept.errors).map(failed_to_run));
            let results =
                |swept: &[Swept]| swept.iter().map(|swept| swept.result.clone()).collect::<Vec<_>>();
            text::side_by_side(&results(&simulated), &results(&swept))
        }
        false => String::new(),
    };
    terminal::say(&shown(args.format, swept, &files));
    if args.format == Format::Text {
        terminal::say(&beside);
    }
    exit::worst(codes)
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

/// The scenarios that the backend can bring. Of a folder the others are skipped, each by name with its reason; one that was
/// named itself ends the command, so that nobody takes a part for the whole.
fn bringable(
    backend: &RealBackend<'_>,
    args: &RunArgs,
    scenarios: Vec<Scenario>,
) -> Result<Vec<Scenario>, u8> {
    let (mut left, mut refused) = (Vec::new(), false);
    for scenario in scenarios {
        match backend.supported(&scenario) {
            Ok(()) => left.push(scenario),
            Err(error) if args.paths.contains(&scenario.file) => {
                refused = true;
                terminal::complain(&format!("error: {error}"));
            }
            Err(error) => terminal::complain(&format!("skipped {}: {error}", scenario.name)),
        }
    }
    if refused || left.is_empty() { Err(exit::UNAVAILABLE) } else { Ok(left) }
}

fn write(folder: &Path, result: &ScenarioResult, seed: &SeedResult, trace: &[u8]) -> io::Result<Vec<String>> {
    let folder = SeedFolder::create(folder, seed.seed)?;
    let (name, mut file) = folder.create_trace()?;
    io::Write::write_all(&mut file, trace)?;
    io::Write::flush(&mut file)?;
    Ok(vec![name, folder.write_result(result, seed)?])
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

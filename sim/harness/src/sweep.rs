//! Many seeds of many scenarios, side by side.
//!
//! A run stays on one thread and shares nothing with another, so the results do not depend on how many run at once, nor
//! on which of them ends first: they come in the order of the work.

use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use reports::{FailedSeed, ScenarioResult, SeedResult};
use world::Engine;

use crate::recorder::Trace;
use crate::run::{Ran, RunError, run, run_on};
use crate::scenario::Scenario;
use crate::stage::Backend;
use crate::system::System;
use crate::verdict::over_all_seeds;

/// One scenario and the seeds to run it with.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    /// The scenario.
    pub scenario: &'a Scenario,
    /// The seeds, in the order in which their results come.
    pub seeds: &'a [u64],
}

/// What one scenario left.
#[derive(Debug)]
pub struct Swept {
    /// Its results, judged; seeds without one are named in it.
    pub result: ScenarioResult,
    /// Why seeds gave no result, panics mostly; and what could not be cleaned up after some that did.
    pub errors: Vec<RunError>,
}

/// Runs all of the work with at most `jobs` runs at once, and gives what each scenario left, in the order of `work`.
/// `done` is called from the thread of a run when it ends, in whatever order they end: for progress bars.
pub fn sweep(
    system: &dyn System,
    work: &[Work<'_>],
    engine: Engine,
    jobs: NonZeroUsize,
    done: &(dyn Fn(&Scenario, &Result<SeedResult, RunError>) + Sync),
) -> Vec<Swept> {
    let runs: Vec<(&Scenario, u64)> =
        work.iter().flat_map(|work| work.seeds.iter().map(|seed| (work.scenario, *seed))).collect();
    let mut results = side_by_side(&runs, jobs, |(scenario, seed)| {
        let result = run(system, scenario, *seed, engine, None);
        done(scenario, &result);
        result.map(|result| Ran { result, unclosed: None })
    })
    .into_iter();
    work.iter().map(|work| judged(*work, engine.name(), results.by_ref())).collect()
}

/// Hears how a run with a seed ended.
pub type Ended<'a> = dyn FnMut(&Scenario, u64, &Result<Ran, RunError>) + 'a;

/// Runs all of the work on one backend, one run after the other, for backends that cannot have several at once. `trace`
/// gives each run its trace, `done` hears how it ended. A run that was interrupted, or found no cluster, is the last.
pub fn one_by_one(
    backend: &mut dyn Backend,
    system: &dyn System,
    work: &[Work<'_>],
    trace: &mut dyn FnMut(&Scenario, u64) -> Option<Trace>,
    done: &mut Ended<'_>,
) -> Vec<Swept> {
    let (mut swept, mut is_over) = (Vec::new(), false);
    for work in work {
        let mut results = Vec::new();
        for seed in work.seeds {
            if is_over {
                break;
            }
            let trace = trace(work.scenario, *seed);
            let result = run_on(backend, system, work.scenario, *seed, trace);
            is_over = matches!(result, Err(RunError::Interrupted | RunError::Unavailable(_)));
            done(work.scenario, *seed, &result);
            results.push(result);
        }
        swept.push(judged(*work, &backend.name(), results.into_iter()));
    }
    swept
}

fn judged(work: Work<'_>, engine: &str, results: impl Iterator<Item = Result<Ran, RunError>>) -> Swept {
    let (mut seeds, mut failed, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for (seed, result) in work.seeds.iter().zip(results) {
        match result {
            Ok(Ran { result, unclosed }) => {
                seeds.push(result);
                errors.extend(unclosed);
            }
            Err(error) => {
                failed.push(FailedSeed { seed: *seed, engine: engine.to_owned(), why: error.to_string() });
                errors.push(error);
            }
        }
    }
    Swept { result: ScenarioResult { failed, ..over_all_seeds(work.scenario, seeds) }, errors }
}

/// Does each piece of work, with at most `jobs` threads, and gives the results in the order of the work.
fn side_by_side<W: Sync, R: Send>(work: &[W], jobs: NonZeroUsize, run: impl Fn(&W) -> R + Sync) -> Vec<R> {
    let results: Vec<Mutex<Option<R>>> = work.iter().map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    let take_turns = || {
        while let Some((piece, place)) = {
            let number = next.fetch_add(1, Ordering::Relaxed);
            work.get(number).zip(results.get(number))
        } {
            *place.lock().expect("each place is written once") = Some(run(piece));
        }
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "the runner's own threads: each run stays on one, and shares nothing"
    )]
    std::thread::scope(|scope| {
        let threads = jobs.get().min(work.len());
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(take_turns)).collect();
        for handle in handles {
            // A panic of a run is caught in the run; this one would be the runner's own.
            if let Err(panic) = handle.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    let taken = results.into_iter().map(|place| place.into_inner().expect("no thread panicked"));
    taken.map(|result| result.expect("every piece of work was done")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_work_however_many_jobs() {
        let work: Vec<u64> = (0..50).collect();
        for jobs in [1, 2, 7, 80] {
            let squares = side_by_side(&work, NonZeroUsize::new(jobs).unwrap(), |number| {
                // Earlier pieces take longer.
                (0..(50 - number) * 1_000).fold(0, |sum: u64, more| std::hint::black_box(sum ^ more));
                number * number
            });
            assert_eq!(squares, work.iter().map(|number| number * number).collect::<Vec<_>>());
        }
        assert!(side_by_side(&[] as &[u64], NonZeroUsize::MIN, |number| *number).is_empty());
    }
}

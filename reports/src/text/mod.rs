//! Results as a person reads them in a terminal.
//!
//! The same results give the same bytes: nothing here knows the wall clock, the terminal's width or how many threads
//! ran. A scenario that held is one line; one that did not prints, in this order, its claim, the evidence with times
//! and offsets, where the files are, and the command that replays it.

mod beside;
mod failure;
mod grid;
mod tables;

use std::fmt::Write as _;
use std::time::Duration;

pub use beside::side_by_side;
pub use failure::failure;
pub use tables::tables;

use crate::{Durations, ScenarioResult, SeedResult};

/// One line: whether the scenario held, over how many seeds and sagas, and its claim.
pub fn line(result: &ScenarioResult) -> String {
    let verdict = match (result.is_broken(), result.failed.is_empty()) {
        (true, _) => "BROKEN ",
        // On a seed without a result the claim neither held nor broke.
        (false, false) => "FAILED ",
        (false, true) if result.seeds.is_empty() => "not run",
        (false, true) => "held   ",
    };
    let (seeds, sagas) = (result.seeds.len(), result.sagas().started);
    let plural = if seeds == 1 { " " } else { "s" };
    format!("{verdict} {:<26} {seeds:>4} seed{plural} {sagas:>7} sagas  {}\n", result.name, result.claim)
}

/// One run in full, as `replay` shows it: its hash and size, its faults, its figures.
pub fn run(result: &ScenarioResult, seed: &SeedResult) -> String {
    let mut text = line(result);
    let recovered = match seed.recovered_in {
        Some(span) => format!("quiet {} after the last fault had healed", seconds(span)),
        None => "never quiet".to_owned(),
    };
    let time = if seed.hash.is_some() { "simulated" } else { "in real time" };
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "seed {}, engine {}: {} {time}, {recovered}\n{} events, hash {}",
        seed.seed,
        seed.engine,
        seconds(seed.simulated),
        seed.events,
        seed.hash_text(),
    );
    text.push_str(&tables(std::slice::from_ref(result)));
    text
}

/// Simulated time: `12.345 s`.
fn seconds(span: Duration) -> String {
    // Means of whole milliseconds need not be whole; the display rounds down like a clock.
    format!("{}.{:03} s", span.as_secs(), span.subsec_millis())
}

/// A share: `94.0 %`. Rounded down, so that 100 % means all.
fn percent(ppm: u32) -> String {
    format!("{}.{} %", ppm / 10_000, ppm / 1_000 % 10)
}

fn figure(span: Option<Duration>) -> String {
    span.map_or_else(|| "-".to_owned(), seconds)
}

/// Mean, p50, p95, p99, longest, shortest.
fn figures(durations: &Durations) -> Vec<String> {
    let figures = [
        durations.mean(),
        durations.percentile(50),
        durations.percentile(95),
        durations.percentile(99),
        durations.longest(),
        durations.shortest(),
    ];
    figures.into_iter().map(figure).collect()
}

//! No bench: reads what the others left with criterion and writes one page, `reports/out/bench.md`, and prints it.

#![expect(clippy::disallowed_methods, reason = "reads what criterion wrote, and writes a page")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value;
use shakedown_benches::facts::{Facts, criterion_folder, read};

fn main() -> Result<(), Box<dyn Error>> {
    let nanos = means(&criterion_folder()?)?;
    let page = page(&nanos, &read()?);
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("../reports/out");
    fs::create_dir_all(&out)?;
    fs::write(out.join("bench.md"), &page)?;
    println!("{page}\n(also in reports/out/bench.md)");
    Ok(())
}

/// Mean nanoseconds of an iteration by `group/function`, as criterion estimated them last.
fn means(folder: &Path) -> Result<BTreeMap<String, f64>, Box<dyn Error>> {
    let mut means = BTreeMap::new();
    if !folder.is_dir() {
        return Ok(means);
    }
    for group in fs::read_dir(folder)? {
        let group = group?.path();
        if !group.is_dir() {
            continue;
        }
        for function in fs::read_dir(&group)? {
            let last = function?.path().join("new");
            let Ok(named) = fs::read(last.join("benchmark.json")) else { continue };
            let named: Value = serde_json::from_slice(&named)?;
            let estimates: Value = serde_json::from_slice(&fs::read(last.join("estimates.json"))?)?;
            let id = named["full_id"].as_str().ok_or("criterion names its benches")?;
            let mean = estimates["mean"]["point_estimate"].as_f64().ok_or("criterion estimates a mean")?;
            means.insert(id.to_owned(), mean);
        }
    }
    Ok(means)
}

fn page(nanos: &BTreeMap<String, f64>, facts: &BTreeMap<String, Facts>) -> String {
    let mut page = String::from("# Benches\n\n");
    page += "Means of the last run on this machine. Compare within the page: machines are noisy.\n\n";
    page +=
        "| bench | one iteration | units per second | simulated seconds per second |\n|---|---|---|---|\n";
    for (id, mean) in nanos {
        let (rate, simulated) = match facts.get(id) {
            Some(facts) => {
                let simulated = facts.simulated_seconds / (mean / 1e9);
                let simulated = if simulated > 0.0 { format!("{simulated:.0}") } else { String::new() };
                (format!("{:.0}", facts.units / (mean / 1e9)), simulated)
            }
            None => (String::new(), String::new()),
        };
        let _ = writeln!(page, "| {id} | {} | {rate} | {simulated} |", span(*mean));
    }
    page += "\n";
    if let (Some(produce), Some(bare)) = (nanos.get("request/produce"), nanos.get("request/bare world")) {
        let beyond = span(produce - bare);
        let _ = writeln!(
            page,
            "A produce request costs {beyond} of CPU beyond the bare world (goal: at most 10 µs)."
        );
    }
    for (replicas, goal) in [("RF 1", 2.3), ("RF 3", 1.0)] {
        let id = format!("stream/{replicas}");
        if let (Some(mean), Some(facts)) = (nanos.get(&id), facts.get(&id)) {
            let million = facts.units / (mean / 1e9) / 1e6;
            let _ = writeln!(
                page,
                "Records of 64 bytes at {replicas}: {million:.2} M a second (goal: {goal:.1} M)."
            );
        }
    }
    let idle = "idle/3 brokers, 50 topics, RF 3";
    if let (Some(mean), Some(facts)) = (nanos.get(idle), facts.get(idle)) {
        let (events, cpu) = (facts.units / facts.simulated_seconds, span(mean / facts.simulated_seconds));
        let _ = writeln!(
            page,
            "Idle, three brokers with 50 topics: {events:.0} events and {cpu} in a simulated second.\n"
        );
    }
    for (rate, goal) in [("20 a second", 3.0), ("1 a second", 8.0)] {
        let of = |engine| nanos.get(&format!("order scenario/{engine}, {rate}"));
        if let (Some(jump), Some(turmoil)) = (of("jump"), of("turmoil")) {
            let times = turmoil / jump;
            let _ = writeln!(
                page,
                "Orders at {rate}: `jump` is {times:.1} times as fast as `turmoil` (goal: {goal:.0})."
            );
        }
    }
    page
}

fn span(nanos: f64) -> String {
    match nanos {
        n if n >= 1e9 => format!("{:.2} s", n / 1e9),
        n if n >= 1e6 => format!("{:.2} ms", n / 1e6),
        n if n >= 1e3 => format!("{:.2} µs", n / 1e3),
        n => format!("{n:.0} ns"),
    }
}

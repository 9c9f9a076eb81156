//! The tables below the scenarios: sagas, order latency, hops, faults.

use std::collections::BTreeMap;

use super::grid::Grid;
use super::{figures, percent};
use crate::{Durations, FaultReport, ScenarioResult};

/// All tables over all scenarios; a table with nothing in it is left out.
pub fn tables(results: &[ScenarioResult]) -> String {
    let tables = [sagas(results), order_latency(results), hops(results), faults(results)];
    tables.iter().filter(|table| !table.is_empty()).map(|table| format!("\n{table}")).collect()
}

/// Whether these ran on real Kafka; one command runs on one backend.
fn is_real(results: &[ScenarioResult]) -> bool {
    results.iter().flat_map(|result| &result.seeds).any(|seed| seed.engine == "kafka")
}

fn sagas(results: &[ScenarioResult]) -> Grid {
    let title = match is_real(results) {
        false => "Sagas: started to terminal state, in simulated time",
        true => "Sagas: started to terminal state, in real time",
    };
    let header = [
        "scenario",
        "sagas",
        "completed",
        "undone",
        "stuck",
        "success",
        "mean",
        "p50",
        "p95",
        "p99",
        "longest",
        "shortest",
    ];
    let mut grid = Grid::new(title, &header);
    for result in results {
        let sagas = result.sagas();
        let rate = sagas.success_rate_ppm().map_or_else(|| "-".to_owned(), percent);
        let counts =
            [sagas.started, sagas.completed, sagas.compensated, sagas.stuck].map(|count| count.to_string());
        let mut row = vec![result.name.clone()];
        row.extend(counts);
        row.push(rate);
        row.extend(figures(&result.saga_durations()));
        grid.row(row);
    }
    grid
}

fn order_latency(results: &[ScenarioResult]) -> Grid {
    let title = match is_real(results) {
        false => "Orders: placed to customer notified, in simulated time",
        true => "Orders: placed to customer notified, in real time",
    };
    let header = ["scenario", "orders", "mean", "p50", "p95", "p99", "longest", "shortest"];
    let mut grid = Grid::new(title, &header);
    for result in results {
        let latencies = result.order_latencies();
        let mut row = vec![result.name.clone(), latencies.count().to_string()];
        row.extend(figures(&latencies));
        grid.row(row);
    }
    grid
}

/// Over all scenarios together: which hop is slow matters more than where.
fn hops(results: &[ScenarioResult]) -> Grid {
    let mut by_name: BTreeMap<&str, Durations> = BTreeMap::new();
    for hop in results.iter().flat_map(|result| &result.seeds).flat_map(|seed| &seed.hops) {
        by_name.entry(&hop.name).or_default().merge(&hop.latencies);
    }
    let title = "Hops: record produced to handled, all scenarios together";
    let mut grid = Grid::new(title, &["hop", "records", "mean", "p50", "p95", "p99", "longest", "shortest"]);
    for (name, latencies) in by_name {
        let mut row = vec![name.to_owned(), latencies.count().to_string()];
        row.extend(figures(&latencies));
        grid.row(row);
    }
    grid
}

fn faults(results: &[ScenarioResult]) -> Grid {
    let title = "Faults: what each did, over all seeds";
    let mut grid = Grid::new(title, &["scenario", "line", "effective", "effects", "fault"]).left(3).left(4);
    for result in results {
        let faults = result.seeds.first().map_or(0, |seed| seed.faults.len());
        for number in 0..faults {
            let reports: Vec<&FaultReport> =
                result.seeds.iter().filter_map(|seed| seed.faults.get(number)).collect();
            let Some(first) = reports.first() else { continue };
            let effective = reports.iter().filter(|report| !report.inert()).count();
            grid.row(vec![
                result.name.clone(),
                first.line.to_string(),
                format!("{effective} of {}", reports.len()),
                effects(&reports),
                first.what.clone(),
            ]);
        }
    }
    grid
}

fn effects(reports: &[&FaultReport]) -> String {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for (effect, count) in reports.iter().flat_map(|report| &report.effects) {
        *sums.entry(effect).or_default() += count;
    }
    let sums: Vec<String> = sums
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(effect, count)| format!("{effect} {count}"))
        .collect();
    if sums.is_empty() { "inert".to_owned() } else { sums.join(", ") }
}

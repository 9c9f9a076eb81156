//! The same scenarios in two worlds, side by side.

use super::grid::Grid;
use super::{figure, percent};
use crate::{Durations, ScenarioResult};

/// Each scenario's figures simulated and on real Kafka, one line below the other: what became of its sagas, how long they
/// took, how long customers waited, and how long it took to come to rest once all was healed. A scenario that ran in one
/// of the two only stands alone.
pub fn side_by_side(simulated: &[ScenarioResult], real: &[ScenarioResult]) -> String {
    let header = [
        "scenario",
        "world",
        "seeds",
        "broken",
        "sagas",
        "success",
        "saga p50",
        "p95",
        "order p50",
        "p95",
        "longest",
        "to rest p50",
        "longest",
    ];
    let mut grid =
        Grid::new("Side by side: sagas, orders, and the time from healed to quiet", &header).left(1);
    for result in simulated {
        grid.row(row(result, "simulated"));
        if let Some(other) = real.iter().find(|other| other.file == result.file) {
            grid.row(row(other, "kafka"));
        }
    }
    let alone = real.iter().filter(|result| simulated.iter().all(|other| other.file != result.file));
    alone.for_each(|result| grid.row(row(result, "kafka")));
    if grid.is_empty() { String::new() } else { format!("\n{grid}") }
}

fn row(result: &ScenarioResult, world: &str) -> Vec<String> {
    let (sagas, durations, latencies) = (result.sagas(), result.saga_durations(), result.order_latencies());
    let rest: Durations = result.seeds.iter().filter_map(|seed| seed.recovered_in).collect();
    let broken = result.seeds.iter().filter(|seed| !seed.held()).count() + result.failed.len();
    vec![
        result.name.clone(),
        world.to_owned(),
        result.seeds.len().to_string(),
        broken.to_string(),
        sagas.started.to_string(),
        sagas.success_rate_ppm().map_or_else(|| "-".to_owned(), percent),
        figure(durations.percentile(50)),
        figure(durations.percentile(95)),
        figure(latencies.percentile(50)),
        figure(latencies.percentile(95)),
        figure(latencies.longest()),
        figure(rest.percentile(50)),
        figure(rest.longest()),
    ]
}

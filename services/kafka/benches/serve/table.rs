//! What was measured, side by side, with ratios to the simulated Kafka of as many brokers.

use std::fmt;
use std::time::Duration;

use crate::support::Tally;

/// One cluster.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    name: &'static str,
    brokers: u32,
    ready_after: Duration,
    pub(crate) stream: Tally,
    pub(crate) request: Tally,
}

impl Row {
    pub(crate) fn new(name: &'static str, brokers: u32, ready_after: Duration) -> Row {
        Row { name, brokers, ready_after, stream: Tally::default(), request: Tally::default() }
    }
}

/// All clusters. The first of each number of brokers is what the others are compared with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) rows: Vec<Row>,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "CPU is this process's: with the cluster, where that is not Kafka.\n")?;
        writeln!(
            f,
            "| cluster | brokers | ready after | records a second | ratio | CPU a record | one request | ratio |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|")?;
        for row in &self.rows {
            let first = self.rows.iter().find(|first| first.brokers == row.brokers).unwrap_or(row);
            writeln!(
                f,
                "| {} | {} | {:.2} s | {:.0} | {:.2} | {:.2} µs | {:.0} µs | {:.2} |",
                row.name,
                row.brokers,
                row.ready_after.as_secs_f64(),
                row.stream.per_second(),
                row.stream.per_second() / first.stream.per_second(),
                row.stream.micros_each(row.stream.cpu),
                row.request.micros_each(row.request.wall),
                row.request.micros_each(row.request.wall) / first.request.micros_each(first.request.wall),
            )?;
        }
        Ok(())
    }
}

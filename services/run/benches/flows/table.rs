//! What was measured, side by side.

use std::fmt;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::shop::Took;
use crate::spent::Spent;

/// One case.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    name: String,
    brokers: u32,
    survives: &'static str,
    flows: u64,
    handled: u64,
    wall: Duration,
    spent: Spent,
}

impl Row {
    pub(crate) fn new(cluster: &Cluster, survives: &'static str) -> Row {
        Row {
            name: cluster.kind.name().to_owned(),
            brokers: cluster.brokers,
            survives,
            flows: 0,
            handled: 0,
            wall: Duration::ZERO,
            spent: Spent::default(),
        }
    }

    /// Adds an iteration; gives its time.
    pub(crate) fn add(&mut self, took: Took) -> Duration {
        self.flows += took.orders;
        self.handled += took.handled;
        self.wall += took.wall;
        self.spent += took.spent;
        took.wall
    }

    fn micros_each(&self, of: Duration) -> f64 {
        of.as_secs_f64() * 1e6 / self.flows as f64
    }
}

/// All cases.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) rows: Vec<Row>,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Microseconds of processor time are for each flow, all threads and the kernel's work for them.\n"
        )?;
        writeln!(
            f,
            "| Kafka | brokers | commits survive | flows a second | messages a flow | µs: services | outside | Kafka | customers | all | processors busy |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|---|---|")?;
        for row in &self.rows {
            writeln!(
                f,
                "| {} | {} | {} | {:.0} | {:.1} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} |",
                row.name,
                row.brokers,
                row.survives,
                row.flows as f64 / row.wall.as_secs_f64(),
                row.handled as f64 / row.flows as f64,
                row.micros_each(row.spent.services),
                row.micros_each(row.spent.outside),
                row.micros_each(row.spent.kafka),
                row.micros_each(row.spent.customers),
                row.micros_each(row.spent.total()),
                row.spent.total().as_secs_f64() / row.wall.as_secs_f64(),
            )?;
        }
        Ok(())
    }
}

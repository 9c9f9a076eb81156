//! Plain rdkafka and the adapter, side by side.

use std::fmt;

use crate::support::Tally;

/// The same work, done both ways.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pair {
    pub(crate) plain: Tally,
    pub(crate) adapter: Tally,
}

/// One cluster.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    name: &'static str,
    brokers: u32,
    pub(crate) produce: Pair,
    pub(crate) consume: Pair,
    pub(crate) one_by_one: Pair,
}

impl Row {
    pub(crate) fn new(name: &'static str, brokers: u32) -> Row {
        let [produce, consume, one_by_one] = [Pair::default(); 3];
        Row { name, brokers, produce, consume, one_by_one }
    }
}

/// All clusters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) rows: Vec<Row>,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "CPU is this process's: with the cluster, where that is not Kafka.\n")?;
        writeln!(
            f,
            "| cluster | brokers | pattern | plain, a second | adapter | ratio | CPU a record, plain | adapter |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|")?;
        for Row { name, brokers, produce, consume, one_by_one } in &self.rows {
            for (pattern, Pair { plain, adapter }) in
                [("produce", produce), ("consume", consume), ("one by one", one_by_one)]
            {
                writeln!(
                    f,
                    "| {name} | {brokers} | {pattern} | {:.0} | {:.0} | {:.2} | {:.2} µs | {:.2} µs |",
                    plain.per_second(),
                    adapter.per_second(),
                    adapter.per_second() / plain.per_second(),
                    plain.micros_each(plain.cpu),
                    adapter.micros_each(adapter.cpu),
                )?;
            }
        }
        Ok(())
    }
}

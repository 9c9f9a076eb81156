//! `[probe]`: clients of the harness's own.

use std::collections::BTreeMap;

use broker::Properties;

use super::Rate;

/// Producers that write what a reader reads, and nothing else: what they find is Kafka's or the client's alone.
///
/// They write to the topic [`Probe::TOPIC`]. Values are unique, so that each can be followed. With transactions, each
/// transaction writes to several partitions and ends with a commit, or with an abort on purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Hosts `probe-1` to `probe-N`, one producer each.
    pub writers: u32,
    /// How many records, or transactions, all of them write together.
    pub count: u32,
    /// How fast they arrive.
    pub arrival: Rate,
    /// Each writer has a transactional id and writes in transactions.
    pub transactions: bool,
    /// How many of a million transactions are aborted on purpose.
    pub abort_ppm: u32,
    /// Properties of the writers by Kafka's names, on top of the client's defaults and `acks=all`.
    pub properties: BTreeMap<String, String>,
}

impl Probe {
    /// The properties of a writer's producer.
    pub fn producer_properties(&self, writer: u32) -> Properties {
        let mut properties =
            Properties::new().set("acks", "all").set("enable.idempotence", true).set("linger.ms", 0);
        if self.transactions {
            properties = properties.set("transactional.id", format!("probe-{writer}"));
        }
        for (name, value) in &self.properties {
            properties = properties.set(name, value);
        }
        properties
    }

    /// The topic that the probe writes to.
    pub const TOPIC: &str = "probe";

    /// The group that reads it.
    pub const GROUP: &str = "probe";

    /// The host that reads.
    pub const READER: &str = "probe-reader";

    /// The host of a writer, from 1.
    pub fn writer(number: u32) -> String {
        format!("probe-{number}")
    }
}

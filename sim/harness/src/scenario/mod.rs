//! Scenario files: one TOML file, one claim, checked against the words of the system under test before anything runs.
//!
//! [`Scenario::load`] gives either a plain struct, in which every name is known to exist, every duration is a
//! [`Duration`] in whole milliseconds and every probability an integer, or a [`ScenarioError`] that points at the
//! place in the file. The runner reads [`Scenario`] and never sees TOML.
//!
//! Start reading at [`Scenario`] and [`Vocabulary`]. The grammar is in `read`, section by section; `values` holds the
//! small languages inside strings (`20/s`, `>= 95%`), `table` the walk through TOML, `diagnostic` how an error is shown.
//! Absent on purpose: what a fault does (the runner's), and any knowledge of the services, which come in as a
//! [`Vocabulary`].

mod diagnostic;
mod expect;
mod fault;
mod hosts;
mod probe;
mod read;
mod table;
mod values;
mod vocabulary;

#[cfg(test)]
mod tests;

pub use diagnostic::ScenarioError;
pub use expect::{Bound, Comparison, Expect, Statistic};
pub use fault::{BrokerChoice, ELECTION, Fault, FaultKind, STOPS_WITHIN, Start};
pub use probe::Probe;
pub use vocabulary::{ServiceWords, Vocabulary};

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use kafka::Settings;
use world::LatencyRange;

/// The latency of links of which nobody says anything.
pub const USUAL_LATENCY: LatencyRange =
    LatencyRange { min: Duration::from_millis(1), max: Duration::from_millis(5) };

/// One scenario, resolved: what to run, what goes wrong, what must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// The file's name without `.toml`.
    pub name: String,
    /// The file, as it was named on the command line.
    pub file: PathBuf,
    /// The file's text, from which another process reads the same scenario, whatever becomes of the file.
    pub text: String,
    /// The claim, a sentence.
    pub claim: String,
    /// The workload and how often it runs.
    pub run: Run,
    /// How many orders meet each refusal, exactly; which ones is drawn from the seed. Every kind of the vocabulary is
    /// here, with 0 where the file says nothing.
    pub refusals: BTreeMap<String, u32>,
    /// The Kafka cluster.
    pub cluster: Cluster,
    /// Clients of the harness's own, beside the services or in place of their workload.
    pub probe: Option<Probe>,
    /// Every service of the vocabulary, with its defaults where the file says nothing.
    pub services: BTreeMap<String, ServiceSettings>,
    /// The latency of every link that no fault has changed; [`USUAL_LATENCY`] where the file says nothing.
    pub latency: LatencyRange,
    /// What goes wrong, in the order of the file.
    pub faults: Vec<Fault>,
    /// What must hold.
    pub expect: Expect,
}

/// `[run]`: the workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// How many seeds a run takes when the command line does not say: `0..seeds`.
    pub seeds: u64,
    /// How many orders are sent; 0 only beside a probe.
    pub orders: u32,
    /// How fast they arrive.
    pub arrival: Rate,
    /// How many customers share them.
    pub customers: u32,
    /// How many different items there are.
    pub items: u32,
}

/// So many in a span: `20/s` is 20 in one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many; at least 1.
    pub count: u32,
    /// In how long: a second, a minute or an hour.
    pub per: Duration,
}

impl Rate {
    /// The mean time between two.
    pub fn gap(self) -> Duration {
        self.per / self.count
    }
}

/// `[cluster]`: the simulated Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Brokers `broker-1` to `broker-N`.
    pub brokers: u32,
    /// Replicas of each partition, of internal topics too; at most as many as there are brokers.
    pub replication_factor: u32,
    /// `min.insync.replicas` of each topic; never above the replication factor.
    pub min_insync_replicas: u32,
    /// Partitions of each topic.
    pub partitions: u32,
    /// Broker settings by Kafka's own names, for all brokers; `2:broker.rack` is for broker 2 alone.
    pub config: BTreeMap<String, String>,
    /// Feature levels by Kafka's own names; what is left out has the default of Kafka 4.1.
    pub features: BTreeMap<String, i16>,
}

impl Cluster {
    /// Whether nothing but the kernel's write-back, a segment's roll and a clean stop flushes the logs, as Kafka has it by
    /// default: then a record lies in the page cache for a while, and a power loss can take it.
    pub fn leaves_flushing_to_the_kernel(&self) -> bool {
        let flushes = |settings: &Settings| {
            let ms = settings.log_flush_interval_ms.unwrap_or(settings.log_flush_scheduler_interval_ms);
            (settings.log_flush_interval_messages, ms)
        };
        let (_, of_brokers) = self.settings();
        of_brokers.iter().all(|settings| flushes(settings) == flushes(&Settings::default()))
    }

    /// The settings of its controller, and of each of its brokers.
    fn settings(&self) -> (Settings, Vec<Settings>) {
        Settings::of_cluster(&self.config, self.brokers as usize)
            .expect("the settings of a cluster were parsed when they were read")
    }
}

/// `[services.<name>]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSettings {
    /// Hosts `<name>-1` to `<name>-N`.
    pub replicas: u32,
    /// How effects and messages stay together.
    pub delivery: Delivery,
    /// Planted flaws, by the vocabulary's names, in the order of the file.
    pub naive: Vec<String>,
    /// How long a saga waits for the answer to one step; `None` leaves it to the service.
    pub step_timeout: Option<Duration>,
}

/// How a service keeps its state and its messages together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Messages are committed with the state and relayed afterwards; duplicates meet an inbox.
    Outbox,
}

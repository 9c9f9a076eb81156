//! What a cluster is made from: where its nodes live, and Kafka's own settings by Kafka's own names.
//!
//! Only settings that change what this cluster does are known, and a list of those that real clients set although they
//! cannot see what they do ([`unseen`]); any other name is an error rather than a silence.
//!
//! Here are the cluster, its features and its errors. `settings.rs` and `topic_settings.rs` have the tables of what a
//! broker and a topic can be told, `values.rs` how a value is read and shown, `told.rs` where one comes from.

mod settings;
mod topic_settings;
mod unseen;
mod values;

pub(crate) mod resource;
pub(crate) mod told;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

pub use settings::{Dynamic, SETTING_NAMES, SETTINGS, Setting, Settings};
pub use topic_settings::{TOPIC_SETTING_NAMES, TOPIC_SETTINGS, TopicSetting, TopicSettings};
pub use unseen::{UNSEEN_BROKER_SETTINGS, UNSEEN_TOPIC_SETTINGS, Unseen};
pub use values::{CleanupPolicy, Compression, Kind, ReplicaSelector, TimestampType};

/// The client port of simulated brokers.
pub const BROKER_PORT: u16 = 9092;
/// The port of the simulated controller, for brokers only.
pub const CONTROLLER_PORT: u16 = 9093;

/// Where a node lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The host's name in its world, `broker-1`.
    pub name: String,
    /// The host that peers and clients are told to connect to.
    pub host: String,
    /// The port that it listens on and advertises.
    pub port: u16,
}

/// What a cluster is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// The brokers; the first has node id 1.
    pub brokers: Vec<Endpoint>,
    /// The controller. One logical node stands for the whole quorum.
    pub controller: Endpoint,
    /// Broker settings by Kafka's names. A name is for all brokers, `2:broker.rack` for broker 2, over what is for all. What
    /// is left out has Kafka's default. The constructors set the replication factors of the internal topics to 3, or to the
    /// number of brokers if that is less.
    pub config: BTreeMap<String, String>,
    /// Feature levels by Kafka's names, as a cluster is formatted with them; what is left out has 4.1's default. See
    /// [`Features`].
    pub features: BTreeMap<String, i16>,
}

impl ClusterConfig {
    /// `brokers` brokers in a simulated world: hosts `broker-1`…, port [`BROKER_PORT`], and host `controller`.
    pub fn simulated(brokers: u32) -> ClusterConfig {
        let endpoint = |name: String, port| Endpoint { host: name.clone(), name, port };
        ClusterConfig {
            brokers: (1..=brokers).map(|id| endpoint(format!("broker-{id}"), BROKER_PORT)).collect(),
            controller: endpoint("controller".into(), CONTROLLER_PORT),
            config: internal_topics(brokers as usize),
            features: BTreeMap::new(),
        }
    }

    /// One endpoint for each port of `ports` on 127.0.0.1, and the controller on `controller_port`. Numeric, because
    /// librdkafka may resolve `localhost` to `::1` first.
    pub fn loopback(ports: &[u16], controller_port: u16) -> ClusterConfig {
        let endpoint = |name: String, port| Endpoint { name, host: "127.0.0.1".into(), port };
        let brokers = ports.iter().zip(1..).map(|(&port, id)| endpoint(format!("broker-{id}"), port));
        ClusterConfig {
            brokers: brokers.collect(),
            controller: endpoint("controller".into(), controller_port),
            config: internal_topics(ports.len()),
            features: BTreeMap::new(),
        }
    }

    /// With a broker setting.
    pub fn with(mut self, name: impl Into<String>, value: impl ToString) -> ClusterConfig {
        self.config.insert(name.into(), value.to_string());
        self
    }

    /// With a feature level.
    pub fn with_feature(mut self, name: impl Into<String>, level: i16) -> ClusterConfig {
        self.features.insert(name.into(), level);
        self
    }
}

/// Kafka's default of 3 replicas for its internal topics leaves a smaller cluster without coordinators.
fn internal_topics(brokers: usize) -> BTreeMap<String, String> {
    let factor = brokers.clamp(1, 3).to_string();
    ["offsets.topic.replication.factor", "transaction.state.log.replication.factor"]
        .map(|name| (name.to_owned(), factor.clone()))
        .into()
}

/// Why a configuration is no good. Whoever wrote it can mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A cluster without brokers.
    #[error("a cluster needs at least one broker")]
    NoBrokers,
    /// No such setting here.
    #[error("broker setting `{name}` is not known here; nearest is `{nearest}`")]
    UnknownSetting {
        /// As it was written.
        name: String,
        /// The known name that is most like it.
        nearest: &'static str,
    },
    /// A setting of a broker that is not there.
    #[error("setting `{name}` is for a broker that is not there; brokers have the numbers 1 to {brokers}")]
    NoSuchBroker {
        /// As it was written.
        name: String,
        /// How many there are.
        brokers: usize,
    },
    /// A setting with a value that it cannot have.
    #[error("broker setting `{name}` is `{value}`, but must be {expected}")]
    BadValue {
        /// The setting.
        name: String,
        /// As it was written.
        value: String,
        /// What it may be.
        expected: String,
    },
    /// No such feature here.
    #[error("feature `{name}` is not known here; there are {}", Features::NAMES.join(", "))]
    UnknownFeature {
        /// As it was written.
        name: String,
    },
    /// A feature level that is not supported.
    #[error("feature `{name}` is {level}, but must be from 0 to {max}")]
    FeatureLevel {
        /// The feature.
        name: String,
        /// As it was written.
        level: i16,
        /// The newest level that is built.
        max: i16,
    },
}

impl ConfigError {
    /// What a client reads who gave a topic that setting: Kafka's words, in front of ours for what it may be.
    pub fn of_topic(&self) -> String {
        match self {
            ConfigError::UnknownSetting { name, .. } => format!("Unknown topic config name: {name}"),
            ConfigError::BadValue { name, value, expected } => {
                format!("Invalid value {value} for configuration {name}: it must be {expected}")
            }
            other => other.to_string(),
        }
    }
}
/// The finalized feature levels of a cluster, which brokers tell clients in ApiVersions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// `transaction.version`: 2 (KIP-890 part 2) bumps the producer's epoch with each transaction. 2 in 4.1.
    pub transaction_version: i16,
    /// `eligible.leader.replicas.version` (KIP-966): 1 in 4.1.
    pub eligible_leader_replicas_version: i16,
}

impl Default for Features {
    fn default() -> Features {
        Features { transaction_version: 2, eligible_leader_replicas_version: 1 }
    }
}

impl Features {
    /// The features that a cluster can be formatted with.
    pub const NAMES: [&'static str; 2] = ["eligible.leader.replicas.version", "transaction.version"];

    /// Reads levels by Kafka's names.
    ///
    /// # Errors
    /// [`ConfigError`] names the first that is unknown or has a level that is not supported.
    pub fn parse(levels: &BTreeMap<String, i16>) -> Result<Features, ConfigError> {
        let mut features = Features::default();
        for (name, &level) in levels {
            let (feature, max) = match name.as_str() {
                "transaction.version" => (&mut features.transaction_version, 2),
                "eligible.leader.replicas.version" => (&mut features.eligible_leader_replicas_version, 1),
                _ => return Err(ConfigError::UnknownFeature { name: name.clone() }),
            };
            if !(0..=max).contains(&level) {
                return Err(ConfigError::FeatureLevel { name: name.clone(), level, max });
            }
            *feature = level;
        }
        Ok(features)
    }
}

/// How long, for a setting in milliseconds.
pub(crate) fn millis(ms: i32) -> Duration {
    Duration::from_millis(u64::from(ms.unsigned_abs()))
}

fn unknown(name: &str, known: &[&'static str]) -> ConfigError {
    ConfigError::UnknownSetting { name: name.to_owned(), nearest: nearest(name, known) }
}

fn bad(name: &str, value: &str, expected: String) -> ConfigError {
    ConfigError::BadValue { name: name.to_owned(), value: value.to_owned(), expected }
}

/// The known name that shares most with `name`: words in common first, then the start in common.
fn nearest(name: &str, known: &[&'static str]) -> &'static str {
    let likeness = |candidate: &&str| {
        let words = name.split('.').filter(|word| candidate.split('.').any(|known| known == *word)).count();
        let start = name.bytes().zip(candidate.bytes()).take_while(|(a, b)| a == b).count();
        (words, start)
    };
    known.iter().copied().max_by_key(|candidate| likeness(candidate)).unwrap_or("")
}

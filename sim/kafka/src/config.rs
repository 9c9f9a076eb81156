//! What a cluster is made from: where its nodes live, and Kafka's own settings by Kafka's own names.
//!
//! Only settings that change what this cluster does are known, and a list of those that real clients set although they
//! cannot see what they do ([`unseen`]); any other name is an error rather than a silence.

pub(crate) mod told;
mod unseen;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use unseen::{UNSEEN_BROKER_SETTINGS, UNSEEN_TOPIC_SETTINGS, Unseen};

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
    /// is left out has Kafka's default. The constructors set the replication factors of the internal topics to 3, or to the number of brokers if that is less.
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

/// Where a consumer reads that says in which rack it is (KIP-392).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaSelector {
    /// Always from the leader.
    Leader,
    /// From a replica in its own rack, if one is in sync and has what it wants.
    RackAware,
}

/// Who says what time a record has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// Its producer.
    CreateTime,
    /// The broker that appends it.
    LogAppendTime,
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

/// What values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A 32-bit number, with its bounds.
    Int(i64, i64),
    /// A 64-bit number, with its bounds.
    Long(i64, i64),
    /// A number with a fraction, with its bounds.
    Double(f64, f64),
    /// `true` or `false`.
    Boolean,
    /// Any text.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Some of these words, with commas between them.
    List(&'static [&'static str]),
}

impl Kind {
    /// Kafka's number for the type (`DescribeConfigsResponse.ConfigType`).
    pub fn code(&self) -> i8 {
        match self {
            Kind::Boolean => 1,
            Kind::Text | Kind::Choice(_) => 2,
            Kind::Int(..) => 3,
            Kind::Long(..) => 5,
            Kind::Double(..) => 6,
            Kind::List(_) => 7,
        }
    }

    /// Whether a setting may have that value.
    fn check(&self, name: &str, value: &str) -> Result<(), ConfigError> {
        match *self {
            Kind::Int(..) | Kind::Long(..) => i64::read(name, value, self).map(drop),
            Kind::Double(..) => f64::read(name, value, self).map(drop),
            Kind::Boolean => bool::read(name, value, self).map(drop),
            Kind::Text => Ok(()),
            Kind::Choice(words) if words.contains(&value.trim()) => Ok(()),
            Kind::List(words) if value.split(',').all(|word| words.contains(&word.trim())) => Ok(()),
            Kind::Choice(words) | Kind::List(words) => {
                Err(bad(name, value, format!("`{}`", words.join("` or `"))))
            }
        }
    }
}

/// Whether a setting may change while a broker runs (Kafka's dynamic update modes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dynamic {
    /// Only with a restart.
    ReadOnly,
    /// For one broker at a time.
    PerBroker,
    /// For all brokers, or for one.
    ClusterWide,
}

/// One line of the table of broker settings.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Kafka's name.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Its default as text; `None` for none, which Kafka writes as null.
    pub default: Option<&'static str>,
    /// Whether it may change.
    pub dynamic: Dynamic,
    /// What it means.
    pub doc: &'static str,
}

/// One line of the table of topic settings.
#[derive(Clone, Copy, Debug)]
pub struct TopicSetting {
    /// Kafka's name.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// The broker's setting that holds where a topic says nothing.
    pub broker: &'static str,
    /// What it means.
    pub doc: &'static str,
}

/// A typed value of a setting.
trait Value: Sized {
    fn read(name: &str, value: &str, kind: &Kind) -> Result<Self, ConfigError>;

    /// As text; `None` for a setting without a value.
    fn show(&self) -> Option<String>;

    /// What stands for no value; only optional settings have that.
    fn none() -> Option<Self> {
        None
    }
}

macro_rules! broker_settings {
    ($($(#[doc = $doc:literal])+ $name:literal $field:ident: $type:ty = $default:expr, $kind:expr, $dynamic:ident;)+) => {
        /// The settings of a broker, parsed. Field names are Kafka's names with `_` for `.`; defaults are those of
        /// Kafka 4.1.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Settings {
            $($(#[doc = $doc])+ pub $field: $type,)+
            /// The names that were given, and not left to their defaults.
            given: BTreeSet<&'static str>,
            /// Those of [`UNSEEN_BROKER_SETTINGS`] that were given.
            unseen: BTreeMap<&'static str, String>,
        }

        /// Every broker setting that is known here.
        pub static SETTINGS: &[Setting] = &[$(Setting {
            name: $name,
            kind: $kind,
            default: $default,
            dynamic: Dynamic::$dynamic,
            doc: concat!($($doc),+),
        }),+];

        /// The names that [`Settings::parse`] knows.
        pub const SETTING_NAMES: &[&str] = &[$($name),+];

        impl Default for Settings {
            fn default() -> Settings {
                Settings {
                    $($field: <$type as FromDefault>::from_default($name, $default, &$kind),)+
                    given: BTreeSet::new(),
                    unseen: BTreeMap::new(),
                }
            }
        }

        impl Settings {
            fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
                match name {
                    $($name => {
                        self.$field = Value::read(name, value, &$kind)?;
                        self.given.insert($name);
                    })+
                    _ => {
                        let setting = unseen::find(UNSEEN_BROKER_SETTINGS, name);
                        let setting = setting.ok_or_else(|| unknown(name, SETTING_NAMES))?;
                        setting.kind.check(name, value)?;
                        self.unseen.insert(setting.name, value.to_owned());
                        self.given.insert(setting.name);
                    }
                }
                Ok(())
            }

            /// The value of a setting as text; `None` if it has none.
            ///
            /// # Panics
            /// If there is no such setting.
            pub fn shown(&self, name: &str) -> Option<String> {
                match name {
                    $($name => Value::show(&self.$field),)+
                    _ => {
                        let setting = unseen::find(UNSEEN_BROKER_SETTINGS, name);
                        let setting =
                            setting.unwrap_or_else(|| panic!("`{name}` is not in the table of broker settings"));
                        self.unseen.get(name).cloned().or_else(|| setting.default.map(str::to_owned))
                    }
                }
            }
        }
    };
}

macro_rules! topic_settings {
    ($($(#[doc = $doc:literal])+ $name:literal $field:ident: $type:ty, $kind:expr, $broker:literal $fallback:expr;)+) => {
        /// What a topic says for itself; `None` leaves it to the broker. The method of each name gives what holds.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct TopicSettings {
            $($(#[doc = $doc])+ pub $field: Option<$type>,)+
        }

        /// Every topic setting that is known here.
        pub static TOPIC_SETTINGS: &[TopicSetting] = &[$(TopicSetting {
            name: $name,
            kind: $kind,
            broker: $broker,
            doc: concat!($($doc),+),
        }),+];

        /// The names that [`TopicSettings::parse`] knows.
        pub const TOPIC_SETTING_NAMES: &[&str] = &[$($name),+];

        impl TopicSettings {
            fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
                match name {
                    $($name => self.$field = Some(Value::read(name, value, &$kind)?),)+
                    // Nothing comes of it: the text is told of again from where the topic's settings are kept.
                    _ => match unseen::find(UNSEEN_TOPIC_SETTINGS, name) {
                        Some(setting) => setting.kind.check(name, value)?,
                        None => return Err(unknown(name, TOPIC_SETTING_NAMES)),
                    },
                }
                Ok(())
            }

            /// What holds for a topic, as text: its own word or the broker's.
            ///
            /// # Panics
            /// If there is no such setting.
            pub fn shown(&self, broker: &Settings, name: &str) -> Option<String> {
                match name {
                    $($name => Value::show(&self.$field(broker)),)+
                    _ => panic!("`{name}` is not in the table of topic settings"),
                }
            }

            $($(#[doc = $doc])+ pub fn $field(&self, broker: &Settings) -> $type {
                let fallback: fn(&Settings) -> $type = $fallback;
                self.$field.unwrap_or_else(|| fallback(broker))
            })+
        }
    };
}

const MAX: i64 = i32::MAX as i64;
const LONG_MAX: i64 = i64::MAX;
const TIMESTAMP_TYPES: &[&str] = &["CreateTime", "LogAppendTime"];
const CLEANUP_POLICIES: &[&str] = &["compact", "delete"];
const LEADER_SELECTOR: &str = "org.apache.kafka.common.replica.LeaderSelector";
const RACK_AWARE_SELECTOR: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";
const REPLICA_SELECTORS: &[&str] = &[LEADER_SELECTOR, RACK_AWARE_SELECTOR];
const COMPRESSION_TYPES: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];

broker_settings! {
    /// For how long a leader tries again to add a partition to a transaction while the one before is being ended, in milliseconds; no longer than `request.timeout.ms`.
    "add.partitions.to.txn.retry.backoff.max.ms" add_partitions_to_txn_retry_backoff_max_ms: i32 = Some("100"), Kind::Int(0, MAX), ReadOnly;
    /// How long it waits before it tries again, in milliseconds.
    "add.partitions.to.txn.retry.backoff.ms" add_partitions_to_txn_retry_backoff_ms: i32 = Some("20"), Kind::Int(1, MAX), ReadOnly;
    /// Whether a topic that is asked for and not there is made.
    "auto.create.topics.enable" auto_create_topics_enable: bool = Some("true"), Kind::Boolean, ReadOnly;
    /// Whether the controller gives partitions back to their preferred leaders by itself.
    "auto.leader.rebalance.enable" auto_leader_rebalance_enable: bool = Some("true"), Kind::Boolean, ReadOnly;
    /// How often a broker tells the controller that it lives, in milliseconds.
    "broker.heartbeat.interval.ms" broker_heartbeat_interval_ms: i32 = Some("2000"), Kind::Int(1, MAX), ReadOnly;
    /// How long the controller waits for a heartbeat before it fences a broker, in milliseconds.
    "broker.session.timeout.ms" broker_session_timeout_ms: i32 = Some("9000"), Kind::Int(1, MAX), ReadOnly;
    /// The rack that a broker is in: replicas are spread over racks, and consumers may read in their own.
    "broker.rack" broker_rack: Option<String> = None, Kind::Text, ReadOnly;
    /// What a broker compresses with; `producer` keeps what came.
    "compression.type" compression_type: Compression = Some("producer"), Kind::Choice(COMPRESSION_TYPES), ClusterWide;
    /// How long a connection may be idle, in milliseconds.
    "connections.max.idle.ms" connections_max_idle_ms: i64 = Some("600000"), Kind::Long(-1, LONG_MAX), ReadOnly;
    /// Replicas of a topic whose creator named no number.
    "default.replication.factor" default_replication_factor: i32 = Some("1"), Kind::Int(1, 32_767), ReadOnly;
    /// The most that one fetch answers with, the first batch apart.
    "fetch.max.bytes" fetch_max_bytes: i32 = Some("57671680"), Kind::Int(1_024, MAX), ReadOnly;
    /// How long a group waits for more members at its first rebalance, in milliseconds.
    "group.initial.rebalance.delay.ms" group_initial_rebalance_delay_ms: i32 = Some("3000"), Kind::Int(0, MAX), ReadOnly;
    /// The longest session that a member may ask for, in milliseconds.
    "group.max.session.timeout.ms" group_max_session_timeout_ms: i32 = Some("1800000"), Kind::Int(1, MAX), ReadOnly;
    /// The most members of a group.
    "group.max.size" group_max_size: i32 = Some("2147483647"), Kind::Int(1, MAX), ReadOnly;
    /// The shortest session that a member may ask for, in milliseconds.
    "group.min.session.timeout.ms" group_min_session_timeout_ms: i32 = Some("6000"), Kind::Int(1, MAX), ReadOnly;
    /// How often the controller looks whether leaders are where they are preferred, in seconds.
    "leader.imbalance.check.interval.seconds" leader_imbalance_check_interval_seconds: i64 = Some("300"), Kind::Long(1, LONG_MAX), ReadOnly;
    /// How many leaders of a hundred may be elsewhere than preferred, for each broker.
    "leader.imbalance.per.broker.percentage" leader_imbalance_per_broker_percentage: i32 = Some("10"), Kind::Int(0, MAX), ReadOnly;
    /// How long the cleaner sleeps when there is nothing to clean, in milliseconds.
    "log.cleaner.backoff.ms" log_cleaner_backoff_ms: i64 = Some("15000"), Kind::Long(0, LONG_MAX), ClusterWide;
    /// How long tombstones and markers are kept, in milliseconds.
    "log.cleaner.delete.retention.ms" log_cleaner_delete_retention_ms: i64 = Some("86400000"), Kind::Long(0, LONG_MAX), ClusterWide;
    /// Whether logs are compacted.
    "log.cleaner.enable" log_cleaner_enable: bool = Some("true"), Kind::Boolean, ReadOnly;
    /// How long a record may stay uncompacted, in milliseconds.
    "log.cleaner.max.compaction.lag.ms" log_cleaner_max_compaction_lag_ms: i64 = Some("9223372036854775807"), Kind::Long(1, LONG_MAX), ClusterWide;
    /// The part of a log that must be dirty before it is cleaned.
    "log.cleaner.min.cleanable.ratio" log_cleaner_min_cleanable_ratio: f64 = Some("0.5"), Kind::Double(0.0, 1.0), ClusterWide;
    /// How long a record stays uncompacted at least, in milliseconds.
    "log.cleaner.min.compaction.lag.ms" log_cleaner_min_compaction_lag_ms: i64 = Some("0"), Kind::Long(0, LONG_MAX), ClusterWide;
    /// What is done with old records.
    "log.cleanup.policy" log_cleanup_policy: CleanupPolicy = Some("delete"), Kind::List(CLEANUP_POLICIES), ClusterWide;
    /// How many records may be unflushed.
    "log.flush.interval.messages" log_flush_interval_messages: i64 = Some("9223372036854775807"), Kind::Long(1, LONG_MAX), ClusterWide;
    /// How long a record may be unflushed, in milliseconds; nothing leaves it to the kernel.
    "log.flush.interval.ms" log_flush_interval_ms: Option<i64> = None, Kind::Long(0, LONG_MAX), ClusterWide;
    /// How often logs are looked at for records that are unflushed for too long, in milliseconds.
    "log.flush.scheduler.interval.ms" log_flush_scheduler_interval_ms: i64 = Some("9223372036854775807"), Kind::Long(1, LONG_MAX), ReadOnly;
    /// How long after a start logs are first looked after, in milliseconds.
    "log.initial.task.delay.ms" log_initial_task_delay_ms: i64 = Some("30000"), Kind::Long(0, LONG_MAX), ReadOnly;
    /// How far ahead of the broker's clock a record may be, in milliseconds.
    "log.message.timestamp.after.max.ms" log_message_timestamp_after_max_ms: i64 = Some("3600000"), Kind::Long(0, LONG_MAX), ClusterWide;
    /// How far behind the broker's clock a record may be, in milliseconds.
    "log.message.timestamp.before.max.ms" log_message_timestamp_before_max_ms: i64 = Some("9223372036854775807"), Kind::Long(0, LONG_MAX), ClusterWide;
    /// Who says what time a record has.
    "log.message.timestamp.type" log_message_timestamp_type: TimestampType = Some("CreateTime"), Kind::Choice(TIMESTAMP_TYPES), ClusterWide;
    /// How large a log may grow, in bytes; -1 for no limit.
    "log.retention.bytes" log_retention_bytes: i64 = Some("-1"), Kind::Long(-1, LONG_MAX), ClusterWide;
    /// How often old segments are looked for, in milliseconds.
    "log.retention.check.interval.ms" log_retention_check_interval_ms: i64 = Some("300000"), Kind::Long(1, LONG_MAX), ReadOnly;
    /// How long records are kept, in hours, unless minutes or milliseconds say otherwise.
    "log.retention.hours" log_retention_hours: i32 = Some("168"), Kind::Int(-1, MAX), ReadOnly;
    /// How long records are kept, in minutes, unless milliseconds say otherwise.
    "log.retention.minutes" log_retention_minutes: Option<i32> = None, Kind::Int(-1, MAX), ReadOnly;
    /// How long records are kept, in milliseconds; -1 for ever.
    "log.retention.ms" log_retention_ms: Option<i64> = None, Kind::Long(-1, LONG_MAX), ClusterWide;
    /// How old a segment grows, in hours, unless milliseconds say otherwise.
    "log.roll.hours" log_roll_hours: i32 = Some("168"), Kind::Int(1, MAX), ReadOnly;
    /// How old a segment grows, in milliseconds.
    "log.roll.ms" log_roll_ms: Option<i64> = None, Kind::Long(1, LONG_MAX), ClusterWide;
    /// How large a segment grows, in bytes.
    "log.segment.bytes" log_segment_bytes: i32 = Some("1073741824"), Kind::Int(1_048_576, MAX), ClusterWide;
    /// The most connections of a broker.
    "max.connections" max_connections: i32 = Some("2147483647"), Kind::Int(0, MAX), ClusterWide;
    /// The fetch sessions that a broker remembers.
    "max.incremental.fetch.session.cache.slots" max_incremental_fetch_session_cache_slots: i32 = Some("1000"), Kind::Int(0, MAX), ReadOnly;
    /// The largest batch, unless its topic says otherwise, in bytes.
    "message.max.bytes" message_max_bytes: i32 = Some("1048588"), Kind::Int(0, MAX), ClusterWide;
    /// How many replicas must be in sync for `acks=all`.
    "min.insync.replicas" min_insync_replicas: i32 = Some("1"), Kind::Int(1, MAX), ClusterWide;
    /// Partitions of a topic whose creator named no number.
    "num.partitions" num_partitions: i32 = Some("1"), Kind::Int(1, MAX), ReadOnly;
    /// The most bytes of a commit's metadata.
    "offset.metadata.max.bytes" offset_metadata_max_bytes: i32 = Some("4096"), Kind::Int(0, MAX), ReadOnly;
    /// How long a commit waits for its replicas, in milliseconds.
    "offsets.commit.timeout.ms" offsets_commit_timeout_ms: i32 = Some("5000"), Kind::Int(1, MAX), ReadOnly;
    /// How often expired offsets are looked for, in milliseconds.
    "offsets.retention.check.interval.ms" offsets_retention_check_interval_ms: i64 = Some("600000"), Kind::Long(1, LONG_MAX), ReadOnly;
    /// How long the offsets of an empty group are kept, in minutes.
    "offsets.retention.minutes" offsets_retention_minutes: i32 = Some("10080"), Kind::Int(1, MAX), ReadOnly;
    /// Partitions of the offsets topic.
    "offsets.topic.num.partitions" offsets_topic_num_partitions: i32 = Some("50"), Kind::Int(1, MAX), ReadOnly;
    /// Replicas of the offsets topic.
    "offsets.topic.replication.factor" offsets_topic_replication_factor: i32 = Some("3"), Kind::Int(1, 32_767), ReadOnly;
    /// How large a segment of the offsets topic grows, in bytes.
    "offsets.topic.segment.bytes" offsets_topic_segment_bytes: i32 = Some("104857600"), Kind::Int(1, MAX), ReadOnly;
    /// How often expired producer ids are looked for, in milliseconds.
    "producer.id.expiration.check.interval.ms" producer_id_expiration_check_interval_ms: i32 = Some("600000"), Kind::Int(1, MAX), ReadOnly;
    /// How long a replica remembers a silent producer, in milliseconds.
    "producer.id.expiration.ms" producer_id_expiration_ms: i32 = Some("86400000"), Kind::Int(1, MAX), ClusterWide;
    /// How long a follower rests after a failed fetch, in milliseconds.
    "replica.fetch.backoff.ms" replica_fetch_backoff_ms: i32 = Some("1000"), Kind::Int(0, MAX), ReadOnly;
    /// The most that a follower takes of a partition at once, the first batch apart, in bytes.
    "replica.fetch.max.bytes" replica_fetch_max_bytes: i32 = Some("1048576"), Kind::Int(0, MAX), ReadOnly;
    /// The least that a follower waits for, in bytes.
    "replica.fetch.min.bytes" replica_fetch_min_bytes: i32 = Some("1"), Kind::Int(0, MAX), ReadOnly;
    /// The most that a follower takes at once, in bytes.
    "replica.fetch.response.max.bytes" replica_fetch_response_max_bytes: i32 = Some("10485760"), Kind::Int(0, MAX), ReadOnly;
    /// How long a follower's fetch waits for records, in milliseconds.
    "replica.fetch.wait.max.ms" replica_fetch_wait_max_ms: i32 = Some("500"), Kind::Int(0, MAX), ReadOnly;
    /// How often high watermarks are written down, in milliseconds.
    "replica.high.watermark.checkpoint.interval.ms" replica_high_watermark_checkpoint_interval_ms: i64 = Some("5000"), Kind::Long(1, LONG_MAX), ReadOnly;
    /// How long a follower may be behind before it leaves the in-sync replicas, in milliseconds.
    "replica.lag.time.max.ms" replica_lag_time_max_ms: i64 = Some("30000"), Kind::Long(1, LONG_MAX), ReadOnly;
    /// Where consumers read that say in which rack they are; nothing is the leader.
    "replica.selector.class" replica_selector_class: Option<ReplicaSelector> = None, Kind::Choice(REPLICA_SELECTORS), ReadOnly;
    /// How long a follower waits for a leader's answer, in milliseconds.
    "replica.socket.timeout.ms" replica_socket_timeout_ms: i32 = Some("30000"), Kind::Int(1, MAX), ReadOnly;
    /// How long a broker waits for another's answer, in milliseconds.
    "request.timeout.ms" request_timeout_ms: i32 = Some("30000"), Kind::Int(1, MAX), ReadOnly;
    /// The largest request, in bytes.
    "socket.request.max.bytes" socket_request_max_bytes: i32 = Some("104857600"), Kind::Int(1, MAX), ReadOnly;
    /// How often transactions that took too long are looked for, in milliseconds.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms" transaction_abort_timed_out_transaction_cleanup_interval_ms: i32 = Some("10000"), Kind::Int(1, MAX), ReadOnly;
    /// The longest transaction that a producer may ask for, in milliseconds.
    "transaction.max.timeout.ms" transaction_max_timeout_ms: i32 = Some("900000"), Kind::Int(1, MAX), ReadOnly;
    /// Whether a leader asks the coordinator before a transaction's first batch is appended (KIP-890).
    "transaction.partition.verification.enable" transaction_partition_verification_enable: bool = Some("true"), Kind::Boolean, ClusterWide;
    /// How often expired transactional ids are looked for, in milliseconds.
    "transaction.remove.expired.transaction.cleanup.interval.ms" transaction_remove_expired_transaction_cleanup_interval_ms: i32 = Some("3600000"), Kind::Int(1, MAX), ReadOnly;
    /// How many replicas of the transaction log must be in sync.
    "transaction.state.log.min.isr" transaction_state_log_min_isr: i32 = Some("2"), Kind::Int(1, MAX), ReadOnly;
    /// Partitions of the transaction log.
    "transaction.state.log.num.partitions" transaction_state_log_num_partitions: i32 = Some("50"), Kind::Int(1, MAX), ReadOnly;
    /// Replicas of the transaction log.
    "transaction.state.log.replication.factor" transaction_state_log_replication_factor: i32 = Some("3"), Kind::Int(1, 32_767), ReadOnly;
    /// How large a segment of the transaction log grows, in bytes.
    "transaction.state.log.segment.bytes" transaction_state_log_segment_bytes: i32 = Some("104857600"), Kind::Int(1, MAX), ReadOnly;
    /// How long a silent transactional id is remembered, in milliseconds.
    "transactional.id.expiration.ms" transactional_id_expiration_ms: i32 = Some("604800000"), Kind::Int(1, MAX), ReadOnly;
    /// Whether a replica that is behind may lead when no other can.
    "unclean.leader.election.enable" unclean_leader_election_enable: bool = Some("false"), Kind::Boolean, ClusterWide;
    /// How often the controller looks for partitions without a leader that may have one uncleanly, in milliseconds.
    "unclean.leader.election.interval.ms" unclean_leader_election_interval_ms: i64 = Some("300000"), Kind::Long(1, LONG_MAX), ReadOnly;
}

topic_settings! {
    /// What is done with old records.
    "cleanup.policy" cleanup_policy: CleanupPolicy, Kind::List(CLEANUP_POLICIES), "log.cleanup.policy" |broker| broker.log_cleanup_policy;
    /// What a broker compresses with; `producer` keeps what came.
    "compression.type" compression_type: Compression, Kind::Choice(COMPRESSION_TYPES), "compression.type" |broker| broker.compression_type;
    /// How long tombstones and markers are kept, in milliseconds.
    "delete.retention.ms" delete_retention_ms: i64, Kind::Long(0, LONG_MAX), "log.cleaner.delete.retention.ms" |broker| broker.log_cleaner_delete_retention_ms;
    /// How many records may be unflushed.
    "flush.messages" flush_messages: i64, Kind::Long(1, LONG_MAX), "log.flush.interval.messages" |broker| broker.log_flush_interval_messages;
    /// How long a record may be unflushed, in milliseconds.
    "flush.ms" flush_ms: i64, Kind::Long(0, LONG_MAX), "log.flush.interval.ms" |broker| broker.log_flush_interval_ms.unwrap_or(broker.log_flush_scheduler_interval_ms);
    /// How long a record may stay uncompacted, in milliseconds.
    "max.compaction.lag.ms" max_compaction_lag_ms: i64, Kind::Long(1, LONG_MAX), "log.cleaner.max.compaction.lag.ms" |broker| broker.log_cleaner_max_compaction_lag_ms;
    /// The largest batch, in bytes.
    "max.message.bytes" max_message_bytes: i32, Kind::Int(0, MAX), "message.max.bytes" |broker| broker.message_max_bytes;
    /// How far ahead of the broker's clock a record may be, in milliseconds.
    "message.timestamp.after.max.ms" message_timestamp_after_max_ms: i64, Kind::Long(0, LONG_MAX), "log.message.timestamp.after.max.ms" |broker| broker.log_message_timestamp_after_max_ms;
    /// How far behind the broker's clock a record may be, in milliseconds.
    "message.timestamp.before.max.ms" message_timestamp_before_max_ms: i64, Kind::Long(0, LONG_MAX), "log.message.timestamp.before.max.ms" |broker| broker.log_message_timestamp_before_max_ms;
    /// Who says what time a record has.
    "message.timestamp.type" message_timestamp_type: TimestampType, Kind::Choice(TIMESTAMP_TYPES), "log.message.timestamp.type" |broker| broker.log_message_timestamp_type;
    /// The part of a log that must be dirty before it is cleaned.
    "min.cleanable.dirty.ratio" min_cleanable_dirty_ratio: f64, Kind::Double(0.0, 1.0), "log.cleaner.min.cleanable.ratio" |broker| broker.log_cleaner_min_cleanable_ratio;
    /// How long a record stays uncompacted at least, in milliseconds.
    "min.compaction.lag.ms" min_compaction_lag_ms: i64, Kind::Long(0, LONG_MAX), "log.cleaner.min.compaction.lag.ms" |broker| broker.log_cleaner_min_compaction_lag_ms;
    /// How many replicas must be in sync for `acks=all`.
    "min.insync.replicas" min_insync_replicas: i32, Kind::Int(1, MAX), "min.insync.replicas" |broker| broker.min_insync_replicas;
    /// How large a log may grow, in bytes; -1 for no limit.
    "retention.bytes" retention_bytes: i64, Kind::Long(-1, LONG_MAX), "log.retention.bytes" |broker| broker.log_retention_bytes;
    /// How long records are kept, in milliseconds; -1 for ever.
    "retention.ms" retention_ms: i64, Kind::Long(-1, LONG_MAX), "log.retention.ms" Settings::retention_ms;
    /// How large a segment grows, in bytes.
    "segment.bytes" segment_bytes: i32, Kind::Int(1_048_576, MAX), "log.segment.bytes" |broker| broker.log_segment_bytes;
    /// How old a segment grows, in milliseconds.
    "segment.ms" segment_ms: i64, Kind::Long(1, LONG_MAX), "log.roll.ms" Settings::roll_ms;
    /// Whether a replica that is behind may lead when no other can.
    "unclean.leader.election.enable" unclean_leader_election_enable: bool, Kind::Boolean, "unclean.leader.election.enable" |broker| broker.unclean_leader_election_enable;
}

impl Settings {
    /// Reads settings by Kafka's names.
    ///
    /// # Errors
    /// [`ConfigError`] names the first that is unknown or has a value that it cannot have.
    pub fn parse(config: &BTreeMap<String, String>) -> Result<Settings, ConfigError> {
        let mut settings = Settings::default();
        for (name, value) in config {
            settings.set(name, value)?;
        }
        let (min, max) = (settings.group_min_session_timeout_ms, settings.group_max_session_timeout_ms);
        if min > max {
            let name = "group.min.session.timeout.ms".to_owned();
            let expected = format!("at most `group.max.session.timeout.ms`, {max}");
            return Err(ConfigError::BadValue { name, value: min.to_string(), expected });
        }
        Ok(settings)
    }

    /// Reads the settings of a cluster, of which some may be for one broker only ([`ClusterConfig::config`]): those of its
    /// controller, which has what is for all, and those of each of its brokers, the first of which has number 1.
    ///
    /// # Errors
    /// [`ConfigError`], as [`Settings::parse`], and for a number that no broker has.
    pub fn of_cluster(
        config: &BTreeMap<String, String>,
        brokers: usize,
    ) -> Result<(Settings, Vec<Settings>), ConfigError> {
        let mut of_all = BTreeMap::new();
        let mut of_brokers = vec![BTreeMap::new(); brokers];
        for (name, value) in config {
            let Some((number, own)) = name.split_once(':') else {
                of_all.insert(name.clone(), value.clone());
                continue;
            };
            let index = number.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
            let broker = index.and_then(|index| of_brokers.get_mut(index));
            let no_such_broker = || ConfigError::NoSuchBroker { name: name.clone(), brokers };
            broker.ok_or_else(no_such_broker)?.insert(own.to_owned(), value.clone());
        }
        let parse = |own: BTreeMap<String, String>| {
            let mut config = of_all.clone();
            config.extend(own);
            Settings::parse(&config)
        };
        Ok((parse(BTreeMap::new())?, of_brokers.into_iter().map(parse).collect::<Result<_, _>>()?))
    }

    /// These settings with others over them.
    ///
    /// # Errors
    /// As [`Settings::parse`].
    pub fn with(&self, config: &BTreeMap<String, String>) -> Result<Settings, ConfigError> {
        let mut settings = self.clone();
        for (name, value) in config {
            settings.set(name, value)?;
        }
        Ok(settings)
    }

    /// Whether a setting was given, rather than left to its default.
    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains(name)
    }

    /// How long records are kept, in milliseconds: the finest unit that is set wins. -1 is for ever.
    pub fn retention_ms(&self) -> i64 {
        let minutes = self.log_retention_minutes.map(|minutes| scaled(minutes, 60_000));
        self.log_retention_ms.or(minutes).unwrap_or_else(|| scaled(self.log_retention_hours, 3_600_000))
    }

    /// How old a segment grows, in milliseconds: the finest unit that is set wins.
    pub fn roll_ms(&self) -> i64 {
        self.log_roll_ms.unwrap_or_else(|| scaled(self.log_roll_hours, 3_600_000))
    }
}

/// A number of units in milliseconds; -1 stays -1.
fn scaled(units: i32, ms: i64) -> i64 {
    if units < 0 { -1 } else { i64::from(units) * ms }
}

impl TopicSettings {
    /// Reads a topic's settings by Kafka's names.
    ///
    /// # Errors
    /// As [`Settings::parse`].
    pub fn parse(config: &BTreeMap<String, String>) -> Result<TopicSettings, ConfigError> {
        let mut settings = TopicSettings::default();
        for (name, value) in config {
            settings.set(name, value)?;
        }
        Ok(settings)
    }
}

impl TopicSettings {
    /// Whether the settings go together (`LogConfig.validateValues`).
    ///
    /// # Errors
    /// [`ConfigError`] names the one that does not.
    pub fn check(&self, broker: &Settings) -> Result<(), ConfigError> {
        let (min, max) = (self.min_compaction_lag_ms(broker), self.max_compaction_lag_ms(broker));
        if min > max {
            let expected = format!("at most `max.compaction.lag.ms`, {max}");
            return Err(bad("min.compaction.lag.ms", &min.to_string(), expected));
        }
        Ok(())
    }
}

/// What is done with old records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// The last record of each key is kept.
    pub compact: bool,
    /// They are deleted.
    pub delete: bool,
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As the producer sent them.
    Producer,
    /// Not at all.
    Uncompressed,
    /// gzip.
    Gzip,
    /// snappy, in the framing of the Java library.
    Snappy,
    /// lz4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Value for bool {
    fn read(name: &str, value: &str, _: &Kind) -> Result<bool, ConfigError> {
        let expected = || "`true` or `false`".to_owned();
        value.trim().to_ascii_lowercase().parse().map_err(|_| bad(name, value, expected()))
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for i64 {
    fn read(name: &str, value: &str, kind: &Kind) -> Result<i64, ConfigError> {
        let (Kind::Int(min, max) | Kind::Long(min, max)) = *kind else {
            panic!("`{name}` is a whole number, but the table has {kind:?}")
        };
        let parsed = value.trim().parse::<i64>().ok().filter(|number| (min..=max).contains(number));
        let expected = || match max {
            MAX | LONG_MAX => format!("a whole number from {min}"),
            max => format!("from {min} to {max}"),
        };
        parsed.ok_or_else(|| bad(name, value, expected()))
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for i32 {
    fn read(name: &str, value: &str, kind: &Kind) -> Result<i32, ConfigError> {
        i64::read(name, value, kind).map(|number| i32::try_from(number).expect("its bounds are 32-bit"))
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for f64 {
    fn read(name: &str, value: &str, kind: &Kind) -> Result<f64, ConfigError> {
        let Kind::Double(min, max) = *kind else {
            panic!("`{name}` has a fraction, but the table has {kind:?}")
        };
        let parsed = value.trim().parse::<f64>().ok().filter(|number| (min..=max).contains(number));
        parsed.ok_or_else(|| bad(name, value, format!("a number from {min} to {max}")))
    }

    fn show(&self) -> Option<String> {
        Some(format!("{self:?}"))
    }
}

impl Value for String {
    fn read(_: &str, value: &str, _: &Kind) -> Result<String, ConfigError> {
        Ok(value.to_owned())
    }

    fn show(&self) -> Option<String> {
        Some(self.clone())
    }
}

impl Value for ReplicaSelector {
    fn read(name: &str, value: &str, _: &Kind) -> Result<ReplicaSelector, ConfigError> {
        match value.trim() {
            LEADER_SELECTOR => Ok(ReplicaSelector::Leader),
            RACK_AWARE_SELECTOR => Ok(ReplicaSelector::RackAware),
            _ => Err(bad(name, value, format!("`{LEADER_SELECTOR}` or `{RACK_AWARE_SELECTOR}`"))),
        }
    }

    fn show(&self) -> Option<String> {
        let class = match self {
            ReplicaSelector::Leader => LEADER_SELECTOR,
            ReplicaSelector::RackAware => RACK_AWARE_SELECTOR,
        };
        Some(class.to_owned())
    }
}

impl<T: Value> Value for Option<T> {
    fn read(name: &str, value: &str, kind: &Kind) -> Result<Option<T>, ConfigError> {
        T::read(name, value, kind).map(Some)
    }

    fn none() -> Option<Option<T>> {
        Some(None)
    }

    fn show(&self) -> Option<String> {
        self.as_ref().and_then(T::show)
    }
}

impl Value for TimestampType {
    fn read(name: &str, value: &str, _: &Kind) -> Result<TimestampType, ConfigError> {
        match value.trim() {
            "CreateTime" => Ok(TimestampType::CreateTime),
            "LogAppendTime" => Ok(TimestampType::LogAppendTime),
            _ => Err(bad(name, value, "`CreateTime` or `LogAppendTime`".into())),
        }
    }

    fn show(&self) -> Option<String> {
        Some(format!("{self:?}"))
    }
}

impl Value for CleanupPolicy {
    fn read(name: &str, value: &str, _: &Kind) -> Result<CleanupPolicy, ConfigError> {
        let mut policy = CleanupPolicy { compact: false, delete: false };
        for word in value.split(',').map(str::trim) {
            match word {
                "compact" => policy.compact = true,
                "delete" => policy.delete = true,
                _ => return Err(bad(name, value, "`delete`, `compact` or both".into())),
            }
        }
        Ok(policy)
    }

    fn show(&self) -> Option<String> {
        let words = [(self.compact, "compact"), (self.delete, "delete")];
        Some(words.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect::<Vec<_>>().join(","))
    }
}

impl Value for Compression {
    fn read(name: &str, value: &str, _: &Kind) -> Result<Compression, ConfigError> {
        Ok(match value.trim() {
            "producer" => Compression::Producer,
            "uncompressed" => Compression::Uncompressed,
            "gzip" => Compression::Gzip,
            "snappy" => Compression::Snappy,
            "lz4" => Compression::Lz4,
            "zstd" => Compression::Zstd,
            _ => return Err(bad(name, value, format!("one of `{}`", COMPRESSION_TYPES.join("`, `")))),
        })
    }

    fn show(&self) -> Option<String> {
        Some(format!("{self:?}").to_ascii_lowercase())
    }
}

/// A value from the table's own default.
trait FromDefault: Sized {
    fn from_default(name: &str, default: Option<&str>, kind: &Kind) -> Self;
}

impl<T: Value> FromDefault for T {
    fn from_default(name: &str, default: Option<&str>, kind: &Kind) -> T {
        // What has no default is an `Option`, which reads nothing as `None`.
        match default {
            Some(default) => T::read(name, default, kind).expect("a default is within its bounds"),
            None => T::none().unwrap_or_else(|| panic!("`{name}` needs a default")),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, value: &str) -> Result<Settings, String> {
        Settings::parse(&BTreeMap::from([(name.to_owned(), value.to_owned())]))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_setting_takes_kafkas_name() {
        assert_eq!(parse("num.partitions", "4").unwrap().num_partitions, 4);
        assert!(!parse("auto.create.topics.enable", "false").unwrap().auto_create_topics_enable);
    }

    #[test]
    fn a_setting_with_a_number_is_for_that_broker_only() {
        let config = [("broker.rack", "a"), ("2:broker.rack", "b"), ("2:num.partitions", "4")];
        let config: BTreeMap<_, _> = config.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let (controller, brokers) = Settings::of_cluster(&config, 2).unwrap();
        let racks: Vec<_> = brokers.iter().map(|settings| settings.broker_rack.as_deref().unwrap()).collect();
        assert_eq!(racks, ["a", "b"]);
        assert_eq!((controller.num_partitions, brokers[1].num_partitions), (1, 4));
        let error = Settings::of_cluster(&config, 1).unwrap_err().to_string();
        let expected = "is for a broker that is not there; brokers have the numbers 1 to 1";
        assert_eq!(error, format!("setting `2:broker.rack` {expected}"));
        let misspelt = [("1:broker.rac".to_owned(), "a".to_owned())].into();
        assert!(Settings::of_cluster(&misspelt, 1).unwrap_err().to_string().contains("`broker.rack`"));
    }

    #[test]
    fn a_misspelt_setting_is_told_the_nearest_name() {
        let error = parse("num.partition", "4").unwrap_err();
        assert_eq!(error, "broker setting `num.partition` is not known here; nearest is `num.partitions`");
    }

    #[test]
    fn a_value_out_of_range_is_refused_with_its_bounds() {
        let error = parse("num.partitions", "0").unwrap_err();
        assert_eq!(error, "broker setting `num.partitions` is `0`, but must be a whole number from 1");
        assert!(parse("log.message.timestamp.type", "Never").is_err());
        assert!(parse("group.min.session.timeout.ms", "1900000").is_err());
    }

    #[test]
    fn defaults_are_within_their_bounds_and_shown_as_they_are_written() {
        let settings = Settings::default();
        for setting in SETTINGS {
            assert_eq!(settings.shown(setting.name).as_deref(), setting.default, "{}", setting.name);
        }
    }

    #[test]
    fn the_finest_unit_of_retention_wins() {
        assert_eq!(parse("log.retention.hours", "2").unwrap().retention_ms(), 7_200_000);
        assert_eq!(parse("log.retention.minutes", "3").unwrap().retention_ms(), 180_000);
        assert_eq!(parse("log.retention.ms", "5").unwrap().retention_ms(), 5);
    }

    #[test]
    fn a_topic_without_a_word_of_its_own_has_the_brokers() {
        let broker = parse("min.insync.replicas", "2").unwrap();
        let own =
            TopicSettings::parse(&BTreeMap::from([("min.insync.replicas".into(), "3".into())])).unwrap();
        assert_eq!(TopicSettings::default().min_insync_replicas(&broker), 2);
        assert_eq!(own.min_insync_replicas(&broker), 3);
        assert_eq!(own.shown(&broker, "min.insync.replicas").as_deref(), Some("3"));
    }

    #[test]
    fn a_feature_level_that_is_not_built_is_refused() {
        let levels = |level| BTreeMap::from([("transaction.version".to_owned(), level)]);
        assert_eq!(Features::parse(&levels(1)).unwrap().transaction_version, 1);
        let error = Features::parse(&levels(3)).unwrap_err().to_string();
        assert_eq!(error, "feature `transaction.version` is 3, but must be from 0 to 2");
    }

    #[test]
    fn every_name_in_the_list_is_known() {
        for setting in SETTINGS.iter().filter(|setting| setting.kind != Kind::Text) {
            let error = parse(setting.name, "?").unwrap_err();
            assert!(error.contains("must be"), "{error}");
        }
    }
}

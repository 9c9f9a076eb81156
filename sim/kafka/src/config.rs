//! What a cluster is made from: where its nodes live, and Kafka's own settings by Kafka's own names.
//!
//! Only settings that change what this cluster does are known; any other name is an error rather than a silence.

use std::collections::BTreeMap;
use std::time::Duration;

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
    /// Broker settings by Kafka's names, the same for all brokers. What is left out has Kafka's default, except
    /// `offsets.topic.replication.factor`, which is 1.
    pub config: BTreeMap<String, String>,
}

impl ClusterConfig {
    /// `brokers` brokers in a simulated world: hosts `broker-1`…, port [`BROKER_PORT`], and host `controller`.
    pub fn simulated(brokers: u32) -> ClusterConfig {
        let endpoint = |name: String, port| Endpoint { host: name.clone(), name, port };
        ClusterConfig {
            brokers: (1..=brokers).map(|id| endpoint(format!("broker-{id}"), BROKER_PORT)).collect(),
            controller: endpoint("controller".into(), CONTROLLER_PORT),
            config: BTreeMap::new(),
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
            config: BTreeMap::new(),
        }
    }

    /// With a broker setting.
    pub fn with(mut self, name: impl Into<String>, value: impl ToString) -> ClusterConfig {
        self.config.insert(name.into(), value.to_string());
        self
    }
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
    /// Replication is not built yet.
    #[error(
        "broker setting `{name}` is {value}, but partitions have one replica for now; leave it out or set it to 1"
    )]
    Replication {
        /// The setting.
        name: String,
        /// As it was written.
        value: i64,
    },
}

/// Who says what time a record has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// Its producer.
    CreateTime,
    /// The broker that appends it.
    LogAppendTime,
}

/// The settings of a broker, parsed. Field names are Kafka's names with `_` for `.`; defaults are those of Kafka 4.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `num.partitions`: partitions of a topic whose creator named no number.
    pub num_partitions: i32,
    /// `auto.create.topics.enable`.
    pub auto_create_topics_enable: bool,
    /// `offsets.topic.num.partitions`.
    pub offsets_topic_num_partitions: i32,
    /// `offset.metadata.max.bytes`.
    pub offset_metadata_max_bytes: i32,
    /// `message.max.bytes`: the largest batch, unless its topic says otherwise.
    pub message_max_bytes: i32,
    /// `log.message.timestamp.type`.
    pub log_message_timestamp_type: TimestampType,
    /// `log.message.timestamp.before.max.ms`.
    pub log_message_timestamp_before_max_ms: i64,
    /// `log.message.timestamp.after.max.ms`.
    pub log_message_timestamp_after_max_ms: i64,
    /// `log.segment.bytes`.
    pub log_segment_bytes: i32,
    /// `socket.request.max.bytes`.
    pub socket_request_max_bytes: i32,
    /// `fetch.max.bytes`: the most that one fetch answers with, the first batch apart.
    pub fetch_max_bytes: i32,
    /// `group.min.session.timeout.ms`.
    pub group_min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub group_max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`.
    pub group_initial_rebalance_delay_ms: i32,
    /// `group.max.size`.
    pub group_max_size: i32,
    /// `broker.session.timeout.ms`.
    pub broker_session_timeout_ms: i32,
    /// `broker.heartbeat.interval.ms`.
    pub broker_heartbeat_interval_ms: i32,
    /// `producer.id.expiration.ms`.
    pub producer_id_expiration_ms: i32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            num_partitions: 1,
            auto_create_topics_enable: true,
            offsets_topic_num_partitions: 50,
            offset_metadata_max_bytes: 4_096,
            message_max_bytes: 1_048_588,
            log_message_timestamp_type: TimestampType::CreateTime,
            log_message_timestamp_before_max_ms: i64::MAX,
            log_message_timestamp_after_max_ms: 3_600_000,
            log_segment_bytes: 1_073_741_824,
            socket_request_max_bytes: 104_857_600,
            fetch_max_bytes: 57_671_680,
            group_min_session_timeout_ms: 6_000,
            group_max_session_timeout_ms: 1_800_000,
            group_initial_rebalance_delay_ms: 3_000,
            group_max_size: i32::MAX,
            broker_session_timeout_ms: 9_000,
            broker_heartbeat_interval_ms: 2_000,
            producer_id_expiration_ms: 86_400_000,
        }
    }
}

/// The names that [`Settings::parse`] knows.
pub const SETTING_NAMES: &[&str] = &[
    "auto.create.topics.enable",
    "broker.heartbeat.interval.ms",
    "broker.session.timeout.ms",
    "default.replication.factor",
    "fetch.max.bytes",
    "group.initial.rebalance.delay.ms",
    "group.max.session.timeout.ms",
    "group.max.size",
    "group.min.session.timeout.ms",
    "log.message.timestamp.after.max.ms",
    "log.message.timestamp.before.max.ms",
    "log.message.timestamp.type",
    "log.segment.bytes",
    "message.max.bytes",
    "min.insync.replicas",
    "num.partitions",
    "offset.metadata.max.bytes",
    "offsets.topic.num.partitions",
    "offsets.topic.replication.factor",
    "producer.id.expiration.ms",
    "socket.request.max.bytes",
];

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

    fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let int = |range| number(name, value, range).map(|number| number as i32);
        const MAX: i64 = i32::MAX as i64;
        match name {
            "auto.create.topics.enable" => self.auto_create_topics_enable = boolean(name, value)?,
            "broker.heartbeat.interval.ms" => self.broker_heartbeat_interval_ms = int((1, MAX))?,
            "broker.session.timeout.ms" => self.broker_session_timeout_ms = int((1, MAX))?,
            "fetch.max.bytes" => self.fetch_max_bytes = int((1_024, MAX))?,
            "group.initial.rebalance.delay.ms" => self.group_initial_rebalance_delay_ms = int((0, MAX))?,
            "group.max.session.timeout.ms" => self.group_max_session_timeout_ms = int((1, MAX))?,
            "group.max.size" => self.group_max_size = int((1, MAX))?,
            "group.min.session.timeout.ms" => self.group_min_session_timeout_ms = int((1, MAX))?,
            "log.message.timestamp.after.max.ms" => {
                self.log_message_timestamp_after_max_ms = number(name, value, (0, i64::MAX))?;
            }
            "log.message.timestamp.before.max.ms" => {
                self.log_message_timestamp_before_max_ms = number(name, value, (0, i64::MAX))?;
            }
            "log.message.timestamp.type" => self.log_message_timestamp_type = timestamp_type(name, value)?,
            "log.segment.bytes" => self.log_segment_bytes = int((14, MAX))?,
            "message.max.bytes" => self.message_max_bytes = int((0, MAX))?,
            "num.partitions" => self.num_partitions = int((1, MAX))?,
            "offset.metadata.max.bytes" => self.offset_metadata_max_bytes = int((0, MAX))?,
            "offsets.topic.num.partitions" => self.offsets_topic_num_partitions = int((1, MAX))?,
            "producer.id.expiration.ms" => self.producer_id_expiration_ms = int((1, MAX))?,
            "socket.request.max.bytes" => self.socket_request_max_bytes = int((1, MAX))?,
            // With one replica the effective minimum is min(this, 1): any value acts alike, as on Kafka.
            "min.insync.replicas" => _ = int((1, MAX))?,
            "default.replication.factor" | "offsets.topic.replication.factor" => {
                match number(name, value, (1, MAX))? {
                    1 => {}
                    value => return Err(ConfigError::Replication { name: name.to_owned(), value }),
                }
            }
            _ => {
                let nearest = nearest(name, SETTING_NAMES);
                return Err(ConfigError::UnknownSetting { name: name.to_owned(), nearest });
            }
        }
        Ok(())
    }
}

/// What a topic may say for itself; `None` leaves it to the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicSettings {
    /// `cleanup.policy` holds `compact`: records need a key. (The cleaner itself comes with retention.)
    pub compacted: bool,
    /// `max.message.bytes`.
    pub max_message_bytes: Option<i32>,
    /// `message.timestamp.type`.
    pub message_timestamp_type: Option<TimestampType>,
    /// `message.timestamp.before.max.ms`.
    pub message_timestamp_before_max_ms: Option<i64>,
    /// `message.timestamp.after.max.ms`.
    pub message_timestamp_after_max_ms: Option<i64>,
    /// `segment.bytes`.
    pub segment_bytes: Option<i32>,
}

/// The names that [`TopicSettings::parse`] knows.
pub const TOPIC_SETTING_NAMES: &[&str] = &[
    "cleanup.policy",
    "max.message.bytes",
    "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms",
    "message.timestamp.type",
    "min.insync.replicas",
    "segment.bytes",
];

impl TopicSettings {
    /// Reads a topic's settings by Kafka's names.
    ///
    /// # Errors
    /// As [`Settings::parse`].
    pub fn parse(config: &BTreeMap<String, String>) -> Result<TopicSettings, ConfigError> {
        const MAX: i64 = i32::MAX as i64;
        let mut settings = TopicSettings::default();
        for (name, value) in config {
            let int = |range| number(name, value, range).map(|number| number as i32);
            match name.as_str() {
                "cleanup.policy" => settings.compacted = cleanup_policy(name, value)?,
                "max.message.bytes" => settings.max_message_bytes = Some(int((0, MAX))?),
                "message.timestamp.after.max.ms" => {
                    settings.message_timestamp_after_max_ms = Some(number(name, value, (0, i64::MAX))?);
                }
                "message.timestamp.before.max.ms" => {
                    settings.message_timestamp_before_max_ms = Some(number(name, value, (0, i64::MAX))?);
                }
                "message.timestamp.type" => {
                    settings.message_timestamp_type = Some(timestamp_type(name, value)?)
                }
                "min.insync.replicas" => _ = int((1, MAX))?,
                "segment.bytes" => settings.segment_bytes = Some(int((14, MAX))?),
                _ => {
                    let nearest = nearest(name, TOPIC_SETTING_NAMES);
                    return Err(ConfigError::UnknownSetting { name: name.clone(), nearest });
                }
            }
        }
        Ok(settings)
    }
}

/// How long, for a setting in milliseconds.
pub(crate) fn millis(ms: i32) -> Duration {
    Duration::from_millis(u64::from(ms.unsigned_abs()))
}

fn number(name: &str, value: &str, (min, max): (i64, i64)) -> Result<i64, ConfigError> {
    let parsed = value.trim().parse::<i64>().ok().filter(|number| (min..=max).contains(number));
    let expected = || {
        if max >= i64::from(i32::MAX) {
            format!("a whole number from {min}")
        } else {
            format!("from {min} to {max}")
        }
    };
    parsed.ok_or_else(|| bad(name, value, expected()))
}

fn boolean(name: &str, value: &str) -> Result<bool, ConfigError> {
    value.trim().parse().map_err(|_| bad(name, value, "`true` or `false`".into()))
}

fn timestamp_type(name: &str, value: &str) -> Result<TimestampType, ConfigError> {
    match value.trim() {
        "CreateTime" => Ok(TimestampType::CreateTime),
        "LogAppendTime" => Ok(TimestampType::LogAppendTime),
        _ => Err(bad(name, value, "`CreateTime` or `LogAppendTime`".into())),
    }
}

fn cleanup_policy(name: &str, value: &str) -> Result<bool, ConfigError> {
    let mut compacted = false;
    for policy in value.split(',').map(str::trim) {
        match policy {
            "compact" => compacted = true,
            "delete" => {}
            _ => return Err(bad(name, value, "`delete`, `compact` or both".into())),
        }
    }
    Ok(compacted)
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
    fn more_than_one_replica_is_refused_until_it_is_built() {
        assert!(parse("default.replication.factor", "3").unwrap_err().contains("one replica for now"));
        assert!(parse("default.replication.factor", "1").is_ok());
    }

    #[test]
    fn every_name_in_the_list_is_known() {
        for name in SETTING_NAMES {
            let error = parse(name, "?").unwrap_err();
            assert!(error.contains("must be"), "{error}");
        }
    }
}

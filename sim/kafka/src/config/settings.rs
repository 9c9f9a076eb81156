//! What a broker can be told: the table of its settings, and [`Settings`], which has a field for each.

use std::collections::{BTreeMap, BTreeSet};

use super::unseen::{self, UNSEEN_BROKER_SETTINGS};
use super::values::{
    CLEANUP_POLICIES, COMPRESSION_TYPES, CleanupPolicy, Compression, FromDefault, Kind, LONG_MAX, MAX,
    REPLICA_SELECTORS, ReplicaSelector, TIMESTAMP_TYPES, TimestampType, Value,
};
use super::{ConfigError, unknown};

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
    /// How often recovery points are written down, in milliseconds.
    "log.flush.offset.checkpoint.interval.ms" log_flush_offset_checkpoint_interval_ms: i32 = Some("60000"), Kind::Int(0, MAX), ReadOnly;
    /// How often logs are looked at for records that are unflushed for too long, in milliseconds.
    "log.flush.scheduler.interval.ms" log_flush_scheduler_interval_ms: i64 = Some("9223372036854775807"), Kind::Long(1, LONG_MAX), ReadOnly;
    /// How often the starts of logs are written down, in milliseconds. Until then a deletion of records is lost with the
    /// processes of all replicas.
    "log.flush.start.offset.checkpoint.interval.ms" log_flush_start_offset_checkpoint_interval_ms: i32 = Some("60000"), Kind::Int(0, MAX), ReadOnly;
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

    /// Reads the settings of a cluster, of which some may be for one broker only
    /// ([`ClusterConfig::config`](super::ClusterConfig::config)): those of its controller, which has what is for all, and
    /// those of each of its brokers, the first of which has number 1.
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

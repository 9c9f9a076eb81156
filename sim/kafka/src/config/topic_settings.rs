//! What a topic can be told: the table of its settings, and [`TopicSettings`], which has a field for each. What a topic
//! says nothing of is its broker's.

use std::collections::BTreeMap;

use super::settings::Settings;
use super::unseen::{self, UNSEEN_TOPIC_SETTINGS};
use super::values::{
    CLEANUP_POLICIES, COMPRESSION_TYPES, CleanupPolicy, Compression, Kind, LONG_MAX, MAX, TIMESTAMP_TYPES,
    TimestampType, Value,
};
use super::{ConfigError, bad, unknown};

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

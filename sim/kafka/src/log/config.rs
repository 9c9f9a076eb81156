//! What a topic's and its broker's settings say about a log.

use crate::config::{Compression, Settings, TimestampType, TopicSettings};

use super::SegmentRules;

/// The settings of one log (Kafka's `LogConfig`); times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogConfig {
    /// The largest batch, in bytes.
    pub max_message_bytes: usize,
    /// Who says what time a record has.
    pub timestamp_type: TimestampType,
    /// How far behind the broker's clock a record may be.
    pub timestamp_before_max_ms: i64,
    /// How far ahead of it.
    pub timestamp_after_max_ms: i64,
    /// What batches are compressed with as they are appended.
    pub compression: Compression,
    /// When a segment is rolled.
    pub segment: SegmentRules,
    /// How long a record may be unflushed.
    pub flush_ms: i64,
    /// Whether the last record of each key is kept.
    pub compact: bool,
    /// Whether old segments are deleted.
    pub delete: bool,
    /// How long records are kept; -1 for ever.
    pub retention_ms: i64,
    /// How large the log may grow; -1 for no limit.
    pub retention_bytes: i64,
    /// How long tombstones and markers are kept after a cleaning has seen them.
    pub delete_retention_ms: i64,
    /// The part of the log that must be dirty before it is cleaned.
    pub min_cleanable_dirty_ratio: f64,
    /// How long a record stays uncompacted at least.
    pub min_compaction_lag_ms: i64,
    /// How long a record may stay uncompacted.
    pub max_compaction_lag_ms: i64,
}

impl LogConfig {
    /// The topic's word, or else the broker's.
    pub fn new(broker: &Settings, topic: &TopicSettings) -> LogConfig {
        let policy = topic.cleanup_policy(broker);
        LogConfig {
            max_message_bytes: topic.max_message_bytes(broker) as usize,
            timestamp_type: topic.message_timestamp_type(broker),
            timestamp_before_max_ms: topic.message_timestamp_before_max_ms(broker),
            timestamp_after_max_ms: topic.message_timestamp_after_max_ms(broker),
            compression: topic.compression_type(broker),
            segment: SegmentRules {
                bytes: topic.segment_bytes(broker) as usize,
                ms: topic.segment_ms(broker),
                flush_messages: topic.flush_messages(broker),
            },
            flush_ms: topic.flush_ms(broker),
            compact: policy.compact,
            delete: policy.delete,
            retention_ms: topic.retention_ms(broker),
            retention_bytes: topic.retention_bytes(broker),
            delete_retention_ms: topic.delete_retention_ms(broker),
            min_cleanable_dirty_ratio: topic.min_cleanable_dirty_ratio(broker),
            min_compaction_lag_ms: topic.min_compaction_lag_ms(broker),
            max_compaction_lag_ms: topic.max_compaction_lag_ms(broker),
        }
    }
}

impl Default for LogConfig {
    /// All as Kafka has it by default.
    fn default() -> LogConfig {
        LogConfig::new(&Settings::default(), &TopicSettings::default())
    }
}

impl From<&LogConfig> for SegmentRules {
    fn from(config: &LogConfig) -> SegmentRules {
        config.segment
    }
}

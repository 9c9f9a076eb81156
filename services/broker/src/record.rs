//! Records and the places where they are.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use context::Timestamp;

/// A partition's number within its topic.
pub type PartitionId = i32;

/// A record's position within its partition. Offsets have holes: do not count with them.
pub type Offset = i64;

/// A topic's name with a partition's number; prints as `orders/3`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: PartitionId,
}

impl TopicPartition {
    /// Joins the two.
    pub fn new(topic: impl Into<Arc<str>>, partition: PartitionId) -> TopicPartition {
        TopicPartition { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

impl fmt::Debug for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One header. Kafka allows a key more than once, and a null value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Header {
    /// The key.
    pub key: String,
    /// The value; `None` is null, which is not the empty value.
    pub value: Option<Bytes>,
}

/// Headers in their order, keys repeated where they were repeated.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Headers(pub Vec<Header>);

impl Headers {
    /// Appends a header.
    pub fn add(&mut self, key: impl Into<String>, value: impl Into<Bytes>) {
        self.0.push(Header { key: key.into(), value: Some(value.into()) });
    }

    /// Puts `value` under `key`, in place of every header of that key.
    pub fn set(&mut self, key: &str, value: impl Into<Bytes>) {
        self.0.retain(|header| header.key != key);
        self.add(key, value);
    }

    /// The value of the last header called `key`, as Kafka's `lastHeader` reads it.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.0.iter().rev().find(|header| header.key == key)?.value.as_deref()
    }

    /// The same as text; `None` if it is not UTF-8.
    pub fn text(&self, key: &str) -> Option<&str> {
        std::str::from_utf8(self.get(key)?).ok()
    }

    /// In order.
    pub fn iter(&self) -> std::slice::Iter<'_, Header> {
        self.0.iter()
    }
}

/// A record to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerRecord {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition; `None` lets the partitioner choose by key.
    pub partition: Option<PartitionId>,
    /// The key; decides the partition, and what compaction keeps.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The headers.
    pub headers: Headers,
    /// The record's time; `None` is the time of the send.
    pub timestamp: Option<Timestamp>,
}

impl ProducerRecord {
    /// A record with key and value, no headers, time and partition left open.
    pub fn new(topic: impl Into<Arc<str>>, key: impl Into<Bytes>, value: impl Into<Bytes>) -> ProducerRecord {
        ProducerRecord {
            topic: topic.into(),
            partition: None,
            key: Some(key.into()),
            value: Some(value.into()),
            headers: Headers::default(),
            timestamp: None,
        }
    }
}

/// Where an acknowledged record is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordMetadata {
    /// The topic and partition.
    pub partition: TopicPartition,
    /// The offset; `None` with `acks=0`, and for a duplicate whose first offset the broker no longer knows.
    pub offset: Option<Offset>,
    /// The record's time as the log keeps it.
    pub timestamp: Timestamp,
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerRecord {
    /// The topic and partition.
    pub partition: TopicPartition,
    /// Its offset.
    pub offset: Offset,
    /// The epoch of the leader that appended it, where known.
    pub leader_epoch: Option<i32>,
    /// Its time.
    pub timestamp: Timestamp,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The headers.
    pub headers: Headers,
}

/// A position to commit: the offset of the next record to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetAndMetadata {
    /// The next offset to read.
    pub offset: Offset,
    /// The leader epoch of the last record read, where known.
    pub leader_epoch: Option<i32>,
    /// Free text that is kept with the offset.
    pub metadata: String,
}

impl OffsetAndMetadata {
    /// An offset without epoch and text.
    pub fn new(offset: Offset) -> OffsetAndMetadata {
        OffsetAndMetadata { offset, leader_epoch: None, metadata: String::new() }
    }
}

//! What the clients of Kafka did and were told, in the order in which it happened.
//!
//! The events come from [`crate::observed`], which wraps every client of a run. They say what a client saw, not what
//! the cluster did: an answer that never came is not an event, so whatever was asked may or may not have happened.

use std::fmt;

use broker::{ConsumerRecord, Error, ErrorCode, Headers, Offset, OffsetAndMetadata, ProducerRecord};
use broker::{RecordMetadata, TopicPartition};
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

/// A producer or consumer of a run, numbered from 1 in the order in which they were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// One call of `send`, numbered from 1 over all producers of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SendId(pub u64);

/// One thing that a client did or was told.
#[derive(Clone, Copy, Debug)]
pub struct ClientEvent<'a> {
    /// The client.
    pub client: ClientId,
    /// The host that it runs on.
    pub host: &'a str,
    /// What it did or was told.
    pub act: ClientAct<'a>,
}

/// What a client did or was told.
#[derive(Clone, Copy, Debug)]
pub enum ClientAct<'a> {
    /// A producer was made.
    ProducerOpened {
        /// With `enable.idempotence`.
        idempotent: bool,
        /// With a `transactional.id`.
        transactional: bool,
    },
    /// A transaction began: what is sent until its end belongs to it.
    TransactionBegan,
    /// The producer asks to end its transaction. From now on it may be ended so.
    TransactionEnding {
        /// To commit, or else to abort.
        commit: bool,
    },
    /// The end was acknowledged.
    TransactionEnded {
        /// It was committed, or else aborted.
        commit: bool,
    },
    /// A record was handed over. From now on it may be appended.
    Sent {
        /// This call.
        send: SendId,
        /// The record.
        record: &'a ProducerRecord,
    },
    /// A record was acknowledged.
    Acknowledged {
        /// The call that sent it.
        send: SendId,
        /// Where it is.
        metadata: &'a RecordMetadata,
    },
    /// The producer gave a record up. It may have been appended all the same, unless [`never_left`] says otherwise.
    GivenUp {
        /// The call that sent it.
        send: SendId,
        /// Why.
        error: &'a Error,
    },
    /// A consumer was made.
    ConsumerOpened {
        /// `group.id`, if it has one.
        group: Option<&'a str>,
        /// With `isolation.level=read_committed`.
        committed_only: bool,
        /// With `enable.auto.commit`: it commits what it polled without being told.
        auto_commit: bool,
        /// With `auto.offset.reset=earliest`: what its group never committed it reads from the start.
        from_earliest: bool,
    },
    /// A consumer holds these partitions, in addition to what it held, and starts at the committed offsets.
    Assigned(&'a [TopicPartition]),
    /// It holds these no longer: revoked, lost, unsubscribed or closed.
    Revoked(&'a [TopicPartition]),
    /// It reads on from an offset of its own choice.
    Sought {
        /// The partition.
        partition: &'a TopicPartition,
        /// The next offset to read.
        offset: Offset,
    },
    /// A poll gave these records; never empty.
    Polled(&'a [ConsumerRecord]),
    /// It asks to commit these. From now on they may be committed.
    Committing(&'a [(TopicPartition, OffsetAndMetadata)]),
    /// The commit was acknowledged.
    Committed(&'a [(TopicPartition, OffsetAndMetadata)]),
    /// A producer asks to commit these for a group, with its transaction. From now on they may be committed.
    SendingOffsets {
        /// `group.id`.
        group: &'a str,
        /// Where the group would go on.
        offsets: &'a [(TopicPartition, OffsetAndMetadata)],
    },
    /// The harness's observer has read a partition from its start to `end`, after all was healed.
    ReadToEnd {
        /// The partition.
        partition: &'a TopicPartition,
        /// The end of what is committed: the last stable offset.
        end: Offset,
        /// The high watermark; beyond `end` as long as a transaction is open.
        high_watermark: Offset,
    },
}

/// Whether a record that was given up for this reason was certainly never sent to a broker.
pub fn never_left(error: &Error) -> bool {
    matches!(
        error.code,
        ErrorCode::InvalidConfig | ErrorCode::InvalidState | ErrorCode::QueueFull | ErrorCode::Closed
    )
}

/// What a record says, without where and when: two records with the same content are copies of each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Content(u128);

impl Content {
    /// Of a record that was sent.
    pub fn sent(record: &ProducerRecord) -> Content {
        Content::of(record.key.as_ref(), record.value.as_ref(), &record.headers)
    }

    /// Of a record that was read.
    pub fn read(record: &ConsumerRecord) -> Content {
        Content::of(record.key.as_ref(), record.value.as_ref(), &record.headers)
    }

    fn of(key: Option<&Bytes>, value: Option<&Bytes>, headers: &Headers) -> Content {
        // In one piece: hashing many short ones costs several times as much.
        let mut content = Vec::with_capacity(1024);
        let mut field = |bytes: Option<&[u8]>| {
            // Null is not empty: its length is one that no bytes have.
            let length = bytes.map_or(u64::MAX, |bytes| bytes.len() as u64);
            content.extend_from_slice(&length.to_le_bytes());
            content.extend_from_slice(bytes.unwrap_or_default());
        };
        field(key.map(AsRef::as_ref));
        field(value.map(AsRef::as_ref));
        for header in headers.iter() {
            field(Some(header.key.as_bytes()));
            field(header.value.as_deref());
        }
        Content(xxh3_128(&content))
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0 >> 96)
    }
}

/// A record's key, for people: text if it is text, else its bytes.
pub fn key_text(key: Option<&Bytes>) -> String {
    match key.map(|key| std::str::from_utf8(key)) {
        None => "no key".to_owned(),
        Some(Ok(text)) => format!("key `{text}`"),
        Some(Err(_)) => format!("key {:02x?}", key.map(AsRef::as_ref).unwrap_or_default() as &[u8]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_tells_null_from_empty_and_one_header_from_another() {
        let record = |value: Option<&'static [u8]>, header: &str| {
            let mut record = ProducerRecord::new("t", "k", "");
            record.value = value.map(Bytes::from_static);
            record.headers.add(header, "1");
            Content::sent(&record)
        };
        assert_eq!(record(Some(b""), "a"), record(Some(b""), "a"));
        assert_ne!(record(Some(b""), "a"), record(None, "a"));
        assert_ne!(record(Some(b""), "a"), record(Some(b""), "b"));
    }

    #[test]
    fn keys_print_as_text_where_they_are() {
        assert_eq!(key_text(Some(&Bytes::from_static(b"order-1"))), "key `order-1`");
        assert_eq!(key_text(Some(&Bytes::from_static(&[0xff, 1]))), "key [ff, 01]");
        assert_eq!(key_text(None), "no key");
    }
}

//! What a client of Kafka did or was told, in a form that goes from one process to another.
//!
//! [`Act`] is [`ClientAct`] with everything owned, and with the Broker interface's records and offsets taken apart into fields
//! that serde knows. Nothing is lost on the way.

use broker::{
    ConsumerRecord, Error, ErrorClass, ErrorCode, Header, Headers, OffsetAndMetadata, ProducerRecord,
    RecordMetadata, TopicPartition,
};
use bytes::Bytes;
use context::Timestamp;
use harness::check::client::{ClientAct, SendId};
use serde::{Deserialize, Serialize};

/// A topic and a partition's number.
type Place = (String, i32);
/// An offset to commit: place, offset, leader epoch, free text.
type Commit = (Place, i64, Option<i32>, String);

/// [`ClientAct`], owned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Act {
    ProducerOpened { idempotent: bool, transactional: bool },
    TransactionBegan,
    TransactionEnding { commit: bool },
    TransactionEnded { commit: bool },
    Sent { send: u64, topic: String, partition: Option<i32>, at_us: Option<u64>, content: Content },
    Acknowledged { send: u64, place: Place, offset: Option<i64>, at_us: u64 },
    GivenUp { send: u64, code: ErrorCode, class: ErrorClass, message: String },
    ConsumerOpened { group: Option<String>, committed_only: bool, auto_commit: bool, from_earliest: bool },
    Assigned(Vec<Place>),
    Revoked(Vec<Place>),
    Sought { place: Place, offset: i64 },
    Polled(Vec<Read>),
    Committing(Vec<Commit>),
    Committed(Vec<Commit>),
    SendingOffsets { group: String, offsets: Vec<Commit> },
    ReadToEnd { place: Place, end: i64, high_watermark: i64 },
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Content {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Read {
    place: Place,
    offset: i64,
    leader_epoch: Option<i32>,
    at_us: u64,
    content: Content,
}

/// [`Act`] in the Broker interface's own types, for a [`ClientAct`] to borrow from.
#[derive(Debug)]
pub(crate) enum Whole {
    /// Borrows nothing, or only what the act itself holds.
    Plain(Act),
    Sent(u64, ProducerRecord),
    Acknowledged(u64, RecordMetadata),
    GivenUp(u64, Error),
    Assigned(Vec<TopicPartition>),
    Revoked(Vec<TopicPartition>),
    Sought(TopicPartition, i64),
    Polled(Vec<ConsumerRecord>),
    Committing(Vec<(TopicPartition, OffsetAndMetadata)>),
    Committed(Vec<(TopicPartition, OffsetAndMetadata)>),
    SendingOffsets(String, Vec<(TopicPartition, OffsetAndMetadata)>),
    ReadToEnd(TopicPartition, i64, i64),
}

impl Act {
    pub(crate) fn of(act: &ClientAct<'_>) -> Act {
        match *act {
            ClientAct::ProducerOpened { idempotent, transactional } => {
                Act::ProducerOpened { idempotent, transactional }
            }
            ClientAct::TransactionBegan => Act::TransactionBegan,
            ClientAct::TransactionEnding { commit } => Act::TransactionEnding { commit },
            ClientAct::TransactionEnded { commit } => Act::TransactionEnded { commit },
            ClientAct::Sent { send, record } => Act::Sent {
                send: send.0,
                topic: record.topic.to_string(),
                partition: record.partition,
                at_us: record.timestamp.map(Timestamp::as_micros),
                content: Content::of(record.key.as_ref(), record.value.as_ref(), &record.headers),
            },
            ClientAct::Acknowledged { send, metadata } => Act::Acknowledged {
                send: send.0,
                place: place(&metadata.partition),
                offset: metadata.offset,
                at_us: metadata.timestamp.as_micros(),
            },
            ClientAct::GivenUp { send, error } => Act::GivenUp {
                send: send.0,
                code: error.code,
                class: error.class,
                message: error.message.clone(),
            },
            ClientAct::ConsumerOpened { group, committed_only, auto_commit, from_earliest } => {
                let group = group.map(str::to_owned);
                Act::ConsumerOpened { group, committed_only, auto_commit, from_earliest }
            }
            ClientAct::Assigned(partitions) => Act::Assigned(partitions.iter().map(place).collect()),
            ClientAct::Revoked(partitions) => Act::Revoked(partitions.iter().map(place).collect()),
            ClientAct::Sought { partition, offset } => Act::Sought { place: place(partition), offset },
            ClientAct::Polled(records) => Act::Polled(records.iter().map(Read::of).collect()),
            ClientAct::Committing(offsets) => Act::Committing(offsets.iter().map(commit).collect()),
            ClientAct::Committed(offsets) => Act::Committed(offsets.iter().map(commit).collect()),
            ClientAct::SendingOffsets { group, offsets } => {
                Act::SendingOffsets { group: group.to_owned(), offsets: offsets.iter().map(commit).collect() }
            }
            ClientAct::ReadToEnd { partition, end, high_watermark } => {
                Act::ReadToEnd { place: place(partition), end, high_watermark }
            }
        }
    }

    pub(crate) fn whole(self) -> Whole {
        match self {
            Act::Sent { send, topic, partition, at_us, content } => {
                let timestamp = at_us.map(Timestamp::from_micros);
                let (key, value, headers) = content.parts();
                let topic = topic.into();
                Whole::Sent(send, ProducerRecord { topic, partition, key, value, headers, timestamp })
            }
            Act::Acknowledged { send, place, offset, at_us } => {
                let (partition, timestamp) = (at(place), Timestamp::from_micros(at_us));
                Whole::Acknowledged(send, RecordMetadata { partition, offset, timestamp })
            }
            Act::GivenUp { send, code, class, message } => {
                Whole::GivenUp(send, Error { code, class, message })
            }
            Act::Assigned(places) => Whole::Assigned(places.into_iter().map(at).collect()),
            Act::Revoked(places) => Whole::Revoked(places.into_iter().map(at).collect()),
            Act::Sought { place, offset } => Whole::Sought(at(place), offset),
            Act::Polled(records) => Whole::Polled(records.into_iter().map(Read::whole).collect()),
            Act::Committing(commits) => Whole::Committing(commits.into_iter().map(committed).collect()),
            Act::Committed(commits) => Whole::Committed(commits.into_iter().map(committed).collect()),
            Act::SendingOffsets { group, offsets } => {
                Whole::SendingOffsets(group, offsets.into_iter().map(committed).collect())
            }
            Act::ReadToEnd { place, end, high_watermark } => Whole::ReadToEnd(at(place), end, high_watermark),
            plain => Whole::Plain(plain),
        }
    }
}

impl Whole {
    pub(crate) fn as_act(&self) -> ClientAct<'_> {
        match self {
            Whole::Sent(send, record) => ClientAct::Sent { send: SendId(*send), record },
            Whole::Acknowledged(send, metadata) => ClientAct::Acknowledged { send: SendId(*send), metadata },
            Whole::GivenUp(send, error) => ClientAct::GivenUp { send: SendId(*send), error },
            Whole::Assigned(partitions) => ClientAct::Assigned(partitions),
            Whole::Revoked(partitions) => ClientAct::Revoked(partitions),
            Whole::Sought(partition, offset) => ClientAct::Sought { partition, offset: *offset },
            Whole::Polled(records) => ClientAct::Polled(records),
            Whole::Committing(offsets) => ClientAct::Committing(offsets),
            Whole::Committed(offsets) => ClientAct::Committed(offsets),
            Whole::SendingOffsets(group, offsets) => ClientAct::SendingOffsets { group, offsets },
            Whole::ReadToEnd(partition, end, high_watermark) => {
                ClientAct::ReadToEnd { partition, end: *end, high_watermark: *high_watermark }
            }
            Whole::Plain(Act::ProducerOpened { idempotent, transactional }) => {
                ClientAct::ProducerOpened { idempotent: *idempotent, transactional: *transactional }
            }
            Whole::Plain(Act::TransactionBegan) => ClientAct::TransactionBegan,
            Whole::Plain(Act::TransactionEnding { commit }) => {
                ClientAct::TransactionEnding { commit: *commit }
            }
            Whole::Plain(Act::TransactionEnded { commit }) => ClientAct::TransactionEnded { commit: *commit },
            Whole::Plain(Act::ConsumerOpened { group, committed_only, auto_commit, from_earliest }) => {
                ClientAct::ConsumerOpened {
                    group: group.as_deref(),
                    committed_only: *committed_only,
                    auto_commit: *auto_commit,
                    from_earliest: *from_earliest,
                }
            }
            Whole::Plain(other) => panic!("`Act::whole` leaves no {other:?} as it is"),
        }
    }
}

impl Content {
    fn of(key: Option<&Bytes>, value: Option<&Bytes>, headers: &Headers) -> Content {
        let bytes = |bytes: Option<&Bytes>| bytes.map(|bytes| bytes.to_vec());
        let headers = headers.iter().map(|header| (header.key.clone(), bytes(header.value.as_ref())));
        Content { key: bytes(key), value: bytes(value), headers: headers.collect() }
    }

    fn parts(self) -> (Option<Bytes>, Option<Bytes>, Headers) {
        let headers =
            self.headers.into_iter().map(|(key, value)| Header { key, value: value.map(Bytes::from) });
        (self.key.map(Bytes::from), self.value.map(Bytes::from), Headers(headers.collect()))
    }
}

impl Read {
    fn of(record: &ConsumerRecord) -> Read {
        Read {
            place: place(&record.partition),
            offset: record.offset,
            leader_epoch: record.leader_epoch,
            at_us: record.timestamp.as_micros(),
            content: Content::of(record.key.as_ref(), record.value.as_ref(), &record.headers),
        }
    }

    fn whole(self) -> ConsumerRecord {
        let (key, value, headers) = self.content.parts();
        ConsumerRecord {
            partition: at(self.place),
            offset: self.offset,
            leader_epoch: self.leader_epoch,
            timestamp: Timestamp::from_micros(self.at_us),
            key,
            value,
            headers,
        }
    }
}

fn place(at: &TopicPartition) -> Place {
    (at.topic.to_string(), at.partition)
}

fn at((topic, partition): Place) -> TopicPartition {
    TopicPartition::new(topic, partition)
}

fn commit((at, offset): &(TopicPartition, OffsetAndMetadata)) -> Commit {
    (place(at), offset.offset, offset.leader_epoch, offset.metadata.clone())
}

fn committed((place, offset, leader_epoch, metadata): Commit) -> (TopicPartition, OffsetAndMetadata) {
    (at(place), OffsetAndMetadata { offset, leader_epoch, metadata })
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// One of each.
    pub(crate) fn acts() -> Vec<Act> {
        let place = || ("t".to_owned(), 3);
        let content = || Content {
            key: Some(b"key".to_vec()),
            value: None,
            headers: vec![
                ("k".into(), None),
                ("k".into(), Some(Vec::new())),
                ("l".into(), Some(vec![0, 255])),
            ],
        };
        let read = Read { place: place(), offset: 17, leader_epoch: Some(2), at_us: 8, content: content() };
        let commits = || vec![(place(), 4, None, "text".to_owned()), (place(), 5, Some(6), String::new())];
        let mut acts = vec![
            Act::ProducerOpened { idempotent: true, transactional: false },
            Act::TransactionBegan,
            Act::TransactionEnding { commit: true },
            Act::TransactionEnded { commit: false },
            Act::Sent {
                send: 1 << 40,
                topic: "t".into(),
                partition: None,
                at_us: Some(7),
                content: content(),
            },
            Act::Acknowledged { send: 2, place: place(), offset: None, at_us: 9 },
            Act::ConsumerOpened {
                group: None,
                committed_only: true,
                auto_commit: false,
                from_earliest: true,
            },
            Act::ConsumerOpened {
                group: Some("g".into()),
                committed_only: false,
                auto_commit: true,
                from_earliest: false,
            },
            Act::Assigned(vec![place()]),
            Act::Revoked(Vec::new()),
            Act::Sought { place: place(), offset: -1 },
            Act::Polled(vec![read]),
            Act::Committing(commits()),
            Act::Committed(commits()),
            Act::SendingOffsets { group: "g".into(), offsets: commits() },
            Act::ReadToEnd { place: place(), end: 5, high_watermark: 6 },
        ];
        let (code, class) = (ErrorCode::Broker(-1), ErrorClass::Abortable);
        acts.push(Act::GivenUp { send: 3, code, class, message: "x".into() });
        acts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_did_is_the_same_in_its_own_types_and_back() {
        for act in testing::acts() {
            assert_eq!(Act::of(&act.clone().whole().as_act()), act);
        }
    }
}

//! Messages: a record with its headers read, and a record to be.
//!
//! Header names and topic names are the contract's ([`proto::headers`], [`proto::topics`]).

use std::fmt;
use std::sync::Arc;

use broker::{ConsumerRecord, Headers, Offset, PartitionId, ProducerRecord, TopicPartition};
use bytes::Bytes;
use context::Timestamp;
use proto::{Contract, MessageId, SagaId, headers};

/// A message as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Its own id: the same on every delivery.
    pub id: MessageId,
    /// Its kind, the header `event-type`: `proto`'s `Command::decode` and `Event::decode` take it.
    pub kind: String,
    /// The record's key.
    pub key: String,
    /// What all messages that follow from one request share; its own id if it says nothing.
    pub correlation_id: MessageId,
    /// The message that caused it.
    pub causation_id: Option<MessageId>,
    /// The saga on whose behalf it was sent, or to which it answers.
    pub saga_id: Option<SagaId>,
    /// The saga's step.
    pub step: Option<String>,
    /// The version of its schema; 1 if it says nothing.
    pub schema_version: u32,
    /// When its sender decided to send it; the record's time if it says nothing.
    pub timestamp: Timestamp,
    /// Where it was read.
    pub partition: TopicPartition,
    /// Where in the partition.
    pub offset: Offset,
    /// What it carries.
    pub payload: Bytes,
}

/// A record that is no message. Redelivery cannot mend it: it belongs in the dead letters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A header that every message has.
    #[error("the header `{0}` is missing, or no text")]
    Missing(&'static str),
    /// A header that does not read.
    #[error("the header `{name}` says `{value}`")]
    Header {
        /// The header.
        name: &'static str,
        /// What it said, cut to 80 characters.
        value: String,
    },
    /// The key is null or no text.
    #[error("the key is missing, or no text")]
    Key,
    /// The value is null.
    #[error("the value is null")]
    Value,
    /// The payload is not of its kind.
    #[error("the payload is no `{kind}`: {cause}")]
    Payload {
        /// The kind that was expected.
        kind: String,
        /// What prost says.
        cause: String,
    },
}

impl Message {
    /// Reads a record.
    ///
    /// # Errors
    /// [`ParseError`] for the first thing that does not read.
    pub fn parse(record: &ConsumerRecord) -> Result<Message, ParseError> {
        let from = &record.headers;
        let id = parsed(from, headers::MESSAGE_ID, |text| MessageId::parse(text).ok())?
            .ok_or(ParseError::Missing(headers::MESSAGE_ID))?;
        let kind = parsed(from, headers::EVENT_TYPE, |text| Some(text.to_owned()))?
            .ok_or(ParseError::Missing(headers::EVENT_TYPE))?;
        let millis = parsed(from, headers::TIMESTAMP, |text| text.parse().ok())?;
        let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
        Ok(Message {
            id,
            kind,
            key: key.ok_or(ParseError::Key)?.to_owned(),
            correlation_id: parsed(from, headers::CORRELATION_ID, |text| MessageId::parse(text).ok())?
                .unwrap_or(id),
            causation_id: parsed(from, headers::CAUSATION_ID, |text| MessageId::parse(text).ok())?,
            saga_id: parsed(from, headers::SAGA_ID, |text| SagaId::new(text).ok())?,
            step: parsed(from, headers::STEP, |text| Some(text.to_owned()))?,
            schema_version: parsed(from, headers::SCHEMA_VERSION, |text| text.parse().ok())?.unwrap_or(1),
            timestamp: millis.map_or(record.timestamp, millis_to_time),
            partition: record.partition.clone(),
            offset: record.offset,
            payload: record.value.clone().ok_or(ParseError::Value)?,
        })
    }

    /// The payload as one kind of message. Where a topic carries several, use `proto`'s `Command::decode` or
    /// `Event::decode` with [`Message::kind`] and [`Message::payload`].
    ///
    /// # Errors
    /// [`ParseError::Payload`] if the kind is another, or the bytes do not decode.
    pub fn decode<M: Contract>(&self) -> Result<M, ParseError> {
        let error = |cause: String| ParseError::Payload { kind: M::KIND.to_owned(), cause };
        if self.kind != M::KIND {
            return Err(error(format!("the header says `{}`", self.kind)));
        }
        M::decode(self.payload.clone()).map_err(|cause| error(cause.to_string()))
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.partition.topic
    }

    /// The partition's number.
    pub fn partition_id(&self) -> PartitionId {
        self.partition.partition
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} at {}@{}", self.kind, self.key, self.partition, self.offset)
    }
}

/// Saturates: a sender may write any number.
fn millis_to_time(millis: u64) -> Timestamp {
    Timestamp::from_micros(millis.saturating_mul(1_000))
}

/// A header through `read`; an absent one is `None`.
fn parsed<T>(
    headers: &Headers,
    name: &'static str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, ParseError> {
    if headers.get(name).is_none() {
        return Ok(None);
    }
    let text = headers.text(name).ok_or(ParseError::Missing(name))?;
    let value = read(text);
    let error = || ParseError::Header { name, value: text.chars().take(80).collect() };
    value.map(Some).ok_or_else(error)
}

/// A message to publish, before it has an id. [`crate::Unit::publish`] gives it one.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    /// Where it goes.
    pub topic: Arc<str>,
    /// The record's key.
    pub key: String,
    /// Its kind.
    pub kind: String,
    /// The version of its schema.
    pub schema_version: u32,
    /// What it carries.
    pub payload: Bytes,
    /// The saga it is sent for; `None` takes that of the message that caused it.
    pub saga_id: Option<SagaId>,
    /// The saga's step; `None` takes that of the message that caused it.
    pub step: Option<String>,
}

impl Outgoing {
    /// A message of the contract: topic, key, kind and version are its own.
    ///
    /// # Panics
    /// If it names no order: a service decodes what it takes in, and what it sends out follows from that.
    pub fn of<M: Contract>(message: &M) -> Outgoing {
        let order = message.order_id();
        let order = order.unwrap_or_else(|error| panic!("a `{}` to send names no order: {error}", M::KIND));
        Outgoing {
            topic: M::TOPIC.into(),
            key: order.into(),
            kind: M::KIND.to_owned(),
            schema_version: M::VERSION,
            payload: message.encode_to_vec().into(),
            saga_id: None,
            step: None,
        }
    }

    /// A message with everything spelled out, for what has no contract.
    pub fn new(
        topic: impl Into<Arc<str>>,
        key: impl Into<String>,
        kind: impl Into<String>,
        payload: impl Into<Bytes>,
    ) -> Outgoing {
        Outgoing {
            topic: topic.into(),
            key: key.into(),
            kind: kind.into(),
            schema_version: 1,
            payload: payload.into(),
            saga_id: None,
            step: None,
        }
    }

    /// Sent for this step of this saga.
    #[must_use]
    pub fn for_step(mut self, saga_id: SagaId, step: impl Into<String>) -> Outgoing {
        self.saga_id = Some(saga_id);
        self.step = Some(step.into());
        self
    }

    /// The record. Whoever sends without an outbox (a workload, a test) chooses the ids.
    pub fn into_record(
        self,
        id: MessageId,
        correlation_id: MessageId,
        causation_id: Option<MessageId>,
        now: Timestamp,
    ) -> ProducerRecord {
        let mut record = ProducerRecord::new(self.topic, self.key, self.payload);
        let mut add = |name: &str, value: String| record.headers.add(name, value);
        add(headers::MESSAGE_ID, id.to_string());
        add(headers::EVENT_TYPE, self.kind);
        add(headers::SCHEMA_VERSION, self.schema_version.to_string());
        add(headers::CORRELATION_ID, correlation_id.to_string());
        if let Some(causation_id) = causation_id {
            add(headers::CAUSATION_ID, causation_id.to_string());
        }
        if let Some(saga_id) = self.saga_id {
            add(headers::SAGA_ID, saga_id.into());
        }
        if let Some(step) = self.step {
            add(headers::STEP, step);
        }
        add(headers::TIMESTAMP, now.as_millis().to_string());
        record.timestamp = Some(now);
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_back(record: ProducerRecord) -> ConsumerRecord {
        ConsumerRecord {
            partition: TopicPartition::new(record.topic, 3),
            offset: 42,
            leader_epoch: None,
            timestamp: record.timestamp.unwrap_or_default(),
            key: record.key,
            value: record.value,
            headers: record.headers,
        }
    }

    fn record() -> ConsumerRecord {
        let cancel = proto::order::CancelOrder { order_id: "o-7".into(), reason: "too late".into() };
        let saga = SagaId::new("saga-o-7").unwrap();
        let now = Timestamp::from_millis(5_000);
        let (id, request) = (MessageId::derived("it"), MessageId::derived("request"));
        read_back(Outgoing::of(&cancel).for_step(saga, "charge").into_record(id, request, Some(request), now))
    }

    #[test]
    fn a_message_reads_as_it_was_written() {
        let message = Message::parse(&record()).unwrap();
        assert_eq!(message.id, MessageId::derived("it"));
        assert_eq!((message.kind.as_str(), message.key.as_str()), ("CancelOrder", "o-7"));
        assert_eq!(message.correlation_id, MessageId::derived("request"));
        assert_eq!(message.causation_id, Some(MessageId::derived("request")));
        assert_eq!(message.saga_id.as_ref().map(SagaId::as_str), Some("saga-o-7"));
        assert_eq!(message.step.as_deref(), Some("charge"));
        assert_eq!((message.schema_version, message.timestamp), (1, Timestamp::from_millis(5_000)));
        assert_eq!((message.topic(), message.partition_id(), message.offset), ("order.commands", 3, 42));
        let cancel: proto::order::CancelOrder = message.decode().unwrap();
        assert_eq!(cancel.reason, "too late");
        assert!(message.decode::<proto::order::CreateOrder>().is_err(), "the kind is another");
    }

    #[test]
    fn a_message_that_names_no_request_begins_one() {
        let mut record = record();
        record.headers.0.retain(|header| header.key != headers::CORRELATION_ID);
        assert_eq!(Message::parse(&record).unwrap().correlation_id, MessageId::derived("it"));
    }

    #[test]
    fn what_does_not_read_is_named() {
        let check = |change: fn(&mut ConsumerRecord), expected: ParseError| {
            let mut record = record();
            change(&mut record);
            assert_eq!(Message::parse(&record), Err(expected));
        };
        check(|r| r.headers.0.clear(), ParseError::Missing("message-id"));
        check(|r| r.headers.set("event-type", vec![0xff]), ParseError::Missing("event-type"));
        let bad = |name, value: &str| ParseError::Header { name, value: value.into() };
        check(|r| r.headers.set("message-id", "seven"), bad("message-id", "seven"));
        check(|r| r.headers.set("saga-id", "a b"), bad("saga-id", "a b"));
        check(|r| r.headers.set("schema-version", "one"), bad("schema-version", "one"));
        check(|r| r.key = None, ParseError::Key);
        check(|r| r.value = None, ParseError::Value);
    }
}

//! Client stories for the tests of checks: a few words instead of a cluster.

use std::time::Duration;

use broker::{
    ConsumerRecord, Error, ErrorClass, ErrorCode, Headers, Offset, OffsetAndMetadata, ProducerRecord,
};
use broker::{RecordMetadata, TopicPartition};
use bytes::Bytes;
use context::Timestamp;

use crate::check::client::{ClientAct, ClientEvent, ClientId, SendId};
use crate::check::{Breach, Breaches, Check, Moment, Occasion};

/// Tells a check what clients did, one millisecond an event, on the partition `t/0`.
pub(super) struct Story<C> {
    check: C,
    ms: u64,
    breaches: Vec<Breach>,
}

pub(super) fn partition() -> TopicPartition {
    TopicPartition::new("t", 0)
}

pub(super) fn record(offset: Offset, value: &str) -> ConsumerRecord {
    ConsumerRecord {
        partition: partition(),
        offset,
        leader_epoch: None,
        timestamp: Timestamp::ZERO,
        key: Some(Bytes::from_static(b"k")),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: Headers::default(),
    }
}

impl<C: Check + Default> Story<C> {
    pub(super) fn new() -> Story<C> {
        Story { check: C::default(), ms: 0, breaches: Vec::new() }
    }
}

impl<C: Check> Story<C> {
    pub(super) fn act(&mut self, client: u64, act: ClientAct<'_>) -> &mut Self {
        let host = format!("host-{client}");
        let event = ClientEvent { client: ClientId(client), host: &host, act };
        self.show(Occasion::Client(&event))
    }

    pub(super) fn producer(&mut self, client: u64, idempotent: bool) -> &mut Self {
        self.act(client, ClientAct::ProducerOpened { idempotent, transactional: false })
    }

    pub(super) fn transactional(&mut self, client: u64) -> &mut Self {
        self.act(client, ClientAct::ProducerOpened { idempotent: true, transactional: true })
    }

    pub(super) fn sent(&mut self, client: u64, send: u64, value: &str) -> &mut Self {
        let record = ProducerRecord::new("t", "k", Bytes::copy_from_slice(value.as_bytes()));
        self.act(client, ClientAct::Sent { send: SendId(send), record: &record })
    }

    pub(super) fn acked(&mut self, client: u64, send: u64, offset: Offset) -> &mut Self {
        let metadata =
            RecordMetadata { partition: partition(), offset: Some(offset), timestamp: Timestamp::ZERO };
        self.act(client, ClientAct::Acknowledged { send: SendId(send), metadata: &metadata })
    }

    pub(super) fn given_up(&mut self, client: u64, send: u64, code: ErrorCode) -> &mut Self {
        let error = Error::new(code, ErrorClass::Retriable, "given up");
        self.act(client, ClientAct::GivenUp { send: SendId(send), error: &error })
    }

    pub(super) fn member(&mut self, client: u64) -> &mut Self {
        self.act(
            client,
            ClientAct::ConsumerOpened {
                group: Some("g"),
                committed_only: true,
                auto_commit: false,
                from_earliest: true,
            },
        )
        .act(client, ClientAct::Assigned(&[partition()]))
    }

    pub(super) fn polled(&mut self, client: u64, records: &[(Offset, &str)]) -> &mut Self {
        let records: Vec<_> = records.iter().map(|(offset, value)| record(*offset, value)).collect();
        self.act(client, ClientAct::Polled(&records))
    }

    pub(super) fn commits(&mut self, client: u64, offset: Offset) -> &mut Self {
        let offsets = [(partition(), OffsetAndMetadata::new(offset))];
        self.act(client, ClientAct::Committing(&offsets)).act(client, ClientAct::Committed(&offsets))
    }

    pub(super) fn read_to_end(&mut self, client: u64, end: Offset) -> &mut Self {
        self.act(client, ClientAct::ReadToEnd { partition: &partition(), end, high_watermark: end })
    }

    /// Ends the run and gives what was found, one sentence each.
    pub(super) fn end(&mut self) -> Vec<String> {
        self.end_with(true)
    }

    /// The same of a system that has not come to rest.
    pub(super) fn end_unsettled(&mut self) -> Vec<String> {
        self.end_with(false)
    }

    fn end_with(&mut self, at_rest: bool) -> Vec<String> {
        self.show(Occasion::End { at_rest });
        assert!(self.breaches.iter().all(|breach| !breach.evidence.is_empty()), "a breach without evidence");
        self.breaches.iter().map(|breach| breach.says.clone()).collect()
    }

    fn show(&mut self, occasion: Occasion<'_>) -> &mut Self {
        self.ms += 1;
        let mut breaches = Breaches::default();
        let moment = Moment { at: Duration::from_millis(self.ms), event: self.ms };
        self.check.look(moment, occasion, &mut breaches);
        self.breaches.extend(breaches.take());
        self
    }
}

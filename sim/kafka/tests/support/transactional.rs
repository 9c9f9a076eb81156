//! What producers with transactions, their coordinators and readers of committed data do.

use bytes::Bytes;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::describe_producers_response::ProducerState;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::*;
use shakedown_kafka::NodeId;
use shakedown_kafka::log::batch::{BatchHeader, HEADER_LEN, assemble};

use super::verbs::{fetch_request, idempotent, produce_request, topic_name};
use super::{Bench, text};
use crate::expect;

/// Of a batch that is part of a transaction.
const TRANSACTIONAL: i16 = 0b1_0000;

/// A batch of a transaction.
pub fn transactional(values: &[&str], producer: i64, epoch: i16, sequence: i32) -> Bytes {
    let plain = idempotent(values, producer, epoch, sequence);
    let header = BatchHeader::parse(&plain).unwrap();
    assemble(&BatchHeader { attributes: TRANSACTIONAL, ..header }, &plain[HEADER_LEN..])
}

/// A produce with a transactional id.
pub fn transactional_request(id: &str, topic: &str, partition: i32, batch: Bytes) -> ProduceRequest {
    produce_request(topic, partition, -1, batch).with_transactional_id(Some(TransactionalId(text(id))))
}

/// A coordinator's marker for one partition.
pub fn marker_request(
    (topic, partition): (&str, i32),
    (producer_id, producer_epoch): (i64, i16),
    coordinator_epoch: i32,
    committed: bool,
) -> WriteTxnMarkersRequest {
    let topic = WritableTxnMarkerTopic::default()
        .with_name(topic_name(topic))
        .with_partition_indexes(vec![partition]);
    let marker = WritableTxnMarker::default()
        .with_producer_id(ProducerId(producer_id))
        .with_producer_epoch(producer_epoch)
        .with_transaction_result(committed)
        .with_topics(vec![topic])
        .with_coordinator_epoch(coordinator_epoch);
    WriteTxnMarkersRequest::default().with_markers(vec![marker])
}

/// What a reader of committed data is told.
#[derive(Debug, PartialEq, Eq)]
pub struct Committed {
    pub error: i16,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    /// Offsets of the batches that came: first and last.
    pub batches: Vec<(i64, i64)>,
    /// Producer id and first offset of each.
    pub aborted: Option<Vec<(i64, i64)>>,
}

pub fn committed(response: ResponseKind) -> Committed {
    let mut response = expect!(Fetch, response);
    let mut partition = response.responses.remove(0).partitions.remove(0);
    let mut rest = partition.records.take().unwrap_or_default();
    let mut batches = Vec::new();
    while !rest.is_empty() {
        let header = BatchHeader::parse(&rest).unwrap();
        batches.push((header.base_offset, header.last_offset()));
        drop(rest.split_to(header.size()));
    }
    let aborted = partition.aborted_transactions;
    Committed {
        error: partition.error_code,
        high_watermark: partition.high_watermark,
        last_stable_offset: partition.last_stable_offset,
        batches,
        aborted: aborted.map(|aborted| aborted.iter().map(|a| (a.producer_id.0, a.first_offset)).collect()),
    }
}

impl Bench {
    /// The error of a transactional produce of a client that speaks `version`, and the base offset.
    pub fn produce_in(
        &mut self,
        node: NodeId,
        version: i16,
        (id, topic, partition): (&str, &str, i32),
        batch: Bytes,
    ) -> (i16, i64) {
        let request = transactional_request(id, topic, partition, batch);
        let response = expect!(Produce, self.ask(node, ApiKey::Produce, version, request));
        let partition = &response.responses[0].partition_responses[0];
        (partition.error_code, partition.base_offset)
    }

    /// The error of a marker.
    pub fn mark(
        &mut self,
        node: NodeId,
        partition: (&str, i32),
        producer: (i64, i16),
        coordinator_epoch: i32,
        committed: bool,
    ) -> i16 {
        let request = marker_request(partition, producer, coordinator_epoch, committed);
        let response = expect!(WriteTxnMarkers, self.ask(node, ApiKey::WriteTxnMarkers, 1, request));
        response.markers[0].topics[0].partitions[0].error_code
    }

    /// Fetches committed data, without waiting.
    pub fn fetch_committed(&mut self, node: NodeId, topic: &str, partition: i32, offset: i64) -> Committed {
        let request = fetch_request(topic, partition, offset, 0, 1).with_isolation_level(1);
        committed(self.ask(node, ApiKey::Fetch, 12, request))
    }

    /// The latest offset, as readers of committed or of all data are told.
    pub fn latest(&mut self, node: NodeId, topic: &str, partition: i32, committed_only: bool) -> i64 {
        let asked = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_timestamp(-1)
            .with_current_leader_epoch(-1);
        let topic = ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(vec![asked]);
        let request = ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_isolation_level(i8::from(committed_only))
            .with_topics(vec![topic]);
        expect!(ListOffsets, self.ask(node, ApiKey::ListOffsets, 7, request)).topics[0].partitions[0].offset
    }

    /// The producers that a replica knows.
    pub fn producers(&mut self, node: NodeId, topic: &str, partition: i32) -> (i16, Vec<ProducerState>) {
        let asked =
            TopicRequest::default().with_name(topic_name(topic)).with_partition_indexes(vec![partition]);
        let request = DescribeProducersRequest::default().with_topics(vec![asked]);
        let response = expect!(DescribeProducers, self.ask(node, ApiKey::DescribeProducers, 0, request));
        let partition = &response.topics[0].partitions[0];
        (partition.error_code, partition.active_producers.clone())
    }
}

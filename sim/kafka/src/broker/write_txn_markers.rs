//! WriteTxnMarkers (27), version 1: a transaction's coordinator ends it on the partitions that this broker leads.
//!
//! Each marker is a control batch, appended as with `acks=all`: what it decided is told to readers of committed data when
//! it is committed itself. The answer comes when all are committed or refused:
//! - `UNKNOWN_TOPIC_OR_PARTITION`: no replica of it is here.
//! - `NOT_LEADER_OR_FOLLOWER`, `NOT_ENOUGH_REPLICAS`, `REQUEST_TIMED_OUT` and the like: the coordinator tries again.
//!   So too where the group coordinator is not there, is still loading or has moved: those errors are nothing that a
//!   transaction's coordinator knows.
//! - `INVALID_PRODUCER_EPOCH`, `TRANSACTION_COORDINATOR_FENCED`: a newer one was here.
//!
//! A marker on `__consumer_offsets` also decides the offsets that the transaction brought: the group coordinator is told
//! when it was appended. Kafka's `KafkaApis.handleWriteTxnMarkersRequest`.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{ProducerId, TopicName, WriteTxnMarkersRequest, WriteTxnMarkersResponse};

use super::commit::{Acks, Then};
use super::{Broker, Turn};
use crate::config::millis;
use crate::core::ConnectionId;
use crate::group::OFFSETS_TOPIC;
use crate::log::marker::Marker;
use crate::wire::Call;

/// Requests whose markers are not all committed yet.
#[derive(Clone, Debug, Default)]
pub(super) struct MarkerRequests {
    next: u64,
    open: BTreeMap<u64, OpenRequest>,
}

#[derive(Clone, Debug)]
struct OpenRequest {
    connection: ConnectionId,
    call: Call,
    slots: Vec<Slot>,
    unanswered: usize,
}

/// One marker on one partition.
#[derive(Clone, Debug)]
struct Slot {
    producer_id: ProducerId,
    topic: TopicName,
    index: i32,
    result: Result<(), ResponseError>,
}

impl Broker {
    pub(super) fn write_txn_markers(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: Call,
        request: WriteTxnMarkersRequest,
    ) {
        let mut slots = Vec::new();
        let mut markers = Vec::new();
        for asked in request.markers {
            let marker = Marker {
                producer_id: asked.producer_id.0,
                producer_epoch: asked.producer_epoch,
                coordinator_epoch: asked.coordinator_epoch,
                committed: asked.transaction_result,
            };
            for topic in asked.topics {
                for index in topic.partition_indexes {
                    let (producer_id, topic) = (asked.producer_id, topic.name.clone());
                    slots.push(Slot { producer_id, topic, index, result: Ok(()) });
                    markers.push(marker);
                }
            }
        }
        let id = self.marker_requests.next;
        self.marker_requests.next += 1;
        if markers.is_empty() {
            return turn.respond(connection, &call, WriteTxnMarkersResponse::default());
        }
        let unanswered = slots.len();
        self.marker_requests.open.insert(id, OpenRequest { connection, call, slots, unanswered });
        for (slot, marker) in markers.iter().enumerate() {
            if let Err(error) = self.append_marker(turn, id, slot, marker) {
                self.marker_done(turn, id, slot, Err(error));
            }
        }
    }

    fn append_marker(
        &mut self,
        turn: &mut Turn<'_>,
        request: u64,
        slot: usize,
        marker: &Marker,
    ) -> Result<(), ResponseError> {
        // The request stays open until this slot is answered.
        let asked = &self.marker_requests.open[&request].slots[slot];
        let is_offsets = asked.topic.as_str() == OFFSETS_TOPIC;
        let key = self.image.partition_of(asked.topic.as_str(), asked.index).map(|(key, _)| key);
        let key = key.filter(|key| self.partitions.contains_key(key));
        let key = key.ok_or(ResponseError::UnknownTopicOrPartition)?;
        if is_offsets {
            self.may_mark_offsets(key.index)?;
        }
        let (batch, deadline) =
            (marker.batch(turn.now_ms()), turn.now + millis(self.settings.request_timeout_ms));
        // A marker on offsets is written by the group coordinator, as it writes everything.
        let acks = if is_offsets { Acks::Leader } else { Acks::All };
        let then = Then::Marker { request, slot };
        let appended = self.append_own(turn, key, (&batch, acks), deadline, then)?;
        if is_offsets {
            self.marker_on_offsets(turn, key, marker, appended.base_offset);
        }
        Ok(())
    }

    /// A marker is committed, or refused.
    pub(super) fn marker_done(
        &mut self,
        turn: &mut Turn<'_>,
        request: u64,
        slot: usize,
        result: Result<(), ResponseError>,
    ) {
        let open = self.marker_requests.open.get_mut(&request).expect("a request waits for all its markers");
        let slot = &mut open.slots[slot];
        let is_offsets = slot.topic.as_str() == OFFSETS_TOPIC;
        slot.result = result.map_err(|error| if is_offsets { not_ready(error) } else { error });
        open.unanswered -= 1;
        if open.unanswered == 0 {
            let open = self.marker_requests.open.remove(&request).expect("it was just there");
            turn.respond(open.connection, &open.call, response(open.slots));
        }
    }
}

/// What a transaction's coordinator hears instead of what a group's coordinator says.
fn not_ready(error: ResponseError) -> ResponseError {
    match error {
        ResponseError::CoordinatorNotAvailable
        | ResponseError::CoordinatorLoadInProgress
        | ResponseError::NotCoordinator => ResponseError::NotLeaderOrFollower,
        other => other,
    }
}

/// Results by producer and topic, in the order in which they were asked for.
fn response(slots: Vec<Slot>) -> WriteTxnMarkersResponse {
    let mut response = WriteTxnMarkersResponse::default();
    for slot in slots {
        let markers = &mut response.markers;
        let of_producer = markers.iter().position(|marker| marker.producer_id == slot.producer_id);
        let of_producer = of_producer.unwrap_or_else(|| {
            markers.push(WritableTxnMarkerResult::default().with_producer_id(slot.producer_id));
            markers.len() - 1
        });
        let topics = &mut markers[of_producer].topics;
        let of_topic = topics.iter().position(|topic| topic.name == slot.topic);
        let of_topic = of_topic.unwrap_or_else(|| {
            topics.push(WritableTxnMarkerTopicResult::default().with_name(slot.topic));
            topics.len() - 1
        });
        let result = WritableTxnMarkerPartitionResult::default()
            .with_partition_index(slot.index)
            .with_error_code(slot.result.err().map_or(0, |error| error.code()));
        topics[of_topic].partitions.push(result);
    }
    response
}

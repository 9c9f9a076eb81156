//! Produce (0), versions 3 to 13 (0 to 2 are told of and refused, see [`crate::wire::BROKER_APIS`]).
//!
//! One batch a partition, stored as it came but for offset, epoch and perhaps time.
//!
//! - `acks=0` has no answer; an error then closes the connection, which is all that the client can be told.
//! - `acks=1` is answered when this broker, the leader, has the batch.
//! - `acks=all` is answered when all in sync have it, for all partitions of the request together; a partition that is not
//!   committed at the request's timeout gets REQUEST_TIMED_OUT, and its records stay. With fewer in sync than
//!   `min.insync.replicas` nothing is appended: NOT_ENOUGH_REPLICAS; if they became fewer after the append,
//!   NOT_ENOUGH_REPLICAS_AFTER_APPEND.
//!
//! zstd came with version 7 (KIP-110): a batch in it is refused before with UNSUPPORTED_COMPRESSION_TYPE.
//!
//! Transactional batches are verified first, see [`super::verification`].
//!
//! Version notes: log start offset from 5 on, error message from 8 on, the present leader (KIP-951) from 10 on, topic
//! ids from 13 on.

use std::collections::BTreeMap;

use context::Timestamp;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{BrokerId, ProduceRequest, ProduceResponse, TopicName};
use uuid::Uuid;

use super::commit::Then;
use super::verification::{Verified, has_transactional_batches};
use super::{Broker, Turn, text};
use crate::config::millis;
use crate::core::{ConnectionId, Output};
use crate::log::batch::{BatchHeader, is_unreadable};
use crate::log::compression::Codec;
use crate::log::validator::RecordError;
use crate::metadata::PartitionKey;
use crate::partition::{AppendError, AppendRules, Appended, Leadership};
use crate::wire::Call;

/// The first version that may bring zstd.
const ZSTD_SINCE: i16 = 7;

/// The produces with `acks=all` that wait for their in-sync replicas.
#[derive(Clone, Debug, Default)]
pub(super) struct Producing {
    next: u64,
    by_id: BTreeMap<u64, WaitingProduce>,
}

/// A produce, its answer written as far as it is known.
#[derive(Clone, Debug)]
struct WaitingProduce {
    connection: ConnectionId,
    call: Call,
    response: ProduceResponse,
    /// Partitions that are not committed yet.
    open: usize,
}

/// One partition of a produce that waits: the topic's and the partition's place in the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProducedPart {
    produce: u64,
    topic: usize,
    partition: usize,
    key: PartitionKey,
}

impl Broker {
    pub(super) fn produce(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: Call,
        request: ProduceRequest,
    ) {
        if has_transactional_batches(&request) {
            return self.produce_transactional(turn, connection, call, request);
        }
        self.append_all(turn, connection, &call, request, &Verified::default());
    }

    /// Appends what a request brings, as far as it was `verified`, and answers it.
    pub(super) fn append_all(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        request: ProduceRequest,
        verified: &Verified,
    ) {
        let refusal = refusal(&request).or_else(|| verified.refused.clone());
        let mut response = ProduceResponse::default();
        let mut changed = Vec::new();
        let mut waits: Vec<(i64, ProducedPart)> = Vec::new();
        let mut error = None;
        for topic in request.topic_data {
            let mut answered = TopicProduceResponse::default();
            for data in &topic.partition_data {
                let result = match &refusal {
                    Some(refusal) => Err(refusal.clone()),
                    None => self.append(turn, call, (&topic, data), (verified, request.acks), &mut changed),
                };
                match &result {
                    Err(refused) => {
                        error = Some(refused.code);
                        self.hint_leader(
                            call,
                            (&topic.name, topic.topic_id),
                            data.index,
                            refused.code,
                            &mut response.node_endpoints,
                        );
                    }
                    Ok((key, appended)) if request.acks == -1 => {
                        let (topic, partition) =
                            (response.responses.len(), answered.partition_responses.len());
                        let part = ProducedPart { produce: self.producing.next, topic, partition, key: *key };
                        waits.push((appended.required_offset, part));
                    }
                    Ok(_) => {}
                }
                answered.partition_responses.push(self.produced(turn, call, &topic, data.index, result));
            }
            if call.version >= 13 {
                answered.topic_id = topic.topic_id
            } else {
                answered.name = topic.name
            }
            response.responses.push(answered);
        }
        for key in &changed {
            self.advance_high_watermark(turn, *key);
        }
        match (request.acks, error) {
            (0, None) => turn.out.push(Output::Done { connection }),
            (0, Some(error)) => {
                turn.out.push(Output::Close {
                    connection,
                    reason: format!("a produce with acks=0 failed: {error}"),
                });
            }
            (-1, _) if !waits.is_empty() => {
                let until = turn.now + millis(request.timeout_ms.max(0));
                self.wait_for_replicas(turn, (connection, call), response, waits, until);
            }
            _ => turn.respond(connection, call, response),
        }
        for key in changed {
            self.partition_changed(turn, key);
        }
    }

    /// Answers when all partitions are committed, or cannot be. Most often without followers that is at once.
    fn wait_for_replicas(
        &mut self,
        turn: &mut Turn<'_>,
        (connection, call): (ConnectionId, &Call),
        response: ProduceResponse,
        waits: Vec<(i64, ProducedPart)>,
        until: Timestamp,
    ) {
        let all_done =
            |(offset, part): &(i64, ProducedPart)| self.committed(part.key, *offset) == Some(Ok(()));
        if waits.iter().all(all_done) {
            return turn.respond(connection, call, response);
        }
        let id = self.producing.next;
        self.producing.next += 1;
        let open = waits.len();
        let waiting = WaitingProduce { connection, call: call.clone(), response, open };
        self.producing.by_id.insert(id, waiting);
        for (offset, part) in waits {
            self.when_committed(turn, part.key, offset, until, Then::Produce(part));
        }
    }

    /// One partition of a produce is committed, or cannot be.
    pub(super) fn produce_committed(
        &mut self,
        turn: &mut Turn<'_>,
        part: ProducedPart,
        result: Result<(), ResponseError>,
    ) {
        let mut produce = self.producing.by_id.remove(&part.produce).expect("a produce waits for its parts");
        if let Err(code) = result {
            let WaitingProduce { call, response, .. } = &mut produce;
            let topic = &mut response.responses[part.topic];
            let data = &mut topic.partition_responses[part.partition];
            data.error_code = code.code();
            if call.version >= 8 {
                data.error_message = Some(text(&code.to_string()));
            }
            if call.version >= 10 && code == ResponseError::NotLeaderOrFollower {
                let (leader, epoch) = self.leader_and_epoch(part.key);
                data.current_leader =
                    LeaderIdAndEpoch::default().with_leader_id(BrokerId(leader)).with_leader_epoch(epoch);
            }
            let asked = (&topic.name, topic.topic_id);
            self.hint_leader(call, asked, part.key.index, code, &mut response.node_endpoints);
        }
        produce.open -= 1;
        if produce.open == 0 {
            turn.respond(produce.connection, &produce.call, produce.response);
        } else {
            self.producing.by_id.insert(part.produce, produce);
        }
    }

    fn append(
        &mut self,
        turn: &mut Turn<'_>,
        call: &Call,
        (topic, data): (&TopicProduceData, &PartitionProduceData),
        (verified, acks): (&Verified, i16),
        changed: &mut Vec<PartitionKey>,
    ) -> Result<(PartitionKey, Appended), AppendError> {
        let plain = |code: ResponseError| AppendError::new(code, code.to_string());
        let image = self.asked_topic(call.version >= 13, &topic.name, topic.topic_id).map_err(plain)?;
        let key = PartitionKey { topic: image.id, index: data.index };
        if self.image.partition(key).is_none() {
            return Err(plain(ResponseError::UnknownTopicOrPartition));
        }
        if call.version < ZSTD_SINCE && is_zstd(data) {
            return Err(plain(ResponseError::UnsupportedCompressionType));
        }
        if super::is_internal(&image.name) {
            return Err(plain(ResponseError::InvalidTopicException));
        }
        if let Some(error) = verified.produce_error(call.version, key) {
            return Err(error);
        }
        let rules = AppendRules::new(&self.settings, &image.settings);
        let in_sync = self.led(key).map_err(plain)?.leadership.as_ref().map_or(&[][..], Leadership::in_sync);
        if acks == -1 && self.lacks_replicas(key, in_sync.len()) {
            let message = format!("too few replicas are in sync: {in_sync:?}");
            return Err(AppendError::new(ResponseError::NotEnoughReplicas, message));
        }
        let partition = self.partitions.get_mut(&key).expect("a partition that is led is here");
        let log = turn.disk.logs.get_mut(&key).expect("a partition that is led has a log");
        let batch = data.records.clone().unwrap_or_default();
        let appended = partition.append(turn.now, log, &rules, &batch, verified.guards.get(&key).copied())?;
        // A duplicate moves nothing itself. But a follower that held the high watermark back may have been given up since,
        // and the next produce is when a leader looks (`Partition.appendRecordsToLeader`).
        changed.push(key);
        Ok((key, appended))
    }

    fn produced(
        &self,
        turn: &Turn<'_>,
        call: &Call,
        topic: &TopicProduceData,
        index: i32,
        result: Result<(PartitionKey, Appended), AppendError>,
    ) -> PartitionProduceResponse {
        let mut response = PartitionProduceResponse::default().with_index(index);
        match result {
            Ok((key, appended)) => {
                response.base_offset = appended.base_offset;
                response.log_append_time_ms = appended.append_time_ms;
                if call.version >= 5 {
                    response.log_start_offset = turn.disk.logs[&key].start_offset();
                }
            }
            Err(AppendError { code, message, record_errors }) => {
                response.error_code = code.code();
                response.base_offset = -1;
                if call.version >= 8 {
                    response.error_message = Some(text(&message));
                    response.record_errors = record_errors.iter().map(in_response).collect();
                }
                if call.version >= 10
                    && code == ResponseError::NotLeaderOrFollower
                    && let Ok(image) = self.asked_topic(call.version >= 13, &topic.name, topic.topic_id)
                {
                    let (leader, epoch) = self.leader_and_epoch(PartitionKey { topic: image.id, index });
                    response.current_leader =
                        LeaderIdAndEpoch::default().with_leader_id(BrokerId(leader)).with_leader_epoch(epoch);
                }
            }
        }
        response
    }

    /// Where the leader is, for a client that came to the wrong broker.
    fn hint_leader(
        &self,
        call: &Call,
        (name, id): (&TopicName, Uuid),
        index: i32,
        code: ResponseError,
        endpoints: &mut Vec<NodeEndpoint>,
    ) {
        if call.version < 10 || code != ResponseError::NotLeaderOrFollower {
            return;
        }
        let Ok(image) = self.asked_topic(call.version >= 13, name, id) else { return };
        let (leader, _) = self.leader_and_epoch(PartitionKey { topic: image.id, index });
        if endpoints.iter().any(|endpoint| endpoint.node_id.0 == leader) {
            return;
        }
        if let Some(broker) = self.image.brokers.get(&leader).filter(|broker| !broker.fenced) {
            let endpoint = NodeEndpoint::default()
                .with_node_id(BrokerId(leader))
                .with_host(text(&broker.host))
                .with_port(i32::from(broker.port));
            endpoints.push(endpoint);
        }
    }
}

fn in_response(error: &RecordError) -> BatchIndexAndErrorMessage {
    BatchIndexAndErrorMessage::default()
        .with_batch_index(error.index)
        .with_batch_index_error_message(Some(text(&error.message)))
}

/// Whether a partition's batch is compressed with zstd (`ProduceRequest.validateRecords`).
fn is_zstd(data: &PartitionProduceData) -> bool {
    let header = data.records.as_ref().and_then(|records| BatchHeader::parse(records).ok());
    header.is_some_and(|header| header.compression() == Codec::Zstd as i16)
}

/// What is wrong with a request as a whole.
fn refusal(request: &ProduceRequest) -> Option<AppendError> {
    // Kafka reads all batches for those of transactions before it looks at partitions one by one.
    let partitions = request.topic_data.iter().flat_map(|topic| &topic.partition_data);
    let mut records = partitions.filter_map(|data| data.records.as_ref());
    if records.any(|records| is_unreadable(records)) {
        let message = "the size or the format of a batch is none that there is";
        return Some(AppendError::new(ResponseError::CorruptMessage, message.to_owned()));
    }
    if !(-1..=1).contains(&request.acks) {
        let message = format!("acks is {}, not -1, 0 or 1", request.acks);
        return Some(AppendError::new(ResponseError::InvalidRequiredAcks, message));
    }
    None
}

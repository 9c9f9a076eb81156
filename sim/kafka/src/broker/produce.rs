//! Produce (0), versions 3 to 13 (0 to 2 are told of and refused, see [`crate::wire::BROKER_APIS`]).
//!
//! One batch a partition, stored as it came but for offset, epoch and perhaps time. `acks=0` has no answer; an error
//! then closes the connection, which is all that the client can be told. With one replica `acks=1` and `acks=all` are
//! the same. Transactional batches are verified first, see [`super::verification`].
//!
//! Version notes: log start offset from 5 on, error message from 8 on, the present leader (KIP-951) from 10 on, topic
//! ids from 13 on.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{BrokerId, ProduceRequest, ProduceResponse};

use super::verification::{Verified, has_transactional_batches};
use super::{Broker, Turn, text};
use crate::core::{ConnectionId, Output};
use crate::log::validator::RecordError;
use crate::metadata::PartitionKey;
use crate::partition::{AppendError, AppendRules, Appended};
use crate::wire::Call;

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
        let mut error = None;
        for topic in request.topic_data {
            let mut answered = TopicProduceResponse::default();
            for data in &topic.partition_data {
                let result = match &refusal {
                    Some(refusal) => Err(refusal.clone()),
                    None => self.append(turn, call, (&topic, data), verified, &mut changed),
                };
                if let Err(refused) = &result {
                    error = Some(refused.code);
                    self.hint_leader(call, &topic, data.index, refused.code, &mut response.node_endpoints);
                }
                answered.partition_responses.push(self.produced(call, &topic, data.index, result));
            }
            if call.version >= 13 {
                answered.topic_id = topic.topic_id
            } else {
                answered.name = topic.name
            }
            response.responses.push(answered);
        }
        match (request.acks, error) {
            (0, None) => turn.out.push(Output::Done { connection }),
            (0, Some(error)) => {
                turn.out.push(Output::Close {
                    connection,
                    reason: format!("a produce with acks=0 failed: {error}"),
                });
            }
            _ => turn.respond(connection, call, response),
        }
        for key in changed {
            self.partition_changed(turn, key);
        }
    }

    fn append(
        &mut self,
        turn: &mut Turn<'_>,
        call: &Call,
        (topic, data): (&TopicProduceData, &PartitionProduceData),
        verified: &Verified,
        changed: &mut Vec<PartitionKey>,
    ) -> Result<Appended, AppendError> {
        let plain = |code: ResponseError| AppendError::new(code, code.to_string());
        let image = self.asked_topic(call.version >= 13, &topic.name, topic.topic_id).map_err(plain)?;
        if super::is_internal(&image.name) {
            return Err(plain(ResponseError::InvalidTopicException));
        }
        let key = PartitionKey { topic: image.id, index: data.index };
        if let Some(error) = verified.produce_error(call.version, key) {
            return Err(error);
        }
        let rules = AppendRules::new(&self.settings, &image.settings);
        self.led(key).map_err(plain)?;
        let partition = self.partitions.get_mut(&key).expect("a partition that is led is here");
        let log = turn.disk.logs.get_mut(&key).expect("a partition that is led has a log");
        let batch = data.records.clone().unwrap_or_default();
        let appended = partition.append(turn.now, log, &rules, &batch, verified.guards.get(&key).copied())?;
        if !appended.duplicate {
            changed.push(key);
        }
        Ok(appended)
    }

    fn produced(
        &self,
        call: &Call,
        topic: &TopicProduceData,
        index: i32,
        result: Result<Appended, AppendError>,
    ) -> PartitionProduceResponse {
        let mut response = PartitionProduceResponse::default().with_index(index);
        match result {
            Ok(appended) => {
                response.base_offset = appended.base_offset;
                response.log_append_time_ms = appended.append_time_ms;
                if call.version >= 5 {
                    response.log_start_offset = 0;
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
        topic: &TopicProduceData,
        index: i32,
        code: ResponseError,
        endpoints: &mut Vec<NodeEndpoint>,
    ) {
        if call.version < 10 || code != ResponseError::NotLeaderOrFollower {
            return;
        }
        let Ok(image) = self.asked_topic(call.version >= 13, &topic.name, topic.topic_id) else { return };
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

/// What is wrong with a request as a whole.
fn refusal(request: &ProduceRequest) -> Option<AppendError> {
    if !(-1..=1).contains(&request.acks) {
        let message = format!("acks is {}, not -1, 0 or 1", request.acks);
        return Some(AppendError::new(ResponseError::InvalidRequiredAcks, message));
    }
    None
}

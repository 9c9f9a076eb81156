//! CreateTopics (19), DeleteTopics (20), AlterConfigs (33), CreatePartitions (37), ElectLeaders (43) and
//! IncrementalAlterConfigs (44): passed on to the controller, and its answer passed back.
//!
//! Kafka wraps them in Envelope requests; between our own nodes the request goes as it came, but for what
//! [`super::alter_configs`] refuses. If the controller does not answer for a minute ([`super::forwarding`]), each topic is
//! told so with REQUEST_TIMED_OUT.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse as LegacyAltered;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse as Altered;
use kafka_protocol::messages::{
    AlterConfigsResponse, ApiKey, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsResponse, ElectLeadersResponse, IncrementalAlterConfigsResponse, RequestKind, ResponseKind,
    TopicName,
};

use super::alter_configs::{Refusals, nothing_asked, with_refusals};
use super::lifecycle::Pending;
use super::{Broker, Turn, text};
use crate::core::{ConnectionId, Output};
use crate::group::OFFSETS_TOPIC;
use crate::transaction::TRANSACTION_TOPIC;
use crate::wire::{self, Call};

/// How long a broker lets the controller take for topics that it wants itself.
const AUTO_CREATE_TIMEOUT_MS: i32 = 30_000;

impl Broker {
    pub(super) fn forward(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: Call,
        mut body: RequestKind,
        frame: &Bytes,
    ) {
        let refused = self.refuse_configs(&mut body);
        if refused.is_empty() {
            let pending = Pending::Forwarded { connection, call, body: Box::new(body), refused };
            return self.ask_controller(turn, pending, frame.clone());
        }
        if let Some(answer) = nothing_asked(&body) {
            return turn.respond(connection, &call, with_refusals(answer, refused));
        }
        let frame = match &body {
            RequestKind::AlterConfigs(request) => wire::request(call.api, call.version, 0, request),
            RequestKind::IncrementalAlterConfigs(request) => {
                wire::request(call.api, call.version, 0, request)
            }
            _ => unreachable!("nothing else is refused in part"),
        };
        let pending = Pending::Forwarded { connection, call, body: Box::new(body), refused };
        self.ask_controller(turn, pending, frame);
    }

    pub(super) fn forwarded(
        &self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        body: &RequestKind,
        refused: Refusals,
        answer: Option<Bytes>,
    ) {
        match answer.filter(|frame| frame.len() >= 4) {
            Some(frame) if refused.is_empty() => {
                let frame = wire::with_correlation(&frame, call.correlation);
                turn.out.push(Output::Respond { connection, frame });
            }
            Some(frame) => match call.read_answer(&frame) {
                Ok(answer) => turn.respond(connection, call, with_refusals(answer, refused)),
                Err(error) => turn.out.push(Output::Close { connection, reason: error.to_string() }),
            },
            None => turn.respond(connection, call, with_refusals(timed_out(call, body), refused)),
        }
    }

    /// Asks for topics that a client's request needs, unless that is under way.
    pub(super) fn auto_create(&mut self, turn: &mut Turn<'_>, topics: Vec<CreatableTopic>) {
        let fresh: Vec<_> =
            topics.into_iter().filter(|topic| self.creating.insert(topic.name.to_string())).collect();
        if fresh.is_empty() {
            return;
        }
        let names = fresh.iter().map(|topic| topic.name.to_string()).collect();
        let request =
            CreateTopicsRequest::default().with_topics(fresh).with_timeout_ms(AUTO_CREATE_TIMEOUT_MS);
        let frame = wire::request(ApiKey::CreateTopics, 7, 0, &request);
        self.ask_controller(turn, Pending::AutoCreate { names }, frame);
    }

    /// A topic to make, as a broker asks for it: internal ones have settings of their own
    /// (`DefaultAutoTopicCreationManager`, `GroupCoordinatorService`, `TransactionStateManager`).
    pub(super) fn wanted_topic(&self, name: &str) -> CreatableTopic {
        let settings = &self.settings;
        match name {
            OFFSETS_TOPIC => {
                let segment_bytes = settings.offsets_topic_segment_bytes.to_string();
                let config = [
                    ("cleanup.policy", "compact"),
                    ("compression.type", "producer"),
                    ("segment.bytes", &segment_bytes),
                ];
                let replicas = settings.offsets_topic_replication_factor;
                wanted(name, settings.offsets_topic_num_partitions, replicas, &config)
            }
            TRANSACTION_TOPIC => {
                let segment_bytes = settings.transaction_state_log_segment_bytes.to_string();
                let min_isr = settings.transaction_state_log_min_isr.to_string();
                let config = [
                    ("cleanup.policy", "compact"),
                    ("compression.type", "uncompressed"),
                    ("min.insync.replicas", &min_isr),
                    ("segment.bytes", &segment_bytes),
                    ("unclean.leader.election.enable", "false"),
                ];
                let replicas = settings.transaction_state_log_replication_factor;
                wanted(name, settings.transaction_state_log_num_partitions, replicas, &config)
            }
            _ => wanted(name, -1, -1, &[]),
        }
    }
}

fn wanted(name: &str, partitions: i32, replication_factor: i32, config: &[(&str, &str)]) -> CreatableTopic {
    let setting = |&(name, value): &(&str, &str)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
    };
    CreatableTopic::default()
        .with_name(TopicName(text(name)))
        .with_num_partitions(partitions)
        .with_replication_factor(replication_factor as i16)
        .with_configs(config.iter().map(setting).collect())
}

fn timed_out(call: &Call, body: &RequestKind) -> ResponseKind {
    let code = ResponseError::RequestTimedOut.code();
    match body {
        RequestKind::CreateTopics(request) => {
            let result = |topic: &CreatableTopic| {
                let mut result =
                    CreatableTopicResult::default().with_name(topic.name.clone()).with_error_code(code);
                if call.version >= 5 {
                    (result.num_partitions, result.replication_factor) = (-1, -1);
                }
                result
            };
            CreateTopicsResponse::default().with_topics(request.topics.iter().map(result).collect()).into()
        }
        RequestKind::DeleteTopics(request) => {
            let named = request
                .topic_names
                .iter()
                .map(|name| DeletableTopicResult::default().with_name(Some(name.clone())));
            let states = request.topics.iter().map(|topic| {
                DeletableTopicResult::default().with_name(topic.name.clone()).with_topic_id(topic.topic_id)
            });
            let results = named.chain(states).map(|result| result.with_error_code(code));
            DeleteTopicsResponse::default().with_responses(results.collect()).into()
        }
        RequestKind::AlterConfigs(request) => {
            let result = |asked: &AlterConfigsResource| {
                LegacyAltered::default()
                    .with_resource_type(asked.resource_type)
                    .with_resource_name(asked.resource_name.clone())
                    .with_error_code(code)
            };
            AlterConfigsResponse::default()
                .with_responses(request.resources.iter().map(result).collect())
                .into()
        }
        RequestKind::IncrementalAlterConfigs(request) => {
            let results = request.resources.iter().map(|asked| {
                Altered::default()
                    .with_resource_type(asked.resource_type)
                    .with_resource_name(asked.resource_name.clone())
                    .with_error_code(code)
            });
            IncrementalAlterConfigsResponse::default().with_responses(results.collect()).into()
        }
        RequestKind::CreatePartitions(request) => {
            let result = |topic: &CreatePartitionsTopic| {
                CreatePartitionsTopicResult::default().with_name(topic.name.clone()).with_error_code(code)
            };
            CreatePartitionsResponse::default()
                .with_results(request.topics.iter().map(result).collect())
                .into()
        }
        RequestKind::ElectLeaders(request) => {
            let result = |topic: &TopicPartitions| {
                let partition =
                    |&id: &i32| PartitionResult::default().with_partition_id(id).with_error_code(code);
                ReplicaElectionResult::default()
                    .with_topic(topic.topic.clone())
                    .with_partition_result(topic.partitions.iter().map(partition).collect())
            };
            let results = request.topic_partitions.iter().flatten().map(result).collect();
            let mut response = ElectLeadersResponse::default().with_replica_election_results(results);
            if call.version >= 1 {
                response.error_code = code;
            }
            response.into()
        }
        _ => unreachable!("only what is forwarded can time out so"),
    }
}

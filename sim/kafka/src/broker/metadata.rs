//! Metadata (3), versions 0 to 13: brokers, topics, leaders, as far as this broker has applied the metadata log.
//!
//! - `controller_id` is a live broker drawn at random: any of them passes requests on.
//! - A partition without a live leader has LEADER_NOT_AVAILABLE.
//! - A topic that does not exist is asked for at the controller if client and broker allow it; the answer meanwhile is
//!   UNKNOWN_TOPIC_OR_PARTITION, and clients ask again.
//!
//! Version notes: no topics means all in 0, null means all from 1 on; topic ids from 10 on, and by id from 12 on.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use rand::RngExt as _;
use uuid::Uuid;

use super::{Broker, Turn, text};
use crate::controller::check_name;
use crate::metadata::{MetadataImage, NodeId, PartitionImage, TopicImage};
use crate::wire::Call;
use crate::{CLUSTER_ID, ConnectionId};

impl Broker {
    pub(super) fn metadata(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        request: &MetadataRequest,
    ) {
        if let Some(refused) = refused_by_id(call, request) {
            return turn.respond(connection, call, MetadataResponse::default().with_topics(refused));
        }
        let asked = request.topics.as_deref().filter(|topics| call.version >= 1 || !topics.is_empty());
        let topics = match asked {
            None => self.image.topics.values().map(|topic| describe(&self.image, call, topic)).collect(),
            Some(asked) => {
                // Before version 4 a client could not say no.
                let may_create = call.version < 4 || request.allow_auto_topic_creation;
                let mut missing = Vec::new();
                let mut topics = Vec::new();
                for topic in asked {
                    let name = topic.name.as_ref().map(|name| name.as_str());
                    topics.push(self.asked_metadata(call, name, topic.topic_id, &mut missing));
                }
                if may_create && self.settings.auto_create_topics_enable && !missing.is_empty() {
                    let wanted = missing.iter().map(|name| self.wanted_topic(name)).collect();
                    self.auto_create(turn, wanted);
                }
                topics
            }
        };
        let broker = |(node, broker): (NodeId, &crate::metadata::BrokerImage)| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(node))
                .with_host(text(&broker.host))
                .with_port(i32::from(broker.port))
                .with_rack(broker.rack.as_deref().map(text))
        };
        let mut response = MetadataResponse::default()
            .with_brokers(self.image.live_brokers().map(broker).collect())
            .with_topics(topics);
        if call.version >= 1 {
            response.controller_id = BrokerId(self.any_live_broker());
        }
        if call.version >= 2 {
            response.cluster_id = Some(text(CLUSTER_ID));
        }
        turn.respond(connection, call, response);
    }

    fn asked_metadata(
        &self,
        call: &Call,
        name: Option<&str>,
        id: Uuid,
        missing: &mut Vec<String>,
    ) -> MetadataResponseTopic {
        let known = match name {
            Some(name) => self.image.topic(name),
            None => self.image.topics.get(&id),
        };
        if let Some(topic) = known {
            return describe(&self.image, call, topic);
        }
        let error = match name {
            None => ResponseError::UnknownTopicId,
            Some(name) if check_name(name).is_err() => ResponseError::InvalidTopicException,
            Some(name) => {
                missing.push(name.to_owned());
                ResponseError::UnknownTopicOrPartition
            }
        };
        let mut unknown = MetadataResponseTopic::default().with_error_code(error.code());
        unknown.name = name.map(|name| TopicName(text(name)));
        if call.version >= 10 {
            unknown.topic_id = id;
        }
        unknown
    }

    /// -1 if none is known to live.
    pub(super) fn any_live_broker(&mut self) -> NodeId {
        let live: Vec<NodeId> = self.image.live_brokers().map(|(node, _)| node).collect();
        if live.is_empty() { -1 } else { live[self.rng.random_range(0..live.len())] }
    }
}

/// Versions 10 and 11 have a place for a topic's id in the question, and none for a topic without a name in the answer:
/// one such topic fails them all.
fn refused_by_id(call: &Call, request: &MetadataRequest) -> Option<Vec<MetadataResponseTopic>> {
    let topics = request.topics.as_deref().filter(|_| call.version < 12)?;
    topics.iter().find(|topic| topic.name.is_none() || !topic.topic_id.is_nil())?;
    let refused = |asked: &MetadataRequestTopic| {
        let mut topic = MetadataResponseTopic::default()
            .with_error_code(ResponseError::InvalidRequest.code())
            .with_name(Some(asked.name.clone().unwrap_or_default()));
        if call.version >= 10 {
            topic.topic_id = asked.topic_id;
        }
        topic
    };
    Some(topics.iter().map(refused).collect())
}

fn describe(image: &MetadataImage, call: &Call, topic: &TopicImage) -> MetadataResponseTopic {
    let partitions = (0..).zip(&topic.partitions);
    let mut described =
        MetadataResponseTopic::default().with_name(Some(TopicName(text(&topic.name)))).with_partitions(
            partitions.map(|(index, state)| describe_partition(image, call, index, state)).collect(),
        );
    if call.version >= 1 {
        described.is_internal = super::is_internal(&topic.name);
    }
    if call.version >= 10 {
        described.topic_id = topic.id;
    }
    described
}

fn describe_partition(
    image: &MetadataImage,
    call: &Call,
    index: i32,
    state: &PartitionImage,
) -> MetadataResponsePartition {
    let live = |node: NodeId| image.brokers.get(&node).is_some_and(|broker| !broker.fenced);
    let ids = |nodes: &[NodeId]| nodes.iter().copied().map(BrokerId).collect::<Vec<_>>();
    let mut described = MetadataResponsePartition::default()
        .with_partition_index(index)
        .with_leader_id(BrokerId(state.leader))
        .with_replica_nodes(ids(&state.replicas))
        .with_isr_nodes(ids(&state.in_sync));
    if !live(state.leader) {
        described.leader_id = BrokerId(crate::metadata::NO_LEADER);
        described.error_code = ResponseError::LeaderNotAvailable.code();
    }
    if call.version >= 5 {
        let offline: Vec<NodeId> = state.replicas.iter().copied().filter(|&node| !live(node)).collect();
        described.offline_replicas = ids(&offline);
    }
    if call.version >= 7 {
        described.leader_epoch = state.leader_epoch;
    }
    described
}

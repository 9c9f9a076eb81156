//! DescribeTopicPartitions (75), version 0 (KIP-966): what Metadata tells of topics, eligible leader replicas too, in
//! pages. Topics come by name, and a cursor says where the next page begins. A partition without a leader is no error here
//! (`KRaftMetadataCache.getPartitionMetadataForDescribeTopicResponse`), as it is in Metadata.

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName,
};

use super::{Broker, Turn, is_internal, text};
use crate::ConnectionId;
use crate::controller::check_name;
use crate::metadata::{NO_LEADER, NodeId, PartitionImage, TopicImage};
use crate::wire::Call;

/// The most partitions of a page: `max.request.partition.size.limit`.
const PARTITIONS_MAX: i32 = 2_000;
/// Nobody asked what the client may do with a topic.
const NO_OPERATIONS: i32 = i32::MIN;

impl Broker {
    pub(super) fn describe_topic_partitions(
        &self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        request: &DescribeTopicPartitionsRequest,
    ) {
        let from = request.cursor.as_ref().map_or("", |cursor| cursor.topic_name.as_str());
        let all = request.topics.is_empty();
        let names: BTreeSet<&str> = if all {
            self.image.names.keys().map(|name| &**name).filter(|name| *name >= from).collect()
        } else {
            request.topics.iter().map(|topic| topic.name.as_str()).filter(|name| *name >= from).collect()
        };
        let astray = request.cursor.as_ref().is_some_and(|cursor| {
            cursor.partition_index < 0 || !all && !names.contains(cursor.topic_name.as_str())
        });
        if astray {
            let refused = request
                .topics
                .iter()
                .map(|topic| unknown(topic.name.as_str(), ResponseError::InvalidRequest));
            let response = DescribeTopicPartitionsResponse::default().with_topics(refused.collect());
            return turn.respond(connection, call, response);
        }
        let mut left = request.response_partition_limit.clamp(1, PARTITIONS_MAX) as usize;
        let mut response = DescribeTopicPartitionsResponse::default();
        for name in names {
            let next = |index: usize| {
                Some(
                    Cursor::default()
                        .with_topic_name(TopicName(text(name)))
                        .with_partition_index(index as i32),
                )
            };
            if left == 0 {
                response.next_cursor = next(0);
                break;
            }
            let Some(topic) = self.image.topic(name) else {
                let error = match check_name(name) {
                    Ok(()) => ResponseError::UnknownTopicOrPartition,
                    Err(_) => ResponseError::InvalidTopicException,
                };
                response.topics.push(unknown(name, error));
                continue;
            };
            let first = request.cursor.as_ref().filter(|cursor| cursor.topic_name.as_str() == name);
            let first = first.map_or(0, |cursor| cursor.partition_index as usize);
            let end = topic.partitions.len().min(first.saturating_add(left));
            response.topics.push(self.described(topic, first..end.max(first)));
            if end < topic.partitions.len() {
                response.next_cursor = next(end);
                break;
            }
            left -= end.saturating_sub(first);
        }
        turn.respond(connection, call, response);
    }

    fn described(
        &self,
        topic: &TopicImage,
        indexes: std::ops::Range<usize>,
    ) -> DescribeTopicPartitionsResponseTopic {
        let partitions = topic.partitions.iter().enumerate().skip(indexes.start).take(indexes.len());
        DescribeTopicPartitionsResponseTopic::default()
            .with_name(Some(TopicName(text(&topic.name))))
            .with_topic_id(topic.id)
            .with_is_internal(is_internal(&topic.name))
            .with_topic_authorized_operations(NO_OPERATIONS)
            .with_partitions(
                partitions.map(|(index, state)| self.described_partition(index, state)).collect(),
            )
    }

    fn described_partition(
        &self,
        index: usize,
        state: &PartitionImage,
    ) -> DescribeTopicPartitionsResponsePartition {
        let live = |node: NodeId| self.image.brokers.get(&node).is_some_and(|broker| !broker.fenced);
        let ids = |nodes: &[NodeId]| nodes.iter().copied().map(BrokerId).collect::<Vec<_>>();
        let leader = if live(state.leader) { state.leader } else { NO_LEADER };
        let offline: Vec<NodeId> = state.replicas.iter().copied().filter(|node| !live(*node)).collect();
        DescribeTopicPartitionsResponsePartition::default()
            .with_partition_index(index as i32)
            .with_leader_id(BrokerId(leader))
            .with_leader_epoch(state.leader_epoch)
            .with_replica_nodes(ids(&state.replicas))
            .with_isr_nodes(ids(&state.in_sync))
            .with_eligible_leader_replicas(Some(ids(&state.elr)))
            .with_last_known_elr(Some(ids(&state.last_known_elr)))
            .with_offline_replicas(ids(&offline))
    }
}

fn unknown(name: &str, error: ResponseError) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(TopicName(text(name))))
        .with_error_code(error.code())
        .with_topic_authorized_operations(NO_OPERATIONS)
}

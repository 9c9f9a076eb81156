//! DescribeProducers (61), version 0: the producers that a replica knows, and the transactions that they have open.
//!
//! Any replica answers, not only the leader. What `kafka-transactions.sh find-hanging` asks first.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId};

use super::{Broker, Turn};
use crate::ConnectionId;
use crate::wire::Call;

impl Broker {
    pub(super) fn describe_producers(
        &self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        request: &DescribeProducersRequest,
    ) {
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partition_indexes.iter();
            let partitions = partitions.map(|&index| self.producers_of(topic, index)).collect();
            TopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions)
        });
        let response = DescribeProducersResponse::default().with_topics(topics.collect());
        turn.respond(connection, call, response);
    }

    fn producers_of(&self, topic: &TopicRequest, index: i32) -> PartitionResponse {
        let response = PartitionResponse::default().with_partition_index(index);
        let failed =
            |response: PartitionResponse, error: ResponseError| response.with_error_code(error.code());
        let Some((key, _)) = self.image.partition_of(topic.name.as_str(), index) else {
            return failed(response, ResponseError::UnknownTopicOrPartition);
        };
        let Some(partition) = self.partitions.get(&key) else {
            return failed(response, ResponseError::NotLeaderOrFollower);
        };
        let producers = partition.producers.producers().map(|(id, producer)| {
            ProducerState::default()
                .with_producer_id(ProducerId(id))
                .with_producer_epoch(i32::from(producer.epoch))
                .with_last_sequence(producer.last_sequence())
                .with_last_timestamp(producer.last_timestamp)
                .with_coordinator_epoch(producer.coordinator_epoch)
                .with_current_txn_start_offset(producer.transaction_start.unwrap_or(-1))
        });
        response.with_active_producers(producers.collect())
    }
}

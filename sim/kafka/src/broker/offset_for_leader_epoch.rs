//! OffsetForLeaderEpoch (23), versions 2 to 4: where the records of an epoch end in the leader's log (KIP-101, KIP-279).
//!
//! A consumer asks this after a change of the leader, to learn whether what it has read was cut off. The answer is the
//! largest epoch that the leader knows up to the one asked for, and the offset that it ends before; -1 and -1 for an epoch
//! that it does not know yet. Followers could ask too; they learn it from their fetches instead (KIP-595).
//!
//! Version notes: who asks is told from 3 on.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, TopicName};
use uuid::Uuid;

use super::{Broker, Turn};
use crate::ConnectionId;
use crate::metadata::PartitionKey;
use crate::wire::Call;

impl Broker {
    pub(super) fn offset_for_leader_epoch(
        &self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        request: &OffsetForLeaderEpochRequest,
    ) {
        let mut response = OffsetForLeaderEpochResponse::default();
        for topic in &request.topics {
            let ends = topic.partitions.iter().map(|asked| {
                let end = EpochEndOffset::default().with_partition(asked.partition);
                match self.end_of_epoch(turn, &topic.topic, asked) {
                    Ok(Some((epoch, offset))) => end.with_leader_epoch(epoch).with_end_offset(offset),
                    Ok(None) => end.with_leader_epoch(-1).with_end_offset(-1),
                    Err(error) => end.with_error_code(error.code()).with_leader_epoch(-1).with_end_offset(-1),
                }
            });
            let ends = ends.collect();
            let result = OffsetForLeaderTopicResult::default().with_topic(topic.topic.clone());
            response.topics.push(result.with_partitions(ends));
        }
        turn.respond(connection, call, response);
    }

    fn end_of_epoch(
        &self,
        turn: &Turn<'_>,
        topic: &TopicName,
        asked: &OffsetForLeaderPartition,
    ) -> Result<Option<(i32, i64)>, ResponseError> {
        let image = self.asked_topic(false, topic, Uuid::nil())?;
        let key = PartitionKey { topic: image.id, index: asked.partition };
        self.replica(key, asked.current_leader_epoch, true)?;
        Ok(turn.disk.logs[&key].end_of_epoch(asked.leader_epoch))
    }
}

//! OffsetCommit (8), versions 2 to 9: answered when the records are committed.
//!
//! Partitions that this broker does not know are refused without asking the coordinator, as in Kafka's `KafkaApis`.
//!
//! Version notes: a time to keep the offsets from 2 to 4, the leader's epoch from 6, static members from 7 on.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::code;
use crate::broker::{Broker, Turn};
use crate::core::ConnectionId;
use crate::group::{Ask, CommitKind, CommittedOffset, GroupRecord};
use crate::wire::Call;

impl Broker {
    pub(in crate::broker) fn offset_commit(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        request: &OffsetCommitRequest,
    ) {
        let group = request.group_id.as_str();
        let known = request.topics.iter().any(|topic| {
            topic.partitions.iter().any(|asked| self.knows_partition(&topic.name, asked.partition_index))
        });
        let allowed = if known {
            let ask = Ask {
                member_id: request.member_id.as_str(),
                instance: request.group_instance_id.as_ref().map(|instance| instance.as_str()),
                generation: request.generation_id_or_member_epoch,
            };
            self.coordinator.check_commit(turn.now, group, ask, CommitKind::Plain(call.version))
        } else {
            Ok(())
        };
        let now_ms = turn.now_ms();
        let expire_timestamp_ms = (call.version <= 4 && request.retention_time_ms >= 0)
            .then(|| now_ms.saturating_add(request.retention_time_ms));
        let mut response = OffsetCommitResponse::default();
        let mut records = Vec::new();
        for topic in &request.topics {
            let mut answered = OffsetCommitResponseTopic::default().with_name(topic.name.clone());
            for asked in &topic.partitions {
                let index = asked.partition_index;
                let metadata = asked.committed_metadata.as_ref();
                let result = self.may_commit(&topic.name, index, metadata, allowed);
                if result.is_ok() {
                    let value = CommittedOffset {
                        offset: asked.committed_offset,
                        leader_epoch: asked.committed_leader_epoch,
                        metadata: metadata.map(ToString::to_string).unwrap_or_default(),
                        commit_timestamp_ms: now_ms,
                        expire_timestamp_ms,
                    };
                    records.push(offset_record(group, &topic.name, index, value));
                }
                let partition = OffsetCommitResponsePartition::default().with_partition_index(index);
                answered.partitions.push(partition.with_error_code(code(result)));
            }
            response.topics.push(answered);
        }
        let index = match self.coordinator.index(group) {
            Ok(index) if known && allowed.is_ok() => index,
            _ => return turn.respond(connection, call, response),
        };
        let written = self.write_group(turn, index, records, None);
        self.answer_write(turn, index, written, connection, call, response);
    }

    pub(super) fn knows_partition(&self, topic: &TopicName, index: i32) -> bool {
        let known = self.image.topic(topic.as_str()).map_or(0, |topic| topic.partitions.len() as i32);
        (0..known).contains(&index)
    }

    /// Whether one partition's offset may be committed, given what the group says.
    pub(super) fn may_commit(
        &self,
        topic: &TopicName,
        index: i32,
        metadata: Option<&StrBytes>,
        allowed: Result<(), ResponseError>,
    ) -> Result<(), ResponseError> {
        if !self.knows_partition(topic, index) {
            return Err(ResponseError::UnknownTopicOrPartition);
        }
        allowed?;
        // Kafka counts as Java does, in UTF-16; a record has room for 32,767 bytes.
        let max = self.settings.offset_metadata_max_bytes as usize;
        let too_large = |text: &StrBytes| {
            text.len() > i16::MAX as usize || (text.len() > max && text.encode_utf16().count() > max)
        };
        if metadata.is_some_and(too_large) { Err(ResponseError::OffsetMetadataTooLarge) } else { Ok(()) }
    }
}

pub(super) fn offset_record(
    group: &str,
    topic: &TopicName,
    partition: i32,
    value: CommittedOffset,
) -> GroupRecord {
    GroupRecord::Offset { group: group.to_owned(), topic: topic.to_string(), partition, value: Some(value) }
}

//! ListOffsets (2), versions 1 to 10: first, last, and by time.
//!
//! -1 is the latest that readers see (for readers of committed data the last stable offset), -2 and -4 the earliest, -3
//! the record with the largest time, -5 (tiered) is never there. A time finds the first record with it or a later one,
//! if readers see that.
//!
//! Only the leader answers, but for a tool that debugs (replica id -2): it is told of any replica, up to the log's end, as
//! followers are. A partition that is named twice is INVALID_REQUEST.
//!
//! Just after a change of the leader its high watermark may be below what was committed before: until it has reached the
//! start of its epoch, the latest offset is OFFSET_NOT_AVAILABLE, and so is what would be found beyond (KIP-207).
//!
//! Version notes: leader epochs from 4 on; -3 from 7, -4 from 8, -5 from 9 on.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse, TopicName};
use uuid::Uuid;

use super::fetch::UpTo;
use super::{Broker, Turn};
use crate::ConnectionId;
use crate::log::{Log, TimestampAndOffset};
use crate::metadata::PartitionKey;
use crate::wire::Call;

pub(super) const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
pub(super) const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
/// The replica id of a tool that debugs.
const DEBUGGING: i32 = -2;

impl Broker {
    pub(super) fn list_offsets(
        &self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        request: &ListOffsetsRequest,
    ) {
        let reader = Reader {
            up_to: UpTo::of(request.replica_id.0, request.isolation_level),
            only_leader: request.replica_id.0 != DEBUGGING,
        };
        // Each once, as Kafka's map of statuses.
        let mut found: BTreeMap<&TopicName, BTreeMap<i32, ListOffsetsPartitionResponse>> = BTreeMap::new();
        for topic in &request.topics {
            let of_topic = found.entry(&topic.name).or_default();
            for asked in &topic.partitions {
                let told = match of_topic.contains_key(&asked.partition_index) {
                    true => nothing(asked).with_error_code(ResponseError::InvalidRequest.code()),
                    false => self.list_offset(turn, call, (&topic.name, asked), reader),
                };
                of_topic.insert(asked.partition_index, told);
            }
        }
        let topics = found.into_iter().map(|(name, partitions)| {
            let partitions = partitions.into_values().collect();
            ListOffsetsTopicResponse::default().with_name(name.clone()).with_partitions(partitions)
        });
        let response = ListOffsetsResponse::default().with_topics(topics.collect());
        turn.respond(connection, call, response);
    }

    fn list_offset(
        &self,
        turn: &Turn<'_>,
        call: &Call,
        (name, asked): (&TopicName, &ListOffsetsPartition),
        reader: Reader,
    ) -> ListOffsetsPartitionResponse {
        let mut response = nothing(asked);
        if asked.timestamp < 0 && first_version_of(asked.timestamp).is_none_or(|first| call.version < first) {
            return response.with_error_code(ResponseError::UnsupportedVersion.code());
        }
        let found = self.asked_topic(false, name, Uuid::nil()).and_then(|image| {
            let key = PartitionKey { topic: image.id, index: asked.partition_index };
            let partition = self.replica(key, asked.current_leader_epoch, reader.only_leader)?;
            let log = &turn.disk.logs[&key];
            let readable = reader.up_to.offset(partition, log);
            let found = find(log, readable, partition.leader_epoch, asked.timestamp);
            let begins = partition.leadership.as_ref().map_or(0, |leadership| leadership.epoch_start_offset);
            // What was committed under the leader before may be found no more, or not yet (KIP-207).
            let is_new = reader.up_to != UpTo::LogEnd && begins > partition.high_watermark;
            let is_end = asked.timestamp == LATEST || (found.is_none() && asked.timestamp != LATEST_TIERED);
            if is_new && is_end {
                return Err(if call.version >= 5 {
                    ResponseError::OffsetNotAvailable
                } else {
                    ResponseError::LeaderNotAvailable
                });
            }
            Ok(found)
        });
        match found {
            Ok(Some(found)) => {
                response.offset = found.offset;
                response.timestamp = found.timestamp;
                if call.version >= 4 {
                    response.leader_epoch = found.epoch;
                }
            }
            Ok(None) => {}
            Err(error) => response.error_code = error.code(),
        }
        response
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
struct Reader {
    up_to: UpTo,
    only_leader: bool,
}

fn nothing(asked: &ListOffsetsPartition) -> ListOffsetsPartitionResponse {
    ListOffsetsPartitionResponse::default()
        .with_partition_index(asked.partition_index)
        .with_timestamp(-1)
        .with_offset(-1)
}

struct FoundOffset {
    offset: i64,
    timestamp: i64,
    epoch: i32,
}

/// Since which version a special timestamp means something.
fn first_version_of(timestamp: i64) -> Option<i16> {
    match timestamp {
        LATEST | EARLIEST => Some(1),
        MAX_TIMESTAMP => Some(7),
        EARLIEST_LOCAL => Some(8),
        LATEST_TIERED => Some(9),
        _ => None,
    }
}

fn find(log: &Log, readable: i64, leader_epoch: i32, asked: i64) -> Option<FoundOffset> {
    let at = |offset, epoch| Some(FoundOffset { offset, timestamp: -1, epoch });
    match asked {
        LATEST => at(readable, leader_epoch),
        EARLIEST | EARLIEST_LOCAL => {
            at(log.start_offset(), log.epoch_of(log.start_offset()).unwrap_or(leader_epoch))
        }
        LATEST_TIERED => None,
        MAX_TIMESTAMP => committed(log.offset_of_max_timestamp(), readable),
        time => committed(log.offset_for_timestamp(time), readable),
    }
}

/// A record that was found by its time, unless readers do not see it yet.
fn committed(found: Option<TimestampAndOffset>, readable: i64) -> Option<FoundOffset> {
    let found = found.filter(|found| found.offset < readable)?;
    Some(FoundOffset { offset: found.offset, timestamp: found.timestamp, epoch: found.leader_epoch })
}

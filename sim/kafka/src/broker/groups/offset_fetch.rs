//! OffsetFetch (9), versions 1 to 9: what groups have committed.
//!
//! A plain reader sees what the high watermark has passed. One that asks for stable offsets sees the latest state, as far
//! as no transaction would change it (UNSTABLE_OFFSET_COMMIT), and is answered when that state is committed (KIP-447).
//!
//! Version notes: all partitions from 2 on, the leader's epoch from 5, stable offsets from 7, several groups from 8 on; a
//! group's error has its place only in each partition before 2.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{GroupId, OffsetFetchRequest, OffsetFetchResponse, TopicName};

use super::Gathered;
use crate::broker::{Broker, Turn, text};
use crate::core::ConnectionId;
use crate::group::{CommittedOffset, View};
use crate::wire::Call;

/// The topics and partitions that are asked for; `None`: all.
type Asked = Option<Vec<(TopicName, Vec<i32>)>>;
type FetchedTopic = (TopicName, Vec<(i32, Result<CommittedOffset, ResponseError>)>);

/// One group's part of the answer.
#[derive(Clone, Debug)]
pub(super) struct FetchedGroup {
    id: GroupId,
    asked: Asked,
    result: Result<Vec<FetchedTopic>, ResponseError>,
}

impl FetchedGroup {
    /// What was read is not committed in time, or lost. Clients of old do not know COORDINATOR_NOT_AVAILABLE here.
    pub(super) fn fail(&mut self, error: ResponseError) {
        self.result = Err(match error {
            ResponseError::CoordinatorNotAvailable => ResponseError::NotCoordinator,
            error => error,
        });
    }
}

impl Broker {
    pub(in crate::broker) fn offset_fetch(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        request: &OffsetFetchRequest,
    ) {
        let asked: Vec<(GroupId, Asked)> = if call.version >= 8 {
            let groups = request.groups.iter().map(|group| {
                let topics = group.topics.as_ref().map(|topics| {
                    topics.iter().map(|topic| (topic.name.clone(), topic.partition_indexes.clone())).collect()
                });
                (group.group_id.clone(), topics)
            });
            groups.collect()
        } else {
            let topics = request.topics.as_ref().map(|topics| {
                topics.iter().map(|topic| (topic.name.clone(), topic.partition_indexes.clone())).collect()
            });
            vec![(request.group_id.clone(), topics)]
        };
        let mut parts: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        let mut groups = Vec::with_capacity(asked.len());
        for (place, (id, asked)) in asked.into_iter().enumerate() {
            let result = self.fetched(id.as_str(), asked.as_deref(), request.require_stable);
            if request.require_stable
                && let Ok(index) = self.coordinator.index(id.as_str())
            {
                parts.entry(index).or_default().push(place);
            }
            groups.push(FetchedGroup { id, asked, result });
        }
        self.gather(turn, connection, call, Gathered::Fetched(groups), parts);
    }

    fn fetched(
        &self,
        group: &str,
        asked: Option<&[(TopicName, Vec<i32>)]>,
        stable: bool,
    ) -> Result<Vec<FetchedTopic>, ResponseError> {
        let index = self.coordinator.index(group)?;
        let offsets = self.coordinator.shard(group)?.offsets();
        let view = if stable { View::Latest } else { View::Committed(self.offsets_high_watermark(index)) };
        let unstable = |topic: &str, partition| stable && offsets.has_pending(group, topic, partition);
        if let Some(asked) = asked {
            let read = |topic: &str, partition: i32| {
                if unstable(topic, partition) {
                    return (partition, Err(ResponseError::UnstableOffsetCommit));
                }
                (partition, Ok(offsets.get(view, group, topic, partition).cloned().unwrap_or_else(none)))
            };
            let topics = asked.iter().map(|(topic, partitions)| {
                (topic.clone(), partitions.iter().map(|index| read(topic.as_str(), *index)).collect())
            });
            return Ok(topics.collect());
        }
        let mut all: Vec<FetchedTopic> = Vec::new();
        for (topic, partition, committed) in offsets.of_group(view, group) {
            if all.last().is_none_or(|(last, _)| last.as_str() != topic) {
                all.push((TopicName(text(topic)), Vec::new()));
            }
            let unstable = unstable(topic, partition);
            let read =
                if unstable { Err(ResponseError::UnstableOffsetCommit) } else { Ok(committed.clone()) };
            all.last_mut().expect("it was just put there").1.push((partition, read));
        }
        Ok(all)
    }
}

pub(super) fn respond(turn: &mut Turn<'_>, connection: ConnectionId, call: &Call, groups: Vec<FetchedGroup>) {
    let mut response = OffsetFetchResponse::default();
    if call.version >= 8 {
        for FetchedGroup { id, result, .. } in groups {
            let mut answered = OffsetFetchResponseGroup::default().with_group_id(id);
            match result {
                Ok(topics) => answered.topics = topics.into_iter().map(in_group).collect(),
                Err(error) => answered.error_code = error.code(),
            }
            response.groups.push(answered);
        }
        return turn.respond(connection, call, response);
    }
    let group = groups.into_iter().next().expect("before version 8 one group is asked for");
    let topics = match group.result {
        Ok(topics) => topics,
        Err(error) if call.version >= 2 => {
            response.error_code = error.code();
            Vec::new()
        }
        Err(error) => {
            let failed = |(name, partitions): (TopicName, Vec<i32>)| {
                (name, partitions.into_iter().map(|index| (index, Err(error))).collect())
            };
            group.asked.unwrap_or_default().into_iter().map(failed).collect()
        }
    };
    response.topics = topics.into_iter().map(|topic| alone(call, topic)).collect();
    turn.respond(connection, call, response);
}

/// What is answered for a partition without a commit.
fn none() -> CommittedOffset {
    CommittedOffset {
        offset: -1,
        leader_epoch: -1,
        metadata: String::new(),
        commit_timestamp_ms: -1,
        expire_timestamp_ms: None,
    }
}

fn split(read: Result<CommittedOffset, ResponseError>) -> (CommittedOffset, i16) {
    match read {
        Ok(committed) => (committed, 0),
        Err(error) => (none(), error.code()),
    }
}

fn in_group((name, partitions): FetchedTopic) -> OffsetFetchResponseTopics {
    let partitions = partitions.into_iter().map(|(index, read)| {
        let (committed, error) = split(read);
        OffsetFetchResponsePartitions::default()
            .with_partition_index(index)
            .with_committed_offset(committed.offset)
            .with_committed_leader_epoch(committed.leader_epoch)
            .with_metadata(Some(text(&committed.metadata)))
            .with_error_code(error)
    });
    OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions.collect())
}

fn alone(call: &Call, (name, partitions): FetchedTopic) -> OffsetFetchResponseTopic {
    let partitions = partitions.into_iter().map(|(index, read)| {
        let (committed, error) = split(read);
        let mut partition = OffsetFetchResponsePartition::default()
            .with_partition_index(index)
            .with_committed_offset(committed.offset)
            .with_metadata(Some(text(&committed.metadata)))
            .with_error_code(error);
        if call.version >= 5 {
            partition.committed_leader_epoch = committed.leader_epoch;
        }
        partition
    });
    OffsetFetchResponseTopic::default().with_name(name).with_partitions(partitions.collect())
}

//! Offsets of the log (ListOffsets), and offsets of a group (OffsetFetch, OffsetCommit).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use broker::{
    Error, ErrorCode, GroupMetadata, Offset, OffsetAndMetadata, OffsetSpec, PartitionId, TopicPartition,
};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{GroupId, ListOffsetsRequest, OffsetCommitRequest, OffsetFetchRequest};
use kafka_protocol::protocol::StrBytes;

use crate::attempts::Attempts;
use crate::cluster::{Cluster, NodeId, Peer, topic_name};
use crate::coordinator::Coordinator;
use crate::error::{self, timed_out, transport, wants_coordinator};

pub(crate) const GROUP_ID_NOT_FOUND: i16 = 69;

/// Kafka's wire values for the ends of a log.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const LARGEST_TIMESTAMP: i64 = -3;

/// Groups what is asked by topic, in order.
pub(crate) fn by_topic<T>(
    asked: impl IntoIterator<Item = (TopicPartition, T)>,
) -> BTreeMap<Arc<str>, Vec<(PartitionId, T)>> {
    let mut topics: BTreeMap<Arc<str>, Vec<(PartitionId, T)>> = BTreeMap::new();
    for (at, what) in asked {
        topics.entry(at.topic).or_default().push((at.partition, what));
    }
    topics
}

/// Asks every leader once. A partition with no such offset is left out.
///
/// # Errors
/// The first partition's, with its name; retriable if it has no leader.
pub(crate) async fn list_offsets(
    cluster: &Cluster,
    asked: &[(TopicPartition, OffsetSpec)],
) -> Result<Vec<(TopicPartition, Offset)>, Error> {
    let mut leaders: BTreeMap<NodeId, Vec<(TopicPartition, OffsetSpec)>> = BTreeMap::new();
    for (at, spec) in asked {
        let Some((leader, _)) = cluster.leader(at) else {
            return Err(transport(format!("{at} has no leader")));
        };
        leaders.entry(leader).or_default().push((at.clone(), *spec));
    }
    let mut offsets = Vec::new();
    for (leader, asked) in leaders {
        for (at, answer) in list_offsets_of(cluster, leader, &asked).await? {
            match answer {
                Ok(Some((offset, _))) => offsets.push((at, offset)),
                Ok(None) => {}
                Err(error) => return Err(error),
            }
        }
    }
    offsets.sort();
    Ok(offsets)
}

/// What a leader said of one partition: an offset with the epoch of its leader (-1 where it is not told), or that the log
/// has none so late.
pub(crate) type Listed = (TopicPartition, Result<Option<(Offset, i32)>, Error>);

/// Asks one leader for offsets; `None` where the log has no record so late.
pub(crate) async fn list_offsets_of(
    cluster: &Cluster,
    leader: NodeId,
    asked: &[(TopicPartition, OffsetSpec)],
) -> Result<Vec<Listed>, Error> {
    let isolation_level = i8::from(cluster.settings.consumer.read_committed);
    let asked = asked.iter().map(|(at, spec)| {
        let epoch = cluster.leader(at).map_or(-1, |(_, epoch)| epoch);
        (at.clone(), (wire_timestamp(*spec), epoch))
    });
    let asked = by_topic(asked);
    let connection = cluster.connection(Peer::Node(leader))?;
    let build = move |version| {
        let topics = asked.into_iter().map(|(topic, partitions)| {
            let partitions = partitions.into_iter().map(|(number, (timestamp, epoch))| {
                let partition =
                    ListOffsetsPartition::default().with_partition_index(number).with_timestamp(timestamp);
                if version >= 4 { partition.with_current_leader_epoch(epoch) } else { partition }
            });
            ListOffsetsTopic::default().with_name(topic_name(&topic)).with_partitions(partitions.collect())
        });
        let request =
            ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(topics.collect());
        if version >= 2 { request.with_isolation_level(isolation_level) } else { request }
    };
    let answer = connection.request(cluster.settings.socket_timeout, i16::MAX, build).await?.body;
    let mut offsets = Vec::new();
    for topic in answer.topics {
        let name: Arc<str> = topic.name.as_str().into();
        for partition in topic.partitions {
            let at = TopicPartition::new(name.clone(), partition.partition_index);
            let offset = match partition.error_code {
                0 => Ok(Some((partition.offset, partition.leader_epoch)).filter(|(offset, _)| *offset >= 0)),
                code => Err(error::answered(code, format!("offsets of {at}"))),
            };
            offsets.push((at, offset));
        }
    }
    Ok(offsets)
}

fn wire_timestamp(spec: OffsetSpec) -> i64 {
    match spec {
        OffsetSpec::Earliest => EARLIEST,
        OffsetSpec::Latest => LATEST,
        OffsetSpec::LargestTimestamp => LARGEST_TIMESTAMP,
        OffsetSpec::At(time) => i64::try_from(time.as_millis()).unwrap_or(i64::MAX),
    }
}

/// What the group has committed for `partitions`, as a member asks, or for all that it has committed for, as an admin does:
/// an admin is told what was committed before a transaction that is still open, where a member is told nothing
/// (`ListConsumerGroupOffsetsOptions.requireStable` is false by default). Partitions without are left out.
///
/// # Errors
/// Retriable when its coordinator gave no answer for so long.
pub(crate) async fn group_offsets(
    coordinator: &Coordinator,
    partitions: Option<&[TopicPartition]>,
    patience: Duration,
) -> Result<Vec<(TopicPartition, OffsetAndMetadata)>, Error> {
    let mut attempts = Attempts::new(&coordinator.cluster, "offsets of a group", patience);
    let tries = async {
        loop {
            match fetch_once(coordinator, partitions).await {
                Ok(offsets) => return Ok(offsets),
                Err(error) => {
                    if wants_coordinator(error.code) {
                        coordinator.forget();
                    }
                    attempts.after(error).await?;
                }
            }
        }
    };
    match coordinator.cluster.context.timeout(patience, tries).await {
        Ok(result) => result,
        Err(_) => Err(timed_out(format!("offsets of group `{}` after {patience:?}", coordinator.key))),
    }
}

async fn fetch_once(
    coordinator: &Coordinator,
    partitions: Option<&[TopicPartition]>,
) -> Result<Vec<(TopicPartition, OffsetAndMetadata)>, Error> {
    let group = group_id(&coordinator.key);
    let require_stable = partitions.is_some() && coordinator.cluster.settings.consumer.read_committed;
    let topics = partitions.map(|partitions| {
        let topics = by_topic(partitions.iter().map(|at| (at.clone(), ())));
        let topics = topics.into_iter().map(|(topic, partitions)| {
            let numbers = partitions.into_iter().map(|(number, ())| number).collect();
            OffsetFetchRequestTopic::default().with_name(topic_name(&topic)).with_partition_indexes(numbers)
        });
        topics.collect::<Vec<_>>()
    });
    let build = move |version| {
        let request = OffsetFetchRequest::default().with_group_id(group).with_topics(topics);
        // Offsets of a transaction that is still open are not to be read past (KIP-447).
        if version >= 7 { request.with_require_stable(require_stable) } else { request }
    };
    let answer = coordinator.ask(coordinator.cluster.settings.socket_timeout, build).await?.body;
    let what = || format!("offsets of group `{}`", coordinator.key);
    if answer.error_code != 0 {
        return Err(error::answered(answer.error_code, what()));
    }
    let mut offsets = Vec::new();
    for topic in answer.topics {
        let name: Arc<str> = topic.name.as_str().into();
        for partition in topic.partitions {
            let at = TopicPartition::new(name.clone(), partition.partition_index);
            match partition.error_code {
                0 if partition.committed_offset >= 0 => offsets.push((
                    at,
                    OffsetAndMetadata {
                        offset: partition.committed_offset,
                        leader_epoch: Some(partition.committed_leader_epoch).filter(|epoch| *epoch >= 0),
                        metadata: partition.metadata.map(|text| text.to_string()).unwrap_or_default(),
                    },
                )),
                0 => {}
                code => return Err(error::answered(code, format!("{}: {at}", what()))),
            }
        }
    }
    offsets.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(offsets)
}

/// Commits `offsets` in the name of `member`, trying again while the coordinator is being looked for.
///
/// # Errors
/// The first partition's. ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID and REBALANCE_IN_PROGRESS are the group's word about
/// the member and are not tried again.
pub(crate) async fn commit(
    coordinator: &Coordinator,
    member: &GroupMetadata,
    offsets: &[(TopicPartition, OffsetAndMetadata)],
    patience: Duration,
) -> Result<(), Error> {
    if offsets.is_empty() {
        return Ok(());
    }
    let mut attempts = Attempts::new(&coordinator.cluster, "commit", patience);
    let tries = async {
        loop {
            match commit_once(coordinator, member, offsets).await {
                Ok(()) => return Ok(()),
                Err(error) if error.code == ErrorCode::Broker(error::code::REBALANCE_IN_PROGRESS) => {
                    return Err(error);
                }
                Err(error) => attempts.after(error).await?,
            }
        }
    };
    match coordinator.cluster.context.timeout(patience, tries).await {
        Ok(result) => result,
        Err(_) => Err(timed_out(format!("commit of group `{}` after {patience:?}", coordinator.key))),
    }
}

/// As [`commit`], but asks once.
///
/// # Errors
/// As [`commit`].
pub(crate) async fn commit_once(
    coordinator: &Coordinator,
    member: &GroupMetadata,
    offsets: &[(TopicPartition, OffsetAndMetadata)],
) -> Result<(), Error> {
    let committed = ask_to_commit(coordinator, member, offsets).await;
    if let Err(error) = &committed
        && wants_coordinator(error.code)
    {
        coordinator.forget();
    }
    committed
}

async fn ask_to_commit(
    coordinator: &Coordinator,
    member: &GroupMetadata,
    offsets: &[(TopicPartition, OffsetAndMetadata)],
) -> Result<(), Error> {
    let member = member.clone();
    let group = group_id(&coordinator.key);
    let topics = by_topic(offsets.iter().cloned());
    let build = move |version| {
        let topics = topics.into_iter().map(|(topic, partitions)| {
            let partitions = partitions.into_iter().map(|(number, position)| {
                let partition = OffsetCommitRequestPartition::default()
                    .with_partition_index(number)
                    .with_committed_offset(position.offset)
                    .with_committed_metadata(Some(StrBytes::from_string(position.metadata)));
                if version >= 6 {
                    partition.with_committed_leader_epoch(position.leader_epoch.unwrap_or(-1))
                } else {
                    partition
                }
            });
            OffsetCommitRequestTopic::default()
                .with_name(topic_name(&topic))
                .with_partitions(partitions.collect())
        });
        let request = OffsetCommitRequest::default()
            .with_group_id(group)
            .with_generation_id_or_member_epoch(member.generation_id)
            .with_member_id(StrBytes::from_string(member.member_id))
            .with_topics(topics.collect());
        let instance = member.group_instance_id.filter(|_| version >= 7);
        request.with_group_instance_id(instance.map(StrBytes::from_string))
    };
    let answer = coordinator.ask(coordinator.cluster.settings.socket_timeout, build).await?.body;
    for topic in answer.topics {
        for partition in topic.partitions {
            if partition.error_code != 0 {
                let name = topic.name.as_str();
                let text =
                    format!("commit of group `{}` for {name}/{}", coordinator.key, partition.partition_index);
                return Err(error::answered(partition.error_code, text));
            }
        }
    }
    Ok(())
}

/// A group's name as the wire wants it.
pub(crate) fn group_id(group: &str) -> GroupId {
    GroupId(StrBytes::from_string(group.to_owned()))
}

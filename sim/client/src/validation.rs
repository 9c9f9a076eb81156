//! Whether a leader's log has what was read before: OffsetForLeaderEpoch, as a consumer asks it (KIP-320).

use std::collections::BTreeMap;
use std::sync::Arc;

use broker::{Error, Offset, TopicPartition};
use kafka_protocol::messages::OffsetForLeaderEpochRequest;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};

use crate::cluster::{Cluster, NodeId, Peer, topic_name};
use crate::error;
use crate::offsets::by_topic;

/// The replica id of a client.
const CONSUMER: i32 = -1;

/// What is asked about a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Epochs {
    /// The leader's, as the client knows it; another leader refuses.
    pub(crate) current: i32,
    /// Of the last record that was read.
    pub(crate) read: i32,
}

/// Where an epoch ends in a leader's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EpochEnd {
    /// What was asked.
    pub(crate) asked: Epochs,
    /// The largest epoch up to the one asked for that the log has, and the offset after its last record; `None` if it
    /// has none.
    pub(crate) end: Option<(i32, Offset)>,
}

/// The answers by partition.
pub(crate) type EpochEnds = BTreeMap<TopicPartition, Result<EpochEnd, Error>>;

/// Asks one leader.
///
/// # Errors
/// If it does not answer.
pub(crate) async fn epoch_ends(
    cluster: &Cluster,
    leader: NodeId,
    asked: BTreeMap<TopicPartition, Epochs>,
) -> Result<EpochEnds, Error> {
    let topics: Vec<_> = by_topic(asked.clone())
        .into_iter()
        .map(|(topic, partitions)| {
            let partitions = partitions.into_iter().map(|(number, epochs)| {
                OffsetForLeaderPartition::default()
                    .with_partition(number)
                    .with_current_leader_epoch(epochs.current)
                    .with_leader_epoch(epochs.read)
            });
            OffsetForLeaderTopic::default()
                .with_topic(topic_name(&topic))
                .with_partitions(partitions.collect())
        })
        .collect();
    let build = move |version| {
        let request = OffsetForLeaderEpochRequest::default().with_topics(topics);
        if version >= 3 { request.with_replica_id(CONSUMER.into()) } else { request }
    };
    let connection = cluster.connection(Peer::Node(leader))?;
    let answer = connection.request(cluster.settings.socket_timeout, i16::MAX, build).await?.body;
    let mut ends = BTreeMap::new();
    for topic in answer.topics {
        let name: Arc<str> = topic.topic.as_str().into();
        for partition in topic.partitions {
            let at = TopicPartition::new(name.clone(), partition.partition);
            let Some(epochs) = asked.get(&at) else { continue };
            let end = match partition.error_code {
                0 => {
                    let known = partition.leader_epoch >= 0 && partition.end_offset >= 0;
                    let end = known.then_some((partition.leader_epoch, partition.end_offset));
                    Ok(EpochEnd { asked: *epochs, end })
                }
                code => Err(error::answered(code, format!("epoch {} of {at}", epochs.read))),
            };
            ends.insert(at, end);
        }
    }
    Ok(ends)
}

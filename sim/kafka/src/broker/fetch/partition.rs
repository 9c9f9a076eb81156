//! What a fetch finds in one partition: records, or why there are none and who has them.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use kafka_protocol::messages::{BrokerId, ProducerId};

use super::Found;
use super::reading::{FollowerId, Reading, UpTo};
use super::waiting::Watch;
use crate::broker::fetch_session::Asked;
use crate::broker::{Broker, Turn, text};
use crate::config::ReplicaSelector;
use crate::log::Log;
use crate::log::batch::BatchHeader;
use crate::metadata::{NodeId, PartitionKey};
use crate::partition::Partition;
use crate::partition::leadership::FollowerFetch;

/// What is to be done about one partition.
enum Read {
    Here,
    /// The reader has what was never committed.
    Diverges(EpochEndOffset),
    /// It should ask this replica.
    Elsewhere(NodeId),
}

impl Broker {
    pub(super) fn read_partition(
        &self,
        turn: &Turn<'_>,
        reading: &Reading,
        asked: &Asked,
        room: usize,
        found: &mut Found,
    ) -> PartitionData {
        let by_id = reading.version >= 13;
        let Asked { topic, topic_id, partition: asked } = asked;
        let data = PartitionData::default().with_partition_index(asked.partition);
        let key = match self.asked_topic(by_id, topic, *topic_id) {
            Ok(image) => PartitionKey { topic: image.id, index: asked.partition },
            Err(error) => return failed(data, error),
        };
        if self.image.partition(key).is_none() {
            return failed(data, ResponseError::UnknownTopicOrPartition);
        }
        found.watches.push(Watch {
            key,
            offset: asked.fetch_offset,
            max_bytes: asked.partition_max_bytes.max(0) as usize,
            current_leader_epoch: asked.current_leader_epoch,
            last_fetched_epoch: asked.last_fetched_epoch,
            segment: i64::MAX,
        });
        let replica = self.replica(key, asked.current_leader_epoch, reading.only_leader);
        let read = replica.and_then(|partition| {
            if let Some(replica) = self.preferred_replica(partition, reading, asked.fetch_offset) {
                return Ok((partition, &turn.disk.logs[&key], Read::Elsewhere(replica)));
            }
            self.check_follower(partition, reading, asked)?;
            let log = &turn.disk.logs[&key];
            if asked.last_fetched_epoch >= 0 && log.end_of_epoch(asked.last_fetched_epoch).is_none() {
                return Err(ResponseError::OffsetOutOfRange);
            }
            // A reader beyond the end may have read what a power loss took: that tells it more than being out of range.
            let diverging = if reading.version >= 12 { diverging_epoch(log, asked.into())? } else { None };
            let in_range = (log.start_offset()..=log.end_offset()).contains(&asked.fetch_offset);
            if diverging.is_none() && !in_range {
                return Err(ResponseError::OffsetOutOfRange);
            }
            Ok((partition, log, diverging.map_or(Read::Here, Read::Diverges)))
        });
        let (partition, log, read) = match read {
            Ok(read) => read,
            Err(error) => {
                found.urgent = true;
                return self.with_leader(reading.version, key, error, failed(data, error), found);
            }
        };
        let mut data = data
            .with_high_watermark(partition.high_watermark)
            .with_last_stable_offset(partition.last_stable_offset(log))
            .with_aborted_transactions(None);
        if reading.version >= 5 {
            data.log_start_offset = log.start_offset();
        }
        match read {
            Read::Here => {}
            Read::Diverges(diverging) => {
                found.urgent = true;
                return data.with_diverging_epoch(diverging);
            }
            Read::Elsewhere(replica) => {
                found.urgent = true;
                return data
                    .with_preferred_read_replica(BrokerId(replica))
                    .with_records(Some(Default::default()));
            }
        }
        if let Some(FollowerId { node, broker_epoch }) = reading.follower {
            let (offset, start_offset) = (asked.fetch_offset, asked.log_start_offset);
            found.progress.push((key, FollowerFetch { node, broker_epoch, offset, start_offset }));
        }
        let upper = reading.up_to.offset(partition, log);
        let watch = found.watches.last_mut().expect("it was just added");
        watch.segment = log.segment_of_read(asked.fetch_offset, upper);
        found.urgent |= asked.fetch_offset > upper || watch.is_behind(log, upper);
        let limit = room.min(asked.partition_max_bytes.max(0) as usize);
        let records = log.read(asked.fetch_offset, upper, limit, found.bytes == 0);
        found.bytes += records.len();
        if reading.up_to == UpTo::LastStable {
            data.aborted_transactions = Some(aborted_transactions(log, asked.fetch_offset, &records));
        }
        data.with_records(Some(records))
    }

    /// The follower from which a reader had better read on at `offset`, if this broker leads
    /// (`ReplicaManager.findPreferredReadReplica`, `RackAwareReplicaSelector`): alive, in sync, with that offset, in the
    /// reader's rack, where the leader is not; of several the one that is furthest.
    fn preferred_replica(&self, partition: &Partition, reading: &Reading, offset: i64) -> Option<NodeId> {
        let aware = self.settings.replica_selector_class == Some(ReplicaSelector::RackAware);
        if !aware || reading.follower.is_some() || reading.rack.is_empty() {
            return None;
        }
        let leadership = partition.leadership.as_ref()?;
        let is_near = |node: NodeId| {
            let broker = self.image.brokers.get(&node).filter(|broker| !broker.fenced);
            broker.is_some_and(|broker| broker.rack.as_deref() == Some(reading.rack.as_str()))
        };
        if is_near(self.node) {
            return None;
        }
        let followers = leadership.followers().iter().filter(|(node, follower)| {
            let has_it = (follower.start_offset..=follower.end_offset).contains(&offset);
            leadership.in_sync().contains(node) && has_it && is_near(**node)
        });
        followers.max_by_key(|(node, it)| (it.end_offset, it.caught_up_at(), **node)).map(|(&node, _)| node)
    }

    /// A follower must hold a replica, and be the incarnation that the metadata knows, or a newer one.
    fn check_follower(
        &self,
        partition: &Partition,
        reading: &Reading,
        asked: &FetchPartition,
    ) -> Result<(), ResponseError> {
        let Some(FollowerId { node, broker_epoch }) = reading.follower else { return Ok(()) };
        let leadership = partition.leadership.as_ref().expect("it is led");
        if !leadership.followers().contains_key(&node) {
            // With the right epoch it may know of a reassignment that this broker does not know yet.
            let believes = asked.current_leader_epoch >= 0;
            return Err(if believes {
                ResponseError::UnknownLeaderEpoch
            } else {
                ResponseError::NotLeaderOrFollower
            });
        }
        let known = self.image.brokers.get(&node).map(|broker| broker.epoch);
        if broker_epoch != -1 && known.is_some_and(|known| known > broker_epoch) {
            return Err(ResponseError::NotLeaderOrFollower);
        }
        Ok(())
    }

    /// Tells a client that came to the wrong broker, or with an old epoch, who leads now (KIP-951).
    fn with_leader(
        &self,
        version: i16,
        key: PartitionKey,
        error: ResponseError,
        data: PartitionData,
        found: &mut Found,
    ) -> PartitionData {
        if version < 16
            || !matches!(error, ResponseError::NotLeaderOrFollower | ResponseError::FencedLeaderEpoch)
        {
            return data;
        }
        let (leader, epoch) = self.leader_and_epoch(key);
        let listed = found.endpoints.iter().any(|endpoint| endpoint.node_id.0 == leader);
        if !listed && let Some(broker) = self.image.brokers.get(&leader).filter(|broker| !broker.fenced) {
            let endpoint = NodeEndpoint::default()
                .with_node_id(BrokerId(leader))
                .with_host(text(&broker.host))
                .with_port(i32::from(broker.port));
            found.endpoints.push(endpoint);
        }
        let current = LeaderIdAndEpoch::default().with_leader_id(BrokerId(leader)).with_leader_epoch(epoch);
        data.with_current_leader(current)
    }
}

fn failed(data: PartitionData, error: ResponseError) -> PartitionData {
    data.with_error_code(error.code()).with_high_watermark(-1).with_records(Some(Default::default()))
}

/// The aborted transactions that a reader must leave out of `records`.
fn aborted_transactions(log: &Log, fetch_offset: i64, records: &Bytes) -> Vec<AbortedTransaction> {
    if log.aborted().entries().is_empty() || records.is_empty() {
        return Vec::new();
    }
    let mut end_offset = fetch_offset;
    let mut at = 0;
    while let Ok(header) = BatchHeader::parse(&records[at..]) {
        end_offset = header.next_offset();
        at += header.size();
    }
    let told = log.aborted().overlapping(fetch_offset, end_offset).map(|aborted| {
        AbortedTransaction::default()
            .with_producer_id(ProducerId(aborted.producer_id))
            .with_first_offset(aborted.first_offset)
    });
    told.collect()
}

/// Where a reader is: its next offset, and the epoch of what it has before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    offset: i64,
    epoch: i32,
}

impl From<&FetchPartition> for Position {
    fn from(asked: &FetchPartition) -> Position {
        Position { offset: asked.fetch_offset, epoch: asked.last_fetched_epoch }
    }
}

impl From<&Watch> for Position {
    fn from(watch: &Watch) -> Position {
        Position { offset: watch.offset, epoch: watch.last_fetched_epoch }
    }
}

/// Where the log parts from the one that the reader has read.
///
/// # Errors
/// `OFFSET_OUT_OF_RANGE` if its epoch is not known here, or the log begins after its offset.
pub(super) fn diverging_epoch(log: &Log, reader: Position) -> Result<Option<EpochEndOffset>, ResponseError> {
    if reader.epoch < 0 {
        return Ok(None);
    }
    let (epoch, end_offset) = log.end_of_epoch(reader.epoch).ok_or(ResponseError::OffsetOutOfRange)?;
    if reader.offset < log.start_offset() {
        return Err(ResponseError::OffsetOutOfRange);
    }
    let diverges = epoch < reader.epoch || end_offset < reader.offset;
    Ok(diverges.then(|| EpochEndOffset::default().with_epoch(epoch).with_end_offset(end_offset)))
}

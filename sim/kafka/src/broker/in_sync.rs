//! Who is in sync: followers that lag leave, those that have caught up join, and the controller says yes or no.
//!
//! As Kafka's `Partition` and `AlterPartitionManager`: every half of `replica.lag.time.max.ms` a leader looks for
//! followers that lag; each fetch of a follower may make it join. A partition has one change under way, and a broker one
//! AlterPartition request (56), which holds all that have none yet. What an answer decides:
//! - done: the new set holds at once, before the metadata log says so;
//! - INELIGIBLE_REPLICA, OPERATION_NOT_ATTEMPTED: the change did not happen, all is as before;
//! - INVALID_UPDATE_VERSION, FENCED_LEADER_EPOCH and the like: this leader's view is old. It waits for the metadata and
//!   meanwhile counts on the larger set;
//! - anything else, or no answer: it asks again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use context::Timestamp;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use kafka_protocol::messages::alter_partition_response;
use kafka_protocol::messages::{AlterPartitionRequest, AlterPartitionResponse, ApiKey, BrokerId};

use super::lifecycle::Pending;
use super::{Broker, Timer, Turn};
use crate::config::Settings;
use crate::core::{Lane, Link};
use crate::metadata::{MetadataImage, NodeId, PartitionKey};
use crate::partition::leadership::{FollowerFetch, Judgement};
use crate::wire;

const VERSION: i16 = 3;
/// `AlterPartitionManager` tries again after 50 ms.
const RETRY: Duration = Duration::from_millis(50);

/// What is asked of the controller.
#[derive(Clone, Debug, Default)]
pub(super) struct InSyncChanges {
    /// Partitions whose proposal has no answer yet.
    open: BTreeSet<PartitionKey>,
    in_flight: bool,
}

/// What was proposed for a partition, to know whether it still stands when the answer comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proposal {
    leader_epoch: i32,
    partition_epoch: i32,
    in_sync: Vec<NodeId>,
}

/// By what the followers of `key` are judged now.
fn judgement<'a>(
    image: &'a MetadataImage,
    settings: &Settings,
    now: Timestamp,
    key: PartitionKey,
) -> Judgement<'a> {
    let topic = &image.topics[&key.topic].settings;
    Judgement {
        now,
        lag_max: Duration::from_millis(settings.replica_lag_time_max_ms as u64),
        min_in_sync: topic.min_insync_replicas(settings) as usize,
        image,
    }
}

impl Broker {
    /// `min.insync.replicas` of a partition, as configured.
    pub(super) fn min_in_sync(&self, key: PartitionKey) -> usize {
        self.image.topics[&key.topic].settings.min_insync_replicas(&self.settings) as usize
    }

    /// Whether fewer are in sync than a produce with `acks=all` needs.
    pub(super) fn lacks_replicas(&self, key: PartitionKey, in_sync: usize) -> bool {
        let leadership = self.partitions.get(&key).and_then(|partition| partition.leadership.as_ref());
        let wanted = self.min_in_sync(key);
        leadership.is_some_and(|leadership| in_sync < leadership.effective_min_in_sync(wanted))
    }

    /// Moves the high watermark of a partition that is led; whether it moved. What waits for it is not woken.
    pub(super) fn advance_high_watermark(&mut self, turn: &Turn<'_>, key: PartitionKey) -> bool {
        let (Some(partition), Some(log)) = (self.partitions.get_mut(&key), turn.disk.logs.get(&key)) else {
            return false;
        };
        partition.advance_high_watermark(log, &judgement(&self.image, &self.settings, turn.now, key))
    }

    /// A follower's fetch says how far it is.
    pub(super) fn follower_fetched(&mut self, turn: &mut Turn<'_>, key: PartitionKey, fetch: FollowerFetch) {
        let log_end = turn.disk.logs[&key].end_offset();
        let Some(partition) = self.partitions.get_mut(&key) else { return };
        let high_watermark = partition.high_watermark;
        let Some(leadership) = &mut partition.leadership else { return };
        let Some(moved) = leadership.fetched(turn.now, fetch, log_end) else { return };
        if leadership.should_join(fetch.node, high_watermark, &self.image) {
            let mut in_sync = leadership.in_sync().to_vec();
            in_sync.push(fetch.node);
            self.propose(turn, key, in_sync);
        }
        if moved && self.advance_high_watermark(turn, key) {
            self.partition_changed(turn, key);
        }
    }

    /// Begins to look for followers that lag.
    pub(super) fn watch_in_sync(&mut self, now: Timestamp) {
        let half_ms = (self.settings.replica_lag_time_max_ms as u64 / 2).max(1);
        self.timers.set(now + Duration::from_millis(half_ms), Timer::Lagging);
    }

    /// Half of `replica.lag.time.max.ms` went by: those that lag are to leave.
    pub(super) fn look_for_lagging(&mut self, turn: &mut Turn<'_>) {
        self.watch_in_sync(turn.now);
        let lagging = self.partitions.iter().filter_map(|(&key, partition)| {
            let leadership = partition.leadership.as_ref()?;
            let log_end = turn.disk.logs[&key].end_offset();
            let by = judgement(&self.image, &self.settings, turn.now, key);
            let kept = leadership.without_lagging(self.node, log_end, &by)?;
            Some((key, kept))
        });
        for (key, kept) in lagging.collect::<Vec<_>>() {
            self.propose(turn, key, kept);
        }
    }

    fn propose(&mut self, turn: &mut Turn<'_>, key: PartitionKey, in_sync: Vec<NodeId>) {
        if self.in_sync_changes.open.contains(&key) {
            // An older proposal, which the metadata has overtaken, has no answer yet.
            return;
        }
        let partition = self.partitions.get_mut(&key).expect("what is led is here");
        partition.leadership.as_mut().expect("it is led").propose(in_sync);
        self.in_sync_changes.open.insert(key);
        self.ask_for_in_sync(turn);
    }

    /// Sends all that has no answer yet, unless a request is under way.
    pub(super) fn ask_for_in_sync(&mut self, turn: &mut Turn<'_>) {
        if self.in_sync_changes.in_flight {
            return;
        }
        let mut request = AlterPartitionRequest::default()
            .with_broker_id(BrokerId(self.node))
            .with_broker_epoch(self.broker_epoch());
        let mut proposals = BTreeMap::new();
        for key in std::mem::take(&mut self.in_sync_changes.open) {
            let Some(proposal) = self.proposal(key) else { continue };
            let partition = PartitionData::default()
                .with_partition_index(key.index)
                .with_leader_epoch(proposal.leader_epoch)
                .with_partition_epoch(proposal.partition_epoch)
                .with_new_isr_with_epochs(
                    proposal.in_sync.iter().map(|&node| self.with_epoch(key, node)).collect(),
                );
            match request.topics.last_mut() {
                Some(topic) if topic.topic_id == key.topic => topic.partitions.push(partition),
                _ => request
                    .topics
                    .push(TopicData::default().with_topic_id(key.topic).with_partitions(vec![partition])),
            }
            proposals.insert(key, proposal);
        }
        if proposals.is_empty() {
            return;
        }
        self.in_sync_changes.open.extend(proposals.keys());
        self.in_sync_changes.in_flight = true;
        let frame = wire::request(ApiKey::AlterPartition, VERSION, 0, &request);
        let pending = Pending::InSync { proposals };
        self.ask(turn, Link::controller(Lane::AlterPartition), pending, frame);
    }

    fn proposal(&self, key: PartitionKey) -> Option<Proposal> {
        let partition = self.partitions.get(&key)?;
        let in_sync = partition.leadership.as_ref()?.proposed()?.to_vec();
        let (leader_epoch, partition_epoch) = (partition.leader_epoch, partition.partition_epoch);
        Some(Proposal { leader_epoch, partition_epoch, in_sync })
    }

    /// A follower that has not fetched yet has no epoch to tell: -1, which the controller does not check.
    fn with_epoch(&self, key: PartitionKey, node: NodeId) -> BrokerState {
        let follower = self.partitions[&key].leadership.as_ref().and_then(|led| led.followers().get(&node));
        let epoch = if node == self.node {
            self.broker_epoch()
        } else {
            follower.and_then(|follower| follower.broker_epoch).unwrap_or(-1)
        };
        BrokerState::default().with_broker_id(BrokerId(node)).with_broker_epoch(epoch)
    }

    pub(super) fn in_sync_answered(
        &mut self,
        turn: &mut Turn<'_>,
        proposals: BTreeMap<PartitionKey, Proposal>,
        frame: Option<Bytes>,
    ) {
        self.in_sync_changes.in_flight = false;
        let answer = frame.and_then(|frame| wire::response::<AlterPartitionResponse>(&frame, VERSION).ok());
        let Some(answer) = answer.filter(|answer| answer.error_code == 0) else {
            // An old broker epoch too: the next registration gives a new one.
            return self.timers.set(turn.now + RETRY, Timer::AlterPartition);
        };
        let mut settled: BTreeMap<Vec<NodeId>, Vec<PartitionKey>> = BTreeMap::new();
        for topic in answer.topics {
            for data in topic.partitions {
                let key = PartitionKey { topic: topic.topic_id, index: data.partition_index };
                self.in_sync_changes.open.remove(&key);
                // Otherwise the metadata has been faster.
                if proposals.get(&key) == self.proposal(key).as_ref()
                    && proposals.contains_key(&key)
                    && let Some(in_sync) = self.in_sync_decided(key, &data)
                {
                    settled.entry(in_sync).or_default().push(key);
                }
            }
        }
        for (in_sync, keys) in settled {
            let which = self.image.named(&keys);
            turn.note(format!("broker {} has {in_sync:?} in sync for {which}", self.node));
            for key in keys {
                self.advance_high_watermark(turn, key);
                self.partition_changed(turn, key);
            }
        }
        self.ask_for_in_sync(turn);
    }

    /// What the controller says of one partition; its in-sync replicas, if they are new.
    fn in_sync_decided(
        &mut self,
        key: PartitionKey,
        data: &alter_partition_response::PartitionData,
    ) -> Option<Vec<NodeId>> {
        let partition = self.partitions.get_mut(&key).expect("a proposal stands for what is led");
        let leadership = partition.leadership.as_mut().expect("a proposal stands for what is led");
        match ResponseError::try_from_code(data.error_code) {
            None if data.leader_epoch == partition.leader_epoch
                && data.partition_epoch >= partition.partition_epoch =>
            {
                let in_sync: Vec<NodeId> = data.isr.iter().map(|node| node.0).collect();
                leadership.settled(&in_sync);
                partition.partition_epoch = data.partition_epoch;
                return Some(in_sync);
            }
            None => {}
            Some(ResponseError::IneligibleReplica | ResponseError::OperationNotAttempted) => {
                leadership.withdraw();
            }
            Some(
                ResponseError::UnknownTopicOrPartition
                | ResponseError::UnknownTopicId
                | ResponseError::FencedLeaderEpoch
                | ResponseError::InvalidUpdateVersion
                | ResponseError::InvalidRequest
                | ResponseError::NewLeaderElected,
            ) => {}
            Some(_) => _ = self.in_sync_changes.open.insert(key),
        }
        None
    }
}

//! Changes of leaders and in-sync replicas: what follows when brokers come and go, AlterPartition, ElectLeaders, and the
//! elections that the controller holds by itself (`ReplicationControlManager`).
//!
//! What an election decides is [`super::elections`]'s. Version notes: AlterPartition tells broker epochs from 3 on.

use std::collections::BTreeMap;
use std::time::Duration;

use context::Timestamp;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_partition_request::PartitionData as Asked;
use kafka_protocol::messages::alter_partition_response::{PartitionData, TopicData};
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse, BrokerId, ElectLeadersRequest, ElectLeadersResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::elections::{Election, Kind};
use super::topics::{Refusal, shortened};
use super::{Controller, ControllerDisk, Output, Timer};
use crate::metadata::{
    LeaderRecovery, MetadataRecord, NO_LEADER, NodeId, PartitionImage, PartitionKey, TopicImage,
};
use crate::wire::Call;

/// How many elections the controller holds at once by itself (`MAX_ELECTIONS_PER_IMBALANCE`).
const ELECTIONS_MAX: usize = 1_000;

/// What happened to a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shift {
    /// It is fenced, or on its way down.
    Leaves,
    /// It may lead again.
    Joins,
    /// Another process of it came, and the one before had not said goodbye.
    UncleanShutdown,
}

impl Controller {
    /// Whether a broker may lead.
    pub(super) fn is_active(&self, node: NodeId) -> bool {
        self.image.brokers.get(&node).is_some_and(|broker| broker.is_active())
    }

    pub(super) fn elr_enabled(&self) -> bool {
        self.features.eligible_leader_replicas_version > 0
    }

    /// The min ISR that counts: a partition with fewer replicas needs all of them.
    fn effective_min_isr(&self, topic: &TopicImage) -> usize {
        let wanted = topic.settings.min_insync_replicas(&self.settings) as usize;
        wanted.min(topic.partitions.first().map_or(usize::MAX, |partition| partition.replicas.len()))
    }

    fn kind_for(&self, topic: &TopicImage) -> Kind {
        let unclean = topic.settings.unclean_leader_election_enable(&self.settings);
        if unclean { Kind::Unclean } else { Kind::Online }
    }

    fn election<'a>(&self, topic: &TopicImage, partition: &'a PartitionImage, kind: Kind) -> Election<'a> {
        Election::new(partition, kind, self.elr_enabled(), self.effective_min_isr(topic))
    }

    /// What changes in partitions because of what happened to a broker.
    pub(super) fn shift(&self, node: NodeId, shift: Shift) -> Vec<MetadataRecord> {
        let may_lead = |other: NodeId| match shift {
            Shift::Joins => other == node || self.is_active(other),
            Shift::Leaves | Shift::UncleanShutdown => other != node && self.is_active(other),
        };
        let mut records = Vec::new();
        for (topic, key, partition) in self.all_partitions() {
            let concerned = match shift {
                Shift::Joins => partition.leader == NO_LEADER,
                Shift::Leaves => partition.in_sync.contains(&node),
                Shift::UncleanShutdown => partition.in_sync.contains(&node) || partition.elr.contains(&node),
            };
            if !concerned {
                continue;
            }
            let election = self.election(topic, partition, self.kind_for(topic));
            let election = match shift {
                Shift::Joins => election,
                Shift::Leaves => election.without(node),
                Shift::UncleanShutdown => election.after_unclean_shutdown(node),
            };
            let change = election.decide(may_lead);
            records.extend(change.map(|change| MetadataRecord::PartitionChange { key, change }));
        }
        records
    }

    fn all_partitions(&self) -> impl Iterator<Item = (&TopicImage, PartitionKey, &PartitionImage)> {
        self.image.topics.values().flat_map(|topic| {
            let keys = (0..).map(|index| PartitionKey { topic: topic.id, index });
            keys.zip(&topic.partitions).map(move |(key, partition)| (topic, key, partition))
        })
    }

    pub(super) fn leads_any(&self, node: NodeId) -> bool {
        self.all_partitions().any(|(_, _, partition)| partition.leader == node)
    }

    /// Lines about the partitions that lose or get a leader.
    pub(super) fn note_leaders(&self, records: &[MetadataRecord], out: &mut Vec<Output>) {
        let mut moved: BTreeMap<(NodeId, bool), usize> = BTreeMap::new();
        for record in records {
            if let MetadataRecord::PartitionChange { change, .. } = record
                && let Some(leader) = change.leader
            {
                let unclean = change.leader_recovery == Some(LeaderRecovery::Recovering);
                *moved.entry((leader, unclean)).or_default() += 1;
            }
        }
        for ((leader, unclean), count) in moved {
            let how = if unclean { " by an unclean election: records may be lost" } else { "" };
            out.push(Output::Note(match leader {
                NO_LEADER => format!("partitions without a leader from now on: {count}"),
                leader => format!("broker {leader} takes the lead of {count} partitions{how}"),
            }));
        }
    }

    pub(super) fn alter_partition(
        &mut self,
        now: Timestamp,
        call: &Call,
        request: &AlterPartitionRequest,
        disk: &mut ControllerDisk,
        out: &mut Vec<Output>,
    ) -> AlterPartitionResponse {
        let node = request.broker_id.0;
        if let Err(error) = self.known(node, request.broker_epoch) {
            return AlterPartitionResponse::default().with_error_code(error.code());
        }
        let mut records = Vec::new();
        let mut decided = Vec::new();
        for topic in &request.topics {
            for asked in &topic.partitions {
                let key = PartitionKey { topic: topic.topic_id, index: asked.partition_index };
                let in_sync = asked_in_sync(call, asked);
                let changed = self.check_alter(node, key, asked, &in_sync);
                let changed = changed.and_then(|()| self.alter(node, key, asked, &in_sync, &mut records));
                decided.push((key, changed));
            }
        }
        self.note_in_sync(node, &records, out);
        if !records.is_empty() {
            self.append(now, disk, records);
        }
        let mut topics: Vec<TopicData> = Vec::new();
        for (key, changed) in decided {
            let data = PartitionData::default().with_partition_index(key.index);
            let data = match changed {
                Err(error) => data.with_error_code(error.code()),
                Ok(()) => {
                    let partition = self.image.partition(key).expect("it was just changed");
                    data.with_leader_id(BrokerId(partition.leader))
                        .with_leader_epoch(partition.leader_epoch)
                        .with_isr(partition.in_sync.iter().copied().map(BrokerId).collect())
                        .with_leader_recovery_state(partition.leader_recovery.code())
                        .with_partition_epoch(partition.partition_epoch)
                }
            };
            match topics.last_mut() {
                Some(topic) if topic.topic_id == key.topic => topic.partitions.push(data),
                _ => topics.push(TopicData::default().with_topic_id(key.topic).with_partitions(vec![data])),
            }
        }
        AlterPartitionResponse::default().with_topics(topics)
    }

    /// One line for each in-sync set that is new, however many partitions have it.
    fn note_in_sync(&self, node: NodeId, records: &[MetadataRecord], out: &mut Vec<Output>) {
        let mut changed: BTreeMap<&[NodeId], Vec<PartitionKey>> = BTreeMap::new();
        for record in records {
            if let MetadataRecord::PartitionChange { key, change } = record
                && let Some(in_sync) = &change.in_sync
            {
                changed.entry(in_sync).or_default().push(*key);
            }
        }
        for (in_sync, keys) in changed {
            let which = self.image.named(&keys);
            out.push(Output::Note(format!("{which}: in sync are {in_sync:?}, as broker {node} asks")));
        }
    }

    /// `ReplicationControlManager.validateAlterPartitionData`, in its order.
    fn check_alter(
        &self,
        node: NodeId,
        key: PartitionKey,
        asked: &Asked,
        in_sync: &[(NodeId, i64)],
    ) -> Result<(), ResponseError> {
        if !self.image.topics.contains_key(&key.topic) {
            return Err(ResponseError::UnknownTopicId);
        }
        let partition = self.image.partition(key).ok_or(ResponseError::UnknownTopicOrPartition)?;
        if asked.leader_epoch > partition.leader_epoch || asked.partition_epoch > partition.partition_epoch {
            // The broker knows more than this controller does: it should look for the one that told it.
            return Err(ResponseError::NotController);
        }
        if asked.leader_epoch < partition.leader_epoch {
            return Err(ResponseError::FencedLeaderEpoch);
        }
        if node != partition.leader {
            return Err(ResponseError::InvalidRequest);
        }
        if asked.partition_epoch < partition.partition_epoch {
            return Err(ResponseError::InvalidUpdateVersion);
        }
        let nodes: Vec<NodeId> = in_sync.iter().map(|(node, _)| *node).collect();
        let twice = (1..nodes.len()).any(|index| nodes[..index].contains(&nodes[index]));
        if twice || !nodes.contains(&node) || nodes.iter().any(|node| !partition.replicas.contains(node)) {
            return Err(ResponseError::InvalidRequest);
        }
        let recovery = LeaderRecovery::from_code(asked.leader_recovery_state);
        match (recovery, partition.leader_recovery) {
            (None, _) | (Some(LeaderRecovery::Recovering), LeaderRecovery::Recovered) => {
                return Err(ResponseError::InvalidRequest);
            }
            (Some(LeaderRecovery::Recovering), _) if nodes.len() > 1 => {
                return Err(ResponseError::InvalidRequest);
            }
            _ => {}
        }
        let eligible = |(node, epoch): &(NodeId, i64)| {
            let broker = self.image.brokers.get(node).filter(|broker| broker.is_active());
            broker.is_some_and(|broker| *epoch == -1 || *epoch == broker.epoch)
        };
        if in_sync.iter().all(eligible) { Ok(()) } else { Err(ResponseError::IneligibleReplica) }
    }

    /// Decides on one partition of a request that was checked; what changes is put to `records`.
    fn alter(
        &self,
        node: NodeId,
        key: PartitionKey,
        asked: &Asked,
        in_sync: &[(NodeId, i64)],
        records: &mut Vec<MetadataRecord>,
    ) -> Result<(), ResponseError> {
        let topic = &self.image.topics[&key.topic];
        let partition = self.image.partition(key).expect("it was checked");
        let recovery = LeaderRecovery::from_code(asked.leader_recovery_state).expect("it was checked");
        let election = self
            .election(topic, partition, self.kind_for(topic))
            .with_in_sync(in_sync.iter().map(|(node, _)| *node).collect())
            .with_leader_recovery(recovery);
        let Some(change) = election.decide(|node| self.is_active(node)) else { return Ok(()) };
        let leader = change.leader;
        records.push(MetadataRecord::PartitionChange { key, change });
        match leader {
            Some(leader) if leader != node => Err(ResponseError::NewLeaderElected),
            _ => Ok(()),
        }
    }

    pub(super) fn elect_leaders(
        &mut self,
        now: Timestamp,
        request: &ElectLeadersRequest,
        disk: &mut ControllerDisk,
        out: &mut Vec<Output>,
    ) -> ElectLeadersResponse {
        // Version 0 knew preferred elections only.
        let kind = match request.election_type {
            0 => Kind::Preferred,
            1 => Kind::Unclean,
            _ => {
                return ElectLeadersResponse::default().with_error_code(ResponseError::InvalidRequest.code());
            }
        };
        let all = request.topic_partitions.is_none();
        let asked: Vec<(String, Vec<i32>)> = match &request.topic_partitions {
            Some(topics) => {
                topics.iter().map(|topic| (topic.topic.to_string(), topic.partitions.clone())).collect()
            }
            None => {
                let topics = self.image.names.iter();
                let partitions = |id| (0..self.image.topics[id].partitions.len() as i32).collect();
                topics.map(|(name, id)| (name.to_string(), partitions(id))).collect()
            }
        };
        let mut records = Vec::new();
        let mut results = Vec::new();
        for (name, indexes) in asked {
            let mut partitions = Vec::new();
            for index in indexes {
                let elected = self.elect(&name, index, kind, &mut records);
                // Whoever asks for all is told of those that were in need only.
                if all && matches!(elected, Err((ResponseError::ElectionNotNeeded, _))) {
                    continue;
                }
                let mut result = PartitionResult::default().with_partition_id(index);
                if let Err((error, message)) = elected {
                    result.error_code = error.code();
                    result.error_message = Some(StrBytes::from_string(shortened(message)));
                }
                partitions.push(result);
            }
            let name = crate::broker::text(&name);
            results.push(
                ReplicaElectionResult::default()
                    .with_topic(kafka_protocol::messages::TopicName(name))
                    .with_partition_result(partitions),
            );
        }
        self.note_leaders(&records, out);
        if !records.is_empty() {
            self.append(now, disk, records);
        }
        ElectLeadersResponse::default().with_replica_election_results(results)
    }

    fn elect(
        &self,
        name: &str,
        index: i32,
        kind: Kind,
        records: &mut Vec<MetadataRecord>,
    ) -> Result<(), Refusal> {
        let Some((key, partition)) = self.image.partition_of(name, index) else {
            return Err((
                ResponseError::UnknownTopicOrPartition,
                format!("No such partition as {name}-{index}"),
            ));
        };
        let in_place = match kind {
            Kind::Preferred => partition.has_preferred_leader(),
            Kind::Online | Kind::Unclean => partition.leader != NO_LEADER,
        };
        if in_place {
            return Err((ResponseError::ElectionNotNeeded, "the leader is the one that is wanted".into()));
        }
        let election = self.election(&self.image.topics[&key.topic], partition, kind);
        let Some(change) = election.decide(|node| self.is_active(node)) else {
            return Err(match kind {
                Kind::Preferred => (
                    ResponseError::PreferredLeaderNotAvailable,
                    "the preferred leader is not in sync or not alive".into(),
                ),
                _ => (ResponseError::EligibleLeadersNotAvailable, "no replica is alive".into()),
            });
        };
        let again = |record: &MetadataRecord| matches!(record, MetadataRecord::PartitionChange { key: other, .. } if *other == key);
        if !records.iter().any(again) {
            records.push(MetadataRecord::PartitionChange { key, change });
        }
        Ok(())
    }

    /// Some partitions may want another leader: looks at them when Kafka's periodic task would, which starts with the
    /// controller and then comes at each whole interval.
    pub(super) fn plan_elections(&mut self, now: Timestamp) {
        let imbalanced = |(_, _, partition): (_, _, &PartitionImage)| !partition.has_preferred_leader();
        let balances = self.settings.auto_leader_rebalance_enable && !self.planned.preferred;
        if balances && self.all_partitions().any(imbalanced) {
            self.planned.preferred = true;
            let seconds = self.settings.leader_imbalance_check_interval_seconds.unsigned_abs();
            self.timers.set(self.next_tick(now, Duration::from_secs(seconds)), Timer::ElectPreferred);
        }
        let hopeless = |(topic, _, partition): (&TopicImage, _, &PartitionImage)| {
            partition.leader == NO_LEADER && self.kind_for(topic) == Kind::Unclean
        };
        if !self.planned.unclean && self.all_partitions().any(hopeless) {
            self.planned.unclean = true;
            let ms = self.settings.unclean_leader_election_interval_ms.unsigned_abs();
            self.timers.set(self.next_tick(now, Duration::from_millis(ms)), Timer::ElectUnclean);
        }
    }

    /// The next time that is a whole number of intervals after the controller became active.
    pub(super) fn next_tick(&self, now: Timestamp, interval: Duration) -> Timestamp {
        let interval = interval.max(Duration::from_millis(1));
        let passed = now.since(self.active_since).as_millis() / interval.as_millis();
        let millis = (passed + 1).saturating_mul(interval.as_millis());
        self.active_since + Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    pub(super) fn elect_preferred_due(
        &mut self,
        now: Timestamp,
        disk: &mut ControllerDisk,
        out: &mut Vec<Output>,
    ) {
        self.planned.preferred = false;
        let mut records = Vec::new();
        for (topic, key, partition) in self.all_partitions() {
            if partition.has_preferred_leader() || records.len() == ELECTIONS_MAX {
                continue;
            }
            let election = self.election(topic, partition, Kind::Preferred);
            let change = election.decide(|node| self.is_active(node));
            records.extend(change.map(|change| MetadataRecord::PartitionChange { key, change }));
        }
        self.hold(now, records, disk, out);
    }

    pub(super) fn elect_unclean_due(
        &mut self,
        now: Timestamp,
        disk: &mut ControllerDisk,
        out: &mut Vec<Output>,
    ) {
        self.planned.unclean = false;
        let mut records = Vec::new();
        for (topic, key, partition) in self.all_partitions() {
            let wanted = partition.leader == NO_LEADER && self.kind_for(topic) == Kind::Unclean;
            if !wanted || records.len() == ELECTIONS_MAX {
                continue;
            }
            let election = self.election(topic, partition, Kind::Unclean);
            let change = election.decide(|node| self.is_active(node));
            records.extend(change.map(|change| MetadataRecord::PartitionChange { key, change }));
        }
        self.hold(now, records, disk, out);
    }

    fn hold(
        &mut self,
        now: Timestamp,
        records: Vec<MetadataRecord>,
        disk: &mut ControllerDisk,
        out: &mut Vec<Output>,
    ) {
        self.note_leaders(&records, out);
        if !records.is_empty() {
            self.append(now, disk, records);
        }
        self.plan_elections(now);
    }
}

fn asked_in_sync(call: &Call, asked: &Asked) -> Vec<(NodeId, i64)> {
    if call.version >= 3 {
        asked.new_isr_with_epochs.iter().map(|broker| (broker.broker_id.0, broker.broker_epoch)).collect()
    } else {
        asked.new_isr.iter().map(|broker| (broker.0, -1)).collect()
    }
}

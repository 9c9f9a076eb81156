//! The replicas that this broker holds, made what the metadata says: leader, follower, or gone.
//!
//! As Kafka's `ReplicaManager.applyDelta` and `BrokerMetadataPublisher`. A new leader takes its followers' word from then
//! on; a new follower fetches from its leader; whoever leads no more tells those who wait NOT_LEADER_OR_FOLLOWER. With the
//! leadership of a partition of `__consumer_offsets` or `__transaction_state` comes the coordinator of what lives in it.
//!
//! The first time that a process acts is when it has caught up: before, the metadata tells of the process before it.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::{Broker, Turn};
use crate::group::OFFSETS_TOPIC;
use crate::metadata::{MetadataRecord, NO_LEADER, PartitionKey};
use crate::partition::Partition;
use crate::transaction::TRANSACTION_TOPIC;

impl Broker {
    pub(super) fn apply_metadata(&mut self, turn: &mut Turn<'_>, records: Vec<MetadataRecord>) {
        let mut touched: BTreeSet<PartitionKey> = BTreeSet::new();
        for record in records {
            let gone = match &record {
                MetadataRecord::RemoveTopic { id } => {
                    self.image.topics.get(id).map(|topic| topic.name.clone())
                }
                _ => None,
            };
            self.image.apply(&record);
            match &record {
                MetadataRecord::Partition { key, .. } | MetadataRecord::PartitionChange { key, .. } => {
                    touched.insert(*key);
                }
                MetadataRecord::RemoveTopic { id } => self.remove_topic(turn, *id, gone, &mut touched),
                MetadataRecord::Config { resource, .. } => self.settings_changed(resource),
                _ => {}
            }
        }
        if self.acts_on_metadata() {
            for key in touched {
                self.follow_image(turn, key);
            }
            self.shut_idle_fetchers(turn);
            self.reroute_markers(turn);
        }
    }

    /// The first time that a process acts on the metadata; replicas of topics that were deleted meanwhile go.
    pub(super) fn follow_whole_image(&mut self, turn: &mut Turn<'_>) {
        let image = &self.image;
        turn.disk.logs.retain(|key| image.topics.contains_key(&key.topic));
        let topics = self.image.topics.values();
        let keys = topics.flat_map(|topic| (0..).zip(&topic.partitions).map(|(index, _)| (topic.id, index)));
        let keys: Vec<_> = keys.map(|(topic, index)| PartitionKey { topic, index }).collect();
        for key in keys {
            self.follow_image(turn, key);
        }
    }

    /// A topic is gone from the image: so are its logs, and what groups have committed for it.
    fn remove_topic(
        &mut self,
        turn: &mut Turn<'_>,
        id: Uuid,
        name: Option<Arc<str>>,
        touched: &mut BTreeSet<PartitionKey>,
    ) {
        touched.extend(self.partitions.keys().copied().filter(|key| key.topic == id));
        turn.disk.logs.retain(|key| key.topic != id);
        if let Some(name) = name {
            self.forget_topic(turn, &name);
        }
    }

    /// Makes this broker's replica what the image says it is.
    fn follow_image(&mut self, turn: &mut Turn<'_>, key: PartitionKey) {
        let here = self.image.partition(key).filter(|image| image.replicas.contains(&self.node));
        let Some(image) = here.cloned() else {
            self.stop_following(key);
            self.partitions.remove(&key);
            self.transactions_gone(key);
            return self.partition_changed(turn, key);
        };
        let log = turn.disk.logs.get_or_make(turn.now, key);
        let expiration_ms = self.settings.producer_id_expiration_ms;
        let replica = self.partitions.entry(key);
        let replica = replica.or_insert_with(|| Partition::load(turn.now, log, expiration_ms));
        let led = replica.leads();
        let is_new_epoch = if image.leader == self.node {
            let is_new_epoch = replica.lead(turn.now, self.node, log, &image);
            self.stop_following(key);
            self.advance_high_watermark(turn, key);
            is_new_epoch
        } else {
            let is_new_epoch = replica.follow(&image);
            if is_new_epoch {
                self.stop_following(key);
                if image.leader != NO_LEADER {
                    self.start_following(turn, key, image.leader, image.leader_epoch);
                }
            }
            is_new_epoch
        };
        if is_new_epoch {
            self.leader_changed(turn, key, led);
        }
        self.partition_changed(turn, key);
    }

    /// A new epoch of a partition's leader, which may be this broker: coordinators come and go with it.
    fn leader_changed(&mut self, turn: &mut Turn<'_>, key: PartitionKey, led: bool) {
        let name = self.image.topics[&key.topic].name.clone();
        let (leads, epoch) = (self.partitions[&key].leads(), self.partitions[&key].leader_epoch);
        match &*name {
            OFFSETS_TOPIC => match (leads, led) {
                (true, false) => self.load_groups(turn, key),
                (false, true) => self.unload_groups(turn, key.index),
                _ => {}
            },
            // A new epoch of the same leader is a new coordinator too (`BrokerMetadataPublisher`).
            TRANSACTION_TOPIC => match (leads, led) {
                (true, _) => self.load_transactions(turn, key, epoch),
                (false, true) => self.transactions_gone(key),
                _ => {}
            },
            _ if leads => {
                turn.note(format!("broker {} leads {name}/{} with epoch {epoch}", self.node, key.index));
            }
            _ => {}
        }
    }

    /// Writes the high watermarks down: a new process goes on from them.
    pub(super) fn checkpoint_high_watermarks(&self, turn: &mut Turn<'_>) {
        for (key, partition) in &self.partitions {
            if let Some(log) = turn.disk.logs.get_mut(key) {
                log.checkpoint_high_watermark(partition.high_watermark);
            }
        }
    }
}

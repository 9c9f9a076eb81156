//! The cluster's metadata: a log of records that the controller appends, and the image that whoever reads it builds.
//!
//! The controller's image is always at the log's end; each broker's is where its own fetches have brought it. Two
//! brokers may so name different leaders for a while, as in Kafka. The records are Kafka's in meaning; their bytes are
//! our own, since no client sees them.
//!
//! Here is the image; `record.rs` has the records.

mod record;

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

pub use record::{ConfigResource, MetadataRecord, PartitionChange};

use crate::config::{ConfigError, TopicSettings};

/// The number of a broker, from 1.
pub type NodeId = i32;

/// The leader of a partition that has none.
pub const NO_LEADER: NodeId = -1;

/// The partition of a topic, whatever the topic's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionKey {
    /// The topic's id: a topic that is deleted and made again is another.
    pub topic: Uuid,
    /// Its number.
    pub index: i32,
}

/// Whether a leader was elected from outside of those that had everything, and has not said since that it is done with
/// that (KIP-704).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LeaderRecovery {
    /// The leader had all that was committed, or has recovered.
    #[default]
    Recovered,
    /// The leader was elected uncleanly. Until it asks for another in-sync set it is alone in it.
    Recovering,
}

impl LeaderRecovery {
    /// Kafka's number.
    pub fn code(self) -> i8 {
        match self {
            LeaderRecovery::Recovered => 0,
            LeaderRecovery::Recovering => 1,
        }
    }

    /// By Kafka's number.
    pub fn from_code(code: i8) -> Option<LeaderRecovery> {
        match code {
            0 => Some(LeaderRecovery::Recovered),
            1 => Some(LeaderRecovery::Recovering),
            _ => None,
        }
    }
}

/// A broker as the metadata has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerImage {
    /// Of its registration.
    pub epoch: i64,
    /// Of its process.
    pub incarnation: Uuid,
    /// Advertised to clients.
    pub host: String,
    /// Advertised to clients.
    pub port: u16,
    /// Where it stands, if it says so.
    pub rack: Option<String>,
    /// It may not lead, and clients are not told of it.
    pub fenced: bool,
    /// It wants to go: it leads and joins in-sync sets no more, and clients may still ask it.
    pub in_controlled_shutdown: bool,
}

impl BrokerImage {
    /// Whether it may lead and be in sync: neither fenced nor on its way down.
    pub fn is_active(&self) -> bool {
        !self.fenced && !self.in_controlled_shutdown
    }
}

/// A partition as the metadata has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionImage {
    /// The brokers that hold it, the preferred leader first.
    pub replicas: Vec<NodeId>,
    /// Those in sync. Empty only with eligible leader replicas on.
    pub in_sync: Vec<NodeId>,
    /// Those that left the in-sync replicas while these were fewer than the min ISR, and so hold all that was committed
    /// (KIP-966). Never in sync too.
    pub elr: Vec<NodeId>,
    /// The last leader of a partition whose in-sync replicas are none; else empty.
    pub last_known_elr: Vec<NodeId>,
    /// Its leader, or [`NO_LEADER`].
    pub leader: NodeId,
    /// Whether the leader was elected uncleanly.
    pub leader_recovery: LeaderRecovery,
    /// Grows with every change of the leader.
    pub leader_epoch: i32,
    /// Grows with every change.
    pub partition_epoch: i32,
}

impl PartitionImage {
    /// A new partition, led by the first in-sync replica.
    ///
    /// # Panics
    /// If none is in sync.
    pub fn new(replicas: Vec<NodeId>, in_sync: Vec<NodeId>) -> PartitionImage {
        PartitionImage {
            leader: *in_sync.first().expect("a new partition has a leader"),
            replicas,
            in_sync,
            elr: Vec::new(),
            last_known_elr: Vec::new(),
            leader_recovery: LeaderRecovery::Recovered,
            leader_epoch: 0,
            partition_epoch: 0,
        }
    }

    /// The leader, or else the replica that comes nearest to it: in sync, eligible, the last leader, the first.
    pub fn holder(&self) -> NodeId {
        let leader = [self.leader];
        let leader = leader.iter().filter(|leader| **leader != NO_LEADER);
        let others = [&self.in_sync, &self.elr, &self.last_known_elr, &self.replicas];
        *leader.chain(others.into_iter().flatten()).next().expect("a partition has replicas")
    }

    /// Whether the first replica leads, as it should when nothing is amiss.
    pub fn has_preferred_leader(&self) -> bool {
        self.replicas.first() == Some(&self.leader)
    }

    /// Applies a change.
    pub fn apply(&mut self, change: &PartitionChange) {
        if let Some(leader) = change.leader {
            self.leader = leader;
            self.leader_epoch += 1;
        }
        if let Some(in_sync) = &change.in_sync {
            self.in_sync.clone_from(in_sync);
        }
        if let Some(elr) = &change.elr {
            self.elr.clone_from(elr);
        }
        if let Some(last_known_elr) = &change.last_known_elr {
            self.last_known_elr.clone_from(last_known_elr);
        }
        if let Some(leader_recovery) = change.leader_recovery {
            self.leader_recovery = leader_recovery;
        }
        self.partition_epoch += 1;
    }
}

/// A topic as the metadata has it.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicImage {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: Arc<str>,
    /// Its settings as given.
    pub config: BTreeMap<String, String>,
    /// Its settings as read.
    pub settings: TopicSettings,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionImage>,
}

/// The metadata up to some offset of its log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetadataImage {
    /// The offset of the next record.
    pub next_offset: i64,
    /// By node id.
    pub brokers: BTreeMap<NodeId, BrokerImage>,
    /// By id.
    pub topics: BTreeMap<Uuid, TopicImage>,
    /// Ids by name.
    pub names: BTreeMap<Arc<str>, Uuid>,
    /// Settings of brokers that were changed while they ran: of all, or of one. Topics hold their own.
    pub broker_configs: BTreeMap<ConfigResource, BTreeMap<String, String>>,
    /// The first producer id that is free.
    pub next_producer_id: i64,
}

impl MetadataImage {
    /// The topic of that name.
    pub fn topic(&self, name: &str) -> Option<&TopicImage> {
        self.names.get(name).map(|id| &self.topics[id])
    }

    /// A partition.
    pub fn partition(&self, key: PartitionKey) -> Option<&PartitionImage> {
        self.topics.get(&key.topic)?.partitions.get(usize::try_from(key.index).ok()?)
    }

    /// The partition of the topic of that name.
    pub fn partition_of(&self, name: &str, index: i32) -> Option<(PartitionKey, &PartitionImage)> {
        let key = PartitionKey { topic: *self.names.get(name)?, index };
        Some((key, self.partition(key)?))
    }

    /// Partitions as a line of the trace names them: one by its name, several by their number.
    ///
    /// # Panics
    /// If a topic is not there.
    pub fn named(&self, keys: &[PartitionKey]) -> String {
        match keys {
            [one] => format!("{}/{}", self.topics[&one.topic].name, one.index),
            several => format!("{} partitions", several.len()),
        }
    }

    /// Brokers that are not fenced.
    pub fn live_brokers(&self) -> impl Iterator<Item = (NodeId, &BrokerImage)> {
        self.brokers.iter().filter(|(_, broker)| !broker.fenced).map(|(&node, broker)| (node, broker))
    }

    /// Applies the record at [`MetadataImage::next_offset`].
    ///
    /// # Panics
    /// If it names what is not there: the controller checked it before it appended it.
    pub fn apply(&mut self, record: &MetadataRecord) {
        self.next_offset += 1;
        match record {
            MetadataRecord::RegisterBroker { node, epoch, incarnation, host, port, rack } => {
                let broker = BrokerImage {
                    epoch: *epoch,
                    incarnation: *incarnation,
                    host: host.clone(),
                    port: *port,
                    rack: rack.clone(),
                    fenced: true,
                    in_controlled_shutdown: false,
                };
                self.brokers.insert(*node, broker);
            }
            MetadataRecord::BrokerChange { node, fenced, in_controlled_shutdown } => {
                let broker = self.brokers.get_mut(node).expect("a broker that changes is registered");
                broker.fenced = fenced.unwrap_or(broker.fenced);
                broker.in_controlled_shutdown |= in_controlled_shutdown;
            }
            MetadataRecord::Topic { id, name, config } => self.add_topic(*id, name, config),
            MetadataRecord::Config { resource, name, value } => {
                self.configure(resource, name, value.as_deref())
            }
            MetadataRecord::ClearElr { topic } => {
                let void = PartitionChange {
                    elr: Some(Vec::new()),
                    last_known_elr: Some(Vec::new()),
                    ..PartitionChange::default()
                };
                for (id, known) in &mut self.topics {
                    if topic.is_none_or(|topic| topic == *id) {
                        let some = |partition: &&mut PartitionImage| {
                            !partition.elr.is_empty() || !partition.last_known_elr.is_empty()
                        };
                        known.partitions.iter_mut().filter(some).for_each(|partition| partition.apply(&void));
                    }
                }
            }
            MetadataRecord::Partition { key, state } => {
                let topic = self.topics.get_mut(&key.topic).expect("a partition's topic exists");
                assert_eq!(topic.partitions.len(), key.index as usize, "partitions are made in order");
                topic.partitions.push(state.clone());
            }
            MetadataRecord::PartitionChange { key, change } => {
                let topic = self.topics.get_mut(&key.topic).expect("a partition's topic exists");
                topic.partitions[key.index as usize].apply(change);
            }
            MetadataRecord::RemoveTopic { id } => {
                let topic = self.topics.remove(id).expect("a topic that is removed exists");
                self.names.remove(&topic.name);
            }
            MetadataRecord::ProducerIds { next } => self.next_producer_id = *next,
        }
    }

    fn configure(&mut self, resource: &ConfigResource, name: &str, value: Option<&str>) {
        let config = match resource {
            ConfigResource::Topic(id) => {
                &mut self.topics.get_mut(id).expect("a topic with settings exists").config
            }
            brokers => self.broker_configs.entry(brokers.clone()).or_default(),
        };
        match value {
            Some(value) => config.insert(name.to_owned(), value.to_owned()),
            None => config.remove(name),
        };
        if let ConfigResource::Topic(id) = resource {
            let topic = self.topics.get_mut(id).expect("it was just there");
            topic.settings =
                TopicSettings::parse(&topic.config).expect("the controller checks a topic's settings");
        }
    }

    /// What was set for all brokers or for one while they ran; empty if nothing was.
    pub fn broker_config(&self, resource: &ConfigResource) -> &BTreeMap<String, String> {
        static NOTHING: BTreeMap<String, String> = BTreeMap::new();
        self.broker_configs.get(resource).unwrap_or(&NOTHING)
    }

    fn add_topic(&mut self, id: Uuid, name: &str, config: &BTreeMap<String, String>) {
        let settings: Result<TopicSettings, ConfigError> = TopicSettings::parse(config);
        let settings = settings.expect("the controller checks a topic's settings");
        let name: Arc<str> = name.into();
        self.names.insert(name.clone(), id);
        self.topics
            .insert(id, TopicImage { id, name, config: config.clone(), settings, partitions: Vec::new() });
    }
}

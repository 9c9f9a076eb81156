//! The cluster's metadata: a log of records that the controller appends, and the image that whoever reads it builds.
//!
//! The controller's image is always at the log's end; each broker's is where its own fetches have brought it. Two
//! brokers may so name different leaders for a while, as in Kafka. The records are Kafka's in meaning; their bytes are
//! our own, since no client sees them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use uuid::Uuid;

use crate::config::{ConfigError, TopicSettings};
use crate::wire::primitive::{Put, Take};

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

/// One change of the metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataRecord {
    /// An incarnation of a broker is known, and fenced until it has caught up.
    RegisterBroker {
        /// The broker.
        node: NodeId,
        /// Of this registration: the offset of this record.
        epoch: i64,
        /// Of the process.
        incarnation: Uuid,
        /// Advertised to clients.
        host: String,
        /// Advertised to clients.
        port: u16,
    },
    /// A broker's session ended, or begins.
    FenceBroker {
        /// The broker.
        node: NodeId,
        /// Whether it may lead.
        fenced: bool,
    },
    /// A topic exists.
    Topic {
        /// Its id.
        id: Uuid,
        /// Its name.
        name: String,
        /// Its settings by Kafka's names.
        config: BTreeMap<String, String>,
    },
    /// A partition exists.
    Partition {
        /// Which.
        key: PartitionKey,
        /// Its replicas and its leader.
        state: PartitionImage,
    },
    /// A partition's leader or in-sync replicas changed.
    PartitionChange {
        /// Which.
        key: PartitionKey,
        /// The new leader, or [`NO_LEADER`].
        leader: NodeId,
        /// One more than the one before.
        leader_epoch: i32,
        /// The new in-sync replicas.
        in_sync: Vec<NodeId>,
    },
    /// A topic is gone.
    RemoveTopic {
        /// Its id.
        id: Uuid,
    },
    /// Producer ids below this one are given away.
    ProducerIds {
        /// The first that is free.
        next: i64,
    },
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
    /// It may not lead, and clients are not told of it.
    pub fenced: bool,
}

/// A partition as the metadata has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionImage {
    /// The brokers that hold it, the preferred leader first.
    pub replicas: Vec<NodeId>,
    /// Those in sync.
    pub in_sync: Vec<NodeId>,
    /// Its leader, or [`NO_LEADER`].
    pub leader: NodeId,
    /// Grows with every change of the leader.
    pub leader_epoch: i32,
    /// Grows with every change.
    pub partition_epoch: i32,
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
            MetadataRecord::RegisterBroker { node, epoch, incarnation, host, port } => {
                let broker = BrokerImage {
                    epoch: *epoch,
                    incarnation: *incarnation,
                    host: host.clone(),
                    port: *port,
                    fenced: true,
                };
                self.brokers.insert(*node, broker);
            }
            MetadataRecord::FenceBroker { node, fenced } => {
                self.brokers.get_mut(node).expect("a fenced broker is registered").fenced = *fenced;
            }
            MetadataRecord::Topic { id, name, config } => self.add_topic(*id, name, config),
            MetadataRecord::Partition { key, state } => {
                let topic = self.topics.get_mut(&key.topic).expect("a partition's topic exists");
                assert_eq!(topic.partitions.len(), key.index as usize, "partitions are made in order");
                topic.partitions.push(state.clone());
            }
            MetadataRecord::PartitionChange { key, leader, leader_epoch, in_sync } => {
                let topic = self.topics.get_mut(&key.topic).expect("a partition's topic exists");
                let partition = &mut topic.partitions[key.index as usize];
                partition.leader = *leader;
                partition.leader_epoch = *leader_epoch;
                partition.in_sync.clone_from(in_sync);
                partition.partition_epoch += 1;
            }
            MetadataRecord::RemoveTopic { id } => {
                let topic = self.topics.remove(id).expect("a topic that is removed exists");
                self.names.remove(&topic.name);
            }
            MetadataRecord::ProducerIds { next } => self.next_producer_id = *next,
        }
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

impl MetadataRecord {
    /// The record as bytes.
    pub fn encode(&self) -> Bytes {
        let mut buf = BytesMut::new();
        match self {
            MetadataRecord::RegisterBroker { node, epoch, incarnation, host, port } => {
                buf.put_u8(0);
                buf.put_i32(*node);
                buf.put_i64(*epoch);
                buf.put_uuid(*incarnation);
                buf.put_text(host);
                buf.put_u16(*port);
            }
            MetadataRecord::FenceBroker { node, fenced } => {
                buf.put_u8(1);
                buf.put_i32(*node);
                buf.put_u8(u8::from(*fenced));
            }
            MetadataRecord::Topic { id, name, config } => {
                buf.put_u8(2);
                buf.put_uuid(*id);
                buf.put_text(name);
                buf.put_i32(config.len() as i32);
                for (name, value) in config {
                    buf.put_text(name);
                    buf.put_text(value);
                }
            }
            MetadataRecord::Partition { key, state } => {
                buf.put_u8(3);
                put_key(&mut buf, *key);
                buf.put_ints(&state.replicas);
                buf.put_ints(&state.in_sync);
                buf.put_i32(state.leader);
                buf.put_i32(state.leader_epoch);
                buf.put_i32(state.partition_epoch);
            }
            MetadataRecord::PartitionChange { key, leader, leader_epoch, in_sync } => {
                buf.put_u8(4);
                put_key(&mut buf, *key);
                buf.put_i32(*leader);
                buf.put_i32(*leader_epoch);
                buf.put_ints(in_sync);
            }
            MetadataRecord::RemoveTopic { id } => {
                buf.put_u8(5);
                buf.put_uuid(*id);
            }
            MetadataRecord::ProducerIds { next } => {
                buf.put_u8(6);
                buf.put_i64(*next);
            }
        }
        buf.freeze()
    }

    /// The record that `bytes` hold; `None` if they hold none.
    pub fn decode(mut bytes: Bytes) -> Option<MetadataRecord> {
        let buf = &mut bytes;
        let record = match buf.try_get_u8().ok()? {
            0 => MetadataRecord::RegisterBroker {
                node: buf.try_get_i32().ok()?,
                epoch: buf.try_get_i64().ok()?,
                incarnation: buf.take_uuid()?,
                host: buf.take_text()?,
                port: buf.try_get_u16().ok()?,
            },
            1 => MetadataRecord::FenceBroker {
                node: buf.try_get_i32().ok()?,
                fenced: buf.try_get_u8().ok()? != 0,
            },
            2 => {
                let (id, name) = (buf.take_uuid()?, buf.take_text()?);
                let mut config = BTreeMap::new();
                for _ in 0..buf.try_get_i32().ok()? {
                    config.insert(buf.take_text()?, buf.take_text()?);
                }
                MetadataRecord::Topic { id, name, config }
            }
            3 => {
                let key = take_key(buf)?;
                let state = PartitionImage {
                    replicas: buf.take_ints()?,
                    in_sync: buf.take_ints()?,
                    leader: buf.try_get_i32().ok()?,
                    leader_epoch: buf.try_get_i32().ok()?,
                    partition_epoch: buf.try_get_i32().ok()?,
                };
                MetadataRecord::Partition { key, state }
            }
            4 => MetadataRecord::PartitionChange {
                key: take_key(buf)?,
                leader: buf.try_get_i32().ok()?,
                leader_epoch: buf.try_get_i32().ok()?,
                in_sync: buf.take_ints()?,
            },
            5 => MetadataRecord::RemoveTopic { id: buf.take_uuid()? },
            6 => MetadataRecord::ProducerIds { next: buf.try_get_i64().ok()? },
            _ => return None,
        };
        buf.is_empty().then_some(record)
    }
}

fn put_key(buf: &mut BytesMut, key: PartitionKey) {
    buf.put_uuid(key.topic);
    buf.put_i32(key.index);
}

fn take_key(buf: &mut Bytes) -> Option<PartitionKey> {
    Some(PartitionKey { topic: buf.take_uuid()?, index: buf.try_get_i32().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_reads_back_as_written() {
        let key = PartitionKey { topic: Uuid::from_u128(1), index: 2 };
        let state = PartitionImage {
            replicas: vec![1, 2],
            in_sync: vec![1],
            leader: 1,
            leader_epoch: 3,
            partition_epoch: 4,
        };
        let config = BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
        let (host, incarnation) = ("broker-1".to_owned(), Uuid::from_u128(9));
        for record in [
            MetadataRecord::RegisterBroker { node: 1, epoch: 7, incarnation, host, port: 9092 },
            MetadataRecord::FenceBroker { node: 1, fenced: false },
            MetadataRecord::Topic { id: Uuid::from_u128(1), name: "orders".into(), config },
            MetadataRecord::Partition { key, state },
            MetadataRecord::PartitionChange { key, leader: NO_LEADER, leader_epoch: 4, in_sync: vec![] },
            MetadataRecord::RemoveTopic { id: Uuid::from_u128(1) },
            MetadataRecord::ProducerIds { next: 1_000 },
        ] {
            let bytes = record.encode();
            assert_eq!(MetadataRecord::decode(bytes.clone()), Some(record));
            for length in 0..bytes.len() {
                assert_eq!(MetadataRecord::decode(bytes.slice(..length)), None, "cut to {length}");
            }
        }
    }
}

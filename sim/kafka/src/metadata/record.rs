//! The records of the metadata's log: what changed, and the bytes that brokers fetch.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::{LeaderRecovery, NodeId, PartitionImage, PartitionKey};
use crate::wire::primitive::{Put, Take};

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
        /// Where it stands, if it says so.
        rack: Option<String>,
    },
    /// A registered broker is fenced, unfenced or begins to shut down (`BrokerRegistrationChangeRecord`).
    BrokerChange {
        /// The broker.
        node: NodeId,
        /// Whether it is fenced from now on; `None` leaves that.
        fenced: Option<bool>,
        /// It is in controlled shutdown from now on, until it registers again.
        in_controlled_shutdown: bool,
    },
    /// A topic exists.
    Topic {
        /// Its id.
        id: Uuid,
        /// Its name.
        name: String,
        /// Its settings by Kafka's names, as it was created with.
        config: BTreeMap<String, String>,
    },
    /// A setting changed.
    Config {
        /// Whose.
        resource: ConfigResource,
        /// Kafka's name of it.
        name: String,
        /// Its new value; `None` takes it away.
        value: Option<String>,
    },
    /// What is known of eligible leaders is void: the min ISR that it was reckoned with changed (`ClearElrRecord`).
    ClearElr {
        /// In this topic; `None` for all topics.
        topic: Option<Uuid>,
    },
    /// A partition exists.
    Partition {
        /// Which.
        key: PartitionKey,
        /// Its replicas and its leader.
        state: PartitionImage,
    },
    /// A partition's leader, in-sync replicas or eligible leaders changed.
    PartitionChange {
        /// Which.
        key: PartitionKey,
        /// How.
        change: PartitionChange,
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

/// Whose settings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigResource {
    /// Of all brokers.
    Brokers,
    /// Of one broker.
    Broker(NodeId),
    /// Of a topic.
    Topic(Uuid),
}

/// What changed in a partition; `None` leaves a field as it was. As Kafka's `PartitionChangeRecord`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionChange {
    /// The new leader, [`NO_LEADER`](super::NO_LEADER) or the one before; each of them is a leader epoch of its own.
    pub leader: Option<NodeId>,
    /// The new in-sync replicas.
    pub in_sync: Option<Vec<NodeId>>,
    /// The new eligible leader replicas.
    pub elr: Option<Vec<NodeId>>,
    /// The new last known leader.
    pub last_known_elr: Option<Vec<NodeId>>,
    /// The new recovery state.
    pub leader_recovery: Option<LeaderRecovery>,
}

impl PartitionChange {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == PartitionChange::default()
    }
}

impl MetadataRecord {
    /// The record as bytes.
    pub fn encode(&self) -> Bytes {
        let mut buf = BytesMut::new();
        match self {
            MetadataRecord::RegisterBroker { node, epoch, incarnation, host, port, rack } => {
                buf.put_u8(0);
                buf.put_i32(*node);
                buf.put_i64(*epoch);
                buf.put_uuid(*incarnation);
                buf.put_text(host);
                buf.put_u16(*port);
                put_optional(&mut buf, rack.as_ref(), |buf, rack| buf.put_text(rack));
            }
            MetadataRecord::BrokerChange { node, fenced, in_controlled_shutdown } => {
                buf.put_u8(1);
                buf.put_i32(*node);
                buf.put_i8(fenced.map_or(-1, i8::from));
                buf.put_u8(u8::from(*in_controlled_shutdown));
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
                buf.put_ints(&state.elr);
                buf.put_ints(&state.last_known_elr);
                buf.put_i32(state.leader);
                buf.put_i8(state.leader_recovery.code());
                buf.put_i32(state.leader_epoch);
                buf.put_i32(state.partition_epoch);
            }
            MetadataRecord::PartitionChange { key, change } => {
                buf.put_u8(4);
                put_key(&mut buf, *key);
                put_optional(&mut buf, change.leader.as_ref(), |buf, leader| buf.put_i32(*leader));
                for nodes in [&change.in_sync, &change.elr, &change.last_known_elr] {
                    put_optional(&mut buf, nodes.as_ref(), |buf, nodes| buf.put_ints(nodes));
                }
                put_optional(&mut buf, change.leader_recovery.as_ref(), |buf, state| {
                    buf.put_i8(state.code())
                });
            }
            MetadataRecord::RemoveTopic { id } => {
                buf.put_u8(5);
                buf.put_uuid(*id);
            }
            MetadataRecord::ProducerIds { next } => {
                buf.put_u8(6);
                buf.put_i64(*next);
            }
            MetadataRecord::Config { resource, name, value } => {
                buf.put_u8(7);
                match resource {
                    ConfigResource::Brokers => buf.put_u8(0),
                    ConfigResource::Broker(node) => {
                        buf.put_u8(1);
                        buf.put_i32(*node);
                    }
                    ConfigResource::Topic(id) => {
                        buf.put_u8(2);
                        buf.put_uuid(*id);
                    }
                }
                buf.put_text(name);
                put_optional(&mut buf, value.as_ref(), |buf, value| buf.put_text(value));
            }
            MetadataRecord::ClearElr { topic } => {
                buf.put_u8(8);
                put_optional(&mut buf, topic.as_ref(), |buf, topic| buf.put_uuid(*topic));
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
                rack: take_optional(buf, Take::take_text)?,
            },
            1 => MetadataRecord::BrokerChange {
                node: buf.try_get_i32().ok()?,
                fenced: match buf.try_get_i8().ok()? {
                    -1 => None,
                    fenced => Some(fenced != 0),
                },
                in_controlled_shutdown: buf.try_get_u8().ok()? != 0,
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
                    elr: buf.take_ints()?,
                    last_known_elr: buf.take_ints()?,
                    leader: buf.try_get_i32().ok()?,
                    leader_recovery: LeaderRecovery::from_code(buf.try_get_i8().ok()?)?,
                    leader_epoch: buf.try_get_i32().ok()?,
                    partition_epoch: buf.try_get_i32().ok()?,
                };
                MetadataRecord::Partition { key, state }
            }
            4 => MetadataRecord::PartitionChange {
                key: take_key(buf)?,
                change: PartitionChange {
                    leader: take_optional(buf, |buf| buf.try_get_i32().ok())?,
                    in_sync: take_optional(buf, Take::take_ints)?,
                    elr: take_optional(buf, Take::take_ints)?,
                    last_known_elr: take_optional(buf, Take::take_ints)?,
                    leader_recovery: take_optional(buf, |buf| {
                        LeaderRecovery::from_code(buf.try_get_i8().ok()?)
                    })?,
                },
            },
            5 => MetadataRecord::RemoveTopic { id: buf.take_uuid()? },
            6 => MetadataRecord::ProducerIds { next: buf.try_get_i64().ok()? },
            7 => MetadataRecord::Config {
                resource: match buf.try_get_u8().ok()? {
                    0 => ConfigResource::Brokers,
                    1 => ConfigResource::Broker(buf.try_get_i32().ok()?),
                    2 => ConfigResource::Topic(buf.take_uuid()?),
                    _ => return None,
                },
                name: buf.take_text()?,
                value: take_optional(buf, Take::take_text)?,
            },
            8 => MetadataRecord::ClearElr { topic: take_optional(buf, Take::take_uuid)? },
            _ => return None,
        };
        buf.is_empty().then_some(record)
    }
}

fn put_optional<T>(buf: &mut BytesMut, value: Option<&T>, put: impl Fn(&mut BytesMut, &T)) {
    buf.put_u8(u8::from(value.is_some()));
    if let Some(value) = value {
        put(buf, value);
    }
}

fn take_optional<T>(buf: &mut Bytes, take: impl Fn(&mut Bytes) -> Option<T>) -> Option<Option<T>> {
    if buf.try_get_u8().ok()? == 0 { Some(None) } else { take(buf).map(Some) }
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
    use crate::metadata::NO_LEADER;

    #[test]
    fn every_record_reads_back_as_written() {
        let key = PartitionKey { topic: Uuid::from_u128(1), index: 2 };
        let state = PartitionImage {
            elr: vec![2],
            leader_recovery: LeaderRecovery::Recovering,
            leader_epoch: 3,
            partition_epoch: 4,
            ..PartitionImage::new(vec![1, 2], vec![1])
        };
        let change = PartitionChange {
            leader: Some(NO_LEADER),
            in_sync: Some(vec![]),
            last_known_elr: Some(vec![1]),
            ..PartitionChange::default()
        };
        let (resource, name) = (ConfigResource::Broker(1), "min.insync.replicas".to_owned());
        let config = BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
        let (host, incarnation) = ("broker-1".to_owned(), Uuid::from_u128(9));
        for record in [
            MetadataRecord::RegisterBroker {
                node: 1,
                epoch: 7,
                incarnation,
                host,
                port: 9092,
                rack: Some("a".into()),
            },
            MetadataRecord::BrokerChange { node: 1, fenced: Some(false), in_controlled_shutdown: false },
            MetadataRecord::BrokerChange { node: 1, fenced: None, in_controlled_shutdown: true },
            MetadataRecord::Topic { id: Uuid::from_u128(1), name: "orders".into(), config },
            MetadataRecord::Partition { key, state },
            MetadataRecord::PartitionChange { key, change },
            MetadataRecord::RemoveTopic { id: Uuid::from_u128(1) },
            MetadataRecord::ProducerIds { next: 1_000 },
            MetadataRecord::Config { resource, name, value: Some("2".into()) },
            MetadataRecord::ClearElr { topic: Some(Uuid::from_u128(1)) },
        ] {
            let bytes = record.encode();
            assert_eq!(MetadataRecord::decode(bytes.clone()), Some(record));
            for length in 0..bytes.len() {
                assert_eq!(MetadataRecord::decode(bytes.slice(..length)), None, "cut to {length}");
            }
        }
    }
}

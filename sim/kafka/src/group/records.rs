//! The records of `__consumer_offsets`, in Kafka's own format: offsets (key versions 0 and 1) and groups (key version 2).
//!
//! Values are written in version 3, the last before the flexible ones; an offset that carries its own time of expiry in
//! version 1, which has a place for it. A value of null is a tombstone.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{ClassicGroup, CommittedOffset};
use crate::config::millis;
use crate::wire::primitive::{Put, Take};

const OFFSET_KEY: i16 = 1;
const GROUP_KEY: i16 = 2;
const VALUE_VERSION: i16 = 3;
/// The only version of an offset with a time of expiry; it has no leader epoch.
const EXPIRING_VERSION: i16 = 1;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupRecord {
    /// What a group has read of a partition; `None` forgets it.
    Offset {
        /// The group.
        group: String,
        /// The topic's name.
        topic: String,
        /// The partition's number.
        partition: i32,
        /// The commit.
        value: Option<CommittedOffset>,
    },
    /// A group and its members; `None` forgets it.
    Group {
        /// The group.
        group: String,
        /// As it was after a rebalance.
        value: Option<StoredGroup>,
    },
}

/// A group as its log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredGroup {
    /// `consumer`; empty if it has never had a member.
    pub protocol_type: String,
    /// Of the last rebalance.
    pub generation: i32,
    /// The protocol that all speak.
    pub protocol: Option<String>,
    /// The member that assigns.
    pub leader: Option<String>,
    /// Since when it is in its state, in milliseconds; -1 if it was not said.
    pub timestamp_ms: i64,
    /// Its members.
    pub members: Vec<StoredMember>,
}

/// A member as the group's log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMember {
    /// Given by the coordinator.
    pub id: String,
    /// Of a static member.
    pub instance: Option<String>,
    /// For tools.
    pub client_id: String,
    /// For tools.
    pub client_host: String,
    /// How long it may take to join anew.
    pub rebalance_timeout: Duration,
    /// How long it may be silent.
    pub session_timeout: Duration,
    /// What it told the assignor.
    pub subscription: Bytes,
    /// What it reads.
    pub assignment: Bytes,
}

impl StoredGroup {
    /// A new group. Its first member may be in it by now, but in no generation: it would come back as one that speaks
    /// nothing and keeps all others out. Kafka leaves it out (`newEmptyGroupMetadataRecord`).
    pub(super) fn empty(group: &ClassicGroup) -> StoredGroup {
        StoredGroup {
            protocol_type: String::new(),
            generation: 0,
            protocol: None,
            leader: None,
            timestamp_ms: group.state_since().as_millis() as i64,
            members: Vec::new(),
        }
    }

    /// The group as it is now; `assignments`, where given, in place of what its members have.
    pub(super) fn of(group: &ClassicGroup, assignments: Option<&BTreeMap<String, Bytes>>) -> StoredGroup {
        let assignment = |member: &super::Member| match assignments {
            Some(assignments) => assignments.get(&member.id).cloned().unwrap_or_default(),
            None => member.assignment.clone(),
        };
        let chosen = group.protocol().unwrap_or_default().to_owned();
        let member = |member: &super::Member| StoredMember {
            id: member.id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout: member.rebalance_timeout,
            session_timeout: member.session_timeout,
            subscription: member
                .protocols
                .iter()
                .find(|protocol| protocol.name == chosen)
                .map(|protocol| protocol.metadata.clone())
                .unwrap_or_default(),
            assignment: assignment(member),
        };
        StoredGroup {
            protocol_type: group.protocol_type().unwrap_or_default().to_owned(),
            generation: group.generation(),
            protocol: group.protocol().map(str::to_owned),
            leader: group.leader().map(str::to_owned),
            timestamp_ms: group.state_since().as_millis() as i64,
            members: group.members().map(member).collect(),
        }
    }
}

impl GroupRecord {
    /// Key and value.
    pub fn encode(&self) -> (Option<Bytes>, Option<Bytes>) {
        let mut key = BytesMut::new();
        let value = match self {
            GroupRecord::Offset { group, topic, partition, value } => {
                key.put_i16(OFFSET_KEY);
                key.put_text(group);
                key.put_text(topic);
                key.put_i32(*partition);
                value.as_ref().map(encode_offset)
            }
            GroupRecord::Group { group, value } => {
                key.put_i16(GROUP_KEY);
                key.put_text(group);
                value.as_ref().map(encode_group)
            }
        };
        (Some(key.freeze()), value)
    }

    /// The record of this key and value; `None` if they are none of ours.
    pub fn decode(key: Option<Bytes>, value: Option<Bytes>) -> Option<GroupRecord> {
        let mut key = key?;
        match key.try_get_i16().ok()? {
            0 | OFFSET_KEY => {
                let (group, topic) = (key.take_text()?, key.take_text()?);
                let partition = key.try_get_i32().ok()?;
                let value = match value {
                    Some(value) => Some(decode_offset(value)?),
                    None => None,
                };
                Some(GroupRecord::Offset { group, topic, partition, value })
            }
            GROUP_KEY => {
                let group = key.take_text()?;
                let value = match value {
                    Some(value) => Some(decode_group(value)?),
                    None => None,
                };
                Some(GroupRecord::Group { group, value })
            }
            _ => None,
        }
    }
}

fn encode_offset(offset: &CommittedOffset) -> Bytes {
    let mut buf = BytesMut::new();
    let version = if offset.expire_timestamp_ms.is_some() { EXPIRING_VERSION } else { VALUE_VERSION };
    buf.put_i16(version);
    buf.put_i64(offset.offset);
    if version == VALUE_VERSION {
        buf.put_i32(offset.leader_epoch);
    }
    buf.put_text(&offset.metadata);
    buf.put_i64(offset.commit_timestamp_ms);
    if let Some(expire) = offset.expire_timestamp_ms {
        buf.put_i64(expire);
    }
    buf.freeze()
}

fn decode_offset(mut value: Bytes) -> Option<CommittedOffset> {
    let buf = &mut value;
    let version = buf.try_get_i16().ok().filter(|version| (0..=VALUE_VERSION).contains(version))?;
    Some(CommittedOffset {
        offset: buf.try_get_i64().ok()?,
        leader_epoch: if version >= 3 { buf.try_get_i32().ok()? } else { -1 },
        metadata: buf.take_text()?,
        commit_timestamp_ms: buf.try_get_i64().ok()?,
        expire_timestamp_ms: match version {
            EXPIRING_VERSION => Some(buf.try_get_i64().ok()?).filter(|time| *time >= 0),
            _ => None,
        },
    })
}

fn encode_group(group: &StoredGroup) -> Bytes {
    let mut buf = BytesMut::new();
    buf.put_i16(VALUE_VERSION);
    buf.put_text(&group.protocol_type);
    buf.put_i32(group.generation);
    buf.put_nullable_text(group.protocol.as_deref());
    buf.put_nullable_text(group.leader.as_deref());
    buf.put_i64(group.timestamp_ms);
    buf.put_i32(group.members.len() as i32);
    for member in &group.members {
        buf.put_text(&member.id);
        buf.put_nullable_text(member.instance.as_deref());
        buf.put_text(&member.client_id);
        buf.put_text(&member.client_host);
        buf.put_i32(member.rebalance_timeout.as_millis() as i32);
        buf.put_i32(member.session_timeout.as_millis() as i32);
        buf.put_blob(&member.subscription);
        buf.put_blob(&member.assignment);
    }
    buf.freeze()
}

fn decode_group(mut value: Bytes) -> Option<StoredGroup> {
    let buf = &mut value;
    let version = buf.try_get_i16().ok().filter(|version| (0..=VALUE_VERSION).contains(version))?;
    let mut group = StoredGroup {
        protocol_type: buf.take_text()?,
        generation: buf.try_get_i32().ok()?,
        protocol: buf.take_nullable_text()?,
        leader: buf.take_nullable_text()?,
        timestamp_ms: if version >= 2 { buf.try_get_i64().ok()? } else { -1 },
        members: Vec::new(),
    };
    for _ in 0..buf.try_get_i32().ok()? {
        let id = buf.take_text()?;
        let instance = if version >= 3 { buf.take_nullable_text()? } else { None };
        let (client_id, client_host) = (buf.take_text()?, buf.take_text()?);
        let rebalance_ms = if version >= 1 { Some(buf.try_get_i32().ok()?) } else { None };
        let session_ms = buf.try_get_i32().ok()?;
        // A member of old had one timeout for both.
        let rebalance_ms = rebalance_ms.filter(|ms| *ms >= 0).unwrap_or(session_ms);
        group.members.push(StoredMember {
            id,
            instance,
            client_id,
            client_host,
            rebalance_timeout: millis(rebalance_ms.max(0)),
            session_timeout: millis(session_ms.max(0)),
            subscription: buf.take_blob()?,
            assignment: buf.take_blob()?,
        });
    }
    Some(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_reads_back_as_written() {
        let member = StoredMember {
            id: "m-1".into(),
            instance: Some("i-1".into()),
            client_id: "client".into(),
            client_host: "/order-1".into(),
            rebalance_timeout: Duration::from_secs(300),
            session_timeout: Duration::from_secs(45),
            subscription: Bytes::from_static(b"topics"),
            assignment: Bytes::from_static(b"partitions"),
        };
        let stored = StoredGroup {
            protocol_type: "consumer".into(),
            generation: 4,
            protocol: Some("range".into()),
            leader: Some("m-1".into()),
            timestamp_ms: 7,
            members: vec![member],
        };
        let offset = CommittedOffset {
            offset: 5,
            leader_epoch: 1,
            metadata: "m".into(),
            commit_timestamp_ms: 6,
            expire_timestamp_ms: None,
        };
        let expiring = CommittedOffset { leader_epoch: -1, expire_timestamp_ms: Some(9), ..offset.clone() };
        let at = |value| GroupRecord::Offset { group: "g".into(), topic: "t".into(), partition: 3, value };
        let group = |value| GroupRecord::Group { group: "g".into(), value };
        for record in [at(Some(offset)), at(Some(expiring)), at(None), group(Some(stored)), group(None)] {
            let (key, value) = record.encode();
            assert_eq!(GroupRecord::decode(key, value), Some(record));
        }
    }
}

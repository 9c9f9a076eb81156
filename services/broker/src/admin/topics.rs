//! Topics, their partitions, and the offsets to ask for.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::PartitionId;

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; `None` takes the broker's `num.partitions`.
    pub partitions: Option<i32>,
    /// How many replicas; `None` takes the broker's `default.replication.factor`.
    pub replication_factor: Option<i16>,
    /// Topic settings by Kafka's names.
    pub config: BTreeMap<String, String>,
}

impl NewTopic {
    /// A topic with so many partitions, the rest as the broker has it.
    pub fn new(name: impl Into<String>, partitions: i32) -> NewTopic {
        NewTopic {
            name: name.into(),
            partitions: Some(partitions),
            replication_factor: None,
            config: BTreeMap::new(),
        }
    }
}

/// A topic as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: Arc<str>,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionDescription>,
}

/// A partition as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionDescription {
    /// Its number.
    pub partition: PartitionId,
    /// The broker that leads it; `None` while there is none.
    pub leader: Option<i32>,
    /// How often its leadership has changed; `None` where the client cannot tell.
    pub leader_epoch: Option<i32>,
    /// The brokers that hold it.
    pub replicas: Vec<i32>,
    /// Those in sync.
    pub in_sync: Vec<i32>,
    /// Those out of sync that hold everything up to the high watermark all the same (KIP-966); empty where the client
    /// or the cluster cannot tell.
    pub eligible_leaders: Vec<i32>,
}

/// Which offset of a partition is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first that is kept.
    Earliest,
    /// The next to be written, as readers see it.
    Latest,
    /// The first with this time or a later one.
    At(context::Timestamp),
    /// The record with the largest time (KIP-734).
    LargestTimestamp,
}

/// How a partition's leader is chosen anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElectionType {
    /// The first replica of the list, if it is in sync.
    Preferred,
    /// Any replica that is up, if there is no leader; records may be lost.
    Unclean,
}

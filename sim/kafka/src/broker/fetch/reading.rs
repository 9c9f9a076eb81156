//! Who reads, how much, and how far.

use kafka_protocol::messages::FetchRequest;

use crate::log::Log;
use crate::metadata::NodeId;
use crate::partition::Partition;

/// The isolation level of readers of committed records.
const READ_COMMITTED: i8 = 1;

/// What consumers bring as their replica id.
const CONSUMER: i32 = -1;

/// Who reads, and how much.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) version: i16,
    /// Where a reader says that it is; empty if it does not.
    pub(super) rack: String,
    pub(super) min_bytes: usize,
    pub(super) max_bytes: usize,
    pub(super) up_to: UpTo,
    /// Only the leader may answer.
    pub(super) only_leader: bool,
    pub(super) follower: Option<FollowerId>,
}

/// How far somebody reads (`FetchIsolation`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum UpTo {
    /// A follower, or a tool that debugs (replica id -2).
    LogEnd,
    /// A consumer.
    HighWatermark,
    /// A consumer of committed records only (`isolation.level=read_committed`).
    LastStable,
}

/// A follower, as its fetch names it.
#[derive(Clone, Copy, Debug)]
pub(super) struct FollowerId {
    pub(super) node: NodeId,
    pub(super) broker_epoch: i64,
}

impl Reading {
    pub(super) fn new(version: i16, request: &FetchRequest, max_bytes: i32) -> Reading {
        let (node, broker_epoch) = if version >= 15 {
            (request.replica_state.replica_id.0, request.replica_state.replica_epoch)
        } else {
            (request.replica_id.0, -1)
        };
        let max_bytes = request.max_bytes.min(max_bytes).max(0) as usize;
        Reading {
            version,
            rack: if version >= 11 { request.rack_id.to_string() } else { String::new() },
            min_bytes: (request.min_bytes.max(0) as usize).min(max_bytes),
            max_bytes,
            up_to: UpTo::of(node, request.isolation_level),
            only_leader: node >= 0 || (node == CONSUMER && version < 11),
            follower: (node >= 0).then_some(FollowerId { node, broker_epoch }),
        }
    }
}

impl UpTo {
    /// How far the one reads who brings this replica id and this isolation level.
    pub(in crate::broker) fn of(replica_id: i32, isolation_level: i8) -> UpTo {
        match (replica_id, isolation_level) {
            (CONSUMER, READ_COMMITTED) => UpTo::LastStable,
            (CONSUMER, _) => UpTo::HighWatermark,
            _ => UpTo::LogEnd,
        }
    }

    /// What is read is before it.
    pub(in crate::broker) fn offset(self, partition: &Partition, log: &Log) -> i64 {
        match self {
            UpTo::LogEnd => log.end_offset(),
            UpTo::HighWatermark => partition.high_watermark,
            UpTo::LastStable => partition.last_stable_offset(log),
        }
    }
}

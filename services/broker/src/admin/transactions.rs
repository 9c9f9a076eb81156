//! Transactional ids as their coordinators know them, and producers as leaders know them.

use std::time::Duration;

use context::Timestamp;

use crate::{Offset, TopicPartition};

/// A transactional id as its coordinator lists it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransactionListing {
    /// `transactional.id`.
    pub transactional_id: String,
    /// The producer that holds it now.
    pub producer_id: i64,
    /// Kafka's name of the state: `Empty`, `Ongoing`, `PrepareCommit`, `PrepareAbort`, `CompleteCommit`,
    /// `CompleteAbort`, `PrepareEpochFence`, `Dead`.
    pub state: String,
}

/// A transactional id as its coordinator describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionDescription {
    /// `transactional.id`.
    pub transactional_id: String,
    /// As in [`TransactionListing::state`].
    pub state: String,
    /// The producer that holds it now.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// `transaction.timeout.ms`.
    pub timeout: Duration,
    /// When the open transaction began; `None` without one.
    pub began: Option<Timestamp>,
    /// The partitions in the open transaction, in order.
    pub partitions: Vec<TopicPartition>,
}

/// A producer as the leader of a partition knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerDescription {
    /// Its id.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i32,
    /// The sequence of its last record; -1 without one.
    pub last_sequence: i32,
    /// When it wrote last, by the records' time; `None` if never.
    pub last_write: Option<Timestamp>,
    /// The epoch of the coordinator that wrote its last marker; `None` without one.
    pub coordinator_epoch: Option<i32>,
    /// Where its open transaction begins in this partition; `None` without one.
    pub transaction_start: Option<Offset>,
}

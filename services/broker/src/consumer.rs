//! Reading records, alone or in a group.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::{ConsumerRecord, Error, Offset, OffsetAndMetadata, TopicPartition};

/// What a member knows of its group; goes into a transaction with offsets (KIP-447).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupMetadata {
    /// `group.id`.
    pub group_id: String,
    /// The generation it joined last; -1 outside a group.
    pub generation_id: i32,
    /// Its member id; empty outside a group.
    pub member_id: String,
    /// `group.instance.id`, if set.
    pub group_instance_id: Option<String>,
}

/// Hears of assignments. Called from within [`Consumer::poll`], [`Consumer::unsubscribe`] and [`Consumer::close`], never at
/// other times.
pub trait RebalanceListener: Send + 'static {
    /// These partitions were given to the member, in addition to what it holds.
    fn assigned(&mut self, partitions: &[TopicPartition]) {
        let _ = partitions;
    }

    /// These partitions are being taken away and are still the member's: what is returned is committed before they go.
    fn revoked(&mut self, partitions: &[TopicPartition]) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        let _ = partitions;
        Vec::new()
    }

    /// These partitions already belong to others: the group went on without the member. Nothing can be committed.
    fn lost(&mut self, partitions: &[TopicPartition]) {
        let _ = partitions;
    }
}

/// Listens to nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRebalanceListener;

impl RebalanceListener for NoRebalanceListener {}

/// Reads records. It keeps its membership alive by itself, as long as it is polled within `max.poll.interval.ms`.
///
/// Dropped without [`Consumer::close`], it stops as a crashed process does: it leaves no group, and its members wait
/// for `session.timeout.ms`.
#[async_trait]
pub trait Consumer: Send {
    /// Joins `group.id` for `topics`, in place of an earlier subscription. The join itself happens in later polls.
    ///
    /// # Errors
    /// [`crate::ErrorCode::InvalidState`] without a `group.id`, or with partitions assigned by hand.
    async fn subscribe(
        &mut self,
        topics: &[Arc<str>],
        listener: Box<dyn RebalanceListener>,
    ) -> Result<(), Error>;

    /// Calls the listener's `revoked`, commits what it returns, and leaves the group and its partitions.
    ///
    /// # Errors
    /// When the last commit cannot be made; the subscription has ended all the same.
    async fn unsubscribe(&mut self) -> Result<(), Error>;

    /// Reads these partitions and no others, without joining a group. Positions start at the group's committed
    /// offsets if `group.id` is set and has them, else by `auto.offset.reset`, until a seek.
    ///
    /// # Errors
    /// [`crate::ErrorCode::InvalidState`] when subscribed.
    async fn assign(&mut self, partitions: &[TopicPartition]) -> Result<(), Error>;

    /// Gives what was fetched, or waits for it at most `timeout`. Empty when nothing came. Records of one partition
    /// come in order, at most `max.poll.records` of all (500 unless set; librdkafka has no such property, this
    /// interface takes Java's name).
    ///
    /// # Errors
    /// Retriable: poll again. Fenced or fatal: close.
    async fn poll(&mut self, timeout: Duration) -> Result<Vec<ConsumerRecord>, Error>;

    /// Commits these positions for the group and waits for the answer.
    ///
    /// # Errors
    /// [`crate::ErrorCode::Broker`] with ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID or REBALANCE_IN_PROGRESS when the group
    /// went on or is about to; nothing was committed then.
    async fn commit(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<(), Error>;

    /// What the group has committed for these partitions; those without are left out.
    ///
    /// # Errors
    /// Retriable when the coordinator does not answer within `timeout`.
    async fn committed(
        &mut self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> Result<Vec<(TopicPartition, OffsetAndMetadata)>, Error>;

    /// Reads on from `offset` at the next poll; what was fetched ahead is dropped.
    ///
    /// # Errors
    /// [`crate::ErrorCode::InvalidState`] for a partition that is not assigned.
    fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<(), Error>;

    /// Gives no records of these partitions until they are resumed; polls keep the membership alive meanwhile.
    fn pause(&mut self, partitions: &[TopicPartition]);

    /// Ends a pause.
    fn resume(&mut self, partitions: &[TopicPartition]);

    /// The offset that the next poll reads from; `None` before the first fetch, or if it is not assigned.
    fn position(&self, partition: &TopicPartition) -> Option<Offset>;

    /// The partitions held now, in order.
    fn assignment(&self) -> Vec<TopicPartition>;

    /// For a transaction with offsets.
    fn group_metadata(&self) -> GroupMetadata;

    /// Calls the listener's `revoked`, commits what it returns (and the positions, if `enable.auto.commit` is on),
    /// leaves the group, and closes.
    ///
    /// # Errors
    /// When the last commit or the leave found no answer in time; it is closed all the same.
    async fn close(self: Box<Self>) -> Result<(), Error>;
}

//! What waits until records are committed: produces with `acks=all`, and the records of coordinators.
//!
//! Kafka's produce purgatory (`DelayedProduce`) and `Partition.checkEnoughReplicasReachOffset`. A wait ends when the high
//! watermark reaches its offset, when this broker no longer leads, or at its deadline; then [`Broker::go_on`] carries on
//! with what waited. A wait that is over at once carries on at once.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use context::Timestamp;
use kafka_protocol::ResponseError;

use super::groups::GroupThen;
use super::produce::ProducedPart;
use super::{Broker, Timer, Turn};
use crate::group::OFFSETS_TOPIC;
use crate::log::verification::VerificationGuard;
use crate::metadata::PartitionKey;
use crate::partition::{AppendRules, Appended};

/// What goes on when records are committed, or cannot be.
#[derive(Clone, Debug)]
pub(super) enum Then {
    /// One partition of a produce with `acks=all`.
    Produce(ProducedPart),
    /// A record of the transaction coordinator.
    Transaction(u64),
    /// The marker of a transaction, and its place in the coordinator's request.
    Marker { request: u64, slot: usize },
    /// The group coordinator.
    Group(Box<GroupThen>),
}

/// Whether too few replicas in sync refuse a batch of the broker's own: the `acks` of its append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acks {
    /// The group coordinator's: they do not. It waits for the high watermark by itself (`CoordinatorPartitionWriter`).
    Leader,
    /// The transaction coordinator's, and markers': they do.
    All,
}

#[derive(Clone, Debug)]
struct Wait {
    key: PartitionKey,
    required_offset: i64,
    deadline: Timestamp,
    then: Then,
}

/// Everything that waits.
#[derive(Clone, Debug, Default)]
pub(super) struct Waits {
    next: u64,
    by_id: BTreeMap<u64, Wait>,
    by_partition: BTreeMap<PartitionKey, BTreeSet<(i64, u64)>>,
}

impl Waits {
    fn add(&mut self, wait: Wait) -> u64 {
        let id = self.next;
        self.next += 1;
        self.by_partition.entry(wait.key).or_default().insert((wait.required_offset, id));
        self.by_id.insert(id, wait);
        id
    }

    fn take(&mut self, id: u64) -> Option<Wait> {
        let wait = self.by_id.remove(&id)?;
        let of_partition = self.by_partition.get_mut(&wait.key).expect("a wait is listed with its partition");
        of_partition.remove(&(wait.required_offset, id));
        if of_partition.is_empty() {
            self.by_partition.remove(&wait.key);
        }
        Some(wait)
    }

    /// The wait of a partition that is over first.
    fn first(&self, key: PartitionKey) -> Option<u64> {
        self.by_partition.get(&key)?.first().map(|(_, id)| *id)
    }
}

impl Broker {
    /// Appends a batch of the broker's own to a partition that it leads, and goes on with `then` when it is committed, or
    /// with the error that says why it may not be. The deadline is when that error is `REQUEST_TIMED_OUT`; the records stay
    /// in the log.
    ///
    /// # Errors
    /// What Kafka answers before the append: nothing was appended, and `then` is not gone on with.
    pub(super) fn append_own(
        &mut self,
        turn: &mut Turn<'_>,
        key: PartitionKey,
        (batch, acks): (&Bytes, Acks),
        deadline: Timestamp,
        then: Then,
    ) -> Result<Appended, ResponseError> {
        let appended = self.append_unanswered(turn, key, (batch, None), acks)?;
        self.when_committed(turn, key, appended.required_offset, deadline, then);
        Ok(appended)
    }

    /// As [`Broker::append_own`], but nothing goes on when it is committed: whoever waits says so with
    /// [`Broker::when_committed`]. What allows a batch for a producer to open a transaction comes with it.
    ///
    /// # Errors
    /// As there.
    pub(super) fn append_unanswered(
        &mut self,
        turn: &mut Turn<'_>,
        key: PartitionKey,
        (batch, verified): (&Bytes, Option<VerificationGuard>),
        acks: Acks,
    ) -> Result<Appended, ResponseError> {
        let in_sync = self.led(key)?.leadership.as_ref().map_or(0, |leadership| leadership.in_sync().len());
        if acks == Acks::All && self.lacks_replicas(key, in_sync) {
            return Err(ResponseError::NotEnoughReplicas);
        }
        let partition = self.partitions.get_mut(&key).expect("a partition that is led is here");
        let log = turn.disk.logs.get_mut(&key).expect("a partition that is led has a log");
        let rules = AppendRules::new(&self.settings, &self.image.topics[&key.topic].settings);
        let header = partition.append_own(turn.now, log, &rules, batch, verified)?;
        let appended = Appended {
            base_offset: header.base_offset,
            append_time_ms: -1,
            required_offset: header.next_offset(),
            duplicate: false,
        };
        self.advance_high_watermark(turn, key);
        self.partition_changed(turn, key);
        Ok(appended)
    }

    /// Goes on with `then` when everything before `required_offset` is committed, or cannot be.
    pub(super) fn when_committed(
        &mut self,
        turn: &mut Turn<'_>,
        key: PartitionKey,
        required_offset: i64,
        deadline: Timestamp,
        then: Then,
    ) {
        if let Some(result) = self.over(key, required_offset, &then) {
            return self.go_on(turn, then, result);
        }
        let id = self.waits.add(Wait { key, required_offset, deadline, then });
        self.timers.set(deadline, Timer::Commit(id));
    }

    /// The high watermark, the leader or the in-sync replicas of a partition changed: ends the waits that are over.
    pub(super) fn settle_waits(&mut self, turn: &mut Turn<'_>, key: PartitionKey) {
        while let Some(id) = self.waits.first(key) {
            let Wait { required_offset, then, .. } = &self.waits.by_id[&id];
            let Some(result) = self.over(key, *required_offset, then) else { return };
            let wait = self.waits.take(id).expect("it was just there");
            self.timers.cancel(wait.deadline, Timer::Commit(id));
            self.go_on(turn, wait.then, result);
        }
    }

    pub(super) fn commit_due(&mut self, turn: &mut Turn<'_>, id: u64) {
        // It may have been committed in time.
        if let Some(wait) = self.waits.take(id) {
            self.go_on(turn, wait.then, Err(ResponseError::RequestTimedOut));
        }
    }

    /// How a wait ends; `None` if it goes on. The group coordinator asks for the high watermark alone, also for markers.
    fn over(
        &self,
        key: PartitionKey,
        required_offset: i64,
        then: &Then,
    ) -> Option<Result<(), ResponseError>> {
        let by_group = match then {
            Then::Group(_) => true,
            Then::Marker { .. } => self.image.topic(OFFSETS_TOPIC).is_some_and(|topic| topic.id == key.topic),
            Then::Produce(_) | Then::Transaction(_) => false,
        };
        match self.led(key) {
            Ok(partition) if by_group => partition.reached(required_offset, 0),
            _ => self.committed(key, required_offset),
        }
    }

    /// How a wait with `acks=all` ends; `None` if it goes on.
    pub(super) fn committed(
        &self,
        key: PartitionKey,
        required_offset: i64,
    ) -> Option<Result<(), ResponseError>> {
        match self.led(key) {
            Err(error) => Some(Err(error)),
            Ok(partition) => partition.reached(required_offset, self.min_in_sync(key)),
        }
    }

    /// Carries on with what waited.
    fn go_on(&mut self, turn: &mut Turn<'_>, then: Then, result: Result<(), ResponseError>) {
        match then {
            Then::Produce(part) => self.produce_committed(turn, part, result),
            Then::Transaction(id) => self.transaction_appended(turn, id, result),
            Then::Marker { request, slot } => self.marker_done(turn, request, slot, result),
            Then::Group(then) => self.group_goes_on(turn, *then, result),
        }
    }
}

//! The group coordinator of a broker: its records go to the replicated offsets topic, and its clients are answered when
//! they are committed. Kafka's `CoordinatorRuntime`.
//!
//! - A group's decisions become records of its partition of `__consumer_offsets`, appended as with `acks=1`: too few
//!   replicas in sync refuse none. State is changed at once, so that the next request builds on it; whoever asked waits
//!   for the high watermark, and so does everybody who asks after that ([`Broker::answer_when_written`]).
//! - What is refused before the append changes nothing. After it a timeout tells the client, and the records stay: a
//!   commit that failed so takes effect when the high watermark moves on.
//! - A partition is loaded when this broker is elected for it, and given up when it no longer leads it.
//!
//! The rules are in [`crate::group`]. Requests: membership in `members`, offsets in `offset_commit`, `offset_fetch` and
//! `txn_offset_commit`, what tools ask in `admin`. Start reading at [`Broker::write_group`].

mod admin;
mod members;
mod offset_commit;
mod offset_fetch;
mod txn_offset_commit;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ResponseKind;

use super::commit::{Acks, Then};
use super::{Broker, Turn};
use crate::config::millis;
use crate::core::ConnectionId;
use crate::group::{Decision, Entry, GroupRecord, OFFSETS_TOPIC, Timer, Token};
use crate::log::batch::{BatchHeader, HEADER_LEN};
use crate::log::marker::Marker;
use crate::log::verification::VerificationGuard;
use crate::log::{Log, record};
use crate::metadata::PartitionKey;
use crate::wire::Call;

use admin::DeletedGroup;
use offset_fetch::FetchedGroup;

/// How fast a partition of the offsets topic is loaded, in bytes a millisecond: a hundred megabytes a second. A load takes
/// a millisecond at least, so that COORDINATOR_LOAD_IN_PROGRESS shows.
const LOAD_BYTES_PER_MS: u64 = 100_000;

/// Tombstones in one batch: enough to be few batches, and far below any `max.message.bytes` that makes sense.
const TOMBSTONES_IN_BATCH: usize = 500;

/// Whose batch it is, if it is part of a transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct OfTransaction {
    producer_id: i64,
    producer_epoch: i16,
    verified: Option<VerificationGuard>,
}

/// What goes on in the group coordinator when records are committed, or cannot be.
#[derive(Clone, Debug)]
pub(super) enum GroupThen {
    /// A client is answered.
    Reply { connection: ConnectionId, call: Call, response: Box<ResponseKind> },
    /// A part of an answer that is gathered from several partitions is there: these of its groups.
    Part { gathering: u64, groups: Vec<usize> },
    /// A group goes on.
    Decided { group: String, epoch: i32, decision: Decision },
    /// Nothing goes on: a member waits for its group, and must be told if this takes too long.
    Waiting { group: String, token: Token },
}

/// Answers about several groups, which may live in several partitions of the offsets topic.
#[derive(Clone, Debug)]
enum Gathered {
    Fetched(Vec<FetchedGroup>),
    Deleted(Vec<DeletedGroup>),
}

#[derive(Clone, Debug)]
struct Gathering {
    connection: ConnectionId,
    call: Call,
    gathered: Gathered,
    missing: usize,
}

/// The answers that are being gathered.
#[derive(Clone, Debug, Default)]
pub(super) struct Gatherings {
    next: u64,
    by_id: BTreeMap<u64, Gathering>,
}

impl Broker {
    fn offsets_partition(&self, index: i32) -> Option<PartitionKey> {
        Some(PartitionKey { topic: self.image.topic(OFFSETS_TOPIC)?.id, index })
    }

    /// Up to where a partition of the offsets topic is committed.
    fn offsets_high_watermark(&self, index: i32) -> i64 {
        let partition = self.offsets_partition(index).and_then(|key| self.partitions.get(&key));
        partition.map_or(0, |partition| partition.high_watermark)
    }

    /// Appends records to a partition of the offsets topic and applies them. A group's own record is what the group has
    /// decided, and is not applied: the group goes on when it is committed.
    ///
    /// # Errors
    /// What clients are told: see [`coordinator_error`]. Nothing was appended then.
    fn write_group(
        &mut self,
        turn: &mut Turn<'_>,
        index: i32,
        records: Vec<GroupRecord>,
        transaction: Option<OfTransaction>,
    ) -> Result<(), ResponseError> {
        if records.is_empty() {
            return Ok(());
        }
        let key = self.offsets_partition(index).ok_or(ResponseError::NotCoordinator)?;
        let encoded: Vec<_> = records.iter().map(GroupRecord::encode).collect();
        let batch = record::write_batch(turn.now_ms(), &encoded);
        let batch = match transaction {
            Some(transaction) => transactional(&batch, transaction),
            None => batch,
        };
        let max = self.image.topics[&key.topic].settings.max_message_bytes(&self.settings);
        if batch.len() > max as usize {
            return Err(coordinator_error(ResponseError::MessageTooLarge));
        }
        let verified = transaction.and_then(|transaction| transaction.verified);
        let appended =
            self.append_unanswered(turn, key, (&batch, verified), Acks::Leader).map_err(coordinator_error)?;
        let producer = transaction.map(|transaction| transaction.producer_id);
        let entries = (appended.base_offset..).zip(records).filter_map(|(at, record)| {
            let decided = matches!(record, GroupRecord::Group { value: Some(_), .. });
            (!decided).then_some(Entry::Record { at, producer, record })
        });
        // What is applied now is at or above the high watermark as it was before.
        let high_watermark = self.offsets_high_watermark(index).min(appended.base_offset);
        self.coordinator.replay(turn.now, index, entries, high_watermark);
        self.coordinator.written(index, appended.required_offset);
        self.arm_expiry(turn, index);
        Ok(())
    }

    /// Writes tombstones, in batches that fit. Nobody waits for them: where they cannot be written now, they come again
    /// with the next look at what has expired, as in Kafka.
    fn write_tombstones(&mut self, turn: &mut Turn<'_>, index: i32, records: Vec<GroupRecord>) {
        let mut rest = records;
        while !rest.is_empty() {
            let later = rest.split_off(rest.len().min(TOMBSTONES_IN_BATCH));
            if let Err(error) = self.write_group(turn, index, std::mem::replace(&mut rest, later), None) {
                return turn.note(format!("tombstones for {OFFSETS_TOPIC}/{index} are not written: {error}"));
            }
        }
    }

    /// Answers when what was just written to a partition is committed, or at once that it could not be written.
    fn answer_write(
        &mut self,
        turn: &mut Turn<'_>,
        index: i32,
        written: Result<(), ResponseError>,
        connection: ConnectionId,
        call: &Call,
        response: impl Into<ResponseKind>,
    ) {
        match written {
            Ok(()) => self.answer_when_written(turn, index, connection, call, response),
            Err(error) => {
                let mut response = response.into();
                fail(&mut response, error);
                turn.respond(connection, call, response);
            }
        }
    }

    /// Answers when everything that the coordinator has written to a partition so far is committed.
    fn answer_when_written(
        &mut self,
        turn: &mut Turn<'_>,
        index: i32,
        connection: ConnectionId,
        call: &Call,
        response: impl Into<ResponseKind>,
    ) {
        if !self.must_wait(index) {
            return turn.respond(connection, call, response);
        }
        let then = GroupThen::Reply { connection, call: call.clone(), response: Box::new(response.into()) };
        self.go_on_when_written(turn, index, then);
    }

    /// Whether something that the coordinator has written to a partition is not committed yet.
    fn must_wait(&self, index: i32) -> bool {
        let written = self.coordinator.shard_at(index).map_or(0, |shard| shard.written());
        written > self.offsets_high_watermark(index)
    }

    fn go_on_when_written(&mut self, turn: &mut Turn<'_>, index: i32, then: GroupThen) {
        let written = self.coordinator.shard_at(index).map(|shard| shard.written());
        let (Some(key), Some(written)) = (self.offsets_partition(index), written) else {
            return self.group_goes_on(turn, then, Err(ResponseError::NotCoordinator));
        };
        let deadline = turn.now + millis(self.settings.offsets_commit_timeout_ms);
        self.when_committed(turn, key, written, deadline, Then::Group(Box::new(then)));
    }

    /// Carries on with what waited for the offsets topic.
    pub(super) fn group_goes_on(
        &mut self,
        turn: &mut Turn<'_>,
        then: GroupThen,
        result: Result<(), ResponseError>,
    ) {
        let result = result.map_err(coordinator_error);
        match then {
            GroupThen::Reply { connection, call, mut response } => {
                if let Err(error) = result {
                    fail(&mut response, error);
                }
                turn.respond(connection, &call, *response);
            }
            GroupThen::Part { gathering, groups } => {
                let Some(gathered) = self.gatherings.by_id.get_mut(&gathering) else { return };
                if let Err(error) = result {
                    groups.into_iter().for_each(|group| gathered.gathered.fail(group, error));
                }
                gathered.missing -= 1;
                if gathered.missing == 0
                    && let Some(done) = self.gatherings.by_id.remove(&gathering)
                {
                    done.respond(turn);
                }
            }
            GroupThen::Decided { group, epoch, decision } => {
                let mut answers = Vec::new();
                self.coordinator.decided(turn.now, &group, epoch, decision, result, &mut answers);
                self.answer_members(turn, &group, answers);
            }
            GroupThen::Waiting { group, token } => {
                if let Err(error) = result
                    && let Some(answer) = self.coordinator.waited_too_long(&group, &token, error)
                {
                    self.answer_member(turn, &group, answer);
                }
            }
        }
    }

    /// Answers about several groups when what was written before is committed in all their partitions. `parts` says which
    /// of them, by their place, live in which partition.
    fn gather(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        gathered: Gathered,
        parts: BTreeMap<i32, Vec<usize>>,
    ) {
        let parts: Vec<_> = parts.into_iter().filter(|(index, _)| self.must_wait(*index)).collect();
        let gathering = Gathering { connection, call: call.clone(), gathered, missing: parts.len() };
        if parts.is_empty() {
            return gathering.respond(turn);
        }
        let id = self.gatherings.next;
        self.gatherings.next += 1;
        self.gatherings.by_id.insert(id, gathering);
        for (index, groups) in parts {
            self.go_on_when_written(turn, index, GroupThen::Part { gathering: id, groups });
        }
    }

    pub(super) fn group_timer(&mut self, turn: &mut Turn<'_>, timer: Timer) {
        match timer {
            Timer::Load { index, epoch } => self.groups_read(turn, index, epoch),
            Timer::Expire { index } => {
                let expired = self.coordinator.expire(turn.now, index);
                self.write_tombstones(turn, index, expired);
                self.arm_expiry(turn, index);
            }
            Timer::Group(group) => {
                let mut answers = Vec::new();
                self.coordinator.tick(turn.now, &group, &mut answers);
                self.answer_members(turn, &group, answers);
            }
        }
    }

    fn arm_expiry(&mut self, turn: &Turn<'_>, index: i32) {
        if let Some(at) = self.coordinator.arm_expiry(turn.now, index) {
            self.timers.set(at, super::Timer::Group(Timer::Expire { index }));
        }
    }

    /// This broker was elected for a partition of the offsets topic: it begins to read its log.
    pub(super) fn load_groups(&mut self, turn: &mut Turn<'_>, key: PartitionKey) {
        let partitions = self.image.topics[&key.topic].partitions.len();
        let epoch = self.partitions[&key].leader_epoch;
        if self.coordinator.elected(key.index, partitions, epoch) {
            let log = &turn.disk.logs[&key];
            let bytes: u64 = log.batches().map(|batch| batch.bytes.len() as u64).sum();
            let takes = Duration::from_millis(1 + bytes / LOAD_BYTES_PER_MS);
            let timer = Timer::Load { index: key.index, epoch };
            self.timers.set(turn.now + takes, super::Timer::Group(timer));
        }
    }

    /// The log of a partition is read: its groups go on.
    fn groups_read(&mut self, turn: &mut Turn<'_>, index: i32, epoch: i32) {
        let Some(key) = self.offsets_partition(index) else { return };
        let Some(log) = turn.disk.logs.get(&key) else { return };
        let (entries, unreadable) = read_entries(log);
        let log_end = log.end_offset();
        let high_watermark = self.offsets_high_watermark(index);
        let Some(groups) = self.coordinator.load(turn.now, index, epoch, entries, (log_end, high_watermark))
        else {
            return;
        };
        let node = self.node;
        if unreadable > 0 {
            turn.note(format!(
                "broker {node} skips {unreadable} unreadable records of {OFFSETS_TOPIC}/{index}"
            ));
        }
        if !groups.is_empty() {
            let count = groups.len();
            turn.note(format!("broker {node} coordinates {count} groups of {OFFSETS_TOPIC}/{index}"));
        }
        for (group, answers) in groups {
            self.answer_members(turn, &group, answers);
        }
        self.arm_expiry(turn, index);
    }

    pub(super) fn unload_groups(&mut self, turn: &mut Turn<'_>, index: i32) {
        let mut answers = Vec::new();
        self.coordinator.resigned(index, &mut answers);
        for answer in answers {
            self.answer_member(turn, "", answer);
        }
    }

    /// A topic is deleted: what was committed for it is forgotten.
    pub(super) fn forget_topic(&mut self, turn: &mut Turn<'_>, topic: &str) {
        for index in self.coordinator.partitions() {
            if topic == OFFSETS_TOPIC {
                // The groups go with it.
                self.unload_groups(turn, index);
            } else if self.coordinator.ready(index).is_ok() {
                let shard = self.coordinator.shard_at(index).expect("it is ready");
                let tombstones = shard.tombstones_of_topic(topic);
                self.write_tombstones(turn, index, tombstones);
            }
        }
    }

    /// Whether the marker of a transaction may be written to a partition of the offsets topic: its coordinator must be here
    /// and loaded.
    ///
    /// # Errors
    /// `NOT_COORDINATOR`, `COORDINATOR_LOAD_IN_PROGRESS`.
    pub(super) fn may_mark_offsets(&self, index: i32) -> Result<(), ResponseError> {
        self.coordinator.ready(index)
    }

    /// A marker that ends a producer's transaction was appended at `offset` of a partition of the offsets topic: what the
    /// producer committed there takes effect, or is dropped.
    pub(super) fn marker_on_offsets(
        &mut self,
        turn: &mut Turn<'_>,
        key: PartitionKey,
        marker: &Marker,
        offset: i64,
    ) {
        let high_watermark = self.offsets_high_watermark(key.index).min(offset);
        let (producer, commit) = (marker.producer_id, marker.committed);
        let entry = Entry::Marker { at: offset, producer, commit };
        self.coordinator.replay(turn.now, key.index, [entry], high_watermark);
        self.coordinator.written(key.index, offset + 1);
        self.arm_expiry(turn, key.index);
    }
}

impl Gathered {
    fn fail(&mut self, group: usize, error: ResponseError) {
        match self {
            Gathered::Fetched(groups) => groups[group].fail(error),
            Gathered::Deleted(groups) => groups[group].result = Err(error),
        }
    }
}

impl Gathering {
    fn respond(self, turn: &mut Turn<'_>) {
        let Gathering { connection, call, gathered, .. } = self;
        match gathered {
            Gathered::Fetched(groups) => offset_fetch::respond(turn, connection, &call, groups),
            Gathered::Deleted(groups) => admin::respond_deleted(turn, connection, &call, groups),
        }
    }
}

/// What clients are told of a write that failed, as `CoordinatorOperationExceptionHelper` translates it: the log's errors
/// are not theirs.
pub(super) fn coordinator_error(error: ResponseError) -> ResponseError {
    match error {
        ResponseError::UnknownTopicOrPartition
        | ResponseError::NotEnoughReplicas
        | ResponseError::RequestTimedOut => ResponseError::CoordinatorNotAvailable,
        ResponseError::NotLeaderOrFollower | ResponseError::KafkaStorageError => {
            ResponseError::NotCoordinator
        }
        ResponseError::MessageTooLarge
        | ResponseError::RecordListTooLarge
        | ResponseError::InvalidFetchSize => ResponseError::UnknownServerError,
        // A verification that failed: the client tries again, without looking for another coordinator.
        ResponseError::NetworkException => ResponseError::CoordinatorLoadInProgress,
        error => error,
    }
}

/// Turns an answer that was ready into one that failed.
fn fail(response: &mut ResponseKind, error: ResponseError) {
    let error = error.code();
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    match response {
        ResponseKind::Heartbeat(response) => response.error_code = error,
        ResponseKind::LeaveGroup(response) => {
            response.error_code = error;
            response.members.clear();
        }
        // What the coordinator was not asked about keeps its error.
        ResponseKind::OffsetCommit(response) => {
            let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
            let asked = partitions.filter(|partition| partition.error_code != unknown);
            asked.for_each(|partition| partition.error_code = error);
        }
        ResponseKind::TxnOffsetCommit(response) => {
            let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
            let asked = partitions.filter(|partition| partition.error_code != unknown);
            asked.for_each(|partition| partition.error_code = error);
        }
        ResponseKind::OffsetDelete(response) => {
            response.error_code = error;
            response.topics.clear();
        }
        _ => unreachable!("no other answer waits for the offsets topic"),
    }
}

/// The same batch as part of a producer's transaction. Sequences are not checked where a coordinator appends.
fn transactional(batch: &Bytes, transaction: OfTransaction) -> Bytes {
    const TRANSACTIONAL: i16 = 0b1_0000;
    let header = BatchHeader::parse(batch).expect("a batch that was just written is one");
    let header = BatchHeader {
        attributes: TRANSACTIONAL,
        producer_id: transaction.producer_id,
        producer_epoch: transaction.producer_epoch,
        base_sequence: 0,
        ..header
    };
    crate::log::batch::assemble(&header, &batch[HEADER_LEN..])
}

/// What a log of the offsets topic says, in order, and how many records cannot be read. Kafka gives such a partition up; a
/// client cannot write one.
fn read_entries(log: &Log) -> (Vec<Entry>, usize) {
    let (mut entries, mut unreadable) = (Vec::new(), 0);
    for batch in log.batches() {
        let header = &batch.header;
        if header.is_control() {
            if let Some(marker) = Marker::read(header, &batch.bytes) {
                let (at, producer) = (header.base_offset, marker.producer_id);
                entries.push(Entry::Marker { at, producer, commit: marker.committed });
            }
            continue;
        }
        let producer = header.is_transactional().then_some(header.producer_id);
        let Ok(records) = record::read_all(header, &batch.bytes) else {
            unreadable += 1;
            continue;
        };
        for record in records {
            let at = header.base_offset + i64::from(record.offset_delta);
            match GroupRecord::decode(record.key, record.value) {
                Some(record) => entries.push(Entry::Record { at, producer, record }),
                None => unreadable += 1,
            }
        }
    }
    (entries, unreadable)
}

fn code(result: Result<(), ResponseError>) -> i16 {
    result.map_or_else(|error| error.code(), |()| 0)
}

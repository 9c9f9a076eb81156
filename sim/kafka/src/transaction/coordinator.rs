//! The transactional ids of the partitions of `__transaction_state` that one broker leads (Kafka's
//! `TransactionCoordinator` and `TransactionStateManager`).
//!
//! It decides and remembers; its broker appends, sends and answers. Every question ends in [`Effect`]s: an answer at once,
//! or a record to append, whose end comes back to [`Coordinator::appended`] and then answers. Nobody hears of a change
//! that is not committed.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::ResponseError;

use super::expiry::Clock;
use super::markers::{Completion, Markers};
use super::metadata::{TopicPartition, TransactionMetadata, Transit, is_exhausted};
use super::record::TransactionRecord;
use super::state::{TransactionState, TransactionVersion};
use super::{NO_EPOCH, ProducerIds};
use crate::group::partition_for;
use crate::metadata::NodeId;

/// What the coordinator takes from its broker's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionSettings {
    /// The cluster's level of `transaction.version`: how the coordinator's own aborts are done.
    pub version: TransactionVersion,
    /// `transaction.max.timeout.ms`.
    pub max_timeout_ms: i32,
    /// `transaction.abort.timed.out.transaction.cleanup.interval.ms`.
    pub abort_interval_ms: i64,
    /// `transactional.id.expiration.ms`.
    pub expiration_ms: i64,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`.
    pub expiration_interval_ms: i64,
    /// `request.timeout.ms`.
    pub request_timeout_ms: i64,
}

/// Names one who waits for an answer. The broker knows who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// A producer and its epoch, as clients name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    /// The producer id.
    pub id: i64,
    /// Its epoch.
    pub epoch: i16,
}

impl Producer {
    /// What is told where there is none.
    pub const NONE: Producer = Producer { id: super::NO_PRODUCER_ID, epoch: NO_EPOCH };
}

/// What the broker must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Append to a partition of the transaction topic, and hand it back with the end.
    Append(Append),
    /// Answer one who waits.
    Answer {
        /// Who.
        ticket: Ticket,
        /// With what.
        result: Result<Producer, ResponseError>,
    },
    /// Call again then.
    Wake {
        /// With what.
        timer: Timer,
        /// When, in milliseconds.
        at_ms: i64,
    },
    /// A line for the trace.
    Note(String),
}

/// What the coordinator waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Transactions that are open for too long: [`Coordinator::abort_timed_out`].
    AbortTimedOut,
    /// Ids that are silent for too long: [`Coordinator::expire`].
    RemoveExpired,
    /// Markers that could not be written: [`Coordinator::retry_markers`].
    RetryMarkers,
    /// Ends of transactions that could not be appended: [`Coordinator::retry_appends`].
    RetryAppends,
}

/// Who asked for a transaction's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ender {
    /// Its producer.
    Producer(Ticket),
    /// Another one, which was initialized under the same id.
    Successor(Ticket),
    /// The coordinator: it was open for too long.
    Timeout,
}

/// What an append was for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Initialize(Ticket),
    Add(Ticket),
    End { ender: Ender, fences: bool },
    Complete,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Transit {
        id: String,
        to: Transit,
        purpose: Purpose,
    },
    /// Each id with its epoch.
    Forget(Vec<(String, i16)>),
}

/// A change whose append has ended.
struct Ended {
    coordinator_epoch: i32,
    id: String,
    to: Transit,
    purpose: Purpose,
}

/// Records to append, and what goes on when they are committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The partition of the transaction topic.
    pub partition: i32,
    /// How long the append may take, in milliseconds. Kafka gives a change the transaction's own timeout.
    pub timeout_ms: i64,
    pub(super) coordinator_epoch: i32,
    pub(super) change: Change,
}

impl Append {
    /// The records.
    pub fn records(&self) -> Vec<TransactionRecord> {
        match &self.change {
            Change::Transit { id, to, .. } => {
                vec![TransactionRecord { id: id.clone(), value: Some(to.clone()) }]
            }
            Change::Forget(ids) => {
                ids.iter().map(|(id, _)| TransactionRecord { id: id.clone(), value: None }).collect()
            }
        }
    }
}

/// The leader of a partition that a marker must go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leader {
    /// There is no such partition any more.
    Gone,
    /// It has none for now, or one that is away.
    Away,
    /// This broker.
    At(NodeId),
}

/// An InitProducerId with a transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitRequest {
    /// The transactional id.
    pub id: String,
    /// How long its transactions may be open, in milliseconds.
    pub timeout_ms: i32,
    /// What the producer had, if it goes on after an error (KIP-360).
    pub expected: Option<Producer>,
}

/// An AddPartitionsToTxn or AddOffsetsToTxn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// The transactional id.
    pub id: String,
    /// Who writes.
    pub producer: Producer,
    /// What is written to.
    pub partitions: BTreeSet<TopicPartition>,
    /// By which rules the transaction will be ended.
    pub version: TransactionVersion,
}

/// Whether a partition is in a transaction.
pub type Verified<'a> = (&'a TopicPartition, Result<(), ResponseError>);

/// A partition of the transaction topic that is here.
#[derive(Clone, Debug)]
pub(super) struct Led {
    pub(super) epoch: i32,
    pub(super) transactions: BTreeMap<String, TransactionMetadata>,
}

/// The transactional ids of one broker.
#[derive(Clone, Debug)]
pub struct Coordinator {
    pub(super) settings: TransactionSettings,
    /// Of the transaction topic; 0 as long as none is here.
    pub(super) partitions: usize,
    /// Partitions that are being read, with their epochs.
    pub(super) loading: BTreeMap<i32, i32>,
    pub(super) led: BTreeMap<i32, Led>,
    pub(super) markers: Markers,
    pub(super) clock: Clock,
    /// Where new producer ids come from.
    pub producer_ids: ProducerIds,
}

impl Coordinator {
    /// A coordinator of nothing.
    pub fn new(settings: TransactionSettings) -> Coordinator {
        Coordinator {
            settings,
            partitions: 0,
            loading: BTreeMap::new(),
            led: BTreeMap::new(),
            markers: Markers::default(),
            clock: Clock::default(),
            producer_ids: ProducerIds::default(),
        }
    }

    /// Its process starts: periodic work is done at whole intervals from now on.
    pub fn start(&mut self, now_ms: i64) {
        self.clock = Clock::new(now_ms);
    }

    /// A transactional id, if this broker coordinates it and it is known.
    pub fn transaction(&self, id: &str) -> Option<&TransactionMetadata> {
        self.led.get(&self.index(id))?.transactions.get(id)
    }

    pub(super) fn index(&self, id: &str) -> i32 {
        if self.partitions == 0 { -1 } else { partition_for(id, self.partitions) as i32 }
    }

    /// The partition of an id, if it is here.
    ///
    /// # Errors
    /// `COORDINATOR_LOAD_IN_PROGRESS`, `NOT_COORDINATOR`.
    pub(super) fn led(&mut self, id: &str) -> Result<&mut Led, ResponseError> {
        let index = self.index(id);
        if self.loading.contains_key(&index) {
            return Err(ResponseError::CoordinatorLoadInProgress);
        }
        self.led.get_mut(&index).ok_or(ResponseError::NotCoordinator)
    }

    /// An id that must be known, and the epoch of its partition.
    pub(super) fn known(&mut self, id: &str) -> Result<(i32, &mut TransactionMetadata), ResponseError> {
        if id.is_empty() {
            return Err(ResponseError::InvalidRequest);
        }
        let led = self.led(id)?;
        let epoch = led.epoch;
        let transaction = led.transactions.get_mut(id).ok_or(ResponseError::InvalidProducerIdMapping)?;
        Ok((epoch, transaction))
    }

    /// A producer starts under a transactional id, or goes on after an error.
    ///
    /// The answer is the producer, or: `INVALID_REQUEST` for an empty id, `INVALID_TRANSACTION_TIMEOUT`,
    /// `COORDINATOR_LOAD_IN_PROGRESS` (also while producer ids are on their way), `NOT_COORDINATOR`,
    /// `CONCURRENT_TRANSACTIONS` while anything of the id is under way or an open transaction was just aborted,
    /// `PRODUCER_FENCED`, or why the record could not be written.
    pub fn init_producer_id(
        &mut self,
        now_ms: i64,
        request: InitRequest,
        ticket: Ticket,
        out: &mut Vec<Effect>,
    ) {
        if let Err(error) = self.try_init(now_ms, request, ticket, out) {
            out.push(Effect::Answer { ticket, result: Err(error) });
        }
    }

    fn try_init(
        &mut self,
        now_ms: i64,
        request: InitRequest,
        ticket: Ticket,
        out: &mut Vec<Effect>,
    ) -> Result<(), ResponseError> {
        let InitRequest { id, timeout_ms, expected } = request;
        if id.is_empty() {
            return Err(ResponseError::InvalidRequest);
        }
        if !(1..=self.settings.max_timeout_ms).contains(&timeout_ms) {
            return Err(ResponseError::InvalidTransactionTimeout);
        }
        if !self.led(&id)?.transactions.contains_key(&id) {
            let producer_id = self.producer_ids.generate(now_ms)?;
            let created = TransactionMetadata::new(producer_id, timeout_ms, now_ms);
            self.led(&id)?.transactions.insert(id.clone(), created);
            self.arm_expiry(now_ms, out);
        }
        let (epoch, transaction) = self.known(&id)?;
        if transaction.pending.is_some() {
            return Err(ResponseError::ConcurrentTransactions);
        }
        if expected.is_some_and(|expected| !may_be(&transaction.current, expected)) {
            return Err(ResponseError::ProducerFenced);
        }
        match transaction.current.state {
            TransactionState::PrepareCommit | TransactionState::PrepareAbort => {
                Err(ResponseError::ConcurrentTransactions)
            }
            // The open transaction is aborted first, under an epoch that nobody is told. The client comes again, and
            // gets one more.
            TransactionState::Ongoing => self.abort(now_ms, &id, Ender::Successor(ticket), out),
            TransactionState::Empty | TransactionState::CompleteCommit | TransactionState::CompleteAbort => {
                let expected = expected.map(|expected| expected.epoch);
                let at_its_epoch = expected.is_none_or(|epoch| epoch == transaction.current.producer_epoch);
                let to = if transaction.is_exhausted() && at_its_epoch {
                    let producer_id = self.producer_ids.generate(now_ms)?;
                    let (_, transaction) = self.known(&id)?;
                    transaction.prepare_rotation(producer_id, timeout_ms, expected.is_some(), now_ms)?
                } else if transaction.is_exhausted() {
                    // Kafka throws here: it has no epoch to give, and the producer's is not the last.
                    return Err(ResponseError::UnknownServerError);
                } else {
                    transaction.prepare_epoch_bump(timeout_ms, expected, now_ms)?
                };
                self.append(epoch, id, to, Purpose::Initialize(ticket), out);
                Ok(())
            }
            TransactionState::Dead | TransactionState::PrepareEpochFence => {
                unreachable!("these states are only ever pending")
            }
        }
    }

    /// A producer's transaction grows, or starts.
    ///
    /// The answer is no error, or: `INVALID_REQUEST` for an empty id, `COORDINATOR_LOAD_IN_PROGRESS`, `NOT_COORDINATOR`,
    /// `CONCURRENT_TRANSACTIONS`, `INVALID_PRODUCER_ID_MAPPING`, `PRODUCER_FENCED`, or why the record could not be written.
    pub fn add_partitions(&mut self, now_ms: i64, request: Added, ticket: Ticket, out: &mut Vec<Effect>) {
        match self.try_add(now_ms, request, ticket, out) {
            Ok(true) => {}
            Ok(false) => out.push(Effect::Answer { ticket, result: Ok(Producer::NONE) }),
            Err(error) => out.push(Effect::Answer { ticket, result: Err(error) }),
        }
    }

    /// Whether something is to be written.
    fn try_add(
        &mut self,
        now_ms: i64,
        request: Added,
        ticket: Ticket,
        out: &mut Vec<Effect>,
    ) -> Result<bool, ResponseError> {
        let (epoch, transaction) = self.known(&request.id)?;
        // In this order since 4.1 (KAFKA-18575): while a transaction completes, its producer's id may be about to change.
        if transaction.pending.is_some() {
            return Err(ResponseError::ConcurrentTransactions);
        }
        check_producer(&transaction.current, request.producer)?;
        let current = &transaction.current;
        match current.state {
            TransactionState::PrepareCommit | TransactionState::PrepareAbort => {
                return Err(ResponseError::ConcurrentTransactions);
            }
            TransactionState::Ongoing if current.partitions.is_superset(&request.partitions) => {
                return Ok(false);
            }
            _ => {}
        }
        let to = transaction.prepare_add(request.partitions, request.version, now_ms)?;
        self.append(epoch, request.id, to, Purpose::Add(ticket), out);
        Ok(true)
    }

    /// Whether partitions are in a producer's transaction: what their leaders ask before they append (KIP-890). Each
    /// partition that is not gets `TRANSACTION_ABORTABLE`.
    ///
    /// # Errors
    /// Of all: `INVALID_REQUEST`, `COORDINATOR_LOAD_IN_PROGRESS`, `NOT_COORDINATOR`, `INVALID_PRODUCER_ID_MAPPING`,
    /// `PRODUCER_FENCED`, `CONCURRENT_TRANSACTIONS` while it is being ended.
    pub fn verify<'a>(
        &mut self,
        id: &str,
        producer: Producer,
        partitions: &'a BTreeSet<TopicPartition>,
    ) -> Result<Vec<Verified<'a>>, ResponseError> {
        let (_, transaction) = self.known(id)?;
        let current = &transaction.current;
        // What is pending does not matter: the leader looks again as it appends.
        check_producer(current, producer)?;
        if matches!(current.state, TransactionState::PrepareCommit | TransactionState::PrepareAbort) {
            return Err(ResponseError::ConcurrentTransactions);
        }
        let verified = |partition| {
            let known = current.partitions.contains(partition);
            (partition, if known { Ok(()) } else { Err(ResponseError::TransactionAbortable) })
        };
        Ok(partitions.iter().map(verified).collect())
    }

    pub(super) fn append(
        &mut self,
        coordinator_epoch: i32,
        id: String,
        to: Transit,
        purpose: Purpose,
        out: &mut Vec<Effect>,
    ) {
        out.push(Effect::Append(Append {
            partition: self.index(&id),
            timeout_ms: i64::from(to.timeout_ms),
            coordinator_epoch,
            change: Change::Transit { id, to, purpose },
        }));
    }

    /// An append is committed, or cannot be.
    pub fn appended(
        &mut self,
        now_ms: i64,
        append: Append,
        result: Result<(), ResponseError>,
        out: &mut Vec<Effect>,
    ) {
        let Append { coordinator_epoch, change, partition, .. } = append;
        match change {
            Change::Forget(ids) => self.forgotten(partition, coordinator_epoch, ids, result),
            Change::Transit { id, to, purpose } => {
                let result = result.map_err(coordinator_error);
                let result = result.and_then(|()| self.apply(coordinator_epoch, &id, &to));
                let ended = Ended { coordinator_epoch, id, to, purpose };
                match result {
                    Ok(()) => self.applied(now_ms, ended, out),
                    Err(error) => self.not_applied(now_ms, ended, error, out),
                }
            }
        }
    }

    /// The id, if its partition was not given up since.
    pub(super) fn same_epoch(
        &mut self,
        coordinator_epoch: i32,
        id: &str,
    ) -> Result<&mut TransactionMetadata, ResponseError> {
        let led = self.led(id)?;
        let here = if led.epoch == coordinator_epoch { led.transactions.get_mut(id) } else { None };
        here.ok_or(ResponseError::NotCoordinator)
    }

    fn apply(&mut self, coordinator_epoch: i32, id: &str, to: &Transit) -> Result<(), ResponseError> {
        self.same_epoch(coordinator_epoch, id)?.complete(to.clone());
        Ok(())
    }

    fn applied(&mut self, now_ms: i64, ended: Ended, out: &mut Vec<Effect>) {
        let Ended { coordinator_epoch, id, to, purpose } = ended;
        match purpose {
            Purpose::Initialize(ticket) => {
                let producer = Producer { id: to.producer_id, epoch: to.producer_epoch };
                out.push(Effect::Answer { ticket, result: Ok(producer) });
            }
            Purpose::Add(ticket) => {
                self.arm_abort(now_ms, &to, out);
                out.push(Effect::Answer { ticket, result: Ok(Producer::NONE) });
            }
            Purpose::End { ender, .. } => self.prepared(now_ms, coordinator_epoch, id, ender, out),
            Purpose::Complete => {}
        }
    }

    fn not_applied(&mut self, now_ms: i64, ended: Ended, error: ResponseError, out: &mut Vec<Effect>) {
        let Ended { coordinator_epoch, id, to, purpose } = ended;
        // Kafka retries only this one; what else may come is over with this coordinator.
        let retried = purpose == Purpose::Complete && error == ResponseError::CoordinatorNotAvailable;
        if let Ok(transaction) = self.same_epoch(coordinator_epoch, &id) {
            if !retried {
                transaction.pending = None;
            }
            if matches!(purpose, Purpose::End { fences: true, .. }) {
                transaction.failed_epoch_fence = true;
            }
        }
        match purpose {
            Purpose::Initialize(ticket)
            | Purpose::Add(ticket)
            | Purpose::End { ender: Ender::Producer(ticket) | Ender::Successor(ticket), .. } => {
                out.push(Effect::Answer { ticket, result: Err(error) });
            }
            Purpose::End { ender: Ender::Timeout, .. } => self.arm_abort_again(now_ms, out),
            Purpose::Complete if retried => {
                let completion = Completion { coordinator_epoch, to };
                self.retry_append_later(now_ms, id, completion, out);
            }
            Purpose::Complete => {
                out.push(Effect::Note(format!("the end of transaction {id} could not be written: {error}")));
            }
        }
    }
}

/// Whether a producer that goes on after an error may be who it says (Kafka's `isValidProducerId`).
fn may_be(current: &Transit, expected: Producer) -> bool {
    // The id is new here: it has expired meanwhile.
    current.producer_epoch == NO_EPOCH
        || expected.id == current.producer_id
        // A retry of the bump that changed the producer id, whose answer was lost.
        || (expected.id == current.previous_producer_id && is_exhausted(expected.epoch))
}

fn check_producer(current: &Transit, producer: Producer) -> Result<(), ResponseError> {
    if current.producer_id != producer.id {
        Err(ResponseError::InvalidProducerIdMapping)
    } else if current.producer_epoch != producer.epoch {
        Err(ResponseError::ProducerFenced)
    } else {
        Ok(())
    }
}

/// What a client is told of a failed append (`TransactionStateManager.appendTransactionToLog`).
fn coordinator_error(error: ResponseError) -> ResponseError {
    match error {
        ResponseError::UnknownTopicOrPartition
        | ResponseError::NotEnoughReplicas
        | ResponseError::NotEnoughReplicasAfterAppend
        | ResponseError::RequestTimedOut => ResponseError::CoordinatorNotAvailable,
        ResponseError::NotLeaderOrFollower | ResponseError::KafkaStorageError => {
            ResponseError::NotCoordinator
        }
        ResponseError::MessageTooLarge | ResponseError::RecordListTooLarge => {
            ResponseError::UnknownServerError
        }
        other => other,
    }
}

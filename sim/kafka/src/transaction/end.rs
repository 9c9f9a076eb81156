//! The end of a transaction: what EndTxn may do in which state, by the rules of `transaction.version` below 2 and of 2.
//!
//! Below 2 an EndTxn is taken whenever its epoch is the present one and the transaction is open: it does not say which
//! transaction it means (KAFKA-17754). Under 2 every end bumps the epoch, so that an EndTxn fits one transaction; a retry
//! is known by the epoch before. There an abort is taken without a transaction too, since the client does not know whether
//! its first batch opened one:
//!
//! | state           | abort, retry | abort          | commit, retry | commit |
//! |-----------------|--------------|----------------|---------------|--------|
//! | Empty           | fenced       | epoch bumped   | fenced        | invalid|
//! | CompleteAbort   | done         | epoch bumped   | invalid       | invalid|
//! | CompleteCommit  | invalid      | epoch bumped   | done          | invalid|

use kafka_protocol::ResponseError;

use super::NO_PRODUCER_ID;
use super::coordinator::{Coordinator, Effect, Ender, Producer, Purpose, Ticket};
use super::markers::{Completion, Entry};
use super::metadata::{TransactionMetadata, Transit};
use super::state::{TransactionState, TransactionVersion};

use TransactionState::{
    CompleteAbort, CompleteCommit, Dead, Empty, Ongoing, PrepareAbort, PrepareCommit, PrepareEpochFence,
};

/// An EndTxn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndRequest {
    /// The transactional id.
    pub id: String,
    /// Who ends it.
    pub producer: Producer,
    /// Commit, or abort.
    pub commit: bool,
    /// The rules: level 2 from version 5 of EndTxn on.
    pub version: TransactionVersion,
}

/// What an EndTxn may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Refused(ResponseError),
    /// It is a retry of one that was done.
    Done,
    /// The transaction is to be ended; `empty` if there is none.
    Prepare {
        empty: bool,
    },
}

use Verdict::{Done, Prepare, Refused};

const INVALID: Verdict = Refused(ResponseError::InvalidTxnState);
const CONCURRENT: Verdict = Refused(ResponseError::ConcurrentTransactions);

/// Kafka's `endTransactionWithTV1`, for clients.
pub(super) fn judge_v1(transaction: &TransactionMetadata, producer: Producer, commit: bool) -> Verdict {
    let current = &transaction.current;
    if current.producer_id != producer.id {
        return Refused(ResponseError::InvalidProducerIdMapping);
    }
    if current.producer_epoch != producer.epoch {
        return Refused(ResponseError::ProducerFenced);
    }
    if transaction.pending.is_some() {
        return CONCURRENT;
    }
    match current.state {
        Ongoing => Prepare { empty: false },
        CompleteCommit if commit => Done,
        CompleteAbort if !commit => Done,
        state => without_transaction(state, commit),
    }
}

/// Kafka's `endTransaction`, for clients.
pub(super) fn judge_v2(transaction: &TransactionMetadata, producer: Producer, commit: bool) -> Verdict {
    let current = &transaction.current;
    // First of all: while a transaction completes, its producer's id may be about to change.
    if transaction.pending.is_some() {
        return CONCURRENT;
    }
    let bumped = i32::from(current.producer_epoch) == i32::from(producer.epoch) + 1;
    let rotated = current.previous_producer_id == producer.id
        && producer.epoch == i16::MAX - 1
        && current.producer_epoch == 0;
    if current.producer_id != producer.id && !rotated {
        return Refused(ResponseError::InvalidProducerIdMapping);
    }
    let retry = bumped || rotated;
    let present = producer.epoch == current.producer_epoch;
    let known = match current.state {
        Empty | Ongoing | Dead | PrepareEpochFence => present,
        PrepareCommit | PrepareAbort => bumped,
        CompleteCommit | CompleteAbort => retry || present,
    };
    if !known {
        return Refused(ResponseError::ProducerFenced);
    }
    match current.state {
        Ongoing => Prepare { empty: false },
        CompleteCommit if commit && retry => Done,
        CompleteAbort if !commit && retry => Done,
        Empty if !commit => Prepare { empty: true },
        CompleteCommit | CompleteAbort if !commit && !retry => Prepare { empty: true },
        state => without_transaction(state, commit),
    }
}

fn without_transaction(state: TransactionState, commit: bool) -> Verdict {
    match state {
        PrepareCommit if commit => CONCURRENT,
        PrepareAbort if !commit => CONCURRENT,
        Dead | PrepareEpochFence => unreachable!("these states are only ever pending"),
        _ => INVALID,
    }
}

impl Coordinator {
    /// A producer ends its transaction.
    ///
    /// The answer is the producer as it is from then on (under level 2 with its next epoch), or: `INVALID_REQUEST` for an
    /// empty id, `COORDINATOR_LOAD_IN_PROGRESS` (also while producer ids are on their way), `NOT_COORDINATOR`,
    /// `INVALID_PRODUCER_ID_MAPPING`, `PRODUCER_FENCED`, `CONCURRENT_TRANSACTIONS`, `INVALID_TXN_STATE`, or why the record
    /// could not be written.
    pub fn end(&mut self, now_ms: i64, request: EndRequest, ticket: Ticket, out: &mut Vec<Effect>) {
        match self.try_end(now_ms, request, ticket, out) {
            Ok(None) => {}
            Ok(Some(producer)) => out.push(Effect::Answer { ticket, result: Ok(producer) }),
            Err(error) => out.push(Effect::Answer { ticket, result: Err(error) }),
        }
    }

    fn try_end(
        &mut self,
        now_ms: i64,
        request: EndRequest,
        ticket: Ticket,
        out: &mut Vec<Effect>,
    ) -> Result<Option<Producer>, ResponseError> {
        let EndRequest { id, producer, commit, version } = request;
        let (epoch, transaction) = self.known(&id)?;
        let judge = if version.bumps_epoch() { judge_v2 } else { judge_v1 };
        let empty = match judge(transaction, producer, commit) {
            Refused(error) => return Err(error),
            Done => {
                let current = &transaction.current;
                return Ok(Some(Producer { id: current.producer_id, epoch: current.producer_epoch }));
            }
            Prepare { empty } => empty,
        };
        let next_producer_id = if version.bumps_epoch() && transaction.is_exhausted() {
            self.producer_ids.generate(now_ms)?
        } else {
            NO_PRODUCER_ID
        };
        let (_, transaction) = self.known(&id)?;
        let state = if commit { PrepareCommit } else { PrepareAbort };
        // A client's requests follow the rules of level 0 or of level 2; only those are written down.
        let version = if version.bumps_epoch() { version } else { TransactionVersion::TV_0 };
        let to = transaction.prepare_end(state, version, next_producer_id, empty, now_ms)?;
        self.append(epoch, id, to, Purpose::End { ender: Ender::Producer(ticket), fences: false }, out);
        Ok(None)
    }

    /// Aborts an open transaction that its producer did not end, and fences the producer with a newer epoch.
    ///
    /// # Errors
    /// As [`TransactionMetadata::prepare_fence`].
    pub(super) fn abort(
        &mut self,
        now_ms: i64,
        id: &str,
        ender: Ender,
        out: &mut Vec<Effect>,
    ) -> Result<(), ResponseError> {
        let cluster = self.settings.version;
        let (epoch, transaction) = self.known(id)?;
        let fence = transaction.prepare_fence()?;
        assert_eq!(transaction.current.state, Ongoing, "only an open transaction is fenced");
        transaction.pending = None;
        let version = if cluster.bumps_epoch() {
            // The end bumps the epoch by itself (KAFKA-19367).
            cluster
        } else {
            // The newer epoch is known here before it is written, and told to nobody until then.
            transaction.current.producer_epoch = fence;
            transaction.current.last_producer_epoch = super::NO_EPOCH;
            TransactionVersion::TV_0
        };
        let to = transaction.prepare_end(PrepareAbort, version, NO_PRODUCER_ID, false, now_ms)?;
        self.append(epoch, id.to_owned(), to, Purpose::End { ender, fences: true }, out);
        Ok(())
    }

    /// The end of a transaction is decided and in the log: its producer is told, and the markers are on their way.
    pub(super) fn prepared(
        &mut self,
        now_ms: i64,
        coordinator_epoch: i32,
        id: String,
        ender: Ender,
        out: &mut Vec<Effect>,
    ) {
        let transaction = self.same_epoch(coordinator_epoch, &id).expect("its change was just applied");
        let to = transaction.prepare_complete(now_ms);
        let answer = match ender {
            Ender::Producer(ticket) => {
                Some((ticket, Ok(Producer { id: to.producer_id, epoch: to.producer_epoch })))
            }
            // It comes again until the abort is complete.
            Ender::Successor(ticket) => Some((ticket, Err(ResponseError::ConcurrentTransactions))),
            Ender::Timeout => None,
        };
        if let Some((ticket, result)) = answer {
            out.push(Effect::Answer { ticket, result });
        } else {
            out.push(Effect::Note(format!("transaction {id} was open for too long and is aborted")));
        }
        self.send_markers(coordinator_epoch, id, to, out);
    }

    /// Markers for all partitions of a prepared transaction; when they are written `to` is appended.
    pub(super) fn send_markers(
        &mut self,
        coordinator_epoch: i32,
        id: String,
        to: Transit,
        out: &mut Vec<Effect>,
    ) {
        let transaction = self.same_epoch(coordinator_epoch, &id).expect("markers are sent for what is here");
        let current = &transaction.current;
        let entry = Entry {
            id: id.clone(),
            coordinator_epoch,
            producer: Producer { id: current.producer_id, epoch: current.producer_epoch },
            commit: current.state == PrepareCommit,
            partitions: current.partitions.clone(),
        };
        self.markers.add(entry, Completion { coordinator_epoch, to });
        self.complete_if_marked(&id, out);
        self.drain_appends(out);
    }
}

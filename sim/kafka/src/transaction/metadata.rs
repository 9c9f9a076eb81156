//! One transactional id: its producer, its epoch, its transaction, and the changes that these may make (Kafka's
//! `TransactionMetadata`).
//!
//! A change is made in two steps. `prepare_…` says what the log shall hold and blocks all others (`pending`); when that
//! record is committed, [`TransactionMetadata::complete`] makes it so. While something is pending nothing else is
//! prepared, and clients are told CONCURRENT_TRANSACTIONS.

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;

use super::state::{TransactionState, TransactionVersion};
use super::{NO_EPOCH, NO_PRODUCER_ID};

/// A partition by its topic's name and its number.
pub type TopicPartition = (String, i32);

/// All that the log says of a transactional id: as it is, or as a record that is on its way will make it (Kafka's
/// `TxnTransitMetadata`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transit {
    /// The producer that the id stands for.
    pub producer_id: i64,
    /// The one before the last change.
    pub previous_producer_id: i64,
    /// The one that takes over when the markers are written, if this one's epochs are used up.
    pub next_producer_id: i64,
    /// The producer's epoch; -1 before the first InitProducerId is committed.
    pub producer_epoch: i16,
    /// The epoch before the last bump that the producer itself asked for, so that its retry is known; -1 if none.
    pub last_producer_epoch: i16,
    /// How long a transaction may be open, in milliseconds.
    pub timeout_ms: i32,
    /// Where it stands.
    pub state: TransactionState,
    /// What the transaction wrote to and has no marker yet.
    pub partitions: BTreeSet<TopicPartition>,
    /// When the transaction got its first partition, in milliseconds; -1 if it never had one.
    pub start_ms: i64,
    /// When any of this last changed, in milliseconds.
    pub update_ms: i64,
    /// The rules by which the transaction is ended.
    pub client_version: TransactionVersion,
}

/// The last epoch that a producer may use. One more is kept back, so that whoever uses this one can still be fenced.
pub(super) fn is_exhausted(epoch: i16) -> bool {
    epoch >= i16::MAX - 1
}

/// A transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionMetadata {
    /// As the log has it.
    pub(super) current: Transit,
    /// The state that a record on its way will bring.
    pub(super) pending: Option<TransactionState>,
    /// A bump of the epoch could not be written. It was told to nobody, so that the next fence need not bump again.
    pub(super) failed_epoch_fence: bool,
}

impl TransactionMetadata {
    /// An id that nobody has used before.
    pub fn new(producer_id: i64, timeout_ms: i32, now_ms: i64) -> TransactionMetadata {
        TransactionMetadata::restore(Transit {
            producer_id,
            previous_producer_id: NO_PRODUCER_ID,
            next_producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_EPOCH,
            last_producer_epoch: NO_EPOCH,
            timeout_ms,
            state: TransactionState::Empty,
            partitions: BTreeSet::new(),
            start_ms: -1,
            update_ms: now_ms,
            client_version: TransactionVersion::TV_0,
        })
    }

    /// An id as its log has it.
    pub fn restore(current: Transit) -> TransactionMetadata {
        TransactionMetadata { current, pending: None, failed_epoch_fence: false }
    }

    /// As it is now.
    pub fn current(&self) -> &Transit {
        &self.current
    }

    /// Where a record on its way will bring it.
    pub fn pending(&self) -> Option<TransactionState> {
        self.pending
    }

    pub(super) fn is_exhausted(&self) -> bool {
        is_exhausted(self.current.producer_epoch)
    }

    /// The producer starts anew, or goes on after an error (KIP-360) and then names the epoch that it has.
    ///
    /// # Errors
    /// `PRODUCER_FENCED` for an epoch that is neither the present one nor the one before the producer's own last bump.
    pub fn prepare_epoch_bump(
        &mut self,
        timeout_ms: i32,
        expected: Option<i16>,
        now_ms: i64,
    ) -> Result<Transit, ResponseError> {
        assert!(!self.is_exhausted(), "producer {} has no epoch left", self.current.producer_id);
        let (epoch, last) = (self.current.producer_epoch, self.current.last_producer_epoch);
        let (producer_epoch, last_producer_epoch) = match expected {
            None => (epoch + 1, NO_EPOCH),
            Some(expected) if epoch == NO_EPOCH || expected == epoch => (epoch + 1, epoch),
            // A retry: what was given out then is given out again.
            Some(expected) if expected == last => (epoch, last),
            Some(_) => return Err(ResponseError::ProducerFenced),
        };
        let started = Transit { producer_epoch, last_producer_epoch, ..self.started(timeout_ms, now_ms) };
        self.prepare(started)
    }

    /// The producer starts anew under another id, since the epochs of this one are used up. `knows_epoch` if it named its
    /// own, so that its retry will be known.
    pub fn prepare_rotation(
        &mut self,
        producer_id: i64,
        timeout_ms: i32,
        knows_epoch: bool,
        now_ms: i64,
    ) -> Result<Transit, ResponseError> {
        let last_producer_epoch = if knows_epoch { self.current.producer_epoch } else { NO_EPOCH };
        let started = self.started(timeout_ms, now_ms);
        self.prepare(Transit { producer_id, producer_epoch: 0, last_producer_epoch, ..started })
    }

    fn started(&self, timeout_ms: i32, now_ms: i64) -> Transit {
        Transit {
            state: TransactionState::Empty,
            partitions: BTreeSet::new(),
            timeout_ms,
            start_ms: -1,
            update_ms: now_ms,
            ..self.current.clone()
        }
    }

    /// Partitions join the transaction, and open it if it is not open.
    pub fn prepare_add(
        &mut self,
        partitions: BTreeSet<TopicPartition>,
        version: TransactionVersion,
        now_ms: i64,
    ) -> Result<Transit, ResponseError> {
        let mut to = self.current.clone();
        if to.state != TransactionState::Ongoing {
            to.start_ms = now_ms;
        }
        to.state = TransactionState::Ongoing;
        to.partitions.extend(partitions);
        to.update_ms = now_ms;
        to.client_version = version;
        self.prepare(to)
    }

    /// An open transaction is to be aborted by the coordinator itself; gives the epoch that fences its producer. Nothing
    /// is written for this: [`Self::prepare_end`] follows at once.
    ///
    /// # Errors
    /// `UNKNOWN_SERVER_ERROR` if no epoch is left, as Kafka's exception comes to the client.
    pub fn prepare_fence(&mut self) -> Result<i16, ResponseError> {
        if self.current.producer_epoch == i16::MAX {
            return Err(ResponseError::UnknownServerError);
        }
        let bump = i16::from(!self.failed_epoch_fence);
        let fence = TransactionState::PrepareEpochFence;
        Ok(self
            .prepare(Transit {
                state: fence,
                producer_epoch: self.current.producer_epoch + bump,
                ..self.current.clone()
            })?
            .producer_epoch)
    }

    /// The transaction is to be ended. Under level 2 the epoch is bumped, and `next_producer_id` takes over where that
    /// was the last. `empty` if there is no transaction: it has to have started at some time.
    ///
    /// # Errors
    /// `UNKNOWN_SERVER_ERROR` if the epoch overflows, as Kafka's exception comes to the client.
    pub fn prepare_end(
        &mut self,
        state: TransactionState,
        version: TransactionVersion,
        next_producer_id: i64,
        empty: bool,
        now_ms: i64,
    ) -> Result<Transit, ResponseError> {
        let mut to = self.current.clone();
        if version.bumps_epoch() {
            to.last_producer_epoch = to.producer_epoch;
            to.producer_epoch = to.producer_epoch.checked_add(1).ok_or(ResponseError::UnknownServerError)?;
        }
        if empty {
            to.start_ms = now_ms;
        }
        to.state = state;
        to.next_producer_id = next_producer_id;
        to.update_ms = now_ms;
        to.client_version = version;
        self.prepare(to)
    }

    /// All markers will have been written: what is to be appended then.
    pub fn prepare_complete(&mut self, now_ms: i64) -> Transit {
        // The state that is now in the log has the bumped epoch.
        self.failed_epoch_fence = false;
        let mut to = self.current.clone();
        to.state = match to.state {
            TransactionState::PrepareCommit => TransactionState::CompleteCommit,
            TransactionState::PrepareAbort => TransactionState::CompleteAbort,
            other => panic!("a transaction in state {} has nothing to complete", other.name()),
        };
        if to.client_version.bumps_epoch() && to.next_producer_id != NO_PRODUCER_ID {
            to.producer_id = to.next_producer_id;
            to.producer_epoch = 0;
        }
        to.next_producer_id = NO_PRODUCER_ID;
        to.partitions = BTreeSet::new();
        to.update_ms = now_ms;
        self.prepare(to).expect("a prepared transaction has an epoch")
    }

    /// The id is to be forgotten.
    pub(super) fn prepare_dead(&mut self) {
        assert!(TransactionState::Dead.follows(self.current.state), "only an idle id is forgotten");
        self.pending = Some(TransactionState::Dead);
    }

    fn prepare(&mut self, mut to: Transit) -> Result<Transit, ResponseError> {
        assert!(self.pending.is_none(), "a change is prepared while another is pending");
        assert!(
            to.state.follows(self.current.state),
            "{:?} does not follow {:?}",
            to.state,
            self.current.state
        );
        // An id whose first InitProducerId was never committed has epoch -1. Kafka throws.
        if to.producer_id < 0 || to.producer_epoch < 0 {
            return Err(ResponseError::UnknownServerError);
        }
        to.previous_producer_id = self.current.producer_id;
        self.pending = Some(to.state);
        Ok(to)
    }

    /// What was prepared is committed.
    pub fn complete(&mut self, to: Transit) {
        assert_eq!(self.pending, Some(to.state), "only what was prepared is completed");
        assert!(self.may_become(&to), "{:?} cannot become {to:?}", self.current);
        self.pending = None;
        self.current = to;
    }

    /// Kafka's checks on a change (`completeTransitionTo`).
    fn may_become(&self, to: &Transit) -> bool {
        let now = &self.current;
        let same_producer = to.producer_id == now.producer_id && to.producer_epoch == now.producer_epoch;
        let bumped = to.client_version.bumps_epoch();
        let same_timeout = to.timeout_ms == now.timeout_ms;
        match to.state {
            TransactionState::Empty => {
                let next = to.producer_epoch == now.producer_epoch
                    || Some(to.producer_epoch) == now.producer_epoch.checked_add(1)
                    || (to.producer_epoch == 0 && to.producer_id != now.producer_id);
                next && to.partitions.is_empty() && to.start_ms == -1
            }
            TransactionState::Ongoing => {
                same_producer && same_timeout && to.partitions.is_superset(&now.partitions)
            }
            TransactionState::PrepareCommit | TransactionState::PrepareAbort => {
                let next = if bumped {
                    to.last_producer_epoch == now.producer_epoch && to.producer_id == now.producer_id
                } else {
                    same_producer
                };
                let was_empty = now.state != TransactionState::Ongoing;
                let same_start = to.start_ms == now.start_ms || (bumped && was_empty);
                next && same_timeout && same_start && to.partitions == now.partitions
            }
            TransactionState::CompleteCommit | TransactionState::CompleteAbort => {
                let rotated = bumped
                    && to.producer_epoch == 0
                    && to.last_producer_epoch == now.last_producer_epoch
                    && to.previous_producer_id == now.producer_id;
                (same_producer || rotated) && same_timeout && to.start_ms != -1
            }
            TransactionState::Dead | TransactionState::PrepareEpochFence => false,
        }
    }

    /// A partition has its marker, or is gone.
    pub(super) fn marked(&mut self, partition: &TopicPartition) {
        let ending =
            matches!(self.current.state, TransactionState::PrepareCommit | TransactionState::PrepareAbort);
        assert!(ending, "a marker was written for a transaction in state {}", self.current.state.name());
        self.current.partitions.remove(partition);
    }
}

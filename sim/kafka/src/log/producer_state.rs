//! What a replica remembers of producers: their epochs, their last batches, the transaction that each has open.
//!
//! Rules as in Kafka's `ProducerAppendInfo`, `ProducerStateEntry` and `UnifiedLog`, in the order in which they are asked:
//! - A client's batch with the epoch and exact sequence range of a remembered one is a retry: it succeeds with the first's
//!   offset. Five batches are remembered; a replica that loaded its log remembers one, as that is what a snapshot keeps.
//! - A batch that would open a transaction must have been verified, where that is on: else `INVALID_TXN_STATE`.
//! - An epoch below the known one is fenced: `INVALID_PRODUCER_EPOCH`.
//! - A client's batch must follow the last one's sequence, or begin at 0 under a newer epoch: else
//!   `OUT_OF_ORDER_SEQUENCE_NUMBER`. Of a producer that is not known (expired, or its records are gone) any sequence is
//!   taken; but one that bumps its epoch with each transaction must begin at 0 where nothing is known of it, and while a
//!   batch is being verified none with a higher sequence may pass it.
//! - A batch outside of the producer's open transaction is `INVALID_TXN_STATE`.
//!
//! Followers take what their leader took. The state lives in memory; [`snapshots`] of it lie beside the log, and what came
//! after the newest one is read from the log again (`ProducerStateManager.truncateAndReload`,
//! `UnifiedLog.rebuildProducerState`).

mod snapshots;

use std::collections::{BTreeMap, VecDeque};

use kafka_protocol::ResponseError;

use super::Log;
use super::batch::{self, BatchHeader, NO_PRODUCER_EPOCH, NO_SEQUENCE};
use super::marker::Marker;
use super::transactions::{AbortedTransaction, CompletedTransaction, Transactions};
use super::verification::{VerificationGuard, Verifications};

pub use snapshots::{CorruptSnapshot, Snapshots};

/// Batches remembered of each producer. A client with more in flight than this can be told out of order falsely, which
/// is why clients cap `max.in.flight.requests.per.connection` at 5.
pub const BATCHES_RETAINED: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Remembered {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
    last_offset: i64,
    max_timestamp: i64,
}

/// One producer, as a replica knows it. Read only outside of this module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Its newest epoch.
    pub epoch: i16,
    /// The epoch of the coordinator that wrote its last marker, or -1.
    pub coordinator_epoch: i32,
    /// The time of its last batch or marker, in milliseconds.
    pub last_timestamp: i64,
    /// The first offset of the transaction that it has open here.
    pub transaction_start: Option<i64>,
    batches: VecDeque<Remembered>,
}

impl Producer {
    /// One of whom nothing was appended yet.
    fn unknown() -> Producer {
        Producer {
            epoch: NO_PRODUCER_EPOCH,
            coordinator_epoch: -1,
            last_timestamp: -1,
            transaction_start: None,
            batches: VecDeque::new(),
        }
    }

    /// The last sequence number of its last batch, or -1.
    pub fn last_sequence(&self) -> i32 {
        self.batches.back().map_or(NO_SEQUENCE, |last| last.last_sequence)
    }

    fn is_expired(&self, now_ms: i64, expiration_ms: i64) -> bool {
        self.transaction_start.is_none() && now_ms.saturating_sub(self.last_timestamp) >= expiration_ms
    }

    fn enter_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.batches.clear();
        }
    }

    /// What a snapshot keeps of it: one batch, and one time for both.
    fn with_last_batch(&self) -> Producer {
        let last = self.batches.back().map(|last| Remembered { max_timestamp: self.last_timestamp, ..*last });
        Producer { batches: last.into_iter().collect(), ..self.clone() }
    }
}

type Producers = BTreeMap<i64, Producer>;

/// Who wants to append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A producer: all rules.
    Client,
    /// A group's coordinator, for a producer: its batches have no sequence.
    Coordinator,
}

/// Every producer that this replica knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerState {
    producers: Producers,
    transactions: Transactions,
    verifications: Verifications,
    /// The log's end when this was last brought up to it.
    end_offset: i64,
    /// Where the newest snapshot was taken.
    snapshot_offset: i64,
}

/// What to do with a batch of an idempotent producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is new: append it.
    Append,
    /// It is here already.
    Duplicate {
        /// Where it was appended.
        base_offset: i64,
        /// Its last record.
        last_offset: i64,
        /// The time it was given.
        max_timestamp: i64,
    },
}

impl ProducerState {
    /// What a process knows that has just loaded a log. Producers silent for `expiration_ms` are forgotten.
    pub fn load(log: &mut Log, now_ms: i64, expiration_ms: i64) -> ProducerState {
        ProducerState::recover(log, now_ms, expiration_ms);
        let mut state = ProducerState::default();
        state.truncated(log, now_ms, expiration_ms);
        state
    }

    /// Goes over what may not have been flushed, segment by segment, and leaves a snapshot at the end of each
    /// (`LogLoader.recoverSegment`). Loading begins with the last: so one batch of each producer is all that is remembered
    /// after any restart, but also of those whose records were deleted, if their segment is there.
    fn recover(log: &mut Log, now_ms: i64, expiration_ms: i64) {
        if log.snapshots.latest().is_some_and(|(offset, _)| offset == log.end_offset()) {
            // As a clean shutdown leaves it.
            return;
        }
        let recovery_point = log.checkpoints().recovery_point;
        let flushed = log.segments().filter(|segment| segment.base_offset() <= recovery_point).count();
        let unflushed = log.segments().skip(flushed.saturating_sub(1));
        let unflushed: Vec<i64> = unflushed.map(|segment| segment.base_offset()).collect();
        for (at, &base_offset) in unflushed.iter().enumerate() {
            let mut state = ProducerState::default();
            state.cut_at(log, base_offset, now_ms, expiration_ms);
            let next = unflushed.get(at + 1).copied().unwrap_or(i64::MAX);
            // From the segment's first batch, wherever the log begins now.
            for stored in log.batches_from(base_offset) {
                if stored.header.base_offset >= next {
                    break;
                }
                state.appended(&stored.header, Marker::read(&stored.header, &stored.bytes));
            }
            state.take_snapshot(log);
        }
    }

    /// The log was cut at its end: goes back to the newest snapshot before it, and reads the batches since.
    pub fn truncated(&mut self, log: &mut Log, now_ms: i64, expiration_ms: i64) {
        self.cut_at(log, log.end_offset(), now_ms, expiration_ms);
    }

    /// What was known when the log ended at `end_offset` (`UnifiedLog.rebuildProducerState`).
    fn cut_at(&mut self, log: &mut Log, end_offset: i64, now_ms: i64, expiration_ms: i64) {
        let knew_nothing =
            self.producers.is_empty() && self.transactions.all_replicated() && self.end_offset >= end_offset;
        self.reload(log, end_offset, now_ms, expiration_ms);
        if end_offset > self.end_offset && !knew_nothing {
            for stored in log.batches_from(self.end_offset.max(log.start_offset())) {
                if stored.header.base_offset >= end_offset {
                    break;
                }
                self.appended(&stored.header, Marker::read(&stored.header, &stored.bytes));
            }
        }
        self.end_offset = end_offset;
        self.take_snapshot(log);
    }

    fn reload(&mut self, log: &mut Log, end_offset: i64, now_ms: i64, expiration_ms: i64) {
        let start_offset = log.start_offset();
        log.snapshots.keep_within(start_offset, end_offset);
        if end_offset == self.end_offset {
            return self.log_start_moved(log);
        }
        self.producers.clear();
        self.transactions.clear();
        (self.snapshot_offset, self.end_offset) = (start_offset, start_offset);
        if let Some((offset, producers)) = log.snapshots.latest() {
            (self.snapshot_offset, self.end_offset) = (offset, offset);
            self.producers.clone_from(producers);
            self.forget_expired(now_ms, expiration_ms);
            for (&id, producer) in &self.producers {
                if let Some(first_offset) = producer.transaction_start {
                    self.transactions.begin(first_offset, id);
                }
            }
        }
    }

    /// The log was emptied, and goes on at its end offset.
    pub fn restarted(&mut self, log: &mut Log) {
        self.producers.clear();
        self.transactions.clear();
        log.snapshots = Snapshots::default();
        (self.snapshot_offset, self.end_offset) = (0, log.end_offset());
        self.take_snapshot(log);
    }

    /// The log's start moved: retention, or DeleteRecords. Producers stay known until they expire or this replica loads.
    pub fn log_start_moved(&mut self, log: &Log) {
        let start_offset = log.start_offset();
        self.transactions.acknowledge_before(start_offset);
        self.end_offset = self.end_offset.max(start_offset);
        self.snapshot_offset = log.snapshots.latest().map_or(start_offset, |(offset, _)| offset);
    }

    /// The high watermark moved.
    pub fn high_watermark_moved(&mut self, high_watermark: i64) {
        self.transactions.acknowledge_before(high_watermark);
    }

    /// Keeps what is known on disk: when a segment is rolled (before its first batch is told of), and at a clean shutdown.
    pub fn take_snapshot(&mut self, log: &mut Log) {
        if self.end_offset > self.snapshot_offset {
            let producers = self.producers.iter().map(|(&id, producer)| (id, producer.with_last_batch()));
            log.revision += 1;
            log.snapshots.insert(self.end_offset, producers.collect(), log.revision);
            self.snapshot_offset = self.end_offset;
        }
    }

    /// Judges a batch before a leader appends it. `verified` is the guard that a verification gave; `None` for
    /// `must_be_verified` lets every batch open a transaction.
    ///
    /// # Errors
    /// `INVALID_TXN_STATE`, `INVALID_PRODUCER_EPOCH` or `OUT_OF_ORDER_SEQUENCE_NUMBER`.
    pub fn check(
        &self,
        batch: &BatchHeader,
        origin: Origin,
        must_be_verified: bool,
        verified: Option<VerificationGuard>,
    ) -> Result<Verdict, ResponseError> {
        if !batch.has_producer() {
            return Ok(Verdict::Append);
        }
        let known = self.producers.get(&batch.producer_id);
        if origin == Origin::Client
            && let Some(kept) = known.and_then(|producer| find_duplicate(producer, batch))
        {
            return Ok(Verdict::Duplicate {
                base_offset: kept.base_offset,
                last_offset: kept.last_offset,
                max_timestamp: kept.max_timestamp,
            });
        }
        if batch.is_transactional()
            && must_be_verified
            && !self.is_in_transaction(batch.producer_id, batch.producer_epoch)
            && !self.verifications.holds(batch.producer_id, verified)
        {
            return Err(ResponseError::InvalidTxnState);
        }
        if known.is_some_and(|producer| batch.producer_epoch < producer.epoch) {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        if origin == Origin::Client {
            self.check_sequence(batch, known)?;
        }
        if !batch.is_transactional() && known.is_some_and(|producer| producer.transaction_start.is_some()) {
            return Err(ResponseError::InvalidTxnState);
        }
        Ok(Verdict::Append)
    }

    fn check_sequence(&self, batch: &BatchHeader, known: Option<&Producer>) -> Result<(), ResponseError> {
        let sequence = batch.base_sequence;
        let out_of_order = Err(ResponseError::OutOfOrderSequenceNumber);
        if let Some(verification) = self.verifications.get(batch.producer_id) {
            let remembers_none = known.is_none_or(|producer| producer.batches.is_empty());
            if verification.bumps_epoch && sequence != 0 && remembers_none {
                return out_of_order;
            }
            if sequence > verification.lowest_sequence {
                return out_of_order;
            }
        }
        let Some(producer) = known else { return Ok(()) };
        let expected = match producer.batches.back() {
            Some(last) if batch.producer_epoch == producer.epoch => {
                batch::wrap_sequence(i64::from(last.last_sequence) + 1)
            }
            _ => 0,
        };
        if sequence == expected { Ok(()) } else { out_of_order }
    }

    /// Judges a marker before a leader appends it.
    ///
    /// # Errors
    /// `INVALID_PRODUCER_EPOCH` if the producer has a newer epoch, `TRANSACTION_COORDINATOR_FENCED` if a newer coordinator
    /// has written here.
    pub fn check_marker(&self, marker: &Marker) -> Result<(), ResponseError> {
        match self.producers.get(&marker.producer_id) {
            Some(known) if marker.producer_epoch < known.epoch => Err(ResponseError::InvalidProducerEpoch),
            Some(known) if marker.coordinator_epoch < known.coordinator_epoch => {
                Err(ResponseError::TransactionCoordinatorFenced)
            }
            _ => Ok(()),
        }
    }

    /// Remembers a batch that was just appended, by a leader or from one, and keeps the log's index and snapshots with it.
    ///
    /// # Panics
    /// If it is not the log's last.
    pub fn remember(&mut self, log: &mut Log, header: &BatchHeader) {
        assert_eq!(header.next_offset(), log.end_offset(), "a batch is remembered when it is appended");
        if log.active_base_offset() == header.base_offset {
            // The roll came before the batch.
            self.end_offset = header.base_offset;
            self.take_snapshot(log);
        }
        let marker = header.is_control().then(|| {
            let stored = log.batches_from(header.base_offset).next();
            Marker::read(header, &stored.expect("a batch that was just appended is there").bytes)
        });
        if let Some(aborted) = self.appended(header, marker.flatten()) {
            log.aborted.push(aborted);
        }
    }

    /// Remembers a batch; `marker` is what a control batch holds. Gives the transaction that it aborted, for the index.
    pub(super) fn appended(
        &mut self,
        batch: &BatchHeader,
        marker: Option<Marker>,
    ) -> Option<AbortedTransaction> {
        self.end_offset = batch.next_offset();
        if !batch.has_producer() {
            return None;
        }
        let aborted = match marker {
            Some(marker) => self.marked(batch, marker),
            // Compaction took its record: the transaction is gone whole.
            None if batch.is_control() => None,
            None => {
                self.data_appended(batch);
                None
            }
        };
        if batch.is_transactional() {
            self.verifications.appended(batch.producer_id, batch.producer_epoch, batch.is_control());
        }
        aborted
    }

    fn data_appended(&mut self, batch: &BatchHeader) {
        let producer = self.producers.entry(batch.producer_id).or_insert_with(Producer::unknown);
        producer.enter_epoch(batch.producer_epoch);
        if producer.batches.len() == BATCHES_RETAINED {
            producer.batches.pop_front();
        }
        producer.last_timestamp = batch.max_timestamp;
        producer.batches.push_back(Remembered {
            first_sequence: batch.base_sequence,
            last_sequence: batch.last_sequence(),
            base_offset: batch.base_offset,
            last_offset: batch.last_offset(),
            max_timestamp: batch.max_timestamp,
        });
        if batch.is_transactional() && producer.transaction_start.is_none() {
            producer.transaction_start = Some(batch.base_offset);
            self.transactions.begin(batch.base_offset, batch.producer_id);
        }
    }

    fn marked(&mut self, batch: &BatchHeader, marker: Marker) -> Option<AbortedTransaction> {
        let producer = self.producers.entry(batch.producer_id).or_insert_with(Producer::unknown);
        producer.enter_epoch(batch.producer_epoch);
        producer.coordinator_epoch = marker.coordinator_epoch;
        producer.last_timestamp = batch.max_timestamp;
        // A marker without data before it ends nothing here.
        let first_offset = producer.transaction_start.take()?;
        self.transactions.complete(CompletedTransaction {
            producer_id: batch.producer_id,
            first_offset,
            last_offset: batch.base_offset,
            aborted: !marker.committed,
        })
    }

    /// Whether a producer with that epoch has a transaction open here.
    pub fn is_in_transaction(&self, producer_id: i64, epoch: i16) -> bool {
        let known = self.producers.get(&producer_id);
        known.is_some_and(|producer| producer.transaction_start.is_some() && producer.epoch == epoch)
    }

    /// Begins to verify a batch that would open a transaction; `None` if its transaction is open already.
    ///
    /// # Errors
    /// `INVALID_PRODUCER_EPOCH`.
    pub fn begin_verification(
        &mut self,
        now_ms: i64,
        producer_id: i64,
        (epoch, sequence): (i16, i32),
        bumps_epoch: bool,
    ) -> Result<Option<VerificationGuard>, ResponseError> {
        if self.producers.get(&producer_id).is_some_and(|known| epoch < known.epoch) {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        if self.is_in_transaction(producer_id, epoch) {
            return Ok(None);
        }
        Ok(Some(self.verifications.begin(now_ms, producer_id, (epoch, sequence), bumps_epoch)))
    }

    /// The first offset whose fate is open, or decided by a marker that is not committed yet.
    pub fn first_unstable(&self) -> Option<i64> {
        self.transactions.first_unstable()
    }

    /// Forgets producers whose last record is older than `expiration_ms`, by the records' own time; not those with an
    /// open transaction.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.forget_expired(now_ms, expiration_ms);
        self.verifications.expire(now_ms, expiration_ms);
    }

    fn forget_expired(&mut self, now_ms: i64, expiration_ms: i64) {
        self.producers.retain(|_, producer| !producer.is_expired(now_ms, expiration_ms));
    }

    /// Whether compaction must leave the batch, emptied, since it is the last that is known of its producer.
    pub fn is_last_of_producer(&self, batch: &BatchHeader) -> bool {
        let Some(producer) = self.producers.get(&batch.producer_id) else { return false };
        match producer.batches.back() {
            Some(last) => last.last_offset == batch.last_offset(),
            None => batch.is_control() && batch.producer_epoch == producer.epoch,
        }
    }

    /// The producers that are known, by id.
    pub fn producers(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.producers.iter().map(|(&id, producer)| (id, producer))
    }

    /// How many producers are known.
    pub fn count(&self) -> usize {
        self.producers.len()
    }
}

fn find_duplicate<'a>(producer: &'a Producer, batch: &BatchHeader) -> Option<&'a Remembered> {
    let range = (batch.base_sequence, batch.last_sequence());
    let same = |kept: &&Remembered| (kept.first_sequence, kept.last_sequence) == range;
    producer.batches.iter().filter(|_| producer.epoch == batch.producer_epoch).find(same)
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

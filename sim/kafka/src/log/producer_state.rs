//! What a replica remembers of idempotent producers: the last five batches of each, to tell a retry from a gap.
//!
//! Rules as in Kafka's `ProducerAppendInfo` and `ProducerStateEntry`:
//! - A batch with the epoch and exact sequence range of a remembered one is a retry: it succeeds with the first's offset.
//! - Otherwise it must follow the last one's sequence, or begin at 0 under a newer epoch: else out of order. An old
//!   duplicate that five others have pushed out is out of order too.
//! - Of a producer that is not known (expired, or its records are gone) any sequence is taken.
//! - An epoch below the known one is fenced.
//!
//! It is rebuilt from the log when a replica loads it. Absent: transactions.

use std::collections::{BTreeMap, VecDeque};

use kafka_protocol::ResponseError;

use super::Log;
use super::batch::BatchHeader;

/// Batches remembered of each producer. A client with more in flight than this can be told out of order falsely, which
/// is why clients cap `max.in.flight.requests.per.connection` at 5.
pub const BATCHES_RETAINED: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Remembered {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
    max_timestamp: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    batches: VecDeque<Remembered>,
    last_timestamp: i64,
}

/// Every producer that this replica knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerState {
    producers: BTreeMap<i64, Producer>,
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
        /// The time it was given.
        max_timestamp: i64,
    },
}

impl ProducerState {
    /// Reads a log's batches.
    pub fn rebuild(log: &Log) -> ProducerState {
        let mut state = ProducerState::default();
        for batch in log.batches() {
            state.appended(&batch.header);
        }
        state
    }

    /// Judges a batch before it is appended.
    ///
    /// # Errors
    /// `INVALID_PRODUCER_EPOCH` or `OUT_OF_ORDER_SEQUENCE_NUMBER`.
    pub fn check(&self, batch: &BatchHeader) -> Result<Verdict, ResponseError> {
        if !batch.has_producer() {
            return Ok(Verdict::Append);
        }
        let Some(producer) = self.producers.get(&batch.producer_id) else {
            return Ok(Verdict::Append);
        };
        if batch.producer_epoch == producer.epoch {
            let range = (batch.base_sequence, batch.last_sequence());
            let same = |kept: &&Remembered| (kept.first_sequence, kept.last_sequence) == range;
            if let Some(kept) = producer.batches.iter().find(same) {
                return Ok(Verdict::Duplicate {
                    base_offset: kept.base_offset,
                    max_timestamp: kept.max_timestamp,
                });
            }
        }
        if batch.producer_epoch < producer.epoch {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        let expected = match producer.batches.back() {
            Some(last) if batch.producer_epoch == producer.epoch => {
                super::batch::wrap_sequence(i64::from(last.last_sequence) + 1)
            }
            _ => 0,
        };
        if batch.base_sequence == expected {
            Ok(Verdict::Append)
        } else {
            Err(ResponseError::OutOfOrderSequenceNumber)
        }
    }

    /// Remembers a batch that was appended.
    pub fn appended(&mut self, batch: &BatchHeader) {
        if !batch.has_producer() || batch.is_control() {
            return;
        }
        let fresh = Producer { epoch: batch.producer_epoch, batches: VecDeque::new(), last_timestamp: 0 };
        let producer = self.producers.entry(batch.producer_id).or_insert(fresh);
        if producer.epoch != batch.producer_epoch {
            producer.epoch = batch.producer_epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == BATCHES_RETAINED {
            producer.batches.pop_front();
        }
        producer.last_timestamp = batch.max_timestamp;
        producer.batches.push_back(Remembered {
            first_sequence: batch.base_sequence,
            last_sequence: batch.last_sequence(),
            base_offset: batch.base_offset,
            max_timestamp: batch.max_timestamp,
        });
    }

    /// Forgets producers whose last record is older than `expiration_ms`, by the records' own time.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.producers.retain(|_, producer| now_ms.saturating_sub(producer.last_timestamp) < expiration_ms);
    }

    /// How many producers are known.
    pub fn count(&self) -> usize {
        self.producers.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batch(epoch: i16, sequence: i32, count: i32, base_offset: i64) -> BatchHeader {
        BatchHeader {
            base_offset,
            batch_length: 100,
            leader_epoch: 0,
            crc: 0,
            attributes: 0,
            last_offset_delta: count - 1,
            base_timestamp: 10,
            max_timestamp: 10,
            producer_id: 1,
            producer_epoch: epoch,
            base_sequence: sequence,
            record_count: count,
        }
    }

    const OUT_OF_ORDER: Result<Verdict, ResponseError> = Err(ResponseError::OutOfOrderSequenceNumber);

    #[test]
    fn a_retry_within_the_window_gets_the_first_offset() {
        let mut state = ProducerState::default();
        for index in 0..6 {
            state.appended(&batch(0, index * 2, 2, i64::from(index) * 2));
        }
        assert_eq!(
            state.check(&batch(0, 2, 2, 0)),
            Ok(Verdict::Duplicate { base_offset: 2, max_timestamp: 10 })
        );
        assert_eq!(state.check(&batch(0, 0, 2, 0)), OUT_OF_ORDER, "the sixth last is forgotten");
        assert_eq!(state.check(&batch(0, 2, 1, 0)), OUT_OF_ORDER, "half a batch is no retry");
        assert_eq!(state.check(&batch(0, 12, 1, 0)), Ok(Verdict::Append));
        assert_eq!(state.check(&batch(0, 13, 1, 0)), OUT_OF_ORDER);
    }

    #[test]
    fn a_new_epoch_begins_at_zero_and_fences_the_old() {
        let mut state = ProducerState::default();
        state.appended(&batch(3, 0, 1, 0));
        assert_eq!(state.check(&batch(4, 1, 1, 0)), OUT_OF_ORDER);
        assert_eq!(state.check(&batch(4, 0, 1, 0)), Ok(Verdict::Append));
        state.appended(&batch(4, 0, 1, 1));
        assert_eq!(state.check(&batch(3, 1, 1, 0)), Err(ResponseError::InvalidProducerEpoch));
    }

    #[test]
    fn an_unknown_producer_may_begin_anywhere() {
        let mut state = ProducerState::default();
        assert_eq!(state.check(&batch(0, 17, 1, 0)), Ok(Verdict::Append));
        state.appended(&batch(0, 17, 1, 0));
        state.expire(1_000, 500);
        assert_eq!(state.count(), 0);
        assert_eq!(state.check(&batch(0, 99, 1, 0)), Ok(Verdict::Append));
    }

    #[test]
    fn sequences_wrap() {
        let mut state = ProducerState::default();
        state.appended(&batch(0, i32::MAX, 1, 0));
        assert_eq!(state.check(&batch(0, 0, 1, 0)), Ok(Verdict::Append));
        let mut state = ProducerState::default();
        state.appended(&batch(0, i32::MAX - 1, 4, 0));
        assert_eq!(state.check(&batch(0, 2, 1, 0)), Ok(Verdict::Append));
    }

    proptest! {
        /// The model keeps every batch ever appended, and looks at the last five.
        #[test]
        fn the_window_is_the_last_five_batches(tries in proptest::collection::vec((0..3_i16, 0..12_i32, 1..3_i32), 1..60)) {
            let mut state = ProducerState::default();
            let mut all: Vec<BatchHeader> = Vec::new();
            let mut end = 0;
            for (epoch, sequence, count) in tries {
                let tried = batch(epoch, sequence, count, end);
                let current = all.last().map(|last| last.producer_epoch);
                let recent: Vec<_> = all.iter().rev().filter(|b| Some(b.producer_epoch) == current).take(5).collect();
                let same = recent.iter().find(|b| (b.producer_epoch, b.base_sequence, b.record_count) == (epoch, sequence, count));
                let expected = match (current, same) {
                    (None, _) => Ok(Verdict::Append),
                    (_, Some(same)) => Ok(Verdict::Duplicate { base_offset: same.base_offset, max_timestamp: 10 }),
                    (Some(current), _) if epoch < current => Err(ResponseError::InvalidProducerEpoch),
                    (Some(current), _) if epoch > current => if sequence == 0 { Ok(Verdict::Append) } else { OUT_OF_ORDER },
                    _ => if sequence == recent[0].last_sequence() + 1 { Ok(Verdict::Append) } else { OUT_OF_ORDER },
                };
                prop_assert_eq!(state.check(&tried), expected);
                if expected == Ok(Verdict::Append) {
                    state.appended(&tried);
                    end += i64::from(count);
                    all.push(tried);
                }
            }
        }
    }
}

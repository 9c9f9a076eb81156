//! The idempotent producer's numbering, and what a broker's answer means for a batch.
//!
//! A batch gets its sequence with its first attempt and keeps it, so that the broker can tell a repetition. At most
//! five batches of a partition are without an answer, which is how many the broker remembers. When a numbered batch is
//! given up, its sequence is a gap that no later batch may step over: the producer drains (it sends again only what may
//! have been written, until its fate is certain), then goes on under the next epoch from sequence 0, as librdkafka and
//! Java's client do without a coordinator. Java drains one partition and begins it anew, while the others keep their
//! sequences until they are idle (`TransactionManager.requestIdempotentEpochBumpForPartition`); here all partitions drain,
//! with either's habits. A transactional producer's next epoch comes from its coordinator. librdkafka does not ask for one
//! after every failure: then the gap stays, and the next batch of the partition meets it.

use std::collections::{BTreeMap, BTreeSet};

use broker::{Error, ErrorClass, ErrorCode, Offset, TopicPartition};

use crate::accumulator::Batch;
use crate::batch::ProducerStamp;
use crate::error::{self, code};
use crate::properties::Habits;

/// How many batches of a producer a broker remembers for each partition.
const OUTSTANDING_MAX: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not idempotent.
    Off,
    /// A producer id must be asked for.
    Wanted,
    /// A producer id comes with `init_transactions`.
    Unregistered,
    Ready {
        producer_id: i64,
        epoch: i16,
    },
    /// Nothing new is numbered until the fate of what may have been written is certain.
    Draining {
        producer_id: i64,
        epoch: i16,
    },
}

/// Numbers batches.
pub(crate) struct Sequences {
    habits: Habits,
    transactional: bool,
    state: State,
    next: BTreeMap<TopicPartition, i32>,
    /// The sequence after the last acknowledged batch; absent means 0.
    next_acknowledged: BTreeMap<TopicPartition, i32>,
    /// Ids of numbered batches without a fate: in flight, or waiting for another attempt.
    outstanding: BTreeMap<TopicPartition, BTreeSet<u64>>,
    /// How many numbered batches of a partition are at a broker.
    at_broker: BTreeMap<TopicPartition, usize>,
    /// Partitions of which nothing is sent before all that is at a broker has come back: with librdkafka's habits, after
    /// one came back to be sent again (`rd_kafka_idemp_drain_toppar`).
    settling: BTreeSet<TopicPartition>,
}

impl Sequences {
    pub(crate) fn new(habits: Habits, idempotence: bool) -> Sequences {
        Sequences {
            habits,
            transactional: false,
            state: if idempotence { State::Wanted } else { State::Off },
            next: BTreeMap::new(),
            next_acknowledged: BTreeMap::new(),
            outstanding: BTreeMap::new(),
            at_broker: BTreeMap::new(),
            settling: BTreeSet::new(),
        }
    }

    /// Of a transactional producer: ids and epochs come from its coordinator alone.
    pub(crate) fn of_transactions(habits: Habits) -> Sequences {
        Sequences { transactional: true, state: State::Unregistered, ..Sequences::new(habits, true) }
    }

    /// The producer id and its epoch, if there is one.
    pub(crate) fn producer(&self) -> Option<(i64, i16)> {
        match self.state {
            State::Ready { producer_id, epoch } | State::Draining { producer_id, epoch } => {
                Some((producer_id, epoch))
            }
            State::Off | State::Wanted | State::Unregistered => None,
        }
    }

    /// A producer id must be asked for before anything is sent.
    pub(crate) fn wants_producer_id(&self) -> bool {
        self.state == State::Wanted
    }

    /// The cluster gave a producer id.
    pub(crate) fn begin(&mut self, producer_id: i64, epoch: i16) {
        self.state = State::Ready { producer_id, epoch };
        self.next.clear();
        self.next_acknowledged.clear();
        self.outstanding.clear();
    }

    /// Whether the batch that is next in its partition may be sent now.
    pub(crate) fn may_send(&self, batch: &Batch) -> bool {
        if self.settling.contains(&batch.partition) {
            return false;
        }
        match self.state {
            State::Off => true,
            State::Wanted | State::Unregistered => false,
            State::Draining { .. } => batch.stamp.is_some() && batch.maybe_written,
            State::Ready { .. } if batch.stamp.is_some() => true,
            State::Ready { .. } => {
                self.outstanding.get(&batch.partition).is_none_or(|ids| ids.len() < OUTSTANDING_MAX)
            }
        }
    }

    /// Numbers a batch before its first attempt.
    pub(crate) fn number(&mut self, batch: &mut Batch) {
        let State::Ready { producer_id, epoch } = self.state else { return };
        if batch.stamp.is_some() {
            return;
        }
        let next = self.next.entry(batch.partition.clone()).or_insert(0);
        batch.stamp = Some(ProducerStamp { producer_id, producer_epoch: epoch, base_sequence: *next });
        *next = after(*next, batch.count());
        self.outstanding.entry(batch.partition.clone()).or_default().insert(batch.id);
    }

    /// The batch goes to a broker.
    pub(crate) fn leaves(&mut self, batch: &Batch) {
        if batch.stamp.is_some() {
            *self.at_broker.entry(batch.partition.clone()).or_insert(0) += 1;
        }
    }

    /// The batch is back, with an answer or without.
    pub(crate) fn returns(&mut self, batch: &Batch) {
        if batch.stamp.is_none() {
            return;
        }
        let count = self.at_broker.get_mut(&batch.partition).expect("it was counted when it left");
        *count -= 1;
        if *count == 0 {
            self.at_broker.remove(&batch.partition);
            self.settling.remove(&batch.partition);
        }
    }

    /// The batch is to be sent again.
    pub(crate) fn settle(&mut self, batch: &Batch) {
        let others = self.at_broker.contains_key(&batch.partition);
        if batch.stamp.is_some() && others && self.habits == Habits::Librdkafka {
            self.settling.insert(batch.partition.clone());
        }
    }

    /// The batch is in the log.
    pub(crate) fn written(&mut self, batch: &Batch) {
        self.close(batch);
        let producer = self.producer();
        let ours = |stamp: &ProducerStamp| Some((stamp.producer_id, stamp.producer_epoch)) == producer;
        if let Some(stamp) = batch.stamp.filter(ours) {
            let next = after(stamp.base_sequence, batch.count());
            self.next_acknowledged.insert(batch.partition.clone(), next);
        }
    }

    /// The batch is given up. With `ends_epoch` what comes later goes out under the next epoch; else a sequence that it
    /// had stays a gap.
    pub(crate) fn given_up(&mut self, batch: &Batch, ends_epoch: bool) {
        self.close(batch);
        if ends_epoch {
            self.drain();
        }
    }

    fn close(&mut self, batch: &Batch) {
        if let Some(ids) = self.outstanding.get_mut(&batch.partition) {
            ids.remove(&batch.id);
        }
    }

    /// Goes on under the next epoch once nothing is in flight and nothing uncertain.
    pub(crate) fn drain(&mut self) {
        if let State::Ready { producer_id, epoch } = self.state {
            self.state = State::Draining { producer_id, epoch };
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        matches!(self.state, State::Draining { .. })
    }

    /// Everything is certain: later batches are numbered from 0 under the next epoch. The caller takes the stamps off
    /// what is queued.
    pub(crate) fn bump(&mut self) {
        let State::Draining { producer_id, epoch } = self.state else { return };
        self.state = match epoch.checked_add(1).filter(|epoch| *epoch < i16::MAX) {
            Some(epoch) => State::Ready { producer_id, epoch },
            None => State::Wanted,
        };
        self.next.clear();
        self.next_acknowledged.clear();
        self.outstanding.clear();
    }

    /// A batch whose time ran out ends the epoch. With librdkafka's habits so does one that was never sent
    /// (`rd_kafka_toppar_producer_serve`); Java lets that go if it had no sequence yet (`Sender.sendProducerData`).
    pub(crate) fn timeout_ends_epoch(&self, batch: &Batch) -> bool {
        batch.stamp.is_some() || (self.habits == Habits::Librdkafka && self.producer().is_some())
    }

    /// A refusal that will not pass ends the epoch, but not that of librdkafka's transaction: that is aborted under the
    /// epoch it has (`rd_kafka_txn_set_abortable_error`).
    pub(crate) fn refusal_ends_epoch(&self, batch: &Batch) -> bool {
        batch.stamp.is_some() && !(self.transactional && self.habits == Habits::Librdkafka)
    }

    /// Its sequence is the one after the last that was acknowledged.
    fn is_next(&self, batch: &Batch) -> bool {
        let next = self.next_acknowledged.get(&batch.partition).copied().unwrap_or(0);
        batch.stamp.is_some_and(|stamp| stamp.base_sequence == next)
    }

    /// No earlier batch of its partition is without a fate.
    fn is_first(&self, batch: &Batch) -> bool {
        self.outstanding
            .get(&batch.partition)
            .and_then(BTreeSet::first)
            .is_none_or(|first| *first >= batch.id)
    }
}

/// The sequence after `count` records from `base`; after 2^31 - 1 comes 0.
fn after(base: i32, count: i32) -> i32 {
    let sum = (i64::from(base) + i64::from(count)) % (i64::from(i32::MAX) + 1);
    i32::try_from(sum).expect("a remainder of 2^31")
}

/// What becomes of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is in the log; its offset may be unknown.
    Written(Option<Offset>),
    /// Send it again. Whether this counts as an attempt, and whether it may have been written.
    Again { counts: bool, maybe_written: bool },
    /// Give it up, and the transaction that it belongs to. Whether later ones need another epoch.
    Failed { error: Error, ends_epoch: bool },
    /// Send it again as it is, at once, as if it had never been sent.
    Split,
    /// Give it up, and the producer with it.
    Fatal(Error),
    /// The broker forgot the producer: send it again under the next epoch.
    AgainUnderNextEpoch,
}

/// Refused with these, Java's producer is at its end (`TransactionManager.maybeTransitionToErrorState`).
const JAVA_FATAL: [i16; 5] = [
    code::CLUSTER_AUTHORIZATION_FAILED,
    code::UNSUPPORTED_VERSION,
    code::INVALID_PRODUCER_ID_MAPPING,
    code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    code::PRODUCER_FENCED,
];

/// Reads a broker's answer for one batch: librdkafka's `rd_kafka_handle_Produce_error` and
/// `rd_kafka_handle_idempotent_Produce_error`, or Java's `Sender.completeBatch` and `TransactionManager.canRetry`. They
/// differ where sequences do not fit:
/// - out of order behind what is not acknowledged: librdkafka begins a new epoch, or has its transaction aborted under
///   one; Java sends it again under its sequence;
/// - out of order right after what is acknowledged, and an unknown producer at a later attempt: fatal to librdkafka, a new
///   epoch to Java. An unknown producer in a transaction is a new epoch to both.
///
/// A batch of several records that is too large is split by Java, into parts of `batch.size`. That it fits already, so it
/// comes back as it was, until `delivery.timeout.ms` (KAFKA-8350); a batch grows beyond only in Java, when it compresses
/// less than was guessed.
pub(crate) fn judge(sequences: &Sequences, batch: &Batch, error_code: i16, base_offset: Offset) -> Verdict {
    let habits = sequences.habits;
    let what = || {
        let (at, count) = (&batch.partition, batch.count());
        match batch.stamp {
            Some(stamp) => format!(
                "{count} records for {at} (producer {}, epoch {}, sequence {})",
                stamp.producer_id, stamp.producer_epoch, stamp.base_sequence
            ),
            None => format!("{count} records for {at}"),
        }
    };
    let error = |class| Error::new(ErrorCode::Broker(error_code), class, what());
    let under_next_epoch = || match sequences.transactional {
        true => Verdict::Failed { error: error(ErrorClass::Abortable), ends_epoch: true },
        false => Verdict::AgainUnderNextEpoch,
    };
    match error_code {
        0 => Verdict::Written(Some(base_offset).filter(|offset| *offset >= 0)),
        code::DUPLICATE_SEQUENCE_NUMBER => Verdict::Written(None),
        // The broker did not write it, now or before: else it would have known the sequence as a repetition.
        code::OUT_OF_ORDER_SEQUENCE_NUMBER if batch.stamp.is_some() => {
            match (habits, sequences.is_next(batch)) {
                _ if sequences.is_draining() => Verdict::Again { counts: false, maybe_written: false },
                (Habits::Java, false) => Verdict::Again { counts: false, maybe_written: false },
                (Habits::Java, true) | (Habits::Librdkafka, false) => under_next_epoch(),
                (Habits::Librdkafka, true) => Verdict::Fatal(error(ErrorClass::Fatal)),
            }
        }
        code::UNKNOWN_PRODUCER_ID if batch.stamp.is_some() => {
            let harmless = batch.attempts <= 1 && sequences.is_first(batch);
            match harmless || sequences.transactional || habits == Habits::Java {
                true => under_next_epoch(),
                false => Verdict::Fatal(error(ErrorClass::Fatal)),
            }
        }
        // Without transactions nobody else has the producer's id, so this is a refusal like others.
        code::INVALID_PRODUCER_EPOCH => match (sequences.transactional, habits) {
            (true, Habits::Librdkafka) => Verdict::Fatal(error(ErrorClass::Fenced)),
            (true, Habits::Java) => Verdict::Failed { error: error(ErrorClass::Abortable), ends_epoch: true },
            (false, _) => {
                let ends_epoch = sequences.refusal_ends_epoch(batch);
                Verdict::Failed { error: error(ErrorClass::Failed), ends_epoch }
            }
        },
        code if habits == Habits::Java && batch.stamp.is_some() && JAVA_FATAL.contains(&code) => {
            let fenced = code == code::PRODUCER_FENCED;
            Verdict::Fatal(error(if fenced { ErrorClass::Fenced } else { ErrorClass::Fatal }))
        }
        code::MESSAGE_TOO_LARGE if habits == Habits::Java && batch.count() > 1 => Verdict::Split,
        code::REQUEST_TIMED_OUT | code::NOT_ENOUGH_REPLICAS_AFTER_APPEND => {
            Verdict::Again { counts: true, maybe_written: true }
        }
        _ if ErrorClass::of_broker(error_code) == ErrorClass::Retriable => {
            // To librdkafka an answer that asks for metadata proves that nothing was written, so it costs no retry.
            let counts = habits == Habits::Java
                || error_code == code::KAFKA_STORAGE_ERROR
                || !error::wants_metadata(error_code);
            Verdict::Again { counts, maybe_written: batch.maybe_written }
        }
        _ => Verdict::Failed {
            error: error::answered(error_code, what()),
            ends_epoch: sequences.refusal_ends_epoch(batch),
        },
    }
}

#[cfg(test)]
mod tests;

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
        _ if error::class_of(error_code) == ErrorClass::Retriable => {
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
mod tests {
    use super::*;
    use crate::accumulator::tests::{accumulator, append, at};
    use crate::accumulator::{Accumulator, Batch};

    fn queue(count: u64) -> Accumulator {
        let mut accumulator = accumulator(&[("batch.num.messages", 1)]);
        for id in 1..=count {
            append(&mut accumulator, 0, 0, id);
        }
        accumulator
    }

    fn ready() -> Sequences {
        with(Habits::Librdkafka)
    }

    fn with(habits: Habits) -> Sequences {
        let mut sequences = Sequences::new(habits, true);
        sequences.begin(7, 0);
        sequences
    }

    fn in_transaction(habits: Habits) -> Sequences {
        let mut sequences = Sequences::of_transactions(habits);
        sequences.begin(7, 0);
        sequences
    }

    /// Fatal, again, under the next epoch, split; or failed with its class, and `+ epoch` if that is used up.
    fn judged(sequences: &Sequences, batch: &Batch, code: i16) -> String {
        match judge(sequences, batch, code, -1) {
            Verdict::Failed { error, ends_epoch: true } => format!("{:?} + epoch", error.class),
            Verdict::Failed { error, ends_epoch: false } => format!("{:?}", error.class),
            Verdict::Fatal(error) => format!("fatal: {:?}", error.class),
            Verdict::Again { .. } => "again".into(),
            Verdict::AgainUnderNextEpoch => "next epoch".into(),
            Verdict::Split => "split".into(),
            Verdict::Written(_) => "written".into(),
        }
    }

    #[test]
    fn each_client_reads_refusals_in_its_own_way() {
        use Habits::{Java, Librdkafka};
        let table = [
            (code::MESSAGE_TOO_LARGE, Librdkafka, "Failed + epoch", "Failed"),
            (code::MESSAGE_TOO_LARGE, Java, "Failed + epoch", "Failed + epoch"),
            (code::OUT_OF_ORDER_SEQUENCE_NUMBER, Librdkafka, "fatal: Fatal", "fatal: Fatal"),
            (code::OUT_OF_ORDER_SEQUENCE_NUMBER, Java, "next epoch", "Abortable + epoch"),
            (code::INVALID_PRODUCER_EPOCH, Librdkafka, "Failed + epoch", "fatal: Fenced"),
            (code::INVALID_PRODUCER_EPOCH, Java, "Failed + epoch", "Abortable + epoch"),
            (code::INVALID_PRODUCER_ID_MAPPING, Librdkafka, "Failed + epoch", "Failed"),
            (code::INVALID_PRODUCER_ID_MAPPING, Java, "fatal: Fatal", "fatal: Fatal"),
            (code::UNKNOWN_PRODUCER_ID, Librdkafka, "next epoch", "Abortable + epoch"),
            (code::UNKNOWN_PRODUCER_ID, Java, "next epoch", "Abortable + epoch"),
            (code::NOT_LEADER_OR_FOLLOWER, Librdkafka, "again", "again"),
        ];
        for (code, habits, plain, in_transactions) in table {
            for (transactional, expected) in [(false, plain), (true, in_transactions)] {
                let mut sequences = if transactional { in_transaction(habits) } else { with(habits) };
                let mut queue = queue(1);
                let batch = sent(&mut sequences, &mut queue);
                assert_eq!(judged(&sequences, &batch, code), expected, "{code}, {habits:?}");
            }
        }
    }

    #[test]
    fn java_sends_a_batch_of_several_records_that_is_too_large_again() {
        for (habits, expected) in [(Habits::Java, "split"), (Habits::Librdkafka, "Failed + epoch")] {
            let mut queue = accumulator(&[]);
            append(&mut queue, 0, 0, 1);
            append(&mut queue, 0, 0, 2);
            let mut sequences = with(habits);
            let batch = sent(&mut sequences, &mut queue);
            assert_eq!(judged(&sequences, &batch, code::MESSAGE_TOO_LARGE), expected, "{habits:?}");
        }
    }

    #[test]
    fn a_gap_that_a_refusal_left_in_librdkafkas_transaction_is_met_by_the_next_batch() {
        let (mut sequences, mut queue) = (in_transaction(Habits::Librdkafka), queue(3));
        let first = sent(&mut sequences, &mut queue);
        sequences.written(&first);
        let refused = sent(&mut sequences, &mut queue);
        let Verdict::Failed { ends_epoch, .. } = judge(&sequences, &refused, code::MESSAGE_TOO_LARGE, -1)
        else {
            panic!("one record is not split");
        };
        sequences.given_up(&refused, ends_epoch);
        assert!(!sequences.is_draining(), "its transaction is aborted under this epoch");
        let behind = sent(&mut sequences, &mut queue);
        assert_eq!(behind.stamp.unwrap().base_sequence, 2, "the gap stays");
        let met = judged(&sequences, &behind, code::OUT_OF_ORDER_SEQUENCE_NUMBER);
        assert_eq!(met, "Abortable + epoch", "and now the epoch is used up");
    }

    #[test]
    fn a_timeout_before_the_first_attempt_ends_librdkafkas_epoch_and_not_javas() {
        for (habits, ends) in [(Habits::Librdkafka, true), (Habits::Java, false)] {
            for sequences in [with(habits), in_transaction(habits)] {
                let mut queue = queue(1);
                let unsent = queue.take(&at(0)).unwrap();
                assert_eq!(sequences.timeout_ends_epoch(&unsent), ends, "{habits:?}");
            }
            let unsent = queue(1).take(&at(0)).unwrap();
            assert!(!Sequences::new(habits, true).timeout_ends_epoch(&unsent), "there is no epoch yet");
        }
    }

    fn sent(sequences: &mut Sequences, queue: &mut Accumulator) -> Batch {
        let mut batch = queue.take(&at(0)).unwrap();
        assert!(sequences.may_send(&batch));
        sequences.number(&mut batch);
        sequences.leaves(&batch);
        batch.attempts += 1;
        batch
    }

    #[test]
    fn sequences_rise_by_the_records_of_a_batch_and_wrap() {
        let (mut sequences, mut queue) = (ready(), queue(3));
        for expected in 0..3 {
            assert_eq!(sent(&mut sequences, &mut queue).stamp.unwrap().base_sequence, expected);
        }
        assert_eq!(after(i32::MAX - 1, 1), i32::MAX);
        assert_eq!(after(i32::MAX, 1), 0);
        assert_eq!(after(i32::MAX - 1, 5), 3);
    }

    #[test]
    fn nothing_goes_out_before_there_is_a_producer_id() {
        let mut queue = queue(1);
        let batch = queue.take(&at(0)).unwrap();
        assert!(!Sequences::new(Habits::Java, true).may_send(&batch));
        assert!(Sequences::new(Habits::Java, false).may_send(&batch));
    }

    #[test]
    fn at_most_five_batches_of_a_partition_are_without_an_answer() {
        let (mut sequences, mut queue) = (ready(), queue(6));
        let first = sent(&mut sequences, &mut queue);
        for _ in 0..4 {
            sent(&mut sequences, &mut queue);
        }
        let sixth = queue.take(&at(0)).unwrap();
        assert!(!sequences.may_send(&sixth));
        sequences.written(&first);
        assert!(sequences.may_send(&sixth));
    }

    #[test]
    fn a_repetition_keeps_its_sequence() {
        let (mut sequences, mut queue) = (ready(), queue(2));
        let mut first = sent(&mut sequences, &mut queue);
        let stamp = first.stamp;
        sent(&mut sequences, &mut queue);
        sequences.number(&mut first);
        assert_eq!(first.stamp, stamp);
    }

    #[test]
    fn out_of_order_is_read_as_each_client_reads_it() {
        let again = Verdict::Again { counts: false, maybe_written: false };
        for (habits, behind) in [(Habits::Librdkafka, Verdict::AgainUnderNextEpoch), (Habits::Java, again)] {
            let (mut sequences, mut queue) = (with(habits), queue(2));
            let first = sent(&mut sequences, &mut queue);
            let second = sent(&mut sequences, &mut queue);
            assert_eq!(judge(&sequences, &second, code::OUT_OF_ORDER_SEQUENCE_NUMBER, -1), behind);
            let head = judge(&sequences, &first, code::OUT_OF_ORDER_SEQUENCE_NUMBER, -1);
            match habits {
                Habits::Librdkafka => {
                    assert!(matches!(head, Verdict::Fatal(error) if error.class == ErrorClass::Fatal));
                }
                Habits::Java => assert_eq!(head, Verdict::AgainUnderNextEpoch),
            }
        }
    }

    #[test]
    fn librdkafka_waits_for_all_of_a_partition_before_it_sends_one_again() {
        for (habits, waits) in [(Habits::Librdkafka, true), (Habits::Java, false)] {
            let (mut sequences, mut queue) = (with(habits), queue(2));
            let first = sent(&mut sequences, &mut queue);
            let second = sent(&mut sequences, &mut queue);
            sequences.returns(&first);
            sequences.settle(&first);
            assert_eq!(sequences.may_send(&first), !waits, "{habits:?}: the second is still there");
            sequences.returns(&second);
            assert!(sequences.may_send(&first), "{habits:?}");
        }
    }

    #[test]
    fn a_moved_leader_costs_a_retry_with_java_only() {
        for (habits, costs) in [(Habits::Librdkafka, false), (Habits::Java, true)] {
            let (mut sequences, mut queue) = (with(habits), queue(1));
            let batch = sent(&mut sequences, &mut queue);
            let moved = judge(&sequences, &batch, code::NOT_LEADER_OR_FOLLOWER, -1);
            assert_eq!(moved, Verdict::Again { counts: costs, maybe_written: false }, "{habits:?}");
            let broken = judge(&sequences, &batch, code::KAFKA_STORAGE_ERROR, -1);
            assert_eq!(broken, Verdict::Again { counts: true, maybe_written: false }, "{habits:?}");
        }
    }

    #[test]
    fn an_unknown_producer_is_harmless_at_the_first_attempt_only() {
        let (mut sequences, mut queue) = (ready(), queue(1));
        let mut first = sent(&mut sequences, &mut queue);
        assert_eq!(judge(&sequences, &first, code::UNKNOWN_PRODUCER_ID, -1), Verdict::AgainUnderNextEpoch);
        first.attempts += 1;
        assert!(matches!(judge(&sequences, &first, code::UNKNOWN_PRODUCER_ID, -1), Verdict::Fatal(_)));
        let sequences = with(Habits::Java);
        assert_eq!(judge(&sequences, &first, code::UNKNOWN_PRODUCER_ID, -1), Verdict::AgainUnderNextEpoch);
    }

    #[test]
    fn after_a_batch_is_given_up_the_rest_drains_and_starts_anew() {
        let (mut sequences, mut queue) = (ready(), queue(3));
        let first = sent(&mut sequences, &mut queue);
        let mut second = sent(&mut sequences, &mut queue);
        sequences.given_up(&first, true);
        let third = queue.take(&at(0)).unwrap();
        assert!(sequences.is_draining() && !sequences.may_send(&third), "a gap is not stepped over");
        second.maybe_written = true;
        assert!(sequences.may_send(&second), "what may be written is asked for until it is certain");
        // The gap: the broker refuses it, which makes certain that it is not there.
        let judged = judge(&sequences, &second, code::OUT_OF_ORDER_SEQUENCE_NUMBER, -1);
        assert_eq!(judged, Verdict::Again { counts: false, maybe_written: false });
        sequences.bump();
        second.stamp = None;
        sequences.number(&mut second);
        let stamp = second.stamp.unwrap();
        assert_eq!((stamp.producer_epoch, stamp.base_sequence), (1, 0));
    }

    #[test]
    fn a_duplicate_is_written() {
        let (mut sequences, mut queue) = (ready(), queue(1));
        let first = sent(&mut sequences, &mut queue);
        assert_eq!(judge(&sequences, &first, code::DUPLICATE_SEQUENCE_NUMBER, -1), Verdict::Written(None));
        assert_eq!(judge(&sequences, &first, 0, 41), Verdict::Written(Some(41)));
    }
}

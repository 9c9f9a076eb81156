//! Sequences under retries, losses and new epochs.

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
    let Verdict::Failed { ends_epoch, .. } = judge(&sequences, &refused, code::MESSAGE_TOO_LARGE, -1) else {
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

//! Each rule and its code, one by one.

use ResponseError::{
    InvalidProducerEpoch, InvalidTxnState, OutOfOrderSequenceNumber, TransactionCoordinatorFenced,
};
use bytes::Bytes;
use context::Timestamp;

use super::*;
use crate::log::record;

const TRANSACTIONAL: i16 = 0b1_0000;
const CONTROL: i16 = 0b11_0000;
const DAY_MS: i64 = 86_400_000;

/// A batch of producer 1.
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

fn transactional(epoch: i16, sequence: i32, base_offset: i64) -> BatchHeader {
    BatchHeader { attributes: TRANSACTIONAL, ..batch(epoch, sequence, 1, base_offset) }
}

fn marker(epoch: i16, coordinator_epoch: i32, committed: bool) -> Marker {
    Marker { producer_id: 1, producer_epoch: epoch, coordinator_epoch, committed }
}

/// A client's batch, with no verification asked for.
fn check(state: &ProducerState, batch: &BatchHeader) -> Result<Verdict, ResponseError> {
    state.check(batch, Origin::Client, false, None)
}

fn appended(state: &mut ProducerState, batch: &BatchHeader) {
    assert_eq!(state.appended(batch, None), None);
}

fn end(state: &mut ProducerState, marker: Marker, offset: i64) -> Option<AbortedTransaction> {
    let control = BatchHeader { attributes: CONTROL, ..batch(marker.producer_epoch, NO_SEQUENCE, 1, offset) };
    state.appended(&control, Some(marker))
}

#[test]
fn a_retry_within_the_window_gets_the_first_offset() {
    let mut state = ProducerState::default();
    for index in 0..6 {
        appended(&mut state, &batch(0, index * 2, 2, i64::from(index) * 2));
    }
    let duplicate = Verdict::Duplicate { base_offset: 2, last_offset: 3, max_timestamp: 10 };
    assert_eq!(check(&state, &batch(0, 2, 2, 0)), Ok(duplicate));
    assert_eq!(
        check(&state, &batch(0, 0, 2, 0)),
        Err(OutOfOrderSequenceNumber),
        "the sixth last is forgotten"
    );
    assert_eq!(check(&state, &batch(0, 2, 1, 0)), Err(OutOfOrderSequenceNumber), "half a batch is no retry");
    assert_eq!(check(&state, &batch(0, 12, 1, 0)), Ok(Verdict::Append));
    assert_eq!(check(&state, &batch(0, 13, 1, 0)), Err(OutOfOrderSequenceNumber));
}

#[test]
fn a_new_epoch_begins_at_zero_and_fences_the_old() {
    let mut state = ProducerState::default();
    appended(&mut state, &batch(3, 0, 1, 0));
    assert_eq!(check(&state, &batch(4, 1, 1, 0)), Err(OutOfOrderSequenceNumber));
    assert_eq!(check(&state, &batch(4, 0, 1, 0)), Ok(Verdict::Append));
    appended(&mut state, &batch(4, 0, 1, 1));
    assert_eq!(check(&state, &batch(3, 1, 1, 0)), Err(InvalidProducerEpoch));
    assert_eq!(check(&state, &batch(3, 0, 1, 0)), Err(InvalidProducerEpoch), "even what it has appended");
}

#[test]
fn an_unknown_producer_may_begin_anywhere() {
    let mut state = ProducerState::default();
    assert_eq!(check(&state, &batch(0, 17, 1, 0)), Ok(Verdict::Append));
    appended(&mut state, &batch(0, 17, 1, 0));
    state.expire(509, 500);
    assert_eq!(state.count(), 1);
    state.expire(510, 500);
    assert_eq!(state.count(), 0);
    assert_eq!(check(&state, &batch(0, 99, 1, 0)), Ok(Verdict::Append));
}

#[test]
fn sequences_wrap() {
    let mut state = ProducerState::default();
    appended(&mut state, &batch(0, i32::MAX, 1, 0));
    assert_eq!(check(&state, &batch(0, 0, 1, 0)), Ok(Verdict::Append));
    let mut state = ProducerState::default();
    appended(&mut state, &batch(0, i32::MAX - 1, 4, 0));
    assert_eq!(check(&state, &batch(0, 2, 1, 0)), Ok(Verdict::Append));
}

#[test]
fn a_producer_known_by_a_marker_alone_begins_at_zero() {
    let mut state = ProducerState::default();
    assert_eq!(end(&mut state, marker(2, 5, true), 0), None, "a marker without data ends nothing");
    assert_eq!(check(&state, &batch(2, 7, 1, 0)), Err(OutOfOrderSequenceNumber));
    assert_eq!(check(&state, &batch(2, 0, 1, 0)), Ok(Verdict::Append));
    assert_eq!(check(&state, &batch(1, 0, 1, 0)), Err(InvalidProducerEpoch));
}

#[test]
fn a_marker_leaves_the_sequence_under_the_same_epoch_and_resets_it_under_the_next() {
    let mut state = ProducerState::default();
    appended(&mut state, &transactional(0, 0, 0));
    end(&mut state, marker(0, 5, true), 1);
    assert_eq!(check(&state, &transactional(0, 1, 2)), Ok(Verdict::Append), "transaction.version 1");
    appended(&mut state, &transactional(0, 1, 2));
    end(&mut state, marker(1, 5, true), 3);
    assert_eq!(check(&state, &transactional(1, 2, 4)), Err(OutOfOrderSequenceNumber));
    assert_eq!(check(&state, &transactional(1, 0, 4)), Ok(Verdict::Append), "transaction.version 2");
    assert_eq!(check(&state, &transactional(0, 2, 4)), Err(InvalidProducerEpoch), "late, of the one before");
}

#[test]
fn markers_of_old_producers_and_of_old_coordinators_are_fenced() {
    let mut state = ProducerState::default();
    appended(&mut state, &transactional(3, 0, 0));
    assert_eq!(state.check_marker(&marker(2, 5, true)), Err(InvalidProducerEpoch));
    assert_eq!(state.check_marker(&marker(3, 5, true)), Ok(()));
    end(&mut state, marker(3, 5, true), 1);
    assert_eq!(state.check_marker(&marker(3, 4, true)), Err(TransactionCoordinatorFenced));
    assert_eq!(
        state.check_marker(&marker(2, 4, true)),
        Err(InvalidProducerEpoch),
        "the epoch is asked first"
    );
    assert_eq!(state.check_marker(&marker(3, 5, true)), Ok(()));
    assert_eq!(state.check_marker(&marker(4, 6, false)), Ok(()));
}

#[test]
fn what_is_not_of_the_transaction_is_refused_while_it_is_open() {
    let mut state = ProducerState::default();
    appended(&mut state, &transactional(0, 0, 0));
    assert_eq!(check(&state, &batch(0, 1, 1, 1)), Err(InvalidTxnState));
    assert_eq!(check(&state, &batch(1, 0, 1, 1)), Err(InvalidTxnState), "under a newer epoch too");
    assert_eq!(
        check(&state, &batch(0, 5, 1, 1)),
        Err(OutOfOrderSequenceNumber),
        "the sequence is asked first"
    );
    assert_eq!(check(&state, &transactional(0, 1, 1)), Ok(Verdict::Append));
    end(&mut state, marker(0, 0, true), 1);
    assert_eq!(check(&state, &batch(0, 1, 1, 2)), Ok(Verdict::Append));
}

#[test]
fn a_coordinators_batches_have_no_sequence_but_an_epoch() {
    let mut state = ProducerState::default();
    let offsets = transactional(3, NO_SEQUENCE, 0);
    let check =
        |state: &ProducerState, batch: &BatchHeader| state.check(batch, Origin::Coordinator, false, None);
    assert_eq!(check(&state, &offsets), Ok(Verdict::Append));
    appended(&mut state, &offsets);
    assert_eq!(check(&state, &transactional(3, NO_SEQUENCE, 1)), Ok(Verdict::Append));
    assert_eq!(check(&state, &transactional(2, NO_SEQUENCE, 1)), Err(InvalidProducerEpoch));
    let plain = BatchHeader { producer_id: -1, ..batch(-1, -1, 1, 1) };
    assert_eq!(check(&state, &plain), Ok(Verdict::Append), "records of its own");
}

#[test]
fn a_transaction_opens_only_with_a_guard_that_holds() {
    let mut state = ProducerState::default();
    let first = transactional(0, 0, 0);
    let verify =
        |state: &ProducerState, batch: &BatchHeader, guard| state.check(batch, Origin::Client, true, guard);
    assert_eq!(verify(&state, &first, None), Err(InvalidTxnState));
    let guard = state.begin_verification(0, 1, (0, 0), false).unwrap();
    assert!(guard.is_some());
    assert_eq!(verify(&state, &first, guard), Ok(Verdict::Append));
    assert_eq!(verify(&state, &batch(0, 0, 1, 0), None), Ok(Verdict::Append), "no transaction, no guard");
    appended(&mut state, &first);
    assert_eq!(verify(&state, &transactional(0, 1, 1), None), Ok(Verdict::Append), "it is open");
    assert_eq!(state.begin_verification(0, 1, (0, 1), false), Ok(None));
    end(&mut state, marker(0, 0, false), 1);
    let late = transactional(0, 1, 2);
    assert_eq!(verify(&state, &late, guard), Err(InvalidTxnState), "the guard was for the one before");
    assert_eq!(verify(&state, &first, None), verify(&state, &first, guard), "a retry needs none");
    assert!(matches!(verify(&state, &first, None), Ok(Verdict::Duplicate { .. })));
    end(&mut state, marker(1, 0, false), 2);
    assert_eq!(state.begin_verification(0, 1, (0, 1), false), Err(InvalidProducerEpoch));
}

#[test]
fn a_marker_that_comes_while_a_batch_is_verified_voids_its_guard() {
    let mut state = ProducerState::default();
    let guard = state.begin_verification(0, 1, (0, 0), false).unwrap();
    end(&mut state, marker(0, 0, false), 0);
    assert_eq!(
        state.check(&transactional(0, 0, 1), Origin::Client, true, guard),
        Err(InvalidTxnState),
        "the transaction that it was verified for is over"
    );
}

#[test]
fn no_batch_passes_one_with_a_lower_sequence_that_is_being_verified() {
    let mut state = ProducerState::default();
    state.begin_verification(0, 1, (0, 5), false).unwrap();
    let guard = state.begin_verification(0, 1, (0, 3), false).unwrap();
    let verify = |state: &ProducerState, sequence| {
        state.check(&transactional(0, sequence, 0), Origin::Client, true, guard)
    };
    assert_eq!(verify(&state, 5), Err(OutOfOrderSequenceNumber));
    assert_eq!(verify(&state, 3), Ok(Verdict::Append));
}

#[test]
fn where_nothing_is_known_of_it_a_producer_that_bumps_its_epoch_begins_at_zero() {
    for (bumps_epoch, expected) in [(true, Err(OutOfOrderSequenceNumber)), (false, Ok(Verdict::Append))] {
        let mut state = ProducerState::default();
        let guard = state.begin_verification(0, 1, (0, 4), bumps_epoch).unwrap();
        let verdict = state.check(&transactional(0, 4, 0), Origin::Client, true, guard);
        assert_eq!(verdict, expected, "bumps its epoch: {bumps_epoch}");
    }
}

#[test]
fn a_producer_with_an_open_transaction_does_not_expire() {
    let mut state = ProducerState::default();
    appended(&mut state, &transactional(0, 0, 0));
    state.expire(DAY_MS, 1_000);
    assert_eq!(state.count(), 1);
    let aborted = end(&mut state, marker(0, 3, false), 1).unwrap();
    assert_eq!((aborted.first_offset, aborted.last_offset, aborted.last_stable_offset), (0, 1, 2));
    state.expire(DAY_MS, 1_000);
    assert_eq!(state.count(), 0);
}

/// Appends one record of producer 1 to a log whose segments hold two batches.
fn append(log: &mut Log, state: &mut ProducerState, sequence: i32) {
    let plain = record::write_batch(10, &[(None, Some(Bytes::from_static(b"value")))]);
    let header = BatchHeader::parse(&plain).unwrap();
    let header = BatchHeader { producer_id: 1, producer_epoch: 0, base_sequence: sequence, ..header };
    let batch = batch::assemble(&header, &plain[batch::HEADER_LEN..]);
    let stamped = batch::stamp(&batch, log.end_offset(), 0, None);
    let header = log.append(Timestamp::from_millis(10), stamped, 2 * batch.len());
    state.remember(log, &header);
}

fn is_duplicate(state: &ProducerState, sequence: i32) -> bool {
    matches!(check(state, &batch(0, sequence, 1, 0)), Ok(Verdict::Duplicate { .. }))
}

#[test]
fn a_replica_that_loads_its_log_remembers_one_batch_of_each_producer() {
    let (mut log, mut state) = (Log::default(), ProducerState::default());
    (0..7).for_each(|sequence| append(&mut log, &mut state, sequence));
    assert!((2..7).all(|sequence| is_duplicate(&state, sequence)));
    let loaded = ProducerState::load(&mut log, 10, DAY_MS);
    assert!(is_duplicate(&loaded, 6));
    assert_eq!(
        check(&loaded, &batch(0, 5, 1, 0)),
        Err(OutOfOrderSequenceNumber),
        "a retry of an older batch"
    );
    assert_eq!(check(&loaded, &batch(0, 7, 1, 0)), Ok(Verdict::Append));
    assert_eq!(ProducerState::load(&mut log, 10 + DAY_MS, DAY_MS).count(), 0, "it was silent for a day");
}

#[test]
fn a_replica_whose_log_was_cut_remembers_from_the_snapshot_before_on() {
    let (mut log, mut state) = (Log::default(), ProducerState::default());
    (0..7).for_each(|sequence| append(&mut log, &mut state, sequence));
    // Segments begin at 0, 2, 4 and 6.
    log.truncate_to(6);
    state.truncated(&mut log, 10, DAY_MS);
    assert!(is_duplicate(&state, 5) && !is_duplicate(&state, 4), "the snapshot at 6 holds one batch");
    log.truncate_to(5);
    state.truncated(&mut log, 10, DAY_MS);
    assert!(is_duplicate(&state, 4) && is_duplicate(&state, 3) && !is_duplicate(&state, 2));
    assert_eq!(check(&state, &batch(0, 5, 1, 0)), Ok(Verdict::Append));
}

#[test]
fn producers_outlive_their_records_until_the_replica_loads() {
    let (mut log, mut state) = (Log::default(), ProducerState::default());
    (0..3).for_each(|sequence| append(&mut log, &mut state, sequence));
    log.raise_start_offset(3, 3).unwrap();
    state.log_start_moved(&log);
    assert!(is_duplicate(&state, 2), "its records are deleted, it is not forgotten");
    let loaded = ProducerState::load(&mut log, 10, DAY_MS);
    assert_eq!(loaded.count(), 0, "nothing tells of it any more");
    assert_eq!(check(&loaded, &batch(0, 77, 1, 0)), Ok(Verdict::Append));
}

#[test]
fn a_clean_shutdown_keeps_producers_whose_records_were_deleted() {
    let (mut log, mut state) = (Log::default(), ProducerState::default());
    (0..3).for_each(|sequence| append(&mut log, &mut state, sequence));
    log.raise_start_offset(2, 3).unwrap();
    state.log_start_moved(&log);
    state.take_snapshot(&mut log);
    let loaded = ProducerState::load(&mut log, 10, DAY_MS);
    assert!(is_duplicate(&loaded, 2));
}

#[test]
fn a_follower_that_begins_anew_knows_nobody() {
    let (mut log, mut state) = (Log::default(), ProducerState::default());
    (0..3).for_each(|sequence| append(&mut log, &mut state, sequence));
    log.truncate_fully_and_start_at(40);
    state.restarted(&mut log);
    assert_eq!((state.count(), state.first_unstable()), (0, None));
    append(&mut log, &mut state, 9);
    assert!(is_duplicate(&state, 9));
}

#[test]
fn compaction_leaves_the_last_batch_of_a_producer() {
    let mut state = ProducerState::default();
    appended(&mut state, &batch(0, 0, 2, 0));
    appended(&mut state, &batch(0, 2, 2, 2));
    assert!(!state.is_last_of_producer(&batch(0, 0, 2, 0)));
    assert!(state.is_last_of_producer(&batch(0, 2, 2, 2)));
    end(&mut state, marker(1, 0, true), 4);
    let control = |epoch| BatchHeader { attributes: CONTROL, ..batch(epoch, NO_SEQUENCE, 1, 4) };
    assert!(state.is_last_of_producer(&control(1)) && !state.is_last_of_producer(&control(0)));
    let unknown = BatchHeader { producer_id: 2, ..batch(0, 2, 2, 2) };
    assert!(!state.is_last_of_producer(&unknown));
}

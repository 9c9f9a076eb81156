//! InitProducerId: new ids, bumps, resumption (KIP-360), fences, used-up epochs.

use super::*;
use TransactionState::{CompleteAbort, Empty, Ongoing};

#[test]
fn each_new_producer_of_an_id_has_one_epoch_more() {
    let mut rig = Rig::new(2);
    let first = rig.producer();
    assert_eq!(first.epoch, 0);
    assert_eq!(rig.init(), Ok(at(first.id, 1)));
    assert_eq!(rig.add(first, &[0]), Err(ResponseError::ProducerFenced));
    assert_eq!(rig.end(first, true), Err(ResponseError::ProducerFenced));
}

#[test]
fn a_producer_that_goes_on_is_bumped_once_however_often_it_asks() {
    let mut rig = Rig::new(2);
    let first = rig.producer();
    let second = rig.resume(first).unwrap();
    assert_eq!(second, at(first.id, 1));
    assert_eq!(rig.resume(first), Ok(second), "the answer was lost: what was given is given again");
    assert_eq!(rig.resume(second), Ok(at(first.id, 2)));
    assert_eq!(rig.resume(first), Err(ResponseError::ProducerFenced), "that was two bumps ago");
    assert_eq!(rig.resume(at(first.id + 99, 2)), Err(ResponseError::ProducerFenced), "another producer id");
}

#[test]
fn a_new_producer_fences_one_that_would_go_on() {
    let mut rig = Rig::new(2);
    let first = rig.producer();
    let zombie = rig.resume(first).unwrap();
    let newer = rig.producer();
    assert_eq!(newer.epoch, zombie.epoch + 1);
    assert_eq!(rig.resume(zombie), Err(ResponseError::ProducerFenced));
    assert_eq!(rig.resume(first), Err(ResponseError::ProducerFenced));
}

#[test]
fn an_open_transaction_is_aborted_under_an_epoch_that_nobody_has() {
    for level in [0, 1, 2] {
        let mut rig = Rig::new(level);
        let first = rig.producer();
        rig.add(first, &[0]).unwrap();
        rig.marking = false;
        assert_eq!(rig.init(), Err(ResponseError::ConcurrentTransactions));
        let marker = rig.sent[0].1[0].clone();
        assert!(!marker.commit);
        assert_eq!(marker.producer.epoch, first.epoch + 1, "bumped once, not twice (KAFKA-19367)");
        assert_eq!(rig.init(), Err(ResponseError::ConcurrentTransactions), "until the markers are written");
        rig.answer_markers(|_, _| Ok(()));
        assert_eq!(rig.state(), CompleteAbort);
        assert_eq!(rig.init(), Ok(at(first.id, first.epoch + 2)), "level {level}");
    }
}

#[test]
fn a_fence_that_could_not_be_written_bumps_once() {
    for level in [1, 2] {
        let mut rig = Rig::new(level);
        let first = rig.producer();
        rig.add(first, &[0]).unwrap();
        rig.failing = Some(ResponseError::NotEnoughReplicas);
        for _ in 0..3 {
            assert_eq!(rig.init(), Err(ResponseError::CoordinatorNotAvailable));
            assert_eq!(rig.state(), Ongoing);
        }
        rig.failing = None;
        assert_eq!(rig.init(), Err(ResponseError::ConcurrentTransactions));
        assert_eq!(rig.written[0].producer.epoch, first.epoch + 1, "level {level}");
        assert_eq!(rig.init(), Ok(at(first.id, first.epoch + 2)));
    }
}

#[test]
fn below_level_2_a_fence_that_could_not_be_written_fences_all_the_same() {
    // `endTransactionWithTV1` raises the epoch in memory before it appends.
    let mut rig = Rig::new(1);
    let first = rig.producer();
    rig.add(first, &[0]).unwrap();
    rig.failing = Some(ResponseError::NotEnoughReplicas);
    assert_eq!(rig.init(), Err(ResponseError::CoordinatorNotAvailable));
    rig.failing = None;
    assert_eq!(rig.end(first, true), Err(ResponseError::ProducerFenced));
}

#[test]
fn a_producer_whose_epochs_are_used_up_gets_another_id() {
    let mut rig = Rig::new(2);
    let first = rig.producer();
    rig.place(|id| id.current.producer_epoch = i16::MAX - 1);
    let last = at(first.id, i16::MAX - 1);
    let second = rig.resume(last).unwrap();
    assert!(second.id != first.id && second.epoch == 0);
    assert_eq!(rig.resume(last), Ok(second), "its retry is known by the previous producer id");
    // One that did not say what it had is not known again.
    rig.place(|id| id.current.producer_epoch = i16::MAX - 1);
    let third = rig.init().unwrap();
    assert!(third.id != second.id && third.epoch == 0);
    assert_eq!(rig.resume(at(second.id, i16::MAX - 1)), Err(ResponseError::ProducerFenced));
}

#[test]
fn a_failover_does_not_know_retries_of_the_time_before() {
    // The last epoch is not in the log (KAFKA's `TransactionLogValue` has no field for it).
    let mut rig = Rig::new(2);
    let first = rig.producer();
    rig.resume(first).unwrap();
    rig.fail_over();
    assert_eq!(rig.resume(first), Err(ResponseError::ProducerFenced));
}

#[test]
fn an_id_that_expired_takes_a_producer_that_goes_on() {
    let mut rig = Rig::new(2);
    let first = rig.producer();
    rig.advance(604_800_000 + 3_600_000);
    assert!(rig.core.transaction(ID).is_none());
    let anew = rig.resume(at(first.id, 5)).unwrap();
    assert!(anew.id != first.id && anew.epoch == 0, "{anew:?}");
    assert_eq!(rig.state(), Empty);
}

#[test]
fn no_one_is_initialized_twice_at_once() {
    let mut rig = Rig::new(2);
    rig.holding = true;
    let first = rig.begin_init(None);
    assert_eq!(rig.init(), Err(ResponseError::ConcurrentTransactions));
    assert!(!rig.answers.contains_key(&first), "nobody hears of what is not committed");
    rig.release();
    assert_eq!(rig.answer(first).unwrap().epoch, 0);
}

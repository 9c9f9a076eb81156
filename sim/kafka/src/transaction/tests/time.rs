//! Transactions that are open for too long, and ids that are silent for too long.

use super::*;
use TransactionState::{CompleteAbort, Ongoing};

#[test]
fn a_transaction_is_aborted_at_the_first_look_after_its_timeout() {
    for level in [1, 2] {
        let mut rig = Rig::new(level);
        let producer = rig.producer();
        rig.advance(3_000);
        rig.add(producer, &[0]).unwrap();
        // Looks are every 10 s since the start: it is over at 63 s.
        rig.advance(66_999);
        assert_eq!(rig.state(), Ongoing);
        rig.advance(1);
        assert_eq!(rig.state(), CompleteAbort);
        assert_eq!(rig.written[0].producer.epoch, producer.epoch + 1, "level {level}");
        assert_eq!(rig.add(producer, &[0]), Err(ResponseError::ProducerFenced));
        let late = rig.end(producer, true);
        // Under level 2 that epoch is the one before: a retry of a commit that never was.
        let error = if level == 2 { ResponseError::InvalidTxnState } else { ResponseError::ProducerFenced };
        assert_eq!(late, Err(error));
    }
}

#[test]
fn a_coordinator_without_an_open_transaction_is_not_woken_for_one() {
    let mut rig = Rig::new(2);
    let looks = |rig: &Rig| rig.wakes.iter().filter(|(_, timer)| *timer == Timer::AbortTimedOut).count();
    let mut producer = rig.producer();
    assert_eq!(looks(&rig), 0);
    for _ in 0..5 {
        rig.add(producer, &[0]).unwrap();
        producer = rig.end(producer, true).unwrap();
        rig.advance(1_000);
    }
    assert_eq!(looks(&rig), 1, "one look, when the first would have been over");
    rig.advance(100_000);
    assert_eq!(looks(&rig), 0);
}

#[test]
fn an_abort_that_cannot_be_written_is_tried_at_every_look() {
    let mut rig = Rig::new(2);
    let producer = rig.producer();
    rig.add(producer, &[0]).unwrap();
    rig.failing = Some(ResponseError::NotEnoughReplicas);
    rig.advance(90_000);
    assert_eq!(rig.state(), Ongoing);
    rig.failing = None;
    rig.advance(10_000);
    assert_eq!(rig.state(), CompleteAbort);
    assert_eq!(rig.written[0].producer.epoch, producer.epoch + 1, "bumped once");
}

#[test]
fn a_new_coordinator_watches_what_it_found_open() {
    let mut rig = Rig::new(2);
    let producer = rig.producer();
    rig.add(producer, &[0]).unwrap();
    rig.advance(50_000);
    rig.fail_over();
    assert_eq!(rig.state(), Ongoing);
    rig.advance(20_000);
    assert_eq!(rig.state(), CompleteAbort);
}

#[test]
fn a_transaction_that_is_over_while_something_is_pending_is_left_for_the_next_look() {
    let mut rig = Rig::new(2);
    let producer = rig.producer();
    rig.add(producer, &[0]).unwrap();
    rig.holding = true;
    let ticket = rig.begin_add(producer, &[1]);
    rig.advance(70_000);
    rig.release();
    rig.answer(ticket).unwrap();
    assert_eq!(rig.state(), Ongoing);
    rig.advance(10_000);
    assert_eq!(rig.state(), CompleteAbort);
}

#[test]
fn an_id_that_is_silent_for_a_week_is_forgotten_in_the_log_too() {
    let mut rig = Rig::new(2);
    rig.producer();
    let week = 604_800_000;
    rig.advance(week - 1_000);
    let producer = rig.producer();
    rig.advance(3_600_000);
    assert!(rig.core.transaction(ID).is_some(), "it was heard of");
    rig.advance(week);
    assert!(rig.core.transaction(ID).is_none());
    assert_eq!(rig.log.last().unwrap().1, None, "a tombstone");
    rig.fail_over();
    assert_eq!(rig.add(producer, &[0]), Err(ResponseError::InvalidProducerIdMapping));
}

#[test]
fn an_open_transaction_does_not_expire() {
    let mut rig = Rig::new(2);
    let producer = rig.producer();
    rig.add(producer, &[0]).unwrap();
    // It cannot be aborted either.
    rig.failing = Some(ResponseError::NotEnoughReplicas);
    rig.advance(604_800_000 + 7_200_000);
    rig.failing = None;
    assert_eq!(rig.state(), Ongoing);
}

#[test]
fn tombstones_that_cannot_be_written_are_written_later() {
    let mut rig = Rig::new(2);
    rig.producer();
    rig.failing = Some(ResponseError::NotEnoughReplicas);
    rig.advance(604_800_000 + 3_600_000);
    assert!(rig.core.transaction(ID).is_some_and(|id| id.pending().is_none()));
    rig.failing = None;
    rig.advance(3_600_000);
    assert!(rig.core.transaction(ID).is_none());
}

//! What an EndTxn may do: Kafka's tables, state by state.

use super::super::end::{Verdict, judge_v1, judge_v2};
use super::*;
use TransactionState::{CompleteAbort, CompleteCommit, Empty, Ongoing, PrepareAbort, PrepareCommit};

/// The id with producer 7 at epoch 5.
fn standing(state: TransactionState) -> TransactionMetadata {
    let mut metadata = TransactionMetadata::new(7, TIMEOUT_MS, 0);
    metadata.current.producer_epoch = 5;
    metadata.current.state = state;
    metadata
}

/// One letter for each verdict: fenced, mapping, invalid, concurrent, done, prepare, and prepare where there is nothing.
fn letter(verdict: Verdict) -> char {
    match verdict {
        Verdict::Refused(ResponseError::ProducerFenced) => 'F',
        Verdict::Refused(ResponseError::InvalidProducerIdMapping) => 'M',
        Verdict::Refused(ResponseError::InvalidTxnState) => 'I',
        Verdict::Refused(ResponseError::ConcurrentTransactions) => 'C',
        Verdict::Refused(other) => panic!("{other:?}"),
        Verdict::Done => 'D',
        Verdict::Prepare { empty: false } => 'P',
        Verdict::Prepare { empty: true } => 'E',
    }
}

const STATES: [TransactionState; 6] =
    [Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit, CompleteAbort];

fn table(judge: fn(&TransactionMetadata, Producer, bool) -> Verdict) -> Vec<String> {
    let row = |state: TransactionState| {
        let asked = [(7, 5), (7, 4), (7, 6), (7, 3), (8, 5)];
        let verdict = |commit| {
            let letters = asked.map(|(id, epoch)| letter(judge(&standing(state), at(id, epoch), commit)));
            letters.iter().collect::<String>()
        };
        format!("{:<14} abort {} commit {}", state.name(), verdict(false), verdict(true))
    };
    STATES.map(row).to_vec()
}

#[test]
fn below_level_2_only_the_present_epoch_ends_a_transaction_and_does_not_say_which() {
    // Columns: the present epoch, one less (a retry under level 2), one more, two less, another producer id.
    assert_eq!(
        table(judge_v1),
        [
            "Empty          abort IFFFM commit IFFFM",
            "Ongoing        abort PFFFM commit PFFFM",
            "PrepareCommit  abort IFFFM commit CFFFM",
            "PrepareAbort   abort CFFFM commit IFFFM",
            "CompleteCommit abort IFFFM commit DFFFM",
            "CompleteAbort  abort DFFFM commit IFFFM",
        ]
    );
}

#[test]
fn under_level_2_the_present_epoch_is_the_next_transaction_and_the_one_before_a_retry() {
    assert_eq!(
        table(judge_v2),
        [
            "Empty          abort EFFFM commit IFFFM",
            "Ongoing        abort PFFFM commit PFFFM",
            "PrepareCommit  abort FIFFM commit FCFFM",
            "PrepareAbort   abort FCFFM commit FIFFM",
            "CompleteCommit abort EIFFM commit IDFFM",
            "CompleteAbort  abort EDFFM commit IIFFM",
        ]
    );
}

#[test]
fn what_is_pending_is_told_first_under_level_2_and_after_the_fence_below() {
    let mut pending = standing(Ongoing);
    pending.pending = Some(PrepareCommit);
    // While a transaction completes its producer id may be changing: nobody is told that his is wrong.
    assert_eq!(letter(judge_v2(&pending, at(8, 5), true)), 'C');
    assert_eq!(letter(judge_v1(&pending, at(8, 5), true)), 'M');
    assert_eq!(letter(judge_v1(&pending, at(7, 4), true)), 'F');
    assert_eq!(letter(judge_v1(&pending, at(7, 5), true)), 'C');
}

#[test]
fn below_level_2_the_epoch_stays_from_one_transaction_to_the_next() {
    let mut rig = Rig::new(1);
    let producer = rig.producer();
    for commit in [true, false, true] {
        rig.add(producer, &[0, 1]).unwrap();
        assert_eq!(rig.end(producer, commit), Ok(producer));
        assert_eq!(rig.state(), if commit { CompleteCommit } else { CompleteAbort });
    }
    assert_eq!(rig.written.len(), 3);
    assert!(rig.written.iter().all(|marker| marker.producer == producer));
}

#[test]
fn kafka_17754_a_late_commit_takes_the_next_transaction_below_level_2_and_is_fenced_under_it() {
    for (level, late) in [(1, Ok(())), (2, Err(ResponseError::ProducerFenced))] {
        let mut rig = Rig::new(level);
        let first = rig.producer();
        rig.add(first, &[0]).unwrap();
        let second = rig.end(first, true).unwrap();
        // The next transaction is open when the first one's EndTxn arrives once more.
        rig.add(second, &[1]).unwrap();
        assert_eq!(rig.end(first, true).map(|_| ()), late, "level {level}");
        let state = if level == 1 { CompleteCommit } else { Ongoing };
        assert_eq!(rig.state(), state, "level {level}");
    }
}

#[test]
fn under_level_2_each_end_bumps_the_epoch_and_a_retry_is_told_the_same() {
    let mut rig = Rig::new(2);
    let producer = rig.producer();
    rig.add(producer, &[0]).unwrap();
    let next = rig.end(producer, true).unwrap();
    assert_eq!(next, at(producer.id, producer.epoch + 1));
    assert_eq!(rig.written[0].producer, next, "markers carry the bumped epoch");
    assert_eq!(rig.end(producer, true), Ok(next));
    assert_eq!(rig.end(producer, false), Err(ResponseError::InvalidTxnState), "it was committed");
}

#[test]
fn under_level_2_a_retry_waits_while_markers_are_written() {
    let mut rig = Rig::new(2);
    let producer = rig.producer();
    rig.add(producer, &[0]).unwrap();
    rig.marking = false;
    let next = rig.end(producer, true).unwrap();
    assert_eq!(rig.state(), PrepareCommit, "answered before the markers are written");
    assert_eq!(rig.end(producer, true), Err(ResponseError::ConcurrentTransactions));
    assert_eq!(rig.add(next, &[1]), Err(ResponseError::ConcurrentTransactions));
    rig.answer_markers(|_, _| Ok(()));
    assert_eq!(rig.state(), CompleteCommit);
    assert_eq!(rig.end(producer, true), Ok(next));
    rig.add(next, &[1]).unwrap();
}

#[test]
fn under_level_2_an_abort_of_nothing_bumps_the_epoch_and_writes_no_marker() {
    let mut rig = Rig::new(2);
    let mut producer = rig.producer();
    for _ in 0..3 {
        let next = rig.end(producer, false).unwrap();
        assert_eq!(next.epoch, producer.epoch + 1);
        assert_eq!(rig.state(), CompleteAbort);
        assert_eq!(rig.current().start_ms, rig.now, "it has to have started at some time");
        producer = next;
    }
    assert!(rig.written.is_empty());
    assert_eq!(rig.end(producer, true), Err(ResponseError::InvalidTxnState), "there is nothing to commit");
}

#[test]
fn the_last_epoch_ends_with_another_producer_id_under_level_2() {
    let mut rig = Rig::new(2);
    let first = rig.producer();
    rig.place(|id| id.current.producer_epoch = i16::MAX - 1);
    let last = at(first.id, i16::MAX - 1);
    rig.add(last, &[0]).unwrap();
    rig.marking = false;
    let ended = rig.end(last, true).unwrap();
    assert!(ended.id != first.id && ended.epoch == 0, "told before it is so: {ended:?}");
    assert_eq!((rig.current().producer_id, rig.current().producer_epoch), (first.id, i16::MAX));
    assert_eq!(rig.sent[0].1[0].producer, at(first.id, i16::MAX), "the epoch that was kept back fences");
    rig.answer_markers(|_, _| Ok(()));
    assert_eq!((rig.current().producer_id, rig.current().producer_epoch), (ended.id, 0));
    assert_eq!(rig.end(last, true), Ok(ended), "its retry is known (KAFKA-18660)");
    rig.add(ended, &[1]).unwrap();
}

#[test]
fn a_failover_in_the_last_epochs_commit_forgets_the_next_producer_id() {
    // 4.1.0 does not write it: the client was told an id that no coordinator knows any more.
    let mut rig = Rig::new(2);
    let first = rig.producer();
    rig.place(|id| id.current.producer_epoch = i16::MAX - 1);
    let last = at(first.id, i16::MAX - 1);
    rig.add(last, &[0]).unwrap();
    rig.marking = false;
    let told = rig.end(last, true).unwrap();
    rig.marking = true;
    rig.fail_over();
    assert_eq!((rig.current().producer_id, rig.current().producer_epoch), (first.id, i16::MAX));
    assert_eq!(rig.add(told, &[1]), Err(ResponseError::InvalidProducerIdMapping));
    let anew = rig.producer();
    assert!(anew.id > told.id && anew.epoch == 0, "{anew:?}");
}

#[test]
fn an_epoch_beyond_the_last_breaks_no_coordinator() {
    // Only a failover as above, and a client that makes epochs up, come here. Kafka throws, and answers with that.
    let mut rig = Rig::new(2);
    let first = rig.producer();
    rig.place(|id| id.current.producer_epoch = i16::MAX);
    let beyond = at(first.id, i16::MAX);
    rig.add(beyond, &[0]).unwrap();
    assert_eq!(rig.end(beyond, true), Err(ResponseError::UnknownServerError));
    assert_eq!(rig.init(), Err(ResponseError::UnknownServerError));
    rig.advance(80_000);
    assert_eq!(rig.state(), Ongoing);
}

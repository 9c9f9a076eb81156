//! Markers: where they go, what is tried again, what is given up; and failovers while they are on their way.

use super::*;
use TransactionState::{CompleteAbort, CompleteCommit, PrepareCommit};

/// A transaction over partitions 0 and 1, on brokers 1 and 2, whose commit was just answered.
fn committing(rig: &mut Rig) -> Producer {
    rig.leaders.insert(partition(1), Leader::At(2));
    let producer = rig.producer();
    rig.add(producer, &[0, 1]).unwrap();
    rig.marking = false;
    rig.end(producer, true).unwrap()
}

#[test]
fn markers_go_to_each_leader_and_the_transaction_is_complete_when_all_are_written() {
    let mut rig = Rig::new(2);
    committing(&mut rig);
    let to: Vec<_> = rig.sent.iter().map(|(node, markers)| (*node, markers[0].partitions.clone())).collect();
    assert_eq!(to, [(1, [partition(0)].into()), (2, [partition(1)].into())]);
    assert!(rig.sent.iter().all(|(_, markers)| markers[0].coordinator_epoch == rig.epoch));
    let second = rig.sent.pop().unwrap();
    rig.answer_markers(|_, _| Ok(()));
    assert_eq!(rig.state(), PrepareCommit, "one is missing");
    rig.sent.push(second);
    rig.answer_markers(|_, _| Ok(()));
    assert_eq!((rig.state(), rig.core.completing()), (CompleteCommit, 0));
}

#[test]
fn what_may_pass_is_tried_again_where_the_leader_is_then() {
    let errors = [
        ResponseError::UnknownTopicOrPartition,
        ResponseError::NotLeaderOrFollower,
        ResponseError::NotEnoughReplicas,
        ResponseError::NotEnoughReplicasAfterAppend,
        ResponseError::RequestTimedOut,
        ResponseError::KafkaStorageError,
    ];
    for error in errors {
        let mut rig = Rig::new(2);
        committing(&mut rig);
        rig.answer_markers(|node, _| if node == 2 { Err(error) } else { Ok(()) });
        assert!(rig.sent.is_empty(), "not at once");
        rig.leaders.insert(partition(1), Leader::At(3));
        rig.advance(50);
        assert_eq!(rig.sent.len(), 1);
        assert_eq!((rig.sent[0].0, &rig.sent[0].1[0].partitions), (3, &[partition(1)].into()));
        rig.answer_markers(|_, _| Ok(()));
        assert_eq!(rig.state(), CompleteCommit, "{error:?}");
    }
}

#[test]
fn a_broker_that_does_not_answer_is_asked_again() {
    let mut rig = Rig::new(2);
    committing(&mut rig);
    for (node, _) in std::mem::take(&mut rig.sent) {
        rig.ask(|core, now, out| core.markers_answered(now, node, None, out));
    }
    rig.advance(50);
    assert_eq!(rig.sent.len(), 2);
    rig.answer_markers(|_, _| Ok(()));
    assert_eq!(rig.state(), CompleteCommit);
}

#[test]
fn a_broker_has_one_request_at_a_time_and_gets_the_rest_together() {
    let mut rig = Rig::new(2);
    rig.marking = false;
    let begin = |rig: &mut Rig, id: &str| {
        let (init, add, end) = (rig.ticket(), rig.ticket(), rig.ticket());
        let request = InitRequest { id: id.to_owned(), timeout_ms: TIMEOUT_MS, expected: None };
        rig.ask(|core, now, out| core.init_producer_id(now, request, init, out));
        let producer = rig.answer(init).unwrap();
        let (id, version) = (id.to_owned(), TransactionVersion::TV_2);
        let added = Added { id: id.clone(), producer, partitions: [partition(0)].into(), version };
        rig.ask(|core, now, out| core.add_partitions(now, added, add, out));
        let request = EndRequest { id, producer, commit: true, version };
        rig.ask(|core, now, out| core.end(now, request, end, out));
        rig.answer(end).unwrap();
    };
    for id in ["a", "b", "c"] {
        begin(&mut rig, id);
    }
    assert_eq!(rig.sent.iter().map(|(_, markers)| markers.len()).collect::<Vec<_>>(), [1]);
    rig.answer_markers(|_, _| Ok(()));
    rig.settle();
    assert_eq!(rig.sent.iter().map(|(_, markers)| markers.len()).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_partition_without_a_leader_waits_for_one_and_one_that_is_gone_needs_no_marker() {
    let mut rig = Rig::new(2);
    rig.leaders.insert(partition(0), Leader::Gone);
    rig.leaders.insert(partition(1), Leader::Away);
    let producer = rig.producer();
    rig.add(producer, &[0, 1]).unwrap();
    rig.end(producer, true).unwrap();
    assert_eq!(rig.current().partitions, [partition(1)].into());
    assert!(rig.core.has_held_markers());
    assert!(rig.wakes.iter().all(|(_, timer)| *timer != Timer::RetryMarkers), "the metadata brings it back");
    rig.leaders.insert(partition(1), Leader::At(2));
    rig.ask(|core, _, _| core.retry_markers(false));
    assert_eq!(rig.state(), CompleteCommit);
}

#[test]
fn all_partitions_gone_is_a_complete_transaction() {
    let mut rig = Rig::new(2);
    rig.leaders.insert(partition(0), Leader::Gone);
    let producer = rig.producer();
    rig.add(producer, &[0]).unwrap();
    rig.end(producer, false).unwrap();
    assert_eq!(rig.state(), CompleteAbort);
}

#[test]
fn a_leader_that_knows_a_newer_coordinator_or_producer_ends_the_sending() {
    for error in [ResponseError::InvalidProducerEpoch, ResponseError::TransactionCoordinatorFenced] {
        let mut rig = Rig::new(2);
        committing(&mut rig);
        rig.answer_markers(|node, _| if node == 2 { Err(error) } else { Ok(()) });
        rig.advance(60_000);
        assert!(rig.sent.is_empty(), "{error:?}");
        assert_eq!((rig.state(), rig.core.completing()), (PrepareCommit, 0));
        // The next coordinator does what the log says.
        rig.marking = true;
        rig.fail_over();
        assert_eq!(rig.state(), CompleteCommit);
    }
}

#[test]
fn a_new_coordinator_sends_the_markers_of_what_was_decided() {
    for commit in [true, false] {
        let mut rig = Rig::new(2);
        let producer = rig.producer();
        rig.add(producer, &[0, 1]).unwrap();
        rig.marking = false;
        rig.end(producer, commit).unwrap();
        rig.fail_over();
        assert_eq!(rig.init(), Err(ResponseError::ConcurrentTransactions));
        let marker = &rig.sent[0].1[0];
        assert_eq!((marker.commit, marker.partitions.len(), marker.coordinator_epoch), (commit, 2, 2));
        rig.answer_markers(|_, _| Ok(()));
        assert_eq!(rig.state(), if commit { CompleteCommit } else { CompleteAbort });
    }
}

#[test]
fn answers_to_markers_of_an_earlier_epoch_change_nothing() {
    let mut rig = Rig::new(2);
    committing(&mut rig);
    let sent = std::mem::take(&mut rig.sent);
    // The same broker loses the partition and gets it back.
    let records: Vec<_> = rig
        .log
        .iter()
        .map(|(key, value)| TransactionRecord::decode(key.clone(), value.clone()).unwrap())
        .collect();
    rig.core.unload(0);
    rig.core.begin_load(0, 1, 9);
    rig.ask(|core, now, out| _ = core.finish_load(now, 0, 9, records.into_iter(), out));
    rig.sent = sent;
    rig.answer_markers(|_, _| Ok(()));
    assert_eq!((rig.state(), rig.current().partitions.len()), (PrepareCommit, 2));
    rig.settle();
    assert!(rig.sent.iter().all(|(_, markers)| markers[0].coordinator_epoch == 9));
    rig.answer_markers(|_, _| Ok(()));
    assert_eq!(rig.state(), CompleteCommit);
}

#[test]
fn the_end_that_cannot_be_appended_is_appended_later() {
    let mut rig = Rig::new(2);
    let next = committing(&mut rig);
    rig.failing = Some(ResponseError::NotEnoughReplicas);
    rig.answer_markers(|_, _| Ok(()));
    assert_eq!(rig.state(), PrepareCommit);
    rig.failing = None;
    assert_eq!(rig.add(next, &[0]), Err(ResponseError::ConcurrentTransactions));
    // Kafka's sender wakes from its poll after `request.timeout.ms`.
    rig.advance(29_999);
    assert_eq!(rig.state(), PrepareCommit);
    rig.advance(1);
    assert_eq!(rig.state(), CompleteCommit);
    rig.add(next, &[0]).unwrap();
}

//! Every error code by its cause.

use super::*;
use TransactionState::{Empty, Ongoing};

#[test]
fn an_empty_id_is_no_request() {
    let mut rig = Rig::new(2);
    let (init, add, end) = (rig.ticket(), rig.ticket(), rig.ticket());
    let id = String::new;
    let (producer, version) = (at(1, 0), TransactionVersion::TV_2);
    rig.ask(|core, now, out| {
        core.init_producer_id(now, InitRequest { id: id(), timeout_ms: 1, expected: None }, init, out);
        let partitions = [partition(0)].into();
        core.add_partitions(now, Added { id: id(), producer, partitions, version }, add, out);
        core.end(now, EndRequest { id: id(), producer, commit: true, version }, end, out);
        assert_eq!(core.describe(""), Err(ResponseError::InvalidRequest));
        assert_eq!(core.verify("", producer, &BTreeSet::new()), Err(ResponseError::InvalidRequest));
    });
    for ticket in [init, add, end] {
        assert_eq!(rig.answer(ticket), Err(ResponseError::InvalidRequest));
    }
}

#[test]
fn a_timeout_must_be_positive_and_not_beyond_the_brokers() {
    let mut rig = Rig::new(2);
    for (timeout_ms, fits) in [(0, false), (-1, false), (1, true), (900_000, true), (900_001, false)] {
        let ticket = rig.ticket();
        let request = InitRequest { id: format!("t{timeout_ms}"), timeout_ms, expected: None };
        rig.ask(|core, now, out| core.init_producer_id(now, request, ticket, out));
        let answer = rig.answer(ticket);
        assert_eq!(answer.is_ok(), fits, "{timeout_ms}");
        assert!(fits || answer == Err(ResponseError::InvalidTransactionTimeout));
    }
}

#[test]
fn an_id_that_nobody_initialized_has_no_producer() {
    let mut rig = Rig::new(2);
    let unknown = at(1, 0);
    assert_eq!(rig.add(unknown, &[0]), Err(ResponseError::InvalidProducerIdMapping));
    assert_eq!(rig.end(unknown, true), Err(ResponseError::InvalidProducerIdMapping));
    assert_eq!(rig.core.describe(ID), Err(ResponseError::TransactionalIdNotFound));
    let partitions = [partition(0)].into();
    assert_eq!(rig.core.verify(ID, unknown, &partitions), Err(ResponseError::InvalidProducerIdMapping));
}

#[test]
fn another_brokers_id_and_one_that_is_being_read_are_told_so() {
    let mut rig = Rig::new(2);
    let producer = rig.producer();
    rig.core.begin_load(0, 1, 2);
    for (loading, error) in
        [(true, ResponseError::CoordinatorLoadInProgress), (false, ResponseError::NotCoordinator)]
    {
        if !loading {
            rig.core.unload(0);
        }
        assert_eq!(rig.init(), Err(error));
        assert_eq!(rig.add(producer, &[0]), Err(error));
        assert_eq!(rig.end(producer, true), Err(error));
        assert_eq!(rig.core.describe(ID), Err(error));
        let list = rig.core.list(0, &Filter::default());
        assert_eq!(list.is_err(), loading, "a list is of what is here");
    }
}

#[test]
fn the_first_id_waits_for_producer_ids() {
    let mut core = Rig::fresh(TransactionVersion::TV_2);
    core.begin_load(0, 1, 1);
    let mut out = Vec::new();
    core.finish_load(0, 0, 1, std::iter::empty(), &mut out);
    let request = InitRequest { id: ID.to_owned(), timeout_ms: TIMEOUT_MS, expected: None };
    core.init_producer_id(0, request, Ticket(1), &mut out);
    let result = Err(ResponseError::CoordinatorLoadInProgress);
    assert_eq!(out, [Effect::Answer { ticket: Ticket(1), result }]);
    assert!(core.producer_ids.wants_block());
}

#[test]
fn a_failed_append_changes_nothing_and_says_why() {
    let causes = [
        (ResponseError::UnknownTopicOrPartition, ResponseError::CoordinatorNotAvailable),
        (ResponseError::NotEnoughReplicas, ResponseError::CoordinatorNotAvailable),
        (ResponseError::NotEnoughReplicasAfterAppend, ResponseError::CoordinatorNotAvailable),
        (ResponseError::RequestTimedOut, ResponseError::CoordinatorNotAvailable),
        (ResponseError::NotLeaderOrFollower, ResponseError::NotCoordinator),
        (ResponseError::KafkaStorageError, ResponseError::NotCoordinator),
        (ResponseError::MessageTooLarge, ResponseError::UnknownServerError),
        (ResponseError::RecordListTooLarge, ResponseError::UnknownServerError),
        (ResponseError::InvalidRecord, ResponseError::InvalidRecord),
    ];
    for (cause, told) in causes {
        let mut rig = Rig::new(2);
        let producer = rig.producer();
        rig.failing = Some(cause);
        let before = rig.current().clone();
        assert_eq!(rig.init(), Err(told));
        assert_eq!(rig.add(producer, &[0]), Err(told));
        assert_eq!(*rig.current(), before);
        rig.failing = None;
        rig.add(producer, &[0]).unwrap();
        rig.failing = Some(cause);
        assert_eq!(rig.end(producer, true), Err(told));
        assert_eq!(rig.state(), Ongoing);
        rig.failing = None;
        assert!(rig.end(producer, true).is_ok(), "after {cause:?}");
    }
}

#[test]
fn an_append_that_ends_after_its_partition_was_given_up_is_answered_and_forgotten() {
    let mut rig = Rig::new(2);
    rig.producer();
    rig.holding = true;
    let ticket = rig.begin_init(None);
    let append = rig.held.remove(0);
    rig.fail_over();
    let before = rig.current().clone();
    rig.end_append(append);
    assert_eq!(rig.answer(ticket), Err(ResponseError::NotCoordinator));
    assert_eq!(*rig.current(), before, "the new coordinator has read what it has read");
}

#[test]
fn an_id_whose_first_append_failed_has_no_epoch_to_write_under() {
    let mut rig = Rig::new(2);
    rig.failing = Some(ResponseError::NotEnoughReplicas);
    assert!(rig.init().is_err());
    rig.failing = None;
    assert_eq!((rig.state(), rig.current().producer_epoch), (Empty, NO_EPOCH));
    let nobody = at(rig.current().producer_id, NO_EPOCH);
    assert_eq!(rig.add(nobody, &[0]), Err(ResponseError::UnknownServerError));
    assert_eq!(rig.init().unwrap().epoch, 0);
}

#[test]
fn a_leader_is_told_which_partitions_are_in_the_transaction() {
    let mut rig = Rig::new(1);
    let producer = rig.producer();
    rig.add(producer, &[0, 1]).unwrap();
    let asked: BTreeSet<_> = [partition(0), partition(2)].into();
    let (in_it, not) = (partition(0), partition(2));
    let expected = vec![(&in_it, Ok(())), (&not, Err(ResponseError::TransactionAbortable))];
    assert_eq!(rig.core.verify(ID, producer, &asked), Ok(expected));
    let other = at(producer.id, producer.epoch + 1);
    assert_eq!(rig.core.verify(ID, other, &asked), Err(ResponseError::ProducerFenced));
    rig.marking = false;
    rig.end(producer, true).unwrap();
    assert_eq!(rig.core.verify(ID, producer, &asked), Err(ResponseError::ConcurrentTransactions));
    rig.answer_markers(|_, _| Ok(()));
    let gone = rig.core.verify(ID, producer, &asked).unwrap();
    assert!(gone.iter().all(|(_, result)| *result == Err(ResponseError::TransactionAbortable)));
}

#[test]
fn partitions_that_are_in_the_transaction_are_not_written_again() {
    let mut rig = Rig::new(2);
    let producer = rig.producer();
    rig.add(producer, &[0, 1]).unwrap();
    let records = rig.log.len();
    rig.add(producer, &[1]).unwrap();
    assert_eq!(rig.log.len(), records);
    rig.add(producer, &[1, 2]).unwrap();
    assert_eq!(rig.log.len(), records + 1);
    assert_eq!(rig.current().partitions.len(), 3);
}

#[test]
fn tools_see_what_fits_their_filter() {
    let mut rig = Rig::new(2);
    let producer = rig.producer();
    rig.add(producer, &[3]).unwrap();
    rig.now += 5_000;
    let listed = |filter| rig.core.list(rig.now, &filter).unwrap().len();
    let states = |states: &[TransactionState]| Some(states.iter().copied().collect());
    assert_eq!(listed(Filter::default()), 1);
    assert_eq!(listed(Filter { states: states(&[Ongoing]), ..Filter::default() }), 1);
    assert_eq!(listed(Filter { states: states(&[Empty]), ..Filter::default() }), 0);
    assert_eq!(listed(Filter { states: states(&[]), ..Filter::default() }), 0);
    assert_eq!(listed(Filter { producer_ids: [producer.id].into(), ..Filter::default() }), 1);
    assert_eq!(listed(Filter { producer_ids: [producer.id + 1].into(), ..Filter::default() }), 0);
    assert_eq!(listed(Filter { longer_than_ms: Some(4_999), ..Filter::default() }), 1);
    assert_eq!(listed(Filter { longer_than_ms: Some(5_000), ..Filter::default() }), 0);
    let described = rig.core.describe(ID).unwrap();
    assert_eq!(described.partitions, [partition(3)].into());
    assert_eq!((described.state, described.timeout_ms), (Ongoing, TIMEOUT_MS));
}

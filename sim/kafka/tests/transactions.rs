//! Transactions through the wire: what clients, leaders and tools hear of the coordinator.

mod support;

use kafka_protocol::messages::*;
use shakedown_kafka::transaction::Producer;

use support::transactions::*;
use support::verbs::*;
use support::{Bench, text};

const ID: &str = "payment-1";

fn bench(brokers: u32, level: i16) -> Bench {
    let mut bench = Bench::with_features(brokers, &[], &[("transaction.version", level)]);
    assert_eq!(bench.create_topic("orders", 3, &[]), 0);
    bench
}

#[test]
fn the_coordinators_topic_is_made_as_kafka_makes_it() {
    let mut bench = bench(1, 2);
    let find = FindCoordinatorRequest::default().with_key_type(1).with_coordinator_keys(vec![text(ID)]);
    let first = expect!(FindCoordinator, bench.ask(1, ApiKey::FindCoordinator, 4, find));
    assert_eq!(first.coordinators[0].error_code, 15, "it is being made");
    assert_eq!(bench.transaction_coordinator(ID), 1);
    let topic =
        metadata_request::MetadataRequestTopic::default().with_name(Some(topic_name("__transaction_state")));
    let request = MetadataRequest::default().with_topics(Some(vec![topic]));
    let told = expect!(Metadata, bench.ask(1, ApiKey::Metadata, 12, request));
    assert_eq!((told.topics[0].partitions.len(), told.topics[0].is_internal), (50, true));
    let refused = bench.produce(1, "__transaction_state", 0, batch(&["forged"]));
    assert_eq!(refused.0, 17, "clients do not write to it");
    let share = FindCoordinatorRequest::default().with_key_type(2).with_coordinator_keys(vec![text(ID)]);
    let share = expect!(FindCoordinator, bench.ask(1, ApiKey::FindCoordinator, 6, share));
    assert_eq!(share.coordinators[0].error_code, 42);
}

#[test]
fn a_partition_that_does_not_exist_fails_its_transaction() {
    let mut bench = bench(1, 2);
    let (node, producer) = bench.transactional_producer(ID);
    assert_eq!(bench.add_to_transaction(node, ID, producer, "orders", &[7]), 3);
    let codes = bench.verify_in_transaction(node, ID, producer, "orders", &[0, 7], false);
    assert_eq!(codes, [55, 3], "the other one was not attempted");
    assert_eq!(bench.transaction_state(node, ID), "Empty");
}

#[test]
fn leaders_hear_what_is_in_a_transaction_and_can_add_to_it() {
    let mut bench = bench(1, 2);
    let (node, producer) = bench.transactional_producer(ID);
    let ask = |bench: &mut Bench, producer, partitions: &[i32], verify_only| {
        bench.verify_in_transaction(node, ID, producer, "orders", partitions, verify_only)
    };
    assert_eq!(ask(&mut bench, producer, &[0, 1], false), [0, 0]);
    assert_eq!(ask(&mut bench, producer, &[0, 2], true), [0, 120]);
    let zombie = Producer { epoch: producer.epoch + 1, ..producer };
    assert_eq!(ask(&mut bench, zombie, &[0], true), [90]);
    let stranger = Producer { id: producer.id + 1, ..producer };
    assert_eq!(ask(&mut bench, stranger, &[0], true), [49]);
    assert_eq!(bench.transaction_state(node, ID), "Ongoing");
}

#[test]
fn clients_that_do_not_know_a_fence_are_told_an_epoch() {
    let mut bench = bench(1, 1);
    let (node, zombie) = bench.transactional_producer(ID);
    bench.transactional_producer(ID);
    let end = bench.end_request(ID, zombie, true);
    let ended = |bench: &mut Bench, version| {
        expect!(EndTxn, bench.ask(node, ApiKey::EndTxn, version, end.clone())).error_code
    };
    assert_eq!((ended(&mut bench, 1), ended(&mut bench, 2)), (47, 90));
    let init = InitProducerIdRequest::default()
        .with_transactional_id(Some(transactional_id(ID)))
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(ProducerId(zombie.id))
        .with_producer_epoch(zombie.epoch);
    let init = |bench: &mut Bench, version| {
        expect!(InitProducerId, bench.ask(node, ApiKey::InitProducerId, version, init.clone())).error_code
    };
    assert_eq!((init(&mut bench, 3), init(&mut bench, 4)), (47, 90));
    let offsets = AddOffsetsToTxnRequest::default()
        .with_transactional_id(transactional_id(ID))
        .with_producer_id(ProducerId(zombie.id))
        .with_producer_epoch(zombie.epoch)
        .with_group_id(GroupId(text("group")));
    let offsets = |bench: &mut Bench, version| {
        expect!(AddOffsetsToTxn, bench.ask(node, ApiKey::AddOffsetsToTxn, version, offsets.clone()))
            .error_code
    };
    assert_eq!((offsets(&mut bench, 1), offsets(&mut bench, 2)), (47, 90));
}

#[test]
fn a_broker_that_is_no_coordinator_says_so() {
    let mut bench = bench(3, 2);
    let (node, producer) = bench.transactional_producer(ID);
    let other = (1..=3).find(|&other| other != node).unwrap();
    assert_eq!(bench.init_producer(other, ID), Err(16));
    assert_eq!(bench.add_to_transaction(other, ID, producer, "orders", &[0]), 16);
    assert_eq!(bench.end_transaction(other, ID, producer, true, Protocol::V2), Err(16));
    assert_eq!(bench.transaction_state(other, ID), "error 16");
}

#[test]
fn tools_find_transactions_by_state_and_pattern() {
    let mut bench = bench(1, 2);
    for id in ["payment-1", "payment-2", "shipping-1"] {
        let (node, producer) = bench.transactional_producer(id);
        if id.ends_with('1') {
            assert_eq!(bench.add_to_transaction(node, id, producer, "orders", &[0]), 0);
        }
    }
    let mut list = |states: &[&str], pattern: &str| {
        let request = ListTransactionsRequest::default()
            .with_state_filters(states.iter().map(|state| text(state)).collect())
            .with_transactional_id_pattern(Some(text(pattern)));
        let told = expect!(ListTransactions, bench.ask(1, ApiKey::ListTransactions, 2, request));
        let ids: Vec<_> =
            told.transaction_states.iter().map(|state| state.transactional_id.to_string()).collect();
        (told.error_code, ids.join(" "), told.unknown_state_filters.len())
    };
    let all = "payment-1 payment-2 shipping-1";
    let mut sorted = |states: &[&str], pattern: &str| {
        let (error, ids, unknown) = list(states, pattern);
        let mut ids: Vec<_> = ids.split(' ').map(str::to_owned).collect();
        ids.sort();
        (error, ids.join(" "), unknown)
    };
    assert_eq!(sorted(&[], ""), (0, all.into(), 0));
    assert_eq!(sorted(&["Ongoing"], ""), (0, "payment-1 shipping-1".into(), 0));
    assert_eq!(sorted(&["Empty", "Sleeping"], ""), (0, "payment-2".into(), 1));
    assert_eq!(sorted(&["Sleeping"], ""), (0, String::new(), 1));
    assert_eq!(sorted(&[], "payment-.*"), (0, "payment-1 payment-2".into(), 0));
    assert_eq!(sorted(&[], "payment"), (0, String::new(), 0), "the whole id must fit");
    assert_eq!(sorted(&[], "(").0, 128);
}

#[test]
fn a_commit_of_nothing_is_refused_under_level_2() {
    let mut bench = bench(1, 2);
    let (node, producer) = bench.transactional_producer(ID);
    let ended = bench.end_transaction(node, ID, producer, true, Protocol::V2);
    assert_eq!(ended, Err(48), "there is nothing to commit");
    assert_eq!(bench.transaction_state(node, ID), "Empty");
}

//! What a leader asks the coordinator of a transaction before it begins there (KIP-890), version by version.

mod support;

use kafka_protocol::messages::{ApiKey, ResponseKind};
use shakedown_kafka::NodeId;
use shakedown_kafka::core::{ConnectionId, Lane};
use shakedown_kafka::transaction::Producer;
use support::transactional::*;
use support::transactions::Protocol;
use support::{Bench, Host};

const ID: &str = "payment-1";
const NOT_ENOUGH_REPLICAS: i16 = 19;
const INVALID_PRODUCER_EPOCH: i16 = 47;
const INVALID_TXN_STATE: i16 = 48;
const CONCURRENT_TRANSACTIONS: i16 = 51;
const TRANSACTION_ABORTABLE: i16 = 120;

/// Three brokers, a producer with its coordinator, and two partitions whose leaders are not that broker.
struct Stage {
    bench: Bench,
    coordinator: NodeId,
    producer: Producer,
    /// Partition and leader.
    here: (i32, NodeId),
    there: (i32, NodeId),
}

fn stage() -> Stage {
    stage_with(&[])
}

fn stage_with(config: &[(&str, &str)]) -> Stage {
    let mut bench = Bench::new(3, &[&[("transaction.state.log.replication.factor", "1")], config].concat());
    assert_eq!(bench.create_topic("orders", 6, &[]), 0);
    let (coordinator, producer) = bench.transactional_producer(ID);
    bench.advance(100);
    let led: Vec<_> = (0..6).map(|index| (index, bench.leader_of("orders", index).0)).collect();
    let elsewhere: Vec<_> = led.into_iter().filter(|(_, leader)| *leader != coordinator).collect();
    let here = elsewhere[0];
    let there = *elsewhere.iter().find(|(_, leader)| *leader != here.1).expect("three brokers lead");
    Stage { bench, coordinator, producer, here, there }
}

impl Stage {
    fn send(&mut self, version: i16, (partition, leader): (i32, NodeId), sequence: i32) -> ConnectionId {
        let batch = transactional(&["a"], self.producer.id, self.producer.epoch, sequence);
        let request = transactional_request(ID, "orders", partition, batch);
        self.bench.send(leader, ApiKey::Produce, version, request)
    }

    fn write(&mut self, version: i16, at: (i32, NodeId), sequence: i32) -> i16 {
        let sent = self.send(version, at, sequence);
        self.bench.advance(50);
        self.error(sent)
    }

    fn error(&mut self, sent: ConnectionId) -> i16 {
        error(self.bench.response(sent))
    }

    fn add(&mut self, partition: i32) {
        let added =
            self.bench.add_to_transaction(self.coordinator, ID, self.producer, "orders", &[partition]);
        assert_eq!(added, 0);
    }

    /// Writes in both partitions and commits, but the marker for one does not arrive: the transaction stays prepared. Then
    /// sends the first batch of the next one.
    fn send_after_a_commit_without_markers(&mut self) -> ConnectionId {
        let (here, there) = (self.here, self.there);
        assert_eq!((self.write(12, here, 0), self.write(12, there, 0)), (0, 0));
        self.bench.hold(Host::Broker(self.coordinator), Host::Broker(there.1));
        let next = self.bench.end_transaction(self.coordinator, ID, self.producer, true, Protocol::V2);
        self.producer = next.expect("it commits");
        self.send(12, here, 0)
    }

    fn release_markers(&mut self) {
        self.bench.release(Host::Broker(self.coordinator), Host::Broker(self.there.1));
    }
}

fn error(response: ResponseKind) -> i16 {
    expect!(Produce, response).responses[0].partition_responses[0].error_code
}

#[test]
fn what_was_not_added_to_the_transaction_is_refused_in_the_words_of_the_clients_version() {
    let mut stage = stage();
    let (here, there) = (stage.here, stage.there);
    stage.add(there.0);
    assert_eq!(stage.write(9, here, 0), INVALID_TXN_STATE);
    assert_eq!(stage.write(10, here, 0), INVALID_TXN_STATE);
    assert_eq!(stage.write(11, here, 0), TRANSACTION_ABORTABLE);
    assert_eq!(stage.write(9, there, 0), 0);
    assert_eq!(stage.write(9, there, 1), 0, "the transaction is open there: nobody is asked");
    stage.add(here.0);
    assert_eq!(stage.write(9, here, 0), 0);
}

#[test]
fn a_client_of_version_2_leaves_it_to_the_leader_to_add_the_partition() {
    let mut stage = stage();
    let here = stage.here;
    assert_eq!(stage.write(12, here, 0), 0);
    assert_eq!(stage.bench.transaction_state(stage.coordinator, ID), "Ongoing");
    let (node, producer) = (stage.coordinator, stage.producer);
    let ended = stage.bench.end_transaction(node, ID, producer, true, Protocol::V2);
    let next = ended.expect("it commits");
    stage.bench.advance(100);
    let told = stage.bench.fetch_committed(here.1, "orders", here.0, 0);
    assert_eq!((told.last_stable_offset, told.batches.len()), (2, 2));
    assert_eq!(
        stage.write(12, here, 1),
        INVALID_PRODUCER_EPOCH,
        "late, of the transaction that was committed"
    );
    stage.producer = next;
    assert_eq!(stage.write(12, here, 0), 0);
}

#[test]
fn a_producer_that_was_fenced_at_the_coordinator_is_fenced_at_a_leader_that_never_saw_it() {
    let mut stage = stage();
    let here = stage.here;
    stage.bench.init_producer(stage.coordinator, ID).expect("another process takes over");
    for version in [9, 11, 12] {
        assert_eq!(stage.write(version, here, 0), INVALID_PRODUCER_EPOCH, "Produce {version}");
    }
}

#[test]
fn while_the_coordinator_does_not_answer_the_produce_waits_and_then_may_be_tried_again() {
    let mut stage = stage();
    let here = stage.here;
    stage.add(here.0);
    stage.bench.pause(stage.coordinator);
    let sent = stage.send(9, here, 0);
    stage.bench.advance(8_000);
    assert!(stage.bench.reply(sent).is_none(), "it is held");
    assert_eq!(stage.bench.fetch(here.1, "orders", here.0, 0).1, 0, "and not appended");
    stage.bench.resume(stage.coordinator);
    stage.bench.advance(50);
    assert_eq!(stage.error(sent), 0);

    stage.bench.kill(stage.coordinator);
    let there = stage.there;
    let sent = stage.send(9, there, 0);
    stage.bench.advance(50);
    assert_eq!(stage.error(sent), NOT_ENOUGH_REPLICAS);
}

#[test]
fn a_marker_that_overtakes_the_answer_voids_the_verification() {
    let mut stage = stage();
    let here = stage.here;
    stage.add(here.0);
    let (from, to) = (Host::Broker(stage.coordinator), Host::Broker(here.1));
    stage.bench.hold(from, to);
    let sent = stage.send(9, here, 0);
    let producer = (stage.producer.id, stage.producer.epoch);
    assert_eq!(stage.bench.mark(here.1, ("orders", here.0), producer, 9, false), 0);
    stage.bench.release(from, to);
    stage.bench.advance(50);
    assert_eq!(stage.error(sent), INVALID_TXN_STATE, "it would hang: its transaction was ended here");
    assert_eq!(stage.bench.fetch_committed(here.1, "orders", here.0, 0).last_stable_offset, 1);
}

#[test]
fn the_next_transaction_waits_a_little_for_the_one_before_to_be_ended() {
    for (held_ms, expected) in [(50, 0), (5_000, CONCURRENT_TRANSACTIONS)] {
        let mut stage = stage();
        let sent = stage.send_after_a_commit_without_markers();
        stage.bench.advance(held_ms);
        stage.release_markers();
        stage.bench.advance(200);
        assert_eq!(stage.error(sent), expected, "held for {held_ms} ms");
    }
}

#[test]
fn how_long_it_waits_is_configured() {
    let mut stage = stage_with(&[
        ("add.partitions.to.txn.retry.backoff.max.ms", "3000"),
        ("add.partitions.to.txn.retry.backoff.ms", "500"),
    ]);
    let sent = stage.send_after_a_commit_without_markers();
    stage.bench.advance(2_700);
    stage.release_markers();
    stage.bench.advance(250);
    assert!(stage.bench.reply(sent).is_none(), "it looks again each half second");
    stage.bench.advance(100);
    assert_eq!(stage.error(sent), 0);
    assert_eq!(stage.bench.patience(Lane::Verify).as_millis(), 30_000, "request.timeout.ms");
}

#[test]
fn a_question_that_still_waits_gives_way_to_a_newer_one_of_the_same_transaction() {
    let mut stage = stage();
    let here = stage.here;
    stage.add(here.0);
    let (from, to) = (Host::Broker(here.1), Host::Broker(stage.coordinator));
    stage.bench.hold(from, to);
    let (first, second, third) = (stage.send(9, here, 0), stage.send(9, here, 0), stage.send(9, here, 0));
    assert!(stage.bench.reply(first).is_none(), "asked");
    assert_eq!(stage.error(second), NOT_ENOUGH_REPLICAS, "the client gave up on it");
    stage.bench.release(from, to);
    stage.bench.advance(50);
    assert_eq!((stage.error(first), stage.error(third)), (0, 0), "a retry of the first");
    assert_eq!(stage.bench.fetch(here.1, "orders", here.0, 0).1, 1, "and no second record");
}

//! Stories of transactions, told by the cluster's own trace and by what clients heard. As in `stories`, the transcripts
//! are in `tests/snapshots`; `INSTA_UPDATE=always cargo test -p shakedown-kafka --test transaction_stories` rewrites them.

mod support;

use kafka_protocol::messages::*;
use shakedown_kafka::group::partition_for;
use shakedown_kafka::transaction::TRANSACTION_TOPIC;

use support::Bench;
use support::transactions::*;

const ID: &str = "payment-1";

struct Story {
    bench: Bench,
    from: usize,
}

impl Story {
    fn begin(bench: Bench) -> Story {
        let from = bench.trace.len();
        Story { bench, from }
    }

    fn tell(&mut self, line: &str) {
        self.bench.note("client", line);
    }

    /// What a reader of committed records sees.
    fn readers_see(&mut self, partition: i32) {
        let (stable, values) = self.bench.read_committed("orders", partition);
        self.tell(&format!("readers see {values:?} of orders/{partition}, stable up to {stable}"));
    }

    fn coordinator_says(&mut self) {
        let node = self.bench.transaction_coordinator(ID);
        let state = self.bench.transaction_state(node, ID);
        self.tell(&format!("the coordinator, broker {node}, says {state}"));
    }

    fn end(self) -> String {
        self.bench.trace[self.from..].join("\n")
    }
}

fn outcome<T>(result: Result<T, i16>) -> String {
    match result {
        Ok(_) => "done".to_owned(),
        Err(error) => format!("error {error}"),
    }
}

/// KAFKA-17754: a commit that was late commits half of the next transaction. EndTxn does not say which transaction it
/// means; below `transaction.version` 2 all of a producer's transactions have one epoch.
fn a_late_commit(level: i16, protocol: Protocol) -> String {
    let mut bench = Bench::with_features(1, &[], &[("transaction.version", level)]);
    bench.create_topic("orders", 1, &[]);
    let (node, first) = bench.transactional_producer(ID);
    let mut story = Story::begin(bench);

    story.bench.write_in_transaction(node, ID, first, ("orders", 0), (&["a1"], 0), protocol);
    story.tell(&format!(
        "writes a1, and sends its commit with epoch {}, which the network holds",
        first.epoch
    ));
    story.bench.advance(30_000);
    let second = story.bench.end_transaction(node, ID, first, true, protocol).unwrap();
    story.tell("hears nothing, connects anew and commits: done");
    story.bench.advance(100);
    story.readers_see(0);

    let sequence = if protocol == Protocol::V1 { 1 } else { 0 };
    let written =
        story.bench.write_in_transaction(node, ID, second, ("orders", 0), (&["b1"], sequence), protocol);
    story.tell(&format!("writes b1 of the next transaction with epoch {}: {written}", second.epoch));
    let late = story.bench.end_transaction(node, ID, first, true, protocol);
    story.tell(&format!("the held commit of the first transaction arrives: {}", outcome(late)));
    story.bench.advance(100);
    story.readers_see(0);
    let aborted = story.bench.end_transaction(node, ID, second, false, protocol);
    story.tell(&format!("aborts the transaction of b1: {}", outcome(aborted)));
    story.bench.advance(100);
    story.readers_see(0);
    story.coordinator_says();
    story.end()
}

#[test]
fn kafka_17754_below_transaction_version_2() {
    insta::assert_snapshot!(a_late_commit(1, Protocol::V1));
}

#[test]
fn kafka_17754_with_an_old_client_on_a_new_cluster() {
    // The cluster's level changes nothing: the client's protocol decides.
    assert_eq!(a_late_commit(2, Protocol::V1), a_late_commit(1, Protocol::V1));
}

#[test]
fn kafka_17754_under_transaction_version_2() {
    insta::assert_snapshot!(a_late_commit(2, Protocol::V2));
}

/// A produce that comes after its transaction was aborted (KIP-890).
fn a_late_produce(verification: bool, protocol: Protocol) -> String {
    let enabled = verification.to_string();
    let mut bench = Bench::new(1, &[("transaction.partition.verification.enable", &enabled)]);
    bench.create_topic("orders", 1, &[]);
    let (node, producer) = bench.transactional_producer(ID);
    let mut story = Story::begin(bench);

    story.bench.write_in_transaction(node, ID, producer, ("orders", 0), (&["a1"], 0), protocol);
    story.tell("writes a1, and sends a2, which the network holds");
    let ended = story.bench.end_transaction(node, ID, producer, false, protocol);
    story.tell(&format!("gives up on a2 and aborts: {}", outcome(ended)));
    story.bench.advance(100);
    let late = story.bench.write_unasked(ID, producer, ("orders", 0), (&["a2"], 1), protocol);
    story.tell(&format!("a2 arrives: {late}"));
    story.bench.produce(1, "orders", 0, support::verbs::batch(&["from somebody else"]));
    story.tell("somebody else writes without a transaction");
    story.readers_see(0);
    story.coordinator_says();
    story.bench.advance(3_600_000);
    story.tell("an hour later");
    story.readers_see(0);
    story.end()
}

#[test]
fn a_hanging_transaction_without_verification() {
    insta::assert_snapshot!(a_late_produce(false, Protocol::V1));
}

#[test]
fn a_late_produce_is_refused_with_verification() {
    insta::assert_snapshot!(a_late_produce(true, Protocol::V1));
}

#[test]
fn a_late_produce_is_fenced_under_transaction_version_2() {
    insta::assert_snapshot!(a_late_produce(true, Protocol::V2));
}

#[test]
fn a_producer_that_falls_silent() {
    let mut bench = Bench::new(1, &[]);
    bench.create_topic("orders", 1, &[]);
    let (node, producer) = bench.transactional_producer(ID);
    let mut story = Story::begin(bench);
    story.bench.write_in_transaction(node, ID, producer, ("orders", 0), (&["a1"], 0), Protocol::V1);
    story.bench.produce(1, "orders", 0, support::verbs::batch(&["from somebody else"]));
    story.tell("writes a1 and falls silent; somebody else writes without a transaction");
    story.readers_see(0);
    story.bench.advance(75_000);
    story.readers_see(0);
    let late = story.bench.end_transaction(node, ID, producer, true, Protocol::V1);
    story.tell(&format!("comes back and commits: {}", outcome(late)));
    let anew = story.bench.init_producer(node, ID);
    story.tell(&format!("begins anew with epoch {}", anew.unwrap().epoch));
    insta::assert_snapshot!(story.end());
}

#[test]
fn a_coordinator_that_dies_in_mid_commit() {
    // The only replica of its log: the same broker is the next coordinator.
    let mut bench = Bench::new(3, &[]);
    bench.create_topic("orders", 3, &[]);
    let (node, producer) = bench.transactional_producer(ID);
    let elsewhere = (0..3).find(|&index| bench.leader_of("orders", index).0 != node).unwrap();
    let (leader, _) = bench.leader_of("orders", elsewhere);
    let mut story = Story::begin(bench);
    let at = ("orders", elsewhere);
    story.bench.write_in_transaction(node, ID, producer, at, (&["a1"], 0), Protocol::V2);
    story.bench.hold(support::Host::Broker(node), support::Host::Broker(leader));
    let next = story.bench.end_transaction(node, ID, producer, true, Protocol::V2).unwrap();
    story.tell("writes a1 and commits: done; the marker is on its way");
    story.coordinator_says();
    story.readers_see(elsewhere);
    story.bench.kill(node);
    story.bench.release(support::Host::Broker(node), support::Host::Broker(leader));
    story.bench.start(node);
    story.bench.advance(15_000);
    story.coordinator_says();
    story.readers_see(elsewhere);
    let written = story.bench.write_in_transaction(node, ID, next, at, (&["b1"], 0), Protocol::V2);
    let ended = story.bench.end_transaction(node, ID, next, true, Protocol::V2);
    story.tell(&format!("writes b1: {written}, commits: {}", outcome(ended)));
    story.bench.advance(100);
    story.readers_see(elsewhere);
    insta::assert_snapshot!(story.end());
}

/// The brokers that hold a partition of the transaction topic.
fn replicas_of_coordinator(bench: &mut Bench) -> Vec<i32> {
    let name = Some(support::verbs::topic_name(TRANSACTION_TOPIC));
    let topic = metadata_request::MetadataRequestTopic::default().with_name(name);
    let request = MetadataRequest::default().with_topics(Some(vec![topic]));
    let told = expect!(Metadata, bench.ask(1, ApiKey::Metadata, 12, request));
    let index = partition_for(ID, told.topics[0].partitions.len()) as i32;
    let mut partitions = told.topics[0].partitions.iter();
    let partition = partitions.find(|partition| partition.partition_index == index).unwrap();
    partition.replica_nodes.iter().map(|node| node.0).collect()
}

#[test]
fn a_transaction_across_a_coordinator_failover() {
    let mut bench = Bench::new(4, &[("transaction.state.log.replication.factor", "3")]);
    let (old, producer) = bench.transactional_producer(ID);
    bench.advance(1_000);
    // The partition's leader holds no replica of the coordinator's log, so that only markers need the way between them.
    let replicas = replicas_of_coordinator(&mut bench);
    let leader = (1..=4).find(|node| !replicas.contains(node)).unwrap();
    bench.create_on("orders", &[leader], &[]);
    bench.advance(1_000);
    let (elsewhere, at) = (0, ("orders", 0));
    let mut story = Story::begin(bench);

    let written = story.bench.write_in_transaction(old, ID, producer, at, (&["a1"], 0), Protocol::V2);
    story.tell(&format!("writes a1: {written}"));
    story.bench.hold(support::Host::Broker(old), support::Host::Broker(leader));
    let next = story.bench.end_transaction(old, ID, producer, true, Protocol::V2);
    story.tell(&format!("commits: {}; the marker is on its way", outcome(next)));
    story.coordinator_says();
    story.readers_see(elsewhere);
    story.bench.kill(old);
    story.bench.advance(20_000);
    story.coordinator_says();
    story.readers_see(elsewhere);
    let node = story.bench.transaction_coordinator(ID);
    let again = story.bench.end_transaction(node, ID, producer, true, Protocol::V2);
    story.tell(&format!("had not heard, and commits again: {}", outcome(again)));
    let next = next.unwrap();
    assert_eq!(again, Ok(next), "the same producer as before");
    let written = story.bench.write_in_transaction(node, ID, next, at, (&["b1"], 0), Protocol::V2);
    let aborted = story.bench.end_transaction(node, ID, next, false, Protocol::V2);
    story.tell(&format!("writes b1: {written}, aborts: {}", outcome(aborted)));
    story.bench.advance(100);
    story.readers_see(elsewhere);
    insta::assert_snapshot!(story.end());
}

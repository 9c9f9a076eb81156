//! What a replica answers that does not lead: readers are served (KIP-392), epochs come before leadership, and only then
//! is somebody in the wrong place.

mod support;

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::*;
use shakedown_kafka::core::ConnectionId;

use support::verbs::*;
use support::{Bench, Host};

const OUT_OF_RANGE: i16 = 1;
const UNKNOWN_PARTITION: i16 = 3;
const NOT_LEADER: i16 = 6;
const INVALID_REQUEST: i16 = 42;
const FENCED: i16 = 74;
const UNKNOWN_EPOCH: i16 = 75;

/// Four brokers; `orders` has one partition on the first three, led by broker 1, with one record.
fn bench() -> Bench {
    let mut bench = Bench::new(4, &[]);
    assert_eq!(bench.create_on("orders", &[1, 2, 3], &[]), 0);
    bench.advance(1_500);
    assert_eq!(bench.produce_through(1, &["a"]), (0, 0));
    bench
}

/// Broker 1 leads no more, and knows it; the number of the one who does.
fn demote_broker_1(bench: &mut Bench) -> i32 {
    bench.isolate(1);
    bench.advance(10_000);
    let (leader, epoch) = bench.leader_of("orders", 0);
    assert_eq!(epoch, 1);
    bench.rejoin(1);
    bench.advance(2_000);
    leader
}

/// The error of a fetch that believes in a leader's epoch.
fn fetch_under(bench: &mut Bench, node: i32, version: i16, epoch: i32) -> i16 {
    let mut request = fetch_request("orders", 0, 0, 0, 1);
    request.topics[0].partitions[0].current_leader_epoch = epoch;
    fetched(bench.ask(node, ApiKey::Fetch, version, request)).0
}

/// Error and offset of what is listed.
fn listed(bench: &mut Bench, node: i32, replica_id: i32, epoch: i32) -> (i16, i64) {
    let asked = ListOffsetsPartition::default().with_timestamp(-1).with_current_leader_epoch(epoch);
    let topic = ListOffsetsTopic::default().with_name(topic_name("orders")).with_partitions(vec![asked]);
    let request =
        ListOffsetsRequest::default().with_replica_id(BrokerId(replica_id)).with_topics(vec![topic]);
    let response = expect!(ListOffsets, bench.ask(node, ApiKey::ListOffsets, 9, request));
    let found = &response.topics[0].partitions[0];
    (found.error_code, found.offset)
}

/// The error of a question for the end of epoch 0.
fn epoch_end(bench: &mut Bench, node: i32, epoch: i32) -> i16 {
    let asked = OffsetForLeaderPartition::default().with_current_leader_epoch(epoch);
    let topic = OffsetForLeaderTopic::default().with_topic(topic_name("orders")).with_partitions(vec![asked]);
    let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
    let response = expect!(OffsetForLeaderEpoch, bench.ask(node, ApiKey::OffsetForLeaderEpoch, 4, request));
    response.topics[0].partitions[0].error_code
}

#[test]
fn a_reader_is_served_by_any_replica_up_to_its_own_high_watermark() {
    let mut bench = bench();
    bench.cut(Host::Broker(1), Host::Broker(3));
    bench.advance(600);
    let one = bench.send(1, ApiKey::Produce, 9, produce_request("orders", 0, 1, batch(&["b"])));
    bench.response(one);
    assert_eq!(bench.fetch(2, "orders", 0, 0), (0, 1, vec![0]), "it has offset 1, and it is not committed");
    assert_eq!(bench.fetch(2, "orders", 0, 1), (0, 1, vec![]));
    assert_eq!(bench.fetch(2, "orders", 0, 2), (0, 1, vec![]), "between its high watermark and its end");
    assert_eq!(bench.fetch(3, "orders", 0, 2), (OUT_OF_RANGE, -1, vec![]), "beyond its end");
    bench.mend(Host::Broker(1), Host::Broker(3));
    bench.advance(1_000);
    assert_eq!(bench.fetch(3, "orders", 0, 1), (0, 2, vec![1]));
    assert_eq!(bench.fetch(4, "orders", 0, 0).0, NOT_LEADER, "there is no replica");
}

#[test]
fn readers_before_version_11_and_followers_are_served_by_the_leader_alone() {
    let mut bench = bench();
    assert_eq!(fetch_under(&mut bench, 2, 10, -1), NOT_LEADER);
    assert_eq!(fetch_under(&mut bench, 2, 11, -1), 0);
    let follower = fetch_request("orders", 0, 0, 0, 1).with_replica_id(BrokerId(3));
    assert_eq!(fetched(bench.ask(2, ApiKey::Fetch, 12, follower)).0, NOT_LEADER);
    let debugging = fetch_request("orders", 0, 0, 0, 1).with_replica_id(BrokerId(-2));
    assert_eq!(fetched(bench.ask(2, ApiKey::Fetch, 5, debugging)).0, 0, "it is neither");
    assert_eq!(listed(&mut bench, 2, -1, -1), (NOT_LEADER, -1));
    assert_eq!(listed(&mut bench, 2, -2, -1), (0, 1), "a tool that debugs");
    assert_eq!(epoch_end(&mut bench, 2, -1), NOT_LEADER);
}

#[test]
fn epochs_are_compared_before_leadership() {
    let mut bench = bench();
    demote_broker_1(&mut bench);
    for (epoch, fetch, others) in [(0, FENCED, FENCED), (2, UNKNOWN_EPOCH, UNKNOWN_EPOCH), (1, 0, NOT_LEADER)]
    {
        assert_eq!(fetch_under(&mut bench, 1, 12, epoch), fetch, "epoch {epoch}");
        assert_eq!(listed(&mut bench, 1, -1, epoch).0, others, "epoch {epoch}");
        assert_eq!(epoch_end(&mut bench, 1, epoch), others, "epoch {epoch}");
        assert_eq!(fetch_under(&mut bench, 4, 12, epoch), NOT_LEADER, "no replica, no epoch");
    }
}

fn wait_under(bench: &mut Bench, epoch: i32) -> ConnectionId {
    let mut request = fetch_request("orders", 0, 1, 60_000, 1);
    request.topics[0].partitions[0].current_leader_epoch = epoch;
    bench.send(1, ApiKey::Fetch, 12, request)
}

#[test]
fn a_long_poll_without_an_epoch_outlives_its_leader() {
    let mut bench = bench();
    let (without, with) = (wait_under(&mut bench, -1), wait_under(&mut bench, 0));
    let leader = demote_broker_1(&mut bench);
    assert_eq!(fetched(bench.response(with)).0, FENCED);
    assert!(bench.reply(without).is_none(), "a follower serves it as well");
    assert_eq!(bench.produce_through(leader, &["b"]), (0, 1));
    bench.advance(1_000);
    assert_eq!(fetched(bench.response(without)), (0, 2, vec![1]), "once it is committed there");
}

/// A fetch of two partitions of one topic.
fn fetch_both(bench: &mut Bench, partitions: [i32; 2]) -> ConnectionId {
    let mut request = fetch_request("orders", partitions[0], 1, 500, 1);
    let mut second = request.topics[0].partitions[0].clone();
    second.partition = partitions[1];
    request.topics[0].partitions.push(second);
    bench.send(1, ApiKey::Fetch, 12, request)
}

#[test]
fn an_unknown_partition_is_told_along_and_hurries_nobody() {
    let mut bench = bench();
    let waits = fetch_both(&mut bench, [7, 0]);
    bench.advance(499);
    assert!(bench.reply(waits).is_none());
    bench.advance(1);
    let response = expect!(Fetch, bench.response(waits));
    let told: Vec<_> =
        response.responses[0].partitions.iter().map(|data| (data.partition_index, data.error_code)).collect();
    assert_eq!(told, [(7, UNKNOWN_PARTITION), (0, 0)]);
    let nothing_to_wait_for = fetch_both(&mut bench, [7, 8]);
    assert_eq!(fetched(bench.response(nothing_to_wait_for)).0, UNKNOWN_PARTITION);
}

#[test]
fn where_the_leader_is_a_fetch_tells_from_version_16_on() {
    let mut bench = bench();
    let id = bench.image().topic("orders").unwrap().id;
    for (version, leader, endpoints) in [(15, -1, 0), (16, 1, 1)] {
        let mut request = fetch_request("orders", 0, 0, 0, 1);
        request.topics[0].topic_id = id;
        request.topics[0].topic = TopicName::default();
        let response = expect!(Fetch, bench.ask(4, ApiKey::Fetch, version, request));
        let data = &response.responses[0].partitions[0];
        assert_eq!(data.error_code, NOT_LEADER);
        assert_eq!(data.current_leader.leader_id, BrokerId(leader), "version {version}");
        assert_eq!(response.node_endpoints.len(), endpoints, "version {version}");
    }
}

#[test]
fn a_partition_is_listed_once_and_named_twice_it_is_invalid() {
    let mut bench = bench();
    let asked = |index| ListOffsetsPartition::default().with_partition_index(index).with_timestamp(-1);
    let topic =
        |partitions| ListOffsetsTopic::default().with_name(topic_name("orders")).with_partitions(partitions);
    let topics = vec![topic(vec![asked(0), asked(7)]), topic(vec![asked(0)])];
    let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(topics);
    let response = expect!(ListOffsets, bench.ask(1, ApiKey::ListOffsets, 2, request));
    assert_eq!(response.topics.len(), 1);
    let told = response.topics[0].partitions.iter();
    let told: Vec<_> = told.map(|found| (found.partition_index, found.error_code)).collect();
    assert_eq!(told, [(0, INVALID_REQUEST), (7, UNKNOWN_PARTITION)]);
}

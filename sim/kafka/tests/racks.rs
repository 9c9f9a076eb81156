//! Brokers in racks, and consumers that are sent to a replica near them (KIP-392).

mod support;

use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::*;

use support::verbs::*;
use support::{Bench, Host, text};

const RACK_AWARE: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";

/// Three brokers in racks `a`, `b` and `c`; `orders/0` is led by broker 1 and has some records.
fn bench(config: &[(&str, &str)]) -> Bench {
    let racks = [("1:broker.rack", "a"), ("2:broker.rack", "b"), ("3:broker.rack", "c")];
    let mut bench = Bench::new(3, &[&racks, config].concat());
    assert_eq!(bench.create_on("orders", &[1, 2, 3], &[]), 0);
    bench.advance(1_500);
    assert_eq!(bench.produce_through(1, &["a", "b"]), (0, 0));
    bench.advance(600);
    bench
}

fn read(rack: &str, offset: i64, epoch: i32) -> FetchRequest {
    let mut request = fetch_request("orders", 0, offset, 0, 1).with_rack_id(text(rack));
    request.topics[0].partitions[0].current_leader_epoch = epoch;
    request
}

/// What a broker answers a reader in `rack`.
fn ask(bench: &mut Bench, node: i32, version: i16, request: FetchRequest) -> PartitionData {
    let response = expect!(Fetch, bench.ask(node, ApiKey::Fetch, version, request));
    response.responses[0].partitions[0].clone()
}

fn sent_to(bench: &mut Bench, rack: &str, offset: i64) -> i32 {
    let data = ask(bench, 1, 12, read(rack, offset, -1));
    let is_sent = data.preferred_read_replica.0 >= 0;
    assert_eq!(
        data.records.unwrap_or_default().is_empty(),
        is_sent || offset == 2,
        "records, or where they are"
    );
    assert_eq!((data.error_code, data.high_watermark), (0, 2));
    data.preferred_read_replica.0
}

#[test]
fn clients_are_told_in_which_rack_a_broker_is() {
    let mut bench = bench(&[]);
    let response = expect!(Metadata, bench.ask(2, ApiKey::Metadata, 12, MetadataRequest::default()));
    let racks: Vec<_> =
        response.brokers.iter().map(|broker| broker.rack.clone().unwrap().to_string()).collect();
    assert_eq!(racks, ["a", "b", "c"]);
    let response =
        expect!(DescribeCluster, bench.ask(2, ApiKey::DescribeCluster, 1, DescribeClusterRequest::default()));
    assert_eq!(response.brokers[2].rack.as_deref(), Some("c"));
    let unsaid = &mut Bench::new(1, &[]);
    let response = expect!(Metadata, unsaid.ask(1, ApiKey::Metadata, 12, MetadataRequest::default()));
    assert_eq!(response.brokers[0].rack, None);
}

#[test]
fn replicas_are_spread_over_racks() {
    let racks =
        [("1:broker.rack", "a"), ("2:broker.rack", "a"), ("3:broker.rack", "b"), ("4:broker.rack", "b")];
    let mut bench = Bench::new(4, &racks);
    assert_eq!(bench.create_replicated("orders", 12, 2, &[]), 0);
    for index in 0..12 {
        let replicas = bench.in_sync_of("orders", index);
        assert_ne!(replicas[0] <= 2, replicas[1] <= 2, "{replicas:?} are in two racks");
    }
}

#[test]
fn a_leader_sends_a_reader_to_its_own_rack() {
    let mut bench = bench(&[("replica.selector.class", RACK_AWARE)]);
    assert_eq!(sent_to(&mut bench, "b", 0), 2);
    assert_eq!(sent_to(&mut bench, "c", 2), 3, "at the end too");
    assert_eq!(sent_to(&mut bench, "a", 0), -1, "the leader is in its rack");
    assert_eq!(sent_to(&mut bench, "d", 0), -1, "nobody is");
    assert_eq!(sent_to(&mut bench, "", 0), -1, "it does not say where it is");
    let data = ask(&mut bench, 1, 10, fetch_request("orders", 0, 0, 0, 1));
    assert_eq!(data.preferred_read_replica.0, -1, "it cannot say where it is");
    // Even a fetch that could wait is told at once.
    let request = read("b", 2, -1).with_max_wait_ms(30_000);
    assert_eq!(ask(&mut bench, 1, 12, request).preferred_read_replica.0, 2);
}

#[test]
fn nobody_is_sent_away_unless_the_cluster_is_told_to() {
    for config in [&[][..], &[("replica.selector.class", "org.apache.kafka.common.replica.LeaderSelector")]] {
        let mut bench = bench(config);
        assert_eq!(sent_to(&mut bench, "b", 0), -1);
    }
}

#[test]
fn nobody_is_sent_to_a_replica_that_is_behind_or_gone() {
    let mut bench = bench(&[("replica.selector.class", RACK_AWARE)]);
    bench.cut(Host::Broker(1), Host::Broker(2));
    let more = bench.send(1, ApiKey::Produce, 9, produce_request("orders", 0, 1, batch(&["c"])));
    assert!(bench.reply(more).is_some());
    assert_eq!(
        ask(&mut bench, 1, 12, read("b", 3, -1)).preferred_read_replica.0,
        -1,
        "it has no 3 to read on at"
    );
    assert_eq!(ask(&mut bench, 1, 12, read("b", 0, -1)).preferred_read_replica.0, 2, "it has all of this");
    bench.advance(46_000);
    assert_eq!(bench.in_sync_of("orders", 0), [1, 3]);
    assert_eq!(ask(&mut bench, 1, 12, read("b", 0, -1)).preferred_read_replica.0, -1, "it is not in sync");
    bench.kill(3);
    bench.advance(10_000);
    assert_eq!(ask(&mut bench, 1, 12, read("c", 0, -1)).preferred_read_replica.0, -1);
}

//! Transactions as the leader of a partition sees them: who may write, what readers of committed data are told.
//!
//! Nobody coordinates here: markers come from the test, and verification is off where it would ask.

mod support;

use bytes::Bytes;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::{ApiKey, DeleteRecordsRequest, ProduceRequest, WriteTxnMarkersRequest};
use shakedown_kafka::NodeId;
use support::transactional::*;
use support::verbs::*;
use support::{Bench, Reply};

const P: (&str, i32) = ("orders", 0);
const INVALID_PRODUCER_EPOCH: i16 = 47;
const INVALID_TXN_STATE: i16 = 48;
const INVALID_PRODUCER_ID_MAPPING: i16 = 49;
const COORDINATOR_FENCED: i16 = 52;
const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: i16 = 53;
const NOT_ENOUGH_REPLICAS: i16 = 19;
const OUT_OF_ORDER: i16 = 45;

fn unverified() -> (Bench, NodeId) {
    let mut bench = Bench::new(1, &[("transaction.partition.verification.enable", "false")]);
    bench.create_topic("orders", 2, &[]);
    (bench, 1)
}

fn write(bench: &mut Bench, batch: Bytes) -> (i16, i64) {
    bench.produce_in(1, 9, ("payment-1", "orders", 0), batch)
}

#[test]
fn readers_of_committed_data_wait_for_the_marker() {
    let (mut bench, node) = unverified();
    bench.produce(node, "orders", 0, batch(&["before"]));
    assert_eq!(write(&mut bench, transactional(&["a", "b"], 7, 0, 0)), (0, 1));
    bench.produce(node, "orders", 0, batch(&["behind"]));
    let open = Committed {
        error: 0,
        high_watermark: 4,
        last_stable_offset: 1,
        batches: vec![(0, 0)],
        aborted: Some(vec![]),
    };
    assert_eq!(bench.fetch_committed(node, "orders", 0, 0), open);
    assert_eq!(bench.fetch(node, "orders", 0, 0).2, [0, 1, 2, 3], "others read on");
    assert_eq!((bench.latest(node, "orders", 0, true), bench.latest(node, "orders", 0, false)), (1, 4));

    assert_eq!(bench.mark(node, P, (7, 0), 3, true), 0);
    let closed = bench.fetch_committed(node, "orders", 0, 0);
    assert_eq!((closed.last_stable_offset, closed.batches.len()), (5, 4), "the marker takes an offset");
    assert_eq!(closed.aborted, Some(vec![]));
    assert_eq!(bench.latest(node, "orders", 0, true), 5);
}

/// Real Kafka 4.1 does the same: readers are told of an end that lies before the start.
#[test]
fn a_log_that_begins_amid_a_batch_of_an_open_transaction_is_stable_up_to_that_batch() {
    let (mut bench, node) = unverified();
    assert_eq!(write(&mut bench, transactional(&["a", "b"], 7, 0, 0)), (0, 0));
    assert_eq!(write(&mut bench, transactional(&["c", "d", "e"], 7, 0, 2)), (0, 2));
    for (before, stable) in [(1, 0), (2, 2), (4, 2), (5, 5)] {
        let partition = DeleteRecordsPartition::default().with_offset(before);
        let topic = DeleteRecordsTopic::default().with_name(topic_name("orders"));
        let topics = vec![topic.with_partitions(vec![partition])];
        let request = DeleteRecordsRequest::default().with_topics(topics).with_timeout_ms(30_000);
        let connection = bench.send(node, ApiKey::DeleteRecords, 2, request);
        let response = expect!(DeleteRecords, bench.response(connection));
        assert_eq!(response.topics[0].partitions[0].low_watermark, before);
        assert_eq!(bench.latest(node, "orders", 0, true), stable, "with records before {before} deleted");
        assert_eq!(bench.fetch_committed(node, "orders", 0, before).last_stable_offset, stable);
    }
}

#[test]
fn a_fetch_of_committed_data_that_waits_is_woken_by_the_marker() {
    let (mut bench, node) = unverified();
    write(&mut bench, transactional(&["a"], 7, 0, 0));
    let request = fetch_request("orders", 0, 0, 5_000, 1).with_isolation_level(1);
    let waiting = bench.send(node, ApiKey::Fetch, 12, request);
    bench.produce(node, "orders", 0, batch(&["behind"]));
    assert!(bench.reply(waiting).is_none(), "nothing is stable yet");
    bench.mark(node, P, (7, 0), 0, true);
    assert_eq!(committed(bench.response(waiting)).batches.len(), 3);
}

#[test]
fn aborted_transactions_are_told_with_the_records_they_lie_in() {
    let (mut bench, node) = unverified();
    write(&mut bench, transactional(&["a"], 7, 0, 0)); // 0
    write(&mut bench, transactional(&["b"], 8, 0, 0)); // 1
    bench.mark(node, P, (7, 0), 0, false); // 2
    bench.mark(node, P, (8, 0), 0, true); // 3
    write(&mut bench, transactional(&["c"], 7, 0, 1)); // 4
    bench.mark(node, P, (7, 0), 0, false); // 5
    let told = |bench: &mut Bench, offset| bench.fetch_committed(node, "orders", 0, offset).aborted.unwrap();
    assert_eq!(told(&mut bench, 0), [(7, 0), (7, 4)]);
    assert_eq!(told(&mut bench, 3), [(7, 4)]);
    assert_eq!(told(&mut bench, 6), []);
    let uncommitted = fetch_request("orders", 0, 0, 0, 1);
    assert_eq!(committed(bench.ask(node, ApiKey::Fetch, 12, uncommitted)).aborted, None);
}

#[test]
fn the_aborted_list_covers_what_was_read_and_no_more() {
    let (mut bench, node) = unverified();
    write(&mut bench, transactional(&["a"], 7, 0, 0)); // 0
    bench.mark(node, P, (7, 0), 0, false); // 1
    write(&mut bench, transactional(&["b"], 7, 0, 1)); // 2
    bench.mark(node, P, (7, 0), 0, false); // 3
    let mut request = fetch_request("orders", 0, 0, 0, 1).with_isolation_level(1);
    request.topics[0].partitions[0].partition_max_bytes = 1;
    let told = committed(bench.ask(node, ApiKey::Fetch, 12, request));
    assert_eq!((told.batches, told.aborted), (vec![(0, 0)], Some(vec![(7, 0)])));
}

#[test]
fn a_marker_of_a_fenced_producer_or_coordinator_is_refused() {
    let (mut bench, node) = unverified();
    write(&mut bench, transactional(&["a"], 7, 2, 0));
    assert_eq!(bench.mark(node, P, (7, 1), 5, true), INVALID_PRODUCER_EPOCH);
    assert_eq!(bench.mark(node, P, (7, 2), 5, true), 0);
    assert_eq!(bench.mark(node, P, (7, 2), 4, true), COORDINATOR_FENCED);
    assert_eq!(bench.mark(node, P, (7, 2), 5, true), 0, "a retry changes nothing");
    assert_eq!(bench.fetch_committed(node, "orders", 0, 0).last_stable_offset, 3);
    assert_eq!(bench.mark(node, ("orders", 9), (7, 2), 5, true), 3);
    assert_eq!(bench.mark(node, ("nowhere", 0), (7, 2), 5, true), 3);
}

#[test]
fn a_marker_with_a_newer_epoch_fences_the_producer_of_the_old() {
    let (mut bench, node) = unverified();
    write(&mut bench, transactional(&["a"], 7, 2, 0));
    assert_eq!(bench.mark(node, P, (7, 3), 5, false), 0);
    assert_eq!(write(&mut bench, transactional(&["late"], 7, 2, 1)).0, INVALID_PRODUCER_EPOCH);
    assert_eq!(
        write(&mut bench, transactional(&["new"], 7, 3, 4)).0,
        OUT_OF_ORDER,
        "a new epoch begins at 0"
    );
    assert_eq!(write(&mut bench, transactional(&["new"], 7, 3, 0)), (0, 2));
}

#[test]
fn several_markers_are_answered_together_with_an_error_for_each() {
    let (mut bench, node) = unverified();
    write(&mut bench, transactional(&["a"], 7, 2, 0));
    let mut request = marker_request(P, (7, 2), 5, true);
    let more = [marker_request(("orders", 1), (7, 2), 5, true), marker_request(P, (8, 0), 5, false)];
    request.markers.extend(more.into_iter().flat_map(|request| request.markers));
    request.markers.extend(marker_request(("gone", 0), (8, 0), 5, false).markers);
    let response = expect!(WriteTxnMarkers, bench.ask(node, ApiKey::WriteTxnMarkers, 1, request));
    let told: Vec<_> = response
        .markers
        .iter()
        .flat_map(|m| m.topics.iter().map(move |t| (m.producer_id.0, t)))
        .flat_map(|(id, t)| {
            t.partitions.iter().map(move |p| (id, t.name.to_string(), p.partition_index, p.error_code))
        })
        .collect();
    let told: Vec<_> =
        told.iter().map(|(id, name, index, error)| (*id, name.as_str(), *index, *error)).collect();
    assert_eq!(told, [(7, "orders", 0, 0), (7, "orders", 1, 0), (8, "orders", 0, 0), (8, "gone", 0, 3)]);
    let none = WriteTxnMarkersRequest::default();
    let response = expect!(WriteTxnMarkers, bench.ask(node, ApiKey::WriteTxnMarkers, 1, none));
    assert!(response.markers.is_empty());
}

#[test]
fn a_marker_on_offsets_whose_coordinator_is_not_ready_is_refused_as_without_a_leader() {
    const NOT_LEADER: i16 = 6;
    let mut bench = Bench::new(2, &[]);
    assert_eq!(bench.create_on("__consumer_offsets", &[1, 2], &[]), 0);
    assert_eq!(bench.mark(2, ("__consumer_offsets", 0), (7, 0), 0, true), NOT_LEADER);
    assert_eq!(bench.mark(1, ("__consumer_offsets", 0), (7, 0), 0, true), NOT_LEADER, "it is still loading");
    bench.advance(1_000);
    assert_eq!(bench.mark(1, ("__consumer_offsets", 0), (7, 0), 0, true), 0);
}

#[test]
fn data_outside_of_an_open_transaction_of_the_same_producer_is_refused() {
    let (mut bench, node) = unverified();
    write(&mut bench, transactional(&["a"], 7, 0, 0));
    assert_eq!(bench.produce(node, "orders", 0, idempotent(&["b"], 7, 0, 1)).0, INVALID_TXN_STATE);
    bench.mark(node, P, (7, 0), 0, true);
    assert_eq!(bench.produce(node, "orders", 0, idempotent(&["b"], 7, 0, 1)), (0, 2));
}

#[test]
fn a_late_batch_hangs_a_transaction_where_nobody_verifies() {
    let (mut bench, node) = unverified();
    write(&mut bench, transactional(&["a"], 7, 0, 0));
    bench.mark(node, P, (7, 0), 0, false);
    assert_eq!(write(&mut bench, transactional(&["late"], 7, 0, 1)), (0, 2));
    bench.produce(node, "orders", 0, batch(&["behind"]));
    let stuck = bench.fetch_committed(node, "orders", 0, 0);
    assert_eq!((stuck.last_stable_offset, stuck.high_watermark), (2, 4));
    let (error, producers) = bench.producers(node, "orders", 0);
    let hanging = &producers[0];
    assert_eq!((error, producers.len()), (0, 1));
    assert_eq!((hanging.producer_id.0, hanging.producer_epoch, hanging.last_sequence), (7, 0, 1));
    assert_eq!((hanging.coordinator_epoch, hanging.current_txn_start_offset), (0, 2));
    // A transaction that is open keeps its producer from expiring.
    bench.advance(86_400_000 + 700_000);
    assert_eq!(bench.producers(node, "orders", 0).1.len(), 1);
    bench.mark(node, P, (7, 0), 0, false);
    assert_eq!(bench.fetch_committed(node, "orders", 0, 0).last_stable_offset, 5);
}

#[test]
fn a_silent_producer_is_forgotten() {
    let (mut bench, node) = unverified();
    bench.produce(node, "orders", 0, idempotent(&["a"], 7, 0, 0));
    assert_eq!(bench.producers(node, "orders", 0).1.len(), 1);
    bench.advance(86_400_000 + 700_000);
    assert_eq!(bench.producers(node, "orders", 0), (0, vec![]));
}

#[test]
fn a_transaction_is_known_again_after_a_restart() {
    let (mut bench, node) = unverified();
    write(&mut bench, transactional(&["a"], 7, 0, 0));
    bench.mark(node, P, (7, 0), 0, false);
    write(&mut bench, transactional(&["b"], 7, 0, 1));
    bench.produce(node, "orders", 0, batch(&["behind"]));
    bench.kill(node);
    bench.start(node);
    bench.advance(12_000);
    let told = bench.fetch_committed(node, "orders", 0, 0);
    assert_eq!(told.error, 0, "{told:?}");
    assert_eq!((told.last_stable_offset, told.aborted), (2, Some(vec![(7, 0)])));
    assert_eq!(bench.mark(node, P, (7, 0), 0, true), 0);
    assert_eq!(bench.fetch_committed(node, "orders", 0, 0).last_stable_offset, 5);
}

#[test]
fn a_transactional_batch_needs_one_transactional_id_and_one_producer() {
    let (mut bench, node) = unverified();
    let batch = transactional(&["a"], 7, 0, 0);
    assert_eq!(
        bench.produce(node, "orders", 0, batch.clone()).0,
        TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        "the request names none"
    );
    let mut two: ProduceRequest = transactional_request("payment-1", "orders", 0, batch);
    two.topic_data.extend(transactional_request("", "orders", 1, transactional(&["b"], 8, 0, 0)).topic_data);
    let response = expect!(Produce, bench.ask(node, ApiKey::Produce, 9, two));
    for topic in response.responses {
        assert_eq!(topic.partition_responses[0].error_code, INVALID_PRODUCER_ID_MAPPING);
    }
    // Without a transactional batch the id says nothing.
    let plain = transactional_request("payment-1", "orders", 0, idempotent(&["a"], 9, 0, 0));
    let response = expect!(Produce, bench.ask(node, ApiKey::Produce, 9, plain));
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
}

#[test]
fn without_a_coordinator_to_ask_the_client_is_told_to_try_again() {
    for version in [9, 11, 12] {
        let mut bench = Bench::new(1, &[]);
        bench.create_topic("orders", 1, &[]);
        let batch = transactional(&["a"], 7, 0, 0);
        let (error, _) = bench.produce_in(1, version, ("payment-1", "orders", 0), batch);
        assert_eq!(error, NOT_ENOUGH_REPLICAS, "Produce {version}");
        assert_eq!(bench.fetch(1, "orders", 0, 0).1, 0, "nothing was appended");
    }
}

#[test]
fn replies_of_producers_are_described_by_any_replica_that_is_here() {
    let (mut bench, node) = unverified();
    assert_eq!(bench.producers(node, "nowhere", 0), (3, vec![]));
    assert_eq!(bench.producers(node, "orders", 7), (3, vec![]));
    assert_eq!(bench.producers(node, "orders", 1), (0, vec![]));
    let reply = bench.send(
        node,
        ApiKey::DescribeProducers,
        0,
        kafka_protocol::messages::DescribeProducersRequest::default(),
    );
    assert!(matches!(bench.reply(reply), Some(Reply::Response(_))));
}

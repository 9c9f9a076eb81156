//! What readers are answered: Fetch and ListOffsets.

use bytes::Bytes;
use kafka_protocol::messages::*;

use crate::support::verbs::*;
use crate::support::{Bench, START};
use crate::{bench, expect, leader};

#[test]
fn a_fetch_waits_for_records_and_is_answered_by_them() {
    let mut bench = bench();
    let node = leader(&bench);
    let waiting = bench.send(node, ApiKey::Fetch, 12, fetch_request("orders", 0, 0, 500, 1));
    bench.advance(200);
    assert!(bench.reply(waiting).is_none());
    assert_eq!(bench.produce(node, "orders", 0, batch(&["a", "b"])), (0, 0));
    assert_eq!(fetched(bench.response(waiting)), (0, 2, vec![0, 1]));

    let waiting = bench.send(node, ApiKey::Fetch, 12, fetch_request("orders", 0, 2, 500, 1));
    bench.advance(499);
    assert!(bench.reply(waiting).is_none());
    bench.advance(1);
    assert_eq!(fetched(bench.response(waiting)), (0, 2, vec![]));
}

#[test]
fn a_fetch_from_inside_a_batch_gets_the_whole_batch_and_beyond_the_end_an_error() {
    let mut bench = bench();
    let node = leader(&bench);
    bench.produce(node, "orders", 0, batch(&["a", "b", "c"]));
    assert_eq!(bench.fetch(node, "orders", 0, 1), (0, 3, vec![0, 1, 2]));
    assert_eq!(bench.fetch(node, "orders", 0, 3), (0, 3, vec![]));
    assert_eq!(bench.fetch(node, "orders", 0, 4), (1, -1, vec![]));
}

#[test]
fn a_fetch_with_another_epoch_is_told_who_is_behind() {
    let mut bench = bench();
    let node = leader(&bench);
    let mut request = fetch_request("orders", 0, 0, 500, 1);
    request.topics[0].partitions[0].current_leader_epoch = 9;
    assert_eq!(fetched(bench.ask(node, ApiKey::Fetch, 12, request)).0, 75);
}

/// What a reader of epoch `read` at `offset` hears: error, and where the logs part.
fn fetched_after(bench: &mut Bench, offset: i64, read: i32) -> (i16, i32, i64) {
    let node = leader(bench);
    let mut request = fetch_request("orders", 0, offset, 500, 1);
    request.topics[0].partitions[0].last_fetched_epoch = read;
    let response = expect!(Fetch, bench.ask(node, ApiKey::Fetch, 12, request));
    let data = &response.responses[0].partitions[0];
    (data.error_code, data.diverging_epoch.epoch, data.diverging_epoch.end_offset)
}

#[test]
fn a_reader_of_what_is_lost_is_told_where_the_logs_part() {
    let mut bench = bench();
    let node = leader(&bench);
    bench.produce(node, "orders", 0, batch(&["a", "b"]));
    assert_eq!(
        fetched_after(&mut bench, 5, -1),
        (1, -1, -1),
        "who does not say what it read is out of range"
    );
    assert_eq!(fetched_after(&mut bench, 5, 0), (0, 0, 2));
    assert_eq!(fetched_after(&mut bench, 1, 7), (1, -1, -1), "an epoch that never was here");
    assert_eq!(fetched_after(&mut bench, 1, 0), (0, -1, -1));
}

/// Error and offset of what the leader lists for this time.
fn listed(bench: &mut Bench, version: i16, timestamp: i64) -> (i16, i64) {
    use list_offsets_request::*;
    let partition = ListOffsetsPartition::default().with_timestamp(timestamp).with_current_leader_epoch(-1);
    let topic = ListOffsetsTopic::default().with_name(topic_name("orders")).with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
    let node = leader(bench);
    let response = expect!(ListOffsets, bench.ask(node, ApiKey::ListOffsets, version, request));
    let found = &response.topics[0].partitions[0];
    (found.error_code, found.offset)
}

#[test]
fn special_timestamps_are_unsupported_before_their_version() {
    let mut bench = bench();
    for (timestamp, first) in [(-3, 7), (-4, 8), (-5, 9)] {
        assert_eq!(listed(&mut bench, first - 1, timestamp).0, 35, "{timestamp} before version {first}");
        assert_eq!(listed(&mut bench, first, timestamp).0, 0, "{timestamp} in version {first}");
    }
    assert_eq!(listed(&mut bench, 10, -6).0, 35);
}

#[test]
fn offsets_are_listed_by_time_to_the_record() {
    let mut bench = bench();
    let node = leader(&bench);
    let start = START.as_millis() as i64;
    bench.produce(node, "orders", 0, batch(&["a", "b"]));
    let later =
        shakedown_kafka::log::record::write_batch(start + 50, &[(None, Some(Bytes::from_static(b"c")))]);
    bench.produce(node, "orders", 0, later);
    for (asked, offset) in
        [(-1, 3), (-2, 0), (start, 0), (start + 1, 2), (start + 51, -1), (-3, 2), (-4, 0), (-5, -1)]
    {
        assert_eq!(listed(&mut bench, 9, asked).1, offset, "asked for {asked}");
    }
}

#[test]
fn a_fetch_reads_one_segment_and_waits_in_the_last_one_only() {
    let mut bench = Bench::new(1, &[]);
    assert_eq!(bench.create_topic("orders", 1, &[("segment.ms", "1000")]), 0);
    bench.advance(1_000);
    bench.produce(1, "orders", 0, batch(&["a"]));
    bench.produce(1, "orders", 0, batch(&["b"]));
    bench.advance(1_500);
    // Its time rolls the log.
    let late = START.as_millis() as i64 + 60_000;
    let at = |time_ms| {
        shakedown_kafka::log::record::write_batch(time_ms, &[(None, Some(Bytes::from_static(b"c")))])
    };
    bench.produce(1, "orders", 0, at(late));
    let more_than_there_is = 100_000;
    let old = bench.send(1, ApiKey::Fetch, 12, fetch_request("orders", 0, 0, 500, more_than_there_is));
    assert_eq!(fetched(bench.response(old)), (0, 3, vec![0, 1]), "at once, and up to the end of its segment");
    let new = bench.send(1, ApiKey::Fetch, 12, fetch_request("orders", 0, 2, 500, more_than_there_is));
    bench.advance(499);
    assert!(bench.reply(new).is_none());
    bench.advance(1);
    assert_eq!(fetched(bench.response(new)), (0, 3, vec![2]));
    // One that waits at the end is answered by what begins a new segment, however little that is.
    let waits = bench.send(1, ApiKey::Fetch, 12, fetch_request("orders", 0, 3, 5_000, more_than_there_is));
    bench.produce(1, "orders", 0, at(late + 500));
    assert!(bench.reply(waits).is_none(), "in the same segment it waits for enough");
    bench.produce(1, "orders", 0, at(late + 90_000));
    assert_eq!(fetched(bench.response(waits)), (0, 5, vec![3]));
}

//! What goes from a log, and when: by DeleteRecords, by age, by compaction, on a leader and its followers; and what a power
//! loss takes.

mod support;

use bytes::Bytes;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::*;
use shakedown_kafka::log::record;

use support::verbs::*;
use support::{Bench, Reply};

/// Three brokers; `orders` has one partition on all of them, led by broker 1, with these settings.
fn bench(config: &[(&str, &str)]) -> Bench {
    let mut bench =
        Bench::new(3, &[("log.cleaner.backoff.ms", "1000"), ("log.retention.check.interval.ms", "1000")]);
    assert_eq!(bench.create_on("orders", &[1, 2, 3], config), 0);
    bench.advance(1_500);
    bench
}

fn deletion(offset: i64, timeout_ms: i32) -> DeleteRecordsRequest {
    let partition = DeleteRecordsPartition::default().with_offset(offset);
    let topic =
        DeleteRecordsTopic::default().with_name(topic_name("orders")).with_partitions(vec![partition]);
    DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(timeout_ms)
}

/// Error and low watermark.
fn deleted(reply: Option<Reply>) -> Option<(i16, i64)> {
    let Some(Reply::Response(response)) = reply else { return None };
    let partition = &expect!(DeleteRecords, response).topics[0].partitions[0];
    Some((partition.error_code, partition.low_watermark))
}

fn delete(bench: &mut Bench, node: i32, offset: i64) -> Option<(i16, i64)> {
    let connection = bench.send(node, ApiKey::DeleteRecords, 2, deletion(offset, 30_000));
    bench.advance(2_000);
    deleted(bench.reply(connection))
}

fn keyed(bench: &Bench, key: &'static str, value: &'static str) -> Bytes {
    let record = (Some(Bytes::from_static(key.as_bytes())), Some(Bytes::from_static(value.as_bytes())));
    record::write_batch(bench.now.as_millis() as i64, &[record])
}

fn produce(bench: &mut Bench, batch: Bytes) {
    let connection = bench.send(1, ApiKey::Produce, 9, produce_request("orders", 0, -1, batch));
    bench.advance(600);
    let response = expect!(Produce, bench.response(connection));
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
}

#[test]
fn deleted_records_are_gone_when_every_replica_has_followed() {
    let mut bench = bench(&[]);
    assert_eq!(bench.produce_through(1, &["a", "b", "c"]), (0, 0));
    assert_eq!(delete(&mut bench, 2, 1), Some((6, -1)), "a follower refuses");
    assert_eq!(delete(&mut bench, 1, 4), Some((1, -1)), "nothing beyond the high watermark");
    assert_eq!(delete(&mut bench, 1, 2), Some((0, 2)));
    assert_eq!(bench.fetch(1, "orders", 0, 1).0, 1, "out of range");
    assert_eq!(delete(&mut bench, 1, -1), Some((0, 3)), "up to the high watermark");
    assert_eq!(bench.produce_through(1, &["d"]), (0, 3));
}

/// `UnifiedLog.maybeIncrementLogStartOffset` says so: log starts are written down by the clock.
#[test]
fn a_deletion_is_lost_with_all_replicas_unless_it_was_written_down_by_then() {
    for (waits, error) in [(0, 0), (60_000, 1)] {
        let mut bench = bench(&[]);
        assert_eq!(bench.produce_through(1, &["a", "b", "c"]), (0, 0));
        assert_eq!(delete(&mut bench, 1, 2), Some((0, 2)));
        bench.advance(waits);
        for node in 1..=3 {
            bench.kill(node);
        }
        for node in 1..=3 {
            bench.start(node);
        }
        bench.advance(30_000);
        let (leader, _) = bench.leader_of("orders", 0);
        assert_eq!(bench.fetch(leader, "orders", 0, 0).0, error, "after {waits} ms");
    }
}

#[test]
fn a_replica_that_is_silent_holds_the_answer_up_to_its_timeout() {
    let mut bench = bench(&[]);
    assert_eq!(bench.produce_through(1, &["a", "b", "c"]), (0, 0));
    bench.pause(3);
    let connection = bench.send(1, ApiKey::DeleteRecords, 2, deletion(2, 3_000));
    bench.advance(2_900);
    assert!(bench.reply(connection).is_none());
    bench.advance(200);
    assert_eq!(deleted(bench.reply(connection)).unwrap().0, 7);
    assert_eq!(bench.fetch(1, "orders", 0, 1).0, 1, "its leader has deleted them all the same");
}

#[test]
fn a_deletion_that_was_answered_leaves_nothing_that_wakes_the_broker() {
    let mut bench = bench(&[]);
    assert_eq!(bench.produce_through(1, &["a", "b", "c"]), (0, 0));
    let mut quiet = |deletions: i64| {
        for _ in 0..deletions {
            // Each at a time of its own, so that each deadline would wake the broker by itself.
            let sent = bench.send(1, ApiKey::DeleteRecords, 2, deletion(-1, 9_000));
            bench.advance(7);
            let records = bench.send(1, ApiKey::Produce, 9, produce_request("orders", 0, -1, batch(&["d"])));
            bench.advance(7);
            assert!(bench.reply(records).is_some());
            assert_eq!(deleted(bench.reply(sent)).unwrap().0, 0);
        }
        bench.advance(2_000);
        let before = bench.handled();
        bench.advance(10_000);
        bench.handled() - before
    };
    let idle = quiet(0);
    let after = quiet(50);
    assert!(after <= idle + 10, "{after} inputs in 10 s after the deletions, {idle} without");
}

#[test]
fn a_partition_that_is_named_twice_is_cut_at_its_last_offset() {
    let mut bench = bench(&[]);
    assert_eq!(bench.produce_through(1, &["a", "b", "c"]), (0, 0));
    let mut request = deletion(1, 5_000);
    request.topics[0].partitions.push(DeleteRecordsPartition::default().with_offset(2));
    request.topics.push(deletion(3, 0).topics.remove(0));
    request.topics[1].partitions[0].offset = 2;
    let connection = bench.send(1, ApiKey::DeleteRecords, 2, request);
    bench.advance(2_000);
    let response = expect!(DeleteRecords, bench.response(connection));
    let told: Vec<_> = response.topics.iter().flat_map(|topic| &topic.partitions).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].error_code, told[0].low_watermark), (0, 2));
}

#[test]
fn records_of_the_brokers_own_topics_stay() {
    let mut bench = bench(&[]);
    bench.coordinator("payment");
    for (index, error) in [(0, 17), (50, 3)] {
        let mut request = deletion(-1, 5_000);
        request.topics[0].name = topic_name("__consumer_offsets");
        request.topics[0].partitions[0].partition_index = index;
        let connection = bench.send(1, ApiKey::DeleteRecords, 2, request);
        assert_eq!(deleted(bench.reply(connection)), Some((error, -1)), "partition {index}");
    }
}

#[test]
fn a_leader_that_moves_ends_a_deletion_that_waits() {
    let mut bench = bench(&[]);
    assert_eq!(bench.produce_through(1, &["a", "b", "c"]), (0, 0));
    bench.pause(3);
    let connection = bench.send(1, ApiKey::DeleteRecords, 2, deletion(2, 60_000));
    bench.advance(2_000);
    assert!(bench.reply(connection).is_none(), "a replica is silent");
    bench.shut_down(1);
    bench.advance(2_000);
    assert_ne!(bench.leader_of("orders", 0).0, 1);
    assert_eq!(deleted(bench.reply(connection)), Some((6, -1)), "NOT_LEADER_OR_FOLLOWER");
}

#[test]
fn a_topic_that_is_only_compacted_keeps_its_records() {
    let mut bench = bench(&[("cleanup.policy", "compact")]);
    assert_eq!(delete(&mut bench, 1, -1), Some((44, -1)));
}

#[test]
fn records_that_are_too_old_go_from_every_replica() {
    let mut bench = bench(&[("retention.ms", "60000")]);
    assert_eq!(bench.produce_through(1, &["a", "b"]), (0, 0));
    bench.advance(50_000);
    assert_eq!(bench.fetch(1, "orders", 0, 0), (0, 2, vec![0, 1]));
    bench.advance(20_000);
    assert_eq!(bench.fetch(1, "orders", 0, 0).0, 1);
    assert_eq!(bench.fetch(1, "orders", 0, 2), (0, 2, vec![]));
    assert_eq!(bench.produce_through(1, &["c"]), (0, 2));
    bench.kill(1);
    bench.advance(12_000);
    let (leader, _) = bench.leader_of("orders", 0);
    assert_ne!(leader, 1);
    assert_eq!(bench.fetch(leader, "orders", 0, 0).0, 1, "the new leader begins there too");
}

/// An idempotent producer wrote `orders/0`; then retention took all but the segment of another's last record.
fn known_by_its_snapshot_only() -> (Bench, (i64, i16)) {
    let mut bench = Bench::new(1, &[("log.retention.check.interval.ms", "1000")]);
    let config =
        [("segment.ms", "1"), ("retention.ms", "40000"), ("message.timestamp.type", "LogAppendTime")];
    assert_eq!(bench.create_topic("orders", 1, &config), 0);
    let (producer, epoch) = bench.producer_id(1);
    assert_eq!(bench.produce(1, "orders", 0, idempotent(&["a"], producer, epoch, 0)), (0, 0));
    bench.advance(60_000);
    assert_eq!(bench.produce(1, "orders", 0, batch(&["b"])), (0, 1));
    bench.advance(2_000);
    assert_eq!(bench.fetch(1, "orders", 0, 0).0, 1, "it begins at 1");
    (bench, (producer, epoch))
}

#[test]
fn a_producer_without_records_is_known_after_a_clean_restart() {
    let (mut bench, (producer, epoch)) = known_by_its_snapshot_only();
    bench.shut_down(1);
    bench.advance(20_000);
    bench.start(1);
    bench.advance(20_000);
    let wrong = idempotent(&["c"], producer, epoch, 2);
    assert_eq!(bench.produce(1, "orders", 0, wrong), (45, -1), "OUT_OF_ORDER_SEQUENCE_NUMBER");
    assert_eq!(bench.produce(1, "orders", 0, idempotent(&["c"], producer, epoch, 1)), (0, 2));
}

#[test]
fn a_producer_without_records_is_forgotten_by_a_process_that_was_killed() {
    let (mut bench, (producer, epoch)) = known_by_its_snapshot_only();
    bench.kill(1);
    bench.start(1);
    bench.advance(20_000);
    // The snapshot of the last roll tells of the log's very start, and such are not read: Kafka takes any sequence then.
    assert_eq!(bench.produce(1, "orders", 0, idempotent(&["c"], producer, epoch, 7)), (0, 2));
}

/// The records of three keys, after the cleaner has had its time.
fn compacted(mut bench: Bench) -> (Bench, Vec<i64>) {
    for (key, value) in [("a", "1"), ("b", "1"), ("a", "2"), ("c", "1")] {
        let batch = keyed(&bench, key, value);
        produce(&mut bench, batch);
    }
    bench.advance(5_000);
    // A fetch gives no more than a segment.
    let mut read: Vec<i64> = Vec::new();
    while read.last() != Some(&3) {
        let next = read.last().map_or(0, |last| last + 1);
        let (error, high_watermark, offsets) = bench.fetch(1, "orders", 0, next);
        assert_eq!((error, high_watermark, offsets.is_empty()), (0, 4, false));
        read.extend(offsets);
    }
    (bench, read)
}

const COMPACTED: [(&str, &str); 3] = [
    ("cleanup.policy", "compact"),
    // Each batch comes later than this after the one before, and so into a segment of its own.
    ("segment.ms", "100"),
    ("min.cleanable.dirty.ratio", "0.01"),
];

#[test]
fn a_compacted_topic_keeps_the_last_of_each_key_at_its_offset() {
    let (mut bench, offsets) = compacted(bench(&COMPACTED));
    assert_eq!(offsets, [1, 2, 3]);
    assert_eq!(bench.fetch(1, "orders", 0, 3), (0, 4, vec![3]));
}

#[test]
fn a_broker_without_a_cleaner_compacts_nothing() {
    let config = [("log.cleaner.backoff.ms", "1000"), ("log.cleaner.enable", "false")];
    let mut bench = Bench::new(1, &config);
    assert_eq!(bench.create_topic("orders", 1, &COMPACTED), 0);
    assert_eq!(compacted(bench).1, [0, 1, 2, 3]);
}

/// How many of eight partitions have their record after a power loss 10 s after it was written, and how many were flushed
/// by Kafka itself.
fn left_by_a_power_loss(config: &[(&str, &str)]) -> (usize, usize) {
    let mut bench = Bench::new(1, config);
    assert_eq!(bench.create_topic("orders", 8, &[]), 0);
    for index in 0..8 {
        assert_eq!(bench.produce(1, "orders", index, batch(&["a"])), (0, 0));
    }
    bench.advance(10_000);
    let flushed = (0..8).filter(|&index| bench.segments(1, "orders", index).1 == 1).count();
    bench.lose_power(1);
    let kept = (0..8).filter(|&index| !bench.replica(1, "orders", index).is_empty()).count();
    (kept, flushed)
}

#[test]
fn a_broker_that_flushes_by_the_clock_loses_nothing_that_is_older() {
    let by_the_clock = [
        ("log.flush.scheduler.interval.ms", "1000"),
        ("log.flush.interval.ms", "5000"),
        ("log.initial.task.delay.ms", "1000"),
    ];
    assert_eq!(left_by_a_power_loss(&by_the_clock), (8, 8));
    let (kept, flushed) = left_by_a_power_loss(&by_the_clock[1..]);
    assert!(kept < 8 && flushed == 0, "by default nobody looks: {kept} of 8 kept, {flushed} flushed");
}

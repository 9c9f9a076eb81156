//! The figures are those of the cluster.

use std::time::Duration;

use broker::{Broker as _, OffsetAndMetadata, ProducerRecord, Properties};
use context::Timestamp;
use shakedown_rdkafka::{ClientKind, PartitionStatistics};

use crate::bed::{Bed, TOPIC, by_partition, partition, poll, send};

#[tokio::test]
async fn the_lag_of_a_paused_consumer_is_what_it_has_not_read() {
    let bed = Bed::start(2).await;
    let producer = bed.producer().await;
    send(&*producer, 0, 0..30, 64).await;
    send(&*producer, 1, 0..20, 64).await;
    let mut consumer = bed.consumer(Properties::new()).await;
    bed.read(&mut *consumer, 50).await;
    let lag = |lags: [u64; 2]| {
        let lags = lags.map(Some);
        move |said: &shakedown_rdkafka::ClientStatistics| {
            by_partition(said, PartitionStatistics::lag) == [(0, lags[0]), (1, lags[1])].into()
        }
    };
    let said = bed.until(ClientKind::Consumer, Some(&mut *consumer), lag([0, 0])).await;
    assert_eq!(said.group.as_deref(), Some("g"));
    assert_eq!(by_partition(&said, |said| said.end), [(0, Some(30)), (1, Some(20))].into());
    assert_eq!(by_partition(&said, |said| said.committed), [(0, None), (1, None)].into());

    // Nothing of partition 1 is fetched from now on, so no fetch tells where it ends.
    consumer.pause(&[partition(1)]);
    send(&*producer, 0, 30..37, 64).await;
    send(&*producer, 1, 20..60, 64).await;
    bed.read(&mut *consumer, 7).await;
    consumer.commit(&[(partition(0), OffsetAndMetadata::new(10))]).await.expect("a commit");
    let said = bed.until(ClientKind::Consumer, Some(&mut *consumer), |said| {
        lag([0, 40])(said) && said.partitions[0].committed.is_some()
    });
    let said = said.await;
    let lags = by_partition(&said, PartitionStatistics::committed_lag);
    assert_eq!(lags, [(0, Some(27)), (1, None)].into(), "of the group, as Kafka's tool shows it");
    let since = bed.context.now().since(said.taken_at);
    assert!(since < Duration::from_secs(60), "taken {since:?} ago");

    consumer.resume(&[partition(1)]);
    bed.read(&mut *consumer, 40).await;
    bed.until(ClientKind::Consumer, Some(&mut *consumer), lag([0, 0])).await;
    consumer.close().await.expect("a close");
    assert_eq!(bed.said(ClientKind::Consumer), None, "a closed consumer lags behind nothing");
}

#[tokio::test]
async fn a_group_that_comes_back_is_shown_with_what_it_has_committed() {
    let bed = Bed::start(1).await;
    send(&*bed.producer().await, 0, 0..30, 64).await;
    // Auto-commit tells nobody but librdkafka.
    for (auto_commit, committed) in [(true, 30), (false, 30)] {
        let properties = Properties::new().set("enable.auto.commit", auto_commit);
        let mut consumer = bed.consumer(properties.set("auto.commit.interval.ms", 100)).await;
        if auto_commit {
            bed.read(&mut *consumer, 30).await;
        }
        let said = bed.until(ClientKind::Consumer, Some(&mut *consumer), |said| {
            by_partition(said, |said| said.committed) == [(0, Some(committed))].into()
        });
        assert_eq!(by_partition(&said.await, PartitionStatistics::committed_lag), [(0, Some(0))].into());
        consumer.close().await.expect("a close");
    }
}

#[tokio::test]
async fn a_producer_tells_how_much_is_not_acknowledged() {
    let bed = Bed::start(1).await;
    let producer = bed.producer().await;
    send(&*producer, 0, 0..1, 64).await;
    for node in 1..=3 {
        bed.nodes.kill(node).await;
    }
    let record = || ProducerRecord::new(TOPIC, "key", vec![b'x'; 100]);
    let fates: Vec<_> = (0..50).map(|_| producer.send(record())).collect();
    let said = bed.until(ClientKind::Producer, None, |said| said.queue.records == 50).await;
    assert_eq!(said.queue.bytes, 50 * 100, "librdkafka counts values, not keys");
    bed.until(ClientKind::Producer, None, |said| said.brokers.iter().all(|broker| !broker.up)).await;
    for node in 1..=3 {
        bed.nodes.restart(node);
    }
    for fate in fates {
        fate.await.expect("an acknowledgement");
    }
    bed.until(ClientKind::Producer, None, |said| said.queue.records == 0).await;
    producer.close(Duration::from_secs(10)).await.expect("a close");
    assert_eq!(bed.said(ClientKind::Producer), None);
}

#[tokio::test]
async fn a_round_trip_is_as_long_as_the_broker_takes() {
    const WAIT: Duration = Duration::from_millis(300);
    let bed = Bed::start(1).await;
    // With nothing to read, a broker answers a fetch after this; an answer with records comes at once.
    let mut consumer = bed.consumer(Properties::new().set("fetch.wait.max.ms", WAIT.as_millis())).await;
    let longest = |said: &shakedown_rdkafka::ClientStatistics| {
        said.brokers.iter().filter_map(|broker| broker.round_trip).max_by_key(|trip| trip.max)
    };
    let said = bed.until(ClientKind::Consumer, Some(&mut *consumer), |said| {
        !said.partitions.is_empty() && longest(said).is_some_and(|trip| trip.max >= WAIT)
    });
    let said = said.await;
    let trip = longest(&said).expect("it was there");
    assert!(trip.max < WAIT + Duration::from_secs(5), "{trip:?}");
    assert!(trip.mean <= trip.max && trip.p50 <= trip.p99, "{trip:?}");
    assert!(said.brokers.iter().any(|broker| broker.coordinator && broker.up), "it has a group: {said:?}");
    let nodes: Vec<_> = said.brokers.iter().filter(|one| !one.coordinator).map(|one| one.node_id).collect();
    assert_eq!(nodes, [1, 2, 3]);
    assert!(said.taken_at > Timestamp::ZERO);
    consumer.close().await.expect("a close");
}

#[tokio::test]
async fn without_an_interval_nobody_says_anything() {
    let bed = Bed::start(1).await;
    let silent = Properties::new().set("statistics.interval.ms", 0);
    let producer = bed.broker.producer(&silent).await.expect("a producer");
    send(&*producer, 0, 0..10, 64).await;
    let mut consumer = bed.consumer(silent).await;
    bed.read(&mut *consumer, 10).await;
    bed.context.sleep(Duration::from_millis(500)).await;
    poll(&mut *consumer, Duration::from_millis(100)).await;
    assert_eq!(bed.broker.statistics().clients(), []);
    consumer.close().await.expect("a close");
}

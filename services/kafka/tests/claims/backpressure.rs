//! Applications that are slower than Kafka.

use std::cell::Cell;
use std::time::Duration;

use broker::Properties;
use shakedown_rdkafka::{ClientKind, PartitionStatistics};

use crate::bed::{Bed, by_partition, partition, poll, send};

const RECORDS: usize = 10_000;
const BYTES: usize = 1_000;

#[tokio::test]
async fn a_consumer_that_holds_back_keeps_its_membership_and_buffers_nothing() {
    let bed = Bed::start(1).await;
    let producer = bed.producer().await;
    send(&*producer, 0, 0..500, BYTES).await;
    let limits = Properties::new().set("session.timeout.ms", 6_000).set("max.poll.interval.ms", 6_000);
    let mut consumer = bed.consumer(limits.set("max.poll.records", 100)).await;
    let first = bed.read(&mut *consumer, 100).await;
    // The other 400 were fetched along with these, and are dropped.
    consumer.pause(&[partition(0)]);
    let sent = Cell::new(false);
    let sending = async {
        send(&*producer, 0, 500..RECORDS, BYTES).await;
        sent.set(true);
    };
    // Sending takes a busy machine longer than a member may be silent.
    let polling = async {
        while !sent.get() {
            let records = poll(&mut *consumer, Duration::from_millis(200)).await;
            assert_eq!(records.len(), 0, "it is paused");
        }
    };
    tokio::join!(sending, polling);
    let joined = consumer.group_metadata();
    let paused_at = bed.context.now();
    // Longer than a member may be silent, by both measures.
    while bed.context.now().since(paused_at) < Duration::from_secs(8) {
        let records = poll(&mut *consumer, Duration::from_millis(200)).await;
        assert_eq!(records.len(), 0, "it is paused");
    }
    let said = bed.said(ClientKind::Consumer).expect("it was polled");
    assert_eq!(said.queue.records, 0, "{:?}", said.queue);
    let left = (RECORDS - 100) as u64;
    assert_eq!(by_partition(&said, PartitionStatistics::lag), [(0, Some(left))].into());
    assert_eq!(consumer.group_metadata(), joined, "the same member of the same generation");
    consumer.resume(&[partition(0)]);
    let rest = bed.read(&mut *consumer, RECORDS - 100).await;
    let offsets = first.iter().chain(&rest).map(|record| record.offset);
    assert!(offsets.eq(0..RECORDS as i64), "each once, in order");
    consumer.close().await.expect("a close");
}

#[tokio::test]
async fn a_consumer_that_only_reads_slowly_buffers_no_more_than_its_properties_say() {
    let bed = Bed::start(1).await;
    send(&*bed.producer().await, 0, 0..RECORDS, BYTES).await;
    // A fetch is sent when less than the first lies in the queue, and brings the second, or one batch, which may be 1 MB.
    let queue = Properties::new().set("queued.min.messages", 200).set("fetch.message.max.bytes", 100_000);
    let mut consumer = bed.consumer(queue.set("max.poll.records", 10)).await;
    let mut most = 0;
    let mut read = 0;
    while read < 1_000 {
        let records = poll(&mut *consumer, Duration::from_secs(1)).await;
        read += records.len();
        bed.context.sleep(Duration::from_millis(10)).await;
        let Some(said) = bed.said(ClientKind::Consumer) else { continue };
        most = most.max(said.queue.records);
        if let Some(lag) = said.partitions.first().and_then(PartitionStatistics::lag) {
            let left = (RECORDS - read) as u64;
            assert!(lag >= left, "{left} are left, and it says {lag}: what is not fetched counts");
        }
    }
    assert!((1..=1_500).contains(&most), "{most} of {RECORDS} records lay in its queue");
    consumer.close().await.expect("a close");
}

//! A stream of small records: one producer as fast as its cluster takes them, one consumer that reads along.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use broker::{
    Broker, Consumer, Delivery, NewTopic, Offset, Producer, ProducerRecord, Properties, TopicPartition,
};
use bytes::Bytes;
use context::{Context, NoRecorder, Program};

use crate::stage::{Gates, add_cluster, broker, calm, create_topics};

/// Partitions of the topic.
const PARTITIONS: i32 = 6;
/// Records in a batch.
const BATCH_RECORDS: i32 = 100;
const RECORD_BYTES: usize = 64;
/// Records without an acknowledgement: twice what may be in flight, so that the producer never waits for its user.
const OPEN_MAX: usize = 6_000;

/// So many records through a cluster of `brokers`, each partition on all of them, from the first send until the last was
/// polled. The producer waits for all replicas.
pub fn produce_and_consume(brokers: u32, records: u64) -> Duration {
    let mut world = calm(Arc::new(NoRecorder));
    let bootstrap = add_cluster(&mut *world, brokers);
    let gates = Gates::default();
    world.add_host("producer", producing(bootstrap.clone(), gates.clone(), records));
    world.add_host("consumer", consuming(bootstrap, gates.clone(), records));
    gates.measure(&mut *world, 2)
}

fn producing(bootstrap: String, gates: Gates, records: u64) -> Program {
    context::program(move |context: Context| {
        let (bootstrap, gates) = (bootstrap.clone(), gates.clone());
        async move {
            let broker = broker(&context, &bootstrap);
            create_topics(&broker, &[NewTopic::new("t", PARTITIONS)]).await;
            let properties = Properties::new()
                .set("acks", "all")
                .set("linger.ms", 5)
                .set("batch.num.messages", BATCH_RECORDS);
            let producer = broker.producer(&properties).await.expect("sound properties");
            let record = record();
            // The first of each partition: connections are made, leaders known, followers in step.
            send(&*producer, &record, PARTITIONS as u64).await;
            gates.ready(&context).await;
            send(&*producer, &record, records).await;
        }
    })
}

fn record() -> ProducerRecord {
    ProducerRecord { key: None, ..ProducerRecord::new("t", Bytes::new(), vec![b'x'; RECORD_BYTES]) }
}

/// Spreads the records over the partitions as keys would, and waits for every acknowledgement.
async fn send(producer: &dyn Producer, record: &ProducerRecord, count: u64) {
    let mut open: VecDeque<Delivery> = VecDeque::with_capacity(OPEN_MAX);
    for number in 0..count {
        if open.len() == OPEN_MAX {
            open.pop_front().expect("it is full").await.expect("the brokers acknowledge");
        }
        let partition = Some((number % PARTITIONS as u64) as i32);
        open.push_back(producer.send(ProducerRecord { partition, ..record.clone() }));
    }
    for delivery in open {
        delivery.await.expect("the brokers acknowledge");
    }
}

fn consuming(bootstrap: String, gates: Gates, records: u64) -> Program {
    context::program(move |context: Context| {
        let (bootstrap, gates) = (bootstrap.clone(), gates.clone());
        async move {
            let broker = broker(&context, &bootstrap);
            let properties = Properties::new()
                .set("auto.offset.reset", "earliest")
                .set("max.poll.records", BATCH_RECORDS * PARTITIONS);
            let mut consumer = broker.consumer(&properties).await.expect("sound properties");
            let partitions: Vec<_> = (0..PARTITIONS).map(|number| TopicPartition::new("t", number)).collect();
            consumer.assign(&partitions).await.expect("partitions can be assigned");
            let mut next = vec![0; partitions.len()];
            receive(&mut *consumer, &mut next, PARTITIONS as u64).await;
            gates.ready(&context).await;
            receive(&mut *consumer, &mut next, records).await;
            gates.finish();
        }
    })
}

/// Polls so many records, and looks that each is the next of its partition.
async fn receive(consumer: &mut dyn Consumer, next: &mut [Offset], count: u64) {
    let mut received = 0;
    while received < count {
        let records = match consumer.poll(Duration::from_secs(1)).await {
            Ok(records) => records,
            // The topic is not there yet.
            Err(_) if received == 0 => continue,
            Err(error) => panic!("a poll failed: {error}"),
        };
        for record in &records {
            let expected = &mut next[record.partition.partition as usize];
            assert_eq!(record.offset, *expected, "{} was skipped or repeated", record.partition);
            *expected += 1;
        }
        received += records.len() as u64;
    }
}

//! A young cluster is slow: its brokers run their code for the first time, unoptimised, and open files that they will keep
//! open. A simulated broker has no youth. So a cluster that was just started is given some work before its first run, of
//! the kind that runs give it: small records that are awaited, and read in a group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use broker::{
    Broker, Error, NewTopic, NoRebalanceListener, OffsetAndMetadata, ProducerRecord, Properties,
    TopicPartition,
};
use client::WireBroker;
use context::Context;

const TOPIC: &str = "sd-warm";
const GROUP: &str = "sd-warm";
const PARTITIONS: i32 = 12;
/// So many rounds of so many records each. HotSpot compiles what was called some thousand times.
const ROUNDS: usize = 60;
const RECORDS: usize = 50;
const POLL: Duration = Duration::from_millis(500);

/// Gives the cluster its first work; takes seconds.
pub(crate) async fn warm(context: Context, bootstrap: &str) -> Result<(), Error> {
    let properties = Properties::new().set("bootstrap.servers", bootstrap);
    let broker = WireBroker::new(context, properties);
    let admin = broker.admin(&Properties::new()).await?;
    admin.create_topics(&[NewTopic::new(TOPIC, PARTITIONS)]).await?;
    write(&broker).await?;
    read(&broker).await?;
    admin.delete_topics(&[TOPIC]).await
}

async fn write(broker: &WireBroker) -> Result<(), Error> {
    let properties = Properties::new().set("acks", "all").set("enable.idempotence", true).set("linger.ms", 0);
    let producer = broker.producer(&properties).await?;
    for round in 0..ROUNDS {
        let send = |number: usize| {
            let key = format!("{round}-{number}");
            producer.send(ProducerRecord::new(TOPIC, key, vec![0; 500]))
        };
        let sent: Vec<_> = (0..RECORDS).map(send).collect();
        for delivery in sent {
            delivery.await?;
        }
    }
    producer.close(POLL).await
}

async fn read(broker: &WireBroker) -> Result<(), Error> {
    let properties = Properties::new()
        .set("group.id", GROUP)
        .set("enable.auto.commit", false)
        .set("auto.offset.reset", "earliest");
    let mut consumer = broker.consumer(&properties).await?;
    let topic: Arc<str> = TOPIC.into();
    consumer.subscribe(&[topic], Box::new(NoRebalanceListener)).await?;
    let mut left = ROUNDS * RECORDS;
    while left > 0 {
        let records = consumer.poll(POLL).await?;
        left = left.saturating_sub(records.len());
        // Records of a partition come in order: the last is the one that stays.
        let next: BTreeMap<TopicPartition, i64> =
            records.into_iter().map(|record| (record.partition, record.offset + 1)).collect();
        let offsets: Vec<_> = next.into_iter().map(|(at, next)| (at, OffsetAndMetadata::new(next))).collect();
        if !offsets.is_empty() {
            consumer.commit(&offsets).await?;
        }
    }
    consumer.close().await
}

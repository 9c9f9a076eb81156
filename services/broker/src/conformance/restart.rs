//! A broker goes away and comes back: clients reconnect, and what was acknowledged is there.

use std::collections::BTreeSet;
use std::time::Duration;

use super::bench::{numbered, values};
use super::{Bench, Failure, case_list, ensure};
use crate::{ProducerRecord, TopicPartition};

case_list![
    clients_reconnect_after_a_broker_restart[RestartBroker],
    acknowledged_records_survive_a_broker_restart[RestartBroker],
    committed_offsets_survive_a_broker_restart[RestartBroker],
    an_idempotent_producer_writes_once_across_a_restart[RestartBroker],
];

async fn leader(bench: &Bench, topic: &str) -> Result<i32, Failure> {
    let described = bench.admin().await?.describe_topics(&[topic]).await?;
    described
        .first()
        .and_then(|topic| topic.partitions[0].leader)
        .ok_or_else(|| Failure(format!("{topic} has no leader")))
}

async fn clients_reconnect_after_a_broker_restart(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    let producer = bench.producer().await?;
    let mut consumer = bench.subscriber("g", &topic).await?;
    bench.send_all(&*producer, &topic, "k", ["before".into()]).await?;
    bench.poll_count(&mut *consumer, 1).await?;
    bench.subject().restart_broker(leader(&bench, &topic).await?).await?;
    // The same clients go on; the send waits out the broker's absence.
    bench.send_all(&*producer, &topic, "k", ["after".into()]).await?;
    let mut got = BTreeSet::new();
    let deadline = bench.context().now() + Duration::from_secs(90);
    while !got.contains("after") {
        ensure!(bench.context().now() < deadline, "within 90 s the consumer read only {got:?}");
        if let Ok(records) = consumer.poll(Duration::from_millis(200)).await {
            got.extend(values(&records));
        }
    }
    Ok(consumer.close().await?)
}

async fn acknowledged_records_survive_a_broker_restart(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    let producer = bench.producer().await?;
    bench.send_all(&*producer, &topic, "k", numbered("v", 100)).await?;
    bench.subject().restart_broker(leader(&bench, &topic).await?).await?;
    let mut consumer = bench.subscriber("g", &topic).await?;
    let got = bench.poll_count(&mut *consumer, 100).await?;
    ensure!(values(&got) == numbered("v", 100), "after the restart: {:?}", values(&got));
    Ok(consumer.close().await?)
}

async fn committed_offsets_survive_a_broker_restart(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    let producer = bench.producer().await?;
    bench.send_all(&*producer, &topic, "k", numbered("v", 10)).await?;
    let mut consumer = bench.subscriber("g", &topic).await?;
    let records = bench.poll_count(&mut *consumer, 10).await?;
    bench.commit_all(&mut *consumer, &records[..7]).await?;
    consumer.close().await?;
    // The coordinator is one of the brokers; restarting each in turn restarts it too.
    let partition = TopicPartition::new(topic.clone(), 0);
    for broker in bench.brokers().await? {
        bench.subject().restart_broker(broker).await?;
        let admin = bench.admin().await?;
        let group = bench.name("g");
        let (admin, group, partition) = (&admin, &group, &partition);
        bench
            .eventually("the committed offset is there again", async || {
                match admin.group_offsets(group).await {
                    Ok(offsets) => {
                        Ok(offsets.iter().any(|(at, position)| at == partition && position.offset == 7))
                    }
                    Err(_) => Ok(false),
                }
            })
            .await?;
        // The next one only when this one serves again.
        bench.serving_again(broker).await?;
        producer.send(ProducerRecord::new(topic.clone(), "k", "alive")).await?;
    }
    let mut next = bench.subscriber("g", &topic).await?;
    let rest = bench.poll_count(&mut *next, 3).await?;
    ensure!(rest[0].offset == 7, "committed were 7; it read on from {}", rest[0].offset);
    Ok(next.close().await?)
}

async fn an_idempotent_producer_writes_once_across_a_restart(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    let producer = bench.producer().await?;
    bench.send_all(&*producer, &topic, "k", ["first".into()]).await?;
    let deliveries: Vec<_> = numbered("v", 200)
        .into_iter()
        .map(|value| producer.send(ProducerRecord::new(topic.clone(), "k", value)))
        .collect();
    // In the middle of these sends.
    bench.context().sleep(Duration::from_millis(3)).await;
    bench.subject().restart_broker(leader(&bench, &topic).await?).await?;
    for delivery in deliveries {
        delivery.await?;
    }
    let mut consumer = bench.subscriber("g", &topic).await?;
    let mut expected = vec!["first".to_owned()];
    expected.extend(numbered("v", 200));
    let got = bench.poll_count(&mut *consumer, 201).await?;
    let rest = bench.poll_for(&mut *consumer, Duration::from_secs(1)).await?;
    ensure!(rest.is_empty(), "written twice: {:?}", values(&rest));
    ensure!(values(&got) == expected, "in order and once: {:?}", values(&got));
    Ok(consumer.close().await?)
}

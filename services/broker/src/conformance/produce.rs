//! Sending: what is acknowledged is there, whole, in order.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use context::Timestamp;

use super::bench::{numbered, text, values};
use super::{Bench, Failure, case_list, ensure};
use crate::{ErrorCode, Header, Headers, NewTopic, ProducerRecord, Properties};

case_list![
    what_is_published_is_read,
    a_record_comes_back_whole,
    records_of_one_key_keep_their_order,
    one_key_has_one_partition,
    records_without_a_key_reach_every_partition,
    a_named_partition_is_obeyed,
    offsets_of_a_partition_rise,
    a_flush_waits_for_every_delivery,
    a_record_that_is_too_large_is_refused,
    a_time_too_far_ahead_is_refused,
    log_append_time_is_the_brokers,
    a_topic_that_is_sent_to_is_made,
    a_closed_producer_takes_nothing,
    a_property_that_does_not_exist_is_refused,
    a_transaction_needs_a_transactional_id,
];

async fn what_is_published_is_read(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 3).await?;
    let producer = bench.producer().await?;
    for key in ["a", "b", "c", "d"] {
        bench.send_all(&*producer, &topic, key, numbered(key, 25)).await?;
    }
    let mut consumer = bench.subscriber("g", &topic).await?;
    let records = bench.poll_count(&mut *consumer, 100).await?;
    let mut got = values(&records);
    got.sort();
    let mut sent: Vec<_> = ["a", "b", "c", "d"].iter().flat_map(|key| numbered(key, 25)).collect();
    sent.sort();
    ensure!(got == sent, "sent and read differ: read {got:?}");
    let more = bench.poll_for(&mut *consumer, Duration::from_secs(1)).await?;
    ensure!(more.is_empty(), "read more than was sent: {:?}", values(&more));
    Ok(consumer.close().await?)
}

async fn a_record_comes_back_whole(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    let producer = bench.producer().await?;
    let time = Timestamp::from_millis(bench.context().now().as_millis() - 5_000);
    let header =
        |key: &str, value: Option<&'static str>| Header { key: key.into(), value: value.map(Bytes::from) };
    let headers = Headers(vec![
        header("twice", Some("first")),
        header("null", None),
        header("twice", Some("second")),
        header("empty", Some("")),
    ]);
    let sent = [
        (Some("key"), Some("value"), headers.clone()),
        (None, Some("no key"), Headers::default()),
        (Some("tombstone"), None, Headers::default()),
        (Some(""), Some(""), Headers::default()),
    ];
    for (key, value, headers) in &sent {
        let record = ProducerRecord {
            topic: topic.clone(),
            partition: Some(0),
            key: key.map(Bytes::from),
            value: value.map(Bytes::from),
            headers: headers.clone(),
            timestamp: Some(time),
        };
        producer.send(record).await?;
    }
    let mut consumer = bench.subscriber("g", &topic).await?;
    let got = bench.poll_count(&mut *consumer, sent.len()).await?;
    for (record, (key, value, headers)) in got.iter().zip(&sent) {
        ensure!(record.key.as_deref() == key.map(str::as_bytes), "key {key:?} came as {:?}", record.key);
        ensure!(
            record.value.as_deref() == value.map(str::as_bytes),
            "value {value:?} came as {:?}",
            record.value
        );
        ensure!(record.headers == *headers, "headers {headers:?} came as {:?}", record.headers);
        ensure!(record.timestamp == time, "the time {time:?} came as {:?}", record.timestamp);
    }
    Ok(consumer.close().await?)
}

async fn records_of_one_key_keep_their_order(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 4).await?;
    let producer = bench.producer().await?;
    let keys = ["k1", "k2", "k3", "k4", "k5", "k6"];
    let mut deliveries = Vec::new();
    for number in 0..50 {
        for key in keys {
            let record = ProducerRecord::new(topic.clone(), key, format!("{number}"));
            deliveries.push(producer.send(record));
        }
    }
    for delivery in deliveries {
        delivery.await?;
    }
    let mut consumer = bench.subscriber("g", &topic).await?;
    let records = bench.poll_count(&mut *consumer, 50 * keys.len()).await?;
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in &records {
        seen.entry(text(record.key.as_deref())).or_default().push(text(record.value.as_deref()));
    }
    let expected: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    for (key, got) in seen {
        ensure!(got == expected, "key {key} came as {got:?}");
    }
    Ok(consumer.close().await?)
}

async fn one_key_has_one_partition(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 8).await?;
    let (first, second) = (bench.producer().await?, bench.producer().await?);
    for key in numbered("key", 20) {
        let one = bench.send_all(&*first, &topic, &key, ["x".into()]).await?;
        let other = bench.send_all(&*second, &topic, &key, ["y".into()]).await?;
        ensure!(
            one[0].partition == other[0].partition,
            "key {key} went to {} and to {}",
            one[0].partition,
            other[0].partition
        );
    }
    Ok(())
}

async fn records_without_a_key_reach_every_partition(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 3).await?;
    let producer = bench.producer().await?;
    let mut seen = BTreeMap::new();
    for number in 0..100 {
        let record =
            ProducerRecord { key: None, ..ProducerRecord::new(topic.clone(), "", format!("{number}")) };
        *seen.entry(producer.send(record).await?.partition).or_insert(0) += 1;
        // Clients stick to one partition for a while (`sticky.partitioning.linger.ms`, 10 ms) to fill its batches.
        bench.context().sleep(Duration::from_millis(15)).await;
    }
    ensure!(seen.len() == 3, "100 records without a key, over 1.5 s, reached only {seen:?}");
    Ok(())
}

async fn a_named_partition_is_obeyed(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 4).await?;
    let producer = bench.producer().await?;
    for partition in [3, 0, 2] {
        let record =
            ProducerRecord { partition: Some(partition), ..ProducerRecord::new(topic.clone(), "same", "x") };
        let at = producer.send(record).await?.partition;
        ensure!(at.partition == partition, "asked for partition {partition}, got {at}");
    }
    Ok(())
}

async fn offsets_of_a_partition_rise(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    let producer = bench.producer().await?;
    let acknowledged = bench.send_all(&*producer, &topic, "k", numbered("v", 200)).await?;
    let offsets: Vec<_> = acknowledged.iter().map(|at| at.offset).collect();
    ensure!(offsets.iter().all(Option::is_some), "an acknowledgement came without its offset: {offsets:?}");
    ensure!(offsets.is_sorted_by(|one, next| one < next), "offsets in the order of the sends: {offsets:?}");
    Ok(())
}

async fn a_flush_waits_for_every_delivery(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 3).await?;
    // A flush that lingers does not come to its end.
    let producer = bench.producer_with(Properties::new().set("linger.ms", 60_000)).await?;
    let deliveries: Vec<_> = numbered("v", 30)
        .into_iter()
        .map(|value| producer.send(ProducerRecord::new(topic.clone(), value.clone(), value)))
        .collect();
    producer.flush(Duration::from_secs(30)).await?;
    for delivery in deliveries {
        let fate = bench.context().timeout(Duration::from_millis(1), delivery).await;
        ensure!(matches!(fate, Ok(Ok(_))), "after the flush a delivery is still {fate:?}");
    }
    Ok(())
}

async fn a_record_that_is_too_large_is_refused(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    // The client lets it pass; the broker's `message.max.bytes` (1 MiB and 12 bytes unless set) does not.
    let producer = bench.producer_with(Properties::new().set("message.max.bytes", 10_000_000)).await?;
    let fate = producer.send(ProducerRecord::new(topic.clone(), "k", vec![b'x'; 2_000_000])).await;
    match fate {
        Err(error) if error.code == ErrorCode::Broker(10) => {}
        other => return Err(Failure(format!("2 MB at a broker that takes 1: {other:?}"))),
    }
    let after = bench.send_all(&*producer, &topic, "k", ["small".into()]).await?;
    ensure!(
        after[0].offset == Some(0),
        "the refused record left a trace: the next is at {:?}",
        after[0].offset
    );
    Ok(())
}

async fn a_time_too_far_ahead_is_refused(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    let producer = bench.producer_with(Properties::new().set("enable.idempotence", false)).await?;
    let now = bench.context().now();
    let at = |hours: u64| ProducerRecord {
        timestamp: Some(now + Duration::from_secs(hours * 3_600)),
        ..ProducerRecord::new(topic.clone(), "k", "v")
    };
    // `message.timestamp.after.max.ms` is an hour unless set.
    let fate = producer.send(at(2)).await;
    ensure!(
        matches!(&fate, Err(error) if error.code == ErrorCode::Broker(32)),
        "a record of two hours ahead: {fate:?}"
    );
    let offset = producer.send(at(0)).await?.offset;
    ensure!(offset == Some(0), "the refused record left a trace: the next is at {offset:?}");
    Ok(())
}

async fn log_append_time_is_the_brokers(bench: Bench) -> Result<(), Failure> {
    let name = bench.name("t");
    let config = BTreeMap::from([("message.timestamp.type".to_owned(), "LogAppendTime".to_owned())]);
    bench.create(NewTopic { config, ..NewTopic::new(name.clone(), 1) }).await?;
    let producer = bench.producer().await?;
    let sent_at = bench.context().now();
    let timestamp = Some(Timestamp::from_millis(sent_at.as_millis() - 600_000));
    producer.send(ProducerRecord { timestamp, ..ProducerRecord::new(name.clone(), "k", "v") }).await?;
    let mut consumer = bench.subscriber("g", &name.into()).await?;
    let got = bench.poll_count(&mut *consumer, 1).await?;
    // Brokers on other machines have other clocks.
    let earliest = Timestamp::from_millis(sent_at.as_millis() - 60_000);
    ensure!(got[0].timestamp > earliest, "it has the producer's time, {:?}", got[0].timestamp);
    Ok(consumer.close().await?)
}

async fn a_topic_that_is_sent_to_is_made(bench: Bench) -> Result<(), Failure> {
    let name = bench.name("made-by-sending");
    let producer = bench.producer().await?;
    let at = producer.send(ProducerRecord::new(name.clone(), "k", "v")).await?;
    ensure!(at.offset == Some(0), "the first record is at {:?}", at.offset);
    // Brokers hear of it each in its time.
    let (admin, name) = (&bench.admin().await?, &*name);
    bench
        .eventually("what was sent to is described", async || {
            Ok(admin.describe_topics(&[name]).await?.len() == 1)
        })
        .await
}

async fn a_closed_producer_takes_nothing(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    let producer = bench.producer_with(Properties::new().set("linger.ms", 5_000)).await?;
    let queued = producer.send(ProducerRecord::new(topic.clone(), "k", "before"));
    producer.close(Duration::from_secs(60)).await?;
    ensure!(queued.await.is_ok(), "what was queued before the close was not sent");
    let fate = producer.send(ProducerRecord::new(topic, "k", "after")).await;
    ensure!(
        matches!(&fate, Err(error) if error.code == ErrorCode::Closed),
        "a send after the close: {fate:?}"
    );
    Ok(())
}

async fn a_property_that_does_not_exist_is_refused(bench: Bench) -> Result<(), Failure> {
    for properties in [
        Properties::new().set("enable.idempotense", true),
        Properties::new().set("acks", "most"),
        Properties::new().set("linger.ms", -5),
    ] {
        match bench.broker().producer(&properties).await {
            Err(error) if error.code == ErrorCode::InvalidConfig => {}
            Err(other) => return Err(Failure(format!("{properties:?} gave {other}"))),
            Ok(_) => return Err(Failure(format!("{properties:?} was accepted"))),
        }
    }
    Ok(())
}

async fn a_transaction_needs_a_transactional_id(bench: Bench) -> Result<(), Failure> {
    let producer = bench.producer().await?;
    for result in [
        producer.init_transactions(Duration::from_secs(5)).await,
        producer.begin_transaction().await,
        producer.commit_transaction(Duration::from_secs(5)).await,
    ] {
        ensure!(
            matches!(&result, Err(error) if error.code == ErrorCode::InvalidState),
            "a transaction call without `transactional.id`: {result:?}"
        );
    }
    Ok(())
}

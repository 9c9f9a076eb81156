//! What a log forgets: old segments, and all but the last record of a key.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::bench::{PATIENCE, values};
use super::{Bench, Failure, case_list, ensure};
use crate::{
    Consumer, ConsumerRecord, ErrorCode, NewTopic, NoRebalanceListener, OffsetSpec, Producer, Properties,
    TopicPartition,
};

case_list![
    compaction_keeps_the_last_of_a_key[FrequentCleanup],
    compaction_forgets_a_key_after_its_tombstone[FrequentCleanup],
    a_tombstone_is_there_for_its_retention[FrequentCleanup],
    a_compacted_topic_wants_keys,
    retention_moves_the_start[FrequentCleanup],
    retention_by_size_moves_the_start[FrequentCleanup],
    a_reader_behind_the_start_is_reset[FrequentCleanup],
];

async fn topic(bench: &Bench, config: &[(&str, &str)]) -> Result<Arc<str>, Failure> {
    let name = bench.name("t");
    let config = config.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
    let topic = NewTopic { config: config.collect::<BTreeMap<_, _>>(), ..NewTopic::new(name.clone(), 1) };
    bench.create(topic).await?;
    Ok(name.into())
}

const COMPACTED: &[(&str, &str)] = &[
    ("cleanup.policy", "compact"),
    ("segment.ms", "500"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("delete.retention.ms", "100"),
];

/// Everything that is in a topic now, as `key=value`.
async fn contents(bench: &Bench, topic: &Arc<str>) -> Result<Vec<String>, Failure> {
    let at = TopicPartition::new(topic.clone(), 0);
    let latest = bench.admin().await?.list_offsets(&[(at.clone(), OffsetSpec::Latest)]).await?;
    let end = latest.first().map_or(0, |(_, offset)| *offset);
    let mut consumer = bench.consumer_with("contents", Properties::new()).await?;
    consumer.assign(std::slice::from_ref(&at)).await?;
    let mut found = Vec::new();
    let deadline = bench.context().now() + Duration::from_secs(60);
    while consumer.position(&at).is_none_or(|position| position < end) {
        ensure!(bench.context().now() < deadline, "a reader did not get to the end, {end}, of {topic}");
        for record in bench.poll_once(&mut *consumer, Duration::from_millis(200)).await? {
            let text = |bytes: &Option<bytes::Bytes>| super::bench::text(bytes.as_deref());
            found.push(format!("{}={}", text(&record.key), text(&record.value)));
        }
    }
    consumer.close().await?;
    Ok(found)
}

/// Lets the last segment grow old, so that the next record rolls it and all before is clean to cleaning.
async fn roll(bench: &Bench, topic: &Arc<str>) -> Result<(), Failure> {
    bench.context().sleep(Duration::from_millis(1_000)).await;
    let producer = bench.producer().await?;
    bench.send_all(&*producer, topic, "roll", ["over".into()]).await?;
    Ok(())
}

async fn compaction_keeps_the_last_of_a_key(bench: Bench) -> Result<(), Failure> {
    let topic = topic(&bench, COMPACTED).await?;
    let producer = bench.producer().await?;
    for round in 0..5 {
        for key in ["a", "b", "c"] {
            bench.send_all(&*producer, &topic, key, [format!("{key}{round}")]).await?;
        }
    }
    bench.send_all(&*producer, &topic, "a", ["last".into()]).await?;
    roll(&bench, &topic).await?;
    let (bench, topic) = (&bench, &topic);
    bench
        .eventually("each key has its last value only", async || {
            Ok(contents(bench, topic).await? == ["b=b4", "c=c4", "a=last", "roll=over"])
        })
        .await
}

async fn compaction_forgets_a_key_after_its_tombstone(bench: Bench) -> Result<(), Failure> {
    let topic = topic(&bench, COMPACTED).await?;
    let producer = bench.producer().await?;
    bench.send_all(&*producer, &topic, "gone", ["value".into()]).await?;
    bench.send_all(&*producer, &topic, "kept", ["value".into()]).await?;
    let mut tombstone = crate::ProducerRecord::new(topic.clone(), "gone", "");
    tombstone.value = None;
    producer.send(tombstone).await?;
    let (bench, topic) = (&bench, &topic);
    bench
        .eventually("the key is forgotten, its tombstone too", async || {
            // The first cleaning sets the tombstone's horizon, one after the horizon drops it: each needs something new.
            roll(bench, topic).await?;
            Ok(contents(bench, topic).await?.iter().all(|record| !record.starts_with("gone")))
        })
        .await?;
    let left = contents(bench, topic).await?;
    ensure!(left.contains(&"kept=value".to_owned()), "other keys stay: {left:?}");
    Ok(())
}

async fn a_tombstone_is_there_for_its_retention(bench: Bench) -> Result<(), Failure> {
    let retained = COMPACTED
        .iter()
        .map(|&(name, value)| (name, if name == "delete.retention.ms" { "3600000" } else { value }));
    let topic = topic(&bench, &retained.collect::<Vec<_>>()).await?;
    let producer = bench.producer().await?;
    bench.send_all(&*producer, &topic, "gone", ["value".into()]).await?;
    let mut tombstone = crate::ProducerRecord::new(topic.clone(), "gone", "");
    tombstone.value = None;
    producer.send(tombstone).await?;
    // The second record of this key goes in a second cleaning.
    roll(&bench, &topic).await?;
    let (bench, topic) = (&bench, &topic);
    bench
        .eventually("of the key its tombstone is left", async || {
            Ok(contents(bench, topic).await? == ["gone=null", "roll=over"])
        })
        .await?;
    roll(bench, topic).await?;
    roll(bench, topic).await?;
    bench
        .eventually("it is left by later cleanings too", async || {
            Ok(contents(bench, topic).await? == ["gone=null", "roll=over", "roll=over"])
        })
        .await
}

async fn a_compacted_topic_wants_keys(bench: Bench) -> Result<(), Failure> {
    let topic = topic(&bench, &[("cleanup.policy", "compact")]).await?;
    let producer = bench.producer_with(Properties::new().set("enable.idempotence", false)).await?;
    let without = crate::ProducerRecord { key: None, ..crate::ProducerRecord::new(topic.clone(), "", "v") };
    let fate = producer.send(without).await;
    ensure!(
        matches!(&fate, Err(error) if error.code == ErrorCode::Broker(87)),
        "a record without a key on a compacted topic: {fate:?}"
    );
    let at = bench.send_all(&*producer, &topic, "k", ["v".into()]).await?;
    ensure!(at[0].offset == Some(0), "the refused record left a trace: the next is at {:?}", at[0].offset);
    Ok(())
}

/// Long enough to read what is new.
const SHORT_LIVED: &[(&str, &str)] = &[("retention.ms", "20000"), ("segment.ms", "500")];

/// Sends, and waits until retention has taken what was sent first.
async fn forgotten(bench: &Bench, topic: &Arc<str>) -> Result<i64, Failure> {
    let at = TopicPartition::new(topic.clone(), 0);
    let admin = bench.admin().await?;
    let earliest = async || -> Result<i64, Failure> {
        let found = admin.list_offsets(&[(at.clone(), OffsetSpec::Earliest)]).await?;
        Ok(found.first().map_or(0, |(_, offset)| *offset))
    };
    bench
        .eventually("the first records are forgotten", async || {
            roll(bench, topic).await?;
            Ok(earliest().await? > 0)
        })
        .await?;
    earliest().await
}

/// Reads until `new` comes. It is sent again and again, for it is not kept for long, and a busy machine may take longer to read it.
async fn read_to_new(
    bench: &Bench,
    producer: &dyn Producer,
    topic: &Arc<str>,
    consumer: &mut dyn Consumer,
) -> Result<Vec<ConsumerRecord>, Failure> {
    let deadline = bench.context().now() + PATIENCE;
    let mut got = Vec::new();
    while !values(&got).contains(&"new".to_owned()) {
        ensure!(bench.context().now() < deadline, "within {PATIENCE:?} it read only {:?}", values(&got));
        bench.send_all(producer, topic, "k", ["new".into()]).await?;
        got.extend(bench.poll_for(consumer, Duration::from_secs(1)).await?);
    }
    Ok(got)
}

async fn retention_moves_the_start(bench: Bench) -> Result<(), Failure> {
    let topic = topic(&bench, SHORT_LIVED).await?;
    let producer = bench.producer().await?;
    bench.send_all(&*producer, &topic, "k", ["old".into()]).await?;
    let start = forgotten(&bench, &topic).await?;
    let mut consumer = bench.consumer("g").await?;
    consumer.subscribe(std::slice::from_ref(&topic), Box::new(NoRebalanceListener)).await?;
    let got = read_to_new(&bench, &*producer, &topic, &mut *consumer).await?;
    ensure!(
        got.iter().all(|record| record.offset >= start),
        "nothing before {start} is read: {:?}",
        values(&got)
    );
    ensure!(!values(&got).contains(&"old".to_owned()), "what is forgotten is not read: {:?}", values(&got));
    Ok(consumer.close().await?)
}

async fn retention_by_size_moves_the_start(bench: Bench) -> Result<(), Failure> {
    let topic = topic(&bench, &[("retention.bytes", "1000"), ("segment.ms", "500")]).await?;
    let producer = bench.producer().await?;
    bench.send_all(&*producer, &topic, "k", ["old".into()]).await?;
    roll(&bench, &topic).await?;
    // What is over the limit goes by whole segments, and never so many that less than the limit is left.
    bench.send_all(&*producer, &topic, "k", ["x".repeat(10_000)]).await?;
    forgotten(&bench, &topic).await?;
    let left = contents(&bench, &topic).await?;
    ensure!(!left.contains(&"k=old".to_owned()), "what is forgotten is not read: {left:?}");
    Ok(())
}

async fn a_reader_behind_the_start_is_reset(bench: Bench) -> Result<(), Failure> {
    let topic = topic(&bench, SHORT_LIVED).await?;
    let producer = bench.producer().await?;
    bench.send_all(&*producer, &topic, "k", ["old".into()]).await?;
    let start = forgotten(&bench, &topic).await?;
    let at = TopicPartition::new(topic.clone(), 0);
    let mut consumer = bench.consumer("g").await?;
    consumer.assign(std::slice::from_ref(&at)).await?;
    consumer.seek(&at, 0)?;
    let got = read_to_new(&bench, &*producer, &topic, &mut *consumer).await?;
    ensure!(got[0].offset >= start, "it reads on from the start, {start}, not from {}", got[0].offset);
    Ok(consumer.close().await?)
}

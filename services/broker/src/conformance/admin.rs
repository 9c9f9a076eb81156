//! Topics and offsets from outside.

use std::time::Duration;

use context::Timestamp;

use super::bench::numbered;
use super::{Bench, Failure, case_list, ensure};
use crate::{ErrorCode, NewTopic, OffsetSpec, ProducerRecord, TopicPartition};

case_list![
    a_created_topic_is_described,
    a_topic_is_created_once,
    an_unknown_topic_is_not_described,
    a_deleted_topic_is_gone,
    earliest_and_latest_are_the_ends_of_the_log,
    a_time_finds_the_first_record_from_then_on,
    lag_is_what_a_group_has_yet_to_read,
];

async fn a_created_topic_is_described(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 5).await?;
    let described = bench.admin().await?.describe_topics(&[&topic]).await?;
    ensure!(described.len() == 1 && described[0].name == topic, "described {described:?}");
    let numbers: Vec<_> = described[0].partitions.iter().map(|partition| partition.partition).collect();
    ensure!(numbers == [0, 1, 2, 3, 4], "partitions {numbers:?}");
    for partition in &described[0].partitions {
        let leader = partition.leader;
        ensure!(
            leader.is_some_and(|leader| partition.replicas.contains(&leader)),
            "the leader is none of the replicas: {partition:?}"
        );
        ensure!(partition.in_sync == partition.replicas, "a new partition is in sync: {partition:?}");
    }
    Ok(())
}

async fn a_topic_is_created_once(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    let again = bench.admin().await?.create_topics(&[NewTopic::new(&*topic, 3)]).await;
    ensure!(
        matches!(&again, Err(error) if error.code == ErrorCode::Broker(36)),
        "a second creation: {again:?}"
    );
    let invalid = bench.admin().await?.create_topics(&[NewTopic::new("no spaces allowed", 1)]).await;
    ensure!(
        matches!(&invalid, Err(error) if error.code == ErrorCode::Broker(17)),
        "a name with spaces: {invalid:?}"
    );
    Ok(())
}

async fn an_unknown_topic_is_not_described(bench: Bench) -> Result<(), Failure> {
    let name = bench.name("nobody-made-this");
    let described = bench.admin().await?.describe_topics(&[&name]).await?;
    ensure!(described.is_empty(), "described {described:?}");
    Ok(())
}

async fn a_deleted_topic_is_gone(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 2).await?;
    let admin = bench.admin().await?;
    admin.delete_topics(&[&topic]).await?;
    let (admin, topic) = (&admin, &topic);
    bench
        .eventually("a deleted topic is no longer described", async || {
            Ok(admin.describe_topics(&[topic]).await?.is_empty())
        })
        .await?;
    let again = admin.delete_topics(&[topic]).await;
    ensure!(
        matches!(&again, Err(error) if error.code == ErrorCode::Broker(3)),
        "a second deletion: {again:?}"
    );
    // Its name is free again, and what was in it does not come back.
    bench
        .eventually("the name can be taken again", async || {
            Ok(admin.create_topics(&[NewTopic::new(&**topic, 1)]).await.is_ok())
        })
        .await?;
    let producer = bench.producer().await?;
    let at = bench.send_all(&*producer, topic, "k", ["anew".into()]).await?;
    ensure!(at[0].offset == Some(0), "the new topic's first record is at {:?}", at[0].offset);
    Ok(())
}

async fn earliest_and_latest_are_the_ends_of_the_log(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    let partition = TopicPartition::new(topic.clone(), 0);
    let admin = bench.admin().await?;
    let ends = async || {
        let earliest = admin.list_offsets(&[(partition.clone(), OffsetSpec::Earliest)]).await?;
        let latest = admin.list_offsets(&[(partition.clone(), OffsetSpec::Latest)]).await?;
        Ok::<_, crate::Error>((earliest[0].1, latest[0].1))
    };
    let empty = ends().await?;
    ensure!(empty == (0, 0), "the ends of an empty log: {empty:?}");
    let producer = bench.producer().await?;
    bench.send_all(&*producer, &topic, "k", numbered("v", 12)).await?;
    let filled = ends().await?;
    ensure!(filled == (0, 12), "the ends of a log of twelve: {filled:?}");
    Ok(())
}

async fn a_time_finds_the_first_record_from_then_on(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    let partition = TopicPartition::new(topic.clone(), 0);
    let producer = bench.producer().await?;
    let base = bench.context().now().as_millis() - 60_000;
    for number in 0..6 {
        let record = ProducerRecord {
            timestamp: Some(Timestamp::from_millis(base + number * 1_000)),
            ..ProducerRecord::new(topic.clone(), "k", format!("{number}"))
        };
        producer.send(record).await?;
    }
    let admin = bench.admin().await?;
    for (millis, expected) in [(0, Some(0)), (2_000, Some(2)), (2_001, Some(3)), (5_001, None)] {
        let asked = OffsetSpec::At(Timestamp::from_millis(base + millis));
        let got = admin.list_offsets(&[(partition.clone(), asked)]).await?;
        let got = got.first().map(|(_, offset)| *offset);
        ensure!(got == expected, "asked for {millis} ms after the first: {got:?} instead of {expected:?}");
    }
    Ok(())
}

async fn lag_is_what_a_group_has_yet_to_read(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    let partition = TopicPartition::new(topic.clone(), 0);
    let producer = bench.producer().await?;
    bench.send_all(&*producer, &topic, "k", numbered("v", 10)).await?;
    let admin = bench.admin().await?;
    let group = bench.name("g");
    let untouched = admin.lag(&group, &[&topic]).await?;
    ensure!(untouched.get(&partition) == Some(&10), "before the group read: {untouched:?}");
    let mut consumer = bench.subscriber("g", &topic).await?;
    let records = bench.poll_count(&mut *consumer, 10).await?;
    bench.commit_all(&mut *consumer, &records[..6]).await?;
    let after = admin.lag(&group, &[&topic]).await?;
    ensure!(after.get(&partition) == Some(&4), "after a commit of six of ten: {after:?}");
    let offsets = admin.group_offsets(&group).await?;
    ensure!(offsets.len() == 1 && offsets[0].1.offset == 6, "the group's offsets: {offsets:?}");
    bench.context().sleep(Duration::from_millis(1)).await;
    Ok(consumer.close().await?)
}

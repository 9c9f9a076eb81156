//! Reading: where it starts, what it gives, how it stops.

use std::time::Duration;

use context::Timestamp;

use super::bench::{PATIENCE, numbered, text, values};
use super::{Bench, Failure, case_list, ensure};
use crate::{
    ErrorCode, NoRebalanceListener, Offset, OffsetAndMetadata, OffsetSpec, ProducerRecord, Properties,
    TopicPartition,
};

case_list![
    several_groups_each_see_all,
    a_new_group_sees_old_records_from_the_earliest,
    a_new_group_at_latest_sees_only_what_comes_later,
    reading_resumes_after_the_committed_offset,
    what_was_not_committed_is_redelivered,
    a_seek_reads_again,
    a_paused_partition_gives_nothing,
    a_poll_gives_at_most_max_poll_records,
    a_record_above_the_fetch_limit_is_read,
    assigned_by_hand_there_is_no_group_to_join,
    committed_metadata_comes_back,
    auto_commit_commits_what_was_polled,
    an_empty_topic_gives_an_empty_poll,
    closing_while_busy_loses_nothing,
    a_reset_of_error_reports_an_offset_out_of_range,
    a_reset_of_error_reads_on_where_it_is_told_to,
    an_offset_out_of_range_is_reset,
];

async fn filled(bench: &Bench, partitions: i32, count: usize) -> Result<std::sync::Arc<str>, Failure> {
    let topic = bench.topic("t", partitions).await?;
    let producer = bench.producer().await?;
    let deliveries: Vec<_> = numbered("v", count)
        .into_iter()
        .map(|value| producer.send(ProducerRecord::new(topic.clone(), value.clone(), value)))
        .collect();
    for delivery in deliveries {
        delivery.await?;
    }
    Ok(topic)
}

async fn several_groups_each_see_all(bench: Bench) -> Result<(), Failure> {
    let topic = filled(&bench, 3, 60).await?;
    for group in ["g1", "g2", "g3"] {
        let mut consumer = bench.subscriber(group, &topic).await?;
        let mut got = values(&bench.poll_count(&mut *consumer, 60).await?);
        got.sort();
        let mut sent = numbered("v", 60);
        sent.sort();
        ensure!(got == sent, "group {group} read {got:?}");
        consumer.close().await?;
    }
    Ok(())
}

async fn a_new_group_sees_old_records_from_the_earliest(bench: Bench) -> Result<(), Failure> {
    let topic = filled(&bench, 1, 10).await?;
    let mut consumer = bench.subscriber("new", &topic).await?;
    let got = bench.poll_count(&mut *consumer, 10).await?;
    ensure!(values(&got) == numbered("v", 10), "read {:?}", values(&got));
    ensure!(got[0].offset == 0, "the earliest is at {}", got[0].offset);
    Ok(consumer.close().await?)
}

async fn a_new_group_at_latest_sees_only_what_comes_later(bench: Bench) -> Result<(), Failure> {
    let topic = filled(&bench, 1, 10).await?;
    let mut consumer =
        bench.subscriber_with("latest", &topic, Properties::new().set("auto.offset.reset", "latest")).await?;
    let partition = TopicPartition::new(topic.clone(), 0);
    let deadline = bench.context().now() + Duration::from_secs(60);
    while consumer.position(&partition) != Some(10) {
        let old = bench.poll_once(&mut *consumer, Duration::from_millis(200)).await?;
        ensure!(old.is_empty(), "at latest it read {:?}", values(&old));
        ensure!(bench.context().now() < deadline, "no position within a minute");
    }
    let producer = bench.producer().await?;
    bench.send_all(&*producer, &topic, "k", ["later".into()]).await?;
    let got = bench.poll_count(&mut *consumer, 1).await?;
    ensure!(values(&got) == ["later"], "read {:?}", values(&got));
    Ok(consumer.close().await?)
}

async fn reading_resumes_after_the_committed_offset(bench: Bench) -> Result<(), Failure> {
    let topic = filled(&bench, 1, 20).await?;
    let limit = Properties::new().set("max.poll.records", 5);
    let mut consumer = bench.subscriber_with("g", &topic, limit).await?;
    let first = bench.poll_count(&mut *consumer, 5).await?;
    bench.commit_all(&mut *consumer, &first).await?;
    consumer.close().await?;

    let mut next = bench.subscriber("g", &topic).await?;
    let rest = bench.poll_count(&mut *next, 15).await?;
    ensure!(rest[0].offset == 5, "after a commit of 5 it read on from {}", rest[0].offset);
    Ok(next.close().await?)
}

async fn what_was_not_committed_is_redelivered(bench: Bench) -> Result<(), Failure> {
    let topic = filled(&bench, 1, 8).await?;
    let mut consumer = bench.subscriber("g", &topic).await?;
    bench.poll_count(&mut *consumer, 8).await?;
    consumer.close().await?;
    let mut next = bench.subscriber("g", &topic).await?;
    let again = bench.poll_count(&mut *next, 8).await?;
    ensure!(values(&again) == numbered("v", 8), "redelivered {:?}", values(&again));
    Ok(next.close().await?)
}

async fn a_seek_reads_again(bench: Bench) -> Result<(), Failure> {
    let topic = filled(&bench, 1, 10).await?;
    let partition = TopicPartition::new(topic.clone(), 0);
    let mut consumer = bench.subscriber("g", &topic).await?;
    bench.poll_count(&mut *consumer, 10).await?;
    for offset in [7, 0] {
        consumer.seek(&partition, offset)?;
        let got = bench.poll_count(&mut *consumer, (10 - offset) as usize).await?;
        ensure!(got[0].offset == offset, "a seek to {offset} read from {}", got[0].offset);
        ensure!(consumer.position(&partition) == Some(10), "position {:?}", consumer.position(&partition));
    }
    let other = TopicPartition::new(topic, 7);
    let refused = consumer.seek(&other, 0);
    ensure!(
        matches!(&refused, Err(error) if error.code == ErrorCode::InvalidState),
        "a seek of a partition that is not assigned: {refused:?}"
    );
    Ok(consumer.close().await?)
}

async fn a_paused_partition_gives_nothing(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 2).await?;
    let producer = bench.producer().await?;
    let mut consumer = bench.subscriber("g", &topic).await?;
    let send = async |partition, value: &str| {
        let record = ProducerRecord {
            partition: Some(partition),
            ..ProducerRecord::new(topic.clone(), "k", value.to_owned())
        };
        producer.send(record).await
    };
    send(0, "open").await?;
    send(1, "to be paused").await?;
    bench.poll_count(&mut *consumer, 2).await?;
    let paused = TopicPartition::new(topic.clone(), 1);
    consumer.pause(std::slice::from_ref(&paused));
    send(1, "held").await?;
    send(0, "passes").await?;
    let mut got = bench.poll_count(&mut *consumer, 1).await?;
    got.extend(bench.poll_for(&mut *consumer, Duration::from_secs(2)).await?);
    ensure!(values(&got) == ["passes"], "with partition 1 paused it read {:?}", values(&got));
    consumer.resume(std::slice::from_ref(&paused));
    let got = bench.poll_count(&mut *consumer, 1).await?;
    ensure!(values(&got) == ["held"], "after the resume it read {:?}", values(&got));
    Ok(consumer.close().await?)
}

async fn a_poll_gives_at_most_max_poll_records(bench: Bench) -> Result<(), Failure> {
    let topic = filled(&bench, 1, 40).await?;
    let partition = TopicPartition::new(topic.clone(), 0);
    let mut consumer =
        bench.subscriber_with("g", &topic, Properties::new().set("max.poll.records", 7)).await?;
    let mut offsets: Vec<Offset> = Vec::new();
    let deadline = bench.context().now() + Duration::from_secs(60);
    while offsets.len() < 40 && bench.context().now() < deadline {
        let records = bench.poll_once(&mut *consumer, Duration::from_millis(200)).await?;
        ensure!(records.len() <= 7, "a poll gave {} records", records.len());
        offsets.extend(records.iter().map(|record| record.offset));
        if let Some(last) = offsets.last() {
            let position = consumer.position(&partition);
            ensure!(position == Some(last + 1), "polled up to {last}, its position is {position:?}");
        }
    }
    ensure!(offsets == (0..40).collect::<Vec<_>>(), "the polls together gave {offsets:?}");
    Ok(consumer.close().await?)
}

async fn a_record_above_the_fetch_limit_is_read(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    let producer = bench.producer().await?;
    for value in ["a", "b"] {
        bench.send_all(&*producer, &topic, "k", [value.repeat(20_000)]).await?;
    }
    // The first batch comes whatever its size (KIP-74), or a reader could never go on.
    let limit = Properties::new().set("max.partition.fetch.bytes", 1_000);
    let mut consumer = bench.subscriber_with("g", &topic, limit).await?;
    let got = bench.poll_count(&mut *consumer, 2).await?;
    let sizes: Vec<_> = got.iter().map(|record| record.value.as_ref().map_or(0, bytes::Bytes::len)).collect();
    ensure!(sizes == [20_000, 20_000], "records of {sizes:?} bytes came");
    Ok(consumer.close().await?)
}

async fn assigned_by_hand_there_is_no_group_to_join(bench: Bench) -> Result<(), Failure> {
    let topic = filled(&bench, 2, 40).await?;
    let partition = TopicPartition::new(topic.clone(), 1);
    let (mut one, mut other) = (bench.consumer("g").await?, bench.consumer("g").await?);
    let ends = bench.admin().await?.list_offsets(&[(partition.clone(), OffsetSpec::Latest)]).await?;
    let there = ends.first().map_or(0, |(_, end)| *end as usize);
    let mut counts = Vec::new();
    for consumer in [&mut one, &mut other] {
        consumer.assign(std::slice::from_ref(&partition)).await?;
        let mut got = bench.poll_count(&mut **consumer, there).await?;
        got.extend(bench.poll_for(&mut **consumer, Duration::from_secs(1)).await?);
        ensure!(got.iter().all(|record| record.partition == partition), "a record of another partition came");
        ensure!(consumer.group_metadata().generation_id == -1, "it joined: {:?}", consumer.group_metadata());
        counts.push(got.len());
    }
    ensure!(there > 0 && counts == [there, there], "two readers by hand read {counts:?} of {there} records");
    let refused = one.subscribe(std::slice::from_ref(&topic), Box::new(NoRebalanceListener)).await;
    ensure!(
        matches!(&refused, Err(error) if error.code == ErrorCode::InvalidState),
        "subscribed on top of an assignment by hand: {refused:?}"
    );
    one.close().await?;
    Ok(other.close().await?)
}

async fn committed_metadata_comes_back(bench: Bench) -> Result<(), Failure> {
    let topic = filled(&bench, 2, 20).await?;
    let partition = TopicPartition::new(topic.clone(), 0);
    let other = TopicPartition::new(topic.clone(), 1);
    let mut consumer = bench.subscriber("g", &topic).await?;
    bench.poll_count(&mut *consumer, 20).await?;
    let position = OffsetAndMetadata { offset: 3, leader_epoch: None, metadata: "why: test".into() };
    consumer.commit(&[(partition.clone(), position)]).await?;
    let got = consumer.committed(&[partition.clone(), other], Duration::from_secs(30)).await?;
    ensure!(
        got.len() == 1 && got[0].0 == partition && got[0].1.offset == 3 && got[0].1.metadata == "why: test",
        "committed came back as {got:?}"
    );
    Ok(consumer.close().await?)
}

async fn auto_commit_commits_what_was_polled(bench: Bench) -> Result<(), Failure> {
    let topic = filled(&bench, 1, 10).await?;
    let auto = Properties::new().set("enable.auto.commit", true).set("auto.commit.interval.ms", 500);
    let mut consumer = bench.subscriber_with("g", &topic, auto).await?;
    bench.poll_count(&mut *consumer, 10).await?;
    let partition = [TopicPartition::new(topic.clone(), 0)];
    let deadline = bench.context().now() + Duration::from_secs(30);
    loop {
        bench.poll_once(&mut *consumer, Duration::from_millis(200)).await?;
        let committed = consumer.committed(&partition, Duration::from_secs(30)).await?;
        if committed.first().is_some_and(|(_, position)| position.offset == 10) {
            break;
        }
        ensure!(bench.context().now() < deadline, "never committed by itself: {committed:?}");
    }
    Ok(consumer.close().await?)
}

async fn an_empty_topic_gives_an_empty_poll(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 3).await?;
    let mut consumer = bench.subscriber("g", &topic).await?;
    let deadline = bench.context().now() + Duration::from_secs(60);
    let mut got = Vec::new();
    while consumer.assignment().len() < 3 && bench.context().now() < deadline {
        got.extend(bench.poll_once(&mut *consumer, Duration::from_millis(200)).await?);
    }
    got.extend(bench.poll_for(&mut *consumer, Duration::from_secs(2)).await?);
    ensure!(got.is_empty(), "an empty topic gave {:?}", values(&got));
    ensure!(consumer.assignment().len() == 3, "assigned {:?}", consumer.assignment());
    Ok(consumer.close().await?)
}

async fn closing_while_busy_loses_nothing(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 2).await?;
    let producer = bench.producer().await?;
    let sending = {
        let (topic, producer, context) = (topic.clone(), producer.clone(), bench.context());
        bench.context().spawn("busy producer", async move {
            for value in numbered("v", 200) {
                producer.send(ProducerRecord::new(topic.clone(), value.clone(), value)).await?;
                context.sleep(Duration::from_millis(5)).await;
            }
            Ok::<_, crate::Error>(())
        })
    };
    let mut read = Vec::new();
    while read.len() < 200 {
        let mut consumer = bench.subscriber("g", &topic).await?;
        let records = bench.poll_count(&mut *consumer, 20.min(200 - read.len())).await?;
        bench.commit_all(&mut *consumer, &records).await?;
        read.extend(records.iter().map(|record| text(record.value.as_deref())));
        // More are being fetched right now; they were not given to anyone and must come to the next.
        consumer.close().await?;
    }
    match sending.await {
        Some(sent) => sent?,
        None => return Err(Failure("the producing task vanished".into())),
    }
    read.sort();
    let mut sent = numbered("v", 200);
    sent.sort();
    ensure!(read == sent, "over many closes read {} of 200, or some twice", read.len());
    Ok(())
}

async fn a_reset_of_error_reports_an_offset_out_of_range(bench: Bench) -> Result<(), Failure> {
    let topic = filled(&bench, 1, 5).await?;
    let partition = TopicPartition::new(topic, 0);
    let mut consumer = bench.consumer_with("g", Properties::new().set("auto.offset.reset", "error")).await?;
    consumer.assign(std::slice::from_ref(&partition)).await?;
    consumer.seek(&partition, 1_000)?;
    bench.out_of_range(&mut *consumer).await?;
    Ok(consumer.close().await?)
}

async fn a_reset_of_error_reads_on_where_it_is_told_to(bench: Bench) -> Result<(), Failure> {
    let topic = filled(&bench, 1, 5).await?;
    let partition = TopicPartition::new(topic, 0);
    let partitions = std::slice::from_ref(&partition);
    let mut consumer = bench.consumer_with("g", Properties::new().set("auto.offset.reset", "error")).await?;
    consumer.assign(partitions).await?;
    // Nothing is committed.
    bench.out_of_range(&mut *consumer).await?;
    consumer.seek(&partition, 2)?;
    let mut got = Vec::new();
    let deadline = bench.context().now() + PATIENCE;
    while got.len() < 3 {
        ensure!(bench.context().now() < deadline, "told to go on at 2 it read {got:?} within {PATIENCE:?}");
        match consumer.poll(Duration::from_secs(5)).await {
            Ok(more) => got.extend(values(&more)),
            // What was under way when it was told may still be reported.
            Err(error) if error.code == ErrorCode::OffsetOutOfRange && got.is_empty() => {
                bench.context().sleep(Duration::from_millis(100)).await;
            }
            Err(error) if error.code != ErrorCode::OffsetOutOfRange && !error.is_fatal() => {}
            Err(error) => return Err(Failure(format!("told to go on at 2 it says {error}"))),
        }
    }
    ensure!(got == ["v-2", "v-3", "v-4"], "told to go on at 2 it read {got:?}");
    consumer.seek(&partition, 1_000)?;
    bench.out_of_range(&mut *consumer).await?;
    consumer.pause(partitions);
    consumer.seek(&partition, 4)?;
    let paused = values(&bench.poll_for(&mut *consumer, Duration::from_secs(1)).await?);
    ensure!(paused.is_empty(), "paused it read {paused:?}");
    consumer.resume(partitions);
    let got = values(&bench.poll_count(&mut *consumer, 1).await?);
    ensure!(got == ["v-4"], "told to go on at 4 it read {got:?}");
    Ok(consumer.close().await?)
}

async fn an_offset_out_of_range_is_reset(bench: Bench) -> Result<(), Failure> {
    let topic = filled(&bench, 1, 5).await?;
    let partition = TopicPartition::new(topic, 0);
    let mut consumer = bench.consumer("g").await?;
    consumer.assign(std::slice::from_ref(&partition)).await?;
    consumer.seek(&partition, 1_000)?;
    let got = bench.poll_count(&mut *consumer, 5).await?;
    ensure!(got[0].offset == 0, "reset to the earliest it read from {}", got[0].offset);
    let after = Timestamp::from_millis(1);
    ensure!(got[0].timestamp > after, "a record without its time: {:?}", got[0].timestamp);
    Ok(consumer.close().await?)
}

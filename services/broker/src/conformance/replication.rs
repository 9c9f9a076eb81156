//! Replicas: what survives the loss of a broker, what is refused while too few are left, and what an unclean election
//! costs.
//!
//! At most one broker at a time is down for long, so that a cluster of three whose nodes are controllers too keeps its
//! quorum.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::bench::{numbered, values};
use super::{Bench, Failure, case_list, ensure};
use crate::{Consumer, NewTopic, ProducerRecord, Properties, TopicPartition};

case_list![
    what_all_replicas_acknowledged_survives_the_leader[RestartBroker],
    too_few_replicas_in_sync_refuse_a_careful_producer[RestartBroker],
    a_producer_waits_until_enough_replicas_are_in_sync[RestartBroker],
    what_too_few_replicas_hold_is_acknowledged_to_one_and_not_visible[RestartBroker],
    what_a_replica_in_sync_lacks_is_not_visible[RestartBroker],
    an_unclean_election_loses_what_only_the_dead_leader_had[RestartBroker],
    a_replica_that_comes_back_drops_what_its_leader_never_had[RestartBroker],
    a_reader_of_what_was_lost_goes_on_where_the_logs_part[RestartBroker],
    a_clean_election_waits_for_the_last_in_sync_replica[RestartBroker],
    a_retry_after_a_lost_answer_writes_twice_without_idempotence[RestartBroker],
    a_retry_after_a_lost_answer_writes_once_with_idempotence[RestartBroker],
    order_holds_with_five_requests_in_flight[RestartBroker],
];

/// A topic of one partition with so many replicas.
async fn replicated(
    bench: &Bench,
    replicas: i16,
    config: &[(&str, &str)],
) -> Result<(Arc<str>, Vec<i32>), Failure> {
    let name = bench.name("t");
    let config: BTreeMap<_, _> =
        config.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    let topic = NewTopic { replication_factor: Some(replicas), config, ..NewTopic::new(name.clone(), 1) };
    bench.create(topic).await?;
    let (admin, asked) = (&bench.admin().await?, name.as_str());
    bench
        .eventually("all replicas are in sync", async || {
            let described = admin.describe_topics(&[asked]).await?;
            Ok(described.first().is_some_and(|topic| topic.partitions[0].in_sync.len() == replicas as usize))
        })
        .await?;
    let described = admin.describe_topics(&[asked]).await?;
    Ok((name.into(), described[0].partitions[0].replicas.clone()))
}

async fn in_sync_are(bench: &Bench, topic: &Arc<str>, wanted: &[i32]) -> Result<(), Failure> {
    let admin = &bench.admin().await?;
    bench
        .eventually(&format!("{wanted:?} are in sync"), async || {
            let Ok(described) = admin.describe_topics(&[topic]).await else { return Ok(false) };
            let mut in_sync =
                described.first().map_or(Vec::new(), |topic| topic.partitions[0].in_sync.clone());
            in_sync.sort_unstable();
            Ok(in_sync == wanted)
        })
        .await
}

async fn leader_is(bench: &Bench, topic: &Arc<str>, wanted: Option<i32>) -> Result<(), Failure> {
    let admin = &bench.admin().await?;
    bench
        .eventually(&format!("the leader is {wanted:?}"), async || {
            let Ok(described) = admin.describe_topics(&[topic]).await else { return Ok(false) };
            Ok(described.first().is_some_and(|topic| topic.partitions[0].leader == wanted))
        })
        .await
}

async fn what_all_replicas_acknowledged_survives_the_leader(bench: Bench) -> Result<(), Failure> {
    let (topic, replicas) = replicated(&bench, 3, &[("min.insync.replicas", "2")]).await?;
    let producer = bench.producer().await?;
    bench.send_all(&*producer, &topic, "k", numbered("before", 50)).await?;
    bench.subject().kill_broker(replicas[0]).await?;
    // The send waits out the dead leader's session.
    bench.send_all(&*producer, &topic, "k", numbered("after", 50)).await?;
    let described = bench.admin().await?.describe_topics(&[&topic]).await?;
    let leader = described[0].partitions[0].leader;
    ensure!(leader != Some(replicas[0]), "another replica leads now, not {leader:?}");
    let mut consumer = bench.subscriber("g", &topic).await?;
    let got = bench.poll_count(&mut *consumer, 100).await?;
    let sent = [numbered("before", 50), numbered("after", 50)].concat();
    ensure!(values(&got) == sent, "read {:?}", values(&got));
    bench.subject().start_broker(replicas[0]).await?;
    let mut all = replicas.clone();
    all.sort_unstable();
    in_sync_are(&bench, &topic, &all).await?;
    Ok(consumer.close().await?)
}

async fn too_few_replicas_in_sync_refuse_a_careful_producer(bench: Bench) -> Result<(), Failure> {
    let (topic, replicas) = replicated(&bench, 2, &[("min.insync.replicas", "2")]).await?;
    let hasty = Properties::new().set("message.timeout.ms", 5_000).set("request.timeout.ms", 2_000);
    let producer = bench.producer_with(hasty.set("enable.idempotence", false)).await?;
    bench.send_all(&*bench.producer().await?, &topic, "k", ["before".into()]).await?;
    bench.subject().kill_broker(replicas[1]).await?;
    in_sync_are(&bench, &topic, &replicas[..1]).await?;
    // The leader may be the last to hear of it, and appends the first of these then. That one fails when its five seconds are over, and
    // by then the leader has heard.
    for value in ["first", "refused"] {
        let refused = producer.send(ProducerRecord::new(topic.clone(), "k", value)).await;
        ensure!(
            refused.is_err(),
            "one of two replicas is in sync, but `{value}` was acknowledged: {refused:?}"
        );
    }
    bench.subject().start_broker(replicas[1]).await?;
    let mut both = replicas.clone();
    both.sort_unstable();
    in_sync_are(&bench, &topic, &both).await?;
    let producer = bench.producer().await?;
    bench.send_all(&*producer, &topic, "k", ["after".into()]).await?;
    let mut consumer = bench.subscriber("g", &topic).await?;
    let mut got = Vec::new();
    while got.last().is_none_or(|last| last != "after") {
        got.extend(values(&bench.poll_count(&mut *consumer, 1).await?));
    }
    got.retain(|value| value != "first");
    ensure!(got == ["before", "after"], "read {got:?}");
    Ok(consumer.close().await?)
}

async fn a_producer_waits_until_enough_replicas_are_in_sync(bench: Bench) -> Result<(), Failure> {
    let (topic, replicas) = replicated(&bench, 2, &[("min.insync.replicas", "2")]).await?;
    let producer = bench.producer().await?;
    bench.send_all(&*producer, &topic, "k", ["before".into()]).await?;
    bench.subject().kill_broker(replicas[1]).await?;
    in_sync_are(&bench, &topic, &replicas[..1]).await?;
    // Refused again and again, until the other replica is back.
    let mut waiting = producer.send(ProducerRecord::new(topic.clone(), "k", "patient"));
    let early = bench.context().timeout(Duration::from_secs(1), &mut waiting).await;
    ensure!(early.is_err(), "one of two replicas is in sync, but the producer heard {early:?}");
    bench.subject().start_broker(replicas[1]).await?;
    let offset = waiting.await?.offset;
    ensure!(offset == Some(1), "it was written once, at 1, not at {offset:?}");
    Ok(())
}

async fn what_too_few_replicas_hold_is_acknowledged_to_one_and_not_visible(
    bench: Bench,
) -> Result<(), Failure> {
    let (topic, replicas) = replicated(&bench, 2, &[("min.insync.replicas", "2")]).await?;
    let careless = Properties::new().set("enable.idempotence", false).set("acks", 1);
    let producer = bench.producer_with(careless).await?;
    bench.send_all(&*bench.producer().await?, &topic, "k", ["before".into()]).await?;
    bench.subject().kill_broker(replicas[1]).await?;
    in_sync_are(&bench, &topic, &replicas[..1]).await?;
    bench.send_all(&*producer, &topic, "k", ["alone".into()]).await?;
    let mut consumer = bench.subscriber("g", &topic).await?;
    let mut got = values(&bench.poll_count(&mut *consumer, 1).await?);
    got.extend(values(&bench.poll_for(&mut *consumer, Duration::from_secs(3)).await?));
    ensure!(got == ["before"], "what too few replicas hold is not visible yet: {got:?}");
    bench.subject().start_broker(replicas[1]).await?;
    let rest = bench.poll_count(&mut *consumer, 1).await?;
    ensure!(values(&rest) == ["alone"], "read {:?}", values(&rest));
    Ok(consumer.close().await?)
}

async fn what_a_replica_in_sync_lacks_is_not_visible(bench: Bench) -> Result<(), Failure> {
    let (topic, replicas) = replicated(&bench, 2, &[("min.insync.replicas", "1")]).await?;
    let careless = Properties::new().set("enable.idempotence", false).set("acks", 1);
    let producer = bench.producer_with(careless).await?;
    bench.send_all(&*producer, &topic, "k", ["before".into()]).await?;
    // By hand: a group's coordinator may be the broker that dies.
    let all = Properties::new().set("isolation.level", "read_uncommitted");
    let mut consumer = bench.consumer_with("g", all).await?;
    consumer.assign(&[TopicPartition::new(topic.clone(), 0)]).await?;
    bench.poll_count(&mut *consumer, 1).await?;
    let killed = bench.context().now();
    bench.subject().kill_broker(replicas[1]).await?;
    // The dead replica is in sync until its session ends: 9 s after its last heartbeat, and they come every 2 s.
    bench.send_all(&*producer, &topic, "k", ["alone".into()]).await?;
    let early = bench.poll_for(&mut *consumer, Duration::from_secs(3)).await?;
    let in_time = bench.context().now().since(killed) < Duration::from_secs(6);
    ensure!(early.is_empty() || !in_time, "what a replica in sync lacks was read: {:?}", values(&early));
    let late = if early.is_empty() { bench.poll_count(&mut *consumer, 1).await? } else { early };
    ensure!(values(&late) == ["alone"], "read {:?}", values(&late));
    bench.subject().start_broker(replicas[1]).await?;
    Ok(consumer.close().await?)
}

/// One replica holds a record alone; then its broker dies and the other comes back. Gives the topic and its replicas, the
/// one that died first.
async fn divided(bench: &Bench, unclean: &str) -> Result<(Arc<str>, Vec<i32>), Failure> {
    let (topic, replicas, reader) = divided_before_a_reader(bench, unclean).await?;
    reader.close().await?;
    Ok((topic, replicas))
}

/// As [`divided`]; a reader has read the record too.
async fn divided_before_a_reader(
    bench: &Bench,
    unclean: &str,
) -> Result<(Arc<str>, Vec<i32>, Box<dyn Consumer>), Failure> {
    let (topic, replicas) =
        replicated(bench, 2, &[("unclean.leader.election.enable", unclean), ("min.insync.replicas", "1")])
            .await?;
    // What shows later that a broker serves again is made while all do.
    bench.brokers().await?;
    let producer = bench.producer().await?;
    bench.send_all(&*producer, &topic, "k", ["both".into()]).await?;
    bench.subject().kill_broker(replicas[1]).await?;
    in_sync_are(bench, &topic, &replicas[..1]).await?;
    bench.send_all(&*producer, &topic, "k", ["alone".into()]).await?;
    let mut reader = bench.consumer("reader").await?;
    reader.assign(&[TopicPartition::new(topic.clone(), 0)]).await?;
    let read = values(&bench.poll_count(&mut *reader, 2).await?);
    ensure!(read == ["both", "alone"], "before the election it read {read:?}");
    bench.subject().kill_broker(replicas[0]).await?;
    bench.subject().start_broker(replicas[1]).await?;
    bench.serving_again(replicas[1]).await?;
    Ok((topic, replicas, reader))
}

async fn an_unclean_election_loses_what_only_the_dead_leader_had(bench: Bench) -> Result<(), Failure> {
    let (topic, replicas) = divided(&bench, "true").await?;
    leader_is(&bench, &topic, Some(replicas[1])).await?;
    let producer = bench.producer().await?;
    bench.send_all(&*producer, &topic, "k", ["anew".into()]).await?;
    bench.subject().start_broker(replicas[0]).await?;
    bench.serving_again(replicas[0]).await?;
    let mut consumer = bench.subscriber("g", &topic).await?;
    let mut got = values(&bench.poll_count(&mut *consumer, 2).await?);
    got.extend(values(&bench.poll_for(&mut *consumer, Duration::from_secs(2)).await?));
    ensure!(got == ["both", "anew"], "the record that only the dead leader had is gone: {got:?}");
    Ok(consumer.close().await?)
}

async fn a_replica_that_comes_back_drops_what_its_leader_never_had(bench: Bench) -> Result<(), Failure> {
    let (topic, replicas) = divided(&bench, "true").await?;
    leader_is(&bench, &topic, Some(replicas[1])).await?;
    let producer = bench.producer().await?;
    bench.send_all(&*producer, &topic, "k", ["anew".into()]).await?;
    bench.subject().start_broker(replicas[0]).await?;
    let mut both = replicas.clone();
    both.sort_unstable();
    in_sync_are(&bench, &topic, &both).await?;
    // Now it leads, with what it has.
    bench.subject().kill_broker(replicas[1]).await?;
    leader_is(&bench, &topic, Some(replicas[0])).await?;
    let mut consumer = bench.consumer("g").await?;
    consumer.assign(&[TopicPartition::new(topic.clone(), 0)]).await?;
    let mut got = values(&bench.poll_count(&mut *consumer, 2).await?);
    got.extend(values(&bench.poll_for(&mut *consumer, Duration::from_secs(2)).await?));
    ensure!(got == ["both", "anew"], "it has what its leader had, and no more: {got:?}");
    bench.subject().start_broker(replicas[1]).await?;
    bench.serving_again(replicas[1]).await?;
    Ok(consumer.close().await?)
}

async fn a_reader_of_what_was_lost_goes_on_where_the_logs_part(bench: Bench) -> Result<(), Failure> {
    let (topic, replicas, mut reader) = divided_before_a_reader(&bench, "true").await?;
    leader_is(&bench, &topic, Some(replicas[1])).await?;
    let producer = bench.producer().await?;
    bench.send_all(&*producer, &topic, "k", ["anew".into(), "more".into()]).await?;
    // Its next offset, 2, is there; what is before it is not what it has read (KIP-320).
    let got = bench.poll_count(&mut *reader, 2).await?;
    ensure!(values(&got) == ["anew", "more"], "it goes on where the logs part, but read {:?}", values(&got));
    bench.subject().start_broker(replicas[0]).await?;
    bench.serving_again(replicas[0]).await?;
    Ok(reader.close().await?)
}

async fn a_clean_election_waits_for_the_last_in_sync_replica(bench: Bench) -> Result<(), Failure> {
    let (topic, replicas) = divided(&bench, "false").await?;
    leader_is(&bench, &topic, None).await?;
    bench.subject().start_broker(replicas[0]).await?;
    leader_is(&bench, &topic, Some(replicas[0])).await?;
    let mut consumer = bench.subscriber("g", &topic).await?;
    let got = bench.poll_count(&mut *consumer, 2).await?;
    ensure!(values(&got) == ["both", "alone"], "read {:?}", values(&got));
    Ok(consumer.close().await?)
}

/// The follower dies; until its session is over `acks=all` waits, the request times out, and the client sends again what
/// the leader has already appended.
async fn retried_after_append(bench: &Bench, idempotence: bool) -> Result<Vec<String>, Failure> {
    let (topic, replicas) = replicated(bench, 2, &[("min.insync.replicas", "1")]).await?;
    bench.brokers().await?;
    let more = Properties::new()
        .set("enable.idempotence", idempotence)
        .set("acks", "all")
        .set("request.timeout.ms", 2_000)
        .set("socket.timeout.ms", 3_000);
    let producer = bench.producer_with(more).await?;
    bench.send_all(&*producer, &topic, "k", ["before".into()]).await?;
    bench.subject().kill_broker(replicas[1]).await?;
    bench.send_all(&*producer, &topic, "k", ["retried".into()]).await?;
    let mut consumer = bench.subscriber("g", &topic).await?;
    let mut got = values(&bench.poll_count(&mut *consumer, 2).await?);
    got.extend(values(&bench.poll_for(&mut *consumer, Duration::from_secs(2)).await?));
    bench.subject().start_broker(replicas[1]).await?;
    bench.serving_again(replicas[1]).await?;
    consumer.close().await?;
    Ok(got)
}

async fn a_retry_after_a_lost_answer_writes_twice_without_idempotence(bench: Bench) -> Result<(), Failure> {
    let got = retried_after_append(&bench, false).await?;
    ensure!(
        got.len() > 2 && got[1..].iter().all(|value| value == "retried"),
        "a duplicate was written: {got:?}"
    );
    Ok(())
}

async fn a_retry_after_a_lost_answer_writes_once_with_idempotence(bench: Bench) -> Result<(), Failure> {
    let got = retried_after_append(&bench, true).await?;
    ensure!(got == ["before", "retried"], "read {got:?}");
    Ok(())
}

async fn order_holds_with_five_requests_in_flight(bench: Bench) -> Result<(), Failure> {
    let (topic, replicas) = replicated(&bench, 3, &[("min.insync.replicas", "2")]).await?;
    // One record a request, so that the leader dies with five requests on their way.
    let more = Properties::new().set("max.in.flight.requests.per.connection", 5).set("batch.num.messages", 1);
    let producer = bench.producer_with(more).await?;
    bench.send_all(&*producer, &topic, "k", ["first".into()]).await?;
    let deliveries: Vec<_> = numbered("v", 300)
        .into_iter()
        .map(|value| producer.send(ProducerRecord::new(topic.clone(), "k", value)))
        .collect();
    bench.context().sleep(Duration::from_millis(20)).await;
    bench.subject().kill_broker(replicas[0]).await?;
    for delivery in deliveries {
        delivery.await?;
    }
    let mut consumer = bench.subscriber("g", &topic).await?;
    let mut got = values(&bench.poll_count(&mut *consumer, 301).await?);
    got.extend(values(&bench.poll_for(&mut *consumer, Duration::from_secs(1)).await?));
    let expected = [vec!["first".to_owned()], numbered("v", 300)].concat();
    ensure!(got == expected, "once and in order: {got:?}");
    bench.subject().start_broker(replicas[0]).await?;
    Ok(consumer.close().await?)
}

//! Producers and consumers together: when brokers come, go and come again, and when nothing happens.

use std::time::Duration;

use broker::{Broker as _, OffsetAndMetadata, Properties, TopicPartition};
use kafka::ClusterConfig;
use world::Change;

use crate::SEEDS;
use crate::bed::{Bed, CLIENT, Desk, Slot, assigned, elapsed, record, values};

#[test]
fn a_rolling_restart_of_all_brokers_costs_neither_records_nor_order() {
    for seed in SEEDS {
        rolling_restart(seed);
    }
}

fn rolling_restart(seed: u64) {
    let (progress, stop) = (Slot::<usize>::default(), Slot::<bool>::default());
    let mut bed = {
        let (progress, stop) = (progress.clone(), stop.clone());
        Bed::new(3, seed, move |desk: Desk| {
            let (progress, stop) = (progress.clone(), stop.clone());
            async move {
                desk.topic("t", 6).await;
                let producer = desk.producer(&[("enable.idempotence", "true")]).await;
                let context = desk.context.clone();
                let sending = desk.context.spawn("sending", async move {
                    let mut deliveries = Vec::new();
                    let mut number = 0;
                    while !stop.get() {
                        for key in 0..10 {
                            let record =
                                broker::ProducerRecord::new("t", format!("{key}"), format!("{number}"));
                            deliveries.push(producer.send(record));
                        }
                        number += 1;
                        context.sleep(Duration::from_millis(50)).await;
                    }
                    for delivery in deliveries {
                        delivery.await.expect("every record is acknowledged in the end");
                    }
                    number
                });
                let mut consumer = desk.subscriber("t", &[]).await;
                let mut next: std::collections::BTreeMap<String, usize> = Default::default();
                let mut sent = None;
                let mut sending = Some(sending);
                loop {
                    match consumer.poll(Duration::from_millis(200)).await {
                        Ok(records) => {
                            for record in &records {
                                let text = |bytes: &Option<bytes::Bytes>| {
                                    String::from_utf8(bytes.clone().expect("set").to_vec()).expect("text")
                                };
                                let number: usize = text(&record.value).parse().expect("a number");
                                let expected = next.entry(text(&record.key)).or_default();
                                // Read again after a rebalance is at least once; a step forward must be to the next.
                                assert!(
                                    number <= *expected,
                                    "key {:?}: {number} after {expected}",
                                    record.key
                                );
                                *expected = (*expected).max(number + 1);
                            }
                            let positions: Vec<_> = consumer
                                .assignment()
                                .into_iter()
                                .filter_map(|at| {
                                    Some((at.clone(), OffsetAndMetadata::new(consumer.position(&at)?)))
                                })
                                .collect();
                            if !records.is_empty() {
                                // A commit may fail while its coordinator is away; the next one covers it.
                                consumer.commit(&positions).await.ok();
                            }
                            progress.set(next.values().copied().min().unwrap_or(0));
                        }
                        Err(error) => assert!(error.is_retriable(), "{error}"),
                    }
                    if desk.context.now().since(world::EPOCH) > Duration::from_secs(100)
                        && let Some(sending) = sending.take()
                    {
                        sent = sending.await;
                    }
                    if sent.is_some_and(|sent| next.len() == 10 && next.values().all(|next| *next == sent)) {
                        break;
                    }
                }
                consumer.close().await.expect("it leaves");
            }
        })
    };
    bed.run_until("records flow", || progress.get() > 20);
    for broker in ["broker-1", "broker-2", "broker-3"] {
        bed.change(&[Change::Kill { host: broker.into() }, Change::Restart { host: broker.into() }]);
        bed.run_for(Duration::from_secs(25));
    }
    stop.set(true);
    bed.finish();
}

#[test]
fn a_client_that_starts_before_its_brokers_waits_for_them() {
    let done_at = Slot::<Duration>::default();
    let mut bed = {
        let done_at = done_at.clone();
        Bed::new(1, 29, move |desk: Desk| {
            let done_at = done_at.clone();
            async move {
                let producer = desk.producer(&[]).await;
                let delivery = producer.send(record("later", "x"));
                let mut consumer = desk.subscriber("later", &[]).await;
                // The producer's question for the topic creates it (`auto.create.topics.enable`).
                delivery.await.expect("it waited for the broker");
                loop {
                    match consumer.poll(Duration::from_millis(200)).await {
                        Ok(records) if records.is_empty() => {}
                        Ok(records) => break assert_eq!(values(&records), ["x"]),
                        Err(error) => assert!(error.is_retriable(), "{error}"),
                    }
                }
                done_at.set(elapsed(desk.context.now()));
            }
        })
    };
    bed.change(&[Change::Hold { from: CLIENT.into(), to: "broker-1".into() }]);
    bed.run_for(Duration::from_secs(2));
    bed.change(&[Change::Release { from: CLIENT.into(), to: "broker-1".into() }]);
    bed.finish();
    assert!(done_at.get() < Duration::from_secs(30), "it took {:?}", done_at.get());
}

#[test]
fn a_consumer_reads_from_the_follower_in_its_rack_and_from_the_leader_when_that_is_gone() {
    let selector = "org.apache.kafka.common.replica.RackAwareReplicaSelector";
    let config = (1..=3).fold(ClusterConfig::simulated(3), |config, node| {
        config.with(format!("{node}:broker.rack"), format!("rack-{node}"))
    });
    let config = config.with("replica.selector.class", selector).with("default.replication.factor", 3);
    // Leader and follower; how far the test is; what the consumer was given.
    let (nodes, stage, read) =
        (Slot::<Option<(i32, i32)>>::default(), Slot::<u32>::default(), Slot::<Vec<String>>::default());
    let mut bed = {
        let (nodes, stage, read) = (nodes.clone(), stage.clone(), read.clone());
        Bed::with(config, 3, move |desk: Desk| {
            let (nodes, stage, read) = (nodes.clone(), stage.clone(), read.clone());
            async move {
                desk.topic("t", 1).await;
                let producer = desk.producer(&[("linger.ms", "0")]).await;
                producer.send(record("t", "a")).await.expect("all is well");
                let admin = desk.broker.admin(&Properties::new()).await.expect("sound properties");
                let topics = admin.describe_topics(&["t"]).await.expect("it is there");
                let partition = &topics[0].partitions[0];
                let leader = partition.leader.expect("all live");
                let follower =
                    *partition.replicas.iter().find(|node| **node != leader).expect("three replicas");
                let rack = format!("rack-{follower}");
                let mut consumer = desk.consumer(&[("client.rack", rack.as_str())]).await;
                consumer.assign(&[TopicPartition::new("t", 0)]).await.expect("it is not subscribed");
                let mut sent = Vec::new();
                loop {
                    let records = consumer.poll(Duration::from_millis(100)).await.expect("it reads");
                    read.change(|read| read.extend(values(&records)));
                    nodes.set(Some((leader, follower)));
                    match (stage.get(), sent.len()) {
                        (1, 0) => sent.push(producer.send(record("t", "b"))),
                        (2, 1) => sent.push(producer.send(record("t", "c"))),
                        (3, _) => return,
                        _ => {}
                    }
                }
            }
        })
    };
    bed.run_until("the first is read", || read.get() == ["a"]);
    bed.run_for(Duration::from_secs(2));
    let (leader, follower) = nodes.get().expect("they are known");
    let [leader, follower] = [leader, follower].map(|node| format!("broker-{node}"));
    // What the leader says does not arrive; what is read is from the follower then.
    bed.change(&[Change::Hold { from: leader.clone(), to: CLIENT.into() }]);
    stage.set(1);
    bed.run_until("the second is read", || read.get() == ["a", "b"]);
    bed.change(&[Change::Release { from: leader, to: CLIENT.into() }, Change::Kill { host: follower }]);
    stage.set(2);
    bed.run_until("the third is read", || read.get() == ["a", "b", "c"]);
    stage.set(3);
    bed.finish();
}

#[test]
fn an_idle_consumer_wakes_for_its_long_polls_and_heartbeats_only() {
    let settled = Slot::<bool>::default();
    let mut bed = {
        let settled = settled.clone();
        Bed::new(1, 19, move |desk: Desk| {
            let settled = settled.clone();
            async move {
                desk.topic("t", 3).await;
                let mut consumer = desk.subscriber("t", &[("heartbeat.interval.ms", "3000")]).await;
                assigned(&mut consumer).await;
                settled.set(true);
                consumer.poll(Duration::from_secs(70)).await.expect("all is well");
            }
        })
    };
    bed.run_until("it has its partitions", || settled.get());
    bed.run_for(Duration::from_secs(5));
    let before = bed.counts.so_far();
    bed.run_for(Duration::from_secs(60));
    let after = bed.counts.so_far();
    // Twenty heartbeats; up to 120 long polls of 500 ms and as many heartbeats' answers.
    let (timers, frames) = (after.0 - before.0, after.1 - before.1);
    assert!(timers <= 25, "{timers} timers fired in a minute");
    assert!(frames <= 2 * 150, "{frames} frames arrived in a minute");
}

#[test]
fn clients_that_are_dropped_stop() {
    let dropped = Slot::<bool>::default();
    let mut bed = {
        let dropped = dropped.clone();
        Bed::new(2, 23, move |desk: Desk| {
            let dropped = dropped.clone();
            async move {
                desk.topic("t", 3).await;
                let producer = desk.producer(&[("enable.idempotence", "true")]).await;
                producer.send(record("t", "x")).await.expect("all is well");
                let mut consumer = desk.subscriber("t", &[("enable.auto.commit", "true")]).await;
                while consumer.poll(Duration::from_millis(100)).await.expect("all is well").is_empty() {}
                drop((producer, consumer, desk));
                dropped.set(true);
            }
        })
    };
    bed.run_until("everything is dropped", || dropped.get());
    bed.run_for(Duration::from_secs(1));
    let before = bed.counts.so_far();
    bed.run_for(Duration::from_secs(60));
    assert_eq!(bed.counts.so_far(), before, "something goes on after the clients are gone");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    fn hash(seed: u64) -> u64 {
        let mut bed = Bed::new(3, seed, move |desk: Desk| async move {
            desk.topic("t", 6).await;
            let producer = desk.producer(&[]).await;
            for number in 0..50 {
                producer.send(record("t", format!("{number}"))).await.expect("all is well");
            }
            let mut consumer = desk.subscriber("t", &[]).await;
            let mut read = 0;
            while read < 50 {
                read += consumer.poll(Duration::from_millis(100)).await.expect("all is well").len();
            }
            consumer.close().await.expect("it leaves");
        });
        bed.finish();
        bed.counts.hash()
    }
    assert_eq!(hash(3), hash(3));
    assert_ne!(hash(3), hash(4), "the seed decides latencies, so it must show");
}

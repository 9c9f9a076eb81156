//! The client in the simulated world: what it does when links are cut, brokers die, and its own host stands still.

mod bed;

use std::time::Duration;

use bed::{Bed, CLIENT, Desk, Slot, elapsed, record, values};
use broker::{Broker as _, ErrorCode, OffsetAndMetadata, Properties, RebalanceListener, TopicPartition};
use kafka::ClusterConfig;
use world::Change;

/// The seeds of claims in which the moment matters.
const SEEDS: std::ops::Range<u64> = 0..5;

/// What a listener heard, in order.
#[derive(Clone, Default)]
struct Heard(Slot<Vec<String>>);

impl RebalanceListener for Heard {
    fn assigned(&mut self, partitions: &[TopicPartition]) {
        self.0.change(|heard| heard.push(format!("assigned {partitions:?}")));
    }

    fn revoked(&mut self, partitions: &[TopicPartition]) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        self.0.change(|heard| heard.push(format!("revoked {partitions:?}")));
        Vec::new()
    }

    fn lost(&mut self, partitions: &[TopicPartition]) {
        self.0.change(|heard| heard.push(format!("lost {partitions:?}")));
    }
}

/// A producer sends three records while the answers are held, gives each request up after a second, and sends again
/// when the answers flow. Gives what the log holds at the end.
fn with_lost_answers(properties: &'static [(&'static str, &'static str)]) -> Vec<String> {
    let (ready, log) = (Slot::<bool>::default(), Slot::<Vec<String>>::default());
    let mut bed = {
        let (ready, log) = (ready.clone(), log.clone());
        Bed::new(1, 5, move |desk: Desk| {
            let (ready, log) = (ready.clone(), log.clone());
            async move {
                desk.topic("t", 1).await;
                let producer = desk.producer(properties).await;
                producer.send(record("t", "warm")).await.expect("all is well");
                ready.set(true);
                // Until the test holds the link.
                while ready.get() {
                    desk.context.sleep(Duration::from_millis(1)).await;
                }
                let deliveries = ["a", "b", "c"].map(|value| producer.send(record("t", value)));
                for delivery in deliveries {
                    delivery.await.expect("it arrives in the end");
                }
                log.set(values(&desk.all("t").await));
            }
        })
    };
    bed.run_until("the producer is warm", || ready.get());
    bed.hold_answers();
    ready.set(false);
    bed.run_for(Duration::from_secs(3));
    bed.release_answers();
    bed.finish();
    log.get()
}

#[test]
fn a_lost_answer_and_a_retry_write_twice_without_idempotence() {
    let log = with_lost_answers(&[("linger.ms", "0"), ("socket.timeout.ms", "1000")]);
    assert_eq!(log, ["warm", "a", "b", "c", "a", "b", "c"]);
}

#[test]
fn a_lost_answer_and_a_retry_write_once_with_idempotence() {
    let log = with_lost_answers(&[
        ("linger.ms", "0"),
        ("socket.timeout.ms", "1000"),
        ("enable.idempotence", "true"),
    ]);
    assert_eq!(log, ["warm", "a", "b", "c"]);
}

/// The answer to a commit is held for longer than the client waits for it: it closes the connection and asks again.
fn with_a_lost_commit(habits: &'static str) -> (Vec<String>, Duration) {
    let (ready, end) = (Slot::<bool>::default(), Slot::<Option<(Vec<String>, Duration)>>::default());
    let mut bed = {
        let (ready, end) = (ready.clone(), end.clone());
        Bed::new(3, 5, move |desk: Desk| {
            let (ready, end) = (ready.clone(), end.clone());
            async move {
                desk.topic("t", 1).await;
                let properties = [
                    ("shakedown.client.habits", habits),
                    ("transactional.id", "id"),
                    ("linger.ms", "0"),
                    ("socket.timeout.ms", "1000"),
                ];
                let producer = desk.producer(&properties).await;
                let patience = Duration::from_secs(60);
                producer.init_transactions(patience).await.expect("registered");
                producer.begin_transaction().await.expect("begun");
                producer.send(record("t", "a")).await.expect("sent");
                ready.set(true);
                while ready.get() {
                    desk.context.sleep(Duration::from_millis(1)).await;
                }
                let asked_at = desk.context.now();
                producer.commit_transaction(patience).await.expect("committed in the end");
                let took = desk.context.now().since(asked_at);
                producer.begin_transaction().await.expect("it goes on");
                producer.send(record("t", "b")).await.expect("sent");
                producer.abort_transaction(patience).await.expect("aborted");
                let mut seen = Vec::new();
                while seen.is_empty() {
                    seen = values(&desk.all("t").await);
                }
                end.set(Some((seen, took)));
            }
        })
    };
    bed.run_until("the transaction is open", || ready.get());
    bed.hold_answers();
    ready.set(false);
    bed.run_for(Duration::from_millis(2_500));
    bed.release_answers();
    bed.finish();
    end.get().expect("it was set")
}

#[test]
fn a_commit_whose_answer_is_lost_is_asked_again_and_happens_once() {
    for habits in ["librdkafka", "java"] {
        let (seen, took) = with_a_lost_commit(habits);
        assert_eq!(seen, ["a"], "{habits}");
        assert!(took >= Duration::from_millis(2_500), "{habits}: {took:?}");
    }
}

#[test]
fn compressed_records_come_back() {
    for codec in ["gzip", "snappy", "lz4", "zstd"] {
        let seen = Slot::<Vec<String>>::default();
        let log = seen.clone();
        let mut bed = Bed::new(1, 5, move |desk: Desk| {
            let log = log.clone();
            async move {
                desk.topic("t", 1).await;
                let producer = desk.producer(&[("compression.type", codec), ("linger.ms", "20")]).await;
                let sent: Vec<_> = (0..50).map(|_| producer.send(record("t", "the same again"))).collect();
                for delivery in sent {
                    delivery.await.expect("sent");
                }
                log.set(values(&desk.all("t").await));
            }
        });
        bed.finish();
        assert_eq!(seen.get(), vec!["the same again"; 50], "{codec}");
    }
}

#[test]
fn a_record_whose_time_runs_out_is_reported_while_the_link_is_cut() {
    let (ready, took) = (Slot::<bool>::default(), Slot::<Option<Duration>>::default());
    let mut bed = {
        let (ready, took) = (ready.clone(), took.clone());
        Bed::new(1, 5, move |desk: Desk| {
            let (ready, took) = (ready.clone(), took.clone());
            async move {
                desk.topic("t", 1).await;
                let producer = desk.producer(&[("delivery.timeout.ms", "2000"), ("linger.ms", "0")]).await;
                producer.send(record("t", "warm")).await.expect("all is well");
                ready.set(true);
                while ready.get() {
                    desk.context.sleep(Duration::from_millis(1)).await;
                }
                let sent_at = desk.context.now();
                let fate = producer.send(record("t", "late")).await;
                assert_eq!(fate.expect_err("nobody answers").code, ErrorCode::MessageTimedOut);
                took.set(Some(desk.context.now().since(sent_at)));
            }
        })
    };
    bed.run_until("the producer is warm", || ready.get());
    bed.hold_answers();
    ready.set(false);
    bed.finish();
    let took = took.get().expect("it was set");
    assert!((2_000..2_200).contains(&took.as_millis()), "{took:?} instead of 2 s");
}

#[test]
fn an_idempotent_producer_keeps_order_and_number_through_kills_of_its_broker() {
    for seed in SEEDS {
        through_kills(seed);
    }
}

fn through_kills(seed: u64) {
    let (progress, log) = (Slot::<usize>::default(), Slot::<Vec<String>>::default());
    let mut bed = {
        let (progress, log) = (progress.clone(), log.clone());
        Bed::new(1, seed, move |desk: Desk| {
            let (progress, log) = (progress.clone(), log.clone());
            async move {
                desk.topic("t", 1).await;
                let producer = desk.producer(&[("enable.idempotence", "true"), ("linger.ms", "0")]).await;
                let mut deliveries = Vec::new();
                for number in 0..300 {
                    deliveries.push(producer.send(record("t", format!("{number}"))));
                    progress.set(number);
                    desk.context.sleep(Duration::from_millis(2)).await;
                }
                for delivery in deliveries {
                    delivery.await.expect("a restart of the broker costs no record");
                }
                log.set(values(&desk.all("t").await));
            }
        })
    };
    for at in [40, 200] {
        bed.run_until("the producer gets so far", || progress.get() >= at);
        bed.change(&[Change::Kill { host: "broker-1".into() }, Change::Restart { host: "broker-1".into() }]);
    }
    bed.finish();
    let expected: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    assert_eq!(log.get(), expected);
}

#[test]
fn after_a_record_ran_out_of_time_an_idempotent_producer_goes_on() {
    let (ready, log) = (Slot::<bool>::default(), Slot::<Vec<String>>::default());
    let mut bed = {
        let (ready, log) = (ready.clone(), log.clone());
        Bed::new(1, 7, move |desk: Desk| {
            let (ready, log) = (ready.clone(), log.clone());
            async move {
                desk.topic("t", 1).await;
                let producer = desk
                    .producer(&[
                        ("enable.idempotence", "true"),
                        ("delivery.timeout.ms", "1000"),
                        ("linger.ms", "0"),
                    ])
                    .await;
                producer.send(record("t", "warm")).await.expect("all is well");
                ready.set(true);
                while ready.get() {
                    desk.context.sleep(Duration::from_millis(1)).await;
                }
                let fate = producer.send(record("t", "unanswered")).await;
                assert_eq!(fate.expect_err("nobody answers").code, ErrorCode::MessageTimedOut);
                ready.set(true);
                // Those sent during the cut run out of time too; the first after it must get through.
                while producer.send(record("t", "next")).await.is_err() {}
                log.set(values(&desk.all("t").await));
            }
        })
    };
    bed.run_until("the producer is warm", || ready.get());
    bed.hold_answers();
    ready.set(false);
    bed.run_until("the record ran out of time", || ready.get());
    bed.release_answers();
    bed.finish();
    assert_eq!(
        log.get(),
        ["warm", "unanswered", "next"],
        "its sequence is a gap that the next epoch steps over"
    );
}

/// The epochs of a producer before and after it aborted a transaction in which a record ran out of time before it was
/// sent: its partition could not be registered, because no answer came.
fn epochs_around_an_unsent_record_that_ran_out_of_time() -> (i16, i16) {
    let (ready, epochs) = (Slot::<bool>::default(), Slot::<(i16, i16)>::default());
    let mut bed = {
        let (ready, epochs) = (ready.clone(), epochs.clone());
        Bed::new(1, 7, move |desk: Desk| {
            let (ready, epochs) = (ready.clone(), epochs.clone());
            async move {
                desk.topic("t", 1).await;
                let properties =
                    [("transactional.id", "id"), ("delivery.timeout.ms", "1000"), ("linger.ms", "0")];
                let producer = desk.producer(&properties).await;
                let admin = desk.broker.admin(&Properties::new()).await.expect("sound properties");
                let patience = Duration::from_secs(60);
                producer.init_transactions(patience).await.expect("registered");
                producer.begin_transaction().await.expect("begun");
                producer.send(record("t", "warm")).await.expect("all is well");
                producer.commit_transaction(patience).await.expect("committed");
                let before = admin.describe_transactions(&["id"]).await.expect("it is known");
                producer.begin_transaction().await.expect("begun");
                ready.set(true);
                while ready.get() {
                    desk.context.sleep(Duration::from_millis(1)).await;
                }
                let fate = producer.send(record("t", "unsent")).await;
                assert_eq!(fate.expect_err("nobody answers").code, ErrorCode::MessageTimedOut);
                ready.set(true);
                let error = producer.commit_transaction(patience).await.expect_err("a record is missing");
                assert_eq!(error.class, broker::ErrorClass::Abortable, "{error}");
                producer.abort_transaction(patience).await.expect("aborted");
                let after = admin.describe_transactions(&["id"]).await.expect("it is known");
                epochs.set((before[0].producer_epoch, after[0].producer_epoch));
            }
        })
    };
    bed.run_until("the producer is registered", || ready.get());
    bed.hold_answers();
    ready.set(false);
    bed.run_until("the record ran out of time", || ready.get());
    bed.release_answers();
    bed.finish();
    epochs.get()
}

#[test]
fn a_record_that_ran_out_of_time_unsent_costs_librdkafkas_transaction_its_epoch() {
    let (before, after) = epochs_around_an_unsent_record_that_ran_out_of_time();
    assert_eq!(after, before + 1);
}

#[test]
fn without_acknowledgements_a_record_is_sent_and_its_offset_unknown() {
    let mut bed = Bed::new(1, 7, move |desk: Desk| async move {
        desk.topic("t", 1).await;
        let producer = desk.producer(&[("acks", "0")]).await;
        let metadata = producer.send(record("t", "x")).await.expect("it is on its way");
        assert_eq!(metadata.offset, None);
        let mut consumer = desk.subscriber("t", &[]).await;
        while consumer.poll(Duration::from_millis(100)).await.expect("all is well").is_empty() {}
        consumer.close().await.expect("it leaves");
    });
    bed.finish();
}

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
fn a_member_whose_host_stood_still_loses_its_partitions_and_cannot_commit_for_them() {
    let (read, resumed, heard) = (Slot::<usize>::default(), Slot::<bool>::default(), Heard::default());
    let mut bed = {
        let (read, resumed, heard) = (read.clone(), resumed.clone(), heard.clone());
        Bed::new(1, 11, move |desk: Desk| {
            let (read, resumed, heard) = (read.clone(), resumed.clone(), heard.clone());
            async move {
                desk.topic("t", 1).await;
                let producer = desk.producer(&[]).await;
                producer.send(record("t", "x")).await.expect("all is well");
                let mut consumer = desk.listening("t", &[], Box::new(heard)).await;
                let mut records = Vec::new();
                while records.is_empty() {
                    records = consumer.poll(Duration::from_millis(100)).await.expect("all is well");
                }
                let zombie = consumer.group_metadata();
                read.set(records.len());
                // The host stands still here, for longer than the session.
                while !resumed.get() {
                    desk.context.sleep(Duration::from_millis(1)).await;
                }
                let at = records[0].partition.clone();
                let refused = consumer.commit(&[(at, OffsetAndMetadata::new(1))]).await;
                assert!(
                    matches!(refused, Err(ref error) if error.code == ErrorCode::Broker(25)),
                    "a zombie's commit: {refused:?}"
                );
                // It joins again and reads what it could not commit.
                let mut again = Vec::new();
                while again.is_empty() {
                    again = consumer.poll(Duration::from_millis(100)).await.expect("all is well");
                }
                assert_eq!(again[0].offset, 0);
                assert!(consumer.group_metadata().member_id != zombie.member_id);
                consumer.close().await.expect("it leaves");
            }
        })
    };
    bed.run_until("the member reads", || read.get() > 0);
    bed.change(&[Change::Pause { host: CLIENT.into() }]);
    bed.run_for(Duration::from_secs(10));
    resumed.set(true);
    bed.change(&[Change::Resume { host: CLIENT.into() }]);
    bed.finish();
    assert_eq!(
        heard.0.get(),
        ["assigned [t/0]", "lost [t/0]", "assigned [t/0]", "revoked [t/0]"],
        "what was lost is not revoked"
    );
}

#[test]
fn a_member_whose_group_is_no_more_learns_it_from_a_commit_and_joins_again() {
    let heard = Heard::default();
    let mut bed = {
        let heard = heard.clone();
        Bed::new(1, 12, move |desk: Desk| {
            let heard = heard.clone();
            async move {
                desk.topic("t", 1).await;
                let slow = [("session.timeout.ms", "45000"), ("heartbeat.interval.ms", "30000")];
                let mut consumer = desk.listening("t", &slow, Box::new(heard.clone())).await;
                while consumer.assignment().is_empty() {
                    consumer.poll(Duration::from_millis(100)).await.expect("all is well");
                }
                let admin = desk.broker.admin(&Properties::new()).await.expect("sound properties");
                admin.delete_topics(&["__consumer_offsets"]).await.expect("it is there");
                let at = TopicPartition::new("t", 0);
                let refused = consumer.commit(&[(at, OffsetAndMetadata::new(0))]).await;
                assert!(
                    matches!(refused, Err(ref error) if error.code == ErrorCode::Broker(22)),
                    "nobody knows the group: {refused:?}"
                );
                let since = desk.context.now();
                while heard.0.get().len() < 3 {
                    consumer.poll(Duration::from_millis(100)).await.expect("all is well");
                }
                let took = desk.context.now().since(since);
                assert!(took < Duration::from_secs(10), "it waited {took:?} for a heartbeat to tell");
            }
        })
    };
    bed.finish();
    assert_eq!(heard.0.get(), ["assigned [t/0]", "lost [t/0]", "assigned [t/0]"]);
}

#[test]
fn two_members_share_and_the_one_that_stays_takes_over() {
    let (first, second) = (Heard::default(), Heard::default());
    let mut bed = {
        let (first, second) = (first.clone(), second.clone());
        Bed::new(2, 13, move |desk: Desk| {
            let (first, second) = (first.clone(), second.clone());
            async move {
                desk.topic("t", 4).await;
                let mut one = desk.listening("t", &[], Box::new(first)).await;
                while one.assignment().len() < 4 {
                    one.poll(Duration::from_millis(100)).await.expect("all is well");
                }
                let mut other = desk.listening("t", &[], Box::new(second)).await;
                while one.assignment().len() != 2 || other.assignment().len() != 2 {
                    one.poll(Duration::from_millis(50)).await.expect("all is well");
                    other.poll(Duration::from_millis(50)).await.expect("all is well");
                }
                other.close().await.expect("it leaves");
                while one.assignment().len() < 4 {
                    one.poll(Duration::from_millis(100)).await.expect("all is well");
                }
                one.close().await.expect("it leaves");
            }
        })
    };
    bed.finish();
    let (first, second) = (first.0.get(), second.0.get());
    // Members are sorted by ids that the coordinator draws, so who gets which half is the seed's.
    let half = second[0].strip_prefix("assigned ").expect("the second is assigned first");
    let other_half = if half == "[t/0, t/1]" { "[t/2, t/3]" } else { "[t/0, t/1]" };
    let all = "[t/0, t/1, t/2, t/3]";
    assert_eq!(second, [format!("assigned {half}"), format!("revoked {half}")]);
    assert_eq!(
        first,
        [
            format!("assigned {all}"),
            format!("revoked {all}"),
            format!("assigned {other_half}"),
            format!("revoked {other_half}"),
            format!("assigned {all}"),
            format!("revoked {all}"),
        ]
    );
}

#[test]
fn what_a_revocation_returns_is_committed_before_the_partitions_go() {
    struct CommitsFive;
    impl RebalanceListener for CommitsFive {
        fn revoked(&mut self, partitions: &[TopicPartition]) -> Vec<(TopicPartition, OffsetAndMetadata)> {
            partitions.iter().map(|at| (at.clone(), OffsetAndMetadata::new(5))).collect()
        }
    }
    let mut bed = Bed::new(1, 17, move |desk: Desk| async move {
        desk.topic("t", 2).await;
        let mut one = desk.listening("t", &[], Box::new(CommitsFive)).await;
        while one.assignment().len() < 2 {
            one.poll(Duration::from_millis(100)).await.expect("all is well");
        }
        let mut other = desk.subscriber("t", &[]).await;
        while other.assignment().is_empty() {
            one.poll(Duration::from_millis(50)).await.expect("all is well");
            other.poll(Duration::from_millis(50)).await.expect("all is well");
        }
        let both = [TopicPartition::new("t", 0), TopicPartition::new("t", 1)];
        let committed = other.committed(&both, Duration::from_secs(5)).await.expect("it answers");
        let offsets: Vec<_> = committed.iter().map(|(_, position)| position.offset).collect();
        assert_eq!(offsets, [5, 5]);
    });
    bed.finish();
}

/// What the group has committed for partition 0 of `t`.
async fn committed(desk: &Desk) -> Option<i64> {
    let mut other = desk.consumer(&[]).await;
    let at = TopicPartition::new("t", 0);
    let committed = other.committed(&[at], Duration::from_secs(5)).await.expect("the coordinator answers");
    committed.first().map(|(_, position)| position.offset)
}

async fn poll_some(consumer: &mut Box<dyn broker::Consumer>) -> usize {
    loop {
        let records = consumer.poll(Duration::from_millis(100)).await.expect("all is well");
        if !records.is_empty() {
            return records.len();
        }
    }
}

#[test]
fn librdkafka_commits_while_a_handler_works_and_java_with_the_next_poll() {
    for habits in ["librdkafka", "java"] {
        let mut bed = Bed::new(1, 21, move |desk: Desk| async move {
            desk.topic("t", 1).await;
            let producer = desk.producer(&[]).await;
            for _ in 0..3 {
                producer.send(record("t", "x")).await.expect("all is well");
            }
            let automatic = [
                ("shakedown.client.habits", habits),
                ("enable.auto.commit", "true"),
                ("auto.commit.interval.ms", "1000"),
            ];
            let mut consumer = desk.subscriber("t", &automatic).await;
            assert_eq!(poll_some(&mut consumer).await, 3);
            let java = habits == "java";
            // What the first polls had to commit is not there yet: nothing was read.
            let during = async {
                desk.context.sleep(Duration::from_secs(3)).await;
                committed(&desk).await.unwrap_or(0)
            };
            assert_eq!(during.await, if java { 0 } else { 3 }, "{habits}: a handler works for 3 s");
            consumer.poll(Duration::from_millis(100)).await.expect("all is well");
            assert_eq!(committed(&desk).await, Some(3), "{habits}: the next poll");
            // A handler that cannot go on seeks back.
            consumer.seek(&TopicPartition::new("t", 0), 1).expect("it is assigned");
            consumer.unsubscribe().await.expect("it leaves");
            assert_eq!(committed(&desk).await, Some(3), "{habits}: an unsubscribe goes back to nothing");
        });
        bed.finish();
    }
}

#[test]
fn java_commits_where_it_was_sought_to_when_it_closes() {
    let mut bed = Bed::new(1, 21, move |desk: Desk| async move {
        desk.topic("t", 1).await;
        let producer = desk.producer(&[]).await;
        for _ in 0..3 {
            producer.send(record("t", "x")).await.expect("all is well");
        }
        let automatic = [("shakedown.client.habits", "java"), ("enable.auto.commit", "true")];
        let mut consumer = desk.subscriber("t", &automatic).await;
        assert_eq!(poll_some(&mut consumer).await, 3);
        consumer.seek(&TopicPartition::new("t", 0), 1).expect("it is assigned");
        consumer.close().await.expect("it leaves");
        assert_eq!(committed(&desk).await, Some(1));
    });
    bed.finish();
}

#[test]
fn without_an_interval_librdkafka_commits_when_its_partitions_go_and_java_at_each_poll() {
    for (habits, meanwhile) in [("librdkafka", None), ("java", Some(1))] {
        let mut bed = Bed::new(1, 21, move |desk: Desk| async move {
            desk.topic("t", 1).await;
            desk.producer(&[]).await.send(record("t", "x")).await.expect("all is well");
            let automatic = [
                ("shakedown.client.habits", habits),
                ("enable.auto.commit", "true"),
                ("auto.commit.interval.ms", "0"),
            ];
            let mut consumer = desk.subscriber("t", &automatic).await;
            poll_some(&mut consumer).await;
            consumer.poll(Duration::from_secs(10)).await.expect("all is well");
            assert_eq!(committed(&desk).await, meanwhile, "{habits}");
            consumer.close().await.expect("it leaves");
            assert_eq!(committed(&desk).await, Some(1), "{habits}");
        });
        bed.finish();
    }
}

#[test]
fn without_an_answer_for_a_session_librdkafka_gives_up_its_membership_and_java_asks_again() {
    for (habits, expected) in [
        ("librdkafka", &["assigned [t/0]", "lost [t/0]", "assigned [t/0]"][..]),
        ("java", &["assigned [t/0]"][..]),
    ] {
        let (ready, mended, heard) = (Slot::<bool>::default(), Slot::<bool>::default(), Heard::default());
        let mut bed = {
            let (ready, mended, heard) = (ready.clone(), mended.clone(), heard.clone());
            Bed::new(1, 25, move |desk: Desk| {
                let (ready, mended, heard) = (ready.clone(), mended.clone(), heard.clone());
                async move {
                    desk.topic("t", 1).await;
                    // The coordinator hears the heartbeat after 9 s and waits until 29 s; the client until 20 s.
                    let properties = [
                        ("shakedown.client.habits", habits),
                        ("session.timeout.ms", "20000"),
                        ("heartbeat.interval.ms", "9000"),
                        ("socket.timeout.ms", "1000"),
                        ("reconnect.backoff.max.ms", "500"),
                    ];
                    let mut consumer = desk.listening("t", &properties, Box::new(heard)).await;
                    while consumer.assignment().is_empty() {
                        consumer.poll(Duration::from_millis(100)).await.expect("all is well");
                    }
                    ready.set(true);
                    let mut left = 150;
                    while left > 0 {
                        left -= i32::from(mended.get());
                        if let Err(error) = consumer.poll(Duration::from_millis(100)).await {
                            assert!(error.is_retriable(), "{error}");
                        }
                    }
                }
            })
        };
        bed.run_until("it has its partition", || ready.get());
        bed.hold_answers();
        bed.run_for(Duration::from_secs(24));
        bed.release_answers();
        mended.set(true);
        bed.finish();
        assert_eq!(heard.0.get(), expected, "{habits}");
    }
}

#[test]
fn a_member_that_was_not_polled_hears_of_it_as_an_error_from_librdkafka_alone() {
    for habits in ["librdkafka", "java"] {
        let heard = Heard::default();
        let mut bed = {
            let heard = heard.clone();
            Bed::new(1, 27, move |desk: Desk| {
                let heard = heard.clone();
                async move {
                    desk.topic("t", 1).await;
                    let properties = [("shakedown.client.habits", habits), ("max.poll.interval.ms", "7000")];
                    let mut consumer = desk.listening("t", &properties, Box::new(heard)).await;
                    while consumer.assignment().is_empty() {
                        consumer.poll(Duration::from_millis(100)).await.expect("all is well");
                    }
                    desk.context.sleep(Duration::from_secs(10)).await;
                    let mut errors = Vec::new();
                    for _ in 0..100 {
                        errors.extend(consumer.poll(Duration::from_millis(100)).await.err());
                    }
                    let codes: Vec<_> = errors.into_iter().map(|error| error.code).collect();
                    let expected = if habits == "java" { vec![] } else { vec![ErrorCode::MaxPollExceeded] };
                    assert_eq!(codes, expected, "{habits}");
                }
            })
        };
        bed.finish();
        assert_eq!(heard.0.get(), ["assigned [t/0]", "lost [t/0]", "assigned [t/0]"], "{habits}");
    }
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
                while consumer.assignment().is_empty() {
                    consumer.poll(Duration::from_millis(100)).await.expect("all is well");
                }
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

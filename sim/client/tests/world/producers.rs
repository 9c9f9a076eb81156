//! Producers whose answers are lost or late: what is written twice, once, or not at all.

use std::time::Duration;

use broker::{ErrorClass, ErrorCode, ProducerRecord};
use kafka::ClusterConfig;
use world::Change;

use crate::SEEDS;
use crate::bed::{Bed, Desk, Slot, record, values};

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
                desk.hand_over(&ready).await;
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
                desk.hand_over(&ready).await;
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
                desk.hand_over(&ready).await;
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
fn what_a_refusal_would_have_sent_again_fails_with_a_producer_that_has_ended() {
    let config = ClusterConfig::simulated(1).with("message.max.bytes", 1_000);
    let mut bed = Bed::with(config, 5, move |desk: Desk| async move {
        desk.topic("t", 2).await;
        let properties =
            [("shakedown.client.habits", "java"), ("enable.gapless.guarantee", "true"), ("linger.ms", "50")];
        let producer = desk.producer(&properties).await;
        let to =
            |partition, size| ProducerRecord { partition: Some(partition), ..record("t", "x".repeat(size)) };
        // Both batches are in one request, and both are too large. One record cannot be split, and with it goes the
        // producer; two records could, and would be sent again.
        let sent = [producer.send(to(0, 2_000)), producer.send(to(1, 800)), producer.send(to(1, 800))];
        producer.flush(Duration::from_secs(10)).await.expect("every record has its fate");
        let mut classes = Vec::new();
        for delivery in sent {
            classes.push(delivery.await.expect_err("it is too large").class);
        }
        assert_eq!(classes, [ErrorClass::Failed, ErrorClass::Fatal, ErrorClass::Fatal]);
    });
    bed.finish();
}

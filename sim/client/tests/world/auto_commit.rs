//! Automatic commits: when each of the two clients makes them.

use std::time::Duration;

use broker::{Consumer, TopicPartition};

use crate::bed::{Bed, Desk, record};

/// For how long a handler works on what it was given, in simulated time: three intervals of automatic commits.
const HANDLING: Duration = Duration::from_secs(3);

/// What the group has committed for partition 0 of `t`.
async fn committed(desk: &Desk) -> Option<i64> {
    let mut other = desk.consumer(&[]).await;
    let at = TopicPartition::new("t", 0);
    let committed = other.committed(&[at], Duration::from_secs(5)).await.expect("the coordinator answers");
    committed.first().map(|(_, position)| position.offset)
}

async fn poll_some(consumer: &mut Box<dyn Consumer>) -> usize {
    loop {
        let records = consumer.poll(Duration::from_millis(100)).await.expect("all is well");
        if !records.is_empty() {
            return records.len();
        }
    }
}

/// A consumer of `t` that commits by itself, with these habits and this interval in milliseconds.
async fn automatic(desk: &Desk, habits: &str, interval: &str) -> Box<dyn Consumer> {
    let properties = [
        ("shakedown.client.habits", habits),
        ("enable.auto.commit", "true"),
        ("auto.commit.interval.ms", interval),
    ];
    desk.subscriber("t", &properties).await
}

/// The same, which has read the three records of `t`.
async fn has_read_three(desk: &Desk, habits: &str, interval: &str) -> Box<dyn Consumer> {
    desk.topic("t", 1).await;
    let producer = desk.producer(&[]).await;
    for _ in 0..3 {
        producer.send(record("t", "x")).await.expect("all is well");
    }
    let mut consumer = automatic(desk, habits, interval).await;
    assert_eq!(poll_some(&mut consumer).await, 3);
    consumer
}

#[test]
fn librdkafka_commits_while_a_handler_works_and_java_with_the_next_poll() {
    for habits in ["librdkafka", "java"] {
        let mut bed = Bed::new(1, 21, move |desk: Desk| async move {
            let mut consumer = has_read_three(&desk, habits, "1000").await;
            let java = habits == "java";
            // What the first polls had to commit is not there yet: nothing was read.
            let during = async {
                desk.context.sleep(HANDLING).await;
                committed(&desk).await.unwrap_or(0)
            };
            assert_eq!(during.await, if java { 0 } else { 3 }, "{habits}: a handler works for {HANDLING:?}");
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
fn librdkafkas_timer_runs_from_the_consumers_creation_whenever_it_was_polled() {
    let mut bed = Bed::new(1, 21, move |desk: Desk| async move {
        desk.topic("t", 1).await;
        let created = desk.context.now();
        let mut consumer = automatic(&desk, "librdkafka", "8000").await;
        while desk.context.now() < created + Duration::from_millis(7_500) {
            consumer.poll(Duration::from_millis(100)).await.expect("all is well");
        }
        desk.producer(&[]).await.send(record("t", "x")).await.expect("all is well");
        assert_eq!(poll_some(&mut consumer).await, 1);
        desk.context.sleep_until(created + Duration::from_millis(7_900)).await;
        assert_eq!(committed(&desk).await, None);
        desk.context.sleep_until(created + Duration::from_millis(8_100)).await;
        assert_eq!(committed(&desk).await, Some(1), "it was stored when the timer fired");
    });
    bed.finish();
}

#[test]
fn javas_poll_commits_while_it_waits() {
    let mut bed = Bed::new(1, 21, move |desk: Desk| async move {
        let mut consumer = has_read_three(&desk, "java", "1000").await;
        let at = TopicPartition::new("t", 0);
        consumer.pause(std::slice::from_ref(&at));
        consumer.poll(Duration::from_millis(1)).await.expect("all is well");
        // Nothing more is due at once: the interval began with that poll, or before.
        consumer.seek(&at, 1).expect("it is assigned");
        let looks = async {
            desk.context.sleep(Duration::from_millis(1_200)).await;
            committed(&desk).await
        };
        let (polled, committed) = tokio::join!(consumer.poll(Duration::from_secs(10)), looks);
        assert!(polled.expect("all is well").is_empty());
        assert_eq!(committed, Some(1));
    });
    bed.finish();
}

#[test]
fn javas_interval_begins_with_an_assignment() {
    let mut bed = Bed::new(1, 21, move |desk: Desk| async move {
        desk.topic("t", 1).await;
        let mut consumer = automatic(&desk, "java", "2000").await;
        while consumer.assignment().is_empty() {
            consumer.poll(Duration::from_millis(1)).await.expect("all is well");
        }
        let assigned = desk.context.now();
        for (after_ms, expected) in [(1_900, None), (2_200, Some(0))] {
            let until = assigned + Duration::from_millis(after_ms);
            while desk.context.now() < until {
                consumer.poll(Duration::from_millis(10)).await.expect("all is well");
            }
            assert_eq!(committed(&desk).await, expected, "{after_ms} ms after the assignment");
        }
    });
    bed.finish();
}

#[test]
fn java_commits_where_it_was_sought_to_when_it_closes() {
    let mut bed = Bed::new(1, 21, move |desk: Desk| async move {
        let mut consumer = has_read_three(&desk, "java", "5000").await;
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
            let mut consumer = automatic(&desk, habits, "0").await;
            poll_some(&mut consumer).await;
            consumer.poll(Duration::from_secs(10)).await.expect("all is well");
            assert_eq!(committed(&desk).await, meanwhile, "{habits}");
            consumer.close().await.expect("it leaves");
            assert_eq!(committed(&desk).await, Some(1), "{habits}");
        });
        bed.finish();
    }
}

//! Members of groups: what they are told as their group changes, and when they learn that it went on without them.

use std::time::Duration;

use broker::{Broker as _, ErrorCode, OffsetAndMetadata, Properties, RebalanceListener, TopicPartition};
use world::Change;

use crate::bed::{Bed, CLIENT, Desk, Slot, assigned, record};

/// For how long a member is not polled, in simulated time: longer than the `max.poll.interval.ms` of its test.
const UNPOLLED: Duration = Duration::from_secs(10);

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
                assigned(&mut consumer).await;
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
                    assigned(&mut consumer).await;
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
                    assigned(&mut consumer).await;
                    desk.context.sleep(UNPOLLED).await;
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

//! Coordinators that are away when they are asked: by admins, and by members that have just joined.

use std::time::Duration;

use broker::{Admin, Broker as _, Consumer, ElectionType, ErrorCode, Properties, TopicPartition};

use crate::bed::{Bed, partition, send};

/// librdkafka 2.12 ends the process where it gives such a call up by itself and the coordinator comes back later.
#[tokio::test]
async fn a_question_that_found_no_coordinator_does_no_harm_when_one_comes_back() {
    let bed = Bed::start(1).await;
    send(&*bed.producer().await, 0, 0..10, 10).await;
    let mut consumer = bed.consumer(Properties::new()).await;
    bed.read(&mut *consumer, 10).await;
    consumer.close().await.expect("a close");
    let impatient = Properties::new().set("socket.timeout.ms", 1_000);
    let impatient = bed.broker.admin(&impatient).await.expect("an admin client");
    let patient = bed.broker.admin(&Properties::new()).await.expect("an admin client");
    let described = patient.describe_groups(&["g"]).await.expect("its coordinator answers");
    assert_eq!(described[0].state, "Empty");
    for node in 1..=3 {
        bed.nodes.kill(node).await;
    }
    let at = [partition(0)];
    let described = async { impatient.describe_groups(&["g"]).await.map(drop) };
    let failed =
        tokio::join!(described, impatient.delete_group_offsets("g", &at), impatient.delete_groups(&["g"]));
    for failed in [failed.0, failed.1, failed.2] {
        let error = failed.expect_err("nobody is there");
        assert_eq!(error.code, ErrorCode::TimedOut, "{error}");
        assert!(error.is_retriable(), "{error}");
    }
    for node in 1..=3 {
        bed.nodes.restart(node);
    }
    let deadline = bed.context.now() + Duration::from_secs(60);
    let described = loop {
        match patient.describe_groups(&["g"]).await {
            Ok(described) => break described,
            Err(error) => {
                assert!(error.is_retriable() && bed.context.now() < deadline, "{error}");
                bed.context.sleep(Duration::from_millis(100)).await;
            }
        }
    };
    assert_eq!(described[0].state, "Empty", "what got no answer was not done");
    patient.delete_groups(&["g"]).await.expect("nobody is in it");
    drop(impatient);
}

/// Offsets of all groups in one partition, whose leader coordinates every group.
const OFFSETS: &str = "__consumer_offsets";

async fn coordinator(admin: &dyn Admin) -> Option<i32> {
    let described = admin.describe_topics(&[OFFSETS]).await.ok()?;
    described.first()?.partitions.first()?.leader
}

/// Tries until something comes of it.
async fn eventually<T>(bed: &Bed, sentence: &str, mut fact: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = bed.context.now() + Duration::from_secs(60);
    loop {
        if let Some(found) = fact().await {
            return found;
        }
        assert!(bed.context.now() < deadline, "not within a minute: {sentence}");
        bed.context.sleep(Duration::from_millis(50)).await;
    }
}

/// A member of group `g` that has its assignment, which it takes up with its first poll.
async fn joined(bed: &Bed, admin: &dyn Admin) -> Box<dyn Consumer> {
    send(&*bed.producer().await, 0, 0..10, 10).await;
    let consumer = bed.consumer(Properties::new()).await;
    eventually(bed, "the group is stable", async || {
        let described = admin.describe_groups(&["g"]).await.ok()?;
        (described[0].state == "Stable").then_some(())
    })
    .await;
    consumer
}

#[tokio::test]
async fn a_member_reads_although_its_coordinator_dies_before_its_first_poll() {
    let bed = Bed::start_with(1, &[("offsets.topic.num.partitions", "1")]).await;
    let admin = bed.broker.admin(&Properties::new()).await.expect("an admin client");
    let mut consumer = joined(&bed, &*admin).await;
    let killed = eventually(&bed, "somebody coordinates", async || coordinator(&*admin).await).await;
    bed.nodes.kill(killed).await;
    bed.read(&mut *consumer, 10).await;
    bed.nodes.restart(killed);
    consumer.close().await.expect("a close");
}

/// It lives on, and refuses to tell where the member starts, for it coordinates no more.
#[tokio::test]
async fn a_member_reads_although_its_coordinator_resigns_before_its_first_poll() {
    let bed = Bed::start_with(1, &[("offsets.topic.num.partitions", "1")]).await;
    let admin = bed.broker.admin(&Properties::new()).await.expect("an admin client");
    // The offsets' topic is made for the first group; its preferred leader is away, and back without its office.
    admin.describe_groups(&["nobody's"]).await.expect("a coordinator");
    let preferred = eventually(&bed, "somebody coordinates", async || coordinator(&*admin).await).await;
    bed.nodes.kill(preferred).await;
    eventually(&bed, "another coordinates", async || {
        coordinator(&*admin).await.filter(|at| *at != preferred)
    })
    .await;
    bed.nodes.restart(preferred);
    eventually(&bed, "all replicas are in sync", async || {
        let described = admin.describe_topics(&[OFFSETS]).await.ok()?;
        (described.first()?.partitions.first()?.in_sync.len() == 3).then_some(())
    })
    .await;
    let mut consumer = joined(&bed, &*admin).await;
    let offsets = [TopicPartition::new(OFFSETS, 0)];
    assert_ne!(coordinator(&*admin).await, Some(preferred), "it has nothing to resign for");
    admin.elect_leaders(ElectionType::Preferred, &offsets).await.expect("an election");
    bed.read(&mut *consumer, 10).await;
    // Any broker is asked, and hears of it a moment after those whom it concerns.
    eventually(&bed, "the preferred one coordinates again", async || {
        coordinator(&*admin).await.filter(|at| *at == preferred)
    })
    .await;
    consumer.close().await.expect("a close");
}

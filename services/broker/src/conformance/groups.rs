//! Groups: every partition has one reader, and a reader that goes is replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::bench::{Call, Heard, numbered, text, values};
use super::{Bench, Failure, case_list, ensure};
use crate::{
    Consumer, ConsumerRecord, ErrorCode, NoRebalanceListener, OffsetAndMetadata, ProducerRecord, Properties,
    RebalanceListener, TopicPartition,
};

case_list![
    members_share_the_partitions,
    more_members_than_partitions_leave_some_idle,
    a_member_that_joins_takes_its_share,
    a_member_that_leaves_gives_its_share_back,
    a_partition_that_was_paused_and_comes_back_gives_records,
    a_member_that_is_told_where_to_go_on_reads_its_other_partitions_on,
    a_member_that_dies_is_replaced_after_its_session[DieWithoutLeaving],
    what_a_dead_member_did_not_commit_comes_again[DieWithoutLeaving],
    a_member_that_is_not_polled_is_evicted,
    a_commit_of_an_earlier_generation_is_refused,
    the_listener_hears_every_change,
    an_unsubscribe_commits_what_the_listener_returns,
    two_groups_do_not_disturb_each_other,
    concurrent_subscribers_read_each_record_once,
    one_member_reads_several_topics,
    a_rebalance_loses_nothing_and_repeats_nothing_that_was_committed,
    a_cooperative_member_keeps_what_stays,
    an_eager_member_gives_all_up,
    a_static_member_that_comes_back_keeps_its_partitions,
    a_second_holder_of_an_instance_fences_the_first,
];

/// Polls every member in turn until `settled` holds for their assignments.
async fn poll_until(
    bench: &Bench,
    members: &mut [Box<dyn Consumer>],
    sentence: &str,
    settled: impl Fn(&[BTreeSet<TopicPartition>]) -> bool,
) -> Result<Vec<ConsumerRecord>, Failure> {
    let deadline = bench.context().now() + Duration::from_secs(90);
    let mut records = Vec::new();
    loop {
        for member in members.iter_mut() {
            match member.poll(Duration::from_millis(50)).await {
                Ok(more) => records.extend(more),
                Err(error) if error.is_fatal() => return Err(error.into()),
                Err(_) => {}
            }
        }
        let held: Vec<BTreeSet<_>> =
            members.iter().map(|member| member.assignment().into_iter().collect()).collect();
        if settled(&held) {
            return Ok(records);
        }
        if bench.context().now() > deadline {
            return Err(Failure(format!("not within 90 s: {sentence}; held: {held:?}")));
        }
    }
}

/// Every one of `count` partitions is held once, and each member holds a number within `sizes`.
fn shared(held: &[BTreeSet<TopicPartition>], count: usize, sizes: std::ops::RangeInclusive<usize>) -> bool {
    let all: BTreeSet<_> = held.iter().flatten().collect();
    all.len() == count
        && held.iter().map(BTreeSet::len).sum::<usize>() == count
        && held.iter().all(|one| sizes.contains(&one.len()))
}

async fn member(bench: &Bench, topic: &Arc<str>) -> Result<Box<dyn Consumer>, Failure> {
    bench.subscriber("g", topic).await
}

async fn members_share_the_partitions(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 6).await?;
    let mut members =
        vec![member(&bench, &topic).await?, member(&bench, &topic).await?, member(&bench, &topic).await?];
    poll_until(&bench, &mut members, "three members hold two partitions each", |held| shared(held, 6, 2..=2))
        .await?;
    for member in members {
        member.close().await?;
    }
    Ok(())
}

async fn more_members_than_partitions_leave_some_idle(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 2).await?;
    let mut members = Vec::new();
    for _ in 0..3 {
        members.push(member(&bench, &topic).await?);
    }
    poll_until(&bench, &mut members, "two of three members hold one partition each", |held| {
        shared(held, 2, 0..=1)
    })
    .await?;
    for member in members {
        member.close().await?;
    }
    Ok(())
}

async fn a_member_that_joins_takes_its_share(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 4).await?;
    let mut members = vec![member(&bench, &topic).await?];
    poll_until(&bench, &mut members, "the only member holds all", |held| shared(held, 4, 4..=4)).await?;
    members.push(member(&bench, &topic).await?);
    poll_until(&bench, &mut members, "two members hold two each", |held| shared(held, 4, 2..=2)).await?;
    for member in members {
        member.close().await?;
    }
    Ok(())
}

async fn a_member_that_leaves_gives_its_share_back(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 4).await?;
    let long = Properties::new().set("session.timeout.ms", 45_000);
    let mut members = vec![
        bench.subscriber_with("g", &topic, long.clone()).await?,
        bench.subscriber_with("g", &topic, long).await?,
    ];
    poll_until(&bench, &mut members, "two members hold two each", |held| shared(held, 4, 2..=2)).await?;
    let leaver = members.remove(0);
    let before = bench.context().now();
    leaver.close().await?;
    poll_until(&bench, &mut members, "the one that stayed holds all", |held| shared(held, 4, 4..=4)).await?;
    let took = bench.context().now().since(before);
    ensure!(took < Duration::from_secs(35), "a leave needs no session timeout (45 s), but it took {took:?}");
    for member in members {
        member.close().await?;
    }
    Ok(())
}

async fn a_partition_that_was_paused_and_comes_back_gives_records(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 2).await?;
    let mut members = vec![member(&bench, &topic).await?];
    poll_until(&bench, &mut members, "the first holds both", |held| shared(held, 2, 2..=2)).await?;
    let both = members[0].assignment();
    members[0].pause(&both);
    members.push(member(&bench, &topic).await?);
    poll_until(&bench, &mut members, "each holds one", |held| shared(held, 2, 1..=1)).await?;
    let second = members.remove(1);
    let lent = second.assignment();
    second.close().await?;
    poll_until(&bench, &mut members, "the first holds both again", |held| shared(held, 2, 2..=2)).await?;
    let mut first = members.remove(0);
    let producer = bench.producer().await?;
    let mut record = ProducerRecord::new(topic.clone(), "k", "v");
    record.partition = lent.first().map(|at| at.partition);
    producer.send(record).await?;
    let got = values(&bench.poll_count(&mut *first, 1).await?);
    ensure!(got == ["v"], "of the partition that came back it read {got:?}");
    Ok(first.close().await?)
}

/// One partition is sought out of the log and back; nothing of the other is read twice for it, and nothing is missing.
async fn a_member_that_is_told_where_to_go_on_reads_its_other_partitions_on(
    bench: Bench,
) -> Result<(), Failure> {
    let topic = bench.topic("t", 2).await?;
    let producer = bench.producer().await?;
    let send = async |partition: i32, numbers: std::ops::Range<usize>| {
        for number in numbers {
            let mut record = ProducerRecord::new(topic.clone(), "k", format!("{partition}-{number}"));
            record.partition = Some(partition);
            producer.send(record).await?;
        }
        Ok::<_, Failure>(())
    };
    send(0, 0..5).await?;
    send(1, 0..5).await?;
    let partitions = [0, 1].map(|partition| TopicPartition::new(topic.clone(), partition));
    let properties = Properties::new().set("auto.offset.reset", "error");
    let mut before = bench.consumer_with("g", properties.clone()).await?;
    before.assign(&partitions).await?;
    let start = OffsetAndMetadata { offset: 0, leader_epoch: None, metadata: String::new() };
    let starts = partitions.clone().map(|at| (at, start.clone()));
    while let Err(error) = before.commit(&starts).await {
        // A group's coordinator may be on its way.
        ensure!(error.is_retriable(), "the starts cannot be committed: {error}");
        bench.context().sleep(Duration::from_millis(100)).await;
    }
    before.close().await?;

    let mut member = bench.subscriber_with("g", &topic, properties).await?;
    let read = bench.poll_count(&mut *member, 10).await?;
    ensure!(read.len() == 10, "of ten records it read {:?}", values(&read));
    member.seek(&partitions[1], 1_000)?;
    bench.out_of_range(&mut *member).await?;
    send(0, 5..7).await?;
    member.seek(&partitions[1], 3)?;
    let mut got = values(&bench.poll_count(&mut *member, 4).await?);
    got.extend(values(&bench.poll_for(&mut *member, Duration::from_secs(1)).await?));
    got.sort();
    ensure!(got == ["0-5", "0-6", "1-3", "1-4"], "told to go on at 3 in one of two it read {got:?}");
    Ok(member.close().await?)
}

async fn a_member_that_dies_is_replaced_after_its_session(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 4).await?;
    let long = Properties::new().set("session.timeout.ms", 30_000);
    let mut members = vec![
        bench.subscriber_with("g", &topic, long.clone()).await?,
        bench.subscriber_with("g", &topic, long).await?,
    ];
    poll_until(&bench, &mut members, "two members hold two each", |held| shared(held, 4, 2..=2)).await?;
    let before = bench.context().now();
    drop(members.remove(0));
    poll_until(&bench, &mut members, "the survivor holds all", |held| shared(held, 4, 4..=4)).await?;
    let took = bench.context().now().since(before);
    // Its last heartbeat was one interval (1 s) before the death, and more where an answer was late. A leave takes a moment.
    ensure!(took >= Duration::from_secs(15), "noticed before the session of 30 s could end: {took:?}");
    for member in members {
        member.close().await?;
    }
    Ok(())
}

async fn what_a_dead_member_did_not_commit_comes_again(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    let producer = bench.producer().await?;
    bench.send_all(&*producer, &topic, "k", numbered("v", 10)).await?;
    let mut first = member(&bench, &topic).await?;
    let records = bench.poll_count(&mut *first, 10).await?;
    bench.commit_all(&mut *first, &records[..4]).await?;
    drop(first);
    let mut second = member(&bench, &topic).await?;
    let again = bench.poll_count(&mut *second, 6).await?;
    ensure!(again[0].offset == 4, "committed were 4; it came again from {}", again[0].offset);
    Ok(second.close().await?)
}

async fn a_member_that_is_not_polled_is_evicted(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 2).await?;
    // `max.poll.interval.ms` must not be below `session.timeout.ms`.
    let slow = Properties::new().set("max.poll.interval.ms", 7_000);
    let heard = Heard::default();
    let mut stuck = bench.consumer_with("g", slow).await?;
    stuck.subscribe(std::slice::from_ref(&topic), heard.listener()).await?;
    let mut only = vec![stuck];
    poll_until(&bench, &mut only, "the first member holds both", |held| shared(held, 2, 2..=2)).await?;
    let mut stuck = only.remove(0);
    let mut others = vec![member(&bench, &topic).await?];
    // The first member is stuck in a handler from now on: its heartbeats go on, its polls do not.
    poll_until(&bench, &mut others, "the second member took over from one that is not polled", |held| {
        shared(held, 2, 2..=2)
    })
    .await?;
    let mut reported = false;
    for _ in 0..3 {
        if let Err(error) = stuck.poll(Duration::from_millis(100)).await {
            reported |= error.code == ErrorCode::MaxPollExceeded;
        }
    }
    ensure!(reported, "the poll after {:?} did not report MaxPollExceeded", Duration::from_secs(7));
    let lost =
        heard.calls().into_iter().any(|(call, partitions)| call == Call::Lost && partitions.len() == 2);
    ensure!(lost, "the listener did not hear that both partitions were lost: {:?}", heard.calls());
    others.push(stuck);
    poll_until(&bench, &mut others, "polled again it joins again", |held| shared(held, 2, 1..=1)).await?;
    for member in others {
        member.close().await?;
    }
    Ok(())
}

async fn a_commit_of_an_earlier_generation_is_refused(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 2).await?;
    let slow = Properties::new().set("max.poll.interval.ms", 7_000);
    let zombie = bench.subscriber_with("g", &topic, slow).await?;
    let mut only = vec![zombie];
    poll_until(&bench, &mut only, "the first member holds both", |held| shared(held, 2, 2..=2)).await?;
    let mut zombie = only.remove(0);
    let mut others = vec![member(&bench, &topic).await?];
    poll_until(&bench, &mut others, "the second member took over", |held| shared(held, 2, 2..=2)).await?;
    let partition = TopicPartition::new(topic.clone(), 0);
    let refused = zombie.commit(&[(partition.clone(), OffsetAndMetadata::new(1))]).await;
    ensure!(refused.is_err(), "a member that its group went on without could commit");
    let committed = others[0].committed(&[partition], Duration::from_secs(30)).await?;
    ensure!(committed.is_empty(), "the refused commit is there: {committed:?}");
    drop(zombie);
    for member in others {
        member.close().await?;
    }
    Ok(())
}

async fn the_listener_hears_every_change(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 2).await?;
    let heard = Heard::default();
    let mut first = bench.consumer("g").await?;
    first.subscribe(std::slice::from_ref(&topic), heard.listener()).await?;
    let mut members = vec![first];
    poll_until(&bench, &mut members, "the first member holds both", |held| shared(held, 2, 2..=2)).await?;
    members.push(member(&bench, &topic).await?);
    poll_until(&bench, &mut members, "each holds one", |held| shared(held, 2, 1..=1)).await?;
    let first = members.remove(0);
    let held_last: Vec<_> = first.assignment();
    first.close().await?;
    let calls = heard.calls();
    // Played back, assignments less revocations are what the member held; at the end, nothing.
    let mut held: BTreeSet<TopicPartition> = BTreeSet::new();
    for (call, partitions) in &calls {
        for partition in partitions {
            let fits = match call {
                Call::Assigned => held.insert(partition.clone()),
                Call::Revoked | Call::Lost => held.remove(partition),
            };
            ensure!(fits, "{call:?} {partition} does not fit what came before: {calls:?}");
        }
    }
    ensure!(held.is_empty(), "after the close it still held {held:?}: {calls:?}");
    let last = calls.iter().rev().find(|(_, partitions)| !partitions.is_empty());
    ensure!(
        matches!(last, Some((Call::Revoked, partitions)) if *partitions == held_last),
        "the close must revoke {held_last:?}: {calls:?}"
    );
    for member in members {
        member.close().await?;
    }
    Ok(())
}

async fn an_unsubscribe_commits_what_the_listener_returns(bench: Bench) -> Result<(), Failure> {
    struct CommitsFive(Heard);
    impl RebalanceListener for CommitsFive {
        fn revoked(&mut self, partitions: &[TopicPartition]) -> Vec<(TopicPartition, OffsetAndMetadata)> {
            self.0.revoked(partitions);
            partitions.iter().map(|at| (at.clone(), OffsetAndMetadata::new(5))).collect()
        }
    }
    let topic = bench.topic("t", 2).await?;
    let heard = Heard::default();
    let mut leaver = bench.consumer("g").await?;
    leaver.subscribe(std::slice::from_ref(&topic), Box::new(CommitsFive(heard.clone()))).await?;
    let mut members = vec![leaver];
    poll_until(&bench, &mut members, "the only member holds both", |held| shared(held, 2, 2..=2)).await?;
    let before = heard.calls().len();
    let both = members[0].assignment();
    members[0].unsubscribe().await?;
    ensure!(members[0].assignment().is_empty(), "it still holds {:?}", members[0].assignment());
    let calls = heard.calls().split_off(before);
    ensure!(calls == [(Call::Revoked, both.clone())], "the unsubscribe must revoke {both:?} once: {calls:?}");
    let committed = members[0].committed(&both, Duration::from_secs(30)).await?;
    let offsets: Vec<_> = committed.iter().map(|(_, position)| position.offset).collect();
    ensure!(offsets == [5, 5], "the listener returned 5 for both; committed are {committed:?}");
    for member in members {
        member.close().await?;
    }
    Ok(())
}

async fn two_groups_do_not_disturb_each_other(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 2).await?;
    let heard = Heard::default();
    // A session that ends on a busy machine would disturb it too.
    let long = Properties::new().set("session.timeout.ms", 45_000);
    let mut quiet = bench.consumer_with("quiet", long).await?;
    quiet.subscribe(std::slice::from_ref(&topic), heard.listener()).await?;
    let mut first = vec![quiet];
    poll_until(&bench, &mut first, "the quiet group's member holds both", |held| shared(held, 2, 2..=2))
        .await?;
    let before = heard.calls();
    let mut busy = bench.subscriber("busy", &topic).await?;
    bench.poll_for(&mut *busy, Duration::from_secs(4)).await?;
    busy.close().await?;
    bench.poll_for(&mut *first[0], Duration::from_secs(2)).await?;
    ensure!(heard.calls() == before, "another group's join and leave moved this one: {:?}", heard.calls());
    for member in first {
        member.close().await?;
    }
    Ok(())
}

async fn concurrent_subscribers_read_each_record_once(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 6).await?;
    // A session that ends on a busy machine would have records come twice.
    let long = Properties::new().set("session.timeout.ms", 45_000);
    let mut members = Vec::new();
    for _ in 0..3 {
        members.push(bench.subscriber_with("g", &topic, long.clone()).await?);
    }
    let early =
        poll_until(&bench, &mut members, "each of three holds two", |held| shared(held, 6, 2..=2)).await?;
    ensure!(early.is_empty(), "records before any was sent");
    let producer = bench.producer().await?;
    let mut deliveries = Vec::new();
    for value in numbered("v", 300) {
        deliveries.push(producer.send(ProducerRecord::new(topic.clone(), value.clone(), value)));
    }
    for delivery in deliveries {
        delivery.await?;
    }
    let mut count: BTreeMap<String, u32> = BTreeMap::new();
    let mut readers: BTreeMap<TopicPartition, BTreeSet<usize>> = BTreeMap::new();
    let deadline = bench.context().now() + Duration::from_secs(60);
    while count.len() < 300 {
        ensure!(bench.context().now() < deadline, "{} of 300 records came", count.len());
        for (number, member) in members.iter_mut().enumerate() {
            for record in bench.poll_once(&mut **member, Duration::from_millis(50)).await? {
                *count.entry(text(record.value.as_deref())).or_default() += 1;
                readers.entry(record.partition).or_default().insert(number);
            }
        }
    }
    let twice: Vec<_> = count.iter().filter(|(_, times)| **times > 1).collect();
    ensure!(twice.is_empty(), "with nothing going wrong these came twice: {twice:?}");
    ensure!(readers.values().all(|who| who.len() == 1), "a partition had two readers: {readers:?}");
    for member in members {
        member.close().await?;
    }
    Ok(())
}

async fn one_member_reads_several_topics(bench: Bench) -> Result<(), Failure> {
    let (one, two) = (bench.topic("one", 2).await?, bench.topic("two", 1).await?);
    let producer = bench.producer().await?;
    bench.send_all(&*producer, &one, "k", numbered("one", 5)).await?;
    bench.send_all(&*producer, &two, "k", numbered("two", 5)).await?;
    let mut consumer = bench.consumer("g").await?;
    consumer.subscribe(&[one.clone(), two.clone()], Box::new(NoRebalanceListener)).await?;
    let records = bench.poll_count(&mut *consumer, 10).await?;
    let from: BTreeSet<_> = records.iter().map(|record| record.partition.topic.clone()).collect();
    ensure!(from == BTreeSet::from([one, two]), "records came from {from:?}");
    ensure!(consumer.assignment().len() == 3, "assigned {:?}", consumer.assignment());
    Ok(consumer.close().await?)
}

async fn a_rebalance_loses_nothing_and_repeats_nothing_that_was_committed(
    bench: Bench,
) -> Result<(), Failure> {
    let topic = bench.topic("t", 6).await?;
    let producer = bench.producer().await?;
    let mut members = vec![member(&bench, &topic).await?];
    let mut committed: BTreeMap<TopicPartition, i64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut last_new = bench.context().now();
    let (mut sent, mut round) = (0, 0);
    while sent < 600 || seen.len() < sent {
        let silence = bench.context().now().since(last_new);
        ensure!(
            silence < Duration::from_secs(90),
            "{} of {sent} records came, and no more in 90 s",
            seen.len()
        );
        if sent < 600 {
            let record =
                |number| ProducerRecord::new(topic.clone(), format!("k{number}"), format!("v{number}"));
            let deliveries: Vec<_> = (sent..sent + 20).map(|number| producer.send(record(number))).collect();
            for delivery in deliveries {
                delivery.await?;
            }
            sent += 20;
        }
        round += 1;
        // Members come and go while records flow.
        match round {
            5 | 12 => members.push(member(&bench, &topic).await?),
            20 => members.remove(0).close().await?,
            _ => {}
        }
        for member in &mut members {
            let records = match member.poll(Duration::from_millis(100)).await {
                Ok(records) => records,
                Err(error) if error.is_fatal() => return Err(error.into()),
                Err(_) => continue,
            };
            for record in &records {
                let floor = committed.get(&record.partition).copied().unwrap_or(0);
                ensure!(
                    record.offset >= floor,
                    "{} was committed up to {floor}, and {} came again",
                    record.partition,
                    record.offset
                );
                if seen.insert(text(record.value.as_deref())) {
                    last_new = bench.context().now();
                }
            }
            let positions = super::bench::positions_after(&records);
            // A commit that the rebalance refuses is none: its records may come again.
            if member.commit(&positions).await.is_ok() {
                committed.extend(positions.into_iter().map(|(at, position)| (at, position.offset)));
            }
        }
    }
    for member in members {
        member.close().await?;
    }
    Ok(())
}

/// One member holds four partitions, a second joins: what the first one's listener heard from then on.
async fn heard_when_another_joins(
    bench: &Bench,
    strategy: &str,
) -> Result<(Vec<TopicPartition>, Vec<TopicPartition>), Failure> {
    let topic = bench.topic("t", 4).await?;
    let more = Properties::new().set("partition.assignment.strategy", strategy);
    let heard = Heard::default();
    let mut first = bench.consumer_with("g", more.clone()).await?;
    first.subscribe(std::slice::from_ref(&topic), heard.listener()).await?;
    let mut members = vec![first];
    poll_until(bench, &mut members, "the only member holds all", |held| shared(held, 4, 4..=4)).await?;
    let before = heard.calls().len();
    let mut second = bench.consumer_with("g", more).await?;
    second.subscribe(std::slice::from_ref(&topic), Box::new(NoRebalanceListener)).await?;
    members.push(second);
    poll_until(bench, &mut members, "two members hold two each", |held| shared(held, 4, 2..=2)).await?;
    let calls = heard.calls().split_off(before);
    let of = |wanted: Call| {
        calls
            .iter()
            .filter(|(call, _)| *call == wanted)
            .flat_map(|(_, partitions)| partitions.clone())
            .collect()
    };
    let (revoked, assigned) = (of(Call::Revoked), of(Call::Assigned));
    ensure!(!calls.iter().any(|(call, _)| *call == Call::Lost), "nothing is lost: {calls:?}");
    for member in members {
        member.close().await?;
    }
    Ok((revoked, assigned))
}

async fn a_cooperative_member_keeps_what_stays(bench: Bench) -> Result<(), Failure> {
    let (revoked, assigned) = heard_when_another_joins(&bench, "cooperative-sticky").await?;
    ensure!(revoked.len() == 2, "only what moves is revoked, but it heard {revoked:?}");
    ensure!(assigned.is_empty(), "nothing new is assigned, but it heard {assigned:?}");
    Ok(())
}

async fn an_eager_member_gives_all_up(bench: Bench) -> Result<(), Failure> {
    let (revoked, assigned) = heard_when_another_joins(&bench, "range").await?;
    ensure!(revoked.len() == 4, "all is revoked, but it heard {revoked:?}");
    ensure!(assigned.len() == 2, "and its share is assigned anew, but it heard {assigned:?}");
    Ok(())
}

async fn a_static_member_that_comes_back_keeps_its_partitions(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 4).await?;
    // Whoever comes back late is another member.
    let named =
        |name: &str| Properties::new().set("group.instance.id", name).set("session.timeout.ms", 45_000);
    let heard = Heard::default();
    let mut one = bench.consumer_with("g", named("one")).await?;
    one.subscribe(std::slice::from_ref(&topic), Box::new(NoRebalanceListener)).await?;
    let mut two = bench.consumer_with("g", named("two")).await?;
    two.subscribe(std::slice::from_ref(&topic), heard.listener()).await?;
    let mut members = vec![one, two];
    poll_until(&bench, &mut members, "two members hold two each", |held| shared(held, 4, 2..=2)).await?;
    let kept = members[0].assignment();
    let before = heard.calls().len();
    members.remove(0).close().await?;
    let mut again = bench.consumer_with("g", named("one")).await?;
    again.subscribe(std::slice::from_ref(&topic), Box::new(NoRebalanceListener)).await?;
    members.insert(0, again);
    poll_until(&bench, &mut members, "two members hold two each", |held| shared(held, 4, 2..=2)).await?;
    ensure!(members[0].assignment() == kept, "it had {kept:?} and now has {:?}", members[0].assignment());
    let calls = heard.calls().split_off(before);
    ensure!(calls.is_empty(), "the other member heard nothing of it, but {calls:?}");
    for member in members {
        member.close().await?;
    }
    Ok(())
}

async fn a_second_holder_of_an_instance_fences_the_first(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 2).await?;
    let named = Properties::new().set("group.instance.id", "one");
    let mut first = bench.consumer_with("g", named.clone()).await?;
    first.subscribe(std::slice::from_ref(&topic), Box::new(NoRebalanceListener)).await?;
    let mut members = vec![first];
    poll_until(&bench, &mut members, "the only member holds all", |held| shared(held, 2, 2..=2)).await?;
    let second = bench.subscriber_with("g", &topic, named).await?;
    let mut second = vec![second];
    poll_until(&bench, &mut second, "the second holder has all", |held| shared(held, 2, 2..=2)).await?;
    let deadline = bench.context().now() + Duration::from_secs(30);
    loop {
        ensure!(bench.context().now() < deadline, "the first holder was not told within 30 s");
        match members[0].poll(Duration::from_millis(200)).await {
            Err(error) if error.is_fatal() => break,
            _ => bench.poll_once(&mut *second[0], Duration::from_millis(50)).await.map(drop)?,
        }
    }
    second.remove(0).close().await?;
    Ok(())
}

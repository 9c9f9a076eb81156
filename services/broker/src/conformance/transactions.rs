//! Transactions: all of their records or none, offsets with them, and one holder of a name.

use std::sync::Arc;
use std::time::Duration;

use super::bench::{numbered, values};
use super::{Bench, Failure, case_list, ensure};
use crate::{Consumer, OffsetAndMetadata, Producer, ProducerRecord, Properties, TopicPartition};

case_list![
    committed_records_are_seen_whole_and_in_order[Transactions],
    aborted_records_are_not_seen_by_read_committed[Transactions],
    read_uncommitted_sees_aborted_records[Transactions],
    an_open_transaction_holds_readers_back[Transactions],
    latest_is_the_last_stable_offset_for_read_committed[Transactions],
    a_zombie_producer_is_fenced[Transactions],
    a_new_holder_ends_the_open_transaction[Transactions],
    offsets_are_committed_with_their_transaction[Transactions],
    offsets_of_an_aborted_transaction_are_not_committed[Transactions],
    offsets_of_an_open_transaction_are_untold_until_its_end[Transactions],
    a_member_that_its_group_went_on_without_cannot_commit_its_offsets[Transactions],
    a_transaction_that_takes_too_long_is_aborted[Transactions],
    one_producer_makes_many_transactions[Transactions],
    a_transaction_survives_the_restart_of_its_coordinator[Transactions, RestartBroker],
];

const TIMEOUT: Duration = Duration::from_secs(30);

/// A producer that has taken the transactional id `name`. Its transactions may take longer than a busy machine needs.
async fn transactional(bench: &Bench, name: &str, more: Properties) -> Result<Arc<dyn Producer>, Failure> {
    let id = Properties::new().set("transactional.id", bench.name(name));
    let producer = bench.producer_with(id.set("transaction.timeout.ms", 600_000).with(&more)).await?;
    bench.retried(async || producer.init_transactions(TIMEOUT).await).await?;
    Ok(producer)
}

async fn commit(bench: &Bench, producer: &dyn Producer) -> Result<(), Failure> {
    Ok(bench.retried(async || producer.commit_transaction(TIMEOUT).await).await?)
}

async fn abort(bench: &Bench, producer: &dyn Producer) -> Result<(), Failure> {
    Ok(bench.retried(async || producer.abort_transaction(TIMEOUT).await).await?)
}

/// One transaction with these values.
async fn transaction(
    bench: &Bench,
    producer: &dyn Producer,
    topic: &Arc<str>,
    values: Vec<String>,
) -> Result<(), Failure> {
    producer.begin_transaction().await?;
    bench.send_all(producer, topic, "k", values).await?;
    commit(bench, producer).await
}

async fn reader(bench: &Bench, topic: &Arc<str>, isolation: &str) -> Result<Box<dyn Consumer>, Failure> {
    let group = format!("g-{isolation}");
    bench.subscriber_with(&group, topic, Properties::new().set("isolation.level", isolation)).await
}

async fn committed_records_are_seen_whole_and_in_order(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    let producer = transactional(&bench, "p", Properties::new()).await?;
    transaction(&bench, &*producer, &topic, numbered("a", 10)).await?;
    transaction(&bench, &*producer, &topic, numbered("b", 10)).await?;
    let mut consumer = reader(&bench, &topic, "read_committed").await?;
    let got = bench.poll_count(&mut *consumer, 20).await?;
    let sent = [numbered("a", 10), numbered("b", 10)].concat();
    ensure!(values(&got) == sent, "committed and read differ: {:?}", values(&got));
    let offsets: Vec<_> = got.iter().map(|record| record.offset).collect();
    ensure!(offsets[10] == 11, "the first transaction's marker has an offset of its own: {offsets:?}");
    Ok(consumer.close().await?)
}

async fn aborted_records_are_not_seen_by_read_committed(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    let producer = transactional(&bench, "p", Properties::new()).await?;
    transaction(&bench, &*producer, &topic, numbered("before", 3)).await?;
    producer.begin_transaction().await?;
    bench.send_all(&*producer, &topic, "k", numbered("aborted", 5)).await?;
    abort(&bench, &*producer).await?;
    transaction(&bench, &*producer, &topic, numbered("after", 3)).await?;
    let mut consumer = reader(&bench, &topic, "read_committed").await?;
    let got = bench.poll_count(&mut *consumer, 6).await?;
    let committed = [numbered("before", 3), numbered("after", 3)].concat();
    ensure!(values(&got) == committed, "read {:?}", values(&got));
    let more = bench.poll_for(&mut *consumer, Duration::from_secs(1)).await?;
    ensure!(more.is_empty(), "read more than was committed: {:?}", values(&more));
    Ok(consumer.close().await?)
}

async fn read_uncommitted_sees_aborted_records(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    let producer = transactional(&bench, "p", Properties::new()).await?;
    producer.begin_transaction().await?;
    bench.send_all(&*producer, &topic, "k", numbered("aborted", 5)).await?;
    abort(&bench, &*producer).await?;
    let mut consumer = reader(&bench, &topic, "read_uncommitted").await?;
    let got = bench.poll_count(&mut *consumer, 5).await?;
    ensure!(values(&got) == numbered("aborted", 5), "read {:?}", values(&got));
    Ok(consumer.close().await?)
}

async fn an_open_transaction_holds_readers_back(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    let (open, plain) = (transactional(&bench, "p", Properties::new()).await?, bench.producer().await?);
    bench.send_all(&*plain, &topic, "k", ["before".into()]).await?;
    open.begin_transaction().await?;
    bench.send_all(&*open, &topic, "k", ["open".into()]).await?;
    bench.send_all(&*plain, &topic, "k", ["behind".into()]).await?;
    let mut patient = reader(&bench, &topic, "read_committed").await?;
    let mut hasty = reader(&bench, &topic, "read_uncommitted").await?;
    let seen = bench.poll_count(&mut *hasty, 3).await?;
    ensure!(values(&seen) == ["before", "open", "behind"], "read_uncommitted sees all: {:?}", values(&seen));
    let mut seen = values(&bench.poll_count(&mut *patient, 1).await?);
    seen.extend(values(&bench.poll_for(&mut *patient, Duration::from_secs(2)).await?));
    ensure!(seen == ["before"], "read_committed stops before an open transaction: {seen:?}");
    commit(&bench, &*open).await?;
    let rest = bench.poll_count(&mut *patient, 2).await?;
    ensure!(values(&rest) == ["open", "behind"], "and goes on when it ends: {:?}", values(&rest));
    patient.close().await?;
    Ok(hasty.close().await?)
}

async fn latest_is_the_last_stable_offset_for_read_committed(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    let open = transactional(&bench, "p", Properties::new()).await?;
    open.begin_transaction().await?;
    bench.send_all(&*open, &topic, "k", ["open".into()]).await?;
    // A reader that starts at the latest starts before the open transaction, and so sees it once it is committed.
    let more = Properties::new().set("isolation.level", "read_committed").set("auto.offset.reset", "latest");
    let mut consumer = bench.consumer_with("g", more).await?;
    let partition = TopicPartition::new(topic.clone(), 0);
    consumer.assign(std::slice::from_ref(&partition)).await?;
    let deadline = bench.context().now() + TIMEOUT;
    let mut early = Vec::new();
    while consumer.position(&partition).is_none() && bench.context().now() < deadline {
        early.extend(bench.poll_for(&mut *consumer, Duration::from_millis(100)).await?);
    }
    early.extend(bench.poll_for(&mut *consumer, Duration::from_secs(2)).await?);
    ensure!(early.is_empty(), "nothing is committed yet: {:?}", values(&early));
    let position = consumer.position(&partition);
    ensure!(position == Some(0), "it starts at the last stable offset, 0, not at {position:?}");
    commit(&bench, &*open).await?;
    let got = bench.poll_count(&mut *consumer, 1).await?;
    ensure!(values(&got) == ["open"], "read {:?}", values(&got));
    Ok(consumer.close().await?)
}

async fn a_zombie_producer_is_fenced(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    let zombie = transactional(&bench, "p", Properties::new()).await?;
    transaction(&bench, &*zombie, &topic, vec!["first".into()]).await?;
    let heir = transactional(&bench, "p", Properties::new()).await?;
    let zombies = async {
        zombie.begin_transaction().await?;
        zombie.send(ProducerRecord::new(topic.clone(), "k", "zombie")).await?;
        zombie.commit_transaction(TIMEOUT).await
    };
    let Err(error) = zombies.await else {
        return Err(Failure("a producer whose name was taken committed".into()));
    };
    ensure!(error.is_fatal(), "a fenced producer cannot go on, but got {error:?}");
    transaction(&bench, &*heir, &topic, vec!["second".into()]).await?;
    let mut consumer = reader(&bench, &topic, "read_committed").await?;
    let got = bench.poll_count(&mut *consumer, 2).await?;
    ensure!(values(&got) == ["first", "second"], "read {:?}", values(&got));
    Ok(consumer.close().await?)
}

async fn a_new_holder_ends_the_open_transaction(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    let crashed = transactional(&bench, "p", Properties::new()).await?;
    crashed.begin_transaction().await?;
    bench.send_all(&*crashed, &topic, "k", numbered("lost", 3)).await?;
    let heir = transactional(&bench, "p", Properties::new()).await?;
    transaction(&bench, &*heir, &topic, vec!["kept".into()]).await?;
    let mut consumer = reader(&bench, &topic, "read_committed").await?;
    let got = bench.poll_count(&mut *consumer, 1).await?;
    ensure!(values(&got) == ["kept"], "read {:?}", values(&got));
    Ok(consumer.close().await?)
}

/// A source of ten records, read by a member that has joined its group.
async fn source(bench: &Bench) -> Result<(Box<dyn Consumer>, TopicPartition), Failure> {
    let topic = bench.topic("source", 1).await?;
    let plain = bench.producer().await?;
    bench.send_all(&*plain, &topic, "k", numbered("in", 10)).await?;
    let mut consumer = bench.subscriber("g", &topic).await?;
    bench.poll_count(&mut *consumer, 10).await?;
    Ok((consumer, TopicPartition::new(topic, 0)))
}

async fn committed(bench: &Bench, at: &TopicPartition) -> Result<Option<i64>, Failure> {
    let offsets = bench.admin().await?.group_offsets(&bench.name("g")).await?;
    Ok(offsets.iter().find(|(partition, _)| partition == at).map(|(_, position)| position.offset))
}

async fn offsets_are_committed_with_their_transaction(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    let (consumer, source) = source(&bench).await?;
    let producer = transactional(&bench, "p", Properties::new()).await?;
    producer.begin_transaction().await?;
    bench.send_all(&*producer, &topic, "k", ["out".into()]).await?;
    let positions = [(source.clone(), OffsetAndMetadata::new(10))];
    producer.send_offsets_to_transaction(&positions, &consumer.group_metadata(), TIMEOUT).await?;
    commit(&bench, &*producer).await?;
    // The markers follow the answer.
    let (bench, source) = (&bench, &source);
    bench
        .eventually("the offset of a committed transaction is the group's", async || {
            Ok(matches!(committed(bench, source).await, Ok(Some(10))))
        })
        .await?;
    Ok(consumer.close().await?)
}

async fn offsets_of_an_aborted_transaction_are_not_committed(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    let (mut consumer, source) = source(&bench).await?;
    consumer.commit(&[(source.clone(), OffsetAndMetadata::new(4))]).await?;
    let producer = transactional(&bench, "p", Properties::new()).await?;
    producer.begin_transaction().await?;
    bench.send_all(&*producer, &topic, "k", ["out".into()]).await?;
    let positions = [(source.clone(), OffsetAndMetadata::new(10))];
    producer.send_offsets_to_transaction(&positions, &consumer.group_metadata(), TIMEOUT).await?;
    abort(&bench, &*producer).await?;
    // The markers follow the answer: a transaction after it, whose end is seen, shows that they were written.
    transaction(&bench, &*producer, &topic, vec!["after".into()]).await?;
    let mut readers = reader(&bench, &topic, "read_committed").await?;
    let got = bench.poll_count(&mut *readers, 1).await?;
    ensure!(values(&got) == ["after"], "read {:?}", values(&got));
    let position = consumer.committed(std::slice::from_ref(&source), TIMEOUT).await?;
    let position = position.first().map(|(_, position)| position.offset);
    ensure!(position == Some(4), "the group's offset is what was committed before, 4, not {position:?}");
    readers.close().await?;
    Ok(consumer.close().await?)
}

async fn offsets_of_an_open_transaction_are_untold_until_its_end(bench: Bench) -> Result<(), Failure> {
    let (mut member, source) = source(&bench).await?;
    member.commit(&[(source.clone(), OffsetAndMetadata::new(4))]).await?;
    let producer = transactional(&bench, "p", Properties::new()).await?;
    producer.begin_transaction().await?;
    let positions = [(source.clone(), OffsetAndMetadata::new(6))];
    producer.send_offsets_to_transaction(&positions, &member.group_metadata(), TIMEOUT).await?;
    let isolated = Properties::new().set("isolation.level", "read_committed");
    let mut reader = bench.consumer_with("g", isolated).await?;
    // Whether the group is at 6 is not decided, so nobody is told that it is, or that it is not (KIP-447). librdkafka asks
    // three times and then starts by `auto.offset.reset` all the same: so the question is put, and nothing is read.
    let early = reader.committed(std::slice::from_ref(&source), Duration::from_secs(2)).await;
    ensure!(early.is_err(), "while the transaction is open it was told {early:?}");
    let before = committed(&bench, &source).await?;
    ensure!(before == Some(4), "an admin is told where the group was before, 4, not {before:?}");
    commit(&bench, &*producer).await?;
    let deadline = bench.context().now() + TIMEOUT;
    loop {
        let told = reader.committed(std::slice::from_ref(&source), TIMEOUT).await;
        if let Ok(told) = &told {
            let offsets: Vec<_> = told.iter().map(|(_, position)| position.offset).collect();
            ensure!(offsets == [6], "committed were 6, and it was told {offsets:?}");
            break;
        }
        ensure!(bench.context().now() < deadline, "the transaction has ended, and it was told {told:?}");
        bench.context().sleep(Duration::from_millis(100)).await;
    }
    reader.close().await?;
    Ok(member.close().await?)
}

async fn a_member_that_its_group_went_on_without_cannot_commit_its_offsets(
    bench: Bench,
) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    let (consumer, source) = source(&bench).await?;
    let stale = consumer.group_metadata();
    consumer.close().await?;
    let mut next = bench.subscriber("g", &source.topic).await?;
    bench.poll_count(&mut *next, 10).await?;
    let producer = transactional(&bench, "p", Properties::new()).await?;
    producer.begin_transaction().await?;
    bench.send_all(&*producer, &topic, "k", ["out".into()]).await?;
    let positions = [(source.clone(), OffsetAndMetadata::new(10))];
    let sent = producer.send_offsets_to_transaction(&positions, &stale, TIMEOUT).await;
    let Err(error) = sent else {
        return Err(Failure("a member of an earlier generation gave its offsets to a transaction".into()));
    };
    ensure!(
        !error.is_retriable() && !error.is_fatal(),
        "the producer can abort and go on, but got {error:?}"
    );
    abort(&bench, &*producer).await?;
    let position = committed(&bench, &source).await?;
    ensure!(position.is_none(), "nothing was committed, but the group is at {position:?}");
    transaction(&bench, &*producer, &topic, vec!["on".into()]).await?;
    Ok(next.close().await?)
}

async fn a_transaction_that_takes_too_long_is_aborted(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    let more = Properties::new().set("transaction.timeout.ms", 15_000).set("message.timeout.ms", 15_000);
    let slow = transactional(&bench, "p", more).await?;
    slow.begin_transaction().await?;
    bench.send_all(&*slow, &topic, "k", ["slow".into()]).await?;
    let plain = bench.producer().await?;
    bench.send_all(&*plain, &topic, "k", ["behind".into()]).await?;
    // The coordinator looks every 10 s; then the reader is no longer held back.
    let mut consumer = reader(&bench, &topic, "read_committed").await?;
    let got = bench.poll_count(&mut *consumer, 1).await?;
    ensure!(values(&got) == ["behind"], "read {:?}", values(&got));
    let Err(error) = slow.commit_transaction(TIMEOUT).await else {
        return Err(Failure("a transaction that was aborted for its age was committed".into()));
    };
    ensure!(!error.is_retriable(), "calling again is of no use, but got {error:?}");
    Ok(consumer.close().await?)
}

async fn one_producer_makes_many_transactions(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 3).await?;
    let producer = transactional(&bench, "p", Properties::new()).await?;
    let mut expected = Vec::new();
    for number in 0..20 {
        producer.begin_transaction().await?;
        let values = numbered(&format!("t{number}"), 3);
        for (index, value) in values.iter().enumerate() {
            producer.send(ProducerRecord::new(topic.clone(), format!("k{index}"), value.clone())).await?;
        }
        if number % 3 == 2 {
            abort(&bench, &*producer).await?;
        } else {
            commit(&bench, &*producer).await?;
            expected.extend(values);
        }
    }
    let mut consumer = reader(&bench, &topic, "read_committed").await?;
    let mut got = values(&bench.poll_count(&mut *consumer, expected.len()).await?);
    got.extend(values(&bench.poll_for(&mut *consumer, Duration::from_secs(1)).await?));
    got.sort();
    expected.sort();
    ensure!(got == expected, "committed and read differ: {got:?}");
    Ok(consumer.close().await?)
}

async fn a_transaction_survives_the_restart_of_its_coordinator(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    let producer = transactional(&bench, "p", Properties::new()).await?;
    producer.begin_transaction().await?;
    bench.send_all(&*producer, &topic, "k", numbered("v", 5)).await?;
    // One of the brokers is the coordinator.
    for broker in bench.brokers().await? {
        bench.subject().restart_broker(broker).await?;
        bench.serving_again(broker).await?;
    }
    commit(&bench, &*producer).await?;
    transaction(&bench, &*producer, &topic, vec!["after".into()]).await?;
    let mut consumer = reader(&bench, &topic, "read_committed").await?;
    let got = bench.poll_count(&mut *consumer, 6).await?;
    let mut expected = numbered("v", 5);
    expected.push("after".into());
    ensure!(values(&got) == expected, "read {:?}", values(&got));
    Ok(consumer.close().await?)
}

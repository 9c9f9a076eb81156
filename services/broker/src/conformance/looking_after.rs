//! Looking after a cluster that runs: its brokers, settings, groups, and who leads.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::bench::numbered;
use super::{Bench, Failure, case_list, ensure};
use crate::{
    Admin, ConfigChange, ConfigEntry, ConfigResource, ConfigSource, Consumer, ElectionType, Error, ErrorCode,
    NewTopic, Properties, TopicPartition,
};

case_list![
    the_cluster_tells_its_brokers,
    a_topics_setting_changes_and_goes_back,
    a_list_grows_and_shrinks_by_a_word,
    a_value_that_is_none_changes_nothing,
    a_broker_takes_a_setting_of_its_own,
    a_group_is_listed_and_described_with_its_members,
    a_group_that_nobody_made_is_dead,
    a_group_with_members_is_not_deleted,
    what_a_group_committed_is_forgotten_when_nobody_reads_it,
    an_election_that_is_not_needed_changes_nothing,
    the_first_replica_leads_again_after_an_election[RestartBroker],
];

/// The error is this one of Kafka's.
fn is<T>(result: &Result<T, Error>, code: i16) -> bool {
    matches!(result, Err(error) if error.code == ErrorCode::Broker(code))
}

async fn the_cluster_tells_its_brokers(bench: Bench) -> Result<(), Failure> {
    // A broker tells of the others what it has heard, and hears of one that starts a little later.
    let there = bench.brokers().await?;
    let admin = bench.admin().await?;
    bench
        .eventually(&format!("the cluster tells of the brokers {there:?}, which hold replicas"), async || {
            let cluster = admin.describe_cluster().await?;
            let told: BTreeSet<i32> = cluster.brokers.iter().map(|broker| broker.node_id).collect();
            Ok(told.is_superset(&there))
        })
        .await?;
    let cluster = admin.describe_cluster().await?;
    ensure!(
        cluster.controller.is_some_and(|it| cluster.brokers.iter().any(|broker| broker.node_id == it)),
        "one of the brokers takes the controller's requests: {cluster:?}"
    );
    ensure!(!cluster.cluster_id.is_empty(), "a cluster has an id: {cluster:?}");
    let reached = |host: &str, port: u16| !host.is_empty() && port > 0;
    ensure!(
        cluster.brokers.iter().all(|broker| reached(&broker.host, broker.port)),
        "each broker has an address: {cluster:?}"
    );
    Ok(())
}

async fn entry(admin: &dyn Admin, of: &ConfigResource, name: &str) -> Result<ConfigEntry, Failure> {
    let described = admin.describe_configs(std::slice::from_ref(of)).await?;
    let found = described.first().and_then(|(_, entries)| entries.get(name)).cloned();
    found.ok_or_else(|| Failure(format!("{of:?} has no `{name}`")))
}

/// Waits until a setting has this value from there; brokers learn it after the controller.
async fn becomes(
    bench: &Bench,
    admin: &dyn Admin,
    of: &ConfigResource,
    name: &str,
    wanted: (&str, ConfigSource),
) -> Result<(), Failure> {
    bench
        .eventually(&format!("`{name}` of {of:?} is {wanted:?}"), async || {
            let entry = entry(admin, of, name).await?;
            Ok((entry.value.as_deref(), entry.source) == (Some(wanted.0), wanted.1))
        })
        .await
}

fn change(name: &str, change: ConfigChange) -> [(String, ConfigChange); 1] {
    [(name.to_owned(), change)]
}

async fn a_topics_setting_changes_and_goes_back(bench: Bench) -> Result<(), Failure> {
    const NAME: &str = "retention.ms";
    let topic = ConfigResource::Topic(bench.topic("t", 1).await?.to_string());
    let admin = &*bench.admin().await?;
    let before = entry(admin, &topic, NAME).await?;
    ensure!(before.source != ConfigSource::Topic, "nobody has set it yet: {before:?}");
    let before_value = before.value.clone().unwrap_or_default();
    admin.alter_configs(&topic, &change(NAME, ConfigChange::Set("86400000".into()))).await?;
    becomes(&bench, admin, &topic, NAME, ("86400000", ConfigSource::Topic)).await?;
    // What is not named stays.
    admin.alter_configs(&topic, &change("segment.ms", ConfigChange::Set("3600000".into()))).await?;
    becomes(&bench, admin, &topic, "segment.ms", ("3600000", ConfigSource::Topic)).await?;
    becomes(&bench, admin, &topic, NAME, ("86400000", ConfigSource::Topic)).await?;
    admin.alter_configs(&topic, &change(NAME, ConfigChange::Delete)).await?;
    becomes(&bench, admin, &topic, NAME, (&before_value, before.source)).await
}

async fn a_list_grows_and_shrinks_by_a_word(bench: Bench) -> Result<(), Failure> {
    const NAME: &str = "cleanup.policy";
    let topic = ConfigResource::Topic(bench.topic("t", 1).await?.to_string());
    let admin = &*bench.admin().await?;
    admin.alter_configs(&topic, &change(NAME, ConfigChange::Append("compact".into()))).await?;
    becomes(&bench, admin, &topic, NAME, ("delete,compact", ConfigSource::Topic)).await?;
    admin.alter_configs(&topic, &change(NAME, ConfigChange::Subtract("delete".into()))).await?;
    becomes(&bench, admin, &topic, NAME, ("compact", ConfigSource::Topic)).await
}

async fn a_value_that_is_none_changes_nothing(bench: Bench) -> Result<(), Failure> {
    let name = bench.topic("t", 1).await?;
    let topic = ConfigResource::Topic(name.to_string());
    let admin = &*bench.admin().await?;
    let both = [
        ("segment.ms".to_owned(), ConfigChange::Set("3600000".into())),
        ("retention.ms".to_owned(), ConfigChange::Set("for good".into())),
    ];
    let refused = admin.alter_configs(&topic, &both).await;
    ensure!(is(&refused, 40), "words for a number: {refused:?}");
    // Brokers learn of changes in their order.
    admin.alter_configs(&topic, &change("max.message.bytes", ConfigChange::Set("5000".into()))).await?;
    becomes(&bench, admin, &topic, "max.message.bytes", ("5000", ConfigSource::Topic)).await?;
    let other = entry(admin, &topic, "segment.ms").await?;
    ensure!(other.source != ConfigSource::Topic, "the other was set all the same: {other:?}");
    let nobodys = ConfigResource::Topic(bench.name("nobody-made-this"));
    let refused = admin.alter_configs(&nobodys, &both).await;
    ensure!(is(&refused, 40), "words for a number, of a topic that is not there: {refused:?}");
    let refused = admin.alter_configs(&nobodys, &both[..1]).await;
    ensure!(is(&refused, 3), "a topic that is not there: {refused:?}");
    Ok(())
}

async fn a_broker_takes_a_setting_of_its_own(bench: Bench) -> Result<(), Failure> {
    // As large as it is anyway, so that nobody else on the cluster notices.
    const NAME: &str = "max.connections";
    const VALUE: &str = "2147483646";
    let admin = &*bench.admin().await?;
    let brokers = bench.brokers().await?;
    let broker = ConfigResource::Broker(*brokers.first().expect("a topic's replicas are on brokers"));
    let before = entry(admin, &broker, NAME).await?;
    let before_value = before.value.clone().unwrap_or_default();
    admin.alter_configs(&broker, &change(NAME, ConfigChange::Set(VALUE.into()))).await?;
    becomes(&bench, admin, &broker, NAME, (VALUE, ConfigSource::DynamicBroker)).await?;
    admin.alter_configs(&broker, &change(NAME, ConfigChange::Delete)).await?;
    becomes(&bench, admin, &broker, NAME, (&before_value, before.source)).await?;
    let refused = admin.alter_configs(&broker, &change("broker.id", ConfigChange::Set("17".into()))).await;
    ensure!(is(&refused, 42), "what a broker is started with does not change: {refused:?}");
    Ok(())
}

/// A member that holds its partitions and has read ten records.
async fn reader(bench: &Bench, topic: &Arc<str>, more: Properties) -> Result<Box<dyn Consumer>, Failure> {
    let producer = bench.producer().await?;
    bench.send_all(&*producer, topic, "k", numbered("v", 10)).await?;
    let mut consumer = bench.subscriber_with("g", topic, more).await?;
    let records = bench.poll_count(&mut *consumer, 10).await?;
    bench.commit_all(&mut *consumer, &records).await?;
    Ok(consumer)
}

async fn a_group_is_listed_and_described_with_its_members(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 3).await?;
    let named = Properties::new().set("client.id", "till").set("group.instance.id", "till-1");
    let consumer = reader(&bench, &topic, named).await?;
    let (admin, group) = (bench.admin().await?, bench.name("g"));
    let listed = admin.list_groups().await?;
    let ours: Vec<_> = listed.iter().filter(|listing| listing.group_id == group).collect();
    ensure!(ours.len() == 1, "{group} is listed once: {ours:?}");
    ensure!((&*ours[0].protocol_type, &*ours[0].state) == ("consumer", "Stable"), "listed: {:?}", ours[0]);
    ensure!(listed.is_sorted_by_key(|listing| &listing.group_id), "groups are listed by id: {listed:?}");
    let described = admin.describe_groups(&[&group]).await?;
    ensure!(described.len() == 1 && described[0].group_id == group, "described: {described:?}");
    let found = &described[0];
    ensure!((&*found.protocol_type, &*found.state) == ("consumer", "Stable"), "described: {found:?}");
    ensure!(!found.assignor.is_empty(), "a stable group has agreed on an assignor: {found:?}");
    ensure!(found.members.len() == 1, "one member joined: {found:?}");
    let member = &found.members[0];
    ensure!(member.client_id == "till", "its client.id: {member:?}");
    ensure!(member.group_instance_id.as_deref() == Some("till-1"), "its group.instance.id: {member:?}");
    ensure!(!member.member_id.is_empty() && !member.client_host.is_empty(), "its id and host: {member:?}");
    let mut held = member.assignment.clone();
    held.sort();
    let all: Vec<_> = (0..3).map(|number| TopicPartition::new(topic.clone(), number)).collect();
    ensure!(held == all, "it alone holds every partition: {member:?}");
    Ok(consumer.close().await?)
}

async fn a_group_that_nobody_made_is_dead(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    let consumer = reader(&bench, &topic, Properties::new()).await?;
    let (known, unknown) = (bench.name("g"), bench.name("nobody-made-this"));
    let described = bench.admin().await?.describe_groups(&[&unknown, &known]).await?;
    let told: Vec<_> = described.iter().map(|group| (&*group.group_id, &*group.state)).collect();
    ensure!(told == [(&*unknown, "Dead"), (&*known, "Stable")], "in the order asked for: {told:?}");
    ensure!(described[0].members.is_empty(), "nobody is in it: {:?}", described[0]);
    Ok(consumer.close().await?)
}

/// Waits until the members that left are gone.
async fn is_empty(bench: &Bench, admin: &dyn Admin, group: &str) -> Result<(), Failure> {
    bench
        .eventually("the group is empty", async || {
            let described = admin.describe_groups(&[group]).await?;
            Ok(described.first().is_some_and(|group| group.state == "Empty" && group.members.is_empty()))
        })
        .await
}

async fn a_group_with_members_is_not_deleted(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    let consumer = reader(&bench, &topic, Properties::new()).await?;
    let (admin, group) = (&*bench.admin().await?, &*bench.name("g"));
    let refused = admin.delete_groups(&[group]).await;
    ensure!(is(&refused, 68), "somebody is in it: {refused:?}");
    consumer.close().await?;
    is_empty(&bench, admin, group).await?;
    admin.delete_groups(&[group]).await?;
    let offsets = admin.group_offsets(group).await?;
    ensure!(offsets.is_empty(), "its offsets went with it: {offsets:?}");
    let again = admin.delete_groups(&[group]).await;
    ensure!(is(&again, 69), "a second deletion: {again:?}");
    Ok(())
}

async fn what_a_group_committed_is_forgotten_when_nobody_reads_it(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 1).await?;
    let at = TopicPartition::new(topic.clone(), 0);
    let consumer = reader(&bench, &topic, Properties::new()).await?;
    let (admin, group) = (&*bench.admin().await?, &*bench.name("g"));
    let refused = admin.delete_group_offsets(group, std::slice::from_ref(&at)).await;
    ensure!(is(&refused, 86), "a member reads it: {refused:?}");
    consumer.close().await?;
    is_empty(&bench, admin, group).await?;
    let kept = admin.group_offsets(group).await?;
    ensure!(kept.len() == 1 && kept[0].0 == at, "committed: {kept:?}");
    admin.delete_group_offsets(group, std::slice::from_ref(&at)).await?;
    let forgotten = admin.group_offsets(group).await?;
    ensure!(forgotten.is_empty(), "still committed: {forgotten:?}");
    let nobodys = admin.delete_group_offsets(&bench.name("nobody-made-this"), &[at]).await;
    ensure!(is(&nobodys, 69), "a group that is not there: {nobodys:?}");
    Ok(())
}

async fn an_election_that_is_not_needed_changes_nothing(bench: Bench) -> Result<(), Failure> {
    let topic = bench.topic("t", 2).await?;
    let admin = bench.admin().await?;
    let before = admin.describe_topics(&[&topic]).await?;
    let all: Vec<_> = (0..2).map(|number| TopicPartition::new(topic.clone(), number)).collect();
    admin.elect_leaders(ElectionType::Preferred, &all).await?;
    let after = admin.describe_topics(&[&topic]).await?;
    ensure!(before == after, "before {before:?}, after {after:?}");
    let nobodys = TopicPartition::new(bench.name("nobody-made-this"), 0);
    let refused = admin.elect_leaders(ElectionType::Preferred, &[nobodys]).await;
    ensure!(is(&refused, 3), "a topic that is not there: {refused:?}");
    Ok(())
}

async fn the_first_replica_leads_again_after_an_election(bench: Bench) -> Result<(), Failure> {
    let name = bench.name("t");
    let topic = NewTopic { replication_factor: Some(3), ..NewTopic::new(name.clone(), 1) };
    bench.create(topic).await?;
    let admin = &*bench.admin().await?;
    let asked = &*name;
    let see = async |sentence: &str, holds: &(dyn Fn(Option<i32>, &[i32]) -> bool + Sync)| {
        bench
            .eventually(sentence, async || {
                let Ok(described) = admin.describe_topics(&[asked]).await else { return Ok(false) };
                let partition = described.first().and_then(|topic| topic.partitions.first());
                Ok(partition.is_some_and(|found| holds(found.leader, &found.in_sync)))
            })
            .await
    };
    see("all replicas are in sync", &|_, in_sync| in_sync.len() == 3).await?;
    let described = admin.describe_topics(&[asked]).await?;
    let partition = described.first().and_then(|topic| topic.partitions.first());
    let first = partition.and_then(|partition| partition.replicas.first()).copied();
    let first = first.ok_or_else(|| Failure(format!("nobody has the topic: {described:?}")))?;
    bench.subject().kill_broker(first).await?;
    see("another leads", &|leader, _| leader.is_some_and(|leader| leader != first)).await?;
    bench.subject().start_broker(first).await?;
    see("the first is in sync again", &|_, in_sync| in_sync.contains(&first)).await?;
    let at = [TopicPartition::new(name.clone(), 0)];
    bench.retried(|| admin.elect_leaders(ElectionType::Preferred, &at)).await?;
    see("the first leads again", &|leader, _| leader == Some(first)).await?;
    bench.serving_again(first).await
}

//! Claims about the admin client.

use std::time::Duration;

use broker::{
    Admin, ConfigChange, ConfigResource, ConfigSource, ElectionType, Error, ErrorCode, OffsetAndMetadata,
    OffsetSpec, ProducerRecord, Properties, TopicPartition,
};

use super::{Claim, Desk, PATIENCE, commit, member, record, send};

macro_rules! claims {
    ($($name:ident),+ $(,)?) => {
        pub(crate) const CLAIMS: &[Claim] = &[$((stringify!($name), |desk| Box::pin($name(desk)))),+];
    };
}

claims![
    a_cluster_is_described_with_its_brokers,
    a_topic_grows_and_takes_records_in_its_new_partitions,
    deleted_records_move_the_start_of_the_log,
    settings_are_changed_one_by_one,
    groups_are_listed_described_and_deleted,
    transactions_and_producers_are_described,
    a_preferred_leader_that_leads_already_needs_no_election,
    the_record_with_the_largest_time_is_found,
];

async fn admin(desk: &Desk) -> std::sync::Arc<dyn Admin> {
    desk.broker.admin(&Properties::new()).await.expect("sound properties")
}

fn code(error: &Error) -> i16 {
    match error.code {
        ErrorCode::Broker(code) => code,
        other => panic!("not a broker's word: {other:?}"),
    }
}

async fn a_cluster_is_described_with_its_brokers(desk: Desk) {
    let cluster = admin(&desk).await.describe_cluster().await.expect("described");
    let nodes: Vec<i32> = cluster.brokers.iter().map(|broker| broker.node_id).collect();
    assert_eq!(nodes, [1, 2, 3]);
    assert!(cluster.controller.is_some_and(|node| nodes.contains(&node)), "{:?}", cluster.controller);
    assert!(!cluster.cluster_id.is_empty());
}

async fn a_topic_grows_and_takes_records_in_its_new_partitions(desk: Desk) {
    let topic = desk.topic("grows", 1).await;
    let admin = admin(&desk).await;
    admin.create_partitions(&topic, 3).await.expect("grown");
    let producer = desk.broker.producer(&desk.properties(&[])).await.expect("sound properties");
    let new = ProducerRecord { partition: Some(2), ..record(&topic, "new") };
    producer.send(new).await.expect("there is a partition 2");
    let error = admin.create_partitions(&topic, 2).await.expect_err("a topic does not shrink");
    assert_eq!(code(&error), 37, "{error}");
    let error = admin.create_partitions("no-such-topic", 2).await.expect_err("there is none");
    assert_eq!(code(&error), 3, "{error}");
}

async fn deleted_records_move_the_start_of_the_log(desk: Desk) {
    let topic = desk.topic("cut", 1).await;
    let producer = desk.broker.producer(&desk.properties(&[])).await.expect("sound properties");
    for value in ["0", "1", "2", "3"] {
        producer.send(record(&topic, value)).await.expect("sent");
    }
    let at = TopicPartition::new(topic.clone(), 0);
    let admin = admin(&desk).await;
    let starts = admin.delete_records(&[(at.clone(), 3)]).await.expect("deleted");
    assert_eq!(starts, [(at.clone(), 3)]);
    assert_eq!(desk.read(&topic, "read_uncommitted").await, ["3"]);
    let error = admin.delete_records(&[(at.clone(), 9)]).await.expect_err("beyond the end");
    assert_eq!(code(&error), 1, "{error}");
    let starts = admin.delete_records(&[(at.clone(), -1)]).await.expect("deleted up to the high watermark");
    assert_eq!(starts, [(at, 4)]);
}

async fn settings_are_changed_one_by_one(desk: Desk) {
    let topic = desk.topic("settings", 1).await;
    let admin = admin(&desk).await;
    let resource = ConfigResource::Topic(topic.to_string());
    // Brokers hear of a topic each in its time.
    desk.eventually("it is described", || async {
        admin.describe_configs(std::slice::from_ref(&resource)).await.is_ok()
    })
    .await;
    let setting = async |name: &str| {
        let described = admin.describe_configs(std::slice::from_ref(&resource)).await.expect("described");
        described[0].1[name].clone()
    };
    assert_eq!(setting("cleanup.policy").await.value.as_deref(), Some("delete"));
    let change = |name: &str, change| (name.to_owned(), change);
    let changes = [
        change("retention.ms", ConfigChange::Set("1000".into())),
        change("cleanup.policy", ConfigChange::Append("compact".into())),
    ];
    admin.alter_configs(&resource, &changes).await.expect("changed");
    // Each broker learns of it in its own time.
    desk.eventually("both are changed", || async {
        let retention = setting("retention.ms").await;
        retention.value.as_deref() == Some("1000")
            && retention.source == ConfigSource::Topic
            && setting("cleanup.policy").await.value.as_deref() == Some("delete,compact")
    })
    .await;
    admin.alter_configs(&resource, &[change("retention.ms", ConfigChange::Delete)]).await.expect("changed");
    desk.eventually("one is as before", || async {
        setting("retention.ms").await.source != ConfigSource::Topic
    })
    .await;
    let wrong = [change("retention.ms", ConfigChange::Set("soon".into()))];
    let error = admin.alter_configs(&resource, &wrong).await.expect_err("not a number");
    assert_eq!(code(&error), 40, "{error}");
    let broker = admin.describe_configs(&[ConfigResource::Broker(1)]).await.expect("described");
    assert!(broker[0].1.contains_key("num.partitions"));
}

async fn groups_are_listed_described_and_deleted(desk: Desk) {
    let topic = desk.topic("groups", 2).await;
    let group = desk.name("groups");
    let admin = admin(&desk).await;
    let mut consumer = member(&desk, &group, &topic).await;
    while consumer.assignment().is_empty() {
        consumer.poll(Duration::from_millis(200)).await.expect("it joins");
    }
    let at = TopicPartition::new(topic.clone(), 0);
    consumer.commit(&[(at.clone(), OffsetAndMetadata::new(0))]).await.expect("committed");
    let listed = admin.list_groups().await.expect("listed");
    let found = listed.iter().find(|listed| listed.group_id == group).expect("it is listed");
    assert_eq!(found.protocol_type, "consumer");
    let described = admin.describe_groups(&[&group, "no-such-group"]).await.expect("described");
    assert_eq!((described[0].state.as_str(), described[0].members.len()), ("Stable", 1));
    assert_eq!(described[0].members[0].assignment, [at.clone(), TopicPartition::new(topic.clone(), 1)]);
    assert_eq!(described[1].state, "Dead");
    let error = admin.delete_groups(&[&group]).await.expect_err("it has a member");
    assert_eq!(code(&error), 68, "{error}");
    let error = admin
        .delete_group_offsets(&group, std::slice::from_ref(&at))
        .await
        .expect_err("its topic is being read");
    assert_eq!(code(&error), 86, "{error}");
    consumer.close().await.expect("closed");
    admin.delete_group_offsets(&group, &[at]).await.expect("forgotten");
    assert!(admin.group_offsets(&group).await.expect("known").is_empty());
    // Without offsets and members the coordinator may have dropped it by itself.
    if let Err(error) = admin.delete_groups(&[&group]).await {
        assert_eq!(code(&error), 69, "{error}");
    }
}

async fn transactions_and_producers_are_described(desk: Desk) {
    let topic = desk.topic("described", 1).await;
    let id = desk.name("described");
    let admin = admin(&desk).await;
    let producer = desk.producer("described", &[]).await;
    producer.begin_transaction().await.expect("begun");
    send(&producer, &topic, "a").await.expect("sent");
    let listed = admin.list_transactions().await.expect("listed");
    let found = listed.iter().find(|listed| listed.transactional_id == id).expect("it is listed");
    assert_eq!(found.state, "Ongoing");
    let described = admin.describe_transactions(&[&id]).await.expect("described").remove(0);
    let at = TopicPartition::new(topic.clone(), 0);
    assert_eq!((described.state.as_str(), &described.partitions[..]), ("Ongoing", &[at.clone()][..]));
    assert!(described.began.is_some() && described.timeout == Duration::from_secs(60));
    let producers = admin.describe_producers(&at).await.expect("described");
    assert_eq!(producers.len(), 1);
    assert_eq!(producers[0].producer_id, described.producer_id);
    assert_eq!((producers[0].transaction_start, producers[0].last_sequence), (Some(0), 0));
    commit(&producer).await;
    desk.eventually("its transaction is over", || async {
        let producers = admin.describe_producers(&at).await.expect("described");
        producers[0].transaction_start.is_none()
    })
    .await;
    let error = admin.describe_transactions(&["no-such-id"]).await.expect_err("there is none");
    assert_eq!(code(&error), 105, "{error}");
}

async fn a_preferred_leader_that_leads_already_needs_no_election(desk: Desk) {
    let topic = desk.topic("elect", 1).await;
    let at = TopicPartition::new(topic.clone(), 0);
    let admin = admin(&desk).await;
    admin.elect_leaders(ElectionType::Preferred, std::slice::from_ref(&at)).await.expect("nothing to do");
    let nowhere = TopicPartition::new("no-such-topic", 0);
    let error = admin.elect_leaders(ElectionType::Preferred, &[nowhere]).await.expect_err("there is none");
    assert_eq!(code(&error), 3, "{error}");
}

async fn the_record_with_the_largest_time_is_found(desk: Desk) {
    let topic = desk.topic("largest", 1).await;
    let producer = desk.broker.producer(&desk.properties(&[])).await.expect("sound properties");
    let now = desk.context.now();
    for (value, earlier) in [("a", 3), ("b", 1), ("c", 2)] {
        let timestamp = Some(now - Duration::from_secs(earlier));
        producer.send(ProducerRecord { timestamp, ..record(&topic, value) }).await.expect("sent");
    }
    let at = TopicPartition::new(topic.clone(), 0);
    let asked = [(at.clone(), OffsetSpec::LargestTimestamp)];
    let found = admin(&desk).await.list_offsets(&asked).await.expect("found");
    assert_eq!(found, [(at, 1)]);
    producer.close(PATIENCE).await.expect("closed");
}

//! Topics: Metadata, which may make them, CreateTopics and DeleteTopics.

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::*;

use crate::support::Bench;
use crate::support::verbs::*;
use crate::{bench, error_of, expect, leader, topic_id};

/// Versions 10 and 11 have a place for a topic's id in the question and none for a topic without a name in the answer.
#[test]
fn metadata_by_id_is_for_versions_that_can_answer_it() {
    let mut bench = bench();
    let id = topic_id(&mut bench);
    for (version, error) in [(10, 42), (11, 42), (12, 0)] {
        let topic = MetadataRequestTopic::default().with_name(None).with_topic_id(id);
        let request = MetadataRequest::default().with_topics(Some(vec![topic]));
        let response = expect!(Metadata, bench.ask(1, ApiKey::Metadata, version, request));
        assert_eq!(response.topics[0].error_code, error, "version {version}");
    }
    let unknown = MetadataRequestTopic::default().with_name(None).with_topic_id(uuid::Uuid::from_u128(7));
    let request = MetadataRequest::default().with_topics(Some(vec![unknown]));
    let response = expect!(Metadata, bench.ask(1, ApiKey::Metadata, 11, request));
    assert_eq!(response.topics[0].error_code, 42);
}

#[test]
fn a_topic_that_a_client_names_is_made_if_it_may_be() {
    let mut bench = Bench::new(2, &[("num.partitions", "4")]);
    let ask = |bench: &mut Bench, name: &str, allow| {
        let topic = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
        let request =
            MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(allow);
        expect!(Metadata, bench.ask(1, ApiKey::Metadata, 9, request)).topics[0].clone()
    };
    assert_eq!(ask(&mut bench, "fresh", false).error_code, 3);
    assert_eq!(ask(&mut bench, "fresh", false).error_code, 3, "nobody allowed it");
    assert_eq!(ask(&mut bench, "fresh", true).error_code, 3, "it is asked for, and not there yet");
    let made = ask(&mut bench, "fresh", true);
    assert_eq!((made.error_code, made.partitions.len()), (0, 4));
    assert_eq!(ask(&mut bench, "not/legal", true).error_code, 17);

    let mut bench = Bench::new(1, &[("auto.create.topics.enable", "false")]);
    for _ in 0..3 {
        assert_eq!(ask(&mut bench, "fresh", true).error_code, 3);
    }
}

#[test]
fn topics_are_refused_with_kafkas_codes() {
    let mut bench = bench();
    assert_eq!(bench.create_topic("orders", 1, &[]), 36);
    assert_eq!(bench.create_topic("no spaces", 1, &[]), 17);
    assert_eq!(bench.create_topic("order_events", 1, &[]), 0);
    assert_eq!(bench.create_topic("order.events", 1, &[]), 17, "both are order_events to Kafka's metrics");
    assert_eq!(bench.create_topic("none", 0, &[]), 37);
    assert_eq!(bench.create_topic("huge", i32::MAX, &[]), 44);
    assert_eq!(bench.create_topic("odd", 1, &[("no.such", "1")]), 40);
    assert_eq!(bench.create_topic("odd", 1, &[("cleanup.policy", "burn")]), 40);
    assert_eq!(bench.create_topic("fine", 1, &[("cleanup.policy", "compact")]), 0);
}

#[test]
fn leaders_go_round_the_brokers() {
    let bench = bench();
    let leaders: std::collections::BTreeSet<_> =
        (0..3).map(|partition| bench.leader_of("orders", partition).0).collect();
    assert_eq!(leaders.len(), 3);
}

#[test]
fn a_deleted_topic_takes_its_records_and_its_commits_along() {
    let mut bench = bench();
    let (node, coordinator) = (leader(&bench), bench.coordinator("group"));
    bench.produce(node, "orders", 0, batch(&["a"]));
    assert_eq!(bench.commit(coordinator, "group", "", -1, ("orders", 0, 1)), 0);
    assert_eq!(bench.committed(coordinator, "group", "orders", 0), (0, 1));
    let request = DeleteTopicsRequest::default().with_topic_names(vec![topic_name("orders")]);
    assert_eq!(error_of(&bench.ask(1, ApiKey::DeleteTopics, 5, request)), 0);
    assert_eq!(bench.produce(node, "orders", 0, batch(&["a"])).0, 3);
    assert_eq!(bench.create_topic("orders", 3, &[]), 0);
    let node = leader(&bench);
    assert_eq!(bench.fetch(node, "orders", 0, 0), (0, 0, vec![]));
    assert_eq!(bench.committed(coordinator, "group", "orders", 0), (0, -1));
}

#[test]
fn names_that_collide_are_refused_when_one_of_them_is_there_and_not_together() {
    use kafka_protocol::messages::create_topics_request::CreatableTopic;
    let mut bench = Bench::new(1, &[]);
    let mut create = |names: &[&str], validate_only| {
        let topic = |name: &&str| {
            CreatableTopic::default()
                .with_name(topic_name(name))
                .with_num_partitions(1)
                .with_replication_factor(1)
        };
        let request = CreateTopicsRequest::default()
            .with_topics(names.iter().map(topic).collect())
            .with_timeout_ms(1_000)
            .with_validate_only(validate_only);
        let response = expect!(CreateTopics, bench.ask(1, ApiKey::CreateTopics, 7, request));
        response.topics.iter().map(|topic| (topic.error_code, topic.topic_id.is_nil())).collect::<Vec<_>>()
    };
    assert_eq!(create(&["a.b", "a_b"], true), [(0, false); 2], "an id is told of what is only asked for");
    assert_eq!(create(&["a.b", "a_b"], false), [(0, false); 2]);
    assert_eq!(create(&["a.b", "a_b"], false), [(36, true); 2]);
    assert_eq!(create(&["c.d"], false), [(0, false)]);
    assert_eq!(create(&["c_d"], false), [(17, true)]);
}

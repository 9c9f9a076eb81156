//! What admin tools see: settings and where they come from, topics page by page, elections that they ask for.

mod support;

use kafka_protocol::messages::alter_configs_request::{
    AlterConfigsResource as LegacyResource, AlterableConfig as LegacyConfig,
};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::create_topics_response::CreatableTopicConfigs;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{
    AlterConfigsRequest, ApiKey, BrokerId, CreateTopicsRequest, DescribeConfigsRequest,
    DescribeLogDirsRequest, DescribeTopicPartitionsRequest, ElectLeadersRequest,
    IncrementalAlterConfigsRequest,
};
use shakedown_kafka::metadata::ConfigResource;
use support::verbs::{batch, topic_name};
use support::{Bench, text};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// A setting as broker 1 tells it: value and source.
fn told(bench: &mut Bench, kind: i8, resource: &str, setting: &str) -> Option<(String, i8)> {
    let asked = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(resource))
        .with_configuration_keys(Some(vec![text(setting)]));
    let request = DescribeConfigsRequest::default().with_resources(vec![asked]);
    let response = expect!(DescribeConfigs, bench.ask(1, ApiKey::DescribeConfigs, 4, request));
    let result = &response.results[0];
    assert_eq!(result.error_code, 0, "{:?}", result.error_message);
    let entry = result.configs.first()?;
    Some((entry.value.as_ref().map_or(String::new(), |value| value.to_string()), entry.config_source))
}

fn alter(bench: &mut Bench, kind: i8, resource: &str, op: i8, setting: &str, value: Option<&str>) -> i16 {
    let config = AlterableConfig::default()
        .with_name(text(setting))
        .with_config_operation(op)
        .with_value(value.map(text));
    let asked = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(resource))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![asked]);
    let response =
        expect!(IncrementalAlterConfigs, bench.ask(1, ApiKey::IncrementalAlterConfigs, 1, request));
    response.responses[0].error_code
}

#[test]
fn a_setting_is_told_with_where_it_comes_from() {
    let mut bench = Bench::new(1, &[("log.segment.bytes", "5000000")]);
    bench.create_topic("orders", 1, &[("retention.ms", "60000"), ("preallocate", "true")]);
    let mut of_topic = |setting| told(&mut bench, TOPIC, "orders", setting).unwrap();
    assert_eq!(of_topic("retention.ms"), ("60000".into(), 1));
    assert_eq!(of_topic("preallocate"), ("true".into(), 1), "it means nothing here, and is kept");
    assert_eq!(of_topic("min.insync.replicas"), ("1".into(), 3), "eligible leaders need one for all brokers");
    assert_eq!(of_topic("segment.bytes"), ("5000000".into(), 4));
    assert_eq!(of_topic("cleanup.policy"), ("delete".into(), 5));
    assert_eq!(told(&mut bench, BROKER, "1", "node.id"), Some(("1".into(), 4)));
    assert_eq!(told(&mut bench, BROKER, "", "log.segment.bytes"), None, "nobody changed it");
}

#[test]
fn whoever_creates_a_topic_is_told_all_of_its_settings() {
    let mut bench = Bench::new(1, &[("log.segment.bytes", "5000000")]);
    assert_eq!(alter(&mut bench, BROKER, "", SET, "log.retention.ms", Some("70000")), 0);
    let setting = CreatableTopicConfig::default().with_name(text("flush.ms")).with_value(Some(text("80000")));
    let topic = CreatableTopic::default()
        .with_name(topic_name("orders"))
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(vec![setting]);
    let create = |bench: &mut Bench, version, validate_only| {
        let request = CreateTopicsRequest::default()
            .with_topics(vec![topic.clone()])
            .with_timeout_ms(1_000)
            .with_validate_only(validate_only);
        let response = expect!(CreateTopics, bench.ask(1, ApiKey::CreateTopics, version, request));
        let told = response.topics[0].configs.clone()?;
        let entry = |config: CreatableTopicConfigs| {
            assert!(!config.is_sensitive && !config.read_only, "{config:?}");
            (config.name.to_string(), config.value.map(|value| value.to_string()), config.config_source)
        };
        Some(told.into_iter().map(entry).collect::<Vec<_>>())
    };
    let would = create(&mut bench, 5, true).unwrap();
    let created = create(&mut bench, 7, false).unwrap();
    assert_eq!(created, would);
    let value_of = |name: &str| created.iter().find(|entry| entry.0 == name).unwrap();
    let told = |value: &str, source| (Some(value.to_owned()), source);
    let of = |name: &str| (value_of(name).1.clone(), value_of(name).2);
    assert_eq!(of("flush.ms"), told("80000", 1), "of the topic");
    assert_eq!(of("retention.ms"), told("70000", 3), "set for all brokers");
    assert_eq!(of("segment.bytes"), told("5000000", 4), "as the cluster was configured");
    assert_eq!(of("max.message.bytes"), told("1048588", 5), "Kafka's default");
    // What DescribeConfigs says afterwards is the same, name by name.
    let asked =
        DescribeConfigsResource::default().with_resource_type(TOPIC).with_resource_name(text("orders"));
    let request = DescribeConfigsRequest::default().with_resources(vec![asked]);
    let response = expect!(DescribeConfigs, bench.ask(1, ApiKey::DescribeConfigs, 4, request));
    let described = response.results[0].configs.iter();
    let described = described.map(|entry| {
        (entry.name.to_string(), entry.value.as_ref().map(|value| value.to_string()), entry.config_source)
    });
    assert_eq!(described.collect::<Vec<_>>(), created);
}

#[test]
fn a_topics_settings_are_told_as_they_were_read() {
    let mut bench = Bench::new(1, &[]);
    let written = [
        ("cleanup.policy", " compact , delete "),
        ("retention.ms", " 060000"),
        ("min.cleanable.dirty.ratio", "0.0001"),
        ("unclean.leader.election.enable", "TRUE"),
        ("preallocate", " True"),
    ];
    let setting = |&(name, value): &(&str, &str)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
    };
    let topic = CreatableTopic::default()
        .with_name(topic_name("orders"))
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(written.iter().map(setting).collect());
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(1_000);
    let response = expect!(CreateTopics, bench.ask(1, ApiKey::CreateTopics, 7, request));
    let created = response.topics[0].configs.as_ref().unwrap();
    for (name, value) in written {
        let entry = created.iter().find(|entry| entry.name.as_str() == name).unwrap();
        assert_eq!(entry.value.as_ref().unwrap().as_str(), value, "its creator is told what was written");
    }
    for (name, value) in [
        ("cleanup.policy", "compact,delete"),
        ("retention.ms", "60000"),
        ("min.cleanable.dirty.ratio", "1.0E-4"),
        ("unclean.leader.election.enable", "true"),
        ("preallocate", "true"),
    ] {
        assert_eq!(told(&mut bench, TOPIC, "orders", name), Some((value.to_owned(), 1)), "{name}");
    }
    assert_eq!(alter(&mut bench, TOPIC, "orders", SET, "cleanup.policy", Some("delete, compact")), 0);
    assert_eq!(told(&mut bench, TOPIC, "orders", "cleanup.policy").unwrap().0, "delete,compact");
}

#[test]
fn settings_change_while_the_cluster_runs() {
    let mut bench = Bench::new(1, &[]);
    bench.create_topic("orders", 1, &[]);
    assert_eq!(bench.produce(1, "orders", 0, batch(&["a"])).0, 0);
    assert_eq!(alter(&mut bench, TOPIC, "orders", SET, "max.message.bytes", Some("10")), 0);
    assert_eq!(bench.produce(1, "orders", 0, batch(&["a"])).0, 10, "MESSAGE_TOO_LARGE");
    assert_eq!(alter(&mut bench, TOPIC, "orders", DELETE, "max.message.bytes", None), 0);
    assert_eq!(bench.produce(1, "orders", 0, batch(&["a"])).0, 0);
    assert_eq!(alter(&mut bench, BROKER, "", SET, "message.max.bytes", Some("10")), 0);
    assert_eq!(bench.produce(1, "orders", 0, batch(&["a"])).0, 10);
    assert_eq!(told(&mut bench, TOPIC, "orders", "max.message.bytes"), Some(("10".into(), 3)));
    assert_eq!(alter(&mut bench, BROKER, "1", SET, "message.max.bytes", Some("1000")), 0);
    assert_eq!(bench.produce(1, "orders", 0, batch(&["a"])).0, 0, "its own word comes first");
    assert_eq!(told(&mut bench, TOPIC, "orders", "max.message.bytes"), Some(("1000".into(), 2)));
}

/// Error and message for each resource of one request to a broker; each is to have its `log.retention.ms` changed.
fn alter_through(bench: &mut Bench, node: i32, resources: &[(i8, &str)]) -> Vec<(i16, String)> {
    let asked = resources.iter().map(|&(kind, name)| {
        let setting = if kind == TOPIC { "retention.ms" } else { "log.retention.ms" };
        let config = AlterableConfig::default().with_name(text(setting)).with_value(Some(text("60000")));
        AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
            .with_configs(vec![config])
    });
    let request = IncrementalAlterConfigsRequest::default().with_resources(asked.collect());
    let response =
        expect!(IncrementalAlterConfigs, bench.ask(node, ApiKey::IncrementalAlterConfigs, 1, request));
    let told = response.responses.iter().zip(resources).map(|(told, (kind, name))| {
        assert_eq!((told.resource_type, told.resource_name.as_str()), (*kind, *name));
        (told.error_code, told.error_message.as_ref().map_or(String::new(), |message| message.to_string()))
    });
    told.collect()
}

#[test]
fn a_brokers_settings_change_through_that_broker_alone() {
    let mut bench = Bench::new(2, &[]);
    bench.create_topic("orders", 1, &[]);
    let refused = || (42, "Unexpected broker id, expected 1, but received 2".to_owned());
    let done = || (0, String::new());
    let (mine, others, topic) = ((BROKER, "1"), (BROKER, "2"), (TOPIC, "orders"));
    assert_eq!(alter_through(&mut bench, 1, &[others]), [refused()]);
    assert!(bench.image().broker_config(&ConfigResource::Broker(2)).is_empty(), "nobody changed it");
    assert_eq!(alter_through(&mut bench, 1, &[mine, others, topic]), [done(), refused(), done()]);
    assert_eq!(told(&mut bench, TOPIC, "orders", "retention.ms"), Some(("60000".into(), 1)));
    assert_eq!(alter_through(&mut bench, 2, &[others]), [done()]);
    let twice = || (42, "Each resource must appear at most once.".to_owned());
    assert_eq!(alter_through(&mut bench, 1, &[topic, mine, topic]), [twice(), done(), twice()]);
    assert_eq!(alter_through(&mut bench, 1, &[(3, "x")]), [(42, "Unknown resource type 3".to_owned())]);
}

#[test]
fn words_are_put_into_lists_and_taken_out() {
    let mut bench = Bench::new(1, &[]);
    bench.create_topic("orders", 1, &[]);
    let mut policy = |op, word| {
        let error = alter(&mut bench, TOPIC, "orders", op, "cleanup.policy", Some(word));
        (error, told(&mut bench, TOPIC, "orders", "cleanup.policy").unwrap().0)
    };
    assert_eq!(policy(APPEND, "compact"), (0, "delete,compact".into()), "on top of the default");
    assert_eq!(policy(SUBTRACT, "delete"), (0, "compact".into()));
    assert_eq!(policy(APPEND, "forget").0, 40, "INVALID_CONFIG");
    assert_eq!(alter(&mut bench, TOPIC, "orders", APPEND, "retention.ms", Some("1")), 40);
}

#[test]
fn changes_are_refused_with_kafkas_codes() {
    let mut bench = Bench::new(1, &[]);
    bench.create_topic("orders", 1, &[]);
    for (kind, resource, op, setting, value, code) in [
        (TOPIC, "missing", SET, "retention.ms", Some("1"), 3),
        (TOPIC, "missing", SET, "retention.ms", Some("soon"), 40),
        (TOPIC, "missing", APPEND, "retention.ms", Some("1"), 40),
        (TOPIC, "orders", SET, "retention.mss", Some("1"), 40),
        (TOPIC, "orders", SET, "retention.ms", Some("soon"), 40),
        (TOPIC, "orders", SET, "retention.ms", None, 42),
        (TOPIC, "orders", 9, "retention.ms", Some("1"), 42),
        (TOPIC, "orders", SET, "remote.storage.enable", Some("true"), 40),
        (BROKER, "1", SET, "num.partitions", Some("5"), 42),
        (BROKER, "7", SET, "log.retention.ms", Some("5"), 42),
        (BROKER, "one", SET, "log.retention.ms", Some("5"), 42),
        (BROKER, "1", SET, "min.insync.replicas", Some("1"), 40),
        (BROKER, "", DELETE, "min.insync.replicas", None, 40),
        (BROKER, "", SET, "sasl.kerberos.min.time.before.relogin", Some("58000"), 42),
        (BROKER, "1", SET, "sasl.kerberos.min.time.before.relogin", Some("58000"), 0),
        (64, "orders", SET, "retention.ms", Some("1"), 42),
    ] {
        let error = alter(&mut bench, kind, resource, op, setting, value);
        assert_eq!(error, code, "{kind} {resource} {op} {setting} {value:?}");
    }
    assert_eq!(told(&mut bench, TOPIC, "orders", "retention.ms").unwrap().1, 5, "nothing was changed");
}

/// Gives a resource these settings by the older request; the code of its answer.
fn replace(bench: &mut Bench, (kind, resource): (i8, &str), settings: &[(&str, &str)], dry: bool) -> i16 {
    let configs = settings
        .iter()
        .map(|&(name, value)| LegacyConfig::default().with_name(text(name)).with_value(Some(text(value))));
    let asked = LegacyResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(resource))
        .with_configs(configs.collect());
    let request = AlterConfigsRequest::default().with_resources(vec![asked]).with_validate_only(dry);
    let response = expect!(AlterConfigs, bench.ask(1, ApiKey::AlterConfigs, 2, request));
    response.responses[0].error_code
}

#[test]
fn the_older_request_takes_away_what_it_does_not_name() {
    let mut bench = Bench::new(1, &[]);
    bench.create_topic("orders", 1, &[("retention.ms", "60000"), ("segment.bytes", "5000000")]);
    let orders = (TOPIC, "orders");
    let retention = |bench: &mut Bench| told(bench, TOPIC, "orders", "retention.ms").unwrap();
    let small = [("max.message.bytes", "10")];
    assert_eq!(replace(&mut bench, orders, &small, true), 0);
    assert_eq!(retention(&mut bench), ("60000".into(), 1), "it was only asked whether it may be");
    assert_eq!(replace(&mut bench, orders, &[("max.message.bytes", "ten")], false), 40, "INVALID_CONFIG");
    assert_eq!(retention(&mut bench), ("60000".into(), 1), "all or nothing");
    let missing = (TOPIC, "missing");
    assert_eq!(replace(&mut bench, missing, &[("retention.ms", "soon")], false), 40, "looked for last");
    assert_eq!(replace(&mut bench, missing, &small, false), 3, "UNKNOWN_TOPIC_OR_PARTITION");

    assert_eq!(replace(&mut bench, orders, &small, false), 0);
    assert_eq!(retention(&mut bench), ("604800000".into(), 5), "as if nobody had ever said otherwise");
    assert_eq!(told(&mut bench, TOPIC, "orders", "segment.bytes").unwrap().1, 5);
    assert_eq!(bench.produce(1, "orders", 0, batch(&["a"])).0, 10, "MESSAGE_TOO_LARGE");
    assert_eq!(replace(&mut bench, orders, &[], false), 0);
    assert_eq!(bench.produce(1, "orders", 0, batch(&["a"])).0, 0, "it has no settings of its own");

    assert_eq!(replace(&mut bench, (BROKER, "1"), &[("message.max.bytes", "10")], false), 0);
    assert_eq!(replace(&mut bench, (BROKER, "1"), &[("log.retention.ms", "60000")], false), 0);
    assert_eq!(told(&mut bench, BROKER, "1", "message.max.bytes").unwrap().1, 5);
    assert_eq!(told(&mut bench, BROKER, "1", "log.retention.ms"), Some(("60000".into(), 2)));
    // Eligible leader replicas came with a min ISR for all brokers, which must stay.
    assert_eq!(replace(&mut bench, (BROKER, ""), &[("message.max.bytes", "10")], false), 40);
    let both = [("message.max.bytes", "10"), ("min.insync.replicas", "1")];
    assert_eq!(replace(&mut bench, (BROKER, ""), &both, false), 0);
    assert_eq!(bench.produce(1, "orders", 0, batch(&["a"])).0, 10);
}

#[test]
fn topics_are_told_page_by_page() {
    let mut bench = Bench::new(1, &[]);
    bench.create_topic("a", 3, &[]);
    bench.create_topic("b", 2, &[]);
    let mut page = |cursor: Option<(&str, i32)>| {
        let cursor = cursor.map(|(topic, partition)| {
            Cursor::default().with_topic_name(topic_name(topic)).with_partition_index(partition)
        });
        let request =
            DescribeTopicPartitionsRequest::default().with_response_partition_limit(2).with_cursor(cursor);
        let response =
            expect!(DescribeTopicPartitions, bench.ask(1, ApiKey::DescribeTopicPartitions, 0, request));
        let told: Vec<(String, Vec<i32>)> = (response.topics.iter())
            .map(|topic| {
                let partitions = topic.partitions.iter().map(|partition| partition.partition_index).collect();
                (topic.name.as_ref().unwrap().to_string(), partitions)
            })
            .collect();
        let next = response.next_cursor.map(|next| (next.topic_name.to_string(), next.partition_index));
        (told, next)
    };
    assert_eq!(page(None), (vec![("a".into(), vec![0, 1])], Some(("a".into(), 2))));
    assert_eq!(
        page(Some(("a", 2))),
        (vec![("a".into(), vec![2]), ("b".into(), vec![0])], Some(("b".into(), 1)))
    );
    assert_eq!(page(Some(("b", 1))), (vec![("b".into(), vec![1])], None));
}

#[test]
fn eligible_leader_replicas_are_told() {
    let mut bench = Bench::new(2, &[("min.insync.replicas", "2")]);
    bench.create_on("orders", &[2, 1], &[]);
    bench.advance(1_000);
    bench.kill(2);
    bench.advance(12_000);
    let request = DescribeTopicPartitionsRequest::default()
        .with_topics(vec![TopicRequest::default().with_name(topic_name("orders"))])
        .with_response_partition_limit(10);
    let response =
        expect!(DescribeTopicPartitions, bench.ask(1, ApiKey::DescribeTopicPartitions, 0, request));
    let told = &response.topics[0].partitions[0];
    assert_eq!(told.leader_id, BrokerId(1));
    assert_eq!(told.isr_nodes, vec![BrokerId(1)]);
    assert_eq!(told.eligible_leader_replicas, Some(vec![BrokerId(2)]));
    assert_eq!(told.offline_replicas, vec![BrokerId(2)]);
}

#[test]
fn a_partition_without_a_leader_is_described_without_an_error() {
    let mut bench = Bench::new(2, &[]);
    bench.create_on("orders", &[2], &[]);
    bench.kill(2);
    bench.advance(12_000);
    let request = DescribeTopicPartitionsRequest::default().with_response_partition_limit(10);
    let response =
        expect!(DescribeTopicPartitions, bench.ask(1, ApiKey::DescribeTopicPartitions, 0, request));
    let told = &response.topics[0].partitions[0];
    assert_eq!((told.error_code, told.leader_id), (0, BrokerId(-1)));
    assert_eq!(told.offline_replicas, vec![BrokerId(2)]);
}

#[test]
fn log_directories_tell_how_large_replicas_are() {
    let mut bench = Bench::new(1, &[]);
    bench.create_topic("orders", 1, &[]);
    let told = |bench: &mut Bench| {
        let request = DescribeLogDirsRequest::default().with_topics(None);
        let response = expect!(DescribeLogDirs, bench.ask(1, ApiKey::DescribeLogDirs, 4, request));
        let dir = &response.results[0];
        let replica = &dir.topics[0].partitions[0];
        assert!(!replica.is_future_key);
        (replica.partition_size, replica.offset_lag, dir.total_bytes - dir.usable_bytes)
    };
    assert_eq!(told(&mut bench), (0, 0, 0));
    let records = batch(&["a"]);
    let bytes = records.len() as i64;
    bench.produce(1, "orders", 0, records);
    assert_eq!(told(&mut bench), (bytes, 0, bytes), "what it takes is not usable");
}

#[test]
fn an_election_is_held_only_if_it_is_needed() {
    let mut bench = Bench::new(1, &[]);
    bench.create_topic("orders", 1, &[]);
    assert_eq!(elect(&mut bench, 1, "orders", 0), 84, "ELECTION_NOT_NEEDED");
    assert_eq!(elect(&mut bench, 1, "orders", 1), 84);
    assert_eq!(elect(&mut bench, 1, "missing", 0), 3);
    assert_eq!(elect(&mut bench, 1, "orders", 7), 42);
}

/// Asks a broker for an election of the leader of partition 0; the code of its answer.
fn elect(bench: &mut Bench, node: i32, topic: &str, kind: i8) -> i16 {
    let asked = TopicPartitions::default().with_topic(topic_name(topic)).with_partitions(vec![0]);
    let request =
        ElectLeadersRequest::default().with_election_type(kind).with_topic_partitions(Some(vec![asked]));
    let response = expect!(ElectLeaders, bench.ask(node, ApiKey::ElectLeaders, 2, request));
    let result = response.replica_election_results.first();
    result.map_or(response.error_code, |result| result.partition_result[0].error_code)
}

#[test]
fn whoever_asks_for_an_unclean_election_gets_a_leader_and_loses_what_it_lacks() {
    let (preferred, unclean) = (0, 1);
    let mut bench = Bench::new(3, &[]);
    bench.create_on("orders", &[1, 2], &[]);
    bench.advance(1_000);
    assert_eq!(bench.produce_through(1, &["both have it"]), (0, 0));
    bench.kill(2);
    bench.advance(10_000);
    assert_eq!(bench.produce_through(1, &["broker 1 alone has it"]), (0, 1));
    bench.kill(1);
    bench.advance(10_000);
    assert_eq!(elect(&mut bench, 3, "orders", unclean), 83, "ELIGIBLE_LEADERS_NOT_AVAILABLE: nobody lives");
    bench.start(2);
    bench.advance(5_000);
    assert_eq!(bench.leader_of("orders", 0).0, -1, "broker 2 is not eligible");
    assert_eq!(elect(&mut bench, 3, "orders", preferred), 80, "PREFERRED_LEADER_NOT_AVAILABLE");
    assert_eq!(bench.leader_of("orders", 0).0, -1);

    assert_eq!(elect(&mut bench, 3, "orders", unclean), 0);
    assert_eq!((bench.leader_of("orders", 0).0, bench.in_sync_of("orders", 0)), (2, vec![2]));
    bench.advance(1_000);
    assert_eq!(bench.produce_through(2, &["instead"]), (0, 1));
    assert_eq!(elect(&mut bench, 3, "orders", unclean), 84, "ELECTION_NOT_NEEDED: somebody leads");
    bench.start(1);
    bench.advance(5_000);
    assert_eq!(bench.in_sync_of("orders", 0).len(), 2);
    assert_eq!(bench.replica(1, "orders", 0), bench.replica(2, "orders", 0), "broker 1 lost what it had");
    assert_eq!(elect(&mut bench, 3, "orders", preferred), 0);
    assert_eq!(bench.leader_of("orders", 0).0, 1);
}

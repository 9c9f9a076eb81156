//! What clients may be told: defaults, bounds, and what contradicts each other.

use broker::ErrorCode;

use super::table::PROPERTIES;
use super::values::check;
use super::*;

fn read(pairs: &[(&str, &str)]) -> Result<Settings, Error> {
    let base = Properties::new().set("bootstrap.servers", "broker-1:9092,broker-2:9093");
    Settings::read(&pairs.iter().fold(base, |properties, (name, value)| properties.set(*name, value)))
}

fn refused(pairs: &[(&str, &str)], sentence: &str) {
    let error = read(pairs).expect_err("refused");
    assert_eq!(error.code, ErrorCode::InvalidConfig);
    assert!(error.message.contains(sentence), "{error}");
}

#[test]
fn the_defaults_are_librdkafkas() {
    let settings = read(&[]).unwrap();
    assert_eq!(settings.bootstrap, [("broker-1".into(), 9092), ("broker-2".into(), 9093)]);
    assert_eq!(settings.max_in_flight, 1_000_000);
    assert_eq!(settings.producer.acks, -1);
    assert!(!settings.producer.idempotence);
    assert_eq!(settings.producer.delivery_timeout, Some(Duration::from_secs(300)));
    assert_eq!(settings.consumer.auto_commit, Some(Duration::from_secs(5)));
    assert_eq!(settings.consumer.auto_offset_reset, OffsetReset::Latest);
    assert!(settings.consumer.read_committed);
    assert_eq!(settings.consumer.assignors, ["range", "roundrobin"]);
}

#[test]
fn the_other_habits_have_javas_defaults() {
    let settings = read(&[("shakedown.client.habits", "java")]).unwrap();
    assert_eq!(settings.habits, Habits::Java);
    assert_eq!(settings.max_in_flight, 5);
    assert_eq!(settings.metadata_max_age, Duration::from_secs(300));
    assert_eq!(settings.socket_timeout, Duration::from_secs(30));
    assert!(settings.producer.idempotence);
    assert_eq!(settings.producer.delivery_timeout, Some(Duration::from_secs(120)));
    assert_eq!(settings.producer.batch_bytes_max, 16_384);
    assert_eq!(settings.producer.partitioner, Strategy::Java);
    assert!(!settings.consumer.read_committed);
    assert_eq!(settings.consumer.assignors, ["range", "cooperative-sticky"]);
    let eager = read(&[("shakedown.client.habits", "java"), ("acks", "1")]).unwrap();
    assert!(!eager.producer.idempotence, "its default steps back before `acks=1`");
    let timeout = [("shakedown.client.habits", "java"), ("request.timeout.ms", "2000")];
    assert_eq!(read(&timeout).unwrap().socket_timeout, Duration::from_secs(2));
}

#[test]
fn a_transaction_bounds_its_requests_and_records_as_in_librdkafka() {
    let id = ("transactional.id", "t");
    let settings = read(&[id, ("transaction.timeout.ms", "20000")]).unwrap();
    assert_eq!(settings.socket_timeout, Duration::from_millis(19_900));
    assert_eq!(settings.producer.delivery_timeout, Some(Duration::from_secs(20)));
    assert!(settings.producer.idempotence);
    refused(&[id, ("delivery.timeout.ms", "60001")], "at most `transaction.timeout.ms`");
    refused(&[id, ("socket.timeout.ms", "60101")], "at most `transaction.timeout.ms`");
    let java = read(&[id, ("shakedown.client.habits", "java")]).unwrap();
    assert_eq!(java.producer.delivery_timeout, Some(Duration::from_secs(120)));
}

#[test]
fn librdkafka_does_not_mix_rebalance_protocols() {
    const NAME: &str = "partition.assignment.strategy";
    let settings = read(&[(NAME, "cooperative-sticky")]).unwrap();
    assert_eq!(settings.consumer.assignors, ["cooperative-sticky"]);
    refused(&[(NAME, "cooperative-sticky,range")], "all cooperative or all eager");
    refused(&[(NAME, "sticky")], "some of");
}

#[test]
fn every_default_of_the_table_is_a_value_it_takes() {
    for property in PROPERTIES {
        check(property, property.default(Habits::Librdkafka)).unwrap();
        check(property, property.default(Habits::Java)).unwrap();
    }
}

#[test]
fn idempotence_brings_its_limits() {
    assert_eq!(read(&[("enable.idempotence", "true")]).unwrap().max_in_flight, 5);
    assert_eq!(read(&[("enable.idempotence", "true"), ("max.in.flight", "1")]).unwrap().max_in_flight, 1);
    refused(&[("enable.idempotence", "true"), ("max.in.flight", "6")], "at most 5");
    refused(&[("enable.idempotence", "true"), ("acks", "1")], "must be `all`");
    refused(&[("enable.idempotence", "true"), ("retries", "0")], "at least 1");
}

#[test]
fn a_wrong_name_or_value_is_refused_by_name() {
    refused(&[("enable.idempotense", "true")], "did you mean `enable.idempotence`");
    refused(&[("acks", "most")], "`acks` = `most`");
    refused(&[("linger.ms", "-5")], "from 0 to 900000");
    refused(&[("compression.codec", "lz5")], "one of");
    refused(&[("compression.level", "9")], "no such function");
    refused(&[("security.protocol", "ssl")], "no such function");
    refused(&[("session.timeout.ms", "400000")], "must not be below");
    refused(&[("bootstrap.servers", "broker-1:kafka")], "host and a port");
    refused(&[("bootstrap.servers", " ,")], "at least one");
}

#[test]
fn an_alias_means_its_first_name() {
    assert_eq!(read(&[("message.timeout.ms", "0")]).unwrap().producer.delivery_timeout, None);
    assert_eq!(read(&[("queue.buffering.max.ms", "7")]).unwrap().producer.linger, Duration::from_millis(7));
    read(&[("compression.codec", "none")]).unwrap();
}

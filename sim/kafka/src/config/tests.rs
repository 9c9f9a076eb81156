//! Settings by Kafka's names: what is read, what holds, and what is refused in which words.

use std::collections::BTreeMap;

use super::*;

fn parse(name: &str, value: &str) -> Result<Settings, String> {
    Settings::parse(&BTreeMap::from([(name.to_owned(), value.to_owned())])).map_err(|error| error.to_string())
}

#[test]
fn a_setting_takes_kafkas_name() {
    assert_eq!(parse("num.partitions", "4").unwrap().num_partitions, 4);
    assert!(!parse("auto.create.topics.enable", "false").unwrap().auto_create_topics_enable);
}

#[test]
fn a_setting_with_a_number_is_for_that_broker_only() {
    let config = [("broker.rack", "a"), ("2:broker.rack", "b"), ("2:num.partitions", "4")];
    let config: BTreeMap<_, _> = config.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let (controller, brokers) = Settings::of_cluster(&config, 2).unwrap();
    let racks: Vec<_> = brokers.iter().map(|settings| settings.broker_rack.as_deref().unwrap()).collect();
    assert_eq!(racks, ["a", "b"]);
    assert_eq!((controller.num_partitions, brokers[1].num_partitions), (1, 4));
    let error = Settings::of_cluster(&config, 1).unwrap_err().to_string();
    let expected = "is for a broker that is not there; brokers have the numbers 1 to 1";
    assert_eq!(error, format!("setting `2:broker.rack` {expected}"));
    let misspelt = [("1:broker.rac".to_owned(), "a".to_owned())].into();
    assert!(Settings::of_cluster(&misspelt, 1).unwrap_err().to_string().contains("`broker.rack`"));
}

#[test]
fn a_misspelt_setting_is_told_the_nearest_name() {
    let error = parse("num.partition", "4").unwrap_err();
    assert_eq!(error, "broker setting `num.partition` is not known here; nearest is `num.partitions`");
}

#[test]
fn a_value_out_of_range_is_refused_with_its_bounds() {
    let error = parse("num.partitions", "0").unwrap_err();
    assert_eq!(error, "broker setting `num.partitions` is `0`, but must be a whole number from 1");
    assert!(parse("log.message.timestamp.type", "Never").is_err());
    assert!(parse("group.min.session.timeout.ms", "1900000").is_err());
}

#[test]
fn defaults_are_within_their_bounds_and_shown_as_they_are_written() {
    let settings = Settings::default();
    for setting in SETTINGS {
        assert_eq!(settings.shown(setting.name).as_deref(), setting.default, "{}", setting.name);
    }
}

#[test]
fn the_finest_unit_of_retention_wins() {
    assert_eq!(parse("log.retention.hours", "2").unwrap().retention_ms(), 7_200_000);
    assert_eq!(parse("log.retention.minutes", "3").unwrap().retention_ms(), 180_000);
    assert_eq!(parse("log.retention.ms", "5").unwrap().retention_ms(), 5);
}

#[test]
fn a_topic_without_a_word_of_its_own_has_the_brokers() {
    let broker = parse("min.insync.replicas", "2").unwrap();
    let own = TopicSettings::parse(&BTreeMap::from([("min.insync.replicas".into(), "3".into())])).unwrap();
    assert_eq!(TopicSettings::default().min_insync_replicas(&broker), 2);
    assert_eq!(own.min_insync_replicas(&broker), 3);
    assert_eq!(own.shown(&broker, "min.insync.replicas").as_deref(), Some("3"));
}

#[test]
fn a_feature_level_that_is_not_built_is_refused() {
    let levels = |level| BTreeMap::from([("transaction.version".to_owned(), level)]);
    assert_eq!(Features::parse(&levels(1)).unwrap().transaction_version, 1);
    let error = Features::parse(&levels(3)).unwrap_err().to_string();
    assert_eq!(error, "feature `transaction.version` is 3, but must be from 0 to 2");
}

#[test]
fn every_name_in_the_list_is_known() {
    for setting in SETTINGS.iter().filter(|setting| setting.kind != Kind::Text) {
        let error = parse(setting.name, "?").unwrap_err();
        assert!(error.contains("must be"), "{error}");
    }
}

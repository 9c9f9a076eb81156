use super::*;

fn parse(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::parse(Path::new("services.toml"), text, environment).map_err(|error| error.to_string())
}

#[test]
fn all_of_it_may_be_left_out() {
    let config = parse("", &[]).unwrap();
    assert_eq!(config.kafka.get("bootstrap.servers"), Some("127.0.0.1:9092"));
    assert_eq!((config.survives, config.topics.create), (Survives::PowerLoss, true));
    assert_eq!(config.store(Part::Order), Path::new("data/order.redb"));
    assert_eq!(config.stock.len(), ARTICLES as usize + 1);
    for part in Part::OUTSIDE {
        assert_eq!(config.outside[&part].port, config.ports[&part], "by default they find each other");
    }
}

/// The example of the module's page, with what it does not show as it is by default.
#[test]
fn a_file_says_everything() {
    let page = include_str!("../config.rs").lines().skip_while(|line| *line != "//! ```toml").skip(1);
    let example: Vec<&str> =
        page.take_while(|line| *line != "//! ```").map(|line| line[3..].trim()).collect();
    let config = parse(&example.join("\n"), &[]).unwrap();
    assert_eq!(config.consumer.get("session.timeout.ms"), Some("10000"));
    assert_eq!(config.topics.replication_factor, Some(3));
    assert_eq!(config.topics.config["min.insync.replicas"], "2");
    assert_eq!(config.stock, BTreeMap::from([("sku-001".to_owned(), 1_000_000)]));
    assert_eq!(config.ports[&Part::Carrier], 8092);
}

#[test]
fn the_environment_wins_over_the_file() {
    let file = "data = \"here\"\n[kafka]\n\"bootstrap.servers\" = \"one:1\"\n[topics]\npartitions = 3\n";
    let environment = [
        ("SERVICES_DATA", "there"),
        ("SERVICES_KAFKA_BOOTSTRAP_SERVERS", "two:2"),
        ("SERVICES_KAFKA_SASL_PASSWORD", "secret"),
        ("SERVICES_TOPICS_PARTITIONS", "12"),
        ("SERVICES_TOPICS_REPLICATION_FACTOR", "2"),
        ("SERVICES_HTTP_ORDER", "9000"),
        ("SERVICES_OUTSIDE_GATEWAY", "bank:443"),
        ("SERVICES_COMMITS_SURVIVE", "process_crash"),
    ];
    let config = parse(file, &environment).unwrap();
    assert_eq!(config.data, Path::new("there"));
    assert_eq!(config.kafka.get("bootstrap.servers"), Some("two:2"));
    assert_eq!(config.kafka.get("sasl.password"), Some("secret"));
    assert_eq!((config.topics.partitions, config.topics.replication_factor), (12, Some(2)));
    assert_eq!(config.ports[&Part::Order], 9000);
    assert_eq!(config.outside[&Part::Gateway], Address { host: "bank".into(), port: 443 });
    assert_eq!(config.survives, Survives::ProcessCrash);
}

fn refusal(text: &str, environment: &[(&str, &str)]) -> String {
    parse(text, environment).expect_err("this is wrong")
}

#[test]
fn what_is_not_known_is_refused_with_the_nearest_name() {
    insta::assert_snapshot!(refusal("dta = \"x\"", &[]), @"there is no setting `dta`; did you mean `data`?");
    insta::assert_snapshot!(refusal("[topics]\npartition = 3", &[]), @"there is no setting `partition` in [topics]; did you mean `partitions`?");
    insta::assert_snapshot!(refusal("[http]\nordre = 1", &[]), @"there is no setting `ordre` in [http]; did you mean `order`?");
    insta::assert_snapshot!(refusal("[topic]\npartitions = 3", &[]), @"there is no setting `topic`; did you mean `topics`?");
    insta::assert_snapshot!(refusal("", &[("SERVICES_HTTP_ODER", "1")]), @"there is no setting `SERVICES_HTTP_ODER` in the environment; did you mean `order`?");
    insta::assert_snapshot!(refusal("", &[("SERVICES_NOTHING_LIKE_IT", "1")]), @"there is no setting `SERVICES_NOTHING_LIKE_IT` in the environment");
}

#[test]
fn what_a_setting_cannot_be_is_refused_with_what_it_must_be() {
    insta::assert_snapshot!(refusal("close_within = 30", &[]), @"`close_within` is `30`; it must be a time as `500ms`, `30s` or `5m`");
    insta::assert_snapshot!(refusal("commits_survive = \"anything\"", &[]), @"`commits_survive` is `anything`; it must be `power_loss` or `process_crash`");
    insta::assert_snapshot!(refusal("[http]\norder = 70000", &[]), @"`order` in [http] is `70000`; it must be a port");
    insta::assert_snapshot!(refusal("[outside]\nmail = \":25\"", &[]), @"`mail` in [outside] is `:25`; it must be `host:port`");
    insta::assert_snapshot!(refusal("[kafka]\nssl = [1]", &[]), @"`ssl` in [kafka] is `[1]`; it must be text, a number, true or false");
    insta::assert_snapshot!(refusal("kafka = 1", &[]), @"`kafka` is `1`; it must be a section");
    insta::assert_snapshot!(refusal("", &[("SERVICES_STOCK_SKU_1", "5")]), @"`SERVICES_STOCK_SKU_1` in the environment is `5`; it must be in the file: names of articles do not fit the environment");
    insta::assert_snapshot!(refusal("[topics]\npartitions = 0", &[]), @"`partitions` in [topics] is `0`; it must be a number above 0");
}

//! What a service's Kafka clients say of themselves, for Prometheus. The numbers of each scrape are those that the clients said
//! last; a client that is gone is in none.
//!
//! | name | says |
//! |---|---|
//! | `kafka_consumer_lag` | offsets that the consumer has not read yet |
//! | `kafka_consumer_committed_lag` | offsets beyond the group's committed one |
//! | `kafka_consumer_queue` | records fetched and not yet taken |
//! | `kafka_producer_queue` | records that are not acknowledged |
//! | `kafka_broker_requests` | requests that wait to be sent or answered |
//! | `kafka_broker_round_trip_mean_seconds`, `…_p99_seconds`, `…_max_seconds` | from request to answer |
//! | `kafka_broker_connected` | 1 or 0 |
//! | `kafka_statistics_age_seconds` | how old the numbers of a client are: a consumer that is not polled says nothing |

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use context::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use rdkafka_broker::{BrokerStatistics, ClientKind, ClientStatistics, PartitionStatistics};

/// How often clients speak, unless the configuration sets `statistics.interval.ms`: as often as Prometheus is commonly told to
/// look, and three times.
pub(crate) const EVERY: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Client {
    client: String,
    group: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Partition {
    client: String,
    group: String,
    topic: String,
    partition: i32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Connection {
    client: String,
    group: String,
    broker: i32,
    /// A coordinator has a connection of its own.
    role: &'static str,
}

type Numbers<L> = Family<L, Gauge<i64>>;
type Seconds<L> = Family<L, Gauge<f64, AtomicU64>>;

/// The numbers of one scrape.
#[derive(Default)]
struct Numbered {
    lag: Numbers<Partition>,
    committed_lag: Numbers<Partition>,
    consumer_queue: Numbers<Client>,
    producer_queue: Numbers<Client>,
    requests: Numbers<Connection>,
    mean: Seconds<Connection>,
    p99: Seconds<Connection>,
    max: Seconds<Connection>,
    connected: Numbers<Connection>,
    age: Seconds<Client>,
}

/// What these clients say, `now`.
pub(crate) fn registry(clients: &[ClientStatistics], now: Timestamp) -> Registry {
    let numbered = Numbered::default();
    for client in clients {
        numbered.add(client, now);
    }
    numbered.into_registry()
}

impl Numbered {
    fn add(&self, said: &ClientStatistics, now: Timestamp) {
        let label = Client { client: said.client.clone(), group: said.group.clone().unwrap_or_default() };
        let queue = match said.kind {
            ClientKind::Producer => &self.producer_queue,
            ClientKind::Consumer => &self.consumer_queue,
        };
        queue.get_or_create(&label).set(number(said.queue.records));
        self.age.get_or_create(&label).set(now.since(said.taken_at).as_secs_f64());
        for partition in &said.partitions {
            self.add_partition(&label, partition);
        }
        for broker in &said.brokers {
            self.add_broker(&label, broker);
        }
    }

    fn add_partition(&self, Client { client, group }: &Client, said: &PartitionStatistics) {
        let label = Partition {
            client: client.clone(),
            group: group.clone(),
            topic: said.partition.topic.to_string(),
            partition: said.partition.partition,
        };
        // What is not known is left out: a 0 would say that all is read.
        if let Some(lag) = said.lag() {
            self.lag.get_or_create(&label).set(number(lag));
        }
        if let Some(lag) = said.committed_lag() {
            self.committed_lag.get_or_create(&label).set(number(lag));
        }
    }

    fn add_broker(&self, Client { client, group }: &Client, said: &BrokerStatistics) {
        let role = if said.coordinator { "coordinator" } else { "broker" };
        let label = Connection { client: client.clone(), group: group.clone(), broker: said.node_id, role };
        self.requests.get_or_create(&label).set(number(said.requests_waiting + said.requests_in_flight));
        self.connected.get_or_create(&label).set(said.up.into());
        if let Some(trip) = said.round_trip {
            for (seconds, took) in [(&self.mean, trip.mean), (&self.p99, trip.p99), (&self.max, trip.max)] {
                seconds.get_or_create(&label).set(took.as_secs_f64());
            }
        }
    }

    fn into_registry(self) -> Registry {
        let mut registry = Registry::with_prefix("kafka");
        registry.register("consumer_lag", "Offsets not read yet", self.lag);
        registry.register("consumer_committed_lag", "Offsets beyond the committed one", self.committed_lag);
        registry.register("consumer_queue", "Records fetched and not yet taken", self.consumer_queue);
        registry.register("producer_queue", "Records that are not acknowledged", self.producer_queue);
        registry.register("broker_requests", "Requests that wait to be sent or answered", self.requests);
        registry.register("broker_connected", "Whether the client is connected", self.connected);
        let mut seconds = |name: &str, help: &str, family| {
            registry.register_with_unit(name, help, Unit::Seconds, family);
        };
        seconds("broker_round_trip_mean", "From request to answer, the mean", self.mean);
        seconds("broker_round_trip_p99", "From request to answer, 99 of 100", self.p99);
        seconds("broker_round_trip_max", "From request to answer, the longest", self.max);
        registry.register_with_unit("statistics_age", "How old these numbers are", Unit::Seconds, self.age);
        registry
    }
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use broker::TopicPartition;
    use kit::Metrics;
    use rdkafka_broker::{Queue, RoundTrip};

    use super::*;

    #[test]
    fn a_scrape_shows_what_clients_said_and_nothing_that_nobody_knows() {
        let partition = |number: i32, end| PartitionStatistics {
            partition: TopicPartition::new("orders", number),
            position: Some(40),
            committed: (number == 0).then_some(30),
            end,
        };
        let trip = RoundTrip {
            mean: Duration::from_millis(2),
            p50: Duration::from_millis(1),
            p99: Duration::from_millis(20),
            max: Duration::from_millis(30),
        };
        let broker = BrokerStatistics {
            node_id: 2,
            coordinator: false,
            up: true,
            requests_waiting: 1,
            requests_in_flight: 3,
            round_trip: Some(trip),
        };
        let silent =
            BrokerStatistics { node_id: 1, coordinator: true, up: false, round_trip: None, ..broker };
        let consumer = ClientStatistics {
            client: "order#consumer-1".into(),
            group: Some("order".into()),
            taken_at: Timestamp::from_millis(7_000),
            kind: ClientKind::Consumer,
            queue: Queue { records: 17, bytes: 1_700 },
            brokers: vec![broker, silent],
            partitions: vec![partition(0, Some(42)), partition(1, None)],
        };
        let producer = ClientStatistics {
            client: "order#producer-2".into(),
            group: None,
            kind: ClientKind::Producer,
            brokers: Vec::new(),
            partitions: Vec::new(),
            ..consumer.clone()
        };
        let registry = registry(&[consumer, producer], Timestamp::from_millis(9_500));
        let text = Metrics::new().text_with(&registry);
        assert!(text.contains("messages_in_progress 0"), "the service's own stay: {text}");
        let kafka: Vec<_> = text.lines().filter(|line| line.starts_with("kafka_")).collect();
        let (order, two, one) = (
            r#"client="order#consumer-1",group="order""#,
            r#"broker="2",role="broker""#,
            r#"broker="1",role="coordinator""#,
        );
        let mut expected = vec![
            format!(r#"kafka_consumer_lag{{{order},topic="orders",partition="0"}} 2"#),
            format!(r#"kafka_consumer_committed_lag{{{order},topic="orders",partition="0"}} 12"#),
            format!("kafka_consumer_queue{{{order}}} 17"),
            r#"kafka_producer_queue{client="order#producer-2",group=""} 17"#.to_owned(),
            format!("kafka_broker_requests{{{order},{two}}} 4"),
            format!("kafka_broker_requests{{{order},{one}}} 4"),
            format!("kafka_broker_connected{{{order},{two}}} 1"),
            format!("kafka_broker_connected{{{order},{one}}} 0"),
            format!("kafka_broker_round_trip_mean_seconds{{{order},{two}}} 0.002"),
            format!("kafka_broker_round_trip_p99_seconds{{{order},{two}}} 0.02"),
            format!("kafka_broker_round_trip_max_seconds{{{order},{two}}} 0.03"),
            format!("kafka_statistics_age_seconds{{{order}}} 2.5"),
            r#"kafka_statistics_age_seconds{client="order#producer-2",group=""} 2.5"#.to_owned(),
        ];
        let mut kafka: Vec<_> = kafka.into_iter().map(str::to_owned).collect();
        kafka.sort();
        expected.sort();
        assert_eq!(kafka, expected);
        assert!(text.ends_with("# EOF\n"), "one end: {text}");
    }
}

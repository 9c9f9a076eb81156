//! A cluster of this process, and clients of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use broker::{
    Broker as _, Consumer, ConsumerRecord, NewTopic, NoRebalanceListener, Producer, ProducerRecord,
    Properties, TopicPartition,
};
use context::real::RealHost;
use context::{Context, Seed};
use kafka::loopback::{Loopback, own_address};
use kafka::{Cluster, ClusterConfig};
use shakedown_rdkafka::{ClientKind, ClientStatistics, PartitionStatistics, RdKafkaBroker};

/// The topic of every test.
pub(crate) const TOPIC: &str = "t";
/// How long anything may take that takes a moment on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Three brokers, and a Broker on librdkafka whose clients speak ten times a second.
pub(crate) struct Bed {
    pub(crate) context: Context,
    pub(crate) broker: RdKafkaBroker,
    pub(crate) nodes: Loopback,
}

impl Bed {
    /// With a topic of so many partitions.
    pub(crate) async fn start(partitions: i32) -> Bed {
        Bed::start_with(partitions, &[]).await
    }

    /// With settings of the brokers as well.
    pub(crate) async fn start_with(partitions: i32, settings: &[(&str, &str)]) -> Bed {
        static NEXT_PORT: AtomicU16 = AtomicU16::new(23_000);
        let first_port = NEXT_PORT.fetch_add(10, Ordering::Relaxed);
        let config = ClusterConfig::simulated(3).at(own_address(), first_port);
        let config = config.with("group.initial.rebalance.delay.ms", 0);
        let config = settings.iter().fold(config, |config, (name, value)| config.with(*name, *value));
        let cluster = Cluster::new(config);
        let cluster = cluster.expect("the configuration is sound");
        let bootstrap = cluster.bootstrap_servers();
        let nodes = Loopback::start(cluster, Seed(first_port.into()));
        let context = RealHost::new("tester", Seed(7)).into_context();
        let properties =
            Properties::new().set("bootstrap.servers", bootstrap).set("statistics.interval.ms", 100);
        let broker = RdKafkaBroker::new(context.clone(), properties);
        let admin = broker.admin(&Properties::new()).await.expect("an admin client");
        let topic = NewTopic { replication_factor: Some(3), ..NewTopic::new(TOPIC, partitions) };
        admin.create_topics(&[topic]).await.expect("the topic");
        Bed { context, broker, nodes }
    }

    pub(crate) async fn producer(&self) -> Arc<dyn Producer> {
        let properties = Properties::new().set("enable.idempotence", true).set("acks", "all");
        self.broker.producer(&properties).await.expect("a producer")
    }

    /// A member of group `g` that reads from the beginning and commits nothing by itself.
    pub(crate) async fn consumer(&self, properties: Properties) -> Box<dyn Consumer> {
        let own = Properties::new().set("group.id", "g").set("auto.offset.reset", "earliest");
        let own = own.set("enable.auto.commit", false).with(&properties);
        let mut consumer = self.broker.consumer(&own).await.expect("a consumer");
        consumer.subscribe(&[TOPIC.into()], Box::new(NoRebalanceListener)).await.expect("a subscription");
        consumer
    }

    /// Polls until so many records came, and not one more.
    pub(crate) async fn read(&self, consumer: &mut dyn Consumer, count: usize) -> Vec<ConsumerRecord> {
        let deadline = self.context.now() + PATIENCE;
        let mut read = Vec::new();
        while read.len() < count {
            assert!(self.context.now() < deadline, "{} of {count} records came", read.len());
            read.extend(poll(consumer, Duration::from_millis(100)).await);
        }
        assert_eq!(read.len(), count, "more came than were sent");
        read
    }

    /// What the only client of a kind said last.
    pub(crate) fn said(&self, kind: ClientKind) -> Option<ClientStatistics> {
        let mut clients = self.broker.statistics().clients();
        clients.retain(|client| client.kind == kind);
        assert!(clients.len() <= 1, "one was made: {clients:?}");
        clients.pop()
    }

    /// Polls `consumer`, if there is one, until what the only client of a kind says is as wanted; no record may come.
    pub(crate) async fn until(
        &self,
        kind: ClientKind,
        mut consumer: Option<&mut dyn Consumer>,
        wanted: impl Fn(&ClientStatistics) -> bool,
    ) -> ClientStatistics {
        let deadline = self.context.now() + PATIENCE;
        loop {
            match &mut consumer {
                Some(consumer) => {
                    let records = poll(&mut **consumer, Duration::from_millis(20)).await;
                    assert_eq!(records, [], "nothing was to be read any more");
                }
                None => self.context.sleep(Duration::from_millis(20)).await,
            }
            match self.said(kind) {
                Some(said) if wanted(&said) => return said,
                said => assert!(self.context.now() < deadline, "it says {said:?}"),
            }
        }
    }
}

/// Polls once. What the next poll gets over gives nothing, as the interface says.
pub(crate) async fn poll(consumer: &mut dyn Consumer, span: Duration) -> Vec<ConsumerRecord> {
    match consumer.poll(span).await {
        Ok(records) => records,
        Err(error) => {
            assert!(error.is_retriable(), "a poll: {error}");
            Vec::new()
        }
    }
}

/// Sends so many numbered records of so many bytes to a partition, and waits for their acknowledgements.
pub(crate) async fn send(
    producer: &dyn Producer,
    partition: i32,
    numbers: std::ops::Range<usize>,
    bytes: usize,
) {
    let record = |number: usize| ProducerRecord {
        partition: Some(partition),
        ..ProducerRecord::new(TOPIC, number.to_string(), vec![b'x'; bytes])
    };
    let fates: Vec<_> = numbers.map(|number| producer.send(record(number))).collect();
    for fate in fates {
        fate.await.expect("an acknowledgement");
    }
}

pub(crate) fn partition(partition: i32) -> TopicPartition {
    TopicPartition::new(TOPIC, partition)
}

/// A figure of each partition that is held.
pub(crate) fn by_partition<T>(
    said: &ClientStatistics,
    figure: impl Fn(&PartitionStatistics) -> T,
) -> BTreeMap<i32, T> {
    said.partitions.iter().map(|said| (said.partition.partition, figure(said))).collect()
}

//! A simulated world with a cluster of brokers and one host for a test's own program.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use broker::{
    Admin, Broker, Consumer, ConsumerRecord, NewTopic, NoRebalanceListener, Producer, ProducerRecord,
    Properties, RebalanceListener,
};
use context::{Context, Event, EventKind, Recorder, Seed, Timestamp};
use kafka::{Cluster, ClusterConfig};
use shakedown_client::WireBroker;
use world::{Change, Digest, Engine, LatencyRange, World, WorldConfig};

/// The host on which a test's program runs.
pub(crate) const CLIENT: &str = "client";

/// Counts what happens on the client's host, and hashes what happens anywhere.
#[derive(Default)]
pub(crate) struct Counts {
    timers: AtomicU64,
    frames: AtomicU64,
    digest: Digest,
}

impl Counts {
    /// The hash of all events so far.
    pub(crate) fn hash(&self) -> u64 {
        self.digest.hash()
    }

    /// Timers that fired and frames that arrived so far.
    pub(crate) fn so_far(&self) -> (u64, u64) {
        (self.timers.load(Ordering::Relaxed), self.frames.load(Ordering::Relaxed))
    }
}

impl Recorder for Counts {
    fn record(&self, event: Event<'_>) {
        self.digest.record(event);
        match event.kind {
            EventKind::Timer if event.host == CLIENT => self.timers.fetch_add(1, Ordering::Relaxed),
            EventKind::Frame if event.host == CLIENT => self.frames.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
    }
}

/// The world, with its cluster.
pub(crate) struct Bed {
    pub(crate) world: Box<dyn World>,
    pub(crate) cluster: Cluster,
    pub(crate) counts: Arc<Counts>,
    done: Arc<Mutex<bool>>,
}

/// What the test's program holds.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) context: Context,
    pub(crate) broker: Arc<WireBroker>,
}

impl Bed {
    /// A cluster of so many brokers, and a host that runs `program`.
    pub(crate) fn new<F>(brokers: u32, seed: u64, program: impl Fn(Desk) -> F + Send + Sync + 'static) -> Bed
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Bed::with(ClusterConfig::simulated(brokers), seed, program)
    }

    /// The same with a cluster of the test's choice.
    pub(crate) fn with<F>(
        config: ClusterConfig,
        seed: u64,
        program: impl Fn(Desk) -> F + Send + Sync + 'static,
    ) -> Bed
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let cluster = Cluster::new(config).expect("its settings are sound");
        let counts = Arc::new(Counts::default());
        let config =
            WorldConfig { seed: Seed(seed), latency: LatencyRange::millis(1, 3), recorder: counts.clone() };
        let mut world = world::build(Engine::Jump, config).expect("built with tokio_unstable");
        for (name, node) in cluster.hosts() {
            world.add_host(&name, node);
        }
        let done = Arc::new(Mutex::new(false));
        let (bootstrap, ends, program) = (cluster.bootstrap_servers(), done.clone(), Arc::new(program));
        world.add_host(
            CLIENT,
            context::program(move |context| {
                let properties = Properties::new().set("bootstrap.servers", &bootstrap);
                let broker = Arc::new(WireBroker::new(context.clone(), properties));
                let (ends, program) = (ends.clone(), program.clone());
                async move {
                    program(Desk { context, broker }).await;
                    *ends.lock().unwrap_or_else(PoisonError::into_inner) = true;
                }
            }),
        );
        Bed { world, cluster, counts, done }
    }

    /// Lets time pass.
    pub(crate) fn run_for(&mut self, span: Duration) {
        let until = self.world.now() + span;
        self.world.run_until(until);
    }

    /// Lets time pass, in small steps, until `fact`.
    pub(crate) fn run_until(&mut self, sentence: &str, fact: impl Fn() -> bool) {
        let deadline = self.world.now() + Duration::from_secs(300);
        while !fact() {
            assert!(self.world.now() < deadline, "not within 300 s: {sentence}");
            self.run_for(Duration::from_millis(1));
        }
    }

    /// Lets time pass until the program has ended.
    pub(crate) fn finish(&mut self) {
        let done = self.done.clone();
        self.run_until("the program ends", || *done.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Makes changes that must fit.
    pub(crate) fn change(&mut self, changes: &[Change]) {
        self.world.change_all(changes).expect("the changes fit");
    }

    /// What brokers send to the client waits.
    pub(crate) fn hold_answers(&mut self) {
        let from = self.broker_names();
        let changes: Vec<_> = from.into_iter().map(|from| Change::Hold { from, to: CLIENT.into() }).collect();
        self.change(&changes);
    }

    /// What waited arrives.
    pub(crate) fn release_answers(&mut self) {
        let from = self.broker_names();
        let changes: Vec<_> =
            from.into_iter().map(|from| Change::Release { from, to: CLIENT.into() }).collect();
        self.change(&changes);
    }

    fn broker_names(&self) -> Vec<String> {
        self.cluster
            .hosts()
            .into_iter()
            .map(|(name, _)| name)
            .filter(|name| name.starts_with("broker"))
            .collect()
    }
}

impl Desk {
    /// Creates a topic once the cluster is up.
    pub(crate) async fn topic(&self, name: &str, partitions: i32) {
        let admin: Arc<dyn Admin> = self.broker.admin(&Properties::new()).await.expect("sound properties");
        admin.create_topics(&[NewTopic::new(name, partitions)]).await.expect("the topic is created");
    }

    pub(crate) async fn producer(&self, pairs: &[(&str, &str)]) -> Arc<dyn Producer> {
        self.broker.producer(&properties(pairs)).await.expect("sound properties")
    }

    /// A consumer of group `g` from the earliest, that commits by hand.
    pub(crate) async fn consumer(&self, pairs: &[(&str, &str)]) -> Box<dyn Consumer> {
        let base = properties(&[
            ("group.id", "g"),
            ("auto.offset.reset", "earliest"),
            ("enable.auto.commit", "false"),
            ("session.timeout.ms", "6000"),
            ("heartbeat.interval.ms", "1000"),
        ]);
        self.broker.consumer(&base.with(&properties(pairs))).await.expect("sound properties")
    }

    pub(crate) async fn subscriber(&self, topic: &str, pairs: &[(&str, &str)]) -> Box<dyn Consumer> {
        self.listening(topic, pairs, Box::new(NoRebalanceListener)).await
    }

    pub(crate) async fn listening(
        &self,
        topic: &str,
        pairs: &[(&str, &str)],
        listener: Box<dyn RebalanceListener>,
    ) -> Box<dyn Consumer> {
        let mut consumer = self.consumer(pairs).await;
        consumer.subscribe(&[topic.into()], listener).await.expect("it has a group");
        consumer
    }

    /// Says that the program is so far, and waits until the test takes that back.
    pub(crate) async fn hand_over(&self, ready: &Slot<bool>) {
        ready.set(true);
        while ready.get() {
            self.context.sleep(Duration::from_millis(1)).await;
        }
    }

    /// Everything in a topic, in order of partition and offset.
    pub(crate) async fn all(&self, topic: &str) -> Vec<ConsumerRecord> {
        let admin = self.broker.admin(&Properties::new()).await.expect("sound properties");
        let topics = admin.describe_topics(&[topic]).await.expect("it is there");
        let partitions: Vec<_> = topics[0]
            .partitions
            .iter()
            .map(|partition| broker::TopicPartition::new(topic, partition.partition))
            .collect();
        let asked: Vec<_> = partitions.iter().map(|at| (at.clone(), broker::OffsetSpec::Latest)).collect();
        let ends = admin.list_offsets(&asked).await.expect("leaders answer");
        let mut consumer = self.consumer(&[("group.id", "all")]).await;
        consumer.assign(&partitions).await.expect("it is not subscribed");
        let mut records = Vec::new();
        while ends.iter().any(|(at, end)| consumer.position(at).is_none_or(|position| position < *end)) {
            records.extend(consumer.poll(Duration::from_millis(500)).await.expect("it reads"));
        }
        records.sort_by(|one, other| (&one.partition, one.offset).cmp(&(&other.partition, other.offset)));
        records
    }
}

/// Polls until the consumer has partitions.
pub(crate) async fn assigned(consumer: &mut Box<dyn Consumer>) {
    while consumer.assignment().is_empty() {
        consumer.poll(Duration::from_millis(100)).await.expect("all is well");
    }
}

/// The values as text.
pub(crate) fn values(records: &[ConsumerRecord]) -> Vec<String> {
    let text = |record: &ConsumerRecord| {
        String::from_utf8(record.value.as_ref().expect("a value").to_vec()).expect("text")
    };
    records.iter().map(text).collect()
}

/// A record under the key `k`.
pub(crate) fn record(topic: &str, value: impl Into<String>) -> ProducerRecord {
    ProducerRecord::new(topic, "k", value.into())
}

pub(crate) fn properties(pairs: &[(&str, &str)]) -> Properties {
    pairs.iter().fold(Properties::new(), |properties, (name, value)| properties.set(*name, value))
}

/// A value that the program sets and the test reads, or the other way round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot<T>(Arc<Mutex<T>>);

impl<T: Clone> Slot<T> {
    pub(crate) fn set(&self, value: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }

    pub(crate) fn get(&self) -> T {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The time since the world began.
pub(crate) fn elapsed(now: Timestamp) -> Duration {
    now.since(world::EPOCH)
}

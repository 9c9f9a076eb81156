//! The kit on the simulated Kafka, over its wire protocol, while brokers and replicas crash and links hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use broker::{Broker, ConsumerRecord, NewTopic, NoRebalanceListener, ProducerRecord, Properties};
use client::WireBroker;
use context::{Context, Seed};
use kafka::{Cluster, ClusterConfig};
use kit::middleware::headers;
use kit::store::Json;
use kit::{
    Handler, HandlerError, MemStore, Message, Outgoing, Prepared, Service, ServiceConfig, StoreExt,
    Subscription, Table, Unit, outbox,
};
use proto::order::{CancelOrder, OrderCancelled};
use proto::{MessageId, topics};
use shakedown_kit as kit;
use world::{Change, Digest, EPOCH, Engine, LatencyRange, World, WorldConfig};

const COMMANDS: &str = topics::ORDER_COMMANDS;
const EVENTS: &str = topics::ORDER_EVENTS;
const DEAD: &str = "order.commands.dlq";
const GROUP: &str = "svc";

/// How often each order was cancelled.
const CANCELLED: Table<String, u32, Json> = Table::new("cancelled");

/// Cancels orders; refuses those whose reason is `refuse`.
struct Cancelling;

#[async_trait]
impl Handler for Cancelling {
    fn apply(&self, unit: &mut Unit<'_>, message: &Message, _: Prepared) -> Result<(), HandlerError> {
        let CancelOrder { order_id, reason } = message.decode()?;
        let before = CANCELLED.get(unit.tables(), &order_id)?.unwrap_or(0);
        CANCELLED.put(unit.tables(), &order_id, &(before + 1))?;
        unit.publish(&OrderCancelled { order_id, detail: reason.clone(), ..OrderCancelled::default() })?;
        if reason == "refuse" { Err(HandlerError::Business("refused".into())) } else { Ok(()) }
    }
}

/// What the tester sends, in order, each for an order with a reason; `None` is a record without headers.
type Script = Vec<(String, Option<String>)>;

struct Run {
    world: Box<dyn World>,
    cluster: Cluster,
    store: MemStore,
    hash: Arc<Digest>,
    read: Arc<Mutex<Vec<ConsumerRecord>>>,
    sent: Arc<Mutex<usize>>,
}

impl Run {
    /// Two replicas on three brokers. The tester creates `topics` at their times, sends `script` one record every 10 ms
    /// from 10 s on, and reads what was published.
    fn new(seed: u64, topics: Vec<(Duration, &'static str)>, script: Script) -> Run {
        let hash = Arc::new(Digest::new());
        let config =
            WorldConfig { seed: Seed(seed), latency: LatencyRange::millis(1, 5), recorder: hash.clone() };
        let mut world = world::build(Engine::Jump, config).expect("built with tokio_unstable");
        // A topic is there when the tester makes it, not when someone asks for it.
        let config = ClusterConfig::simulated(3).with("auto.create.topics.enable", false);
        let cluster = Cluster::new(config).expect("the configuration is sound");
        for (name, program) in cluster.hosts() {
            world.add_host(&name, program);
        }
        let store = MemStore::new("svc");
        for name in ["svc-1", "svc-2"] {
            let (store, servers) = (store.clone(), cluster.bootstrap_servers());
            let program = context::program(move |context: Context| {
                let store = Arc::new(store.clone());
                Service::new(context.clone(), wire(&context, &servers), store, ServiceConfig::default())
                    .subscribe(Subscription::new(GROUP, [COMMANDS], Cancelling))
                    .run()
            });
            world.add_host(name, program);
        }
        let (read, sent) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<usize>>::default());
        let (into, count, servers) = (read.clone(), sent.clone(), cluster.bootstrap_servers());
        let program = context::program(move |context: Context| {
            let broker = wire(&context, &servers);
            context.spawn("create", create(context.clone(), broker.clone(), topics.clone()));
            context.spawn("send", send(context.clone(), broker.clone(), script.clone(), count.clone()));
            hear(context.clone(), broker, into.clone())
        });
        world.add_host("tester", program);
        Run { world, cluster, store, hash, read, sent }
    }

    fn until(&mut self, seconds: u64) {
        self.world.run_until(EPOCH + Duration::from_secs(seconds));
    }

    fn change(&mut self, change: Change) {
        self.world.change(&change).expect("the change fits");
    }

    fn kill(&mut self, host: &str) {
        self.change(Change::Kill { host: host.into() });
    }

    fn restart(&mut self, host: &str) {
        self.change(Change::Restart { host: host.into() });
    }

    fn hold(&mut self, hosts: [&str; 2], held: bool) {
        for (from, to) in [(hosts[0], hosts[1]), (hosts[1], hosts[0])] {
            let (from, to) = (from.to_owned(), to.to_owned());
            self.change(if held { Change::Hold { from, to } } else { Change::Release { from, to } });
        }
    }

    /// Runs on until `seconds` at the latest, or until everything sent has come to its end.
    fn until_quiet(&mut self, seconds: u64, count: usize) {
        let end = EPOCH + Duration::from_secs(seconds);
        while self.world.now() < end {
            self.world.run_until(self.world.now() + Duration::from_millis(500));
            let sent = *self.sent.lock().unwrap_or_else(PoisonError::into_inner);
            if sent == count && self.lag() == 0 && outbox::depth(&self.store) == Ok(0) {
                // What was sent last has yet to be read by the tester.
                self.world.run_until(self.world.now() + Duration::from_secs(2));
                return;
            }
        }
        let depth = outbox::depth(&self.store);
        panic!("not quiet at {:?}: lag {}, outbox {depth:?}", self.world.now(), self.lag());
    }

    fn lag(&self) -> i64 {
        let committed = self.cluster.committed_offsets(GROUP);
        let ends = self.cluster.log_end_offsets();
        let of_commands = ends.iter().filter(|((topic, _), _)| topic == COMMANDS);
        of_commands.map(|(partition, end)| end - committed.get(partition).copied().unwrap_or(0)).sum()
    }

    fn cancelled(&self) -> BTreeMap<String, u32> {
        let all = self.store.read_with::<_, kit::StoreError>(|tables| CANCELLED.all(tables));
        all.expect("the store reads").into_iter().collect()
    }

    fn read(&self, topic: &str) -> Vec<ConsumerRecord> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.iter().filter(|record| &*record.partition.topic == topic).cloned().collect()
    }
}

fn wire(context: &Context, servers: &str) -> Arc<dyn Broker> {
    Arc::new(WireBroker::new(context.clone(), Properties::new().set("bootstrap.servers", servers)))
}

async fn create(context: Context, broker: Arc<dyn Broker>, topics: Vec<(Duration, &'static str)>) {
    let admin = broker.admin(&Properties::new()).await.expect("an admin client");
    for (at, topic) in topics {
        context.sleep_until(EPOCH + at).await;
        while let Err(error) = admin.create_topics(&[NewTopic::new(topic, 4)]).await {
            context.note(format_args!("tester: {error}"));
            context.sleep(Duration::from_millis(500)).await;
        }
    }
}

async fn send(context: Context, broker: Arc<dyn Broker>, script: Script, count: Arc<Mutex<usize>>) {
    let properties = Properties::new().set("enable.idempotence", true);
    let producer = broker.producer(&properties).await.expect("a producer");
    context.sleep_until(EPOCH + Duration::from_secs(10)).await;
    for (number, (order, reason)) in script.into_iter().enumerate() {
        let record = match reason {
            Some(reason) => {
                let id = MessageId::derived(&format!("tester {number}"));
                let cancel = CancelOrder { order_id: order, reason };
                Outgoing::of(&cancel).into_record(id, id, None, context.now())
            }
            None => ProducerRecord::new(COMMANDS, order, "no headers"),
        };
        let delivery = producer.send(record);
        let count = count.clone();
        context.spawn("delivery", async move {
            delivery.await.expect("a command is acknowledged in the end");
            *count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        });
        context.sleep(Duration::from_millis(10)).await;
    }
    // A producer that goes away takes with it what is not acknowledged.
    std::future::pending::<()>().await;
}

async fn hear(context: Context, broker: Arc<dyn Broker>, into: Arc<Mutex<Vec<ConsumerRecord>>>) {
    let properties = Properties::new().set("group.id", "tester").set("auto.offset.reset", "earliest");
    let mut consumer = broker.consumer(&properties).await.expect("a consumer");
    let topics = [EVENTS.into(), DEAD.into()];
    consumer.subscribe(&topics, Box::new(NoRebalanceListener)).await.expect("a subscription");
    loop {
        match consumer.poll(Duration::from_millis(200)).await {
            Ok(records) => into.lock().unwrap_or_else(PoisonError::into_inner).extend(records),
            Err(error) => {
                context.note(format_args!("tester: {error}"));
                context.sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

fn at_start() -> Vec<(Duration, &'static str)> {
    [COMMANDS, EVENTS, DEAD].map(|topic| (Duration::from_secs(1), topic)).into()
}

/// So many cancellations, two for each order.
fn cancellations(count: usize) -> Script {
    (0..count).map(|number| (format!("o-{}", number / 2), Some(format!("reason {number}")))).collect()
}

/// Each of the cancellations has had its effect once, and told it once, in order for each order. The same message may
/// have come twice: then with the same id.
fn assert_each_once(run: &Run, count: usize) {
    let cancelled = run.cancelled();
    assert_eq!(cancelled.len(), count / 2);
    assert!(cancelled.values().all(|&times| times == 2), "{cancelled:?}");
    let mut seen = BTreeSet::new();
    let mut details: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in run.read(EVENTS) {
        let message = Message::parse(&record).expect("the kit writes messages");
        if seen.insert(message.id) {
            let event: OrderCancelled = message.decode().expect("the kit writes what it was given");
            details.entry(event.order_id).or_default().push(event.detail);
        }
    }
    assert_eq!(details.len(), count / 2);
    for (order, details) in details {
        let first: usize = order["o-".len()..].parse().expect("a number");
        let expected = [format!("reason {}", 2 * first), format!("reason {}", 2 * first + 1)];
        assert_eq!(details, expected, "{order}");
    }
}

#[test]
fn each_message_has_one_effect_and_each_effect_is_told_once_while_replicas_and_brokers_crash() {
    for seed in 0..5 {
        let mut run = Run::new(seed, at_start(), cancellations(600));
        run.until(11);
        run.kill("svc-1");
        run.until(12);
        run.restart("svc-1");
        run.kill("broker-2");
        run.until(14);
        run.kill("svc-2");
        run.restart("svc-2");
        run.until(25);
        run.restart("broker-2");
        run.until_quiet(180, 600);
        assert_each_once(&run, 600);
    }
}

#[test]
fn a_partition_between_a_replica_and_the_cluster_delays_and_loses_nothing() {
    for seed in 0..5 {
        let mut run = Run::new(seed, at_start(), cancellations(400));
        run.until(11);
        for broker in ["broker-1", "broker-2", "broker-3"] {
            run.hold(["svc-1", broker], true);
        }
        run.until(70);
        // Its session is over, and if its relay had the lease, it has yielded.
        assert_eq!((run.lag(), outbox::depth(&run.store)), (0, Ok(0)), "the other replica does the work");
        for broker in ["broker-1", "broker-2", "broker-3"] {
            run.hold(["svc-1", broker], false);
        }
        run.until_quiet(240, 400);
        assert_each_once(&run, 400);
    }
}

#[test]
fn a_replica_that_was_paused_beyond_its_session_does_no_harm_when_it_wakes() {
    for seed in 0..5 {
        let mut run = Run::new(seed, at_start(), cancellations(400));
        run.until(12);
        run.change(Change::Pause { host: "svc-2".into() });
        run.until(75);
        run.change(Change::Resume { host: "svc-2".into() });
        run.until_quiet(240, 400);
        assert_each_once(&run, 400);
    }
}

#[test]
fn poison_goes_to_the_dead_letters_and_the_others_flow() {
    let mut script = cancellations(100);
    script.insert(10, ("o-3".into(), None));
    script.insert(50, ("o-4".into(), Some("refuse".into())));
    let mut run = Run::new(7, at_start(), script);
    run.until_quiet(60, 102);
    assert_each_once(&run, 100);
    let letters = run.read(DEAD);
    let classes: BTreeSet<_> =
        letters.iter().filter_map(|letter| letter.headers.text(headers::CLASS)).collect();
    assert_eq!(classes.into_iter().collect::<Vec<_>>(), ["business", "parse"]);
    assert_eq!(letters.len(), 2);
}

#[test]
fn a_dead_letter_whose_topic_is_not_there_waits_for_it_and_holds_up_nobody() {
    let mut script = cancellations(100);
    script.insert(10, ("o-3".into(), None));
    let topics = vec![
        (Duration::from_secs(1), COMMANDS),
        (Duration::from_secs(1), EVENTS),
        (Duration::from_secs(120), DEAD),
    ];
    let mut run = Run::new(7, topics, script);
    run.until(100);
    assert_eq!(run.lag(), 0, "nobody waits for it");
    assert_eq!(outbox::depth(&run.store), Ok(1), "it waits in the store");
    run.kill("svc-1");
    run.kill("svc-2");
    run.restart("svc-1");
    run.restart("svc-2");
    run.until(125);
    run.until_quiet(400, 101);
    assert_each_once(&run, 100);
    // The tester may have looked for the topic in vain for a while: its log says that the letter is there.
    let ends = run.cluster.log_end_offsets();
    let letters: i64 = ends.iter().filter(|((topic, _), _)| topic == DEAD).map(|(_, end)| end).sum();
    assert_eq!(letters, 1, "the letter arrived");
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let bytes_of = |seed| {
        let mut run = Run::new(seed, at_start(), cancellations(100));
        run.until(11);
        run.kill("svc-1");
        run.until(13);
        run.restart("svc-1");
        run.until_quiet(120, 100);
        (run.hash.hash(), run.hash.events())
    };
    assert_eq!(bytes_of(3), bytes_of(3));
    assert_ne!(bytes_of(3), bytes_of(4), "another seed gives another run");
}

//! Two replicas on a simulated Kafka, with a gateway that crashes: money is taken once, and given back where it was asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker::{Broker, ConsumerRecord, NewTopic, NoRebalanceListener, Properties};
use client::WireBroker;
use context::{Context, NoRecorder, Seed};
use kafka::{Cluster, ClusterConfig};
use kit::{MemStore, Message, Naive, NaiveSwitch, Outgoing, ServiceConfig, outbox};
use outside::{Gateway, Provider};
use proto::payment::{ChargePayment, Event, RefundPayment};
use proto::{MessageId, OrderId, PaymentId, tokens, topics};
use shakedown_payment as payment;
use world::{Change, EPOCH, Engine, LatencyRange, World, WorldConfig};

const ORDERS: u32 = 120;
const AMOUNT: i64 = 1999;

/// What is asked for an order, by its number.
fn is_refunded(order: u32) -> bool {
    order.is_multiple_of(3)
}

fn is_declined(order: u32) -> bool {
    order % 10 == 1
}

/// One run: its world, and what outlives the hosts.
struct Run {
    world: Box<dyn World>,
    gateway: Arc<Provider<Gateway>>,
    store: MemStore,
    /// What the service told, by the id of the message.
    told: Arc<Mutex<BTreeMap<MessageId, Event>>>,
}

impl Run {
    fn new(seed: u64, naive: Naive) -> Run {
        let latency = LatencyRange::millis(1, 5);
        let config = WorldConfig { seed: Seed(seed), latency, recorder: Arc::new(NoRecorder) };
        let mut world = world::build(Engine::Jump, config).expect("the engine is built in");
        let cluster = Cluster::new(ClusterConfig::simulated(1)).expect("one broker is a cluster");
        for (name, program) in cluster.hosts() {
            world.add_host(&name, program);
        }
        let gateway = Arc::new(Provider::new(Gateway::new()));
        world.add_host(outside::gateway::HOST, gateway.program());

        let store = MemStore::new("payment");
        let service = ServiceConfig { naive, ..ServiceConfig::default() };
        let config = payment::Config { service, ..payment::Config::default() };
        for name in ["payment-1", "payment-2"] {
            let (store, config, servers) = (store.clone(), config.clone(), cluster.bootstrap_servers());
            let program = context::program(move |context: Context| {
                payment::run(
                    context.clone(),
                    wire(&context, &servers),
                    Arc::new(store.clone()),
                    config.clone(),
                )
            });
            world.add_host(name, program);
        }
        let told = Arc::<Mutex<BTreeMap<_, _>>>::default();
        let (heard, servers) = (told.clone(), cluster.bootstrap_servers());
        world
            .add_host("shop", context::program(move |context| shop(context, servers.clone(), heard.clone())));
        Run { world, gateway, store, told }
    }

    fn until(&mut self, seconds: u64) {
        self.world.run_until(EPOCH + Duration::from_secs(seconds));
    }

    fn change(&mut self, change: Change) {
        self.world.change(&change).expect("a change that the engine can bring");
    }

    /// Charges and refunds of each order at the gateway, in minor units.
    fn books(&self) -> BTreeMap<String, (Vec<i64>, i64)> {
        let ledger = self.gateway.ledger();
        let mut books = BTreeMap::<String, (Vec<i64>, i64)>::new();
        for charge in ledger.charges() {
            books.entry(charge.order_id.clone()).or_default().0.push(charge.amount_minor);
        }
        for refund in ledger.refunds() {
            books.entry(refund.order_id.clone()).or_default().1 += refund.amount_minor;
        }
        books
    }
}

fn wire(context: &Context, servers: &str) -> Arc<dyn Broker> {
    Arc::new(WireBroker::new(context.clone(), Properties::new().set("bootstrap.servers", servers)))
}

/// Asks for charges and refunds, every command twice as a producer without idempotence might, and hears the answers.
async fn shop(context: Context, servers: String, told: Arc<Mutex<BTreeMap<MessageId, Event>>>) {
    let broker = wire(&context, &servers);
    let admin = broker.admin(&Properties::new()).await.expect("an admin client");
    let topics = [topics::PAYMENT_COMMANDS, topics::PAYMENT_EVENTS];
    let dead = topics.map(topics::dead_letter);
    let topics: Vec<_> = topics
        .into_iter()
        .chain(dead.iter().map(String::as_str))
        .map(|name| NewTopic::new(name, 3))
        .collect();
    while let Err(error) = admin.create_topics(&topics).await {
        assert!(error.is_retriable(), "topics cannot be created: {error}");
        context.sleep(Duration::from_millis(500)).await;
    }
    let hearing = hear(context.clone(), broker.clone(), told);
    context.spawn("hear", hearing);

    // The group of the service has formed by then, so that the faults meet it at work.
    context.sleep_until(EPOCH + Duration::from_secs(8)).await;
    let producer = broker.producer(&Properties::new()).await.expect("a producer");
    for order in 0..ORDERS {
        let id = OrderId::new(format!("o-{order}")).expect("a plain id");
        let (order_id, payment_id) = (id.as_str().to_owned(), PaymentId::of(&id).as_str().to_owned());
        let token =
            if is_declined(order) { tokens::DECLINED_PAYMENT_METHOD } else { tokens::GOOD_PAYMENT_METHOD };
        let charge = ChargePayment {
            order_id: order_id.clone(),
            payment_id: payment_id.clone(),
            amount: AMOUNT,
            currency: "EUR".into(),
            payment_method: token.into(),
        };
        let refund = RefundPayment { order_id, payment_id, reason: "the shop thought better of it".into() };
        let mut commands = vec![("charge", Outgoing::of(&charge))];
        if is_refunded(order) {
            commands.push(("refund", Outgoing::of(&refund)));
        }
        for (what, command) in commands {
            let message_id = MessageId::derived(&format!("{id}/{what}"));
            for _ in 0..2 {
                let record = command.clone().into_record(message_id, message_id, None, context.now());
                producer.send(record).await.expect("the broker takes it");
            }
        }
        context.sleep(Duration::from_millis(100)).await;
    }
}

async fn hear(context: Context, broker: Arc<dyn Broker>, told: Arc<Mutex<BTreeMap<MessageId, Event>>>) {
    let properties = Properties::new().set("group.id", "shop").set("auto.offset.reset", "earliest");
    let mut consumer = broker.consumer(&properties).await.expect("a consumer");
    let topics = [Arc::from(topics::PAYMENT_EVENTS)];
    consumer.subscribe(&topics, Box::new(NoRebalanceListener)).await.expect("a subscription");
    loop {
        match consumer.poll(Duration::from_secs(1)).await {
            Ok(records) => records.iter().for_each(|record| note_down(record, &told)),
            Err(error) => context.note(format_args!("the shop does not hear: {error}")),
        }
    }
}

fn note_down(record: &ConsumerRecord, told: &Mutex<BTreeMap<MessageId, Event>>) {
    let message = Message::parse(record).expect("a message");
    let event = Event::decode(&message.kind, &message.payload).expect("an event of payment");
    told.lock().unwrap().insert(message.id, event);
}

/// Replicas and gateway crash, and a link breaks, while commands come.
fn with_faults(seed: u64, naive: Naive) -> Run {
    let mut run = Run::new(seed, naive);
    run.until(10);
    run.change(Change::Kill { host: "payment-1".into() });
    run.until(11);
    run.change(Change::Kill { host: outside::gateway::HOST.into() });
    run.until(12);
    run.change(Change::Restart { host: "payment-1".into() });
    run.until(13);
    run.change(Change::Restart { host: outside::gateway::HOST.into() });
    run.until(14);
    // Requests arrive, answers do not.
    let (from, to) = (outside::gateway::HOST.to_owned(), "payment-2".to_owned());
    run.change(Change::Hold { from: from.clone(), to: to.clone() });
    run.until(24);
    run.change(Change::Release { from, to });
    // A killed member is missed for its session of 45 s; then all that is left is done.
    run.until(120);
    run
}

#[test]
fn money_is_taken_once_and_given_back_where_asked_though_all_crash() {
    for seed in 0..3 {
        let run = with_faults(seed, Naive::none());
        let cut = run.world.host(outside::gateway::HOST).map(|stats| stats.connections_cut);
        assert!(cut > Some(0), "seed {seed}: the crash met the gateway at work");
        let books = run.books();
        for order in 0..ORDERS {
            let (charges, refunded) = books.get(&format!("o-{order}")).cloned().unwrap_or_default();
            let captured = if is_declined(order) { vec![] } else { vec![AMOUNT] };
            assert_eq!(charges, captured, "seed {seed}, charges of order {order}");
            let owed_back = if is_refunded(order) { charges.iter().sum() } else { 0 };
            assert_eq!(refunded, owed_back, "seed {seed}, refunds of order {order}");
        }
        let commands = ORDERS + (0..ORDERS).filter(|order| is_refunded(*order)).count() as u32;
        let told = run.told.lock().unwrap();
        assert_eq!(told.len(), commands as usize, "seed {seed}: every command is answered, once");
        let given_back = told.values().filter_map(|event| match event {
            Event::PaymentRefunded(refunded) => Some(refunded.amount),
            _ => None,
        });
        let refunded: i64 = books.values().map(|(_, refunded)| *refunded).sum();
        assert_eq!(given_back.sum::<i64>(), refunded, "seed {seed}: what is told is what happened");
        assert_eq!(outbox::depth(&run.store), Ok(0), "seed {seed}: all is said");
        assert_eq!(run.gateway.open_calls(), 0, "seed {seed}: nothing is asked any more");
    }
}

/// The defect that the harness must find: it has to be one, here as there.
#[test]
fn fresh_keys_without_an_inbox_charge_twice() {
    let naive = Naive::none().with(NaiveSwitch::NoInbox).with(NaiveSwitch::FreshKeys);
    let run = with_faults(0, naive);
    assert!(run.books().values().any(|(charges, _)| charges.len() > 1), "no order was charged twice");
}

//! A town for one service: a broker, two replicas, at most one outside system, and customers who send commands and hear
//! answers. The tests of the four participants share it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker::{Broker, NewTopic, NoRebalanceListener, Properties};
use client::WireBroker;
use context::{BoxFuture, Context, NoRecorder, Program, Seed};
use kafka::{Cluster, ClusterConfig};
use kit::{Message, Outgoing};
use proto::{MessageId, topics};
use world::{Change, EPOCH, Engine, LatencyRange, World, WorldConfig};

/// When customers begin: the service's group has formed by then, so that faults meet it at work.
const OPENING: Duration = Duration::from_secs(8);

/// How long customers wait between two commands.
const PACE: Duration = Duration::from_millis(100);

/// What runs on a replica.
pub(crate) type Replica = Arc<dyn Fn(Context, Arc<dyn Broker>) -> BoxFuture<'static, ()> + Send + Sync>;

/// What was answered, by message id: an answer that is sent again is still one.
pub(crate) type Told = Arc<Mutex<BTreeMap<MessageId, Message>>>;

/// The world of one run.
pub(crate) struct Town {
    /// Its hosts.
    pub(crate) world: Box<dyn World>,
    /// What the service told.
    pub(crate) told: Told,
    domain: &'static str,
    outside: Option<&'static str>,
}

impl Town {
    /// Builds it. Replicas are called `DOMAIN-1` and `DOMAIN-2`; `commands` are sent in their order, each of them twice.
    pub(crate) fn new(
        seed: u64,
        domain: &'static str,
        replica: Replica,
        outside: Option<(&'static str, Program)>,
        commands: Vec<Outgoing>,
    ) -> Town {
        let (latency, recorder) = (LatencyRange::millis(1, 5), Arc::new(NoRecorder));
        let mut world = world::build(Engine::Jump, WorldConfig { seed: Seed(seed), latency, recorder })
            .expect("the engine is built in");
        let cluster = Cluster::new(ClusterConfig::simulated(1)).expect("one broker is a cluster");
        for (name, program) in cluster.hosts() {
            world.add_host(&name, program);
        }
        let servers = cluster.bootstrap_servers();
        for number in 1..=2 {
            let (replica, servers) = (replica.clone(), servers.clone());
            let program =
                context::program(move |context: Context| replica(context.clone(), wire(context, &servers)));
            world.add_host(&format!("{domain}-{number}"), program);
        }
        let outside = outside.map(|(name, program)| {
            world.add_host(name, program);
            name
        });
        let (told, commands) = (Told::default(), Arc::new(commands));
        let heard = told.clone();
        let customers = context::program(move |context: Context| {
            let broker = wire(context.clone(), &servers);
            send(context, broker, domain, commands.clone(), heard.clone())
        });
        world.add_host("customers", customers);
        Town { world, told, domain, outside }
    }

    /// Runs until `seconds` after its beginning.
    pub(crate) fn until(&mut self, seconds: u64) {
        self.world.run_until(EPOCH + Duration::from_secs(seconds));
    }

    /// Changes the world now.
    pub(crate) fn change(&mut self, change: Change) {
        self.world.change(&change).expect("a change that the engine can bring");
    }

    /// Runs for two minutes. Meanwhile the first replica crashes, the outside system crashes, both come back, and then
    /// the second replica hears no answer of the outside system for ten seconds, though its requests arrive.
    pub(crate) fn with_faults(&mut self) {
        let replica = |number: u32| format!("{}-{number}", self.domain);
        let (first, second) = (replica(1), replica(2));
        self.until(10);
        self.change(Change::Kill { host: first.clone() });
        self.until(11);
        if let Some(host) = self.outside {
            self.change(Change::Kill { host: host.into() });
            let cut = self.world.host(host).map(|stats| stats.connections_cut);
            assert!(cut > Some(0), "the crash meets {host} at work");
        }
        self.until(12);
        self.change(Change::Restart { host: first });
        self.until(13);
        if let Some(host) = self.outside {
            self.change(Change::Restart { host: host.into() });
            self.until(14);
            self.change(Change::Hold { from: host.into(), to: second.clone() });
            self.until(24);
            self.change(Change::Release { from: host.into(), to: second });
        }
        // A killed member is missed for its session of 10 s; then all that is left is done.
        self.until(120);
    }
}

fn wire(context: Context, servers: &str) -> Arc<dyn Broker> {
    Arc::new(WireBroker::new(context, Properties::new().set("bootstrap.servers", servers)))
}

/// Creates the topics, sends every command twice, as a producer without idempotence might, and hears the answers.
async fn send(
    context: Context,
    broker: Arc<dyn Broker>,
    domain: &'static str,
    commands: Arc<Vec<Outgoing>>,
    told: Told,
) {
    let admin = broker.admin(&Properties::new()).await.expect("an admin client");
    let (asked, answered) = (format!("{domain}.commands"), format!("{domain}.events"));
    let all = [asked.clone(), topics::dead_letter(&asked), answered.clone(), topics::dead_letter(&answered)];
    let all = all.map(|name| NewTopic::new(name, 3));
    while let Err(error) = admin.create_topics(&all).await {
        assert!(error.is_retriable(), "topics cannot be created: {error}");
        context.sleep(Duration::from_millis(500)).await;
    }
    context.spawn("hear", hear(context.clone(), broker.clone(), answered, told));

    context.sleep_until(EPOCH + OPENING).await;
    let producer = broker.producer(&Properties::new()).await.expect("a producer");
    for command in commands.iter() {
        let id = MessageId::derived(&format!("{}/{}", command.key, command.kind));
        for _ in 0..2 {
            let record = command.clone().into_record(id, id, None, context.now());
            producer.send(record).await.expect("the broker takes it");
        }
        context.sleep(PACE).await;
    }
}

async fn hear(context: Context, broker: Arc<dyn Broker>, topic: String, told: Told) {
    let properties = Properties::new().set("group.id", "customers").set("auto.offset.reset", "earliest");
    let mut consumer = broker.consumer(&properties).await.expect("a consumer");
    let topics = [Arc::from(topic)];
    consumer.subscribe(&topics, Box::new(NoRebalanceListener)).await.expect("a subscription");
    loop {
        match consumer.poll(Duration::from_secs(1)).await {
            Ok(records) => {
                for record in &records {
                    let message = Message::parse(record).expect("a message");
                    told.lock().unwrap().insert(message.id, message);
                }
            }
            Err(error) => context.note(format_args!("customers do not hear: {error}")),
        }
    }
}

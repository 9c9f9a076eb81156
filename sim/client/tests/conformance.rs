//! The conformance suite of `services/broker` over this client and the simulated Kafka, in two places: inside the
//! simulated world, and over loopback TCP in real time. Each case has a cluster of its own.
//!
//! Every feature is on: a case that is skipped fails.

#[path = "claims/mod.rs"]
mod claims;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use broker::conformance::{Case, FREQUENT_CLEANUP, Features, Outcome, Subject, cases};
use broker::{Broker, Error, Properties};
use context::real::RealHost;
use context::{BoxFuture, Context, NoRecorder, Program, Seed};
use kafka::{Cluster, ClusterConfig};
use libtest_mimic::{Arguments, Failed, Trial};
use shakedown_client::WireBroker;
use world::{Change, Engine, LatencyRange, WorldConfig};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Over TCP the cases wait for real sessions and elections, not for the processor.
    arguments.test_threads.get_or_insert(8);
    let mut trials = Vec::new();
    for (number, case) in cases().into_iter().enumerate() {
        trials.push(Trial::test(format!("world::{}", case.name), move || judge(in_the_world(case))));
        trials.push(Trial::test(format!("tcp::{}", case.name), move || judge(over_tcp(case, number))));
    }
    for habits in ["librdkafka", "java"] {
        for (name, claim) in claims::CLAIMS.iter().chain(claims::ADMIN_CLAIMS) {
            trials.push(Trial::test(format!("world::{habits}::{name}"), move || {
                hold_in_the_world(habits, *claim);
                Ok(())
            }));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn judge(outcome: Outcome) -> Result<(), Failed> {
    match outcome {
        Outcome::Passed => Ok(()),
        Outcome::Failed(failure) => Err(failure.0.into()),
        Outcome::Skipped(reason) => Err(format!("skipped, though its features are on: {reason}").into()),
    }
}

/// What a case asks of the one who runs its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Kill(i32),
    Start(i32),
}

/// Orders that are not carried out yet.
type Orders = Arc<Mutex<Vec<Order>>>;

struct Bed {
    context: Context,
    bootstrap: String,
    orders: Orders,
}

impl Bed {
    /// Gives an order and waits until it is carried out.
    async fn order(&self, order: Order) {
        lock(&self.orders).push(order);
        while !lock(&self.orders).is_empty() {
            self.context.sleep(Duration::from_millis(10)).await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Subject for Bed {
    fn context(&self) -> Context {
        self.context.clone()
    }

    fn broker(&self) -> Arc<dyn Broker> {
        let properties = Properties::new().set("bootstrap.servers", &self.bootstrap);
        Arc::new(WireBroker::new(self.context.clone(), properties))
    }

    fn features(&self) -> Features {
        Features::all()
    }

    async fn kill_broker(&self, node_id: i32) -> Result<(), Error> {
        self.order(Order::Kill(node_id)).await;
        Ok(())
    }

    async fn start_broker(&self, node_id: i32) -> Result<(), Error> {
        self.order(Order::Start(node_id)).await;
        Ok(())
    }

    fn run_id(&self) -> String {
        "conformance".into()
    }
}

/// A cluster as the cases want it.
fn cluster(config: ClusterConfig) -> Cluster {
    let config = FREQUENT_CLEANUP.iter().fold(config, |config, (name, value)| config.with(*name, value));
    Cluster::new(config).expect("the configuration is sound")
}

fn host(cluster: &Cluster, node: i32) -> String {
    cluster.broker_name(node).expect("the case names a broker of the cluster").to_owned()
}

/// Runs a claim about transactions; it panics where it does not hold.
fn hold_in_the_world(habits: &'static str, claim: fn(claims::Desk) -> BoxFuture<'static, ()>) {
    let cluster = cluster(ClusterConfig::simulated(3));
    let mut world = world::build(
        Engine::Jump,
        WorldConfig { seed: Seed(7), latency: LatencyRange::millis(1, 5), recorder: Arc::new(NoRecorder) },
    )
    .expect("built with tokio_unstable");
    for (name, program) in cluster.hosts() {
        world.add_host(&name, program);
    }
    let held = Arc::new(Mutex::new(false));
    world.add_host("tester", {
        let (bootstrap, held) = (cluster.bootstrap_servers(), held.clone());
        context::program(move |context| {
            let properties = Properties::new().set("bootstrap.servers", &bootstrap);
            let broker = Arc::new(WireBroker::new(context.clone(), properties));
            let desk = claims::Desk { context, broker, habits, run: "claim".into() };
            let held = held.clone();
            async move {
                claim(desk).await;
                *lock(&held) = true;
            }
        })
    });
    let end = world.now() + Duration::from_secs(15 * 60);
    while !*lock(&held) {
        assert!(world.now() < end, "it did not end within 15 simulated minutes");
        world.run_until(world.now() + Duration::from_millis(100));
    }
}

fn in_the_world(case: Case) -> Outcome {
    let cluster = cluster(ClusterConfig::simulated(3));
    let mut world = world::build(
        Engine::Jump,
        WorldConfig { seed: Seed(7), latency: LatencyRange::millis(1, 5), recorder: Arc::new(NoRecorder) },
    )
    .expect("built with tokio_unstable");
    for (name, program) in cluster.hosts() {
        world.add_host(&name, program);
    }
    let orders = Orders::default();
    let outcome: Arc<Mutex<Option<Outcome>>> = Arc::default();
    world.add_host("tester", {
        let (bootstrap, orders, outcome) = (cluster.bootstrap_servers(), orders.clone(), outcome.clone());
        context::program(move |context| {
            let bed = Bed { context, bootstrap: bootstrap.clone(), orders: orders.clone() };
            let outcome = outcome.clone();
            async move {
                let result = case.run(Arc::new(bed)).await;
                outcome.lock().unwrap_or_else(PoisonError::into_inner).replace(result);
            }
        })
    });
    let end = world.now() + Duration::from_secs(15 * 60);
    while world.now() < end {
        world.run_until(world.now() + Duration::from_millis(10));
        for order in lock(&orders).drain(..) {
            let change = match order {
                Order::Kill(node) => Change::Kill { host: host(&cluster, node) },
                Order::Start(node) => Change::Restart { host: host(&cluster, node) },
            };
            world.change(&change).expect("a case kills what runs and starts what it killed");
        }
        if let Some(outcome) = outcome.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return outcome;
        }
    }
    panic!("`{}` did not end within 15 simulated minutes", case.name);
}

/// The number gives every case a loopback address of its own, so that cases do not meet on a port.
fn over_tcp(case: Case, number: usize) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let address = format!("127.77.{}.1", number + 1);
        let mut config = ClusterConfig::simulated(3).with("group.initial.rebalance.delay.ms", 0);
        for (index, node) in config.brokers.iter_mut().chain([&mut config.controller]).enumerate() {
            node.host.clone_from(&address);
            node.port = 29_092 + u16::try_from(index).expect("a handful of nodes");
        }
        let cluster = cluster(config);
        let start = |name: &str, program: &Program| {
            let (context, host) = RealHost::new(name, Seed(number as u64)).bind_to(&address).start();
            context.spawn("node", program(context.clone()));
            host
        };
        let mut hosts: Vec<_> = cluster
            .hosts()
            .into_iter()
            .map(|(name, program)| {
                let host = start(&name, &program);
                (name, program, host)
            })
            .collect();
        let orders = Orders::default();
        let context = RealHost::new("tester", Seed(7)).into_context();
        let bed =
            Bed { context: context.clone(), bootstrap: cluster.bootstrap_servers(), orders: orders.clone() };
        let mut running = Box::pin(case.run(Arc::new(bed)));
        loop {
            if let Ok(outcome) = context.timeout(Duration::from_millis(50), &mut running).await {
                return outcome;
            }
            let asked = lock(&orders).clone();
            for order in &asked {
                let (Order::Kill(node) | Order::Start(node)) = *order;
                let wanted = host(&cluster, node);
                let (name, program, host) =
                    hosts.iter_mut().find(|(name, ..)| *name == wanted).expect("every broker has its host");
                match order {
                    Order::Kill(_) => {
                        host.shutdown();
                        // The sockets close when the tasks have been dropped, which they are when the runtime gets to it.
                        context.sleep(Duration::from_millis(50)).await;
                    }
                    Order::Start(_) => *host = start(name, program),
                }
            }
            // Nothing was added meanwhile: whoever gave an order waits for it.
            lock(&orders).clear();
        }
    })
}

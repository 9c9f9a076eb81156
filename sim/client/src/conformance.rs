//! Where tests put this client beside a simulated cluster: the conformance suite, and operations on a partition.
//!
//! [`in_the_world`] runs a program on a host beside three brokers in the simulated world, who can be killed and started;
//! [`beside`] takes brokers of other settings and feature levels. Absent: simulated brokers on TCP, which the tests start by themselves.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use broker::conformance::{Bed, FREQUENT_CLEANUP, Features, Nodes, Subject};
use broker::{Error, Properties};
use context::{Context, NoRecorder, Seed};
use kafka::{Cluster, ClusterConfig};
use world::{Change, Engine, LatencyRange, WorldConfig};

use crate::WireBroker;

/// What a case asks of the one who runs its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Kill(i32),
    Start(i32),
}

/// Orders that are not carried out yet.
type Orders = Arc<Mutex<Vec<Order>>>;

/// Gives orders, and waits until they are carried out.
struct Ordered {
    context: Context,
    orders: Orders,
}

impl Ordered {
    async fn order(&self, order: Order) -> Result<(), Error> {
        lock(&self.orders).push(order);
        while !lock(&self.orders).is_empty() {
            self.context.sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

#[async_trait]
impl Nodes for Ordered {
    async fn kill(&self, node_id: i32) -> Result<(), Error> {
        self.order(Order::Kill(node_id)).await
    }

    async fn start(&self, node_id: i32) -> Result<(), Error> {
        self.order(Order::Start(node_id)).await
    }
}

/// Our client, and a cluster that somebody runs.
pub fn bed(context: Context, bootstrap: &str, nodes: Arc<dyn Nodes>) -> Arc<dyn Subject> {
    let properties = Properties::new().set("bootstrap.servers", bootstrap);
    let broker = Arc::new(WireBroker::new(context.clone(), properties));
    Arc::new(Bed { context, broker, features: Features::all(), nodes, run_id: "conformance".into() })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A cluster as the cases want it.
///
/// # Panics
/// If the configuration is not sound.
pub fn cluster(config: ClusterConfig) -> Cluster {
    let config = FREQUENT_CLEANUP.iter().fold(config, |config, (name, value)| config.with(*name, value));
    Cluster::new(config).expect("the configuration is sound")
}

fn host(cluster: &Cluster, node: i32) -> String {
    cluster.broker_name(node).expect("the case names a broker of the cluster").to_owned()
}

/// Runs a program beside three brokers in the simulated world, and gives what came of it.
///
/// # Panics
/// If it has not ended within an hour of simulated time, or kills a broker twice without a start between.
pub fn in_the_world<T, F>(seed: u64, program: impl Fn(Arc<dyn Subject>) -> F + Send + Sync + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    beside(ClusterConfig::simulated(3), seed, program)
}

/// The same beside the brokers of some configuration.
///
/// # Panics
/// As [`in_the_world`], and if the configuration is not sound.
pub fn beside<T, F>(
    config: ClusterConfig,
    seed: u64,
    program: impl Fn(Arc<dyn Subject>) -> F + Send + Sync + 'static,
) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let cluster = cluster(config);
    let mut world = world::build(
        Engine::Jump,
        WorldConfig { seed: Seed(seed), latency: LatencyRange::millis(1, 5), recorder: Arc::new(NoRecorder) },
    )
    .expect("built with tokio_unstable");
    for (name, program) in cluster.hosts() {
        world.add_host(&name, program);
    }
    let orders = Orders::default();
    let outcome: Arc<Mutex<Option<T>>> = Arc::default();
    world.add_host("tester", {
        let (bootstrap, orders, outcome) = (cluster.bootstrap_servers(), orders.clone(), outcome.clone());
        context::program(move |context| {
            let nodes = Arc::new(Ordered { context: context.clone(), orders: orders.clone() });
            let (running, outcome) = (program(bed(context, &bootstrap, nodes)), outcome.clone());
            async move {
                let result = running.await;
                lock(&outcome).replace(result);
            }
        })
    });
    let end = world.now() + Duration::from_secs(60 * 60);
    while world.now() < end {
        world.run_until(world.now() + Duration::from_millis(10));
        for order in lock(&orders).drain(..) {
            let change = match order {
                Order::Kill(node) => Change::Kill { host: host(&cluster, node) },
                Order::Start(node) => Change::Restart { host: host(&cluster, node) },
            };
            world.change(&change).expect("who kills a broker starts it before it is killed again");
        }
        if let Some(outcome) = lock(&outcome).take() {
            return outcome;
        }
    }
    panic!("it did not end within an hour of simulated time");
}

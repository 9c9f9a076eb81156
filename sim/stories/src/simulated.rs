//! The simulated cluster as a stage.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use context::{Context, NoRecorder, Seed};
use kafka::{BROKER_PORT, Cluster, ClusterConfig};
use world::{Change, Engine, LatencyRange, WorldConfig};

use crate::account::Account;
use crate::stage::{Stage, StageError};
use crate::tales::Tale;

/// From the start of a broker's process to its first request: a Java machine's start, as measured with two cores.
const PROCESS_START: Duration = Duration::from_millis(3_500);

struct Simulated {
    context: Context,
    /// Changes that are not made yet.
    orders: Arc<Mutex<Vec<Change>>>,
}

impl Simulated {
    async fn order(&self, change: Change) -> Result<(), StageError> {
        lock(&self.orders).push(change);
        while !lock(&self.orders).is_empty() {
            self.context.sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}

fn host(broker: i32) -> String {
    format!("broker-{broker}")
}

#[async_trait]
impl Stage for Simulated {
    fn context(&self) -> Context {
        self.context.clone()
    }

    fn address(&self, broker: i32) -> (String, u16) {
        (host(broker), BROKER_PORT)
    }

    async fn kill(&self, broker: i32) -> Result<(), StageError> {
        self.order(Change::Kill { host: host(broker) }).await
    }

    async fn start(&self, broker: i32) -> Result<(), StageError> {
        let (context, orders) = (self.context.clone(), self.orders.clone());
        self.context.spawn("start", async move {
            context.sleep(PROCESS_START).await;
            lock(&orders).push(Change::Restart { host: host(broker) });
        });
        Ok(())
    }

    async fn pause(&self, broker: i32) -> Result<(), StageError> {
        self.order(Change::Pause { host: host(broker) }).await
    }

    async fn resume(&self, broker: i32) -> Result<(), StageError> {
        self.order(Change::Resume { host: host(broker) }).await
    }
}

/// Tells a story to a simulated cluster of three brokers.
///
/// # Errors
/// As [`Tale::tell`].
///
/// # Panics
/// If the story does not end within ten simulated minutes.
pub fn on_simulated_kafka(tale: Tale, seed: u64) -> Result<Account, StageError> {
    let mut config = ClusterConfig::simulated(3);
    config.config.extend(tale.config());
    config.features = tale.levels();
    let cluster = Cluster::new(config).map_err(|error| StageError(error.to_string()))?;
    let latency = LatencyRange::millis(0, 1);
    let config = WorldConfig { seed: Seed(seed), latency, recorder: Arc::new(NoRecorder) };
    let mut world =
        world::build(Engine::Jump, config).map_err(|error| StageError(format!("no world: {error}")))?;
    for (name, program) in cluster.hosts() {
        world.add_host(&name, program);
    }
    let orders: Arc<Mutex<Vec<Change>>> = Arc::default();
    let told: Arc<Mutex<Option<Result<Account, StageError>>>> = Arc::default();
    world.add_host("teller", {
        let (orders, told) = (orders.clone(), told.clone());
        context::program(move |context| {
            let stage = Arc::new(Simulated { context, orders: orders.clone() });
            let told = told.clone();
            async move {
                let account = tale.tell(stage).await;
                lock(&told).replace(account);
            }
        })
    });
    let end = world.now() + Duration::from_secs(600);
    while world.now() < end {
        world.run_until(world.now() + Duration::from_millis(1));
        for change in lock(&orders).drain(..) {
            world.change(&change).map_err(|error| StageError(format!("{change:?}: {error}")))?;
        }
        if let Some(told) = lock(&told).take() {
            return told;
        }
    }
    panic!("`{}` did not end within ten simulated minutes", tale.name);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! A calm world with a cluster in it, and the gates between which a bench is timed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use broker::{Broker, NewTopic, Properties};
use client::WireBroker;
use context::{Context, Recorder, Seed};
use kafka::{Cluster, ClusterConfig};
use rustix::time::{ClockId, clock_gettime};
use world::{Engine, LatencyRange, World, WorldConfig};

/// CPU time of this thread during `work`.
pub fn cpu_time_of(work: impl FnOnce()) -> Duration {
    let spent = || {
        let spent = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32)
    };
    let before = spent();
    work();
    spent() - before
}

/// A world on which nothing goes wrong.
pub(crate) fn calm(recorder: Arc<dyn Recorder>) -> Box<dyn World> {
    let config = WorldConfig { seed: Seed(1), latency: LatencyRange::millis(1, 1), recorder };
    world::build(Engine::Jump, config).expect("built with tokio_unstable")
}

/// A cluster of so many brokers, its hosts added to the world; gives its bootstrap servers. Topics have a replica on each.
pub(crate) fn add_cluster(world: &mut dyn World, brokers: u32) -> String {
    let config = ClusterConfig::simulated(brokers).with("default.replication.factor", brokers);
    let cluster = Cluster::new(config).expect("the default configuration is sound");
    for (name, program) in cluster.hosts() {
        world.add_host(&name, program);
    }
    cluster.bootstrap_servers()
}

/// Clients of the cluster.
pub(crate) fn broker(context: &Context, bootstrap: &str) -> WireBroker {
    WireBroker::new(context.clone(), Properties::new().set("bootstrap.servers", bootstrap))
}

pub(crate) async fn create_topics(broker: &WireBroker, topics: &[NewTopic]) {
    let admin = broker.admin(&Properties::new()).await.expect("sound properties");
    admin.create_topics(topics).await.expect("the cluster creates topics");
}

/// The gates of a timed part: each host says when it is warm and waits for the start; one of them says when it is over.
#[derive(Clone, Default)]
pub(crate) struct Gates {
    warm: Arc<AtomicUsize>,
    go: Arc<AtomicBool>,
    done: Arc<AtomicBool>,
}

impl Gates {
    pub(crate) async fn ready(&self, context: &Context) {
        self.warm.fetch_add(1, Ordering::Relaxed);
        while !self.go.load(Ordering::Relaxed) {
            context.sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn finish(&self) {
        self.done.store(true, Ordering::Relaxed);
    }

    /// Runs the world until the timed part of its `hosts` is over; gives the CPU time of that part.
    pub(crate) fn measure(&self, world: &mut dyn World, hosts: usize) -> Duration {
        let mut run_until = |reached: &dyn Fn() -> bool| {
            while !reached() {
                world.run_until(world.now() + Duration::from_millis(100));
            }
        };
        run_until(&|| self.warm.load(Ordering::Relaxed) == hosts);
        self.go.store(true, Ordering::Relaxed);
        cpu_time_of(|| run_until(&|| self.done.load(Ordering::Relaxed)))
    }
}

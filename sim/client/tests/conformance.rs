//! The conformance suite of `services/broker` over this client: against the simulated Kafka, inside the simulated world and
//! over loopback TCP in real time, each case with a cluster of its own; and against the real Kafka that is at hand, one for
//! all cases.
//!
//! What is about transactions runs on clusters of both levels of `transaction.version` that clients can tell apart: a cluster has 2
//! unless told otherwise, and at 1 Java's client falls back to the first protocol too.
//!
//! On the simulated Kafka every feature is on, and a case that is skipped fails. Where there is no real Kafka, each case on it
//! shows as ignored, with the reason.
//!
//! No case knows which Kafka it runs on, and none differs: what holds on Kafka 4.1 holds on the simulated one.

#[path = "claims/mod.rs"]
mod claims;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use broker::conformance::{Case, Need, Nodes, Outcome, cases};
use broker::{Broker, Error, Properties};
use cluster::conformance::{self, Stand};
use cluster::{Shared, trials};
use context::real::RealHost;
use context::{BoxFuture, Context, NoRecorder, Seed};
use kafka::ClusterConfig;
use kafka::loopback::{Loopback, own_address};
use libtest_mimic::{Arguments, Trial};
use shakedown_client::WireBroker;
use shakedown_client::conformance::{bed, beside, cluster, in_the_world};
use world::{Engine, LatencyRange, WorldConfig};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Over TCP the cases wait for real sessions and elections, not for the processor.
    arguments.test_threads.get_or_insert(8);
    let shared = match conformance::spec() {
        Ok(spec) => Arc::new(Shared::new(spec)),
        Err(none) => {
            eprintln!("{none}");
            return ExitCode::FAILURE;
        }
    };
    let real = Stand::new(shared.clone(), client);
    let mut trials = Vec::new();
    for (case, first_port) in cases().into_iter().zip((20_000..).step_by(10)) {
        trials.push(Trial::test(format!("world::{}", case.name), move || {
            Ok(in_the_world(7, move |subject| async move { case.run(subject).await }).must_pass()?)
        }));
        trials.push(Trial::test(format!("tcp::{}", case.name), move || {
            Ok(over_tcp(case, first_port).must_pass()?)
        }));
        if case.needs.contains(&Need::Transactions) {
            trials.push(Trial::test(format!("world::level-1::{}", case.name), move || {
                let outcome = beside(at_level(1), 7, move |subject| async move { case.run(subject).await });
                Ok(outcome.must_pass()?)
            }));
        }
        trials.push(real.trial(format!("real::{}", case.name), case));
    }
    for habits in ["librdkafka", "java"] {
        for (name, claim) in claims::CLAIMS.iter().chain(claims::ADMIN_CLAIMS) {
            trials.push(Trial::test(format!("world::{habits}::{name}"), move || {
                hold_in_the_world(LATEST, habits, *claim);
                Ok(())
            }));
            trials.push(real.claim(format!("real::{habits}::{name}"), move |context, broker, run| {
                claim(claims::Desk { context, broker, habits, level: LATEST, run })
            }));
        }
        for (name, claim) in claims::CLAIMS {
            trials.push(Trial::test(format!("world::level-1::{habits}::{name}"), move || {
                hold_in_the_world(1, habits, *claim);
                Ok(())
            }));
        }
    }
    drop(real);
    trials::run(&arguments, trials, shared)
}

/// The level of `transaction.version` that a cluster of Kafka 4.1 is formatted with.
const LATEST: i16 = 2;

/// Brokers at a level of `transaction.version`.
fn at_level(level: i16) -> ClusterConfig {
    ClusterConfig::simulated(3).with_feature("transaction.version", level)
}

fn client(context: Context, bootstrap: &str) -> Arc<dyn Broker> {
    Arc::new(WireBroker::new(context, Properties::new().set("bootstrap.servers", bootstrap)))
}

/// Runs a claim about transactions; it panics where it does not hold.
fn hold_in_the_world(level: i16, habits: &'static str, claim: fn(claims::Desk) -> BoxFuture<'static, ()>) {
    let cluster = cluster(at_level(level));
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
            let desk = claims::Desk { context, broker, habits, level, run: "claim".into() };
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Brokers of this process. The conformance tests of services/kafka have the same: of `broker` and `kafka`, where its halves
/// are, neither knows the other.
struct Ours(Loopback);

#[async_trait]
impl Nodes for Ours {
    async fn kill(&self, node_id: i32) -> Result<(), Error> {
        self.0.kill(node_id).await;
        Ok(())
    }

    async fn start(&self, node_id: i32) -> Result<(), Error> {
        self.0.restart(node_id);
        Ok(())
    }
}

/// The ports from the first on are the case's own. On threads, as `shakedown serve` has its brokers.
fn over_tcp(case: Case, first_port: u16) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let config = ClusterConfig::simulated(3).at(own_address(), first_port);
        let cluster = cluster(config.with("group.initial.rebalance.delay.ms", 0));
        let bootstrap = cluster.bootstrap_servers();
        let nodes = Loopback::start(cluster, Seed(first_port.into()));
        let context = RealHost::new("tester", Seed(7)).into_context();
        nodes.cluster().until_live(&context).await;
        let nodes = Arc::new(Ours(nodes));
        case.run(bed(context, &bootstrap, nodes)).await
    })
}

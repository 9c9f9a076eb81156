//! The conformance suite of `services/broker` over this client and the simulated Kafka, in two places: inside the
//! simulated world, and over loopback TCP in real time. Each case has a cluster of its own.
//!
//! Every feature is on: a case that is skipped fails.

#[path = "claims/mod.rs"]
mod claims;
#[path = "stand/mod.rs"]
mod stand;

use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker::Properties;
use broker::conformance::{Case, Outcome, cases};
use context::real::RealHost;
use context::{BoxFuture, NoRecorder, Program, Seed};
use kafka::ClusterConfig;
use libtest_mimic::{Arguments, Failed, Trial};
use shakedown_client::WireBroker;
use stand::{Bed, Order, Orders, cluster, host, lock};
use world::{Engine, LatencyRange, WorldConfig};

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
    stand::in_the_world(7, move |subject| async move { case.run(subject).await })
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

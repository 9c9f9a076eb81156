//! The conformance suite of `services/broker` over this client and the simulated Kafka, in two places: inside the
//! simulated world, and over loopback TCP in real time. Each case has a cluster of its own.
//!
//! Every feature that this pair has is on; a case that is skipped is listed with its reason.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use broker::conformance::{Case, Feature, Features, Outcome, Subject, cases};
use broker::{Broker, Error, Properties};
use context::real::RealHost;
use context::{Context, NoRecorder, Program, Seed};
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
        if let Some(reason) = skipped(&case) {
            println!("skipped: {} ({reason})", case.name);
            continue;
        }
        trials.push(Trial::test(format!("world::{}", case.name), move || judge(in_the_world(case))));
        trials.push(Trial::test(format!("tcp::{}", case.name), move || judge(over_tcp(case, number))));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// What this client over the simulated Kafka can do.
fn features() -> Features {
    Features {
        transactions: Feature::Off("the simulated Kafka has no transactions yet".into()),
        ..Features::all()
    }
}

fn skipped(case: &Case) -> Option<String> {
    match features().lacking(case) {
        Some(Feature::Off(reason)) => Some(reason.clone()),
        _ => None,
    }
}

fn judge(outcome: Outcome) -> Result<(), Failed> {
    match outcome {
        Outcome::Passed => Ok(()),
        Outcome::Failed(failure) => Err(failure.0.into()),
        Outcome::Skipped(reason) => Err(format!("skipped, though its features are on: {reason}").into()),
    }
}

/// What the case asks of the one who runs its cluster.
type Restarts = Arc<Mutex<Vec<i32>>>;

struct Bed {
    context: Context,
    bootstrap: String,
    restarts: Restarts,
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
        features()
    }

    async fn restart_broker(&self, node_id: i32) -> Result<(), Error> {
        self.restarts.lock().unwrap_or_else(PoisonError::into_inner).push(node_id);
        while !self.restarts.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            self.context.sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    fn run_id(&self) -> String {
        "conformance".into()
    }
}

/// The hosts whose restart is asked for. They stay on the list, and the case waits, until [`done`].
fn asked(cluster: &Cluster, restarts: &Restarts) -> Vec<String> {
    let nodes = restarts.lock().unwrap_or_else(PoisonError::into_inner);
    let name =
        |node: &i32| cluster.broker_name(*node).expect("the case names a broker of the cluster").to_owned();
    nodes.iter().map(name).collect()
}

fn done(restarts: &Restarts) {
    restarts.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

fn in_the_world(case: Case) -> Outcome {
    let cluster = Cluster::new(ClusterConfig::simulated(3)).expect("the default configuration is sound");
    let mut world = world::build(
        Engine::Jump,
        WorldConfig { seed: Seed(7), latency: LatencyRange::millis(1, 5), recorder: Arc::new(NoRecorder) },
    )
    .expect("built with tokio_unstable");
    for (name, program) in cluster.hosts() {
        world.add_host(&name, program);
    }
    let restarts = Restarts::default();
    let outcome: Arc<Mutex<Option<Outcome>>> = Arc::default();
    world.add_host("tester", {
        let (bootstrap, restarts, outcome) = (cluster.bootstrap_servers(), restarts.clone(), outcome.clone());
        context::program(move |context| {
            let bed = Bed { context, bootstrap: bootstrap.clone(), restarts: restarts.clone() };
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
        for host in asked(&cluster, &restarts) {
            world.change(&Change::Kill { host: host.clone() }).expect("a broker can be killed");
            world.change(&Change::Restart { host }).expect("a killed broker can be restarted");
        }
        done(&restarts);
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
        let cluster = Cluster::new(config).expect("the configuration is sound");
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
        let restarts = Restarts::default();
        let context = RealHost::new("tester", Seed(7)).into_context();
        let bed = Bed {
            context: context.clone(),
            bootstrap: cluster.bootstrap_servers(),
            restarts: restarts.clone(),
        };
        let mut running = Box::pin(case.run(Arc::new(bed)));
        loop {
            if let Ok(outcome) = context.timeout(Duration::from_millis(50), &mut running).await {
                return outcome;
            }
            for asked in asked(&cluster, &restarts) {
                let (name, program, host) =
                    hosts.iter_mut().find(|(name, ..)| *name == asked).expect("every broker has its host");
                host.shutdown();
                // The sockets close when the tasks have been dropped, which they are when the runtime gets to it.
                context.sleep(Duration::from_millis(50)).await;
                *host = start(name, program);
            }
            done(&restarts);
        }
    })
}

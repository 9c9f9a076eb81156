//! The conformance suite of `services/broker` over librdkafka: against the simulated Kafka on loopback TCP, each case with
//! a cluster of its own, and against the Kafka that `KAFKA_BOOTSTRAP_SERVERS` names, if it names one.
//!
//! On the simulated Kafka every feature is on, and a case that is skipped fails. On a given Kafka no broker is restarted:
//! it is not ours.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use broker::conformance::{Case, FREQUENT_CLEANUP, Feature, Features, Outcome, Subject, cases};
use broker::{Broker, Error, Properties};
use context::real::RealHost;
use context::{Context, Program, Seed};
use kafka::{Cluster, ClusterConfig};
use libtest_mimic::{Arguments, Failed, Trial};
use shakedown_rdkafka::RdKafkaBroker;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The cases wait for sessions and elections in real time, not for the processor.
    arguments.test_threads.get_or_insert(8);
    let given = given_kafka();
    let mut trials = Vec::new();
    for (number, case) in cases().into_iter().enumerate() {
        trials.push(Trial::test(format!("simulated::{}", case.name), move || judge(simulated(case, number))));
        if let Some(bootstrap) = given.clone() {
            if let Some(Feature::Off(reason)) = features_of_given().lacking(&case) {
                println!("skipped: given::{} ({reason})", case.name);
                continue;
            }
            trials.push(Trial::test(format!("given::{}", case.name), move || judge(over(case, bootstrap))));
        }
    }
    if given.is_none() {
        println!("skipped: given::* (KAFKA_BOOTSTRAP_SERVERS is not set)");
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

#[expect(
    clippy::disallowed_methods,
    reason = "which Kafka to test against is for the caller to say; no simulation here"
)]
fn given_kafka() -> Option<String> {
    std::env::var("KAFKA_BOOTSTRAP_SERVERS").ok().filter(|servers| !servers.is_empty())
}

fn features_of_given() -> Features {
    Features {
        restart_broker: Feature::Off("its brokers are not ours to restart".into()),
        frequent_cleanup: Feature::Off("how often it cleans up is not ours to set".into()),
        ..Features::all()
    }
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
    features: Features,
    orders: Orders,
    run_id: String,
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
        Arc::new(RdKafkaBroker::new(self.context.clone(), properties))
    }

    fn features(&self) -> Features {
        self.features.clone()
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
        self.run_id.clone()
    }
}

/// The number gives every case a loopback address of its own, so that cases do not meet on a port.
fn simulated(case: Case, number: usize) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let address = format!("127.78.{}.1", number + 1);
        let mut config = ClusterConfig::simulated(3).with("group.initial.rebalance.delay.ms", 0);
        for (name, value) in FREQUENT_CLEANUP {
            config = config.with(*name, value);
        }
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
        let orders = Orders::default();
        let context = RealHost::new("tester", Seed(7)).into_context();
        let bed = Bed {
            context: context.clone(),
            bootstrap: cluster.bootstrap_servers(),
            features: Features::all(),
            orders: orders.clone(),
            run_id: "conformance".into(),
        };
        let mut running = Box::pin(case.run(Arc::new(bed)));
        loop {
            if let Ok(outcome) = context.timeout(Duration::from_millis(50), &mut running).await {
                return outcome;
            }
            let asked = lock(&orders).clone();
            for order in &asked {
                let (Order::Kill(node) | Order::Start(node)) = *order;
                let wanted = cluster.broker_name(node).expect("the case names a broker of the cluster");
                let (name, program, host) =
                    hosts.iter_mut().find(|(name, ..)| name == wanted).expect("every broker has its host");
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

/// Against a Kafka that is there already. Names carry the time, so that runs on one cluster do not meet.
fn over(case: Case, bootstrap: String) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let context = RealHost::new("tester", Seed(7)).into_context();
        let run_id = format!("conformance.{}", context.now().as_millis());
        let bed =
            Bed { context, bootstrap, features: features_of_given(), orders: Orders::default(), run_id };
        case.run(Arc::new(bed)).await
    })
}

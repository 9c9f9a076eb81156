//! The conformance suite of `services/broker` over librdkafka: against the simulated Kafka on loopback TCP, each case with
//! a cluster of its own, and against the Kafka that `KAFKA_BOOTSTRAP_SERVERS` names, if it names one.
//!
//! On the simulated Kafka every feature is on, and a case that is skipped fails. On a given Kafka no broker is restarted:
//! it is not ours.

use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use broker::conformance::{Bed, Case, FREQUENT_CLEANUP, Feature, Features, Nodes, NotOurs, Outcome, cases};
use broker::{Error, Properties};
use context::Seed;
use context::real::RealHost;
use kafka::loopback::{Loopback, own_address};
use kafka::{Cluster, ClusterConfig};
use libtest_mimic::{Arguments, Trial};
use shakedown_rdkafka::RdKafkaBroker;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The cases wait for sessions and elections in real time, not for the processor.
    arguments.test_threads.get_or_insert(8);
    let given = given_kafka();
    let mut trials = Vec::new();
    for (case, first_port) in cases().into_iter().zip((20_000..).step_by(10)) {
        trials.push(Trial::test(format!("simulated::{}", case.name), move || {
            Ok(simulated(case, first_port).must_pass()?)
        }));
        if let Some(bootstrap) = given.clone() {
            if let Some(Feature::Off(reason)) = Features::of_a_given_cluster().lacking(&case) {
                println!("skipped: given::{} ({reason})", case.name);
                continue;
            }
            trials.push(Trial::test(format!("given::{}", case.name), move || {
                Ok(over(case, bootstrap).must_pass()?)
            }));
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

/// Brokers of this process. The conformance tests of sim/client have the same: of `broker` and `kafka`, where its halves
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

/// The ports from the first on are the case's own.
fn simulated(case: Case, first_port: u16) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let config = ClusterConfig::simulated(3).at(own_address(), first_port);
        let config = config.with("group.initial.rebalance.delay.ms", 0);
        let config = FREQUENT_CLEANUP.iter().fold(config, |config, (name, value)| config.with(*name, value));
        let cluster = Cluster::new(config).expect("the configuration is sound");
        let bootstrap = cluster.bootstrap_servers();
        let nodes = Arc::new(Ours(Loopback::start(cluster, Seed(first_port.into()))));
        let context = RealHost::new("tester", Seed(7)).into_context();
        let broker =
            RdKafkaBroker::new(context.clone(), Properties::new().set("bootstrap.servers", bootstrap));
        let (broker, features) = (Arc::new(broker), Features::all());
        case.run(Arc::new(Bed { context, broker, features, nodes, run_id: "conformance".into() })).await
    })
}

/// Against a Kafka that is there already. Names carry the time, so that runs on one cluster do not meet.
fn over(case: Case, bootstrap: String) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let context = RealHost::new("tester", Seed(7)).into_context();
        let run_id = format!("conformance.{}", context.now().as_millis());
        let broker =
            RdKafkaBroker::new(context.clone(), Properties::new().set("bootstrap.servers", bootstrap));
        let (broker, features, nodes) = (Arc::new(broker), Features::of_a_given_cluster(), Arc::new(NotOurs));
        case.run(Arc::new(Bed { context, broker, features, nodes, run_id })).await
    })
}

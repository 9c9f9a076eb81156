//! The conformance suite of `services/broker` over librdkafka: against the simulated Kafka on loopback TCP, each case with
//! a cluster of its own, and against the real Kafka that is at hand, one for all cases.
//!
//! What is about transactions runs on the simulated Kafka at both levels of `transaction.version`: librdkafka speaks the first
//! protocol at each, but at 2 brokers verify and end what it does in another way.
//!
//! On the simulated Kafka every feature is on, and a case that is skipped fails. Of a real Kafka that is given, nothing is
//! restarted; where there is none, each case on it shows as ignored, with the reason.
//!
//! No case knows which Kafka it runs on, and none differs: what holds on Kafka 4.1 holds on the simulated one.

use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use broker::conformance::{Bed, Case, FREQUENT_CLEANUP, Features, Need, Nodes, Outcome, cases};
use broker::{Broker, Error, Properties};
use cluster::conformance::{self, Stand};
use cluster::{Shared, trials};
use context::real::RealHost;
use context::{Context, Seed};
use kafka::loopback::{Loopback, own_address};
use kafka::{Cluster, ClusterConfig};
use libtest_mimic::{Arguments, Trial};
use shakedown_rdkafka::RdKafkaBroker;

/// So far are the ports of a case at level 1 of `transaction.version` from those at level 2.
const LEVEL_1: u16 = 5_000;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The cases wait for sessions and elections in real time, not for the processor.
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
        trials.push(Trial::test(format!("simulated::{}", case.name), move || {
            Ok(simulated(case, 2, first_port).must_pass()?)
        }));
        if case.needs.contains(&Need::Transactions) {
            trials.push(Trial::test(format!("simulated::level-1::{}", case.name), move || {
                Ok(simulated(case, 1, first_port + LEVEL_1).must_pass()?)
            }));
        }
        trials.push(real.trial(format!("real::{}", case.name), case));
    }
    drop(real);
    trials::run(&arguments, trials, shared)
}

fn client(context: Context, bootstrap: &str) -> Arc<dyn Broker> {
    Arc::new(RdKafkaBroker::new(context, Properties::new().set("bootstrap.servers", bootstrap)))
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

/// On brokers at a level of `transaction.version`. The ports from the first on are the case's own. On threads, as `shakedown
/// serve` has its brokers.
fn simulated(case: Case, level: i16, first_port: u16) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let config = ClusterConfig::simulated(3).with_feature("transaction.version", level);
        let config = config.at(own_address(), first_port);
        let config = config.with("group.initial.rebalance.delay.ms", 0);
        let config = FREQUENT_CLEANUP.iter().fold(config, |config, (name, value)| config.with(*name, value));
        let cluster = Cluster::new(config).expect("the configuration is sound");
        let bootstrap = cluster.bootstrap_servers();
        let nodes = Loopback::start(cluster, Seed(first_port.into()));
        let context = RealHost::new("tester", Seed(7)).into_context();
        nodes.cluster().until_live(&context).await;
        let nodes = Arc::new(Ours(nodes));
        let (broker, features) = (client(context.clone(), &bootstrap), Features::all());
        case.run(Arc::new(Bed { context, broker, features, nodes, run_id: "conformance".into() })).await
    })
}

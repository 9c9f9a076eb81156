//! The conformance suite of `services/broker` on real Kafka, whatever client it is for: one cluster for all cases.
//!
//! Cases run side by side, each under names of its own, but for those that break brokers: such a case has the cluster for
//! itself, and leaves it whole. What the cluster cannot do is a reason to skip, and shows.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use broker::conformance::{Bed, Case, FREQUENT_CLEANUP, Feature, Features, Need, Nodes, Outcome};
use broker::{Broker, Error, ErrorClass, ErrorCode};
use context::real::RealHost;
use context::{BoxFuture, Context, Seed};
use libtest_mimic::{Completion, Failed, Trial};

use crate::trials::trial;
use crate::{NoKafka, RealKafka, Shared, Spec, Wanted};

/// How long a cluster may take to be whole again after a case.
const WHOLE_WITHIN: Duration = Duration::from_secs(120);

/// Makes the Broker under test: for a context, and what to bootstrap from.
pub type Client = fn(Context, &str) -> Arc<dyn Broker>;

/// Three brokers, or as many as `SHAKEDOWN_KAFKA_BROKERS` says, set up as the suite has its simulated ones: Kafka's defaults,
/// but for what a small cluster needs and for frequent cleanup.
///
/// # Errors
/// [`NoKafka::Broken`] if the environment says something without meaning.
pub fn spec() -> Result<Spec, NoKafka> {
    let brokers = Wanted::from_environment().map_err(NoKafka::Broken)?.brokers.unwrap_or(3);
    let spec = Spec::for_tests(brokers).with(FREQUENT_CLEANUP.iter().copied());
    Ok(spec.with([("default.replication.factor", 1), ("min.insync.replicas", 1)]))
}

/// The cluster on which cases run.
pub struct Stand {
    shared: Arc<Shared>,
    /// Held for reading by those who share the cluster, for writing by one who breaks it.
    whole: RwLock<()>,
    client: Client,
}

impl Stand {
    /// On the Kafka that `shared` finds.
    pub fn new(shared: Arc<Shared>, client: Client) -> Arc<Stand> {
        Arc::new(Stand { shared, whole: RwLock::new(()), client })
    }

    /// A claim of the client's own as a test: one that breaks no broker, and panics where it does not hold. It is handed a context,
    /// its Broker, and what makes its names unlike those of other runs.
    pub fn claim(
        self: &Arc<Stand>,
        name: String,
        hold: impl FnOnce(Context, Arc<dyn Broker>, String) -> BoxFuture<'static, ()> + Send + 'static,
    ) -> Trial {
        let stand = self.clone();
        trial(name, &self.shared, move |kafka| {
            let _shared = stand.whole.read().unwrap_or_else(PoisonError::into_inner);
            stand.block_on(kafka, hold);
            Ok(Completion::Completed)
        })
    }

    /// A case as a test.
    pub fn trial(self: &Arc<Stand>, name: String, case: Case) -> Trial {
        let stand = self.clone();
        trial(name, &self.shared, move |kafka| stand.run(&case, kafka))
    }

    fn run(&self, case: &Case, kafka: &Arc<RealKafka>) -> Result<Completion, Failed> {
        let features = features(kafka);
        if let Some(Feature::Off(reason)) = features.lacking(case) {
            return Ok(Completion::ignored_with(reason));
        }
        let outcome = if case.needs.contains(&Need::RestartBroker) {
            // A case that panicked left it whole or not, which the next one sees by itself.
            let _alone = self.whole.write().unwrap_or_else(PoisonError::into_inner);
            kafka.await_ready(WHOLE_WITHIN)?;
            let outcome = self.outcome(case, kafka, features);
            for broker in 1..=kafka.brokers().unwrap_or(0) {
                kafka.restart(broker)?;
            }
            kafka.await_ready(WHOLE_WITHIN)?;
            outcome
        } else {
            let _shared = self.whole.read().unwrap_or_else(PoisonError::into_inner);
            self.outcome(case, kafka, features)
        };
        outcome.must_pass()?;
        Ok(Completion::Completed)
    }

    fn outcome(&self, case: &Case, kafka: &Arc<RealKafka>, features: Features) -> Outcome {
        let (case, nodes) = (*case, Arc::new(Ours(kafka.clone())));
        self.block_on(kafka, |context, broker, run_id| {
            Box::pin(
                async move { case.run(Arc::new(Bed { context, broker, features, nodes, run_id })).await },
            )
        })
    }

    /// On a runtime of its own, with a client of its own.
    fn block_on<T>(
        &self,
        kafka: &RealKafka,
        run: impl FnOnce(Context, Arc<dyn Broker>, String) -> BoxFuture<'static, T>,
    ) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let context = RealHost::new("tester", Seed(7)).into_context();
            let broker = (self.client)(context.clone(), &kafka.bootstrap_servers());
            let run_id = format!("conformance.{}", context.now().as_millis());
            run(context, broker, run_id).await
        })
    }
}

fn features(kafka: &RealKafka) -> Features {
    match kafka.brokers() {
        None => Features::of_a_given_cluster(),
        Some(brokers @ ..3) => Features {
            restart_broker: Feature::Off(format!("it needs three brokers, and there are {brokers}")),
            ..Features::all()
        },
        Some(_) => Features::all(),
    }
}

struct Ours(Arc<RealKafka>);

#[async_trait]
impl Nodes for Ours {
    async fn kill(&self, node_id: i32) -> Result<(), Error> {
        self.0.kill(node_id as u32).map_err(failed)
    }

    async fn start(&self, node_id: i32) -> Result<(), Error> {
        self.0.restart(node_id as u32).map_err(failed)
    }
}

fn failed(error: crate::ClusterError) -> Error {
    Error::new(ErrorCode::Unsupported, ErrorClass::Failed, error.to_string())
}

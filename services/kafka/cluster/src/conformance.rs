//! The conformance suite of `services/broker` on real Kafka, whatever client it is for, and tests of one's own: one cluster for
//! all.
//!
//! Cases run side by side, each under names of its own, but for those that break brokers: such a case has the cluster for
//! itself, and leaves it whole. What the cluster cannot do is a reason to skip, and shows.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use broker::conformance::{Bed, Case, FREQUENT_CLEANUP, Feature, Features, Need, Nodes, Subject};
use broker::{Broker, Error, ErrorClass, ErrorCode};
use context::real::RealHost;
use context::{BoxFuture, Context, Seed};
use libtest_mimic::{Completion, Failed, Trial};

use crate::trials::trial;
use crate::{NoKafka, RealKafka, Shared, Spec, Wanted, unlike_others};

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
    let spec = spec.with([("default.replication.factor", 1), ("min.insync.replicas", 1)]);
    // Every five minutes it would move what one case left elsewhere, amid the next.
    Ok(spec.with([("auto.leader.rebalance.enable", "false")]))
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
        let client = self.client;
        self.turn(name, false, move |turn| {
            turn.block_on(client, |subject| hold(subject.context(), subject.broker(), subject.run_id()));
            Ok(())
        })
    }

    /// A case as a test.
    pub fn trial(self: &Arc<Stand>, name: String, case: Case) -> Trial {
        let stand = self.clone();
        trial(name, &self.shared, move |kafka| stand.run(&case, kafka))
    }

    /// A test of one's own. It has the cluster for itself if it kills brokers, as `breaks` says; the reason to skip it then is
    /// the cluster's.
    pub fn turn(
        self: &Arc<Stand>,
        name: String,
        breaks: bool,
        take: impl FnOnce(&Turn<'_>) -> Result<(), Failed> + Send + 'static,
    ) -> Trial {
        let stand = self.clone();
        trial(name, &self.shared, move |kafka| match features(kafka).restart_broker {
            Feature::Off(reason) if breaks => Ok(Completion::ignored_with(reason)),
            _ => {
                stand.in_turn(kafka, breaks, take)??;
                Ok(Completion::Completed)
            }
        })
    }

    fn run(&self, case: &Case, kafka: &Arc<RealKafka>) -> Result<Completion, Failed> {
        if let Some(Feature::Off(reason)) = features(kafka).lacking(case) {
            return Ok(Completion::ignored_with(reason));
        }
        let (case, client) = (*case, self.client);
        let breaks = case.needs.contains(&Need::RestartBroker);
        let outcome = self.in_turn(kafka, breaks, |turn| {
            turn.block_on(client, |subject| Box::pin(async move { case.run(subject).await }))
        })?;
        outcome.must_pass()?;
        Ok(Completion::Completed)
    }

    /// Beside others, or alone and with the cluster whole before and after it.
    fn in_turn<T>(
        &self,
        kafka: &Arc<RealKafka>,
        breaks: bool,
        take: impl FnOnce(&Turn<'_>) -> T,
    ) -> Result<T, Failed> {
        if !breaks {
            let _shared = self.whole.read().unwrap_or_else(PoisonError::into_inner);
            return Ok(take(&Turn { kafka }));
        }
        // A test that panicked may have left a broker dead.
        let _alone = self.whole.write().unwrap_or_else(PoisonError::into_inner);
        let turn = Turn { kafka };
        turn.make_whole()?;
        let taken = take(&turn);
        turn.make_whole()?;
        Ok(taken)
    }
}

/// A test's turn on the cluster.
#[derive(Debug)]
pub struct Turn<'a> {
    kafka: &'a Arc<RealKafka>,
}

impl Turn<'_> {
    /// Runs something with a subject of its own, whose client is this one, on a runtime of its own. No two subjects share
    /// names.
    ///
    /// # Panics
    /// If there can be no runtime.
    pub fn block_on<T>(
        &self,
        client: Client,
        run: impl FnOnce(Arc<dyn Subject>) -> BoxFuture<'static, T>,
    ) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let context = RealHost::new("tester", Seed(7)).into_context();
            let broker = client(context.clone(), &self.kafka.bootstrap_servers());
            let run_id = format!("conformance.{}", unlike_others());
            let (features, nodes) = (features(self.kafka), Arc::new(Ours(self.kafka.clone())));
            run(Arc::new(Bed { context, broker, features, nodes, run_id })).await
        })
    }

    /// How many replicas a partition can have, up to three.
    pub fn replicas(&self) -> i16 {
        // A cluster that is someone else's has one broker at least.
        self.kafka.brokers().map_or(1, |brokers| brokers.min(3) as i16)
    }

    /// Starts the brokers that are dead, and waits until all serve.
    ///
    /// # Errors
    /// If they do not within two minutes.
    pub fn make_whole(&self) -> Result<(), crate::ClusterError> {
        self.kafka.make_whole(WHOLE_WITHIN)
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
        self.0.kill(node_id as u32).map(|_| ()).map_err(failed)
    }

    async fn start(&self, node_id: i32) -> Result<(), Error> {
        self.0.restart(node_id as u32).map_err(failed)
    }
}

fn failed(error: crate::ClusterError) -> Error {
    Error::new(ErrorCode::Unsupported, ErrorClass::Failed, error.to_string())
}

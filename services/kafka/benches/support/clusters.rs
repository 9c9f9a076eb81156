//! The clusters, each on loopback, with the topic on all of its brokers.

use std::any::Any;
use std::time::Duration;

use cluster::{Jars, KAFKA_VERSION, Processes, Spec};
use context::Seed;
use context::real::RealHost;
use kafka::ClusterConfig;
use kafka::loopback::{Loopback, own_address};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use tokio::runtime::{Builder, Runtime};

use super::timed;

/// The topic, which is there before the client.
pub(crate) const TOPIC: &str = "bench";
/// Its partitions.
pub(crate) const PARTITIONS: i32 = 6;

/// What a cluster is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// The simulated Kafka over TCP: the cores and the shell of `shakedown serve`.
    Served,
    /// Kafka itself.
    Real,
    /// Something else: its name, and how it is started.
    #[allow(dead_code, reason = "not every bench compares with something else")]
    Other(&'static str, fn(u32) -> Started),
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Served => "shakedown serve",
            Kind::Real => "Kafka 4.1",
            Kind::Other(name, _) => name,
        }
    }
}

/// A cluster that runs until it is dropped.
pub(crate) struct Cluster {
    pub(crate) kind: Kind,
    pub(crate) brokers: u32,
    pub(crate) bootstrap: String,
    /// From nothing until the topic was made.
    pub(crate) ready_after: Duration,
    _running: Box<dyn Any>,
}

impl Cluster {
    /// Starts a cluster and makes the topic.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn start(kind: Kind, brokers: u32) -> Result<Cluster, String> {
        let runtime = Builder::new_multi_thread().enable_all().build().map_err(|error| error.to_string())?;
        let (started, ready_after) = timed(|| match kind {
            Kind::Served => serve(&runtime, brokers),
            Kind::Real => real(&runtime, brokers),
            Kind::Other(_, start) => start(brokers),
        });
        let (bootstrap, running) = started?;
        // The served cluster's tasks are on this runtime.
        Ok(Cluster { kind, brokers, bootstrap, ready_after, _running: Box::new((running, runtime)) })
    }
}

/// What to bootstrap from, and what runs until it is dropped.
pub(crate) type Started = Result<(String, Box<dyn Any>), String>;

fn serve(runtime: &Runtime, brokers: u32) -> Started {
    let config = ClusterConfig::simulated(brokers).with("group.initial.rebalance.delay.ms", 0);
    let cluster = kafka::Cluster::new(config.at(own_address(), 29_092)).map_err(|error| error.to_string())?;
    let nodes = runtime.block_on(async {
        let nodes = Loopback::start(cluster, Seed(1));
        let clock = RealHost::new("clock", Seed(0)).into_context();
        nodes.cluster().until_live(&clock).await;
        nodes
    });
    let bootstrap = nodes.cluster().bootstrap_servers();
    create_topic(runtime, &bootstrap, brokers)?;
    Ok((bootstrap, Box::new(nodes)))
}

fn real(runtime: &Runtime, brokers: u32) -> Started {
    let jars = Jars::find().map_err(|error| error.to_string())?;
    assert!(KAFKA_VERSION.starts_with("4.1."), "the table says 4.1, the jars are {KAFKA_VERSION}");
    let replicas = ["offsets.topic.replication.factor", "transaction.state.log.replication.factor"];
    let config = replicas.map(|name| (name.to_owned(), brokers.to_string())).into();
    let spec = Spec { brokers, config, ..Spec::default() };
    let processes = Processes::start(&jars, &spec).map_err(|error| error.to_string())?;
    let bootstrap = processes.bootstrap_servers();
    create_topic(runtime, &bootstrap, brokers)?;
    Ok((bootstrap, Box::new(processes)))
}

fn create_topic(runtime: &Runtime, bootstrap: &str, replicas: u32) -> Result<(), String> {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .map_err(|error| format!("no admin client: {error}"))?;
    let topic = NewTopic::new(TOPIC, PARTITIONS, TopicReplication::Fixed(replicas as i32));
    let created = runtime.block_on(admin.create_topics([&topic], &AdminOptions::new()));
    let created = created.map_err(|error| format!("the topic cannot be made: {error}"))?;
    for result in created {
        result.map_err(|(topic, error)| format!("`{topic}` cannot be made: {error}"))?;
    }
    Ok(())
}

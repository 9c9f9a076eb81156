//! The Kafkas.

use std::any::Any;

use ::cluster::{Jars, KAFKA_VERSION, Processes, Spec};
use context::Seed;
use kafka::ClusterConfig;
use kafka::loopback::{Loopback, own_address};
use tokio::runtime::Builder;

/// What a cluster is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The simulated Kafka over TCP: the cores and the shell of `shakedown serve`.
    Served,
    /// Kafka itself.
    Real,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Served => "shakedown serve",
            Kind::Real => "Kafka 4.1",
        }
    }
}

/// A cluster that runs until it is dropped.
pub(crate) struct Cluster {
    pub(crate) kind: Kind,
    pub(crate) brokers: u32,
    pub(crate) bootstrap: String,
    _running: Box<dyn Any>,
}

impl Cluster {
    /// Starts a cluster; the simulated one on ports from `first_port` on.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn start(kind: Kind, brokers: u32, first_port: u16) -> Result<Cluster, String> {
        let (bootstrap, running) = match kind {
            Kind::Served => serve(brokers, first_port)?,
            Kind::Real => real(brokers)?,
        };
        Ok(Cluster { kind, brokers, bootstrap, _running: running })
    }
}

type Started = Result<(String, Box<dyn Any>), String>;

fn serve(brokers: u32, first_port: u16) -> Started {
    let runtime = Builder::new_multi_thread().enable_all().build().map_err(|error| error.to_string())?;
    let config = ClusterConfig::simulated(brokers).with("group.initial.rebalance.delay.ms", 0);
    let cluster =
        kafka::Cluster::new(config.at(own_address(), first_port)).map_err(|error| error.to_string())?;
    let bootstrap = cluster.bootstrap_servers();
    let nodes = runtime.block_on(async { Loopback::start(cluster, Seed(1)) });
    // Its tasks are on this runtime.
    Ok((bootstrap, Box::new((nodes, runtime))))
}

fn real(brokers: u32) -> Started {
    let jars = Jars::find().map_err(|error| error.to_string())?;
    assert!(KAFKA_VERSION.starts_with("4.1."), "the table says 4.1, the jars are {KAFKA_VERSION}");
    let replicas = ["offsets.topic.replication.factor", "transaction.state.log.replication.factor"];
    let config = replicas.map(|name| (name.to_owned(), brokers.to_string())).into();
    let spec = Spec { brokers, config, ..Spec::default() };
    let processes = Processes::start(&jars, &spec).map_err(|error| error.to_string())?;
    Ok((processes.bootstrap_servers(), Box::new(processes)))
}

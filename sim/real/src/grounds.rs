//! The cluster that runs take place on, and the proxies in front of it.
//!
//! A cluster is found or started for a scenario's `[cluster]` ([`cluster::RealKafka`] says which), and serves further runs
//! that want the same and find it whole. Each client host whose links a scenario hurts has a listener of its own on every
//! broker, which advertises that host's proxies; all others reach the brokers directly.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cluster::{Listener, NoKafka, RealKafka, Spec};
use context::Seed;
use context::real::RealHost;
use harness::fault::Wound;
use harness::scenario::Scenario;
use harness::system::System;
use tokio::runtime::Handle;

use crate::able::{Kind, kind_of, wounds};
use crate::links::Links;
use crate::warm::warm;

/// How long a cluster may take to be whole again after what a run did to it.
const WHOLE_WITHIN: Duration = Duration::from_secs(30);

/// How long a cluster may take for its first work.
const WARM_WITHIN: Duration = Duration::from_secs(60);

/// What a scenario wants of its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    brokers: u32,
    config: BTreeMap<String, String>,
    node_config: BTreeMap<u32, BTreeMap<String, String>>,
    features: BTreeMap<String, i16>,
    /// The client hosts whose links to brokers are hurt.
    clients: BTreeSet<String>,
    /// The outside systems, and the services whose links to them are hurt.
    calls: BTreeSet<(String, String)>,
}

impl Wish {
    pub(crate) fn of(system: &dyn System, scenario: &Scenario) -> Wish {
        let cluster = &scenario.cluster;
        let replicas = cluster.replication_factor;
        // The first four as the simulated cluster has them. `transaction.state.log.min.isr` is Kafka's in both: a partition
        // asks for no more replicas in sync than it has (`Partition.effectiveMinIsr`).
        let settings = [
            ("default.replication.factor", replicas),
            ("offsets.topic.replication.factor", replicas),
            ("transaction.state.log.replication.factor", replicas),
            ("min.insync.replicas", cluster.min_insync_replicas),
            // Each client host with a listener of its own costs as many threads.
            ("num.network.threads", 1),
            // Fifty are for clusters with thousands of groups; each costs files and fetches.
            ("offsets.topic.num.partitions", 6),
            ("transaction.state.log.num.partitions", 6),
        ];
        let mut config: BTreeMap<String, String> =
            settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_string())).collect();
        config.insert("auto.create.topics.enable".into(), "false".into());
        let mut node_config = BTreeMap::<u32, BTreeMap<String, String>>::new();
        for (name, value) in &cluster.config {
            // `2:broker.rack` is for broker 2 alone.
            let of_one = name.split_once(':').and_then(|(node, name)| Some((node.parse().ok()?, name)));
            let (config, name) = match of_one {
                Some((node, name)) => (node_config.entry(node).or_default(), name),
                None => (&mut config, name.as_str()),
            };
            config.insert(name.to_owned(), value.clone());
        }
        let mut wish = Wish {
            brokers: cluster.brokers,
            config,
            node_config,
            features: cluster.features.clone(),
            clients: BTreeSet::new(),
            calls: BTreeSet::new(),
        };
        for wound in scenario.faults.iter().flat_map(|fault| wounds(&fault.kind)) {
            let (Wound::Held { from, to } | Wound::Slowed { from, to, .. }) = wound else { continue };
            for (client, server) in [(&from, &to), (&to, &from)] {
                match (kind_of(system, client), kind_of(system, server)) {
                    (Kind::Service | Kind::Guest, Kind::Broker) => _ = wish.clients.insert(client.clone()),
                    (Kind::Service, Kind::Outside) => _ = wish.calls.insert((client.clone(), server.clone())),
                    _ => {}
                }
            }
        }
        wish
    }
}

/// A cluster with its proxies.
pub(crate) struct Grounds {
    wish: Wish,
    links: Links,
    kafka: Arc<RealKafka>,
}

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoGrounds {
    #[error("{0}")]
    Kafka(#[from] NoKafka),
    #[error("no port for a proxy: {0}")]
    Port(#[from] io::Error),
    #[error("real Kafka has started, and does not work: {0}")]
    Warming(String),
}

impl Grounds {
    /// Finds or starts a cluster as wished; takes seconds.
    pub(crate) fn find(wish: Wish, runtime: &Handle, seed: Seed) -> Result<Grounds, NoGrounds> {
        let mut links = Links::new(runtime.clone(), seed);
        let mut listeners = Vec::new();
        for client in &wish.clients {
            for broker in 1..=wish.brokers {
                let advertised_port = links.open(client, &host_of(broker))?;
                let (name, advertised_host) = (listener_of(client), Ipv4Addr::LOCALHOST.to_string());
                listeners.push(Listener { broker, name, port: 0, advertised_host, advertised_port });
            }
        }
        for (service, outside) in &wish.calls {
            links.open(service, outside)?;
        }
        let spec = Spec {
            brokers: wish.brokers,
            config: wish.config.clone(),
            node_config: wish.node_config.clone(),
            features: wish.features.clone(),
            listeners,
            ..Spec::default()
        };
        let kafka = Arc::new(RealKafka::find(&spec)?);
        for client in &wish.clients {
            for broker in 1..=wish.brokers {
                // Of a given cluster none is known, and such a scenario was refused.
                if let Some(port) = kafka.listener(broker, &listener_of(client)) {
                    links.connect(client, &host_of(broker), loopback(port))?;
                }
            }
        }
        if kafka.is_ours() {
            runtime.block_on(async {
                let (context, host) = RealHost::new("warming", seed).start();
                let warmed =
                    context.timeout(WARM_WITHIN, warm(context.clone(), &kafka.bootstrap_servers())).await;
                host.stop().await;
                match warmed {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(error)) => Err(NoGrounds::Warming(error.to_string())),
                    Err(late) => Err(NoGrounds::Warming(late.to_string())),
                }
            })?;
        }
        Ok(Grounds { wish, links, kafka })
    }

    /// Whether a run with this wish can take place here: it is the same, and the cluster is whole.
    pub(crate) fn serve(&self, wish: &Wish) -> bool {
        self.links.heal();
        self.wish == *wish && self.kafka.await_ready(WHOLE_WITHIN).is_ok()
    }

    pub(crate) fn kafka(&self) -> &Arc<RealKafka> {
        &self.kafka
    }

    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    /// What this host bootstraps from.
    pub(crate) fn bootstrap(&self, host: &str) -> String {
        let ports = (1..=self.wish.brokers).map(|broker| self.links.port(host, &host_of(broker)));
        match ports.collect::<Option<Vec<u16>>>() {
            Some(ports) => {
                let servers = ports.into_iter().map(|port| loopback(port).to_string());
                servers.collect::<Vec<_>>().join(",")
            }
            None => self.kafka.bootstrap_servers(),
        }
    }

    /// The bootstrap servers of the client hosts that have listeners of their own.
    pub(crate) fn proxied(&self) -> BTreeMap<String, String> {
        self.wish.clients.iter().map(|client| (client.clone(), self.bootstrap(client))).collect()
    }

    /// Says where an outside system really is.
    pub(crate) fn place_outside(&mut self, outside: &str, port: u16) -> io::Result<()> {
        for (service, server) in self.wish.calls.clone() {
            if server == outside {
                self.links.connect(&service, &server, loopback(port))?;
            }
        }
        Ok(())
    }

    /// Where a service finds an outside system that is at `port`.
    pub(crate) fn way_outside(&self, service: &str, outside: &str, port: u16) -> SocketAddr {
        loopback(self.links.port(service, outside).unwrap_or(port))
    }
}

pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn host_of(broker: u32) -> String {
    format!("broker-{broker}")
}

/// Kafka's names of listeners have capitals, digits and `_`.
fn listener_of(client: &str) -> String {
    client.to_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_")
}

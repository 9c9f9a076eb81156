//! A cluster on loopback sockets of this process, for tests of what speaks to real Kafka as well.
//!
//! The same programs as in a world, each on a host of the real network. Brokers are killed and started as a world does it.
//! Start reading at [`Loopback::start`]; [`own_address`] keeps processes that test at the same time apart.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use context::real::RealHost;
use context::{Program, Seed};

use crate::cluster::{Cluster, lock};
use crate::config::{ClusterConfig, Endpoint};
use crate::metadata::NodeId;

/// An address of the loopback network that no other living process of this machine has, made of the process's number. So
/// its ports are this process's, and one that a broker leaves is still there when the broker starts again.
///
/// Linux takes every address from 127.0.0.1 to 127.255.255.254 for its own; other systems may have to be told to.
pub fn own_address() -> Ipv4Addr {
    #[expect(clippy::disallowed_methods, reason = "an address of this process; worlds have names")]
    let process = std::process::id();
    // Linux numbers processes with 22 bits. Above 127.64.0.0, out of the way of 127.0.0.1.
    let [_, high, middle, low] = process.to_be_bytes();
    Ipv4Addr::new(127, 0x40 | (high & 0x3f), middle, low)
}

impl ClusterConfig {
    /// With all nodes at one address: the brokers on the ports from `first_port` on, the controller on the port after theirs.
    ///
    /// # Panics
    /// If there are not so many ports.
    pub fn at(mut self, address: Ipv4Addr, first_port: u16) -> ClusterConfig {
        for (endpoint, index) in self.brokers.iter_mut().chain([&mut self.controller]).zip(0..) {
            endpoint.host = address.to_string();
            endpoint.port = first_port.checked_add(index).expect("ports end at 65535");
        }
        self
    }
}

/// A running cluster. Its nodes end with it.
pub struct Loopback {
    cluster: Cluster,
    seed: Seed,
    nodes: Mutex<Vec<Node>>,
}

struct Node {
    endpoint: Endpoint,
    program: Program,
    starts: u64,
    host: Arc<RealHost>,
}

impl Loopback {
    /// Starts every node of a cluster, each at its own endpoint. It must be called inside a tokio runtime.
    pub fn start(cluster: Cluster, seed: Seed) -> Loopback {
        let nodes = cluster.endpoints().zip(cluster.hosts()).map(|(endpoint, (_, program))| Node {
            host: host(endpoint, &program, seed),
            endpoint: endpoint.clone(),
            program,
            starts: 1,
        });
        let nodes = Mutex::new(nodes.collect());
        Loopback { cluster, seed, nodes }
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Kills the process of a broker, and returns when its sockets are closed. Its disk stays.
    ///
    /// # Panics
    /// If there is no such broker.
    pub async fn kill(&self, broker: NodeId) {
        let host = lock(&self.nodes)[index(broker)].host.clone();
        host.stop().await;
    }

    /// Starts a broker that was killed.
    ///
    /// # Panics
    /// If there is no such broker.
    pub fn restart(&self, broker: NodeId) {
        let node = &mut lock(&self.nodes)[index(broker)];
        // Its ids and draws are not those of the process before.
        let seed = self.seed.child(&format!("start {}", node.starts));
        node.host = host(&node.endpoint, &node.program, seed);
        node.starts += 1;
    }

    /// Kills every node.
    pub async fn kill_all(&self) {
        let hosts: Vec<_> = lock(&self.nodes).iter().map(|node| node.host.clone()).collect();
        for host in hosts {
            host.stop().await;
        }
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        lock(&self.nodes).iter().for_each(|node| node.host.shutdown());
    }
}

impl fmt::Debug for Loopback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Loopback({})", self.cluster.bootstrap_servers())
    }
}

/// The controller comes first, and is node 0 here alone.
fn index(broker: NodeId) -> usize {
    assert!(broker > 0, "brokers are numbered from 1, and this is {broker}");
    broker as usize
}

fn host(endpoint: &Endpoint, program: &Program, seed: Seed) -> Arc<RealHost> {
    let (context, host) = RealHost::new(&endpoint.name, seed).bind_to(&endpoint.host).start();
    context.spawn("node", program(context.clone()));
    host
}

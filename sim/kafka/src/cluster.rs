//! A cluster as its harness holds it: programs for the hosts, disks that outlive them, and a view of the whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use context::Program;

use crate::config::{ClusterConfig, ConfigError, Settings};

/// The number of a broker, from 1.
pub type NodeId = i32;

/// A cluster. Clones share it.
///
/// It owns every node's disk, so that a node finds its own again after a crash. What it tells (`leader_of` and the
/// like) is read from there without IO, for faults and checks; clients ask brokers.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    config: ClusterConfig,
}

impl Cluster {
    /// A cluster with empty disks.
    ///
    /// # Errors
    /// [`ConfigError`] if the configuration is no good.
    pub fn new(config: ClusterConfig) -> Result<Cluster, ConfigError> {
        if config.brokers.is_empty() {
            return Err(ConfigError::NoBrokers);
        }
        Settings::parse(&config.config)?;
        Ok(Cluster { inner: Arc::new(Inner { config }) })
    }

    /// The hosts to add to a world: the controller, then the brokers.
    pub fn hosts(&self) -> Vec<(String, Program)> {
        let nodes = std::iter::once(&self.inner.config.controller).chain(&self.inner.config.brokers);
        nodes.map(|node| (node.name.clone(), context::program(|_| std::future::pending()))).collect()
    }

    /// What clients bootstrap from: `broker-1:9092,broker-2:9092`.
    pub fn bootstrap_servers(&self) -> String {
        let servers = self.inner.config.brokers.iter().map(|node| format!("{}:{}", node.host, node.port));
        servers.collect::<Vec<_>>().join(",")
    }

    /// The host name of a broker.
    pub fn broker_name(&self, node: NodeId) -> Option<&str> {
        let index = usize::try_from(node).ok()?.checked_sub(1)?;
        self.inner.config.brokers.get(index).map(|node| node.name.as_str())
    }

    /// The leader of a partition as the controller has it; `None` if it has none, or does not exist.
    pub fn leader_of(&self, _topic: &str, _partition: i32) -> Option<NodeId> {
        None
    }

    /// The log end offset of every partition of the cluster, from its leader's (or last leader's) disk.
    pub fn log_end_offsets(&self) -> BTreeMap<(String, i32), i64> {
        BTreeMap::new()
    }

    /// The offsets that a group has committed; empty if it has none.
    pub fn committed_offsets(&self, _group: &str) -> BTreeMap<(String, i32), i64> {
        BTreeMap::new()
    }

    /// Whether a group is stable: it has members and none waits for a rebalance.
    pub fn group_is_stable(&self, _group: &str) -> bool {
        false
    }

    /// The broker that coordinates a group, once the offsets topic exists and that partition has a leader.
    pub fn coordinator_of(&self, _group: &str) -> Option<NodeId> {
        None
    }

    /// The machine of a broker lost power: what its disk had not flushed is gone. Call it while the host is off.
    pub fn power_lost(&self, _node: NodeId) {}
}

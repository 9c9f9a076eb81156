//! What the ways to run a cluster have in common.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::{ClusterError, metadata, now, rest};

/// How long a cluster may take until every broker serves. Three take six seconds on an idle laptop.
const READY_WITHIN: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// So much of a log stands in an error.
const LAST_LINES: usize = 10;

/// The nodes of a cluster that was started here; see [`Processes`](crate::Processes) for what each call means.
pub(crate) trait Nodes: Debug + Send + Sync {
    /// How it runs, for people.
    fn kind(&self) -> String;
    /// The brokers, and the port of loopback on which each is reached without any proxy.
    fn ports(&self) -> Vec<(u32, u16)>;
    fn listener(&self, broker: u32, name: &str) -> Option<u16>;
    fn is_running(&self, node: u32) -> Result<bool, ClusterError>;
    fn kill(&self, node: u32) -> Result<bool, ClusterError>;
    fn restart(&self, node: u32) -> Result<(), ClusterError>;
    fn terminate(&self, node: u32) -> Result<(), ClusterError>;
    fn stop(&self, node: u32) -> Result<(), ClusterError>;
    fn pause(&self, node: u32) -> Result<(), ClusterError>;
    fn resume(&self, node: u32) -> Result<(), ClusterError>;
    fn keep_logs(&self) -> Result<PathBuf, ClusterError>;
    /// A node that should run and does not, and how it ended. One that was asked to end is not meant.
    fn ended_by_itself(&self) -> Result<Option<(u32, String)>, ClusterError>;
    /// What a node said last.
    fn log(&self, node: u32) -> String;
}

/// What clients on this machine bootstrap from.
pub(crate) fn bootstrap_servers(nodes: &dyn Nodes) -> String {
    let servers = nodes.ports().into_iter().map(|(_, port)| format!("127.0.0.1:{port}"));
    servers.collect::<Vec<_>>().join(",")
}

/// The first broker that does not know all of them to serve, and why we think so.
pub(crate) fn not_ready(nodes: &dyn Nodes) -> Option<(u32, String)> {
    let ports = nodes.ports();
    let all: BTreeSet<u32> = ports.iter().map(|(id, _)| *id).collect();
    ports.into_iter().find_map(|(id, port)| {
        match metadata::listed_by(SocketAddr::from((Ipv4Addr::LOCALHOST, port))) {
            Ok(listed) if listed.keys().eq(&all) => None,
            Ok(listed) => Some((id, format!("it lists brokers {:?} of {all:?}", listed.keys()))),
            Err(error) => Some((id, error.to_string())),
        }
    })
}

/// A node that has ended by itself, with the end of its log.
pub(crate) fn dead_by_itself(nodes: &dyn Nodes) -> Result<Option<String>, ClusterError> {
    let dead = nodes.ended_by_itself()?;
    Ok(dead.map(|(id, how)| format!("node {id} is not there: {how}; {}", end_of_log(nodes, id))))
}

fn end_of_log(nodes: &dyn Nodes, id: u32) -> String {
    let log = nodes.log(id);
    let lines: Vec<_> = log.lines().collect();
    let tail = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
    format!("its log ends with:\n{tail}")
}

pub(crate) fn killed_meanwhile(node: u32) -> ClusterError {
    ClusterError::NotReady(format!("node {node} was killed before it had ended as it was asked to"))
}

/// Waits until a cluster that was just started is ready. If it does not become so, whoever asked for it has nothing to ask for
/// logs: they are kept, and the error says where.
pub(crate) fn await_start(nodes: &dyn Nodes) -> Result<(), ClusterError> {
    await_ready(nodes, READY_WITHIN).map_err(|error| {
        let logs = match nodes.keep_logs() {
            Ok(folder) => format!("the logs are kept in {}", folder.display()),
            Err(why) => format!("the logs cannot be kept: {why}"),
        };
        ClusterError::NotReady(format!("{error}\n{logs}"))
    })
}

/// Waits until every broker lists them all.
pub(crate) fn await_ready(nodes: &dyn Nodes, limit: Duration) -> Result<(), ClusterError> {
    let deadline = now() + limit;
    while let Some((id, why)) = not_ready(nodes) {
        let dead = nodes.ended_by_itself()?;
        if dead.is_some() || now() > deadline {
            let (id, why) = dead.unwrap_or((id, format!("{why} after {limit:?}")));
            let says = format!("node {id} is not ready: {why}; {}", end_of_log(nodes, id));
            return Err(ClusterError::NotReady(says));
        }
        rest(LOOK_AGAIN);
    }
    Ok(())
}

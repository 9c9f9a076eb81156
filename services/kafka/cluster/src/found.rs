//! Whatever real Kafka is at hand.

use std::fmt;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::nodes::{self, Nodes};
use crate::wanted::{Kind, Wanted};
use crate::{ClusterError, Jars, Processes, Spec};

/// How long a given Kafka may take to accept a connection.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// A real Kafka: given, as containers, or as local processes. Dropped, what was started is gone.
///
/// Nodes are named as in [`Processes`]. A given one's nodes are their owner's: whoever asks gets [`ClusterError::NotOurs`].
#[derive(Debug)]
pub struct RealKafka {
    running: Running,
}

#[derive(Debug)]
enum Running {
    Given(String),
    Ours(Box<dyn Nodes>),
}

/// Why there is no real Kafka to test on.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NoKafka {
    /// None is at hand: what was looked for, and what is missing. Tests are skipped.
    #[error("no real Kafka: {0}")]
    Missing(String),
    /// One was to be had and something broke, or none is at hand and one is required. Tests fail.
    #[error("{0}")]
    Broken(String),
}

impl RealKafka {
    /// Finds one or starts one, as the environment ([`Wanted`]) says, and names the first that there is of: the given one, containers,
    /// local processes. Returns when it serves: after seconds, or minutes if Maven must fetch jars first. The given one is as its
    /// owner made it; `spec` is for those that are started.
    ///
    /// # Errors
    /// [`NoKafka`].
    pub fn find(spec: &Spec) -> Result<RealKafka, NoKafka> {
        let wanted = Wanted::from_environment().map_err(NoKafka::Broken)?;
        match find(&wanted, spec) {
            Err(NoKafka::Missing(why)) if wanted.required => {
                let none = NoKafka::Missing(why);
                Err(NoKafka::Broken(format!("{none} (SHAKEDOWN_REQUIRE_KAFKA is set)")))
            }
            found => found,
        }
    }

    /// What clients on this machine bootstrap from.
    pub fn bootstrap_servers(&self) -> String {
        match &self.running {
            Running::Given(servers) => servers.clone(),
            Running::Ours(cluster) => nodes::bootstrap_servers(&**cluster),
        }
    }

    /// Whether its nodes can be killed, paused and restarted: it was started here.
    pub fn is_ours(&self) -> bool {
        self.nodes().is_some()
    }

    fn nodes(&self) -> Option<&dyn Nodes> {
        match &self.running {
            Running::Given(_) => None,
            Running::Ours(cluster) => Some(&**cluster),
        }
    }

    fn ours(&self, to: &'static str) -> Result<&dyn Nodes, ClusterError> {
        self.nodes().ok_or(ClusterError::NotOurs(to))
    }

    /// How many brokers it has; `None` if that is its owner's to know.
    pub fn brokers(&self) -> Option<u32> {
        self.nodes().map(|cluster| cluster.ports().len() as u32)
    }

    /// As [`Processes::listener`]; of a given cluster none is known.
    pub fn listener(&self, broker: u32, name: &str) -> Option<u16> {
        self.nodes()?.listener(broker, name)
    }

    /// As [`Processes::is_running`].
    ///
    /// # Errors
    /// [`ClusterError::NotOurs`], or as there.
    pub fn is_running(&self, node: u32) -> Result<bool, ClusterError> {
        self.ours("look for a node of")?.is_running(node)
    }

    /// A node that has ended without being told to, how, and the end of its log; `None` if there is none, and of a given
    /// cluster. Milliseconds, where nodes are containers.
    ///
    /// # Errors
    /// If a node cannot be looked for.
    pub fn dead_by_itself(&self) -> Result<Option<String>, ClusterError> {
        self.nodes().map_or(Ok(None), nodes::dead_by_itself)
    }

    /// As [`Processes::kill`].
    ///
    /// # Errors
    /// [`ClusterError::NotOurs`], or as there.
    pub fn kill(&self, node: u32) -> Result<bool, ClusterError> {
        self.ours("kill a node of")?.kill(node)
    }

    /// As [`Processes::restart`].
    ///
    /// # Errors
    /// [`ClusterError::NotOurs`], or as there.
    pub fn restart(&self, node: u32) -> Result<(), ClusterError> {
        self.ours("restart a node of")?.restart(node)
    }

    /// As [`Processes::terminate`].
    ///
    /// # Errors
    /// [`ClusterError::NotOurs`], or as there.
    pub fn terminate(&self, node: u32) -> Result<(), ClusterError> {
        self.ours("stop a node of")?.terminate(node)
    }

    /// As [`Processes::stop`].
    ///
    /// # Errors
    /// [`ClusterError::NotOurs`], or as there.
    pub fn stop(&self, node: u32) -> Result<(), ClusterError> {
        self.ours("stop a node of")?.stop(node)
    }

    /// As [`Processes::pause`].
    ///
    /// # Errors
    /// [`ClusterError::NotOurs`], or as there.
    pub fn pause(&self, node: u32) -> Result<(), ClusterError> {
        self.ours("pause a node of")?.pause(node)
    }

    /// As [`Processes::resume`].
    ///
    /// # Errors
    /// [`ClusterError::NotOurs`], or as there.
    pub fn resume(&self, node: u32) -> Result<(), ClusterError> {
        self.ours("resume a node of")?.resume(node)
    }

    /// As [`Processes::is_ready`]; a given cluster is.
    pub fn is_ready(&self) -> bool {
        self.nodes().is_none_or(|cluster| nodes::not_ready(cluster).is_none())
    }

    /// As [`Processes::await_ready`]; a given cluster is ready.
    ///
    /// # Errors
    /// As there.
    pub fn await_ready(&self, limit: Duration) -> Result<(), ClusterError> {
        self.nodes().map_or(Ok(()), |cluster| nodes::await_ready(cluster, limit))
    }

    /// Starts every broker that was killed or stopped, and waits until the cluster is whole. A given cluster is.
    ///
    /// # Errors
    /// As [`Processes::restart`] and [`Processes::await_ready`].
    pub fn make_whole(&self, limit: Duration) -> Result<(), ClusterError> {
        let Some(cluster) = self.nodes() else { return Ok(()) };
        for (broker, _) in cluster.ports() {
            cluster.restart(broker)?;
        }
        nodes::await_ready(cluster, limit)
    }

    /// As [`Processes::keep_logs`]. A given cluster's logs are its owner's: `None`.
    ///
    /// # Errors
    /// As there.
    pub fn keep_logs(&self) -> Result<Option<PathBuf>, ClusterError> {
        self.nodes().map(Nodes::keep_logs).transpose()
    }
}

/// Names it as tests do in their output.
impl fmt::Display for RealKafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.bootstrap_servers();
        match &self.running {
            Running::Given(_) => write!(f, "the one that KAFKA_BOOTSTRAP_SERVERS names, {at}"),
            Running::Ours(cluster) => write!(f, "{}, brokers at {at}", cluster.kind()),
        }
    }
}

fn find(wanted: &Wanted, spec: &Spec) -> Result<RealKafka, NoKafka> {
    if let Some(servers) = &wanted.bootstrap_servers {
        reach(servers).map_err(NoKafka::Broken)?;
        return Ok(RealKafka { running: Running::Given(servers.clone()) });
    }
    let mut tried = vec!["KAFKA_BOOTSTRAP_SERVERS is not set".to_owned()];
    for kind in [Kind::Containers, Kind::Processes] {
        if wanted.kind.is_some_and(|only| only != kind) {
            continue;
        }
        match start(kind, wanted, spec) {
            Ok(cluster) => return Ok(RealKafka { running: Running::Ours(cluster) }),
            Err(ClusterError::Unavailable(why)) => tried.push(why),
            Err(error) => return Err(NoKafka::Broken(format!("real Kafka did not start: {error}"))),
        }
    }
    Err(NoKafka::Missing(tried.join("; ")))
}

fn start(kind: Kind, wanted: &Wanted, spec: &Spec) -> Result<Box<dyn Nodes>, ClusterError> {
    match kind {
        Kind::Containers => containers(wanted.image(), spec),
        Kind::Processes => Ok(Box::new(Processes::start(&Jars::find()?, spec)?)),
    }
}

#[cfg(feature = "containers")]
fn containers(image: &str, spec: &Spec) -> Result<Box<dyn Nodes>, ClusterError> {
    Ok(Box::new(crate::Containers::start(image, spec)?))
}

#[cfg(not(feature = "containers"))]
fn containers(_: &str, _: &Spec) -> Result<Box<dyn Nodes>, ClusterError> {
    Err(ClusterError::Unavailable(
        "this program was built without containers (cargo feature `containers`)".into(),
    ))
}

/// Looks whether one of the servers accepts a connection. More is not asked: it may want TLS or a password.
fn reach(servers: &str) -> Result<(), String> {
    let mut refusals = Vec::new();
    for server in servers.split(',').map(str::trim) {
        match server.to_socket_addrs() {
            Err(error) => refusals.push(format!("{server}: {error}")),
            Ok(addresses) => {
                for address in addresses {
                    match TcpStream::connect_timeout(&address, ANSWERS_WITHIN) {
                        Ok(_) => return Ok(()),
                        Err(error) => refusals.push(format!("{address}: {error}")),
                    }
                }
            }
        }
    }
    Err(format!("KAFKA_BOOTSTRAP_SERVERS is {servers}, where nobody answers: {}", refusals.join(", ")))
}

/// One real Kafka for all the tests of a program: found when the first of them asks, so that a run without any starts none.
///
/// It ends with this, and whoever else holds it: hold it in the test program's `main`, not in a `static`, which is never dropped. (What a `static`
/// leaves is cleaned up too, when the process ends, but its logs cannot be kept.)
#[derive(Debug)]
pub struct Shared {
    spec: Spec,
    found: OnceLock<Result<Arc<RealKafka>, NoKafka>>,
}

impl Shared {
    /// One that is to be like `spec`.
    pub fn new(spec: Spec) -> Shared {
        Shared { spec, found: OnceLock::new() }
    }

    /// The one for all. The first call looks for it, prints which one it is, and takes as long as [`RealKafka::find`]; the
    /// others wait meanwhile.
    ///
    /// # Errors
    /// [`NoKafka`], the same for all.
    pub fn get(&self) -> Result<&Arc<RealKafka>, NoKafka> {
        let found = self.found.get_or_init(|| {
            let found = RealKafka::find(&self.spec).map(Arc::new);
            match &found {
                Ok(kafka) => println!("real Kafka: {kafka}"),
                Err(none) => println!("{none}"),
            }
            found
        });
        found.as_ref().map_err(NoKafka::clone)
    }

    /// Keeps the logs, if there was a cluster of ours, and prints where they are. Call it when a test has failed.
    ///
    /// # Errors
    /// As [`RealKafka::keep_logs`].
    pub fn keep_logs(&self) -> Result<(), ClusterError> {
        if let Some(Ok(kafka)) = self.found.get()
            && let Some(folder) = kafka.keep_logs()?
        {
            println!("the logs of real Kafka are kept in {}", folder.display());
        }
        Ok(())
    }
}

//! Real Kafka for tests: one controller and some brokers as local processes, with jars from Maven and Java 17 or newer.
//!
//! A broker can be killed (SIGKILL), paused (SIGSTOP), resumed and started again, which is what makes it worth comparing
//! a simulated one with. The controller is a process of its own, so that no broker's death costs the quorum.
//!
//! Nothing is left behind: each process has a guardian that kills it when whoever started it goes away, however that
//! happens. Logs are kept where [`Processes::folder`] says until the cluster is dropped.
//!
//! Start reading at [`Processes::start`]. Calls block; they are for tests and tools, never for a simulation.

#![expect(clippy::disallowed_methods, reason = "real processes, files, ports and time")]

mod jars;
mod process;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub use jars::{Jars, KAFKA_VERSION};
use process::Process;

/// How long a cluster may take until its brokers accept connections. Three take six seconds on an idle laptop.
const READY_WITHIN: Duration = Duration::from_secs(90);
/// The controller's node id; brokers count from 1.
const CONTROLLER_ID: u32 = 100;
const CLUSTER_ID: &str = "5L6g3nShT-eMCtK--X86sw";

/// What to start.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// How many brokers.
    pub brokers: u32,
    /// Broker settings by Kafka's names.
    pub config: BTreeMap<String, String>,
    /// Feature levels by Kafka's names; what is left out has the version's default.
    pub features: BTreeMap<String, i16>,
}

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Java or Maven is missing, or Maven could not resolve the jars.
    #[error("{0}")]
    Unavailable(String),
    /// A file, a process or a socket.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A node did not come up in time, or its storage could not be formatted.
    #[error("{0}")]
    NotReady(String),
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> ClusterError {
    let what = what.into();
    move |source| ClusterError::Io { what, source }
}

struct Node {
    id: u32,
    port: u16,
    process: Option<Process>,
}

/// A running cluster. Dropped, it is gone.
pub struct Processes {
    jars: Jars,
    folder: TempDir,
    controller: Node,
    brokers: Vec<Node>,
}

impl Processes {
    /// Starts a cluster on free ports of loopback, and returns when every broker accepts connections.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub fn start(jars: &Jars, spec: &Spec) -> Result<Processes, ClusterError> {
        let folder = TempDir::with_prefix("kafka-").map_err(io_error("making a folder for the cluster"))?;
        let ports = free_ports(spec.brokers as usize + 1).map_err(io_error("looking for free ports"))?;
        let node = |id, port| Node { id, port, process: None };
        let mut cluster = Processes {
            jars: jars.clone(),
            folder,
            controller: node(CONTROLLER_ID, ports[0]),
            brokers: (1..=spec.brokers).zip(&ports[1..]).map(|(id, &port)| node(id, port)).collect(),
        };
        cluster.format(spec)?;
        cluster.controller.process = Some(cluster.spawn(CONTROLLER_ID)?);
        for index in 0..cluster.brokers.len() {
            let id = cluster.brokers[index].id;
            cluster.brokers[index].process = Some(cluster.spawn(id)?);
        }
        cluster.ready()?;
        Ok(cluster)
    }

    fn format(&self, spec: &Spec) -> Result<(), ClusterError> {
        let mut formatting = Vec::new();
        for node in self.brokers.iter().chain([&self.controller]) {
            let properties = self.path(node.id, "properties");
            fs::write(&properties, self.properties(node, spec))
                .map_err(io_error("writing a node's properties"))?;
            let mut command = self.jars.java("kafka.tools.StorageTool");
            command.args(["format", "-t", CLUSTER_ID, "-c", &properties]);
            for (name, level) in &spec.features {
                command.args(["--feature", &format!("{name}={level}")]);
            }
            let log = fs::File::create(self.path(node.id, "format.log"))
                .map_err(io_error("writing a node's log"))?;
            let errors = log.try_clone().map_err(io_error("writing a node's log"))?;
            let child = command.stdin(std::process::Stdio::null()).stdout(log).stderr(errors).spawn();
            formatting.push((node.id, child.map_err(io_error("starting java"))?));
        }
        for (id, mut child) in formatting {
            let status = child.wait().map_err(io_error("waiting for java"))?;
            if !status.success() {
                let log = fs::read_to_string(self.path(id, "format.log")).unwrap_or_default();
                return Err(ClusterError::NotReady(format!("formatting node {id} failed: {log}")));
            }
        }
        Ok(())
    }

    fn properties(&self, node: &Node, spec: &Spec) -> String {
        let controller = self.controller.port;
        let mut lines: BTreeMap<String, String> = spec.config.clone();
        let mut set = |name: &str, value: String| _ = lines.insert(name.to_owned(), value);
        let address = format!("127.0.0.1:{}", node.port);
        set("node.id", node.id.to_string());
        set("controller.quorum.voters", format!("{CONTROLLER_ID}@127.0.0.1:{controller}"));
        set("controller.listener.names", "CONTROLLER".into());
        set("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT".into());
        set("log.dirs", self.path(node.id, "data"));
        if node.id == CONTROLLER_ID {
            set("process.roles", "controller".into());
            set("listeners", format!("CONTROLLER://{address}"));
        } else {
            set("process.roles", "broker".into());
            set("listeners", format!("PLAINTEXT://{address}"));
            set("advertised.listeners", format!("PLAINTEXT://{address}"));
        }
        lines.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
    }

    fn path(&self, id: u32, what: &str) -> String {
        self.folder.path().join(format!("node-{id}.{what}")).display().to_string()
    }

    fn spawn(&self, id: u32) -> Result<Process, ClusterError> {
        let mut command = self.jars.java("kafka.Kafka");
        command.arg(self.path(id, "properties"));
        Process::spawn(&command, Path::new(&self.path(id, "log")))
    }

    fn ready(&self) -> Result<(), ClusterError> {
        let deadline = now() + READY_WITHIN;
        for node in &self.brokers {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, node.port));
            while !accepts(address) {
                if now() > deadline {
                    let log = fs::read_to_string(self.path(node.id, "log")).unwrap_or_default();
                    let tail: Vec<_> = log.lines().rev().take(10).collect();
                    let tail: Vec<_> = tail.into_iter().rev().collect();
                    return Err(ClusterError::NotReady(format!(
                        "broker {} does not accept connections after {READY_WITHIN:?}; its log ends with:\n{}",
                        node.id,
                        tail.join("\n")
                    )));
                }
                rest(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    /// What clients bootstrap from.
    pub fn bootstrap_servers(&self) -> String {
        let servers = self.brokers.iter().map(|node| format!("127.0.0.1:{}", node.port));
        servers.collect::<Vec<_>>().join(",")
    }

    /// The port of a broker on loopback; brokers count from 1.
    ///
    /// # Panics
    /// If there is no such broker.
    pub fn port(&self, broker: u32) -> u16 {
        self.brokers[broker as usize - 1].port
    }

    /// Where the nodes' logs and data are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// SIGKILL. The disk stays.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub fn kill(&mut self, broker: u32) -> Result<(), ClusterError> {
        match self.brokers[broker as usize - 1].process.take() {
            Some(process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Starts a broker that was killed; returns when its process runs, not when it serves.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn restart(&mut self, broker: u32) -> Result<(), ClusterError> {
        let process = self.spawn(broker)?;
        self.brokers[broker as usize - 1].process = Some(process);
        Ok(())
    }

    /// SIGTERM: a controlled shutdown. Returns when the process has ended.
    ///
    /// # Errors
    /// If the signal cannot be sent, or the process does not end within a minute.
    pub fn stop(&mut self, broker: u32) -> Result<(), ClusterError> {
        match self.brokers[broker as usize - 1].process.take() {
            Some(process) => process.terminate(),
            None => Ok(()),
        }
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub fn pause(&mut self, broker: u32) -> Result<(), ClusterError> {
        self.running(broker)?.signal("STOP")
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub fn resume(&mut self, broker: u32) -> Result<(), ClusterError> {
        self.running(broker)?.signal("CONT")
    }

    fn running(&self, broker: u32) -> Result<&Process, ClusterError> {
        let node = &self.brokers[broker as usize - 1];
        node.process.as_ref().ok_or_else(|| ClusterError::NotReady(format!("broker {broker} does not run")))
    }
}

impl std::fmt::Debug for Processes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Processes({})", self.bootstrap_servers())
    }
}

fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    // Held together, so that no port comes twice.
    let held: Vec<_> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<io::Result<_>>()?;
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

fn accepts(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

fn now() -> Instant {
    Instant::now()
}

fn rest(span: Duration) {
    std::thread::sleep(span);
}

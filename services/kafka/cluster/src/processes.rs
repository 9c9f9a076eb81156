//! A cluster of local processes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::folder::Folder;
use crate::nodes::{self, Nodes, killed_meanwhile};
use crate::process::Process;
use crate::spec::{CONTROLLER, DIRECT, NodeSpec, Spec, loopback};
use crate::{ClusterError, Jars, KAFKA_VERSION, io_error, new_cluster_id, now, ports, rest};

/// How long formatting may take: a second of a processor a node.
const FORMATTED_WITHIN: Duration = Duration::from_secs(120);
/// How long a controlled shutdown may take.
const STOPS_WITHIN: Duration = Duration::from_secs(60);
/// How often a node that was asked to end is looked after.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How long it may take until the end of a process is seen. Waited for only where one cannot be told to end.
const SEEN_WITHIN: Duration = Duration::from_secs(10);

/// A node. Nobody holds its lock while Kafka takes its time: whoever kills it must not wait for one who waits for its end.
struct Node {
    id: u32,
    port: u16,
    running: Mutex<Option<Running>>,
}

/// A process that was started, and whose end nobody has seen to.
struct Running {
    process: Process,
    /// It got SIGTERM: that it ends is no surprise.
    asked_to_end: bool,
}

/// A running cluster: a controller and some brokers. Dropped, it is gone.
///
/// Nodes are named by their ids: brokers count from 1, the controller is [`CONTROLLER`]. A node that the cluster has not is a
/// bug of the caller's, and panics.
pub struct Processes {
    // In this order: the nodes are gone before their folder is.
    nodes: BTreeMap<u32, Node>,
    spec: Spec,
    jars: Jars,
    folder: Mutex<Folder>,
}

impl Processes {
    /// Starts a cluster on free ports of loopback, and returns when it is ready (see [`Processes::await_ready`]).
    ///
    /// # Errors
    /// [`ClusterError`]. What the nodes said last is in its text, and where their logs are if they ran.
    pub fn start(jars: &Jars, spec: &Spec) -> Result<Processes, ClusterError> {
        if let Some(fault) = spec.fault() {
            return Err(ClusterError::Unsound(fault));
        }
        let mut spec = spec.clone();
        let mut chosen = free_ports(&spec)?;
        let mut port = || chosen.pop().expect("one was asked for each node and each listener without");
        for listener in spec.listeners.iter_mut().filter(|listener| listener.port == 0) {
            listener.port = port();
        }
        let ids = (1..=spec.brokers).chain([CONTROLLER]);
        let nodes = ids.map(|id| (id, Node { id, port: port(), running: Mutex::new(None) })).collect();
        let folder = Mutex::new(Folder::new()?);
        let cluster = Processes { nodes, spec, jars: jars.clone(), folder };
        cluster.format()?;
        for &id in cluster.nodes.keys() {
            cluster.restart(id)?;
        }
        nodes::await_start(&cluster)?;
        Ok(cluster)
    }

    fn format(&self) -> Result<(), ClusterError> {
        let cluster_id = new_cluster_id();
        let mut formatting = Vec::new();
        for node in self.nodes.values() {
            let properties = self.path(node.id, "properties");
            fs::write(&properties, self.properties(node)).map_err(io_error("writing a node's properties"))?;
            let mut command = self.jars.java("kafka.tools.StorageTool");
            command.args(["format", "-t", &cluster_id, "-c", &properties]);
            for (name, level) in &self.spec.features {
                command.args(["--feature", &format!("{name}={level}")]);
            }
            for (name, password) in &self.spec.scram_users {
                command.args(["--add-scram", &format!("SCRAM-SHA-256=[name={name},password={password}]")]);
            }
            let log = self.path(node.id, "format.log");
            formatting.push((Process::spawn(&command, Path::new(&log))?, node.id, log));
        }
        for (mut process, id, log) in formatting {
            if process.wait(FORMATTED_WITHIN)?.is_none_or(|status| !status.success()) {
                let said = fs::read_to_string(log).unwrap_or_default();
                return Err(ClusterError::NotReady(format!("formatting node {id} failed: {said}")));
            }
        }
        Ok(())
    }

    fn properties(&self, node: &Node) -> String {
        let mut own = NodeSpec {
            id: node.id,
            roles: "controller",
            voters: format!("{CONTROLLER}@127.0.0.1:{}", self.nodes[&CONTROLLER].port),
            inter_broker: DIRECT,
            listeners: vec![("CONTROLLER".into(), loopback(), node.port)],
            advertised: Vec::new(),
        };
        if node.id != CONTROLLER {
            own.roles = "broker";
            own.listeners = vec![(DIRECT.into(), loopback(), node.port)];
            own.advertised = own.listeners.clone();
            for listener in self.spec.listeners_of(node.id) {
                own.listeners.push((listener.name.clone(), loopback(), listener.port));
                let advertised = (listener.advertised_host.clone(), listener.advertised_port);
                own.advertised.push((listener.name.clone(), advertised.0, advertised.1));
            }
        }
        let mut lines = self.spec.properties(&own);
        lines.insert("log.dirs".into(), self.path(node.id, "data"));
        lines.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
    }

    fn path(&self, id: u32, what: &str) -> String {
        lock(&self.folder).of(id, what).display().to_string()
    }

    fn node(&self, id: u32) -> &Node {
        self.nodes.get(&id).unwrap_or_else(|| panic!("the cluster has no node {id}"))
    }

    fn brokers(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter(|node| node.id != CONTROLLER)
    }

    /// What clients on this machine bootstrap from, without any proxy.
    pub fn bootstrap_servers(&self) -> String {
        nodes::bootstrap_servers(self)
    }

    /// The port of a node on loopback: a broker's listener [`DIRECT`], or the controller's only one.
    pub fn port(&self, node: u32) -> u16 {
        self.node(node).port
    }

    /// The port of loopback on which a broker has a listener of this name; `None` if it has none.
    pub fn listener(&self, broker: u32, name: &str) -> Option<u16> {
        let mut own = self.spec.listeners_of(broker);
        own.find(|listener| listener.name == name).map(|listener| listener.port)
    }

    /// Where the nodes' logs and data are until the cluster is dropped: `node-1.log`, `node-1.data`.
    pub fn folder(&self) -> PathBuf {
        lock(&self.folder).path().to_owned()
    }

    /// Lets the logs outlive the cluster, and says where they are. Call it when something failed.
    ///
    /// # Errors
    /// If the one who would remove them cannot be told.
    pub fn keep_logs(&self) -> Result<PathBuf, ClusterError> {
        lock(&self.folder).keep_logs()?;
        Ok(self.folder())
    }

    /// Whether the cluster is whole: every broker is registered, unfenced and serves, as every broker tells. Within
    /// milliseconds, unless a node hangs: then after a second.
    pub fn is_ready(&self) -> bool {
        nodes::not_ready(self).is_none()
    }

    /// Waits until the cluster is whole again, as [`Processes::is_ready`] has it.
    ///
    /// # Errors
    /// [`ClusterError::NotReady`] with the end of a broker's log: it is not whole within `limit`, or a node has ended by itself.
    pub fn await_ready(&self, limit: Duration) -> Result<(), ClusterError> {
        nodes::await_ready(self, limit)
    }

    /// Whether a node's process runs; one that is paused does.
    ///
    /// # Errors
    /// If the process cannot be looked for.
    pub fn is_running(&self, node: u32) -> Result<bool, ClusterError> {
        match lock(&self.node(node).running).as_mut() {
            Some(running) => Ok(running.process.ended()?.is_none()),
            None => Ok(false),
        }
    }

    /// SIGKILL, whatever others do to the node. The disk stays. Returns when the process is gone, within milliseconds, and
    /// tells whether there was one to kill: one that had ended was not killed.
    ///
    /// # Errors
    /// If the process cannot be looked for.
    pub fn kill(&self, node: u32) -> Result<bool, ClusterError> {
        // For these milliseconds nobody starts a second process on the same disk.
        let mut held = lock(&self.node(node).running);
        let Some(Running { mut process, .. }) = held.take() else { return Ok(false) };
        let ran = process.ended()?.is_none();
        process.kill();
        Ok(ran)
    }

    /// Starts a node that was killed or stopped; nothing if it runs. Returns when its process runs, within milliseconds; when
    /// the cluster is whole again [`Processes::is_ready`] knows.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn restart(&self, node: u32) -> Result<(), ClusterError> {
        let mut held = lock(&self.node(node).running);
        if let Some(running) = held.as_mut()
            && running.process.ended()?.is_none()
        {
            return Ok(());
        }
        let mut command = self.jars.java("kafka.Kafka");
        command.arg(self.path(node, "properties"));
        let process = Process::spawn(&command, Path::new(&self.path(node, "log")))?;
        *held = Some(Running { process, asked_to_end: false });
        Ok(())
    }

    /// SIGTERM: a controlled shutdown begins, also of a node that is paused. Nothing if it does not run. Returns at once;
    /// [`Processes::is_running`] tells when it has ended, after seconds.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub fn terminate(&self, node: u32) -> Result<(), ClusterError> {
        self.ask_to_end(node).map(|_| ())
    }

    /// The process that was asked, if there is one.
    fn ask_to_end(&self, node: u32) -> Result<Option<Pid>, ClusterError> {
        let mut held = lock(&self.node(node).running);
        let Some(running) = held.as_mut() else { return Ok(None) };
        if running.process.ended()?.is_some() {
            return Ok(None);
        }
        running.asked_to_end = true;
        terminate(&mut running.process)?;
        Ok(Some(running.process.id()))
    }

    /// [`Processes::terminate`], and returns when the process has ended: after seconds.
    ///
    /// # Errors
    /// If the signal cannot be sent, if the process does not end within a minute (it runs on then), or if another call kills
    /// it before it has ended.
    pub fn stop(&self, node: u32) -> Result<(), ClusterError> {
        let Some(asked) = self.ask_to_end(node)? else { return Ok(()) };
        let deadline = now() + STOPS_WITHIN;
        loop {
            match lock(&self.node(node).running).as_mut() {
                Some(running) if running.process.id() == asked => {
                    if running.process.ended()?.is_some() {
                        return Ok(());
                    }
                }
                _ => return Err(killed_meanwhile(node)),
            }
            if now() > deadline {
                return Err(ClusterError::NotReady(format!("node {node} does not end after SIGTERM")));
            }
            rest(LOOK_AGAIN);
        }
    }

    /// Stops every node: all brokers get SIGTERM together, so that none waits for others that are gone, then the controller,
    /// without which they could not leave in order; whoever has not ended within `limit` gets SIGKILL. Takes seconds.
    ///
    /// # Errors
    /// If a signal cannot be sent.
    pub fn stop_all(&self, limit: Duration) -> Result<(), ClusterError> {
        let deadline = now() + limit;
        let left = || deadline.saturating_duration_since(now());
        let (controller, brokers): (Vec<_>, Vec<_>) =
            self.nodes.values().partition(|node| node.id == CONTROLLER);
        for nodes in [brokers, controller] {
            let mut ending = Vec::new();
            for node in nodes {
                if let Some(Running { mut process, .. }) = lock(&node.running).take()
                    && process.ended()?.is_none()
                {
                    terminate(&mut process)?;
                    ending.push(process);
                }
            }
            for mut process in ending {
                process.wait(left())?;
                process.kill();
            }
        }
        Ok(())
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// If it does not run, or the signal cannot be sent.
    pub fn pause(&self, node: u32) -> Result<(), ClusterError> {
        self.signal(node, Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// As [`Processes::pause`].
    pub fn resume(&self, node: u32) -> Result<(), ClusterError> {
        self.signal(node, Signal::CONT)
    }

    fn signal(&self, node: u32, signal: Signal) -> Result<(), ClusterError> {
        match lock(&self.node(node).running).as_mut() {
            Some(running) => running.process.signal(signal),
            None => Err(ClusterError::NotReady(format!("node {node} does not run"))),
        }
    }
}

impl Nodes for Processes {
    fn kind(&self) -> String {
        format!("Kafka {KAFKA_VERSION} as local processes")
    }

    fn ports(&self) -> Vec<(u32, u16)> {
        self.brokers().map(|node| (node.id, node.port)).collect()
    }

    fn listener(&self, broker: u32, name: &str) -> Option<u16> {
        self.listener(broker, name)
    }

    fn is_running(&self, node: u32) -> Result<bool, ClusterError> {
        self.is_running(node)
    }

    fn kill(&self, node: u32) -> Result<bool, ClusterError> {
        self.kill(node)
    }

    fn restart(&self, node: u32) -> Result<(), ClusterError> {
        self.restart(node)
    }

    fn terminate(&self, node: u32) -> Result<(), ClusterError> {
        self.terminate(node)
    }

    fn stop(&self, node: u32) -> Result<(), ClusterError> {
        self.stop(node)
    }

    fn pause(&self, node: u32) -> Result<(), ClusterError> {
        self.pause(node)
    }

    fn resume(&self, node: u32) -> Result<(), ClusterError> {
        self.resume(node)
    }

    fn keep_logs(&self) -> Result<PathBuf, ClusterError> {
        self.keep_logs()
    }

    fn ended_by_itself(&self) -> Result<Option<(u32, String)>, ClusterError> {
        for node in self.nodes.values() {
            if let Some(Running { process, asked_to_end: false }) = lock(&node.running).as_mut()
                && let Some(status) = process.ended()?
            {
                return Ok(Some((node.id, format!("its process has ended: {status}"))));
            }
        }
        Ok(None)
    }

    fn log(&self, node: u32) -> String {
        fs::read_to_string(self.path(node, "log")).unwrap_or_default()
    }
}

impl std::fmt::Debug for Processes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Processes({})", self.bootstrap_servers())
    }
}

/// A paused process hears nothing else until it goes on.
fn terminate(process: &mut Process) -> Result<(), ClusterError> {
    let told = process.signal(Signal::TERM).and_then(|()| process.signal(Signal::CONT));
    // One that dies meanwhile cannot be told, and need not be; its guardian says so a moment later.
    match told {
        Err(error) if process.wait(SEEN_WITHIN)?.is_none() => Err(error),
        _ => Ok(()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn free_ports(spec: &Spec) -> Result<Vec<u16>, ClusterError> {
    let unchosen = spec.listeners.iter().filter(|listener| listener.port == 0).count();
    let count = spec.brokers as usize + 1 + unchosen;
    ports::free(count).map_err(io_error("looking for free ports"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn one_that_dies_before_it_is_told_to_end_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("600");
        for _ in 0..5 {
            let mut process = Process::spawn(&command, &folder.path().join("log")).unwrap();
            process.signal(Signal::KILL).unwrap();
            terminate(&mut process).unwrap();
            assert!(process.wait(SEEN_WITHIN).unwrap().is_some(), "it lives");
        }
    }
}

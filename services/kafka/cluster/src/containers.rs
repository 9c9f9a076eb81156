//! A cluster of containers of a Docker engine, by testcontainers, on a network of their own.
//!
//! One broker is one container, which is the controller too. Several brokers have a controller of their own beside them, as
//! local processes have. Clients reach brokers on fixed ports of this machine's loopback, known before a broker starts because
//! it must advertise them; brokers reach each other by name over the network. So the engine must be this machine's.
//!
//! The image is configured by environment as `apache/kafka` is. What containers say is read when their logs are kept.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use testcontainers::bollard::Docker;
use testcontainers::bollard::errors::Error as EngineError;
use testcontainers::bollard::query_parameters::KillContainerOptionsBuilder;
use testcontainers::core::client::docker_client_instance;
use testcontainers::core::{ContainerPort, IntoContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, ContainerRequest, Image, ImageExt, TestcontainersError};
use tokio::runtime::Runtime;

use crate::folder::Folder;
use crate::guardian::Guardian;
use crate::nodes::{self, Nodes, killed_meanwhile};
use crate::spec::{CONTROLLER, CONTROLLERS, DIRECT, INTERNAL, NodeSpec, Spec};
use crate::{ClusterError, io_error, new_cluster_id, ports, unlike_others};

/// Removes every container with the label `$1`, and the network `$2`, when the pipe closes.
///
/// The engine makes what it was asked for although whoever asked has died, and lists a container only when its disk is there,
/// seconds later. So the guardian is told the name of each container before the engine is asked for it, and an empty line when it
/// is there: if it was told a name last, it waits for that one, for as long as cleaning up may take.
const SCRIPT: &str = r#"echo ready; awaited=; while read -r name; do awaited=$name; done
deadline=$(($(date +%s) + 8))
for _ in $(seq 200); do
    if found=$(docker ps --all --filter "label=$1" --format '{{.Names}}'); then
        [ -z "$found" ] || docker rm --force --volumes $found
        case " $(echo $found) " in *" $awaited "*) awaited= ;; esac
        docker network rm "$2"
        [ -z "$found$awaited" ] && break
    fi
    [ -z "$found" ] && [ "$(date +%s)" -ge "$deadline" ] && break
    sleep 0.2
done >/dev/null"#;

/// Carries the id of the cluster whose container it is.
const LABEL: &str = "shakedown.cluster";
/// Where containers listen for each other.
const INTERNAL_PORT: u16 = 9_092;
const CONTROLLER_PORT: u16 = 9_093;
/// Where the image keeps its data: in the container, so it outlives a kill and not the container.
const DATA: &str = "/tmp/kraft-data";
/// How long the engine may take to make and start a container.
const STARTED_WITHIN: Duration = Duration::from_secs(60);
/// How long a controlled shutdown may take, in seconds.
const STOPS_WITHIN_S: i32 = 60;
/// The exit code of a container that SIGKILL ended: 128 and its number.
const KILLED: i64 = 137;

/// Kafka's image, as the public one is configured: each setting is a variable of its environment.
#[derive(Clone, Debug)]
struct KafkaImage {
    name: String,
    tag: String,
    environment: BTreeMap<String, String>,
    inside: Vec<ContainerPort>,
}

impl Image for KafkaImage {
    fn name(&self) -> &str {
        &self.name
    }

    fn tag(&self) -> &str {
        &self.tag
    }

    /// None: the brokers are asked whether they serve, which no line of a log says.
    fn ready_conditions(&self) -> Vec<WaitFor> {
        Vec::new()
    }

    fn env_vars(
        &self,
    ) -> impl IntoIterator<Item = (impl Into<std::borrow::Cow<'_, str>>, impl Into<std::borrow::Cow<'_, str>>)>
    {
        &self.environment
    }

    fn expose_ports(&self) -> &[ContainerPort] {
        &self.inside
    }
}

struct Node {
    id: u32,
    /// The port of loopback at which clients reach it; none of a controller.
    port: Option<u16>,
    container: ContainerAsync<KafkaImage>,
    /// Whether it was started last, and not killed or stopped.
    wanted: Mutex<bool>,
}

/// A running cluster of containers. Dropped, it is gone. Calls mean what those of [`Processes`](crate::Processes) do.
pub struct Containers {
    image: String,
    spec: Spec,
    nodes: Vec<Node>,
    engine: Docker,
    /// Where the engine is talked to. Calls come from threads with and without a runtime of their own.
    runtime: Runtime,
    // Last, when the containers are gone by themselves: whatever is left.
    guardian: Guardian,
    folder: Mutex<Folder>,
}

impl Containers {
    /// Starts a cluster from `image` (`name:tag`), which is pulled if the engine has it not, and returns when it is ready.
    ///
    /// # Errors
    /// [`ClusterError::Unavailable`] if there is no engine or no image; else why the cluster did not start.
    pub fn start(image: &str, spec: &Spec) -> Result<Containers, ClusterError> {
        if let Some(fault) = spec.fault() {
            return Err(ClusterError::Unsound(fault));
        }
        if !spec.features.is_empty() {
            return Err(ClusterError::Unavailable(
                "containers of Kafka cannot be told feature levels".into(),
            ));
        }
        if !spec.scram_users.is_empty() {
            return Err(ClusterError::Unavailable("containers of Kafka cannot be told users".into()));
        }
        let engine_of_docker = engine_of_docker()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(io_error("making a runtime"))?;
        let engine =
            wait(&runtime, docker_client_instance()).map_err(|error| unavailable(&error.to_string()))?;
        let found = wait(&runtime, engine.info()).map_err(|error| unavailable(&error.to_string()))?;
        same_engine(&found.id.unwrap_or_default(), &engine_of_docker)?;
        wait(&runtime, have_image(&engine, image))?;
        let name = format!("shakedown-{:x}", unlike_others());
        let (guardian, _ready) = Guardian::start(SCRIPT, [&format!("{LABEL}={name}"), &name])?;
        let folder = Mutex::new(Folder::new()?);
        let mut cluster = Containers {
            image: image.to_owned(),
            spec: spec.clone(),
            nodes: Vec::new(),
            engine,
            runtime,
            guardian,
            folder,
        };
        cluster.start_nodes(&name)?;
        nodes::await_start(&cluster)?;
        Ok(cluster)
    }

    fn start_nodes(&mut self, name: &str) -> Result<(), ClusterError> {
        let unchosen = self.spec.listeners.iter().filter(|listener| listener.port == 0).count();
        let mut chosen =
            ports::free(self.spec.brokers as usize + unchosen).map_err(io_error("looking for free ports"))?;
        let mut port = || chosen.pop().expect("one was asked for each broker and each listener without");
        for listener in self.spec.listeners.iter_mut().filter(|listener| listener.port == 0) {
            listener.port = port();
        }
        let cluster_id = new_cluster_id();
        let controller = if self.spec.brokers == 1 { 1 } else { CONTROLLER };
        let host = |id: u32| format!("{name}-{id}");
        let voters = format!("{controller}@{}:{CONTROLLER_PORT}", host(controller));
        let mut ids: Vec<u32> = (1..=self.spec.brokers).collect();
        if controller == CONTROLLER {
            ids.insert(0, controller);
        }
        for id in ids {
            let mut node = NodeSpec {
                id,
                roles: if id == CONTROLLER { "controller" } else { "broker" },
                voters: voters.clone(),
                inter_broker: INTERNAL,
                listeners: Vec::new(),
                advertised: Vec::new(),
            };
            if id == controller {
                node.listeners.push((CONTROLLERS.into(), host(id), CONTROLLER_PORT));
            }
            let direct = (id != CONTROLLER).then(&mut port);
            let mut published = Vec::new();
            if let Some(direct) = direct {
                if id == controller {
                    node.roles = "broker,controller";
                }
                let everywhere = "0.0.0.0";
                node.listeners.push((INTERNAL.into(), everywhere.into(), INTERNAL_PORT));
                node.advertised.push((INTERNAL.into(), host(id), INTERNAL_PORT));
                node.listeners.push((DIRECT.into(), everywhere.into(), direct));
                node.advertised.push((DIRECT.into(), crate::spec::loopback(), direct));
                published.push(direct);
                for listener in self.spec.listeners_of(id) {
                    node.listeners.push((listener.name.clone(), everywhere.into(), listener.port));
                    let advertised = (listener.advertised_host.clone(), listener.advertised_port);
                    node.advertised.push((listener.name.clone(), advertised.0, advertised.1));
                    published.push(listener.port);
                }
            }
            let request = self.request(&cluster_id, &node, &published);
            let request = request.with_container_name(host(id)).with_network(name).with_label(LABEL, name);
            self.guardian.tell(&host(id))?;
            let container = wait(&self.runtime, request.start()).map_err(|error| {
                ClusterError::NotReady(format!("the container of node {id} did not start: {error}"))
            })?;
            self.guardian.tell("")?;
            self.nodes.push(Node { id, port: direct, container, wanted: Mutex::new(true) });
        }
        Ok(())
    }

    fn request(&self, cluster_id: &str, node: &NodeSpec, published: &[u16]) -> ContainerRequest<KafkaImage> {
        let mut environment: BTreeMap<String, String> =
            self.spec.properties(node).into_iter().map(|(name, value)| (variable(&name), value)).collect();
        let mut set = |name: &str, value: &str| _ = environment.insert(name.to_owned(), value.to_owned());
        set("KAFKA_LOG_DIRS", DATA);
        set("CLUSTER_ID", cluster_id);
        set("KAFKA_HEAP_OPTS", crate::jars::HEAP);
        set("KAFKA_JVM_PERFORMANCE_OPTS", crate::jars::QUICK);
        let (name, tag) = split(&self.image);
        let inside = published.iter().map(|port| port.tcp()).collect();
        let image = KafkaImage { name: name.into(), tag: tag.into(), environment, inside };
        let mut request = ContainerRequest::from(image).with_startup_timeout(STARTED_WITHIN);
        for port in published {
            request = request.with_mapped_port(*port, port.tcp());
        }
        // On loopback only: nobody else is to talk to it.
        request.with_host_config_modifier(|host| {
            for binding in
                host.port_bindings.iter_mut().flat_map(|ports| ports.values_mut()).flatten().flatten()
            {
                binding.host_ip = Some(crate::spec::loopback());
            }
        })
    }

    fn node(&self, id: u32) -> &Node {
        let node = self.nodes.iter().find(|node| node.id == id);
        node.unwrap_or_else(|| panic!("the cluster has no node {id}; one broker is its own controller"))
    }

    fn runs(&self, node: &Node) -> Result<bool, ClusterError> {
        self.ask(node, "looked for", node.container.is_running())
    }

    /// Waits for an answer of the engine on something that is done to a node.
    fn ask<T: Send>(
        &self,
        node: &Node,
        what: &str,
        question: impl Future<Output = Result<T, TestcontainersError>> + Send,
    ) -> Result<T, ClusterError> {
        wait(&self.runtime, question).map_err(|error| refused(node.id, what, &error.to_string()))
    }

    fn signal(&self, node: &Node, signal: &str) -> Result<(), ClusterError> {
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        let sent = wait(&self.runtime, self.engine.kill_container(node.container.id(), Some(options)));
        sent.map_err(|error| refused(node.id, &format!("sent {signal}"), &error.to_string()))
    }

    /// It is about to be asked to end. A paused process hears nothing else until it goes on.
    fn let_it_hear(&self, node: &Node) {
        *lock(&node.wanted) = false;
        // An error says that it is not paused.
        wait(&self.runtime, node.container.unpause()).ok();
    }

    fn container_name(&self, node: u32) -> &str {
        self.node(node).container.id()
    }
}

impl Nodes for Containers {
    fn kind(&self) -> String {
        format!("containers of {}", self.image)
    }

    fn ports(&self) -> Vec<(u32, u16)> {
        self.nodes.iter().filter_map(|node| Some((node.id, node.port?))).collect()
    }

    fn listener(&self, broker: u32, name: &str) -> Option<u16> {
        self.spec.listeners_of(broker).find(|listener| listener.name == name).map(|listener| listener.port)
    }

    fn is_running(&self, node: u32) -> Result<bool, ClusterError> {
        self.runs(self.node(node))
    }

    fn kill(&self, node: u32) -> Result<bool, ClusterError> {
        let node = self.node(node);
        *lock(&node.wanted) = false;
        if !self.runs(node)? {
            return Ok(false);
        }
        if let Err(error) = self.signal(node, "SIGKILL") {
            // It may have ended a moment before.
            return if self.runs(node)? { Err(error) } else { Ok(false) };
        }
        // The engine answers when the signal is sent.
        while self.runs(node)? {
            crate::rest(Duration::from_millis(10));
        }
        Ok(true)
    }

    fn restart(&self, node: u32) -> Result<(), ClusterError> {
        let node = self.node(node);
        *lock(&node.wanted) = true;
        if self.runs(node)? {
            return Ok(());
        }
        self.ask(node, "started", node.container.start())
    }

    fn terminate(&self, node: u32) -> Result<(), ClusterError> {
        let node = self.node(node);
        self.let_it_hear(node);
        if !self.runs(node)? {
            return Ok(());
        }
        match self.signal(node, "SIGTERM") {
            Err(error) if self.runs(node)? => Err(error),
            _ => Ok(()),
        }
    }

    fn stop(&self, node: u32) -> Result<(), ClusterError> {
        let node = self.node(node);
        let ran = self.runs(node)?;
        self.let_it_hear(node);
        self.ask(node, "stopped", node.container.stop_with_timeout(Some(STOPS_WITHIN_S)))?;
        // The engine is content when it is gone, whoever did it; and it runs again if it was started meanwhile.
        match self.ask(node, "looked for", node.container.exit_code())? {
            None | Some(KILLED) if ran => Err(killed_meanwhile(node.id)),
            _ => Ok(()),
        }
    }

    fn pause(&self, node: u32) -> Result<(), ClusterError> {
        let node = self.node(node);
        self.ask(node, "paused", node.container.pause())
    }

    fn resume(&self, node: u32) -> Result<(), ClusterError> {
        let node = self.node(node);
        self.ask(node, "resumed", node.container.unpause())
    }

    fn keep_logs(&self) -> Result<PathBuf, ClusterError> {
        let mut folder = lock(&self.folder);
        for node in &self.nodes {
            fs::write(folder.of(node.id, "log"), self.log(node.id))
                .map_err(io_error("keeping a container's log"))?;
        }
        folder.keep_logs()?;
        Ok(folder.path().to_owned())
    }

    fn ended_by_itself(&self) -> Result<Option<(u32, String)>, ClusterError> {
        for node in &self.nodes {
            if *lock(&node.wanted) && !self.runs(node)? {
                return Ok(Some((node.id, "its container has ended".into())));
            }
        }
        Ok(None)
    }

    fn log(&self, node: u32) -> String {
        match Command::new("docker").args(["logs", self.container_name(node)]).output() {
            Ok(said) => {
                [said.stdout, said.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat()
            }
            Err(error) => format!("`docker logs` cannot be run: {error}"),
        }
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        let nodes = std::mem::take(&mut self.nodes);
        wait(&self.runtime, async {
            for node in nodes {
                // What cannot be removed is left to the guardian, which knows it by its label.
                node.container.rm().await.ok();
            }
        });
        self.guardian.release();
    }
}

impl std::fmt::Debug for Containers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Containers({}, {})", self.image, nodes::bootstrap_servers(self))
    }
}

/// Waits for an answer on a thread of its own: the caller's may be one of a runtime, where nobody may wait.
fn wait<T: Send>(runtime: &Runtime, answer: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(|| runtime.block_on(answer)).join() {
        Ok(answer) => answer,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refused(node: u32, what: &str, why: &str) -> ClusterError {
    ClusterError::NotReady(format!("node {node} cannot be {what}: {why}"))
}

fn unavailable(why: &str) -> ClusterError {
    ClusterError::Unavailable(format!("no Docker engine answers: {why}"))
}

/// The id of the engine that the program `docker` finds. The guardian cleans up with it: without it there are no containers.
fn engine_of_docker() -> Result<String, ClusterError> {
    let info = Command::new("docker").args(["info", "--format", "{{.ID}}"]).output();
    let info = info.map_err(|error| unavailable(&format!("`docker` is not on the path: {error}")))?;
    if info.status.success() {
        return Ok(String::from_utf8_lossy(&info.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&info.stderr).into_owned();
    Err(unavailable(said.lines().next().unwrap_or("`docker info` fails")))
}

/// testcontainers goes by DOCKER_HOST, `~/.testcontainers.properties` and the usual sockets, the program `docker` by DOCKER_HOST
/// and its context. If they find different engines, what is made on one would be looked for on the other, and stay.
fn same_engine(of_testcontainers: &str, of_docker: &str) -> Result<(), ClusterError> {
    if of_testcontainers == of_docker {
        return Ok(());
    }
    Err(ClusterError::Unavailable(format!(
        "testcontainers finds the Docker engine `{of_testcontainers}`, and the program `docker`, which cleans up, finds `{of_docker}`; \
         set DOCKER_HOST to the one that is meant"
    )))
}

async fn have_image(engine: &Docker, image: &str) -> Result<(), ClusterError> {
    match engine.inspect_image(image).await {
        Ok(_) => return Ok(()),
        Err(EngineError::DockerResponseServerError { status_code: 404, .. }) => {}
        Err(error) => return Err(unavailable(&error.to_string())),
    }
    let (name, tag) = split(image);
    let request =
        KafkaImage { name: name.into(), tag: tag.into(), environment: BTreeMap::new(), inside: Vec::new() };
    request.pull_image().await.map(|_| ()).map_err(|error| {
        ClusterError::Unavailable(format!(
            "the Docker engine has no image `{image}` and cannot pull it: {error}; SHAKEDOWN_KAFKA_IMAGE names another"
        ))
    })
}

/// Name and tag of an image. A colon before a slash belongs to the registry's port.
fn split(image: &str) -> (&str, &str) {
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, "latest"),
    }
}

/// The variable that the image reads a setting from, as Kafka's `KafkaDockerWrapper` undoes it.
fn variable(setting: &str) -> String {
    let letters = setting.chars().map(|letter| match letter {
        '.' => "_".to_owned(),
        '_' => "__".to_owned(),
        '-' => "___".to_owned(),
        letter => letter.to_ascii_uppercase().to_string(),
    });
    format!("KAFKA_{}", letters.collect::<String>())
}

#[cfg(test)]
mod tests;

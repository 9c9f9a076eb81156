//! A cluster as its harness holds it: programs for the hosts, disks that outlive them, and a view of the whole.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use context::{Context, Program, Rng, Timestamp};
use tokio::sync::Notify;

use crate::broker::{Broker, BrokerDisk};
use crate::config::{ClusterConfig, ConfigError, Endpoint, Features, Settings};
use crate::controller::{Controller, ControllerDisk};
use crate::core::{Input, Output};
use crate::group::{OFFSETS_TOPIC, partition_for};
use crate::guests::Guests;
use crate::log::PowerLoss;
use crate::metadata::{NO_LEADER, NodeId, PartitionKey};
use crate::shell::{Berth, Node, run};
use crate::storage::{LogFiles, Storage, StorageError};

/// Where the controller's log is written down, beside the brokers' directories.
const METADATA_DIRECTORY: &str = "__cluster_metadata-0";

/// How often is looked whether every broker is live.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Why a cluster cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its configuration is no good.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its directory cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A cluster. Clones share it.
///
/// It owns every node's disk, so that a node finds its own again after a crash. What it tells (`leader_of` and the
/// like) is read from there without IO, for faults and checks; clients ask brokers.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

/// What a power loss took from one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostWithPower {
    /// The topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// What is gone.
    pub loss: PowerLoss,
}

struct Inner {
    config: ClusterConfig,
    /// Of the controller.
    settings: Settings,
    /// Of each broker.
    broker_settings: Vec<Settings>,
    features: Features,
    controller: Arc<Mutex<ControllerNode>>,
    brokers: Vec<Arc<Mutex<BrokerNode>>>,
}

#[derive(Default)]
struct ControllerNode {
    disk: ControllerDisk,
    /// Where the metadata log is written down, if anywhere.
    storage: Option<LogFiles>,
    /// The last process; `None` before the first.
    core: Option<Controller>,
}

#[derive(Default)]
struct BrokerNode {
    disk: BrokerDisk,
    /// Where it is written down, if anywhere.
    storage: Option<Storage>,
    /// Draws what a power loss leaves; there from the first start on.
    power: Option<Rng>,
    /// The last process; `None` before the first.
    core: Option<Broker>,
    /// Asks the process that runs to end.
    shutdown: Arc<Notify>,
    /// It has ended as it was asked to.
    stopped: bool,
}

impl Node for ControllerNode {
    fn handle(&mut self, now: Timestamp, input: Input, out: &mut Vec<Output>) {
        self.core.as_mut().expect("a running node has its core").handle(now, input, &mut self.disk, out);
        if let Some(storage) = &mut self.storage {
            // Kafka halts, too: what cannot be written must not be acknowledged.
            storage.write(&self.disk.log).unwrap_or_else(|error| panic!("the controller halts: {error}"));
        }
    }
}

impl Node for BrokerNode {
    fn handle(&mut self, now: Timestamp, input: Input, out: &mut Vec<Output>) {
        self.core.as_mut().expect("a running node has its core").handle(now, input, &mut self.disk, out);
        if let Some(storage) = &mut self.storage {
            storage.write(&mut self.disk).unwrap_or_else(|error| panic!("a broker halts: {error}"));
        }
        self.stopped |= out.contains(&Output::Stopped);
    }
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
        let (settings, broker_settings) = Settings::of_cluster(&config.config, config.brokers.len())?;
        let features = Features::parse(&config.features)?;
        let brokers = config.brokers.iter().map(|_| Arc::default()).collect();
        Ok(Cluster {
            inner: Arc::new(Inner {
                config,
                settings,
                broker_settings,
                features,
                controller: Arc::default(),
                brokers,
            }),
        })
    }

    /// The same with disks that are written down in `dir`, and were perhaps by a program before: a directory for each node
    /// in it. The number of brokers may differ from then; those that are missing are missing to the cluster as well.
    /// `now` is the time that is taken for when old records were written.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(config: ClusterConfig, dir: &Path, now: Timestamp) -> Result<Cluster, OpenError> {
        let cluster = Cluster::new(config)?;
        let metadata = dir.join(METADATA_DIRECTORY);
        let (files, log) = LogFiles::open_or_create(metadata, now)?;
        {
            let mut controller = lock(&cluster.inner.controller);
            controller.disk.log = log;
            controller.storage = Some(files);
        }
        for (broker, endpoint) in cluster.inner.brokers.iter().zip(&cluster.inner.config.brokers) {
            let (storage, disk) = Storage::open(&dir.join(&endpoint.name), now)?;
            let mut broker = lock(broker);
            broker.disk = disk;
            broker.storage = Some(storage);
        }
        Ok(cluster)
    }

    /// The hosts to add to a world: the controller, then the brokers.
    pub fn hosts(&self) -> Vec<(String, Program)> {
        let config = &self.inner.config;
        let controller = (config.controller.name.clone(), self.controller_program());
        let brokers = config.brokers.iter().zip(1..);
        let brokers =
            brokers.map(|(endpoint, node)| (endpoint.name.clone(), self.broker_program(node, endpoint)));
        std::iter::once(controller).chain(brokers).collect()
    }

    /// Where each of [`Cluster::hosts`] lives.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        let config = &self.inner.config;
        std::iter::once(&config.controller).chain(&config.brokers)
    }

    fn controller_program(&self) -> Program {
        let cluster = self.clone();
        context::program(move |context: Context| {
            let inner = cluster.inner.clone();
            async move {
                let core = Controller::new(inner.settings.clone(), inner.features, context.rng("controller"));
                lock(&inner.controller).core = Some(core);
                let berth = berth(inner.config.controller.port, &inner.settings, Arc::default());
                run(context, inner.controller.clone(), berth).await;
            }
        })
    }

    fn broker_program(&self, node: NodeId, endpoint: &Endpoint) -> Program {
        let (cluster, endpoint) = (self.clone(), endpoint.clone());
        context::program(move |context: Context| {
            let (inner, endpoint) = (cluster.inner.clone(), endpoint.clone());
            async move {
                let (port, settings) = (endpoint.port, &inner.broker_settings[node as usize - 1]);
                let broker = inner.brokers[node as usize - 1].clone();
                let core = Broker::new(
                    node,
                    endpoint,
                    &inner.config.controller,
                    settings.clone(),
                    inner.features,
                    context.rng("broker"),
                );
                let shutdown = Arc::new(Notify::new());
                {
                    let mut broker = lock(&broker);
                    broker.core = Some(core);
                    broker.power.get_or_insert_with(|| context.rng("power"));
                    broker.shutdown = shutdown.clone();
                    broker.stopped = false;
                }
                run(context, broker, berth(port, settings, shutdown)).await;
            }
        })
    }

    /// What clients bootstrap from: `broker-1:9092,broker-2:9092`.
    pub fn bootstrap_servers(&self) -> String {
        let servers = self.inner.config.brokers.iter().map(|node| format!("{}:{}", node.host, node.port));
        servers.collect::<Vec<_>>().join(",")
    }

    /// The node ids of the brokers, from 1.
    pub fn brokers(&self) -> impl Iterator<Item = NodeId> + use<> {
        1..=self.inner.brokers.len() as NodeId
    }

    /// The host name of a broker.
    pub fn broker_name(&self, node: NodeId) -> Option<&str> {
        let index = usize::try_from(node).ok()?.checked_sub(1)?;
        self.inner.config.brokers.get(index).map(|node| node.name.as_str())
    }

    /// The leader of a partition as the controller has it; `None` if it has none, or does not exist.
    pub fn leader_of(&self, topic: &str, partition: i32) -> Option<NodeId> {
        let controller = lock(&self.inner.controller);
        let (_, image) = controller.core.as_ref()?.image().partition_of(topic, partition)?;
        (image.leader != NO_LEADER).then_some(image.leader)
    }

    /// The in-sync replicas of a partition as the controller has them; empty if it does not exist.
    pub fn in_sync_of(&self, topic: &str, partition: i32) -> Vec<NodeId> {
        let controller = lock(&self.inner.controller);
        let image = controller.core.as_ref().and_then(|core| core.image().partition_of(topic, partition));
        image.map(|(_, image)| image.in_sync.clone()).unwrap_or_default()
    }

    /// The high watermark of every partition that has a leader, internal topics too, as the leader has it. A leader that
    /// was just elected, and does not know so yet, is not counted.
    pub fn high_watermarks(&self) -> BTreeMap<(String, i32), i64> {
        let mut offsets = BTreeMap::new();
        let controller = lock(&self.inner.controller);
        let topics = controller.core.iter().flat_map(|core| core.image().topics.values());
        for topic in topics {
            for (index, image) in (0..).zip(&topic.partitions) {
                if image.leader == NO_LEADER {
                    continue;
                }
                let broker = lock(&self.inner.brokers[image.leader as usize - 1]);
                let key = PartitionKey { topic: topic.id, index };
                if let Some(offset) = broker.core.as_ref().and_then(|core| core.high_watermark(key)) {
                    offsets.insert((topic.name.to_string(), index), offset);
                }
            }
        }
        offsets
    }

    /// Whether the controller counts a broker among the living: registered and not fenced.
    pub fn is_live(&self, node: NodeId) -> bool {
        let controller = lock(&self.inner.controller);
        let live = |core: &Controller| core.image().brokers.get(&node).is_some_and(|broker| !broker.fenced);
        controller.core.as_ref().is_some_and(live)
    }

    /// Waits until every broker is live: each takes connections then.
    pub async fn until_live(&self, clock: &Context) {
        while !self.brokers().all(|node| self.is_live(node)) {
            clock.sleep(LOOK_AGAIN).await;
        }
    }

    /// The log end offset of every partition, internal topics too, from the disk of its leader, or of the broker that
    /// will lead again.
    pub fn log_end_offsets(&self) -> BTreeMap<(String, i32), i64> {
        let mut ends = BTreeMap::new();
        let controller = lock(&self.inner.controller);
        let topics = controller.core.iter().flat_map(|core| core.image().topics.values());
        for topic in topics {
            for (index, partition) in (0..).zip(&topic.partitions) {
                let holder = partition.holder();
                let broker = lock(&self.inner.brokers[holder as usize - 1]);
                let log = broker.disk.logs.get(&PartitionKey { topic: topic.id, index });
                ends.insert((topic.name.to_string(), index), log.map_or(0, |log| log.end_offset()));
            }
        }
        ends
    }

    /// Where readers of committed records stop in every partition, internal topics too, as its leader has it; the log's
    /// end where no leader serves.
    pub fn last_stable_offsets(&self) -> BTreeMap<(String, i32), i64> {
        let mut offsets = self.log_end_offsets();
        let controller = lock(&self.inner.controller);
        for ((topic, index), offset) in &mut offsets {
            let image = controller.core.as_ref().and_then(|core| core.image().partition_of(topic, *index));
            let Some((key, image)) = image.filter(|(_, image)| image.leader != NO_LEADER) else { continue };
            let broker = lock(&self.inner.brokers[image.leader as usize - 1]);
            if let Some(stable) =
                broker.core.as_ref().and_then(|core| core.last_stable_offset(key, &broker.disk))
            {
                *offset = stable;
            }
        }
        offsets
    }

    /// The broker that coordinates a group, once the offsets topic exists and that partition has a leader.
    pub fn coordinator_of(&self, group: &str) -> Option<NodeId> {
        let partitions = {
            let controller = lock(&self.inner.controller);
            controller.core.as_ref()?.image().topic(OFFSETS_TOPIC)?.partitions.len()
        };
        self.leader_of(OFFSETS_TOPIC, partition_for(group, partitions) as i32)
    }

    /// The offsets that a group has committed, as its coordinator has them; empty if it has none.
    pub fn committed_offsets(&self, group: &str) -> BTreeMap<(String, i32), i64> {
        self.at_coordinator(group, |broker| broker.coordinator().committed(group)).unwrap_or_default()
    }

    /// Whether a group is stable: it has members and none waits for a rebalance.
    pub fn group_is_stable(&self, group: &str) -> bool {
        self.at_coordinator(group, |broker| broker.coordinator().is_stable(group)).unwrap_or(false)
    }

    fn at_coordinator<T>(&self, group: &str, ask: impl FnOnce(&Broker) -> T) -> Option<T> {
        let node = self.coordinator_of(group)?;
        let broker = lock(&self.inner.brokers[node as usize - 1]);
        broker.core.as_ref().map(ask)
    }

    /// Asks the process of a broker to end (SIGTERM). It gives its leaderships away first, which takes time: see
    /// [`Cluster::has_stopped`]. Its host stays until whoever runs it kills it.
    ///
    /// # Panics
    /// If there is no such broker.
    pub fn shut_down(&self, node: NodeId) {
        lock(&self.inner.brokers[node as usize - 1]).shutdown.notify_one();
    }

    /// Whether the process of a broker has ended as [`Cluster::shut_down`] asked it to.
    ///
    /// # Panics
    /// If there is no such broker.
    pub fn has_stopped(&self, node: NodeId) -> bool {
        lock(&self.inner.brokers[node as usize - 1]).stopped
    }

    /// The machine of a broker lost power at `now`: what its disk had not flushed is gone, but for pages that happened to be
    /// written already. Call it while the host is off; that its process died before changes nothing, for what it wrote is
    /// the kernel's. What was lost, by partition; logs that lost nothing are not among them.
    ///
    /// # Panics
    /// If there is no such broker.
    pub fn power_lost(&self, node: NodeId, now: Timestamp) -> Vec<LostWithPower> {
        let lost = {
            let mut broker = lock(&self.inner.brokers[node as usize - 1]);
            let BrokerNode { disk, power, .. } = &mut *broker;
            // A machine that never ran has nothing to lose.
            power.as_mut().map(|rng| disk.lose_power(now, rng)).unwrap_or_default()
        };
        let controller = lock(&self.inner.controller);
        let topics = controller.core.as_ref().map(|core| &core.image().topics);
        let name = |key: PartitionKey| match topics.and_then(|topics| topics.get(&key.topic)) {
            Some(topic) => topic.name.to_string(),
            // It was deleted, and the broker had not heard of it.
            None => key.topic.to_string(),
        };
        lost.into_iter()
            .map(|(key, loss)| LostWithPower { topic: name(key), partition: key.index, loss })
            .collect()
    }
}

fn berth(port: u16, settings: &Settings, shutdown: Arc<Notify>) -> Berth {
    let guests = Guests::new(settings.max_connections, settings.connections_max_idle_ms);
    Berth { port, frame_bytes_max: settings.socket_request_max_bytes, guests, shutdown }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cluster({})", self.bootstrap_servers())
    }
}

pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! What a client knows of the cluster: brokers, topics, leaders; and its connections to them.
//!
//! Brokers apply the metadata log each at its own position, so an answer may be older than what is known already: a
//! leader of an earlier epoch never replaces one of a later epoch (KIP-320).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker::{Error, PartitionId, TopicPartition};
use context::{Context, Rng, Timestamp};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::{Request, StrBytes};
use rand::seq::SliceRandom as _;
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::connection::{Answered, Connection};
use crate::error::{self, transport};
use crate::properties::Settings;

/// How long a question that any broker can answer waits for one of them before the next is asked as well. librdkafka
/// connects to all brokers at once instead.
const ASK_NEXT_AFTER: Duration = Duration::from_secs(1);

/// A broker's number.
pub(crate) type NodeId = i32;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    /// One of `bootstrap.servers`, by position.
    Bootstrap(usize),
    /// A broker as the leader of partitions.
    Node(NodeId),
    /// A broker as a group's coordinator: a connection of its own, as in librdkafka, so that heartbeats do not wait
    /// behind long polls.
    Coordinator(NodeId),
    /// A broker as a transaction's coordinator.
    TransactionCoordinator(NodeId),
}

/// A topic as last heard of.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    /// Kafka's error code for it; 0 if it is there.
    pub(crate) error: i16,
    /// Nil where the broker is too old to tell.
    pub(crate) id: Uuid,
    pub(crate) partitions: BTreeMap<PartitionId, Partition>,
}

/// A partition as last heard of.
#[derive(Clone, Debug)]
pub(crate) struct Partition {
    pub(crate) leader: Option<NodeId>,
    /// -1 where the broker is too old to tell.
    pub(crate) leader_epoch: i32,
    pub(crate) replicas: Vec<NodeId>,
    pub(crate) in_sync: Vec<NodeId>,
}

/// What is known, and the ways to learn more.
pub(crate) struct Cluster {
    pub(crate) context: Context,
    pub(crate) settings: Settings,
    /// Tells this client's draws from those of others on its host.
    label: String,
    auto_create: bool,
    state: Mutex<State>,
    refreshing: tokio::sync::Mutex<()>,
}

struct State {
    brokers: BTreeMap<NodeId, (String, u16)>,
    controller: Option<NodeId>,
    topics: BTreeMap<Arc<str>, Topic>,
    /// Counts the answers, so that those who saw the same error refresh once.
    version: u64,
    refreshed_at: Timestamp,
    connections: BTreeMap<Peer, (String, u16, Arc<Connection>)>,
    rng: Rng,
}

impl Cluster {
    /// Knows nothing yet but the bootstrap servers. With `auto_create`, asking for a topic may create it, if the broker
    /// is set so.
    pub(crate) fn new(context: Context, settings: Settings, label: String, auto_create: bool) -> Cluster {
        let rng = context.rng(&format!("{label} cluster"));
        Cluster {
            context,
            settings,
            label,
            auto_create,
            state: Mutex::new(State {
                brokers: BTreeMap::new(),
                controller: None,
                topics: BTreeMap::new(),
                version: 0,
                refreshed_at: Timestamp::ZERO,
                connections: BTreeMap::new(),
                rng,
            }),
            refreshing: tokio::sync::Mutex::new(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream of randomness for `part` of this client.
    pub(crate) fn rng(&self, part: &str) -> Rng {
        self.context.rng(&format!("{} {part}", self.label))
    }

    /// The backoff of this client's retries.
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(self.settings.retry_backoff, self.settings.retry_backoff_max)
    }

    /// The backoff of questions for a leader that is not there.
    pub(crate) fn metadata_backoff(&self) -> Backoff {
        Backoff::new(self.settings.metadata_refresh_fast, self.settings.retry_backoff_max)
    }

    /// When metadata is too old; `None` before the first was heard.
    pub(crate) fn refresh_due(&self) -> Option<Timestamp> {
        let state = self.state();
        (state.version > 0).then(|| state.refreshed_at + self.settings.metadata_max_age)
    }

    /// The number of the last metadata answer; pass it to [`Cluster::refresh`] as what was known when the error came.
    pub(crate) fn version(&self) -> u64 {
        self.state().version
    }

    /// The topic as last heard of; `None` if never asked for.
    pub(crate) fn topic(&self, name: &str) -> Option<Topic> {
        self.state().topics.get(name).cloned()
    }

    /// The topic's id; `None` if it was never asked for.
    pub(crate) fn topic_id(&self, name: &str) -> Option<Uuid> {
        self.state().topics.get(name).map(|topic| topic.id)
    }

    /// Kafka's error code for the topic; 0 if there is none, or it was never asked for.
    pub(crate) fn topic_error_code(&self, name: &str) -> i16 {
        self.state().topics.get(name).map_or(0, |topic| topic.error)
    }

    /// How many partitions a topic has; `None` if it is not known to be there.
    pub(crate) fn partition_count(&self, name: &str) -> Option<PartitionId> {
        let state = self.state();
        let topic =
            state.topics.get(name).filter(|topic| topic.error == 0 && !topic.partitions.is_empty())?;
        PartitionId::try_from(topic.partitions.len()).ok()
    }

    /// The leader of a partition with its epoch.
    pub(crate) fn leader(&self, at: &TopicPartition) -> Option<(NodeId, i32)> {
        let state = self.state();
        let partition = state.topics.get(&at.topic)?.partitions.get(&at.partition)?;
        Some((partition.leader?, partition.leader_epoch))
    }

    /// A broker that takes requests for the controller.
    pub(crate) fn controller(&self) -> Option<NodeId> {
        self.state().controller
    }

    /// A broker told who leads now; believed if its epoch is later.
    pub(crate) fn learn_leader(&self, at: &TopicPartition, leader: NodeId, leader_epoch: i32) {
        let mut state = self.state();
        if !state.brokers.contains_key(&leader) {
            return;
        }
        let known = state.topics.get_mut(&at.topic).and_then(|topic| topic.partitions.get_mut(&at.partition));
        if let Some(partition) = known
            && leader_epoch > partition.leader_epoch
        {
            partition.leader = Some(leader);
            partition.leader_epoch = leader_epoch;
        }
    }

    /// A coordinator's address may be news.
    pub(crate) fn learn_broker(&self, node: NodeId, host: &str, port: i32) {
        if let Ok(port) = u16::try_from(port) {
            self.state().brokers.insert(node, (host.to_owned(), port));
        }
    }

    /// The connection to `peer`, made if there is none.
    ///
    /// # Errors
    /// Retriable if no broker of that number is known.
    pub(crate) fn connection(&self, peer: Peer) -> Result<Arc<Connection>, Error> {
        let mut state = self.state();
        let address = match peer {
            Peer::Bootstrap(position) => self.settings.bootstrap.get(position).cloned(),
            Peer::Node(node) | Peer::Coordinator(node) | Peer::TransactionCoordinator(node) => {
                state.brokers.get(&node).cloned()
            }
        };
        let Some((host, port)) = address else {
            return Err(transport(format!("no broker is known as {peer:?}")));
        };
        if let Some((known_host, known_port, connection)) = state.connections.get(&peer)
            && (known_host, known_port) == (&host, &port)
        {
            return Ok(connection.clone());
        }
        let name = format!("{} {peer:?}", self.label);
        let connection = Arc::new(Connection::new(&self.context, &self.settings, &name, &host, port));
        state.connections.insert(peer, (host, port, connection.clone()));
        Ok(connection)
    }

    /// The level of a feature that the cluster has finalized, by the newest word of any broker; 0 if none has told.
    pub(crate) fn finalized_level(&self, feature: &str) -> i16 {
        let told = self
            .state()
            .connections
            .values()
            .map(|(.., connection)| connection.features())
            .collect::<Vec<_>>();
        let newest = told.into_iter().max_by_key(|features| features.epoch);
        newest.and_then(|features| features.levels.get(feature).copied()).unwrap_or(0)
    }

    /// Asks whichever broker answers: those that are connected first, and after a second without an answer the next
    /// one too.
    ///
    /// # Errors
    /// The last broker's, if none answers.
    pub(crate) async fn ask_any<R>(
        &self,
        build: impl Fn(i16) -> R + Clone + Send + 'static,
    ) -> Result<Answered<R::Response>, Error>
    where
        R: Request + 'static,
        R::Response: Send,
    {
        let mut candidates = self.candidates().into_iter();
        let mut asked = FuturesUnordered::new();
        let mut last = transport("no broker is known");
        loop {
            match candidates.next() {
                Some(connection) => {
                    asked.push(connection.request(self.settings.socket_timeout, i16::MAX, build.clone()))
                }
                None if asked.is_empty() => return Err(last),
                None => {}
            }
            let answer = match candidates.len() {
                0 => asked.next().await,
                _ => match self.context.timeout(ASK_NEXT_AFTER, asked.next()).await {
                    Ok(answer) => answer,
                    Err(_) => continue,
                },
            };
            match answer {
                Some(Ok(answer)) => return Ok(answer),
                Some(Err(failed)) => last = failed.error,
                None => {}
            }
        }
    }

    /// Brokers in the order in which to ask them: connected ones, then untried ones, then those that failed; the
    /// bootstrap servers last, once others are known.
    fn candidates(&self) -> Vec<Arc<Connection>> {
        let peers = {
            let mut state = self.state();
            let mut nodes: Vec<Peer> = state.brokers.keys().copied().map(Peer::Node).collect();
            nodes.shuffle(&mut state.rng);
            let mut bootstrap: Vec<Peer> = (0..self.settings.bootstrap.len()).map(Peer::Bootstrap).collect();
            bootstrap.shuffle(&mut state.rng);
            nodes.into_iter().chain(bootstrap)
        };
        let mut candidates: Vec<_> = peers.filter_map(|peer| self.connection(peer).ok()).collect();
        candidates.sort_by_key(|connection| connection.standing());
        candidates
    }

    /// Learns about `topics`, and about all topics asked for before, unless that has happened since `known`
    /// ([`Cluster::version`]).
    ///
    /// # Errors
    /// Retriable if no broker answers. An error of a single topic is in [`Topic::error`].
    pub(crate) async fn refresh(&self, topics: &BTreeSet<Arc<str>>, known: u64) -> Result<(), Error> {
        let _one_at_a_time = self.refreshing.lock().await;
        let asked: Vec<Arc<str>> = {
            let state = self.state();
            if state.version > known && topics.iter().all(|topic| state.topics.contains_key(topic)) {
                return Ok(());
            }
            topics.iter().chain(state.topics.keys()).collect::<BTreeSet<_>>().into_iter().cloned().collect()
        };
        let answer = self.ask_any(metadata_request(Some(asked.clone()), self.auto_create)).await?;
        let mut state = self.state();
        state.learn_brokers(&answer.body, self.context.now());
        for topic in answer.body.topics {
            state.learn_topic(topic);
        }
        Ok(())
    }

    /// Describes `topics`, or all that there are for `None`, without asking for them ever after.
    ///
    /// # Errors
    /// As [`Cluster::refresh`].
    pub(crate) async fn describe(
        &self,
        topics: Option<Vec<Arc<str>>>,
    ) -> Result<Vec<(Arc<str>, Topic)>, Error> {
        let answer = self.ask_any(metadata_request(topics, false)).await?;
        self.state().learn_brokers(&answer.body, self.context.now());
        Ok(answer.body.topics.into_iter().filter_map(read_topic).collect())
    }
}

impl State {
    fn learn_brokers(&mut self, answer: &MetadataResponse, now: Timestamp) {
        self.version += 1;
        self.refreshed_at = now;
        let brokers = answer.brokers.iter().filter_map(|broker| {
            Some((broker.node_id.0, (broker.host.to_string(), u16::try_from(broker.port).ok()?)))
        });
        // A broker that is away stays known: a leader may be named that this broker's answer does not list yet.
        self.brokers.extend(brokers);
        self.controller = Some(answer.controller_id.0).filter(|node| self.brokers.contains_key(node));
    }

    fn learn_topic(&mut self, answer: MetadataResponseTopic) {
        let Some((name, mut topic)) = read_topic(answer) else { return };
        if let Some(known) = self.topics.get(&name)
            && known.id == topic.id
        {
            for (number, partition) in &mut topic.partitions {
                if let Some(known) = known.partitions.get(number)
                    && known.leader_epoch > partition.leader_epoch
                {
                    *partition = known.clone();
                }
            }
        }
        self.topics.insert(name, topic);
    }
}

fn read_topic(answer: MetadataResponseTopic) -> Option<(Arc<str>, Topic)> {
    let name: Arc<str> = answer.name?.as_str().into();
    let partitions = answer.partitions.into_iter().map(|partition| {
        let leader = Some(partition.leader_id.0).filter(|leader| *leader >= 0);
        let nodes =
            |nodes: Vec<kafka_protocol::messages::BrokerId>| nodes.iter().map(|node| node.0).collect();
        let read = Partition {
            leader,
            leader_epoch: partition.leader_epoch,
            replicas: nodes(partition.replica_nodes),
            in_sync: nodes(partition.isr_nodes),
        };
        (partition.partition_index, read)
    });
    Some((name, Topic { error: answer.error_code, id: answer.topic_id, partitions: partitions.collect() }))
}

fn metadata_request(
    topics: Option<Vec<Arc<str>>>,
    auto_create: bool,
) -> impl Fn(i16) -> MetadataRequest + Clone + Send + 'static {
    move |version| {
        let topics = topics.as_ref().map(|topics| {
            topics
                .iter()
                .map(|topic| MetadataRequestTopic::default().with_name(Some(topic_name(topic))))
                .collect()
        });
        let request = MetadataRequest::default().with_topics(topics);
        if version >= 4 { request.with_allow_auto_topic_creation(auto_create) } else { request }
    }
}

/// A name as the wire wants it.
pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// A topic's error as an [`Error`].
pub(crate) fn topic_error(name: &str, code: i16) -> Error {
    error::answered(code, format!("topic `{name}`"))
}

//! A cluster of cores on a bench: no network, no tasks, time moves when it is told to.
//!
//! What one core sends another arrives at once, unless a test cuts or holds its way (`faults`). A link between nodes
//! carries one request at a time and gives up after the request's patience, as the shell does it. A broker that was
//! killed hears nothing until it is started again, with the disk that it left.

#![allow(dead_code, reason = "each test file uses a part")]
#![allow(unreachable_pub, reason = "the files of a test crate see each other only so")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use context::{Seed, Timestamp};
use kafka_protocol::messages::{ApiKey, RequestHeader, RequestKind, ResponseHeader, ResponseKind};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use shakedown_kafka::broker::{Broker, BrokerDisk};
use shakedown_kafka::controller::{Controller, ControllerDisk};
use shakedown_kafka::core::{ConnectionId, Input, Lane, Link, Output, Peer};
use shakedown_kafka::metadata::MetadataImage;
use shakedown_kafka::{ClusterConfig, Features, NodeId, Settings};
use uuid::Uuid;

/// When a bench begins; transcripts count from here.
pub const START: Timestamp = Timestamp::from_millis(1_767_225_600_000);

pub mod faults;
pub mod transactional;
pub mod transactions;
pub mod verbs;

struct Node {
    core: Broker,
    disk: BrokerDisk,
    up: bool,
    listening: bool,
    /// What comes waits, and timers are late.
    paused: Option<Vec<Input>>,
    incarnation: u128,
    wake_at: Timestamp,
}

/// A request of one node to another that has no answer yet.
struct Asked {
    from: usize,
    incarnation: u128,
    link: Link,
    /// When the asker gives up.
    until: Timestamp,
}

/// What is on its way between nodes.
enum Parcel {
    Request { to: Host, connection: ConnectionId, peer: Arc<str>, frame: Bytes },
    Answer { connection: ConnectionId, frame: Option<Bytes> },
}

pub struct Bench {
    pub now: Timestamp,
    settings: Settings,
    broker_settings: Vec<Settings>,
    features: Features,
    config: ClusterConfig,
    controller: Controller,
    /// How many there have been.
    controllers: u32,
    controller_disk: ControllerDisk,
    controller_wake_at: Timestamp,
    controller_up: bool,
    nodes: Vec<Node>,
    queue: VecDeque<(Host, Input)>,
    next_connection: u64,
    /// Connections of clients, with the API and version asked on each.
    asked: BTreeMap<ConnectionId, (ApiKey, i16)>,
    /// Requests of nodes to each other: the oldest on each link is under way.
    links: BTreeMap<ConnectionId, Asked>,
    /// Requests that wait for the one before them on their link.
    behind: BTreeMap<(usize, Link), VecDeque<(Bytes, Duration)>>,
    /// Requests of nodes that were given up, or whose asker died: an answer goes nowhere.
    given_up: BTreeSet<ConnectionId>,
    /// Directions in which nothing arrives, with what waits there.
    held: BTreeMap<(Host, Host), Vec<Parcel>>,
    /// What came while there was no controller: its connects are tried again.
    for_controller: Vec<Parcel>,
    answers: BTreeMap<ConnectionId, Reply>,
    handled: u64,
    patience: BTreeMap<Lane, Duration>,
    /// Lines of the trace, with milliseconds since the start.
    pub trace: Vec<String>,
}

/// A node of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    Controller,
    Broker(NodeId),
}

impl Host {
    fn index(self) -> usize {
        match self {
            Host::Controller => panic!("the controller is no broker"),
            Host::Broker(node) => node as usize - 1,
        }
    }
}

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a test holds a handful")]
pub enum Reply {
    Response(ResponseKind),
    Nothing,
    Closed(String),
}

impl Bench {
    /// Brokers that are up and unfenced.
    pub fn new(brokers: u32, config: &[(&str, &str)]) -> Bench {
        Bench::with_features(brokers, config, &[])
    }

    /// The same, formatted with these feature levels.
    pub fn with_features(brokers: u32, config: &[(&str, &str)], features: &[(&str, i16)]) -> Bench {
        let mut cluster = ClusterConfig::simulated(brokers);
        cluster.config = config.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        for factor in ["offsets.topic.replication.factor", "transaction.state.log.replication.factor"] {
            cluster.config.entry(factor.into()).or_insert_with(|| "1".into());
        }
        cluster.features = features.iter().map(|&(name, level)| (name.to_owned(), level)).collect();
        let (settings, broker_settings) =
            Settings::of_cluster(&cluster.config, cluster.brokers.len()).unwrap();
        let features = Features::parse(&cluster.features).unwrap();
        let mut bench = Bench {
            now: START,
            controller: Controller::new(settings.clone(), features, Seed(7).stream("controller")),
            controllers: 1,
            controller_disk: ControllerDisk::default(),
            controller_wake_at: Timestamp::FAR_FUTURE,
            controller_up: true,
            nodes: Vec::new(),
            queue: VecDeque::new(),
            next_connection: 0,
            asked: BTreeMap::new(),
            links: BTreeMap::new(),
            behind: BTreeMap::new(),
            given_up: BTreeSet::new(),
            held: BTreeMap::new(),
            for_controller: Vec::new(),
            answers: BTreeMap::new(),
            handled: 0,
            patience: BTreeMap::new(),
            trace: Vec::new(),
            settings,
            broker_settings,
            features,
            config: cluster,
        };
        bench.queue.push_back((Host::Controller, Input::Start { incarnation: Uuid::nil() }));
        bench.settle();
        for node in 1..=brokers as NodeId {
            let (core, disk) = (bench.new_core(node, 0), BrokerDisk::default());
            let wake_at = Timestamp::FAR_FUTURE;
            let node_state =
                Node { core, disk, up: false, listening: false, paused: None, incarnation: 0, wake_at };
            bench.nodes.push(node_state);
            bench.start(node);
        }
        bench.advance(100);
        bench
    }

    fn new_controller(&mut self) -> Controller {
        let rng = Seed(7).stream(&format!("controller#{}", self.controllers));
        self.controllers += 1;
        Controller::new(self.settings.clone(), self.features, rng)
    }

    fn new_core(&self, node: NodeId, incarnation: u128) -> Broker {
        let endpoint = self.config.brokers[node as usize - 1].clone();
        Broker::new(
            node,
            endpoint,
            &self.config.controller,
            self.broker_settings[node as usize - 1].clone(),
            self.features,
            Seed(7).stream(&format!("broker-{node}#{incarnation}")),
        )
    }

    /// Whether a broker lets clients in.
    pub fn is_listening(&self, node: NodeId) -> bool {
        self.nodes[node as usize - 1].listening
    }

    /// The metadata, as the controller has it.
    pub fn image(&self) -> &MetadataImage {
        self.controller.image()
    }

    pub fn leader_of(&self, topic: &str, partition: i32) -> (NodeId, i32) {
        let (_, image) =
            self.controller.image().partition_of(topic, partition).expect("the partition exists");
        (image.leader, image.leader_epoch)
    }

    /// Who is in sync, as the controller has it.
    pub fn in_sync_of(&self, topic: &str, partition: i32) -> Vec<NodeId> {
        let image = self.controller.image().partition_of(topic, partition);
        image.expect("the partition exists").1.in_sync.clone()
    }

    /// The log of one replica: the epoch of each of its records.
    pub fn replica(&self, node: NodeId, topic: &str, partition: i32) -> Vec<(i64, i32)> {
        let (key, _) = self.controller.image().partition_of(topic, partition).expect("the partition exists");
        let log = &self.nodes[node as usize - 1].disk.logs[&key];
        let records = (log.start_offset()..log.end_offset()).map(|offset| (offset, log.epoch_of(offset)));
        records.map(|(offset, epoch)| (offset, epoch.expect("a record has an epoch"))).collect()
    }

    /// Where the segments of one replica begin, and up to where it is flushed.
    pub fn segments(&self, node: NodeId, topic: &str, partition: i32) -> (Vec<i64>, i64) {
        let (key, _) = self.controller.image().partition_of(topic, partition).expect("the partition exists");
        let log = &self.nodes[node as usize - 1].disk.logs[&key];
        (log.segments().map(|segment| segment.base_offset()).collect(), log.recovery_point())
    }

    /// How long a broker last wanted to wait on a lane to another node.
    pub fn patience(&self, lane: Lane) -> Duration {
        self.patience[&lane]
    }

    /// How many inputs the nodes have handled.
    pub fn handled(&self) -> u64 {
        self.handled
    }

    /// Moves time on; everything that falls due happens at its own time.
    pub fn advance(&mut self, ms: u64) {
        let until = self.now + Duration::from_millis(ms);
        loop {
            self.settle();
            let awake = self.nodes.iter().filter(|node| node.paused.is_none()).map(|node| node.wake_at);
            let given_up = self.links.values().map(|asked| asked.until);
            let next = awake.chain(given_up).chain([self.controller_wake_at]).min().unwrap();
            if next > until {
                break;
            }
            self.now = self.now.max(next);
            self.wake();
        }
        self.now = until;
    }

    /// What is due now.
    fn wake(&mut self) {
        if self.controller_wake_at <= self.now {
            self.controller_wake_at = Timestamp::FAR_FUTURE;
            self.queue.push_back((Host::Controller, Input::Wake));
        }
        for (node, host) in self.nodes.iter_mut().zip(1..) {
            if node.wake_at <= self.now && node.paused.is_none() {
                node.wake_at = Timestamp::FAR_FUTURE;
                self.queue.push_back((Host::Broker(host), Input::Wake));
            }
        }
        let late: Vec<_> =
            self.links.iter().filter(|(_, asked)| asked.until <= self.now).map(|(&id, _)| id).collect();
        for connection in late {
            self.answer_link(connection, None);
            self.given_up.insert(connection);
        }
    }

    fn settle(&mut self) {
        let mut out = Vec::new();
        while let Some((host, input)) = self.queue.pop_front() {
            self.handled += 1;
            match host {
                Host::Controller if self.controller_up => {
                    self.controller.handle(self.now, input, &mut self.controller_disk, &mut out);
                }
                Host::Controller => {}
                Host::Broker(_) => {
                    let node = &mut self.nodes[host.index()];
                    match &mut node.paused {
                        _ if !node.up => {}
                        Some(waiting) => waiting.push(input),
                        None => node.core.handle(self.now, input, &mut node.disk, &mut out),
                    }
                }
            }
            for output in out.drain(..) {
                self.carry(host, output);
            }
        }
    }

    fn carry(&mut self, host: Host, output: Output) {
        match output {
            Output::Respond { connection, frame } if self.is_link(connection) => {
                self.answer_from(host, connection, Some(frame));
            }
            Output::Close { connection, .. } if self.is_link(connection) => {
                self.answer_from(host, connection, None);
            }
            Output::Respond { connection, mut frame } => {
                let (api, version) = self.asked[&connection];
                ResponseHeader::decode(&mut frame, api.response_header_version(version)).unwrap();
                let response = ResponseKind::decode(api, &mut frame, version).unwrap();
                assert!(frame.is_empty(), "{api:?} {version}: bytes are left over");
                self.answer(connection, Reply::Response(response));
            }
            Output::Done { connection } => self.answer(connection, Reply::Nothing),
            Output::Close { connection, reason } => self.answer(connection, Reply::Closed(reason)),
            Output::Ask { link, frame, patience, .. } => {
                self.patience.insert(link.lane, patience);
                let from = host.index();
                let behind = self.behind.entry((from, link)).or_default();
                behind.push_back((frame, patience));
                if behind.len() == 1 {
                    self.ask_next(from, link);
                }
            }
            Output::HangUp { link } => self.hang_up(host.index(), link),
            Output::Listen if host == Host::Controller => {}
            Output::Listen => self.nodes[host.index()].listening = true,
            Output::WakeAt(at) if host == Host::Controller => self.controller_wake_at = at,
            Output::WakeAt(at) => self.nodes[host.index()].wake_at = at,
            Output::Stopped => self.stopped(host),
            Output::Note(line) => match host {
                Host::Controller => self.note("controller", &line),
                Host::Broker(node) => self.note(&format!("broker-{node}"), &line),
            },
        }
    }

    /// A node forgets what it has asked on a link.
    fn hang_up(&mut self, from: usize, link: Link) {
        self.behind.remove(&(from, link));
        let asked = self.links.extract_if(.., |_, asked| asked.from == from && asked.link == link);
        self.given_up.extend(asked.map(|(connection, _)| connection));
    }

    /// The question that a broker waits to have answered by a peer, and how long it still waits.
    pub fn open_question(&self, from: NodeId, to: Peer, lane: Lane) -> Option<(ConnectionId, Duration)> {
        let (connection, asked) = self.links.iter().find(|(_, asked)| {
            asked.from == from as usize - 1 && (asked.link.peer, asked.link.lane) == (to, lane)
        })?;
        Some((*connection, asked.until.since(self.now)))
    }

    fn is_link(&self, connection: ConnectionId) -> bool {
        self.links.contains_key(&connection) || self.given_up.contains(&connection)
    }

    /// Sends the oldest request of a link; the others stay behind it.
    fn ask_next(&mut self, from: usize, link: Link) {
        let Some((frame, patience)) = self.behind[&(from, link)].front().cloned() else { return };
        let connection = self.connection();
        let (incarnation, until) = (self.nodes[from].incarnation, self.now + patience);
        self.links.insert(connection, Asked { from, incarnation, link, until });
        let host = Host::Broker(from as NodeId + 1);
        let to = peer_host(link.peer);
        let peer: Arc<str> = format!("broker-{}", from + 1).into();
        self.post(host, to, Parcel::Request { to, connection, peer, frame });
    }

    /// A parcel sets out.
    fn post(&mut self, from: Host, to: Host, parcel: Parcel) {
        match self.held.get_mut(&(from, to)) {
            Some(held) => held.push(parcel),
            None => self.deliver(parcel),
        }
    }

    fn deliver(&mut self, parcel: Parcel) {
        match parcel {
            Parcel::Request { to, connection, peer, frame } => {
                // Where nobody ever was there is nobody who listens.
                let node = match to {
                    Host::Controller => None,
                    Host::Broker(node) => {
                        usize::try_from(node).ok().and_then(|id| self.nodes.get(id.checked_sub(1)?))
                    }
                };
                let open = match to {
                    Host::Controller => self.controller_up,
                    Host::Broker(_) => node.is_some_and(|node| node.listening),
                };
                if open {
                    self.queue.push_back((to, Input::Request { connection, peer, frame }));
                } else if to == Host::Controller {
                    self.for_controller.push(Parcel::Request { to, connection, peer, frame });
                } else if !node.is_some_and(Node::is_silent) {
                    self.answer_link(connection, None);
                }
            }
            Parcel::Answer { connection, frame } => self.answer_link(connection, frame),
        }
    }

    fn answer_from(&mut self, host: Host, connection: ConnectionId, frame: Option<Bytes>) {
        if self.given_up.remove(&connection) {
            return;
        }
        let to = Host::Broker(self.links[&connection].from as NodeId + 1);
        self.post(host, to, Parcel::Answer { connection, frame });
    }

    /// The asker hears; the next request of its link sets out.
    fn answer_link(&mut self, connection: ConnectionId, frame: Option<Bytes>) {
        // It may have given up while the answer was held.
        let Some(Asked { from, incarnation, link, .. }) = self.links.remove(&connection) else { return };
        if !self.nodes[from].up || self.nodes[from].incarnation != incarnation {
            return;
        }
        self.behind.get_mut(&(from, link)).expect("a link that was asked").pop_front();
        self.queue.push_back((Host::Broker(from as NodeId + 1), Input::Answered { link, frame }));
        self.ask_next(from, link);
    }

    fn answer(&mut self, connection: ConnectionId, reply: Reply) {
        assert!(self.answers.insert(connection, reply).is_none(), "a request is answered once");
    }

    /// A line of the trace.
    pub fn note(&mut self, host: &str, line: &str) {
        let at = self.now.since(START).as_millis();
        self.trace.push(format!("{at:>6} {host:<10} {line}"));
    }

    fn connection(&mut self) -> ConnectionId {
        self.next_connection += 1;
        ConnectionId(self.next_connection)
    }

    /// Sends a request on a connection of its own; [`Bench::reply`] has the answer when there is one.
    pub fn send(
        &mut self,
        node: NodeId,
        api: ApiKey,
        version: i16,
        body: impl Into<RequestKind>,
    ) -> ConnectionId {
        assert!(self.is_listening(node), "broker {node} refuses connections");
        let header = RequestHeader::default()
            .with_request_api_key(api as i16)
            .with_request_api_version(version)
            .with_correlation_id(5)
            .with_client_id(Some(StrBytes::from_static_str("client")));
        let mut frame = BytesMut::new();
        header.encode(&mut frame, api.request_header_version(version)).unwrap();
        body.into().encode(&mut frame, version).unwrap();
        self.send_bytes(node, (api, version), frame.freeze())
    }

    pub fn send_bytes(&mut self, node: NodeId, asked: (ApiKey, i16), frame: Bytes) -> ConnectionId {
        self.send_bytes_to(Host::Broker(node), asked, frame)
    }

    /// Sends a frame to a broker or to the controller; an answer is read as one to `asked`.
    pub fn send_bytes_to(&mut self, host: Host, asked: (ApiKey, i16), frame: Bytes) -> ConnectionId {
        let connection = self.connection();
        self.asked.insert(connection, asked);
        let peer: Arc<str> = "client".into();
        self.queue.push_back((host, Input::Request { connection, peer, frame }));
        self.settle();
        connection
    }

    /// The answer, if it has come.
    pub fn reply(&mut self, connection: ConnectionId) -> Option<Reply> {
        self.answers.remove(&connection)
    }

    /// Asks and takes the answer, which must come at once.
    pub fn ask(
        &mut self,
        node: NodeId,
        api: ApiKey,
        version: i16,
        body: impl Into<RequestKind>,
    ) -> ResponseKind {
        let connection = self.send(node, api, version, body);
        match self.reply(connection) {
            Some(Reply::Response(response)) => response,
            other => panic!("{api:?} {version} got {other:?}"),
        }
    }

    /// A response that was waited for.
    pub fn response(&mut self, connection: ConnectionId) -> ResponseKind {
        match self.reply(connection) {
            Some(Reply::Response(response)) => response,
            other => panic!("no response but {other:?}"),
        }
    }
}

fn peer_host(peer: Peer) -> Host {
    match peer {
        Peer::Controller => Host::Controller,
        Peer::Broker(node) => Host::Broker(node),
    }
}

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Takes the response of one kind.
#[macro_export]
macro_rules! expect {
    ($kind:ident, $response:expr) => {
        match $response {
            kafka_protocol::messages::ResponseKind::$kind(response) => response,
            other => panic!("expected {}, got {other:?}", stringify!($kind)),
        }
    };
}

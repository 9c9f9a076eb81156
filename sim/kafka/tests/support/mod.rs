//! A cluster of cores on a bench: no network, no tasks, time moves when it is told to.
//!
//! What one core sends another arrives at once. A broker that was killed hears nothing until it is started again, with
//! the disk that it left.

#![allow(dead_code, reason = "each test file uses a part")]
#![allow(unreachable_pub, reason = "the files of a test crate see each other only so")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use context::{Seed, Timestamp};
use kafka_protocol::messages::{ApiKey, RequestHeader, RequestKind, ResponseHeader, ResponseKind};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use shakedown_kafka::broker::{Broker, BrokerDisk};
use shakedown_kafka::controller::{Controller, ControllerDisk};
use shakedown_kafka::core::{ConnectionId, Input, Link, Output, Peer};
use shakedown_kafka::{ClusterConfig, Features, NodeId, Settings};
use uuid::Uuid;

/// When a bench begins; transcripts count from here.
pub const START: Timestamp = Timestamp::from_millis(1_767_225_600_000);

pub mod verbs;

struct Node {
    core: Broker,
    disk: BrokerDisk,
    up: bool,
    listening: bool,
    incarnation: u128,
    wake_at: Timestamp,
}

pub struct Bench {
    pub now: Timestamp,
    settings: Settings,
    features: Features,
    config: ClusterConfig,
    controller: Controller,
    controller_disk: ControllerDisk,
    controller_wake_at: Timestamp,
    nodes: Vec<Node>,
    queue: VecDeque<(Place, Input)>,
    next_connection: u64,
    /// Connections of clients, with the API and version asked on each.
    asked: BTreeMap<ConnectionId, (ApiKey, i16)>,
    /// Connections of brokers to each other and to the controller: whose, and what for.
    links: BTreeMap<ConnectionId, (usize, u128, Link)>,
    answers: BTreeMap<ConnectionId, Reply>,
    /// Lines of the trace, with milliseconds since the start.
    pub trace: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Controller,
    Broker(usize),
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
        let mut cluster = ClusterConfig::simulated(brokers);
        cluster.config = config.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        cluster.config.entry("offsets.topic.replication.factor".into()).or_insert_with(|| "1".into());
        let settings = Settings::parse(&cluster.config).unwrap();
        let features = Features::parse(&cluster.features).unwrap();
        let mut bench = Bench {
            now: START,
            controller: Controller::new(settings.clone(), features, Seed(7).stream("controller")),
            controller_disk: ControllerDisk::default(),
            controller_wake_at: Timestamp::FAR_FUTURE,
            nodes: Vec::new(),
            queue: VecDeque::new(),
            next_connection: 0,
            asked: BTreeMap::new(),
            links: BTreeMap::new(),
            answers: BTreeMap::new(),
            trace: Vec::new(),
            settings,
            features,
            config: cluster,
        };
        bench.queue.push_back((Place::Controller, Input::Start { incarnation: Uuid::nil() }));
        bench.settle();
        for node in 1..=brokers as NodeId {
            let (core, disk) = (bench.new_core(node, 0), BrokerDisk::default());
            let wake_at = Timestamp::FAR_FUTURE;
            bench.nodes.push(Node { core, disk, up: false, listening: false, incarnation: 0, wake_at });
            bench.start(node);
        }
        bench.advance(100);
        bench
    }

    fn new_core(&self, node: NodeId, incarnation: u128) -> Broker {
        let endpoint = self.config.brokers[node as usize - 1].clone();
        Broker::new(
            node,
            endpoint,
            &self.config.controller,
            self.settings.clone(),
            self.features,
            Seed(7).stream(&format!("broker-{node}#{incarnation}")),
        )
    }

    /// Starts a broker that was killed.
    pub fn start(&mut self, node: NodeId) {
        let incarnation = self.nodes[node as usize - 1].incarnation + 1;
        let core = self.new_core(node, incarnation);
        let at = &mut self.nodes[node as usize - 1];
        assert!(!at.up, "broker {node} runs");
        (at.core, at.up, at.listening, at.incarnation) = (core, true, false, incarnation);
        let incarnation = Uuid::from_u128(incarnation << 32 | node as u128);
        self.queue.push_back((Place::Broker(node as usize - 1), Input::Start { incarnation }));
        self.settle();
    }

    /// The process dies; its disk stays.
    pub fn kill(&mut self, node: NodeId) {
        let at = &mut self.nodes[node as usize - 1];
        (at.up, at.listening, at.wake_at) = (false, false, Timestamp::FAR_FUTURE);
        self.queue.retain(|(place, _)| *place != Place::Broker(node as usize - 1));
        self.note("", &format!("broker {node} is killed"));
    }

    /// The disk loses what it had not flushed.
    pub fn lose_power(&mut self, node: NodeId) {
        self.kill(node);
        self.nodes[node as usize - 1].disk.logs.values_mut().for_each(|log| log.lose_power());
    }

    /// Whether a broker lets clients in.
    pub fn is_listening(&self, node: NodeId) -> bool {
        self.nodes[node as usize - 1].listening
    }

    pub fn leader_of(&self, topic: &str, partition: i32) -> (NodeId, i32) {
        let (_, image) =
            self.controller.image().partition_of(topic, partition).expect("the partition exists");
        (image.leader, image.leader_epoch)
    }

    /// Moves time on; everything that falls due happens at its own time.
    pub fn advance(&mut self, ms: u64) {
        let until = self.now + Duration::from_millis(ms);
        loop {
            self.settle();
            let next =
                self.nodes.iter().map(|node| node.wake_at).chain([self.controller_wake_at]).min().unwrap();
            if next > until {
                break;
            }
            self.now = self.now.max(next);
            if self.controller_wake_at <= self.now {
                self.controller_wake_at = Timestamp::FAR_FUTURE;
                self.queue.push_back((Place::Controller, Input::Wake));
            }
            for index in 0..self.nodes.len() {
                if self.nodes[index].wake_at <= self.now {
                    self.nodes[index].wake_at = Timestamp::FAR_FUTURE;
                    self.queue.push_back((Place::Broker(index), Input::Wake));
                }
            }
        }
        self.now = until;
    }

    fn settle(&mut self) {
        let mut out = Vec::new();
        while let Some((place, input)) = self.queue.pop_front() {
            match place {
                Place::Controller => {
                    self.controller.handle(self.now, input, &mut self.controller_disk, &mut out)
                }
                Place::Broker(index) => {
                    let node = &mut self.nodes[index];
                    node.core.handle(self.now, input, &mut node.disk, &mut out);
                }
            }
            for output in out.drain(..) {
                self.carry(place, output);
            }
        }
    }

    fn carry(&mut self, place: Place, output: Output) {
        match (place, output) {
            (Place::Controller, Output::Respond { connection, frame }) => {
                self.answer_link(connection, Some(frame))
            }
            (Place::Controller, Output::Close { connection, .. }) => self.answer_link(connection, None),
            (Place::Controller, Output::WakeAt(at)) => self.controller_wake_at = at,
            (Place::Controller, Output::Note(line)) => self.note("controller", &line),
            (Place::Controller, _) => {}
            (Place::Broker(_), Output::Respond { connection, frame })
                if self.links.contains_key(&connection) =>
            {
                self.answer_link(connection, Some(frame));
            }
            (Place::Broker(_), Output::Close { connection, .. }) if self.links.contains_key(&connection) => {
                self.answer_link(connection, None);
            }
            (Place::Broker(_), Output::Respond { connection, mut frame }) => {
                let (api, version) = self.asked[&connection];
                ResponseHeader::decode(&mut frame, api.response_header_version(version)).unwrap();
                let response = ResponseKind::decode(api, &mut frame, version).unwrap();
                assert!(frame.is_empty(), "{api:?} {version}: bytes are left over");
                self.answer(connection, Reply::Response(response));
            }
            (Place::Broker(_), Output::Done { connection }) => self.answer(connection, Reply::Nothing),
            (Place::Broker(_), Output::Close { connection, reason }) => {
                self.answer(connection, Reply::Closed(reason));
            }
            (Place::Broker(index), Output::Ask { link, frame, .. }) => {
                let place = match link.peer {
                    Peer::Controller => Place::Controller,
                    Peer::Broker(node) if self.nodes[node as usize - 1].listening => {
                        Place::Broker(node as usize - 1)
                    }
                    Peer::Broker(_) => {
                        // It refuses the connection.
                        return self.queue.push_back((place, Input::Answered { link, frame: None }));
                    }
                };
                let connection = self.connection();
                self.links.insert(connection, (index, self.nodes[index].incarnation, link));
                let peer: Arc<str> = format!("broker-{}", index + 1).into();
                self.queue.push_back((place, Input::Request { connection, peer, frame }));
            }
            (Place::Broker(index), Output::Listen) => self.nodes[index].listening = true,
            (Place::Broker(index), Output::WakeAt(at)) => self.nodes[index].wake_at = at,
            (Place::Broker(index), Output::Note(line)) => self.note(&format!("broker-{}", index + 1), &line),
        }
    }

    fn answer_link(&mut self, connection: ConnectionId, frame: Option<Bytes>) {
        let (index, incarnation, link) = self.links.remove(&connection).expect("a node answers once");
        if self.nodes[index].up && self.nodes[index].incarnation == incarnation {
            self.queue.push_back((Place::Broker(index), Input::Answered { link, frame }));
        }
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
        let connection = self.connection();
        self.asked.insert(connection, asked);
        let peer: Arc<str> = "client".into();
        self.queue.push_back((Place::Broker(node as usize - 1), Input::Request { connection, peer, frame }));
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

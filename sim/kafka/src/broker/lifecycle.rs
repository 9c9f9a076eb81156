//! The life of a broker: register, catch up, be unfenced, keep the session; and the metadata that it applies.
//!
//! As Kafka's `BrokerLifecycleManager`: a heartbeat every 10 ms while it catches up, then one every
//! `broker.heartbeat.interval.ms`; a refused registration is tried again after the same interval.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use context::Timestamp;
use kafka_protocol::messages::broker_registration_request::Listener;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{
    AllocateProducerIdsResponse, ApiKey, BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerId,
    BrokerRegistrationRequest, BrokerRegistrationResponse, FetchRequest, FetchResponse, RequestKind,
    TopicName,
};
use uuid::Uuid;

use super::alter_configs::Refusals;
use super::in_sync::Proposal;
use super::replica_fetcher::FetchPosition;
use super::verification::Round;
use super::{Broker, Timer, Turn, text};
use crate::CLUSTER_ID;
use crate::config::millis;
use crate::controller::{METADATA_TOPIC, decode_batch};
use crate::core::{Address, ConnectionId, Lane, Link, Output, Peer};
use crate::log::batch::BatchHeader;
use crate::metadata::{MetadataRecord, NodeId, PartitionKey};
use crate::wire::{self, Call, Malformed};

/// How often a broker that is catching up tells how far it is.
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(10);
/// How long a metadata fetch waits at the controller if there is nothing new. KRaft waits 500 ms; nobody can tell the
/// difference but the simulation, which carries each frame.
const METADATA_WAIT_MS: i32 = 4_000;
/// How long it may take. KRaft's `controller.quorum.request.timeout.ms` of two seconds is too short for that wait.
const METADATA_PATIENCE: Duration = Duration::from_millis(4_500);
/// The default of `controller.socket.timeout.ms`.
const CONTROLLER_PATIENCE: Duration = Duration::from_secs(30);
/// How soon a failed metadata fetch is tried again, as `controller.quorum.retry.backoff.ms`, rounded up.
const METADATA_RETRY: Duration = Duration::from_millis(50);
/// How long a broker waits for its leaderships to be moved before it ends: `BrokerServer.shutdown` waits five minutes.
const CONTROLLED_SHUTDOWN_MAX: Duration = Duration::from_secs(300);
/// How soon a broker asks again, once, whether it may end.
const SHUTDOWN_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Registering,
    /// It reads the metadata log and does not act on it: what it says of this broker is old.
    CatchingUp,
    /// It has made its replicas what the metadata says, and waits to be unfenced.
    Ready,
    Running,
}

/// How far a broker is.
#[derive(Clone, Debug, Default)]
pub(super) struct Lifecycle {
    incarnation: Uuid,
    stage: Stage,
    epoch: i64,
    fenced: bool,
    /// One registration or heartbeat at a time.
    communicating: bool,
    /// The epoch under which the process before this one ended cleanly; -1 if it did not (KIP-966).
    previous_epoch: i64,
    shutdown: Option<Shutdown>,
}

/// A process that was asked to end, and waits for the controller to move its leaderships away.
#[derive(Clone, Copy, Debug)]
struct Shutdown {
    /// When it ends all the same.
    until: Timestamp,
    /// The controller knows.
    is_known: bool,
}

/// What a request to a peer was about.
#[derive(Clone, Debug)]
pub(super) enum Pending {
    Registration,
    Heartbeat,
    Metadata,
    ProducerIds,
    /// Markers of the transaction coordinator.
    Markers {
        node: NodeId,
    },
    /// Whether partitions are in transactions.
    Verification {
        node: NodeId,
        round: Round,
    },
    /// A follower's fetch.
    Replicated {
        leader: NodeId,
        asked: BTreeMap<PartitionKey, FetchPosition>,
    },
    /// The end or the start of a leader's log.
    LeadersOffset {
        leader: NodeId,
        key: PartitionKey,
        which: i64,
    },
    /// Changes of in-sync replicas.
    InSync {
        proposals: BTreeMap<PartitionKey, Proposal>,
    },
    /// A client's own request.
    Forwarded {
        connection: ConnectionId,
        call: Call,
        body: Box<RequestKind>,
        /// What the controller was not asked.
        refused: Refusals,
    },
    /// Topics that this broker wants itself.
    AutoCreate {
        names: Vec<String>,
    },
}

impl Broker {
    /// The registration's epoch; -1 before.
    pub(super) fn broker_epoch(&self) -> i64 {
        if self.life.stage == Stage::Registering { -1 } else { self.life.epoch }
    }

    pub(super) fn start(&mut self, turn: &mut Turn<'_>, incarnation: Uuid) {
        let previous_epoch = turn.disk.clean_shutdown.take().unwrap_or(-1);
        self.life = Lifecycle { incarnation, previous_epoch, ..Lifecycle::default() };
        self.transactions.coordinator.start(turn.now_ms());
        turn.disk.load(turn.now);
        self.communicate(turn);
        self.fetch_metadata(turn);
        self.begin_upkeep(turn);
        self.watch_in_sync(turn.now);
    }

    /// The process is asked to end. One that serves has its leaderships moved away first (KIP-183's controlled shutdown).
    pub(super) fn shut_down(&mut self, turn: &mut Turn<'_>) {
        if self.life.shutdown.is_some() {
            return;
        }
        let until = turn.now + CONTROLLED_SHUTDOWN_MAX;
        self.life.shutdown = Some(Shutdown { until, is_known: false });
        if self.life.stage == Stage::Running {
            turn.note(format!("broker {} asks to shut down", self.node));
            self.communicate(turn);
        } else {
            self.stop(turn);
        }
    }

    /// Ends the process cleanly.
    fn stop(&mut self, turn: &mut Turn<'_>) {
        self.checkpoint_high_watermarks(turn);
        for (key, partition) in &mut self.partitions {
            if let Some(log) = turn.disk.logs.get_mut(key) {
                partition.producers.take_snapshot(log);
            }
        }
        turn.disk.shut_down(turn.now);
        turn.disk.clean_shutdown = Some(self.broker_epoch());
        turn.out.push(Output::Stopped);
    }

    /// Whether it has caught up, and makes its replicas what the metadata says.
    pub(super) fn acts_on_metadata(&self) -> bool {
        matches!(self.life.stage, Stage::Ready | Stage::Running)
    }

    /// Asks a peer that the image knows; the answer comes to [`Broker::answered`]. What is to be asked again until it is
    /// answered goes through [`Broker::ask_controller`].
    pub(super) fn ask(&mut self, turn: &mut Turn<'_>, link: Link, pending: Pending, frame: Bytes) {
        self.pending.entry(link).or_default().push_back(pending);
        if link.peer == Peer::Broker(self.node) {
            return self.own_links.ask(link.lane, frame);
        }
        let to = match link.peer {
            Peer::Controller => self.controller.clone(),
            Peer::Broker(node) => {
                let broker = &self.image.brokers[&node];
                Address { host: broker.host.clone(), port: broker.port }
            }
        };
        turn.out.push(Output::Ask { link, to, frame, patience: self.patience(link.lane) });
    }

    /// How long this broker waits for an answer. To the controller half a session for heartbeats (KAFKA-14392), and
    /// `controller.socket.timeout.ms` for what it decides; to brokers `replica.socket.timeout.ms` for a follower, and
    /// `request.timeout.ms` for a coordinator's markers and a leader's questions (`InterBrokerSendThread`).
    pub(super) fn patience(&self, lane: Lane) -> Duration {
        match lane {
            Lane::Heartbeat => millis((self.settings.broker_session_timeout_ms / 2).max(1)),
            Lane::Metadata => METADATA_PATIENCE,
            Lane::Forward | Lane::AlterPartition => CONTROLLER_PATIENCE,
            Lane::Replicate => millis(self.settings.replica_socket_timeout_ms),
            Lane::Markers | Lane::Verify => millis(self.settings.request_timeout_ms),
        }
    }

    pub(super) fn answered(&mut self, turn: &mut Turn<'_>, link: Link, frame: Option<Bytes>) {
        if link.lane == Lane::Forward {
            return self.controller_answered(turn, frame);
        }
        let pending = self.pending.get_mut(&link).and_then(|queue| queue.pop_front());
        if pending.is_none() && link.lane == Lane::Replicate {
            // The link was let go while the answer was on its way.
            return;
        }
        self.take_answer(turn, pending.expect("a peer answers what it was asked"), frame);
    }

    /// The answer to what was asked is there; `None` if there will be none.
    pub(super) fn take_answer(&mut self, turn: &mut Turn<'_>, pending: Pending, frame: Option<Bytes>) {
        match pending {
            Pending::Registration => self.registered(turn, frame),
            Pending::Heartbeat => self.heartbeat_answered(turn, frame),
            Pending::Metadata => self.metadata_fetched(turn, frame),
            Pending::ProducerIds => {
                let answer =
                    frame.and_then(|frame| wire::response::<AllocateProducerIdsResponse>(&frame, 0).ok());
                self.producer_ids_allocated(turn, answer);
            }
            Pending::Markers { node } => self.markers_written(turn, node, frame),
            Pending::Verification { node, round } => self.coordinator_answered(turn, node, round, frame),
            Pending::Replicated { leader, asked } => self.replicated(turn, leader, &asked, frame),
            Pending::LeadersOffset { leader, key, which } => {
                self.leaders_offset(turn, leader, key, which, frame);
            }
            Pending::InSync { proposals } => self.in_sync_answered(turn, proposals, frame),
            Pending::Forwarded { connection, call, body, refused } => {
                self.forwarded(turn, connection, &call, &body, refused, frame)
            }
            Pending::AutoCreate { names } => names.iter().for_each(|name| _ = self.creating.remove(name)),
        }
    }

    /// Sends the next registration or heartbeat.
    pub(super) fn communicate(&mut self, turn: &mut Turn<'_>) {
        if self.life.communicating {
            return;
        }
        self.life.communicating = true;
        if self.life.stage == Stage::Registering {
            let listener = Listener::default()
                .with_name(text("PLAINTEXT"))
                .with_host(text(&self.endpoint.host))
                .with_port(self.endpoint.port);
            let request = BrokerRegistrationRequest::default()
                .with_broker_id(BrokerId(self.node))
                .with_cluster_id(text(CLUSTER_ID))
                .with_incarnation_id(self.life.incarnation)
                .with_listeners(vec![listener])
                .with_log_dirs(vec![self.life.incarnation])
                .with_rack(self.settings.broker_rack.as_deref().map(text))
                .with_previous_broker_epoch(self.life.previous_epoch);
            let frame = wire::request(ApiKey::BrokerRegistration, 4, 0, &request);
            return self.ask(turn, Link::controller(Lane::Heartbeat), Pending::Registration, frame);
        }
        let request = BrokerHeartbeatRequest::default()
            .with_broker_id(BrokerId(self.node))
            .with_broker_epoch(self.life.epoch)
            .with_current_metadata_offset(self.image.next_offset - 1)
            .with_want_fence(self.life.stage == Stage::CatchingUp)
            .with_want_shut_down(self.life.shutdown.is_some());
        let frame = wire::request(ApiKey::BrokerHeartbeat, 1, 0, &request);
        self.ask(turn, Link::controller(Lane::Heartbeat), Pending::Heartbeat, frame);
    }

    fn registered(&mut self, turn: &mut Turn<'_>, frame: Option<Bytes>) {
        self.life.communicating = false;
        let answer = frame.and_then(|frame| wire::response::<BrokerRegistrationResponse>(&frame, 4).ok());
        match answer {
            Some(answer) if answer.error_code == 0 => {
                self.life.stage = Stage::CatchingUp;
                self.life.epoch = answer.broker_epoch;
                self.communicate(turn);
            }
            _ => self.communicate_after(turn, millis(self.settings.broker_heartbeat_interval_ms)),
        }
    }

    fn heartbeat_answered(&mut self, turn: &mut Turn<'_>, frame: Option<Bytes>) {
        self.life.communicating = false;
        let answer = frame.and_then(|frame| wire::response::<BrokerHeartbeatResponse>(&frame, 1).ok());
        let answer = answer.filter(|answer| answer.error_code == 0);
        let mut next = millis(self.settings.broker_heartbeat_interval_ms);
        if let Some(shutdown) = &mut self.life.shutdown {
            if turn.now >= shutdown.until || answer.as_ref().is_some_and(|answer| answer.should_shut_down) {
                return self.stop(turn);
            }
            if answer.is_some() && !shutdown.is_known {
                shutdown.is_known = true;
                next = SHUTDOWN_INTERVAL;
            }
        }
        if let Some(answer) = answer {
            match self.life.stage {
                Stage::CatchingUp if answer.is_caught_up => {
                    self.life.stage = Stage::Ready;
                    self.follow_whole_image(turn);
                    return self.communicate(turn);
                }
                Stage::CatchingUp => next = CATCH_UP_INTERVAL,
                Stage::Ready if !answer.is_fenced => {
                    self.life.stage = Stage::Running;
                    turn.note(format!("broker {} opens its port to clients", self.node));
                    turn.out.push(Output::Listen);
                }
                Stage::Running if answer.is_fenced != self.life.fenced => {
                    let what =
                        if answer.is_fenced { "learns that it was fenced" } else { "is unfenced again" };
                    turn.note(format!("broker {} {what}", self.node));
                    self.life.fenced = answer.is_fenced;
                }
                _ => {}
            }
        }
        self.communicate_after(turn, next);
    }

    fn communicate_after(&mut self, turn: &Turn<'_>, span: Duration) {
        self.timers.set(turn.now + span, Timer::Communicate);
    }

    pub(super) fn fetch_metadata(&mut self, turn: &mut Turn<'_>) {
        let partition = FetchPartition::default().with_fetch_offset(self.image.next_offset);
        let topic = FetchTopic::default()
            .with_topic(TopicName(text(METADATA_TOPIC)))
            .with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(self.node))
            .with_max_wait_ms(METADATA_WAIT_MS)
            .with_topics(vec![topic]);
        let frame = wire::request(ApiKey::Fetch, 12, 0, &request);
        self.ask(turn, Link::controller(Lane::Metadata), Pending::Metadata, frame);
    }

    fn metadata_fetched(&mut self, turn: &mut Turn<'_>, frame: Option<Bytes>) {
        let records = frame.ok_or(Malformed::BadResponse).and_then(|frame| read_metadata(&frame));
        match records {
            Ok(records) => {
                self.apply_metadata(turn, records);
                self.fetch_metadata(turn);
            }
            Err(_) => self.timers.set(turn.now + METADATA_RETRY, Timer::RetryMetadata),
        }
    }
}

fn read_metadata(frame: &Bytes) -> Result<Vec<MetadataRecord>, Malformed> {
    let response: FetchResponse = wire::response(frame, 12)?;
    let mut partitions = response.responses.into_iter().flat_map(|topic| topic.partitions);
    let mut rest = partitions.next().and_then(|partition| partition.records).ok_or(Malformed::BadResponse)?;
    let mut records = Vec::new();
    while !rest.is_empty() {
        let header = BatchHeader::parse(&rest).map_err(|_| Malformed::BadResponse)?;
        records.extend(decode_batch(&rest.split_to(header.size())));
    }
    Ok(records)
}

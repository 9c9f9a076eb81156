//! The life of a broker: register, catch up, be unfenced, keep the session; and the metadata that it applies.
//!
//! As Kafka's `BrokerLifecycleManager`: a heartbeat every 10 ms while it catches up, then one every
//! `broker.heartbeat.interval.ms`; a refused registration is tried again after the same interval.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::broker_registration_request::Listener;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{
    AllocateProducerIdsResponse, ApiKey, BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerId,
    BrokerRegistrationRequest, BrokerRegistrationResponse, FetchRequest, FetchResponse, RequestKind,
    TopicName,
};
use uuid::Uuid;

use super::verification::Round;
use super::{Broker, Timer, Turn, text};
use crate::CLUSTER_ID;
use crate::config::millis;
use crate::controller::{METADATA_TOPIC, decode_batch};
use crate::core::{Address, ConnectionId, Lane, Link, Output, Peer};
use crate::group::OFFSETS_TOPIC;
use crate::log::batch::BatchHeader;
use crate::metadata::{MetadataRecord, NodeId, PartitionKey};
use crate::partition::Partition;
use crate::transaction::TRANSACTION_TOPIC;
use crate::wire::{self, Call, Malformed};

/// How often a broker that is catching up tells how far it is.
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(10);
/// How long a metadata fetch waits at the controller if there is nothing new. KRaft waits 500 ms; nobody can tell the
/// difference but the simulation, which carries each frame. It must be below [`patience`].
const METADATA_WAIT_MS: i32 = 4_000;
/// How soon a failed metadata fetch is tried again, as `controller.quorum.retry.backoff.ms`, rounded up.
const METADATA_RETRY: Duration = Duration::from_millis(50);
/// How often pages are written back: Linux' `dirty_writeback_centisecs`.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(5);

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
    /// A client's own request.
    Forwarded {
        connection: ConnectionId,
        call: Call,
        body: Box<RequestKind>,
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
        self.life = Lifecycle { incarnation, ..Lifecycle::default() };
        self.transactions.coordinator.start(turn.now_ms());
        turn.disk.load();
        self.communicate(turn);
        self.fetch_metadata(turn);
        self.timers.set(turn.now + HOUSEKEEPING_INTERVAL, Timer::Housekeeping);
        self.expire_producers(turn);
    }

    /// Ends the process: all is flushed.
    pub(super) fn shut_down(&mut self, turn: &mut Turn<'_>) {
        turn.disk.shut_down();
        turn.out.push(Output::Stopped);
    }

    /// Asks a peer that the image knows; the answer comes to [`Broker::answered`].
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
        turn.out.push(Output::Ask { link, to, frame, patience: patience(link.lane) });
    }

    pub(super) fn answered(&mut self, turn: &mut Turn<'_>, link: Link, frame: Option<Bytes>) {
        let pending = self.pending.get_mut(&link).and_then(|queue| queue.pop_front());
        let pending = pending.expect("a peer answers what it was asked");
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
            Pending::Forwarded { connection, call, body } => {
                self.forwarded(turn, connection, &call, &body, frame)
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
                .with_log_dirs(vec![self.life.incarnation]);
            let frame = wire::request(ApiKey::BrokerRegistration, 4, 0, &request);
            return self.ask(turn, Link::controller(Lane::Heartbeat), Pending::Registration, frame);
        }
        let request = BrokerHeartbeatRequest::default()
            .with_broker_id(BrokerId(self.node))
            .with_broker_epoch(self.life.epoch)
            .with_current_metadata_offset(self.image.next_offset - 1)
            .with_want_fence(self.life.stage == Stage::CatchingUp);
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

    fn apply_metadata(&mut self, turn: &mut Turn<'_>, records: Vec<MetadataRecord>) {
        let mut touched: BTreeSet<PartitionKey> = BTreeSet::new();
        for record in records {
            match &record {
                MetadataRecord::Partition { key, .. } | MetadataRecord::PartitionChange { key, .. } => {
                    touched.insert(*key);
                }
                MetadataRecord::RemoveTopic { id } => self.remove_topic(turn, *id, &mut touched),
                _ => {}
            }
            self.image.apply(&record);
        }
        if matches!(self.life.stage, Stage::Ready | Stage::Running) {
            for key in touched {
                self.follow_image(turn, key);
            }
            self.reroute_markers(turn);
        }
    }

    /// The first time that a process acts on the metadata; replicas of topics that were deleted meanwhile go.
    fn follow_whole_image(&mut self, turn: &mut Turn<'_>) {
        let image = &self.image;
        turn.disk.logs.retain(|key, _| image.topics.contains_key(&key.topic));
        let topics = self.image.topics.values();
        let keys = topics.flat_map(|topic| (0..).zip(&topic.partitions).map(|(index, _)| (topic.id, index)));
        let keys: Vec<_> = keys.map(|(topic, index)| PartitionKey { topic, index }).collect();
        for key in keys {
            self.follow_image(turn, key);
        }
    }

    fn remove_topic(&mut self, turn: &mut Turn<'_>, id: Uuid, touched: &mut BTreeSet<PartitionKey>) {
        let name = self.image.topics.get(&id).map(|topic| topic.name.clone());
        touched.extend(self.partitions.keys().copied().filter(|key| key.topic == id));
        turn.disk.logs.retain(|key, _| key.topic != id);
        if let Some(name) = name {
            self.forget_topic(turn, &name);
        }
    }

    /// Makes this broker's replica what the image says it is.
    fn follow_image(&mut self, turn: &mut Turn<'_>, key: PartitionKey) {
        let here = self.image.partition(key).filter(|image| image.replicas.contains(&self.node));
        let Some(image) = here else {
            self.partitions.remove(&key);
            self.transactions_gone(key);
            return self.partition_changed(turn, key);
        };
        let leads = image.leader == self.node;
        let log = turn.disk.logs.entry(key).or_default();
        let known = self.partitions.get(&key).map(|known| (known.leads, known.leader_epoch));
        if known == Some((leads, image.leader_epoch)) {
            return;
        }
        if leads {
            log.assign_epoch(image.leader_epoch);
        }
        let expiration_ms = self.settings.producer_id_expiration_ms;
        let replica = self.partitions.entry(key);
        let replica = replica.or_insert_with(|| Partition::load(turn.now, log, image, leads, expiration_ms));
        replica.leads = leads;
        replica.leader_epoch = image.leader_epoch;
        let name = self.image.topics[&key.topic].name.clone();
        if &*name == OFFSETS_TOPIC {
            match (leads, known.is_some_and(|(led, _)| led)) {
                (true, false) => self.load_groups(turn, key),
                (false, true) => self.unload_groups(turn, key.index),
                _ => {}
            }
        } else if &*name == TRANSACTION_TOPIC {
            // A new epoch of the same leader is a new coordinator too (`BrokerMetadataPublisher`).
            match (leads, known.is_some_and(|(led, _)| led)) {
                (true, _) => self.load_transactions(turn, key, self.partitions[&key].leader_epoch),
                (false, true) => self.transactions_gone(key),
                _ => {}
            }
        } else if leads {
            let epoch = self.partitions[&key].leader_epoch;
            turn.note(format!("broker {} leads {name}/{} with epoch {epoch}", self.node, key.index));
        }
        self.partition_changed(turn, key);
    }

    /// Writes pages back.
    pub(super) fn keep_house(&mut self, turn: &mut Turn<'_>) {
        turn.disk.logs.values_mut().for_each(|log| log.write_back(turn.now));
        self.timers.set(turn.now + HOUSEKEEPING_INTERVAL, Timer::Housekeeping);
    }

    /// Forgets producers that have been silent for long.
    pub(super) fn expire_producers(&mut self, turn: &Turn<'_>) {
        let (now_ms, expiration_ms) = (turn.now_ms(), i64::from(self.settings.producer_id_expiration_ms));
        self.partitions.values_mut().for_each(|partition| partition.producers.expire(now_ms, expiration_ms));
        let interval = millis(self.settings.producer_id_expiration_check_interval_ms);
        self.timers.set(turn.now + interval, Timer::ExpireProducers);
    }
}

/// How long a broker waits for an answer. To the controller half a default session, as Kafka's heartbeat channel; to
/// brokers the defaults of `replica.socket.timeout.ms` and `request.timeout.ms`.
fn patience(lane: Lane) -> Duration {
    match lane {
        Lane::Heartbeat | Lane::Metadata | Lane::Forward | Lane::AlterPartition => {
            Duration::from_millis(4_500)
        }
        Lane::Replicate | Lane::Markers | Lane::Verify => Duration::from_secs(30),
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

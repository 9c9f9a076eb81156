//! The controller: one logical node for the whole KRaft quorum. It appends to the metadata log, and so decides which
//! brokers live, which topics exist, and who leads what.
//!
//! - A broker registers, catches up with the log, and is unfenced by a heartbeat. Its session lasts
//!   `broker.session.timeout.ms` from its last heartbeat; then it is fenced and loses its leaderships.
//! - Another incarnation cannot register while the session of the one before is valid: a killed broker is away for 9 s
//!   however fast it restarts (`ClusterControlManager.registerBroker`).
//! - A fenced broker's partition without another in-sync replica has no leader; its in-sync set stays, so that the
//!   same broker leads again when it is back. Each change of the leader, to none too, is an epoch of its own.
//!
//! It speaks only with brokers. Absent: several replicas, controlled shutdown, reassignment.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use context::{Rng, Timestamp};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, BrokerHeartbeatRequest, BrokerHeartbeatResponse,
    BrokerRegistrationRequest, BrokerRegistrationResponse, FetchRequest, FetchResponse, ProducerId,
    RequestKind, ResponseKind, TopicName, fetch_response,
};
use kafka_protocol::protocol::StrBytes;
use rand::Rng as _;
use uuid::Uuid;

use crate::CLUSTER_ID;
use crate::config::{Features, Settings, millis};
use crate::core::{ConnectionId, Input, Output};
use crate::log::batch::stamp;
use crate::log::{Log, record};
use crate::metadata::{MetadataImage, MetadataRecord, NO_LEADER, NodeId, PartitionKey};
use crate::timers::Timers;
use crate::wire::{CONTROLLER_APIS, Call, Request};

mod topics;

pub(crate) use topics::check_name;

/// The metadata log's name on the wire, as in KRaft.
pub const METADATA_TOPIC: &str = "__cluster_metadata";
/// How many producer ids a broker gets at a time.
const PRODUCER_ID_BLOCK: i32 = 1_000;
const METADATA_SEGMENT_BYTES: usize = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Session(NodeId),
    Fetch(ConnectionId),
}

/// A broker that waits for metadata.
#[derive(Clone, Debug)]
struct Waiting {
    call: Call,
    offset: i64,
    until: Timestamp,
}

/// The controller's disk: the metadata log. KRaft syncs it at every append, so it never loses any of it.
#[derive(Clone, Debug, Default)]
pub struct ControllerDisk {
    /// The metadata log.
    pub log: Log,
}

/// The controller.
#[derive(Debug)]
pub struct Controller {
    settings: Settings,
    features: Features,
    rng: Rng,
    image: MetadataImage,
    /// When each unfenced broker was last heard of.
    heard: BTreeMap<NodeId, Timestamp>,
    /// The incarnation of each broker that was last refused.
    refused: BTreeMap<NodeId, Uuid>,
    waiting: BTreeMap<ConnectionId, Waiting>,
    timers: Timers<Timer>,
    woken_at: Option<Timestamp>,
}

impl Controller {
    /// A controller that has not started. Topic ids and first leaders are drawn from `rng`.
    pub fn new(settings: Settings, features: Features, rng: Rng) -> Controller {
        Controller {
            settings,
            features,
            rng,
            image: MetadataImage::default(),
            heard: BTreeMap::new(),
            refused: BTreeMap::new(),
            waiting: BTreeMap::new(),
            timers: Timers::new(),
            woken_at: None,
        }
    }

    /// The metadata, all of it.
    pub fn image(&self) -> &MetadataImage {
        &self.image
    }

    /// Applies one input; what the outside must now do is appended to `out`.
    pub fn handle(&mut self, now: Timestamp, input: Input, disk: &mut ControllerDisk, out: &mut Vec<Output>) {
        let before = disk.log.end_offset();
        match input {
            Input::Start { .. } => self.start(now, disk, out),
            Input::Request { connection, frame, .. } => self.request(now, connection, &frame, disk, out),
            Input::Wake => self.woken_at = None,
            // All that it holds is on disk.
            Input::Shutdown => out.push(Output::Stopped),
            Input::Answered { .. } => unreachable!("a controller asks nobody"),
        }
        while let Some(timer) = self.timers.due(now) {
            match timer {
                Timer::Session(node) => self.session_due(now, node, disk, out),
                Timer::Fetch(connection) => self.fetch_due(now, connection, disk, out),
            }
        }
        if disk.log.end_offset() > before {
            disk.log.flush();
            self.answer_fetches(disk, out);
        }
        assert_eq!(self.image.next_offset, disk.log.end_offset(), "the image is at the end of the log");
        if let Some(next) = self.timers.next()
            && self.woken_at.is_none_or(|at| at > next)
        {
            self.woken_at = Some(next);
            out.push(Output::WakeAt(next));
        }
    }

    /// A new controller knows all that its log says, and gives every live broker a whole session.
    fn start(&mut self, now: Timestamp, disk: &ControllerDisk, out: &mut Vec<Output>) {
        for batch in disk.log.batches() {
            for record in decode_batch(&batch.bytes) {
                self.image.apply(&record);
            }
        }
        let live: Vec<NodeId> = self.image.live_brokers().map(|(node, _)| node).collect();
        for node in live {
            self.heard_of(now, node);
        }
        out.push(Output::Listen);
        out.push(Output::Note(format!("controller is active at metadata offset {}", self.image.next_offset)));
    }

    fn request(
        &mut self,
        now: Timestamp,
        connection: ConnectionId,
        frame: &Bytes,
        disk: &mut ControllerDisk,
        out: &mut Vec<Output>,
    ) {
        let Request { call, body } = match Request::read(frame, CONTROLLER_APIS) {
            Ok(request) => request,
            Err(error) => return out.push(Output::Close { connection, reason: format!("{error:?}") }),
        };
        let response = match body {
            RequestKind::BrokerRegistration(request) => self.register(now, &request, disk, out).into(),
            RequestKind::BrokerHeartbeat(request) => self.heartbeat(now, &request, disk, out).into(),
            RequestKind::AllocateProducerIds(request) => {
                self.allocate_producer_ids(now, &request, disk).into()
            }
            RequestKind::CreateTopics(request) => self.create_topics(now, &call, &request, disk, out).into(),
            RequestKind::DeleteTopics(request) => self.delete_topics(now, &call, &request, disk, out).into(),
            RequestKind::Fetch(request) => return self.fetch(now, connection, call, &request, disk, out),
            _ => unreachable!("only the controller's APIs are read"),
        };
        out.push(Output::Respond { connection, frame: fitting(&call, &response) });
    }

    fn register(
        &mut self,
        now: Timestamp,
        request: &BrokerRegistrationRequest,
        disk: &mut ControllerDisk,
        out: &mut Vec<Output>,
    ) -> BrokerRegistrationResponse {
        let node = request.broker_id.0;
        let refuse = |error: ResponseError| {
            BrokerRegistrationResponse::default().with_error_code(error.code()).with_broker_epoch(-1)
        };
        if request.cluster_id.as_str() != CLUSTER_ID {
            return refuse(ResponseError::InconsistentClusterId);
        }
        let Some(listener) = request.listeners.first() else {
            return refuse(ResponseError::InvalidRegistration);
        };
        if let Some(existing) = self.image.brokers.get(&node) {
            if existing.incarnation == request.incarnation_id {
                return BrokerRegistrationResponse::default().with_broker_epoch(existing.epoch);
            }
            if !existing.fenced {
                // It tries again every few seconds: one line is enough.
                if self.refused.insert(node, request.incarnation_id) != Some(request.incarnation_id) {
                    out.push(Output::Note(format!(
                        "broker {node} may not register: its last session is still valid"
                    )));
                }
                return refuse(ResponseError::DuplicateBrokerRegistration);
            }
        }
        let epoch = disk.log.end_offset();
        let record = MetadataRecord::RegisterBroker {
            node,
            epoch,
            incarnation: request.incarnation_id,
            host: listener.host.to_string(),
            port: listener.port,
        };
        self.append(now, disk, vec![record]);
        out.push(Output::Note(format!("broker {node} is registered with epoch {epoch}")));
        BrokerRegistrationResponse::default().with_broker_epoch(epoch)
    }

    fn heartbeat(
        &mut self,
        now: Timestamp,
        request: &BrokerHeartbeatRequest,
        disk: &mut ControllerDisk,
        out: &mut Vec<Output>,
    ) -> BrokerHeartbeatResponse {
        let node = request.broker_id.0;
        let broker = match self.known(node, request.broker_epoch) {
            Ok(broker) => broker,
            Err(error) => return BrokerHeartbeatResponse::default().with_error_code(error.code()),
        };
        let caught_up = request.current_metadata_offset >= broker.epoch;
        if broker.fenced && caught_up && !request.want_fence {
            self.unfence(now, node, disk, out);
        }
        let fenced = self.image.brokers[&node].fenced;
        if !fenced {
            self.heard_of(now, node);
        }
        BrokerHeartbeatResponse::default().with_is_caught_up(caught_up).with_is_fenced(fenced)
    }

    fn known(&self, node: NodeId, epoch: i64) -> Result<&crate::metadata::BrokerImage, ResponseError> {
        let broker = self.image.brokers.get(&node).ok_or(ResponseError::BrokerIdNotRegistered)?;
        if broker.epoch == epoch { Ok(broker) } else { Err(ResponseError::StaleBrokerEpoch) }
    }

    fn heard_of(&mut self, now: Timestamp, node: NodeId) {
        self.heard.insert(node, now);
        let end = now + millis(self.settings.broker_session_timeout_ms);
        self.timers.set(end, Timer::Session(node));
    }

    fn session_due(
        &mut self,
        now: Timestamp,
        node: NodeId,
        disk: &mut ControllerDisk,
        out: &mut Vec<Output>,
    ) {
        let timeout = millis(self.settings.broker_session_timeout_ms);
        let Some(&heard) = self.heard.get(&node) else { return };
        if now.since(heard) < timeout {
            return;
        }
        self.heard.remove(&node);
        out.push(Output::Note(format!(
            "broker {node} is fenced: not heard of for {} ms",
            timeout.as_millis()
        )));
        let mut records = vec![MetadataRecord::FenceBroker { node, fenced: true }];
        records.extend(self.elections(node, true, out));
        self.append(now, disk, records);
    }

    fn unfence(&mut self, now: Timestamp, node: NodeId, disk: &mut ControllerDisk, out: &mut Vec<Output>) {
        out.push(Output::Note(format!("broker {node} is unfenced")));
        let mut records = vec![MetadataRecord::FenceBroker { node, fenced: false }];
        records.extend(self.elections(node, false, out));
        self.append(now, disk, records);
    }

    /// The partitions whose leader changes as `node` becomes fenced or unfenced.
    fn elections(&self, node: NodeId, fenced: bool, out: &mut Vec<Output>) -> Vec<MetadataRecord> {
        let mut live: BTreeSet<NodeId> = self.image.live_brokers().map(|(node, _)| node).collect();
        if fenced {
            live.remove(&node)
        } else {
            live.insert(node)
        };
        let mut records = Vec::new();
        for topic in self.image.topics.values() {
            for (index, partition) in topic.partitions.iter().enumerate() {
                let concerned = if fenced { partition.leader == node } else { partition.leader == NO_LEADER };
                if !concerned {
                    continue;
                }
                let eligible =
                    |replica: &&NodeId| partition.in_sync.contains(replica) && live.contains(replica);
                let leader = partition.replicas.iter().find(eligible).copied().unwrap_or(NO_LEADER);
                if leader != partition.leader {
                    let leader_epoch = partition.leader_epoch + 1;
                    let key = PartitionKey { topic: topic.id, index: index as i32 };
                    let in_sync = partition.in_sync.clone();
                    records.push(MetadataRecord::PartitionChange { key, leader, leader_epoch, in_sync });
                }
            }
        }
        if !records.is_empty() {
            let verb = if fenced { "loses" } else { "takes" };
            out.push(Output::Note(format!("broker {node} {verb} the lead of {} partitions", records.len())));
        }
        records
    }

    fn allocate_producer_ids(
        &mut self,
        now: Timestamp,
        request: &AllocateProducerIdsRequest,
        disk: &mut ControllerDisk,
    ) -> AllocateProducerIdsResponse {
        if let Err(error) = self.known(request.broker_id.0, request.broker_epoch) {
            return AllocateProducerIdsResponse::default().with_error_code(error.code());
        }
        let start = self.image.next_producer_id;
        self.append(
            now,
            disk,
            vec![MetadataRecord::ProducerIds { next: start + i64::from(PRODUCER_ID_BLOCK) }],
        );
        AllocateProducerIdsResponse::default()
            .with_producer_id_start(ProducerId(start))
            .with_producer_id_len(PRODUCER_ID_BLOCK)
    }

    /// A broker asks for the log from some offset on, and waits if there is nothing yet.
    fn fetch(
        &mut self,
        now: Timestamp,
        connection: ConnectionId,
        call: Call,
        request: &FetchRequest,
        disk: &ControllerDisk,
        out: &mut Vec<Output>,
    ) {
        let asked = request.topics.first().and_then(|topic| topic.partitions.first());
        let Some(asked) = asked else {
            return out
                .push(Output::Close { connection, reason: "a metadata fetch without a partition".into() });
        };
        let until = now + millis(request.max_wait_ms);
        let waiting = Waiting { call, offset: asked.fetch_offset, until };
        if asked.fetch_offset < disk.log.end_offset() || until <= now {
            return out.push(Output::Respond { connection, frame: waiting.answer(&disk.log) });
        }
        self.waiting.insert(connection, waiting);
        self.timers.set(until, Timer::Fetch(connection));
    }

    fn fetch_due(
        &mut self,
        now: Timestamp,
        connection: ConnectionId,
        disk: &ControllerDisk,
        out: &mut Vec<Output>,
    ) {
        if self.waiting.get(&connection).is_some_and(|waiting| waiting.until <= now) {
            let waiting = self.waiting.remove(&connection).expect("it was just there");
            out.push(Output::Respond { connection, frame: waiting.answer(&disk.log) });
        }
    }

    fn answer_fetches(&mut self, disk: &ControllerDisk, out: &mut Vec<Output>) {
        for (connection, waiting) in std::mem::take(&mut self.waiting) {
            out.push(Output::Respond { connection, frame: waiting.answer(&disk.log) });
        }
    }

    /// Appends records as one batch: they take effect together.
    fn append(&mut self, now: Timestamp, disk: &mut ControllerDisk, records: Vec<MetadataRecord>) {
        let encoded: Vec<_> = records.iter().map(|record| (None, Some(record.encode()))).collect();
        let batch = record::write_batch(now.as_millis() as i64, &encoded);
        disk.log.append(now, stamp(&batch, disk.log.end_offset(), 0, None), METADATA_SEGMENT_BYTES);
        records.iter().for_each(|record| self.image.apply(record));
    }

    fn new_topic_id(&mut self) -> Uuid {
        let mut random = [0; 16];
        self.rng.fill_bytes(&mut random);
        uuid::Builder::from_random_bytes(random).into_uuid()
    }
}

impl Waiting {
    fn answer(&self, log: &Log) -> Bytes {
        let records = log.read(self.offset, log.end_offset(), 1 << 20, true);
        let data = fetch_response::PartitionData::default()
            .with_high_watermark(log.end_offset())
            .with_records(Some(records));
        let topic = fetch_response::FetchableTopicResponse::default()
            .with_topic(TopicName(StrBytes::from_static_str(METADATA_TOPIC)))
            .with_partitions(vec![data]);
        fitting(&self.call, &ResponseKind::Fetch(FetchResponse::default().with_responses(vec![topic])))
    }
}

/// The encoded answer. Names come from brokers in the versions in which they go back, and messages are
/// [`topics::shortened`], so it fits.
fn fitting(call: &Call, response: &ResponseKind) -> Bytes {
    call.answer(response).unwrap_or_else(|error| panic!("the controller's own answer: {error}"))
}

/// The records of a batch of the metadata log.
///
/// # Panics
/// If there is anything else in it: only the controller writes there.
pub fn decode_batch(batch: &Bytes) -> Vec<MetadataRecord> {
    let header = crate::log::batch::BatchHeader::parse(batch).expect("the metadata log holds batches");
    let records = record::read_all(&header, batch).expect("the metadata log holds records");
    let decode = |record: record::Record| record.value.and_then(MetadataRecord::decode);
    records
        .into_iter()
        .map(|record| decode(record).expect("the metadata log holds its own records"))
        .collect()
}

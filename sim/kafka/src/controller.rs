//! The controller: one logical node for the whole KRaft quorum. It appends to the metadata log, and so decides which
//! brokers live, which topics exist, and who leads what.
//!
//! - [`brokers`]: who is registered, fenced, shutting down, and whose session is over.
//! - [`partitions`] and [`elections`]: what becomes of leaders and in-sync replicas.
//! - [`topics`] and [`placement`]: which topics there are, and where.
//! - [`configs`]: settings that change.
//!
//! A controller that starts on a log with live brokers is another node of the quorum taking over: it serves after an
//! election of some seconds, drawn from the seed, and gives every live broker a whole session.
//!
//! It speaks only with brokers. Absent: snapshots of the metadata, reassignment of replicas, ACLs and quotas.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use context::{Rng, Timestamp};
use kafka_protocol::messages::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, FetchRequest, FetchResponse, ProducerId,
    RequestKind, ResponseKind, TopicName, fetch_response,
};
use kafka_protocol::protocol::StrBytes;
use rand::{Rng as _, RngExt as _};
use uuid::Uuid;

use crate::config::{Features, Settings, millis};
use crate::core::{ConnectionId, Input, Output};
use crate::log::batch::stamp;
use crate::log::{Log, record};
use crate::metadata::{ConfigResource, MetadataImage, MetadataRecord, NodeId};
use crate::timers::Timers;
use crate::wire::{CONTROLLER_APIS, Call, Request};

mod brokers;
mod configs;
mod elections;
mod partitions;
mod placement;
#[cfg(test)]
mod tests;
mod topics;

use brokers::Heard;
pub(crate) use topics::{check_name, shortened};

/// The metadata log's name on the wire, as in KRaft.
pub const METADATA_TOPIC: &str = "__cluster_metadata";
/// How many producer ids a broker gets at a time.
const PRODUCER_ID_BLOCK: i32 = 1_000;
const METADATA_SEGMENT_BYTES: usize = 1 << 30;
/// How long the quorum is without a leader when one dies, in milliseconds: `controller.quorum.fetch.timeout.ms` is 2 s,
/// then come elections with `controller.quorum.election.timeout.ms` of 1 s each.
const ELECTION_MS: std::ops::RangeInclusive<u64> = 2_000..=5_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Elected,
    Sessions,
    ElectPreferred,
    ElectUnclean,
    Fetch(ConnectionId),
}

/// Which of the timers that need no more than one are set.
#[derive(Clone, Copy, Debug, Default)]
struct Planned {
    sessions: bool,
    preferred: bool,
    unclean: bool,
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
    /// As the cluster was configured at its start.
    own_settings: Settings,
    /// With what was set for all brokers since.
    settings: Settings,
    features: Features,
    rng: Rng,
    image: MetadataImage,
    active_since: Timestamp,
    /// What each registered broker last said.
    heard: BTreeMap<NodeId, Heard>,
    /// The incarnation of each broker that was last refused.
    refused: BTreeMap<NodeId, Uuid>,
    waiting: BTreeMap<ConnectionId, Waiting>,
    planned: Planned,
    timers: Timers<Timer>,
    woken_at: Option<Timestamp>,
}

impl Controller {
    /// A controller that has not started. Topic ids and first leaders are drawn from `rng`.
    pub fn new(settings: Settings, features: Features, rng: Rng) -> Controller {
        Controller {
            own_settings: settings.clone(),
            settings,
            features,
            rng,
            image: MetadataImage::default(),
            active_since: Timestamp::from_millis(0),
            heard: BTreeMap::new(),
            refused: BTreeMap::new(),
            waiting: BTreeMap::new(),
            planned: Planned::default(),
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
                Timer::Elected => self.elected(now, disk, out),
                Timer::Sessions => self.sessions_due(now, disk, out),
                Timer::ElectPreferred => self.elect_preferred_due(now, disk, out),
                Timer::ElectUnclean => self.elect_unclean_due(now, disk, out),
                Timer::Fetch(connection) => self.fetch_due(now, connection, disk, out),
            }
        }
        if disk.log.end_offset() > before {
            disk.log.flush(now);
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

    /// Reads the log. Where brokers live this is a failover, which takes its time; else the cluster as a whole starts.
    fn start(&mut self, now: Timestamp, disk: &mut ControllerDisk, out: &mut Vec<Output>) {
        for batch in disk.log.batches() {
            for record in decode_batch(&batch.bytes) {
                self.image.apply(&record);
            }
        }
        self.settings = self.with_cluster_config();
        if self.image.live_brokers().next().is_none() {
            return self.elected(now, disk, out);
        }
        let election = Duration::from_millis(self.rng.random_range(ELECTION_MS));
        out.push(Output::Note(format!("a controller is being elected, for {} ms", election.as_millis())));
        self.timers.set(now + election, Timer::Elected);
    }

    fn elected(&mut self, now: Timestamp, disk: &mut ControllerDisk, out: &mut Vec<Output>) {
        self.active_since = now;
        if disk.log.end_offset() == 0 && self.elr_enabled() {
            // Eligible leader replicas need one min ISR for all brokers: the first controller sets it
            // (`ActivationRecordsGenerator`).
            let (resource, name) = (ConfigResource::Brokers, "min.insync.replicas".to_owned());
            let value = Some(self.settings.min_insync_replicas.to_string());
            self.append(now, disk, vec![MetadataRecord::Config { resource, name, value }]);
        }
        self.renew_sessions(now);
        self.plan_elections(now);
        out.push(Output::Listen);
        out.push(Output::Note(format!("controller is active at metadata offset {}", self.image.next_offset)));
    }

    /// The settings that hold: what was set for all brokers, over the cluster's own.
    fn with_cluster_config(&self) -> Settings {
        let changed = self.image.broker_config(&ConfigResource::Brokers);
        self.own_settings.with(changed).expect("settings are checked before they are in the log")
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
            RequestKind::CreatePartitions(request) => self.create_partitions(now, &request, disk, out).into(),
            RequestKind::AlterPartition(request) => {
                self.alter_partition(now, &call, &request, disk, out).into()
            }
            RequestKind::IncrementalAlterConfigs(request) => {
                self.incremental_alter_configs(now, &request, disk, out).into()
            }
            RequestKind::AlterConfigs(request) => self.alter_configs(now, &request, disk, out).into(),
            RequestKind::ElectLeaders(request) => self.elect_leaders(now, &request, disk, out).into(),
            RequestKind::Fetch(request) => return self.fetch(now, connection, call, &request, disk, out),
            _ => unreachable!("only the controller's APIs are read"),
        };
        out.push(Output::Respond { connection, frame: fitting(&call, &response) });
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

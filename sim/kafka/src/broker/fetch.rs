//! Fetch (1), versions 4 to 18: records for readers and for followers, with a long poll.
//!
//! - Whole batches, from the one that holds the offset asked for: for readers up to the high watermark, for readers of
//!   committed data up to the last stable offset, with the aborted transactions that they must leave out; for followers
//!   up to the log's end.
//! - From version 11 on any replica serves a reader (KIP-392), up to its own high watermark, whoever leads: only a reader
//!   whose epoch is not this replica's is told so. Its long poll outlives a change of the leader if it brought no epoch.
//!   Followers and older readers are served by the leader alone (`FetchParams.fetchOnlyLeader`). A leader sends a reader that
//!   says where it is to a replica in its rack, if `replica.selector.class` says so.
//! - The first batch found comes whatever its size, so that a reader with small limits moves on.
//! - With less than `min_bytes` the answer waits for more, for an error, or for `max_wait_ms`. A reader between high
//!   watermark and log end, as after a change of the leader, is answered at once with nothing. A partition that the
//!   metadata does not know is no error to hurry for: it is told along with the others (`KafkaApis.handleFetchRequest`).
//! - Whoever's last epoch ended before the offset it asks for is told where (KIP-320 for readers, KIP-595 for followers).
//! - A follower's fetch tells the leader how far it is: that moves the high watermark and the in-sync replicas. It learns
//!   the new high watermark with its next fetch.
//! - Sessions are in [`super::fetch_session`].
//!
//! Version notes: sessions from 7 on, log start offset from 5 on, leader epochs checked from 9 on, any replica from 11 on,
//! diverging epochs from 12 on, topic ids from 13 on, the follower's broker epoch from 15 on, the present leader and its
//! endpoint from 16 on, though version 12 has room for the leader (KIP-951). What 18 adds only controllers read (KIP-1166).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use context::Timestamp;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, ProducerId};
use rand::RngExt as _;

use super::fetch_session::{Asked, Scope};
use super::{Broker, Timer, Turn, text};
use crate::ConnectionId;
use crate::config::{ReplicaSelector, millis};
use crate::log::Log;
use crate::log::batch::BatchHeader;
use crate::metadata::{NodeId, PartitionKey};
use crate::partition::Partition;
use crate::partition::leadership::FollowerFetch;
use crate::wire::Call;

/// The isolation level of readers of committed records.
const READ_COMMITTED: i8 = 1;
/// What consumers bring as their replica id.
const CONSUMER: i32 = -1;

/// The fetches that wait for records.
#[derive(Clone, Debug, Default)]
pub(super) struct WaitingFetches {
    next: u64,
    by_id: BTreeMap<u64, WaitingFetch>,
    /// Of readers, by what they wait for.
    readers: BTreeMap<PartitionKey, BTreeSet<u64>>,
    /// Of followers: few, each with many partitions.
    followers: BTreeSet<u64>,
}

/// A fetch that waits for records.
#[derive(Clone, Debug)]
struct WaitingFetch {
    connection: ConnectionId,
    call: Call,
    reading: Reading,
    scope: Scope,
    /// By partition.
    watches: Vec<Watch>,
    until: Timestamp,
}

/// What a waiting fetch looks at in one partition.
#[derive(Clone, Copy, Debug)]
struct Watch {
    key: PartitionKey,
    offset: i64,
    max_bytes: usize,
    current_leader_epoch: i32,
    last_fetched_epoch: i32,
}

/// Who reads, and how much.
#[derive(Clone, Debug)]
struct Reading {
    version: i16,
    /// Where a reader says that it is; empty if it does not.
    rack: String,
    min_bytes: usize,
    max_bytes: usize,
    up_to: UpTo,
    /// Only the leader may answer.
    only_leader: bool,
    follower: Option<FollowerId>,
}

/// How far somebody reads (`FetchIsolation`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UpTo {
    /// A follower, or a tool that debugs (replica id -2).
    LogEnd,
    /// A consumer.
    HighWatermark,
    /// A consumer of committed records only (`isolation.level=read_committed`).
    LastStable,
}

/// A follower, as its fetch names it.
#[derive(Clone, Copy, Debug)]
struct FollowerId {
    node: NodeId,
    broker_epoch: i64,
}

/// What is to be done about one partition.
enum Read {
    Here,
    /// The reader has what was never committed.
    Diverges(EpochEndOffset),
    /// It should ask this replica.
    Elsewhere(NodeId),
}

/// What a fetch found.
#[derive(Default)]
struct Found {
    answers: Vec<PartitionData>,
    watches: Vec<Watch>,
    /// How far a follower is, where it fetches without an error.
    progress: Vec<(PartitionKey, FollowerFetch)>,
    endpoints: Vec<NodeEndpoint>,
    bytes: usize,
    /// An error, or an answer that must not wait.
    urgent: bool,
}

impl WaitingFetches {
    fn add(&mut self, waiting: WaitingFetch) -> u64 {
        let id = self.next;
        self.next += 1;
        if waiting.reading.follower.is_some() {
            self.followers.insert(id);
        } else {
            for watch in &waiting.watches {
                self.readers.entry(watch.key).or_default().insert(id);
            }
        }
        self.by_id.insert(id, waiting);
        id
    }

    fn take(&mut self, id: u64) -> Option<WaitingFetch> {
        let waiting = self.by_id.remove(&id)?;
        if !self.followers.remove(&id) {
            for watch in &waiting.watches {
                if let Some(ids) = self.readers.get_mut(&watch.key) {
                    ids.remove(&id);
                    if ids.is_empty() {
                        self.readers.remove(&watch.key);
                    }
                }
            }
        }
        Some(waiting)
    }

    /// Who waits for a partition.
    fn of(&self, key: PartitionKey) -> Vec<u64> {
        let readers = self.readers.get(&key).into_iter().flatten();
        let followers = self.followers.iter().filter(|id| self.by_id[id].watch(key).is_some());
        readers.chain(followers).copied().collect()
    }
}

impl WaitingFetch {
    fn watch(&self, key: PartitionKey) -> Option<&Watch> {
        let index = self.watches.binary_search_by_key(&key, |watch| watch.key).ok()?;
        Some(&self.watches[index])
    }
}

impl Reading {
    fn new(version: i16, request: &FetchRequest, max_bytes: i32) -> Reading {
        let (node, broker_epoch) = if version >= 15 {
            (request.replica_state.replica_id.0, request.replica_state.replica_epoch)
        } else {
            (request.replica_id.0, -1)
        };
        let max_bytes = request.max_bytes.min(max_bytes).max(0) as usize;
        Reading {
            version,
            rack: if version >= 11 { request.rack_id.to_string() } else { String::new() },
            min_bytes: (request.min_bytes.max(0) as usize).min(max_bytes),
            max_bytes,
            up_to: UpTo::of(node, request.isolation_level),
            only_leader: node >= 0 || (node == CONSUMER && version < 11),
            follower: (node >= 0).then_some(FollowerId { node, broker_epoch }),
        }
    }
}

impl UpTo {
    /// How far the one reads who brings this replica id and this isolation level.
    pub(super) fn of(replica_id: i32, isolation_level: i8) -> UpTo {
        match (replica_id, isolation_level) {
            (CONSUMER, READ_COMMITTED) => UpTo::LastStable,
            (CONSUMER, _) => UpTo::HighWatermark,
            _ => UpTo::LogEnd,
        }
    }

    /// What is read is before it.
    pub(super) fn offset(self, partition: &Partition, log: &Log) -> i64 {
        match self {
            UpTo::LogEnd => log.end_offset(),
            UpTo::HighWatermark => partition.high_watermark,
            UpTo::LastStable => partition.last_stable_offset(log),
        }
    }
}

impl Broker {
    pub(super) fn fetch(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: Call,
        request: FetchRequest,
    ) {
        let scope = match self.sessions.scope(turn.now, call.version, &request) {
            Ok(scope) => scope,
            Err(error) => {
                let response = FetchResponse::default().with_error_code(error.code());
                return turn.respond(connection, &call, response);
            }
        };
        let reading = Reading::new(call.version, &request, self.settings.fetch_max_bytes);
        let mut found = self.find(turn, &reading, &scope);
        let progress = std::mem::take(&mut found.progress);
        let must_wait = !found.urgent
            && found.bytes < reading.min_bytes
            && request.max_wait_ms > 0
            && !found.watches.is_empty();
        if must_wait {
            let until = turn.now + millis(request.max_wait_ms);
            let mut watches = found.watches;
            watches.sort_unstable_by_key(|watch| watch.key);
            let id = self.waiting.add(WaitingFetch { connection, call, reading, scope, watches, until });
            self.timers.set(until, Timer::Fetch(id));
        } else {
            self.answer_fetch(turn, connection, &call, &reading, scope, found);
        }
        for (key, fetch) in progress {
            self.follower_fetched(turn, key, fetch);
            self.log_start_moved(turn, key);
        }
    }

    pub(super) fn fetch_due(&mut self, turn: &mut Turn<'_>, id: u64) {
        // It may have been answered by records that came first.
        if let Some(waiting) = self.waiting.take(id) {
            self.answer_waiting(turn, waiting);
        }
    }

    /// Records came to a partition, its high watermark moved, or its leader changed: looks again at what waits for it.
    pub(super) fn partition_changed(&mut self, turn: &mut Turn<'_>, key: PartitionKey) {
        self.settle_waits(turn, key);
        self.log_start_moved(turn, key);
        self.look_at_fetches(turn, key);
    }

    /// Answers the fetches that wait for a partition and are done with waiting.
    pub(super) fn look_at_fetches(&mut self, turn: &mut Turn<'_>, key: PartitionKey) {
        for id in self.waiting.of(key) {
            if self.is_ready(turn, &self.waiting.by_id[&id], key) {
                let waiting = self.waiting.take(id).expect("it was just there");
                self.timers.cancel(waiting.until, Timer::Fetch(id));
                self.answer_waiting(turn, waiting);
            }
        }
    }

    fn answer_waiting(&mut self, turn: &mut Turn<'_>, waiting: WaitingFetch) {
        let found = self.find(turn, &waiting.reading, &waiting.scope);
        self.answer_fetch(turn, waiting.connection, &waiting.call, &waiting.reading, waiting.scope, found);
    }

    /// Whether a fetch that waits is done with waiting, now that `key` has changed (`DelayedFetch.tryComplete`).
    fn is_ready(&self, turn: &Turn<'_>, waiting: &WaitingFetch, key: PartitionKey) -> bool {
        let reading = &waiting.reading;
        let readable = |watch: &Watch| {
            let partition = self.replica(watch.key, watch.current_leader_epoch, reading.only_leader).ok()?;
            let log = &turn.disk.logs[&watch.key];
            let upper = reading.up_to.offset(partition, log);
            if watch.offset > upper || !matches!(diverging_epoch(log, watch.into()), Ok(None)) {
                return None;
            }
            Some(log.bytes_between(watch.offset, upper, reading.min_bytes).min(watch.max_bytes))
        };
        let Some(watch) = waiting.watch(key) else { return false };
        match readable(watch) {
            None => true,
            Some(bytes) if bytes >= reading.min_bytes => true,
            Some(0) => false,
            Some(_) => {
                let all: Option<usize> = waiting.watches.iter().map(readable).sum();
                all.is_none_or(|bytes| bytes >= reading.min_bytes)
            }
        }
    }

    /// Answers with what was found; a session is told only news.
    fn answer_fetch(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        reading: &Reading,
        scope: Scope,
        found: Found,
    ) {
        let Some(asked) = self.sessions.asked(&scope) else {
            let response =
                FetchResponse::default().with_error_code(ResponseError::InvalidFetchSessionEpoch.code());
            return turn.respond(connection, call, response);
        };
        let mut response = FetchResponse::default().with_node_endpoints(found.endpoints);
        let asked: Vec<Asked> = match &scope {
            Scope::Alone(_) => Vec::new(),
            _ => asked.into_iter().cloned().collect(),
        };
        let (asked, news) = match scope {
            Scope::Alone(asked) => (asked, None),
            Scope::New(_) => {
                let slots = self.settings.max_incremental_fetch_session_cache_slots.max(0) as usize;
                let rng = &mut self.rng;
                let draw = || rng.random_range(1..=i32::MAX);
                let kind = (call.version >= 13, reading.follower.is_some());
                let answered = asked.iter().cloned().zip(&found.answers).collect();
                response.session_id = self.sessions.open(turn.now, (slots, draw), kind, answered);
                (asked, None)
            }
            Scope::Session { id, .. } => {
                response.session_id = id;
                (asked, Some(self.sessions.news(id, &found.answers)))
            }
        };
        for (index, (asked, data)) in asked.into_iter().zip(found.answers).enumerate() {
            if news.as_ref().is_some_and(|news| !news[index]) {
                continue;
            }
            match response.responses.last_mut() {
                Some(topic) if topic.topic_id == asked.topic_id && topic.topic == asked.topic => {
                    topic.partitions.push(data);
                }
                _ => response.responses.push(
                    FetchableTopicResponse::default()
                        .with_topic(asked.topic)
                        .with_topic_id(asked.topic_id)
                        .with_partitions(vec![data]),
                ),
            }
        }
        turn.respond(connection, call, response);
    }

    fn find(&self, turn: &Turn<'_>, reading: &Reading, scope: &Scope) -> Found {
        let mut found = Found::default();
        for asked in self.sessions.asked(scope).unwrap_or_default() {
            let room = reading.max_bytes.saturating_sub(found.bytes);
            let data = self.read_partition(turn, reading, asked, room, &mut found);
            found.answers.push(data);
        }
        found
    }

    fn read_partition(
        &self,
        turn: &Turn<'_>,
        reading: &Reading,
        asked: &Asked,
        room: usize,
        found: &mut Found,
    ) -> PartitionData {
        let by_id = reading.version >= 13;
        let Asked { topic, topic_id, partition: asked } = asked;
        let data = PartitionData::default().with_partition_index(asked.partition);
        let key = match self.asked_topic(by_id, topic, *topic_id) {
            Ok(image) => PartitionKey { topic: image.id, index: asked.partition },
            Err(error) => return failed(data, error),
        };
        if self.image.partition(key).is_none() {
            return failed(data, ResponseError::UnknownTopicOrPartition);
        }
        found.watches.push(Watch {
            key,
            offset: asked.fetch_offset,
            max_bytes: asked.partition_max_bytes.max(0) as usize,
            current_leader_epoch: asked.current_leader_epoch,
            last_fetched_epoch: asked.last_fetched_epoch,
        });
        let replica = self.replica(key, asked.current_leader_epoch, reading.only_leader);
        let read = replica.and_then(|partition| {
            if let Some(replica) = self.preferred_replica(partition, reading, asked.fetch_offset) {
                return Ok((partition, &turn.disk.logs[&key], Read::Elsewhere(replica)));
            }
            self.check_follower(partition, reading, asked)?;
            let log = &turn.disk.logs[&key];
            if asked.last_fetched_epoch >= 0 && log.end_of_epoch(asked.last_fetched_epoch).is_none() {
                return Err(ResponseError::OffsetOutOfRange);
            }
            // A reader beyond the end may have read what a power loss took: that tells it more than being out of range.
            let diverging = if reading.version >= 12 { diverging_epoch(log, asked.into())? } else { None };
            let in_range = (log.start_offset()..=log.end_offset()).contains(&asked.fetch_offset);
            if diverging.is_none() && !in_range {
                return Err(ResponseError::OffsetOutOfRange);
            }
            Ok((partition, log, diverging.map_or(Read::Here, Read::Diverges)))
        });
        let (partition, log, read) = match read {
            Ok(read) => read,
            Err(error) => {
                found.urgent = true;
                return self.with_leader(reading.version, key, error, failed(data, error), found);
            }
        };
        let mut data = data
            .with_high_watermark(partition.high_watermark)
            .with_last_stable_offset(partition.last_stable_offset(log))
            .with_aborted_transactions(None);
        if reading.version >= 5 {
            data.log_start_offset = log.start_offset();
        }
        match read {
            Read::Here => {}
            Read::Diverges(diverging) => {
                found.urgent = true;
                return data.with_diverging_epoch(diverging);
            }
            Read::Elsewhere(replica) => {
                found.urgent = true;
                return data
                    .with_preferred_read_replica(BrokerId(replica))
                    .with_records(Some(Default::default()));
            }
        }
        if let Some(FollowerId { node, broker_epoch }) = reading.follower {
            let (offset, start_offset) = (asked.fetch_offset, asked.log_start_offset);
            found.progress.push((key, FollowerFetch { node, broker_epoch, offset, start_offset }));
        }
        let upper = reading.up_to.offset(partition, log);
        found.urgent |= asked.fetch_offset > upper;
        let limit = room.min(asked.partition_max_bytes.max(0) as usize);
        let records = log.read(asked.fetch_offset, upper, limit, found.bytes == 0);
        found.bytes += records.len();
        if reading.up_to == UpTo::LastStable {
            data.aborted_transactions = Some(aborted_transactions(log, asked.fetch_offset, &records));
        }
        data.with_records(Some(records))
    }

    /// The follower from which a reader had better read on at `offset`, if this broker leads
    /// (`ReplicaManager.findPreferredReadReplica`, `RackAwareReplicaSelector`): alive, in sync, with that offset, in the
    /// reader's rack, where the leader is not; of several the one that is furthest.
    fn preferred_replica(&self, partition: &Partition, reading: &Reading, offset: i64) -> Option<NodeId> {
        let aware = self.settings.replica_selector_class == Some(ReplicaSelector::RackAware);
        if !aware || reading.follower.is_some() || reading.rack.is_empty() {
            return None;
        }
        let leadership = partition.leadership.as_ref()?;
        let is_near = |node: NodeId| {
            let broker = self.image.brokers.get(&node).filter(|broker| !broker.fenced);
            broker.is_some_and(|broker| broker.rack.as_deref() == Some(reading.rack.as_str()))
        };
        if is_near(self.node) {
            return None;
        }
        let followers = leadership.followers().iter().filter(|(node, follower)| {
            let has_it = (follower.start_offset..=follower.end_offset).contains(&offset);
            leadership.in_sync().contains(node) && has_it && is_near(**node)
        });
        followers.max_by_key(|(node, it)| (it.end_offset, it.caught_up_at(), **node)).map(|(&node, _)| node)
    }

    /// A follower must hold a replica, and be the incarnation that the metadata knows, or a newer one.
    fn check_follower(
        &self,
        partition: &Partition,
        reading: &Reading,
        asked: &FetchPartition,
    ) -> Result<(), ResponseError> {
        let Some(FollowerId { node, broker_epoch }) = reading.follower else { return Ok(()) };
        let leadership = partition.leadership.as_ref().expect("it is led");
        if !leadership.followers().contains_key(&node) {
            // With the right epoch it may know of a reassignment that this broker does not know yet.
            let believes = asked.current_leader_epoch >= 0;
            return Err(if believes {
                ResponseError::UnknownLeaderEpoch
            } else {
                ResponseError::NotLeaderOrFollower
            });
        }
        let known = self.image.brokers.get(&node).map(|broker| broker.epoch);
        if broker_epoch != -1 && known.is_some_and(|known| known > broker_epoch) {
            return Err(ResponseError::NotLeaderOrFollower);
        }
        Ok(())
    }

    /// Tells a client that came to the wrong broker, or with an old epoch, who leads now (KIP-951).
    fn with_leader(
        &self,
        version: i16,
        key: PartitionKey,
        error: ResponseError,
        data: PartitionData,
        found: &mut Found,
    ) -> PartitionData {
        if version < 16
            || !matches!(error, ResponseError::NotLeaderOrFollower | ResponseError::FencedLeaderEpoch)
        {
            return data;
        }
        let (leader, epoch) = self.leader_and_epoch(key);
        let listed = found.endpoints.iter().any(|endpoint| endpoint.node_id.0 == leader);
        if !listed && let Some(broker) = self.image.brokers.get(&leader).filter(|broker| !broker.fenced) {
            let endpoint = NodeEndpoint::default()
                .with_node_id(BrokerId(leader))
                .with_host(text(&broker.host))
                .with_port(i32::from(broker.port));
            found.endpoints.push(endpoint);
        }
        let current = LeaderIdAndEpoch::default().with_leader_id(BrokerId(leader)).with_leader_epoch(epoch);
        data.with_current_leader(current)
    }
}

fn failed(data: PartitionData, error: ResponseError) -> PartitionData {
    data.with_error_code(error.code()).with_high_watermark(-1).with_records(Some(Default::default()))
}

/// The aborted transactions that a reader must leave out of `records`.
fn aborted_transactions(log: &Log, fetch_offset: i64, records: &Bytes) -> Vec<AbortedTransaction> {
    if log.aborted().entries().is_empty() || records.is_empty() {
        return Vec::new();
    }
    let mut end_offset = fetch_offset;
    let mut at = 0;
    while let Ok(header) = BatchHeader::parse(&records[at..]) {
        end_offset = header.next_offset();
        at += header.size();
    }
    let told = log.aborted().overlapping(fetch_offset, end_offset).map(|aborted| {
        AbortedTransaction::default()
            .with_producer_id(ProducerId(aborted.producer_id))
            .with_first_offset(aborted.first_offset)
    });
    told.collect()
}

/// Where a reader is: its next offset, and the epoch of what it has before it.
#[derive(Clone, Copy, Debug)]
struct Position {
    offset: i64,
    epoch: i32,
}

impl From<&FetchPartition> for Position {
    fn from(asked: &FetchPartition) -> Position {
        Position { offset: asked.fetch_offset, epoch: asked.last_fetched_epoch }
    }
}

impl From<&Watch> for Position {
    fn from(watch: &Watch) -> Position {
        Position { offset: watch.offset, epoch: watch.last_fetched_epoch }
    }
}

/// Where the log parts from the one that the reader has read.
///
/// # Errors
/// `OFFSET_OUT_OF_RANGE` if its epoch is not known here, or the log begins after its offset.
fn diverging_epoch(log: &Log, reader: Position) -> Result<Option<EpochEndOffset>, ResponseError> {
    if reader.epoch < 0 {
        return Ok(None);
    }
    let (epoch, end_offset) = log.end_of_epoch(reader.epoch).ok_or(ResponseError::OffsetOutOfRange)?;
    if reader.offset < log.start_offset() {
        return Err(ResponseError::OffsetOutOfRange);
    }
    let diverges = epoch < reader.epoch || end_offset < reader.offset;
    Ok(diverges.then(|| EpochEndOffset::default().with_epoch(epoch).with_end_offset(end_offset)))
}

//! Fetch (1), versions 4 to 17: records for readers, with a long poll.
//!
//! - Whole batches, from the one that holds the offset asked for, up to the high watermark; for readers of committed
//!   data up to the last stable offset, with the aborted transactions that they must leave out.
//! - The first batch found comes whatever its size, so that a reader with small limits moves on.
//! - With less than `min_bytes` the answer waits for more, for an error, or for `max_wait_ms`.
//! - Fetch sessions are not kept: each answer says session 0, which tells a client to ask in full each time.
//! - A reader whose last epoch ended before the offset it asks for is told where (KIP-320).
//!
//! Version notes: log start offset from 5 on, leader epochs checked from 9 on, diverging epochs and the present leader
//! from 12 on, topic ids from 13 on, endpoints of leaders from 16 on.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, ProducerId};

use super::{Broker, Timer, Turn, text};
use crate::ConnectionId;
use crate::config::millis;
use crate::log::Log;
use crate::log::batch::BatchHeader;
use crate::metadata::PartitionKey;
use crate::wire::Call;

/// The isolation level of readers of committed records.
pub(super) const READ_COMMITTED: i8 = 1;

/// A fetch that waits for records.
#[derive(Clone, Debug)]
pub(super) struct WaitingFetch {
    connection: ConnectionId,
    call: Call,
    request: FetchRequest,
    keys: Vec<PartitionKey>,
}

/// What a fetch found.
struct Found {
    response: FetchResponse,
    bytes: usize,
    /// An error, or an answer that must not wait.
    urgent: bool,
    /// The reader wants committed records only (`isolation.level=read_committed`).
    committed_only: bool,
    keys: Vec<PartitionKey>,
}

impl Broker {
    pub(super) fn fetch(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: Call,
        request: FetchRequest,
    ) {
        if request.session_id != 0 {
            let code = ResponseError::FetchSessionIdNotFound.code();
            return turn.respond(connection, &call, FetchResponse::default().with_error_code(code));
        }
        let found = self.find(turn, &call, &request);
        let enough = usize::try_from(request.min_bytes).unwrap_or(0);
        if found.urgent || found.bytes >= enough || request.max_wait_ms <= 0 || found.keys.is_empty() {
            return turn.respond(connection, &call, found.response);
        }
        let until = turn.now + millis(request.max_wait_ms);
        let id = self.next_fetch;
        self.next_fetch += 1;
        self.waiting.insert(id, WaitingFetch { connection, call, request, keys: found.keys });
        self.timers.set(until, Timer::Fetch(id));
    }

    pub(super) fn fetch_due(&mut self, turn: &mut Turn<'_>, id: u64) {
        // It may have been answered by records that came first.
        if let Some(waiting) = self.waiting.remove(&id) {
            let found = self.find(turn, &waiting.call, &waiting.request);
            turn.respond(waiting.connection, &waiting.call, found.response);
        }
    }

    /// Records came to a partition, its high watermark moved, or its leader changed: looks again at what waits for it.
    pub(super) fn partition_changed(&mut self, turn: &mut Turn<'_>, key: PartitionKey) {
        self.settle_waits(turn, key);
        let concerned = self.waiting.iter().filter(|(_, waiting)| waiting.keys.contains(&key));
        let ids: Vec<u64> = concerned.map(|(&id, _)| id).collect();
        for id in ids {
            let waiting = &self.waiting[&id];
            let found = self.find(turn, &waiting.call, &waiting.request);
            if found.urgent || found.bytes >= usize::try_from(waiting.request.min_bytes).unwrap_or(0) {
                let waiting = self.waiting.remove(&id).expect("it was just there");
                turn.respond(waiting.connection, &waiting.call, found.response);
            }
        }
    }

    fn find(&self, turn: &Turn<'_>, call: &Call, request: &FetchRequest) -> Found {
        let mut found = Found {
            response: FetchResponse::default(),
            bytes: 0,
            urgent: false,
            committed_only: request.isolation_level == READ_COMMITTED,
            keys: Vec::new(),
        };
        let max_bytes = request.max_bytes.min(self.settings.fetch_max_bytes).max(0) as usize;
        for topic in &request.topics {
            let mut answered = FetchableTopicResponse::default();
            for asked in &topic.partitions {
                let room = max_bytes.saturating_sub(found.bytes);
                let data = self.read_partition(turn, call, topic, asked, room, &mut found);
                answered.partitions.push(data);
            }
            if call.version >= 13 {
                answered.topic_id = topic.topic_id
            } else {
                answered.topic = topic.topic.clone()
            }
            found.response.responses.push(answered);
        }
        found
    }

    fn read_partition(
        &self,
        turn: &Turn<'_>,
        call: &Call,
        topic: &FetchTopic,
        asked: &FetchPartition,
        room: usize,
        found: &mut Found,
    ) -> PartitionData {
        let data = PartitionData::default().with_partition_index(asked.partition);
        let key = match self.asked_topic(call.version >= 13, &topic.topic, topic.topic_id) {
            Ok(image) => PartitionKey { topic: image.id, index: asked.partition },
            Err(error) => {
                found.urgent = true;
                return failed(data, error);
            }
        };
        found.keys.push(key);
        let read = self.led(key).and_then(|partition| {
            partition.check_epoch(asked.current_leader_epoch)?;
            let log = &turn.disk.logs[&key];
            if asked.last_fetched_epoch >= 0 && log.end_of_epoch(asked.last_fetched_epoch).is_none() {
                return Err(ResponseError::OffsetOutOfRange);
            }
            // A reader beyond the end may have read what a power loss took: that tells it more than being out of range.
            let diverging = diverging_epoch(log, asked).filter(|_| call.version >= 12);
            let in_range = (log.start_offset()..=log.end_offset()).contains(&asked.fetch_offset);
            if diverging.is_none() && !in_range {
                return Err(ResponseError::OffsetOutOfRange);
            }
            Ok((partition, log, diverging))
        });
        let (partition, log, diverging) = match read {
            Ok(read) => read,
            Err(error) => {
                found.urgent = true;
                return self.with_leader(call, key, error, failed(data, error), found);
            }
        };
        let last_stable_offset = partition.last_stable_offset(log);
        let mut data = data
            .with_high_watermark(partition.high_watermark)
            .with_last_stable_offset(last_stable_offset)
            .with_aborted_transactions(None);
        if call.version >= 5 {
            data.log_start_offset = log.start_offset();
        }
        if let Some(diverging) = diverging {
            found.urgent = true;
            return data.with_diverging_epoch(diverging);
        }
        let limit = room.min(asked.partition_max_bytes.max(0) as usize);
        let upper = if found.committed_only { last_stable_offset } else { partition.high_watermark };
        let records = log.read(asked.fetch_offset, upper, limit, found.bytes == 0);
        found.bytes += records.len();
        if found.committed_only {
            data.aborted_transactions = Some(aborted_transactions(log, asked.fetch_offset, &records));
        }
        data.with_records(Some(records))
    }

    /// Tells a client that came to the wrong broker, or with an old epoch, who leads now.
    fn with_leader(
        &self,
        call: &Call,
        key: PartitionKey,
        error: ResponseError,
        data: PartitionData,
        found: &mut Found,
    ) -> PartitionData {
        if call.version < 12
            || !matches!(error, ResponseError::NotLeaderOrFollower | ResponseError::FencedLeaderEpoch)
        {
            return data;
        }
        let (leader, epoch) = self.leader_and_epoch(key);
        let endpoints = &mut found.response.node_endpoints;
        let listed = endpoints.iter().any(|endpoint| endpoint.node_id.0 == leader);
        if call.version >= 16
            && !listed
            && let Some(broker) = self.image.brokers.get(&leader).filter(|broker| !broker.fenced)
        {
            let endpoint = NodeEndpoint::default()
                .with_node_id(BrokerId(leader))
                .with_host(text(&broker.host))
                .with_port(i32::from(broker.port));
            endpoints.push(endpoint);
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

/// Where the log parts from the one that the reader has read.
fn diverging_epoch(log: &Log, asked: &FetchPartition) -> Option<EpochEndOffset> {
    if asked.last_fetched_epoch < 0 {
        return None;
    }
    let (epoch, end_offset) = log.end_of_epoch(asked.last_fetched_epoch)?;
    let diverges = epoch < asked.last_fetched_epoch || end_offset < asked.fetch_offset;
    diverges.then(|| EpochEndOffset::default().with_epoch(epoch).with_end_offset(end_offset))
}

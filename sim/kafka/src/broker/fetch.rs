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
//! - A partition gives records of one segment. With less than `min_bytes` the answer waits for more, for an error, or for
//!   `max_wait_ms`; it does not wait where a partition is read in an older segment. A reader between high watermark and log
//!   end, as after a change of the leader, is answered at once with nothing. A partition that the
//!   metadata does not know is no error to hurry for: it is told along with the others (`KafkaApis.handleFetchRequest`).
//! - Whoever's last epoch ended before the offset it asks for is told where (KIP-320 for readers, KIP-595 for followers).
//! - A follower's fetch tells the leader how far it is: that moves the high watermark and the in-sync replicas. It learns
//!   the new high watermark with its next fetch.
//! - Sessions are in [`super::fetch_session`].
//!
//! Version notes: sessions from 7 on, log start offset from 5 on, leader epochs checked from 9 on, any replica from 11 on,
//! diverging epochs from 12 on, topic ids from 13 on, the follower's broker epoch from 15 on, the present leader and its
//! endpoint from 16 on, though version 12 has room for the leader (KIP-951). What 18 adds only controllers read (KIP-1166).
//!
//! Here is the request from its coming to its answer; `reading.rs` has who reads, `waiting.rs` those that wait for records,
//! `partition.rs` what is found in one partition.

mod partition;
mod reading;
mod waiting;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, NodeEndpoint, PartitionData};
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use rand::RngExt as _;

pub(super) use reading::UpTo;
pub(super) use waiting::WaitingFetches;

use partition::diverging_epoch;
use reading::Reading;
use waiting::{WaitingFetch, Watch};

use super::fetch_session::{Asked, Scope};
use super::{Broker, Timer, Turn};
use crate::ConnectionId;
use crate::config::millis;
use crate::metadata::PartitionKey;
use crate::partition::leadership::FollowerFetch;
use crate::wire::Call;

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
            let diverges = !matches!(diverging_epoch(log, watch.into()), Ok(None));
            if watch.offset > upper || watch.is_behind(log, upper) || diverges {
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
}

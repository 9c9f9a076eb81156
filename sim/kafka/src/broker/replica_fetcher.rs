//! How a follower follows: one fetcher for each broker that leads something held here, one fetch at a time.
//!
//! As Kafka's `AbstractFetcherThread` and `ReplicaFetcherThread` with truncation on fetch (KIP-595):
//! - A fetch asks for every partition that is followed from that broker and is not resting after an error. It waits there
//!   for `replica.fetch.wait.max.ms`; a partition that joins meanwhile is asked for by the next one.
//! - What comes is appended as it is. High watermark and log start follow the leader's.
//! - A log that parts from the leader's is cut to where both agree, as far as one answer tells; the next tells more.
//! - Out of the leader's range, a follower asks for the leader's end and start: it cuts what is beyond the end, or begins
//!   anew at the start.
//! - A fetcher that has no partition left, once all news of the metadata are applied, is shut, and what it had asked is
//!   forgotten: a leader that does not answer holds up nobody who comes back to it
//!   (`AbstractFetcherManager.shutdownIdleFetcherThreads`).
//! - After an error a partition rests for `replica.fetch.backoff.ms`; after FENCED_LEADER_EPOCH under the epoch that it
//!   believes in, until the metadata says more.
//!
//! Absent: quotas, several fetchers for one broker (`num.replica.fetchers` is 1).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use context::Timestamp;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::ListOffsetsPartitionResponse;
use kafka_protocol::messages::{
    ApiKey, BrokerId, FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse, TopicName,
};

use super::fetch_session::next_epoch;
use super::lifecycle::Pending;
use super::list_offsets::{EARLIEST_LOCAL, LATEST};
use super::{Broker, Timer, Turn, text};
use crate::config::millis;
use crate::core::{Link, Output};
use crate::metadata::{NodeId, PartitionKey};
use crate::partition::AppendRules;
use crate::wire;

const FETCH_VERSION: i16 = 17;
const LIST_OFFSETS_VERSION: i16 = 8;

/// The fetchers of a broker, by the leader's node.
#[derive(Clone, Debug, Default)]
pub(super) struct Fetchers {
    by_leader: BTreeMap<NodeId, Fetcher>,
    /// How many there have been.
    rounds: u32,
}

#[derive(Clone, Debug)]
struct Fetcher {
    link: Link,
    following: BTreeMap<PartitionKey, Following>,
    session: FollowerSession,
    /// Out of the leader's range: its end is asked for before the next fetch.
    out_of_range: BTreeSet<PartitionKey>,
    in_flight: bool,
    /// When a resting partition is next looked at.
    rests_until: Option<Timestamp>,
}

/// A partition that is followed.
#[derive(Clone, Copy, Debug)]
struct Following {
    leader_epoch: i32,
    rests_until: Option<Timestamp>,
    /// The leader knows a newer epoch: only the metadata helps.
    fenced: bool,
}

/// What was asked for a partition, for when the answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FetchPosition {
    leader_epoch: i32,
    offset: i64,
    last_fetched_epoch: i32,
    start_offset: i64,
}

/// The follower's side of its fetch session.
#[derive(Clone, Debug, Default)]
struct FollowerSession {
    id: i32,
    epoch: i32,
    told: BTreeMap<PartitionKey, FetchPosition>,
}

impl Following {
    fn is_ready(&self, now: Timestamp) -> bool {
        !self.fenced && self.rests_until.is_none_or(|until| until <= now)
    }
}

impl FollowerSession {
    /// The next fetch asks in full; the leader closes the session that it may still have.
    fn begin_anew(&mut self) {
        self.epoch = 0;
        self.told.clear();
    }

    fn forget(&mut self) {
        *self = FollowerSession::default();
    }
}

impl Fetchers {
    /// The fetcher from `leader`, which may be new.
    fn from(&mut self, leader: NodeId) -> &mut Fetcher {
        self.by_leader.entry(leader).or_insert_with(|| {
            self.rounds += 1;
            Fetcher::new(Link::fetcher(leader, self.rounds))
        })
    }
}

impl Fetcher {
    fn new(link: Link) -> Fetcher {
        Fetcher {
            link,
            following: BTreeMap::new(),
            session: FollowerSession::default(),
            out_of_range: BTreeSet::new(),
            in_flight: false,
            rests_until: None,
        }
    }

    fn rest(&mut self, key: PartitionKey, until: Timestamp) {
        if let Some(following) = self.following.get_mut(&key) {
            following.rests_until = Some(until);
        }
    }
}

impl Broker {
    /// Follows a partition from its leader, under an epoch that is new.
    pub(super) fn start_following(
        &mut self,
        turn: &mut Turn<'_>,
        key: PartitionKey,
        leader: NodeId,
        leader_epoch: i32,
    ) {
        self.stop_following(key);
        let following = Following { leader_epoch, rests_until: None, fenced: false };
        self.fetchers.from(leader).following.insert(key, following);
        self.replicate(turn, leader);
    }

    /// Follows a partition no more.
    pub(super) fn stop_following(&mut self, key: PartitionKey) {
        for fetcher in self.fetchers.by_leader.values_mut() {
            fetcher.following.remove(&key);
            fetcher.out_of_range.remove(&key);
        }
    }

    /// Shuts the fetchers from leaders of which nothing is followed any more.
    pub(super) fn shut_idle_fetchers(&mut self, turn: &mut Turn<'_>) {
        let idle = self.fetchers.by_leader.extract_if(.., |_, fetcher| fetcher.following.is_empty());
        for (_, Fetcher { link, .. }) in idle {
            // It may have asked nothing yet.
            if self.pending.remove(&link).is_some() {
                turn.out.push(Output::HangUp { link });
            }
        }
    }

    /// Sends the next fetch to a leader, if there is anything to fetch and none is under way.
    pub(super) fn replicate(&mut self, turn: &mut Turn<'_>, leader: NodeId) {
        let Some(fetcher) = self.fetchers.by_leader.get_mut(&leader) else { return };
        if fetcher.in_flight {
            return;
        }
        if fetcher.following.is_empty() || !self.image.brokers.contains_key(&leader) {
            return;
        }
        if let Some(key) = fetcher.out_of_range.first().copied() {
            fetcher.in_flight = true;
            return self.ask_leaders_offset(turn, leader, key, LATEST);
        }
        if !fetcher.following.values().any(|following| following.is_ready(turn.now)) {
            let rests = fetcher.following.values().filter(|following| !following.fenced);
            if let Some(until) = rests.filter_map(|following| following.rests_until).min()
                && fetcher.rests_until.replace(until) != Some(until)
            {
                self.timers.set(until, Timer::Replicate(leader));
            }
            return;
        }
        fetcher.in_flight = true;
        let (request, asked) = self.next_fetch(turn, leader);
        let frame = wire::request(ApiKey::Fetch, FETCH_VERSION, 0, &request);
        let link = self.fetchers.by_leader[&leader].link;
        self.ask(turn, link, Pending::Replicated { leader, asked }, frame);
    }

    pub(super) fn rest_is_over(&mut self, turn: &mut Turn<'_>, leader: NodeId) {
        if let Some(fetcher) = self.fetchers.by_leader.get_mut(&leader) {
            fetcher.rests_until = None;
            self.replicate(turn, leader);
        }
    }

    /// The request, and where each of its partitions was, those too that an incremental request leaves out.
    fn next_fetch(
        &mut self,
        turn: &Turn<'_>,
        leader: NodeId,
    ) -> (FetchRequest, BTreeMap<PartitionKey, FetchPosition>) {
        let replica_epoch = self.broker_epoch();
        let fetcher = self.fetchers.by_leader.get_mut(&leader).expect("the caller has it");
        let ready = fetcher.following.iter().filter(|(_, following)| following.is_ready(turn.now));
        let positions = ready.map(|(&key, following)| {
            let log = &turn.disk.logs[&key];
            let position = FetchPosition {
                leader_epoch: following.leader_epoch,
                offset: log.end_offset(),
                last_fetched_epoch: log.latest_epoch().unwrap_or(-1),
                start_offset: log.start_offset(),
            };
            (key, position)
        });
        let asked: BTreeMap<PartitionKey, FetchPosition> = positions.collect();
        let session = &mut fetcher.session;
        let mut request = FetchRequest::default()
            .with_replica_state(
                ReplicaState::default()
                    .with_replica_id(BrokerId(self.node))
                    .with_replica_epoch(replica_epoch),
            )
            .with_max_wait_ms(self.settings.replica_fetch_wait_max_ms)
            .with_min_bytes(self.settings.replica_fetch_min_bytes)
            .with_max_bytes(self.settings.replica_fetch_response_max_bytes)
            .with_session_id(session.id)
            .with_session_epoch(session.epoch);
        for (&key, position) in &asked {
            if session.told.get(&key) == Some(position) {
                continue;
            }
            let partition = FetchPartition::default()
                .with_partition(key.index)
                .with_current_leader_epoch(position.leader_epoch)
                .with_fetch_offset(position.offset)
                .with_last_fetched_epoch(position.last_fetched_epoch)
                .with_log_start_offset(position.start_offset)
                .with_partition_max_bytes(self.settings.replica_fetch_max_bytes);
            match request.topics.last_mut() {
                Some(topic) if topic.topic_id == key.topic => topic.partitions.push(partition),
                _ => request
                    .topics
                    .push(FetchTopic::default().with_topic_id(key.topic).with_partitions(vec![partition])),
            }
        }
        for key in session.told.keys().filter(|key| !asked.contains_key(key)) {
            match request.forgotten_topics_data.last_mut() {
                Some(topic) if topic.topic_id == key.topic => topic.partitions.push(key.index),
                _ => request.forgotten_topics_data.push(
                    ForgottenTopic::default().with_topic_id(key.topic).with_partitions(vec![key.index]),
                ),
            }
        }
        session.told.clone_from(&asked);
        (request, asked)
    }

    pub(super) fn replicated(
        &mut self,
        turn: &mut Turn<'_>,
        leader: NodeId,
        asked: &BTreeMap<PartitionKey, FetchPosition>,
        frame: Option<Bytes>,
    ) {
        let backoff = turn.now + millis(self.settings.replica_fetch_backoff_ms);
        let Some(fetcher) = self.fetchers.by_leader.get_mut(&leader) else { return };
        fetcher.in_flight = false;
        let response = frame.and_then(|frame| wire::response::<FetchResponse>(&frame, FETCH_VERSION).ok());
        let Some(response) = response else {
            fetcher.session.begin_anew();
            fetcher.following.values_mut().for_each(|following| following.rests_until = Some(backoff));
            return self.replicate(turn, leader);
        };
        match response.error_code {
            0 => {
                let session = &mut fetcher.session;
                session.id = response.session_id;
                if response.session_id == 0 {
                    session.forget();
                } else {
                    session.epoch = next_epoch(session.epoch);
                }
            }
            code if code == ResponseError::FetchSessionIdNotFound.code() => fetcher.session.forget(),
            _ => fetcher.session.begin_anew(),
        }
        let mut moved = Vec::new();
        for topic in response.responses {
            for data in topic.partitions {
                let key = PartitionKey { topic: topic.topic_id, index: data.partition_index };
                if let Some(&position) = asked.get(&key) {
                    let before = self.partitions.get(&key).map(|partition| partition.high_watermark);
                    self.follow_answer(turn, leader, key, position, data, backoff);
                    if before != self.partitions.get(&key).map(|partition| partition.high_watermark) {
                        moved.push(key);
                    }
                }
            }
        }
        // Readers may wait here too (`ReplicaFetcherThread.completeDelayedFetchRequests`).
        for key in moved {
            self.look_at_fetches(turn, key);
        }
        self.replicate(turn, leader);
    }

    /// What the leader says of one partition.
    fn follow_answer(
        &mut self,
        turn: &mut Turn<'_>,
        leader: NodeId,
        key: PartitionKey,
        position: FetchPosition,
        data: PartitionData,
        backoff: Timestamp,
    ) {
        let Some(fetcher) = self.fetchers.by_leader.get_mut(&leader) else { return };
        let Some(following) = fetcher.following.get_mut(&key) else { return };
        let partition = self.partitions.get_mut(&key).expect("what is followed is here");
        let log = turn.disk.logs.get_mut(&key).expect("what is followed has a log");
        if following.leader_epoch != position.leader_epoch || log.end_offset() != position.offset {
            // It changed while the fetch was under way.
            return;
        }
        match ResponseError::try_from_code(data.error_code) {
            None if data.diverging_epoch.end_offset >= 0 => {
                let diverging = (data.diverging_epoch.epoch, data.diverging_epoch.end_offset);
                let offset = truncation_offset(log, diverging);
                let before = log.end_offset();
                partition.truncate(turn.now, log, offset, self.settings.producer_id_expiration_ms);
                let (after, name) = (log.end_offset(), self.image.topics[&key.topic].name.clone());
                turn.note(format!(
                    "broker {} cuts {name}/{} from offset {before} to {after}: the leader's epoch {} ends at {}",
                    self.node, key.index, diverging.0, diverging.1
                ));
            }
            None => {
                let rules = AppendRules::new(&self.settings, &self.image.topics[&key.topic].settings);
                let records = data.records.unwrap_or_default();
                let appended = partition.append_as_follower(turn.now, log, &rules, records);
                partition.follow_high_watermark(log, data.high_watermark);
                partition.follow_start_offset(log, data.log_start_offset);
                if let Err(error) = appended {
                    fetcher.rest(key, backoff);
                    turn.note(format!(
                        "broker {} cannot append what broker {leader} sent: {error}",
                        self.node
                    ));
                }
            }
            Some(ResponseError::OffsetOutOfRange) => _ = fetcher.out_of_range.insert(key),
            Some(ResponseError::FencedLeaderEpoch) => following.fenced = true,
            Some(_) => following.rests_until = Some(backoff),
        }
    }

    /// Asks the leader for the end of its log, or its start.
    fn ask_leaders_offset(&mut self, turn: &mut Turn<'_>, leader: NodeId, key: PartitionKey, which: i64) {
        let fetcher = &self.fetchers.by_leader[&leader];
        let partition = ListOffsetsPartition::default()
            .with_partition_index(key.index)
            .with_current_leader_epoch(fetcher.following[&key].leader_epoch)
            .with_timestamp(which);
        // A topic that was deleted is followed no more, so the name is known.
        let name = TopicName(text(&self.image.topics[&key.topic].name));
        let topic = ListOffsetsTopic::default().with_name(name).with_partitions(vec![partition]);
        let request =
            ListOffsetsRequest::default().with_replica_id(BrokerId(self.node)).with_topics(vec![topic]);
        let frame = wire::request(ApiKey::ListOffsets, LIST_OFFSETS_VERSION, 0, &request);
        let pending = Pending::LeadersOffset { leader, key, which };
        let link = fetcher.link;
        self.ask(turn, link, pending, frame);
    }

    /// The leader's end, or its start: the log here is made to fit (`AbstractFetcherThread.fetchOffsetAndTruncate`).
    pub(super) fn leaders_offset(
        &mut self,
        turn: &mut Turn<'_>,
        leader: NodeId,
        key: PartitionKey,
        which: i64,
        frame: Option<Bytes>,
    ) {
        let backoff = turn.now + millis(self.settings.replica_fetch_backoff_ms);
        let Some(fetcher) = self.fetchers.by_leader.get_mut(&leader) else { return };
        fetcher.in_flight = false;
        if !fetcher.out_of_range.contains(&key) {
            // It is not followed from there any more.
            return self.replicate(turn, leader);
        }
        let answer = frame.and_then(|frame| listed_offset(&frame));
        let log = turn.disk.logs.get_mut(&key).expect("what is followed has a log");
        let partition = self.partitions.get_mut(&key).expect("what is followed is here");
        let end = log.end_offset();
        match answer {
            Some(answer) if answer.error_code == 0 && which == LATEST && answer.offset >= end => {
                fetcher.in_flight = true;
                return self.ask_leaders_offset(turn, leader, key, EARLIEST_LOCAL);
            }
            Some(answer) if answer.error_code == 0 => {
                let expiration_ms = self.settings.producer_id_expiration_ms;
                if which == LATEST {
                    partition.truncate(turn.now, log, answer.offset, expiration_ms);
                } else if answer.offset > end {
                    partition.start_over(turn.now, log, answer.offset, expiration_ms);
                }
                let (name, now_at) = (&self.image.topics[&key.topic].name, log.end_offset());
                turn.note(format!(
                    "broker {} goes on with {name}/{} at offset {now_at}, out of the leader's range at {end}",
                    self.node, key.index
                ));
            }
            Some(answer) if answer.error_code == ResponseError::FencedLeaderEpoch.code() => {
                fetcher.following.get_mut(&key).expect("it is followed").fenced = true;
            }
            _ => fetcher.rest(key, backoff),
        }
        fetcher.out_of_range.remove(&key);
        self.replicate(turn, leader);
    }
}

/// Where a log is cut that parts from the leader's, whose epoch `diverging.0` ends at `diverging.1`
/// (`AbstractFetcherThread.getOffsetTruncationState`).
fn truncation_offset(log: &crate::log::Log, diverging: (i32, i64)) -> i64 {
    let (leaders_epoch, leaders_end) = diverging;
    let end = match log.end_of_epoch(leaders_epoch) {
        // Without that epoch here: back to the end of the one before it, and ask again.
        Some((epoch, end)) if epoch != leaders_epoch => end,
        Some((_, end)) => end.min(leaders_end),
        None => leaders_end,
    };
    end.min(log.end_offset())
}

fn listed_offset(frame: &Bytes) -> Option<ListOffsetsPartitionResponse> {
    let response = wire::response::<ListOffsetsResponse>(frame, LIST_OFFSETS_VERSION).ok()?;
    response.topics.into_iter().next()?.partitions.into_iter().next()
}

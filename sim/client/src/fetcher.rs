//! The consumer's background task for reading: finds positions and leaders, and keeps one long poll open to each leader.
//!
//! It is idle but for the answers of those long polls (`fetch.wait.max.ms`). After each change of a leader, and before a
//! committed offset is used, the leader is asked whether its log has what was read before (`validation`). With
//! `client.rack` a leader may send the consumer to a follower: it reads there for [`FOLLOWER_LEASE`], or until anything goes
//! wrong there, and then asks the leader again. Absent: fetch sessions (each request names its partitions).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use broker::{
    ConsumerRecord, Error, ErrorClass, ErrorCode, Offset, OffsetAndMetadata, OffsetSpec, TopicPartition,
};
use bytes::Bytes;
use context::{BoxFuture, Rng, Timestamp};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{AbortedTransaction, PartitionData};
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use uuid::Uuid;

use crate::backoff::{Backoff, after_failures};
use crate::batch::{self, Batch, Record};
use crate::cluster::{NodeId, Peer, topic_error, topic_name};
use crate::connection::Answered;
use crate::consumer::Shared;
use crate::error::{self, class_of, code, wants_metadata};
use crate::offsets::{Listed, group_offsets, list_offsets_of};
use crate::properties::OffsetReset;
use crate::reading::{Phase, Reading};
use crate::validation::{EpochEnd, EpochEnds, Epochs, epoch_ends};

/// From this version on topics go by their ids (KIP-516).
const FETCH_BY_ID: i16 = 13;
/// For how long a follower is read from that the leader named: librdkafka asks again after five minutes, and the Java
/// client after `metadata.max.age.ms`, which is as long.
const FOLLOWER_LEASE: Duration = Duration::from_secs(300);
/// A transaction's end: the type in a control record's key.
const ABORT_MARKER: i16 = 0;

/// A partition with the version of its position when it was asked about.
type Asked = (TopicPartition, u64);

enum Event {
    Refreshed(Result<(), Error>),
    Committed(Vec<Asked>, Result<Vec<(TopicPartition, OffsetAndMetadata)>, Error>),
    Listed(Vec<Asked>, Result<Vec<Listed>, Error>),
    Validated(Vec<Asked>, Result<EpochEnds, Error>),
    Fetched(NodeId, BTreeMap<TopicPartition, u64>, Result<Answered<FetchResponse>, Error>),
}

/// The task. See [`Fetcher::run`].
pub(crate) struct Fetcher {
    shared: Arc<Shared>,
    events: FuturesUnordered<BoxFuture<'static, Event>>,
    fetching: BTreeSet<NodeId>,
    refresh_wanted: bool,
    refreshing: bool,
    refresh_not_before: Timestamp,
    refresh_backoff: Backoff,
    /// Topics whose absence was reported already.
    reported: BTreeSet<Arc<str>>,
    /// Moves the partition that a fetch names first, so that `fetch.max.bytes` starves none.
    rotation: usize,
    rng: Rng,
}

impl Fetcher {
    pub(crate) fn new(shared: Arc<Shared>) -> Fetcher {
        Fetcher {
            refresh_backoff: shared.cluster.metadata_backoff(),
            rng: shared.cluster.rng("fetcher"),
            shared,
            events: FuturesUnordered::new(),
            fetching: BTreeSet::new(),
            refresh_wanted: false,
            refreshing: false,
            refresh_not_before: Timestamp::ZERO,
            reported: BTreeSet::new(),
            rotation: 0,
        }
    }

    /// Runs until it is aborted.
    pub(crate) async fn run(mut self) {
        let shared = self.shared.clone();
        loop {
            let next = self.act();
            let sleep = async {
                match next {
                    Some(at) => shared.cluster.context.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(event) = self.events.next(), if !self.events.is_empty() => self.handle(event),
                () = shared.work.notified() => {}
                () = sleep => {}
            }
        }
    }

    /// Asks all that can be asked now; says when to look again if nothing happens before.
    fn act(&mut self) -> Option<Timestamp> {
        let shared = self.shared.clone();
        let now = shared.cluster.context.now();
        let mut reading = shared.reading();
        self.find_leaders(&mut reading);
        self.ask_committed(&mut reading, now);
        self.ask_ends(&mut reading, now);
        self.validate(&mut reading, now);
        self.fetch(&mut reading, now);
        let waits = reading.iter_mut().map(|(_, cursor)| cursor.not_before).filter(|at| *at > now).min();
        let refresh = self.refresh(&mut reading, now);
        waits.into_iter().chain(refresh).min()
    }

    fn find_leaders(&mut self, reading: &mut Reading) {
        let mut missing = Vec::new();
        for (at, _) in reading.iter_mut() {
            if self.shared.cluster.leader(at).is_some() {
                self.reported.remove(&at.topic);
                continue;
            }
            self.refresh_wanted = true;
            let unknown = self.shared.cluster.topic_error_code(&at.topic) != 0;
            if unknown && self.reported.insert(at.topic.clone()) {
                missing.push(at.topic.clone());
            }
        }
        for topic in missing {
            let code = self.shared.cluster.topic_error_code(&topic);
            reading.report(topic_error(&topic, code));
            self.shared.news.notify_one();
        }
    }

    fn ask_committed(&mut self, reading: &mut Reading, now: Timestamp) {
        let Some(coordinator) = &self.shared.coordinator else {
            let spec = self.shared.reset_spec();
            let mut stuck = Vec::new();
            for (at, cursor) in reading.iter_mut().filter(|(_, cursor)| cursor.phase == Phase::Committed) {
                cursor.phase = spec.map_or(Phase::Stuck, Phase::Reset);
                if spec.is_none() {
                    stuck.push(at.clone());
                }
            }
            for at in stuck {
                reading.report(no_offset(&at, "there is no group to have committed one"));
                self.shared.news.notify_one();
            }
            return;
        };
        let mut asked = Vec::new();
        for (at, cursor) in reading.iter_mut() {
            if cursor.phase == Phase::Committed && !cursor.asking && cursor.not_before <= now {
                cursor.asking = true;
                asked.push((at.clone(), cursor.version));
            }
        }
        if asked.is_empty() {
            return;
        }
        let coordinator = coordinator.clone();
        let patience = self.shared.cluster.settings.socket_timeout;
        self.events.push(Box::pin(async move {
            let partitions: Vec<_> = asked.iter().map(|(at, _)| at.clone()).collect();
            let offsets = group_offsets(&coordinator, Some(&partitions), patience).await;
            Event::Committed(asked, offsets)
        }));
    }

    fn ask_ends(&mut self, reading: &mut Reading, now: Timestamp) {
        let mut leaders: BTreeMap<NodeId, Vec<(Asked, OffsetSpec)>> = BTreeMap::new();
        for (at, cursor) in reading.iter_mut() {
            let Phase::Reset(spec) = cursor.phase else { continue };
            let Some((leader, _)) = self.shared.cluster.leader(at) else { continue };
            if !cursor.asking && cursor.not_before <= now {
                cursor.asking = true;
                leaders.entry(leader).or_default().push(((at.clone(), cursor.version), spec));
            }
        }
        for (leader, asked) in leaders {
            let cluster = self.shared.cluster.clone();
            self.events.push(Box::pin(async move {
                let specs: Vec<_> = asked.iter().map(|((at, _), spec)| (at.clone(), *spec)).collect();
                let offsets = list_offsets_of(&cluster, leader, &specs).await;
                Event::Listed(asked.into_iter().map(|(asked, _)| asked).collect(), offsets)
            }));
        }
    }

    fn validate(&mut self, reading: &mut Reading, now: Timestamp) {
        let mut leaders: BTreeMap<NodeId, Vec<(Asked, Epochs)>> = BTreeMap::new();
        reading.led_by(|at| self.shared.cluster.leader(at).map(|(_, epoch)| epoch));
        for (at, cursor) in reading.iter_mut() {
            let Some((leader, current)) = self.shared.cluster.leader(at) else { continue };
            if cursor.phase == Phase::Unvalidated && !cursor.asking && cursor.not_before <= now {
                cursor.asking = true;
                let epochs = Epochs { current, read: cursor.offset_epoch };
                leaders.entry(leader).or_default().push(((at.clone(), cursor.version), epochs));
            }
        }
        for (leader, asked) in leaders {
            let cluster = self.shared.cluster.clone();
            self.events.push(Box::pin(async move {
                let epochs = asked.iter().map(|((at, _), epochs)| (at.clone(), *epochs)).collect();
                let ends = epoch_ends(&cluster, leader, epochs).await;
                Event::Validated(asked.into_iter().map(|(asked, _)| asked).collect(), ends)
            }));
        }
    }

    /// Opens a long poll to each broker that has none and is read from, for all partitions that want more.
    fn fetch(&mut self, reading: &mut Reading, now: Timestamp) {
        let settings = &self.shared.cluster.settings.consumer;
        let mut sources: BTreeMap<NodeId, Vec<(TopicPartition, u64, Offset, i32)>> = BTreeMap::new();
        for (at, cursor) in reading.iter_mut() {
            let wants = cursor.phase == Phase::Known
                && !cursor.paused
                && cursor.not_before <= now
                && cursor.buffered() < settings.queued_min_messages
                && cursor.buffered_bytes < settings.queued_max_bytes;
            if wants
                && let Some((leader, epoch)) = self.shared.cluster.leader(at)
                && let source = cursor.preferred(now).unwrap_or(leader)
                && !self.fetching.contains(&source)
            {
                let asked = (at.clone(), cursor.version, cursor.fetch_offset, epoch);
                sources.entry(source).or_default().push(asked);
            }
        }
        for (source, mut asked) in sources {
            self.rotation = self.rotation.wrapping_add(1);
            let by = self.rotation % asked.len();
            asked.rotate_left(by);
            self.fetching.insert(source);
            let fetch = self.fetch_from(source, asked);
            self.events.push(fetch);
        }
    }

    fn fetch_from(
        &self,
        source: NodeId,
        asked: Vec<(TopicPartition, u64, Offset, i32)>,
    ) -> BoxFuture<'static, Event> {
        let cluster = self.shared.cluster.clone();
        let settings = cluster.settings.consumer.clone();
        let versions = asked.iter().map(|(at, version, ..)| (at.clone(), *version)).collect();
        let mut topics: Vec<(Arc<str>, Uuid, Vec<FetchPartition>)> = Vec::new();
        let partition_max_bytes = settings.fetch_partition_max_bytes;
        let epochs: BTreeMap<TopicPartition, i32> =
            asked.iter().map(|(at, _, _, epoch)| (at.clone(), *epoch)).collect();
        for (at, _, offset, _) in asked {
            let partition = FetchPartition::default()
                .with_partition(at.partition)
                .with_fetch_offset(offset)
                .with_partition_max_bytes(partition_max_bytes);
            match topics.last_mut().filter(|(topic, ..)| *topic == at.topic) {
                Some((_, _, partitions)) => partitions.push(partition),
                None => {
                    let id = cluster.topic_id(&at.topic).unwrap_or_default();
                    topics.push((at.topic.clone(), id, vec![partition]));
                }
            }
        }
        let all_have_ids = topics.iter().all(|(_, id, _)| !id.is_nil());
        let version_max = if all_have_ids { i16::MAX } else { FETCH_BY_ID - 1 };
        let rack = cluster.settings.client_rack.clone();
        let wait_ms = i32::try_from(settings.fetch_wait_max.as_millis()).unwrap_or(i32::MAX);
        let build = move |version: i16| {
            let topics = topics.into_iter().map(|(topic, id, mut partitions)| {
                for partition in &mut partitions {
                    // The broker checks that both mean the same leader (KIP-320).
                    if version >= 9 {
                        let at = TopicPartition::new(topic.clone(), partition.partition);
                        partition.current_leader_epoch = epochs.get(&at).copied().unwrap_or(-1);
                    }
                }
                let request = FetchTopic::default().with_partitions(partitions);
                if version >= FETCH_BY_ID {
                    request.with_topic_id(id)
                } else {
                    request.with_topic(topic_name(&topic))
                }
            });
            let request = FetchRequest::default()
                .with_max_wait_ms(wait_ms)
                .with_min_bytes(settings.fetch_min_bytes)
                .with_max_bytes(settings.fetch_max_bytes)
                .with_isolation_level(i8::from(settings.read_committed))
                .with_topics(topics.collect());
            if version >= 11 { request.with_rack_id(rack.into()) } else { request }
        };
        let timeout = settings.fetch_wait_max + cluster.settings.socket_timeout;
        let connection = match cluster.connection(Peer::Node(source)) {
            Ok(connection) => connection,
            Err(error) => return Box::pin(std::future::ready(Event::Fetched(source, versions, Err(error)))),
        };
        let answer = connection.request(timeout, version_max, build);
        Box::pin(async move { Event::Fetched(source, versions, answer.await.map_err(Error::from)) })
    }

    /// Asks for metadata where it is wanted or due; says when to look again.
    fn refresh(&mut self, reading: &mut Reading, now: Timestamp) -> Option<Timestamp> {
        let cluster = &self.shared.cluster;
        let due = cluster.refresh_due();
        self.refresh_wanted |= due.is_some_and(|due| due <= now);
        if !self.refresh_wanted || self.refreshing {
            return due.filter(|at| *at > now);
        }
        if self.refresh_not_before > now {
            return Some(self.refresh_not_before);
        }
        self.refresh_wanted = false;
        self.refreshing = true;
        let (cluster, known) = (cluster.clone(), cluster.version());
        let held: BTreeSet<Arc<str>> = reading.iter_mut().map(|(at, _)| at.topic.clone()).collect();
        self.events.push(Box::pin(async move { Event::Refreshed(cluster.refresh(&held, known).await) }));
        None
    }

    fn handle(&mut self, event: Event) {
        let shared = self.shared.clone();
        let now = shared.cluster.context.now();
        let mut reading = shared.reading();
        match event {
            Event::Refreshed(result) => {
                self.refreshing = false;
                let all_led = reading.iter_mut().all(|(at, _)| shared.cluster.leader(at).is_some());
                if result.is_ok() && all_led {
                    self.refresh_backoff.reset();
                }
                self.refresh_not_before = now + self.refresh_backoff.next(&mut self.rng);
            }
            Event::Committed(asked, offsets) => self.position_by_group(&mut reading, asked, offsets, now),
            Event::Listed(asked, offsets) => self.position_by_log(&mut reading, asked, offsets, now),
            Event::Validated(asked, ends) => self.take_in_validation(&mut reading, asked, ends, now),
            Event::Fetched(source, asked, answer) => {
                self.fetching.remove(&source);
                self.take_in(&mut reading, &asked, answer, now);
            }
        }
    }

    fn retry_at(&mut self, now: Timestamp) -> Timestamp {
        let settings = &self.shared.cluster.settings;
        now + after_failures(settings.retry_backoff, settings.retry_backoff_max, 1, &mut self.rng)
    }

    fn position_by_group(
        &mut self,
        reading: &mut Reading,
        asked: Vec<Asked>,
        offsets: Result<Vec<(TopicPartition, OffsetAndMetadata)>, Error>,
        now: Timestamp,
    ) {
        let retry_at = self.retry_at(now);
        let spec = self.shared.reset_spec();
        let (offsets, error) = match offsets {
            Ok(offsets) => (offsets.into_iter().collect::<BTreeMap<_, _>>(), None),
            Err(error) => (BTreeMap::new(), Some(error)),
        };
        for (at, version) in asked {
            let Some(cursor) = reading.asked(&at, version) else { continue };
            cursor.asking = false;
            match (offsets.get(&at), &error) {
                (_, Some(_)) => cursor.not_before = retry_at,
                (Some(position), None) => {
                    cursor.position_at(position.offset, position.leader_epoch.unwrap_or(-1));
                }
                (None, None) => {
                    cursor.phase = spec.map_or(Phase::Stuck, Phase::Reset);
                    if spec.is_none() {
                        reading.report(no_offset(&at, "the group has committed none"));
                    }
                }
            }
        }
        if let Some(error) = error {
            reading.report(error);
        }
        self.shared.news.notify_one();
    }

    fn position_by_log(
        &mut self,
        reading: &mut Reading,
        asked: Vec<Asked>,
        offsets: Result<Vec<Listed>, Error>,
        now: Timestamp,
    ) {
        let retry_at = self.retry_at(now);
        let mut offsets: BTreeMap<_, _> = match offsets {
            Ok(offsets) => offsets.into_iter().collect(),
            Err(_) => {
                self.refresh_wanted = true;
                BTreeMap::new()
            }
        };
        for (at, version) in asked {
            let Some(cursor) = reading.asked(&at, version) else { continue };
            cursor.asking = false;
            match offsets.remove(&at) {
                Some(Ok(Some((offset, epoch)))) => {
                    cursor.position_at(offset, epoch);
                    if let Some((_, current)) = self.shared.cluster.leader(&at) {
                        // It comes from that leader.
                        cursor.validated(current);
                    }
                }
                Some(Err(error)) if !error.is_retriable() => {
                    cursor.not_before = now + self.shared.cluster.settings.consumer.fetch_error_backoff;
                    reading.report(error);
                }
                _ => {
                    cursor.not_before = retry_at;
                    self.refresh_wanted = true;
                }
            }
        }
        self.shared.news.notify_one();
    }

    /// Both clients' rule (`rd_kafka_toppar_handle_OffsetForLeaderEpoch`, `OffsetFetcher.maybeValidateAllPositions`): a log
    /// that ends before the position was truncated, and reading goes on as [`Reading::truncated`] has it; without `auto.offset.reset` the
    /// user must say. A leader that knows nothing of the epoch leaves it to `auto.offset.reset`.
    fn take_in_validation(
        &mut self,
        reading: &mut Reading,
        asked: Vec<Asked>,
        ends: Result<EpochEnds, Error>,
        now: Timestamp,
    ) {
        let retry_at = self.retry_at(now);
        let spec = self.shared.reset_spec();
        for (at, version) in asked {
            let Some(cursor) = reading.asked(&at, version) else { continue };
            cursor.asking = false;
            let current = self.shared.cluster.leader(&at).map_or(-1, |(_, epoch)| epoch);
            let answer = match &ends {
                Ok(ends) => ends.get(&at).cloned(),
                // Too old a broker to ask.
                Err(error) if error.code == ErrorCode::Broker(code::UNSUPPORTED_VERSION) => {
                    cursor.validated(current);
                    continue;
                }
                Err(_) => None,
            };
            let position = cursor.fetch_offset;
            match answer {
                Some(Ok(EpochEnd { asked, .. }))
                    if asked != (Epochs { current, read: cursor.offset_epoch }) =>
                {
                    // Another leader by now, or a fetch that was under way brought more: it is asked again.
                }
                Some(Ok(EpochEnd { end: Some((_, end)), .. })) if end >= position => {
                    cursor.validated(current)
                }
                Some(Ok(EpochEnd { end: Some((epoch, end)), .. })) if spec.is_some() => {
                    let from = reading.truncated(&at, end, epoch);
                    self.shared.cluster.context.note(format_args!(
                        "{at} was truncated: epoch {epoch} ends at {end}, read up to {position}, goes on from {from:?}"
                    ));
                }
                Some(Ok(EpochEnd { end, .. })) => {
                    cursor.phase = spec.map_or(Phase::Stuck, Phase::Reset);
                    let why = match end {
                        Some((_, end)) => format!("the log was truncated to {end}, before {position}"),
                        None => format!("the leader knows nothing of the epoch before {position}"),
                    };
                    self.shared.cluster.context.note(format_args!("{at}: {why}"));
                    if spec.is_none() {
                        reading.report(no_offset(&at, &why));
                    }
                }
                Some(Err(_)) | None => {
                    cursor.not_before = retry_at;
                    self.refresh_wanted = true;
                }
            }
        }
        self.shared.news.notify_one();
    }

    fn take_in(
        &mut self,
        reading: &mut Reading,
        asked: &BTreeMap<TopicPartition, u64>,
        answer: Result<Answered<FetchResponse>, Error>,
        now: Timestamp,
    ) {
        let retry_at = self.retry_at(now);
        let answer = match answer {
            Ok(answer) if answer.body.error_code == 0 => answer,
            other => {
                self.refresh_wanted = true;
                for (at, version) in asked {
                    if let Some(cursor) = reading.asked(at, *version) {
                        cursor.not_before = retry_at;
                        cursor.back_to_leader();
                    }
                }
                let error = match other {
                    Ok(answer) => error::answered(answer.body.error_code, "fetch"),
                    Err(error) => error,
                };
                if !error.is_retriable() {
                    reading.report(error);
                    self.shared.news.notify_one();
                }
                return;
            }
        };
        let mut names: BTreeMap<Uuid, Arc<str>> = BTreeMap::new();
        let mut last: Option<&Arc<str>> = None;
        // The partitions of a topic stand together.
        for at in asked.keys().filter(|at| last.replace(&at.topic) != Some(&at.topic)) {
            names.extend(self.shared.cluster.topic_id(&at.topic).map(|id| (id, at.topic.clone())));
        }
        for topic in answer.body.responses {
            let name = match answer.version >= FETCH_BY_ID {
                true => names.get(&topic.topic_id).cloned(),
                false => Some(Arc::from(topic.topic.as_str())),
            };
            let Some(name) = name else { continue };
            for partition in topic.partitions {
                let at = TopicPartition::new(name.clone(), partition.partition_index);
                if let Some(version) = asked.get(&at) {
                    self.take_in_partition(reading, &at, *version, partition, now, retry_at);
                }
            }
        }
    }

    fn take_in_partition(
        &mut self,
        reading: &mut Reading,
        at: &TopicPartition,
        version: u64,
        answer: PartitionData,
        now: Timestamp,
        retry_at: Timestamp,
    ) {
        let settings = &self.shared.cluster.settings.consumer;
        let Some(cursor) = reading.asked(at, version) else { return };
        match answer.error_code {
            0 if answer.preferred_read_replica.0 >= 0 => {
                cursor.prefer(answer.preferred_read_replica.0, now + FOLLOWER_LEASE);
            }
            0 => {
                let bytes = answer.records.unwrap_or_default();
                let aborted = answer.aborted_transactions.unwrap_or_default();
                let from = cursor.fetch_offset;
                let size = bytes.len();
                match read_batches(at, bytes, from, settings.read_committed, settings.check_crcs, aborted) {
                    Ok(ReadUp { records, next, epoch }) => {
                        reading.fetched(at, version, records, size, next, epoch);
                        if next > from {
                            self.shared.news.notify_one();
                        }
                    }
                    Err(malformed) => {
                        cursor.not_before = now + settings.fetch_error_backoff;
                        let text = format!("{at}: {malformed}");
                        reading.report(Error::new(
                            ErrorCode::Broker(code::CORRUPT_MESSAGE),
                            ErrorClass::Failed,
                            text,
                        ));
                        self.shared.news.notify_one();
                    }
                }
            }
            // A follower may be behind, or its view old: the leader decides.
            code::OFFSET_OUT_OF_RANGE if cursor.back_to_leader() => {}
            code::OFFSET_OUT_OF_RANGE => {
                let offset = cursor.fetch_offset;
                let spec = self.shared.reset_spec();
                cursor.phase = spec.map_or(Phase::Stuck, Phase::Reset);
                self.shared.cluster.context.note(format_args!("offset {offset} of {at} is out of range"));
                if spec.is_none() {
                    reading.report(no_offset(at, &format!("offset {offset} is outside the log")));
                    self.shared.news.notify_one();
                }
            }
            code => {
                cursor.back_to_leader();
                cursor.not_before = retry_at.max(now);
                if wants_metadata(code) {
                    self.refresh_wanted = true;
                    let leader = &answer.current_leader;
                    self.shared.cluster.learn_leader(at, leader.leader_id.0, leader.leader_epoch);
                } else {
                    cursor.not_before = now + settings.fetch_error_backoff;
                }
                if class_of(code) != ErrorClass::Retriable {
                    reading.report(error::answered(code, format!("fetch of {at}")));
                    self.shared.news.notify_one();
                }
            }
        }
    }
}

impl Shared {
    /// What `auto.offset.reset` asks for; `None` for `error`.
    fn reset_spec(&self) -> Option<OffsetSpec> {
        match self.cluster.settings.consumer.auto_offset_reset {
            OffsetReset::Earliest => Some(OffsetSpec::Earliest),
            OffsetReset::Latest => Some(OffsetSpec::Latest),
            OffsetReset::Error => None,
        }
    }
}

fn no_offset(at: &TopicPartition, why: &str) -> Error {
    let text = format!("no offset to read {at} from: {why}, and `auto.offset.reset` is `error`");
    Error::new(ErrorCode::OffsetOutOfRange, ErrorClass::Failed, text)
}

/// What a fetch brought.
struct ReadUp {
    records: Vec<ConsumerRecord>,
    /// Where the next fetch begins.
    next: Offset,
    /// The epoch of the leader that wrote the last batch; -1 without one.
    epoch: i32,
}

/// Reads a fetch's batches from offset `from` on; gives the records and where the next fetch begins. A batch is sent
/// whole, so its first records may be before `from`. Control batches, and in read_committed aborted transactions, are
/// passed over.
fn read_batches(
    at: &TopicPartition,
    mut bytes: Bytes,
    from: Offset,
    read_committed: bool,
    check_crcs: bool,
    mut aborted: Vec<AbortedTransaction>,
) -> Result<ReadUp, batch::Malformed> {
    aborted.sort_by_key(|transaction| std::cmp::Reverse(transaction.first_offset));
    let mut aborting = BTreeSet::new();
    let mut records = Vec::new();
    let (mut next, mut epoch) = (from, -1);
    while let Some(batch) = batch::decode(&mut bytes, check_crcs)? {
        while aborted.last().is_some_and(|transaction| transaction.first_offset <= batch.last_offset) {
            aborting.extend(aborted.pop().map(|transaction| transaction.producer_id.0));
        }
        next = next.max(batch.last_offset + 1);
        epoch = batch.leader_epoch;
        if batch.control {
            if is_abort(&batch) {
                aborting.remove(&batch.producer.producer_id);
            }
            continue;
        }
        if read_committed && batch.transactional && aborting.contains(&batch.producer.producer_id) {
            continue;
        }
        let leader_epoch = Some(batch.leader_epoch).filter(|epoch| *epoch >= 0);
        let read = batch.records();
        records.reserve(read.len());
        let wanted = read.filter(|record| record.offset >= from);
        records.extend(wanted.map(|record| consumer_record(at, leader_epoch, record)));
    }
    Ok(ReadUp { records, next, epoch })
}

fn is_abort(batch: &Batch) -> bool {
    let key = batch.records().next().and_then(|record| record.key);
    let marker = key.as_ref().and_then(|key| key.get(2..4));
    marker.is_some_and(|kind| kind == ABORT_MARKER.to_be_bytes())
}

fn consumer_record(at: &TopicPartition, leader_epoch: Option<i32>, record: Record) -> ConsumerRecord {
    ConsumerRecord {
        partition: at.clone(),
        offset: record.offset,
        leader_epoch,
        timestamp: Timestamp::from_millis(u64::try_from(record.timestamp).unwrap_or(0)),
        key: record.key,
        value: record.value,
        headers: record.headers,
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use crate::batch::{BatchBuilder, ProducerStamp};

    use super::*;

    const COMMIT: i16 = 1;

    /// A batch of one record at `offset`.
    fn batch(offset: Offset, producer_id: i64, transactional: bool) -> Bytes {
        let mut builder = BatchBuilder::default();
        builder.append(1, None, Some(format!("{offset}").as_bytes()), &broker::Headers::default());
        let stamp = ProducerStamp { producer_id, producer_epoch: 0, base_sequence: 0 };
        placed(builder.encode(stamp, transactional, kafka::log::compression::Codec::None), offset, 0)
    }

    /// The end of a transaction.
    fn marker(offset: Offset, producer_id: i64, kind: i16) -> Bytes {
        let mut builder = BatchBuilder::default();
        let key = [[0, 0], kind.to_be_bytes()].concat();
        builder.append(1, Some(&key), Some(&[0; 6]), &broker::Headers::default());
        let stamp = ProducerStamp { producer_id, producer_epoch: 0, base_sequence: -1 };
        placed(builder.encode(stamp, true, kafka::log::compression::Codec::None), offset, 1 << 5)
    }

    fn placed(bytes: Bytes, offset: Offset, attributes: u8) -> Bytes {
        let mut bytes = bytes.to_vec();
        bytes[..8].copy_from_slice(&offset.to_be_bytes());
        bytes[12..16].copy_from_slice(&3i32.to_be_bytes());
        bytes[22] |= attributes;
        bytes.into()
    }

    fn aborted(producer_id: i64, first_offset: Offset) -> AbortedTransaction {
        AbortedTransaction::default().with_producer_id(producer_id.into()).with_first_offset(first_offset)
    }

    fn read(
        batches: &[Bytes],
        from: Offset,
        committed: bool,
        aborted: Vec<AbortedTransaction>,
    ) -> (Vec<Offset>, Offset) {
        let mut bytes = BytesMut::new();
        batches.iter().for_each(|batch| bytes.extend_from_slice(batch));
        let at = TopicPartition::new("t", 0);
        let read = read_batches(&at, bytes.freeze(), from, committed, false, aborted).expect("well formed");
        (read.records.iter().map(|record| record.offset).collect(), read.next)
    }

    #[test]
    fn aborted_ranges_end_with_their_marker_and_concern_one_producer() {
        let log = [
            batch(0, 7, true),
            batch(1, 8, true),
            batch(2, 7, true),
            marker(3, 7, ABORT_MARKER),
            batch(4, 7, true),
            marker(5, 8, COMMIT),
            marker(6, 7, COMMIT),
        ];
        assert_eq!(read(&log, 0, true, vec![aborted(7, 0)]), (vec![1, 4], 7));
        assert_eq!(read(&log, 0, false, vec![]), (vec![0, 1, 2, 4], 7));
    }

    #[test]
    fn a_producer_that_aborts_again_and_again_is_followed() {
        let log = [
            batch(0, 7, true),
            marker(1, 7, ABORT_MARKER),
            batch(2, 7, true),
            marker(3, 7, COMMIT),
            batch(4, 7, true),
            marker(5, 7, ABORT_MARKER),
        ];
        // The broker need not tell them in order.
        assert_eq!(read(&log, 0, true, vec![aborted(7, 4), aborted(7, 0)]), (vec![2], 6));
    }

    #[test]
    fn a_fetch_from_the_middle_of_an_aborted_transaction_sees_none_of_it() {
        let log = [batch(2, 7, true), marker(3, 7, ABORT_MARKER), batch(4, -1, false)];
        assert_eq!(read(&log, 2, true, vec![aborted(7, 0)]), (vec![4], 5));
    }

    #[test]
    fn a_plain_record_within_an_aborted_range_is_read() {
        let log = [batch(0, 7, true), batch(1, -1, false), batch(2, 7, false), marker(3, 7, ABORT_MARKER)];
        assert_eq!(read(&log, 0, true, vec![aborted(7, 0)]), (vec![1, 2], 4));
    }
}

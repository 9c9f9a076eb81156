//! Long polls: one to each broker that is read from, and what its answer means for each partition.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use broker::{Error, ErrorClass, ErrorCode, Offset, TopicPartition};
use context::{BoxFuture, Timestamp};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use uuid::Uuid;

use super::batches::{ReadUp, read_batches};
use super::{Event, Fetcher, no_offset};
use crate::cluster::{NodeId, Peer, topic_name};
use crate::connection::Answered;
use crate::error::{self, code, wants_metadata};
use crate::reading::{Phase, Reading};

/// From this version on topics go by their ids (KIP-516).
const FETCH_BY_ID: i16 = 13;

/// For how long a follower is read from that the leader named: librdkafka asks again after five minutes, and the Java
/// client after `metadata.max.age.ms`, which is as long.
const FOLLOWER_LEASE: Duration = Duration::from_secs(300);

impl Fetcher {
    /// Opens a long poll to each broker that has none and is read from, for all partitions that want more.
    pub(super) fn fetch(&mut self, reading: &mut Reading, now: Timestamp) {
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

    pub(super) fn take_in(
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
                if ErrorClass::of_broker(code) != ErrorClass::Retriable {
                    reading.report(error::answered(code, format!("fetch of {at}")));
                    self.shared.news.notify_one();
                }
            }
        }
    }
}

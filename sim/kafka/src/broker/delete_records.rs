//! DeleteRecords (21), versions 0 to 2: the start of a partition's log moves to an offset, -1 for the high watermark.
//!
//! Kafka's `Partition.deleteRecordsOnLeader` and `DelayedDeleteRecords`: the leader moves its start at once, and answers when
//! every live replica has followed (the low watermark), or at the timeout with `REQUEST_TIMED_OUT`. A topic that is only
//! compacted refuses with `POLICY_VIOLATION`, an internal one with `INVALID_TOPIC_EXCEPTION`. Of a partition that is named
//! twice the last offset counts, and it has one answer.

use std::collections::{BTreeMap, BTreeSet};

use context::Timestamp;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse, TopicName};

use super::{Broker, Timer, Turn};
use crate::config::millis;
use crate::core::ConnectionId;
use crate::log::Log;
use crate::metadata::PartitionKey;
use crate::wire::Call;

/// The high watermark, as an offset to delete up to.
const HIGH_WATERMARK: i64 = -1;
/// The low watermark of an answer with an error.
const NO_LOW_WATERMARK: i64 = -1;

/// Requests whose replicas have not all followed yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Deletions {
    next: u64,
    waiting: BTreeMap<u64, Deletion>,
    by_partition: BTreeMap<PartitionKey, BTreeSet<u64>>,
}

#[derive(Clone, Debug)]
struct Deletion {
    connection: ConnectionId,
    call: Call,
    response: DeleteRecordsResponse,
    until: Timestamp,
    /// Which of the response's topics and partitions waits, and for which low watermark.
    pending: BTreeMap<PartitionKey, (usize, usize, i64)>,
}

impl Deletions {
    fn add(&mut self, deletion: Deletion) -> u64 {
        let id = self.next;
        self.next += 1;
        for &key in deletion.pending.keys() {
            self.by_partition.entry(key).or_default().insert(id);
        }
        self.waiting.insert(id, deletion);
        id
    }

    /// One of its partitions waits no more.
    fn settle(&mut self, id: u64, key: PartitionKey) {
        if let Some(ids) = self.by_partition.get_mut(&key) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_partition.remove(&key);
            }
        }
    }
}

impl Broker {
    pub(super) fn delete_records(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: Call,
        request: &DeleteRecordsRequest,
    ) {
        // Each once, as Kafka's map of offsets.
        let mut asked: BTreeMap<&TopicName, BTreeMap<i32, i64>> = BTreeMap::new();
        for topic in &request.topics {
            for partition in &topic.partitions {
                asked.entry(&topic.name).or_default().insert(partition.partition_index, partition.offset);
            }
        }
        let mut response = DeleteRecordsResponse::default();
        let mut pending = BTreeMap::new();
        let mut moved = Vec::new();
        for (topic_at, (name, partitions)) in asked.into_iter().enumerate() {
            let mut answered = DeleteRecordsTopicResult::default().with_name(name.clone());
            for (at, (index, offset)) in partitions.into_iter().enumerate() {
                let mut result = DeleteRecordsPartitionResult::default().with_partition_index(index);
                match self.delete_before(turn, name, index, offset) {
                    Ok((key, offset)) => {
                        moved.push(key);
                        result.low_watermark = self.low_watermark(&turn.disk.logs[&key], key);
                        if result.low_watermark < offset {
                            result.error_code = ResponseError::RequestTimedOut.code();
                            pending.insert(key, (topic_at, at, offset));
                        }
                    }
                    Err(error) => {
                        result.low_watermark = NO_LOW_WATERMARK;
                        result.error_code = error.code();
                    }
                }
                answered.partitions.push(result);
            }
            response.topics.push(answered);
        }
        if pending.is_empty() {
            turn.respond(connection, &call, response);
        } else {
            let until = turn.now + millis(request.timeout_ms.max(0));
            let id = self.deletions.add(Deletion { connection, call, response, until, pending });
            self.timers.set(until, Timer::DeleteRecords(id));
        }
        for key in moved {
            self.log_start_moved(turn, key);
        }
    }

    /// Moves the start of a log that this broker leads; gives the offset that was meant.
    fn delete_before(
        &mut self,
        turn: &mut Turn<'_>,
        name: &TopicName,
        index: i32,
        offset: i64,
    ) -> Result<(PartitionKey, i64), ResponseError> {
        let topic = self.image.topic(name.as_str()).ok_or(ResponseError::UnknownTopicOrPartition)?;
        let key = PartitionKey { topic: topic.id, index };
        if self.image.partition(key).is_none() {
            return Err(ResponseError::UnknownTopicOrPartition);
        }
        if super::is_internal(&topic.name) {
            return Err(ResponseError::InvalidTopicException);
        }
        let policy = topic.settings.cleanup_policy(&self.settings);
        let high_watermark = self.led(key)?.high_watermark;
        if !policy.delete {
            return Err(ResponseError::PolicyViolation);
        }
        let offset = if offset == HIGH_WATERMARK { high_watermark } else { offset };
        if offset < 0 {
            return Err(ResponseError::OffsetOutOfRange);
        }
        let log = turn.disk.logs.get_mut(&key).expect("a partition that is led has a log");
        let raised = log.raise_start_offset(offset, high_watermark);
        if raised.map_err(|_| ResponseError::OffsetOutOfRange)? {
            let partition = self.partitions.get_mut(&key).expect("a partition that is led is here");
            partition.producers.log_start_moved(log);
        }
        Ok((key, offset))
    }

    /// Where the log of every live replica has begun: this leader's own, and its followers' as their last fetches told.
    fn low_watermark(&self, log: &Log, key: PartitionKey) -> i64 {
        let leadership = self.partitions.get(&key).and_then(|partition| partition.leadership.as_ref());
        let followers = leadership.into_iter().flat_map(|leadership| leadership.followers());
        let is_live = |node| self.image.brokers.get(node).is_some_and(|broker| !broker.fenced);
        let starts = followers.filter(|(node, _)| is_live(*node)).map(|(_, follower)| follower.start_offset);
        starts.min().map_or(log.start_offset(), |low| low.min(log.start_offset()))
    }

    /// The log of a replica of this partition begins elsewhere now, or its leader has changed: ends the waits that are over.
    pub(super) fn log_start_moved(&mut self, turn: &mut Turn<'_>, key: PartitionKey) {
        let Some(ids) = self.deletions.by_partition.get(&key).cloned() else { return };
        let low = self.led(key).map(|_| self.low_watermark(&turn.disk.logs[&key], key));
        for id in ids {
            let deletion = self.deletions.waiting.get_mut(&id).expect("what is listed waits");
            let &(topic, at, required) =
                deletion.pending.get(&key).expect("it is listed with its partitions");
            if low.is_ok_and(|low| low < required) {
                continue;
            }
            let result = &mut deletion.response.topics[topic].partitions[at];
            result.low_watermark = low.unwrap_or(NO_LOW_WATERMARK);
            result.error_code = low.err().map_or(0, |error| error.code());
            deletion.pending.remove(&key);
            let (is_done, until) = (deletion.pending.is_empty(), deletion.until);
            self.deletions.settle(id, key);
            if is_done {
                self.timers.cancel(until, Timer::DeleteRecords(id));
                self.delete_records_due(turn, id);
            }
        }
    }

    /// Answers as things are; what still waits says that it timed out.
    pub(super) fn delete_records_due(&mut self, turn: &mut Turn<'_>, id: u64) {
        // All may have followed in time.
        if let Some(deletion) = self.deletions.waiting.remove(&id) {
            for &key in deletion.pending.keys() {
                self.deletions.settle(id, key);
            }
            turn.respond(deletion.connection, &deletion.call, deletion.response);
        }
    }
}

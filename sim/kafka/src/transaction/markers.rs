//! Markers on their way: to the leaders of a prepared transaction's partitions, again where that failed, and the end of
//! the transaction when all are written (Kafka's `TransactionMarkerChannelManager` and its completion handler).
//!
//! The broker asks [`Coordinator::route_markers`] where markers can go now, sends each broker what
//! [`Coordinator::next_markers`] gives, one request at a time, and hands the answer to [`Coordinator::markers_answered`].
//!
//! Kafka tries markers again at once, and the round trip to the leader is the pause between tries. Here the pause is
//! [`RETRY_MS`], the backoff of Kafka's reconnects, so that a leader that is away costs little.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::ResponseError;

use super::coordinator::{Coordinator, Effect, Leader, Producer, Purpose, Timer};
use super::metadata::{TopicPartition, Transit};
use crate::metadata::NodeId;

/// How soon markers that could not be written are tried again: `reconnect.backoff.ms` of Kafka's inter-broker clients.
const RETRY_MS: i64 = 50;

/// What one broker is asked to write: the end of one transaction in some of its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Whose transaction.
    pub producer: Producer,
    /// Commit, or abort.
    pub commit: bool,
    /// The epoch of the coordinator's partition.
    pub coordinator_epoch: i32,
    /// Where.
    pub partitions: BTreeSet<TopicPartition>,
}

/// How the markers of one producer ended, by partition.
pub type MarkerResult = (i64, Vec<(TopicPartition, Result<(), ResponseError>)>);

/// Markers of one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) coordinator_epoch: i32,
    pub(super) producer: Producer,
    pub(super) commit: bool,
    pub(super) partitions: BTreeSet<TopicPartition>,
}

/// What is appended when a transaction's markers are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Completion {
    pub(super) coordinator_epoch: i32,
    pub(super) to: Transit,
}

/// All markers of one coordinator.
#[derive(Clone, Debug, Default)]
pub(super) struct Markers {
    completing: BTreeMap<String, Completion>,
    /// To be routed when asked next.
    unrouted: Vec<Entry>,
    /// Without a live leader, or failed: to be routed when the metadata changes or after a pause.
    held: Vec<Entry>,
    retry_armed: bool,
    queued: BTreeMap<NodeId, Vec<Entry>>,
    in_flight: BTreeMap<NodeId, Vec<Entry>>,
    /// Ends that could not be appended.
    appends: Vec<(String, Completion)>,
    appends_armed: bool,
}

impl Markers {
    pub(super) fn add(&mut self, entry: Entry, completion: Completion) {
        self.completing.insert(entry.id.clone(), completion);
        if !entry.partitions.is_empty() {
            self.unrouted.push(entry);
        }
    }

    /// Forgets the markers of ids that are no longer here. What is in flight is forgotten when it is answered.
    pub(super) fn forget(&mut self, gone: impl Fn(&str) -> bool) {
        self.completing.retain(|id, _| !gone(id));
        self.unrouted.retain(|entry| !gone(&entry.id));
        self.held.retain(|entry| !gone(&entry.id));
        self.queued.values_mut().for_each(|queue| queue.retain(|entry| !gone(&entry.id)));
        self.appends.retain(|(id, _)| !gone(id));
    }

    fn cancel(&mut self, id: &str, coordinator_epoch: i32) {
        let same = |completion: &Completion| completion.coordinator_epoch == coordinator_epoch;
        if self.completing.get(id).is_some_and(same) {
            self.completing.remove(id);
        }
    }

    fn hold(&mut self, now_ms: i64, entry: Entry, out: &mut Vec<Effect>) {
        self.held.push(entry);
        if !std::mem::replace(&mut self.retry_armed, true) {
            out.push(Effect::Wake { timer: Timer::RetryMarkers, at_ms: now_ms + RETRY_MS });
        }
    }
}

impl Coordinator {
    /// Transactions whose markers are not all written.
    pub fn completing(&self) -> usize {
        self.markers.completing.len()
    }

    /// Whether markers wait for a leader, or for another try.
    pub fn has_held_markers(&self) -> bool {
        !self.markers.held.is_empty()
    }

    /// Whether [`Self::route_markers`] has anything to do.
    pub fn has_unrouted_markers(&self) -> bool {
        !self.markers.unrouted.is_empty()
    }

    /// Finds out where markers must go. Partitions that are gone need none; those without a leader wait.
    pub fn route_markers(&mut self, leader_of: impl Fn(&TopicPartition) -> Leader, out: &mut Vec<Effect>) {
        for entry in std::mem::take(&mut self.markers.unrouted) {
            let mut by_node: BTreeMap<NodeId, BTreeSet<TopicPartition>> = BTreeMap::new();
            let (mut away, mut gone) = (BTreeSet::new(), BTreeSet::new());
            for partition in &entry.partitions {
                let partition = partition.clone();
                match leader_of(&partition) {
                    Leader::At(node) => by_node.entry(node).or_default().insert(partition),
                    Leader::Away => away.insert(partition),
                    Leader::Gone => gone.insert(partition),
                };
            }
            for (node, partitions) in by_node {
                let queue = self.markers.queued.entry(node).or_default();
                queue.push(Entry { partitions, ..entry.clone() });
            }
            if !away.is_empty() {
                // The metadata that names its next leader brings it back.
                self.markers.held.push(Entry { partitions: away, ..entry.clone() });
            }
            if !gone.is_empty() {
                match self.same_epoch(entry.coordinator_epoch, &entry.id) {
                    Ok(transaction) => gone.iter().for_each(|partition| transaction.marked(partition)),
                    Err(_) => self.markers.cancel(&entry.id, entry.coordinator_epoch),
                }
                self.complete_if_marked(&entry.id, out);
            }
        }
        self.drain_appends(out);
    }

    /// The brokers that markers wait for.
    pub fn marker_destinations(&self) -> Vec<NodeId> {
        let free = |node: &&NodeId| !self.markers.in_flight.contains_key(node);
        let waiting = self.markers.queued.iter().filter(|(_, queue)| !queue.is_empty());
        waiting.map(|(node, _)| node).filter(free).copied().collect()
    }

    /// The next request to a broker: everything that waits for it, if nothing is in flight.
    pub fn next_markers(&mut self, node: NodeId) -> Vec<Marker> {
        if self.markers.in_flight.contains_key(&node) {
            return Vec::new();
        }
        let Some(entries) = self.markers.queued.remove(&node).filter(|queue| !queue.is_empty()) else {
            return Vec::new();
        };
        let marker = |entry: &Entry| Marker {
            producer: entry.producer,
            commit: entry.commit,
            coordinator_epoch: entry.coordinator_epoch,
            partitions: entry.partitions.clone(),
        };
        let markers = entries.iter().map(marker).collect();
        self.markers.in_flight.insert(node, entries);
        markers
    }

    /// A broker answered its markers; `None` if it never will.
    pub fn markers_answered(
        &mut self,
        now_ms: i64,
        node: NodeId,
        results: Option<&[MarkerResult]>,
        out: &mut Vec<Effect>,
    ) {
        for entry in self.markers.in_flight.remove(&node).unwrap_or_default() {
            let Some(results) = results else {
                if self.same_epoch(entry.coordinator_epoch, &entry.id).is_ok() {
                    self.markers.hold(now_ms, entry, out);
                } else {
                    self.markers.cancel(&entry.id, entry.coordinator_epoch);
                }
                continue;
            };
            self.entry_answered(now_ms, entry, results, out);
        }
        self.drain_appends(out);
    }

    fn entry_answered(&mut self, now_ms: i64, entry: Entry, results: &[MarkerResult], out: &mut Vec<Effect>) {
        let Ok(transaction) = self.same_epoch(entry.coordinator_epoch, &entry.id) else {
            return self.markers.cancel(&entry.id, entry.coordinator_epoch);
        };
        let of_producer = || results.iter().filter(|(id, _)| *id == entry.producer.id).flat_map(|(_, of)| of);
        let mut again = BTreeSet::new();
        let mut cancelled = None;
        for partition in &entry.partitions {
            match of_producer().find(|(of, _)| of == partition).map(|(_, result)| result) {
                // The second for old message formats, which Kafka has no more: no data can be there.
                Some(Ok(()) | Err(ResponseError::UnsupportedForMessageFormat)) => {
                    transaction.marked(partition)
                }
                Some(&Err(
                    error @ (ResponseError::InvalidProducerEpoch
                    | ResponseError::TransactionCoordinatorFenced),
                )) => cancelled = Some(error),
                // Kafka retries UNKNOWN_TOPIC_OR_PARTITION, NOT_LEADER_OR_FOLLOWER, NOT_ENOUGH_REPLICAS (before and after
                // the append), REQUEST_TIMED_OUT and KAFKA_STORAGE_ERROR, and its sender dies of all others.
                Some(Err(_)) | None => _ = again.insert(partition.clone()),
            }
        }
        if let Some(error) = cancelled {
            // Someone newer has taken over; here the transaction stays prepared until the next coordinator.
            self.markers.cancel(&entry.id, entry.coordinator_epoch);
            return out
                .push(Effect::Note(format!("markers of transaction {} are given up: {error}", entry.id)));
        }
        if again.is_empty() {
            self.complete_if_marked(&entry.id, out);
        } else {
            self.markers.hold(now_ms, Entry { partitions: again, ..entry }, out);
        }
    }

    /// The pause is over, or the metadata changed: markers that were held may have somewhere to go.
    pub fn retry_markers(&mut self, due: bool) {
        if due {
            self.markers.retry_armed = false;
        }
        let held = std::mem::take(&mut self.markers.held);
        self.markers.unrouted.extend(held);
    }

    /// Appends the end of a transaction that has all its markers.
    pub(super) fn complete_if_marked(&mut self, id: &str, out: &mut Vec<Effect>) {
        let Some(completion) = self.markers.completing.get(id) else { return };
        let coordinator_epoch = completion.coordinator_epoch;
        let marked = match self.same_epoch(coordinator_epoch, id) {
            Ok(transaction) => transaction.current.partitions.is_empty(),
            Err(_) => return self.markers.cancel(id, coordinator_epoch),
        };
        if marked {
            let completion = self.markers.completing.remove(id).expect("it was just there");
            self.append(coordinator_epoch, id.to_owned(), completion.to, Purpose::Complete, out);
        }
    }

    /// Kafka's sender tries such appends again when anything wakes it, or when its poll times out after
    /// `request.timeout.ms`.
    pub(super) fn retry_append_later(
        &mut self,
        now_ms: i64,
        id: String,
        completion: Completion,
        out: &mut Vec<Effect>,
    ) {
        self.markers.appends.push((id, completion));
        if !std::mem::replace(&mut self.markers.appends_armed, true) {
            let at_ms = now_ms + self.settings.request_timeout_ms;
            out.push(Effect::Wake { timer: Timer::RetryAppends, at_ms });
        }
    }

    /// The time to try appends again.
    pub fn retry_appends(&mut self, out: &mut Vec<Effect>) {
        self.markers.appends_armed = false;
        self.drain_appends(out);
    }

    pub(super) fn drain_appends(&mut self, out: &mut Vec<Effect>) {
        for (id, completion) in std::mem::take(&mut self.markers.appends) {
            if self.same_epoch(completion.coordinator_epoch, &id).is_ok() {
                self.append(completion.coordinator_epoch, id, completion.to, Purpose::Complete, out);
            }
        }
    }
}

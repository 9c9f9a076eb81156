//! The transaction coordinator in its broker: its records into the transaction topic, its markers onto the links, its
//! answers to clients, its partitions as they come and go. The rules are in [`crate::transaction`].

use std::collections::BTreeMap;

use bytes::Bytes;
use context::Timestamp;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::{
    ApiKey, ProducerId, TopicName, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};
use uuid::Uuid;

use super::commit::{Acks, Then};
use super::lifecycle::Pending;
use super::{Broker, Timer, Turn, text};
use crate::config::{Features, Settings};
use crate::core::{ConnectionId, Lane, Link};
use crate::log::{Log, record};
use crate::metadata::{NO_LEADER, NodeId, PartitionKey};
use crate::transaction::{
    self, Append, Coordinator, Effect, Leader, Marker, MarkerResult, Producer, TRANSACTION_TOPIC, Ticket,
    TopicPartition, TransactionRecord, TransactionSettings, TransactionVersion,
};
use crate::wire::{self, Call};

/// How long a partition of the transaction topic takes to be read: Kafka hands it to a background thread, which reads
/// about 100,000 records a second. Clients that come meanwhile are told so.
const LOAD_MS_MIN: u64 = 1;
const LOADED_BATCHES_PER_MS: u64 = 100;

/// What the coordinator waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TransactionTimer {
    /// Its own deadlines.
    Core(transaction::Timer),
    /// A partition is read, for the leader epoch.
    Load(PartitionKey, i32),
}

/// Who waits for the coordinator's answer.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    InitProducerId {
        connection: ConnectionId,
        call: Call,
    },
    AddOffsetsToTxn {
        connection: ConnectionId,
        call: Call,
    },
    EndTxn {
        connection: ConnectionId,
        call: Call,
    },
    /// One transaction of an AddPartitionsToTxn.
    AddPartitionsToTxn {
        batch: u64,
        index: usize,
    },
}

/// The coordinator, and who waits for it.
#[derive(Debug)]
pub(super) struct Transactions {
    pub(super) coordinator: Coordinator,
    /// The transaction topic whose partitions it has.
    topic: Option<Uuid>,
    next: u64,
    asked: BTreeMap<Ticket, Asked>,
    appends: BTreeMap<u64, Append>,
    pub(super) batches: BTreeMap<u64, super::add_partitions_to_txn::Batch>,
}

impl Transactions {
    pub(super) fn new(settings: &Settings, features: Features) -> Transactions {
        let settings = TransactionSettings {
            version: TransactionVersion(features.transaction_version),
            max_timeout_ms: settings.transaction_max_timeout_ms,
            abort_interval_ms: settings.transaction_abort_timed_out_transaction_cleanup_interval_ms.into(),
            expiration_ms: settings.transactional_id_expiration_ms.into(),
            expiration_interval_ms: settings
                .transaction_remove_expired_transaction_cleanup_interval_ms
                .into(),
            request_timeout_ms: settings.request_timeout_ms.into(),
        };
        Transactions {
            coordinator: Coordinator::new(settings),
            topic: None,
            next: 0,
            asked: BTreeMap::new(),
            appends: BTreeMap::new(),
            batches: BTreeMap::new(),
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn ticket(&mut self, asked: Asked) -> Ticket {
        let ticket = Ticket(self.number());
        self.asked.insert(ticket, asked);
        ticket
    }
}

impl Broker {
    /// The transactional ids that it coordinates.
    pub fn transactions(&self) -> &Coordinator {
        &self.transactions.coordinator
    }

    /// Asks the coordinator, and does what it wants done.
    pub(super) fn transact(
        &mut self,
        turn: &mut Turn<'_>,
        ask: impl FnOnce(&mut Coordinator, i64, &mut Vec<Effect>),
    ) {
        let mut effects = Vec::new();
        ask(&mut self.transactions.coordinator, turn.now_ms(), &mut effects);
        self.do_transaction_effects(turn, effects);
        while self.transactions.coordinator.has_unrouted_markers() {
            let mut effects = Vec::new();
            let image = &self.image;
            let leader_of = |partition: &TopicPartition| {
                let Some((_, state)) = image.partition_of(&partition.0, partition.1) else {
                    return Leader::Gone;
                };
                let live = image.brokers.get(&state.leader).is_some_and(|broker| !broker.fenced);
                if state.leader == NO_LEADER || !live { Leader::Away } else { Leader::At(state.leader) }
            };
            self.transactions.coordinator.route_markers(leader_of, &mut effects);
            self.do_transaction_effects(turn, effects);
        }
        for node in self.transactions.coordinator.marker_destinations() {
            let markers = self.transactions.coordinator.next_markers(node);
            let frame = wire::request(ApiKey::WriteTxnMarkers, 1, 0, &marker_request(&markers));
            self.ask(turn, Link::broker(node, Lane::Markers), Pending::Markers { node }, frame);
        }
        if self.transactions.coordinator.producer_ids.wants_block() {
            self.ask_for_producer_ids(turn);
        }
    }

    fn do_transaction_effects(&mut self, turn: &mut Turn<'_>, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Append(append) => self.append_transaction(turn, append),
                Effect::Answer { ticket, result } => self.answer_transaction(turn, ticket, result),
                Effect::Wake { timer, at_ms } => {
                    let at = Timestamp::from_millis(at_ms.max(0) as u64);
                    self.timers.set(at, Timer::Transaction(TransactionTimer::Core(timer)));
                }
                Effect::Note(line) => turn.note(format!("broker {}: {line}", self.node)),
            }
        }
    }

    fn append_transaction(&mut self, turn: &mut Turn<'_>, append: Append) {
        let version = TransactionVersion(self.features.transaction_version);
        let records: Vec<_> = append.records().iter().map(|record| record.encode(version)).collect();
        let batch = record::write_batch(turn.now_ms(), &records);
        let topic = self.image.topic(TRANSACTION_TOPIC).map(|topic| topic.id);
        let key = topic.map(|topic| PartitionKey { topic, index: append.partition });
        let deadline = turn.now + std::time::Duration::from_millis(append.timeout_ms.max(0) as u64);
        let id = self.transactions.number();
        self.transactions.appends.insert(id, append);
        let appended = match key {
            Some(key) => {
                self.append_own(turn, key, (&batch, Acks::All), deadline, Then::Transaction(id)).map(|_| ())
            }
            None => Err(ResponseError::UnknownTopicOrPartition),
        };
        if let Err(error) = appended {
            self.transaction_appended(turn, id, Err(error));
        }
    }

    /// A record of the coordinator is committed, or cannot be.
    pub(super) fn transaction_appended(
        &mut self,
        turn: &mut Turn<'_>,
        id: u64,
        result: Result<(), ResponseError>,
    ) {
        let append = self.transactions.appends.remove(&id).expect("an append ends once");
        self.transact(turn, |coordinator, now_ms, out| coordinator.appended(now_ms, append, result, out));
    }

    fn answer_transaction(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: Ticket,
        result: Result<Producer, ResponseError>,
    ) {
        match self.transactions.asked.remove(&ticket).expect("a question is answered once") {
            Asked::InitProducerId { connection, call } => self.initialized(turn, connection, &call, result),
            Asked::AddOffsetsToTxn { connection, call } => {
                self.offsets_added(turn, connection, &call, result)
            }
            Asked::EndTxn { connection, call } => self.ended(turn, connection, &call, result),
            Asked::AddPartitionsToTxn { batch, index } => {
                self.partitions_added(turn, batch, index, result.map(|_| ()))
            }
        }
    }

    pub(super) fn transaction_timer(&mut self, turn: &mut Turn<'_>, timer: TransactionTimer) {
        match timer {
            TransactionTimer::Load(key, epoch) => self.transactions_loaded(turn, key, epoch),
            TransactionTimer::Core(timer) => self.transact(turn, |coordinator, now_ms, out| match timer {
                transaction::Timer::AbortTimedOut => coordinator.abort_timed_out(now_ms, out),
                transaction::Timer::RemoveExpired => coordinator.expire(now_ms, out),
                transaction::Timer::RetryMarkers => coordinator.retry_markers(true),
                transaction::Timer::RetryAppends => coordinator.retry_appends(out),
            }),
        }
    }

    /// A broker answered its markers.
    pub(super) fn markers_written(&mut self, turn: &mut Turn<'_>, node: NodeId, frame: Option<Bytes>) {
        let answer = frame.and_then(|frame| wire::response::<WriteTxnMarkersResponse>(&frame, 1).ok());
        let results = answer.map(marker_results);
        self.transact(turn, |coordinator, now_ms, out| {
            coordinator.markers_answered(now_ms, node, results.as_deref(), out);
        });
    }

    /// The metadata moved on: markers without a leader may have one now.
    pub(super) fn reroute_markers(&mut self, turn: &mut Turn<'_>) {
        if self.transactions.coordinator.has_held_markers() {
            self.transact(turn, |coordinator, _, _| coordinator.retry_markers(false));
        }
    }

    /// This broker leads a partition of the transaction topic, in a new epoch: it begins to read it.
    pub(super) fn load_transactions(&mut self, turn: &mut Turn<'_>, key: PartitionKey, epoch: i32) {
        let partitions = self.image.topics[&key.topic].partitions.len();
        self.transactions.topic = Some(key.topic);
        self.transactions.coordinator.begin_load(key.index, partitions, epoch);
        let batches = turn.disk.logs[&key].batches().count() as u64;
        let takes = std::time::Duration::from_millis(LOAD_MS_MIN + batches / LOADED_BATCHES_PER_MS);
        let timer = TransactionTimer::Load(key, epoch);
        self.timers.set(turn.now + takes, Timer::Transaction(timer));
    }

    fn transactions_loaded(&mut self, turn: &mut Turn<'_>, key: PartitionKey, epoch: i32) {
        // It may have been given up meanwhile.
        if !self.transactions.coordinator.is_loading(key.index, epoch) {
            return;
        }
        let (records, unknown) = read_records(&turn.disk.logs[&key]);
        let mut found = 0;
        self.transact(turn, |coordinator, now_ms, out| {
            found = coordinator.finish_load(now_ms, key.index, epoch, records.into_iter(), out);
        });
        let at = format!("{TRANSACTION_TOPIC}/{}", key.index);
        if found > 0 {
            turn.note(format!("broker {} coordinates {found} transactional ids of {at}", self.node));
        }
        if unknown > 0 {
            turn.note(format!(
                "broker {} passes over {unknown} records of {at}: not a coordinator's",
                self.node
            ));
        }
    }

    /// This broker no longer leads a partition. If it was one of the transaction topic, its ids go. Appends that wait end
    /// with the partition's own error.
    pub(super) fn transactions_gone(&mut self, key: PartitionKey) {
        if self.transactions.topic == Some(key.topic) {
            self.transactions.coordinator.unload(key.index);
        }
    }
}

fn marker_request(markers: &[Marker]) -> WriteTxnMarkersRequest {
    let marker = |marker: &Marker| {
        let mut topics: Vec<WritableTxnMarkerTopic> = Vec::new();
        for (topic, partition) in &marker.partitions {
            match topics.last_mut().filter(|last| last.name.as_str() == topic) {
                Some(last) => last.partition_indexes.push(*partition),
                None => topics.push(
                    WritableTxnMarkerTopic::default()
                        .with_name(TopicName(text(topic)))
                        .with_partition_indexes(vec![*partition]),
                ),
            }
        }
        WritableTxnMarker::default()
            .with_producer_id(ProducerId(marker.producer.id))
            .with_producer_epoch(marker.producer.epoch)
            .with_transaction_result(marker.commit)
            .with_coordinator_epoch(marker.coordinator_epoch)
            .with_topics(topics)
    };
    WriteTxnMarkersRequest::default().with_markers(markers.iter().map(marker).collect())
}

fn marker_results(answer: WriteTxnMarkersResponse) -> Vec<MarkerResult> {
    let of_producer =
        |result: kafka_protocol::messages::write_txn_markers_response::WritableTxnMarkerResult| {
            let partitions = result.topics.into_iter().flat_map(|topic| {
                topic.partitions.into_iter().map(move |partition| {
                    let result =
                        match partition.error_code {
                            0 => Ok(()),
                            code => Err(ResponseError::try_from_code(code)
                                .unwrap_or(ResponseError::UnknownServerError)),
                        };
                    ((topic.name.to_string(), partition.partition_index), result)
                })
            });
            (result.producer_id.0, partitions.collect())
        };
    answer.markers.into_iter().map(of_producer).collect()
}

/// The records of a partition of the transaction topic, and how many are none of a coordinator's.
fn read_records(log: &Log) -> (Vec<TransactionRecord>, usize) {
    let (mut records, mut unknown) = (Vec::new(), 0);
    for batch in log.batches() {
        let Ok(read) = record::read_all(&batch.header, &batch.bytes) else {
            unknown += 1;
            continue;
        };
        for record in read {
            match TransactionRecord::decode(record.key, record.value) {
                Ok(record) => records.push(record),
                Err(transaction::UnknownRecord) => unknown += 1,
            }
        }
    }
    (records, unknown)
}

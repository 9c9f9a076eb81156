//! A leader asks a transaction's coordinator before the transaction begins on a partition (KIP-890).
//!
//! Without this a batch that comes late, after its transaction was ended, opens one that nobody will ever end: the last
//! stable offset stays there. So:
//! - Clients of transaction version 1 (Produce up to 11) have added the partition themselves. While
//!   `transaction.partition.verification.enable` is on, the leader asks whether they have (AddPartitionsToTxn 5, verify
//!   only), and holds the produce meanwhile.
//! - Clients of transaction version 2 (Produce from 12 on) leave it to the leader to add the partition. If the transaction
//!   before is still being ended (`CONCURRENT_TRANSACTIONS`), it tries again each
//!   `add.partitions.to.txn.retry.backoff.ms`, for `add.partitions.to.txn.retry.backoff.max.ms`.
//!
//! Each coordinator is asked one thing at a time, for all transactions that came meanwhile. Kafka's
//! `AddPartitionsToTxnManager`, and `ReplicaManager.handleProduceAppend`. What is remembered of it on a partition is
//! [`crate::log::verification`]'s.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use context::Timestamp;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, ApiKey, ProduceRequest, ProducerId, TopicName,
    TransactionalId, TxnOffsetCommitRequest,
};

use super::lifecycle::Pending;
use super::{Broker, Timer, Turn};
use crate::config::millis;
use crate::core::{ConnectionId, Lane, Link};
use crate::group::partition_for;
use crate::log::batch::BatchHeader;
use crate::log::verification::VerificationGuard;
use crate::metadata::{NodeId, PartitionKey};
use crate::partition::AppendError;
use crate::transaction::TRANSACTION_TOPIC;
use crate::wire::{self, Call};

/// The newest version that leaders speak: it tells what is not in the transaction with `TRANSACTION_ABORTABLE`.
const VERSION: i16 = 5;

/// What the client can do, by the version of its request (`TransactionSupportedOperation`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// It does not know `TRANSACTION_ABORTABLE`.
    Verify,
    /// It does.
    VerifyAbortable,
    /// It leaves it to the leader to add the partition, and bumps its epoch with each transaction.
    Add,
}

impl Operation {
    pub(super) fn of_produce(version: i16) -> Operation {
        match version {
            12.. => Operation::Add,
            11 => Operation::VerifyAbortable,
            _ => Operation::Verify,
        }
    }

    pub(super) fn of_txn_offset_commit(version: i16) -> Operation {
        match version {
            5.. => Operation::Add,
            4 => Operation::VerifyAbortable,
            _ => Operation::Verify,
        }
    }
}

/// What came out of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Verified {
    /// The request is refused whole.
    pub(super) refused: Option<AppendError>,
    /// What allows a batch to open a transaction.
    pub(super) guards: BTreeMap<PartitionKey, VerificationGuard>,
    /// Partitions that may not be written to.
    pub(super) errors: BTreeMap<PartitionKey, ResponseError>,
}

/// A transaction that is to begin on some partitions.
#[derive(Clone, Debug)]
pub(super) struct Verification {
    pub(super) transactional_id: TransactionalId,
    pub(super) producer_id: i64,
    pub(super) producer_epoch: i16,
    pub(super) operation: Operation,
    /// With the first sequence number for each.
    pub(super) partitions: BTreeMap<PartitionKey, (TopicName, i32)>,
    pub(super) since: Timestamp,
    pub(super) then: AfterVerification,
}

/// Who waits for the answer.
#[derive(Clone, Debug)]
pub(super) enum AfterVerification {
    Produce {
        connection: ConnectionId,
        call: Call,
        request: Box<ProduceRequest>,
    },
    /// Offsets for the group's partition of the offsets topic.
    TxnOffsetCommit {
        connection: ConnectionId,
        call: Call,
        request: Box<TxnOffsetCommitRequest>,
        key: PartitionKey,
    },
}

/// A verification with what is known of it so far.
#[derive(Clone, Debug)]
struct Asked {
    verification: Verification,
    guards: BTreeMap<PartitionKey, VerificationGuard>,
    errors: BTreeMap<PartitionKey, ResponseError>,
}

/// What goes to a coordinator in one request. Kafka reads the answers for all as the first client would.
#[derive(Clone, Debug)]
pub(super) struct Round {
    operation: Operation,
    by_id: BTreeMap<TransactionalId, Asked>,
}

/// Questions to the coordinators.
#[derive(Clone, Debug, Default)]
pub(super) struct Verifications {
    waiting: BTreeMap<NodeId, Round>,
    in_flight: BTreeSet<NodeId>,
    retries: BTreeMap<u64, Verification>,
    next_retry: u64,
}

impl Broker {
    /// A produce with transactional batches: verified first, then appended.
    pub(super) fn produce_transactional(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: Call,
        request: ProduceRequest,
    ) {
        let Some(transactional_id) = request.transactional_id.clone() else {
            let error = refusal(ResponseError::TransactionalIdAuthorizationFailed);
            return self.append_all(turn, connection, &call, request, &error);
        };
        let mut producers = BTreeSet::new();
        let mut partitions = BTreeMap::new();
        for topic in &request.topic_data {
            let Ok(image) = self.asked_topic(call.version >= 13, &topic.name, topic.topic_id) else {
                continue;
            };
            let name = TopicName(super::text(&image.name));
            for data in &topic.partition_data {
                if let Some(header) = data.records.as_ref().and_then(transactional) {
                    let key = PartitionKey { topic: image.id, index: data.index };
                    producers.insert((header.producer_id, header.producer_epoch));
                    partitions.insert(key, (name.clone(), header.base_sequence));
                }
            }
        }
        if producers.len() > 1 {
            let error = refusal(ResponseError::InvalidProducerIdMapping);
            return self.append_all(turn, connection, &call, request, &error);
        }
        let Some((producer_id, producer_epoch)) = producers.pop_first() else {
            return self.append_all(turn, connection, &call, request, &Verified::default());
        };
        let operation = Operation::of_produce(call.version);
        let since = turn.now;
        let then = AfterVerification::Produce { connection, call, request: Box::new(request) };
        self.verify(
            turn,
            Verification {
                transactional_id,
                producer_id,
                producer_epoch,
                operation,
                partitions,
                since,
                then,
            },
        );
    }

    /// Asks the coordinator, if it must be asked, and goes on with what waits.
    pub(super) fn verify(&mut self, turn: &mut Turn<'_>, verification: Verification) {
        let adds = verification.operation == Operation::Add;
        let mut asked = Asked { verification, guards: BTreeMap::new(), errors: BTreeMap::new() };
        if !adds && !self.settings.transaction_partition_verification_enable {
            return self.verified(turn, asked);
        }
        let Verification { producer_id, producer_epoch, partitions, .. } = &asked.verification;
        for (&key, (_, sequence)) in partitions {
            let begun = self.led(key).map(|_| ()).and_then(|()| {
                let partition = self.partitions.get_mut(&key).expect("a partition that is led is here");
                partition.begin_verification(turn.now, *producer_id, (*producer_epoch, *sequence), adds)
            });
            match begun {
                Ok(Some(guard)) => _ = asked.guards.insert(key, guard),
                Ok(None) => {}
                Err(error) => _ = asked.errors.insert(key, error),
            }
        }
        if asked.guards.is_empty() {
            return self.verified(turn, asked);
        }
        match self.transaction_coordinator(&asked.verification.transactional_id) {
            Some(node) => self.queue_verification(turn, node, asked),
            None => {
                asked.fail_all(ResponseError::CoordinatorNotAvailable);
                self.verified(turn, asked);
            }
        }
    }

    /// The broker that coordinates a transactional id, if it is there.
    fn transaction_coordinator(&self, id: &TransactionalId) -> Option<NodeId> {
        let topic = self.image.topic(TRANSACTION_TOPIC)?;
        let leader = topic.partitions[partition_for(id.as_str(), topic.partitions.len())].leader;
        self.image.brokers.get(&leader).filter(|broker| !broker.fenced).map(|_| leader)
    }

    fn queue_verification(&mut self, turn: &mut Turn<'_>, node: NodeId, mut asked: Asked) {
        let operation = asked.verification.operation;
        let round = self.verifications.waiting.entry(node);
        let round = round.or_insert_with(|| Round { operation, by_id: BTreeMap::new() });
        let id = asked.verification.transactional_id.clone();
        let epoch = asked.verification.producer_epoch;
        let mut replaced = None;
        match round.by_id.remove(&id) {
            Some(newer) if newer.verification.producer_epoch > epoch => {
                round.by_id.insert(id, newer);
                asked.fail_all(ResponseError::InvalidProducerEpoch);
                return self.verified(turn, asked);
            }
            // The client gave up on its first request, or is fenced.
            Some(mut older) => {
                let fenced = older.verification.producer_epoch < epoch;
                older.fail_all(if fenced {
                    ResponseError::InvalidProducerEpoch
                } else {
                    ResponseError::NetworkException
                });
                replaced = Some(older);
            }
            None => {}
        }
        round.by_id.insert(id, asked);
        if let Some(older) = replaced {
            self.verified(turn, older);
        }
        self.ask_coordinator(turn, node);
    }

    fn ask_coordinator(&mut self, turn: &mut Turn<'_>, node: NodeId) {
        if self.verifications.in_flight.contains(&node) {
            return;
        }
        let Some(round) = self.verifications.waiting.remove(&node) else { return };
        let transactions = round.by_id.values().map(transaction).collect();
        let request = AddPartitionsToTxnRequest::default().with_transactions(transactions);
        self.verifications.in_flight.insert(node);
        let frame = wire::request(ApiKey::AddPartitionsToTxn, VERSION, 0, &request);
        self.ask(turn, Link::broker(node, Lane::Verify), Pending::Verification { node, round }, frame);
    }

    /// A coordinator answered, or did not.
    pub(super) fn coordinator_answered(
        &mut self,
        turn: &mut Turn<'_>,
        node: NodeId,
        round: Round,
        frame: Option<Bytes>,
    ) {
        self.verifications.in_flight.remove(&node);
        let answer =
            frame.and_then(|frame| wire::response::<AddPartitionsToTxnResponse>(&frame, VERSION).ok());
        let Round { operation, mut by_id } = round;
        match answer {
            None => by_id.values_mut().for_each(|asked| asked.fail_all(ResponseError::NetworkException)),
            Some(answer) if answer.error_code != 0 => {
                let error = ResponseError::try_from_code(answer.error_code);
                let error = error.unwrap_or(ResponseError::UnknownServerError);
                by_id.values_mut().for_each(|asked| asked.fail_all(error));
            }
            Some(answer) => {
                for result in answer.results_by_transaction {
                    let Some(asked) = by_id.get_mut(&result.transactional_id) else { continue };
                    for topic in result.topic_results {
                        for partition in topic.results_by_partition {
                            let error = ResponseError::try_from_code(partition.partition_error_code);
                            if let Some(error) = error {
                                asked.fail(&topic.name, partition.partition_index, told(operation, error));
                            }
                        }
                    }
                }
            }
        }
        for asked in by_id.into_values() {
            self.verified(turn, asked);
        }
        self.ask_coordinator(turn, node);
    }

    /// All is known: tries again, or goes on.
    fn verified(&mut self, turn: &mut Turn<'_>, asked: Asked) {
        let Asked { verification, guards, errors } = asked;
        let concurrent = errors.values().any(|&error| error == ResponseError::ConcurrentTransactions);
        // Only a produce is tried again here (`ReplicaManager.handleProduceAppend`).
        let is_produce = matches!(verification.then, AfterVerification::Produce { .. });
        let adds = verification.operation == Operation::Add && is_produce;
        let settings = &self.settings;
        let retry_max_ms =
            settings.add_partitions_to_txn_retry_backoff_max_ms.min(settings.request_timeout_ms);
        if adds && concurrent && turn.now.since(verification.since) < millis(retry_max_ms) {
            let backoff = millis(settings.add_partitions_to_txn_retry_backoff_ms);
            let id = self.verifications.next_retry;
            self.verifications.next_retry += 1;
            self.verifications.retries.insert(id, verification);
            return self.timers.set(turn.now + backoff, Timer::RetryVerification(id));
        }
        let verified = Verified { refused: None, guards, errors };
        match verification.then {
            AfterVerification::Produce { connection, call, request } => {
                self.append_all(turn, connection, &call, *request, &verified);
            }
            AfterVerification::TxnOffsetCommit { connection, call, request, key } => {
                let guard = verified.guards.get(&key).copied();
                let guard = verified.errors.get(&key).map_or(Ok(guard), |error| Err(*error));
                self.txn_offset_commit_verified(turn, connection, &call, &request, guard);
            }
        }
    }

    pub(super) fn retry_verification(&mut self, turn: &mut Turn<'_>, id: u64) {
        let verification = self.verifications.retries.remove(&id).expect("a retry fires once");
        self.verify(turn, verification);
    }
}

impl Asked {
    fn fail_all(&mut self, error: ResponseError) {
        self.errors.extend(self.guards.keys().map(|&key| (key, error)));
    }

    fn fail(&mut self, topic: &TopicName, index: i32, error: ResponseError) {
        let named =
            |key: &&PartitionKey| key.index == index && self.verification.partitions[*key].0 == *topic;
        if let Some(&key) = self.guards.keys().find(named) {
            self.errors.insert(key, error);
        }
    }
}

impl Verified {
    /// What a produce is told of a partition: what old clients would not try again becomes `NOT_ENOUGH_REPLICAS`, which
    /// they do, and without asking for metadata.
    pub(super) fn produce_error(&self, version: i16, key: PartitionKey) -> Option<AppendError> {
        let &error = self.errors.get(&key)?;
        let unable = || {
            let message =
                format!("it could not be verified that the partition is in the transaction: {error}");
            AppendError::new(ResponseError::NotEnoughReplicas, message)
        };
        Some(match error {
            ResponseError::NetworkException
            | ResponseError::CoordinatorLoadInProgress
            | ResponseError::CoordinatorNotAvailable
            | ResponseError::NotCoordinator => unable(),
            ResponseError::ConcurrentTransactions if Operation::of_produce(version) != Operation::Add => {
                unable()
            }
            ResponseError::InvalidTxnState => {
                AppendError::new(error, "the partition was not added to the transaction")
            }
            error => AppendError::new(error, error.to_string()),
        })
    }
}

/// Whether some batch of a request is transactional.
pub(super) fn has_transactional_batches(request: &ProduceRequest) -> bool {
    let mut batches = request.topic_data.iter().flat_map(|topic| &topic.partition_data);
    batches.any(|data| data.records.as_ref().and_then(transactional).is_some())
}

/// The header of a transactional batch. What is no batch is refused when it is appended.
fn transactional(records: &Bytes) -> Option<BatchHeader> {
    BatchHeader::parse(records).ok().filter(|header| header.is_transactional() && header.has_producer())
}

fn refusal(code: ResponseError) -> Verified {
    Verified { refused: Some(AppendError::new(code, code.to_string())), ..Verified::default() }
}

/// What the coordinator says, as the client understands it.
fn told(operation: Operation, error: ResponseError) -> ResponseError {
    match error {
        ResponseError::ProducerFenced => ResponseError::InvalidProducerEpoch,
        ResponseError::TransactionAbortable if operation == Operation::Verify => {
            ResponseError::InvalidTxnState
        }
        error => error,
    }
}

fn transaction(asked: &Asked) -> AddPartitionsToTxnTransaction {
    let Verification { transactional_id, producer_id, producer_epoch, operation, partitions, .. } =
        &asked.verification;
    let mut topics: Vec<AddPartitionsToTxnTopic> = Vec::new();
    for key in asked.guards.keys() {
        let name = &partitions[key].0;
        match topics.last_mut().filter(|topic| topic.name == *name) {
            Some(topic) => topic.partitions.push(key.index),
            None => topics.push(
                AddPartitionsToTxnTopic::default().with_name(name.clone()).with_partitions(vec![key.index]),
            ),
        }
    }
    AddPartitionsToTxnTransaction::default()
        .with_transactional_id(transactional_id.clone())
        .with_producer_id(ProducerId(*producer_id))
        .with_producer_epoch(*producer_epoch)
        .with_verify_only(*operation != Operation::Add)
        .with_topics(topics)
}

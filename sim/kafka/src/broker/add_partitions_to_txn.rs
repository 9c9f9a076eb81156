//! AddPartitionsToTxn (24), versions 0 to 5: partitions join a transaction before they are written to.
//!
//! Up to version 3 a client names one transaction. From 4 on leaders name several at once: to ask whether a partition is
//! in the transaction (`verify_only`), or to add it for a client of transaction.version 2 (KIP-890). The answer goes out
//! when all are done. A partition that does not exist fails its whole transaction: the others of it get
//! OPERATION_NOT_ATTEMPTED.
//!
//! Version notes: PRODUCER_FENCED is known from 2 on, INVALID_PRODUCER_EPOCH stands for it before.

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, TopicName, TransactionalId,
};

use super::transactions::Asked;
use super::{Broker, Turn, text};
use crate::core::ConnectionId;
use crate::transaction::{Added, Producer, TopicPartition, TransactionVersion};
use crate::wire::Call;

/// The first version that leaders speak.
const BATCHED: i16 = 4;

type Results = Vec<(TopicPartition, Option<ResponseError>)>;

/// One request, whose transactions are done one by one.
#[derive(Debug)]
pub(super) struct Batch {
    connection: ConnectionId,
    call: Call,
    transactions: Vec<(TransactionalId, BTreeSet<TopicPartition>, Option<Results>)>,
}

impl Broker {
    pub(super) fn add_partitions_to_txn(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: Call,
        request: AddPartitionsToTxnRequest,
    ) {
        let version = call.version;
        let asked = if version < BATCHED {
            let only = AddPartitionsToTxnTransaction::default()
                .with_transactional_id(request.v3_and_below_transactional_id)
                .with_producer_id(request.v3_and_below_producer_id)
                .with_producer_epoch(request.v3_and_below_producer_epoch)
                .with_topics(request.v3_and_below_topics);
            vec![only]
        } else {
            request.transactions
        };
        let transactions: Vec<_> = asked
            .iter()
            .map(|asked| (asked.transactional_id.clone(), partitions_of(&asked.topics), None))
            .collect();
        let id = self.transactions.number();
        let nothing = transactions.is_empty();
        self.transactions.batches.insert(id, Batch { connection, call, transactions });
        if nothing {
            return self.answer_batch(turn, id);
        }
        for (index, transaction) in asked.into_iter().enumerate() {
            self.add_one(turn, version, id, index, &transaction);
        }
    }

    fn add_one(
        &mut self,
        turn: &mut Turn<'_>,
        version: i16,
        batch: u64,
        index: usize,
        asked: &AddPartitionsToTxnTransaction,
    ) {
        let partitions = partitions_of(&asked.topics);
        let known = |partition: &TopicPartition| self.image.partition_of(&partition.0, partition.1).is_some();
        if !partitions.iter().all(known) {
            let result = |partition: TopicPartition| {
                let error = if known(&partition) {
                    ResponseError::OperationNotAttempted
                } else {
                    ResponseError::UnknownTopicOrPartition
                };
                (partition, Some(error))
            };
            let results = partitions.into_iter().map(result).collect();
            return self.transaction_done(turn, batch, index, results);
        }
        let id = asked.transactional_id.to_string();
        let producer = Producer { id: asked.producer_id.0, epoch: asked.producer_epoch };
        if asked.verify_only {
            let verified = self.transactions.coordinator.verify(&id, producer, &partitions);
            let results = match verified {
                Ok(each) => each.into_iter().map(|(of, result)| (of.clone(), result.err())).collect(),
                Err(error) => partitions.iter().map(|of| (of.clone(), Some(error))).collect(),
            };
            return self.transaction_done(turn, batch, index, results);
        }
        let rules = if version < BATCHED { TransactionVersion::TV_0 } else { TransactionVersion::TV_2 };
        let added = Added { id, producer, partitions, version: rules };
        let ticket = self.transactions.ticket(Asked::AddPartitionsToTxn { batch, index });
        self.transact(turn, |coordinator, now_ms, out| {
            coordinator.add_partitions(now_ms, added, ticket, out)
        });
    }

    /// The coordinator answered one transaction.
    pub(super) fn partitions_added(
        &mut self,
        turn: &mut Turn<'_>,
        batch: u64,
        index: usize,
        result: Result<(), ResponseError>,
    ) {
        let of_batch = &self.transactions.batches[&batch];
        let error = result.err().map(|error| told(of_batch.call.version, error));
        let partitions = &of_batch.transactions[index].1;
        let results = partitions.iter().map(|partition| (partition.clone(), error)).collect();
        self.transaction_done(turn, batch, index, results);
    }

    fn transaction_done(&mut self, turn: &mut Turn<'_>, batch: u64, index: usize, results: Results) {
        let of_batch = self.transactions.batches.get_mut(&batch).expect("a batch waits for all of its own");
        of_batch.transactions[index].2 = Some(results);
        if of_batch.transactions.iter().all(|(_, _, results)| results.is_some()) {
            self.answer_batch(turn, batch);
        }
    }

    fn answer_batch(&mut self, turn: &mut Turn<'_>, batch: u64) {
        let Batch { connection, call, transactions } =
            self.transactions.batches.remove(&batch).expect("a batch is answered once");
        let results = transactions.into_iter().map(|(id, _, results)| {
            let topics = by_topic(results.expect("all transactions are done"));
            AddPartitionsToTxnResult::default().with_transactional_id(id).with_topic_results(topics)
        });
        let mut response = AddPartitionsToTxnResponse::default();
        if call.version < BATCHED {
            let topics = results.flat_map(|result| result.topic_results).collect();
            response.results_by_topic_v3_and_below = topics;
        } else {
            response.results_by_transaction = results.collect();
        }
        turn.respond(connection, &call, response);
    }
}

fn partitions_of(topics: &[AddPartitionsToTxnTopic]) -> BTreeSet<TopicPartition> {
    let partitions = |topic: &AddPartitionsToTxnTopic| {
        topic.partitions.iter().map(|&index| (topic.name.to_string(), index)).collect::<Vec<_>>()
    };
    topics.iter().flat_map(partitions).collect()
}

fn by_topic(results: Results) -> Vec<AddPartitionsToTxnTopicResult> {
    let mut topics: Vec<AddPartitionsToTxnTopicResult> = Vec::new();
    for ((topic, index), error) in results {
        let result = AddPartitionsToTxnPartitionResult::default()
            .with_partition_index(index)
            .with_partition_error_code(error.map_or(0, |error| error.code()));
        match topics.last_mut().filter(|last| last.name.as_str() == topic) {
            Some(last) => last.results_by_partition.push(result),
            None => topics.push(
                AddPartitionsToTxnTopicResult::default()
                    .with_name(TopicName(text(&topic)))
                    .with_results_by_partition(vec![result]),
            ),
        }
    }
    topics
}

/// Clients older than the error are told one that they know.
pub(super) fn told(version: i16, error: ResponseError) -> ResponseError {
    match error {
        ResponseError::ProducerFenced if version < 2 => ResponseError::InvalidProducerEpoch,
        error => error,
    }
}

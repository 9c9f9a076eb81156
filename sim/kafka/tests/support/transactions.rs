//! What transactional producers and their readers do, as one line each.

use bytes::Bytes;
use kafka_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use kafka_protocol::messages::*;
use shakedown_kafka::NodeId;
use shakedown_kafka::log::batch::{BatchHeader, HEADER_LEN, assemble};
use shakedown_kafka::log::record;
use shakedown_kafka::transaction::Producer;

use super::verbs::*;
use super::{Bench, Reply, text};
use crate::expect;

const TRANSACTIONAL: i16 = 0b1_0000;

pub fn transactional_id(id: &str) -> TransactionalId {
    TransactionalId(text(id))
}

/// A batch of a transactional producer.
pub fn transactional(values: &[&str], producer: Producer, sequence: i32) -> Bytes {
    let plain = idempotent(values, producer.id, producer.epoch, sequence);
    let header = BatchHeader::parse(&plain).unwrap();
    let header = BatchHeader { attributes: header.attributes | TRANSACTIONAL, ..header };
    assemble(&header, &plain[HEADER_LEN..])
}

/// How a client of the cluster's level speaks: its versions of Produce, AddPartitionsToTxn and EndTxn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// As librdkafka does on any cluster.
    V1,
    /// As the Java client does where `transaction.version` is 2.
    V2,
}

impl Protocol {
    fn produce(self) -> i16 {
        if self == Protocol::V1 { 10 } else { 12 }
    }

    fn end_txn(self) -> i16 {
        if self == Protocol::V1 { 3 } else { 5 }
    }
}

impl Bench {
    /// Asks, and takes the answer, which must come within so long.
    pub fn ask_within(
        &mut self,
        ms: u64,
        node: NodeId,
        api: ApiKey,
        version: i16,
        body: impl Into<RequestKind>,
    ) -> ResponseKind {
        let connection = self.send(node, api, version, body);
        for _ in 0..=ms {
            match self.reply(connection) {
                Some(Reply::Response(response)) => return response,
                Some(other) => panic!("{api:?} {version} got {other:?}"),
                None => self.advance(1),
            }
        }
        panic!("{api:?} {version} is not answered in {ms} ms");
    }

    /// The coordinator of a transactional id.
    pub fn transaction_coordinator(&mut self, id: &str) -> NodeId {
        let up = (1..=9).find(|&node| self.is_listening(node)).expect("a broker");
        for _ in 0..100 {
            let request =
                FindCoordinatorRequest::default().with_key_type(1).with_coordinator_keys(vec![text(id)]);
            let response = expect!(FindCoordinator, self.ask(up, ApiKey::FindCoordinator, 4, request));
            let found = &response.coordinators[0];
            if found.error_code == 0 {
                return found.node_id.0;
            }
            assert_eq!(found.error_code, 15);
            self.advance(100);
        }
        panic!("no coordinator");
    }

    /// One InitProducerId: an error or a producer.
    pub fn init_producer(&mut self, node: NodeId, id: &str) -> Result<Producer, i16> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(transactional_id(id)))
            .with_transaction_timeout_ms(60_000);
        let response = self.ask_within(1_000, node, ApiKey::InitProducerId, 5, request);
        let response = expect!(InitProducerId, response);
        match response.error_code {
            0 => Ok(Producer { id: response.producer_id.0, epoch: response.producer_epoch }),
            error => Err(error),
        }
    }

    /// The same as clients do it, again while it may yet succeed.
    pub fn transactional_producer(&mut self, id: &str) -> (NodeId, Producer) {
        for _ in 0..200 {
            let node = self.transaction_coordinator(id);
            match self.init_producer(node, id) {
                Ok(producer) => return (node, producer),
                Err(14 | 15 | 16 | 51) => self.advance(100),
                Err(error) => panic!("InitProducerId: {error}"),
            }
        }
        panic!("{id} is not initialized");
    }

    /// AddPartitionsToTxn of a client.
    pub fn add_to_transaction(
        &mut self,
        node: NodeId,
        id: &str,
        producer: Producer,
        topic: &str,
        partitions: &[i32],
    ) -> i16 {
        let topics = vec![
            AddPartitionsToTxnTopic::default()
                .with_name(topic_name(topic))
                .with_partitions(partitions.to_vec()),
        ];
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(transactional_id(id))
            .with_v3_and_below_producer_id(ProducerId(producer.id))
            .with_v3_and_below_producer_epoch(producer.epoch)
            .with_v3_and_below_topics(topics);
        let response = self.ask_within(1_000, node, ApiKey::AddPartitionsToTxn, 3, request);
        let response = expect!(AddPartitionsToTxn, response);
        response.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
    }

    /// AddPartitionsToTxn of a leader: the error of each partition.
    pub fn verify_in_transaction(
        &mut self,
        node: NodeId,
        id: &str,
        producer: Producer,
        topic: &str,
        partitions: &[i32],
        verify_only: bool,
    ) -> Vec<i16> {
        let topics = vec![
            AddPartitionsToTxnTopic::default()
                .with_name(topic_name(topic))
                .with_partitions(partitions.to_vec()),
        ];
        let transaction = AddPartitionsToTxnTransaction::default()
            .with_transactional_id(transactional_id(id))
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(producer.epoch)
            .with_verify_only(verify_only)
            .with_topics(topics);
        let request = AddPartitionsToTxnRequest::default().with_transactions(vec![transaction]);
        let response = self.ask_within(1_000, node, ApiKey::AddPartitionsToTxn, 5, request);
        let response = expect!(AddPartitionsToTxn, response);
        let results = response.results_by_transaction[0].topic_results.iter();
        let results = results.flat_map(|topic| &topic.results_by_partition);
        results.map(|result| result.partition_error_code).collect()
    }

    pub fn end_request(&self, id: &str, producer: Producer, commit: bool) -> EndTxnRequest {
        EndTxnRequest::default()
            .with_transactional_id(transactional_id(id))
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(producer.epoch)
            .with_committed(commit)
    }

    /// EndTxn: an error, or the producer as it is from then on.
    pub fn end_transaction(
        &mut self,
        node: NodeId,
        id: &str,
        producer: Producer,
        commit: bool,
        protocol: Protocol,
    ) -> Result<Producer, i16> {
        let request = self.end_request(id, producer, commit);
        let response = self.ask_within(1_000, node, ApiKey::EndTxn, protocol.end_txn(), request);
        let response = expect!(EndTxn, response);
        match (response.error_code, protocol) {
            (0, Protocol::V1) => Ok(producer),
            (0, Protocol::V2) => Ok(Producer { id: response.producer_id.0, epoch: response.producer_epoch }),
            (error, _) => Err(error),
        }
    }

    /// Writes into a transaction. A client of version 1 adds the partition first, one of version 2 leaves that to the
    /// leader.
    pub fn write_in_transaction(
        &mut self,
        coordinator: NodeId,
        id: &str,
        producer: Producer,
        at: (&str, i32),
        (values, sequence): (&[&str], i32),
        protocol: Protocol,
    ) -> i16 {
        if protocol == Protocol::V1 {
            let added = self.add_to_transaction(coordinator, id, producer, at.0, &[at.1]);
            if added != 0 {
                return added;
            }
        }
        self.write_unasked(id, producer, at, (values, sequence), protocol)
    }

    /// Writes without asking the coordinator first.
    pub fn write_unasked(
        &mut self,
        id: &str,
        producer: Producer,
        (topic, partition): (&str, i32),
        (values, sequence): (&[&str], i32),
        protocol: Protocol,
    ) -> i16 {
        let (leader, _) = self.leader_of(topic, partition);
        let request = produce_request(topic, partition, -1, transactional(values, producer, sequence))
            .with_transactional_id(Some(transactional_id(id)));
        let response = self.ask_within(1_000, leader, ApiKey::Produce, protocol.produce(), request);
        let response = expect!(Produce, response);
        response.responses[0].partition_responses[0].error_code
    }

    /// What a reader of committed records sees of a partition: last stable offset, and the values, those of aborted
    /// transactions left out as a client leaves them out.
    pub fn read_committed(&mut self, topic: &str, partition: i32) -> (i64, Vec<String>) {
        let (leader, _) = self.leader_of(topic, partition);
        let request = fetch_request(topic, partition, 0, 0, 0).with_isolation_level(1);
        let response = expect!(Fetch, self.ask_within(1_000, leader, ApiKey::Fetch, 12, request));
        let data = response.responses[0].partitions[0].clone();
        assert_eq!(data.error_code, 0);
        let mut aborted = data.aborted_transactions.clone().unwrap_or_default();
        aborted.sort_by_key(|aborted| aborted.first_offset);
        let mut dropping = std::collections::BTreeSet::new();
        let mut values = Vec::new();
        let mut rest = data.records.unwrap_or_default();
        while !rest.is_empty() {
            let header = BatchHeader::parse(&rest).unwrap();
            let bytes = rest.split_to(header.size());
            while aborted.first().is_some_and(|first| first.first_offset <= header.base_offset) {
                dropping.insert(aborted.remove(0).producer_id.0);
            }
            if header.is_control() {
                dropping.remove(&header.producer_id);
                continue;
            }
            let is_transactional = header.attributes & TRANSACTIONAL != 0;
            if is_transactional && dropping.contains(&header.producer_id) {
                continue;
            }
            for record in record::read_all(&header, &bytes).unwrap() {
                values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
            }
        }
        (data.last_stable_offset, values)
    }

    /// The state that DescribeTransactions tells.
    pub fn transaction_state(&mut self, node: NodeId, id: &str) -> String {
        let request =
            DescribeTransactionsRequest::default().with_transactional_ids(vec![transactional_id(id)]);
        let response = self.ask(node, ApiKey::DescribeTransactions, 0, request);
        let told = expect!(DescribeTransactions, response).transaction_states[0].clone();
        match told.error_code {
            0 => told.transaction_state.to_string(),
            error => format!("error {error}"),
        }
    }
}

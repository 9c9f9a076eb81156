//! Transactions as their coordinators and the leaders of partitions know them.

use std::time::Duration;

use broker::{Error, ProducerDescription, TopicPartition, TransactionDescription, TransactionListing};
use context::Timestamp;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::describe_transactions_response::TransactionState;
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::{
    DescribeProducersRequest, DescribeTransactionsRequest, ListTransactionsRequest, TransactionalId,
    WriteTxnMarkersRequest,
};
use kafka_protocol::protocol::StrBytes;

use super::{WireAdmin, with_reason};
use crate::cluster::{NodeId, topic_name};
use crate::coordinator::Coordinator;
use crate::error::{self, transport, wants_coordinator};

impl WireAdmin {
    /// Asks once.
    pub(super) async fn list_transactions(&self) -> Result<Vec<TransactionListing>, Error> {
        let mut transactions = Vec::new();
        for answer in self.ask_all(|_| ListTransactionsRequest::default()).await? {
            if answer.error_code != 0 {
                return Err(error::answered(answer.error_code, "list transactions"));
            }
            transactions.extend(answer.transaction_states.into_iter().map(|state| TransactionListing {
                transactional_id: state.transactional_id.to_string(),
                producer_id: state.producer_id.0,
                state: state.transaction_state.to_string(),
            }));
        }
        transactions.sort();
        Ok(transactions)
    }

    pub(super) async fn describe_transactions(
        &self,
        ids: &[&str],
    ) -> Result<Vec<TransactionDescription>, Error> {
        let mut described = Vec::new();
        for id in ids {
            let coordinator = Coordinator::of_transactions(self.cluster.clone(), (*id).to_owned());
            let mut attempts = self.attempts("describe transactions");
            loop {
                match self.describe_transaction_once(&coordinator).await {
                    Ok(transaction) => {
                        described.push(transaction);
                        break;
                    }
                    Err(error) => {
                        if wants_coordinator(error.code) {
                            coordinator.forget();
                        }
                        attempts.after(error).await?;
                    }
                }
            }
        }
        Ok(described)
    }

    async fn describe_transaction_once(
        &self,
        coordinator: &Coordinator,
    ) -> Result<TransactionDescription, Error> {
        let id = TransactionalId(StrBytes::from_string(coordinator.key.clone()));
        let build = move |_| DescribeTransactionsRequest::default().with_transactional_ids(vec![id]);
        let answer = coordinator.ask(self.cluster.settings.socket_timeout, build).await?.body;
        match answer.transaction_states.into_iter().next() {
            Some(state) if state.error_code == 0 => Ok(description(state)),
            Some(state) => Err(error::answered(state.error_code, format!("description of {coordinator}"))),
            None => Err(transport(format!("an answer without {coordinator}"))),
        }
    }

    async fn leader_of(&self, partition: &TopicPartition) -> Result<NodeId, Error> {
        self.cluster.refresh(&[partition.topic.clone()].into(), self.cluster.version()).await?;
        let leader = self.cluster.leader(partition);
        leader.map(|(node, _)| node).ok_or_else(|| transport(format!("{partition} has no leader")))
    }

    /// Asks the leader once.
    pub(super) async fn describe_producers(
        &self,
        partition: &TopicPartition,
    ) -> Result<Vec<ProducerDescription>, Error> {
        let leader = self.leader_of(partition).await?;
        let asked = TopicRequest::default()
            .with_name(topic_name(&partition.topic))
            .with_partition_indexes(vec![partition.partition]);
        let build = move |_| DescribeProducersRequest::default().with_topics(vec![asked]);
        let answer = self.ask_node(leader, build).await?;
        let mut producers = Vec::new();
        for found in answer.topics.into_iter().flat_map(|topic| topic.partitions) {
            if found.error_code != 0 {
                let error = error::answered(found.error_code, format!("producers of {partition}"));
                return Err(with_reason(error, found.error_message));
            }
            producers.extend(found.active_producers.into_iter().map(|producer| ProducerDescription {
                producer_id: producer.producer_id.0,
                producer_epoch: producer.producer_epoch,
                last_sequence: producer.last_sequence,
                last_write: u64::try_from(producer.last_timestamp).ok().map(Timestamp::from_millis),
                coordinator_epoch: Some(producer.coordinator_epoch).filter(|epoch| *epoch >= 0),
                transaction_start: Some(producer.current_txn_start_offset).filter(|offset| *offset >= 0),
            }));
        }
        producers.sort_by_key(|producer| producer.producer_id);
        Ok(producers)
    }

    /// Asks the leader once.
    pub(super) async fn abort_hanging_transaction(
        &self,
        partition: &TopicPartition,
        producer: &ProducerDescription,
    ) -> Result<(), Error> {
        let leader = self.leader_of(partition).await?;
        let what = format!("abort of producer {} in {partition}", producer.producer_id);
        let epoch = i16::try_from(producer.producer_epoch).map_err(|_| {
            error::invalid_state(format!("{what}: epoch {} is none", producer.producer_epoch))
        })?;
        let topic = WritableTxnMarkerTopic::default()
            .with_name(topic_name(&partition.topic))
            .with_partition_indexes(vec![partition.partition]);
        let marker = WritableTxnMarker::default()
            .with_producer_id(producer.producer_id.into())
            .with_producer_epoch(epoch)
            .with_transaction_result(false)
            // As `AbortTransactionHandler` does: a transaction that no coordinator has ended yet has none.
            .with_coordinator_epoch(producer.coordinator_epoch.unwrap_or(0).max(0))
            .with_topics(vec![topic]);
        let build = move |_| WriteTxnMarkersRequest::default().with_markers(vec![marker]);
        let answer = self.ask_node(leader, build).await?;
        let codes =
            answer.markers.iter().flat_map(|marker| &marker.topics).flat_map(|topic| &topic.partitions);
        match codes.map(|partition| partition.error_code).find(|code| *code != 0) {
            None => Ok(()),
            Some(code) => Err(error::answered(code, what)),
        }
    }
}

fn description(state: TransactionState) -> TransactionDescription {
    let mut partitions: Vec<_> = state
        .topics
        .iter()
        .flat_map(|topic| {
            let name: std::sync::Arc<str> = topic.topic.as_str().into();
            topic.partitions.iter().map(move |number| TopicPartition::new(name.clone(), *number))
        })
        .collect();
    partitions.sort();
    TransactionDescription {
        transactional_id: state.transactional_id.to_string(),
        state: state.transaction_state.to_string(),
        producer_id: state.producer_id.0,
        producer_epoch: state.producer_epoch,
        timeout: Duration::from_millis(u64::try_from(state.transaction_timeout_ms).unwrap_or(0)),
        began: u64::try_from(state.transaction_start_time_ms).ok().map(Timestamp::from_millis),
        partitions,
    }
}

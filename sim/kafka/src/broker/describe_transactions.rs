//! DescribeTransactions (65), version 0, and ListTransactions (66), versions 0 to 2: what tools see of the transactional
//! ids that this broker coordinates.
//!
//! Version notes: ListTransactions knows a smallest duration from 1 on, a pattern for ids from 2 on (KIP-1152). Kafka reads
//! the pattern as Java's `Pattern`; here look-around and back-references, which crate `regex` does not have, are refused
//! as any pattern that cannot be read, with INVALID_REGULAR_EXPRESSION.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState as Told};
use kafka_protocol::messages::list_transactions_response::TransactionState as ListedState;
use kafka_protocol::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, ListTransactionsRequest,
    ListTransactionsResponse, ProducerId, TopicName, TransactionalId,
};
use regex::Regex;

use super::{Broker, Turn, text};
use crate::core::ConnectionId;
use crate::transaction::{Described, Filter, Listed, TransactionState};
use crate::wire::Call;

impl Broker {
    pub(super) fn describe_transactions(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        request: &DescribeTransactionsRequest,
    ) {
        let told = |id: &TransactionalId| match self.transactions.coordinator.describe(id.as_str()) {
            Ok(described) => told(id, described),
            Err(error) => Told::default().with_transactional_id(id.clone()).with_error_code(error.code()),
        };
        let states = request.transactional_ids.iter().map(told).collect();
        turn.respond(
            connection,
            call,
            DescribeTransactionsResponse::default().with_transaction_states(states),
        );
    }

    pub(super) fn list_transactions(
        &self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        request: &ListTransactionsRequest,
    ) {
        let named = || request.state_filters.iter().map(|name| (name, TransactionState::from_name(name)));
        let states = named().filter_map(|(_, state)| state).collect();
        let filter = Filter {
            states: (!request.state_filters.is_empty()).then_some(states),
            producer_ids: request.producer_id_filters.iter().map(|id| id.0).collect(),
            longer_than_ms: (call.version >= 1 && request.duration_filter >= 0)
                .then_some(request.duration_filter),
        };
        let pattern = request.transactional_id_pattern.as_ref().filter(|pattern| !pattern.is_empty());
        let pattern = pattern.map(|pattern| Regex::new(&format!("^(?:{pattern})$"))).transpose();
        let listed = pattern
            .map_err(|_| ResponseError::InvalidRegularExpression)
            .and_then(|pattern| Ok((pattern, self.transactions.coordinator.list(turn.now_ms(), &filter)?)));
        let response = match listed {
            Ok((pattern, listed)) => {
                let fits =
                    |listed: &Listed| pattern.as_ref().is_none_or(|pattern| pattern.is_match(&listed.id));
                let unknown = named().filter(|(_, state)| state.is_none()).map(|(name, _)| name.clone());
                ListTransactionsResponse::default()
                    .with_unknown_state_filters(unknown.collect())
                    .with_transaction_states(listed.into_iter().filter(fits).map(listed_state).collect())
            }
            Err(error) => ListTransactionsResponse::default().with_error_code(error.code()),
        };
        turn.respond(connection, call, response);
    }
}

fn told(id: &TransactionalId, described: Described) -> Told {
    let mut topics: Vec<TopicData> = Vec::new();
    for (topic, partition) in described.partitions {
        match topics.last_mut().filter(|last| last.topic.as_str() == topic) {
            Some(last) => last.partitions.push(partition),
            None => {
                let topic = TopicName(text(&topic));
                topics.push(TopicData::default().with_topic(topic).with_partitions(vec![partition]));
            }
        }
    }
    Told::default()
        .with_transactional_id(id.clone())
        .with_transaction_state(text(described.state.name()))
        .with_transaction_timeout_ms(described.timeout_ms)
        .with_transaction_start_time_ms(described.start_ms)
        .with_producer_id(ProducerId(described.producer_id))
        .with_producer_epoch(described.producer_epoch)
        .with_topics(topics)
}

fn listed_state(listed: Listed) -> ListedState {
    ListedState::default()
        .with_transactional_id(TransactionalId(text(&listed.id)))
        .with_producer_id(ProducerId(listed.producer_id))
        .with_transaction_state(text(listed.state.name()))
}

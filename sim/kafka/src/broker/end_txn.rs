//! EndTxn (26), versions 0 to 5, and AddOffsetsToTxn (25), versions 0 to 4: how a transaction ends, and that a group's
//! offsets are in it.
//!
//! The offsets are in the transaction as their group's partition of `__consumer_offsets`. An EndTxn of version 5 follows
//! the rules of transaction.version 2, whatever the cluster's level, and is told the producer's next epoch; see
//! [`crate::transaction::Coordinator::end`].
//!
//! Version notes: PRODUCER_FENCED is known from 2 on, INVALID_PRODUCER_EPOCH stands for it before; producer id and epoch
//! come back from EndTxn 5 on.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, EndTxnRequest, EndTxnResponse, ProducerId,
};

use super::add_partitions_to_txn::told;
use super::transactions::Asked;
use super::{Broker, Turn};
use crate::core::ConnectionId;
use crate::group::{OFFSETS_TOPIC, partition_for};
use crate::transaction::{Added, EndRequest, Producer, TransactionVersion};
use crate::wire::Call;

impl Broker {
    pub(super) fn add_offsets_to_txn(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: Call,
        request: &AddOffsetsToTxnRequest,
    ) {
        let partitions = match self.image.topic(OFFSETS_TOPIC) {
            Some(topic) => topic.partitions.len(),
            None => self.settings.offsets_topic_num_partitions as usize,
        };
        let index = partition_for(request.group_id.as_str(), partitions) as i32;
        let added = Added {
            id: request.transactional_id.to_string(),
            producer: Producer { id: request.producer_id.0, epoch: request.producer_epoch },
            partitions: [(OFFSETS_TOPIC.to_owned(), index)].into(),
            version: TransactionVersion::TV_0,
        };
        let ticket = self.transactions.ticket(Asked::AddOffsetsToTxn { connection, call });
        self.transact(turn, |coordinator, now_ms, out| {
            coordinator.add_partitions(now_ms, added, ticket, out)
        });
    }

    pub(super) fn offsets_added(
        &self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        result: Result<Producer, ResponseError>,
    ) {
        let error = result.err().map_or(0, |error| told(call.version, error).code());
        turn.respond(connection, call, AddOffsetsToTxnResponse::default().with_error_code(error));
    }

    pub(super) fn end_txn(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: Call,
        request: &EndTxnRequest,
    ) {
        let end = EndRequest {
            id: request.transactional_id.to_string(),
            producer: Producer { id: request.producer_id.0, epoch: request.producer_epoch },
            commit: request.committed,
            version: if call.version >= 5 { TransactionVersion::TV_2 } else { TransactionVersion::TV_0 },
        };
        let ticket = self.transactions.ticket(Asked::EndTxn { connection, call });
        self.transact(turn, |coordinator, now_ms, out| coordinator.end(now_ms, end, ticket, out));
    }

    pub(super) fn ended(
        &self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        result: Result<Producer, ResponseError>,
    ) {
        let error = result.err().map_or(0, |error| told(call.version, error).code());
        let mut response = EndTxnResponse::default().with_error_code(error);
        if call.version >= 5 {
            let producer = result.unwrap_or(Producer::NONE);
            response = response.with_producer_id(ProducerId(producer.id)).with_producer_epoch(producer.epoch);
        }
        turn.respond(connection, call, response);
    }
}

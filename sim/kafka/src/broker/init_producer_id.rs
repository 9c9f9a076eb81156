//! InitProducerId (22), versions 0 to 5, for idempotent producers: a producer id that nobody had before, epoch 0.
//!
//! Ids come from the controller in blocks of 1,000; a client waits while a block is fetched. A transactional id is
//! answered with TRANSACTIONAL_ID_AUTHORIZATION_FAILED, which clients take for final, until transactions are built.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, ApiKey, BrokerId, InitProducerIdRequest,
    InitProducerIdResponse, ProducerId,
};

use super::lifecycle::Pending;
use super::{Broker, Turn};
use crate::core::{ConnectionId, Lane, Link};
use crate::wire::{self, Call};

impl Broker {
    pub(super) fn init_producer_id(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: Call,
        request: &InitProducerIdRequest,
    ) {
        if request.transactional_id.is_some() {
            return turn.respond(
                connection,
                &call,
                failed(ResponseError::TransactionalIdAuthorizationFailed),
            );
        }
        if let Some(id) = self.producer_ids.next() {
            return turn.respond(connection, &call, given(id));
        }
        self.waiting_for_producer_ids.push((connection, call));
        if self.waiting_for_producer_ids.len() == 1 {
            let request = AllocateProducerIdsRequest::default()
                .with_broker_id(BrokerId(self.node))
                .with_broker_epoch(self.broker_epoch());
            let frame = wire::request(ApiKey::AllocateProducerIds, 0, 0, &request);
            self.ask(turn, Link::controller(Lane::Forward), Pending::ProducerIds, frame);
        }
    }

    pub(super) fn producer_ids_allocated(
        &mut self,
        turn: &mut Turn<'_>,
        answer: Option<AllocateProducerIdsResponse>,
    ) {
        if let Some(answer) = answer.filter(|answer| answer.error_code == 0) {
            let start = answer.producer_id_start.0;
            self.producer_ids = start..start + i64::from(answer.producer_id_len);
        }
        for (connection, call) in std::mem::take(&mut self.waiting_for_producer_ids) {
            // Without a block the client tries again, as Kafka has it.
            let response = match self.producer_ids.next() {
                Some(id) => given(id),
                None => failed(ResponseError::CoordinatorLoadInProgress),
            };
            turn.respond(connection, &call, response);
        }
    }
}

fn given(id: i64) -> InitProducerIdResponse {
    InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(0)
}

fn failed(error: ResponseError) -> InitProducerIdResponse {
    InitProducerIdResponse::default()
        .with_error_code(error.code())
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1)
}

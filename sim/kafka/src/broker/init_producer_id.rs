//! InitProducerId (22), versions 0 to 5: a producer id and an epoch.
//!
//! Without a transactional id, a producer id that nobody had before, with epoch 0. With one, what its coordinator says:
//! see [`crate::transaction::Coordinator::init_producer_id`]. Ids come from the controller in blocks of 1,000; who comes
//! while there is none is told COORDINATOR_LOAD_IN_PROGRESS, which clients try again.
//!
//! Version notes: a producer that goes on after an error names what it had from 3 on (KIP-360); PRODUCER_FENCED is known
//! from 4 on, INVALID_PRODUCER_EPOCH stands for it before.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, ApiKey, BrokerId, InitProducerIdRequest,
    InitProducerIdResponse, ProducerId,
};

use super::lifecycle::Pending;
use super::transactions::Asked;
use super::{Broker, Turn};
use crate::core::ConnectionId;
use crate::transaction::{InitRequest, NO_EPOCH, NO_PRODUCER_ID, Producer};
use crate::wire::{self, Call};

impl Broker {
    pub(super) fn init_producer_id(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: Call,
        request: &InitProducerIdRequest,
    ) {
        let expected = match (request.producer_id.0, request.producer_epoch) {
            (NO_PRODUCER_ID, NO_EPOCH) => None,
            (NO_PRODUCER_ID, _) | (_, NO_EPOCH) => {
                return self.initialized(turn, connection, &call, Err(ResponseError::InvalidRequest));
            }
            (id, epoch) => Some(Producer { id, epoch }),
        };
        let Some(id) = &request.transactional_id else {
            let generated = self.transactions.coordinator.producer_ids.generate(turn.now_ms());
            if self.transactions.coordinator.producer_ids.wants_block() {
                self.ask_for_producer_ids(turn);
            }
            let result = generated.map(|id| Producer { id, epoch: 0 });
            return self.initialized(turn, connection, &call, result);
        };
        let request =
            InitRequest { id: id.to_string(), timeout_ms: request.transaction_timeout_ms, expected };
        let ticket = self.transactions.ticket(Asked::InitProducerId { connection, call });
        self.transact(turn, |coordinator, now_ms, out| {
            coordinator.init_producer_id(now_ms, request, ticket, out);
        });
    }

    pub(super) fn initialized(
        &self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        result: Result<Producer, ResponseError>,
    ) {
        let (error, producer) = match result {
            Ok(producer) => (0, producer),
            Err(ResponseError::ProducerFenced) if call.version < 4 => {
                (ResponseError::InvalidProducerEpoch.code(), Producer::NONE)
            }
            Err(error) => (error.code(), Producer::NONE),
        };
        let response = InitProducerIdResponse::default()
            .with_error_code(error)
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(producer.epoch);
        turn.respond(connection, call, response);
    }

    /// Asks the controller for the next block.
    pub(super) fn ask_for_producer_ids(&mut self, turn: &mut Turn<'_>) {
        let request = AllocateProducerIdsRequest::default()
            .with_broker_id(BrokerId(self.node))
            .with_broker_epoch(self.broker_epoch());
        let frame = wire::request(ApiKey::AllocateProducerIds, 0, 0, &request);
        self.ask_controller(turn, Pending::ProducerIds, frame);
    }

    pub(super) fn producer_ids_allocated(
        &mut self,
        turn: &Turn<'_>,
        answer: Option<AllocateProducerIdsResponse>,
    ) {
        let block = answer.filter(|answer| answer.error_code == 0).map(|answer| {
            let start = answer.producer_id_start.0;
            start..start + i64::from(answer.producer_id_len)
        });
        self.transactions.coordinator.producer_ids.block_came(turn.now_ms(), block);
    }
}

//! TxnOffsetCommit (28), versions 0 to 5: offsets that take effect when their producer's transaction commits.
//!
//! They are records of the producer's transaction in the group's partition of the offsets topic, which the transaction's
//! coordinator ends with a marker as on any other partition. As a batch that opens a transaction there, they are verified
//! with that coordinator first (KIP-890).
//!
//! Version notes: COORDINATOR_LOAD_IN_PROGRESS is COORDINATOR_NOT_AVAILABLE before 2 (KAFKA-7296), member and generation
//! fence zombies from 3 on (KIP-447), and from 5 on the partition joins the transaction by the commit itself.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::txn_offset_commit_request::TxnOffsetCommitRequestPartition;
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{TopicName, TxnOffsetCommitRequest, TxnOffsetCommitResponse};

use super::offset_commit::offset_record;
use super::{OfTransaction, code, coordinator_error};
use crate::broker::verification::{AfterVerification, Operation, Verification};
use crate::broker::{Broker, Turn, text};
use crate::core::ConnectionId;
use crate::group::{Ask, CommitKind, CommittedOffset, OFFSETS_TOPIC};
use crate::log::batch::NO_SEQUENCE;
use crate::log::verification::VerificationGuard;
use crate::wire::Call;

impl Broker {
    pub(in crate::broker) fn txn_offset_commit(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: Call,
        request: TxnOffsetCommitRequest,
    ) {
        let group = request.group_id.as_str();
        let known = request.topics.iter().any(|topic| {
            topic.partitions.iter().any(|asked| self.knows_partition(&topic.name, asked.partition_index))
        });
        let checked = if group.is_empty() {
            Err(ResponseError::InvalidGroupId)
        } else if request.producer_id.0 < 0 || request.producer_epoch < 0 {
            Err(ResponseError::InvalidProducerIdMapping)
        } else {
            match self.coordinator.index(group) {
                // The producer's epoch is looked at before it is said that the group is not there yet.
                Ok(_) | Err(ResponseError::CoordinatorLoadInProgress) => Ok(()),
                Err(error) => Err(error),
            }
        };
        if !known || checked.is_err() {
            let response = self.txn_committed(&request, |broker, topic, asked| {
                broker.may_commit(topic, asked.partition_index, None, checked)
            });
            return turn.respond(connection, &call, spoken_to_old_clients(&call, response));
        }
        let index = self.coordinator.place(group).expect("it was just checked");
        let key = self.offsets_partition(index).expect("a coordinator has its topic");
        let verification = Verification {
            transactional_id: request.transactional_id.clone(),
            producer_id: request.producer_id.0,
            producer_epoch: request.producer_epoch,
            operation: Operation::of_txn_offset_commit(call.version),
            partitions: [(key, (TopicName(text(OFFSETS_TOPIC)), NO_SEQUENCE))].into(),
            since: turn.now,
            then: AfterVerification::TxnOffsetCommit { connection, call, request: Box::new(request), key },
        };
        self.verify(turn, verification);
    }

    /// What is left to do when the transaction's coordinator has confirmed that the partition is part of the transaction,
    /// or the partition is so already.
    pub(in crate::broker) fn txn_offset_commit_verified(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        request: &TxnOffsetCommitRequest,
        verified: Result<Option<VerificationGuard>, ResponseError>,
    ) {
        let group = request.group_id.as_str();
        let checked = verified.map_err(coordinator_error).and_then(|verified| {
            // Before version 3 these are the defaults: nobody, of generation -1.
            let ask = Ask {
                member_id: request.member_id.as_str(),
                instance: request.group_instance_id.as_ref().map(|instance| instance.as_str()),
                generation: request.generation_id,
            };
            self.coordinator.check_commit(turn.now, group, ask, CommitKind::Transactional)?;
            Ok((self.coordinator.index(group)?, verified))
        });
        let allowed = checked.map(|_| ());
        let mut records = Vec::new();
        let response = self.txn_committed(request, |broker, topic, asked| {
            let metadata = asked.committed_metadata.as_ref();
            broker.may_commit(topic, asked.partition_index, metadata, allowed)?;
            let value = CommittedOffset {
                offset: asked.committed_offset,
                leader_epoch: asked.committed_leader_epoch,
                metadata: metadata.map(ToString::to_string).unwrap_or_default(),
                commit_timestamp_ms: turn.now_ms(),
                expire_timestamp_ms: None,
            };
            records.push(offset_record(group, topic, asked.partition_index, value));
            Ok(())
        });
        let Ok((index, verified)) = checked else {
            return turn.respond(connection, call, spoken_to_old_clients(call, response));
        };
        let transaction = OfTransaction {
            producer_id: request.producer_id.0,
            producer_epoch: request.producer_epoch,
            verified,
        };
        let written = self.write_group(turn, index, records, Some(transaction));
        self.answer_write(turn, index, written, connection, call, response);
    }

    /// The answer to a commit, with what `each` says of each partition.
    fn txn_committed(
        &self,
        request: &TxnOffsetCommitRequest,
        mut each: impl FnMut(&Broker, &TopicName, &TxnOffsetCommitRequestPartition) -> Result<(), ResponseError>,
    ) -> TxnOffsetCommitResponse {
        let mut response = TxnOffsetCommitResponse::default();
        for topic in &request.topics {
            let mut answered = TxnOffsetCommitResponseTopic::default().with_name(topic.name.clone());
            for asked in &topic.partitions {
                let result = each(self, &topic.name, asked);
                let partition =
                    TxnOffsetCommitResponsePartition::default().with_partition_index(asked.partition_index);
                answered.partitions.push(partition.with_error_code(code(result)));
            }
            response.topics.push(answered);
        }
        response
    }
}

/// Clients of old would fall over COORDINATOR_LOAD_IN_PROGRESS.
fn spoken_to_old_clients(call: &Call, mut response: TxnOffsetCommitResponse) -> TxnOffsetCommitResponse {
    if call.version < 2 {
        let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        let loading = ResponseError::CoordinatorLoadInProgress.code();
        for partition in partitions.filter(|partition| partition.error_code == loading) {
            partition.error_code = ResponseError::CoordinatorNotAvailable.code();
        }
    }
    response
}

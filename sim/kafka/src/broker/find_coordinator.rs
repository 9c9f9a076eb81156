//! FindCoordinator (10), versions 0 to 6: the broker that leads a group's partition of `__consumer_offsets`, or a
//! transactional id's partition of `__transaction_state`.
//!
//! Either topic is made when it is first asked for; until then, and while the partition's broker is away, the answer is
//! COORDINATOR_NOT_AVAILABLE.
//!
//! Version notes: key types from 1 on, several keys from 4 on.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};

use super::{Broker, Turn, text};
use crate::ConnectionId;
use crate::group::{OFFSETS_TOPIC, partition_for};
use crate::transaction::TRANSACTION_TOPIC;
use crate::wire::Call;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

impl Broker {
    pub(super) fn find_coordinator(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        request: &FindCoordinatorRequest,
    ) {
        if call.version >= 4 {
            let keys = request.coordinator_keys.iter();
            let coordinators =
                keys.map(|key| self.coordinator_for(turn, request.key_type, key.as_str())).collect();
            return turn.respond(
                connection,
                call,
                FindCoordinatorResponse::default().with_coordinators(coordinators),
            );
        }
        let found = self.coordinator_for(turn, request.key_type, request.key.as_str());
        let mut response = FindCoordinatorResponse::default()
            .with_error_code(found.error_code)
            .with_node_id(found.node_id)
            .with_host(found.host)
            .with_port(found.port);
        if call.version >= 1 {
            response.error_message = found.error_message;
        }
        turn.respond(connection, call, response);
    }

    fn coordinator_for(&mut self, turn: &mut Turn<'_>, key_type: i8, key: &str) -> Coordinator {
        let answer = Coordinator::default().with_key(text(key));
        let failed = |answer: Coordinator, error: ResponseError, why: &str| {
            answer
                .with_error_code(error.code())
                .with_error_message(Some(text(why)))
                .with_node_id(BrokerId(-1))
                .with_port(-1)
        };
        let name = match key_type {
            GROUP => OFFSETS_TOPIC,
            TRANSACTION => TRANSACTION_TOPIC,
            _ => {
                let why = "only consumer groups and transactional ids have a coordinator";
                return failed(answer, ResponseError::InvalidRequest, why);
            }
        };
        let Some(topic) = self.image.topic(name) else {
            let topic = self.wanted_topic(name);
            self.auto_create(turn, vec![topic]);
            let why = "the coordinator's topic is being made";
            return failed(answer, ResponseError::CoordinatorNotAvailable, why);
        };
        let leader = topic.partitions[partition_for(key, topic.partitions.len())].leader;
        match self.image.brokers.get(&leader).filter(|broker| !broker.fenced) {
            Some(broker) => answer
                .with_node_id(BrokerId(leader))
                .with_host(text(&broker.host))
                .with_port(i32::from(broker.port)),
            None => {
                failed(answer, ResponseError::CoordinatorNotAvailable, "the coordinator's broker is away")
            }
        }
    }
}

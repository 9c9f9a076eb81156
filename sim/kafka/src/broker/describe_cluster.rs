//! DescribeCluster (60), versions 0 to 2: brokers and cluster id for admin tools.
//!
//! Version notes: fenced brokers are told of from 2 on, if asked for. Only brokers can be asked about, not controllers.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};

use super::{Broker, Turn, text};
use crate::wire::Call;
use crate::{CLUSTER_ID, ConnectionId};

const BROKERS: i8 = 1;

impl Broker {
    pub(super) fn describe_cluster(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        request: &DescribeClusterRequest,
    ) {
        if call.version >= 1 && request.endpoint_type != BROKERS {
            let response = DescribeClusterResponse::default()
                .with_error_code(ResponseError::MismatchedEndpointType.code())
                .with_error_message(Some(text("this listener tells of brokers only")));
            return turn.respond(connection, call, response);
        }
        let controller = self.any_live_broker();
        let brokers =
            self.image.brokers.iter().filter(|(_, broker)| !broker.fenced || request.include_fenced_brokers);
        let describe = |(&node, broker): (&i32, &crate::metadata::BrokerImage)| {
            DescribeClusterBroker::default()
                .with_broker_id(BrokerId(node))
                .with_host(text(&broker.host))
                .with_port(i32::from(broker.port))
                .with_rack(broker.rack.as_deref().map(text))
                .with_is_fenced(broker.fenced)
        };
        let response = DescribeClusterResponse::default()
            .with_cluster_id(text(CLUSTER_ID))
            .with_controller_id(BrokerId(controller))
            .with_brokers(brokers.map(describe).collect());
        turn.respond(connection, call, response);
    }
}

//! ApiVersions (18), versions 0 to 4: what this broker serves.
//!
//! The response's header is always version 0, and a version that is not served is answered in version 0 with error 35
//! and the versions of this API alone, so that any client can ask again.
//!
//! From version 3 on it tells the finalized features: clients choose their protocol of transactions by the level of
//! `transaction.version`. Kafka tells the same versions of the APIs at every level, and leaves the choice to the client. A
//! supported feature that can be at level 0 is told from version 4 on only (KAFKA-17011).

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::{Broker, Turn, text};
use crate::ConnectionId;
use crate::wire::{BROKER_APIS, Call};

impl Broker {
    pub(super) fn api_versions(
        &self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        request: &ApiVersionsRequest,
    ) {
        let named = legal_name(&request.client_software_name) && legal_name(&request.client_software_version);
        let response = if call.version >= 3 && !named {
            ApiVersionsResponse::default().with_error_code(ResponseError::InvalidRequest.code())
        } else {
            self.features_for(call.version, ApiVersionsResponse::default().with_api_keys(served()))
        };
        turn.respond(connection, call, response);
    }

    fn features_for(&self, version: i16, mut response: ApiVersionsResponse) -> ApiVersionsResponse {
        if version < 3 {
            return response;
        }
        // Name, oldest and newest level that 4.1 supports, and the level of this cluster.
        let levels = [
            ("eligible.leader.replicas.version", 0, 1, self.features.eligible_leader_replicas_version),
            ("kraft.version", 0, 1, 0),
            ("metadata.version", 7, 27, 27),
            ("transaction.version", 0, 2, self.features.transaction_version),
        ];
        // Older clients cannot read that a level begins at 0 (KAFKA-17492).
        let supported =
            levels.iter().filter(|(_, min, ..)| version >= 4 || *min > 0).map(|&(name, min, max, _)| {
                SupportedFeatureKey::default()
                    .with_name(text(name))
                    .with_min_version(min)
                    .with_max_version(max)
            });
        response.supported_features = supported.collect();
        let finalized = levels.iter().filter(|(.., level)| *level > 0).map(|&(name, .., level)| {
            FinalizedFeatureKey::default()
                .with_name(text(name))
                .with_min_version_level(level)
                .with_max_version_level(level)
        });
        response.finalized_features = finalized.collect();
        response.finalized_features_epoch = self.image.next_offset - 1;
        response
    }
}

/// Kafka's rule (KIP-511): `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`.
fn legal_name(name: &StrBytes) -> bool {
    let bytes = name.as_bytes();
    let inside = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    let at_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    at_end(bytes.first()) && at_end(bytes.last()) && bytes.iter().all(inside)
}

fn served() -> Vec<ApiVersion> {
    let version = |served: &crate::wire::Served| {
        ApiVersion::default()
            .with_api_key(served.api as i16)
            .with_min_version(served.advertised_from)
            .with_max_version(served.to)
    };
    BROKER_APIS.iter().map(version).collect()
}

/// The answer to a version that is not served: which versions of this API are (KIP-511).
pub(super) fn unsupported(correlation: i32) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_i32(correlation);
    let response = ApiVersionsResponse::default()
        .with_error_code(ResponseError::UnsupportedVersion.code())
        .with_api_keys(
            served().into_iter().filter(|told| told.api_key == ApiKey::ApiVersions as i16).collect(),
        );
    response.encode(&mut frame, 0).expect("version 0 holds nothing but keys");
    frame.freeze()
}

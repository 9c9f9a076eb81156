//! Versions: which of each request this client speaks, which the broker speaks, and a request in the highest that both do.

use std::collections::BTreeMap;
use std::io;

use broker::{Error, ErrorClass, ErrorCode};
use bytes::{BufMut as _, Bytes, BytesMut};
use context::BoxStream;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable as _, HeaderVersion, Request, StrBytes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::FinalizedFeatures;
use super::actor::frame_length;
use crate::error::{self, code};
use crate::properties::Habits;

/// The versions of each request that this client speaks; it takes the highest that the broker speaks too. The largest
/// are those of the client whose habits it has, where a broker treats a version differently: librdkafka's 2.12 from its
/// `rdkafka_request.c`, Java's 4.1 from its message schemas, as far as crate `kafka-protocol` reads them.
fn our_versions(key: i16, habits: Habits) -> (i16, i16) {
    let (min, librdkafka, java) = match ApiKey::try_from(key) {
        // From 11 on a broker answers TRANSACTION_ABORTABLE; from 12 on it adds partitions to transactions by itself
        // (KIP-890). 13 goes by topic ids and is left out.
        Ok(ApiKey::Produce) => (3, 10, 12),
        Ok(ApiKey::Fetch) => (4, 16, 16),
        Ok(ApiKey::ListOffsets) => (1, 7, 7),
        Ok(ApiKey::Metadata) => (1, 12, 12),
        Ok(ApiKey::OffsetCommit) => (2, 8, 8),
        Ok(ApiKey::OffsetFetch) => (1, 7, 7),
        Ok(ApiKey::FindCoordinator) => (0, 2, 6),
        // From version 4 on a member must have an id before it takes part (KIP-394).
        Ok(ApiKey::JoinGroup) => (2, 5, 9),
        Ok(ApiKey::Heartbeat) => (0, 3, 4),
        Ok(ApiKey::LeaveGroup) => (0, 1, 5),
        Ok(ApiKey::SyncGroup) => (0, 3, 5),
        Ok(ApiKey::OffsetForLeaderEpoch) => (2, 2, 4),
        Ok(ApiKey::InitProducerId) => (0, 4, 5),
        Ok(ApiKey::AddPartitionsToTxn) => (0, 0, 3),
        Ok(ApiKey::AddOffsetsToTxn) => (0, 0, 4),
        Ok(ApiKey::EndTxn) => (0, 1, 5),
        Ok(ApiKey::TxnOffsetCommit) => (0, 3, 5),
        Ok(ApiKey::CreateTopics) => (2, 4, 7),
        Ok(ApiKey::DeleteTopics) => (1, 1, 5),
        // What follows is asked by the admin client alone, whose habits do not differ.
        Ok(ApiKey::CreatePartitions) => (0, 3, 3),
        Ok(ApiKey::DeleteRecords) => (0, 2, 2),
        Ok(ApiKey::ElectLeaders) => (0, 2, 2),
        Ok(ApiKey::DescribeCluster) => (0, 1, 1),
        Ok(ApiKey::DescribeTopicPartitions) => (0, 0, 0),
        Ok(ApiKey::DescribeConfigs) => (1, 4, 4),
        Ok(ApiKey::IncrementalAlterConfigs) => (0, 1, 1),
        Ok(ApiKey::ListGroups) => (0, 4, 4),
        Ok(ApiKey::DescribeGroups) => (0, 5, 5),
        Ok(ApiKey::DeleteGroups) => (0, 2, 2),
        Ok(ApiKey::OffsetDelete) => (0, 0, 0),
        Ok(ApiKey::ListTransactions) => (0, 1, 1),
        Ok(ApiKey::DescribeTransactions) => (0, 0, 0),
        Ok(ApiKey::DescribeProducers) => (0, 0, 0),
        Ok(ApiKey::WriteTxnMarkers) => (1, 1, 1),
        _ => panic!("this client does not send requests of API {key}"),
    };
    match habits {
        Habits::Librdkafka => (min, librdkafka),
        Habits::Java => (min, java),
    }
}

/// What a broker said about the versions it speaks.
pub(super) struct Versions {
    pub(super) habits: Habits,
    pub(super) ranges: BTreeMap<i16, (i16, i16)>,
    pub(super) broker: String,
    pub(super) client_id: StrBytes,
}

impl Versions {
    /// Encodes a request, length prefix included, in the highest version that both sides speak.
    pub(super) fn encode<R: Request>(
        &self,
        version_max: i16,
        correlation_id: i32,
        build: impl FnOnce(i16) -> R,
    ) -> Result<(i16, BytesMut), Error> {
        let (ours_min, ours_max) = our_versions(R::KEY, self.habits);
        let (theirs_min, theirs_max) = self.ranges.get(&R::KEY).copied().unwrap_or((i16::MAX, -1));
        let version = ours_max.min(version_max).min(theirs_max);
        if version < ours_min.max(theirs_min) {
            let text = format!(
                "{}: API {} in versions {theirs_min} to {theirs_max}, this client speaks {ours_min} to {ours_max}",
                self.broker,
                R::KEY
            );
            return Err(error::answered(code::UNSUPPORTED_VERSION, text));
        }
        let frame = encode(&build(version), version, correlation_id, &self.client_id)
            .map_err(|error| Error::new(ErrorCode::InvalidState, ErrorClass::Failed, error))?;
        Ok((version, frame))
    }
}

fn encode<R: Request>(
    request: &R,
    version: i16,
    correlation_id: i32,
    client_id: &StrBytes,
) -> Result<BytesMut, String> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(client_id.clone()));
    let mut frame = BytesMut::with_capacity(128);
    frame.put_i32(0);
    header.encode(&mut frame, R::header_version(version)).map_err(|error| format!("{error:#}"))?;
    request.encode(&mut frame, version).map_err(|error| format!("{error:#}"))?;
    let length = i32::try_from(frame.len() - 4).map_err(|_| "a request beyond 2 GiB".to_owned())?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

pub(super) fn decode<R: Decodable + HeaderVersion>(frame: &mut Bytes, version: i16) -> Result<R, String> {
    ResponseHeader::decode(frame, R::header_version(version)).map_err(|error| format!("{error:#}"))?;
    R::decode(frame, version).map_err(|error| format!("{error:#}"))
}

/// Asks for the versions that the broker speaks. One that does not know our version of the question says so in
/// version 0, and is asked again in that.
pub(super) async fn agree(
    stream: &mut BoxStream,
    client_id: &StrBytes,
    frame_bytes_max: usize,
) -> io::Result<(BTreeMap<i16, (i16, i16)>, FinalizedFeatures)> {
    for version in [3, 0] {
        let mut request = ApiVersionsRequest::default();
        if version >= 3 {
            request = request
                .with_client_software_name("shakedown".into())
                .with_client_software_version(env!("CARGO_PKG_VERSION").into());
        }
        let frame = encode(&request, version, i32::from(version), client_id).map_err(io::Error::other)?;
        stream.write_all(&frame).await?;
        let length = stream.read_i32().await?;
        let mut answer = vec![0; frame_length(length, frame_bytes_max)?];
        stream.read_exact(&mut answer).await?;
        let mut answer = Bytes::from(answer);
        let refused = answer.get(4..6).is_some_and(|code| code == code::UNSUPPORTED_VERSION.to_be_bytes());
        if refused && version > 0 {
            continue;
        }
        let answer: ApiVersionsResponse = decode(&mut answer, version).map_err(io::Error::other)?;
        if answer.error_code != 0 {
            return Err(io::Error::other(error::answered(answer.error_code, "the broker's versions")));
        }
        let ranges = answer.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version)));
        let levels = answer.finalized_features.iter();
        let levels = levels.map(|feature| (feature.name.to_string(), feature.max_version_level)).collect();
        let features = FinalizedFeatures { epoch: answer.finalized_features_epoch, levels };
        return Ok((ranges.collect(), features));
    }
    Err(io::Error::other("the broker answers no version of ApiVersions"))
}

//! Frames of Kafka's wire protocol: bounded, checked before they are decoded, answered in the version they came in.
//!
//! It owns bytes; what a request means is the cores' business. Start reading at [`Request::read`].

mod frame;
mod guard;
mod layout;
pub(crate) mod primitive;

pub use frame::{FrameError, read_frame, write_frame};
pub use guard::Malformed;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, RequestKind, ResponseHeader, ResponseKind};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

/// A range of versions of one API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// The API.
    pub api: ApiKey,
    /// The oldest version that ApiVersions tells of.
    pub advertised_from: i16,
    /// The oldest version that is answered.
    pub from: i16,
    /// The newest version, told of and answered.
    pub to: i16,
}

const fn served(api: ApiKey, from: i16, to: i16) -> Served {
    Served { api, advertised_from: from, from, to }
}

/// What a broker answers, by API key; the ranges of Kafka 4.1 as far as built.
pub const BROKER_APIS: &[Served] = &[
    // librdkafka disables compression where Produce does not go back to 0 (KAFKA-18659); Kafka tells of 0 and refuses it.
    Served { api: ApiKey::Produce, advertised_from: 0, from: 3, to: 13 },
    served(ApiKey::Fetch, 4, 18),
    served(ApiKey::ListOffsets, 1, 10),
    served(ApiKey::Metadata, 0, 13),
    served(ApiKey::OffsetCommit, 2, 9),
    served(ApiKey::OffsetFetch, 1, 9),
    served(ApiKey::FindCoordinator, 0, 6),
    served(ApiKey::JoinGroup, 0, 9),
    served(ApiKey::Heartbeat, 0, 4),
    served(ApiKey::LeaveGroup, 0, 5),
    served(ApiKey::SyncGroup, 0, 5),
    served(ApiKey::DescribeGroups, 0, 6),
    served(ApiKey::ListGroups, 0, 5),
    served(ApiKey::ApiVersions, 0, 4),
    served(ApiKey::CreateTopics, 2, 7),
    served(ApiKey::DeleteTopics, 1, 6),
    served(ApiKey::DeleteRecords, 0, 2),
    served(ApiKey::InitProducerId, 0, 5),
    served(ApiKey::OffsetForLeaderEpoch, 2, 4),
    served(ApiKey::AddPartitionsToTxn, 0, 5),
    served(ApiKey::AddOffsetsToTxn, 0, 4),
    served(ApiKey::EndTxn, 0, 5),
    served(ApiKey::DescribeTransactions, 0, 0),
    served(ApiKey::ListTransactions, 0, 2),
    served(ApiKey::WriteTxnMarkers, 1, 1),
    served(ApiKey::CreatePartitions, 0, 3),
    served(ApiKey::DescribeConfigs, 1, 4),
    served(ApiKey::DescribeLogDirs, 1, 4),
    served(ApiKey::DescribeTopicPartitions, 0, 0),
    served(ApiKey::AlterConfigs, 0, 2),
    served(ApiKey::IncrementalAlterConfigs, 0, 1),
    served(ApiKey::ElectLeaders, 0, 2),
    served(ApiKey::TxnOffsetCommit, 0, 5),
    served(ApiKey::DeleteGroups, 0, 2),
    served(ApiKey::OffsetDelete, 0, 0),
    served(ApiKey::DescribeCluster, 0, 2),
    served(ApiKey::DescribeProducers, 0, 0),
];

/// What the controller answers, for brokers only.
pub const CONTROLLER_APIS: &[Served] = &[
    served(ApiKey::Fetch, 12, 12),
    served(ApiKey::CreateTopics, 2, 7),
    served(ApiKey::DeleteTopics, 1, 6),
    served(ApiKey::CreatePartitions, 0, 3),
    served(ApiKey::ElectLeaders, 0, 2),
    served(ApiKey::AlterConfigs, 0, 2),
    served(ApiKey::IncrementalAlterConfigs, 0, 1),
    served(ApiKey::AlterPartition, 2, 3),
    served(ApiKey::BrokerRegistration, 4, 4),
    served(ApiKey::BrokerHeartbeat, 1, 1),
    served(ApiKey::AllocateProducerIds, 0, 0),
];

/// What is needed to answer a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The API.
    pub api: ApiKey,
    /// The version of request and response.
    pub version: i16,
    /// Comes back with the response.
    pub correlation: i32,
    /// What the client calls itself.
    pub client_id: Option<StrBytes>,
}

/// A request, decoded.
#[derive(Clone, Debug)]
pub struct Request {
    /// Whom and how to answer.
    pub call: Call,
    /// What is asked.
    pub body: RequestKind,
}

/// Why a frame is no request that can be answered in kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// ApiVersions in a version that is not served: answered in version 0, with error 35 and the versions that are.
    UnknownApiVersions {
        /// Comes back with the response.
        correlation: i32,
    },
    /// Anything else: the connection closes, as Kafka does it.
    Close(Malformed),
}

impl From<Malformed> for Unreadable {
    fn from(malformed: Malformed) -> Unreadable {
        Unreadable::Close(malformed)
    }
}

impl Request {
    /// Reads a frame. All lengths inside are checked against the bytes that are there before the codec, which reserves
    /// what they say, sees them.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn read(frame: &Bytes, apis: &[Served]) -> Result<Request, Unreadable> {
        let start = guard::Start::read(frame)?;
        let known = ApiKey::try_from(start.api_key).map_err(|()| Malformed::UnknownApi(start.api_key))?;
        let served = apis.iter().find(|served| served.api == known);
        let served = served.ok_or(Malformed::UnknownApi(start.api_key))?;
        if !(served.from..=served.to).contains(&start.version) {
            if known == ApiKey::ApiVersions {
                return Err(Unreadable::UnknownApiVersions { correlation: start.correlation });
            }
            return Err(Malformed::UnservedVersion { api_key: start.api_key, version: start.version }.into());
        }
        guard::check(known, start.version, frame)?;
        let mut rest = frame.clone();
        let header = RequestHeader::decode(&mut rest, known.request_header_version(start.version));
        let header = header.map_err(|_| Malformed::Undecodable(start.api_key))?;
        let body = RequestKind::decode(known, &mut rest, start.version);
        let body = body.map_err(|_| Malformed::Undecodable(start.api_key))?;
        let (version, correlation) = (start.version, start.correlation);
        Ok(Request { call: Call { api: known, version, correlation, client_id: header.client_id }, body })
    }
}

impl Call {
    /// Encodes the answer, without the frame's length.
    ///
    /// # Errors
    /// [`Malformed::Unanswerable`] if the version has no room for it: a client id of 32 KiB does not fit into a member id of
    /// JoinGroup below version 6. Kafka's serialiser throws then, and the connection closes.
    pub fn answer(&self, response: &ResponseKind) -> Result<Bytes, Malformed> {
        let mut frame = BytesMut::with_capacity(room_for(response));
        let header = ResponseHeader::default().with_correlation_id(self.correlation);
        header
            .encode(&mut frame, self.api.response_header_version(self.version))
            .and_then(|()| response.encode(&mut frame, self.version))
            .map_err(|error| Malformed::Unanswerable {
                api_key: self.api as i16,
                version: self.version,
                why: error.to_string(),
            })?;
        Ok(frame.freeze())
    }

    /// Decodes the answer of another node to the same request.
    ///
    /// # Errors
    /// If it is none.
    pub fn read_answer(&self, frame: &Bytes) -> Result<ResponseKind, Malformed> {
        let mut rest = frame.clone();
        ResponseHeader::decode(&mut rest, self.api.response_header_version(self.version))
            .and_then(|_| ResponseKind::decode(self.api, &mut rest, self.version))
            .map_err(|_| Malformed::BadResponse)
    }
}

/// Memory for an answer: what is large in one are the records of a fetch, which would be moved each time it grows.
fn room_for(response: &ResponseKind) -> usize {
    let records = match response {
        ResponseKind::Fetch(fetch) => {
            let partitions = fetch.responses.iter().flat_map(|topic| &topic.partitions);
            partitions.map(|data| 64 + data.records.as_ref().map_or(0, Bytes::len)).sum()
        }
        _ => 0,
    };
    128 + records
}

/// A request as a broker sends it to the controller, without the frame's length.
pub fn request<T: Encodable + HeaderVersion>(api: ApiKey, version: i16, correlation: i32, body: &T) -> Bytes {
    let header = RequestHeader::default()
        .with_request_api_key(api as i16)
        .with_request_api_version(version)
        .with_correlation_id(correlation);
    let mut frame = BytesMut::new();
    let encoded = header.encode(&mut frame, T::header_version(version));
    encoded
        .and_then(|()| body.encode(&mut frame, version))
        .unwrap_or_else(|error| panic!("the request {api:?} version {version} cannot be encoded: {error}"));
    frame.freeze()
}

/// The body of a response to a [`request`].
///
/// # Errors
/// If it is not one.
pub fn response<T: Decodable + HeaderVersion>(frame: &Bytes, version: i16) -> Result<T, Malformed> {
    let mut rest = frame.clone();
    if rest.len() < 4 {
        return Err(Malformed::Short);
    }
    ResponseHeader::decode(&mut rest, T::header_version(version))
        .and_then(|_| T::decode(&mut rest, version))
        .map_err(|_| Malformed::BadResponse)
}

/// A response with another correlation id, as a broker passes on what the controller answered.
pub fn with_correlation(frame: &Bytes, correlation: i32) -> Bytes {
    let mut frame = BytesMut::from(&frame[..]);
    frame[..4].copy_from_slice(&correlation.to_be_bytes());
    frame.freeze()
}

/// A frame with its length in front, as it goes out.
pub fn with_length(frame: &Bytes) -> Bytes {
    let mut framed = BytesMut::with_capacity(4 + frame.len());
    framed.put_i32(frame.len() as i32);
    framed.extend_from_slice(frame);
    framed.freeze()
}

//! Errors in librdkafka's classes, and which of a broker's answers are worth another try.

use broker::{Error, ErrorClass, ErrorCode};

/// Kafka's error codes that this client acts on. Source: `org.apache.kafka.common.protocol.Errors`, Kafka 4.1.
pub(crate) mod code {
    pub(crate) const OFFSET_OUT_OF_RANGE: i16 = 1;
    pub(crate) const CORRUPT_MESSAGE: i16 = 2;
    pub(crate) const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
    pub(crate) const LEADER_NOT_AVAILABLE: i16 = 5;
    pub(crate) const NOT_LEADER_OR_FOLLOWER: i16 = 6;
    pub(crate) const REQUEST_TIMED_OUT: i16 = 7;
    pub(crate) const MESSAGE_TOO_LARGE: i16 = 10;
    pub(crate) const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
    pub(crate) const COORDINATOR_NOT_AVAILABLE: i16 = 15;
    pub(crate) const NOT_COORDINATOR: i16 = 16;
    pub(crate) const NOT_ENOUGH_REPLICAS_AFTER_APPEND: i16 = 20;
    pub(crate) const ILLEGAL_GENERATION: i16 = 22;
    pub(crate) const UNKNOWN_MEMBER_ID: i16 = 25;
    pub(crate) const REBALANCE_IN_PROGRESS: i16 = 27;
    pub(crate) const CLUSTER_AUTHORIZATION_FAILED: i16 = 31;
    pub(crate) const UNSUPPORTED_VERSION: i16 = 35;
    pub(crate) const TOPIC_ALREADY_EXISTS: i16 = 36;
    pub(crate) const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
    pub(crate) const DUPLICATE_SEQUENCE_NUMBER: i16 = 46;
    pub(crate) const INVALID_PRODUCER_EPOCH: i16 = 47;
    pub(crate) const INVALID_TXN_STATE: i16 = 48;
    pub(crate) const INVALID_PRODUCER_ID_MAPPING: i16 = 49;
    pub(crate) const CONCURRENT_TRANSACTIONS: i16 = 51;
    pub(crate) const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: i16 = 53;
    pub(crate) const KAFKA_STORAGE_ERROR: i16 = 56;
    pub(crate) const UNKNOWN_PRODUCER_ID: i16 = 59;
    pub(crate) const FENCED_LEADER_EPOCH: i16 = 74;
    pub(crate) const UNKNOWN_LEADER_EPOCH: i16 = 75;
    pub(crate) const MEMBER_ID_REQUIRED: i16 = 79;
    pub(crate) const PRODUCER_FENCED: i16 = 90;
    pub(crate) const UNKNOWN_TOPIC_ID: i16 = 100;
    pub(crate) const INCONSISTENT_TOPIC_ID: i16 = 103;
    pub(crate) const TRANSACTION_ABORTABLE: i16 = 120;
}

/// A broker answered with an error code; `what` says what was asked, with names.
pub(crate) fn answered(code: i16, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::Broker(code), ErrorClass::of_broker(code), what.to_string())
}

/// The partition is led by another broker, or by none, or is not what the client takes it for: ask for metadata.
pub(crate) fn wants_metadata(code: i16) -> bool {
    matches!(
        code,
        code::UNKNOWN_TOPIC_OR_PARTITION
            | code::LEADER_NOT_AVAILABLE
            | code::NOT_LEADER_OR_FOLLOWER
            | 9
            | code::KAFKA_STORAGE_ERROR
            | 72
            | code::FENCED_LEADER_EPOCH
            | code::UNKNOWN_LEADER_EPOCH
            | code::UNKNOWN_TOPIC_ID
            | code::INCONSISTENT_TOPIC_ID
    )
}

/// The group's coordinator is elsewhere, or nowhere: look it up again.
pub(crate) fn wants_coordinator(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::Transport
            | ErrorCode::TimedOut
            | ErrorCode::Broker(code::COORDINATOR_NOT_AVAILABLE | code::NOT_COORDINATOR)
    )
}

/// The call does not fit the client's state.
pub(crate) fn invalid_state(text: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidState, ErrorClass::Failed, text)
}

/// No broker, or no longer.
pub(crate) fn transport(text: impl Into<String>) -> Error {
    Error::new(ErrorCode::Transport, ErrorClass::Retriable, text)
}

/// No answer in time.
pub(crate) fn timed_out(text: impl Into<String>) -> Error {
    Error::new(ErrorCode::TimedOut, ErrorClass::Retriable, text)
}

/// The client was closed.
pub(crate) fn closed(text: impl Into<String>) -> Error {
    Error::new(ErrorCode::Closed, ErrorClass::Fatal, text)
}

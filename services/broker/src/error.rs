//! Errors, with the class that says what a caller may do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a caller may do about an error. librdkafka marks its errors the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ErrorClass {
    /// The same call may succeed later.
    Retriable,
    /// The transaction cannot commit; abort it and go on.
    Abortable,
    /// Another client took this one's identity (transactional id, group member). It must stop.
    Fenced,
    /// The client or its configuration cannot go on.
    Fatal,
    /// This one call failed; the client may go on.
    Failed,
}

impl ErrorClass {
    /// The class of a broker's error code (`org.apache.kafka.common.protocol.Errors`).
    pub fn of_broker(code: i16) -> ErrorClass {
        match code {
            // What passes by itself: elections, loading coordinators, moved leaders, slow or missing replicas, quotas. Kafka's
            // own flag (`RetriableException`), but for 8 and 27: a broker comes back, and the next poll joins again.
            2
            | 3
            | 5..=9
            | 13..=16
            | 19
            | 20
            | 27
            | 41
            | 51
            | 56
            | 70..=72
            | 74
            | 75
            | 78
            | 80
            | 83
            | 84
            | 88
            | 89
            | 100
            | 103
            | 106
            | 122
            | 123
            | 133 => ErrorClass::Retriable,
            47 | 52 | 82 | 90 => ErrorClass::Fenced,
            // Sequences that broker and producer do not agree on, and versions that they do not share.
            35 | 45 | 59 => ErrorClass::Fatal,
            120 => ErrorClass::Abortable,
            _ => ErrorClass::Failed,
        }
    }
}

/// What went wrong, in Kafka's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ErrorCode {
    /// A property is unknown, or its value is.
    InvalidConfig,
    /// The call does not fit the client's state: a commit without a transaction, a poll after close.
    InvalidState,
    /// The client was closed.
    Closed,
    /// No broker could be reached, or the connection broke.
    Transport,
    /// No answer within the request's time. Whether it took effect is unknown.
    TimedOut,
    /// The record was not acknowledged within `delivery.timeout.ms`. Whether it was appended is unknown.
    MessageTimedOut,
    /// The client's queue is full: wait for deliveries, then send again.
    QueueFull,
    /// The offset to read is outside the log and `auto.offset.reset` is `error`.
    OffsetOutOfRange,
    /// The member was not polled within `max.poll.interval.ms` and left its group.
    MaxPollExceeded,
    /// This assignment was lost: the group went on without the member.
    AssignmentLost,
    /// This implementation has no such call.
    Unsupported,
    /// The record was dropped because its transaction was aborted, or because an earlier one of it failed.
    Purged,
    /// An error code from a broker.
    Broker(i16),
}

/// An error of a Broker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct Error {
    /// What went wrong.
    pub code: ErrorCode,
    /// What a caller may do.
    pub class: ErrorClass,
    /// For people: what was tried, with names and numbers.
    pub message: String,
}

impl Error {
    /// Makes an error.
    pub fn new(code: ErrorCode, class: ErrorClass, message: impl Into<String>) -> Error {
        Error { code, class, message: message.into() }
    }

    /// The same call may succeed later.
    pub fn is_retriable(&self) -> bool {
        self.class == ErrorClass::Retriable
    }

    /// The client cannot go on: fatal or fenced.
    pub fn is_fatal(&self) -> bool {
        matches!(self.class, ErrorClass::Fatal | ErrorClass::Fenced)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ErrorCode::Broker(code) => match broker_error_name(*code) {
                Some(name) => f.write_str(name),
                None => write!(f, "broker error {code}"),
            },
            other => write!(f, "{other:?}"),
        }
    }
}

/// Kafka's name of a protocol error code, for the codes that clients of this interface meet.
/// Source: `org.apache.kafka.common.protocol.Errors`, Kafka 4.1.
pub(crate) fn broker_error_name(code: i16) -> Option<&'static str> {
    Some(match code {
        -1 => "UNKNOWN_SERVER_ERROR",
        1 => "OFFSET_OUT_OF_RANGE",
        2 => "CORRUPT_MESSAGE",
        3 => "UNKNOWN_TOPIC_OR_PARTITION",
        5 => "LEADER_NOT_AVAILABLE",
        6 => "NOT_LEADER_OR_FOLLOWER",
        7 => "REQUEST_TIMED_OUT",
        8 => "BROKER_NOT_AVAILABLE",
        9 => "REPLICA_NOT_AVAILABLE",
        10 => "MESSAGE_TOO_LARGE",
        12 => "OFFSET_METADATA_TOO_LARGE",
        13 => "NETWORK_EXCEPTION",
        14 => "COORDINATOR_LOAD_IN_PROGRESS",
        15 => "COORDINATOR_NOT_AVAILABLE",
        16 => "NOT_COORDINATOR",
        17 => "INVALID_TOPIC_EXCEPTION",
        18 => "RECORD_LIST_TOO_LARGE",
        19 => "NOT_ENOUGH_REPLICAS",
        20 => "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
        21 => "INVALID_REQUIRED_ACKS",
        22 => "ILLEGAL_GENERATION",
        23 => "INCONSISTENT_GROUP_PROTOCOL",
        24 => "INVALID_GROUP_ID",
        25 => "UNKNOWN_MEMBER_ID",
        26 => "INVALID_SESSION_TIMEOUT",
        27 => "REBALANCE_IN_PROGRESS",
        28 => "INVALID_COMMIT_OFFSET_SIZE",
        29 => "TOPIC_AUTHORIZATION_FAILED",
        30 => "GROUP_AUTHORIZATION_FAILED",
        31 => "CLUSTER_AUTHORIZATION_FAILED",
        32 => "INVALID_TIMESTAMP",
        35 => "UNSUPPORTED_VERSION",
        36 => "TOPIC_ALREADY_EXISTS",
        37 => "INVALID_PARTITIONS",
        38 => "INVALID_REPLICATION_FACTOR",
        39 => "INVALID_REPLICA_ASSIGNMENT",
        40 => "INVALID_CONFIG",
        41 => "NOT_CONTROLLER",
        42 => "INVALID_REQUEST",
        43 => "UNSUPPORTED_FOR_MESSAGE_FORMAT",
        44 => "POLICY_VIOLATION",
        45 => "OUT_OF_ORDER_SEQUENCE_NUMBER",
        46 => "DUPLICATE_SEQUENCE_NUMBER",
        47 => "INVALID_PRODUCER_EPOCH",
        48 => "INVALID_TXN_STATE",
        49 => "INVALID_PRODUCER_ID_MAPPING",
        50 => "INVALID_TRANSACTION_TIMEOUT",
        51 => "CONCURRENT_TRANSACTIONS",
        52 => "TRANSACTION_COORDINATOR_FENCED",
        53 => "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
        55 => "OPERATION_NOT_ATTEMPTED",
        56 => "KAFKA_STORAGE_ERROR",
        59 => "UNKNOWN_PRODUCER_ID",
        68 => "NON_EMPTY_GROUP",
        69 => "GROUP_ID_NOT_FOUND",
        74 => "FENCED_LEADER_EPOCH",
        75 => "UNKNOWN_LEADER_EPOCH",
        78 => "OFFSET_NOT_AVAILABLE",
        79 => "MEMBER_ID_REQUIRED",
        80 => "PREFERRED_LEADER_NOT_AVAILABLE",
        81 => "GROUP_MAX_SIZE_REACHED",
        82 => "FENCED_INSTANCE_ID",
        83 => "ELIGIBLE_LEADERS_NOT_AVAILABLE",
        84 => "ELECTION_NOT_NEEDED",
        86 => "GROUP_SUBSCRIBED_TO_TOPIC",
        87 => "INVALID_RECORD",
        88 => "UNSTABLE_OFFSET_COMMIT",
        90 => "PRODUCER_FENCED",
        100 => "UNKNOWN_TOPIC_ID",
        101 => "DUPLICATE_BROKER_REGISTRATION",
        103 => "INCONSISTENT_TOPIC_ID",
        105 => "TRANSACTIONAL_ID_NOT_FOUND",
        120 => "TRANSACTION_ABORTABLE",
        _ => return None,
    })
}

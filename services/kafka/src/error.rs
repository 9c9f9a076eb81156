//! Errors of librdkafka in the words of [`broker::Error`].
//!
//! Where librdkafka gives an `rd_kafka_error_t`, its own flags (fatal, retriable, needs an abort) decide the class: calls of a
//! transaction, and a consumer's fatal error. Everything else comes as a plain code, which has no flags: [`class_of`] is
//! Kafka's own flag of a broker's code (its exception is a `RetriableException`), and for librdkafka's own codes what its
//! documentation says. The tests go over all codes that librdkafka has, and name each that differs, with the reason.

use broker::{Error, ErrorClass, ErrorCode};
use rdkafka::error::{KafkaError, RDKafkaError, RDKafkaErrorCode};

/// What librdkafka's flags say about an error.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flags {
    pub(crate) fatal: bool,
    pub(crate) retriable: bool,
    pub(crate) requires_abort: bool,
}

/// An error of crate `rdkafka`; `what` says what was tried, with names.
pub(crate) fn from_kafka(error: &KafkaError, what: impl std::fmt::Display) -> Error {
    match error {
        KafkaError::Transaction(error) => from_transaction(error, what),
        KafkaError::ClientConfig(_, description, name, value) => {
            let description = description.trim_end_matches('\0');
            if ["password", "secret", ".pem"].iter().any(|secret| name.contains(secret)) {
                return invalid_config(format!("`{name}`: {description}"));
            }
            invalid_config(format!("`{name}` = `{value}`: {description}"))
        }
        KafkaError::ClientCreation(text) => invalid_config(text.trim_end_matches('\0')),
        KafkaError::Canceled => closed(what),
        KafkaError::AdminOp(code) => Error { class: class_of_answer(*code), ..from_code(*code, what) },
        KafkaError::MessageConsumptionFatal(code) => {
            from_flags(*code, Flags { fatal: true, ..Flags::default() }, what.to_string())
        }
        error => match error.rdkafka_error_code() {
            Some(code) => from_code(code, what),
            None => Error::new(ErrorCode::InvalidState, ErrorClass::Failed, format!("{what}: {error}")),
        },
    }
}

fn from_transaction(error: &RDKafkaError, what: impl std::fmt::Display) -> Error {
    let flags = Flags {
        fatal: error.is_fatal(),
        retriable: error.is_retriable(),
        requires_abort: error.txn_requires_abort(),
    };
    from_flags(error.code(), flags, format!("{what}: {}", error.string()))
}

/// An error with librdkafka's flags.
pub(crate) fn from_flags(code: RDKafkaErrorCode, flags: Flags, message: String) -> Error {
    let class = match flags {
        Flags { fatal: true, .. } if is_fencing(code) => ErrorClass::Fenced,
        Flags { fatal: true, .. } => ErrorClass::Fatal,
        Flags { requires_abort: true, .. } => ErrorClass::Abortable,
        Flags { retriable: true, .. } => ErrorClass::Retriable,
        // A call that came before its time or without what it needs is the caller's to mend.
        _ if is_fencing(code) => ErrorClass::Fenced,
        _ => ErrorClass::Failed,
    };
    Error::new(code_of(code), class, message)
}

/// An error in the answer to an admin call. librdkafka makes it of a plain code and sets no flags; any that it sets decide.
pub(crate) fn from_answer(code: RDKafkaErrorCode, flags: Flags, message: String) -> Error {
    match flags {
        Flags { fatal: false, retriable: false, requires_abort: false } => {
            Error::new(code_of(code), class_of_answer(code), message)
        }
        flags => from_flags(code, flags, message),
    }
}

/// An error code without flags.
pub(crate) fn from_code(code: RDKafkaErrorCode, what: impl std::fmt::Display) -> Error {
    let message = match code_of(code) {
        // librdkafka's own code, of which there is no other trace.
        ErrorCode::InvalidState => format!("{what}: {code}"),
        _ => what.to_string(),
    };
    Error::new(code_of(code), class_of(code), message)
}

/// librdkafka's code in our words. Its negative codes are its own, the others Kafka's.
fn code_of(code: RDKafkaErrorCode) -> ErrorCode {
    use RDKafkaErrorCode as Rd;
    match code {
        Rd::BrokerTransportFailure
        | Rd::AllBrokersDown
        | Rd::Resolve
        | Rd::BrokerDestroy
        // The broker left the cluster's metadata with the request in its queue.
        | Rd::DestroyBroker => ErrorCode::Transport,
        Rd::OperationTimedOut | Rd::TimedOutQueue | Rd::WaitingForCoordinator | Rd::WaitCache => {
            ErrorCode::TimedOut
        }
        Rd::MessageTimedOut => ErrorCode::MessageTimedOut,
        Rd::QueueFull => ErrorCode::QueueFull,
        Rd::AutoOffsetReset => ErrorCode::OffsetOutOfRange,
        Rd::PollExceeded => ErrorCode::MaxPollExceeded,
        Rd::AssignmentLost => ErrorCode::AssignmentLost,
        Rd::PurgeQueue | Rd::PurgeInflight => ErrorCode::Purged,
        Rd::UnsupportedFeature => ErrorCode::Unsupported,
        // Under its own name the producer's fence is Kafka's.
        Rd::Fenced => ErrorCode::Broker(90),
        Rd::UnknownTopic | Rd::UnknownPartition => ErrorCode::Broker(3),
        Rd::MessageSizeTooLarge => ErrorCode::Broker(10),
        code => match i16::try_from(code as i32) {
            Ok(kafkas) if kafkas >= -1 => ErrorCode::Broker(kafkas),
            _ => ErrorCode::InvalidState,
        },
    }
}

/// The class of a code that comes without flags.
fn class_of(code: RDKafkaErrorCode) -> ErrorClass {
    use RDKafkaErrorCode as Rd;
    match code {
        code if is_fencing(code) => ErrorClass::Fenced,
        Rd::Fatal | Rd::UnsupportedFeature => ErrorClass::Fatal,
        Rd::BrokerTransportFailure
        | Rd::AllBrokersDown
        | Rd::Resolve
        | Rd::BrokerDestroy
        | Rd::DestroyBroker
        | Rd::OperationTimedOut
        | Rd::TimedOutQueue
        | Rd::WaitingForCoordinator
        | Rd::WaitCache
        | Rd::Retry
        | Rd::MessageTimedOut
        | Rd::QueueFull
        | Rd::PollExceeded
        | Rd::AssignmentLost
        | Rd::UnknownTopic
        | Rd::UnknownPartition => ErrorClass::Retriable,
        code => match i16::try_from(code as i32) {
            Ok(kafkas) if kafkas > 0 => ErrorClass::of_broker(kafkas),
            _ => ErrorClass::Failed,
        },
    }
}

/// Of an admin's question: what a broker has no answer to ends that call, not the client.
fn class_of_answer(code: RDKafkaErrorCode) -> ErrorClass {
    match class_of(code) {
        ErrorClass::Fatal => ErrorClass::Failed,
        class => class,
    }
}

fn is_fencing(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Rd;
    matches!(
        code,
        Rd::Fenced
            | Rd::InvalidProducerEpoch
            | Rd::TransactionCoordinatorFenced
            | Rd::FencedInstanceId
            | Rd::ProducerFenced
    )
}

/// librdkafka reconnects by itself and says so as an error of a poll.
pub(crate) fn passes_by_itself(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Rd;
    matches!(
        error,
        KafkaError::PartitionEOF(_)
            | KafkaError::MessageConsumption(Rd::BrokerTransportFailure | Rd::AllBrokersDown | Rd::Resolve)
    )
}

/// A property or its value is no good.
pub(crate) fn invalid_config(text: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidConfig, ErrorClass::Fatal, text)
}

/// The call does not fit the client's state.
pub(crate) fn invalid_state(text: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidState, ErrorClass::Failed, text)
}

/// No answer in time.
pub(crate) fn timed_out(text: impl Into<String>) -> Error {
    Error::new(ErrorCode::TimedOut, ErrorClass::Retriable, text)
}

/// The client was closed.
pub(crate) fn closed(text: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::Closed, ErrorClass::Fatal, format!("{text}: the client is closed"))
}

#[cfg(test)]
mod tests;

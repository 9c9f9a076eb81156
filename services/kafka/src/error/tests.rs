//! Every code that librdkafka has, held to Kafka's own flag or to librdkafka's documentation.

use std::collections::BTreeMap;

use ErrorClass::{Failed, Fatal, Fenced, Retriable};

use super::*;
use crate::native::error_codes;

/// The codes whose exception extends `RetriableException` in `org.apache.kafka.common.protocol.Errors`, Kafka 4.1.
const RETRIABLE_IN_KAFKA: &[i32] = &[
    2, 3, 5, 6, 7, 9, 13, 14, 15, 16, 19, 20, 41, 51, 56, 70, 71, 72, 74, 75, 78, 80, 83, 84, 88, 89, 100,
    103, 106, 122, 123, 133,
];

/// What a broker's code means here where Kafka's flag does not say it all, and why.
const OTHERWISE: &[(i32, ErrorClass, &str)] = &[
    (8, Retriable, "BROKER_NOT_AVAILABLE: a broker comes back; Kafka's own clients hide it behind metadata"),
    (27, Retriable, "REBALANCE_IN_PROGRESS: the next poll joins again, and then the same commit may succeed"),
    (35, Fatal, "UNSUPPORTED_VERSION: client and broker will not agree later either"),
    (
        45,
        Fatal,
        "OUT_OF_ORDER_SEQUENCE_NUMBER: librdkafka's idempotent producer stops, for records may be lost",
    ),
    (47, Fenced, "INVALID_PRODUCER_EPOCH: another producer has the transactional id"),
    (52, Fenced, "TRANSACTION_COORDINATOR_FENCED: a later epoch has written"),
    (59, Fatal, "UNKNOWN_PRODUCER_ID: librdkafka's idempotent producer stops, as at a gap"),
    (82, Fenced, "FENCED_INSTANCE_ID: another member has the group.instance.id"),
    (90, Fenced, "PRODUCER_FENCED: another producer has the transactional id"),
];

/// What librdkafka's own codes mean; every other one failed this call, and the client may go on.
const OWN: &[(RDKafkaErrorCode, ErrorClass, &str)] = &[
    (RDKafkaErrorCode::BrokerTransportFailure, Retriable, "it connects again by itself"),
    (RDKafkaErrorCode::AllBrokersDown, Retriable, "it connects again by itself"),
    (RDKafkaErrorCode::Resolve, Retriable, "it looks the name up again"),
    (RDKafkaErrorCode::BrokerDestroy, Retriable, "the broker left while a request was under way"),
    (RDKafkaErrorCode::DestroyBroker, Retriable, "the broker left while a request was under way"),
    (RDKafkaErrorCode::OperationTimedOut, Retriable, "no answer in time"),
    (RDKafkaErrorCode::TimedOutQueue, Retriable, "no answer in time, as the request was not even sent"),
    (RDKafkaErrorCode::WaitingForCoordinator, Retriable, "a coordinator will be found"),
    (RDKafkaErrorCode::WaitCache, Retriable, "metadata will come"),
    (RDKafkaErrorCode::Retry, Retriable, "it says so"),
    (
        RDKafkaErrorCode::MessageTimedOut,
        Retriable,
        "not acknowledged in time; the same record may be sent again",
    ),
    (RDKafkaErrorCode::QueueFull, Retriable, "deliveries make room"),
    (RDKafkaErrorCode::PollExceeded, Retriable, "the next poll joins the group again"),
    (RDKafkaErrorCode::AssignmentLost, Retriable, "the next poll joins the group again"),
    (RDKafkaErrorCode::UnknownTopic, Retriable, "it may be created"),
    (RDKafkaErrorCode::UnknownPartition, Retriable, "it may be created"),
    (RDKafkaErrorCode::Fatal, Fatal, "it says so"),
    (RDKafkaErrorCode::UnsupportedFeature, Fatal, "the broker will not have it later either"),
    (RDKafkaErrorCode::Fenced, Fenced, "another producer has the transactional id"),
];

/// Marks of a range, and no error.
const NONE: &[RDKafkaErrorCode] =
    &[RDKafkaErrorCode::Begin, RDKafkaErrorCode::End, RDKafkaErrorCode::NoError, RDKafkaErrorCode::EndAll];

fn all() -> impl Iterator<Item = (RDKafkaErrorCode, String)> {
    error_codes().into_iter().filter(|(code, _)| !NONE.contains(code))
}

#[test]
fn a_brokers_code_has_the_class_of_kafkas_own_flag_but_for_what_is_named() {
    let otherwise: BTreeMap<_, _> = OTHERWISE.iter().map(|(code, class, _)| (*code, *class)).collect();
    let of_kafka = |code: i32| if RETRIABLE_IN_KAFKA.contains(&code) { Retriable } else { Failed };
    let mut seen = 0;
    for (code, name) in all().filter(|(code, _)| *code as i32 >= -1) {
        let number = code as i32;
        let wanted = otherwise.get(&number).copied().unwrap_or_else(|| of_kafka(number));
        assert_eq!(class_of(code), wanted, "{number} {name}");
        assert_eq!(i32::from(broker_code(code)), number, "{name} goes through under Kafka's number");
        seen += 1;
    }
    assert!(seen > 100, "librdkafka 2.12 knows more of Kafka's codes than {seen}");
    for (code, class, why) in OTHERWISE {
        assert_ne!(*class, of_kafka(*code), "{why}: that is what Kafka's flag says");
        assert!(all().any(|(known, _)| known as i32 == *code), "{why}: librdkafka has no code {code}");
    }
}

fn broker_code(code: RDKafkaErrorCode) -> i16 {
    match code_of(code) {
        ErrorCode::Broker(code) => code,
        other => panic!("{code:?} became {other:?}"),
    }
}

#[test]
fn a_code_of_librdkafkas_own_fails_the_call_but_for_what_is_named() {
    let mut seen = 0;
    for (code, name) in all().filter(|(code, _)| (*code as i32) < -1) {
        let named = OWN.iter().find(|(own, ..)| *own == code);
        assert_eq!(class_of(code), named.map_or(Failed, |(_, class, _)| *class), "{name}: {named:?}");
        seen += 1;
    }
    assert!(seen > 50, "librdkafka 2.12 has more codes of its own than {seen}");
}

#[test]
fn flags_decide_before_the_code_does() {
    const FATAL: Flags = Flags { fatal: true, retriable: false, requires_abort: false };
    const RETRY: Flags = Flags { fatal: false, retriable: true, requires_abort: false };
    const ABORT: Flags = Flags { fatal: false, retriable: false, requires_abort: true };
    use RDKafkaErrorCode as Rd;
    for (code, flags, wanted) in [
        (Rd::RequestTimedOut, FATAL, Fatal),
        (Rd::ProducerFenced, FATAL, Fenced),
        (Rd::InvalidTopic, RETRY, Retriable),
        (Rd::RequestTimedOut, ABORT, ErrorClass::Abortable),
        // A call of a transaction that librdkafka does not call retriable is not, whatever its code says elsewhere.
        (Rd::RequestTimedOut, Flags::default(), Failed),
    ] {
        assert_eq!(from_flags(code, flags, String::new()).class, wanted, "{code:?} with {flags:?}");
    }
    // In the answer to an admin call librdkafka sets none.
    assert_eq!(from_answer(Rd::NotCoordinator, Flags::default(), String::new()).class, Retriable);
    assert_eq!(from_answer(Rd::NotCoordinator, FATAL, String::new()).class, Fatal);
}

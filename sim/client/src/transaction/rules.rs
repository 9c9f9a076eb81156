//! What an error of a coordinator means for a transaction, as each client reads it.
//!
//! Sources: librdkafka 2.12, `rdkafka_txnmgr.c` and `rdkafka_idempotence.c`; Java's client, the handlers in
//! `TransactionManager`. Where both agree it is the protocol (KIP-98, KIP-360, KIP-588); where they do not, a service sees
//! another class of error for the same fault.

use std::time::Duration;

use broker::{ErrorClass, ErrorCode};

use crate::error::code;
use crate::properties::Habits;

/// What was asked of a coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    InitProducer,
    AddPartitions,
    AddOffsets,
    CommitOffsets,
    End,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Ask again after this wait; `None` takes `retry.backoff.ms`, which grows with librdkafka and does not with Java
    /// (`TxnRequestHandler.retryBackoffMs`). With `elsewhere` the coordinator is looked up first.
    Again { elsewhere: bool, wait: Option<Duration> },
    /// The transaction must be aborted; with `bump` under a new epoch.
    Abort { bump: bool },
    /// Another producer has this transactional id.
    Fenced,
    /// The producer cannot go on.
    Fatal,
}

const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
const GROUP_AUTHORIZATION_FAILED: i16 = 30;
const UNSUPPORTED_FOR_MESSAGE_FORMAT: i16 = 43;
const INVALID_TRANSACTION_TIMEOUT: i16 = 50;
const FENCED_INSTANCE_ID: i16 = 82;

/// Reads an error. `first`: nothing is registered with the transaction yet.
pub(crate) fn read(habits: Habits, ask: Ask, error: ErrorCode, first: bool) -> Next {
    let code = match error {
        ErrorCode::Broker(code) => code,
        ErrorCode::Transport | ErrorCode::TimedOut => {
            return Next::Again { elsewhere: true, wait: pause(habits, ask) };
        }
        _ => return Next::Fatal,
    };
    match code {
        code::COORDINATOR_NOT_AVAILABLE | code::NOT_COORDINATOR => {
            Next::Again { elsewhere: true, wait: pause(habits, ask) }
        }
        code::REQUEST_TIMED_OUT => {
            Next::Again { elsewhere: ask == Ask::CommitOffsets, wait: pause(habits, ask) }
        }
        code::CONCURRENT_TRANSACTIONS => {
            Next::Again { elsewhere: false, wait: concurrent(habits, ask, first) }
        }
        code::INVALID_PRODUCER_EPOCH | code::PRODUCER_FENCED => Next::Fenced,
        code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        | UNSUPPORTED_FOR_MESSAGE_FORMAT
        | INVALID_TRANSACTION_TIMEOUT => Next::Fatal,
        _ => match habits {
            Habits::Librdkafka => librdkafka(ask, code),
            Habits::Java => java(ask, code),
        },
    }
}

fn librdkafka(ask: Ask, code: i16) -> Next {
    let again = Next::Again { elsewhere: false, wait: pause(Habits::Librdkafka, ask) };
    match code {
        code::CLUSTER_AUTHORIZATION_FAILED => Next::Fatal,
        // Whatever else befalls it, it goes on asking for its id.
        _ if ask == Ask::InitProducer => again,
        code::INVALID_TXN_STATE => Next::Fatal,
        code::COORDINATOR_LOAD_IN_PROGRESS | code::UNKNOWN_TOPIC_OR_PARTITION => again,
        code::INVALID_PRODUCER_ID_MAPPING if ask == Ask::CommitOffsets => Next::Fatal,
        code::UNKNOWN_PRODUCER_ID | code::INVALID_PRODUCER_ID_MAPPING => {
            Next::Abort { bump: matches!(ask, Ask::AddPartitions | Ask::End) }
        }
        _ => Next::Abort { bump: false },
    }
}

fn java(ask: Ask, code: i16) -> Next {
    match code {
        _ if ErrorClass::of_broker(code) == ErrorClass::Retriable => {
            Next::Again { elsewhere: false, wait: pause(Habits::Java, ask) }
        }
        code::TRANSACTION_ABORTABLE => Next::Abort { bump: false },
        code::UNKNOWN_PRODUCER_ID | code::INVALID_PRODUCER_ID_MAPPING if ask != Ask::CommitOffsets => {
            Next::Abort { bump: true }
        }
        TOPIC_AUTHORIZATION_FAILED if ask == Ask::AddPartitions => Next::Abort { bump: false },
        GROUP_AUTHORIZATION_FAILED if matches!(ask, Ask::AddOffsets | Ask::CommitOffsets) => {
            Next::Abort { bump: false }
        }
        FENCED_INSTANCE_ID | code::UNKNOWN_MEMBER_ID | code::ILLEGAL_GENERATION
            if ask == Ask::CommitOffsets =>
        {
            Next::Abort { bump: false }
        }
        // A transaction is never refused a partition for a reason that a later one would meet again.
        _ if ask == Ask::AddPartitions && code != code::INVALID_TXN_STATE => Next::Abort { bump: false },
        _ => Next::Fatal,
    }
}

/// How long each waits before it asks again.
fn pause(habits: Habits, ask: Ask) -> Option<Duration> {
    match (habits, ask) {
        (Habits::Librdkafka, Ask::InitProducer | Ask::AddPartitions | Ask::CommitOffsets) => {
            Some(Duration::from_millis(500))
        }
        (Habits::Librdkafka, Ask::AddOffsets | Ask::End) | (Habits::Java, _) => None,
    }
}

/// The coordinator is still writing the markers of the transaction before.
fn concurrent(habits: Habits, ask: Ask, first: bool) -> Option<Duration> {
    match (habits, ask) {
        (Habits::Librdkafka, Ask::AddPartitions) => Some(Duration::from_millis(20)),
        (Habits::Java, Ask::AddPartitions) if first => Some(Duration::from_millis(20)),
        _ => pause(habits, ask),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKS: [Ask; 5] =
        [Ask::InitProducer, Ask::AddPartitions, Ask::AddOffsets, Ask::CommitOffsets, Ask::End];

    fn kinds(habits: Habits, code: i16) -> String {
        let kind = |ask| match read(habits, ask, ErrorCode::Broker(code), true) {
            Next::Again { elsewhere: false, .. } => "again",
            Next::Again { elsewhere: true, .. } => "elsewhere",
            Next::Abort { bump: false } => "abort",
            Next::Abort { bump: true } => "bump",
            Next::Fenced => "fenced",
            Next::Fatal => "fatal",
        };
        ASKS.map(kind).join(" ")
    }

    #[test]
    fn each_client_reads_errors_in_its_own_way() {
        // Code, then librdkafka and Java: init, partitions, offsets, their commit, end.
        let table = [
            (14, "again again again again again", "again again again again again"),
            (
                16,
                "elsewhere elsewhere elsewhere elsewhere elsewhere",
                "elsewhere elsewhere elsewhere elsewhere elsewhere",
            ),
            (22, "again abort abort abort abort", "fatal abort fatal abort fatal"),
            (25, "again abort abort abort abort", "fatal abort fatal abort fatal"),
            (47, "fenced fenced fenced fenced fenced", "fenced fenced fenced fenced fenced"),
            (48, "again fatal fatal fatal fatal", "fatal fatal fatal fatal fatal"),
            (49, "again bump abort fatal bump", "bump bump bump fatal bump"),
            (51, "again again again again again", "again again again again again"),
            (53, "fatal fatal fatal fatal fatal", "fatal fatal fatal fatal fatal"),
            (82, "again abort abort abort abort", "fatal abort fatal abort fatal"),
            (90, "fenced fenced fenced fenced fenced", "fenced fenced fenced fenced fenced"),
            (120, "again abort abort abort abort", "abort abort abort abort abort"),
        ];
        for (code, librdkafka, java) in table {
            assert_eq!(kinds(Habits::Librdkafka, code), librdkafka, "librdkafka, {code}");
            assert_eq!(kinds(Habits::Java, code), java, "Java, {code}");
        }
    }

    #[test]
    fn no_answer_means_ask_again_of_whoever_it_is_now() {
        for habits in [Habits::Librdkafka, Habits::Java] {
            for ask in ASKS {
                let next = read(habits, ask, ErrorCode::TimedOut, false);
                assert!(matches!(next, Next::Again { elsewhere: true, .. }), "{habits:?} {ask:?}");
            }
        }
    }

    #[test]
    fn markers_of_the_transaction_before_are_waited_for_in_short_steps() {
        let wait = |habits, first| read(habits, Ask::AddPartitions, ErrorCode::Broker(51), first);
        let short = Next::Again { elsewhere: false, wait: Some(Duration::from_millis(20)) };
        assert_eq!(wait(Habits::Librdkafka, false), short);
        assert_eq!(wait(Habits::Java, true), short);
        assert_ne!(wait(Habits::Java, false), short);
    }
}

//! What must be true of Kafka, from what its clients saw.
//!
//! Each check is a core of its own: client events in, breaches out. They judge only what a client was told; a request
//! without an answer may or may not have happened, and either is right. What only the end can show is judged against the
//! observer's reading of the healed logs. After Jepsen's `tests/kafka.clj`, whose anomalies are named where they match.
//!
//! Absent: cycles over several transactions (Jepsen's `G0`, `G1c`); Kafka does not isolate writes.

mod commits_follow_reads;
mod known;
#[cfg(test)]
mod model;
mod no_aborted_read;
mod no_acknowledged_loss;
mod no_hanging_transaction;
mod no_idempotent_duplicate;
mod no_skipped_poll;
mod no_torn_transaction;
mod one_offset_one_value;
mod order_per_key;
#[cfg(test)]
mod story;
mod transactions;

pub use commits_follow_reads::CommitsFollowReads;
pub use no_aborted_read::NoAbortedRead;
pub use no_acknowledged_loss::NoAcknowledgedLoss;
pub use no_hanging_transaction::NoHangingTransaction;
pub use no_idempotent_duplicate::NoIdempotentDuplicate;
pub use no_skipped_poll::NoSkippedPoll;
pub use no_torn_transaction::NoTornTransaction;
pub use one_offset_one_value::OneOffsetOneValue;
pub use order_per_key::OrderPerKey;

use super::Check;
use crate::system::CheckWords;

/// The checks of Kafka, by the names that findings and `breaks` give them.
pub const CHECKS: &[CheckWords] = &[
    CheckWords {
        name: NoAcknowledgedLoss::NAME,
        exactly_once: false,
        claim: "a record that was acknowledged is in the log at the end",
    },
    CheckWords {
        name: OneOffsetOneValue::NAME,
        exactly_once: false,
        claim: "one offset of a partition holds one value, for everyone",
    },
    CheckWords {
        name: NoIdempotentDuplicate::NAME,
        exactly_once: false,
        claim: "a record that an idempotent producer sent once is in the log at most once",
    },
    CheckWords {
        name: OrderPerKey::NAME,
        exactly_once: false,
        claim: "what an idempotent producer sends to a partition, and so under a key, lies there in the order of the sends",
    },
    CheckWords {
        name: NoSkippedPoll::NAME,
        exactly_once: false,
        claim: "as long as a consumer holds a partition, its polls skip no record and never go back",
    },
    CheckWords {
        name: CommitsFollowReads::NAME,
        exactly_once: false,
        claim: "a consumer commits no offset beyond what it was given to handle",
    },
    CheckWords {
        name: NoAbortedRead::NAME,
        exactly_once: false,
        claim: "a reader of committed records is given none of a transaction that was not to be committed",
    },
    CheckWords {
        name: NoTornTransaction::NAME,
        exactly_once: false,
        claim: "of a transaction all records are in the logs at the end or none, and all if it was told to be committed",
    },
    CheckWords {
        name: NoHangingTransaction::NAME,
        exactly_once: false,
        claim: "when all producers have ended, no open transaction holds readers of committed records back",
    },
];

/// All of them, at the beginning of a run.
pub fn checks() -> Vec<Box<dyn Check>> {
    vec![
        Box::new(NoAcknowledgedLoss::default()),
        Box::new(OneOffsetOneValue::default()),
        Box::new(NoIdempotentDuplicate::default()),
        Box::new(OrderPerKey::default()),
        Box::new(NoSkippedPoll::default()),
        Box::new(CommitsFollowReads::default()),
        Box::new(NoAbortedRead::default()),
        Box::new(NoTornTransaction::default()),
        Box::new(NoHangingTransaction::default()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_names_every_check_that_runs() {
        let listed: Vec<_> = CHECKS.iter().map(|words| (words.name, words.exactly_once)).collect();
        let run: Vec<_> = checks().iter().map(|check| (check.name(), check.is_exactly_once())).collect();
        assert_eq!(listed, run);
    }
}

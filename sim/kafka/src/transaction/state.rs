//! The states of a transactional id, and the levels of `transaction.version`.

/// Where the transaction of a transactional id stands (Kafka's `TransactionState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransactionState {
    /// No transaction since the producer was initialized.
    Empty,
    /// It has partitions, and nobody has ended it.
    Ongoing,
    /// It will be committed, whatever happens: markers are being written.
    PrepareCommit,
    /// It will be aborted, whatever happens: markers are being written.
    PrepareAbort,
    /// The last one was committed and all markers are written.
    CompleteCommit,
    /// The last one was aborted and all markers are written.
    CompleteAbort,
    /// The id is being forgotten: its tombstone is on the way. Only ever pending.
    Dead,
    /// An open transaction is about to be aborted under a newer epoch. Only ever pending.
    PrepareEpochFence,
}

use TransactionState::{
    CompleteAbort, CompleteCommit, Dead, Empty, Ongoing, PrepareAbort, PrepareCommit, PrepareEpochFence,
};

impl TransactionState {
    /// All states, by their number.
    pub const ALL: [TransactionState; 8] =
        [Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit, CompleteAbort, Dead, PrepareEpochFence];

    /// Its number in the log.
    pub fn id(self) -> i8 {
        self as i8
    }

    /// The state of a number in the log.
    pub fn from_id(id: i8) -> Option<TransactionState> {
        Self::ALL.into_iter().find(|state| state.id() == id)
    }

    /// What tools call it.
    pub fn name(self) -> &'static str {
        match self {
            Empty => "Empty",
            Ongoing => "Ongoing",
            PrepareCommit => "PrepareCommit",
            PrepareAbort => "PrepareAbort",
            CompleteCommit => "CompleteCommit",
            CompleteAbort => "CompleteAbort",
            Dead => "Dead",
            PrepareEpochFence => "PrepareEpochFence",
        }
    }

    /// The state of a name.
    pub fn from_name(name: &str) -> Option<TransactionState> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether this state may come after `previous` (Kafka's `VALID_PREVIOUS_STATES`).
    pub fn follows(self, previous: TransactionState) -> bool {
        match self {
            Empty | Dead => matches!(previous, Empty | CompleteCommit | CompleteAbort),
            Ongoing => matches!(previous, Ongoing | Empty | CompleteCommit | CompleteAbort),
            PrepareCommit | PrepareEpochFence => previous == Ongoing,
            // Under transaction.version 2 an abort may find nothing to abort.
            PrepareAbort => {
                matches!(previous, Ongoing | PrepareEpochFence | Empty | CompleteCommit | CompleteAbort)
            }
            CompleteCommit => previous == PrepareCommit,
            CompleteAbort => previous == PrepareAbort,
        }
    }

    /// Whether an id in this state is forgotten when it is silent for long.
    pub fn may_expire(self) -> bool {
        matches!(self, Empty | CompleteCommit | CompleteAbort)
    }
}

/// A level of the feature `transaction.version`: the cluster's, or the one whose rules a request follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransactionVersion(pub i16);

impl TransactionVersion {
    /// The rules before KIP-890. Requests of clients follow either these or those of level 2.
    pub const TV_0: TransactionVersion = TransactionVersion(0);
    /// Each transaction has an epoch of its own (KIP-890, part 2).
    pub const TV_2: TransactionVersion = TransactionVersion(2);

    /// Whether the end of a transaction bumps the producer's epoch.
    pub fn bumps_epoch(self) -> bool {
        self >= Self::TV_2
    }

    /// The version of the log's values: flexible ones from level 1 on.
    pub(super) fn log_value_version(self) -> i16 {
        i16::from(self.0 >= 1)
    }
}

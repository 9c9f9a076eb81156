//! Transactions of a producer: where one stands, and which partitions its coordinator knows of.
//!
//! This file is the state, without IO. `rules` says what a coordinator's error means, `calls` has what users call,
//! `questions` what coordinators are asked then, and the sender registers partitions on its way. Two protocols (KIP-98, KIP-890): in the first a partition is registered
//! with the coordinator before the first record goes to it, and an epoch serves many transactions; in the second the
//! leader registers it, and each end of a transaction gives a new epoch. Absent: two-phase commit (KIP-939).

pub(crate) mod calls;
pub(crate) mod questions;
pub(crate) mod rules;

use std::collections::BTreeSet;

use broker::{Error, ErrorClass, ErrorCode, TopicPartition};

use crate::error::invalid_state;

/// Which protocol a transaction follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    V1,
    V2,
}

/// Where a producer stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// It has no `transactional.id`.
    Off,
    /// `init_transactions` has not succeeded yet.
    Unregistered,
    /// No transaction is open.
    Ready,
    Open,
    Committing,
    Aborting,
    /// The transaction cannot commit, for this reason.
    Failed(Error),
}

/// The state.
pub(crate) struct Transaction {
    phase: Phase,
    protocol: Protocol,
    /// Partitions to register, under way to it, and registered.
    wanted: BTreeSet<TopicPartition>,
    asked: BTreeSet<TopicPartition>,
    registered: BTreeSet<TopicPartition>,
    /// The coordinator knows of the transaction, or may.
    begun: bool,
    /// The next transaction needs another epoch (KIP-360).
    bump: bool,
}

impl Transaction {
    pub(crate) fn new(transactional: bool) -> Transaction {
        Transaction {
            phase: if transactional { Phase::Unregistered } else { Phase::Off },
            protocol: Protocol::V1,
            wanted: BTreeSet::new(),
            asked: BTreeSet::new(),
            registered: BTreeSet::new(),
            begun: false,
            bump: false,
        }
    }

    pub(crate) fn is_transactional(&self) -> bool {
        self.phase != Phase::Off
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// `init_transactions` may be called: it was not, or has not succeeded.
    ///
    /// # Errors
    /// In any other state.
    pub(crate) fn may_init(&self) -> Result<(), Error> {
        match self.phase {
            Phase::Off => Err(invalid_state("a transaction needs `transactional.id`")),
            Phase::Unregistered => Ok(()),
            _ => Err(invalid_state("`init_transactions` was called before")),
        }
    }

    /// `init_transactions` has succeeded.
    pub(crate) fn initialized(&mut self, protocol: Protocol) {
        self.protocol = protocol;
        self.phase = Phase::Ready;
    }

    pub(crate) fn begin(&mut self) -> Result<(), Error> {
        match &self.phase {
            Phase::Ready => {
                self.phase = Phase::Open;
                Ok(())
            }
            _ => Err(self.not_in("begin")),
        }
    }

    /// Whether a record may be sent: always without transactions, else within one.
    pub(crate) fn admits(&self) -> Result<(), Error> {
        match &self.phase {
            Phase::Off | Phase::Open => Ok(()),
            _ => Err(self.not_in("send")),
        }
    }

    /// Positions may be made part of the transaction.
    pub(crate) fn admits_offsets(&self) -> Result<(), Error> {
        match &self.phase {
            Phase::Open => Ok(()),
            _ => Err(self.not_in("send offsets")),
        }
    }

    pub(crate) fn begin_commit(&mut self) -> Result<(), Error> {
        match &self.phase {
            Phase::Open => {
                self.phase = Phase::Committing;
                Ok(())
            }
            _ => Err(self.not_in("commit")),
        }
    }

    pub(crate) fn begin_abort(&mut self) -> Result<(), Error> {
        match &self.phase {
            Phase::Open | Phase::Failed(_) => {
                self.phase = Phase::Aborting;
                self.wanted.clear();
                Ok(())
            }
            _ => Err(self.not_in("abort")),
        }
    }

    /// The transaction has ended, one way or the other.
    pub(crate) fn ended(&mut self) {
        assert!(matches!(self.phase, Phase::Committing | Phase::Aborting), "ended in {:?}", self.phase);
        self.phase = Phase::Ready;
        self.wanted.clear();
        self.asked.clear();
        self.registered.clear();
        self.begun = false;
        self.bump = false;
    }

    /// The abort has to be asked for again.
    pub(crate) fn abort_failed(&mut self, error: Error) {
        if self.phase == Phase::Aborting {
            self.phase = Phase::Failed(error);
        }
    }

    /// The transaction cannot commit any more; with `bump` its epoch is used up too. The first reason stays. Nothing
    /// happens while it is aborted anyway, but that the epoch is used up.
    pub(crate) fn fail(&mut self, error: &Error, bump: bool) {
        if !matches!(self.phase, Phase::Open | Phase::Committing | Phase::Aborting | Phase::Failed(_)) {
            return;
        }
        // In the second protocol every end of a transaction gives a new epoch.
        self.bump |= bump && self.protocol == Protocol::V1;
        if matches!(self.phase, Phase::Open | Phase::Committing) {
            let text = format!("the transaction must be aborted: {}", error.message);
            self.phase = Phase::Failed(Error::new(error.code, ErrorClass::Abortable, text));
        }
    }

    /// Why the transaction cannot commit.
    pub(crate) fn failure(&self) -> Option<Error> {
        match &self.phase {
            Phase::Failed(error) => Some(error.clone()),
            _ => None,
        }
    }

    /// What is queued and not numbered yet will not be sent any more.
    pub(crate) fn drops_queued(&self) -> bool {
        matches!(self.phase, Phase::Aborting | Phase::Failed(_))
    }

    pub(crate) fn wants_bump(&self) -> bool {
        self.bump
    }

    /// The coordinator must be told of the end. Ask once no registration is under way.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// A question to register partitions is under way.
    pub(crate) fn is_registering(&self) -> bool {
        !self.asked.is_empty()
    }

    /// The coordinator knows of the transaction, or may.
    pub(crate) fn begun(&mut self) {
        self.begun = true;
    }

    /// A record was queued for a partition; says whether it must be registered.
    pub(crate) fn touch(&mut self, partition: &TopicPartition) -> bool {
        match (&self.phase, self.protocol) {
            (Phase::Off, _) => false,
            (_, Protocol::V2) => {
                // The leader registers it with the first record that it gets.
                self.begun = true;
                false
            }
            (_, Protocol::V1) => {
                let known = self.registered.contains(partition) || self.asked.contains(partition);
                !known && self.wanted.insert(partition.clone())
            }
        }
    }

    /// Records may go to the partition.
    pub(crate) fn may_send_to(&self, partition: &TopicPartition) -> bool {
        self.phase == Phase::Off || self.protocol == Protocol::V2 || self.registered.contains(partition)
    }

    /// The partitions to register now; one question at a time.
    pub(crate) fn ask_to_register(&mut self) -> Option<Vec<TopicPartition>> {
        let open = matches!(self.phase, Phase::Open | Phase::Committing);
        if !open || self.wanted.is_empty() || !self.asked.is_empty() {
            return None;
        }
        self.asked = std::mem::take(&mut self.wanted);
        Some(self.asked.iter().cloned().collect())
    }

    /// Something waits to be registered, and may be.
    pub(crate) fn wants_to_register(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Committing)
            && !self.wanted.is_empty()
            && self.asked.is_empty()
    }

    /// A question was answered. `known` are registered; what else was asked is wanted again. With `uncertain` the
    /// coordinator may know of the others too.
    pub(crate) fn registration_answered(&mut self, known: BTreeSet<TopicPartition>, uncertain: bool) {
        self.begun |= uncertain || !known.is_empty();
        let asked = std::mem::take(&mut self.asked);
        if matches!(self.phase, Phase::Open | Phase::Committing) {
            self.wanted.extend(asked.difference(&known).cloned());
            self.registered.extend(known);
        }
    }

    /// The first registration of the transaction is under way, or none was made.
    pub(crate) fn is_first_registration(&self) -> bool {
        self.registered.is_empty()
    }

    fn not_in(&self, call: &str) -> Error {
        match &self.phase {
            Phase::Off => invalid_state("a transaction needs `transactional.id`"),
            Phase::Failed(error) if call != "begin" => error.clone(),
            Phase::Unregistered => invalid_state(format!("cannot {call} before `init_transactions`")),
            Phase::Ready => invalid_state(format!("cannot {call}: no transaction is open")),
            Phase::Open => invalid_state(format!("cannot {call}: a transaction is open")),
            Phase::Committing => invalid_state(format!("cannot {call}: the transaction is being committed")),
            Phase::Aborting => invalid_state(format!("cannot {call}: the transaction is being aborted")),
            Phase::Failed(error) => {
                Error::new(ErrorCode::InvalidState, ErrorClass::Abortable, error.message.clone())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(partition: i32) -> TopicPartition {
        TopicPartition::new("t", partition)
    }

    fn open(protocol: Protocol) -> Transaction {
        let mut transaction = Transaction::new(true);
        transaction.may_init().unwrap();
        transaction.initialized(protocol);
        transaction.begin().unwrap();
        transaction
    }

    fn reason() -> Error {
        Error::new(ErrorCode::Broker(120), ErrorClass::Abortable, "reason")
    }

    #[test]
    fn calls_out_of_order_are_refused_and_change_nothing() {
        let mut transaction = Transaction::new(true);
        assert!(transaction.begin().is_err() && transaction.admits().is_err());
        transaction.initialized(Protocol::V1);
        assert!(transaction.begin_commit().is_err() && transaction.begin_abort().is_err());
        assert!(transaction.admits().is_err(), "no transaction is open");
        transaction.begin().unwrap();
        assert!(transaction.begin().is_err() && transaction.may_init().is_err());
        transaction.admits().unwrap();
        transaction.begin_commit().unwrap();
        assert!(transaction.admits().is_err() && transaction.begin_abort().is_err());
        transaction.ended();
        transaction.begin().unwrap();
    }

    #[test]
    fn a_partition_takes_records_once_its_coordinator_knows_it() {
        let mut transaction = open(Protocol::V1);
        assert!(transaction.touch(&at(0)) && !transaction.touch(&at(0)));
        assert!(!transaction.may_send_to(&at(0)) && !transaction.has_begun());
        assert_eq!(transaction.ask_to_register(), Some(vec![at(0)]));
        assert!(transaction.is_registering(), "its end waits for the answer");
        transaction.touch(&at(1));
        assert_eq!(transaction.ask_to_register(), None, "one question at a time");
        transaction.registration_answered([at(0)].into(), false);
        assert!(transaction.may_send_to(&at(0)) && !transaction.touch(&at(0)));
        assert_eq!(transaction.ask_to_register(), Some(vec![at(1)]));
        transaction.registration_answered(BTreeSet::new(), false);
        assert_eq!(transaction.ask_to_register(), Some(vec![at(1)]), "asked for until it is known");
        transaction.registration_answered([at(1)].into(), false);
        transaction.begin_commit().unwrap();
        transaction.ended();
        assert!(!transaction.may_send_to(&at(0)), "each transaction registers anew");
    }

    #[test]
    fn a_refused_registration_is_no_transaction_and_an_unanswered_one_may_be() {
        let mut transaction = open(Protocol::V1);
        transaction.touch(&at(0));
        transaction.ask_to_register();
        transaction.registration_answered(BTreeSet::new(), false);
        assert!(!transaction.has_begun());
        transaction.ask_to_register();
        transaction.registration_answered(BTreeSet::new(), true);
        assert!(transaction.has_begun());
    }

    #[test]
    fn in_the_second_protocol_the_leader_registers() {
        let mut transaction = open(Protocol::V2);
        assert!(!transaction.touch(&at(0)) && transaction.may_send_to(&at(0)));
        assert!(transaction.has_begun());
        transaction.fail(&reason(), true);
        assert!(!transaction.wants_bump(), "its end gives a new epoch anyway");
    }

    #[test]
    fn a_failed_transaction_can_only_be_aborted_and_keeps_its_first_reason() {
        let mut transaction = open(Protocol::V1);
        transaction.fail(&reason(), true);
        transaction.fail(&Error::new(ErrorCode::TimedOut, ErrorClass::Retriable, "later"), false);
        let refused = transaction.begin_commit().unwrap_err();
        assert_eq!((refused.code, refused.class), (ErrorCode::Broker(120), ErrorClass::Abortable));
        assert!(transaction.drops_queued() && transaction.wants_bump());
        transaction.begin_abort().unwrap();
        transaction.ended();
        assert!(!transaction.wants_bump() && transaction.failure().is_none());
        transaction.begin().unwrap();
    }
}

//! What a leader remembers while it asks a transaction's coordinator whether a partition is part of it (KIP-890).
//!
//! A guard is given when a batch would open a transaction, and shown again when the batch is appended. Any transactional
//! append or marker of the producer in between takes the guard away, so that a batch that was verified for one
//! transaction cannot open the next. Kafka's `VerificationStateEntry` and `VerificationGuard`.

use std::collections::BTreeMap;

/// The right to open a transaction on a partition, as long as it is still known there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerificationGuard(u64);

/// What is being verified for one producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerificationState {
    /// Since when, in milliseconds.
    pub since_ms: i64,
    /// Shown when the batch is appended.
    pub guard: VerificationGuard,
    /// The lowest sequence that came in its epoch: what comes above it must wait, or a later batch would come first.
    pub lowest_sequence: i32,
    /// The producer's epoch.
    pub epoch: i16,
    /// The client bumps its epoch with each transaction (`transaction.version` 2, Produce from version 12 on).
    pub bumps_epoch: bool,
}

/// All producers of a partition that are being verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verifications {
    given: u64,
    by_producer: BTreeMap<i64, VerificationState>,
}

impl Verifications {
    /// Begins to verify, or goes on: a second batch gets the guard of the first.
    pub fn begin(
        &mut self,
        now_ms: i64,
        producer_id: i64,
        (epoch, sequence): (i16, i32),
        bumps_epoch: bool,
    ) -> VerificationGuard {
        let given = &mut self.given;
        let state = self.by_producer.entry(producer_id).or_insert_with(|| {
            *given += 1;
            let guard = VerificationGuard(*given);
            VerificationState { since_ms: now_ms, guard, lowest_sequence: sequence, epoch, bumps_epoch }
        });
        if epoch > state.epoch {
            (state.epoch, state.lowest_sequence) = (epoch, sequence);
        } else if epoch == state.epoch {
            state.lowest_sequence = state.lowest_sequence.min(sequence);
        }
        state.guard
    }

    /// What is known of a producer.
    pub fn get(&self, producer_id: i64) -> Option<&VerificationState> {
        self.by_producer.get(&producer_id)
    }

    /// Whether `guard` still opens a transaction.
    pub fn holds(&self, producer_id: i64, guard: Option<VerificationGuard>) -> bool {
        guard.is_some() && self.get(producer_id).map(|state| state.guard) == guard
    }

    /// A transactional batch or a marker of the producer was appended: guards of before are void. A marker of
    /// `transaction.version` 2 carries the epoch of the next transaction, whose verification goes on.
    pub fn appended(&mut self, producer_id: i64, epoch: i16, is_marker: bool) {
        let next_has_begun =
            |state: &VerificationState| state.bumps_epoch && is_marker && epoch == state.epoch;
        if !self.by_producer.is_empty() && !self.get(producer_id).is_some_and(next_has_begun) {
            self.by_producer.remove(&producer_id);
        }
    }

    /// Forgets those that have lasted `expiration_ms`.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.by_producer.retain(|_, state| now_ms.saturating_sub(state.since_ms) < expiration_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_holds_until_something_of_the_producer_is_appended() {
        let mut verifications = Verifications::default();
        let guard = verifications.begin(0, 7, (3, 5), false);
        assert_eq!(verifications.begin(0, 7, (3, 2), false), guard, "it goes on");
        assert_eq!(verifications.get(7).unwrap().lowest_sequence, 2);
        assert!(verifications.holds(7, Some(guard)));
        assert!(!verifications.holds(7, None) && !verifications.holds(8, Some(guard)));
        verifications.appended(8, 0, true);
        assert!(verifications.holds(7, Some(guard)), "another producer's batch");
        verifications.appended(7, 3, true);
        assert!(!verifications.holds(7, Some(guard)), "a marker came in between");
        assert_ne!(verifications.begin(0, 7, (3, 5), false), guard);
        assert!(!verifications.holds(7, Some(guard)), "an old guard opens nothing new");
    }

    #[test]
    fn a_marker_with_the_next_epoch_does_not_void_the_verification_of_the_next_transaction() {
        let mut verifications = Verifications::default();
        let guard = verifications.begin(0, 7, (4, 0), true);
        verifications.appended(7, 4, true);
        assert!(verifications.holds(7, Some(guard)));
        verifications.appended(7, 4, false);
        assert!(!verifications.holds(7, Some(guard)));
    }

    #[test]
    fn a_newer_epoch_begins_its_own_lowest_sequence() {
        let mut verifications = Verifications::default();
        verifications.begin(0, 7, (3, 2), false);
        verifications.begin(0, 7, (4, 9), false);
        verifications.begin(0, 7, (3, 0), false);
        let state = verifications.get(7).unwrap();
        assert_eq!((state.epoch, state.lowest_sequence), (4, 9));
        verifications.expire(1_000, 1_000);
        assert_eq!(verifications.get(7), None);
    }
}

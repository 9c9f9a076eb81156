//! Who leads a partition, who is in sync and who is eligible: Kafka's `PartitionChangeBuilder`, as of 4.1.
//!
//! An [`Election`] is given a partition, what its in-sync replicas shall be, and who may lead. [`Election::decide`] gives
//! the change, if there is one. In order of preference the leader is
//!
//! 1. the one that leads, if it is still in sync and may lead (a preferred election asks the first replica before it);
//! 2. the first replica that is in sync, or, with none in sync, that is an eligible leader replica;
//! 3. with eligible leader replicas on, and neither of those lists having any left: the last leader that is known;
//! 4. if unclean elections are allowed: the first replica that lives.
//!
//! The third and fourth are unclean: records may be lost, the leader is alone in sync and recovering.
//!
//! **Eligible leader replicas** (KIP-966): a replica that leaves the in-sync replicas while these are fewer than the min
//! ISR has all that was committed, because the high watermark stands still from then on. It stays eligible until it
//! comes back without a clean shutdown, or the in-sync replicas are enough again. Without the feature the last in-sync
//! replica stays in the set when it dies ("last replica standing"), whatever its disk lost.
//!
//! The leader's epoch grows when the leader is elected, the same again after an absence too, and not when the in-sync
//! replicas shrink (since metadata version 3.6). Reassignment is absent.

use crate::metadata::{LeaderRecovery, NO_LEADER, NodeId, PartitionChange, PartitionImage};

/// How far an election may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The first replica, if it is in sync; else as [`Kind::Online`].
    Preferred,
    /// Whoever has all that was committed.
    Online,
    /// Anyone who lives, if nobody has.
    Unclean,
}

/// An election, and whatever else changes in a partition with it.
#[derive(Clone, Debug)]
pub(super) struct Election<'a> {
    partition: &'a PartitionImage,
    kind: Kind,
    elr_enabled: bool,
    min_isr: usize,
    in_sync: Vec<NodeId>,
    elr: Vec<NodeId>,
    leader_recovery: LeaderRecovery,
    unclean_shutdown: Option<NodeId>,
}

/// Who was elected.
struct Elected {
    leader: NodeId,
    unclean: bool,
}

impl<'a> Election<'a> {
    /// An election that leaves the in-sync replicas as they are. `min_isr` is the effective one: never more than there are
    /// replicas.
    pub(super) fn new(
        partition: &'a PartitionImage,
        kind: Kind,
        elr_enabled: bool,
        min_isr: usize,
    ) -> Election<'a> {
        Election {
            partition,
            kind,
            elr_enabled,
            min_isr,
            in_sync: partition.in_sync.clone(),
            elr: partition.elr.clone(),
            leader_recovery: partition.leader_recovery,
            unclean_shutdown: None,
        }
    }

    /// With other in-sync replicas.
    pub(super) fn with_in_sync(mut self, in_sync: Vec<NodeId>) -> Election<'a> {
        self.in_sync = in_sync;
        self
    }

    /// Without a replica that left: it is in sync no more.
    pub(super) fn without(mut self, node: NodeId) -> Election<'a> {
        self.in_sync.retain(|other| *other != node);
        self
    }

    /// Without a replica that came back without a clean shutdown: its log may have lost its end.
    pub(super) fn after_unclean_shutdown(mut self, node: NodeId) -> Election<'a> {
        self.unclean_shutdown = Some(node);
        self.without(node)
    }

    /// With what a leader says of its recovery.
    pub(super) fn with_leader_recovery(mut self, state: LeaderRecovery) -> Election<'a> {
        self.leader_recovery = state;
        self
    }

    /// The change; `None` if all stays as it is. `may_lead` says who is alive and meant to stay.
    pub(super) fn decide(mut self, may_lead: impl Fn(NodeId) -> bool) -> Option<PartitionChange> {
        let mut change = PartitionChange::default();
        self.find_eligible();
        self.elect(&may_lead, &mut change);

        if !self.elr_enabled || change.in_sync.is_some() {
            // After an unclean election nobody is known to have everything.
            self.elr.clear();
        }
        if self.elr != self.partition.elr {
            change.elr = Some(self.elr.clone());
        }
        // Without eligible leader replicas the set of in-sync replicas is never empty.
        let may_set = !self.in_sync.is_empty() || self.elr_enabled;
        if change.in_sync.is_none() && may_set && self.in_sync != self.partition.in_sync {
            change.in_sync = Some(self.in_sync.clone());
        }
        self.note_last_leader(&mut change);
        if self.leader_recovery != self.partition.leader_recovery {
            change.leader_recovery = Some(self.leader_recovery);
        }
        (!change.is_empty()).then_some(change)
    }

    /// Who left the in-sync replicas becomes eligible while there are too few of them.
    fn find_eligible(&mut self) {
        if !self.elr_enabled {
            return;
        }
        if self.in_sync.len() >= self.min_isr {
            return self.elr.clear();
        }
        let mut eligible = std::mem::take(&mut self.elr);
        eligible.extend(&self.partition.in_sync);
        eligible.sort_unstable();
        eligible.dedup();
        eligible.retain(|node| !self.in_sync.contains(node) && self.unclean_shutdown != Some(*node));
        self.elr = eligible;
    }

    fn elect(&mut self, may_lead: &impl Fn(NodeId) -> bool, change: &mut PartitionChange) {
        let Elected { leader, unclean } = self.elected(may_lead);
        if leader == self.partition.leader {
            return;
        }
        change.leader = Some(leader);
        if self.elr.contains(&leader) {
            self.in_sync = vec![leader];
            self.elr.retain(|node| *node != leader);
        } else if unclean {
            change.in_sync = Some(vec![leader]);
            if self.partition.leader_recovery != LeaderRecovery::Recovering {
                change.leader_recovery = Some(LeaderRecovery::Recovering);
                self.leader_recovery = LeaderRecovery::Recovering;
            }
        }
    }

    fn elected(&self, may_lead: &impl Fn(NodeId) -> bool) -> Elected {
        let clean = |leader| Elected { leader, unclean: false };
        let unclean = |leader| Elected { leader, unclean: true };
        let has_everything = |node: &NodeId| {
            let eligible = self.in_sync.contains(node) || self.in_sync.is_empty() && self.elr.contains(node);
            eligible && may_lead(*node)
        };
        let replicas = &self.partition.replicas;
        if self.kind == Kind::Preferred && has_everything(&replicas[0]) {
            return clean(replicas[0]);
        }
        if has_everything(&self.partition.leader) {
            return clean(self.partition.leader);
        }
        if let Some(&leader) = replicas.iter().find(|node| has_everything(node)) {
            return clean(leader);
        }
        if let Some(leader) = self.last_known_leader().filter(|leader| may_lead(*leader)) {
            return unclean(leader);
        }
        if self.kind == Kind::Unclean
            && let Some(&leader) = replicas.iter().find(|node| may_lead(**node))
        {
            return unclean(leader);
        }
        clean(NO_LEADER)
    }

    /// It counts when nobody else has a claim.
    fn last_known_leader(&self) -> Option<NodeId> {
        match self.partition.last_known_elr[..] {
            [leader] if self.elr_enabled && self.in_sync.is_empty() && self.elr.is_empty() => Some(leader),
            _ => None,
        }
    }

    /// The leader that is the last in sync and goes is remembered until there is a leader again.
    fn note_last_leader(&self, change: &mut PartitionChange) {
        if !self.elr_enabled {
            return;
        }
        let before = self.partition;
        let leader = change.leader.unwrap_or(before.leader);
        if change.in_sync.as_ref().is_some_and(Vec::is_empty) && before.last_known_elr != [before.leader] {
            change.last_known_elr = Some(vec![before.leader]);
        } else if leader != NO_LEADER && !before.last_known_elr.is_empty() {
            change.last_known_elr = Some(Vec::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(
        leader: NodeId,
        in_sync: &[NodeId],
        elr: &[NodeId],
        last_known: &[NodeId],
    ) -> PartitionImage {
        PartitionImage {
            leader,
            in_sync: in_sync.to_vec(),
            elr: elr.to_vec(),
            last_known_elr: last_known.to_vec(),
            ..PartitionImage::new(vec![1, 2, 3], vec![1])
        }
    }

    /// What a partition is after an election: leader, in sync, eligible, last known leader.
    type After = (NodeId, Vec<NodeId>, Vec<NodeId>, Vec<NodeId>);

    fn after(before: &PartitionImage, change: Option<PartitionChange>) -> After {
        let mut image = before.clone();
        if let Some(change) = change {
            image.apply(&change);
        }
        (image.leader, image.in_sync, image.elr, image.last_known_elr)
    }

    fn leaves(before: &PartitionImage, node: NodeId, live: &[NodeId], kind: Kind, elr: bool) -> After {
        let election = Election::new(before, kind, elr, 2).without(node);
        after(before, election.decide(|other| other != node && live.contains(&other)))
    }

    #[test]
    fn a_follower_that_leaves_takes_nothing_with_it() {
        let before = partition(1, &[1, 2, 3], &[], &[]);
        let change =
            Election::new(&before, Kind::Online, true, 2).without(3).decide(|node| node != 3).unwrap();
        assert_eq!(change.leader, None, "the leader and its epoch stay");
        assert_eq!(after(&before, Some(change)), (1, vec![1, 2], vec![], vec![]));
    }

    #[test]
    fn the_first_replica_in_sync_follows_a_leader_that_leaves() {
        let before = partition(1, &[3, 1, 2], &[], &[]);
        assert_eq!(leaves(&before, 1, &[2, 3], Kind::Online, true), (2, vec![3, 2], vec![], vec![]));
    }

    #[test]
    fn whoever_leaves_below_the_min_isr_becomes_eligible() {
        let before = partition(1, &[1, 2], &[], &[]);
        assert_eq!(leaves(&before, 1, &[2], Kind::Online, true), (2, vec![2], vec![1], vec![]));
        assert_eq!(leaves(&before, 1, &[2], Kind::Online, false), (2, vec![2], vec![], vec![]));
    }

    #[test]
    fn the_last_replica_standing_stays_in_sync_without_elr_only() {
        let before = partition(2, &[2], &[], &[]);
        assert_eq!(leaves(&before, 2, &[], Kind::Online, false), (NO_LEADER, vec![2], vec![], vec![]));
        assert_eq!(leaves(&before, 2, &[], Kind::Online, true), (NO_LEADER, vec![], vec![2], vec![2]));
    }

    #[test]
    fn an_eligible_replica_leads_when_none_is_in_sync() {
        let before = partition(NO_LEADER, &[], &[1, 2], &[2]);
        let change = Election::new(&before, Kind::Online, true, 2).decide(|node| node == 1);
        assert_eq!(change.as_ref().unwrap().leader_recovery, None, "it has all that was committed");
        assert_eq!(after(&before, change), (1, vec![1], vec![2], vec![]));
    }

    #[test]
    fn an_unclean_shutdown_takes_eligibility_away() {
        let before = partition(NO_LEADER, &[], &[2], &[2]);
        let election = Election::new(&before, Kind::Online, true, 2).after_unclean_shutdown(2);
        assert_eq!(after(&before, election.decide(|_| false)), (NO_LEADER, vec![], vec![], vec![2]));
    }

    #[test]
    fn the_last_known_leader_leads_when_nobody_is_eligible() {
        let before = partition(NO_LEADER, &[], &[], &[2]);
        let elect = |live: NodeId, kind| Election::new(&before, kind, true, 2).decide(|node| node == live);
        let change = elect(2, Kind::Online).unwrap();
        assert_eq!(change.leader_recovery, Some(LeaderRecovery::Recovering), "it may have lost records");
        assert_eq!(after(&before, Some(change)), (2, vec![2], vec![], vec![]));
        assert_eq!(elect(1, Kind::Online), None, "the others may not, unless that is allowed");
        assert_eq!(after(&before, elect(1, Kind::Unclean)), (1, vec![1], vec![], vec![]));
    }

    #[test]
    fn an_unclean_election_waits_until_nobody_in_sync_may_lead() {
        let before = partition(1, &[1], &[], &[]);
        assert_eq!(leaves(&before, 1, &[2, 3], Kind::Unclean, false), (2, vec![2], vec![], vec![]));
        assert_eq!(leaves(&before, 1, &[2, 3], Kind::Online, false), (NO_LEADER, vec![1], vec![], vec![]));
        let two = partition(1, &[1, 3], &[], &[]);
        assert_eq!(leaves(&two, 1, &[2, 3], Kind::Unclean, false), (3, vec![3], vec![], vec![]));
    }

    #[test]
    fn enough_in_sync_replicas_end_eligibility() {
        let before = partition(1, &[1], &[2], &[]);
        let change = Election::new(&before, Kind::Online, true, 2).with_in_sync(vec![1, 3]).decide(|_| true);
        assert_eq!(after(&before, change), (1, vec![1, 3], vec![], vec![]));
    }

    #[test]
    fn a_preferred_election_moves_the_lead_to_the_first_replica_if_it_is_in_sync() {
        let before = partition(2, &[1, 2], &[], &[]);
        let change = Election::new(&before, Kind::Preferred, true, 2).decide(|_| true).unwrap();
        assert_eq!(change, PartitionChange { leader: Some(1), ..PartitionChange::default() });
        let behind = partition(2, &[2, 3], &[], &[]);
        assert_eq!(Election::new(&behind, Kind::Preferred, true, 2).decide(|_| true), None);
    }
}

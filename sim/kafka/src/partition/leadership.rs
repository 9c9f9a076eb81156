//! What a leader knows of its followers: how far each has fetched, when it had all, and who is in sync.
//!
//! Rules as in Kafka's `Replica` and `Partition`. The decisions are here; asking the controller for another in-sync set
//! is the broker's (`broker::in_sync`).
//!
//! While a larger set is asked for, the high watermark waits for all of it, so that it is right whatever the controller
//! says (the "maximal ISR"). While a smaller set is asked for, nobody has left yet.

use std::collections::BTreeMap;
use std::time::Duration;

use context::Timestamp;

use crate::metadata::{MetadataImage, NodeId};

/// A leader's view of its partition, for one leader epoch.
#[derive(Clone, Debug)]
pub struct Leadership {
    /// Where its epoch begins in the log.
    pub epoch_start_offset: i64,
    followers: BTreeMap<NodeId, Follower>,
    in_sync: Vec<NodeId>,
    proposed: Option<Vec<NodeId>>,
}

/// A follower as its leader sees it.
#[derive(Clone, Debug)]
pub struct Follower {
    /// Where it fetches next; -1 before its first fetch from this leader.
    pub end_offset: i64,
    /// Where its log begins; -1 before its first fetch.
    pub start_offset: i64,
    /// Of its registration, as its last fetch told it; `None` before.
    pub broker_epoch: Option<i64>,
    leader_end_at_fetch: i64,
    fetched_at: Timestamp,
    caught_up_at: Timestamp,
}

/// What a follower's fetch says of it.
#[derive(Clone, Copy, Debug)]
pub struct FollowerFetch {
    /// The follower.
    pub node: NodeId,
    /// Of its registration; -1 if it does not say.
    pub broker_epoch: i64,
    /// Where its log ends.
    pub offset: i64,
    /// Where its log begins.
    pub start_offset: i64,
}

/// By what a leader judges its followers.
#[derive(Clone, Copy, Debug)]
pub struct Judgement<'a> {
    /// The time.
    pub now: Timestamp,
    /// `replica.lag.time.max.ms`.
    pub lag_max: Duration,
    /// `min.insync.replicas`, as configured.
    pub min_in_sync: usize,
    /// Who lives.
    pub image: &'a MetadataImage,
}

impl Follower {
    fn unknown(caught_up_at: Timestamp) -> Follower {
        Follower {
            end_offset: -1,
            start_offset: -1,
            broker_epoch: None,
            leader_end_at_fetch: -1,
            fetched_at: Timestamp::from_millis(0),
            caught_up_at,
        }
    }

    /// When it last had all that the leader had.
    pub fn caught_up_at(&self) -> Timestamp {
        self.caught_up_at
    }

    /// It had everything that the leader had, no longer than `lag_max` ago.
    fn is_caught_up(&self, log_end: i64, now: Timestamp, lag_max: Duration) -> bool {
        self.end_offset == log_end || now.since(self.caught_up_at) <= lag_max
    }

    /// It may join the in-sync replicas: alive, not about to stop, and the incarnation that the metadata knows.
    fn is_eligible(&self, node: NodeId, image: &MetadataImage) -> bool {
        let Some(broker) = image.brokers.get(&node) else { return false };
        broker.is_active() && self.broker_epoch.is_some_and(|epoch| epoch == -1 || epoch == broker.epoch)
    }
}

impl Leadership {
    /// The first of this broker for the partition; followers in sync have a whole lag time to show themselves.
    pub fn begin(
        node: NodeId,
        now: Timestamp,
        epoch_start_offset: i64,
        replicas: &[NodeId],
        in_sync: &[NodeId],
    ) -> Leadership {
        let followers = replicas.iter().filter(|&&replica| replica != node);
        let caught_up_at =
            |node: &NodeId| if in_sync.contains(node) { now } else { Timestamp::from_millis(0) };
        let followers = followers.map(|&node| (node, Follower::unknown(caught_up_at(&node)))).collect();
        Leadership { epoch_start_offset, followers, in_sync: in_sync.to_vec(), proposed: None }
    }

    /// Elected again, under a newer epoch.
    pub fn begin_again(&mut self, now: Timestamp, epoch_start_offset: i64) {
        self.epoch_start_offset = epoch_start_offset;
        for (node, follower) in &mut self.followers {
            let since = if self.in_sync.contains(node) { now } else { Timestamp::from_millis(0) };
            follower.leader_end_at_fetch = epoch_start_offset;
            follower.fetched_at = since;
            follower.caught_up_at = since;
        }
    }

    /// The metadata, or the controller's answer, says who is in sync and who holds a replica. What was proposed is over.
    pub fn committed(&mut self, node: NodeId, replicas: &[NodeId], in_sync: &[NodeId]) {
        self.followers.retain(|follower, _| replicas.contains(follower));
        for &replica in replicas.iter().filter(|&&replica| replica != node) {
            self.followers.entry(replica).or_insert_with(|| Follower::unknown(Timestamp::from_millis(0)));
        }
        self.settled(in_sync);
    }

    /// The controller's answer says who is in sync.
    pub fn settled(&mut self, in_sync: &[NodeId]) {
        self.in_sync = in_sync.to_vec();
        self.proposed = None;
    }

    /// The in-sync replicas, this broker among them.
    pub fn in_sync(&self) -> &[NodeId] {
        &self.in_sync
    }

    /// Those in sync, and the one that is about to be.
    pub fn maximal_in_sync(&self) -> usize {
        self.in_sync.len().max(self.proposed.as_ref().map_or(0, Vec::len))
    }

    fn is_maximal_in_sync(&self, node: NodeId) -> bool {
        self.in_sync.contains(&node)
            || self.proposed.as_ref().is_some_and(|proposed| proposed.contains(&node))
    }

    /// `min.insync.replicas`, or the number of replicas if that is less.
    pub fn effective_min_in_sync(&self, min_in_sync: usize) -> usize {
        min_in_sync.min(self.followers.len() + 1)
    }

    /// The followers, by node.
    pub fn followers(&self) -> &BTreeMap<NodeId, Follower> {
        &self.followers
    }

    /// A follower fetched while the leader's log ended at `log_end`: whether its own end moved. `None` if this node holds
    /// no replica.
    pub fn fetched(&mut self, now: Timestamp, fetch: FollowerFetch, log_end: i64) -> Option<bool> {
        let follower = self.followers.get_mut(&fetch.node)?;
        // A fetch from where the log ended at the fetch before shows that it had caught up by then: under steady load it is
        // never at the present end.
        if fetch.offset >= log_end {
            follower.caught_up_at = follower.caught_up_at.max(now);
        } else if fetch.offset >= follower.leader_end_at_fetch {
            follower.caught_up_at = follower.caught_up_at.max(follower.fetched_at);
        }
        let moved = follower.end_offset != fetch.offset;
        follower.end_offset = fetch.offset;
        follower.start_offset = fetch.start_offset;
        follower.leader_end_at_fetch = follower.leader_end_at_fetch.max(log_end);
        follower.fetched_at = now;
        follower.broker_epoch = Some(fetch.broker_epoch);
        Some(moved)
    }

    /// Where the high watermark may be: before it, all in sync have everything, and so has whoever is about to be. `None`
    /// if it must stand still, because fewer are in sync than there must be (`Partition.maybeIncrementLeaderHW`).
    pub fn held_by_all_in_sync(&self, log_end: i64, by: &Judgement<'_>) -> Option<i64> {
        if self.in_sync.len() < self.effective_min_in_sync(by.min_in_sync) {
            return None;
        }
        let mut held = log_end;
        for (&node, follower) in &self.followers {
            let waits = || {
                self.is_maximal_in_sync(node)
                    || (follower.is_caught_up(log_end, by.now, by.lag_max)
                        && follower.is_eligible(node, by.image))
            };
            if follower.end_offset < held && waits() {
                held = follower.end_offset;
            }
        }
        Some(held)
    }

    /// Whether `node` should join the in-sync replicas now.
    pub fn should_join(&self, node: NodeId, high_watermark: i64, image: &MetadataImage) -> bool {
        let Some(follower) = self.followers.get(&node) else { return false };
        self.proposed.is_none()
            && !self.in_sync.contains(&node)
            && follower.end_offset >= high_watermark.max(self.epoch_start_offset)
            && follower.is_eligible(node, image)
    }

    /// The in-sync replicas without those that lag; `None` if none does, or a change is under way.
    pub fn without_lagging(&self, node: NodeId, log_end: i64, by: &Judgement<'_>) -> Option<Vec<NodeId>> {
        if self.proposed.is_some() {
            return None;
        }
        let keeps_up = |replica: &NodeId| {
            let follower = self.followers.get(replica);
            *replica == node || follower.is_some_and(|one| one.is_caught_up(log_end, by.now, by.lag_max))
        };
        let kept: Vec<NodeId> = self.in_sync.iter().copied().filter(keeps_up).collect();
        (kept.len() < self.in_sync.len()).then_some(kept)
    }

    /// Another in-sync set is asked for.
    pub fn propose(&mut self, in_sync: Vec<NodeId>) {
        self.proposed = Some(in_sync);
    }

    /// What was asked for and has no answer that counts yet.
    pub fn proposed(&self) -> Option<&[NodeId]> {
        self.proposed.as_deref()
    }

    /// The controller did not do what was asked for: all is as before.
    pub fn withdraw(&mut self) {
        self.proposed = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::MetadataRecord;

    const LAG: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1_000)
    }

    fn image() -> MetadataImage {
        let mut image = MetadataImage::default();
        for node in 1..=3 {
            image.apply(&MetadataRecord::RegisterBroker {
                node,
                epoch: 10,
                incarnation: uuid::Uuid::nil(),
                host: String::new(),
                port: 0,
                rack: None,
            });
            let (fenced, in_controlled_shutdown) = (Some(false), false);
            image.apply(&MetadataRecord::BrokerChange { node, fenced, in_controlled_shutdown });
        }
        image
    }

    fn judge(image: &MetadataImage, seconds: u64) -> Judgement<'_> {
        Judgement { now: at(seconds), lag_max: LAG, min_in_sync: 2, image }
    }

    fn fetch(node: NodeId, offset: i64) -> FollowerFetch {
        FollowerFetch { node, broker_epoch: 10, offset, start_offset: 0 }
    }

    fn leadership(in_sync: &[NodeId]) -> Leadership {
        Leadership::begin(1, at(0), 0, &[1, 2, 3], in_sync)
    }

    #[test]
    fn what_all_in_sync_have_is_committed() {
        let (image, mut leads) = (image(), leadership(&[1, 2, 3]));
        assert_eq!(leads.held_by_all_in_sync(5, &judge(&image, 0)), Some(-1), "nobody has fetched");
        leads.fetched(at(0), fetch(2, 5), 5);
        leads.fetched(at(0), fetch(3, 3), 5);
        assert_eq!(leads.held_by_all_in_sync(5, &judge(&image, 0)), Some(3));
    }

    #[test]
    fn below_the_minimum_nothing_is_committed() {
        let (image, mut leads) = (image(), leadership(&[1]));
        leads.fetched(at(0), fetch(2, 5), 5);
        assert_eq!(leads.held_by_all_in_sync(5, &judge(&image, 60)), None);
    }

    #[test]
    fn a_follower_that_catches_up_is_waited_for_before_it_is_in_sync() {
        let (image, mut leads) = (image(), leadership(&[1, 2]));
        leads.fetched(at(40), fetch(2, 9), 9);
        leads.fetched(at(40), fetch(3, 4), 9);
        assert_eq!(leads.held_by_all_in_sync(9, &judge(&image, 40)), Some(9), "it is far behind");
        leads.fetched(at(41), fetch(3, 9), 9);
        leads.fetched(at(41), fetch(2, 12), 12);
        assert_eq!(leads.held_by_all_in_sync(12, &judge(&image, 41)), Some(9), "it had all a moment ago");
    }

    #[test]
    fn a_follower_under_steady_load_is_in_sync_though_it_is_never_at_the_end() {
        let (image, mut leads) = (image(), leadership(&[1, 2, 3]));
        for second in 1..100_u64 {
            let end = second as i64 * 10;
            leads.fetched(at(second), fetch(2, end - 10), end);
            leads.fetched(at(second), fetch(3, 0), end);
        }
        assert_eq!(leads.without_lagging(1, 1_000, &judge(&image, 100)), Some(vec![1, 2]));
    }

    #[test]
    fn an_incarnation_that_the_metadata_does_not_know_may_not_join() {
        let (image, mut leads) = (image(), leadership(&[1]));
        leads.fetched(at(0), FollowerFetch { broker_epoch: 9, ..fetch(2, 5) }, 5);
        assert!(!leads.should_join(2, 5, &image));
        leads.fetched(at(0), fetch(2, 4), 5);
        assert!(!leads.should_join(2, 5, &image), "it is below the high watermark");
        leads.fetched(at(0), fetch(2, 5), 5);
        assert!(leads.should_join(2, 5, &image));
        leads.propose(vec![1, 2]);
        assert!(!leads.should_join(2, 5, &image), "it is asked for already");
        assert_eq!(leads.maximal_in_sync(), 2);
        assert_eq!(leads.in_sync(), [1]);
    }
}

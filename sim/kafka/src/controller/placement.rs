//! Where the replicas of new partitions go: Kafka's `StripedReplicaPlacer`, without racks.
//!
//! Live brokers are taken round from one that is drawn, each partition starting one further; fenced brokers come after
//! the live ones and never lead. When every live broker has led once, the order is shuffled, so that the same sets of
//! replicas do not come again and again. Brokers in controlled shutdown get nothing.

use context::Rng;
use rand::RngExt as _;
use rand::seq::SliceRandom as _;

use crate::metadata::NodeId;

/// Brokers, and where the next partition begins among them.
#[derive(Clone, Debug)]
struct Round {
    brokers: Vec<NodeId>,
    offset: usize,
}

impl Round {
    fn new(mut brokers: Vec<NodeId>, rng: &mut Rng) -> Round {
        brokers.sort_unstable();
        let offset = if brokers.is_empty() { 0 } else { rng.random_range(0..brokers.len()) };
        Round { brokers, offset }
    }

    /// All of them, from the offset on.
    fn turn(&self) -> impl Iterator<Item = NodeId> {
        let (before, after) = self.brokers.split_at(self.offset);
        after.iter().chain(before).copied()
    }

    fn step(&mut self) {
        if !self.brokers.is_empty() {
            self.offset = (self.offset + 1) % self.brokers.len();
        }
    }
}

/// The replicas of `partitions` new partitions, the leader first. `live` and `fenced` are all brokers that may hold one.
///
/// # Errors
/// Why there is no such placement, in Kafka's words.
pub(super) fn place(
    live: Vec<NodeId>,
    fenced: Vec<NodeId>,
    partitions: usize,
    replicas: usize,
    rng: &mut Rng,
) -> Result<Vec<Vec<NodeId>>, String> {
    if live.is_empty() {
        return Err("All brokers are currently fenced.".into());
    }
    let total = live.len() + fenced.len();
    if replicas > total {
        return Err(format!(
            "The target replication factor of {replicas} cannot be reached because only {total} broker(s) are registered."
        ));
    }
    let (mut fenced, mut live) = (Round::new(fenced, rng), Round::new(live, rng));
    let mut placed = Vec::with_capacity(partitions);
    for index in 0..partitions {
        if index > 0 {
            if index % live.brokers.len() == 0 && live.brokers.len() > 1 {
                fenced.brokers.shuffle(rng);
                live.brokers.shuffle(rng);
            }
            fenced.step();
            live.step();
        }
        placed.push(live.turn().chain(fenced.turn()).take(replicas).collect());
    }
    Ok(placed)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use context::Seed;

    use super::*;

    fn placed(live: &[NodeId], fenced: &[NodeId], partitions: usize, replicas: usize) -> Vec<Vec<NodeId>> {
        let mut rng = Seed(3).stream("placement");
        place(live.to_vec(), fenced.to_vec(), partitions, replicas, &mut rng).unwrap()
    }

    #[test]
    fn each_broker_leads_as_often_as_the_others() {
        let mut leads: BTreeMap<NodeId, usize> = BTreeMap::new();
        for replicas in placed(&[1, 2, 3, 4], &[], 40, 3) {
            assert_eq!(
                replicas.iter().collect::<BTreeSet<_>>().len(),
                3,
                "{replicas:?} are different brokers"
            );
            *leads.entry(replicas[0]).or_default() += 1;
        }
        assert!(leads.values().all(|&count| (8..=12).contains(&count)), "{leads:?}");
    }

    #[test]
    fn the_first_partitions_begin_one_broker_further_each() {
        let leaders: Vec<NodeId> = placed(&[1, 2, 3], &[], 3, 2).iter().map(|replicas| replicas[0]).collect();
        assert_eq!(leaders.iter().collect::<BTreeSet<_>>().len(), 3, "{leaders:?}");
    }

    #[test]
    fn a_fenced_broker_comes_last_and_never_leads() {
        for replicas in placed(&[1, 3], &[2], 20, 3) {
            assert_eq!(replicas[2], 2, "{replicas:?}");
        }
        assert!(placed(&[1, 3], &[2], 20, 2).iter().flatten().all(|&node| node != 2));
    }

    #[test]
    fn too_few_brokers_are_told() {
        let mut rng = Seed(3).stream("placement");
        let told = |result: Result<Vec<Vec<NodeId>>, String>| result.unwrap_err();
        assert!(told(place(vec![], vec![1, 2], 1, 1, &mut rng)).contains("fenced"));
        assert!(told(place(vec![1], vec![2], 1, 3, &mut rng)).contains("only 2 broker(s)"));
    }
}

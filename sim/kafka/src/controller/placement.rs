//! Where the replicas of new partitions go: Kafka's `StripedReplicaPlacer`.
//!
//! Racks are taken round from one that is drawn, each partition starting one further, and so are the brokers of each
//! rack: live ones first, fenced ones when these are used up. The leader is always live. When there were as many partitions
//! as there are live brokers, racks and brokers are shuffled, so that the same sets of replicas do not come again and
//! again. Brokers that do not say where they stand are a rack of their own. Brokers in controlled shutdown get nothing.

use std::collections::BTreeMap;

use context::Rng;
use rand::RngExt as _;
use rand::seq::SliceRandom as _;

use crate::metadata::NodeId;

/// A broker that may hold a replica.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usable<'a> {
    pub(super) node: NodeId,
    pub(super) rack: Option<&'a str>,
    pub(super) fenced: bool,
}

/// Brokers, and where the next partition begins among them.
#[derive(Clone, Debug, Default)]
struct Round {
    brokers: Vec<NodeId>,
    offset: usize,
    /// How many of them this partition has had.
    taken: usize,
    epoch: usize,
}

impl Round {
    fn initialize(&mut self, rng: &mut Rng) {
        if !self.brokers.is_empty() {
            self.brokers.sort_unstable();
            self.offset = rng.random_range(0..self.brokers.len());
        }
    }

    /// The next for the partition of that epoch; `None` if it had all.
    fn next(&mut self, epoch: usize) -> Option<NodeId> {
        let count = self.brokers.len();
        if count > 0 && self.epoch != epoch {
            self.epoch = epoch;
            self.taken = 0;
            self.offset = (self.offset + 1) % count;
        }
        if self.taken == count {
            return None;
        }
        self.taken += 1;
        Some(self.brokers[(self.offset + self.taken - 1) % count])
    }
}

#[derive(Clone, Debug, Default)]
struct Rack {
    fenced: Round,
    live: Round,
}

impl Rack {
    fn next(&mut self, epoch: usize) -> Option<NodeId> {
        self.live.next(epoch).or_else(|| self.fenced.next(epoch))
    }
}

/// The racks, and where the next partition begins among them.
struct Racks {
    racks: Vec<Rack>,
    live: usize,
    offset: usize,
    epoch: usize,
}

impl Racks {
    fn new(usable: &[Usable<'_>], rng: &mut Rng) -> Racks {
        let mut by_name: BTreeMap<Option<&str>, Rack> = BTreeMap::new();
        for broker in usable {
            let rack = by_name.entry(broker.rack).or_default();
            let round = if broker.fenced { &mut rack.fenced } else { &mut rack.live };
            round.brokers.push(broker.node);
        }
        let mut racks: Vec<Rack> = by_name.into_values().collect();
        for rack in &mut racks {
            rack.fenced.initialize(rng);
            rack.live.initialize(rng);
        }
        let offset = if racks.len() > 1 { rng.random_range(0..racks.len()) } else { 0 };
        let live = usable.iter().filter(|broker| !broker.fenced).count();
        Racks { racks, live, offset, epoch: 0 }
    }

    /// The replicas of one partition. There are enough brokers, and one of them lives.
    fn place(&mut self, replicas: usize, rng: &mut Rng) -> Vec<NodeId> {
        if self.epoch == self.live && self.live > 1 {
            self.shuffle(rng);
            self.epoch = 0;
        }
        let (count, offset, epoch) = (self.racks.len(), self.offset, self.epoch);
        let around = (0..count).map(move |step| (offset + step) % count);
        let leader = around.clone().find_map(|index| Some((index, self.racks[index].live.next(epoch)?)));
        let (first, leader) = leader.expect("some broker lives");
        let mut placed = vec![leader];
        // The leader's rack has had its turn in the first round.
        let mut skip = Some(first);
        for index in around.cycle() {
            if placed.len() == replicas {
                break;
            }
            if skip == Some(index) {
                skip = None;
            } else {
                placed.extend(self.racks[index].next(epoch));
            }
        }
        self.epoch += 1;
        self.offset = (self.offset + 1) % count;
        placed
    }

    fn shuffle(&mut self, rng: &mut Rng) {
        if self.racks.len() > 1 {
            self.racks.shuffle(rng);
        }
        for rack in &mut self.racks {
            rack.fenced.brokers.shuffle(rng);
            rack.live.brokers.shuffle(rng);
        }
    }
}

/// The replicas of `partitions` new partitions, the leader first.
///
/// # Errors
/// Why there is no such placement, in Kafka's words.
pub(super) fn place(
    usable: &[Usable<'_>],
    partitions: usize,
    replicas: usize,
    rng: &mut Rng,
) -> Result<Vec<Vec<NodeId>>, String> {
    if usable.iter().all(|broker| broker.fenced) {
        return Err("All brokers are currently fenced.".into());
    }
    let total = usable.len();
    if replicas > total {
        return Err(format!(
            "The target replication factor of {replicas} cannot be reached because only {total} broker(s) are registered."
        ));
    }
    let mut racks = Racks::new(usable, rng);
    Ok((0..partitions).map(|_| racks.place(replicas, rng)).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use context::Seed;

    use super::*;

    fn usable(live: &[NodeId], fenced: &[NodeId]) -> Vec<Usable<'static>> {
        let of = |nodes: &[NodeId], fenced| {
            let usable = nodes.iter().map(move |&node| Usable { node, rack: None, fenced });
            usable.collect::<Vec<_>>()
        };
        [of(live, false), of(fenced, true)].concat()
    }

    fn placed(live: &[NodeId], fenced: &[NodeId], partitions: usize, replicas: usize) -> Vec<Vec<NodeId>> {
        let mut rng = Seed(3).stream("placement");
        place(&usable(live, fenced), partitions, replicas, &mut rng).unwrap()
    }

    /// Brokers in the racks of this name, one letter each; broker 1 first. Those of small letters are fenced.
    fn in_racks(names: &str, partitions: usize, replicas: usize, seed: u64) -> Vec<Vec<NodeId>> {
        let upper = names.to_uppercase();
        let brokers = (1..).zip(names.char_indices()).map(|(node, (at, letter))| Usable {
            node,
            rack: Some(&upper[at..=at]),
            fenced: letter.is_lowercase(),
        });
        let usable: Vec<_> = brokers.collect();
        place(&usable, partitions, replicas, &mut Seed(seed).stream("placement")).unwrap()
    }

    #[test]
    fn the_replicas_of_a_partition_are_in_as_many_racks_as_can_be() {
        for seed in 0..20 {
            // Nine brokers: AAABBBCCC.
            for replicas in in_racks("AAABBBCCC", 30, 3, seed) {
                let racks: BTreeSet<_> = replicas.iter().map(|node| (node - 1) / 3).collect();
                assert_eq!(racks.len(), 3, "{replicas:?}");
            }
            // More replicas than racks: each rack has two of the four.
            for replicas in in_racks("AAABBB", 12, 4, seed) {
                let in_a = replicas.iter().filter(|node| **node <= 3).count();
                assert_eq!((in_a, replicas.iter().collect::<BTreeSet<_>>().len()), (2, 4), "{replicas:?}");
            }
        }
    }

    #[test]
    fn racks_come_before_an_even_share_and_a_fenced_broker_in_its_rack_before_a_live_one_elsewhere() {
        for seed in 0..20 {
            // Kafka says so itself: one broker in a rack of its own gets a replica of everything.
            assert!(in_racks("AAAB", 20, 2, seed).iter().all(|replicas| replicas.contains(&4)));
            for replicas in in_racks("AABbC", 20, 3, seed) {
                assert!(!replicas.contains(&4), "its rack has a live one: {replicas:?}");
            }
            for replicas in in_racks("AAbC", 20, 3, seed) {
                assert!(replicas.contains(&3) && replicas[0] != 3, "{replicas:?}");
            }
        }
    }

    #[test]
    fn leaders_take_turns_over_racks() {
        for seed in 0..20 {
            let leaders: Vec<_> = in_racks("ABC", 3, 3, seed).iter().map(|replicas| replicas[0]).collect();
            assert_eq!(leaders.iter().collect::<BTreeSet<_>>().len(), 3, "{leaders:?}");
        }
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
        assert!(told(place(&usable(&[], &[1, 2]), 1, 1, &mut rng)).contains("fenced"));
        assert!(told(place(&usable(&[1], &[2]), 1, 3, &mut rng)).contains("only 2 broker(s)"));
    }
}

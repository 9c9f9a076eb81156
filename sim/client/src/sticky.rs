//! The cooperative-sticky assignor (KIP-429, KIP-54): as even as can be, and whoever has a partition keeps it if it can.
//!
//! The promises are those of librdkafka's `rdkafka_sticky_assignor.c` and Java's `AbstractStickyAssignor`; the algorithm is
//! a plainer one, so that an uneven group may be evened out by other moves than theirs. The second half is what makes it
//! cooperative: a partition that changes hands is given to nobody in the round in which its owner gives it up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use broker::{PartitionId, TopicPartition};

use crate::assignor::{Assignments, Member};

/// Assigns, and leaves out what its owner must give up first. The members are in order.
pub(crate) fn cooperative_sticky(
    members: &[Member],
    counts: &BTreeMap<Arc<str>, PartitionId>,
) -> Assignments {
    let owners = claims(members, counts);
    let mut assignments = sticky(members, counts, &owners);
    for (position, member) in members.iter().enumerate() {
        let given = assignments.get_mut(&member.member_id).expect("every member is there");
        given.retain(|partition| owners.get(partition).is_none_or(|owner| *owner == position));
    }
    assignments
}

/// Who has what, by position among the members. A later generation's claim counts before an earlier one's; two claims of
/// one generation are none, because one of the two is mistaken and nobody knows which.
fn claims(members: &[Member], counts: &BTreeMap<Arc<str>, PartitionId>) -> BTreeMap<TopicPartition, usize> {
    let mut claims: BTreeMap<&TopicPartition, Vec<(i32, usize)>> = BTreeMap::new();
    for (position, member) in members.iter().enumerate() {
        for partition in &member.owned {
            let exists = counts.get(&partition.topic).is_some_and(|count| partition.partition < *count);
            if exists && member.topics.contains(&partition.topic) {
                claims.entry(partition).or_default().push((member.generation, position));
            }
        }
    }
    let winner = |claims: Vec<(i32, usize)>| {
        let latest = claims.iter().map(|(generation, _)| *generation).max()?;
        let mut of_latest = claims.into_iter().filter(|(generation, _)| *generation == latest);
        let (_, owner) = of_latest.next()?;
        of_latest.next().is_none().then_some(owner)
    };
    claims.into_iter().filter_map(|(partition, claims)| Some((partition.clone(), winner(claims)?))).collect()
}

fn sticky(
    members: &[Member],
    counts: &BTreeMap<Arc<str>, PartitionId>,
    owners: &BTreeMap<TopicPartition, usize>,
) -> Assignments {
    let mut held: Vec<BTreeSet<TopicPartition>> = vec![BTreeSet::new(); members.len()];
    for (partition, owner) in owners {
        held[*owner].insert(partition.clone());
    }
    let mut free: Vec<(usize, TopicPartition)> = Vec::new();
    for (topic, count) in counts {
        let readers = members.iter().filter(|member| member.topics.contains(topic)).count();
        if readers > 0 {
            let partitions = (0..*count).map(|number| TopicPartition::new(topic.clone(), number));
            free.extend(partitions.filter(|at| !owners.contains_key(at)).map(|at| (readers, at)));
        }
    }
    // Those that few can read go first, while there is a choice for the others.
    free.sort();
    for (_, partition) in free {
        let reader = least_loaded(members, &held, &partition);
        held[reader].insert(partition);
    }
    even_out(members, &mut held);
    let held = held.into_iter().map(|partitions| partitions.into_iter().collect());
    members.iter().map(|member| member.member_id.clone()).zip(held).collect()
}

/// The reader of the partition's topic that has least, the first of several.
fn least_loaded(members: &[Member], held: &[BTreeSet<TopicPartition>], partition: &TopicPartition) -> usize {
    let readers = (0..members.len()).filter(|reader| members[*reader].topics.contains(&partition.topic));
    readers.min_by_key(|reader| held[*reader].len()).expect("someone reads the topic")
}

/// Moves partitions, one at a time and none without need, until no move would make the group more even.
fn even_out(members: &[Member], held: &mut [BTreeSet<TopicPartition>]) {
    loop {
        // From whoever has most: the others' moves follow from it.
        let mut by_load: Vec<usize> = (0..members.len()).collect();
        by_load.sort_by_key(|member| std::cmp::Reverse(held[*member].len()));
        let found = by_load.into_iter().find_map(|from| {
            // The last partitions go first, so that the others stay together.
            held[from].iter().rev().find_map(|partition| {
                let to = least_loaded(members, held, partition);
                (held[to].len() + 1 < held[from].len()).then(|| (from, to, partition.clone()))
            })
        });
        // Each move makes the sum of squares smaller, so there is an end.
        let Some((from, to, partition)) = found else { return };
        held[from].remove(&partition);
        held[to].insert(partition);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(id: &str, topics: &[&str], generation: i32, owned: &[(&str, i32)]) -> Member {
        Member {
            member_id: id.into(),
            group_instance_id: None,
            topics: topics.iter().map(|topic| Arc::from(*topic)).collect(),
            owned: owned.iter().map(|(topic, number)| TopicPartition::new(*topic, *number)).collect(),
            generation,
        }
    }

    fn counts(pairs: &[(&str, i32)]) -> BTreeMap<Arc<str>, PartitionId> {
        pairs.iter().map(|(topic, count)| (Arc::from(*topic), *count)).collect()
    }

    fn shown(assignments: &Assignments) -> Vec<String> {
        assignments.iter().map(|(member, partitions)| format!("{member}: {partitions:?}")).collect()
    }

    #[test]
    fn a_member_that_joins_gets_nothing_before_others_have_given_it_up() {
        let a = member("a", &["t"], 1, &[("t", 0), ("t", 1), ("t", 2), ("t", 3)]);
        let first = cooperative_sticky(&[a, member("b", &["t"], -1, &[])], &counts(&[("t", 4)]));
        assert_eq!(shown(&first), ["a: [t/0, t/1]", "b: []"]);
        let a = member("a", &["t"], 2, &[("t", 0), ("t", 1)]);
        let second = cooperative_sticky(&[a, member("b", &["t"], 2, &[])], &counts(&[("t", 4)]));
        assert_eq!(shown(&second), ["a: [t/0, t/1]", "b: [t/2, t/3]"]);
    }

    #[test]
    fn what_a_member_leaves_behind_moves_and_nothing_else() {
        let a = member("a", &["t"], 3, &[("t", 0), ("t", 3)]);
        let c = member("c", &["t"], 3, &[("t", 2), ("t", 5)]);
        let assigned = cooperative_sticky(&[a, c], &counts(&[("t", 6)]));
        assert_eq!(shown(&assigned), ["a: [t/0, t/1, t/3]", "c: [t/2, t/4, t/5]"]);
    }

    #[test]
    fn a_zombies_claim_yields_to_a_later_generation() {
        let zombie = member("a", &["t"], 4, &[("t", 0), ("t", 1)]);
        let owner = member("b", &["t"], 7, &[("t", 0)]);
        let assigned = cooperative_sticky(&[zombie, owner], &counts(&[("t", 2)]));
        assert_eq!(shown(&assigned), ["a: [t/1]", "b: [t/0]"]);
    }

    #[test]
    fn a_partition_that_two_claim_alike_is_nobodys() {
        let a = member("a", &["t"], 4, &[("t", 0), ("t", 1)]);
        let b = member("b", &["t"], 4, &[("t", 1)]);
        let assigned = cooperative_sticky(&[a, b], &counts(&[("t", 2)]));
        assert_eq!(shown(&assigned), ["a: [t/0]", "b: [t/1]"]);
    }

    #[test]
    fn topics_and_partitions_that_are_gone_are_forgotten() {
        let a = member("a", &["t"], 1, &[("t", 0), ("t", 9), ("gone", 0)]);
        let assigned = cooperative_sticky(&[a], &counts(&[("t", 1), ("gone", 1)]));
        assert_eq!(shown(&assigned), ["a: [t/0]"]);
    }

    proptest! {
        #[test]
        fn two_rounds_give_everything_to_someone_evenly_and_a_third_moves_nothing(
            sizes in proptest::collection::btree_map("[abc]", 1..7, 1..4),
            before in proptest::collection::vec(proptest::collection::btree_set(("[abcd]", 0..8), 0..6), 1..6),
        ) {
            let counts: BTreeMap<Arc<str>, i32> = sizes.iter().map(|(topic, count)| (Arc::from(topic.as_str()), *count)).collect();
            let topics: BTreeSet<Arc<str>> = counts.keys().cloned().collect();
            let mut members: Vec<Member> = (0..).zip(&before).map(|(number, owned)| Member {
                member_id: format!("m{number}"),
                group_instance_id: None,
                topics: topics.clone(),
                owned: owned.iter().map(|(topic, number)| TopicPartition::new(topic.as_str(), *number)).collect(),
                generation: 1,
            }).collect();
            let mut rounds = Vec::new();
            for generation in 2..5 {
                let assigned = cooperative_sticky(&members, &counts);
                let mut given = BTreeSet::new();
                for member in &mut members {
                    for partition in &assigned[&member.member_id] {
                        prop_assert!(given.insert(partition.clone()), "{partition} has two owners");
                    }
                    member.owned = assigned[&member.member_id].clone();
                    member.generation = generation;
                }
                rounds.push(assigned);
            }
            prop_assert_eq!(&rounds[1], &rounds[2]);
            let total: i32 = sizes.values().sum();
            let loads: Vec<usize> = rounds[1].values().map(Vec::len).collect();
            prop_assert_eq!(loads.iter().sum::<usize>(), total as usize);
            prop_assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "{loads:?}");
        }

        #[test]
        fn members_with_topics_of_their_own_read_what_they_asked_for(
            subscriptions in proptest::collection::vec(proptest::collection::btree_set("[abc]", 0..3), 1..6),
            sizes in proptest::collection::btree_map("[abc]", 0..7, 0..4),
        ) {
            let counts: BTreeMap<Arc<str>, i32> = sizes.iter().map(|(topic, count)| (Arc::from(topic.as_str()), *count)).collect();
            let members: Vec<Member> = (0..).zip(&subscriptions).map(|(number, topics)| {
                let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
                member(&format!("m{number}"), &topics, -1, &[])
            }).collect();
            let assigned = cooperative_sticky(&members, &counts);
            let expected: i32 = sizes.iter()
                .filter(|(topic, _)| subscriptions.iter().any(|topics| topics.contains(*topic)))
                .map(|(_, count)| *count)
                .sum();
            prop_assert_eq!(assigned.values().map(Vec::len).sum::<usize>(), expected as usize);
            for member in &members {
                prop_assert!(assigned[&member.member_id].iter().all(|partition| member.topics.contains(&partition.topic)));
            }
        }
    }
}

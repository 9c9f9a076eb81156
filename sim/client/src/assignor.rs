//! Who reads what: the assignments that a group's leader makes, and how they travel.
//!
//! The same members and topics give the same assignment, whoever leads. `sticky` has the assignor of the cooperative
//! protocol. Absent: the eager sticky assignor of Java's client, which librdkafka does not have, and racks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use broker::{PartitionId, TopicPartition};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition as AssignedTopic;
use kafka_protocol::messages::consumer_protocol_subscription::TopicPartition as OwnedTopic;
use kafka_protocol::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use crate::cluster::topic_name;
use crate::offsets::by_topic;
use crate::sticky::cooperative_sticky;

/// The assignor of the cooperative protocol (KIP-429).
pub(crate) const COOPERATIVE_STICKY: &str = "cooperative-sticky";

/// A member as the group's leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) member_id: String,
    pub(crate) group_instance_id: Option<String>,
    pub(crate) topics: BTreeSet<Arc<str>>,
    /// What it holds and would keep; none in the eager protocol.
    pub(crate) owned: Vec<TopicPartition>,
    /// The generation in which it was given that; -1 if in none.
    pub(crate) generation: i32,
}

impl Member {
    /// Static members come in the order of their instances, so that one that comes back finds its place.
    fn place(&self, other: &Member) -> std::cmp::Ordering {
        match (&self.group_instance_id, &other.group_instance_id) {
            (Some(one), Some(two)) => one.cmp(two),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => self.member_id.cmp(&other.member_id),
        }
    }
}

/// Assignments by member id. A member without partitions is there with none.
pub(crate) type Assignments = BTreeMap<String, Vec<TopicPartition>>;

/// Assigns by the assignor that the group agreed on.
pub(crate) fn assign(
    assignor: &str,
    members: &[Member],
    counts: &BTreeMap<Arc<str>, PartitionId>,
) -> Assignments {
    let mut members = members.to_vec();
    members.sort_by(Member::place);
    if assignor == COOPERATIVE_STICKY {
        return cooperative_sticky(&members, counts);
    }
    let mut assignments: Assignments =
        members.iter().map(|member| (member.member_id.clone(), Vec::new())).collect();
    let owners: Vec<(String, TopicPartition)> = match assignor {
        "roundrobin" => round_robin(&members, counts),
        _ => range(&members, counts),
    };
    for (member, partition) in owners {
        assignments.get_mut(&member).expect("owners are members").push(partition);
    }
    assignments
}

/// Each topic by itself, in runs of neighbouring partitions; the first members get one more where it does not divide.
fn range(members: &[Member], counts: &BTreeMap<Arc<str>, PartitionId>) -> Vec<(String, TopicPartition)> {
    let mut owners = Vec::new();
    for (topic, count) in counts {
        let readers: Vec<&Member> = members.iter().filter(|member| member.topics.contains(topic)).collect();
        let Ok(readers_count) = PartitionId::try_from(readers.len()) else { continue };
        if readers_count == 0 {
            continue;
        }
        let (share, more) = (count / readers_count, count % readers_count);
        let mut next = 0;
        for (position, reader) in (0..).zip(readers) {
            let end = next + share + PartitionId::from(position < more);
            owners.extend(
                (next..end)
                    .map(|number| (reader.member_id.clone(), TopicPartition::new(topic.clone(), number))),
            );
            next = end;
        }
    }
    owners
}

/// All partitions of all topics in turn.
fn round_robin(
    members: &[Member],
    counts: &BTreeMap<Arc<str>, PartitionId>,
) -> Vec<(String, TopicPartition)> {
    let mut owners = Vec::new();
    let mut turn = members.iter().cycle();
    for (topic, count) in counts {
        if !members.iter().any(|member| member.topics.contains(topic)) {
            continue;
        }
        for number in 0..*count {
            let reader =
                turn.by_ref().find(|member| member.topics.contains(topic)).expect("someone reads it");
            owners.push((reader.member_id.clone(), TopicPartition::new(topic.clone(), number)));
        }
    }
    owners
}

/// What a member tells the group's leader of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) topics: BTreeSet<Arc<str>>,
    /// What it holds and would keep.
    pub(crate) owned: Vec<TopicPartition>,
    /// The generation in which it was given that; -1 if in none.
    pub(crate) generation: i32,
}

/// A subscription as a member joins with it, in version 3 as both clients write it.
pub(crate) fn encode_subscription(subscription: &Subscription) -> Bytes {
    const VERSION: i16 = 3;
    let names = subscription.topics.iter().map(|topic| StrBytes::from_string(topic.to_string()));
    let owned = by_topic(subscription.owned.iter().map(|at| (at.clone(), ())));
    let owned = owned.into_iter().map(|(topic, numbers)| {
        let numbers = numbers.into_iter().map(|(number, ())| number).collect();
        OwnedTopic::default().with_topic(topic_name(&topic)).with_partitions(numbers)
    });
    let subscription = ConsumerProtocolSubscription::default()
        .with_topics(names.collect())
        .with_owned_partitions(owned.collect())
        .with_generation_id(subscription.generation)
        .with_rack_id(None);
    let mut bytes = BytesMut::new();
    bytes.put_i16(VERSION);
    subscription.encode(&mut bytes, VERSION).expect("every field is in version 3");
    bytes.freeze()
}

/// What [`encode_subscription`], or another client, wrote; `None` if it is malformed.
pub(crate) fn decode_subscription(mut bytes: Bytes) -> Option<Subscription> {
    let version = bytes.try_get_i16().ok()?;
    let subscription = ConsumerProtocolSubscription::decode(&mut bytes, version.clamp(0, 3)).ok()?;
    let owned = subscription.owned_partitions.iter().flat_map(|topic| {
        let name: Arc<str> = topic.topic.as_str().into();
        topic.partitions.iter().map(move |number| TopicPartition::new(name.clone(), *number))
    });
    Some(Subscription {
        owned: owned.collect(),
        // Before version 2 nothing is said of it.
        generation: if version >= 2 { subscription.generation_id } else { -1 },
        topics: subscription.topics.iter().map(|topic| Arc::from(topic.as_str())).collect(),
    })
}

/// A member's partitions, as the leader hands them out.
pub(crate) fn encode_assignment(partitions: &[TopicPartition]) -> Bytes {
    const VERSION: i16 = 0;
    let mut topics: BTreeMap<&Arc<str>, Vec<PartitionId>> = BTreeMap::new();
    for at in partitions {
        topics.entry(&at.topic).or_default().push(at.partition);
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        AssignedTopic::default().with_topic(topic_name(topic)).with_partitions(partitions)
    });
    let assignment = ConsumerProtocolAssignment::default().with_assigned_partitions(topics.collect());
    let mut bytes = BytesMut::new();
    bytes.put_i16(VERSION);
    assignment.encode(&mut bytes, VERSION).expect("every field is in version 0");
    bytes.freeze()
}

/// What the leader handed out, in order; `None` if it is malformed. No bytes are no partitions.
pub(crate) fn decode_assignment(mut bytes: Bytes) -> Option<Vec<TopicPartition>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let version = bytes.try_get_i16().ok()?;
    let assignment = ConsumerProtocolAssignment::decode(&mut bytes, version.clamp(0, 3)).ok()?;
    let mut partitions = Vec::new();
    for topic in assignment.assigned_partitions {
        let name: Arc<str> = topic.topic.as_str().into();
        partitions.extend(topic.partitions.iter().map(|number| TopicPartition::new(name.clone(), *number)));
    }
    partitions.sort();
    Some(partitions)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn members(subscriptions: &[&[&str]]) -> Vec<Member> {
        (0..)
            .zip(subscriptions)
            .map(|(number, topics)| Member {
                member_id: format!("m{number}"),
                group_instance_id: None,
                topics: topics.iter().map(|topic| Arc::from(*topic)).collect(),
                owned: Vec::new(),
                generation: -1,
            })
            .collect()
    }

    fn counts(pairs: &[(&str, i32)]) -> BTreeMap<Arc<str>, PartitionId> {
        pairs.iter().map(|(topic, count)| (Arc::from(*topic), *count)).collect()
    }

    fn shown(assignments: &Assignments) -> Vec<String> {
        assignments.iter().map(|(member, partitions)| format!("{member}: {partitions:?}")).collect()
    }

    #[test]
    fn range_gives_neighbours_and_the_first_members_one_more() {
        let assigned = assign("range", &members(&[&["a", "b"], &["a", "b"]]), &counts(&[("a", 3), ("b", 2)]));
        assert_eq!(shown(&assigned), ["m0: [a/0, a/1, b/0]", "m1: [a/2, b/1]"]);
    }

    #[test]
    fn range_leaves_members_idle_where_there_are_too_few_partitions() {
        let assigned = assign("range", &members(&[&["a"], &["a"], &["a"]]), &counts(&[("a", 2)]));
        assert_eq!(shown(&assigned), ["m0: [a/0]", "m1: [a/1]", "m2: []"]);
    }

    #[test]
    fn round_robin_goes_round_over_all_topics() {
        let assigned =
            assign("roundrobin", &members(&[&["a", "b"], &["a"]]), &counts(&[("a", 3), ("b", 2), ("c", 1)]));
        assert_eq!(shown(&assigned), ["m0: [a/0, a/2, b/0, b/1]", "m1: [a/1]"]);
    }

    #[test]
    fn subscriptions_and_assignments_travel() {
        let partitions =
            vec![TopicPartition::new("a", 0), TopicPartition::new("a", 3), TopicPartition::new("b", 1)];
        let subscription = Subscription {
            topics: ["a".into(), "b".into()].into(),
            owned: partitions.clone(),
            generation: 7,
        };
        assert_eq!(decode_subscription(encode_subscription(&subscription)), Some(subscription));
        assert_eq!(decode_assignment(encode_assignment(&partitions)), Some(partitions));
        assert_eq!(decode_assignment(Bytes::new()), Some(vec![]));
        assert_eq!(decode_assignment(Bytes::from_static(b"x")), None);
    }

    #[test]
    fn a_static_member_that_comes_back_under_another_id_finds_its_place() {
        let with = |id: &str, instance: &str| Member {
            member_id: id.into(),
            group_instance_id: Some(instance.into()),
            ..members(&[&["a"]]).remove(0)
        };
        let before = assign("range", &[with("x1", "one"), with("x2", "two")], &counts(&[("a", 2)]));
        let after = assign("range", &[with("x9", "one"), with("x2", "two")], &counts(&[("a", 2)]));
        assert_eq!(before["x1"], after["x9"]);
        assert_eq!(before["x2"], after["x2"]);
    }

    proptest! {
        #[test]
        fn every_partition_that_someone_reads_has_one_owner_who_subscribed(
            subscriptions in proptest::collection::vec(proptest::collection::btree_set("[abc]", 0..3), 1..6),
            sizes in proptest::collection::btree_map("[abc]", 0..9, 0..3),
            assignor in prop::sample::select(vec!["range", "roundrobin"]),
        ) {
            let members: Vec<Member> = (0..).zip(&subscriptions).map(|(number, topics)| Member {
                member_id: format!("m{number}"),
                group_instance_id: None,
                topics: topics.iter().map(|topic| Arc::from(topic.as_str())).collect(),
                owned: Vec::new(),
                generation: -1,
            }).collect();
            let counts = sizes.iter().map(|(topic, count)| (Arc::from(topic.as_str()), *count)).collect();
            let assigned = assign(assignor, &members, &counts);
            let mut owned = BTreeSet::new();
            for member in &members {
                for partition in &assigned[&member.member_id] {
                    prop_assert!(member.topics.contains(&partition.topic));
                    prop_assert!(owned.insert(partition.clone()), "{partition} has two owners");
                }
            }
            let expected: i32 = sizes.iter()
                .filter(|(topic, _)| subscriptions.iter().any(|topics| topics.contains(*topic)))
                .map(|(_, count)| *count)
                .sum();
            prop_assert_eq!(owned.len(), expected as usize);
        }
    }
}

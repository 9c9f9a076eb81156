//! What groups are answered: OffsetCommit and SyncGroup, and what becomes of them without the offsets topic.

use kafka_protocol::messages::*;

use crate::support::verbs::*;
use crate::support::{Bench, text};
use crate::{bench, error_of, expect};

/// The errors of a commit without a member, partition by partition.
fn commit_errors(
    bench: &mut Bench,
    version: i16,
    group: &str,
    generation: i32,
    partitions: &[i32],
) -> Vec<i16> {
    use offset_commit_request::*;
    let node = bench.coordinator(group);
    let asked = |&index: &i32| {
        OffsetCommitRequestPartition::default().with_partition_index(index).with_committed_offset(3)
    };
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic_name("orders"))
        .with_partitions(partitions.iter().map(asked).collect());
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(generation)
        .with_topics(vec![topic]);
    let response = expect!(OffsetCommit, bench.ask(node, ApiKey::OffsetCommit, version, request));
    response.topics[0].partitions.iter().map(|partition| partition.error_code).collect()
}

#[test]
fn a_commit_is_refused_with_the_code_of_its_version() {
    let mut bench = bench();
    assert_eq!(commit_errors(&mut bench, 8, "nobody", 4, &[0, 99]), [22, 3]);
    assert_eq!(commit_errors(&mut bench, 9, "nobody", 4, &[0, 99]), [69, 3]);
}

#[test]
fn the_group_without_a_name_commits_and_fetches_but_has_no_members() {
    let mut bench = bench();
    assert_eq!(commit_errors(&mut bench, 9, "", -1, &[0]), [0]);
    let node = bench.coordinator("");
    assert_eq!(bench.committed(node, "", "orders", 0), (0, 3));
    assert_eq!(bench.heartbeat(node, "", "", -1), 24);
}

#[test]
fn from_version_5_on_a_sync_names_the_groups_protocol() {
    let mut bench = bench();
    let node = bench.coordinator("group");
    let request = SyncGroupRequest::default().with_group_id(GroupId(text("group")));
    let named =
        request.clone().with_protocol_type(Some(text("consumer"))).with_protocol_name(Some(text("range")));
    for (request, code) in [(request, 23), (named, 25)] {
        let response = expect!(SyncGroup, bench.ask(node, ApiKey::SyncGroup, 5, request));
        assert_eq!(response.error_code, code);
    }
}

#[test]
fn groups_go_with_the_offsets_topic() {
    let mut bench = bench();
    let coordinator = bench.coordinator("group");
    let (_, joining) = bench.join(coordinator, "group");
    assert_eq!(bench.commit(coordinator, "simple", "", -1, ("orders", 0, 1)), 16, "it lives elsewhere");
    let request = DeleteTopicsRequest::default().with_topic_names(vec![topic_name("__consumer_offsets")]);
    assert_eq!(error_of(&bench.ask(1, ApiKey::DeleteTopics, 5, request)), 0);
    assert_eq!(error_of(&bench.response(joining)), 16, "who waits is told");
    assert_eq!(bench.commit(coordinator, "group", "", -1, ("orders", 0, 1)), 16);
    bench.advance(60_000);
    let again = bench.coordinator("group");
    assert_eq!(bench.committed(again, "group", "orders", 0), (0, -1));
}

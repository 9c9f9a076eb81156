//! Group stories on several replicas: what is answered when, what a failover keeps, what transactions bring, and what tools
//! see.
//!
//! The transcripts are in `tests/snapshots`; `INSTA_UPDATE=always cargo test -p shakedown-kafka --test groups` rewrites
//! them.

mod support;

use kafka_protocol::messages::*;
use shakedown_kafka::NodeId;
use shakedown_kafka::core::ConnectionId;
use shakedown_kafka::transaction::Producer;

use support::transactions::{Protocol, transactional_id};
use support::verbs::*;
use support::{Bench, Host, Reply, text};

/// What a client saw, in its place in the trace.
macro_rules! tell {
    ($bench:ident, $($line:tt)*) => {
        let line = format!($($line)*);
        $bench.note("client", &line);
    };
}

/// Three brokers, each with a replica of the offsets topic, and `orders` with two partitions.
fn bench(config: &[(&str, &str)]) -> Bench {
    let mut all = vec![("offsets.topic.replication.factor", "3"), ("offsets.topic.num.partitions", "3")];
    all.extend(config);
    let mut bench = Bench::new(3, &all);
    assert_eq!(bench.create_topic("orders", 2, &[]), 0);
    bench.advance(1_500);
    bench.coordinator("payment");
    bench.advance(1_500);
    bench
}

fn id(group: &str) -> GroupId {
    GroupId(text(group))
}

/// The only member of `payment`, in generation 1.
fn stable(bench: &mut Bench, node: NodeId) -> String {
    let (member, joined) = bench.join(node, "payment");
    bench.advance(3_000);
    assert_eq!(expect!(JoinGroup, bench.response(joined)).generation_id, 1);
    let synced = bench.sync(node, "payment", &member, 1, &[(&member, "all")]);
    bench.advance(100);
    assert_eq!(expect!(SyncGroup, bench.response(synced)).error_code, 0);
    member
}

fn commit_request(group: &str, member: &str, generation: i32, offset: i64) -> OffsetCommitRequest {
    use offset_commit_request::*;
    let asked = OffsetCommitRequestPartition::default().with_committed_offset(offset);
    let topic =
        OffsetCommitRequestTopic::default().with_name(topic_name("orders")).with_partitions(vec![asked]);
    OffsetCommitRequest::default()
        .with_group_id(id(group))
        .with_member_id(text(member))
        .with_generation_id_or_member_epoch(generation)
        .with_topics(vec![topic])
}

/// Sends a commit whose answer may take time.
fn commit(bench: &mut Bench, node: NodeId, member: &str, offset: i64) -> ConnectionId {
    let generation = if member.is_empty() { -1 } else { 1 };
    bench.send(node, ApiKey::OffsetCommit, 7, commit_request("payment", member, generation, offset))
}

/// The error of a commit, a heartbeat or a fetch of offsets, once it is answered, with the offset fetched.
fn answered(bench: &mut Bench, connection: ConnectionId) -> Option<(i16, i64)> {
    match bench.reply(connection)? {
        Reply::Response(ResponseKind::OffsetCommit(response)) => {
            Some((response.topics[0].partitions[0].error_code, -1))
        }
        Reply::Response(ResponseKind::Heartbeat(response)) => Some((response.error_code, -1)),
        Reply::Response(ResponseKind::OffsetFetch(response)) => {
            let group = &response.groups[0];
            let partition = group.topics.first().map(|topic| &topic.partitions[0]);
            let error = partition.map_or(group.error_code, |partition| partition.error_code);
            Some((error, partition.map_or(-1, |partition| partition.committed_offset)))
        }
        Reply::Response(ResponseKind::TxnOffsetCommit(response)) => {
            Some((response.topics[0].partitions[0].error_code, -1))
        }
        other => panic!("{other:?}"),
    }
}

/// Asks for what `payment` has committed.
fn fetch(bench: &mut Bench, node: NodeId, stable: bool) -> ConnectionId {
    use offset_fetch_request::*;
    let topic =
        OffsetFetchRequestTopics::default().with_name(topic_name("orders")).with_partition_indexes(vec![0]);
    let group =
        OffsetFetchRequestGroup::default().with_group_id(id("payment")).with_topics(Some(vec![topic]));
    let request = OffsetFetchRequest::default().with_groups(vec![group]).with_require_stable(stable);
    bench.send(node, ApiKey::OffsetFetch, 8, request)
}

fn fetched(bench: &mut Bench, node: NodeId, stable: bool) -> (i16, i64) {
    let asked = fetch(bench, node, stable);
    answered(bench, asked).expect("an answer at once")
}

fn beat(bench: &mut Bench, node: NodeId, member: &str) -> ConnectionId {
    let request = HeartbeatRequest::default()
        .with_group_id(id("payment"))
        .with_member_id(text(member))
        .with_generation_id(1);
    bench.send(node, ApiKey::Heartbeat, 3, request)
}

fn followers(node: NodeId) -> Vec<NodeId> {
    (1..=3).filter(|&other| other != node).collect()
}

#[test]
fn a_commit_is_answered_when_it_is_committed_and_who_asks_after_it_waits_too() {
    let mut bench = bench(&[]);
    let node = bench.coordinator("payment");
    let member = stable(&mut bench, node);
    assert_eq!(bench.commit(node, "payment", &member, 1, ("orders", 0, 5)), 0);
    for other in followers(node) {
        bench.cut(Host::Broker(node), Host::Broker(other));
    }
    let waits = commit(&mut bench, node, &member, 6);
    let alive = beat(&mut bench, node, &member);
    let latest = fetch(&mut bench, node, true);
    bench.advance(1_000);
    assert_eq!(answered(&mut bench, waits), None);
    assert_eq!(answered(&mut bench, alive), None, "a heartbeat waits for the write before it");
    assert_eq!(answered(&mut bench, latest), None, "so does a reader of the latest offsets");
    assert_eq!(fetched(&mut bench, node, false), (0, 5), "a plain one sees what is committed");
    for other in followers(node) {
        bench.mend(Host::Broker(node), Host::Broker(other));
    }
    bench.advance(1_000);
    assert_eq!(answered(&mut bench, waits), Some((0, -1)));
    assert_eq!(answered(&mut bench, alive), Some((0, -1)));
    assert_eq!(answered(&mut bench, latest), Some((0, 6)));
    assert_eq!(fetched(&mut bench, node, false), (0, 6));
}

#[test]
fn a_commit_that_takes_too_long_is_refused_and_its_record_stays() {
    let mut bench = bench(&[]);
    let node = bench.coordinator("payment");
    let member = stable(&mut bench, node);
    for other in followers(node) {
        bench.cut(Host::Broker(node), Host::Broker(other));
    }
    let waits = commit(&mut bench, node, &member, 6);
    let latest = fetch(&mut bench, node, true);
    bench.advance(4_999);
    assert_eq!(answered(&mut bench, waits), None);
    bench.advance(1);
    assert_eq!(answered(&mut bench, waits), Some((15, -1)), "offsets.commit.timeout.ms");
    assert_eq!(answered(&mut bench, latest), Some((16, -1)), "what old clients know here");
    for other in followers(node) {
        bench.mend(Host::Broker(node), Host::Broker(other));
    }
    bench.advance(1_000);
    assert_eq!(fetched(&mut bench, node, false), (0, 6), "a client that was refused may have committed");
}

#[test]
fn a_commit_waits_for_its_replicas_as_long_as_the_cluster_says() {
    let mut bench = bench(&[("offsets.commit.timeout.ms", "1500")]);
    let node = bench.coordinator("payment");
    let member = stable(&mut bench, node);
    for follower in followers(node) {
        bench.cut(Host::Broker(node), Host::Broker(follower));
    }
    bench.advance(600);
    let sent = commit(&mut bench, node, &member, 7);
    bench.advance(1_400);
    assert!(bench.reply(sent).is_none());
    bench.advance(100);
    let response = expect!(OffsetCommit, bench.response(sent));
    assert_eq!(response.topics[0].partitions[0].error_code, 15, "COORDINATOR_NOT_AVAILABLE");
}

#[test]
fn a_commit_that_was_answered_leaves_nothing_that_wakes_the_broker() {
    let mut bench = bench(&[]);
    let node = bench.coordinator("payment");
    let member = stable(&mut bench, node);
    let (beat_ms, quiet_ms) = (100, 8_000);
    let quiet = |bench: &mut Bench| {
        let before = bench.handled();
        bench.advance(quiet_ms);
        bench.handled() - before
    };
    bench.advance(6_000);
    assert_eq!(bench.heartbeat(node, "payment", &member, 1), 0);
    bench.advance(beat_ms);
    let idle = quiet(&mut bench);
    for offset in 0..50 {
        // Each at a time of its own, so that each deadline would wake the broker by itself.
        let sent = commit(&mut bench, node, &member, offset);
        bench.advance(3);
        let response = expect!(OffsetCommit, bench.response(sent));
        assert_eq!(response.topics[0].partitions[0].error_code, 0);
    }
    assert_eq!(bench.heartbeat(node, "payment", &member, 1), 0);
    bench.advance(beat_ms);
    let after = quiet(&mut bench);
    assert!(after <= idle + 10, "{after} inputs in {quiet_ms} ms after the commits, {idle} without");
}

/// Followers are given up, so that the partition is below its min ISR of 2; something that they lack is written.
fn below_min_isr(bench: &mut Bench, node: NodeId) {
    for other in followers(node) {
        bench.cut(Host::Broker(node), Host::Broker(other));
    }
    let behind = bench.commit_later(node, "other", ("orders", 0, 5));
    bench.advance(5_000);
    assert_eq!(bench.commit_answer(behind), 15);
}

fn mend(bench: &mut Bench, node: NodeId) {
    for other in followers(node) {
        bench.mend(Host::Broker(node), Host::Broker(other));
    }
    bench.advance(2_000);
}

/// One partition of the offsets topic, and followers that are soon given up.
const SHRINKING: [(&str, &str); 3] = [
    ("min.insync.replicas", "2"),
    ("replica.lag.time.max.ms", "2000"),
    ("offsets.topic.num.partitions", "1"),
];

#[test]
fn a_commit_below_the_min_isr_is_written_and_takes_effect_when_the_replicas_are_back() {
    let mut bench = bench(&SHRINKING);
    let node = bench.coordinator("payment");
    let member = stable(&mut bench, node);
    assert_eq!(bench.commit(node, "payment", &member, 1, ("orders", 0, 5)), 0);
    below_min_isr(&mut bench, node);
    let waits = commit(&mut bench, node, &member, 6);
    let alive = beat(&mut bench, node, &member);
    bench.advance(4_999);
    assert_eq!(
        answered(&mut bench, waits),
        None,
        "too few replicas refuse no write of the group coordinator"
    );
    assert_eq!(answered(&mut bench, alive), None);
    bench.advance(1);
    assert_eq!(answered(&mut bench, waits), Some((15, -1)));
    assert_eq!(answered(&mut bench, alive), Some((15, -1)));
    assert_eq!(fetched(&mut bench, node, false), (0, 5));
    mend(&mut bench, node);
    assert_eq!(fetched(&mut bench, node, false), (0, 6), "its client was told that it failed");
}

#[test]
fn a_new_group_below_the_min_isr_is_there_and_gets_no_assignment() {
    let mut bench = bench(&SHRINKING);
    let node = bench.coordinator("payment");
    below_min_isr(&mut bench, node);
    let asked = bench.ask(node, ApiKey::JoinGroup, 4, join_request("payment", ""));
    let told = expect!(JoinGroup, asked);
    assert_eq!(told.error_code, 79, "MEMBER_ID_REQUIRED does not wait for the log");
    let member = told.member_id.to_string();
    let joins = bench.send(node, ApiKey::JoinGroup, 4, join_request("payment", &member));
    bench.advance(3_000);
    let told = expect!(JoinGroup, bench.response(joins));
    assert_eq!((told.error_code, told.generation_id), (0, 1), "generations are not written");
    let syncs = bench.sync(node, "payment", &member, 1, &[(&member, "all")]);
    bench.advance(4_999);
    assert!(bench.reply(syncs).is_none());
    bench.advance(1);
    assert_eq!(expect!(SyncGroup, bench.response(syncs)).error_code, 15);
    mend(&mut bench, node);
    let joined = bench.ask(node, ApiKey::JoinGroup, 4, join_request("payment", &member));
    assert_eq!(expect!(JoinGroup, joined).generation_id, 2, "it is a member");
}

#[test]
fn a_join_that_waits_for_its_group_is_told_when_the_log_stands_still() {
    let mut bench = bench(&[]);
    let node = bench.coordinator("payment");
    let first = stable(&mut bench, node);
    for other in followers(node) {
        bench.cut(Host::Broker(node), Host::Broker(other));
    }
    let (second, early) = bench.join(node, "payment");
    bench.advance(1_000);
    assert!(
        bench.reply(early).is_none(),
        "nothing was written that is not committed: it waits for the first member"
    );
    let commits = commit(&mut bench, node, &first, 6);
    let again = bench.send(node, ApiKey::JoinGroup, 5, join_request("payment", &second));
    assert_eq!(expect!(JoinGroup, bench.response(early)).error_code, 27, "its client has asked again");
    bench.advance(4_999);
    assert!(bench.reply(again).is_none());
    bench.advance(1);
    assert_eq!(answered(&mut bench, commits), Some((15, -1)));
    let told = expect!(JoinGroup, bench.response(again));
    assert_eq!((told.error_code, told.member_id.as_str(), told.generation_id), (15, "", -1));
    mend(&mut bench, node);
    let joined = bench.ask(node, ApiKey::JoinGroup, 5, join_request("payment", &first));
    assert_eq!(expect!(JoinGroup, joined).generation_id, 2, "the second counts as joined");
    assert!(bench.reply(again).is_none(), "it was told already, and is not told again");
}

#[test]
fn a_group_that_cannot_be_written_is_not_there() {
    // No record has room.
    let mut bench = Bench::new(1, &[("message.max.bytes", "64")]);
    let node = bench.coordinator("payment");
    let join = |bench: &mut Bench, version, member: &str| {
        let asked = bench.ask(node, ApiKey::JoinGroup, version, join_request("payment", member));
        let told = expect!(JoinGroup, asked);
        (told.error_code, told.member_id.to_string())
    };
    let (error, given) = join(&mut bench, 4, "");
    assert_eq!(error, 79, "MEMBER_ID_REQUIRED does not wait for the log");
    assert_eq!(join(&mut bench, 4, &given).0, 25, "the id went with the group");
    assert_eq!(join(&mut bench, 3, "").0, -1, "one that is let in at once hears of it");
    let listed = bench.ask(node, ApiKey::ListGroups, 4, ListGroupsRequest::default());
    let listed = expect!(ListGroups, listed).groups;
    assert!(listed.iter().all(|group| group.group_id != id("payment")), "{listed:?}");
}

#[test]
fn a_group_fails_over_to_a_broker_that_has_its_log() {
    let mut bench = bench(&[]);
    let node = bench.coordinator("payment");
    let member = stable(&mut bench, node);
    let from = bench.trace.len();
    tell!(bench, "<member> commits 5: {}", bench.commit(node, "payment", &member, 1, ("orders", 0, 5)));
    bench.shut_down(node);
    bench.advance(3_000);
    let other = (1..=3).find(|&other| bench.is_listening(other)).expect("a broker");
    let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("payment")]);
    let found = expect!(FindCoordinator, bench.ask(other, ApiKey::FindCoordinator, 4, request));
    let next = found.coordinators[0].node_id.0;
    assert!(next != node, "another broker coordinates");
    tell!(bench, "<member> heartbeats: {}", bench.heartbeat(next, "payment", &member, 1));
    tell!(bench, "<member> finds its commit: {:?}", fetched(&mut bench, next, false));
    tell!(bench, "<member> commits 7: {}", bench.commit(next, "payment", &member, 1, ("orders", 0, 7)));
    let told = bench.trace[from..].join("\n").replace(&member, "<member>");
    insta::assert_snapshot!(told);
}

#[test]
fn a_coordinator_that_is_loading_asks_for_patience() {
    let mut bench = Bench::new(1, &[]);
    bench.create_topic("orders", 2, &[]);
    let node = bench.coordinator("payment");
    let member = stable(&mut bench, node);
    bench.kill(node);
    bench.start(node);
    while !bench.is_listening(node) {
        bench.advance(1);
    }
    // Its log is being read in this very millisecond.
    let alive = beat(&mut bench, node, &member);
    assert_eq!(answered(&mut bench, alive), Some((0, -1)), "members must not join anew");
    let refused = commit(&mut bench, node, &member, 5);
    assert_eq!(answered(&mut bench, refused), Some((14, -1)));
    let listed = bench.ask(node, ApiKey::ListGroups, 4, ListGroupsRequest::default());
    assert_eq!(expect!(ListGroups, listed).error_code, 14, "half a list is none");
    bench.advance(1);
    assert_eq!(bench.commit(node, "payment", &member, 1, ("orders", 0, 5)), 0);
}

/// Commits an offset of `orders/0` for `payment` in a transaction.
fn commit_in_transaction(
    bench: &mut Bench,
    producer: Producer,
    (member, generation): (&str, i32),
    offset: i64,
    version: i16,
) -> i16 {
    use txn_offset_commit_request::*;
    let node = bench.coordinator("payment");
    let asked = TxnOffsetCommitRequestPartition::default().with_committed_offset(offset);
    let topic =
        TxnOffsetCommitRequestTopic::default().with_name(topic_name("orders")).with_partitions(vec![asked]);
    let mut request = TxnOffsetCommitRequest::default()
        .with_transactional_id(transactional_id("copier"))
        .with_group_id(id("payment"))
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
        .with_topics(vec![topic]);
    if version >= 3 {
        request.member_id = text(member);
        request.generation_id = generation;
    }
    let response = bench.ask_within(1_000, node, ApiKey::TxnOffsetCommit, version, request);
    expect!(TxnOffsetCommit, response).topics[0].partitions[0].error_code
}

/// A client of version 1 adds the group's partition itself.
fn add_offsets(bench: &mut Bench, node: NodeId, producer: Producer) -> i16 {
    let request = AddOffsetsToTxnRequest::default()
        .with_transactional_id(transactional_id("copier"))
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
        .with_group_id(id("payment"));
    expect!(AddOffsetsToTxn, bench.ask_within(1_000, node, ApiKey::AddOffsetsToTxn, 3, request)).error_code
}

#[test]
fn offsets_of_a_transaction_take_effect_with_its_marker() {
    for protocol in [Protocol::V1, Protocol::V2] {
        let mut bench = Bench::new(1, &[]);
        bench.create_topic("orders", 2, &[]);
        let node = bench.coordinator("payment");
        let (coordinator, mut producer) = bench.transactional_producer("copier");
        let version = if protocol == Protocol::V1 { 3 } else { 5 };
        if protocol == Protocol::V1 {
            assert_eq!(
                commit_in_transaction(&mut bench, producer, ("", -1), 5, version),
                48,
                "nobody has added the group to the transaction"
            );
        }
        for (offset, commit, seen) in [(5, true, 5), (9, false, 5), (11, true, 11)] {
            if protocol == Protocol::V1 {
                assert_eq!(add_offsets(&mut bench, coordinator, producer), 0);
            }
            assert_eq!(commit_in_transaction(&mut bench, producer, ("", -1), offset, version), 0);
            let before = fetched(&mut bench, node, false);
            assert!(before.1 < offset, "{before:?}: not before the marker");
            assert_eq!(fetched(&mut bench, node, true), (88, -1), "unstable");
            producer = bench.end_transaction(coordinator, "copier", producer, commit, protocol).unwrap();
            bench.advance(100);
            assert_eq!(fetched(&mut bench, node, true), (0, seen), "{protocol:?} {offset} {commit}");
        }
    }
}

#[test]
fn pending_offsets_outlive_their_coordinator() {
    let mut bench = Bench::new(1, &[]);
    bench.create_topic("orders", 2, &[]);
    let node = bench.coordinator("payment");
    let (_, producer) = bench.transactional_producer("copier");
    assert_eq!(commit_in_transaction(&mut bench, producer, ("", -1), 5, 5), 0);
    bench.kill(node);
    bench.start(node);
    bench.advance(12_000);
    assert_eq!(fetched(&mut bench, node, true), (88, -1), "still unstable");
    let coordinator = bench.transaction_coordinator("copier");
    bench.end_transaction(coordinator, "copier", producer, true, Protocol::V2).unwrap();
    bench.advance(200);
    assert_eq!(fetched(&mut bench, node, true), (0, 5));
}

#[test]
fn a_zombie_cannot_commit_in_a_transaction_if_it_says_who_it_is() {
    let mut bench = Bench::new(1, &[]);
    bench.create_topic("orders", 2, &[]);
    let node = bench.coordinator("payment");
    let member = stable(&mut bench, node);
    let (_, producer) = bench.transactional_producer("copier");
    assert_eq!(commit_in_transaction(&mut bench, producer, (&member, 0), 5, 5), 22, "of an older generation");
    assert_eq!(commit_in_transaction(&mut bench, producer, ("ghost", 1), 5, 5), 25);
    assert_eq!(commit_in_transaction(&mut bench, producer, (&member, 1), 5, 5), 0);
    assert_eq!(
        commit_in_transaction(&mut bench, producer, ("", -1), 6, 5),
        0,
        "who does not say, is not fenced"
    );
}

#[test]
fn tools_see_groups_and_delete_what_is_not_in_use() {
    let mut bench = Bench::new(1, &[]);
    bench.create_topic("orders", 2, &[]);
    let node = bench.coordinator("payment");
    assert_eq!(bench.commit(node, "simple", "", -1, ("orders", 0, 3)), 0);
    let member = stable(&mut bench, node);
    assert_eq!(bench.commit(node, "payment", &member, 1, ("orders", 0, 5)), 0);

    let list = |bench: &mut Bench, states: &[&str], types: &[&str]| {
        let request = ListGroupsRequest::default()
            .with_states_filter(states.iter().map(|state| text(state)).collect())
            .with_types_filter(types.iter().map(|kind| text(kind)).collect());
        let response = expect!(ListGroups, bench.ask(node, ApiKey::ListGroups, 5, request));
        let listed = response.groups.iter().map(|group| {
            let (id, state) = (group.group_id.as_str(), group.group_state.as_str());
            format!("{id} {state} {} {:?}", group.group_type.as_str(), group.protocol_type.as_str())
        });
        let mut listed: Vec<String> = listed.collect();
        listed.sort();
        listed
    };
    let all = ["payment Stable classic \"consumer\"", "simple Empty classic \"\""];
    assert_eq!(list(&mut bench, &[], &[]), all);
    assert_eq!(list(&mut bench, &["stable"], &["Classic"]), all[..1]);
    assert_eq!(list(&mut bench, &[], &["consumer"]), [""; 0]);

    let describe = |bench: &mut Bench, group: &str, version: i16| {
        let request = DescribeGroupsRequest::default().with_groups(vec![id(group)]);
        expect!(DescribeGroups, bench.ask(node, ApiKey::DescribeGroups, version, request)).groups.remove(0)
    };
    let described = describe(&mut bench, "payment", 5);
    assert_eq!((described.group_state.as_str(), described.protocol_data.as_str()), ("Stable", "range"));
    assert_eq!(&described.members[0].member_assignment[..], b"all");
    let missing = [5, 6].map(|version| describe(&mut bench, "ghost", version));
    assert_eq!(
        missing.map(|group| (group.error_code, group.group_state.to_string())),
        [(0, "Dead".to_owned()), (69, "Dead".to_owned())]
    );

    let delete = |bench: &mut Bench, groups: &[&str]| -> Vec<i16> {
        let names = groups.iter().map(|group| id(group)).collect();
        let request = DeleteGroupsRequest::default().with_groups_names(names);
        let response = expect!(DeleteGroups, bench.ask(node, ApiKey::DeleteGroups, 2, request));
        response.results.iter().map(|result| result.error_code).collect()
    };
    let delete_offset = |bench: &mut Bench, group: &str| {
        use offset_delete_request::*;
        let partition = OffsetDeleteRequestPartition::default().with_partition_index(0);
        let topic = OffsetDeleteRequestTopic::default()
            .with_name(topic_name("orders"))
            .with_partitions(vec![partition]);
        let request = OffsetDeleteRequest::default().with_group_id(id(group)).with_topics(vec![topic]);
        let response = expect!(OffsetDelete, bench.ask(node, ApiKey::OffsetDelete, 0, request));
        let partition = response.topics.first().map(|topic| topic.partitions[0].error_code);
        (response.error_code, partition)
    };
    assert_eq!(delete_offset(&mut bench, "ghost"), (69, None));
    assert_eq!(delete_offset(&mut bench, "simple"), (0, Some(0)));
    assert_eq!(bench.committed(node, "simple", "orders", 0), (0, -1));
    assert_eq!(
        delete_offset(&mut bench, "payment"),
        (0, Some(86)),
        "its topics cannot be told: all are in use"
    );
    assert_eq!(delete(&mut bench, &["payment", "simple", "ghost"]), [68, 0, 69]);
    assert_eq!(bench.leave(node, "payment", &member), 0);
    assert_eq!(delete(&mut bench, &["payment"]), [0]);
    assert_eq!(list(&mut bench, &[], &[]), [""; 0]);
    assert_eq!(bench.committed(node, "payment", "orders", 0), (0, -1));
}

#[test]
fn offsets_expire_when_their_group_has_been_empty_for_long() {
    let config = [("offsets.retention.minutes", "30"), ("offsets.retention.check.interval.ms", "600000")];
    let mut bench = Bench::new(1, &config);
    bench.create_topic("orders", 2, &[]);
    let node = bench.coordinator("payment");
    let member = stable(&mut bench, node);
    assert_eq!(bench.commit(node, "payment", &member, 1, ("orders", 0, 5)), 0);
    assert_eq!(bench.leave(node, "payment", &member), 0);
    bench.advance(25 * 60_000);
    assert_eq!(bench.committed(node, "payment", "orders", 0), (0, 5));
    bench.advance(16 * 60_000);
    assert_eq!(bench.committed(node, "payment", "orders", 0), (0, -1));
    let response = bench.ask(node, ApiKey::ListGroups, 4, ListGroupsRequest::default());
    assert!(expect!(ListGroups, response).groups.is_empty(), "the group is gone with its last offset");
}

#[test]
fn an_offset_that_an_old_client_gave_a_time_to_live_expires_by_that() {
    let mut bench = Bench::new(1, &[("offsets.retention.check.interval.ms", "60000")]);
    bench.create_topic("orders", 2, &[]);
    let node = bench.coordinator("payment");
    for (version, group, retention_ms) in
        [(2, "short", 600_000), (4, "default", -1), (3, "payment", 1_200_000)]
    {
        let request = commit_request(group, "", -1, 5).with_retention_time_ms(retention_ms);
        let response = expect!(OffsetCommit, bench.ask(node, ApiKey::OffsetCommit, version, request));
        assert_eq!(response.topics[0].partitions[0].error_code, 0, "{group}");
    }
    let mut left = |minutes: u64| {
        bench.advance(minutes * 60_000);
        ["short", "payment", "default"].map(|group| bench.committed(node, group, "orders", 0).1)
    };
    assert_eq!(left(9), [5, 5, 5]);
    assert_eq!(left(2), [-1, 5, 5]);
    assert_eq!(left(10), [-1, -1, 5], "seven days by default");
}

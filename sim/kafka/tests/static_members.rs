//! Static members (KIP-345): a restart without a rebalance, and the fencing of a second holder.

mod support;

use kafka_protocol::messages::*;

use support::verbs::*;
use support::{Bench, text};

fn join_static(bench: &mut Bench, member: &str, instance: &str, version: i16) -> support::Reply {
    let request = join_request("payment", member).with_group_instance_id(Some(text(instance)));
    let connection = bench.send(1, ApiKey::JoinGroup, version, request);
    bench.advance(3_000);
    bench.reply(connection).expect("an answer")
}

fn joined(reply: support::Reply) -> JoinGroupResponse {
    let support::Reply::Response(response) = reply else { panic!("{reply:?}") };
    expect!(JoinGroup, response)
}

fn heartbeat(bench: &mut Bench, member: &str, instance: &str) -> i16 {
    let request = HeartbeatRequest::default()
        .with_group_id(GroupId(text("payment")))
        .with_member_id(text(member))
        .with_group_instance_id(Some(text(instance)))
        .with_generation_id(1);
    expect!(Heartbeat, bench.ask(1, ApiKey::Heartbeat, 3, request)).error_code
}

#[test]
fn a_restarted_static_member_keeps_its_place_and_fences_the_one_before() {
    let mut bench = Bench::new(1, &[]);
    bench.coordinator("payment");
    let first = joined(join_static(&mut bench, "", "i-1", 5));
    assert_eq!(
        (first.error_code, first.generation_id),
        (0, 1),
        "a static member is not asked to know its id"
    );
    let id = first.member_id.to_string();
    let synced = bench.sync(1, "payment", &id, 1, &[(&id, "all")]);
    expect!(SyncGroup, bench.response(synced));

    let second = joined(join_static(&mut bench, "", "i-1", 5));
    assert_eq!((second.error_code, second.generation_id), (0, 1), "no rebalance");
    assert_ne!(second.member_id, first.member_id);
    assert_eq!(second.leader, first.member_id, "it must not take itself for the leader, and assign anew");
    let kept = bench.sync(1, "payment", second.member_id.as_str(), 1, &[]);
    assert_eq!(&expect!(SyncGroup, bench.response(kept)).assignment[..], b"all");
    assert_eq!(heartbeat(&mut bench, &id, "i-1"), 82, "fenced");
    assert_eq!(heartbeat(&mut bench, second.member_id.as_str(), "i-1"), 0);
    assert_eq!(joined(join_static(&mut bench, &id, "i-1", 5)).error_code, 82);

    let third = joined(join_static(&mut bench, "", "i-1", 9));
    assert!(third.skip_assignment && third.leader == third.member_id, "a newer client is told to skip");
}

#[test]
fn a_static_member_leaves_by_its_instance() {
    let mut bench = Bench::new(1, &[]);
    bench.coordinator("payment");
    assert_eq!(joined(join_static(&mut bench, "", "i-1", 5)).error_code, 0);
    let members = |instance| {
        vec![leave_group_request::MemberIdentity::default().with_group_instance_id(Some(text(instance)))]
    };
    for (instance, error) in [("i-2", 25), ("i-1", 0), ("i-1", 25)] {
        let request = LeaveGroupRequest::default()
            .with_group_id(GroupId(text("payment")))
            .with_members(members(instance));
        assert_eq!(
            expect!(LeaveGroup, bench.ask(1, ApiKey::LeaveGroup, 3, request)).members[0].error_code,
            error
        );
    }
}

#[test]
fn sessions_and_protocols_are_checked_before_a_member_is_let_in() {
    let mut bench = Bench::new(1, &[]);
    bench.coordinator("payment");
    let join = |bench: &mut Bench, request: JoinGroupRequest| {
        expect!(JoinGroup, bench.ask(1, ApiKey::JoinGroup, 5, request)).error_code
    };
    assert_eq!(join(&mut bench, join_request("payment", "").with_session_timeout_ms(5_999)), 26);
    assert_eq!(join(&mut bench, join_request("payment", "").with_session_timeout_ms(1_800_001)), 26);
    assert_eq!(join(&mut bench, join_request("payment", "").with_protocols(vec![])), 23);
    assert_eq!(join(&mut bench, join_request("payment", "ghost")), 25);
    assert_eq!(join(&mut bench, join_request("", "")), 24);
    let _first = bench.join(1, "payment");
    bench.advance(3_000);
    let mut other = join_request("payment", "");
    other.protocols[0].name = text("roundrobin");
    assert_eq!(join(&mut bench, other), 23, "no protocol that all speak");
}

#[test]
fn a_group_whose_coordinator_moves_before_its_first_generation_begins_anew() {
    let config = [("offsets.topic.replication.factor", "3"), ("offsets.topic.num.partitions", "1")];
    let mut bench = Bench::new(3, &config);
    let before = bench.coordinator("payment");
    bench.advance(1_500);
    let request = join_request("payment", "").with_group_instance_id(Some(text("i-1")));
    let lost = bench.send(before, ApiKey::JoinGroup, 5, request.clone());
    // Its record is committed, and the first rebalance waits for more members.
    bench.advance(1_000);
    assert!(bench.reply(lost).is_none());
    bench.kill(before);
    // A broker's session is 9 s, the member's 10 s: were it there, its session would begin anew with the load.
    bench.advance(12_000);
    let (next, _) = bench.leader_of("__consumer_offsets", 0);
    assert!(next != before && next > 0, "another broker coordinates");
    let joining = bench.send(next, ApiKey::JoinGroup, 5, request);
    bench.advance(3_000);
    let joined = expect!(JoinGroup, bench.response(joining));
    assert_eq!((joined.error_code, joined.generation_id, joined.members.len()), (0, 1, 1));
}

//! Protocol stories, told by the cluster's own trace: who led, who was fenced, who was evicted, and what clients heard.
//!
//! The transcripts are in `tests/snapshots`; `INSTA_UPDATE=always cargo test -p shakedown-kafka --test stories` rewrites
//! them.

mod support;

use kafka_protocol::messages::*;

use support::verbs::*;
use support::{Bench, text};

/// The trace since the story began, with member ids by the order of their appearance.
struct Story {
    from: usize,
    members: Vec<String>,
}

impl Story {
    fn begin(bench: &Bench) -> Story {
        Story { from: bench.trace.len(), members: Vec::new() }
    }

    fn member(&mut self, id: &str) {
        self.members.push(id.to_owned());
    }

    fn end(self, bench: &Bench) -> String {
        let mut told = bench.trace[self.from..].join("\n");
        for (index, member) in self.members.iter().enumerate() {
            told = told.replace(member, &format!("<member {}>", index + 1));
        }
        told
    }
}

/// What a client saw, in its place in the trace.
macro_rules! tell {
    ($bench:ident, $($line:tt)*) => {
        let line = format!($($line)*);
        $bench.note("client", &line);
    };
}

#[test]
fn a_rebalance_with_a_zombie() {
    let mut bench = Bench::new(1, &[]);
    bench.create_topic("orders", 2, &[]);
    let node = bench.coordinator("payment");
    let mut story = Story::begin(&bench);

    let (first, joined) = bench.join(node, "payment");
    story.member(&first);
    bench.advance(3_000);
    let response = expect!(JoinGroup, bench.response(joined));
    tell!(
        bench,
        "{first} joined generation {}, leader: {}",
        response.generation_id,
        response.leader == text(&first)
    );
    let synced = bench.sync(node, "payment", &first, 1, &[(&first, "0 and 1")]);
    let response = expect!(SyncGroup, bench.response(synced));
    tell!(bench, "{first} reads {:?}", response.assignment);
    tell!(bench, "{first} commits 5: {}", bench_commit(&mut bench, node, &first, 1, 5));

    let (second, joined) = bench.join(node, "payment");
    story.member(&second);
    assert!(bench.reply(joined).is_none(), "the first has not joined anew");
    bench.advance(4_000);
    let heard = bench.heartbeat(node, "payment", &first, 1);
    tell!(bench, "{first} heartbeats: {heard}, and is paused before it joins anew");
    tell!(bench, "{first} may still commit: {}", bench_commit(&mut bench, node, &first, 1, 6));
    bench.advance(11_000);
    let response = expect!(JoinGroup, bench.response(joined));
    let generation = response.generation_id;
    tell!(bench, "{second} joined generation {generation}, leader: {}", response.leader == text(&second));
    tell!(
        bench,
        "{second} commits before its sync: {}",
        bench_commit(&mut bench, node, &second, generation, 7)
    );
    let synced = bench.sync(node, "payment", &second, generation, &[(&second, "0 and 1")]);
    expect!(SyncGroup, bench.response(synced));

    tell!(bench, "{first}, a zombie, heartbeats: {}", bench_heartbeat(&mut bench, node, &first, 1));
    tell!(bench, "{first}, a zombie, commits: {}", bench_commit(&mut bench, node, &first, 1, 99));
    tell!(bench, "nobody commits with generation -1: {}", bench_commit(&mut bench, node, "", -1, 99));
    tell!(bench, "the group has committed {:?}", bench.committed(node, "payment", "orders", 0));
    tell!(bench, "{second} leaves: {}", bench_leave(&mut bench, node, &second));
    tell!(bench, "nobody commits to the empty group: {}", bench_commit(&mut bench, node, "", -1, 8));
    insta::assert_snapshot!(story.end(&bench));
}

fn bench_commit(bench: &mut Bench, node: i32, member: &str, generation: i32, offset: i64) -> i16 {
    bench.commit(node, "payment", member, generation, ("orders", 0, offset))
}

fn bench_heartbeat(bench: &mut Bench, node: i32, member: &str, generation: i32) -> i16 {
    bench.heartbeat(node, "payment", member, generation)
}

fn bench_leave(bench: &mut Bench, node: i32, member: &str) -> i16 {
    bench.leave(node, "payment", member)
}

#[test]
fn an_idempotent_retry_across_a_crash_of_the_leader() {
    let mut bench = Bench::new(3, &[]);
    bench.create_topic("orders", 1, &[]);
    let (leader, _) = bench.leader_of("orders", 0);
    let other = (1..=3).find(|&node| node != leader).unwrap();
    let story = Story::begin(&bench);

    tell!(bench, "sequence 0: {:?}", bench.produce(leader, "orders", 0, idempotent(&["a", "b"], 7, 0, 0)));
    tell!(bench, "sequence 2: {:?}", bench.produce(leader, "orders", 0, idempotent(&["c"], 7, 0, 2)));
    bench.kill(leader);
    bench.advance(3_000);
    bench.start(leader);
    tell!(bench, "another broker says {:?}", bench.produce(other, "orders", 0, idempotent(&["c"], 7, 0, 2)));
    bench.advance(3_000);
    assert!(!bench.is_listening(leader), "its last session is still valid");
    bench.advance(6_000);
    assert!(bench.is_listening(leader));
    tell!(bench, "sequence 2 again: {:?}", bench.produce(leader, "orders", 0, idempotent(&["c"], 7, 0, 2)));
    tell!(bench, "sequence 4: {:?}", bench.produce(leader, "orders", 0, idempotent(&["e"], 7, 0, 4)));
    tell!(bench, "sequence 3: {:?}", bench.produce(leader, "orders", 0, idempotent(&["d"], 7, 0, 3)));
    tell!(bench, "the log: {:?}", bench.fetch(leader, "orders", 0, 0));
    insta::assert_snapshot!(story.end(&bench));
}

#[test]
fn a_group_outlives_its_coordinator() {
    let mut bench = Bench::new(2, &[]);
    bench.create_topic("orders", 2, &[]);
    let node = bench.coordinator("payment");
    let other = 3 - node;
    let (member, joined) = bench.join(node, "payment");
    bench.advance(3_000);
    expect!(JoinGroup, bench.response(joined));
    let synced = bench.sync(node, "payment", &member, 1, &[(&member, "0 and 1")]);
    expect!(SyncGroup, bench.response(synced));
    let mut story = Story::begin(&bench);
    story.member(&member);
    tell!(bench, "{member} commits 5: {}", bench_commit(&mut bench, node, &member, 1, 5));

    bench.kill(node);
    tell!(bench, "{member} asks another broker: {}", bench_heartbeat(&mut bench, other, &member, 1));
    bench.advance(10_200);
    let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("payment")]);
    let found = expect!(FindCoordinator, bench.ask(other, ApiKey::FindCoordinator, 4, request));
    tell!(bench, "the coordinator is away: {}", found.coordinators[0].error_code);
    bench.start(node);
    bench.advance(100);
    assert_eq!(bench.coordinator("payment"), node);
    tell!(bench, "{member} goes on with its generation: {}", bench_heartbeat(&mut bench, node, &member, 1));
    tell!(bench, "{member} finds its commit: {:?}", bench.committed(node, "payment", "orders", 0));
    bench.advance(9_000);
    tell!(
        bench,
        "{member} heartbeats within its new session: {}",
        bench_heartbeat(&mut bench, node, &member, 1)
    );
    bench.advance(10_000);
    tell!(bench, "{member} was silent for too long: {}", bench_heartbeat(&mut bench, node, &member, 1));
    insta::assert_snapshot!(story.end(&bench));
}

#[test]
fn two_members_share_and_the_coordinator_sees_one_die() {
    let mut bench = Bench::new(1, &[]);
    let node = bench.coordinator("payment");
    let mut story = Story::begin(&bench);
    let (first, joined_first) = bench.join(node, "payment");
    bench.advance(2_000);
    let (second, joined_second) = bench.join(node, "payment");
    story.member(&first);
    story.member(&second);
    bench.advance(6_000);
    let one = expect!(JoinGroup, bench.response(joined_first));
    let two = expect!(JoinGroup, bench.response(joined_second));
    assert_eq!((one.generation_id, two.generation_id), (1, 1), "the initial delay gathered both");
    tell!(
        bench,
        "the leader of both is {}, with {} and {} members to assign",
        one.leader.as_str(),
        one.members.len(),
        two.members.len()
    );
    let leader = one.leader.to_string();
    let follower = if leader == first { second.clone() } else { first.clone() };
    let waiting = bench.sync(node, "payment", &follower, 1, &[]);
    assert!(bench.reply(waiting).is_none(), "the leader has not assigned");
    let synced = bench.sync(node, "payment", &leader, 1, &[(&leader, "0"), (&follower, "1")]);
    expect!(SyncGroup, bench.response(synced));
    let response = expect!(SyncGroup, bench.response(waiting));
    tell!(bench, "{follower} reads {:?}", response.assignment);
    for _ in 0..3 {
        bench.advance(4_000);
        let heard = bench.heartbeat(node, "payment", &leader, 1);
        tell!(bench, "{leader} heartbeats: {heard}");
    }
    let again = bench.send(node, ApiKey::JoinGroup, 5, join_request("payment", &leader));
    let response = expect!(JoinGroup, bench.response(again));
    tell!(
        bench,
        "{leader} is in generation {} with {} members",
        response.generation_id,
        response.members.len()
    );
    insta::assert_snapshot!(story.end(&bench));
}

#[test]
fn a_power_loss_takes_what_was_not_written_back() {
    let mut bench = Bench::new(1, &[]);
    bench.create_topic("orders", 1, &[]);
    bench.produce(1, "orders", 0, batch(&["a"]));
    bench.advance(36_000);
    bench.produce(1, "orders", 0, batch(&["b"]));
    let story = Story::begin(&bench);
    tell!(bench, "{:?}", bench.fetch(1, "orders", 0, 0));
    bench.lose_power(1);
    bench.start(1);
    bench.advance(12_000);
    tell!(bench, "{:?}", bench.fetch(1, "orders", 0, 0));
    insta::assert_snapshot!(story.end(&bench));
}

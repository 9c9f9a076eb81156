//! Replication stories, told by the cluster's own trace and by what clients hear: who is in sync, what is committed, what a
//! change of the leader cuts off.
//!
//! The transcripts are in `tests/snapshots`; `INSTA_UPDATE=always cargo test -p shakedown-kafka --test replication`
//! rewrites them.

mod support;

use kafka_protocol::messages::*;
use shakedown_kafka::core::{ConnectionId, Lane, Peer};

use support::verbs::*;
use support::{Bench, Host, Reply};

/// What a client saw, in its place in the trace.
macro_rules! tell {
    ($bench:ident, $($line:tt)*) => {
        let line = format!($($line)*);
        $bench.note("client", &line);
    };
}

/// Three brokers; `orders` has one partition on all of them, led by broker 1, and wants two in sync.
fn bench(config: &[(&str, &str)]) -> Bench {
    let mut bench = Bench::new(3, config);
    assert_eq!(bench.create_on("orders", &[1, 2, 3], &[("min.insync.replicas", "2")]), 0);
    bench.advance(1_500);
    bench
}

/// The trace from some line on.
fn told(bench: &Bench, from: usize) -> String {
    bench.trace[from..].join("\n")
}

/// Sends a produce whose answer may take time.
fn produce(bench: &mut Bench, node: i32, acks: i16, values: &[&str]) -> ConnectionId {
    bench.send(node, ApiKey::Produce, 9, produce_request("orders", 0, acks, batch(values)))
}

/// Error and base offset, once the answer is there.
fn produced(bench: &mut Bench, connection: ConnectionId) -> Option<(i16, i64)> {
    match bench.reply(connection)? {
        Reply::Response(response) => {
            let response = expect!(Produce, response);
            let partition = &response.responses[0].partition_responses[0];
            Some((partition.error_code, partition.base_offset))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn acks_all_waits_for_all_in_sync_and_acks_1_does_not() {
    let mut bench = bench(&[]);
    let one = produce(&mut bench, 1, 1, &["a"]);
    assert_eq!(produced(&mut bench, one), Some((0, 0)), "the leader has it");
    bench.cut(Host::Broker(1), Host::Broker(3));
    let all = produce(&mut bench, 1, -1, &["b"]);
    bench.advance(600);
    assert_eq!(produced(&mut bench, all), None, "broker 3 does not have it");
    bench.mend(Host::Broker(1), Host::Broker(3));
    bench.advance(1);
    assert_eq!(produced(&mut bench, all), Some((0, 1)));
    assert_eq!(bench.fetch(1, "orders", 0, 0), (0, 2, vec![0, 1]));
}

#[test]
fn a_leader_that_dies_takes_its_unreplicated_tail_along() {
    let mut bench = bench(&[]);
    let from = bench.trace.len();
    tell!(bench, "all have it: {:?}", bench.produce_through(1, &["a"]));
    bench.cut(Host::Broker(1), Host::Broker(2));
    bench.cut(Host::Broker(1), Host::Broker(3));
    // What they had asked for before is answered, with nothing.
    bench.advance(600);
    let tail = produce(&mut bench, 1, 1, &["b", "c"]);
    tell!(bench, "acks=1 while nobody follows: {:?}", produced(&mut bench, tail));
    bench.kill(1);
    bench.mend(Host::Broker(1), Host::Broker(2));
    bench.mend(Host::Broker(1), Host::Broker(3));
    bench.advance(9_500);
    let (leader, epoch) = bench.leader_of("orders", 0);
    tell!(bench, "broker {leader} leads with epoch {epoch}");
    tell!(bench, "acks=all: {:?}", bench.produce_through(leader, &["d"]));
    bench.start(1);
    bench.advance(3_000);
    tell!(bench, "in sync: {:?}", bench.in_sync_of("orders", 0));
    tell!(bench, "broker 1 has {:?}", bench.replica(1, "orders", 0));
    tell!(bench, "broker {leader} has {:?}", bench.replica(leader, "orders", 0));
    tell!(bench, "a reader sees {:?}", bench.fetch(leader, "orders", 0, 0));
    insta::assert_snapshot!(told(&bench, from));
}

#[test]
fn a_leader_that_is_cut_off_goes_on_until_it_learns() {
    let mut bench = bench(&[]);
    bench.produce_through(1, &["a"]);
    let from = bench.trace.len();
    bench.isolate(1);
    let all = produce(&mut bench, 1, -1, &["lost with acks=all"]);
    bench.advance(10_000);
    let (leader, epoch) = bench.leader_of("orders", 0);
    tell!(bench, "the controller has broker {leader} lead with epoch {epoch}");
    tell!(bench, "broker 1 reads on: {:?}", bench.fetch(1, "orders", 0, 0));
    let one = produce(&mut bench, 1, 1, &["lost with acks=1"]);
    tell!(bench, "broker 1 takes acks=1: {:?}", produced(&mut bench, one));
    tell!(bench, "broker {leader} takes acks=all: {:?}", bench.produce_through(leader, &["b"]));
    bench.advance(20_000);
    tell!(bench, "acks=all at broker 1 ends with {:?}", produced(&mut bench, all));
    bench.rejoin(1);
    bench.advance(6_000);
    let zombie = produce(&mut bench, 1, 1, &["c"]);
    tell!(bench, "broker 1 says to a producer: {:?}", produced(&mut bench, zombie));
    tell!(bench, "in sync: {:?}", bench.in_sync_of("orders", 0));
    tell!(bench, "broker 1 has {:?}", bench.replica(1, "orders", 0));
    tell!(bench, "a reader sees {:?}", bench.fetch(leader, "orders", 0, 0));
    insta::assert_snapshot!(told(&bench, from));
}

#[test]
fn a_follower_that_lags_leaves_the_in_sync_replicas_and_joins_again() {
    let mut bench = bench(&[]);
    let from = bench.trace.len();
    bench.cut(Host::Broker(1), Host::Broker(3));
    let all = produce(&mut bench, 1, -1, &["a"]);
    bench.advance(29_000);
    tell!(bench, "acks=all waits: {:?}", produced(&mut bench, all));
    bench.advance(17_000);
    tell!(bench, "acks=all ended with {:?}", produced(&mut bench, all));
    tell!(bench, "in sync: {:?}", bench.in_sync_of("orders", 0));
    tell!(bench, "without it: {:?}", bench.produce_through(1, &["b"]));
    bench.mend(Host::Broker(1), Host::Broker(3));
    bench.advance(2_000);
    tell!(bench, "in sync: {:?}", bench.in_sync_of("orders", 0));
    tell!(bench, "broker 3 has {:?}", bench.replica(3, "orders", 0));
    insta::assert_snapshot!(told(&bench, from));
}

#[test]
fn below_the_minimum_acks_1_is_answered_and_nobody_sees_it() {
    let mut bench = bench(&[]);
    bench.produce_through(1, &["a"]);
    bench.kill(2);
    bench.kill(3);
    let from = bench.trace.len();
    bench.advance(10_000);
    tell!(bench, "in sync: {:?}", bench.in_sync_of("orders", 0));
    let one = produce(&mut bench, 1, 1, &["b"]);
    tell!(bench, "acks=1: {:?}", produced(&mut bench, one));
    let all = produce(&mut bench, 1, -1, &["c"]);
    tell!(bench, "acks=all: {:?}", produced(&mut bench, all));
    tell!(bench, "a reader sees {:?}", bench.fetch(1, "orders", 0, 0));
    bench.start(2);
    bench.advance(3_000);
    tell!(bench, "in sync: {:?}", bench.in_sync_of("orders", 0));
    tell!(bench, "a reader sees {:?}", bench.fetch(1, "orders", 0, 0));
    insta::assert_snapshot!(told(&bench, from));
}

#[test]
fn a_broker_that_shuts_down_gives_its_leadership_away_first() {
    let mut bench = bench(&[]);
    bench.produce_through(1, &["a"]);
    let from = bench.trace.len();
    bench.shut_down(1);
    bench.advance(3_000);
    let (leader, epoch) = bench.leader_of("orders", 0);
    tell!(bench, "broker {leader} leads with epoch {epoch}");
    assert_ne!(leader, 1);
    assert!(!bench.is_listening(1), "it has stopped");
    tell!(bench, "acks=all: {:?}", bench.produce_through(leader, &["b"]));
    bench.start(1);
    bench.advance(3_000);
    tell!(bench, "in sync: {:?}", bench.in_sync_of("orders", 0));
    insta::assert_snapshot!(told(&bench, from));
}

/// The last replica standing loses power while another has all that was acknowledged (KIP-966). Gives how many records are
/// there in the end, of two.
fn the_last_replica_standing_loses_power(elr: i16) -> (i64, String) {
    let mut bench = Bench::with_features(3, &[], &[("eligible.leader.replicas.version", elr)]);
    assert_eq!(bench.create_on("orders", &[1, 2, 3], &[("min.insync.replicas", "2")]), 0);
    bench.advance(1_500);
    assert_eq!(bench.produce_through(1, &["a"]), (0, 0));
    bench.kill(3);
    // What is older than 35 s is on the disk.
    bench.advance(40_000);
    let from = bench.trace.len();
    let state = |bench: &Bench| {
        let (_, partition) = bench.image().partition_of("orders", 0).expect("it was created");
        format!("leader {}, in sync {:?}, eligible {:?}", partition.leader, partition.in_sync, partition.elr)
    };
    tell!(bench, "broker 3 is gone: {}", state(&bench));
    tell!(bench, "acks=all: {:?}", bench.produce_through(1, &["b"]));
    bench.isolate(2);
    bench.advance(12_000);
    tell!(bench, "broker 1 is the last in sync: {}", state(&bench));
    bench.lose_power(1);
    bench.advance(12_000);
    bench.rejoin(2);
    bench.advance(12_000);
    tell!(bench, "broker 2 is back, broker 1 is not: {}", state(&bench));
    bench.start(1);
    bench.advance(12_000);
    tell!(bench, "broker 1 is back: {}", state(&bench));
    let (leader, _) = bench.leader_of("orders", 0);
    let read = bench.fetch(leader, "orders", 0, 0);
    tell!(bench, "a reader sees {read:?}");
    for node in [1, 2] {
        tell!(bench, "broker {node} has {:?}", bench.replica(node, "orders", 0));
    }
    (read.1, told(&bench, from))
}

#[test]
fn without_eligible_replicas_a_power_loss_of_the_last_one_standing_loses() {
    let (records, story) = the_last_replica_standing_loses_power(0);
    assert_eq!(records, 1, "what was acknowledged by two is lost");
    insta::assert_snapshot!(story);
}

#[test]
fn an_eligible_replica_outlives_a_power_loss_of_the_last_one_standing() {
    let (records, story) = the_last_replica_standing_loses_power(1);
    assert_eq!(records, 2);
    insta::assert_snapshot!(story);
}

#[test]
fn the_first_replica_leads_again_when_the_controller_looks() {
    for (enabled, expected) in [("true", 1), ("false", 2)] {
        let mut bench = bench(&[("auto.leader.rebalance.enable", enabled)]);
        bench.shut_down(1);
        bench.advance(3_000);
        bench.start(1);
        // `leader.imbalance.check.interval.seconds` is 300.
        bench.advance(30_000);
        assert_eq!((bench.leader_of("orders", 0).0, bench.in_sync_of("orders", 0).len()), (2, 3));
        bench.advance(300_000);
        assert_eq!(bench.leader_of("orders", 0).0, expected, "auto.leader.rebalance.enable={enabled}");
    }
}

#[test]
fn a_broker_cannot_register_while_its_last_session_holds() {
    let mut bench = bench(&[]);
    bench.kill(1);
    bench.advance(1_000);
    bench.start(1);
    bench.advance(6_000);
    assert!(!bench.is_listening(1), "the session of the process before lasts 9 s");
    assert_eq!(bench.leader_of("orders", 0).0, 1, "and so does its leadership");
    bench.advance(6_000);
    assert!(bench.is_listening(1));
    assert_ne!(bench.leader_of("orders", 0).0, 1);
}

#[test]
fn a_controller_that_takes_over_gives_every_broker_a_whole_session() {
    let mut bench = bench(&[]);
    bench.cut(Host::Controller, Host::Broker(3));
    bench.advance(8_000);
    bench.kill_controller();
    bench.start_controller();
    let active = |bench: &Bench| {
        let lines = bench.trace.iter().filter(|line| line.contains("controller is active"));
        lines.count()
    };
    let before = active(&bench);
    while active(&bench) == before {
        bench.advance(100);
    }
    bench.advance(8_000);
    assert_eq!(bench.in_sync_of("orders", 0), [1, 2, 3], "it has not been heard of for more than 9 s");
    bench.advance(4_000);
    assert_eq!(bench.in_sync_of("orders", 0), [1, 2], "nor within the session that it was given");
}

#[test]
fn a_reader_that_believes_in_the_leader_before_is_fenced() {
    let mut bench = bench(&[]);
    bench.produce_through(1, &["a"]);
    let (_, before) = bench.leader_of("orders", 0);
    bench.shut_down(1);
    bench.advance(3_000);
    let (leader, epoch) = bench.leader_of("orders", 0);
    assert!(epoch > before);
    for (believed, error) in [(before, 74), (epoch, 0), (epoch + 1, 75), (-1, 0)] {
        let mut request = fetch_request("orders", 0, 0, 0, 1);
        request.topics[0].partitions[0].current_leader_epoch = believed;
        let heard = fetched(bench.ask(leader, ApiKey::Fetch, 12, request)).0;
        assert_eq!(heard, error, "epoch {believed} is believed in, {epoch} is the leader's");
    }
}

#[test]
fn a_produce_that_times_out_stays_in_the_log() {
    let mut bench = bench(&[]);
    bench.cut(Host::Broker(1), Host::Broker(3));
    let request = produce_request("orders", 0, -1, batch(&["a"])).with_timeout_ms(2_000);
    let late = bench.send(1, ApiKey::Produce, 9, request);
    bench.advance(2_000);
    assert_eq!(produced(&mut bench, late), Some((7, 0)), "REQUEST_TIMED_OUT, and where it is");
    bench.mend(Host::Broker(1), Host::Broker(3));
    bench.advance(1_000);
    assert_eq!(bench.fetch(1, "orders", 0, 0).2, [0]);
}

/// Broker 1 has taken a produce with `acks=all` at the min ISR of two; then broker 2 dies before it has it, and leaves.
fn below_the_minimum_after_the_append(bench: &mut Bench) -> ConnectionId {
    bench.kill(3);
    bench.advance(10_000);
    assert_eq!(bench.in_sync_of("orders", 0), [1, 2]);
    bench.cut(Host::Broker(1), Host::Broker(2));
    bench.advance(600);
    let all = produce(bench, 1, -1, &["a"]);
    bench.kill(2);
    bench.mend(Host::Broker(1), Host::Broker(2));
    bench.advance(10_000);
    assert_eq!(bench.in_sync_of("orders", 0), [1]);
    assert_eq!(produced(bench, all), None, "the high watermark stands still below the minimum");
    assert_eq!(bench.fetch(1, "orders", 0, 0), (0, 0, vec![]));
    all
}

#[test]
fn an_append_whose_in_sync_replicas_shrink_before_the_ack_times_out() {
    let mut bench = bench(&[]);
    let all = below_the_minimum_after_the_append(&mut bench);
    let refused = produce(&mut bench, 1, -1, &["b"]);
    assert_eq!(produced(&mut bench, refused), Some((19, -1)), "NOT_ENOUGH_REPLICAS, before the append");
    bench.advance(20_000);
    assert_eq!(produced(&mut bench, all), Some((7, 0)), "REQUEST_TIMED_OUT, and it is in the log");
    assert_eq!(bench.replica(1, "orders", 0), [(0, 0)]);
}

#[test]
fn an_append_whose_in_sync_replicas_shrink_is_acknowledged_when_they_are_enough_again() {
    let mut bench = bench(&[]);
    let all = below_the_minimum_after_the_append(&mut bench);
    bench.start(2);
    bench.advance(3_000);
    assert_eq!(bench.in_sync_of("orders", 0), [1, 2]);
    assert_eq!(produced(&mut bench, all), Some((0, 0)));
    assert_eq!(bench.fetch(1, "orders", 0, 0), (0, 1, vec![0]));
}

#[test]
fn a_leader_that_asks_for_a_broker_on_its_way_down_takes_its_wish_back() {
    let mut bench = bench(&[]);
    // Broker 3 alone holds this one, so it must lead on and cannot end.
    assert_eq!(bench.create_on("stays", &[3], &[]), 0);
    bench.cut(Host::Broker(1), Host::Broker(3));
    let one = produce(&mut bench, 1, 1, &["a"]);
    assert_eq!(produced(&mut bench, one), Some((0, 0)));
    bench.advance(46_000);
    assert_eq!(bench.in_sync_of("orders", 0), [1, 2]);
    bench.hold(Host::Controller, Host::Broker(1));
    bench.shut_down(3);
    bench.advance(100);
    // Broker 1 does not know yet, and takes broker 3 for one that may join: INELIGIBLE_REPLICA.
    bench.mend(Host::Broker(1), Host::Broker(3));
    bench.advance(1_500);
    bench.release(Host::Controller, Host::Broker(1));
    bench.advance(600);
    assert_eq!(bench.in_sync_of("orders", 0), [1, 2]);
    bench.cut(Host::Broker(1), Host::Broker(3));
    bench.advance(600);
    let all = produce(&mut bench, 1, -1, &["b"]);
    bench.advance(600);
    assert_eq!(produced(&mut bench, all), Some((0, 1)), "nobody waits for broker 3");
}

#[test]
fn a_leader_whose_view_is_old_waits_for_the_metadata() {
    let mut bench = Bench::new(3, &[("replica.lag.time.max.ms", "12000")]);
    assert_eq!(bench.create_on("orders", &[1, 2, 3], &[]), 0);
    bench.advance(1_500);
    bench.hold(Host::Controller, Host::Broker(1));
    bench.kill(3);
    // The controller fences it after 9 s; broker 1 asks for the same after 18 s at the latest: INVALID_UPDATE_VERSION.
    bench.advance(19_000);
    assert_eq!(bench.in_sync_of("orders", 0), [1, 2]);
    let all = produce(&mut bench, 1, -1, &["a"]);
    bench.advance(600);
    assert_eq!(produced(&mut bench, all), None, "it counts on the larger set");
    bench.release(Host::Controller, Host::Broker(1));
    bench.advance(1_000);
    assert_eq!(produced(&mut bench, all), Some((0, 0)));
    bench.start(3);
    bench.advance(3_000);
    assert_eq!(bench.in_sync_of("orders", 0), [1, 2, 3], "it asks again from what it knows now");
}

#[test]
fn a_new_leader_does_not_tell_the_latest_offset_before_it_knows_it() {
    let mut bench = bench(&[]);
    // Followers learn the high watermark with the fetch after the one that moved it: here they do not come to that.
    let all = produce(&mut bench, 1, -1, &["a"]);
    assert_eq!(produced(&mut bench, all), Some((0, 0)));
    bench.kill(1);
    bench.cut(Host::Broker(2), Host::Broker(3));
    bench.advance(9_500);
    let (leader, _) = bench.leader_of("orders", 0);
    assert_eq!(bench.latest_offset(leader, "orders", 0), (78, -1), "OFFSET_NOT_AVAILABLE");
    bench.mend(Host::Broker(2), Host::Broker(3));
    bench.advance(2_000);
    assert_eq!(bench.latest_offset(leader, "orders", 0), (0, 1));
}

/// Where the segments of `orders/0` begin, and up to where it is flushed, the same on all three brokers.
fn segments_and_flushed(bench: &Bench) -> (Vec<i64>, i64) {
    let first = bench.segments(1, "orders", 0);
    for follower in [2, 3] {
        assert_eq!(bench.segments(follower, "orders", 0), first, "broker {follower}");
    }
    first
}

#[test]
fn followers_roll_and_flush_as_the_topic_says() {
    let mut bench = Bench::new(3, &[]);
    let config =
        [("message.timestamp.type", "LogAppendTime"), ("segment.ms", "1000"), ("flush.messages", "2")];
    assert_eq!(bench.create_on("orders", &[1, 2, 3], &config), 0);
    bench.advance(1_500);
    assert_eq!(bench.produce_through(1, &["a"]), (0, 0));
    assert_eq!(segments_and_flushed(&bench), (vec![0], 0));
    assert_eq!(bench.produce_through(1, &["b"]), (0, 1));
    assert_eq!(segments_and_flushed(&bench), (vec![0], 2), "two records are flushed");
    bench.advance(1_000);
    assert_eq!(bench.produce_through(1, &["c"]), (0, 2));
    assert_eq!(segments_and_flushed(&bench), (vec![0, 2], 2), "a second is over");
    for (name, value) in [("segment.ms", "60000"), ("flush.messages", "1")] {
        assert_eq!(bench.set_topic_config("orders", name, value), 0);
    }
    bench.advance(2_000);
    assert_eq!(bench.produce_through(1, &["d"]), (0, 3));
    assert_eq!(segments_and_flushed(&bench), (vec![0, 2], 4), "as it says from now on");
}

#[test]
fn a_broker_is_as_patient_with_others_as_its_settings_say() {
    let mut bench =
        Bench::new(2, &[("broker.session.timeout.ms", "6000"), ("replica.socket.timeout.ms", "7000")]);
    assert_eq!(bench.create_on("orders", &[1, 2], &[]), 0);
    bench.advance(1_500);
    assert_eq!(bench.patience(Lane::Heartbeat).as_millis(), 3_000, "half a session");
    assert_eq!(bench.patience(Lane::Replicate).as_millis(), 7_000);
}

#[test]
fn a_follower_asks_in_sessions_and_a_quiet_cluster_only_waits() {
    let mut bench = bench(&[]);
    bench.advance(5_000);
    let before = bench.handled();
    bench.advance(10_000);
    let each_second = (bench.handled() - before) / 10;
    // Two followers ask the leader, each twice a second, and it answers; heartbeats and metadata come on top.
    assert!(each_second <= 30, "{each_second} inputs a second on a cluster that does nothing");
}

/// Followers wait for both topics at once, and the tombstones of the group wake them.
#[test]
fn a_topic_that_goes_takes_commits_along_under_the_eyes_of_followers() {
    let mut bench = Bench::new(3, &[("offsets.topic.replication.factor", "3")]);
    let names: Vec<String> = (0..3).map(|at| format!("orders-{at}")).collect();
    for name in &names {
        assert_eq!(bench.create_replicated(name, 3, 3, &[]), 0);
    }
    let coordinator = bench.coordinator("payment");
    bench.advance(2_000);
    for (name, partition) in names.iter().flat_map(|name| (0..3).map(move |partition| (name, partition))) {
        let asked = bench.commit_later(coordinator, "payment", (name, partition, 5));
        bench.advance(600);
        assert_eq!(bench.commit_answer(asked), 0);
    }
    let topics = names.iter().map(|name| topic_name(name)).collect();
    let request = DeleteTopicsRequest::default().with_topic_names(topics);
    bench.ask(1, ApiKey::DeleteTopics, 5, request);
    bench.advance(2_000);
    assert_eq!(bench.committed(coordinator, "payment", "orders-0", 0), (0, -1));
    let asked = bench.commit_later(coordinator, "payment", ("orders-0", 0, 5));
    bench.advance(600);
    assert_eq!(bench.commit_answer(asked), 3, "the brokers live, and know that it is gone");
}

#[test]
fn a_follower_that_comes_back_to_a_leader_waits_for_no_old_answer() {
    let mut bench = Bench::new(3, &[]);
    assert_eq!(bench.create_on("orders", &[1, 3, 2], &[]), 0);
    bench.advance(1_500);
    let fetch = |bench: &Bench| bench.open_question(2, Peer::Broker(1), Lane::Replicate);
    bench.hold(Host::Broker(1), Host::Broker(2));
    bench.advance(1_000);
    let (stuck, _) = fetch(&bench).expect("broker 2 follows broker 1");
    bench.cut(Host::Broker(1), Host::Controller);
    bench.advance(10_000);
    assert_eq!(bench.leader_of("orders", 0).0, 3);
    assert_eq!(fetch(&bench), None, "broker 2 follows broker 3 and has forgotten what it asked");
    bench.mend(Host::Broker(1), Host::Controller);
    bench.advance(3_000);
    let asked = elect_leaders_request::TopicPartitions::default()
        .with_topic(topic_name("orders"))
        .with_partitions(vec![0]);
    let request = ElectLeadersRequest::default().with_topic_partitions(Some(vec![asked]));
    bench.ask(3, ApiKey::ElectLeaders, 2, request);
    assert_eq!(bench.leader_of("orders", 0).0, 1);
    let (asked, _) = fetch(&bench).expect("broker 2 asks broker 1 at once");
    assert_ne!(asked, stuck);
    bench.release(Host::Broker(1), Host::Broker(2));
    bench.advance(1_000);
    let mut in_sync = bench.in_sync_of("orders", 0);
    in_sync.sort_unstable();
    assert_eq!(in_sync, [1, 2, 3]);
}

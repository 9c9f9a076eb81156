//! Replication stories, told by the cluster's own trace and by what clients hear: who is in sync, what is committed, what a
//! change of the leader cuts off.
//!
//! The transcripts are in `tests/snapshots`; `INSTA_UPDATE=always cargo test -p shakedown-kafka --test replication`
//! rewrites them.

mod support;

use kafka_protocol::messages::*;
use shakedown_kafka::core::ConnectionId;

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

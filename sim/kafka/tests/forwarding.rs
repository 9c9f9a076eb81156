//! What a broker asks the controller for its clients, when the controller does not answer.

mod support;

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::*;
use shakedown_kafka::core::ConnectionId;

use support::verbs::topic_name;
use support::{Bench, Host};

const REQUEST_TIMED_OUT: i16 = 7;
const TOPIC_ALREADY_EXISTS: i16 = 36;

fn create(bench: &mut Bench, name: &str) -> ConnectionId {
    let topic = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(1)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(1_000);
    bench.send(1, ApiKey::CreateTopics, 7, request)
}

fn created(bench: &mut Bench, asked: ConnectionId) -> i16 {
    expect!(CreateTopics, bench.response(asked)).topics[0].error_code
}

#[test]
fn a_request_whose_answer_is_lost_is_sent_again_and_meets_its_own_work() {
    let mut bench = Bench::new(1, &[]);
    bench.hold(Host::Controller, Host::Broker(1));
    let (first, second) = (create(&mut bench, "orders"), create(&mut bench, "payments"));
    bench.advance(29_999);
    assert!(bench.image().topic("orders").is_some(), "the controller has done it");
    assert!(bench.reply(first).is_none());
    // The attempt is given up: what was on its way answers nobody.
    bench.advance(1);
    bench.release(Host::Controller, Host::Broker(1));
    assert!(bench.reply(first).is_none());
    bench.advance(50);
    assert_eq!(created(&mut bench, first), TOPIC_ALREADY_EXISTS);
    assert_eq!(created(&mut bench, second), 0, "it was never sent before");
}

#[test]
fn a_request_is_sent_again_for_a_minute() {
    let mut bench = Bench::new(1, &[]);
    bench.cut(Host::Controller, Host::Broker(1));
    let asked = create(&mut bench, "orders");
    bench.advance(60_000);
    assert!(bench.reply(asked).is_none());
    bench.advance(200);
    assert_eq!(created(&mut bench, asked), REQUEST_TIMED_OUT);
}

#[test]
fn a_create_outlives_the_controller() {
    let mut bench = Bench::new(1, &[]);
    bench.kill_controller();
    let asked = create(&mut bench, "orders");
    bench.advance(20_000);
    assert!(bench.reply(asked).is_none());
    bench.start_controller();
    bench.advance(15_000);
    assert_eq!(created(&mut bench, asked), 0);
}

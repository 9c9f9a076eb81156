//! How messages leave.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use broker::ProducerRecord;
use context::Seed;
use context::real::RealHost;
use kit::{ServiceConfig, StoreError, StoreExt, outbox};
use proto::topics;
use world::Change;

use crate::bed::{Bed, cancelled, cancelling, published, send_cancel};
use crate::fake::Trouble;

const EVENTS: &str = topics::ORDER_EVENTS;

fn bed(replicas: usize) -> Bed {
    cancelling(replicas, ServiceConfig::default())
}

/// Puts records into the outbox as some transaction would: `count` for each of `keys`, in turns.
fn fill(bed: &Bed, topic: &str, keys: &[&str], count: usize) {
    let context = RealHost::new("test", Seed(1)).into_context();
    for number in 0..count {
        for key in keys {
            let record = ProducerRecord::new(topic, key.to_string(), number.to_string());
            let append = |tables: &mut dyn kit::Tables| outbox::append(tables, record);
            bed.store.transact_with::<_, StoreError>(&context, append).unwrap();
        }
    }
}

/// The numbers of a topic's records by key, each where it appeared first.
fn first_appearances(bed: &Bed, topic: &str) -> BTreeMap<String, Vec<usize>> {
    let mut appeared: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for record in bed.kafka.records(topic) {
        let text = |bytes: Option<bytes::Bytes>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
        let (key, number) = (text(record.key), text(record.value).parse().unwrap());
        if seen.insert((key.clone(), number)) {
            appeared.entry(key).or_default().push(number);
        }
    }
    appeared
}

fn assert_complete_and_in_order(bed: &Bed, topic: &str, keys: &[&str], count: usize) {
    let appeared = first_appearances(bed, topic);
    assert_eq!(appeared.keys().collect::<Vec<_>>(), keys.iter().collect::<Vec<_>>());
    for (key, numbers) in appeared {
        assert_eq!(numbers, (0..count).collect::<Vec<_>>(), "{key}");
    }
}

#[test]
fn a_crash_between_commit_and_publish_loses_nothing() {
    let mut bed = bed(1);
    bed.kafka.trouble(EVENTS, 3, Trouble::Refused);
    send_cancel(&bed.kafka, "o-1", "once");
    bed.pass_until("it is applied", |bed| cancelled(bed, "o-1") == 1);
    bed.pass_ms(5);
    bed.kill("svc-1");
    assert_eq!(published(&bed), []);
    bed.pass_ms(200);
    bed.restart("svc-1");
    bed.pass_until("it is sent", |bed| bed.depth() == 0);
    assert_eq!(published(&bed), [("o-1".into(), "once".into())]);
}

#[test]
fn a_lost_acknowledgement_makes_a_repeat_with_the_same_id() {
    let mut bed = bed(1);
    bed.kafka.trouble(EVENTS, 1, Trouble::Unacknowledged);
    send_cancel(&bed.kafka, "o-1", "once");
    bed.pass_until("it is applied", |bed| cancelled(bed, "o-1") == 1);
    bed.pass_until("it is acknowledged", |bed| bed.depth() == 0);
    let records = bed.kafka.records(EVENTS);
    assert_eq!(records.len(), 2, "it was sent again");
    assert_eq!(records[0].headers.get("message-id"), records[1].headers.get("message-id"));
}

#[test]
fn a_record_that_fails_is_not_overtaken_by_a_later_one_of_its_key() {
    let mut bed = bed(1);
    let keys = ["a", "b", "c"];
    for times in 1..6 {
        bed.kafka.trouble(EVENTS, times, Trouble::Refused);
        bed.kafka.trouble(EVENTS, times, Trouble::Unacknowledged);
    }
    fill(&bed, EVENTS, &keys, 30);
    bed.pass_until("all are sent", |bed| bed.depth() == 0);
    assert_complete_and_in_order(&bed, EVENTS, &keys, 30);
}

#[test]
fn a_topic_that_takes_nothing_holds_up_no_other() {
    let mut bed = bed(1);
    bed.kafka.trouble("stuck", u32::MAX, Trouble::Refused);
    fill(&bed, "stuck", &["a"], 5);
    fill(&bed, EVENTS, &["a"], 50);
    bed.pass_until("the others are sent", |bed| bed.depth() == 5);
    assert_complete_and_in_order(&bed, EVENTS, &["a"], 50);
}

#[test]
fn more_than_the_window_is_sent_too() {
    let mut bed = bed(1);
    fill(&bed, EVENTS, &["a", "b"], 1_500);
    bed.pass_until("all are sent", |bed| bed.depth() == 0);
    assert_complete_and_in_order(&bed, EVENTS, &["a", "b"], 1_500);
    assert_eq!(bed.kafka.sends(), 3_000);
}

#[test]
fn of_two_replicas_one_sends_and_the_other_takes_over_when_it_dies() {
    let mut bed = bed(2);
    fill(&bed, EVENTS, &["a"], 100);
    bed.pass_until("some are sent", |bed| bed.kafka.sends() > 10);
    let holder = || if bed_lease_is(&bed, "svc-1") { "svc-1" } else { "svc-2" };
    let holder = holder();
    bed.kill(holder);
    let sent = bed.kafka.sends();
    bed.pass_ms(1_000);
    assert_eq!(bed.kafka.sends(), sent, "the lease of the dead is not over");
    bed.pass_until("the other has sent the rest", |bed| bed.depth() == 0);
    assert_complete_and_in_order(&bed, EVENTS, &["a"], 100);
    assert!(bed.kafka.sends() <= 102, "each was sent once but for the one in flight");
    assert_eq!(bed.noted("relay: takes over from"), 1);
}

fn bed_lease_is(bed: &Bed, host: &str) -> bool {
    let lease = bed.committed(|tables| kit::ReadTables::get(tables, "kit.outbox.lease", &[]));
    lease.is_some_and(|lease| String::from_utf8_lossy(&lease).contains(host))
}

#[test]
fn a_relay_that_slept_through_its_lease_repeats_and_reorders_nothing_new() {
    let mut bed = bed(2);
    fill(&bed, EVENTS, &["a", "b", "c"], 300);
    bed.pass_until("some are sent", |bed| bed.kafka.sends() > 30);
    let host = if bed_lease_is(&bed, "svc-1") { "svc-1" } else { "svc-2" };
    bed.change(Change::Pause { host: host.into() });
    bed.pass_until("the other took over", |bed| bed.noted("relay: takes over from") == 1);
    bed.pass_ms(20);
    bed.change(Change::Resume { host: host.into() });
    bed.pass_until("all are sent", |bed| bed.depth() == 0);
    assert_complete_and_in_order(&bed, EVENTS, &["a", "b", "c"], 300);
}

#[test]
fn a_relay_that_gets_nothing_through_yields_to_one_that_waits() {
    let mut bed = bed(2);
    fill(&bed, EVENTS, &["a", "b"], 200);
    bed.pass_until("some are sent", |bed| bed.kafka.sends() > 30);
    let host = if bed_lease_is(&bed, "svc-1") { "svc-1" } else { "svc-2" };
    bed.kafka.cut_off(host, false);
    bed.pass(Duration::from_secs(8));
    assert_eq!(bed.depth(), 0, "the other has sent the rest:\n{}", bed.notes().join("\n"));
    assert_complete_and_in_order(&bed, EVENTS, &["a", "b"], 200);
    bed.kafka.cut_off(host, true);
    fill(&bed, EVENTS, &["c"], 10);
    bed.pass_until("what comes later is sent", |bed| bed.depth() == 0);
    assert_eq!(bed.noted("waits for the lease"), 1);
}

#[test]
fn a_relay_alone_does_not_give_up_its_lease() {
    let mut bed = bed(1);
    bed.kafka.cut_off("svc-1", false);
    fill(&bed, EVENTS, &["a"], 20);
    bed.pass(Duration::from_secs(60));
    bed.kafka.cut_off("svc-1", true);
    bed.pass(Duration::from_secs(3));
    assert_eq!(bed.depth(), 0, "it goes on at its next try");
    assert_complete_and_in_order(&bed, EVENTS, &["a"], 20);
    assert_eq!(bed.noted("relay: stopped"), 0);
}

#[test]
fn a_fenced_producer_is_replaced() {
    let mut bed = bed(1);
    bed.kafka.trouble(EVENTS, 1, Trouble::Fenced);
    fill(&bed, EVENTS, &["a", "b"], 20);
    bed.pass_until("all are sent", |bed| bed.depth() == 0);
    assert_complete_and_in_order(&bed, EVENTS, &["a", "b"], 20);
    assert_eq!(bed.noted("the producer is done"), 1);
}

#[test]
fn a_store_that_fails_holds_the_relay_up_and_no_longer() {
    let mut bed = bed(1);
    fill(&bed, EVENTS, &["a"], 20);
    bed.store.fail(5);
    bed.pass_until("all are sent", |bed| bed.depth() == 0);
    assert_complete_and_in_order(&bed, EVENTS, &["a"], 20);
    bed.pass(Duration::from_secs(60));
    assert!(bed.noted("relay") > 0, "it says what held it up");
}

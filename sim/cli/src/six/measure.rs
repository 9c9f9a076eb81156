//! How long sagas, orders and hops took, in the run's time.

use std::collections::BTreeMap;
use std::time::Duration;

use broker::TopicPartition;
use context::Timestamp;
use harness::system::Measurements;
use kit::saga::{Instance, Status};
use kit::{StoreError, StoreExt, inbox};
use proto::SagaId;
use reports::{Durations, Evidence, Hop, Sagas};

use super::archive::Shared;
use super::parts::Parts;

/// All sagas of a run, by id.
pub fn sagas(parts: &Parts) -> Vec<(SagaId, Instance)> {
    let all = parts.stores.order.read_with::<_, StoreError>(|tables| kit::saga::all(tables));
    all.expect("a store in memory can be read")
}

/// Everything that was measured.
pub fn all(parts: &Parts, archive: &Shared) -> Measurements {
    let sagas = sagas(parts);
    let count =
        |status: fn(Status) -> bool| sagas.iter().filter(|(_, saga)| status(saga.status)).count() as u64;
    Measurements {
        sagas: Sagas {
            started: sagas.len() as u64,
            completed: count(|status| status == Status::Completed),
            compensated: count(|status| status == Status::Compensated),
            stuck: count(|status| !status.is_terminal()),
        },
        saga_durations: sagas.iter().filter_map(|(_, saga)| duration(saga)).collect(),
        order_latencies: order_latencies(parts),
        hops: hops(parts, archive),
    }
}

/// Started to its terminal state.
fn duration(saga: &Instance) -> Option<Duration> {
    saga.ended_at_ms.map(|ended| Duration::from_millis(ended.saturating_sub(saga.started_at_ms)))
}

/// Placed by the customer, to the first notice that the mail provider took: what the customer waits for, with all that
/// an outage adds before Kafka has the order.
fn order_latencies(parts: &Parts) -> Durations {
    let mut told = BTreeMap::<String, Timestamp>::new();
    for notice in parts.mail.ledger().notices() {
        told.entry(notice.order_id.clone()).or_insert(notice.at);
    }
    let placed = parts.desk.placed();
    let spans = placed.iter().filter_map(|(order, at)| Some((*at, *told.get(order.as_str())?)));
    let latency = |(placed, told): (Timestamp, Timestamp)| {
        assert!(told >= placed, "nobody is told of an order before it is placed");
        told.since(placed)
    };
    spans.map(latency).collect()
}

/// From the moment a record was made to the moment its handler had committed, by topic and handler.
fn hops(parts: &Parts, archive: &Shared) -> Vec<Hop> {
    let archive = archive.lock();
    let mut hops = BTreeMap::<String, Vec<Duration>>::new();
    for (_, store) in parts.stores.all() {
        let entries = store.read_with::<_, StoreError>(|tables| inbox::all(tables));
        for ((group, _), entry) in entries.expect("a store in memory can be read") {
            let partition = TopicPartition::new(entry.topic.as_str(), entry.partition);
            let Some(record) = archive.at(&partition, entry.offset) else { continue };
            let handled = Timestamp::from_millis(entry.at_ms);
            let hop = hops.entry(format!("{} > {group}", entry.topic)).or_default();
            hop.push(handled.since(record.timestamp));
        }
    }
    hops.into_iter().map(|(name, spans)| Hop { name, latencies: spans.into_iter().collect() }).collect()
}

/// What is not at its end: sagas, orders that nobody took, calls, rows that wait.
pub fn unfinished(parts: &Parts) -> Vec<Evidence> {
    let mut evidence = Vec::new();
    let accepted = parts.desk.accepted();
    for planned in parts.plan.orders.iter().filter(|planned| !accepted.contains_key(&planned.id)) {
        evidence.push(found(format!("order {} was not acknowledged to its customer", planned.id)));
    }
    let sagas = sagas(parts);
    for (id, saga) in sagas.iter().filter(|(_, saga)| !saga.status.is_terminal()) {
        let started = Timestamp::from_millis(saga.started_at_ms).since(parts.began);
        evidence.push(Evidence { at: Some(started), ..found(format!("{id} started: {saga}")) });
    }
    for (order, at) in accepted.iter() {
        if !sagas.iter().any(|(_, saga)| saga.key == order.as_str()) {
            let at = Some(at.since(parts.began));
            evidence.push(Evidence { at, ..found(format!("order {order} was placed, and has no saga")) });
        }
    }
    evidence
}

fn found(what: String) -> Evidence {
    Evidence { at: None, event: None, place: None, what }
}

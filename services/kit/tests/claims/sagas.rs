//! A saga in a service: what its crash, its replicas and its deadlines do to it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kit::saga::{self, Answer, Cause, Definition, Kind, Logic, Reply, Saga, Sagas, Status};
use kit::{Handler, HandlerError, Message, Outgoing, Prepared, ServiceConfig, Subscription, Unit};
use proto::inventory::{ReleaseStock, ReserveStock, StockReleased, StockReserved};
use proto::order::{CancelOrder, OrderCancelled, OrderConfirmed};
use proto::payment::{ChargePayment, PaymentCaptured};
use proto::{Contract, MessageId, SagaId, topics};

use crate::bed::{Bed, send_cancel};

/// Reserves, then charges; a `CancelOrder` begins it, for want of fields to fill.
struct Buying(Definition);

impl Buying {
    fn new() -> Buying {
        let patience = Duration::from_secs(5);
        let steps = Definition::new("buying");
        Buying(steps.step("reserve", Kind::Compensatable, patience).step("charge", Kind::Pivot, patience))
    }
}

impl Logic for Buying {
    fn definition(&self) -> &Definition {
        &self.0
    }

    fn command(&self, unit: &mut Unit<'_>, saga: &Saga<'_>, step: &str) -> Result<Answer, HandlerError> {
        let order_id = saga.state.key.clone();
        match step {
            "reserve" => {
                unit.publish_for(saga.id, step, &ReserveStock { order_id, ..ReserveStock::default() })?
            }
            _ => unit.publish_for(saga.id, step, &ChargePayment { order_id, ..ChargePayment::default() })?,
        };
        Ok(Answer::Later)
    }

    fn compensate(&self, unit: &mut Unit<'_>, saga: &Saga<'_>, step: &str) -> Result<Answer, HandlerError> {
        let order_id = saga.state.key.clone();
        unit.publish_for(saga.id, step, &ReleaseStock { order_id, ..ReleaseStock::default() })?;
        Ok(Answer::Later)
    }

    fn ended(&self, unit: &mut Unit<'_>, saga: &Saga<'_>) -> Result<(), HandlerError> {
        let order_id = saga.state.key.clone();
        if saga.state.status == Status::Completed {
            unit.publish(&OrderConfirmed { order_id, ..OrderConfirmed::default() })?;
        } else {
            unit.publish(&OrderCancelled { order_id, ..OrderCancelled::default() })?;
        }
        Ok(())
    }
}

struct Orders(Arc<Sagas<Buying>>);

#[async_trait]
impl Handler for Orders {
    fn apply(&self, unit: &mut Unit<'_>, message: &Message, _: Prepared) -> Result<(), HandlerError> {
        match message.kind.as_str() {
            CancelOrder::KIND => {
                let id = SagaId::new(format!("saga-{}", message.key))?;
                self.0.start(unit, &id, &message.key).map(drop)
            }
            StockReleased::KIND => self.0.reply(unit, message, Reply::Compensated),
            _ => self.0.reply(unit, message, Reply::Succeeded),
        }
    }
}

fn bed(replicas: usize) -> Bed {
    Bed::new(replicas, ServiceConfig::default(), |_, service| {
        let sagas = Sagas::new(Buying::new());
        let replies = [topics::ORDER_COMMANDS, topics::INVENTORY_EVENTS, topics::PAYMENT_EVENTS];
        service.subscribe(Subscription::new("svc", replies, Orders(sagas.clone()))).timer(sagas)
    })
}

/// A participant's answer, with the headers that the kit carries over.
fn answer<M: Contract>(bed: &Bed, step: &str, name: &str, message: &M) {
    let saga = SagaId::new(format!("saga-{}", message.order_id().unwrap())).unwrap();
    let id = MessageId::derived(name);
    bed.kafka.append(Outgoing::of(message).for_step(saga, step).into_record(id, id, None, bed.now()));
}

fn reserved(bed: &Bed) {
    answer(bed, "reserve", "reserved", &StockReserved { order_id: "o-1".into(), ..StockReserved::default() });
}

fn kinds(bed: &Bed, topic: &str) -> Vec<String> {
    let kind = |record| Message::parse(&record).unwrap().kind;
    bed.kafka.records(topic).into_iter().map(kind).collect()
}

fn state(bed: &Bed) -> Option<saga::Instance> {
    bed.committed(|tables| saga::get(tables, &SagaId::new("saga-o-1").unwrap()))
}

fn begin(bed: &mut Bed) {
    send_cancel(&bed.kafka, "o-1", "begin");
    bed.pass_until("the command is out", |bed| kinds(bed, topics::INVENTORY_COMMANDS).len() == 1);
}

#[test]
fn a_crashed_orchestrator_goes_on_where_it_was() {
    let mut bed = bed(1);
    begin(&mut bed);
    bed.kill("svc-1");
    reserved(&bed);
    bed.pass_ms(1_000);
    bed.restart("svc-1");
    bed.pass_until("the next command is out", |bed| !kinds(bed, topics::PAYMENT_COMMANDS).is_empty());
    bed.kill("svc-1");
    bed.restart("svc-1");
    answer(
        &bed,
        "charge",
        "captured",
        &PaymentCaptured { order_id: "o-1".into(), ..PaymentCaptured::default() },
    );
    bed.pass_until("it has ended", |bed| kinds(bed, topics::ORDER_EVENTS).contains(&"OrderConfirmed".into()));
    assert_eq!(state(&bed).unwrap().status, Status::Completed);
    assert_eq!(bed.committed(|tables| saga::open(tables)), 0);
}

#[test]
fn what_follows_from_a_request_carries_its_correlation_saga_and_step() {
    let mut bed = bed(1);
    begin(&mut bed);
    let command = Message::parse(&bed.kafka.records(topics::INVENTORY_COMMANDS)[0]).unwrap();
    let request = MessageId::derived("o-1 begin");
    assert_eq!(command.correlation_id, request);
    assert_eq!(command.causation_id, Some(request));
    assert_eq!(command.saga_id, Some(SagaId::new("saga-o-1").unwrap()));
    assert_eq!(command.step.as_deref(), Some("reserve"));
    // A timer's messages belong to the same request.
    bed.pass_until("it is undone", |bed| kinds(bed, topics::INVENTORY_COMMANDS).len() == 2);
    let records = bed.kafka.records(topics::INVENTORY_COMMANDS);
    assert_eq!(Message::parse(&records[1]).unwrap().correlation_id, request);
}

#[test]
fn a_deadline_survives_a_crash_and_fires_once_though_two_replicas_wait() {
    let mut bed = bed(2);
    begin(&mut bed);
    bed.kill("svc-1");
    bed.kill("svc-2");
    bed.pass(Duration::from_secs(20));
    bed.restart("svc-1");
    bed.restart("svc-2");
    bed.pass_until("it is being undone", |bed| state(bed).unwrap().status == Status::Backward(0));
    bed.pass(Duration::from_secs(2));
    assert_eq!(kinds(&bed, topics::INVENTORY_COMMANDS), ["ReserveStock", "ReleaseStock"]);
    assert_eq!(state(&bed).unwrap().reason.unwrap().cause, Cause::TimedOut);
}

#[test]
fn a_late_answer_after_a_timeout_changes_nothing_and_the_compensation_is_repeated_until_it_is_answered() {
    let mut bed = bed(1);
    begin(&mut bed);
    bed.pass_until("it has turned round", |bed| state(bed).unwrap().status == Status::Backward(0));
    reserved(&bed);
    bed.pass(Duration::from_secs(11));
    let commands = kinds(&bed, topics::INVENTORY_COMMANDS);
    assert_eq!(commands, ["ReserveStock", "ReleaseStock", "ReleaseStock", "ReleaseStock"]);
    let ids: std::collections::BTreeSet<_> = bed
        .kafka
        .records(topics::INVENTORY_COMMANDS)
        .iter()
        .map(|record| Message::parse(record).unwrap().id)
        .collect();
    assert_eq!(ids.len(), 4, "a repetition is a new message, or the participant's inbox would skip it");
    assert_eq!(kinds(&bed, topics::PAYMENT_COMMANDS).len(), 0, "the late answer did not move it on");
    answer(
        &bed,
        "reserve",
        "released",
        &StockReleased { order_id: "o-1".into(), ..StockReleased::default() },
    );
    bed.pass_until("it has ended", |bed| state(bed).unwrap().status == Status::Compensated);
    bed.pass(Duration::from_secs(60));
    assert_eq!(kinds(&bed, topics::INVENTORY_COMMANDS).len(), 4, "after its end nothing is said");
    assert_eq!(kinds(&bed, topics::ORDER_EVENTS), ["OrderCancelled"]);
}

#[test]
fn a_repeated_begin_and_an_answer_to_nobody_are_harmless() {
    let mut bed = bed(1);
    begin(&mut bed);
    send_cancel(&bed.kafka, "o-1", "begin again");
    answer(
        &bed,
        "reserve",
        "stranger",
        &StockReserved { order_id: "o-9".into(), ..StockReserved::default() },
    );
    bed.pass_until("both are read", |bed| {
        bed.kafka.lag("svc", topics::ORDER_COMMANDS) == 0
            && bed.kafka.lag("svc", topics::INVENTORY_EVENTS) == 0
    });
    assert_eq!(kinds(&bed, topics::INVENTORY_COMMANDS).len(), 1);
    assert_eq!(bed.noted("saga saga-o-9: unknown"), 1);
}

//! The order's saga: what each step asks of whom, and how it is taken back.
//!
//! Inventory first, so that no money moves for goods that are not there. The kit keeps the mechanics
//! ([`kit::saga`]: deadlines, compensation in reverse, repetition); this is the order's part of it:
//!
//! | step | asks | is undone by |
//! |---|---|---|
//! | accept | the order itself | cancelling it and telling the customer |
//! | reserve | inventory to set the goods aside | a release |
//! | charge | payment to capture the total | a refund |
//! | ship | shipping to book a carrier | calling the carrier off |
//! | commit | inventory to let the goods go | the release of the reservation, which takes back what was committed |
//! | confirm | the order itself: from here on it only goes forward | |
//! | notify | notification to tell the customer | |
//!
//! A step without an answer in its time is undone too, since it may have happened, or may yet: participants remember
//! the undo of something they never saw and refuse it when it comes. A reservation that expires by itself is not acted
//! upon here: its commit will be refused.

use std::time::Duration;

use kit::saga::{Answer, Cause, Definition, Kind, Logic, Reason, Saga};
use kit::{HandlerError, Unit};
use proto::inventory::{CommitStock, Line, ReleaseStock, ReserveStock};
use proto::notification::{NoticeKind, NotifyCustomer};
use proto::order::{CancelReason, Event, OrderCreated, OrderStatus};
use proto::payment::{ChargePayment, RefundPayment};
use proto::shipping::{CancelShipment, ScheduleShipment};
use proto::{OrderId, PaymentId, ShipmentId};

use crate::aggregate::Order;
use crate::config::{Config, Defect};
use crate::history;

/// The order is taken.
pub const ACCEPT: &str = "accept";
/// Inventory sets the goods aside.
pub const RESERVE: &str = "reserve";
/// Payment captures the total.
pub const CHARGE: &str = "charge";
/// Shipping books a carrier.
pub const SHIP: &str = "ship";
/// Inventory lets the goods go.
pub const COMMIT: &str = "commit";
/// The order is confirmed.
pub const CONFIRM: &str = "confirm";
/// The customer is told.
pub const NOTIFY: &str = "notify";

/// How long the saga waits for an answer: to a step, and to its undo before that is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Of inventory.
    pub inventory: Duration,
    /// Of payment.
    pub payment: Duration,
    /// Of shipping.
    pub shipping: Duration,
    /// Of notification; then the notice is asked for again.
    pub notification: Duration,
}

impl Default for Timing {
    /// 30 s each.
    fn default() -> Timing {
        Timing::all(Duration::from_secs(30))
    }
}

impl Timing {
    /// The same for each participant.
    pub fn all(wait: Duration) -> Timing {
        Timing { inventory: wait, payment: wait, shipping: wait, notification: wait }
    }
}

/// The steps of an order whose stock is held before money moves.
pub fn inventory_first(timing: &Timing) -> Definition {
    Definition::new("inventory first")
        .step(ACCEPT, Kind::Compensatable, timing.notification)
        .step(RESERVE, Kind::Compensatable, timing.inventory)
        .step(CHARGE, Kind::Compensatable, timing.payment)
        .step(SHIP, Kind::Compensatable, timing.shipping)
        .step(COMMIT, Kind::Compensatable, timing.inventory)
        // Answers at once, in the transaction that takes the answer to the commit: it has no time to run out.
        .step(CONFIRM, Kind::Pivot, timing.notification)
        .step(NOTIFY, Kind::Retriable, timing.notification)
}

/// What the steps mean for an order.
#[derive(Clone, Debug)]
pub struct OrderSaga {
    definition: Definition,
    config: Config,
}

impl OrderSaga {
    /// With these settings.
    pub fn new(config: Config) -> OrderSaga {
        OrderSaga { definition: inventory_first(&config.timing), config }
    }

    /// Asks a participant, or the order itself, to do a step.
    fn ask(&self, work: &mut Work<'_, '_>, step: &str) -> Result<Answer, HandlerError> {
        let placed = work.order.placed().clone();
        let order_id = placed.order_id.clone();
        match step {
            // The saga starts with an order that was accepted.
            ACCEPT => return Ok(Answer::Done),
            RESERVE => {
                let expires_at_ms = (work.unit.now() + self.config.reservation).as_millis();
                work.publish(step, &ReserveStock { order_id, lines: lines(&placed), expires_at_ms })?;
            }
            CHARGE => {
                work.advance(OrderStatus::Reserved)?;
                let charge = ChargePayment {
                    order_id,
                    payment_id: PaymentId::of(&work.id).into(),
                    amount: placed.total,
                    currency: placed.currency,
                    payment_method: placed.payment_method,
                };
                work.publish(step, &charge)?;
            }
            SHIP => {
                work.advance(OrderStatus::Paid)?;
                let shipment_id = ShipmentId::of(&work.id).into();
                let (address, items) = (placed.address, placed.items);
                work.publish(step, &ScheduleShipment { order_id, shipment_id, address, items })?;
            }
            COMMIT => {
                work.advance(OrderStatus::Shipping)?;
                work.publish(step, &CommitStock { order_id })?;
            }
            CONFIRM => {
                let confirmed = work.order.confirm(work.unit.now());
                work.append(confirmed)?;
                return Ok(Answer::Done);
            }
            NOTIFY => work.notify(step, NoticeKind::Confirmed)?,
            _ => unreachable!("the saga of an order has no step `{step}`"),
        }
        Ok(Answer::Later)
    }

    /// Has a step undone. Repeated until it is acknowledged.
    fn undo(&self, work: &mut Work<'_, '_>, step: &str, reason: &Reason) -> Result<Answer, HandlerError> {
        let order_id = work.order.placed().order_id.clone();
        if step == ACCEPT {
            // Everything else is undone: now the order is cancelled.
            if !work.order.is_ended() {
                let cancelled =
                    work.order.cancel(work.unit.now(), cancel_reason(reason), reason.detail.clone());
                work.append(cancelled)?;
            }
            work.notify(step, NoticeKind::Cancelled)?;
            return Ok(Answer::Later);
        }
        if work.order.status() != OrderStatus::Cancelling {
            work.advance(OrderStatus::Cancelling)?;
        }
        if self.config.has(Defect::NoCompensation) {
            return Ok(Answer::Done);
        }
        let why = format!("the order is cancelled: {}", reason.detail);
        match step {
            RESERVE => work.publish(step, &ReleaseStock { order_id, reason: why })?,
            CHARGE => {
                let payment_id = PaymentId::of(&work.id).into();
                work.publish(step, &RefundPayment { order_id, payment_id, reason: why })?;
            }
            SHIP => {
                let shipment_id = ShipmentId::of(&work.id).into();
                work.publish(step, &CancelShipment { order_id, shipment_id, reason: why })?;
            }
            // The release of the reservation takes it back.
            COMMIT => return Ok(Answer::Done),
            _ => unreachable!("the step `{step}` of an order's saga is never undone"),
        }
        Ok(Answer::Later)
    }
}

impl Logic for OrderSaga {
    fn definition(&self) -> &Definition {
        &self.definition
    }

    fn command(&self, unit: &mut Unit<'_>, saga: &Saga<'_>, step: &str) -> Result<Answer, HandlerError> {
        self.ask(&mut Work::load(unit, saga, &self.config)?, step)
    }

    fn compensate(&self, unit: &mut Unit<'_>, saga: &Saga<'_>, step: &str) -> Result<Answer, HandlerError> {
        let reason = saga.state.reason.as_ref().expect("a saga that goes back knows why");
        self.undo(&mut Work::load(unit, saga, &self.config)?, step, reason)
    }

    fn ended(&self, unit: &mut Unit<'_>, saga: &Saga<'_>) -> Result<(), HandlerError> {
        let work = Work::load(unit, saga, &self.config)?;
        assert!(work.order.is_ended(), "the saga of {} ended before its order", work.id);
        Ok(())
    }
}

/// One order within one transaction.
struct Work<'u, 't> {
    unit: &'u mut Unit<'t>,
    saga: &'u Saga<'u>,
    id: OrderId,
    order: Order,
    snapshot_every: u64,
}

impl<'u, 't> Work<'u, 't> {
    fn load(unit: &'u mut Unit<'t>, saga: &'u Saga<'u>, config: &Config) -> Result<Self, HandlerError> {
        let id = OrderId::new(&saga.state.key)?;
        let order = history::load(unit.tables(), &id)?;
        Ok(Work { unit, saga, id, order, snapshot_every: config.snapshot_every })
    }

    fn publish<M: proto::Contract>(&mut self, step: &str, message: &M) -> Result<(), HandlerError> {
        self.unit.publish_for(self.saga.id, step, message)?;
        Ok(())
    }

    fn notify(&mut self, step: &str, kind: NoticeKind) -> Result<(), HandlerError> {
        let placed = self.order.placed();
        let became = if kind == NoticeKind::Confirmed { "is on its way" } else { "was cancelled" };
        let notify = NotifyCustomer {
            order_id: placed.order_id.clone(),
            customer_id: placed.customer_id.clone(),
            kind: kind.into(),
            text: format!("Your order {} {became}.", placed.order_id),
        };
        self.publish(step, &notify)
    }

    fn advance(&mut self, status: OrderStatus) -> Result<(), HandlerError> {
        let event = self.order.advance(self.unit.now(), status);
        self.append(event)
    }

    fn append(&mut self, event: Event) -> Result<(), HandlerError> {
        history::record(self.unit, &self.id, &mut self.order, event, self.snapshot_every)
    }
}

/// Why the order is cancelled, from what turned its saga round.
fn cancel_reason(reason: &Reason) -> CancelReason {
    match (reason.cause, reason.step.as_str()) {
        (Cause::Cancelled, _) => CancelReason::Customer,
        (Cause::TimedOut, _) => CancelReason::StepTimedOut,
        (Cause::Refused, CHARGE) => CancelReason::PaymentDeclined,
        (Cause::Refused, SHIP) => CancelReason::ShipmentRefused,
        (Cause::Refused, _) => CancelReason::OutOfStock,
    }
}

/// How many of each SKU: an order may name one twice.
fn lines(placed: &OrderCreated) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for item in &placed.items {
        match lines.iter_mut().find(|line| line.sku == item.sku) {
            Some(line) => line.quantity = line.quantity.saturating_add(item.quantity),
            None => lines.push(Line { sku: item.sku.clone(), quantity: item.quantity }),
        }
    }
    lines
}

//! The saga and the aggregate at work: messages in, messages out, one transaction for each.
//!
//! [`Orders`] is a handler of the kit: commands to orders and the participants' answers come in, and what the cores
//! decide (events of the order, the saga's next state and deadline, commands to participants) commits with the inbox.
//! Deadlines lie in a table; every replica watches it ([`watch_deadlines`]), and whoever comes first acts.
//!
//! What a cancellation does depends on how far the order is: before the answer to the commit of its stock it is
//! compensated, from then on it is refused with `OrderCancelRefused`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use context::{Context, Timestamp};
use kit::store::{Json, StoreExt, Table, Tables};
use kit::{Handler, HandlerError, Message, Prepared, Store, Unit};
use proto::inventory::{CommitStock, Line, ReleaseStock, ReserveStock};
use proto::notification::{NoticeKind, NotifyCustomer};
use proto::order::{
    CancelOrder, CreateOrder, Event, OrderCancelRefused, OrderCreated, OrderRejected, OrderStatus,
};
use proto::payment::{ChargePayment, RefundPayment};
use proto::shipping::{CancelShipment, ScheduleShipment};
use proto::{
    MessageId, OrderId, PaymentId, SagaId, ShipmentId, inventory, notification, order, payment, shipping,
};
use serde::{Deserialize, Serialize};

use crate::aggregate::{Order, Refusal};
use crate::config::{Config, Defect};
use crate::history::{self, AppendError};
use crate::saga::{INVENTORY_FIRST, Input, Outcome, Output, Saga, State, Step};

/// The sagas, by their orders.
pub const SAGAS: Table<OrderId, StoredSaga, Json> = Table::new("order.sagas");
/// When sagas act by themselves: Unix milliseconds and order.
pub const DEADLINES: Table<(u64, OrderId), (), Json> = Table::new("order.deadlines");

/// A saga as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSaga {
    /// The core's state.
    pub saga: Saga,
    /// The request that started it: goes on with every message that a timer sends.
    pub correlation_id: String,
}

/// Handles commands to orders and the answers of participants.
#[derive(Clone, Debug)]
pub struct Orders {
    config: Config,
}

impl Orders {
    /// With these settings.
    pub fn new(config: Config) -> Orders {
        Orders { config }
    }

    /// Takes an order: its first event, its saga, its first command.
    fn create(&self, unit: &mut Unit<'_>, id: &OrderId, message: &Message, command: CreateOrder) -> Done {
        let mut order = history::load(unit.tables(), id)?;
        let created = match order.accept(unit.now(), command) {
            Ok(Some(created)) => created,
            Ok(None) => {
                unit.note(format_args!("order {id} was placed again: it stays as it is"));
                return Ok(());
            }
            Err(refusal) => return self.reject(unit, id, &refusal),
        };
        self.append(unit, id, &mut order, created)?;
        let mut out = Vec::new();
        let saga = Saga::start(&INVENTORY_FIRST, &self.config.timing, unit.now(), &mut out);
        let correlation_id = message.correlation_id.to_string();
        self.keep(unit, id, None, StoredSaga { saga, correlation_id })?;
        self.carry_out(unit, id, &mut order, out)
    }

    fn reject(&self, unit: &mut Unit<'_>, id: &OrderId, refusal: &Refusal) -> Done {
        unit.note(format_args!("order {id} is rejected: {refusal}"));
        let rejected = OrderRejected {
            order_id: id.as_str().to_owned(),
            reason: refusal.to_string(),
            rejected_at_ms: unit.now().as_millis(),
        };
        unit.publish(&rejected)?;
        Ok(())
    }

    /// Gives an order up, if that is still possible.
    fn cancel(&self, unit: &mut Unit<'_>, id: &OrderId, command: CancelOrder) -> Done {
        let order = history::load(unit.tables(), id)?;
        match order.may_cancel() {
            Ok(()) => self.advance(unit, id, Input::CancelRequested(command.reason)),
            Err(refusal) => {
                unit.note(format_args!("order {id} is not cancelled: {refusal}"));
                let refused = OrderCancelRefused {
                    order_id: id.as_str().to_owned(),
                    reason: refusal.to_string(),
                    refused_at_ms: unit.now().as_millis(),
                };
                unit.publish(&refused)?;
                Ok(())
            }
        }
    }

    /// Lets the saga of an order take one input.
    fn advance(&self, unit: &mut Unit<'_>, id: &OrderId, input: Input) -> Done {
        let Some(before) = SAGAS.get(unit.tables(), id)? else {
            return Err(HandlerError::Business(format!("order `{id}` has no saga to take {input:?}")));
        };
        let mut stored = before.clone();
        let mut out = Vec::new();
        stored.saga.handle(&INVENTORY_FIRST, &self.config.timing, unit.now(), input.clone(), &mut out);
        if self.config.has(Defect::NoCompensation) {
            forget_to_undo(&mut stored.saga, &mut out);
        }
        match out.as_slice() {
            [] => return Ok(()),
            [Output::Stray] => {
                unit.note(format_args!("saga of {id} {}: {input:?} changes nothing", stored.saga.state));
                return Ok(());
            }
            _ => unit.note(format_args!("saga of {id} {}, after {input:?}", stored.saga.state)),
        }
        self.keep(unit, id, before.saga.deadline_ms, stored)?;
        let mut order = history::load(unit.tables(), id)?;
        self.carry_out(unit, id, &mut order, out)
    }

    /// Stores a saga and its deadline, in place of the deadline it had.
    fn keep(&self, unit: &mut Unit<'_>, id: &OrderId, had: Option<u64>, stored: StoredSaga) -> Done {
        if let Some(had) = had {
            DEADLINES.delete(unit.tables(), &(had, id.clone()))?;
        }
        if let Some(deadline) = stored.saga.deadline_ms {
            DEADLINES.put(unit.tables(), &(deadline, id.clone()), &())?;
        }
        SAGAS.put(unit.tables(), id, &stored)?;
        Ok(())
    }

    /// Does what the saga wants done.
    fn carry_out(&self, unit: &mut Unit<'_>, id: &OrderId, order: &mut Order, out: Vec<Output>) -> Done {
        for output in out {
            match output {
                Output::Do(step) => self.ask(unit, id, order, step)?,
                Output::Undo(step, _) => self.undo(unit, id, order, step)?,
                Output::Notify(outcome, _) => self.notify(unit, id, order, outcome)?,
                Output::Passed(step) => {
                    let event = order.advance(unit.now(), status_after(step));
                    self.append(unit, id, order, event)?;
                }
                Output::TurnedBack => {
                    let event = order.advance(unit.now(), OrderStatus::Cancelling);
                    self.append(unit, id, order, event)?;
                }
                Output::Confirm => {
                    let event = order.confirm(unit.now());
                    self.append(unit, id, order, event)?;
                }
                Output::Cancel(reason, detail) => {
                    let event = order.cancel(unit.now(), reason, detail);
                    self.append(unit, id, order, event)?;
                }
                // The saga's own state says it.
                Output::End(_) | Output::Stray => {}
            }
        }
        Ok(())
    }

    /// Appends an event to the order and tells the world.
    fn append(&self, unit: &mut Unit<'_>, id: &OrderId, order: &mut Order, event: Event) -> Done {
        let expected = order.version;
        let events = std::slice::from_ref(&event);
        history::append(unit.tables(), id, expected, order, events, self.config.snapshot_every)?;
        match event {
            Event::OrderCreated(event) => unit.publish(&event)?,
            Event::OrderStatusChanged(event) => unit.publish(&event)?,
            Event::OrderConfirmed(event) => unit.publish(&event)?,
            Event::OrderCancelled(event) => unit.publish(&event)?,
            Event::OrderRejected(event) => unit.publish(&event)?,
            Event::OrderCancelRefused(event) => unit.publish(&event)?,
        };
        Ok(())
    }

    fn ask(&self, unit: &mut Unit<'_>, id: &OrderId, order: &Order, step: Step) -> Done {
        let placed = order.placed();
        let (saga, name, order_id) = (SagaId::of(id), step.to_string(), placed.order_id.clone());
        match step {
            Step::Reserve => {
                let expires_at = unit.now() + self.config.reservation;
                let lines = lines(placed);
                let command = ReserveStock { order_id, lines, expires_at_ms: expires_at.as_millis() };
                unit.publish_for(&saga, &name, &command)?;
            }
            Step::Charge => {
                let command = ChargePayment {
                    order_id,
                    payment_id: PaymentId::of(id).into(),
                    amount: placed.total,
                    currency: placed.currency.clone(),
                    payment_method: placed.payment_method.clone(),
                };
                unit.publish_for(&saga, &name, &command)?;
            }
            Step::Ship => {
                let command = ScheduleShipment {
                    order_id,
                    shipment_id: ShipmentId::of(id).into(),
                    address: placed.address.clone(),
                    items: placed.items.clone(),
                };
                unit.publish_for(&saga, &name, &command)?;
            }
            Step::Commit => {
                unit.publish_for(&saga, &name, &CommitStock { order_id })?;
            }
        }
        Ok(())
    }

    fn undo(&self, unit: &mut Unit<'_>, id: &OrderId, order: &Order, step: Step) -> Done {
        let (saga, name, order_id) =
            (SagaId::of(id), format!("undo-{step}"), order.placed().order_id.clone());
        let reason = "the order is cancelled".to_owned();
        match step {
            Step::Reserve => {
                unit.publish_for(&saga, &name, &ReleaseStock { order_id, reason })?;
            }
            Step::Charge => {
                let payment_id = PaymentId::of(id).into();
                unit.publish_for(&saga, &name, &RefundPayment { order_id, payment_id, reason })?;
            }
            Step::Ship => {
                let shipment_id = ShipmentId::of(id).into();
                unit.publish_for(&saga, &name, &CancelShipment { order_id, shipment_id, reason })?;
            }
            Step::Commit => unreachable!("a commit has no undo of its own"),
        }
        Ok(())
    }

    fn notify(&self, unit: &mut Unit<'_>, id: &OrderId, order: &Order, outcome: Outcome) -> Done {
        let placed = order.placed();
        let (kind, text) = match outcome {
            Outcome::Confirmed => (NoticeKind::Confirmed, format!("Your order {id} is on its way.")),
            Outcome::Cancelled => (NoticeKind::Cancelled, format!("Your order {id} was cancelled.")),
        };
        let command = NotifyCustomer {
            order_id: placed.order_id.clone(),
            customer_id: placed.customer_id.clone(),
            kind: kind.into(),
            text,
        };
        unit.publish_for(&SagaId::of(id), "notify", &command)?;
        Ok(())
    }
}

type Done = Result<(), HandlerError>;

#[async_trait]
impl Handler for Orders {
    fn apply(&self, unit: &mut Unit<'_>, message: &Message, _prepared: Prepared) -> Result<(), HandlerError> {
        let (kind, payload) = (message.kind.as_str(), message.payload.as_ref());
        match message.topic() {
            order::Command::TOPIC => {
                let command = order::Command::decode(kind, payload)?;
                let id = command.order_id()?;
                match command {
                    order::Command::CreateOrder(command) => self.create(unit, &id, message, command),
                    order::Command::CancelOrder(command) => self.cancel(unit, &id, command),
                }
            }
            inventory::Event::TOPIC => {
                let event = inventory::Event::decode(kind, payload)?;
                self.advance(unit, &event.order_id()?, said_by_inventory(event))
            }
            payment::Event::TOPIC => {
                let event = payment::Event::decode(kind, payload)?;
                self.advance(unit, &event.order_id()?, said_by_payment(event))
            }
            shipping::Event::TOPIC => {
                let event = shipping::Event::decode(kind, payload)?;
                self.advance(unit, &event.order_id()?, said_by_shipping(event))
            }
            notification::Event::TOPIC => {
                let notification::Event::CustomerNotified(notified) =
                    notification::Event::decode(kind, payload)?;
                let outcome = match notified.kind() {
                    NoticeKind::Confirmed => Outcome::Confirmed,
                    NoticeKind::Cancelled => Outcome::Cancelled,
                    NoticeKind::Unspecified => {
                        return Err(HandlerError::Parse("the notice is of no kind".into()));
                    }
                };
                self.advance(unit, &OrderId::new(&notified.order_id)?, Input::Notified(outcome))
            }
            other => Err(HandlerError::Parse(format!("order reads nothing from `{other}`"))),
        }
    }
}

fn said_by_inventory(event: inventory::Event) -> Input {
    match event {
        inventory::Event::StockReserved(_) => Input::Done(Step::Reserve),
        inventory::Event::ReservationRefused(refused) => Input::Refused(Step::Reserve, refused.reason),
        inventory::Event::StockCommitted(_) => Input::Done(Step::Commit),
        inventory::Event::CommitRefused(refused) => Input::Refused(Step::Commit, refused.reason),
        inventory::Event::StockReleased(released) if released.expired => Input::Expired,
        inventory::Event::StockReleased(_) => Input::Undone(Step::Reserve),
    }
}

fn said_by_payment(event: payment::Event) -> Input {
    match event {
        payment::Event::PaymentCaptured(_) => Input::Done(Step::Charge),
        payment::Event::PaymentDeclined(declined) => Input::Refused(Step::Charge, declined.reason),
        payment::Event::PaymentRefunded(_) => Input::Undone(Step::Charge),
    }
}

fn said_by_shipping(event: shipping::Event) -> Input {
    match event {
        shipping::Event::ShipmentScheduled(_) => Input::Done(Step::Ship),
        shipping::Event::ShipmentRefused(refused) => Input::Refused(Step::Ship, refused.reason),
        shipping::Event::ShipmentCancelled(_) => Input::Undone(Step::Ship),
    }
}

/// How far an order is whose step was answered. The commit's answer confirms the order, which is an event of its own.
fn status_after(step: Step) -> OrderStatus {
    match step {
        Step::Reserve => OrderStatus::Reserved,
        Step::Charge => OrderStatus::Paid,
        Step::Ship | Step::Commit => OrderStatus::Shipping,
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

/// The defect [`Defect::NoCompensation`]: the order is cancelled, and nobody is told to undo anything.
fn forget_to_undo(saga: &mut Saga, out: &mut Vec<Output>) {
    if let (State::Undoing(_), Some((reason, why))) = (saga.state, saga.turned_back.clone()) {
        let reason = reason.try_into().unwrap_or_default();
        saga.state = State::Notifying(Outcome::Cancelled);
        out.retain(|output| !matches!(output, Output::Undo(..)));
        out.extend([Output::Cancel(reason, why), Output::Notify(Outcome::Cancelled, 1)]);
    }
}

/// Wakes sagas whose deadline has come, until the host stops. All replicas watch one store; a saga that another has
/// woken has a new deadline, and takes no notice.
pub async fn watch_deadlines(context: Context, store: Arc<dyn Store>, orders: Orders) {
    let changed = store.changed();
    loop {
        let notified = changed.notified();
        tokio::pin!(notified);
        // Before the look into the store: a commit in between must not be missed.
        notified.as_mut().enable();
        match wake_one(&context, store.as_ref(), &orders) {
            Ok(Next::Again) => {}
            Ok(Next::At(deadline)) => {
                tokio::select! {
                    biased;
                    () = notified => {}
                    () = context.sleep_until(deadline) => {}
                }
            }
            Ok(Next::WhenChanged) => notified.await,
            Err(error) => {
                context.note(format_args!("sagas cannot be woken, again in 1 s: {error}"));
                context.sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// When to look for deadlines next.
enum Next {
    Again,
    At(Timestamp),
    WhenChanged,
}

/// Wakes the saga with the earliest deadline, if that has come.
fn wake_one(context: &Context, store: &dyn Store, orders: &Orders) -> Result<Next, HandlerError> {
    let Some(((deadline_ms, id), ())) = store.read_with(|tables| DEADLINES.first(tables))? else {
        return Ok(Next::WhenChanged);
    };
    let deadline = Timestamp::from_millis(deadline_ms);
    if context.now() < deadline {
        return Ok(Next::At(deadline));
    }
    store.transact_with(context, |tables| wake(context, tables, orders, deadline_ms, &id))?;
    Ok(Next::Again)
}

fn wake(
    context: &Context,
    tables: &mut dyn Tables,
    orders: &Orders,
    deadline_ms: u64,
    id: &OrderId,
) -> Result<(), HandlerError> {
    let stored = SAGAS.get(tables, id)?;
    let Some(stored) = stored.filter(|stored| stored.saga.deadline_ms == Some(deadline_ms)) else {
        // Another replica was here first.
        DEADLINES.delete(tables, &(deadline_ms, id.clone()))?;
        return Ok(());
    };
    // A saga has each deadline once, so the name is another for every unit.
    let name = format!("{}/woken/{deadline_ms}", SagaId::of(id));
    let correlation_id = MessageId::parse(&stored.correlation_id)?;
    let mut unit = Unit::named(context, tables, name, Some(correlation_id));
    orders.advance(&mut unit, id, Input::Woken)
}

impl From<AppendError> for HandlerError {
    fn from(error: AppendError) -> HandlerError {
        match error {
            // Someone else was faster: load again, decide anew.
            AppendError::WrongVersion { .. } => HandlerError::Transient(error.to_string()),
            AppendError::Store(error) => error.into(),
        }
    }
}

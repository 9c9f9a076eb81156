//! The order service at work: messages in, messages out, one transaction for each.
//!
//! [`Orders`] takes the commands of customers and the answers of participants; [`Projection`] keeps the read side. What
//! a cancellation does depends on how far the order is: before the answer to the commit of its stock the order is
//! undone, from then on the cancellation is refused with `OrderCancelRefused`.

use std::sync::Arc;

use async_trait::async_trait;
use kit::saga::{Cancellation, Reply, Sagas};
use kit::{Handler, HandlerError, Message, Prepared, Unit};
use proto::order::{CancelOrder, CreateOrder, Event, OrderCancelRefused, OrderRejected};
use proto::{OrderId, SagaId, inventory, notification, order, payment, shipping};

use crate::aggregate::Refusal;
use crate::config::Config;
use crate::saga::OrderSaga;
use crate::{history, view};

/// The topics that [`Orders`] reads.
pub const TOPICS: [&str; 5] = [
    order::Command::TOPIC,
    inventory::Event::TOPIC,
    payment::Event::TOPIC,
    shipping::Event::TOPIC,
    notification::Event::TOPIC,
];

/// Handles commands to orders and the answers of participants.
#[derive(Clone, Debug)]
pub struct Orders {
    sagas: Arc<Sagas<OrderSaga>>,
    snapshot_every: u64,
}

impl Orders {
    /// With these settings.
    pub fn new(config: Config) -> Orders {
        Orders { snapshot_every: config.snapshot_every, sagas: Sagas::new(OrderSaga::new(config)) }
    }

    /// The sagas of the orders: they need a timer beside the handler.
    pub fn sagas(&self) -> Arc<Sagas<OrderSaga>> {
        self.sagas.clone()
    }

    /// Takes an order: its first event, its saga, its first command.
    fn create(&self, unit: &mut Unit<'_>, id: &OrderId, command: CreateOrder) -> Result<(), HandlerError> {
        let mut order = history::load(unit.tables(), id)?;
        match order.accept(unit.now(), command) {
            Ok(Some(created)) => {
                history::record(unit, id, &mut order, created, self.snapshot_every)?;
                let started = self.sagas.start(unit, &SagaId::of(id), id.as_str())?;
                assert!(started, "order {id} has a saga, and was not placed");
                Ok(())
            }
            Ok(None) => {
                unit.note(format_args!("order {id} was placed again: it stays as it is"));
                Ok(())
            }
            Err(refusal) => {
                unit.note(format_args!("order {id} is rejected: {refusal}"));
                let (order_id, rejected_at_ms) = (id.as_str().to_owned(), unit.now().as_millis());
                unit.publish(&OrderRejected { order_id, reason: refusal.to_string(), rejected_at_ms })?;
                Ok(())
            }
        }
    }

    /// Gives an order up, if that is still possible.
    fn cancel(&self, unit: &mut Unit<'_>, id: &OrderId, command: CancelOrder) -> Result<(), HandlerError> {
        let refusal = match self.sagas.cancel(unit, &SagaId::of(id), &command.reason)? {
            Cancellation::Begun => return Ok(()),
            Cancellation::AlreadyUndone => Refusal::Cancelling,
            Cancellation::TooLate => Refusal::Ended(history::load(unit.tables(), id)?.status()),
            Cancellation::Unknown => Refusal::Unknown,
        };
        unit.note(format_args!("order {id} is not cancelled: {refusal}"));
        let (order_id, refused_at_ms) = (id.as_str().to_owned(), unit.now().as_millis());
        unit.publish(&OrderCancelRefused { order_id, reason: refusal.to_string(), refused_at_ms })?;
        Ok(())
    }
}

#[async_trait]
impl Handler for Orders {
    fn apply(&self, unit: &mut Unit<'_>, message: &Message, _: Prepared) -> Result<(), HandlerError> {
        let (kind, payload) = (message.kind.as_str(), message.payload.as_ref());
        let reply = match message.topic() {
            order::Command::TOPIC => {
                let command = order::Command::decode(kind, payload)?;
                let id = command.order_id()?;
                return match command {
                    order::Command::CreateOrder(command) => self.create(unit, &id, command),
                    order::Command::CancelOrder(command) => self.cancel(unit, &id, command),
                };
            }
            inventory::Event::TOPIC => said_by_inventory(inventory::Event::decode(kind, payload)?),
            payment::Event::TOPIC => Some(said_by_payment(payment::Event::decode(kind, payload)?)),
            shipping::Event::TOPIC => Some(said_by_shipping(shipping::Event::decode(kind, payload)?)),
            notification::Event::TOPIC => {
                Some(said_by_notification(notification::Event::decode(kind, payload)?)?)
            }
            other => return Err(HandlerError::Parse(format!("order reads nothing from `{other}`"))),
        };
        match reply {
            Some(reply) => self.sagas.reply(unit, message, reply),
            None => Ok(()),
        }
    }
}

/// An expired reservation answers to nobody: the commit of its stock will be refused.
fn said_by_inventory(event: inventory::Event) -> Option<Reply> {
    match event {
        inventory::Event::StockReserved(_) | inventory::Event::StockCommitted(_) => Some(Reply::Succeeded),
        inventory::Event::ReservationRefused(refused) => Some(Reply::Refused(refused.reason)),
        inventory::Event::CommitRefused(refused) => Some(Reply::Refused(refused.reason)),
        inventory::Event::StockReleased(released) => (!released.expired).then_some(Reply::Compensated),
    }
}

fn said_by_payment(event: payment::Event) -> Reply {
    match event {
        payment::Event::PaymentCaptured(_) => Reply::Succeeded,
        payment::Event::PaymentDeclined(declined) => Reply::Refused(declined.reason),
        payment::Event::PaymentRefunded(_) => Reply::Compensated,
    }
}

fn said_by_shipping(event: shipping::Event) -> Reply {
    match event {
        shipping::Event::ShipmentScheduled(_) => Reply::Succeeded,
        shipping::Event::ShipmentRefused(refused) => Reply::Refused(refused.reason),
        shipping::Event::ShipmentCancelled(_) => Reply::Compensated,
    }
}

/// The notice of a confirmed order is a step, that of a cancelled one the end of its undoing.
fn said_by_notification(event: notification::Event) -> Result<Reply, HandlerError> {
    let notification::Event::CustomerNotified(notified) = event;
    match notified.kind() {
        notification::NoticeKind::Confirmed => Ok(Reply::Succeeded),
        notification::NoticeKind::Cancelled => Ok(Reply::Compensated),
        notification::NoticeKind::Unspecified => Err(HandlerError::Parse("the notice is of no kind".into())),
    }
}

/// Keeps the read side up with `order.events`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Projection;

#[async_trait]
impl Handler for Projection {
    fn apply(&self, unit: &mut Unit<'_>, message: &Message, _: Prepared) -> Result<(), HandlerError> {
        let event = Event::decode(&message.kind, &message.payload)?;
        view::project(unit.tables(), &event.order_id()?, &event)?;
        Ok(())
    }
}

//! The order itself: what happened to it, and what may happen next.
//!
//! Event-sourced: the state is the fold of the order's events and of nothing else. [`Order::apply`] takes times from
//! the events, never from a clock, so that a replay gives the same order; [`Order::accept`] and its fellows decide what
//! happens and give it as new events, which the caller appends. Keeping events and snapshots is
//! [`crate::history`]'s; what must be done for an order is the saga's.

use context::Timestamp;
use proto::order::{
    CancelReason, CreateOrder, Event, OrderCancelled, OrderConfirmed, OrderCreated, OrderStatus,
    OrderStatusChanged,
};
use proto::{Currency, CustomerId, Money, MoneyError};

/// How many events an order has; the number that the next one must be appended at.
pub type Version = u64;

/// An order as its events tell it. The default is the order that nobody placed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Order {
    /// How many events were applied.
    #[prost(uint64, tag = "1")]
    pub version: Version,
    /// What was ordered; `None` until it is.
    #[prost(message, optional, tag = "2")]
    pub placed: Option<OrderCreated>,
    /// How far it came.
    #[prost(enumeration = "OrderStatus", tag = "3")]
    pub status: i32,
    /// When it came there, Unix time in milliseconds.
    #[prost(uint64, tag = "4")]
    pub updated_at_ms: u64,
    /// Why it was cancelled, if it was.
    #[prost(enumeration = "CancelReason", tag = "5")]
    pub cancel_reason: i32,
}

/// Why a command cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing is ordered.
    #[error("the order has no items")]
    NoItems,
    /// An item of which none is ordered.
    #[error("`{sku}` is ordered 0 times")]
    NoQuantity {
        /// The item.
        sku: String,
    },
    /// An item that costs less than nothing.
    #[error("`{sku}` costs {unit_price}, less than nothing")]
    NegativePrice {
        /// The item.
        sku: String,
        /// Minor units.
        unit_price: i64,
    },
    /// The order costs nothing, so there is nothing to charge.
    #[error("the order costs nothing")]
    Free,
    /// The amount cannot be reckoned.
    #[error(transparent)]
    Money(#[from] MoneyError),
    /// No customer.
    #[error("customer {0}")]
    Customer(#[from] proto::InvalidId),
    /// Nowhere to ship to.
    #[error("the order has no address")]
    NoAddress,
    /// Nobody placed it.
    #[error("there is no such order")]
    Unknown,
    /// It has come to an end.
    #[error("the order is already {}", word(*.0))]
    Ended(OrderStatus),
    /// It is already being cancelled.
    #[error("the order is already being cancelled")]
    Cancelling,
}

/// A status as people say it.
pub fn word(status: OrderStatus) -> &'static str {
    match status {
        OrderStatus::Unspecified => "unknown",
        OrderStatus::Accepted => "accepted",
        OrderStatus::Reserved => "reserved",
        OrderStatus::Paid => "paid",
        OrderStatus::Shipping => "shipping",
        OrderStatus::Confirmed => "confirmed",
        OrderStatus::Cancelling => "being cancelled",
        OrderStatus::Cancelled => "cancelled",
    }
}

impl Order {
    /// The order that `events` tell of.
    pub fn from_history<'a>(events: impl IntoIterator<Item = &'a Event>) -> Order {
        let mut order = Order::default();
        for event in events {
            order.apply(event);
        }
        order
    }

    /// Takes one event of the history into account, in its turn.
    ///
    /// Events that are answers to commands and change no order (rejections, refused cancellations) are not part of a
    /// history.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::OrderCreated(created) => {
                assert!(self.placed.is_none(), "an order is created once: {}", created.order_id);
                self.placed = Some(created.clone());
                self.to(OrderStatus::Accepted, created.created_at_ms);
            }
            Event::OrderStatusChanged(changed) => self.to(changed.status(), changed.changed_at_ms),
            Event::OrderConfirmed(confirmed) => self.to(OrderStatus::Confirmed, confirmed.confirmed_at_ms),
            Event::OrderCancelled(cancelled) => {
                self.cancel_reason = cancelled.reason;
                self.to(OrderStatus::Cancelled, cancelled.cancelled_at_ms);
            }
            Event::OrderRejected(_) | Event::OrderCancelRefused(_) => {
                panic!("`{}` is no part of an order's history", event.kind())
            }
        }
        self.version += 1;
    }

    fn to(&mut self, status: OrderStatus, at_ms: u64) {
        assert!(!self.is_ended(), "an order that is {} changes no more", word(self.status()));
        self.status = status.into();
        self.updated_at_ms = at_ms;
    }

    /// Whether it was confirmed or cancelled.
    pub fn is_ended(&self) -> bool {
        matches!(self.status(), OrderStatus::Confirmed | OrderStatus::Cancelled)
    }

    /// What was ordered.
    ///
    /// # Panics
    /// For an order that nobody placed: a saga never runs for one.
    pub fn placed(&self) -> &OrderCreated {
        self.placed.as_ref().expect("the order was placed")
    }

    /// Accepts an order, or gives nothing if it was accepted before: the customer only asks again.
    ///
    /// # Errors
    /// If no order can be made of it.
    pub fn accept(&self, now: Timestamp, command: CreateOrder) -> Result<Option<Event>, Refusal> {
        if self.placed.is_some() {
            return Ok(None);
        }
        let total = total(&command)?;
        CustomerId::new(&command.customer_id)?;
        if command.address.is_none() {
            return Err(Refusal::NoAddress);
        }
        Ok(Some(Event::OrderCreated(OrderCreated {
            order_id: command.order_id,
            customer_id: command.customer_id,
            items: command.items,
            currency: command.currency,
            total: total.minor,
            payment_method: command.payment_method,
            address: command.address,
            created_at_ms: now.as_millis(),
        })))
    }

    /// It came further.
    pub fn advance(&self, now: Timestamp, status: OrderStatus) -> Event {
        Event::OrderStatusChanged(OrderStatusChanged {
            order_id: self.placed().order_id.clone(),
            status: status.into(),
            changed_at_ms: now.as_millis(),
        })
    }

    /// It succeeded.
    pub fn confirm(&self, now: Timestamp) -> Event {
        Event::OrderConfirmed(OrderConfirmed {
            order_id: self.placed().order_id.clone(),
            confirmed_at_ms: now.as_millis(),
        })
    }

    /// It was undone.
    pub fn cancel(&self, now: Timestamp, reason: CancelReason, detail: String) -> Event {
        Event::OrderCancelled(OrderCancelled {
            order_id: self.placed().order_id.clone(),
            reason: reason.into(),
            detail,
            cancelled_at_ms: now.as_millis(),
        })
    }
}

/// What the order costs: the sum of quantity times unit price.
fn total(command: &CreateOrder) -> Result<Money, Refusal> {
    if command.items.is_empty() {
        return Err(Refusal::NoItems);
    }
    let mut total = Money::new(0, Currency::new(&command.currency)?);
    for item in &command.items {
        if item.quantity == 0 {
            return Err(Refusal::NoQuantity { sku: item.sku.clone() });
        }
        if item.unit_price < 0 {
            return Err(Refusal::NegativePrice { sku: item.sku.clone(), unit_price: item.unit_price });
        }
        total = total.plus(Money::new(item.unit_price, total.currency).times(item.quantity)?)?;
    }
    if total.minor == 0 { Err(Refusal::Free) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{EUR_PRICE, create};

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn accepted() -> (Order, Event) {
        let event = Order::default().accept(at(5), create("o-1")).unwrap().unwrap();
        (Order::from_history([&event]), event)
    }

    #[test]
    fn an_order_is_the_fold_of_its_events_and_takes_its_times_from_them() {
        let (order, created) = accepted();
        let paid = order.advance(at(9), OrderStatus::Paid);
        let history = [created, paid];
        let order = Order::from_history(&history);
        assert_eq!((order.version, order.status(), order.updated_at_ms), (2, OrderStatus::Paid, 9));
        assert_eq!(order, Order::from_history(&history), "a replay, however late, gives the same order");
    }

    #[test]
    fn the_same_order_placed_again_changes_nothing() {
        let (order, _) = accepted();
        let mut other = create("o-1");
        other.items[0].quantity = 99;
        assert_eq!(order.accept(at(7), other), Ok(None));
    }

    #[test]
    fn the_total_is_reckoned_in_minor_units() {
        let (order, _) = accepted();
        assert_eq!(order.placed().total, 2 * EUR_PRICE);
    }

    #[test]
    fn what_cannot_be_an_order_is_refused_with_its_reason() {
        let refusal = |change: fn(&mut CreateOrder)| {
            let mut command = create("o-1");
            change(&mut command);
            Order::default().accept(at(1), command).unwrap_err().to_string()
        };
        assert_eq!(refusal(|c| c.items.clear()), "the order has no items");
        assert_eq!(refusal(|c| c.items[0].quantity = 0), "`sku-1` is ordered 0 times");
        assert_eq!(refusal(|c| c.items[0].unit_price = -1), "`sku-1` costs -1, less than nothing");
        assert_eq!(refusal(|c| c.items[0].unit_price = 0), "the order costs nothing");
        assert_eq!(refusal(|c| c.items[0].unit_price = i64::MAX), "the amount is too large");
        assert_eq!(
            refusal(|c| c.currency = "euro".into()),
            "`euro` is no currency: three capital letters are"
        );
        assert_eq!(refusal(|c| c.address = None), "the order has no address");
        assert!(refusal(|c| c.customer_id.clear()).starts_with("customer `` is no id"));
    }

    #[test]
    #[should_panic(expected = "an order that is confirmed changes no more")]
    fn an_order_that_ended_changes_no_more() {
        let (mut order, _) = accepted();
        let end = order.confirm(at(6));
        order.apply(&end);
        order.apply(&end);
    }

    #[test]
    fn a_snapshot_is_the_order() {
        let (order, _) = accepted();
        let bytes = prost::Message::encode_to_vec(&order);
        assert_eq!(<Order as prost::Message>::decode(bytes.as_slice()), Ok(order));
    }
}

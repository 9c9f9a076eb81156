//! What analytics knows of one order, and what that adds to the totals. Pure: no store, no clock.
//!
//! The five event topics arrive in any order between them, and a participant may answer twice under two message ids. So
//! facts are set, never added up: whatever the interleaving, the same events give the same facts. Totals are sums over
//! orders of [`Facts::counts`], and a new fact moves them by the difference.

use std::collections::{BTreeMap, BTreeSet};

use proto::notification::NoticeKind;
use proto::order::CancelReason;
use proto::{inventory, notification, order, payment, shipping};
use serde::{Deserialize, Serialize};

/// An event of any of the services.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// From `order.events`.
    Order(order::Event),
    /// From `inventory.events`.
    Inventory(inventory::Event),
    /// From `payment.events`.
    Payment(payment::Event),
    /// From `shipping.events`.
    Shipping(shipping::Event),
    /// From `notification.events`.
    Notification(notification::Event),
}

impl Event {
    /// Decodes an event of `topic`.
    ///
    /// # Errors
    /// If it is none of the topic's, or the topic is not one of [`proto::topics::EVENTS`].
    pub fn decode(topic: &str, kind: &str, payload: &[u8]) -> Result<Event, proto::DecodeError> {
        match topic {
            order::Event::TOPIC => order::Event::decode(kind, payload).map(Event::Order),
            inventory::Event::TOPIC => inventory::Event::decode(kind, payload).map(Event::Inventory),
            payment::Event::TOPIC => payment::Event::decode(kind, payload).map(Event::Payment),
            shipping::Event::TOPIC => shipping::Event::decode(kind, payload).map(Event::Shipping),
            notification::Event::TOPIC => notification::Event::decode(kind, payload).map(Event::Notification),
            _ => Err(proto::DecodeError::UnknownKind { kind: kind.to_owned(), topic: "*.events" }),
        }
    }

    /// The order it is about.
    ///
    /// # Errors
    /// If it names none; never after [`Event::decode`].
    pub fn order_id(&self) -> Result<proto::OrderId, proto::InvalidId> {
        match self {
            Event::Order(event) => event.order_id(),
            Event::Inventory(event) => event.order_id(),
            Event::Payment(event) => event.order_id(),
            Event::Shipping(event) => event.order_id(),
            Event::Notification(event) => event.order_id(),
        }
    }
}

/// How an order ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Ending {
    /// It succeeded.
    Confirmed,
    /// Nobody wanted it any more.
    CancelledByCustomer,
    /// The goods were not there.
    OutOfStock,
    /// The payment was declined.
    PaymentDeclined,
    /// The carrier refused.
    ShipmentRefused,
    /// A step had no answer.
    StepTimedOut,
    /// It was never accepted.
    Rejected,
}

impl Ending {
    /// A fixed word.
    pub fn word(self) -> &'static str {
        match self {
            Ending::Confirmed => "confirmed",
            Ending::CancelledByCustomer => "cancelled by customer",
            Ending::OutOfStock => "out of stock",
            Ending::PaymentDeclined => "payment declined",
            Ending::ShipmentRefused => "shipment refused",
            Ending::StepTimedOut => "step timed out",
            Ending::Rejected => "rejected",
        }
    }

    fn of(reason: CancelReason) -> Ending {
        match reason {
            CancelReason::Customer | CancelReason::Unspecified => Ending::CancelledByCustomer,
            CancelReason::OutOfStock => Ending::OutOfStock,
            CancelReason::PaymentDeclined => Ending::PaymentDeclined,
            CancelReason::ShipmentRefused => Ending::ShipmentRefused,
            CancelReason::StepTimedOut => Ending::StepTimedOut,
        }
    }
}

/// What is known of one order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// When it was accepted, in Unix milliseconds.
    pub accepted_at_ms: Option<u64>,
    /// Its currency and total in minor units.
    pub total: Option<(String, i64)>,
    /// How it ended.
    pub ending: Option<Ending>,
    /// What was captured: currency and minor units.
    pub captured: Option<(String, i64)>,
    /// What was given back.
    pub refunded: Option<(String, i64)>,
    /// Pieces that left the house.
    pub committed: u64,
    /// They came back.
    pub released: bool,
    /// A carrier was booked.
    pub scheduled: bool,
    /// The carrier was called off.
    pub called_off: bool,
    /// What the customer was told.
    pub notices: BTreeSet<String>,
}

/// Sums by name; names without a sum are 0 and not kept. Money's names end in the currency: `captured EUR`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals(pub BTreeMap<String, i64>);

impl Facts {
    /// Learns from one event. The same event again teaches nothing new.
    pub fn learn(&mut self, event: &Event) {
        match event {
            Event::Order(event) => self.learn_order(event),
            Event::Inventory(inventory::Event::StockCommitted(committed)) => {
                self.committed = committed.lines.iter().map(|line| u64::from(line.quantity)).sum();
            }
            Event::Inventory(inventory::Event::StockReleased(_)) => self.released = true,
            Event::Inventory(_) => {}
            Event::Payment(payment::Event::PaymentCaptured(captured)) => {
                self.captured = Some((captured.currency.clone(), captured.amount));
            }
            // A second refund finds nothing left to give back, and says so: the first one counts.
            Event::Payment(payment::Event::PaymentRefunded(refunded)) if refunded.amount > 0 => {
                self.refunded = Some((refunded.currency.clone(), refunded.amount));
            }
            Event::Payment(_) => {}
            Event::Shipping(shipping::Event::ShipmentScheduled(_)) => self.scheduled = true,
            Event::Shipping(shipping::Event::ShipmentCancelled(_)) => self.called_off = true,
            Event::Shipping(shipping::Event::ShipmentRefused(_)) => {}
            Event::Notification(notification::Event::CustomerNotified(notified)) => {
                let notice = match notified.kind() {
                    NoticeKind::Unspecified => "unspecified",
                    NoticeKind::Confirmed => "confirmed",
                    NoticeKind::Cancelled => "cancelled",
                };
                self.notices.insert(notice.to_owned());
            }
        }
    }

    fn learn_order(&mut self, event: &order::Event) {
        match event {
            order::Event::OrderCreated(created) => {
                self.accepted_at_ms = Some(created.created_at_ms);
                self.total = Some((created.currency.clone(), created.total));
                // A customer whose first try was rejected has mended it.
                self.ending = self.ending.filter(|ending| *ending != Ending::Rejected);
            }
            order::Event::OrderConfirmed(_) => self.ending = Some(Ending::Confirmed),
            order::Event::OrderCancelled(cancelled) => self.ending = Some(Ending::of(cancelled.reason())),
            order::Event::OrderRejected(_) => self.ending = self.ending.or(Some(Ending::Rejected)),
            order::Event::OrderStatusChanged(_) | order::Event::OrderCancelRefused(_) => {}
        }
    }

    /// What the order adds to the totals.
    pub fn counts(&self) -> Totals {
        let mut totals = Totals::default();
        let money = |name: &str, amount: &Option<(String, i64)>| {
            amount.as_ref().map(|(currency, minor)| (format!("{name} {currency}"), *minor))
        };
        totals.count("orders accepted", i64::from(self.accepted_at_ms.is_some()));
        if let Some(ending) = self.ending {
            totals.count(format!("orders {}", ending.word()), 1);
        }
        for (name, minor) in [
            money("ordered", &self.total),
            money("captured", &self.captured),
            money("refunded", &self.refunded),
        ]
        .into_iter()
        .flatten()
        {
            totals.count(name, minor);
        }
        if !self.released {
            totals.count("pieces shipped", i64::try_from(self.committed).unwrap_or(i64::MAX));
        }
        totals.count("shipments", i64::from(self.scheduled && !self.called_off));
        for notice in &self.notices {
            totals.count(format!("notices {notice}"), 1);
        }
        totals
    }

    /// The day on which the order was accepted: whole days since the Unix epoch, UTC.
    pub fn day(&self) -> Option<u64> {
        const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
        self.accepted_at_ms.map(|at| at / DAY_MS)
    }
}

impl Totals {
    /// Adds to one sum.
    pub fn count(&mut self, name: impl Into<String>, number: i64) {
        let name = name.into();
        let sum = self.get(&name) + number;
        if sum == 0 {
            self.0.remove(&name);
        } else {
            self.0.insert(name, sum);
        }
    }

    /// One sum.
    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Takes out what was, puts in what is.
    pub fn replace(&mut self, was: &Totals, is: &Totals) {
        for (name, number) in &was.0 {
            self.count(name.as_str(), -number);
        }
        for (name, number) in &is.0 {
            self.count(name.as_str(), *number);
        }
    }
}

/// The totals that these events give, whatever their order between topics.
pub fn fold<'a>(events: impl IntoIterator<Item = (proto::OrderId, &'a Event)>) -> Totals {
    let mut orders = BTreeMap::<proto::OrderId, Facts>::new();
    for (order, event) in events {
        orders.entry(order).or_default().learn(event);
    }
    let mut totals = Totals::default();
    for facts in orders.values() {
        totals.replace(&Totals::default(), &facts.counts());
    }
    totals
}

//! The read side: what people see of orders, kept apart from what decides.
//!
//! A projection of `order.events`, in tables of its own that nothing else writes. It lags behind the orders by the way
//! through Kafka. It must equal the fold of the topic's events, which [`fold`] is.

use std::collections::BTreeMap;

use kit::store::{Json, ReadTables, StoreError, Table, Tables};
use proto::order::{Event, OrderStatus};
use proto::{CustomerId, OrderId};
use serde::{Deserialize, Serialize};

/// Orders as people see them.
pub const ORDERS: Table<OrderId, OrderView, Json> = Table::new("view.orders");
/// Which orders a customer has.
pub const BY_CUSTOMER: Table<(CustomerId, OrderId), (), Json> = Table::new("view.orders_by_customer");

/// One order as people see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderView {
    /// Whose it is; empty for an order that was rejected.
    pub customer: String,
    /// Minor units.
    pub total: i64,
    /// ISO 4217.
    pub currency: String,
    /// Where it is, in the words of [`crate::aggregate::word`]; `rejected` for one that was not taken.
    pub status: String,
    /// Where it has been and since when, in Unix milliseconds.
    pub history: Vec<(String, u64)>,
    /// Why it was cancelled or rejected, or why a cancellation was refused; empty if none was.
    pub remark: String,
}

impl OrderView {
    /// Takes the order's next event into account.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::OrderCreated(created) => {
                self.customer.clone_from(&created.customer_id);
                self.total = created.total;
                self.currency.clone_from(&created.currency);
                self.to(crate::aggregate::word(OrderStatus::Accepted), created.created_at_ms);
            }
            Event::OrderStatusChanged(changed) => {
                self.to(crate::aggregate::word(changed.status()), changed.changed_at_ms);
            }
            Event::OrderConfirmed(confirmed) => {
                self.to(crate::aggregate::word(OrderStatus::Confirmed), confirmed.confirmed_at_ms);
            }
            Event::OrderCancelled(cancelled) => {
                self.remark.clone_from(&cancelled.detail);
                self.to(crate::aggregate::word(OrderStatus::Cancelled), cancelled.cancelled_at_ms);
            }
            Event::OrderRejected(rejected) => {
                self.remark.clone_from(&rejected.reason);
                self.to("rejected", rejected.rejected_at_ms);
            }
            Event::OrderCancelRefused(refused) => self.remark.clone_from(&refused.reason),
        }
    }

    fn to(&mut self, status: &str, at_ms: u64) {
        self.status = status.to_owned();
        self.history.push((self.status.clone(), at_ms));
    }
}

/// Applies one event to the tables.
///
/// # Errors
/// The store's own.
pub fn project<T: Tables + ?Sized>(tables: &mut T, order: &OrderId, event: &Event) -> Result<(), StoreError> {
    let mut view = ORDERS.get(tables, order)?.unwrap_or_default();
    view.apply(event);
    ORDERS.put(tables, order, &view)?;
    if let Ok(customer) = CustomerId::new(&view.customer) {
        BY_CUSTOMER.put(tables, &(customer, order.clone()), &())?;
    }
    Ok(())
}

/// The view that these events give; those of one order in their order.
pub fn fold<'a>(events: impl IntoIterator<Item = (OrderId, &'a Event)>) -> BTreeMap<OrderId, OrderView> {
    let mut views = BTreeMap::<OrderId, OrderView>::new();
    for (order, event) in events {
        views.entry(order).or_default().apply(event);
    }
    views
}

/// Query: one order.
///
/// # Errors
/// The store's own.
pub fn order<T: ReadTables + ?Sized>(tables: &T, order: &OrderId) -> Result<Option<OrderView>, StoreError> {
    ORDERS.get(tables, order)
}

/// Query: a customer's orders.
///
/// # Errors
/// The store's own.
pub fn orders_of<T: ReadTables + ?Sized>(
    tables: &T,
    customer: &CustomerId,
) -> Result<Vec<(OrderId, OrderView)>, StoreError> {
    let mut found = Vec::new();
    for ((_, order), ()) in BY_CUSTOMER.with_prefix(tables, customer)? {
        if let Some(view) = ORDERS.get(tables, &order)? {
            found.push((order, view));
        }
    }
    Ok(found)
}

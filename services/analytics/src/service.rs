//! The totals at work: an event in, the order's facts and the sums moved, one transaction for each.

use async_trait::async_trait;
use kit::store::{Json, Table, Tables};
use kit::{Handler, HandlerError, Message, Prepared, StoreError, Unit};
use proto::OrderId;

use crate::facts::{Event, Facts, Totals};

/// What is known of each order.
pub const FACTS: Table<OrderId, Facts, Json> = Table::new("analytics.facts");
/// The totals over all orders.
pub const TOTALS: Table<(), Totals, Json> = Table::new("analytics.totals");
/// The totals over the orders accepted on each day: whole days since the Unix epoch, UTC.
pub const DAYS: Table<u64, Totals, Json> = Table::new("analytics.days");

/// Handles the events of all services.
#[derive(Clone, Copy, Debug, Default)]
pub struct Analytics;

#[async_trait]
impl Handler for Analytics {
    fn apply(&self, unit: &mut Unit<'_>, message: &Message, _prepared: Prepared) -> Result<(), HandlerError> {
        let event = Event::decode(message.topic(), &message.kind, &message.payload)?;
        learn(unit.tables(), &event.order_id()?, &event)?;
        Ok(())
    }
}

/// Takes one event into the tables.
///
/// # Errors
/// The store's own.
pub fn learn<T: Tables + ?Sized>(tables: &mut T, order: &OrderId, event: &Event) -> Result<(), StoreError> {
    let was = FACTS.get(tables, order)?.unwrap_or_default();
    let mut is = was.clone();
    is.learn(event);
    if is == was {
        return Ok(());
    }
    FACTS.put(tables, order, &is)?;
    let mut totals = TOTALS.get(tables, &())?.unwrap_or_default();
    totals.replace(&was.counts(), &is.counts());
    TOTALS.put(tables, &(), &totals)?;
    // Once known, an order's day never changes.
    if let Some(day) = is.day() {
        let counted = if was.day().is_some() { was.counts() } else { Totals::default() };
        let mut totals = DAYS.get(tables, &day)?.unwrap_or_default();
        totals.replace(&counted, &is.counts());
        DAYS.put(tables, &day, &totals)?;
    }
    Ok(())
}

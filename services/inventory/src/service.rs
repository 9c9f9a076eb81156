//! The handler and the timer. Each input becomes one transaction on stock, reservation and outbox.

use std::time::Duration;

use context::{Context, Timestamp};
use kit::store::Json;
use kit::timer::Timer;
use kit::{
    Handler, HandlerError, Message, Outgoing, Prepared, ReadTables, Store, StoreError, StoreExt, Table,
    Tables, Unit,
};
use proto::OrderId;
use proto::inventory::{Command, Event};

use crate::reservation::{Handled, Input, Reservation, Shelf, Status, handle, skus_touched};
use crate::{Config, Stock};

/// The stock, by SKU.
pub const STOCK: Table<String, Stock, Json> = Table::new("stock");
/// All reservations ever made or refused, by order.
pub const RESERVATIONS: Table<OrderId, Reservation, Json> = Table::new("reservations");
/// The reservations that are set aside, by the time at which they expire: what the timer reads.
pub const EXPIRIES: Table<(Timestamp, OrderId), (), Json> = Table::new("expiries");

/// Handles `inventory.commands`.
#[derive(Debug)]
pub struct Reservations {
    life: Duration,
}

impl Reservations {
    /// A handler whose reservations last `life` where a command does not say.
    pub fn new(life: Duration) -> Reservations {
        Reservations { life }
    }
}

impl Handler for Reservations {
    fn apply(&self, unit: &mut Unit<'_>, message: &Message, _prepared: Prepared) -> Result<(), HandlerError> {
        let mut command = Command::decode(&message.kind, &message.payload)?;
        let order_id = command.order_id()?;
        if let Command::ReserveStock(reserve) = &mut command
            && reserve.expires_at_ms == 0
        {
            reserve.expires_at_ms = (unit.now() + self.life).as_millis();
        }
        take(unit, &order_id, Input::Command(command))
    }
}

/// Puts the initial stock of every SKU that the store does not know on the shelf.
pub(crate) fn open(context: &Context, store: &dyn Store, config: &Config) -> Result<(), StoreError> {
    store.transact_with(context, |tables| {
        for (sku, initial) in &config.initial_stock {
            // Another replica, or an earlier start, may have done it: stock moves from then on.
            if STOCK.get(tables, sku)?.is_none() {
                STOCK.put(tables, sku, &Stock::new(*initial))?;
            }
        }
        Ok(())
    })
}

/// Releases reservations that are over. Every replica runs it: an expiry is a transaction, so it happens once.
#[derive(Clone, Copy, Debug)]
pub struct Expiry;

impl Timer for Expiry {
    fn name(&self) -> &'static str {
        "reservation expiry"
    }

    fn next(&self, tables: &dyn ReadTables) -> Result<Option<Timestamp>, StoreError> {
        Ok(EXPIRIES.first(tables)?.map(|((at, _), ())| at))
    }

    fn fire(&self, context: &Context, tables: &mut dyn Tables, now: Timestamp) -> Result<(), HandlerError> {
        let Some(((_, order_id), ())) = EXPIRIES.first(tables)?.filter(|((at, _), ())| *at <= now) else {
            return Ok(());
        };
        // An order has one reservation, and it expires at most once: the name is this expiry's alone.
        let name = format!("inventory/expiry/{order_id}");
        take(&mut Unit::named(context, tables, name, None), &order_id, Input::Expire)
    }
}

/// Applies one input to what the store holds.
fn take(unit: &mut Unit<'_>, order_id: &OrderId, input: Input) -> Result<(), HandlerError> {
    let known = RESERVATIONS.get(unit.tables(), order_id)?;
    let mut shelf = Shelf::new();
    for sku in skus_touched(known.as_ref(), &input) {
        if let Some(stock) = STOCK.get(unit.tables(), &sku)? {
            shelf.insert(sku, stock);
        }
    }
    let (before, shelf_before) = (expiry(order_id, known.as_ref()), shelf.clone());
    let Handled { reservation, event } = handle(unit.now(), known, &input, &mut shelf);
    for (sku, stock) in shelf.iter().filter(|(sku, stock)| shelf_before.get(*sku) != Some(*stock)) {
        STOCK.put(unit.tables(), sku, stock)?;
    }
    move_expiry(unit.tables(), before, expiry(order_id, Some(&reservation)))?;
    RESERVATIONS.put(unit.tables(), order_id, &reservation)?;
    if let Some(event) = event {
        unit.note(format_args!("{} for {order_id}", event.kind()));
        unit.send(Outgoing::new(Event::TOPIC, order_id.as_str(), event.kind(), event.encode()))?;
    }
    Ok(())
}

/// Where a reservation stands among the expiries: only while its units are set aside.
fn expiry(order_id: &OrderId, reservation: Option<&Reservation>) -> Option<(Timestamp, OrderId)> {
    let reservation = reservation.filter(|reservation| reservation.status == Status::Reserved)?;
    // A command may name any time; one beyond the clock's end never comes.
    let at = Timestamp::from_micros(reservation.expires_at_ms.saturating_mul(1_000));
    Some((at, order_id.clone()))
}

fn move_expiry(
    tables: &mut dyn Tables,
    before: Option<(Timestamp, OrderId)>,
    after: Option<(Timestamp, OrderId)>,
) -> Result<(), StoreError> {
    if before != after {
        if let Some(before) = before {
            EXPIRIES.delete(tables, &before)?;
        }
        if let Some(after) = after {
            EXPIRIES.put(tables, &after, &())?;
        }
    }
    Ok(())
}

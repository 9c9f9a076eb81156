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
///
/// # Errors
/// The store's own.
pub fn open(context: &Context, store: &dyn Store, config: &Config) -> Result<(), StoreError> {
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

#[cfg(test)]
mod tests {
    use broker::TopicPartition;
    use context::Seed;
    use context::real::RealHost;
    use kit::{MemStore, outbox};
    use proto::MessageId;
    use proto::headers::EVENT_TYPE;
    use proto::inventory::{CommitStock, Line, ReserveStock};

    use super::*;

    /// One replica over a store.
    struct Bench {
        context: Context,
        store: MemStore,
        handler: Reservations,
    }

    impl Bench {
        fn new() -> Bench {
            let bench = Bench {
                context: RealHost::new("inventory-1", Seed(1)).into_context(),
                store: MemStore::new("inventory"),
                handler: Reservations::new(Config::default().reservation_life),
            };
            bench.open();
            bench
        }

        fn open(&self) {
            let initial_stock = [("tea".to_owned(), 10)].into();
            open(&self.context, &self.store, &Config { initial_stock, ..Config::default() }).unwrap();
        }

        fn handle(&self, command: impl Into<Command>) {
            let command = command.into();
            let message = Message {
                id: MessageId::derived(command.kind()),
                kind: command.kind().into(),
                key: "o-1".into(),
                correlation_id: MessageId::derived("request"),
                causation_id: None,
                saga_id: None,
                step: None,
                schema_version: 1,
                timestamp: Timestamp::ZERO,
                partition: TopicPartition::new(Command::TOPIC, 0),
                offset: 0,
                payload: command.encode().into(),
            };
            let handled = self.store.transact_with::<_, HandlerError>(&self.context, |tables| {
                let mut unit = Unit::caused_by(&self.context, tables, "inventory", &message);
                self.handler.apply(&mut unit, &message, Prepared::nothing())
            });
            handled.unwrap();
        }

        fn fire(&self) {
            let now = self.context.now();
            let fired =
                self.store.transact_with(&self.context, |tables| Expiry.fire(&self.context, tables, now));
            fired.unwrap();
        }

        /// When the timer wakes next.
        fn next(&self) -> Option<Timestamp> {
            self.store.read_with(|tables| Expiry.next(tables)).unwrap()
        }

        fn tea(&self) -> Stock {
            let stock = self.store.read_with::<_, StoreError>(|tables| STOCK.get(tables, &"tea".to_owned()));
            stock.unwrap().expect("the house carries tea")
        }

        /// The kinds of events told, in order.
        fn told(&self) -> Vec<String> {
            let pending =
                self.store.read_with::<_, StoreError>(|tables| outbox::pending(tables, 0, usize::MAX));
            let kind =
                |(_, record): (u64, broker::ProducerRecord)| record.headers.text(EVENT_TYPE).unwrap().into();
            pending.unwrap().into_iter().map(kind).collect()
        }
    }

    fn reserve(expires_at_ms: u64) -> ReserveStock {
        let lines = vec![Line { sku: "tea".into(), quantity: 4 }];
        ReserveStock { order_id: "o-1".into(), lines, expires_at_ms }
    }

    #[test]
    fn a_store_that_is_opened_again_keeps_its_stock() {
        let bench = Bench::new();
        assert_eq!(bench.tea(), Stock::new(10));
        bench.handle(reserve(0));
        bench.open();
        assert_eq!((bench.tea().available, bench.tea().reserved), (6, 4));
    }

    #[test]
    fn a_reservation_that_names_no_end_has_the_default_life() {
        let bench = Bench::new();
        let earliest = bench.context.now() + Duration::from_secs(599);
        bench.handle(reserve(0));
        let end = bench.next().expect("it ends");
        assert!(end > earliest && end < earliest + Duration::from_secs(60), "{end:?}");
        bench.fire();
        assert_eq!(bench.told(), ["StockReserved"], "its time is not over");
    }

    #[test]
    fn a_reservation_that_is_over_is_released_once() {
        let bench = Bench::new();
        bench.handle(reserve(1));
        assert_eq!(bench.next(), Some(Timestamp::from_millis(1)));
        bench.fire();
        bench.fire();
        bench.handle(CommitStock { order_id: "o-1".into() });
        assert_eq!(bench.told(), ["StockReserved", "StockReleased", "CommitRefused"]);
        assert_eq!((bench.next(), bench.tea()), (None, Stock::new(10)));
    }

    #[test]
    fn a_committed_reservation_never_expires() {
        let bench = Bench::new();
        bench.handle(reserve(1));
        bench.handle(CommitStock { order_id: "o-1".into() });
        assert_eq!(bench.next(), None);
        bench.fire();
        assert_eq!(bench.told(), ["StockReserved", "StockCommitted"]);
        assert_eq!(bench.tea().shipped, 4);
    }
}

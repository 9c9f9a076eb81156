//! `services audit`: do the books agree, to the unit?
//!
//! It reads every store's file and every ledger's journal, so all parts must have stopped: then nothing moves, and nothing is
//! taken on trust. What must be true of a shop at rest:
//! - every order has ended, and nothing waits to be sent;
//! - a confirmed order is paid once and in full, one parcel is under way, its goods have left the house, and its customer was
//!   told so, once; of a cancelled one nothing is left but the notice;
//! - the gateway has captured, less what it gave back, what confirmed orders cost, and the payment service believes the same;
//! - of every article, what there was is on the shelf or was bought;
//! - the read side shows every order as it is, and analytics' totals are those of the ledgers.
//!
//! [`Books`] is what was read, [`Books::disagreements`] the judgement. The simulated world has checks of its own, which also
//! look while things move.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use inventory::Stock;
use inventory::reservation::{Reservation, Status as Stage};
use kit::store::RedbStore;
use kit::{StoreError, StoreExt as _, outbox};
use order::aggregate::word;
use order::view::OrderView;
use outside::carrier::Shipment;
use outside::gateway::{Charge, Refund};
use outside::mail::Notice;
use outside::{Carrier, Gateway, Ledger, Mail, Provider};
use payment::Payment;
use proto::OrderId;
use proto::order::OrderStatus;

use crate::part::Part;
use crate::{Config, exit};

/// Prints what the books say, and what in them does not agree.
pub(crate) fn command(config: &Config, orders: Option<u64>) -> u8 {
    let books = match Books::read(config) {
        Ok(books) => books,
        Err(error) => return exit::complain(&error, exit::UNAVAILABLE),
    };
    let disagreements = books.disagreements(orders);
    let mut result = format!("{books}\n");
    for disagreement in &disagreements {
        result.push_str(&format!("DISAGREE: {disagreement}\n"));
    }
    if disagreements.is_empty() {
        result.push_str("the books agree\n");
        exit::say(&result, exit::DONE)
    } else {
        result.push_str(&format!("{} disagreements\n", disagreements.len()));
        exit::say(&result, exit::WRONG)
    }
}

/// What stores and ledgers say.
#[derive(Clone, Debug, Default)]
pub struct Books {
    orders: BTreeMap<String, Placed>,
    /// Records that wait in a service's outbox.
    waiting: BTreeMap<Part, u64>,
    charges: Vec<Charge>,
    refunds: Vec<Refund>,
    shipments: Vec<Shipment>,
    notices: Vec<Notice>,
    payments: Vec<Payment>,
    reservations: BTreeMap<String, Reservation>,
    stock: BTreeMap<String, Stock>,
    views: BTreeMap<String, OrderView>,
    totals: BTreeMap<String, i64>,
}

/// An order as the order service has it.
#[derive(Clone, Debug)]
struct Placed {
    status: OrderStatus,
    currency: String,
    total: i64,
    pieces: BTreeMap<String, u64>,
    saga_ended: bool,
}

/// What happened for one order.
#[derive(Default)]
struct Effects<'a> {
    charges: Vec<&'a Charge>,
    refunded: i64,
    under_way: usize,
    notices: Vec<&'a str>,
}

impl Effects<'_> {
    fn paid(&self) -> i64 {
        self.charges.iter().map(|charge| charge.amount_minor).sum::<i64>() - self.refunded
    }
}

impl Books {
    /// Reads all files of a configuration.
    ///
    /// # Errors
    /// A store that is not there or in use, or does not read; with what to do.
    pub fn read(config: &Config) -> Result<Books, String> {
        let mut books = Books::default();
        for part in Part::all() {
            books.read_part(config, part)?;
        }
        Ok(books)
    }

    fn read_part(&mut self, config: &Config, part: Part) -> Result<(), String> {
        let path = config.store(part);
        if !path.exists() {
            return Err(format!(
                "there is no store `{}`: has {part} run with this configuration?",
                path.display()
            ));
        }
        let store = RedbStore::open(part.name(), path, config.survives).map_err(|error| error.to_string())?;
        let read = match part {
            Part::Gateway => ledger(Gateway::new(), &store, |gateway| {
                self.charges = gateway.charges().to_vec();
                self.refunds = gateway.refunds().to_vec();
            }),
            Part::Carrier => {
                ledger(Carrier::new(), &store, |carrier| self.shipments = carrier.shipments().to_vec())
            }
            Part::Mail => ledger(Mail::new(), &store, |mail| self.notices = mail.notices().to_vec()),
            service => outbox::depth(&store).and_then(|waiting| {
                self.waiting.insert(service, waiting);
                self.read_service(service, &store)
            }),
        };
        read.map_err(|error| format!("the store of {part}: {error}"))
    }

    fn read_service(&mut self, part: Part, store: &RedbStore) -> Result<(), StoreError> {
        store.read_with(|tables| {
            match part {
                Part::Order => {
                    for (_, saga) in kit::saga::all(tables)? {
                        let id = OrderId::new(&saga.key).expect("a saga is about an order");
                        let order = order::history::load(tables, &id)?;
                        let placed = Placed::of(&order, saga.status.is_terminal());
                        self.orders.insert(saga.key, placed);
                    }
                    let views = order::view::ORDERS.all(tables)?;
                    self.views = views.into_iter().map(|(id, view)| (id.into(), view)).collect();
                }
                Part::Payment => {
                    self.payments = payment::PAYMENTS.all(tables)?.into_iter().map(|(_, one)| one).collect();
                }
                Part::Inventory => {
                    self.stock = inventory::STOCK.all(tables)?.into_iter().collect();
                    let reservations = inventory::RESERVATIONS.all(tables)?;
                    self.reservations = reservations.into_iter().map(|(id, one)| (id.into(), one)).collect();
                }
                Part::Analytics => {
                    self.totals = analytics::service::TOTALS.get(tables, &())?.unwrap_or_default().0;
                }
                // What they know, the ledgers know better.
                Part::Notification | Part::Shipping => {}
                Part::Gateway | Part::Carrier | Part::Mail => unreachable!("{part} is no service"),
            }
            Ok(())
        })
    }

    /// Everything that does not agree; `orders` is how many there must be.
    pub fn disagreements(&self, orders: Option<u64>) -> Vec<String> {
        let mut found = Vec::new();
        match orders {
            Some(wanted) if wanted != self.orders.len() as u64 => {
                found.push(format!("there are {} orders, and must be {wanted}", self.orders.len()));
            }
            None if self.orders.is_empty() => {
                found.push("no order was ever taken, so nothing was audited (`--orders 0` allows it)".into());
            }
            _ => {}
        }
        for (part, waiting) in self.waiting.iter().filter(|(_, waiting)| **waiting > 0) {
            found.push(format!("{part} has {waiting} records that were never sent"));
        }
        self.compare_orders(&mut found);
        self.compare_money(&mut found);
        self.compare_stock(&mut found);
        self.compare_views(&mut found);
        self.compare_totals(&mut found);
        found
    }

    fn effects(&self) -> BTreeMap<&str, Effects<'_>> {
        let mut all = BTreeMap::<&str, Effects<'_>>::new();
        for charge in &self.charges {
            all.entry(&charge.order_id).or_default().charges.push(charge);
        }
        for refund in &self.refunds {
            all.entry(&refund.order_id).or_default().refunded += refund.amount_minor;
        }
        for shipment in self.shipments.iter().filter(|shipment| shipment.cancelled_at.is_none()) {
            all.entry(&shipment.order_id).or_default().under_way += 1;
        }
        for notice in &self.notices {
            all.entry(&notice.order_id).or_default().notices.push(&notice.kind);
        }
        all
    }

    fn compare_orders(&self, found: &mut Vec<String>) {
        let effects = self.effects();
        for (id, order) in &self.orders {
            let nothing = Effects::default();
            let effects = effects.get(id.as_str()).unwrap_or(&nothing);
            let stock = self.reservations.get(id).map(|reservation| &reservation.status);
            let (paid, under_way, notice) = match order.status {
                OrderStatus::Confirmed => (order.total, 1, "confirmed"),
                OrderStatus::Cancelled => (0, 0, "cancelled"),
                other => {
                    found.push(format!("{id} is {}, and goes no further", word(other)));
                    continue;
                }
            };
            let is = word(order.status);
            if !order.saga_ended {
                found.push(format!("{id} is {is}, and its saga has not ended"));
            }
            if effects.charges.len() > 1 {
                found.push(format!("{id} was charged {} times", effects.charges.len()));
            }
            if effects.paid() != paid {
                found.push(format!("{id} is {is} and owes {paid}, and {} is paid", effects.paid()));
            }
            if effects.under_way != under_way {
                found.push(format!("{id} is {is}, and {} parcels are under way", effects.under_way));
            }
            if effects.notices != [notice] {
                found.push(format!("{id} is {is}, and its customer was told {:?}", effects.notices));
            }
            let has_gone = stock == Some(&Stage::Committed);
            if has_gone != (under_way == 1) || stock == Some(&Stage::Reserved) {
                found.push(format!("{id} is {is}, and its goods are {stock:?}"));
            }
        }
        for stranger in effects.keys().filter(|id| !self.orders.contains_key(**id)) {
            found.push(format!("{stranger} was never taken, and something was done for it"));
        }
    }

    fn compare_money(&self, found: &mut Vec<String>) {
        let believed: BTreeMap<&str, i64> = self
            .payments
            .iter()
            .map(|payment| match &payment.status {
                payment::Status::Captured(captured) => (payment.order_id.as_str(), captured.amount_minor),
                _ => (payment.order_id.as_str(), 0),
            })
            .collect();
        let effects = self.effects();
        let orders: BTreeSet<&str> = effects.keys().chain(believed.keys()).copied().collect();
        for id in orders {
            let (believed, paid) = (believed.get(id), effects.get(id).map_or(0, Effects::paid));
            if believed.copied().unwrap_or(0) != paid {
                found.push(format!(
                    "the payment service believes {believed:?} of {id}, and the gateway has {paid}"
                ));
            }
        }
        let (captured, refunded, owed) = (self.captured(), self.refunded(), self.owed());
        if captured - refunded != owed {
            let says = format!(
                "{captured} captured less {refunded} given back is not the {owed} that confirmed orders cost"
            );
            found.push(says);
        }
    }

    fn captured(&self) -> i64 {
        self.charges.iter().map(|charge| charge.amount_minor).sum()
    }

    fn refunded(&self) -> i64 {
        self.refunds.iter().map(|refund| refund.amount_minor).sum()
    }

    fn owed(&self) -> i64 {
        self.confirmed().map(|order| order.total).sum()
    }

    fn confirmed(&self) -> impl Iterator<Item = &Placed> {
        self.orders.values().filter(|order| order.status == OrderStatus::Confirmed)
    }

    fn compare_stock(&self, found: &mut Vec<String>) {
        let mut bought = BTreeMap::<&str, u64>::new();
        for (sku, pieces) in self.confirmed().flat_map(|order| &order.pieces) {
            *bought.entry(sku).or_default() += pieces;
        }
        for (sku, stock) in &self.stock {
            let bought = bought.remove(sku.as_str()).unwrap_or(0);
            let Stock { initial, available, reserved, shipped } = *stock;
            if available + reserved + shipped != initial || reserved != 0 || shipped != bought {
                found
                    .push(format!("confirmed orders bought {bought} of {sku}, and its shelf says {stock:?}"));
            }
        }
        for (sku, bought) in bought {
            found.push(format!("confirmed orders bought {bought} of {sku}, which has no shelf"));
        }
    }

    fn compare_views(&self, found: &mut Vec<String>) {
        for (id, order) in &self.orders {
            let shown = self.views.get(id).map(|view| (view.status.as_str(), view.total));
            if shown != Some((word(order.status), order.total)) {
                let is = word(order.status);
                found.push(format!("{id} is {is} at {}, and the read side shows {shown:?}", order.total));
            }
        }
        for stranger in self.views.keys().filter(|id| !self.orders.contains_key(*id)) {
            found.push(format!("the read side shows {stranger}, which has no saga"));
        }
    }

    /// Analytics sums up events; the ledgers are what happened.
    fn compare_totals(&self, found: &mut Vec<String>) {
        let mut expected = BTreeMap::<String, i64>::new();
        let mut count = |name: String, number: i64| {
            if number != 0 {
                *expected.entry(name).or_default() += number;
            }
        };
        for order in self.orders.values() {
            count("orders accepted".into(), 1);
            count(format!("ordered {}", order.currency), order.total);
        }
        let confirmed = self.confirmed().count();
        count("orders confirmed".into(), i64::try_from(confirmed).unwrap_or(i64::MAX));
        for charge in &self.charges {
            count(format!("captured {}", charge.currency), charge.amount_minor);
        }
        for refund in &self.refunds {
            let charge = self.charges.iter().find(|charge| charge.charge_id == refund.charge_id);
            let currency = charge.map_or("?", |charge| charge.currency.as_str());
            count(format!("refunded {currency}"), refund.amount_minor);
        }
        let shipped: u64 = self.stock.values().map(|stock| stock.shipped).sum();
        count("pieces shipped".into(), i64::try_from(shipped).unwrap_or(i64::MAX));
        let under_way = self.shipments.iter().filter(|shipment| shipment.cancelled_at.is_none()).count();
        count("shipments".into(), i64::try_from(under_way).unwrap_or(i64::MAX));
        for notice in &self.notices {
            count(format!("notices {}", notice.kind), 1);
        }
        let names: BTreeSet<&String> = expected.keys().chain(self.totals.keys()).collect();
        // Analytics tells the ways to be cancelled apart; the order service knows one.
        let is_cancelled = |name: &str| name.starts_with("orders ") && !expected.contains_key(name);
        let (cancelled, names): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| is_cancelled(name));
        let says: i64 = cancelled.into_iter().map(|name| self.totals[name]).sum();
        let there =
            self.orders.values().filter(|order| order.status == OrderStatus::Cancelled).count() as i64;
        if says != there {
            found.push(format!("analytics counts {says} orders that were cancelled, and there are {there}"));
        }
        for name in names {
            let total = |totals: &BTreeMap<String, i64>| totals.get(name).copied().unwrap_or(0);
            let (says, expected) = (total(&self.totals), total(&expected));
            if says != expected {
                found.push(format!("analytics counts {says} {name}, and there are {expected}"));
            }
        }
    }
}

impl Placed {
    fn of(order: &order::aggregate::Order, saga_ended: bool) -> Placed {
        let placed = order.placed();
        let mut pieces = BTreeMap::new();
        for item in &placed.items {
            *pieces.entry(item.sku.clone()).or_default() += u64::from(item.quantity);
        }
        let (currency, total) = (placed.currency.clone(), placed.total);
        Placed { status: order.status(), currency, total, pieces, saga_ended }
    }
}

/// Rebuilds a ledger from its journal, and reads it.
fn ledger<L: Ledger>(empty: L, store: &RedbStore, read: impl FnOnce(&L)) -> Result<(), StoreError> {
    let provider = Provider::open(empty, Arc::new(store.clone()))?;
    read(&provider.ledger());
    Ok(())
}

impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let confirmed = self.confirmed().count();
        let cancelled = self.orders.values().filter(|order| order.status == OrderStatus::Cancelled).count();
        writeln!(f, "orders     {}: {confirmed} confirmed, {cancelled} cancelled", self.orders.len())?;
        let (captured, refunded, owed) = (self.captured(), self.refunded(), self.owed());
        writeln!(f, "money      {captured} captured, {refunded} given back, {owed} owed, in minor units")?;
        let sum = |of: fn(&Stock) -> u64| self.stock.values().map(of).sum::<u64>();
        let (shipped, reserved) = (sum(|stock| stock.shipped), sum(|stock| stock.reserved));
        writeln!(
            f,
            "stock      {shipped} pieces of {} articles shipped, {reserved} reserved",
            self.stock.len()
        )?;
        let under_way = self.shipments.iter().filter(|shipment| shipment.cancelled_at.is_none()).count();
        writeln!(f, "shipments  {under_way} under way, {} called off", self.shipments.len() - under_way)?;
        writeln!(f, "notices    {}", self.notices.len())?;
        write!(f, "read side  {} orders", self.views.len())
    }
}

#[cfg(test)]
mod tests;

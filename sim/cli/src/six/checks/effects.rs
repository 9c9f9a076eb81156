//! What really happened for an order: at the gateway, the carrier and the mail provider, and in the stock.

use std::collections::BTreeMap;

use context::Timestamp;
use inventory::reservation::{Reservation, Status};
use kit::{ReadTables, StoreError, StoreExt};
use order::aggregate::Order;
use outside::carrier::Shipment;
use outside::gateway::{Charge, Refund};
use outside::mail::Notice;
use proto::OrderId;
use reports::Evidence;

use crate::six::measure;
use crate::six::parts::Parts;

/// Everything that happened for one order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Effects {
    /// The run's beginning, from which evidence counts its times.
    pub(crate) began: Timestamp,
    pub(crate) charges: Vec<Charge>,
    pub(crate) refunds: Vec<Refund>,
    pub(crate) shipments: Vec<Shipment>,
    pub(crate) notices: Vec<Notice>,
    pub(crate) reservation: Option<Reservation>,
}

impl Effects {
    /// What the customer has paid and not got back, in minor units.
    pub(crate) fn paid(&self) -> i64 {
        let captured: i64 = self.charges.iter().map(|charge| charge.amount_minor).sum();
        let refunded: i64 = self.refunds.iter().map(|refund| refund.amount_minor).sum();
        captured - refunded
    }

    /// Shipments that are on their way.
    pub(crate) fn on_their_way(&self) -> usize {
        self.shipments.iter().filter(|shipment| shipment.cancelled_at.is_none()).count()
    }

    /// Goods left the house for it.
    pub(crate) fn has_stock(&self) -> bool {
        self.reservation.as_ref().is_some_and(|reservation| reservation.status == Status::Committed)
    }

    /// Goods are set aside for it.
    pub(crate) fn holds_stock(&self) -> bool {
        self.reservation.as_ref().is_some_and(|reservation| reservation.status == Status::Reserved)
    }

    /// All of it in the order of time, then the stock.
    pub(crate) fn evidence(&self) -> Vec<Evidence> {
        let mut evidence = Vec::new();
        for charge in &self.charges {
            evidence.push(captured(self.began, charge));
        }
        for refund in &self.refunds {
            let Refund { refund_id, charge_id, order_id, amount_minor, .. } = refund;
            let what = format!("{refund_id}: {amount_minor} of {charge_id} given back for {order_id}");
            evidence.push(at(self.began, refund.at, what));
        }
        for shipment in &self.shipments {
            evidence.push(booked(self.began, shipment));
            if let Some(cancelled) = shipment.cancelled_at {
                let what = format!("{} called off", shipment.tracking_number);
                evidence.push(at(self.began, cancelled, what));
            }
        }
        for notice in &self.notices {
            evidence.push(told(self.began, notice));
        }
        evidence.sort_by_key(|evidence| evidence.at);
        evidence.extend(self.reservation.as_ref().map(|reservation| {
            let what = format!(
                "stock of {}: {:?}, {:?}",
                reservation.order_id, reservation.status, reservation.lines
            );
            found(what)
        }));
        evidence
    }
}

/// A charge as evidence.
pub(crate) fn captured(began: Timestamp, charge: &Charge) -> Evidence {
    let Charge { charge_id, key, payment_id, order_id, amount_minor, currency, .. } = charge;
    let what =
        format!("{charge_id}: {amount_minor} {currency} captured for {order_id}, {payment_id}, key `{key}`");
    at(began, charge.at, what)
}

/// A booking as evidence.
pub(crate) fn booked(began: Timestamp, shipment: &Shipment) -> Evidence {
    let Shipment { key, order_id, tracking_number, .. } = shipment;
    at(began, shipment.at, format!("{tracking_number} booked for {order_id}, key `{key}`"))
}

/// A notice as evidence.
pub(crate) fn told(began: Timestamp, notice: &Notice) -> Evidence {
    let Notice { notice_id, key, order_id, kind, to, .. } = notice;
    at(began, notice.at, format!("{notice_id}: {to} told `{kind}` of {order_id}, key `{key}`"))
}

/// Evidence with a time of the run's clock.
pub(crate) fn at(began: Timestamp, time: Timestamp, what: String) -> Evidence {
    Evidence { at: Some(time.since(began)), ..found(what) }
}

/// Evidence of a state that was found.
pub(crate) fn found(what: String) -> Evidence {
    Evidence { at: None, event: None, place: None, what }
}

/// What happened for each order, by order id.
pub(crate) fn by_order(parts: &Parts) -> BTreeMap<String, Effects> {
    let mut all = BTreeMap::<String, Effects>::new();
    let nothing = || Effects { began: parts.began, ..Effects::default() };
    let gateway = parts.gateway.ledger();
    for charge in gateway.charges() {
        all.entry(charge.order_id.clone()).or_insert_with(nothing).charges.push(charge.clone());
    }
    for refund in gateway.refunds() {
        all.entry(refund.order_id.clone()).or_insert_with(nothing).refunds.push(refund.clone());
    }
    for shipment in parts.carrier.ledger().shipments() {
        all.entry(shipment.order_id.clone()).or_insert_with(nothing).shipments.push(shipment.clone());
    }
    for notice in parts.mail.ledger().notices() {
        all.entry(notice.order_id.clone()).or_insert_with(nothing).notices.push(notice.clone());
    }
    for (order, reservation) in read(&parts.stores.inventory, |tables| inventory::RESERVATIONS.all(tables)) {
        all.entry(order.into()).or_insert_with(nothing).reservation = Some(reservation);
    }
    all
}

/// The orders that were accepted, as the order service has them.
pub(crate) fn orders(parts: &Parts) -> BTreeMap<OrderId, Order> {
    let ids = measure::sagas(parts)
        .into_iter()
        .map(|(_, saga)| OrderId::new(&saga.key).expect("a saga is about an order"));
    read(&parts.stores.order, |tables| {
        ids.map(|id| Ok((id.clone(), order::history::load(tables, &id)?))).collect()
    })
}

/// Reads a store in memory, which cannot fail but for damage.
pub(crate) fn read<T>(
    store: &kit::MemStore,
    work: impl FnOnce(&dyn ReadTables) -> Result<T, StoreError>,
) -> T {
    store.read_with(work).unwrap_or_else(|error| panic!("a store cannot be read: {error}"))
}

//! No order is shipped twice.

use std::sync::Arc;

use harness::check::{Breaches, Check, Moment, Occasion};
use harness::system::CheckWords;
use outside::carrier::Shipment;

use super::at_most_once::AtMostOnce;
use super::effects::booked;
use crate::six::parts::Parts;

pub(crate) const WORDS: CheckWords = CheckWords {
    name: "shipped_at_most_once",
    exactly_once: true,
    claim: "the carrier books at most one shipment for an order, whatever was delivered or tried again",
};

/// Two parcels for one payment are goods given away, and a carrier's bill for both.
pub(crate) struct ShippedAtMostOnce {
    parts: Arc<Parts>,
    shipments: AtMostOnce<String, Shipment>,
}

impl ShippedAtMostOnce {
    pub(crate) fn new(parts: Arc<Parts>) -> ShippedAtMostOnce {
        ShippedAtMostOnce { parts, shipments: AtMostOnce::new() }
    }
}

impl Check for ShippedAtMostOnce {
    fn name(&self) -> &'static str {
        WORDS.name
    }

    fn is_exactly_once(&self) -> bool {
        true
    }

    fn look(&mut self, _moment: Moment, occasion: Occasion<'_>, breaches: &mut Breaches) {
        if !matches!(occasion, Occasion::Step | Occasion::End { .. }) {
            return;
        }
        let (began, ledger) = (self.parts.began, self.parts.carrier.ledger());
        let order = |shipment: &Shipment| shipment.order_id.clone();
        self.shipments.read_on(ledger.shipments(), order, |shipment, shipments| {
            let says = format!("order {} was booked {} times", shipment.order_id, shipments.len());
            breaches.report(says, shipments.iter().map(|entry| booked(began, entry)).collect());
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Shop, broken, holds};
    use super::*;

    #[test]
    fn one_shipment_for_each_order_holds() {
        holds(&mut ShippedAtMostOnce::new(Shop::with_two_orders().parts()));
    }

    #[test]
    fn planted_a_second_booking_is_found() {
        let shop = Shop::with_two_orders();
        shop.ship("o-0001", "another-key");
        let found = broken(&mut ShippedAtMostOnce::new(shop.parts()));
        assert_eq!(found, ["order o-0001 was booked 2 times"]);
    }
}

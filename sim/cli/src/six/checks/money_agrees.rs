//! The money agrees.

use std::collections::BTreeMap;
use std::sync::Arc;

use harness::check::{Breaches, Check, Moment, Occasion};
use harness::system::CheckWords;
use order::aggregate::Order;
use payment::payment::Captured;
use payment::{Payment, Status};
use proto::OrderId;
use proto::order::OrderStatus;

use super::effects::{Effects, by_order, found, orders, read};
use crate::six::parts::Parts;

pub(crate) const WORDS: CheckWords = CheckWords {
    name: "money_agrees",
    exactly_once: false,
    claim: "captured less refunded is what confirmed orders cost, and the payment service knows of every charge the gateway made",
};

/// The books must close: what the gateway will pay out is what the shop has sold. A charge that the payment service does
/// not know of will never be refunded, and one that it wrongly believes in is goods given away.
pub(crate) struct MoneyAgrees {
    parts: Arc<Parts>,
}

impl MoneyAgrees {
    pub(crate) fn new(parts: Arc<Parts>) -> MoneyAgrees {
        MoneyAgrees { parts }
    }
}

impl Check for MoneyAgrees {
    fn name(&self) -> &'static str {
        WORDS.name
    }

    fn look(&mut self, _moment: Moment, occasion: Occasion<'_>, breaches: &mut Breaches) {
        let Occasion::End { at_rest: true } = occasion else { return };
        let (effects, orders) = (by_order(&self.parts), orders(&self.parts));
        close_books(&effects, &orders, breaches);
        let payments = read(&self.parts.stores.payment, |tables| payment::PAYMENTS.all(tables));
        let payments: BTreeMap<String, Payment> =
            payments.into_iter().map(|(_, payment)| (payment.payment_id.clone(), payment)).collect();
        for effects in effects.values() {
            compare_charges(effects, &payments, breaches);
        }
        for payment in payments.values() {
            compare_belief(payment, effects.get(&payment.order_id), breaches);
        }
    }
}

/// Over all orders: captured less refunded is what confirmed orders cost.
fn close_books(
    effects: &BTreeMap<String, Effects>,
    orders: &BTreeMap<OrderId, Order>,
    breaches: &mut Breaches,
) {
    let captured: i64 = effects.values().flat_map(|one| &one.charges).map(|charge| charge.amount_minor).sum();
    let refunded: i64 = effects.values().flat_map(|one| &one.refunds).map(|refund| refund.amount_minor).sum();
    let confirmed = orders.values().filter(|order| order.status() == OrderStatus::Confirmed);
    let owed: i64 = confirmed.map(|order| order.placed().total).sum();
    if captured - refunded != owed {
        let says = format!(
            "{captured} captured less {refunded} refunded is not the {owed} that confirmed orders cost"
        );
        let paid = |id: &OrderId| effects.get(id.as_str()).map_or(0, Effects::paid);
        let owes =
            |order: &Order| if order.status() == OrderStatus::Confirmed { order.placed().total } else { 0 };
        let odd = orders.iter().filter(|(id, order)| paid(id) != owes(order));
        let evidence =
            odd.map(|(id, order)| found(format!("order {id}: owed {}, paid {}", owes(order), paid(id))));
        breaches.report(says, evidence.collect());
    }
}

/// Every charge that the gateway made is one that the payment service knows of.
fn compare_charges(effects: &Effects, payments: &BTreeMap<String, Payment>, breaches: &mut Breaches) {
    for charge in &effects.charges {
        let known = payments.get(&charge.payment_id).and_then(|payment| match &payment.status {
            Status::Captured(captured) | Status::Refunded(captured) => Some(captured),
            Status::Declined(_) | Status::Voided => None,
        });
        let matches = |known: &Captured| {
            (&known.charge_id, known.amount_minor) == (&charge.charge_id, charge.amount_minor)
        };
        if !known.is_some_and(matches) {
            let says = format!(
                "the payment service does not know of {} for order {}",
                charge.charge_id, charge.order_id
            );
            breaches.report(says, effects.evidence());
        }
    }
}

/// What the payment service believes of a payment is what the gateway did.
fn compare_belief(payment: &Payment, effects: Option<&Effects>, breaches: &mut Breaches) {
    let kept = effects.map_or(0, Effects::paid);
    let believed = match &payment.status {
        Status::Captured(captured) => captured.amount_minor,
        Status::Declined(_) | Status::Refunded(_) | Status::Voided => 0,
    };
    if believed != kept {
        let says = format!(
            "the payment service believes that {believed} is paid for order {}, the gateway has {kept}",
            payment.order_id
        );
        breaches.report(says, effects.map(Effects::evidence).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Shop, broken, holds};
    use super::*;

    fn check(shop: &Shop) -> MoneyAgrees {
        MoneyAgrees::new(shop.parts())
    }

    #[test]
    fn books_that_close_hold() {
        holds(&mut check(&Shop::with_two_orders()));
    }

    #[test]
    fn planted_a_charge_that_nobody_knows_of_is_found() {
        let shop = Shop::with_two_orders();
        shop.charge("o-0001", 500, "stray");
        let found = broken(&mut check(&shop));
        assert_eq!(found[0], "4498 captured less 0 refunded is not the 3998 that confirmed orders cost");
        assert_eq!(found[1], "the payment service does not know of ch_000002 for order o-0001");
        assert!(found[2].starts_with("the payment service believes that 3998 is paid for order o-0001"));
    }
}

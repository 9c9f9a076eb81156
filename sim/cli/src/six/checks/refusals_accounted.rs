//! Every refusal is accounted for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use broker::ConsumerRecord;
use context::Timestamp;
use harness::check::{Breaches, Check, Moment, Occasion};
use harness::system::CheckWords;
use kit::middleware::headers;
use order::aggregate::{Order, word};
use proto::OrderId;
use proto::order::{CancelReason, OrderStatus};
use proto::topics;
use reports::Evidence;

use super::effects::{by_order, found, orders};
use crate::six::archive::{Shared, place};
use crate::six::parts::Parts;
use crate::six::plan::Refusal;

pub(crate) const WORDS: CheckWords = CheckWords {
    name: "refusals_accounted_for",
    exactly_once: false,
    claim: "an order is refused for a reason that the refusing side knows of, none of those that must be refused is confirmed, and what is in the dead letters cost no confirmed order anything",
};

/// A refusal that nobody made is a sale lost to a bug, and a dead letter that nobody explains is a message lost with a
/// receipt. A command or answer whose retries ran out while the outside was away may lie there, if its order was
/// cancelled for it; anything else there is a defect.
pub(crate) struct RefusalsAccountedFor {
    parts: Arc<Parts>,
    archive: Shared,
}

impl RefusalsAccountedFor {
    pub(crate) fn new(parts: Arc<Parts>, archive: Shared) -> RefusalsAccountedFor {
        RefusalsAccountedFor { parts, archive }
    }

    /// Whoever refused knows of it.
    fn compare_reasons(&self, orders: &BTreeMap<OrderId, Order>, breaches: &mut Breaches) {
        let declined: BTreeSet<String> =
            self.parts.gateway.ledger().declines().iter().map(|decline| decline.order_id.clone()).collect();
        let unserved: BTreeSet<String> =
            self.parts.carrier.ledger().refusals().iter().map(|refusal| refusal.order_id.clone()).collect();
        let effects = by_order(&self.parts);
        for (id, order) in orders.iter().filter(|(_, order)| order.status() == OrderStatus::Cancelled) {
            let (who, knows) = match order.cancel_reason() {
                CancelReason::PaymentDeclined => ("gateway", declined.contains(id.as_str())),
                CancelReason::ShipmentRefused => ("carrier", unserved.contains(id.as_str())),
                CancelReason::OutOfStock => {
                    let reservation =
                        effects.get(id.as_str()).and_then(|effects| effects.reservation.as_ref());
                    ("inventory", reservation.is_some_and(|reservation| refused(&reservation.status)))
                }
                CancelReason::Customer | CancelReason::StepTimedOut | CancelReason::Unspecified => continue,
            };
            if !knows {
                let says = format!("order {id} was refused by the {who}, which does not know of it");
                breaches.report(says, vec![found(format!("cancelled for {:?}", order.cancel_reason()))]);
            }
        }
        for planned in &self.parts.plan.orders {
            let Some(refusal) = planned.refusal else { continue };
            if orders.get(&planned.id).is_some_and(|order| order.status() == OrderStatus::Confirmed) {
                let says =
                    format!("order {} is confirmed, though it is one that must be refused", planned.id);
                breaches.report(says, vec![found(format!("it asked for {}", asked_for(refusal)))]);
            }
        }
    }

    fn read_dead_letters(&self, orders: &BTreeMap<OrderId, Order>, breaches: &mut Breaches) {
        let archive = self.archive.lock();
        let letters = topics::all().into_iter().filter(|topic| topic.ends_with(".dlq"));
        for letter in archive.of(letters) {
            let key = letter.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()).unwrap_or("?");
            let order = OrderId::new(key).ok().and_then(|id| orders.get(&id));
            let class = letter.headers.text(headers::CLASS).unwrap_or("?");
            let was_cancelled = order.is_some_and(|order| order.status() == OrderStatus::Cancelled);
            if class == "transient" && was_cancelled {
                continue;
            }
            let ended = order.map_or("unknown", |order| word(order.status()));
            let says = format!("a dead letter of class `{class}` is about order {key}, which is {ended}");
            breaches.report(says, vec![shown(self.parts.began, letter)]);
        }
    }
}

impl Check for RefusalsAccountedFor {
    fn name(&self) -> &'static str {
        WORDS.name
    }

    fn look(&mut self, _moment: Moment, occasion: Occasion<'_>, breaches: &mut Breaches) {
        self.archive.hear(occasion);
        let Occasion::End { at_rest: true } = occasion else { return };
        let orders = orders(&self.parts);
        self.compare_reasons(&orders, breaches);
        self.read_dead_letters(&orders, breaches);
    }
}

/// Inventory said no: to the reservation, or to its commit after it expired.
fn refused(status: &inventory::reservation::Status) -> bool {
    use inventory::reservation::Status;
    matches!(status, Status::Refused(_) | Status::Expired)
}

fn asked_for(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::PaymentDeclined => "a payment that the gateway declines",
        Refusal::OutOfStock => "something that is sold out",
        Refusal::ShipmentRefused => "a delivery where the carrier does not go",
    }
}

fn shown(began: Timestamp, letter: &ConsumerRecord) -> Evidence {
    let header = |name| letter.headers.text(name).unwrap_or("?");
    let what = format!(
        "{}/{}@{} could not be handled by {}: {}",
        header(headers::TOPIC),
        header(headers::PARTITION),
        header(headers::OFFSET),
        header(headers::GROUP),
        header(headers::ERROR)
    );
    Evidence { at: Some(letter.timestamp.since(began)), event: None, place: Some(place(letter)), what }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Shop, breaches, broken, holds};
    use super::*;

    fn check(shop: &Shop) -> RefusalsAccountedFor {
        RefusalsAccountedFor::new(shop.parts(), shop.archive())
    }

    #[test]
    fn a_refusal_that_the_gateway_made_holds() {
        holds(&mut check(&Shop::with_two_orders()));
    }

    #[test]
    fn planted_a_refusal_that_nobody_made_is_found() {
        let mut shop = Shop::with_two_orders();
        shop.refuse_without_cause("o-0003");
        let found = broken(&mut check(&shop));
        assert_eq!(found, ["order o-0003 was refused by the gateway, which does not know of it"]);
    }

    #[test]
    fn planted_an_order_that_should_have_been_refused_is_found() {
        let mut shop = Shop::with_two_orders();
        // By plan, the gateway declines o-0004.
        shop.complete("o-0004");
        let found = broken(&mut check(&shop));
        assert_eq!(found, ["order o-0004 is confirmed, though it is one that must be refused"]);
    }

    #[test]
    fn planted_a_message_in_the_dead_letters_is_found_with_its_place_and_error() {
        let shop = Shop::with_two_orders();
        shop.dead_letter("o-0001", "parse");
        let found = breaches(&mut check(&shop));
        assert_eq!(found[0].says, "a dead letter of class `parse` is about order o-0001, which is confirmed");
        let evidence = &found[0].evidence[0];
        assert_eq!(evidence.place.as_deref(), Some("payment.commands.dlq/0@0"));
        assert_eq!(evidence.what, "payment.commands/0@17 could not be handled by payment: the value is null");
    }

    #[test]
    fn a_message_given_up_while_the_outside_was_away_is_accounted_for_if_its_order_was_cancelled() {
        let shop = Shop::with_two_orders();
        shop.dead_letter("o-0002", "transient");
        holds(&mut check(&shop));
    }

    #[test]
    fn planted_a_message_given_up_for_a_confirmed_order_is_found() {
        let shop = Shop::with_two_orders();
        shop.dead_letter("o-0001", "transient");
        assert_eq!(broken(&mut check(&shop)).len(), 1);
    }
}

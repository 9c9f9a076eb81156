//! All of a saga's effects, or none.

use std::sync::Arc;

use harness::check::{Breaches, Check, Moment, Occasion};
use harness::system::CheckWords;
use order::aggregate::{Order, word};
use proto::order::OrderStatus;

use super::effects::{Effects, by_order, orders};
use crate::six::parts::Parts;

pub(crate) const WORDS: CheckWords = CheckWords {
    name: "effects_all_or_none",
    exactly_once: false,
    claim: "a confirmed order is paid, shipped and out of stock; a cancelled one is none of it",
};

/// What half a saga leaves behind is someone's money or goods: a customer who paid for what was never sent, a parcel
/// that nobody paid for, stock that is set aside for ever.
pub(crate) struct EffectsAllOrNone {
    parts: Arc<Parts>,
}

impl EffectsAllOrNone {
    pub(crate) fn new(parts: Arc<Parts>) -> EffectsAllOrNone {
        EffectsAllOrNone { parts }
    }
}

impl Check for EffectsAllOrNone {
    fn name(&self) -> &'static str {
        WORDS.name
    }

    fn look(&mut self, _moment: Moment, occasion: Occasion<'_>, breaches: &mut Breaches) {
        let Occasion::End { at_rest: true } = occasion else { return };
        let effects = by_order(&self.parts);
        for (id, order) in orders(&self.parts) {
            let effects = effects.get(id.as_str()).cloned().unwrap_or_default();
            let wrong = wrong(&order, &effects);
            if !wrong.is_empty() {
                let says = format!("order {id} is {}, but {}", word(order.status()), wrong.join(" and "));
                breaches.report(says, effects.evidence());
            }
        }
        // Orders without a saga have no effects either.
        let known = orders(&self.parts);
        for (id, effects) in
            effects.iter().filter(|(id, _)| !known.keys().any(|order| order.as_str() == id.as_str()))
        {
            if effects.paid() != 0
                || effects.on_their_way() > 0
                || effects.has_stock()
                || effects.holds_stock()
            {
                breaches.report(format!("order {id} was never taken, but has effects"), effects.evidence());
            }
        }
    }
}

/// What does not fit the order's end.
fn wrong(order: &Order, effects: &Effects) -> Vec<String> {
    let mut wrong = Vec::new();
    let (paid, on_their_way) = (effects.paid(), effects.on_their_way());
    match order.status() {
        OrderStatus::Confirmed => {
            let total = order.placed().total;
            if paid != total {
                wrong.push(format!("{paid} of {total} is paid"));
            }
            if on_their_way != 1 {
                wrong.push(format!("{on_their_way} shipments are on their way"));
            }
            if !effects.has_stock() {
                wrong.push("no goods left the house".to_owned());
            }
        }
        OrderStatus::Cancelled => {
            if paid != 0 {
                wrong.push(format!("{paid} is paid and not given back"));
            }
            if on_their_way != 0 {
                wrong.push(format!("{on_their_way} shipments are on their way"));
            }
            if effects.has_stock() {
                wrong.push("goods left the house".to_owned());
            }
            if effects.holds_stock() {
                wrong.push("stock is set aside for it".to_owned());
            }
        }
        // Another check says so.
        _ => {}
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Shop, broken, holds};
    use super::*;

    fn check(shop: &Shop) -> EffectsAllOrNone {
        EffectsAllOrNone::new(shop.parts())
    }

    #[test]
    fn a_confirmed_order_with_all_and_a_cancelled_one_with_none_hold() {
        holds(&mut check(&Shop::with_two_orders()));
    }

    #[test]
    fn planted_money_that_a_cancelled_order_kept_is_found() {
        let shop = Shop::with_two_orders();
        shop.charge("o-0002", 500, "stray");
        assert_eq!(
            broken(&mut check(&shop)),
            ["order o-0002 is cancelled, but 500 is paid and not given back"]
        );
    }

    #[test]
    fn planted_a_parcel_for_a_cancelled_order_is_found() {
        let shop = Shop::with_two_orders();
        shop.ship("o-0002", "stray");
        let found = broken(&mut check(&shop));
        assert_eq!(found, ["order o-0002 is cancelled, but 1 shipments are on their way"]);
    }

    #[test]
    fn planted_stock_that_stays_set_aside_is_found() {
        let shop = Shop::with_two_orders();
        shop.reservation("o-0002", inventory::reservation::Status::Reserved);
        let found = broken(&mut check(&shop));
        assert_eq!(found, ["order o-0002 is cancelled, but stock is set aside for it"]);
    }

    #[test]
    fn planted_a_confirmed_order_without_goods_is_found() {
        let shop = Shop::with_two_orders();
        shop.reservation("o-0001", inventory::reservation::Status::Released);
        let found = broken(&mut check(&shop));
        assert_eq!(found, ["order o-0001 is confirmed, but no goods left the house"]);
    }

    #[test]
    fn planted_money_for_an_order_nobody_took_is_found() {
        let shop = Shop::with_two_orders();
        shop.charge("o-0009", 500, "stray");
        assert_eq!(broken(&mut check(&shop)), ["order o-0009 was never taken, but has effects"]);
    }
}

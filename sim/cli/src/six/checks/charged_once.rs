//! No order is charged twice.

use std::sync::Arc;

use harness::check::{Breaches, Check, Moment, Occasion};
use harness::system::CheckWords;
use outside::gateway::Charge;

use super::at_most_once::AtMostOnce;
use super::effects::captured;
use crate::six::parts::Parts;

pub(crate) const WORDS: CheckWords = CheckWords {
    name: "charged_exactly_once",
    exactly_once: true,
    claim: "the gateway captures money for an order at most once, whatever was delivered or tried again",
};

/// The mistake that customers do not forgive. The gateway's ledger is the truth: what the payment service believes may
/// look right while the customer paid twice. It must hold at any time, also if one of the charges is given back later.
pub(crate) struct ChargedExactlyOnce {
    parts: Arc<Parts>,
    charges: AtMostOnce<String, Charge>,
}

impl ChargedExactlyOnce {
    pub(crate) fn new(parts: Arc<Parts>) -> ChargedExactlyOnce {
        ChargedExactlyOnce { parts, charges: AtMostOnce::new() }
    }
}

impl Check for ChargedExactlyOnce {
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
        let (began, ledger) = (self.parts.began, self.parts.gateway.ledger());
        let order = |charge: &Charge| charge.order_id.clone();
        self.charges.read_on(ledger.charges(), order, |charge, charges| {
            let says = format!("order {} was charged {} times", charge.order_id, charges.len());
            breaches.report(says, charges.iter().map(|entry| captured(began, entry)).collect());
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Shop, breaches, holds};
    use super::*;

    #[test]
    fn one_charge_for_each_order_holds() {
        holds(&mut ChargedExactlyOnce::new(Shop::with_two_orders().parts()));
    }

    #[test]
    fn planted_a_second_charge_is_found_with_both_and_their_times() {
        let shop = Shop::with_two_orders();
        shop.charge("o-0001", 3_998, "another-key");
        let found = breaches(&mut ChargedExactlyOnce::new(shop.parts()));
        assert_eq!(found.len(), 1, "reported once, though steps go on");
        assert_eq!(found[0].says, "order o-0001 was charged 2 times");
        let evidence: Vec<String> =
            found[0].evidence.iter().map(|one| format!("{:?} {}", one.at.unwrap(), one.what)).collect();
        insta::assert_snapshot!(evidence.join("\n"), @r"
        2s ch_000001: 3998 EUR captured for o-0001, pay-o-0001, key `pay-o-0001`
        4s ch_000002: 3998 EUR captured for o-0001, pay-o-0001, key `another-key`
        ");
    }
}

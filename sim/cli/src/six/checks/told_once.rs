//! Customers are told once, and the truth.

use std::sync::Arc;

use harness::check::{Breaches, Check, Moment, Occasion};
use harness::system::CheckWords;
use outside::mail::Notice;
use proto::order::OrderStatus;

use super::at_most_once::AtMostOnce;
use super::effects::{orders, told};
use crate::six::parts::Parts;

pub(crate) const WORDS: CheckWords = CheckWords {
    name: "told_once",
    exactly_once: true,
    claim: "a customer is told once of an order, at most once of each kind, and in the end of what became of it",
};

/// A second mail is a nuisance; a mail that says `confirmed` for an order that was cancelled is a promise broken.
pub(crate) struct ToldOnce {
    parts: Arc<Parts>,
    /// By order and kind.
    notices: AtMostOnce<(String, String), Notice>,
}

impl ToldOnce {
    pub(crate) fn new(parts: Arc<Parts>) -> ToldOnce {
        ToldOnce { parts, notices: AtMostOnce::new() }
    }

    /// At any time: no kind twice.
    fn read_on(&mut self, breaches: &mut Breaches) {
        let (began, ledger) = (self.parts.began, self.parts.mail.ledger());
        let key = |notice: &Notice| (notice.order_id.clone(), notice.kind.clone());
        self.notices.read_on(ledger.notices(), key, |Notice { to, kind, order_id, .. }, notices| {
            let says = format!("{to} was told {} times `{kind}` of order {order_id}", notices.len());
            breaches.report(says, notices.iter().map(|entry| told(began, entry)).collect());
        });
    }

    /// At rest: of each order that it ended, and how.
    fn compare_with_orders(&self, breaches: &mut Breaches) {
        for (id, order) in orders(&self.parts) {
            let ended = match order.status() {
                OrderStatus::Confirmed => "confirmed",
                OrderStatus::Cancelled => "cancelled",
                // Another check says so.
                _ => continue,
            };
            let of_order = self.notices.entries().range((id.to_string(), String::new())..);
            let of_order = of_order.take_while(|((order, _), _)| order == id.as_str());
            let kinds: Vec<&str> = of_order.clone().map(|((_, kind), _)| kind.as_str()).collect();
            if kinds != [ended] {
                let says = format!("order {id} is {ended}, and its customer was told {kinds:?}");
                let notices = of_order.flat_map(|(_, notices)| notices);
                let told = notices.map(|notice| told(self.parts.began, notice));
                breaches.report(says, told.collect());
            }
        }
    }
}

impl Check for ToldOnce {
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
        self.read_on(breaches);
        if let Occasion::End { at_rest: true } = occasion {
            self.compare_with_orders(breaches);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Shop, broken, holds};
    use super::*;

    fn check(shop: &Shop) -> ToldOnce {
        ToldOnce::new(shop.parts())
    }

    #[test]
    fn one_true_notice_for_each_order_holds() {
        holds(&mut check(&Shop::with_two_orders()));
    }

    #[test]
    fn planted_a_second_mail_of_a_kind_is_found() {
        let shop = Shop::with_two_orders();
        shop.tell("o-0001", "confirmed", "another-key");
        assert_eq!(broken(&mut check(&shop)), ["c-1 was told 2 times `confirmed` of order o-0001"]);
    }

    #[test]
    fn planted_a_mail_that_is_not_true_is_found() {
        let shop = Shop::with_two_orders();
        shop.tell("o-0002", "confirmed", "another-key");
        let says = r#"order o-0002 is cancelled, and its customer was told ["cancelled", "confirmed"]"#;
        assert_eq!(broken(&mut check(&shop)), [says]);
    }

    #[test]
    fn planted_a_customer_whom_nobody_told_is_found() {
        let mut shop = Shop::with_two_orders();
        shop.complete_untold("o-0003");
        assert_eq!(broken(&mut check(&shop)), ["order o-0003 is confirmed, and its customer was told []"]);
    }
}

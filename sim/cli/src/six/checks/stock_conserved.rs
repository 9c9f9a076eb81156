//! Stock is conserved.

use std::collections::BTreeMap;
use std::sync::Arc;

use harness::check::{Breaches, Check, Moment, Occasion};
use harness::system::CheckWords;
use inventory::Stock;
use inventory::reservation::Status;
use proto::order::OrderStatus;

use super::effects::{found, orders, read};
use crate::six::parts::Parts;

pub(crate) const WORDS: CheckWords = CheckWords {
    name: "stock_conserved",
    exactly_once: false,
    claim: "of every SKU, available and reserved and shipped are what there was at first; in the end nothing is reserved, and shipped is what confirmed orders bought",
};

/// Stock that leaks is goods that cannot be sold until someone counts the shelves; stock that grows is goods sold twice.
pub(crate) struct StockConserved {
    parts: Arc<Parts>,
    /// SKUs that were reported.
    reported: BTreeMap<String, Stock>,
}

impl StockConserved {
    pub(crate) fn new(parts: Arc<Parts>) -> StockConserved {
        StockConserved { parts, reported: BTreeMap::new() }
    }

    /// At any time: nothing is made or lost.
    fn look_at_shelves(&mut self, moment: Moment, stock: &BTreeMap<String, Stock>, breaches: &mut Breaches) {
        for (sku, stock) in stock {
            let initial = self.parts.plan.initial_stock.get(sku).copied().unwrap_or(0);
            let now = stock.available + stock.reserved + stock.shipped;
            if (now != initial || stock.initial != initial)
                && self.reported.insert(sku.clone(), *stock).is_none()
            {
                let says = format!("there were {initial} of `{sku}`, and there are {now}");
                breaches.report(says, vec![moment.evidence(format!("{stock:?}"))]);
            }
        }
    }

    /// At rest: the shelves say what the reservations say, and both what the orders say.
    fn compare_with_orders(&self, stock: &BTreeMap<String, Stock>, breaches: &mut Breaches) {
        let mut bought = BTreeMap::<String, u64>::new();
        for order in orders(&self.parts).values().filter(|order| order.status() == OrderStatus::Confirmed) {
            for item in &order.placed().items {
                *bought.entry(item.sku.clone()).or_default() += u64::from(item.quantity);
            }
        }
        let mut gone = BTreeMap::<String, u64>::new();
        for (_, reservation) in
            read(&self.parts.stores.inventory, |tables| inventory::RESERVATIONS.all(tables))
        {
            if reservation.status == Status::Committed {
                for (sku, quantity) in reservation.lines {
                    *gone.entry(sku).or_default() += quantity;
                }
            }
        }
        for (sku, stock) in stock {
            let bought = bought.get(sku).copied().unwrap_or(0);
            let gone = gone.get(sku).copied().unwrap_or(0);
            if stock.reserved != 0 || stock.shipped != bought || gone != bought {
                let says = format!(
                    "of `{sku}`, {} are reserved and {} shipped, while confirmed orders bought {bought}",
                    stock.reserved, stock.shipped
                );
                breaches.report(says, vec![found(format!("{stock:?}, {gone} in committed reservations"))]);
            }
        }
    }
}

impl Check for StockConserved {
    fn name(&self) -> &'static str {
        WORDS.name
    }

    fn look(&mut self, moment: Moment, occasion: Occasion<'_>, breaches: &mut Breaches) {
        if !matches!(occasion, Occasion::Step | Occasion::End { .. }) {
            return;
        }
        let stock = read(&self.parts.stores.inventory, |tables| inventory::STOCK.all(tables));
        let stock: BTreeMap<String, Stock> = stock.into_iter().collect();
        self.look_at_shelves(moment, &stock, breaches);
        if let Occasion::End { at_rest: true } = occasion {
            self.compare_with_orders(&stock, breaches);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Shop, broken, holds};
    use super::*;

    fn check(shop: &Shop) -> StockConserved {
        StockConserved::new(shop.parts())
    }

    #[test]
    fn shelves_that_add_up_hold() {
        holds(&mut check(&Shop::with_two_orders()));
    }

    #[test]
    fn planted_a_piece_that_vanished_is_found() {
        let shop = Shop::with_two_orders();
        shop.change_stock(|stock| stock.available -= 1);
        assert_eq!(broken(&mut check(&shop)), ["there were 20 of `sku-1`, and there are 19"]);
    }

    #[test]
    fn planted_pieces_that_stay_reserved_are_found() {
        let shop = Shop::with_two_orders();
        shop.change_stock(|stock| {
            stock.available -= 2;
            stock.reserved += 2;
        });
        let says = "of `sku-1`, 2 are reserved and 2 shipped, while confirmed orders bought 2";
        assert_eq!(broken(&mut check(&shop)), [says]);
    }

    #[test]
    fn planted_pieces_that_were_shipped_for_nobody_are_found() {
        let shop = Shop::with_two_orders();
        shop.change_stock(|stock| {
            stock.available -= 1;
            stock.shipped += 1;
        });
        let says = "of `sku-1`, 0 are reserved and 3 shipped, while confirmed orders bought 2";
        assert_eq!(broken(&mut check(&shop)), [says]);
    }
}

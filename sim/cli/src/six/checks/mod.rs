//! What must be true of a shop, whatever goes wrong around it.
//!
//! Each check is a small type named by its claim. Those that hold at any time look after each step of time and judge by
//! the ledgers outside; those that hold of a finished shop look once, when it is at rest. What is under way when a run
//! ends without coming to rest may or may not have happened, and no check judges it.
//!
//! Start reading at [`effects`], which is what really happened for an order. Every check has a test in which a planted
//! defect breaks it.

mod at_most_once;
mod charged_once;
mod effects;
mod effects_all_or_none;
mod every_order_ends;
mod money_agrees;
mod read_model_is_fold;
mod refusals_accounted;
mod shipped_once;
mod stock_conserved;
mod told_once;
mod totals_are_fold;

#[cfg(test)]
mod testing;

use std::sync::Arc;

use harness::check::Check;
use harness::system::CheckWords;

use super::archive::Shared;
use super::parts::Parts;

/// The checks by name, in the order of [`all`].
pub const WORDS: [CheckWords; 10] = [
    every_order_ends::WORDS,
    effects_all_or_none::WORDS,
    charged_once::WORDS,
    money_agrees::WORDS,
    stock_conserved::WORDS,
    shipped_once::WORDS,
    told_once::WORDS,
    read_model_is_fold::WORDS,
    totals_are_fold::WORDS,
    refusals_accounted::WORDS,
];

/// The checks of one run.
pub fn all(parts: &Arc<Parts>, archive: &Shared) -> Vec<Box<dyn Check>> {
    let parts = || parts.clone();
    let archive = || archive.clone();
    vec![
        Box::new(every_order_ends::EveryOrderEnds::new(parts())),
        Box::new(effects_all_or_none::EffectsAllOrNone::new(parts())),
        Box::new(charged_once::ChargedExactlyOnce::new(parts())),
        Box::new(money_agrees::MoneyAgrees::new(parts())),
        Box::new(stock_conserved::StockConserved::new(parts())),
        Box::new(shipped_once::ShippedAtMostOnce::new(parts())),
        Box::new(told_once::ToldOnce::new(parts())),
        Box::new(read_model_is_fold::ReadModelIsTheFold::new(parts(), archive())),
        Box::new(totals_are_fold::TotalsAreTheFold::new(parts(), archive())),
        Box::new(refusals_accounted::RefusalsAccountedFor::new(parts(), archive())),
    ]
}

#[cfg(test)]
mod tests {
    use super::testing::Shop;
    use super::*;

    #[test]
    fn the_words_are_those_of_the_checks_that_run() {
        let shop = Shop::with_two_orders();
        let run = all(&shop.parts(), &shop.archive());
        let run: Vec<_> = run.iter().map(|check| (check.name(), check.is_exactly_once())).collect();
        assert_eq!(run, WORDS.map(|words| (words.name, words.exactly_once)));
    }
}

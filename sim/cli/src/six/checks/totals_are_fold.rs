//! Analytics' totals are the fold of all events.

use std::collections::BTreeSet;
use std::sync::Arc;

use analytics::{Event, Totals};
use harness::check::{Breaches, Check, Moment, Occasion};
use harness::system::CheckWords;
use proto::OrderId;
use proto::topics::EVENTS;

use super::effects::{found, read};
use crate::six::archive::Shared;
use crate::six::parts::Parts;

pub(crate) const WORDS: CheckWords = CheckWords {
    name: "totals_are_the_fold",
    exactly_once: false,
    claim: "analytics' totals are those that all events give, read from offset zero",
};

/// Totals that cannot be rebuilt cannot be trusted: nobody will ever know which of the two was right.
pub(crate) struct TotalsAreTheFold {
    parts: Arc<Parts>,
    archive: Shared,
}

impl TotalsAreTheFold {
    pub(crate) fn new(parts: Arc<Parts>, archive: Shared) -> TotalsAreTheFold {
        TotalsAreTheFold { parts, archive }
    }

    fn folded(&self) -> Totals {
        let messages = self.archive.lock().messages(EVENTS);
        let decoded = messages
            .iter()
            .filter_map(|message| Event::decode(message.topic(), &message.kind, &message.payload).ok());
        let events: Vec<(OrderId, Event)> = decoded
            .map(|event| (event.order_id().expect("a decoded event names its order"), event))
            .collect();
        analytics::fold(events.iter().map(|(order, event)| (order.clone(), event)))
    }
}

impl Check for TotalsAreTheFold {
    fn name(&self) -> &'static str {
        WORDS.name
    }

    fn look(&mut self, _moment: Moment, occasion: Occasion<'_>, breaches: &mut Breaches) {
        self.archive.hear(occasion);
        let Occasion::End { at_rest: true } = occasion else { return };
        let kept = read(&self.parts.stores.analytics, |tables| analytics::service::TOTALS.get(tables, &()));
        let (kept, folded) = (kept.unwrap_or_default(), self.folded());
        if kept == folded {
            return;
        }
        let names: BTreeSet<&String> = kept.0.keys().chain(folded.0.keys()).collect();
        let odd = names.into_iter().filter(|name| kept.get(name) != folded.get(name));
        let evidence = odd
            .map(|name| found(format!("{name}: {} kept, {} by the events", kept.get(name), folded.get(name))))
            .collect();
        breaches.report("the totals of analytics are not those that all events give", evidence);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Shop, breaches, holds};
    use super::*;

    fn check(shop: &Shop) -> TotalsAreTheFold {
        TotalsAreTheFold::new(shop.parts(), shop.archive())
    }

    #[test]
    fn totals_that_saw_every_event_hold() {
        let mut shop = Shop::with_two_orders();
        shop.add_up();
        holds(&mut check(&shop));
    }

    #[test]
    fn planted_totals_that_missed_an_order_are_found() {
        let mut shop = Shop::with_two_orders();
        shop.add_up();
        shop.complete("o-0003");
        let found = breaches(&mut check(&shop));
        assert_eq!(found[0].says, "the totals of analytics are not those that all events give");
        let evidence: Vec<&str> = found[0].evidence.iter().map(|one| one.what.as_str()).collect();
        assert!(evidence.contains(&"orders confirmed: 1 kept, 2 by the events"), "{evidence:?}");
    }
}

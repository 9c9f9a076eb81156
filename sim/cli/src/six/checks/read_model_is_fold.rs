//! The read model is the fold of the order events.

use std::collections::BTreeMap;
use std::sync::Arc;

use harness::check::{Breaches, Check, Moment, Occasion};
use harness::system::CheckWords;
use order::view::{self, OrderView};
use proto::OrderId;
use proto::order::Event;
use proto::topics::ORDER_EVENTS;

use super::effects::{found, read};
use crate::six::archive::Shared;
use crate::six::parts::Parts;

pub(crate) const WORDS: CheckWords = CheckWords {
    name: "read_model_is_the_fold",
    exactly_once: false,
    claim: "what people see of orders is what the events of order.events give, read from the first to the last, each once",
};

/// A read model that drifted is wrong for good, and looks right: an event applied twice or missed shows nowhere else.
pub(crate) struct ReadModelIsTheFold {
    parts: Arc<Parts>,
    archive: Shared,
}

impl ReadModelIsTheFold {
    pub(crate) fn new(parts: Arc<Parts>, archive: Shared) -> ReadModelIsTheFold {
        ReadModelIsTheFold { parts, archive }
    }

    fn folded(&self) -> BTreeMap<OrderId, OrderView> {
        let messages = self.archive.lock().messages([ORDER_EVENTS]);
        // What does not decode is in the dead letters, and is another check's.
        let events =
            messages.iter().filter_map(|message| Event::decode(&message.kind, &message.payload).ok());
        let events: Vec<(OrderId, Event)> =
            events.map(|event| (event.order_id().expect("a decoded event names its order"), event)).collect();
        view::fold(events.iter().map(|(order, event)| (order.clone(), event)))
    }
}

impl Check for ReadModelIsTheFold {
    fn name(&self) -> &'static str {
        WORDS.name
    }

    fn look(&mut self, _moment: Moment, occasion: Occasion<'_>, breaches: &mut Breaches) {
        self.archive.hear(occasion);
        let Occasion::End { at_rest: true } = occasion else { return };
        let shown: BTreeMap<OrderId, OrderView> =
            read(&self.parts.stores.order, |tables| view::ORDERS.all(tables)).into_iter().collect();
        let folded = self.folded();
        let orders: std::collections::BTreeSet<&OrderId> = shown.keys().chain(folded.keys()).collect();
        for order in orders {
            let (shown, folded) = (shown.get(order), folded.get(order));
            if shown != folded {
                let line = |what: &str, view: Option<&OrderView>| {
                    found(view.map_or_else(|| format!("{what}: nothing"), |view| format!("{what}: {view:?}")))
                };
                let evidence = vec![line("the events give", folded), line("the read model shows", shown)];
                breaches
                    .report(format!("the read model of order {order} is not what its events give"), evidence);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Shop, broken, holds};
    use super::*;

    fn check(shop: &Shop) -> ReadModelIsTheFold {
        ReadModelIsTheFold::new(shop.parts(), shop.archive())
    }

    #[test]
    fn a_read_model_that_saw_each_event_once_holds() {
        let mut shop = Shop::with_two_orders();
        shop.project();
        holds(&mut check(&shop));
    }

    #[test]
    fn planted_an_event_that_was_applied_twice_is_found() {
        let mut shop = Shop::with_two_orders();
        shop.project();
        shop.project();
        assert_eq!(
            broken(&mut check(&shop))[0],
            "the read model of order o-0001 is not what its events give"
        );
    }

    #[test]
    fn planted_events_that_were_missed_are_found() {
        let shop = Shop::with_two_orders();
        assert_eq!(broken(&mut check(&shop)).len(), 2);
    }
}

//! Every order ends.

use std::sync::Arc;

use harness::check::{Breaches, Check, Moment, Occasion};
use harness::system::CheckWords;
use kit::saga::Status;
use order::aggregate::word;
use proto::order::OrderStatus;

use super::effects::{at, found, orders};
use crate::six::measure;
use crate::six::parts::Parts;

pub(crate) const WORDS: CheckWords = CheckWords {
    name: "every_order_ends",
    exactly_once: false,
    claim: "every order that Kafka acknowledged to its customer is taken, and ends confirmed or cancelled as its saga did",
};

/// A customer whose order was acknowledged and then forgotten waits for ever, and nobody knows: no saga is stuck, since
/// none was started. And a saga that ended otherwise than its order tells the customer one thing and does another.
pub(crate) struct EveryOrderEnds {
    parts: Arc<Parts>,
}

impl EveryOrderEnds {
    pub(crate) fn new(parts: Arc<Parts>) -> EveryOrderEnds {
        EveryOrderEnds { parts }
    }
}

impl Check for EveryOrderEnds {
    fn name(&self) -> &'static str {
        WORDS.name
    }

    fn look(&mut self, _moment: Moment, occasion: Occasion<'_>, breaches: &mut Breaches) {
        let Occasion::End { at_rest: true } = occasion else { return };
        let orders = orders(&self.parts);
        for (id, acknowledged) in self.parts.desk.accepted().iter() {
            if !orders.contains_key(id) {
                let placed = at(
                    self.parts.began,
                    *acknowledged,
                    format!("order {id} was acknowledged to its customer"),
                );
                breaches.report(format!("order {id} was placed, and never taken"), vec![placed]);
            }
        }
        for (_, saga) in measure::sagas(&self.parts) {
            let (_, order) =
                orders.iter().find(|(id, _)| id.as_str() == saga.key).expect("orders are those of sagas");
            let agrees = match saga.status {
                Status::Completed => order.status() == OrderStatus::Confirmed,
                Status::Compensated => order.status() == OrderStatus::Cancelled,
                Status::Forward(_) | Status::Backward(_) => false,
            };
            if !agrees {
                let says = format!("order {} is {}, and its saga is not", saga.key, word(order.status()));
                breaches.report(says, vec![found(saga.to_string())]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::OrderId;

    use super::super::testing::{Shop, broken, holds};
    use super::*;

    fn check(shop: &Shop) -> EveryOrderEnds {
        EveryOrderEnds::new(shop.parts())
    }

    #[test]
    fn a_shop_whose_orders_ended_holds() {
        let shop = Shop::with_two_orders();
        holds(&mut check(&shop));
    }

    #[test]
    fn planted_an_order_that_was_acknowledged_and_forgotten_is_found() {
        let shop = Shop::with_two_orders();
        shop.parts().desk.accepted().insert(OrderId::new("o-0003").unwrap(), world::EPOCH);
        assert_eq!(broken(&mut check(&shop)), ["order o-0003 was placed, and never taken"]);
    }

    #[test]
    fn planted_a_saga_that_stopped_in_the_middle_is_found() {
        let mut shop = Shop::with_two_orders();
        shop.take("o-0003");
        assert_eq!(broken(&mut check(&shop)), ["order o-0003 is accepted, and its saga is not"]);
    }
}

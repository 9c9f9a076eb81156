//! No transaction stays open for ever.

use std::collections::BTreeMap;

use broker::{Offset, TopicPartition};

use crate::check::client::{ClientAct, ClientEvent};
use crate::check::{Breaches, Check, Moment, Occasion};

/// When all producers have ended and all is healed, no open transaction holds readers of committed records back: the
/// last stable offset of every partition is its high watermark (KIP-890's hanging transactions).
///
/// A transaction that no coordinator knows is never ended by anyone: readers of committed records stop before it for
/// ever, and compaction with them, until an operator aborts it by hand.
#[derive(Debug, Default)]
pub struct NoHangingTransaction {
    ends: BTreeMap<TopicPartition, (Offset, Offset, Moment)>,
}

impl NoHangingTransaction {
    pub(super) const NAME: &str = "no_hanging_transaction";

    fn observe(&mut self, moment: Moment, event: &ClientEvent<'_>) {
        if let ClientAct::ReadToEnd { partition, end, high_watermark } = event.act {
            self.ends.insert(partition.clone(), (end, high_watermark, moment));
        }
    }
}

impl Check for NoHangingTransaction {
    fn name(&self) -> &'static str {
        NoHangingTransaction::NAME
    }

    fn look(&mut self, moment: Moment, occasion: Occasion<'_>, breaches: &mut Breaches) {
        match occasion {
            Occasion::Client(event) => self.observe(moment, event),
            // Before, a producer may be about to end it.
            Occasion::End { at_rest: true } => {
                for (partition, (stable, high, at)) in &self.ends {
                    if stable < high {
                        let place = format!("{partition}@{stable}");
                        breaches.report(
                            format!("a transaction is open at {place} that nobody ends"),
                            vec![at.evidence_at(
                                &place,
                                format!("readers of committed records stop here, before the high watermark at {high}"),
                            )],
                        );
                    }
                }
            }
            Occasion::End { at_rest: false } | Occasion::Event(_) | Occasion::Step => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::{Story, partition};
    use super::*;

    fn story(end: Offset, high_watermark: Offset) -> Story<NoHangingTransaction> {
        let mut story = Story::<NoHangingTransaction>::new();
        story.act(9, ClientAct::ReadToEnd { partition: &partition(), end, high_watermark });
        story
    }

    #[test]
    fn a_last_stable_offset_that_stays_behind_is_found() {
        assert_eq!(story(4, 7).end(), ["a transaction is open at t/0@4 that nobody ends"]);
        assert!(story(7, 7).end().is_empty());
    }

    #[test]
    fn a_transaction_that_is_open_while_the_system_is_not_at_rest_may_still_be_ended() {
        assert!(story(4, 7).end_unsettled().is_empty());
    }
}

//! Order per key.

use std::collections::BTreeMap;

use broker::{Offset, TopicPartition};

use crate::check::client::{ClientAct, ClientEvent, ClientId, SendId};
use crate::check::{Breaches, Check, Moment, Occasion};

/// What an idempotent producer sends to one partition lies there in the order of the sends, as far as it is
/// acknowledged (Jepsen: `nonmonotonic-send`).
///
/// Records of one key go to one partition, so this is what keeps "charge" before "refund". Kafka promises it for an
/// idempotent producer whatever is retried; without idempotence a retry may overtake, and is not judged. Judged at every
/// acknowledgement.
#[derive(Debug, Default)]
pub struct OrderPerKey {
    idempotent: BTreeMap<ClientId, bool>,
    sent: BTreeMap<SendId, Moment>,
    placed: BTreeMap<(ClientId, TopicPartition), BTreeMap<SendId, (Offset, Moment)>>,
}

impl OrderPerKey {
    pub(super) const NAME: &str = "order_per_key";

    fn observe(&mut self, moment: Moment, event: &ClientEvent<'_>, breaches: &mut Breaches) {
        match event.act {
            ClientAct::ProducerOpened { idempotent, .. } => {
                self.idempotent.insert(event.client, idempotent);
            }
            ClientAct::Sent { send, .. } => {
                self.sent.insert(send, moment);
            }
            ClientAct::GivenUp { send, .. } => {
                self.sent.remove(&send);
            }
            ClientAct::Acknowledged { send, metadata } => {
                let sent = self.sent.remove(&send).expect("an acknowledgement of what was never sent");
                if let (Some(offset), Some(true)) = (metadata.offset, self.idempotent.get(&event.client)) {
                    self.place(event, send, sent, &metadata.partition, offset, moment, breaches);
                }
            }
            _ => {}
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one call, and every one of them is part of the evidence")]
    fn place(
        &mut self,
        event: &ClientEvent<'_>,
        send: SendId,
        sent: Moment,
        partition: &TopicPartition,
        offset: Offset,
        moment: Moment,
        breaches: &mut Breaches,
    ) {
        let placed = self.placed.entry((event.client, partition.clone())).or_default();
        let before = placed.range(..send).next_back().filter(|(_, (other, _))| *other >= offset);
        let after = placed.range(send..).next().filter(|(_, (other, _))| *other <= offset);
        if let Some((_, &(other, other_sent))) = before.or(after) {
            let host = event.host;
            let ((early, early_at), (late, late_at)) = if other_sent <= sent {
                ((other, other_sent), (offset, sent))
            } else {
                ((offset, sent), (other, other_sent))
            };
            breaches.report(
                format!("{host} sent the record at {partition}@{early} before the one at {partition}@{late}"),
                vec![
                    early_at.evidence_at(format!("{partition}@{early}"), format!("{host} sends this record")),
                    late_at.evidence_at(format!("{partition}@{late}"), format!("{host} sends this record")),
                    moment.evidence(format!("{host} is told where the second of them is")),
                ],
            );
        }
        placed.insert(send, (offset, sent));
    }
}

impl Check for OrderPerKey {
    fn name(&self) -> &'static str {
        OrderPerKey::NAME
    }

    fn look(&mut self, moment: Moment, occasion: Occasion<'_>, breaches: &mut Breaches) {
        if let Occasion::Client(event) = occasion {
            self.observe(moment, event, breaches);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;
    use broker::ErrorCode;

    fn story(idempotent: bool) -> Story<OrderPerKey> {
        let mut story = Story::new();
        story.producer(1, idempotent).producer(2, idempotent);
        story.sent(1, 1, "a").sent(1, 2, "b").sent(1, 3, "c");
        story
    }

    #[test]
    fn a_later_record_that_lies_before_an_earlier_one_is_found() {
        let says = ["host-1 sent the record at t/0@1 before the one at t/0@0"];
        assert_eq!(story(true).acked(1, 1, 1).acked(1, 2, 0).end(), says);
        // However the answers come.
        assert_eq!(story(true).acked(1, 2, 0).acked(1, 1, 1).end(), says);
    }

    #[test]
    fn answers_may_come_in_any_order_and_records_may_be_missing() {
        let mut story = story(true);
        story.acked(1, 3, 7).acked(1, 1, 2).given_up(1, 2, ErrorCode::MessageTimedOut);
        assert!(story.end().is_empty());
    }

    #[test]
    fn a_producer_without_idempotence_may_reorder() {
        assert!(story(false).acked(1, 1, 1).acked(1, 2, 0).end().is_empty());
    }

    #[test]
    fn producers_are_not_ordered_among_each_other() {
        assert!(story(true).sent(2, 4, "d").acked(2, 4, 0).acked(1, 1, 1).end().is_empty());
    }
}

//! No duplicate from an idempotent producer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use broker::{Offset, TopicPartition};

use crate::check::client::{ClientAct, ClientEvent, ClientId, Content, SendId, key_text, never_left};
use crate::check::{Breaches, Check, Moment, Occasion};

/// A record that an idempotent producer was handed once is in the log at most once (Jepsen: `duplicate`).
///
/// This is what `enable.idempotence` is for: a retry after a lost answer must not append again. Records are told apart
/// by content. A record may be there as often as it was handed to idempotent producers, whether or not they were told
/// its fate; so a service that sends the same message twice is not a breach, and neither are the copies that
/// `duplicate_records` has the harness's own producer append: they are sends like any other. Content that a producer
/// without idempotence sent too is not judged. Judged whenever a record is seen at a new place.
#[derive(Debug, Default)]
pub struct NoIdempotentDuplicate {
    idempotent: BTreeMap<ClientId, bool>,
    sends: BTreeMap<SendId, (Arc<str>, Content)>,
    records: BTreeMap<(Arc<str>, Content), Copies>,
}

#[derive(Debug, Default)]
struct Copies {
    key: String,
    /// When it was handed over, and on which host.
    sent: Vec<(Moment, String)>,
    /// Given up before they could reach a broker.
    never_left: usize,
    not_idempotent: bool,
    places: BTreeSet<(TopicPartition, Offset)>,
    seen: Vec<(Moment, String, TopicPartition, Offset)>,
    reported: bool,
}

impl NoIdempotentDuplicate {
    pub(super) const NAME: &str = "no_idempotent_duplicate";

    fn observe(&mut self, moment: Moment, event: &ClientEvent<'_>, breaches: &mut Breaches) {
        match event.act {
            ClientAct::ProducerOpened { idempotent, .. } => {
                self.idempotent.insert(event.client, idempotent);
            }
            ClientAct::Sent { send, record } => {
                let content = (record.topic.clone(), Content::sent(record));
                let copies = self.records.entry(content.clone()).or_default();
                copies.key = key_text(record.key.as_ref());
                copies.sent.push((moment, event.host.to_owned()));
                copies.not_idempotent |= self.idempotent.get(&event.client) != Some(&true);
                self.sends.insert(send, content);
            }
            ClientAct::Acknowledged { send, metadata } => {
                let content = self.sends.remove(&send).expect("an acknowledgement of what was never sent");
                if let Some(offset) = metadata.offset {
                    self.see(content, (&metadata.partition, offset), moment, event.host, breaches);
                }
            }
            ClientAct::GivenUp { send, error } => {
                let content = self.sends.remove(&send).expect("a record given up that was never sent");
                if never_left(error) {
                    let copies =
                        self.records.get_mut(&content).expect("every send is counted with its copies");
                    copies.never_left += 1;
                }
            }
            ClientAct::Polled(records) => {
                for record in records {
                    let content = (record.partition.topic.clone(), Content::read(record));
                    self.see(content, (&record.partition, record.offset), moment, event.host, breaches);
                }
            }
            _ => {}
        }
    }

    fn see(
        &mut self,
        content: (Arc<str>, Content),
        (partition, offset): (&TopicPartition, Offset),
        moment: Moment,
        host: &str,
        breaches: &mut Breaches,
    ) {
        // What no observed producer sent is not known to come from an idempotent one.
        let Some(copies) = self.records.get_mut(&content) else { return };
        if copies.places.insert((partition.clone(), offset)) {
            copies.seen.push((moment, host.to_owned(), partition.clone(), offset));
            copies.judge(breaches);
        }
    }
}

impl Copies {
    fn judge(&mut self, breaches: &mut Breaches) {
        let handed_over = self.sent.len() - self.never_left;
        if self.not_idempotent || self.reported || self.places.len() <= handed_over {
            return;
        }
        self.reported = true;
        let sent = self.sent.iter().map(|(at, host)| at.evidence(format!("{host} sends it")));
        let seen = self.seen.iter().map(|(at, host, partition, offset)| {
            at.evidence_at(format!("{partition}@{offset}"), format!("{host} finds it here"))
        });
        let mut evidence: Vec<_> = sent.chain(seen).collect();
        evidence.sort_by_key(|evidence| evidence.event);
        let (places, key) = (self.places.len(), &self.key);
        let says = format!(
            "a record with {key} is at {places} places, and idempotent producers were handed it {handed_over} times"
        );
        breaches.report(says, evidence);
    }
}

impl Check for NoIdempotentDuplicate {
    fn name(&self) -> &'static str {
        NoIdempotentDuplicate::NAME
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

    fn story() -> Story<NoIdempotentDuplicate> {
        let mut story = Story::new();
        story.producer(1, true).producer(2, false);
        story
    }

    #[test]
    fn a_retry_that_was_appended_again_is_found() {
        let found = story().sent(1, 1, "a").acked(1, 1, 5).polled(3, &[(4, "a"), (5, "a")]).end();
        let says = "a record with key `k` is at 2 places, and idempotent producers were handed it 1 times";
        assert_eq!(found, [says]);
    }

    #[test]
    fn a_record_that_was_handed_over_twice_may_be_there_twice() {
        let mut story = story();
        story.sent(1, 1, "a").acked(1, 1, 0).sent(1, 2, "a").given_up(1, 2, ErrorCode::MessageTimedOut);
        assert!(story.polled(3, &[(0, "a"), (1, "a")]).end().is_empty());
    }

    #[test]
    fn a_send_that_never_left_does_not_excuse_a_second_copy() {
        let mut story = story();
        story.sent(1, 1, "a").acked(1, 1, 0).sent(1, 2, "a").given_up(1, 2, ErrorCode::QueueFull);
        assert_eq!(story.polled(3, &[(0, "a"), (1, "a")]).end().len(), 1);
    }

    #[test]
    fn a_producer_without_idempotence_may_duplicate() {
        assert!(story().sent(2, 1, "a").polled(3, &[(0, "a"), (1, "a")]).end().is_empty());
    }
}

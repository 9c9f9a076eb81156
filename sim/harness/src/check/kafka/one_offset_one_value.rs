//! One offset holds one value.

use std::collections::BTreeMap;

use broker::{Offset, TopicPartition};

use crate::check::client::{ClientAct, ClientEvent, Content, SendId};
use crate::check::{Breaches, Check, Moment, Occasion};

/// Whoever reads an offset, or was told that a record went there, speaks of the same record (Jepsen:
/// `inconsistent-offsets`).
///
/// Two values under one offset mean that replicas diverged: one consumer acted on a record that for others never was.
/// Judged at every acknowledgement and every poll.
#[derive(Debug, Default)]
pub struct OneOffsetOneValue {
    sends: BTreeMap<SendId, Content>,
    values: BTreeMap<TopicPartition, BTreeMap<Offset, Seen>>,
}

#[derive(Debug)]
struct Seen {
    content: Content,
    at: Moment,
    what: String,
    reported: bool,
}

impl OneOffsetOneValue {
    pub(super) const NAME: &str = "one_offset_one_value";

    fn observe(&mut self, moment: Moment, event: &ClientEvent<'_>, breaches: &mut Breaches) {
        let host = event.host;
        match event.act {
            ClientAct::Sent { send, record } => {
                self.sends.insert(send, Content::sent(record));
            }
            ClientAct::GivenUp { send, .. } => {
                self.sends.remove(&send);
            }
            ClientAct::Acknowledged { send, metadata } => {
                let content = self.sends.remove(&send).expect("an acknowledgement of what was never sent");
                if let Some(offset) = metadata.offset {
                    let say = || format!("{host} is told that record {content} is there");
                    self.place((&metadata.partition, offset), content, moment, say, breaches);
                }
            }
            ClientAct::Polled(records) => {
                for record in records {
                    let content = Content::read(record);
                    let say = || format!("{host} reads record {content}");
                    self.place((&record.partition, record.offset), content, moment, say, breaches);
                }
            }
            _ => {}
        }
    }

    fn place(
        &mut self,
        (partition, offset): (&TopicPartition, Offset),
        content: Content,
        at: Moment,
        say: impl Fn() -> String,
        breaches: &mut Breaches,
    ) {
        let offsets = self.values.entry(partition.clone()).or_default();
        let Some(first) = offsets.get_mut(&offset) else {
            offsets.insert(offset, Seen { content, at, what: say(), reported: false });
            return;
        };
        if first.content != content && !first.reported {
            first.reported = true;
            let place = format!("{partition}@{offset}");
            breaches.report(
                format!("{place} holds two records: {} and {content}", first.content),
                vec![first.at.evidence_at(&place, &first.what), at.evidence_at(&place, say())],
            );
        }
    }
}

impl Check for OneOffsetOneValue {
    fn name(&self) -> &'static str {
        OneOffsetOneValue::NAME
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

    #[test]
    fn two_readers_of_one_offset_that_see_different_records_break_it_once() {
        let mut story = Story::<OneOffsetOneValue>::new();
        let found = story.polled(1, &[(3, "a")]).polled(2, &[(3, "b")]).polled(2, &[(3, "b")]).end();
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("t/0@3 holds two records: "), "{found:?}");
    }

    #[test]
    fn a_reader_that_sees_other_than_what_was_acknowledged_breaks_it() {
        let mut story = Story::<OneOffsetOneValue>::new();
        assert_eq!(story.sent(1, 1, "a").acked(1, 1, 0).polled(2, &[(0, "b")]).end().len(), 1);
    }

    #[test]
    fn reading_the_same_again_is_no_breach() {
        let mut story = Story::<OneOffsetOneValue>::new();
        let story = story.sent(1, 1, "a").acked(1, 1, 0).polled(2, &[(0, "a"), (1, "a")]);
        assert!(story.polled(3, &[(0, "a")]).end().is_empty());
    }
}

//! Nothing acknowledged is lost.

use std::collections::BTreeMap;

use broker::{Offset, RecordMetadata, TopicPartition};

use super::transactions::Transactions;
use crate::check::client::{ClientAct, ClientEvent, ClientId, Content, SendId, key_text};
use crate::check::{Breaches, Check, Moment, Occasion};

/// A record that was acknowledged is in the log at the end (Jepsen: `lost-write`, `unseen`).
///
/// Whoever gets an acknowledgement forgets the record: an outbox row is deleted, an offset committed. If the log loses
/// it afterwards, a saga waits for ever, or money was taken for an order that nobody knows. Judged by the observer's
/// reading of the healed log; a partition that it did not finish is not judged here, and the runner reports that.
#[derive(Debug, Default)]
pub struct NoAcknowledgedLoss {
    transactions: Transactions,
    idempotent: BTreeMap<ClientId, bool>,
    sends: BTreeMap<SendId, Sent>,
    acknowledged: Vec<Acknowledged>,
    /// Who read an offset last, and what was there. The observer reads after all others.
    read: BTreeMap<TopicPartition, BTreeMap<Offset, (ClientId, Content)>>,
    /// The observer, the end of the log, and when it was reached.
    ended: BTreeMap<TopicPartition, (ClientId, Offset, Moment)>,
}

#[derive(Debug)]
struct Sent {
    at: Moment,
    host: String,
    key: String,
    content: Content,
}

#[derive(Debug)]
struct Acknowledged {
    sent: Sent,
    at: Moment,
    partition: TopicPartition,
    /// `None` where the broker no longer knew the offset of a retried record; then the content must be somewhere.
    offset: Option<Offset>,
}

impl NoAcknowledgedLoss {
    pub(super) const NAME: &str = "no_acknowledged_loss";

    fn observe(&mut self, moment: Moment, event: &ClientEvent<'_>) {
        self.transactions.learn(moment, event);
        match event.act {
            ClientAct::ProducerOpened { idempotent, .. } => {
                self.idempotent.insert(event.client, idempotent);
            }
            ClientAct::Sent { send, record } => {
                let key = key_text(record.key.as_ref());
                let content = Content::sent(record);
                self.sends.insert(send, Sent { at: moment, host: event.host.to_owned(), key, content });
            }
            ClientAct::Acknowledged { send, metadata } => {
                self.acknowledge(moment, event.client, send, metadata)
            }
            ClientAct::GivenUp { send, .. } => {
                self.sends.remove(&send);
            }
            ClientAct::Polled(records) => {
                for record in records {
                    let seen = (event.client, Content::read(record));
                    self.read.entry(record.partition.clone()).or_default().insert(record.offset, seen);
                }
            }
            ClientAct::ReadToEnd { partition, end, .. } => {
                self.ended.insert(partition.clone(), (event.client, end, moment));
            }
            _ => {}
        }
    }

    fn acknowledge(&mut self, at: Moment, client: ClientId, send: SendId, metadata: &RecordMetadata) {
        let sent = self.sends.remove(&send).expect("an acknowledgement of what was never sent");
        // What a transaction holds is promised by its commit, which has a check of its own.
        if self.transactions.holds(send) {
            return;
        }
        // Without `acks` there is no promise, and no offset. An idempotent producer always asks for all of them.
        if metadata.offset.is_some() || self.idempotent.get(&client) == Some(&true) {
            let (partition, offset) = (metadata.partition.clone(), metadata.offset);
            self.acknowledged.push(Acknowledged { sent, at, partition, offset });
        }
    }

    fn judge(&self, breaches: &mut Breaches) {
        let nothing = BTreeMap::new();
        for record in &self.acknowledged {
            let Some(&(observer, end, ended)) = self.ended.get(&record.partition) else { continue };
            let read = self.read.get(&record.partition).unwrap_or(&nothing);
            let is_it = |seen: &(ClientId, Content)| seen.0 == observer && seen.1 == record.sent.content;
            let found = match record.offset {
                Some(offset) => read.get(&offset),
                None => read.values().find(|seen| is_it(seen)),
            };
            if !found.is_some_and(is_it) {
                let another = found.is_some_and(|(reader, _)| *reader == observer);
                record.report(another, end, ended, breaches);
            }
        }
    }
}

impl Acknowledged {
    /// `another` record lies at its offset, or none.
    fn report(&self, another: bool, end: Offset, ended: Moment, breaches: &mut Breaches) {
        let place = match self.offset {
            Some(offset) => format!("{}@{offset}", self.partition),
            None => self.partition.to_string(),
        };
        let Sent { at, host, key, .. } = &self.sent;
        let instead = if another { ", where another lies" } else { "" };
        let without = if another { "with another record there" } else { "without it" };
        breaches.report(
            format!(
                "the record at {place} with {key} was acknowledged to {host} and is not in the log{instead}"
            ),
            vec![
                at.evidence(format!("{host} sends a record with {key} to {}", self.partition.topic)),
                self.at.evidence_at(&place, format!("{host} is told that the record is there")),
                ended.evidence_at(
                    &place,
                    format!("the log was read from its start to its end at {end} {without}"),
                ),
            ],
        );
    }
}

impl Check for NoAcknowledgedLoss {
    fn name(&self) -> &'static str {
        NoAcknowledgedLoss::NAME
    }

    fn look(&mut self, moment: Moment, occasion: Occasion<'_>, breaches: &mut Breaches) {
        match occasion {
            Occasion::Client(event) => self.observe(moment, event),
            Occasion::End { .. } => self.judge(breaches),
            Occasion::Event(_) | Occasion::Step => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::{Story, partition};
    use super::*;
    use broker::ErrorCode;
    use context::Timestamp;

    fn two_acknowledged() -> Story<NoAcknowledgedLoss> {
        let mut story = Story::new();
        story.producer(1, true).sent(1, 1, "a").sent(1, 2, "b").acked(1, 1, 0).acked(1, 2, 1);
        story
    }

    #[test]
    fn an_acknowledged_record_that_the_log_no_longer_has_is_lost() {
        let found = two_acknowledged().polled(9, &[(0, "a")]).read_to_end(9, 1).end();
        assert_eq!(
            found,
            ["the record at t/0@1 with key `k` was acknowledged to host-1 and is not in the log"]
        );
    }

    #[test]
    fn an_acknowledged_record_in_whose_place_another_lies_is_lost() {
        let found = two_acknowledged().polled(9, &[(0, "a"), (1, "z")]).read_to_end(9, 2).end();
        assert_eq!(
            found,
            [
                "the record at t/0@1 with key `k` was acknowledged to host-1 and is not in the log, where another lies"
            ]
        );
    }

    #[test]
    fn a_record_that_was_read_before_it_vanished_is_lost_all_the_same() {
        let mut story = two_acknowledged();
        let found = story.polled(5, &[(0, "a"), (1, "b")]).polled(9, &[(0, "a")]).read_to_end(9, 1).end();
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn what_is_there_is_not_lost_and_what_was_given_up_may_be() {
        let mut story = two_acknowledged();
        story.sent(1, 3, "c").given_up(1, 3, ErrorCode::MessageTimedOut).sent(1, 4, "d");
        assert!(story.polled(9, &[(0, "a"), (1, "b")]).read_to_end(9, 2).end().is_empty());
    }

    #[test]
    fn a_partition_that_was_not_read_to_its_end_is_not_judged() {
        assert!(two_acknowledged().polled(9, &[(0, "a")]).end().is_empty());
    }

    #[test]
    fn a_record_acknowledged_without_its_offset_must_be_somewhere() {
        let told = |value: &str| {
            let mut story = Story::<NoAcknowledgedLoss>::new();
            let metadata =
                RecordMetadata { partition: partition(), offset: None, timestamp: Timestamp::ZERO };
            story.producer(1, true).sent(1, 1, "a");
            story.act(1, ClientAct::Acknowledged { send: SendId(1), metadata: &metadata });
            story.polled(9, &[(4, value)]).read_to_end(9, 5).end()
        };
        assert!(told("a").is_empty());
        assert_eq!(told("b").len(), 1);
    }
}

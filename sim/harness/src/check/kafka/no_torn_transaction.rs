//! Of a transaction all records are there, or none.

use std::collections::{BTreeMap, BTreeSet};

use broker::TopicPartition;

use super::transactions::Transactions;
use crate::check::client::{ClientAct, ClientEvent, ClientId, Content};
use crate::check::{Breaches, Check, Moment, Occasion};

/// Of the acknowledged records of a transaction whose commit was asked for, the healed logs hold all or none; and all if
/// the commit was acknowledged.
///
/// Half a transaction is an order without its payment. Judged once the system has come to rest, when nobody is at ending
/// one any more, by the observer's reading of committed records; a transaction of which a partition was not read to its
/// end is not judged, and the runner reports that.
#[derive(Debug, Default)]
pub struct NoTornTransaction {
    transactions: Transactions,
    /// Who read what; the observer reads last.
    read: BTreeMap<ClientId, BTreeSet<Content>>,
    ended: BTreeMap<TopicPartition, (ClientId, Moment)>,
}

impl NoTornTransaction {
    pub(super) const NAME: &str = "no_torn_transaction";

    fn observe(&mut self, moment: Moment, event: &ClientEvent<'_>) {
        self.transactions.learn(moment, event);
        match event.act {
            ClientAct::Polled(records) => {
                for record in records {
                    let content = Content::read(record);
                    if self.transactions.writer(content).is_some() {
                        self.read.entry(event.client).or_default().insert(content);
                    }
                }
            }
            ClientAct::ReadToEnd { partition, .. } => {
                self.ended.insert(partition.clone(), (event.client, moment));
            }
            _ => {}
        }
    }

    fn judge(&self, breaches: &mut Breaches) {
        let Some(&(observer, read_at)) = self.ended.values().max_by_key(|(_, moment)| *moment) else {
            return;
        };
        let nothing = BTreeSet::new();
        let read = self.read.get(&observer).unwrap_or(&nothing);
        for transaction in self.transactions.iter() {
            let Some(asked) = transaction.commit_asked else { continue };
            let all = &transaction.acknowledged;
            if !all.values().all(|(_, partition)| self.ended.contains_key(partition)) {
                continue;
            }
            let there = all.values().filter(|(content, _)| read.contains(content)).count();
            let wanted_all = transaction.committed.is_some();
            if there == all.len() || (there == 0 && !wanted_all) {
                continue;
            }
            let (host, count) = (&transaction.host, all.len());
            let mut evidence = vec![
                transaction.began.evidence(format!("{host} begins the transaction")),
                asked.evidence(format!("{host} asks to commit it, {count} records acknowledged")),
            ];
            if let Some(committed) = transaction.committed {
                evidence.push(committed.evidence(format!("{host} is told that it is committed")));
            }
            evidence.push(read_at.evidence(format!("the logs were read: {there} of its records are there")));
            breaches.report(
                format!("of the {count} records of a transaction of {host} only {there} are in the logs"),
                evidence,
            );
        }
    }
}

impl Check for NoTornTransaction {
    fn name(&self) -> &'static str {
        NoTornTransaction::NAME
    }

    fn look(&mut self, moment: Moment, occasion: Occasion<'_>, breaches: &mut Breaches) {
        match occasion {
            Occasion::Client(event) => self.observe(moment, event),
            Occasion::End { at_rest: true } => self.judge(breaches),
            Occasion::End { at_rest: false } | Occasion::Event(_) | Occasion::Step => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;
    use crate::check::client::SendId;
    use broker::RecordMetadata;
    use context::Timestamp;

    fn committing(acknowledged: bool) -> Story<NoTornTransaction> {
        let mut story = Story::new();
        story.transactional(1).act(1, ClientAct::TransactionBegan);
        story.sent(1, 1, "a").acked(1, 1, 0).sent(1, 2, "b").acked(1, 2, 1);
        story.act(1, ClientAct::TransactionEnding { commit: true });
        if acknowledged {
            story.act(1, ClientAct::TransactionEnded { commit: true });
        }
        story
    }

    #[test]
    fn half_a_transaction_is_found() {
        let found = committing(false).polled(9, &[(0, "a")]).read_to_end(9, 3).end();
        assert_eq!(found, ["of the 2 records of a transaction of host-1 only 1 are in the logs"]);
    }

    #[test]
    fn a_committed_transaction_that_is_gone_is_found() {
        assert_eq!(committing(true).read_to_end(9, 3).end().len(), 1);
    }

    #[test]
    fn half_a_transaction_may_be_all_that_is_there_yet_while_its_end_is_under_way() {
        let mut story = committing(false);
        assert!(story.polled(9, &[(0, "a")]).read_to_end(9, 3).end_unsettled().is_empty());
    }

    #[test]
    fn a_transaction_is_not_judged_while_one_of_its_partitions_was_not_read_to_its_end() {
        let mut story = Story::<NoTornTransaction>::new();
        story.transactional(1).act(1, ClientAct::TransactionBegan);
        story.sent(1, 1, "a").acked(1, 1, 0).sent(1, 2, "b");
        let partition = TopicPartition::new("t", 1);
        let metadata = RecordMetadata { partition, offset: Some(0), timestamp: Timestamp::ZERO };
        story.act(1, ClientAct::Acknowledged { send: SendId(2), metadata: &metadata });
        story.act(1, ClientAct::TransactionEnding { commit: true });
        story.act(1, ClientAct::TransactionEnded { commit: true });
        assert!(story.polled(9, &[(0, "a")]).read_to_end(9, 2).end().is_empty());
        let end = ClientAct::ReadToEnd { partition: &metadata.partition, end: 1, high_watermark: 1 };
        assert_eq!(story.act(9, end).end().len(), 1);
    }

    #[test]
    fn all_is_well_and_nothing_is_if_nobody_was_told_of_a_commit() {
        assert!(committing(true).polled(9, &[(0, "a"), (1, "b")]).read_to_end(9, 3).end().is_empty());
        assert!(committing(false).read_to_end(9, 3).end().is_empty());
    }
}

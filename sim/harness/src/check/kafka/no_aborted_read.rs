//! No reader of committed records sees one whose transaction was not committed.

use std::collections::BTreeSet;

use super::transactions::Transactions;
use crate::check::client::{ClientAct, ClientEvent, ClientId, Content, key_text};
use crate::check::{Breaches, Check, Moment, Occasion};

/// A consumer with `isolation.level=read_committed` is given no record of a transaction whose producer has not asked to
/// commit it (Jepsen: `G1a`, and `precommitted-read` seen from outside).
///
/// Whoever reads it acts on what was taken back: ships what was not paid. A commit that was asked for may have taken
/// effect whatever was answered, so such a transaction may be seen from then on.
#[derive(Debug, Default)]
pub struct NoAbortedRead {
    transactions: Transactions,
    committed_only: BTreeSet<ClientId>,
    /// Transactions that were reported: one breach for each is enough.
    reported: BTreeSet<usize>,
}

impl NoAbortedRead {
    pub(super) const NAME: &str = "no_aborted_read";

    fn observe(&mut self, moment: Moment, event: &ClientEvent<'_>, breaches: &mut Breaches) {
        self.transactions.learn(moment, event);
        match event.act {
            ClientAct::ConsumerOpened { committed_only: true, .. } => {
                self.committed_only.insert(event.client);
            }
            ClientAct::Polled(records) if self.committed_only.contains(&event.client) => {
                for record in records {
                    let Some((number, writer)) = self.transactions.writer(Content::read(record)) else {
                        continue;
                    };
                    if writer.commit_asked.is_some() || !self.reported.insert(number) {
                        continue;
                    }
                    let place = format!("{}@{}", record.partition, record.offset);
                    let (host, reader) = (&writer.host, event.host);
                    let key = key_text(record.key.as_ref());
                    let mut evidence =
                        vec![writer.began.evidence(format!("{host} begins the transaction that writes it"))];
                    if let Some(asked) = writer.abort_asked {
                        evidence.push(asked.evidence(format!("{host} asks to abort it")));
                    }
                    evidence.push(
                        moment.evidence_at(&place, format!("{reader} is given the record as committed")),
                    );
                    breaches.report(
                        format!(
                            "{reader} read the record at {place} with {key}, whose transaction {host} never asked to commit"
                        ),
                        evidence,
                    );
                }
            }
            _ => {}
        }
    }
}

impl Check for NoAbortedRead {
    fn name(&self) -> &'static str {
        NoAbortedRead::NAME
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

    fn aborting() -> Story<NoAbortedRead> {
        let mut story = Story::new();
        story.transactional(1).act(1, ClientAct::TransactionBegan).sent(1, 1, "a").acked(1, 1, 0).member(5);
        story
    }

    #[test]
    fn a_record_of_an_aborted_transaction_that_is_read_is_found() {
        let mut story = aborting();
        story.act(1, ClientAct::TransactionEnding { commit: false });
        story.act(1, ClientAct::TransactionEnded { commit: false });
        let found = story.polled(5, &[(0, "a")]).polled(6, &[(0, "a")]).end();
        assert_eq!(
            found,
            ["host-5 read the record at t/0@0 with key `k`, whose transaction host-1 never asked to commit"]
        );
    }

    #[test]
    fn a_record_of_an_open_transaction_that_is_read_is_found() {
        assert_eq!(aborting().polled(5, &[(0, "a")]).end().len(), 1);
    }

    #[test]
    fn a_commit_that_was_asked_for_may_be_seen_before_its_answer() {
        let mut story = aborting();
        story.act(1, ClientAct::TransactionEnding { commit: true });
        assert!(story.polled(5, &[(0, "a")]).end().is_empty());
    }

    #[test]
    fn whoever_reads_all_may_see_what_is_aborted() {
        let mut story = aborting();
        let opened = ClientAct::ConsumerOpened {
            group: None,
            committed_only: false,
            auto_commit: false,
            from_earliest: true,
        };
        assert!(story.act(6, opened).polled(6, &[(0, "a")]).end().is_empty());
    }
}

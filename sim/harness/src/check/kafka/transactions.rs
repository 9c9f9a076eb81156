//! What the checks on transactions share: which record belongs to which transaction, and what was asked of it.

use std::collections::BTreeMap;

use broker::TopicPartition;

use crate::check::Moment;
use crate::check::client::{ClientAct, ClientEvent, ClientId, Content, SendId};

/// One transaction of one producer, by its number in the run.
#[derive(Debug)]
pub(super) struct Transaction {
    /// The producer's host.
    pub(super) host: String,
    /// When it began.
    pub(super) began: Moment,
    /// When a commit was first asked for; it may have taken effect from then on, whatever was answered.
    pub(super) commit_asked: Option<Moment>,
    /// When an abort was first asked for.
    pub(super) abort_asked: Option<Moment>,
    /// When its commit was acknowledged.
    pub(super) committed: Option<Moment>,
    /// The records that were acknowledged, and where they are.
    pub(super) acknowledged: BTreeMap<SendId, (Content, TopicPartition)>,
}

/// The transactions of a run, as their producers saw them.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    all: Vec<Transaction>,
    open: BTreeMap<ClientId, usize>,
    sent: BTreeMap<SendId, (usize, Content)>,
    by_content: BTreeMap<Content, usize>,
}

impl Transactions {
    /// Learns from what a producer did or was told.
    pub(super) fn learn(&mut self, moment: Moment, event: &ClientEvent<'_>) {
        match event.act {
            ClientAct::TransactionBegan => {
                self.open.insert(event.client, self.all.len());
                self.all.push(Transaction {
                    host: event.host.to_owned(),
                    began: moment,
                    commit_asked: None,
                    abort_asked: None,
                    committed: None,
                    acknowledged: BTreeMap::new(),
                });
            }
            ClientAct::Sent { send, record } => {
                if let Some(&number) = self.open.get(&event.client) {
                    let content = Content::sent(record);
                    self.sent.insert(send, (number, content));
                    self.by_content.insert(content, number);
                }
            }
            ClientAct::Acknowledged { send, metadata } => {
                if let Some((number, content)) = self.sent.get(&send) {
                    let there = (*content, metadata.partition.clone());
                    self.all[*number].acknowledged.insert(send, there);
                }
            }
            ClientAct::TransactionEnding { commit } => {
                if let Some(transaction) = self.of(event.client) {
                    let asked =
                        if commit { &mut transaction.commit_asked } else { &mut transaction.abort_asked };
                    asked.get_or_insert(moment);
                }
            }
            ClientAct::TransactionEnded { commit } => {
                if let Some(transaction) = self.of(event.client).filter(|_| commit) {
                    transaction.committed = Some(moment);
                }
                self.open.remove(&event.client);
            }
            _ => {}
        }
    }

    fn of(&mut self, client: ClientId) -> Option<&mut Transaction> {
        self.open.get(&client).map(|&number| &mut self.all[number])
    }

    /// The transaction that wrote a record, with its number.
    pub(super) fn writer(&self, content: Content) -> Option<(usize, &Transaction)> {
        self.by_content.get(&content).map(|&number| (number, &self.all[number]))
    }

    /// Whether a send belongs to a transaction.
    pub(super) fn holds(&self, send: SendId) -> bool {
        self.sent.contains_key(&send)
    }

    /// All of them, in the order in which they began.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Transaction> {
        self.all.iter()
    }
}

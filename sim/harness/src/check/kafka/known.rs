//! The records that certainly exist, because someone was told so.

use std::collections::{BTreeMap, BTreeSet};

use broker::{Offset, TopicPartition};

use crate::check::client::{ClientAct, ClientEvent, ClientId, SendId};

/// Offsets that hold a record, by acknowledgement or by someone's poll. Offsets have holes (control records,
/// compaction), so an offset that is not in here may hold none.
///
/// What a transaction holds is known when its commit was acknowledged: until then readers of committed records may, and
/// after an abort must, go past it. A record belongs to the transaction in which it was sent, whenever its producer hears
/// of it.
#[derive(Debug, Default)]
pub(super) struct KnownRecords {
    offsets: BTreeMap<TopicPartition, BTreeSet<Offset>>,
    /// The transaction that each producer has open.
    open: BTreeMap<ClientId, usize>,
    transactions: Vec<Held>,
    /// Which transaction an unanswered send belongs to.
    sends: BTreeMap<SendId, usize>,
}

/// One transaction, as far as its producer has heard of it.
#[derive(Debug)]
enum Held {
    /// These were acknowledged.
    Open(Vec<(TopicPartition, Offset)>),
    Committed,
    /// Or it is not known to be committed.
    Aborted,
}

impl KnownRecords {
    /// Learns from what a client was told.
    pub(super) fn learn(&mut self, event: &ClientEvent<'_>) {
        match event.act {
            ClientAct::TransactionBegan => {
                self.open.insert(event.client, self.transactions.len());
                self.transactions.push(Held::Open(Vec::new()));
            }
            ClientAct::TransactionEnded { commit } => {
                let Some(number) = self.open.remove(&event.client) else { return };
                let ended = if commit { Held::Committed } else { Held::Aborted };
                let held = std::mem::replace(&mut self.transactions[number], ended);
                if let Held::Open(records) = held
                    && commit
                {
                    records.iter().for_each(|(partition, offset)| self.insert(partition, *offset));
                }
            }
            ClientAct::Sent { send, .. } => {
                if let Some(&number) = self.open.get(&event.client) {
                    self.sends.insert(send, number);
                }
            }
            ClientAct::GivenUp { send, .. } => {
                self.sends.remove(&send);
            }
            ClientAct::Acknowledged { send, metadata } => {
                let transaction = self.sends.remove(&send);
                let Some(offset) = metadata.offset else { return };
                match transaction.map(|number| &mut self.transactions[number]) {
                    Some(Held::Open(records)) => records.push((metadata.partition.clone(), offset)),
                    Some(Held::Aborted) => {}
                    Some(Held::Committed) | None => self.insert(&metadata.partition, offset),
                }
            }
            ClientAct::Polled(records) => {
                records.iter().for_each(|record| self.insert(&record.partition, record.offset));
            }
            _ => {}
        }
    }

    /// The first record at `from` or later and before `to`.
    pub(super) fn first_in(&self, partition: &TopicPartition, from: Offset, to: Offset) -> Option<Offset> {
        if from >= to {
            return None;
        }
        self.offsets.get(partition)?.range(from..to).next().copied()
    }

    fn insert(&mut self, partition: &TopicPartition, offset: Offset) {
        match self.offsets.get_mut(partition) {
            Some(offsets) => offsets.insert(offset),
            None => self.offsets.entry(partition.clone()).or_default().insert(offset),
        };
    }
}

#[cfg(test)]
mod tests {
    use broker::{ProducerRecord, RecordMetadata};
    use context::Timestamp;

    use super::*;

    fn act(known: &mut KnownRecords, act: ClientAct<'_>) {
        known.learn(&ClientEvent { client: ClientId(1), host: "host-1", act });
    }

    /// A record is sent in a transaction that ends so, and acknowledged while the next one is open, which ends so.
    fn heard_late(commit: bool, next_commit: bool) -> Option<Offset> {
        let mut known = KnownRecords::default();
        let partition = TopicPartition::new("t", 0);
        let (record, metadata) = (
            ProducerRecord::new("t", "k", "v"),
            RecordMetadata { partition: partition.clone(), offset: Some(4), timestamp: Timestamp::ZERO },
        );
        act(&mut known, ClientAct::TransactionBegan);
        act(&mut known, ClientAct::Sent { send: SendId(1), record: &record });
        act(&mut known, ClientAct::TransactionEnded { commit });
        act(&mut known, ClientAct::TransactionBegan);
        act(&mut known, ClientAct::Acknowledged { send: SendId(1), metadata: &metadata });
        act(&mut known, ClientAct::TransactionEnded { commit: next_commit });
        known.first_in(&partition, 0, 10)
    }

    #[test]
    fn an_acknowledgement_counts_for_the_transaction_of_its_send_not_for_the_one_that_is_open_when_it_is_heard()
     {
        assert_eq!(heard_late(true, false), Some(4));
        assert_eq!(heard_late(false, true), None);
    }
}

//! The records that certainly exist, because someone was told so.

use std::collections::{BTreeMap, BTreeSet};

use broker::{Offset, TopicPartition};

use crate::check::client::{ClientAct, ClientEvent, ClientId};

/// Offsets that hold a record, by acknowledgement or by someone's poll. Offsets have holes (control records,
/// compaction), so an offset that is not in here may hold none.
///
/// What a transaction holds is known when its commit was acknowledged: until then readers of committed records may, and
/// after an abort must, go past it.
#[derive(Debug, Default)]
pub(super) struct KnownRecords {
    offsets: BTreeMap<TopicPartition, BTreeSet<Offset>>,
    /// What was acknowledged within the open transaction of each producer.
    pending: BTreeMap<ClientId, Vec<(TopicPartition, Offset)>>,
}

impl KnownRecords {
    /// Learns from what a client was told.
    pub(super) fn learn(&mut self, event: &ClientEvent<'_>) {
        match event.act {
            ClientAct::TransactionBegan => {
                self.pending.insert(event.client, Vec::new());
            }
            ClientAct::TransactionEnded { commit } => {
                let records = self.pending.remove(&event.client).unwrap_or_default();
                for (partition, offset) in records.iter().filter(|_| commit) {
                    self.insert(partition, *offset);
                }
            }
            ClientAct::Acknowledged { metadata, .. } => {
                let Some(offset) = metadata.offset else { return };
                match self.pending.get_mut(&event.client) {
                    Some(pending) => pending.push((metadata.partition.clone(), offset)),
                    None => self.insert(&metadata.partition, offset),
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

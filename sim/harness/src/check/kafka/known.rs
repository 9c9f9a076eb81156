//! The records that certainly exist, because someone was told so.

use std::collections::{BTreeMap, BTreeSet};

use broker::{Offset, TopicPartition};

use crate::check::client::{ClientAct, ClientEvent};

/// Offsets that hold a record, by acknowledgement or by someone's poll. Offsets have holes (control records,
/// compaction), so an offset that is not in here may hold none.
#[derive(Debug, Default)]
pub(super) struct KnownRecords {
    offsets: BTreeMap<TopicPartition, BTreeSet<Offset>>,
}

impl KnownRecords {
    /// Learns from what a client was told.
    pub(super) fn learn(&mut self, event: &ClientEvent<'_>) {
        match event.act {
            ClientAct::Acknowledged { metadata, .. } => {
                if let Some(offset) = metadata.offset {
                    self.insert(&metadata.partition, offset);
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

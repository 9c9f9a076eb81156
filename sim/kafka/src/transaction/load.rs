//! A broker takes a partition of the transaction topic over, or gives it up.
//!
//! While it reads the partition, clients are told COORDINATOR_LOAD_IN_PROGRESS. What its log says was decided is done:
//! markers of prepared transactions are written again.

use std::collections::BTreeMap;

use super::coordinator::{Coordinator, Effect, Led};
use super::metadata::TransactionMetadata;
use super::record::TransactionRecord;
use super::state::TransactionState;
use crate::group::partition_for;

impl Coordinator {
    /// This broker leads partition `index` of the `partitions` of the transaction topic from `epoch` on, and begins to read
    /// it.
    pub fn begin_load(&mut self, index: i32, partitions: usize, epoch: i32) {
        self.partitions = partitions;
        self.drop_partition(index);
        self.loading.insert(index, epoch);
    }

    /// Whether a partition is still being read, for this epoch.
    pub fn is_loading(&self, index: i32, epoch: i32) -> bool {
        self.loading.get(&index) == Some(&epoch)
    }

    /// The partition was read. Gives the number of ids found.
    pub fn finish_load(
        &mut self,
        now_ms: i64,
        index: i32,
        epoch: i32,
        records: impl Iterator<Item = TransactionRecord>,
        out: &mut Vec<Effect>,
    ) -> usize {
        assert!(self.is_loading(index, epoch), "what is loaded was begun to be");
        let mut transactions = BTreeMap::new();
        for TransactionRecord { id, value } in records {
            match value {
                Some(value) => _ = transactions.insert(id, TransactionMetadata::restore(value)),
                None => _ = transactions.remove(&id),
            }
        }
        let mut prepared = Vec::new();
        for (id, transaction) in &mut transactions {
            match transaction.current.state {
                TransactionState::PrepareCommit | TransactionState::PrepareAbort => {
                    prepared.push((id.clone(), transaction.prepare_complete(now_ms)));
                }
                TransactionState::Ongoing => {
                    self.clock.opened(&self.settings, &transaction.current, now_ms, out)
                }
                _ => {}
            }
        }
        let found = transactions.len();
        self.loading.remove(&index);
        self.led.insert(index, Led { epoch, transactions });
        for (id, to) in prepared {
            out.push(Effect::Note(format!("markers of transaction {id} are sent by its new coordinator")));
            self.send_markers(epoch, id, to, out);
        }
        self.arm_expiry(now_ms, out);
        found
    }

    /// This broker no longer leads a partition of the transaction topic. Appends that wait end with the partition's own
    /// error.
    pub fn unload(&mut self, index: i32) {
        self.drop_partition(index);
    }

    fn drop_partition(&mut self, index: i32) {
        self.loading.remove(&index);
        self.led.remove(&index);
        let partitions = self.partitions;
        self.markers.forget(|id| partition_for(id, partitions) as i32 == index);
    }

    /// The partitions of the transaction topic that are here, read or not.
    pub fn led_partitions(&self) -> Vec<i32> {
        self.led.keys().chain(self.loading.keys()).copied().collect()
    }
}

//! What outlives a broker's process: the logs of its replicas, and its checkpoint files, which each log keeps its part of.

use std::collections::BTreeMap;

use context::Rng;

use crate::log::{Log, PowerLoss};
use crate::metadata::PartitionKey;

/// A broker's disk.
#[derive(Clone, Debug, Default)]
pub struct BrokerDisk {
    /// By topic id and number.
    pub logs: BTreeMap<PartitionKey, Log>,
    /// The broker epoch of the process that ended cleanly, until the next one starts (Kafka's `.kafka_cleanshutdown`).
    pub clean_shutdown: Option<i64>,
}

impl BrokerDisk {
    /// The machine lost power: of each log what had not been flushed is gone, but for pages that `rng` lets survive. What
    /// was lost, by partition; logs that lost nothing are not among them.
    pub fn lose_power(&mut self, rng: &mut Rng) -> BTreeMap<PartitionKey, PowerLoss> {
        let lost = self.logs.iter_mut().map(|(&key, log)| (key, log.lose_power(rng)));
        lost.filter(|(_, loss)| loss.end < loss.end_before).collect()
    }

    /// A new process loads what is here.
    pub(super) fn load(&mut self) {
        self.logs.values_mut().for_each(Log::load);
    }

    /// A clean shutdown flushes every log and writes every checkpoint (`LogManager.shutdown`). The high watermarks are the
    /// caller's to write before: they are known to the process only.
    pub(super) fn shut_down(&mut self) {
        for log in self.logs.values_mut() {
            log.flush();
            log.checkpoint_offsets();
        }
    }
}

//! What outlives a broker's process: the logs of its replicas, and its checkpoint files, which each log keeps its part of.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use context::{Rng, Timestamp};

use crate::log::{Log, PowerLoss};
use crate::metadata::PartitionKey;

/// The logs of a broker, by topic id and number. Whoever writes them down elsewhere is told which were handed out to be
/// changed, so that it need not look at all.
#[derive(Clone, Debug, Default)]
pub struct Logs {
    by_key: BTreeMap<PartitionKey, Log>,
    /// Those that may have changed; `None` while nobody asks.
    touched: Option<BTreeSet<PartitionKey>>,
}

impl Deref for Logs {
    type Target = BTreeMap<PartitionKey, Log>;

    fn deref(&self) -> &BTreeMap<PartitionKey, Log> {
        &self.by_key
    }
}

impl Logs {
    /// A log, to change it.
    pub fn get_mut(&mut self, key: &PartitionKey) -> Option<&mut Log> {
        let log = self.by_key.get_mut(key)?;
        if let Some(touched) = &mut self.touched {
            touched.insert(*key);
        }
        Some(log)
    }

    /// The same; one that is not here is made.
    pub fn get_or_make(&mut self, now: Timestamp, key: PartitionKey) -> &mut Log {
        if let Some(touched) = &mut self.touched {
            touched.insert(key);
        }
        self.by_key.entry(key).or_insert_with(|| Log::new(now))
    }

    /// All logs, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (PartitionKey, &mut Log)> {
        if let Some(touched) = &mut self.touched {
            touched.extend(self.by_key.keys());
        }
        self.by_key.iter_mut().map(|(&key, log)| (key, log))
    }

    /// Removes the logs for which `keep` says no.
    pub fn retain(&mut self, keep: impl Fn(&PartitionKey) -> bool) {
        let gone = self.by_key.extract_if(.., |key, _| !keep(key)).map(|(key, _)| key);
        match &mut self.touched {
            Some(touched) => touched.extend(gone),
            None => gone.for_each(drop),
        }
    }

    /// A log from elsewhere.
    pub(crate) fn insert(&mut self, key: PartitionKey, log: Log) {
        if let Some(touched) = &mut self.touched {
            touched.insert(key);
        }
        self.by_key.insert(key, log);
    }

    /// From now on it is kept which logs are touched; none is so far.
    pub(crate) fn watch(&mut self) {
        self.touched = Some(BTreeSet::new());
    }

    /// The logs that may have changed, or gone, since this was last asked.
    ///
    /// # Panics
    /// If they are not watched.
    pub(crate) fn take_touched(&mut self) -> BTreeSet<PartitionKey> {
        std::mem::take(self.touched.as_mut().expect("logs that are written down are watched"))
    }
}

/// A broker's disk.
#[derive(Clone, Debug, Default)]
pub struct BrokerDisk {
    /// The logs of its replicas.
    pub logs: Logs,
    /// The broker epoch of the process that ended cleanly, until the next one starts (Kafka's `.kafka_cleanshutdown`).
    pub clean_shutdown: Option<i64>,
}

impl BrokerDisk {
    /// The machine lost power at `now`: of each log what had not been flushed is gone, but for pages that `rng` lets survive.
    /// What was lost, by partition; logs that lost nothing are not among them.
    pub fn lose_power(&mut self, now: Timestamp, rng: &mut Rng) -> BTreeMap<PartitionKey, PowerLoss> {
        let lost = self.logs.iter_mut().map(|(key, log)| (key, log.lose_power(now, rng)));
        lost.filter(|(_, loss)| loss.end < loss.end_before).collect()
    }

    /// A new process loads what is here.
    pub(super) fn load(&mut self, now: Timestamp) {
        self.logs.iter_mut().for_each(|(_, log)| log.load(now));
    }

    /// A clean shutdown flushes every log and writes every checkpoint (`LogManager.shutdown`). The high watermarks are the
    /// caller's to write before: they are known to the process only.
    pub(super) fn shut_down(&mut self, now: Timestamp) {
        for (_, log) in self.logs.iter_mut() {
            log.flush(now);
            log.checkpoint_recovery_point();
            log.checkpoint_start_offset();
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn only_logs_that_were_handed_out_to_be_changed_count_as_touched() {
        let key = |index| PartitionKey { topic: Uuid::from_u128(1), index };
        let mut logs = Logs::default();
        logs.get_or_make(Timestamp::ZERO, key(0));
        logs.watch();
        assert!(logs.take_touched().is_empty());
        logs.get_or_make(Timestamp::ZERO, key(1));
        assert!(logs.get(&key(0)).is_some() && logs.get_mut(&key(2)).is_none());
        assert_eq!(logs.take_touched(), [key(1)].into());
        logs.get_mut(&key(0)).unwrap();
        assert_eq!(logs.take_touched(), [key(0)].into());
        assert_eq!(logs.iter_mut().count(), 2);
        assert_eq!(logs.take_touched(), [key(0), key(1)].into());
        logs.retain(|kept| *kept == key(0));
        assert_eq!(logs.take_touched(), [key(1)].into(), "one that is gone");
        assert!(logs.contains_key(&key(0)) && logs.len() == 1);
    }
}

//! What a broker does for its logs by the clock: checkpoints, retention, compaction.
//!
//! Kafka's `LogManager` (retention, flush and checkpoint tasks, each first after an initial delay), `ReplicaManager` (high
//! watermarks) and `LogCleaner` (compacted logs, their old segments too). Write-back is the kernel's: `log::page_cache`.

use std::time::Duration;

use super::{Broker, Timer, Turn};
use crate::config::millis;
use crate::log::LogConfig;
use crate::metadata::PartitionKey;

/// What is done by the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Chore {
    ExpireProducers,
    CheckpointHighWatermarks,
    CheckpointRecoveryPoints,
    CheckpointStarts,
    Flush,
    Retain,
    Clean,
}

impl Broker {
    /// Sets the first time of each chore.
    pub(super) fn begin_upkeep(&mut self, turn: &Turn<'_>) {
        let first = every(self.settings.log_initial_task_delay_ms);
        let backoff = every(self.settings.log_cleaner_backoff_ms);
        let mut set = |chore, after| self.timers.set(turn.now + after, Timer::Upkeep(chore));
        set(Chore::ExpireProducers, millis(self.settings.producer_id_expiration_check_interval_ms));
        set(
            Chore::CheckpointHighWatermarks,
            every(self.settings.replica_high_watermark_checkpoint_interval_ms),
        );
        set(Chore::CheckpointRecoveryPoints, first);
        set(Chore::CheckpointStarts, first);
        set(Chore::Retain, first);
        // By default Kafka's flusher never wakes.
        if self.settings.log_flush_scheduler_interval_ms != i64::MAX {
            set(Chore::Flush, first);
        }
        if self.settings.log_cleaner_enable {
            set(Chore::Clean, backoff);
        }
    }

    pub(super) fn upkeep(&mut self, turn: &mut Turn<'_>, chore: Chore) {
        let next = match chore {
            Chore::ExpireProducers => {
                let expiration_ms = i64::from(self.settings.producer_id_expiration_ms);
                let partitions = self.partitions.values_mut();
                partitions.for_each(|partition| partition.producers.expire(turn.now_ms(), expiration_ms));
                millis(self.settings.producer_id_expiration_check_interval_ms)
            }
            Chore::CheckpointHighWatermarks => {
                self.checkpoint_high_watermarks(turn);
                every(self.settings.replica_high_watermark_checkpoint_interval_ms)
            }
            Chore::CheckpointRecoveryPoints => {
                turn.disk.logs.iter_mut().for_each(|(_, log)| log.checkpoint_recovery_point());
                every(self.settings.log_flush_offset_checkpoint_interval_ms.into())
            }
            Chore::CheckpointStarts => {
                turn.disk.logs.iter_mut().for_each(|(_, log)| log.checkpoint_start_offset());
                every(self.settings.log_flush_start_offset_checkpoint_interval_ms.into())
            }
            Chore::Flush => {
                self.flush_dirty(turn);
                every(self.settings.log_flush_scheduler_interval_ms)
            }
            Chore::Retain => {
                self.delete_old_segments(turn, |config| !config.compact);
                every(self.settings.log_retention_check_interval_ms)
            }
            Chore::Clean => {
                self.clean_logs(turn);
                self.delete_old_segments(turn, |config| config.compact);
                every(self.settings.log_cleaner_backoff_ms)
            }
        };
        self.timers.set(turn.now + next, Timer::Upkeep(chore));
    }

    fn log_config(&self, key: PartitionKey) -> Option<LogConfig> {
        let topic = self.image.topics.get(&key.topic)?;
        Some(LogConfig::new(&self.settings, &topic.settings))
    }

    fn flush_dirty(&self, turn: &mut Turn<'_>) {
        for (key, log) in turn.disk.logs.iter_mut() {
            if let Some(config) = self.log_config(key) {
                log.flush_if_due(turn.now, config.flush_ms);
            }
        }
    }

    fn delete_old_segments(&mut self, turn: &mut Turn<'_>, concerns: impl Fn(&LogConfig) -> bool) {
        let keys: Vec<PartitionKey> = self.partitions.keys().copied().collect();
        for key in keys {
            let Some(config) = self.log_config(key).filter(&concerns) else { continue };
            let partition = self.partitions.get_mut(&key).expect("its key was just here");
            let Some(log) = turn.disk.logs.get_mut(&key) else { continue };
            let deleted = log.delete_old_segments(turn.now, partition.high_watermark, &config);
            if deleted == 0 {
                continue;
            }
            partition.producers.log_start_moved(log);
            let (name, start) = (self.image.topics[&key.topic].name.clone(), log.start_offset());
            turn.note(format!(
                "broker {} deletes {deleted} segments of {name}/{}, which begins at {start} now",
                self.node, key.index
            ));
            self.log_start_moved(turn, key);
        }
    }

    fn clean_logs(&self, turn: &mut Turn<'_>) {
        for (&key, partition) in &self.partitions {
            let Some(config) = self.log_config(key).filter(|config| config.compact) else { continue };
            let Some(log) = turn.disk.logs.get_mut(&key) else { continue };
            let dirt = log.dirt(turn.now, partition.last_stable_offset(log), &config);
            if !dirt.is_due(&config) {
                continue;
            }
            let cleaned =
                log.clean(turn.now, &dirt, &config, |batch| partition.producers.is_last_of_producer(batch));
            let name = self.image.topics[&key.topic].name.clone();
            turn.note(format!(
                "broker {} cleans {name}/{} up to {}: {} bytes become {}",
                self.node, key.index, cleaned.end_offset, cleaned.bytes_before, cleaned.bytes_after
            ));
        }
    }
}

/// A span between two times of a chore: at least 1 ms, for a chore without a pause would not let the clock move, and no
/// longer than a run can be.
fn every(ms: i64) -> Duration {
    const LONGEST_MS: i64 = 1 << 40;
    Duration::from_millis(ms.clamp(1, LONGEST_MS) as u64)
}

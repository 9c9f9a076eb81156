//! What a broker's new process makes of a log (Kafka's `LogLoader`), and the checkpoint files that it goes by.
//!
//! Each file is written whole, synced and renamed, on a timer of its own, apart from the logs: after a power loss it may
//! be ahead of a log that has lost its end, and after a kill behind what the process knew.

use super::Log;

/// What a broker's checkpoint files say of one log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checkpoints {
    /// `recovery-point-offset-checkpoint`: up to here it was flushed.
    pub recovery_point: i64,
    /// `log-start-offset-checkpoint`: where it begins, if not with its first segment.
    pub start_offset: i64,
    /// `replication-offset-checkpoint`: the high watermark.
    pub high_watermark: i64,
    /// `cleaner-offset-checkpoint`: the first offset that was never cleaned. Written with each cleaning.
    pub first_dirty_offset: Option<i64>,
}

impl Log {
    /// What the checkpoint files say of it.
    pub fn checkpoints(&self) -> Checkpoints {
        self.checkpoints
    }

    /// Writes the high watermark to `replication-offset-checkpoint`.
    pub fn checkpoint_high_watermark(&mut self, high_watermark: i64) {
        if self.checkpoints.high_watermark != high_watermark {
            self.checkpoints.high_watermark = high_watermark;
            self.revision += 1;
        }
    }

    /// Writes `recovery-point-offset-checkpoint` and `log-start-offset-checkpoint`.
    pub fn checkpoint_offsets(&mut self) {
        // The start is only written down if the first segment does not tell it.
        let first = self.segments.front().map_or(self.end_offset, |segment| segment.base_offset());
        let start_offset =
            if self.start_offset > first || self.segments.is_empty() { self.start_offset } else { 0 };
        let written = Checkpoints { recovery_point: self.recovery_point(), start_offset, ..self.checkpoints };
        if self.checkpoints != written {
            self.checkpoints = written;
            self.revision += 1;
        }
    }

    /// Loads the log in a new process. Its start is what the files say; if a power loss left it ended before that, it is
    /// emptied and begins there.
    pub fn load(&mut self) {
        if let Some(last) = self.segments.back() {
            self.end_offset = last.next_offset();
        }
        let first = self.segments.front().map_or(self.end_offset, |segment| segment.base_offset());
        let start_offset = self.checkpoints.start_offset.max(first);
        if self.end_offset < start_offset {
            self.truncate_fully_and_start_at(start_offset);
        } else {
            self.start_offset = start_offset;
            self.epochs.truncate_from_end(self.end_offset);
            self.epochs.truncate_from_start(start_offset);
        }
        self.revision += 1;
    }

    /// The high watermark that a replica goes on from in a new process: what was checkpointed, within the log
    /// (`UnifiedLog.updateHighWatermark`).
    pub fn checkpointed_high_watermark(&self) -> i64 {
        self.checkpoints.high_watermark.clamp(self.start_offset, self.end_offset)
    }
}

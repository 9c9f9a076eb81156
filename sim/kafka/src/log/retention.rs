//! Old segments go, and a log's start moves (`UnifiedLog.deleteOldSegments`, `maybeIncrementLogStartOffset`).
//!
//! Whole segments are deleted, from the front, none that holds anything at or beyond the high watermark: for their age by
//! their largest record time, for the log's size, or because the log's start is beyond them. The active one may go too;
//! the log is empty then and goes on from its end. What producers it knows is not asked: their state stays.

use context::Timestamp;

use super::{Log, LogConfig, Segment};

/// The offset that a log's start shall move to is not within what is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("offset {offset} is beyond the high watermark {high_watermark}")]
pub struct BeyondHighWatermark {
    /// What was asked for.
    pub offset: i64,
    /// Up to where records are committed.
    pub high_watermark: i64,
}

impl Log {
    /// Deletes segments that the settings no longer keep; returns how many went.
    pub fn delete_old_segments(&mut self, now: Timestamp, high_watermark: i64, config: &LogConfig) -> usize {
        let start_offset = self.start_offset;
        let mut deleted =
            self.delete_front(now, high_watermark, |_, next| next.is_some_and(|next| next <= start_offset));
        if !config.delete {
            return deleted;
        }
        if let Ok(retained) = usize::try_from(config.retention_bytes)
            && self.size() > retained
        {
            let mut excess = self.size() - retained;
            deleted += self.delete_front(now, high_watermark, |segment, _| {
                let goes = segment.size() <= excess;
                excess = excess.saturating_sub(segment.size());
                goes
            });
        }
        if config.retention_ms >= 0 {
            let now_ms = now.as_millis() as i64;
            deleted += self.delete_front(now, high_watermark, |segment, _| {
                now_ms.saturating_sub(segment.largest_timestamp()) > config.retention_ms
            });
        }
        deleted
    }

    /// Deletes segments from the front as long as `goes` says so of each and of the base offset of the next.
    fn delete_front(
        &mut self,
        now: Timestamp,
        high_watermark: i64,
        mut goes: impl FnMut(&Segment, Option<i64>) -> bool,
    ) -> usize {
        let mut deleted = 0;
        while let Some(first) = self.segments.front() {
            let next = self.segments.get(1).map(Segment::base_offset);
            let empty_and_active = next.is_none() && first.size() == 0;
            let upper = next.unwrap_or(self.end_offset);
            if upper > high_watermark || empty_and_active || !goes(first, next) {
                break;
            }
            if next.is_none() {
                // A log rolls before it deletes its active segment, and a roll flushes.
                self.flush(now);
            }
            self.segments.pop_front();
            self.revision += 1;
            deleted += 1;
            self.aborted.drop_before(upper);
            self.raise_start(upper);
        }
        deleted
    }

    /// Moves the log's start to `offset`, as DeleteRecords does on a leader, and on a follower the start of its leader.
    /// Segments before it go when old segments are deleted next. `false` if it begins there or later already.
    ///
    /// # Errors
    /// [`BeyondHighWatermark`].
    pub fn raise_start_offset(
        &mut self,
        offset: i64,
        high_watermark: i64,
    ) -> Result<bool, BeyondHighWatermark> {
        if offset > high_watermark {
            return Err(BeyondHighWatermark { offset, high_watermark });
        }
        let raised = offset > self.start_offset;
        self.raise_start(offset);
        Ok(raised)
    }

    fn raise_start(&mut self, offset: i64) {
        if offset > self.start_offset {
            self.start_offset = offset;
            self.epochs.truncate_from_start(offset);
            self.snapshots.drop_through(offset);
            self.revision += 1;
        }
    }
}

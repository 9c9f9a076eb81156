//! What of a log is on the platter, and what only in the kernel's memory.
//!
//! Kafka leaves flushing to the kernel, but for a roll, a clean shutdown and `flush.messages`. A killed process loses
//! nothing by it: the kernel still has the pages. A machine without power loses what was not flushed, or nearly: pages are
//! written in some order and at some time, so a prefix of them may have made it, and with it part of a batch.

use std::collections::VecDeque;
use std::time::Duration;

use context::{Rng, Timestamp};
use rand::RngExt as _;

use super::Log;

/// How long the kernel may keep a written page to itself: Linux' `dirty_expire_centisecs`, 30 s.
pub const WRITE_BACK_AFTER: Duration = Duration::from_secs(30);
/// A page of the kernel's.
pub const PAGE_BYTES: usize = 4_096;

/// What is not on the platter yet.
#[derive(Clone, Debug, Default)]
pub(super) struct PageCache {
    /// Everything before it survives a power loss.
    flushed_offset: i64,
    /// Everything before it was flushed by Kafka itself, which is what Kafka knows of.
    recovery_point: i64,
    /// What was appended and not written back: since when, and up to which offset.
    dirty: VecDeque<(Timestamp, i64)>,
}

impl PageCache {
    pub(super) fn written(&mut self, now: Timestamp, end_offset: i64) {
        match self.dirty.back_mut() {
            // A second's worth of pages is written back together: close enough, and the queue stays short.
            Some((since, end)) if now.since(*since) < Duration::from_secs(1) => *end = end_offset,
            _ => self.dirty.push_back((now, end_offset)),
        }
    }

    pub(super) fn truncated(&mut self, end_offset: i64) {
        self.flushed_offset = self.flushed_offset.min(end_offset);
        self.recovery_point = self.recovery_point.min(end_offset);
        let flushed = self.flushed_offset;
        self.dirty.retain_mut(|(_, dirty)| {
            *dirty = (*dirty).min(end_offset);
            *dirty > flushed
        });
    }

    /// Nothing is written, and the log begins at `offset`.
    pub(super) fn begin_at(&mut self, offset: i64) {
        *self = PageCache { flushed_offset: offset, recovery_point: offset, dirty: VecDeque::new() };
    }

    fn flushed(&mut self, end_offset: i64) {
        self.flushed_offset = end_offset;
        self.recovery_point = end_offset;
        self.dirty.clear();
    }
}

/// What a power loss did to a log, once recovery has run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerLoss {
    /// Where it ended before.
    pub end_before: i64,
    /// Where it ends now.
    pub end: i64,
    /// Bytes of a torn batch that survived, and that recovery dropped.
    pub torn_bytes: usize,
}

impl Log {
    /// What a power loss certainly leaves: everything before this offset.
    pub fn flushed_offset(&self) -> i64 {
        self.cache.flushed_offset
    }

    /// What Kafka has flushed itself: everything before this offset. Recovery begins there.
    pub fn recovery_point(&self) -> i64 {
        self.cache.recovery_point
    }

    /// Makes everything durable.
    pub fn flush(&mut self) {
        if self.cache.recovery_point < self.end_offset {
            self.cache.flushed(self.end_offset);
            self.revision += 1;
        }
    }

    /// Flushes if something has been unflushed for `flush_ms` milliseconds.
    pub fn flush_if_older(&mut self, now: Timestamp, flush_ms: i64) {
        let since = self.cache.dirty.front().map(|(since, _)| now.since(*since));
        if since.is_some_and(|since| since.as_millis() as i64 >= flush_ms) {
            self.flush();
        }
    }

    /// The kernel's write-back: pages older than [`WRITE_BACK_AFTER`] become durable.
    pub fn write_back(&mut self, now: Timestamp) {
        while let Some(&(since, end)) = self.cache.dirty.front()
            && now.since(since) >= WRITE_BACK_AFTER
        {
            self.cache.flushed_offset = self.cache.flushed_offset.max(end);
            self.cache.dirty.pop_front();
        }
    }

    /// The machine loses power: of what was not flushed some pages survive, from the front, how many `rng` says. The batch
    /// that the last of them tears in two is gone as well, because recovery cuts a segment at the first batch with a wrong
    /// checksum (`LogSegment.recover`).
    pub fn lose_power(&mut self, rng: &mut Rng) -> PowerLoss {
        let end_before = self.end_offset;
        let unflushed = self.batches_from(self.cache.flushed_offset).map(|batch| batch.bytes.len());
        let bytes: usize = unflushed.sum();
        // Half of the time nothing had been written yet: write-back comes in bursts.
        let pages = bytes.div_ceil(PAGE_BYTES);
        let survived = if rng.random() { (rng.random_range(0..=pages) * PAGE_BYTES).min(bytes) } else { 0 };
        let (mut whole, mut end) = (0, self.cache.flushed_offset);
        for batch in self.batches_from(self.cache.flushed_offset) {
            if whole + batch.bytes.len() > survived {
                break;
            }
            whole += batch.bytes.len();
            end = batch.header.next_offset();
        }
        self.truncate_to(end.min(end_before));
        self.cache.dirty.clear();
        // What is on the platter stays there, though Kafka does not know of it.
        self.cache.flushed_offset = self.end_offset;
        PowerLoss { end_before, end: self.end_offset, torn_bytes: survived - whole }
    }
}

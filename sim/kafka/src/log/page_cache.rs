//! What of a log is on the platter, and what only in the kernel's memory.
//!
//! Kafka leaves flushing to the kernel, but for a roll, a clean shutdown and `flush.messages`. A killed process loses
//! nothing by it: the kernel still has the pages. A machine without power loses what was not flushed, or nearly: pages are
//! written in some order and at some time, so a prefix of them may have made it, and with it part of a batch. That part lies
//! on the platter until a new process recovers the log (`recovery`).
//!
//! Write-back is the kernel's, not the broker's: it goes on when the process is dead. So it is worked out from the clock
//! when it matters, and no timer of the broker's drives it.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use context::{Rng, Timestamp};
use rand::RngExt as _;

use super::Log;

/// How long the kernel may keep a written page to itself: Linux' `dirty_expire_centisecs`, 30 s.
pub const WRITE_BACK_AFTER: Duration = Duration::from_secs(30);
/// How often the kernel looks for pages to write: Linux' `dirty_writeback_centisecs`, 5 s.
const WRITE_BACK_INTERVAL_MS: u64 = 5_000;
/// A page of the kernel's.
pub const PAGE_BYTES: usize = 4_096;

/// What is not on the platter yet.
#[derive(Clone, Debug, Default)]
pub(super) struct PageCache {
    /// Everything before it survives a power loss.
    flushed_offset: i64,
    /// Everything before it was flushed by Kafka itself, which is what Kafka knows of.
    recovery_point: i64,
    /// When Kafka last flushed something, or when its process began with the log (`LocalLog.lastFlushTime`).
    last_flush: Timestamp,
    /// What was appended and not written back: since when, and up to which offset.
    dirty: VecDeque<(Timestamp, i64)>,
}

impl PageCache {
    pub(super) fn written(&mut self, now: Timestamp, end_offset: i64) {
        self.write_back(now);
        match self.dirty.back_mut() {
            // A second's worth of pages is written back together: close enough, and the queue stays short.
            Some((since, end)) if now.since(*since) < Duration::from_secs(1) => *end = end_offset,
            _ => self.dirty.push_back((now, end_offset)),
        }
    }

    /// What the kernel has written by `now`: pages that were old enough when it last looked.
    pub(super) fn write_back(&mut self, now: Timestamp) {
        let looked = now.as_millis() / WRITE_BACK_INTERVAL_MS * WRITE_BACK_INTERVAL_MS;
        while let Some(&(since, end)) = self.dirty.front()
            && Timestamp::from_millis(looked).since(since) >= WRITE_BACK_AFTER
        {
            self.flushed_offset = self.flushed_offset.max(end);
            self.dirty.pop_front();
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
        (self.flushed_offset, self.recovery_point) = (offset, offset);
        self.dirty.clear();
    }

    /// A process begins with the log.
    pub(super) fn opened(&mut self, now: Timestamp) {
        self.last_flush = now;
    }

    /// Kafka has flushed everything before `end_offset`.
    pub(super) fn flushed(&mut self, now: Timestamp, end_offset: i64) {
        if end_offset > self.recovery_point {
            self.last_flush = now;
        }
        self.flushed_offset = end_offset;
        self.recovery_point = end_offset;
        self.dirty.clear();
    }
}

/// The file of a segment as a power loss left it: whole batches, then perhaps part of one.
#[derive(Clone, Debug)]
pub(super) struct Remains {
    pub(super) base_offset: i64,
    pub(super) bytes: Bytes,
}

/// What a power loss did to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerLoss {
    /// Where it ended before.
    pub end_before: i64,
    /// Where its last whole batch ends now.
    pub end: i64,
    /// Records that are gone; markers are none.
    pub records: u64,
    /// Bytes of a torn batch that lie behind the last whole one, for recovery to drop.
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
    pub fn flush(&mut self, now: Timestamp) {
        if self.cache.recovery_point < self.end_offset {
            self.cache.flushed(now, self.end_offset);
            self.revision += 1;
        }
    }

    /// Flushes if the last flush was `flush_ms` milliseconds ago or longer, however young what is not flushed may be
    /// (`LogManager.flushDirtyLogs`).
    pub fn flush_if_due(&mut self, now: Timestamp, flush_ms: i64) {
        if now.since(self.cache.last_flush).as_millis() as i64 >= flush_ms {
            self.flush(now);
        }
    }

    /// The machine loses power at `now`: of what was not flushed some pages survive, from the front, how many `rng` says.
    ///
    /// The log is then what is whole of it; the segment's file, which may end within a batch, is kept for the next process,
    /// whose recovery decides what becomes of it ([`Log::load`]).
    pub fn lose_power(&mut self, now: Timestamp, rng: &mut Rng) -> PowerLoss {
        self.cache.write_back(now);
        let (end_before, flushed) = (self.end_offset, self.cache.flushed_offset);
        let unflushed: Vec<Bytes> = self.batches_from(flushed).map(|batch| batch.bytes.clone()).collect();
        if unflushed.is_empty() {
            return PowerLoss { end_before, end: end_before, records: 0, torn_bytes: 0 };
        }
        let base_offset = self.active_base_offset();
        assert!(flushed >= base_offset, "all but the active segment was flushed when the next one began");
        let bytes: usize = unflushed.iter().map(Bytes::len).sum();
        // Half of the time nothing had been written yet: write-back comes in bursts.
        let pages = bytes.div_ceil(PAGE_BYTES);
        let survived = if rng.random() { (rng.random_range(0..=pages) * PAGE_BYTES).min(bytes) } else { 0 };
        let (mut whole, mut end, mut records) = (0, flushed, 0);
        let mut is_torn = false;
        for batch in self.batches_from(flushed) {
            // Behind the first that is not whole, none is, however small.
            is_torn |= whole + batch.bytes.len() > survived;
            if !is_torn {
                whole += batch.bytes.len();
                end = batch.header.next_offset();
            } else if !batch.header.is_control() {
                records += batch.header.record_count.unsigned_abs();
            }
        }
        self.truncate_to(end.min(end_before));
        let mut file = BytesMut::new();
        self.batches_from(base_offset).for_each(|batch| file.extend_from_slice(&batch.bytes));
        let torn: Bytes = unflushed.concat().into();
        file.extend_from_slice(&torn[whole..survived]);
        self.remains = Some(Remains { base_offset, bytes: file.freeze() });
        self.cache.dirty.clear();
        // What is on the platter stays there, though Kafka does not know of it.
        self.cache.flushed_offset = self.end_offset;
        PowerLoss {
            end_before,
            end: self.end_offset,
            records: u64::from(records),
            torn_bytes: survived - whole,
        }
    }
}

//! A partition's log, as one replica's disk holds it: batches in segments, the epochs that wrote them, how much has
//! reached the platter, and what the broker's checkpoint files say of it.
//!
//! It owns bytes and offsets, as Kafka's `UnifiedLog` with its `LocalLog`. It does not know who leads, what is committed,
//! or what a producer may append: [`crate::partition`] does. Start reading at [`Log`]; what a crash leaves is in
//! `page_cache`, what a new process makes of that in `recovery`. Absent: tiered storage, indexes (a segment is searched by
//! halves), several log directories.

pub mod batch;
pub(crate) mod checkpoint_file;
pub mod cleaner;
pub mod compression;
mod config;
mod epochs;
pub mod marker;
mod page_cache;
pub mod producer_state;
pub mod record;
mod recovery;
mod retention;
mod segment;
mod time_lookup;
pub mod transactions;
pub mod validator;
pub mod verification;

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use context::Timestamp;

use batch::BatchHeader;
use epochs::Epochs;
use page_cache::{PageCache, Remains};
use producer_state::Snapshots;
use transactions::AbortedIndex;

pub use config::LogConfig;
pub use epochs::EpochStart;
pub use page_cache::{PAGE_BYTES, PowerLoss, WRITE_BACK_AFTER};
pub use recovery::Checkpoints;
pub use segment::{Segment, SegmentRules};
pub use time_lookup::TimestampAndOffset;

/// A batch on disk.
#[derive(Clone, Debug)]
pub struct StoredBatch {
    /// Its header, as stored.
    pub header: BatchHeader,
    /// All of it.
    pub bytes: Bytes,
}

/// One replica of one partition.
///
/// Without a segment it is as with one that is empty and begins at its end.
#[derive(Clone, Debug, Default)]
pub struct Log {
    start_offset: i64,
    end_offset: i64,
    segments: VecDeque<Segment>,
    epochs: Epochs,
    cache: PageCache,
    /// The last segment's file after a power loss, until a new process has recovered it.
    remains: Option<Remains>,
    checkpoints: Checkpoints,
    /// The producers as they were at some offsets: see [`producer_state`].
    pub(crate) snapshots: Snapshots,
    /// What readers of committed data must leave out.
    pub(crate) aborted: AbortedIndex,
    /// Counts what changed it.
    revision: u64,
}

impl Log {
    /// An empty log that begins at 0.
    pub fn new(now: Timestamp) -> Log {
        let mut log = Log::default();
        log.cache.opened(now);
        log
    }

    /// The first offset that readers may ask for.
    pub fn start_offset(&self) -> i64 {
        self.start_offset
    }

    /// The offset that the next record gets.
    pub fn end_offset(&self) -> i64 {
        self.end_offset
    }

    /// Bytes of all its segments.
    pub fn size(&self) -> usize {
        self.segments.iter().map(Segment::size).sum()
    }

    /// Its segments, in order; the last is the active one.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &Segment> + ExactSizeIterator {
        self.segments.iter()
    }

    /// A number that changes with everything that changes the log.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Which leader wrote what.
    pub fn epochs(&self) -> &[EpochStart] {
        self.epochs.starts()
    }

    /// The latest epoch that wrote here, or was assigned.
    pub fn latest_epoch(&self) -> Option<i32> {
        self.epochs.latest().map(|latest| latest.epoch)
    }

    /// The epoch that wrote `offset`, if it is in the log.
    pub fn epoch_of(&self, offset: i64) -> Option<i32> {
        self.epochs.of(offset)
    }

    /// The largest epoch up to `epoch` that wrote here, and the offset that its records end before
    /// (`LeaderEpochFileCache.endOffsetFor`). Of an epoch older than all that is here: itself, ended at the first epoch's
    /// start. `None` for an epoch that is newer than all: a leader assigns its own as it begins.
    pub fn end_of_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        self.epochs.end_of(epoch, self.end_offset)
    }

    /// A new leader's epoch begins at the log's end, before its first record (`Partition.makeLeader`).
    pub fn assign_epoch(&mut self, epoch: i32) {
        self.epochs.assign(epoch, self.end_offset);
        self.revision += 1;
    }

    /// Appends a stamped batch, into a new segment if the last one is full or old.
    ///
    /// # Panics
    /// If its base offset is before the log's end: whoever stamps it, or replicates it, knows better.
    pub fn append(&mut self, now: Timestamp, bytes: Bytes, rules: impl Into<SegmentRules>) -> BatchHeader {
        let rules = rules.into();
        let header = BatchHeader::parse(&bytes).expect("only checked batches reach a log");
        assert_eq!(header.size(), bytes.len(), "a stored batch is one batch");
        assert!(header.base_offset >= self.end_offset, "a batch begins at its log's end, or after a hole");
        self.epochs.assign(header.leader_epoch, header.base_offset);
        let full = self.segments.back().is_none_or(|segment| {
            segment.is_full_for(rules, now, bytes.len(), header.last_offset(), header.max_timestamp)
        });
        if full {
            self.roll(now, header.base_offset);
        }
        let segment = self.segments.back_mut().expect("a log that was rolled has a segment");
        segment.push(now, StoredBatch { header, bytes });
        self.end_offset = header.next_offset();
        self.revision += 1;
        self.cache.written(now, self.end_offset);
        if self.end_offset - self.recovery_point() >= rules.flush_messages {
            self.flush(now);
        }
        header
    }

    /// Begins a new segment at `base_offset`. All before it is flushed, a hole between the two as well
    /// (`flushUptoOffsetExclusive` of the new segment's base): Kafka does so right away, in the background.
    pub(crate) fn roll(&mut self, now: Timestamp, base_offset: i64) {
        self.cache.flushed(now, base_offset);
        self.revision += 1;
        if self.segments.back().is_some_and(|last| last.size() == 0) {
            self.segments.pop_back();
        }
        self.segments.push_back(Segment::new(base_offset, now, self.revision));
    }

    /// The aborted transactions that are told of in this log.
    pub fn aborted(&self) -> &AbortedIndex {
        &self.aborted
    }

    /// The first offset of the segment that is appended to.
    pub fn active_base_offset(&self) -> i64 {
        self.segments.back().map_or(self.end_offset, Segment::base_offset)
    }

    /// Drops every batch that ends beyond `offset`; the log ends there then, or at the start of a batch that holds it.
    pub fn truncate_to(&mut self, offset: i64) {
        if offset < self.end_offset {
            self.revision += 1;
            let dropped = self.batches_from(offset).next().map(|batch| batch.header.base_offset);
            let end = dropped.map_or(offset, |base_offset| base_offset.min(offset));
            while let Some(last) = self.segments.back_mut() {
                last.truncate_to(end, self.revision);
                if !last.batches().is_empty() {
                    break;
                }
                self.segments.pop_back();
            }
            self.end_offset = end;
            self.start_offset = self.start_offset.min(end);
            self.cache.truncated(end);
            self.aborted.truncate_to(end);
        }
        if let Some(first_dirty) = &mut self.checkpoints.first_dirty_offset {
            *first_dirty = (*first_dirty).min(self.end_offset);
        }
        // Of epochs that were assigned at the end, and wrote nothing, there may be some even if no record goes.
        self.epochs.truncate_from_end(self.end_offset);
    }

    /// Drops everything; the log begins and ends at `offset`, as a follower's whose leader begins there
    /// (`truncateFullyAndStartAt`).
    pub fn truncate_fully_and_start_at(&mut self, offset: i64) {
        self.revision += 1;
        self.segments.clear();
        self.epochs.clear();
        self.start_offset = offset;
        self.end_offset = offset;
        self.cache.begin_at(offset);
        self.aborted.truncate_to(0);
        self.checkpoints.first_dirty_offset = None;
    }

    /// All batches, in order; the first may begin before the log's start.
    pub fn batches(&self) -> impl Iterator<Item = &StoredBatch> {
        self.segments.iter().flat_map(Segment::batches)
    }

    /// The batches from the one that holds `offset` on, or from the next one if `offset` was compacted away.
    pub fn batches_from(&self, offset: i64) -> impl Iterator<Item = &StoredBatch> {
        let ends_before = move |batch: &StoredBatch| batch.header.next_offset() <= offset;
        self.segments.iter().skip(self.segment_from(offset)).flat_map(move |segment| {
            let first = segment.batches().partition_point(ends_before);
            &segment.batches()[first..]
        })
    }

    /// The segment, by its base offset, from which a reader at `offset` gets what is before `upper`; where it is at `upper`
    /// itself, the one in which that ends.
    pub fn segment_of_read(&self, offset: i64, upper: i64) -> i64 {
        let index = if offset < upper {
            self.segment_from(offset)
        } else {
            self.segments.partition_point(|segment| segment.base_offset() < upper).saturating_sub(1)
        };
        self.segments.get(index).map_or_else(|| self.active_base_offset(), Segment::base_offset)
    }

    /// The index of the segment with the batch that holds `offset`, or the next one.
    fn segment_from(&self, offset: i64) -> usize {
        self.segments.partition_point(|segment| segment.end_offset() <= offset)
    }

    /// Whole batches of one segment (`LocalLog.read`), from the one that holds `offset`, up to `upper` and to `max_bytes`; the
    /// first comes whatever its size if `at_least_one`, so that a reader with small buffers is never stuck.
    pub fn read(&self, offset: i64, upper: i64, max_bytes: usize, at_least_one: bool) -> Bytes {
        let Some(segment) = self.segments.get(self.segment_from(offset)) else { return Bytes::new() };
        let first = segment.batches().partition_point(|batch| batch.header.next_offset() <= offset);
        let mut taken: Vec<&Bytes> = Vec::new();
        let mut size = 0;
        for batch in &segment.batches()[first..] {
            let fits = size + batch.bytes.len() <= max_bytes || (taken.is_empty() && at_least_one);
            if batch.header.next_offset() > upper || !fits {
                break;
            }
            size += batch.bytes.len();
            taken.push(&batch.bytes);
        }
        match taken[..] {
            [] => Bytes::new(),
            // One batch goes out as it lies: no copy.
            [one] => one.clone(),
            _ => {
                let mut read = BytesMut::with_capacity(size);
                taken.iter().for_each(|bytes| read.extend_from_slice(bytes));
                read.freeze()
            }
        }
    }

    /// Bytes between `offset` and `upper`, for a fetch that waits for more; counting ends at `enough`.
    pub fn bytes_between(&self, offset: i64, upper: i64, enough: usize) -> usize {
        let mut bytes = 0;
        for batch in self.batches_from(offset) {
            if batch.header.next_offset() > upper || bytes >= enough {
                break;
            }
            bytes += batch.bytes.len();
        }
        bytes
    }
}

#[cfg(test)]
mod tests;

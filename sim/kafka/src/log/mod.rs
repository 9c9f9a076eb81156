//! A partition's log, as one replica's disk holds it: batches in segments, the epochs that wrote them, and how much has
//! reached the platter.
//!
//! It owns bytes and offsets. It does not know who leads, what is committed, or what a producer may append:
//! [`crate::partition`] does. Start reading at [`Log`]. Absent: retention and compaction.

pub mod batch;
pub mod compression;
pub mod marker;
pub mod producer_state;
pub mod record;
pub mod transactions;
pub mod verification;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use context::Timestamp;

use batch::BatchHeader;
use producer_state::Snapshots;
use transactions::AbortedIndex;

/// How long the kernel may keep a written page to itself: Linux' `dirty_expire_centisecs`, 30 s.
pub const WRITE_BACK_AFTER: Duration = Duration::from_secs(30);

/// A batch on disk.
#[derive(Clone, Debug)]
pub struct StoredBatch {
    /// Its header, as stored.
    pub header: BatchHeader,
    /// All of it.
    pub bytes: Bytes,
}

/// From `start_offset` on, batches were written by the leader of `epoch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    /// The leader's epoch.
    pub epoch: i32,
    /// Its first offset.
    pub start_offset: i64,
}

#[derive(Clone, Debug, Default)]
struct Segment {
    size: usize,
    batches: Vec<StoredBatch>,
}

/// One replica of one partition.
#[derive(Clone, Debug, Default)]
pub struct Log {
    start_offset: i64,
    end_offset: i64,
    segments: VecDeque<Segment>,
    epochs: Vec<EpochStart>,
    flushed_offset: i64,
    /// What was appended and not written back: since when, and up to which offset.
    dirty: VecDeque<(Timestamp, i64)>,
    /// The producers as they were at some offsets: see [`producer_state`].
    pub(crate) snapshots: Snapshots,
    /// What readers of committed data must leave out.
    pub(crate) aborted: AbortedIndex,
}

impl Log {
    /// The first offset that is kept.
    pub fn start_offset(&self) -> i64 {
        self.start_offset
    }

    /// The offset that the next record gets.
    pub fn end_offset(&self) -> i64 {
        self.end_offset
    }

    /// What a power loss leaves: everything before this offset.
    pub fn flushed_offset(&self) -> i64 {
        self.flushed_offset
    }

    /// Which leader wrote what.
    pub fn epochs(&self) -> &[EpochStart] {
        &self.epochs
    }

    /// The epoch that wrote `offset`, if it is in the log.
    pub fn epoch_of(&self, offset: i64) -> Option<i32> {
        let after = self.epochs.partition_point(|entry| entry.start_offset <= offset);
        after.checked_sub(1).map(|index| self.epochs[index].epoch)
    }

    /// The largest epoch up to `epoch` that wrote here, and the offset that its records end before; `None` if all that is
    /// here is newer.
    pub fn end_of_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        let after = self.epochs.partition_point(|entry| entry.epoch <= epoch);
        let last = self.epochs[..after].last()?;
        Some((last.epoch, self.epochs.get(after).map_or(self.end_offset, |next| next.start_offset)))
    }

    /// Appends a stamped batch, into a new segment if the last would grow beyond `segment_bytes`.
    ///
    /// # Panics
    /// If its base offset is not the log's end, or its epoch is older than the last: whoever stamps it knows both.
    pub fn append(&mut self, now: Timestamp, bytes: Bytes, segment_bytes: usize) -> BatchHeader {
        let header = BatchHeader::parse(&bytes).expect("only checked batches reach a log");
        assert_eq!(header.size(), bytes.len(), "a stored batch is one batch");
        assert_eq!(header.base_offset, self.end_offset, "a batch begins where its log ends");
        self.begin_epoch(header.leader_epoch);
        let full = self.segments.back().is_none_or(|segment| segment.size + bytes.len() > segment_bytes);
        if full {
            self.roll();
        }
        let segment = self.segments.back_mut().expect("a log that was rolled has a segment");
        segment.size += bytes.len();
        segment.batches.push(StoredBatch { header, bytes });
        self.end_offset = header.next_offset();
        match self.dirty.back_mut() {
            // A second's worth of pages is written back together: close enough, and the queue stays short.
            Some((since, end)) if now.since(*since) < Duration::from_secs(1) => *end = self.end_offset,
            _ => self.dirty.push_back((now, self.end_offset)),
        }
        header
    }

    fn begin_epoch(&mut self, epoch: i32) {
        let last = self.epochs.last().map_or(-1, |entry| entry.epoch);
        assert!(epoch >= last, "leader epoch {epoch} appends after epoch {last}");
        if epoch > last {
            self.epochs.push(EpochStart { epoch, start_offset: self.end_offset });
        }
    }

    /// A roll flushes what came before it.
    fn roll(&mut self) {
        self.flush();
        self.segments.push_back(Segment::default());
    }

    /// The aborted transactions that are told of in this log.
    pub fn aborted(&self) -> &AbortedIndex {
        &self.aborted
    }

    /// The first offset of the segment that is appended to.
    pub fn active_base_offset(&self) -> i64 {
        let active = self.segments.back().and_then(|segment| segment.batches.first());
        active.map_or(self.end_offset, |batch| batch.header.base_offset)
    }

    /// Makes everything durable.
    pub fn flush(&mut self) {
        self.flushed_offset = self.end_offset;
        self.dirty.clear();
    }

    /// The kernel's write-back: pages older than [`WRITE_BACK_AFTER`] become durable.
    pub fn write_back(&mut self, now: Timestamp) {
        while let Some(&(since, end)) = self.dirty.front()
            && now.since(since) >= WRITE_BACK_AFTER
        {
            self.flushed_offset = self.flushed_offset.max(end);
            self.dirty.pop_front();
        }
    }

    /// What is left after a power loss.
    pub fn lose_power(&mut self) {
        self.truncate_to(self.flushed_offset);
        self.dirty.clear();
    }

    /// Drops every batch that ends beyond `offset`.
    pub fn truncate_to(&mut self, offset: i64) {
        while let Some(segment) = self.segments.back_mut() {
            while let Some(last) = segment.batches.last()
                && last.header.next_offset() > offset
            {
                segment.size -= last.bytes.len();
                self.end_offset = last.header.base_offset;
                segment.batches.pop();
            }
            if !segment.batches.is_empty() {
                break;
            }
            self.segments.pop_back();
        }
        let end = self.end_offset;
        self.epochs.retain(|entry| entry.start_offset < end);
        self.flushed_offset = self.flushed_offset.min(end);
        self.aborted.truncate_to(end);
        self.dirty.retain_mut(|(_, dirty)| {
            *dirty = (*dirty).min(end);
            *dirty > self.flushed_offset
        });
    }

    /// All batches, in order.
    pub fn batches(&self) -> impl Iterator<Item = &StoredBatch> {
        self.segments.iter().flat_map(|segment| &segment.batches)
    }

    /// The batches from the one that holds `offset` on.
    pub fn batches_from(&self, offset: i64) -> impl Iterator<Item = &StoredBatch> {
        let ends_before = move |batch: &StoredBatch| batch.header.next_offset() <= offset;
        let segment =
            self.segments.partition_point(|segment| segment.batches.last().is_some_and(ends_before));
        self.segments.iter().skip(segment).flat_map(move |segment| {
            let first = segment.batches.partition_point(ends_before);
            &segment.batches[first..]
        })
    }

    /// Whole batches from the one that holds `offset`, up to `upper` and to `max_bytes`; the first comes whatever its
    /// size if `at_least_one`, so that a reader with small buffers is never stuck.
    pub fn read(&self, offset: i64, upper: i64, max_bytes: usize, at_least_one: bool) -> Bytes {
        let mut taken: Vec<&Bytes> = Vec::new();
        let mut size = 0;
        for batch in self.batches_from(offset) {
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `count` records, appended at the log's end under `epoch`.
    fn append(log: &mut Log, count: usize, epoch: i32, now_ms: u64) {
        let records = vec![(None, Some(Bytes::from_static(b"value"))); count];
        let batch = record::write_batch(now_ms as i64, &records);
        let stamped = batch::stamp(&batch, log.end_offset(), epoch, None);
        log.append(Timestamp::from_millis(now_ms), stamped, 300);
    }

    fn offsets(bytes: &Bytes) -> Vec<i64> {
        let mut rest = bytes.clone();
        let mut offsets = Vec::new();
        while !rest.is_empty() {
            let header = BatchHeader::parse(&rest).unwrap();
            offsets.extend(header.base_offset..header.next_offset());
            rest = rest.split_off(header.size());
        }
        offsets
    }

    #[test]
    fn a_read_from_inside_a_batch_gives_the_whole_batch() {
        let mut log = Log::default();
        append(&mut log, 3, 0, 1);
        append(&mut log, 2, 0, 2);
        assert_eq!(offsets(&log.read(1, 5, 10_000, true)), [0, 1, 2, 3, 4]);
        assert_eq!(offsets(&log.read(3, 5, 10_000, true)), [3, 4]);
        assert_eq!(offsets(&log.read(1, 3, 10_000, true)), [0, 1, 2]);
    }

    #[test]
    fn the_first_batch_comes_whatever_its_size() {
        let mut log = Log::default();
        append(&mut log, 3, 0, 1);
        append(&mut log, 2, 0, 2);
        assert_eq!(offsets(&log.read(0, 5, 1, true)), [0, 1, 2]);
        assert!(log.read(0, 5, 1, false).is_empty());
    }

    #[test]
    fn a_power_loss_keeps_what_was_written_back() {
        let mut log = Log::default();
        append(&mut log, 1, 0, 0);
        append(&mut log, 1, 0, 20_000);
        log.write_back(Timestamp::from_millis(31_000));
        assert_eq!((log.flushed_offset(), log.end_offset()), (1, 2));
        log.lose_power();
        assert_eq!(log.end_offset(), 1);
        append(&mut log, 1, 1, 32_000);
        assert_eq!(log.epoch_of(1), Some(1));
    }

    proptest! {
        /// The model is a flat list: (epoch) of each offset.
        #[test]
        fn a_log_is_a_list_of_records(steps in proptest::collection::vec((0..4_u8, 1..6_usize, 0..40_i64), 1..40)) {
            let mut log = Log::default();
            let mut model: Vec<i32> = Vec::new();
            let mut batch_ends = vec![0_i64];
            let mut epoch = 0;
            for (step, count, at) in steps {
                match step {
                    0 | 1 => {
                        append(&mut log, count, epoch, 1);
                        model.extend(std::iter::repeat_n(epoch, count));
                        batch_ends.push(model.len() as i64);
                    }
                    2 => epoch += 1,
                    _ => {
                        log.truncate_to(at);
                        batch_ends.retain(|&end| end <= at);
                        model.truncate(*batch_ends.last().unwrap() as usize);
                    }
                }
                prop_assert_eq!(log.end_offset(), model.len() as i64);
                for (offset, &epoch) in model.iter().enumerate() {
                    prop_assert_eq!(log.epoch_of(offset as i64), Some(epoch));
                }
                let from = (at).min(log.end_offset());
                let first = batch_ends.iter().rev().find(|&&end| end <= from).copied().unwrap();
                let read = offsets(&log.read(from, log.end_offset(), usize::MAX, true));
                let expected: Vec<i64> = if from == log.end_offset() { Vec::new() } else { (first..log.end_offset()).collect() };
                prop_assert_eq!(read, expected);
            }
        }
    }
}

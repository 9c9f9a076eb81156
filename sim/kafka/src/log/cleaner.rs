//! Compaction: of each key the last record stays (Kafka's `LogCleaner`, `LogCleanerManager` and `Cleaner`).
//!
//! - What is dirty was never cleaned. Cleaned is up to the active segment, the last stable offset, and the compaction lag;
//!   when enough of the log is dirty, or something in it is too old ([`Dirt::is_due`]).
//! - Offsets stay: a batch keeps its first and last offset whatever is left in it, and where batches go there are holes.
//! - A tombstone goes in two steps (KIP-534): the first cleaning that sees it writes into its batch when it may go, and a
//!   cleaning after that drops it. A marker likewise, from the first cleaning on that sees no data of its transaction.
//! - Data of aborted transactions goes at once.
//! - The last batch of a producer that is known stays, empty if need be, for its sequence; and so does the last batch
//!   of the range, for its offset.
//!
//! Start reading at [`Log::clean`]. Absent: the bound of Kafka's offset map, and its throttle.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use context::Timestamp;

use super::batch::BatchHeader;
use super::marker::Marker;
use super::record::{self, Record, Records};
use super::transactions::AbortedTransaction;
use super::{Log, LogConfig, Segment, StoredBatch};

/// The time of a record that has none.
const NO_TIMESTAMP: i64 = -1;

/// How dirty a log is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dirt {
    /// Everything before it was cleaned.
    pub first_dirty_offset: i64,
    /// Nothing from here on may be cleaned now: the base offset of a segment.
    pub first_uncleanable_offset: i64,
    /// Bytes that are clean.
    pub clean_bytes: usize,
    /// Bytes between the two offsets.
    pub cleanable_bytes: usize,
    /// Something dirty is older than `max.compaction.lag.ms`.
    pub is_overdue: bool,
}

impl Dirt {
    /// Whether the log is to be cleaned now.
    pub fn is_due(&self, config: &LogConfig) -> bool {
        let total = self.clean_bytes + self.cleanable_bytes;
        let ratio = self.cleanable_bytes as f64 / total as f64;
        total > 0
            && ((self.is_overdue && self.cleanable_bytes > 0) || ratio > config.min_cleanable_dirty_ratio)
    }
}

/// What a cleaning did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cleaned {
    /// The log is clean up to here.
    pub end_offset: i64,
    /// Bytes before, up to there.
    pub bytes_before: usize,
    /// Bytes after.
    pub bytes_after: usize,
}

impl Log {
    /// How dirty it is, if readers of committed data see what is before `last_stable_offset`.
    pub fn dirt(&self, now: Timestamp, last_stable_offset: i64, config: &LogConfig) -> Dirt {
        let now_ms = now.as_millis() as i64;
        let in_log = self.start_offset..=self.end_offset;
        // Retention or a truncation may have passed what was written down.
        let first_dirty_offset = self
            .checkpoints
            .first_dirty_offset
            .filter(|dirty| in_log.contains(dirty))
            .unwrap_or(self.start_offset);
        let active = self.active_base_offset();
        let mut uncleanable = last_stable_offset.min(active);
        if config.min_compaction_lag_ms > 0 {
            let young = now_ms.saturating_sub(config.min_compaction_lag_ms);
            let first_young =
                self.inactive_from(first_dirty_offset).find(|segment| segment.largest_timestamp() > young);
            uncleanable = uncleanable.min(first_young.map_or(active, Segment::base_offset));
        }
        let uncleanable = uncleanable.max(first_dirty_offset);
        // Whole segments only: the one that holds the offset stays as it is.
        let first_uncleanable_offset =
            self.inactive_from(uncleanable).next().map_or(active, Segment::base_offset);
        let oldest = self.inactive_from(first_dirty_offset).filter_map(Segment::first_batch_timestamp).min();
        let bytes = |wanted: &dyn Fn(i64) -> bool| {
            let segments = self.segments.iter().filter(|segment| wanted(segment.base_offset()));
            segments.map(Segment::size).sum()
        };
        let first_dirty_segment = self.segment_that_holds(first_dirty_offset);
        Dirt {
            first_dirty_offset,
            first_uncleanable_offset,
            clean_bytes: bytes(&|base| base < first_dirty_offset),
            cleanable_bytes: bytes(&|base| (first_dirty_segment..first_uncleanable_offset).contains(&base)),
            is_overdue: oldest
                .is_some_and(|oldest| oldest < now_ms.saturating_sub(config.max_compaction_lag_ms)),
        }
    }

    /// The base offset of the segment that holds `offset`.
    fn segment_that_holds(&self, offset: i64) -> i64 {
        let after = self.segments.partition_point(|segment| segment.base_offset() <= offset);
        after.checked_sub(1).map_or(offset, |index| self.segments[index].base_offset())
    }

    /// The segments but the active one, from the one that holds `offset` on.
    fn inactive_from(&self, offset: i64) -> impl Iterator<Item = &Segment> {
        let inactive = self.segments.len().saturating_sub(1);
        let first = self.segment_that_holds(offset);
        self.segments.iter().take(inactive).filter(move |segment| segment.base_offset() >= first)
    }

    /// Cleans what is dirty, and everything before it. `is_last_of_producer` says which batches hold the last that is
    /// known of their producers.
    pub fn clean(
        &mut self,
        now: Timestamp,
        dirt: &Dirt,
        config: &LogConfig,
        is_last_of_producer: impl Fn(&BatchHeader) -> bool,
    ) -> Cleaned {
        let end_offset = dirt.first_uncleanable_offset;
        let latest = self.latest_offsets(dirt.first_dirty_offset, end_offset);
        let cleaned = self.segments.partition_point(|segment| segment.base_offset() < end_offset);
        let old: Vec<Segment> = self.segments.drain(..cleaned).collect();
        let mut pass = Pass {
            now_ms: now.as_millis() as i64,
            delete_retention_ms: config.delete_retention_ms,
            end_offset,
            latest,
            transactions: CleanedTransactions::new(
                &self.aborted.overlapping(0, end_offset).copied().collect::<Vec<_>>(),
            ),
            is_last_of_producer,
        };
        self.revision += 1;
        let mut new = Vec::new();
        let bytes_before = old.iter().map(Segment::size).sum();
        for group in groups(&old, config.segment.bytes, end_offset) {
            let mut segment = Segment::new(group[0].base_offset(), now, self.revision);
            let batches = group.iter().flat_map(|segment| segment.batches());
            batches.filter_map(|batch| pass.keep(batch)).for_each(|batch| segment.push(now, batch));
            let last_modified = group.last().expect("a group has a segment").last_modified();
            new.push(segment.modified_at(last_modified));
        }
        let bytes_after = new.iter().map(Segment::size).sum();
        new.into_iter().rev().for_each(|segment| self.segments.push_front(segment));
        let without_data = pass.transactions.markers_without_data;
        self.aborted.retain(|entry| !without_data.contains(&entry.last_offset));
        self.checkpoints.first_dirty_offset = Some(end_offset);
        Cleaned { end_offset, bytes_before, bytes_after }
    }

    /// The last offset of each key between the two offsets.
    fn latest_offsets(&self, from: i64, to: i64) -> BTreeMap<Bytes, i64> {
        let aborted: Vec<_> = self.aborted.overlapping(from, to).copied().collect();
        let mut transactions = CleanedTransactions::new(&aborted);
        let mut latest = BTreeMap::new();
        let first_segment = self.segment_that_holds(from);
        let batches = self.batches_from(first_segment).take_while(|batch| batch.header.base_offset < to);
        for batch in batches {
            if transactions.may_be_discarded(batch) || batch.header.is_control() {
                continue;
            }
            for record in opened(batch).iter() {
                let offset = batch.header.base_offset + i64::from(record.offset_delta);
                let Some(key) = record.key.filter(|_| offset >= from) else { continue };
                match latest.get_mut(key) {
                    Some(latest) => *latest = offset,
                    // A copy: a slice would keep all that its batch unpacked to.
                    None => drop(latest.insert(Bytes::copy_from_slice(key), offset)),
                }
            }
        }
        latest
    }
}

/// The records of a batch that lies in the log.
fn opened(batch: &StoredBatch) -> Records {
    record::open(&batch.header, &batch.bytes).expect("a leader opened the batch before it took it in")
}

/// Segments that become one: as many as fit.
fn groups(segments: &[Segment], segment_bytes: usize, end_offset: i64) -> Vec<&[Segment]> {
    let mut groups = Vec::new();
    let mut rest = segments;
    while let Some(first) = rest.first() {
        let mut size = first.size();
        let mut len = 1;
        while let Some(next) = rest.get(len) {
            let last_offset = rest.get(len + 1).map_or(end_offset, Segment::base_offset) - 1;
            let too_far = last_offset - first.base_offset() > i64::from(i32::MAX);
            if size + next.size() > segment_bytes || (too_far && next.size() > 0) {
                break;
            }
            size += next.size();
            len += 1;
        }
        groups.push(&rest[..len]);
        rest = &rest[len..];
    }
    groups
}

/// One way through the log, from its first segment.
struct Pass<F> {
    now_ms: i64,
    delete_retention_ms: i64,
    end_offset: i64,
    latest: BTreeMap<Bytes, i64>,
    transactions: CleanedTransactions,
    is_last_of_producer: F,
}

impl<F: Fn(&BatchHeader) -> bool> Pass<F> {
    /// What is left of a batch; `None` if it goes.
    fn keep(&mut self, batch: &StoredBatch) -> Option<StoredBatch> {
        let header = &batch.header;
        let may_go = self.transactions.may_be_discarded(batch);
        let horizon_passed = header.delete_horizon_ms().is_some_and(|horizon| horizon <= self.now_ms);
        let discard = may_go && (!header.is_control() || horizon_passed);
        let stays_empty = (header.has_producer() && (self.is_last_of_producer)(header))
            || header.next_offset() == self.end_offset;
        if discard {
            return stays_empty.then(|| emptied(header));
        }
        let records = opened(batch);
        let kept = || records.iter().filter(|record| self.keeps(header, record));
        let count = kept().count();
        if count == 0 {
            return stays_empty.then(|| emptied(header));
        }
        let has_tombstone = kept().any(|record| record.value.is_none());
        let is_marker_without_data = may_go && header.is_control();
        let set_horizon = (has_tombstone || is_marker_without_data) && header.delete_horizon_ms().is_none();
        if count == records.iter().count() && !set_horizon {
            return Some(batch.clone());
        }
        let horizon = if set_horizon {
            Some(self.now_ms.saturating_add(self.delete_retention_ms))
        } else {
            header.delete_horizon_ms()
        };
        Some(rebuilt(header, kept, horizon))
    }

    fn keeps(&self, header: &BatchHeader, record: &Record<&[u8]>) -> bool {
        let offset = header.base_offset + i64::from(record.offset_delta);
        if header.is_control() || offset >= self.end_offset {
            return true;
        }
        let Some(key) = record.key else { return false };
        let is_latest = self.latest.get(key).is_none_or(|&latest| offset >= latest);
        let is_kept_tombstone = header.delete_horizon_ms().is_none_or(|horizon| self.now_ms < horizon);
        is_latest && (record.value.is_some() || is_kept_tombstone)
    }
}

/// A batch without records: its offsets, producer, epoch and sequence are still told.
fn emptied(header: &BatchHeader) -> StoredBatch {
    let header = header.with_compression(0).marked_with_delete_horizon(false);
    let none: [Record; 0] = [];
    stored(record::rewrite(&BatchHeader { base_timestamp: NO_TIMESTAMP, ..header }, none))
}

/// A batch with some of its records; with a horizon, that is where the first record's time was.
fn rebuilt<'a, I>(header: &BatchHeader, kept: impl Fn() -> I, horizon: Option<i64>) -> StoredBatch
where
    I: Iterator<Item = Record<&'a [u8]>>,
{
    let times = || kept().map(|record| record.timestamp(header));
    let base_timestamp = horizon.or_else(|| times().next()).expect("a batch that is rebuilt keeps a record");
    let latest = times().max().unwrap_or(NO_TIMESTAMP);
    let kept = kept().map(|record| Record {
        timestamp_delta: record.timestamp(header).wrapping_sub(base_timestamp),
        ..record
    });
    let max_timestamp = if header.is_log_append_time() { header.max_timestamp } else { latest };
    let header = header.marked_with_delete_horizon(horizon.is_some());
    stored(record::rewrite(&BatchHeader { base_timestamp, max_timestamp, ..header }, kept))
}

fn stored(bytes: Bytes) -> StoredBatch {
    StoredBatch { header: BatchHeader::parse(&bytes).expect("a rewritten batch is a batch"), bytes }
}

/// The transactions that a pass comes by (Kafka's `CleanedTransactionMetadata`).
struct CleanedTransactions {
    /// Those that it has not come to, the next one last.
    ahead: Vec<AbortedTransaction>,
    /// Aborted ones by producer, and whether any of their data was seen.
    aborted: BTreeMap<i64, bool>,
    /// Producers of committed or undecided ones of which data was seen.
    committed: BTreeSet<i64>,
    /// Markers of aborted ones without any data left.
    markers_without_data: BTreeSet<i64>,
}

impl CleanedTransactions {
    fn new(aborted: &[AbortedTransaction]) -> CleanedTransactions {
        let mut ahead = aborted.to_vec();
        ahead.sort_by_key(|entry| std::cmp::Reverse(entry.first_offset));
        CleanedTransactions {
            ahead,
            aborted: BTreeMap::new(),
            committed: BTreeSet::new(),
            markers_without_data: BTreeSet::new(),
        }
    }

    /// Whether the next batch is data of an aborted transaction, or the marker of one of which no data was seen.
    fn may_be_discarded(&mut self, batch: &StoredBatch) -> bool {
        let header = &batch.header;
        while let Some(next) = self.ahead.last()
            && next.first_offset <= header.last_offset()
        {
            self.aborted.entry(next.producer_id).or_insert(false);
            self.ahead.pop();
        }
        if header.is_control() {
            return self.marker_may_be_discarded(batch);
        }
        if !header.is_transactional() {
            return false;
        }
        match self.aborted.get_mut(&header.producer_id) {
            Some(data_seen) => {
                *data_seen = true;
                true
            }
            None => {
                self.committed.insert(header.producer_id);
                false
            }
        }
    }

    fn marker_may_be_discarded(&mut self, batch: &StoredBatch) -> bool {
        let Some(marker) = Marker::read(&batch.header, &batch.bytes) else {
            // An emptied one was judged before; what is no marker is not ours to judge.
            return batch.header.record_count == 0;
        };
        if marker.committed {
            return !self.committed.remove(&marker.producer_id);
        }
        let data_seen = self.aborted.remove(&marker.producer_id) == Some(true);
        if !data_seen {
            self.markers_without_data.insert(batch.header.last_offset());
        }
        !data_seen
    }
}

#[cfg(test)]
mod tests;

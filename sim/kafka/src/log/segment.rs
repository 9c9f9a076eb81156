//! A segment: a run of batches in a file of its own, the unit that is rolled, deleted and cleaned (Kafka's `LogSegment`).

use context::Timestamp;

use super::StoredBatch;

/// When a log begins a new segment, and how many records it leaves to the kernel to flush. A size alone rolls by size only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentRules {
    /// A segment does not grow beyond this many bytes.
    pub bytes: usize,
    /// Nor beyond this many milliseconds between its first batch's time and the new one's.
    pub ms: i64,
    /// Unflushed records at which the log is flushed.
    pub flush_messages: i64,
}

impl From<usize> for SegmentRules {
    fn from(bytes: usize) -> SegmentRules {
        SegmentRules { bytes, ms: i64::MAX, flush_messages: i64::MAX }
    }
}

/// One segment.
#[derive(Clone, Debug)]
pub struct Segment {
    base_offset: i64,
    created: Timestamp,
    last_modified: Timestamp,
    size: usize,
    batches: Vec<StoredBatch>,
    /// The largest time of a record, or -1.
    max_timestamp: i64,
    /// Which content this is: another number when anything but an append has changed it.
    content: u64,
}

impl Segment {
    pub(super) fn new(base_offset: i64, now: Timestamp, content: u64) -> Segment {
        Segment {
            base_offset,
            created: now,
            last_modified: now,
            size: 0,
            batches: Vec::new(),
            max_timestamp: -1,
            content,
        }
    }

    /// The offset that its name says: none of its records is before it.
    pub fn base_offset(&self) -> i64 {
        self.base_offset
    }

    /// Bytes of its batches.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Its batches, in order.
    pub fn batches(&self) -> &[StoredBatch] {
        &self.batches
    }

    /// A number that stays as long as batches are only appended.
    pub(crate) fn content(&self) -> u64 {
        self.content
    }

    pub(super) fn last_modified(&self) -> Timestamp {
        self.last_modified
    }

    /// The segment as a cleaned one takes its place: modified when the old ones were.
    pub(super) fn modified_at(mut self, last_modified: Timestamp) -> Segment {
        self.last_modified = last_modified;
        self
    }

    /// Offset after its last record; its base if it has none.
    pub(crate) fn end_offset(&self) -> i64 {
        self.batches.last().map_or(self.base_offset, |batch| batch.header.next_offset())
    }

    /// The largest time of a record, or when it was last written if no record has a time.
    pub(super) fn largest_timestamp(&self) -> i64 {
        if self.max_timestamp >= 0 { self.max_timestamp } else { self.last_modified.as_millis() as i64 }
    }

    /// The largest time of a record, or -1.
    pub(super) fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    /// The time of its first batch, if it has any.
    pub(super) fn first_batch_timestamp(&self) -> Option<i64> {
        let first = self.batches.first()?.header.max_timestamp;
        (first >= 0).then_some(first)
    }

    /// Whether a batch of `len` bytes, with this last offset and time, needs a new segment.
    pub(super) fn is_full_for(
        &self,
        rules: SegmentRules,
        now: Timestamp,
        len: usize,
        last_offset: i64,
        max_timestamp: i64,
    ) -> bool {
        let waited = match self.first_batch_timestamp() {
            Some(first) => max_timestamp.saturating_sub(first),
            None => now.since(self.created).as_millis() as i64,
        };
        self.size + len > rules.bytes
            || (self.size > 0 && waited > rules.ms)
            // Indexes keep offsets as 32-bit numbers, counted from the base.
            || last_offset - self.base_offset > i64::from(i32::MAX)
    }

    pub(super) fn push(&mut self, now: Timestamp, batch: StoredBatch) {
        self.size += batch.bytes.len();
        self.max_timestamp = self.max_timestamp.max(batch.header.max_timestamp);
        self.last_modified = now;
        self.batches.push(batch);
    }

    /// Drops every batch that ends beyond `offset`; whether there was any.
    pub(super) fn truncate_to(&mut self, offset: i64, content: u64) -> bool {
        let kept = self.batches.partition_point(|batch| batch.header.next_offset() <= offset);
        if kept == self.batches.len() {
            return false;
        }
        self.batches.truncate(kept);
        self.size = self.batches.iter().map(|batch| batch.bytes.len()).sum();
        self.max_timestamp = self.batches.iter().map(|batch| batch.header.max_timestamp).max().unwrap_or(-1);
        self.content = content;
        true
    }
}

//! Offsets by time, as ListOffsets asks for them (`UnifiedLog.fetchOffsetByTimestamp`). Compressed batches are opened.

use super::{Log, StoredBatch, record};

/// A record, by its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampAndOffset {
    /// Its time, in milliseconds.
    pub timestamp: i64,
    /// Its offset.
    pub offset: i64,
    /// The epoch of the leader that appended it.
    pub leader_epoch: i32,
}

impl Log {
    /// The first record, by offset, with a time of `timestamp` or later. Times need not grow with offsets: it is looked
    /// for in the first segment that has such a time, as Kafka does, and there from the log's start on.
    pub fn offset_for_timestamp(&self, timestamp: i64) -> Option<TimestampAndOffset> {
        let segment = self.segments.iter().find(|segment| segment.largest_timestamp() >= timestamp)?;
        let mut batches = segment.batches().iter().filter(|batch| batch.header.max_timestamp >= timestamp);
        batches.find_map(|batch| {
            self.first_record(batch, |at| at.timestamp >= timestamp && at.offset >= self.start_offset)
        })
    }

    /// The first record with the largest time of all.
    pub fn offset_of_max_timestamp(&self) -> Option<TimestampAndOffset> {
        let largest =
            self.segments.iter().map(|segment| segment.max_timestamp()).max().filter(|&max| max >= 0)?;
        let mut batches = self.batches().filter(|batch| batch.header.max_timestamp == largest);
        batches.find_map(|batch| self.first_record(batch, |at| at.timestamp == largest))
    }

    fn first_record(
        &self,
        batch: &StoredBatch,
        wanted: impl Fn(&TimestampAndOffset) -> bool,
    ) -> Option<TimestampAndOffset> {
        let header = &batch.header;
        // Records were opened when they were appended; a follower that took them unread passes over what it cannot read.
        let records = record::open(header, &batch.bytes).ok()?;
        let at = |record: record::Record<&[u8]>| TimestampAndOffset {
            timestamp: record.timestamp(header),
            offset: header.base_offset + i64::from(record.offset_delta),
            leader_epoch: header.leader_epoch,
        };
        records.iter().map(at).find(wanted)
    }
}

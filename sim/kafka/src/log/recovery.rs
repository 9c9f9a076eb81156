//! What a broker's new process makes of a log (Kafka's `LogLoader`), and the checkpoint files that it goes by.
//!
//! Each file is written whole, synced and renamed, on a timer of its own, apart from the logs: after a power loss it may
//! be ahead of a log that has lost its end, and after a kill behind what the process knew.

use std::collections::BTreeMap;

use bytes::Bytes;
use context::Timestamp;

use super::batch::BatchHeader;
use super::marker::Marker;
use super::page_cache::Remains;
use super::producer_state::{ProducerState, Snapshots};
use super::{EpochStart, Log, Segment, StoredBatch};

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
    /// A log from its files: segments by their base offsets, the entries of `leader-epoch-checkpoint`, and what the broker's
    /// checkpoint files say. A segment ends at its first batch that is cut short or damaged; the segments after that one
    /// are left out (`LogLoader.recoverLog`, `LogSegment.recover`).
    pub fn recover(
        now: Timestamp,
        segments: &BTreeMap<i64, Bytes>,
        epochs: &[EpochStart],
        checkpoints: Checkpoints,
    ) -> Log {
        let mut log = Log { checkpoints, ..Log::default() };
        epochs.iter().for_each(|entry| log.epochs.assign(entry.epoch, entry.start_offset));
        for (&base_offset, bytes) in segments {
            if base_offset < log.end_offset {
                // A cleaning had merged it into the one before when its process was killed.
                continue;
            }
            if !log.recover_segment(now, base_offset, bytes.clone()) {
                break;
            }
        }
        let mut producers = ProducerState::default();
        let mut aborted = Vec::new();
        for batch in log.batches() {
            aborted.extend(producers.appended(&batch.header, Marker::read(&batch.header, &batch.bytes)));
        }
        aborted.into_iter().for_each(|entry| log.aborted.push(entry));
        log.cache.begin_at(log.end_offset);
        log.load(now);
        log
    }

    /// With these snapshots of its producers, but for those that are of no use.
    pub(crate) fn with_snapshots(mut self, mut snapshots: Snapshots) -> Log {
        let bases: Vec<i64> = self.segments.iter().map(Segment::base_offset).collect();
        snapshots.drop_strays(&bases);
        self.snapshots = snapshots;
        self
    }

    /// Takes in what is whole of a segment; whether that is all of it.
    fn recover_segment(&mut self, now: Timestamp, base_offset: i64, mut rest: Bytes) -> bool {
        self.revision += 1;
        self.end_offset = base_offset;
        let mut segment = Segment::new(base_offset, now, self.revision);
        while let Ok(header) = BatchHeader::parse(&rest)
            && header.check(&rest).is_ok()
            && header.base_offset >= self.end_offset
            && is_within_a_segment(base_offset, &header)
        {
            let latest = self.epochs.latest().map_or(-1, |latest| latest.epoch);
            if header.leader_epoch > latest {
                self.epochs.assign(header.leader_epoch, header.base_offset);
            }
            self.end_offset = header.next_offset();
            segment.push(now, StoredBatch { header, bytes: rest.split_to(header.size()) });
        }
        self.segments.push_back(segment);
        rest.is_empty()
    }

    /// What the checkpoint files say of it.
    pub fn checkpoints(&self) -> Checkpoints {
        self.checkpoints
    }

    /// Writes the high watermark to `replication-offset-checkpoint`.
    pub fn checkpoint_high_watermark(&mut self, high_watermark: i64) {
        self.write_checkpoints(Checkpoints { high_watermark, ..self.checkpoints });
    }

    /// Writes `recovery-point-offset-checkpoint`.
    pub fn checkpoint_recovery_point(&mut self) {
        self.write_checkpoints(Checkpoints { recovery_point: self.recovery_point(), ..self.checkpoints });
    }

    /// Writes `log-start-offset-checkpoint`.
    pub fn checkpoint_start_offset(&mut self) {
        // The start is only written down if the first segment does not tell it.
        let first = self.segments.front().map_or(self.end_offset, |segment| segment.base_offset());
        let start_offset =
            if self.start_offset > first || self.segments.is_empty() { self.start_offset } else { 0 };
        self.write_checkpoints(Checkpoints { start_offset, ..self.checkpoints });
    }

    fn write_checkpoints(&mut self, written: Checkpoints) {
        if self.checkpoints != written {
            self.checkpoints = written;
            self.revision += 1;
        }
    }

    /// Loads the log in a new process. A segment that a power loss has cut is recovered as any file is. The log's start is
    /// what the files say; if a power loss left it ended before that, it is emptied and begins there.
    pub fn load(&mut self, now: Timestamp) {
        self.cache.opened(now);
        if let Some(Remains { base_offset, bytes }) = self.remains.take() {
            if self.segments.back().is_some_and(|last| last.base_offset() == base_offset) {
                self.segments.pop_back();
            }
            self.recover_segment(now, base_offset, bytes);
        }
        if let Some(last) = self.segments.back() {
            self.end_offset = last.end_offset();
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

/// Whether the offsets of a batch go forward, and can be in the index of a segment that begins at `base_offset`
/// (`LogSegment.ensureOffsetInRange`). The base offset is outside of the checksum: a damaged one may say anything.
fn is_within_a_segment(base_offset: i64, header: &BatchHeader) -> bool {
    let last = header.base_offset.checked_add(i64::from(header.last_offset_delta));
    last.is_some_and(|last| {
        last < i64::MAX && last >= header.base_offset && last - base_offset <= i64::from(i32::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::batch::{HEADER_LEN, assemble, stamp};
    use crate::log::record::write_batch;

    fn batch(base_offset: i64, last_offset_delta: i32) -> Bytes {
        let plain = write_batch(1, &[(None, Some(Bytes::from_static(b"value")))]);
        let header = BatchHeader { last_offset_delta, ..BatchHeader::parse(&plain).unwrap() };
        stamp(&assemble(&header, &plain[HEADER_LEN..]), base_offset, 0, None)
    }

    fn recovered(segments: &[(i64, &[Bytes])]) -> Log {
        let segments = segments.iter().map(|(base, batches)| (*base, batches.concat().into()));
        Log::recover(Timestamp::from_millis(1), &segments.collect(), &[], Checkpoints::default())
    }

    #[test]
    fn a_batch_whose_offsets_cannot_be_ends_its_segment() {
        let good = batch(0, 0);
        let far = i64::from(i32::MAX);
        for (base_offset, last_offset_delta) in [
            (1, -1),
            (1, i32::MIN),
            (i64::MAX, 0),
            (i64::MAX - 1, 5),
            (far + 1, 0),
            (far, 1),
            (0, 0),
            (-5, 9),
        ] {
            let damaged = batch(base_offset, last_offset_delta);
            let log = recovered(&[(0, &[good.clone(), damaged]), (5, &[batch(5, 0)])]);
            assert_eq!(
                (log.end_offset(), log.batches().count()),
                (1, 1),
                "{base_offset} {last_offset_delta}"
            );
        }
        let log = recovered(&[(0, &[good, batch(far, 0)])]);
        assert_eq!(log.end_offset(), far + 1, "as far as an index can say");
        let log = recovered(&[(i64::MAX, &[batch(i64::MAX, 0)])]);
        assert_eq!((log.end_offset(), log.batches().count()), (i64::MAX, 0));
    }
}

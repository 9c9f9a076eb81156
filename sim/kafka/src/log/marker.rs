//! The marker that ends a transaction on one partition: a control batch of one record (KIP-98).
//!
//! The key says version and type (0 abort, 1 commit), the value version and the epoch of the coordinator that wrote it.
//! Kafka's `ControlRecordType` and `EndTransactionMarker`. Control batches of other kinds are in Kafka's metadata log only.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::batch::{self, BatchHeader, HEADER_LEN, NO_SEQUENCE};
use super::record;

const VERSION: i16 = 0;
const ABORT: i16 = 0;
const COMMIT: i16 = 1;
/// Transactional, and control.
const ATTRIBUTES: i16 = 0b11_0000;

/// How a transaction ended on a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Whose transaction.
    pub producer_id: i64,
    /// The producer's epoch; under `transaction.version` 2 the one that the next transaction has.
    pub producer_epoch: i16,
    /// The leader epoch of the coordinator's partition of `__transaction_state`: it fences coordinators that are no more.
    pub coordinator_epoch: i32,
    /// Committed, or aborted.
    pub committed: bool,
}

impl Marker {
    /// The control batch, as a leader appends it.
    pub fn batch(&self, now_ms: i64) -> Bytes {
        let mut key = BytesMut::with_capacity(4);
        key.put_i16(VERSION);
        key.put_i16(if self.committed { COMMIT } else { ABORT });
        let mut value = BytesMut::with_capacity(6);
        value.put_i16(VERSION);
        value.put_i32(self.coordinator_epoch);
        let plain = record::write_batch(now_ms, &[(Some(key.freeze()), Some(value.freeze()))]);
        let header = BatchHeader::parse(&plain).expect("a batch that was just written is one");
        let header = BatchHeader {
            attributes: ATTRIBUTES,
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            base_sequence: NO_SEQUENCE,
            ..header
        };
        batch::assemble(&header, &plain[HEADER_LEN..])
    }

    /// The marker that a control batch holds; `None` if its record is gone (compaction), or is of another kind.
    pub fn read(header: &BatchHeader, batch: &Bytes) -> Option<Marker> {
        if !header.is_control() {
            return None;
        }
        let record = record::read_all(header, batch).ok()?.into_iter().next()?;
        let (mut key, mut value) = (record.key?, record.value?);
        // Newer versions only add to the end.
        let (_, kind) = (key.try_get_i16().ok()?, key.try_get_i16().ok()?);
        let (_, coordinator_epoch) = (value.try_get_i16().ok()?, value.try_get_i32().ok()?);
        if kind != ABORT && kind != COMMIT {
            return None;
        }
        Some(Marker {
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            coordinator_epoch,
            committed: kind == COMMIT,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_reads_back_as_written() {
        for committed in [true, false] {
            let marker = Marker { producer_id: 7, producer_epoch: 3, coordinator_epoch: 5, committed };
            let batch = marker.batch(1_000);
            let header = BatchHeader::parse(&batch).unwrap();
            header.check(&batch).unwrap();
            assert!(header.is_control() && header.is_transactional());
            assert_eq!((header.base_sequence, header.record_count, header.max_timestamp), (-1, 1, 1_000));
            assert_eq!(Marker::read(&header, &batch), Some(marker));
        }
    }

    #[test]
    fn the_bytes_of_a_marker_are_kafkas() {
        let batch =
            Marker { producer_id: 7, producer_epoch: 3, coordinator_epoch: 5, committed: true }.batch(0);
        let record = &record::read_all(&BatchHeader::parse(&batch).unwrap(), &batch).unwrap()[0];
        assert_eq!(record.key.as_deref(), Some(&[0, 0, 0, 1][..]));
        assert_eq!(record.value.as_deref(), Some(&[0, 0, 0, 0, 0, 5][..]));
    }

    #[test]
    fn data_is_no_marker() {
        let batch = record::write_batch(1, &[(None, None)]);
        assert_eq!(Marker::read(&BatchHeader::parse(&batch).unwrap(), &batch), None);
    }
}

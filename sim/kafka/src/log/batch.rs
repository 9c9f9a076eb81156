//! The record batch, format 2: its 61-byte header read, checked and patched in place; the records stay opaque.
//!
//! A broker never rebuilds a batch: it writes its own base offset and leader epoch over the producer's, both outside the
//! checksum, and only log append time costs a new checksum. Layout: Kafka's documentation, "Message format".

use bytes::{Bytes, BytesMut};

/// Bytes before the first record.
pub const HEADER_LEN: usize = 61;
/// Base offset and batch length, the bytes that `batch_length` does not count.
pub const LENGTH_OVERHEAD: usize = 12;
/// Of a batch without a producer.
pub const NO_PRODUCER_ID: i64 = -1;
/// Of a batch without a producer.
pub const NO_PRODUCER_EPOCH: i16 = -1;
/// Of a batch without a producer.
pub const NO_SEQUENCE: i32 = -1;

const BASE_OFFSET: usize = 0;
const BATCH_LENGTH: usize = 8;
const LEADER_EPOCH: usize = 12;
const MAGIC: usize = 16;
const CRC: usize = 17;
const ATTRIBUTES: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const BASE_TIMESTAMP: usize = 27;
const MAX_TIMESTAMP: usize = 35;
const PRODUCER_ID: usize = 43;
const PRODUCER_EPOCH: usize = 51;
const BASE_SEQUENCE: usize = 53;
const RECORD_COUNT: usize = 57;

const COMPRESSION_MASK: i16 = 0b111;
const LOG_APPEND_TIME: i16 = 0b1000;
const TRANSACTIONAL: i16 = 0b1_0000;
const CONTROL: i16 = 0b10_0000;
const DELETE_HORIZON: i16 = 0b100_0000;

/// The header of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Bytes after the length field.
    pub batch_length: i32,
    /// Epoch of the leader that appended it.
    pub leader_epoch: i32,
    /// CRC-32C of everything from the attributes on.
    pub crc: u32,
    /// Compression, timestamp type, transactional, control.
    pub attributes: i16,
    /// Offset of the last record, counted from the first.
    pub last_offset_delta: i32,
    /// Time of the first record, in milliseconds.
    pub base_timestamp: i64,
    /// The latest time of a record, or the append time.
    pub max_timestamp: i64,
    /// The idempotent producer, or -1.
    pub producer_id: i64,
    /// Its epoch, or -1.
    pub producer_epoch: i16,
    /// The sequence number of the first record, or -1.
    pub base_sequence: i32,
    /// How many records the batch says it holds.
    pub record_count: i32,
}

/// Why bytes are no record batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than a header, or than its length says.
    #[error("record batch is cut short")]
    Truncated,
    /// A batch length that cannot hold its own header.
    #[error("record batch length {0} is impossible")]
    BadLength(i32),
    /// A format before Kafka 0.11.
    #[error("record batch format {0} is not 2")]
    UnsupportedFormat(i8),
    /// The checksum does not match.
    #[error("record batch checksum is {stored:#x} but computes to {computed:#x}")]
    BadChecksum {
        /// In the header.
        stored: u32,
        /// Over the bytes.
        computed: u32,
    },
}

/// Whether reading on from batch to batch comes to one whose size or format cannot be. What is cut short is not
/// (`ByteBufferLogInputStream.nextBatch`).
pub fn is_unreadable(mut bytes: &[u8]) -> bool {
    /// The smallest record that ever was: of format 0.
    const SMALLEST: i32 = 14;
    while bytes.len() >= LENGTH_OVERHEAD {
        let length = i32::from_be_bytes(array(bytes, BATCH_LENGTH));
        if length < SMALLEST {
            return true;
        }
        match bytes.get(MAGIC).map(|magic| *magic as i8) {
            None => return false,
            Some(0..=2) => {}
            Some(_) => return true,
        }
        let Some(rest) = bytes.get(LENGTH_OVERHEAD + length as usize..) else { return false };
        bytes = rest;
    }
    false
}

impl BatchHeader {
    /// Reads the header of the batch that `bytes` begin with.
    ///
    /// # Errors
    /// If there is no whole batch of format 2. The checksum is [`BatchHeader::check`]'s business.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        if bytes.len() < HEADER_LEN {
            return Err(BatchError::Truncated);
        }
        let batch_length = i32::from_be_bytes(array(bytes, BATCH_LENGTH));
        let magic = bytes[MAGIC] as i8;
        if magic != 2 {
            return Err(BatchError::UnsupportedFormat(magic));
        }
        if batch_length < (HEADER_LEN - LENGTH_OVERHEAD) as i32 {
            return Err(BatchError::BadLength(batch_length));
        }
        if bytes.len() - LENGTH_OVERHEAD < batch_length as usize {
            return Err(BatchError::Truncated);
        }
        Ok(BatchHeader {
            base_offset: i64::from_be_bytes(array(bytes, BASE_OFFSET)),
            batch_length,
            leader_epoch: i32::from_be_bytes(array(bytes, LEADER_EPOCH)),
            crc: u32::from_be_bytes(array(bytes, CRC)),
            attributes: i16::from_be_bytes(array(bytes, ATTRIBUTES)),
            last_offset_delta: i32::from_be_bytes(array(bytes, LAST_OFFSET_DELTA)),
            base_timestamp: i64::from_be_bytes(array(bytes, BASE_TIMESTAMP)),
            max_timestamp: i64::from_be_bytes(array(bytes, MAX_TIMESTAMP)),
            producer_id: i64::from_be_bytes(array(bytes, PRODUCER_ID)),
            producer_epoch: i16::from_be_bytes(array(bytes, PRODUCER_EPOCH)),
            base_sequence: i32::from_be_bytes(array(bytes, BASE_SEQUENCE)),
            record_count: i32::from_be_bytes(array(bytes, RECORD_COUNT)),
        })
    }

    /// Compares the checksum with the bytes of this batch.
    ///
    /// # Errors
    /// [`BatchError::BadChecksum`].
    pub fn check(&self, batch: &[u8]) -> Result<(), BatchError> {
        let computed = crc32c::crc32c(&batch[ATTRIBUTES..self.size()]);
        if computed != self.crc {
            return Err(BatchError::BadChecksum { stored: self.crc, computed });
        }
        Ok(())
    }

    /// Bytes of the whole batch.
    pub fn size(&self) -> usize {
        LENGTH_OVERHEAD + self.batch_length as usize
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// Offset that the next batch begins with.
    pub fn next_offset(&self) -> i64 {
        self.last_offset() + 1
    }

    /// The sequence number of the last record; it wraps from `i32::MAX` to 0.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence == NO_SEQUENCE {
            return NO_SEQUENCE;
        }
        wrap_sequence(i64::from(self.base_sequence) + i64::from(self.last_offset_delta))
    }

    /// Whether a producer with an id wrote it.
    pub fn has_producer(&self) -> bool {
        self.producer_id != NO_PRODUCER_ID
    }

    /// The compression codec's number; 0 is none.
    pub fn compression(&self) -> i16 {
        self.attributes & COMPRESSION_MASK
    }

    /// Part of a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Markers, not data.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// When tombstones and markers in it may go, in milliseconds (KIP-534): a cleaning that saw it has written that where the
    /// first record's time was.
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON != 0).then_some(self.base_timestamp)
    }

    /// With another codec, by its number.
    pub fn with_compression(mut self, codec: i16) -> BatchHeader {
        self.attributes = self.attributes & !COMPRESSION_MASK | codec;
        self
    }

    /// With times of its producer's.
    pub(super) fn with_create_time(mut self) -> BatchHeader {
        self.attributes &= !LOG_APPEND_TIME;
        self
    }

    /// With a delete horizon, or without one; the base timestamp is the caller's to set.
    pub(super) fn marked_with_delete_horizon(mut self, set: bool) -> BatchHeader {
        self.attributes =
            if set { self.attributes | DELETE_HORIZON } else { self.attributes & !DELETE_HORIZON };
        self
    }

    /// The broker's time, not the producer's.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }
}

/// The sequence number `sequence`, wrapped from `i32::MAX` to 0.
pub fn wrap_sequence(sequence: i64) -> i32 {
    (sequence & i64::from(i32::MAX)) as i32
}

/// The batch as a leader stores it: with its own base offset and epoch, and with its own time if `append_time` (in
/// milliseconds) is given.
pub fn stamp(batch: &Bytes, base_offset: i64, leader_epoch: i32, append_time: Option<i64>) -> Bytes {
    let mut stamped = BytesMut::from(&batch[..]);
    stamped[BASE_OFFSET..][..8].copy_from_slice(&base_offset.to_be_bytes());
    stamped[LEADER_EPOCH..][..4].copy_from_slice(&leader_epoch.to_be_bytes());
    if let Some(time) = append_time {
        let attributes = i16::from_be_bytes(array(&stamped, ATTRIBUTES)) | LOG_APPEND_TIME;
        stamped[ATTRIBUTES..][..2].copy_from_slice(&attributes.to_be_bytes());
        stamped[MAX_TIMESTAMP..][..8].copy_from_slice(&time.to_be_bytes());
        seal(&mut stamped);
    }
    stamped.freeze()
}

/// The batch with times of its producer's, the largest of which is `max_timestamp`. Costs nothing if it says so already.
pub(super) fn with_create_time(batch: &Bytes, header: &BatchHeader, max_timestamp: i64) -> Bytes {
    if header.max_timestamp == max_timestamp && !header.is_log_append_time() {
        return batch.clone();
    }
    let mut batch = BytesMut::from(&batch[..]);
    let attributes = header.with_create_time().attributes;
    batch[ATTRIBUTES..][..2].copy_from_slice(&attributes.to_be_bytes());
    batch[MAX_TIMESTAMP..][..8].copy_from_slice(&max_timestamp.to_be_bytes());
    seal(&mut batch);
    batch.freeze()
}

/// Writes a header and its checksum in front of `records`.
pub fn assemble(header: &BatchHeader, records: &[u8]) -> Bytes {
    let mut batch = BytesMut::with_capacity(HEADER_LEN + records.len());
    batch.extend_from_slice(&header.base_offset.to_be_bytes());
    batch.extend_from_slice(&((HEADER_LEN - LENGTH_OVERHEAD + records.len()) as i32).to_be_bytes());
    batch.extend_from_slice(&header.leader_epoch.to_be_bytes());
    batch.extend_from_slice(&[2]);
    batch.extend_from_slice(&[0; 4]);
    batch.extend_from_slice(&header.attributes.to_be_bytes());
    batch.extend_from_slice(&header.last_offset_delta.to_be_bytes());
    batch.extend_from_slice(&header.base_timestamp.to_be_bytes());
    batch.extend_from_slice(&header.max_timestamp.to_be_bytes());
    batch.extend_from_slice(&header.producer_id.to_be_bytes());
    batch.extend_from_slice(&header.producer_epoch.to_be_bytes());
    batch.extend_from_slice(&header.base_sequence.to_be_bytes());
    batch.extend_from_slice(&header.record_count.to_be_bytes());
    batch.extend_from_slice(records);
    seal(&mut batch);
    batch.freeze()
}

fn seal(batch: &mut BytesMut) {
    let crc = crc32c::crc32c(&batch[ATTRIBUTES..]);
    batch[CRC..][..4].copy_from_slice(&crc.to_be_bytes());
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn any_header()(
            base_offset in 0..1_i64 << 40, leader_epoch in 0..1_000, compression in 0_i16..5, last_offset_delta in 0..1_000_i32,
            base_timestamp in 0..1_i64 << 50, producer_id in -1..1_000_i64, producer_epoch in -1..100_i16, base_sequence in -1..i32::MAX,
        ) -> BatchHeader {
            BatchHeader {
                base_offset, batch_length: 0, leader_epoch, crc: 0, attributes: compression, last_offset_delta, base_timestamp,
                max_timestamp: base_timestamp + 1, producer_id, producer_epoch, base_sequence, record_count: last_offset_delta + 1,
            }
        }
    }

    proptest! {
        #[test]
        fn a_header_reads_back_as_written(header in any_header(), records in proptest::collection::vec(any::<u8>(), 0..64)) {
            let batch = assemble(&header, &records);
            let read = BatchHeader::parse(&batch).unwrap();
            read.check(&batch).unwrap();
            prop_assert_eq!(read.size(), batch.len());
            prop_assert_eq!(read, BatchHeader { batch_length: read.batch_length, crc: read.crc, ..header });
        }

        #[test]
        fn a_stamp_changes_what_the_leader_owns_and_nothing_else(
            header in any_header(), records in proptest::collection::vec(any::<u8>(), 0..64), base in 0..1_i64 << 40, time in proptest::option::of(0..1_i64 << 50),
        ) {
            let batch = assemble(&header, &records);
            let before = BatchHeader::parse(&batch).unwrap();
            let stamped = stamp(&batch, base, 7, time);
            let after = BatchHeader::parse(&stamped).unwrap();
            after.check(&stamped).unwrap();
            prop_assert_eq!(after.is_log_append_time(), time.is_some());
            prop_assert_eq!(after.max_timestamp, time.unwrap_or(before.max_timestamp));
            prop_assert_eq!((after.base_offset, after.leader_epoch), (base, 7));
            prop_assert_eq!(after.base_timestamp, before.base_timestamp);
            prop_assert_eq!(&stamped[HEADER_LEN..], &records[..]);
        }

        #[test]
        fn any_flipped_bit_under_the_checksum_is_seen(header in any_header(), records in proptest::collection::vec(any::<u8>(), 1..64), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
            let mut batch = BytesMut::from(&assemble(&header, &records)[..]);
            let at = ATTRIBUTES + at.index(batch.len() - ATTRIBUTES);
            batch[at] ^= 1 << bit;
            let read = BatchHeader::parse(&batch).unwrap();
            prop_assert!(read.check(&batch).is_err());
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(header) = BatchHeader::parse(&bytes) {
                prop_assert!(header.size() <= bytes.len());
            }
        }
    }

    #[test]
    fn a_sequence_wraps_to_zero_after_the_largest() {
        assert_eq!(wrap_sequence(i64::from(i32::MAX)), i32::MAX);
        assert_eq!(wrap_sequence(i64::from(i32::MAX) + 1), 0);
    }
}

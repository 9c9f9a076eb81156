//! Records inside a batch: opened for validation, for compaction, for times and for replay of internal topics; written by
//! coordinators, by compaction, and where a topic compresses in its own way.
//!
//! Start reading at [`open`]. What clients send to a topic with `compression.type=producer` is read and never rewritten.
//! Records are read one by one: a few KiB unpack to millions of small ones, and all of them at once would take gigabytes.

use bytes::{BufMut, Bytes, BytesMut};

use super::batch::{self, BatchHeader, HEADER_LEN};
use super::compression::{self, Codec, CompressionError, UNPACKED_BYTES_MAX};

/// One record; its parts are slices of the batch that it was read from, or bytes of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<B = Bytes> {
    /// None is defined; kept as it came.
    pub attributes: i8,
    /// Offset, counted from the batch's first.
    pub offset_delta: i32,
    /// Time, in milliseconds from the batch's first.
    pub timestamp_delta: i64,
    /// `None` for a record without a key.
    pub key: Option<B>,
    /// `None` for a tombstone.
    pub value: Option<B>,
    /// Its headers as they are encoded, with their number in front.
    pub headers: B,
}

impl<B> Record<B> {
    /// Its time, in milliseconds; under log append time the batch's.
    pub fn timestamp(&self, header: &BatchHeader) -> i64 {
        if header.is_log_append_time() {
            header.max_timestamp
        } else {
            header.base_timestamp.wrapping_add(self.timestamp_delta)
        }
    }
}

impl<'a> Record<&'a [u8]> {
    /// Its headers: key and value of each. They were walked when the record was read.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let mut rest = self.headers;
        let count = varlong(&mut rest).unwrap_or(0);
        (0..count).map_while(move |_| Some((nullable(&mut rest)??, nullable(&mut rest)?)))
    }
}

/// Why the records of a batch cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// A codec number that means nothing.
    #[error("compression codec {0} is not known")]
    UnknownCodec(i16),
    /// They cannot be unpacked.
    #[error(transparent)]
    Packed(#[from] CompressionError),
    /// They cannot be read.
    #[error(transparent)]
    Malformed(#[from] MalformedRecord),
}

/// The bytes after a batch's header are no records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {index} of the batch cannot be read")]
pub struct MalformedRecord {
    /// Which one, from 0.
    pub index: i32,
}

/// The records of a batch, as many as its header says, unpacked and known to be readable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    count: i32,
    bytes: Bytes,
}

impl Records {
    /// `count` records in `bytes`, unpacked.
    ///
    /// # Errors
    /// [`MalformedRecord`] if they are cut short, or bytes are left over.
    pub fn new(count: i32, bytes: Bytes) -> Result<Records, MalformedRecord> {
        let mut rest = &bytes[..];
        for index in 0..count {
            read(&mut rest).ok_or(MalformedRecord { index })?;
        }
        if rest.is_empty() { Ok(Records { count, bytes }) } else { Err(MalformedRecord { index: count }) }
    }

    /// Reads them again, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Record<&[u8]>> {
        let mut rest = &self.bytes[..];
        (0..self.count).map(move |_| read(&mut rest).expect("records that were read once can be read again"))
    }

    /// A part of one of its records, to be kept: it shares the batch's bytes.
    ///
    /// # Panics
    /// If it is a part of something else.
    pub fn share(&self, part: &[u8]) -> Bytes {
        self.bytes.slice_ref(part)
    }

    /// The same, as records that can be kept; they share the batch's bytes.
    pub fn to_vec(&self) -> Vec<Record> {
        let owned = |part: &[u8]| self.share(part);
        let kept = self.iter().map(|record| Record {
            attributes: record.attributes,
            offset_delta: record.offset_delta,
            timestamp_delta: record.timestamp_delta,
            key: record.key.map(owned),
            value: record.value.map(owned),
            headers: owned(record.headers),
        });
        kept.collect()
    }
}

/// Opens a batch, compressed or not, and reads through its records.
///
/// # Errors
/// [`OpenError`]; so also if they unpack to more than [`UNPACKED_BYTES_MAX`].
pub fn open(header: &BatchHeader, batch: &Bytes) -> Result<Records, OpenError> {
    let codec = Codec::from_id(header.compression()).ok_or(OpenError::UnknownCodec(header.compression()))?;
    let packed = batch.slice(HEADER_LEN..header.size());
    Ok(Records::new(header.record_count, compression::decompress(codec, &packed, UNPACKED_BYTES_MAX)?)?)
}

/// Reads the records of an uncompressed batch of our own: a coordinator's, a marker, the controller's.
///
/// # Errors
/// [`MalformedRecord`] if they are cut short, or bytes are left over.
pub fn read_all(header: &BatchHeader, batch: &Bytes) -> Result<Vec<Record>, MalformedRecord> {
    Ok(Records::new(header.record_count, batch.slice(HEADER_LEN..header.size()))?.to_vec())
}

fn read<'a>(rest: &mut &'a [u8]) -> Option<Record<&'a [u8]>> {
    let length = usize::try_from(varlong(rest)?).ok()?;
    let mut body = take(rest, length)?;
    let attributes = take(&mut body, 1)?[0] as i8;
    let timestamp_delta = varlong(&mut body)?;
    let offset_delta = i32::try_from(varlong(&mut body)?).ok()?;
    let key = nullable(&mut body)?;
    let value = nullable(&mut body)?;
    let headers = body;
    for _ in 0..usize::try_from(varlong(&mut body)?).ok()? {
        nullable(&mut body)??;
        nullable(&mut body)?;
    }
    body.is_empty().then_some(Record { attributes, offset_delta, timestamp_delta, key, value, headers })
}

fn nullable<'a>(body: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    match varlong(body)? {
        -1 => Some(None),
        length => Some(Some(take(body, usize::try_from(length).ok()?)?)),
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

fn varlong(rest: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn put_varlong(buf: &mut BytesMut, value: i64) {
    let mut value = zigzag(value);
    while value >= 0x80 {
        buf.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    buf.put_u8(value as u8);
}

/// No headers, encoded.
const NO_HEADERS: &[u8] = &[0];

fn put_nullable(buf: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varlong(buf, -1),
        Some(bytes) => {
            put_varlong(buf, bytes.len() as i64);
            buf.put_slice(bytes);
        }
    }
}

fn put<B: AsRef<[u8]>>(body: &mut BytesMut, record: &Record<B>) {
    let (key, value) = (record.key.as_ref().map(AsRef::as_ref), record.value.as_ref().map(AsRef::as_ref));
    let (offset_delta, headers) = (i64::from(record.offset_delta), record.headers.as_ref());
    let numbers = 1 + varlong_len(record.timestamp_delta) + varlong_len(offset_delta);
    put_varlong(body, (numbers + nullable_len(key) + nullable_len(value) + headers.len()) as i64);
    body.put_i8(record.attributes);
    put_varlong(body, record.timestamp_delta);
    put_varlong(body, offset_delta);
    put_nullable(body, key);
    put_nullable(body, value);
    body.put_slice(headers);
}

fn varlong_len(value: i64) -> usize {
    let bits = u64::BITS - zigzag(value).leading_zeros();
    bits.div_ceil(7).max(1) as usize
}

fn nullable_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(varlong_len(-1), |bytes| varlong_len(bytes.len() as i64) + bytes.len())
}

/// A batch with `records` instead of its own, under the codec in the attributes of `header`. Count, length and checksum are
/// made anew; everything else is as the header says.
///
/// # Panics
/// If the header names no codec.
pub fn rewrite<B: AsRef<[u8]>>(header: &BatchHeader, records: impl IntoIterator<Item = Record<B>>) -> Bytes {
    let mut body = BytesMut::new();
    let mut record_count = 0;
    for record in records {
        put(&mut body, &record);
        record_count += 1;
    }
    let codec =
        Codec::from_id(header.compression()).expect("a batch is rewritten with a codec that is known");
    let header = BatchHeader { record_count, ..*header };
    match codec {
        Codec::None => batch::assemble(&header, &body),
        codec => batch::assemble(&header, &compression::compress(codec, &body)),
    }
}

/// An uncompressed batch without a producer, as a coordinator or the controller appends to its own log. The leader's
/// stamp gives it offset and epoch.
///
/// # Panics
/// If there are no records: Kafka has no such batch.
pub fn write_batch(now_ms: i64, records: &[(Option<Bytes>, Option<Bytes>)]) -> Bytes {
    assert!(!records.is_empty(), "a batch holds at least one record");
    let mut body = BytesMut::new();
    for (offset_delta, (key, value)) in (0..).zip(records) {
        let (key, value) = (key.clone(), value.clone());
        let headers = Bytes::from_static(NO_HEADERS);
        put(&mut body, &Record { attributes: 0, offset_delta, timestamp_delta: 0, key, value, headers });
    }
    let count = records.len() as i32;
    let header = BatchHeader {
        base_offset: 0,
        batch_length: 0,
        leader_epoch: -1,
        crc: 0,
        attributes: 0,
        last_offset_delta: count - 1,
        base_timestamp: now_ms,
        max_timestamp: now_ms,
        producer_id: batch::NO_PRODUCER_ID,
        producer_epoch: batch::NO_PRODUCER_EPOCH,
        base_sequence: batch::NO_SEQUENCE,
        record_count: count,
    };
    batch::assemble(&header, &body)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn records_read_back_as_written(
            records in proptest::collection::vec((proptest::option::of(".{0,20}"), proptest::option::of(".{0,200}")), 1..20)
        ) {
            let records: Vec<_> = records
                .into_iter()
                .map(|(key, value)| (key.map(Bytes::from), value.map(Bytes::from)))
                .collect();
            let batch = write_batch(1_000, &records);
            let header = BatchHeader::parse(&batch).unwrap();
            let read = read_all(&header, &batch).unwrap();
            prop_assert_eq!(read.len(), records.len());
            for (index, (read, (key, value))) in read.into_iter().zip(records).enumerate() {
                let headers = Bytes::from_static(NO_HEADERS);
                prop_assert_eq!(read, Record { attributes: 0, offset_delta: index as i32, timestamp_delta: 0, key, value, headers });
            }
        }

        #[test]
        fn a_number_is_as_long_as_it_is_said_to_be(value in any::<i64>(), shift in 0..64_u32) {
            let value = value >> shift;
            let mut written = BytesMut::new();
            put_varlong(&mut written, value);
            prop_assert_eq!(written.len(), varlong_len(value));
            prop_assert_eq!(varlong(&mut &written[..]), Some(value));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100), count in -5..i32::MAX) {
            let mut batch = write_batch(1, &[(None, None)]).to_vec();
            batch.truncate(HEADER_LEN);
            batch.extend_from_slice(&bytes);
            let batch = Bytes::from(batch);
            let header = BatchHeader { batch_length: 49 + bytes.len() as i32, record_count: count, ..BatchHeader::parse(&write_batch(1, &[(None, None)])).unwrap() };
            read_all(&header, &batch).ok();
        }
    }
}

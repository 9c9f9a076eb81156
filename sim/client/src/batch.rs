//! Record batches, magic 2: the encoder of the producer and the decoder of the consumer.
//!
//! Written by hand rather than taken from crate `kafka-protocol`, whose records keep headers in a map and so lose
//! repeated header keys. Layout: <https://kafka.apache.org/documentation/#recordbatch>. The codecs of compressed batches
//! are the broker's, in `kafka::log::compression`. Absent: the message sets of magic 0 and 1.

use broker::{Header, Headers, Offset};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka::log::compression::{Codec, UNPACKED_BYTES_MAX, compress, decompress};
use kafka::log::record::{Record as Encoded, Records};

/// Bytes before the first record.
pub(crate) const HEADER_BYTES: usize = 61;
/// The checksum covers everything from here on.
const CRC_COVERS_FROM: usize = 21;
/// What a batch's length field does not count: base offset and the field itself.
const LENGTH_EXCLUDES: usize = 12;
const MAGIC: i8 = 2;

const COMPRESSION: i16 = 0b111;
const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// Room that a batch begins with.
const FIRST_BYTES: usize = 1024;

/// Who wrote a batch, for the broker's duplicate check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProducerStamp {
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
}

impl ProducerStamp {
    /// Of a producer without idempotence.
    pub(crate) const NONE: ProducerStamp =
        ProducerStamp { producer_id: -1, producer_epoch: -1, base_sequence: -1 };
}

/// Records on their way into a batch.
#[derive(Debug, Default)]
pub(crate) struct BatchBuilder {
    base_timestamp: i64,
    max_timestamp: i64,
    count: i32,
    records: Vec<u8>,
    scratch: Vec<u8>,
}

impl BatchBuilder {
    /// Appends a record with its time in milliseconds.
    pub(crate) fn append(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &Headers,
    ) {
        if self.count == 0 {
            self.base_timestamp = timestamp;
            self.max_timestamp = timestamp;
            self.records.reserve(FIRST_BYTES);
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let record = &mut self.scratch;
        record.clear();
        // Attributes, of which none is defined.
        record.push(0);
        put_varlong(record, timestamp - self.base_timestamp);
        put_varint(record, self.count);
        put_bytes(record, key);
        put_bytes(record, value);
        put_varint(record, length(headers.0.len()));
        for header in headers.iter() {
            put_bytes(record, Some(header.key.as_bytes()));
            put_bytes(record, header.value.as_deref());
        }
        put_varint(&mut self.records, length(record.len()));
        self.records.extend_from_slice(record);
        self.count += 1;
    }

    /// How many records.
    pub(crate) fn count(&self) -> i32 {
        self.count
    }

    /// How large the batch would be.
    pub(crate) fn bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// The whole batch, with base offset 0, which the broker replaces. Records that a codec would make longer go as they
    /// are, as in librdkafka.
    pub(crate) fn encode(&self, stamp: ProducerStamp, transactional: bool, codec: Codec) -> Bytes {
        assert!(self.count > 0, "a batch without records has no offsets");
        let packed = (codec != Codec::None).then(|| compress(codec, &self.records));
        let packed = packed.filter(|packed| packed.len() < self.records.len());
        let codec = if packed.is_some() { codec } else { Codec::None };
        let records: &[u8] = packed.as_deref().unwrap_or(&self.records);
        let whole = HEADER_BYTES + records.len();
        let mut batch = BytesMut::with_capacity(whole);
        batch.put_i64(0);
        batch.put_i32(length(whole - LENGTH_EXCLUDES));
        batch.put_i32(-1);
        batch.put_i8(MAGIC);
        batch.put_u32(0);
        batch.put_i16(codec as i16 | if transactional { TRANSACTIONAL } else { 0 });
        batch.put_i32(self.count - 1);
        batch.put_i64(self.base_timestamp);
        batch.put_i64(self.max_timestamp);
        batch.put_i64(stamp.producer_id);
        batch.put_i16(stamp.producer_epoch);
        batch.put_i32(stamp.base_sequence);
        batch.put_i32(self.count);
        batch.put_slice(records);
        let crc = crc32c::crc32c(&batch[CRC_COVERS_FROM..]);
        batch[CRC_COVERS_FROM - 4..CRC_COVERS_FROM].copy_from_slice(&crc.to_be_bytes());
        batch.freeze()
    }
}

/// How many bytes a record takes at most, for the check against `message.max.bytes` before it is encoded.
pub(crate) fn record_bytes_max(key: Option<&[u8]>, value: Option<&[u8]>, headers: &Headers) -> usize {
    let header = |header: &Header| 10 + header.key.len() + header.value.as_ref().map_or(0, Bytes::len);
    // Length, attributes, timestamp and offset deltas, the lengths of key and value, the count of headers.
    36 + key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + headers.iter().map(header).sum::<usize>()
}

/// A batch as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) base_offset: Offset,
    pub(crate) last_offset: Offset,
    pub(crate) leader_epoch: i32,
    pub(crate) producer: ProducerStamp,
    pub(crate) transactional: bool,
    /// Holds a transaction's end instead of records for the user.
    pub(crate) control: bool,
    base_timestamp: i64,
    /// The broker's time, if the topic takes that.
    appended_at: Option<i64>,
    records: Records,
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) offset: Offset,
    /// Milliseconds; -1 where there is none.
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Headers,
}

impl Batch {
    /// Its records in order.
    pub(crate) fn records(&self) -> impl ExactSizeIterator<Item = Record> {
        self.records.iter().map(|record| self.record(&record))
    }

    fn record(&self, record: &Encoded<&[u8]>) -> Record {
        let share = |part: &[u8]| self.records.share(part);
        Record {
            offset: self.base_offset.wrapping_add(i64::from(record.offset_delta)),
            timestamp: self
                .appended_at
                .unwrap_or_else(|| self.base_timestamp.wrapping_add(record.timestamp_delta)),
            key: record.key.map(share),
            value: record.value.map(share),
            headers: Headers(
                record
                    .headers()
                    .map(|(key, value)| Header {
                        key: String::from_utf8_lossy(key).into_owned(),
                        value: value.map(share),
                    })
                    .collect(),
            ),
        }
    }
}

/// Why bytes are no batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("the batch at offset {0} has magic {1}, not 2")]
    Magic(Offset, i8),
    #[error("the batch at offset {0} cannot be unpacked by its codec {1}")]
    Packed(Offset, i16),
    #[error("the batch at offset {0} fails its checksum")]
    Checksum(Offset),
    #[error("the batch at offset {0} contradicts itself")]
    Inconsistent(Offset),
}

/// Takes the next whole batch off `bytes`; `None` at the end, where a broker may have cut a batch off.
pub(crate) fn decode(bytes: &mut Bytes, check_crc: bool) -> Result<Option<Batch>, Malformed> {
    if bytes.len() < HEADER_BYTES {
        return Ok(None);
    }
    let base_offset = i64::from_be_bytes(*bytes.first_chunk().expect("checked above"));
    let inconsistent = Malformed::Inconsistent(base_offset);
    let batch_length = (&bytes[8..12]).get_i32();
    let whole = usize::try_from(batch_length).map_err(|_| inconsistent)? + LENGTH_EXCLUDES;
    if whole < HEADER_BYTES {
        return Err(inconsistent);
    }
    if bytes.len() < whole {
        return Ok(None);
    }
    let mut batch = bytes.split_to(whole);
    let magic = batch[16] as i8;
    if magic != MAGIC {
        return Err(Malformed::Magic(base_offset, magic));
    }
    if check_crc && crc32c::crc32c(&batch[CRC_COVERS_FROM..]) != (&batch[17..21]).get_u32() {
        return Err(Malformed::Checksum(base_offset));
    }
    batch.advance(12);
    let leader_epoch = batch.get_i32();
    batch.advance(5);
    let attributes = batch.get_i16();
    let last_offset_delta = batch.get_i32();
    let base_timestamp = batch.get_i64();
    let max_timestamp = batch.get_i64();
    let producer = ProducerStamp {
        producer_id: batch.get_i64(),
        producer_epoch: batch.get_i16(),
        base_sequence: batch.get_i32(),
    };
    let count = batch.get_i32();
    let codec = attributes & COMPRESSION;
    if codec != 0 {
        let unpacked =
            Codec::from_id(codec).and_then(|codec| decompress(codec, &batch, UNPACKED_BYTES_MAX).ok());
        batch = unpacked.ok_or(Malformed::Packed(base_offset, codec))?;
    }
    let appended_at = (attributes & LOG_APPEND_TIME != 0).then_some(max_timestamp);
    Ok(Some(Batch {
        base_offset,
        last_offset: base_offset + i64::from(last_offset_delta),
        leader_epoch,
        producer,
        transactional: attributes & TRANSACTIONAL != 0,
        control: attributes & CONTROL != 0,
        base_timestamp,
        appended_at,
        records: Records::new(count, batch).map_err(|_| inconsistent)?,
    }))
}

fn length(bytes: usize) -> i32 {
    i32::try_from(bytes).expect("bounded by `message.max.bytes`, which is below 2^31")
}

fn put_varint(out: &mut Vec<u8>, value: i32) {
    put_varlong(out, i64::from(value));
}

/// Zigzag, then seven bits a byte, lowest first.
fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push((rest as u8 & 0x7f) | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Length and bytes; -1 for null.
fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_varint(out, length(bytes.len()));
            out.extend_from_slice(bytes);
        }
        None => put_varint(out, -1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Sent = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>);

    fn headers(pairs: &[(String, Option<Vec<u8>>)]) -> Headers {
        Headers(
            pairs
                .iter()
                .map(|(key, value)| Header { key: key.clone(), value: value.clone().map(Bytes::from) })
                .collect(),
        )
    }

    fn encoded(sent: &[Sent], stamp: ProducerStamp) -> Bytes {
        let mut builder = BatchBuilder::default();
        for (timestamp, key, value, pairs) in sent {
            builder.append(*timestamp, key.as_deref(), value.as_deref(), &headers(pairs));
        }
        builder.encode(stamp, false, Codec::None)
    }

    fn bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200))
    }

    fn sent() -> impl Strategy<Value = Vec<Sent>> {
        let header = ("[ab]{0,2}", bytes());
        let record = (0..1i64 << 50, bytes(), bytes(), proptest::collection::vec(header, 0..4));
        proptest::collection::vec(record, 1..20)
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(sent in sent(), sequence in 0..i32::MAX) {
            let stamp = ProducerStamp { producer_id: 7, producer_epoch: 1, base_sequence: sequence };
            let mut wire = encoded(&sent, stamp);
            let batch = decode(&mut wire, true).unwrap().unwrap();
            prop_assert!(wire.is_empty());
            prop_assert_eq!(batch.producer, stamp);
            prop_assert_eq!(batch.last_offset, sent.len() as i64 - 1);
            prop_assert!(!batch.control && !batch.transactional);
            let records: Vec<Record> = batch.records().collect();
            prop_assert_eq!(records.len(), sent.len());
            for (offset, (record, (timestamp, key, value, pairs))) in records.iter().zip(&sent).enumerate() {
                prop_assert_eq!(record.offset, offset as i64);
                prop_assert_eq!(record.timestamp, *timestamp);
                prop_assert_eq!(record.key.as_deref(), key.as_deref());
                prop_assert_eq!(record.value.as_deref(), value.as_deref());
                prop_assert_eq!(&record.headers, &headers(pairs));
                prop_assert!(record_bytes_max(key.as_deref(), value.as_deref(), &headers(pairs)) < 10_000);
            }
        }

        #[test]
        fn a_flipped_byte_under_the_checksum_is_noticed(sent in sent(), at in any::<prop::sample::Index>(), bit in 0..8) {
            let mut wire = encoded(&sent, ProducerStamp::NONE).to_vec();
            let at = CRC_COVERS_FROM + at.index(wire.len() - CRC_COVERS_FROM);
            wire[at] ^= 1u8 << bit;
            prop_assert_eq!(decode(&mut wire.into(), true), Err(Malformed::Checksum(0)));
        }

        #[test]
        fn any_bytes_decode_or_are_refused_without_a_panic(mut wire in proptest::collection::vec(any::<u8>(), 0..300)) {
            if wire.len() >= HEADER_BYTES {
                // Past the first gates, so that the records are reached.
                let length = (wire.len() - LENGTH_EXCLUDES) as i32;
                wire[8..12].copy_from_slice(&length.to_be_bytes());
                wire[16] = 2;
                wire[22] &= !7; // Without a codec.
            }
            let mut wire = Bytes::from(wire);
            while let Ok(Some(batch)) = decode(&mut wire, false) {
                batch.records().for_each(drop);
            }
        }
    }

    #[test]
    fn every_codec_comes_back_and_none_makes_a_batch_longer() {
        let many: Vec<Sent> = (0..100).map(|n| (n, None, Some(b"the same again".to_vec()), vec![])).collect();
        let mut builder = BatchBuilder::default();
        for (timestamp, _, value, _) in &many {
            builder.append(*timestamp, None, value.as_deref(), &Headers::default());
        }
        let plain = builder.encode(ProducerStamp::NONE, true, Codec::None);
        let expected = decode(&mut plain.clone(), true).unwrap().unwrap();
        assert!(expected.transactional);
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let mut packed = builder.encode(ProducerStamp::NONE, true, codec);
            assert!(packed.len() < plain.len() / 2, "{codec:?}: {}", packed.len());
            assert_eq!(decode(&mut packed, true).unwrap().unwrap(), expected, "{codec:?}");
        }
        let mut short = BatchBuilder::default();
        short.append(1, None, Some(b"x"), &Headers::default());
        let bytes = short.encode(ProducerStamp::NONE, false, Codec::Gzip);
        assert_eq!(bytes, short.encode(ProducerStamp::NONE, false, Codec::None));
    }

    #[test]
    fn a_batch_that_was_cut_off_is_left_alone() {
        let whole = encoded(&[(1, None, Some(b"v".to_vec()), vec![])], ProducerStamp::NONE);
        for end in 0..whole.len() {
            assert_eq!(decode(&mut whole.slice(..end), true), Ok(None));
        }
    }

    #[test]
    fn kafkas_own_decoder_reads_what_we_write() {
        use kafka_protocol::records::RecordBatchDecoder;
        let sent: Vec<Sent> = vec![
            (1_000, Some(b"k".to_vec()), Some(b"v".to_vec()), vec![("h".into(), Some(b"x".to_vec()))]),
            (900, None, None, vec![]),
        ];
        let mut wire = encoded(&sent, ProducerStamp { producer_id: 5, producer_epoch: 2, base_sequence: 9 });
        let set = RecordBatchDecoder::decode(&mut wire).unwrap();
        assert_eq!(set.records.len(), 2);
        assert_eq!(set.records[0].key.as_deref(), Some(&b"k"[..]));
        assert_eq!(set.records[1].timestamp, 900);
        assert_eq!((set.records[1].producer_id, set.records[1].sequence), (5, 10));
        assert_eq!(set.records[1].value, None);
    }
}

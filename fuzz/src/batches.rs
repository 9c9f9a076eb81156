//! What a leader makes of any record batch: validation, the log, readers by time, compaction.

use bytes::{Bytes, BytesMut};
use context::Timestamp;
use shakedown_kafka::log::batch::{self, BatchHeader, HEADER_LEN, LENGTH_OVERHEAD};
use shakedown_kafka::log::compression::{self, Codec};
use shakedown_kafka::log::producer_state::{Origin, ProducerState, Verdict};
use shakedown_kafka::log::validator::validate;
use shakedown_kafka::log::{Log, LogConfig, record};
use shakedown_kafka::{Compression, TimestampType};

use crate::support::START;
use crate::support::verbs::{batch, idempotent};

/// All codecs.
pub(crate) const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

/// In the first byte of an input: the topic is compacted.
const COMPACT: u8 = 0x08;
/// In the first byte of an input: the broker says what time it is.
const APPEND_TIME: u8 = 0x10;
/// In the first byte of an input: what stands after the header is packed with the codec that the header names.
const PACKED: u8 = 0x20;
/// In the first byte of an input: length and checksum are as they came, right or wrong.
const RAW: u8 = 0x40;
/// In the first byte of an input: the topic's compression, from 0 to 5.
const COMPRESSION: u8 = 0x07;

/// Of more records than this a batch is validated, and no more: the rest would take time and show nothing.
const RECORDS_MAX: i32 = 1_000;

const MAGIC: usize = 16;
const CRC: usize = 17;
const ATTRIBUTES: usize = 21;

/// A batch with the length of all its bytes, format 2 and the checksum that goes with them; bytes too few for a header
/// stay as they are.
pub(crate) fn sealed(bytes: &Bytes) -> Bytes {
    if bytes.len() < HEADER_LEN {
        return bytes.clone();
    }
    let mut sealed = BytesMut::from(&bytes[..]);
    let length = (bytes.len() - LENGTH_OVERHEAD) as i32;
    sealed[8..12].copy_from_slice(&length.to_be_bytes());
    sealed[MAGIC] = 2;
    let crc = crc32c::crc32c(&sealed[ATTRIBUTES..]);
    sealed[CRC..ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
    sealed.freeze()
}

/// An uncompressed batch, packed.
pub(crate) fn compressed(plain: &Bytes, codec: Codec) -> Bytes {
    let header = BatchHeader::parse(plain).expect("a batch that was just written is one");
    let records = compression::compress(codec, &plain[HEADER_LEN..]);
    batch::assemble(&header.with_compression(codec as i16), &records)
}

/// Any bytes as a batch that a client sends to a topic of any kind; it is sent twice.
pub fn run(data: &[u8]) {
    let Some((&how, bytes)) = data.split_first() else { return };
    let mut sent = Bytes::copy_from_slice(bytes);
    if how & PACKED != 0
        && sent.len() >= HEADER_LEN
        && let Some(codec) = Codec::from_id(i16::from(sent[ATTRIBUTES + 1] & 7))
    {
        let records = compression::compress(codec, &sent[HEADER_LEN..]);
        sent = [&sent[..HEADER_LEN], &records].concat().into();
    }
    if how & RAW == 0 {
        sent = sealed(&sent);
    }
    let compact = how & COMPACT != 0;
    let config = LogConfig {
        compact,
        delete: !compact,
        compression: match how & COMPRESSION {
            1 => Compression::Uncompressed,
            2 => Compression::Gzip,
            3 => Compression::Snappy,
            4 => Compression::Lz4,
            5 => Compression::Zstd,
            _ => Compression::Producer,
        },
        timestamp_type: if how & APPEND_TIME != 0 {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        },
        ..LogConfig::default()
    };
    let mut leader = Leader { config, log: Log::default(), producers: ProducerState::default(), now: START };
    leader.append(&sent);
    leader.append(&sent);
    leader.append(&idempotent(&["after"], 1, 0, 0));
    leader.read();
    leader.clean();
    leader.read();
}

struct Leader {
    config: LogConfig,
    log: Log,
    producers: ProducerState,
    now: Timestamp,
}

impl Leader {
    fn now_ms(&self) -> i64 {
        self.now.as_millis() as i64
    }

    fn append(&mut self, batch: &Bytes) {
        let Ok(validated) = validate(self.now_ms(), &self.config, batch) else { return };
        let header = validated.header;
        if header.record_count > RECORDS_MAX {
            return;
        }
        assert_eq!(BatchHeader::parse(&validated.batch), Ok(header), "what is told of a batch is in it");
        assert_eq!(header.check(&validated.batch), Ok(()), "a batch that is stored has a right checksum");
        let Ok(Verdict::Append) = self.producers.check(&header, Origin::Client, false, None) else { return };
        let append_time = (self.config.timestamp_type == TimestampType::LogAppendTime).then(|| self.now_ms());
        let stamped = batch::stamp(&validated.batch, self.log.end_offset(), 0, append_time);
        let header = self.log.append(self.now, stamped, &self.config);
        self.producers.remember(&mut self.log, &header);
    }

    fn read(&mut self) {
        let (start, end) = (self.log.start_offset(), self.log.end_offset());
        let mut next = start;
        for stored in self.log.batches() {
            assert!(stored.header.base_offset >= next, "batches follow each other");
            next = stored.header.next_offset();
            let records = record::open(&stored.header, &stored.bytes).expect("what was taken in can be read");
            drop(records);
        }
        assert!(next <= end, "no batch is beyond the end");
        for offset in [start, (start + end) / 2, end] {
            self.log.read(offset, end, 1 << 20, true);
        }
        for time in [0, self.now_ms(), self.now_ms() + 1, i64::MAX] {
            self.log.offset_for_timestamp(time);
        }
        self.log.offset_of_max_timestamp();
    }

    /// Later, when all segments but a new one are old.
    fn clean(&mut self) {
        self.now = self.now + std::time::Duration::from_secs(86_400);
        self.config.segment.ms = 1;
        self.append(&batch(&["later"]));
        let end = self.log.end_offset();
        let dirt = self.log.dirt(self.now, end, &self.config);
        let producers = &self.producers;
        self.log.clean(self.now, &dirt, &self.config, |header| producers.is_last_of_producer(header));
        self.log.delete_old_segments(self.now, end, &self.config);
        ProducerState::load(&mut self.log, self.now.as_millis() as i64, 86_400_000);
    }
}

/// Batches in every codec, for topics of every kind, with keys and without, and such as unpack to very much.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let now = START.as_millis() as i64;
    let pair = |key: Option<&'static str>, value: Option<&'static str>| {
        (key.map(Bytes::from), value.map(Bytes::from))
    };
    let keyed = record::write_batch(
        now,
        &[pair(Some("k"), Some("v")), pair(Some("k"), None), pair(Some("l"), Some("w"))],
    );
    let mut seeds = Vec::new();
    for plain in [batch(&["a", "b"]), keyed, idempotent(&["c"], 5, 0, 0)] {
        for (number, &codec) in (0_u8..).zip(&CODECS) {
            let packed = compressed(&plain, codec);
            let header = BatchHeader::parse(&plain).expect("a batch that was just written is one");
            let named = batch::assemble(&header.with_compression(codec as i16), &plain[HEADER_LEN..]);
            for how in [0, number + 1, COMPACT, APPEND_TIME | number, RAW] {
                seeds.push([&[how][..], &packed].concat());
            }
            for how in [PACKED, PACKED | COMPACT, PACKED | (number + 1)] {
                seeds.push([&[how][..], &named].concat());
            }
        }
    }
    // As many as are still quick.
    for (codec, count) in
        [(Codec::Gzip, 100_000), (Codec::Snappy, 10_000), (Codec::Lz4, 100_000), (Codec::Zstd, 100_000)]
    {
        seeds.push([&[0][..], &bomb(codec, count)].concat());
    }
    seeds
}

/// A batch of very many of the smallest records, as small as its codec makes it.
fn bomb(codec: Codec, count: usize) -> Bytes {
    let smallest = [12, 0, 0, 0, 1, 1, 0];
    let records = compression::compress(codec, &smallest.repeat(count));
    let header = BatchHeader::parse(&batch(&["a"])).expect("a batch that was just written is one");
    let header = BatchHeader {
        record_count: count as i32,
        last_offset_delta: count as i32 - 1,
        ..header.with_compression(codec as i16)
    };
    batch::assemble(&header, &records)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kept as slices all at once, the records would take more than the allocator here gives.
    #[test]
    fn a_batch_that_unpacks_to_millions_of_records_is_validated_in_bounded_memory() {
        run(&[&[0][..], &bomb(Codec::Zstd, 5_200_000)].concat());
    }
}

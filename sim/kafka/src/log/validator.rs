//! What a leader asks of a client's batch before it appends it, and makes of it (Kafka's `LogValidator` and
//! `UnifiedLog.analyzeAndValidateRecords`).
//!
//! Batches are opened, compressed ones too: their records must be as many as the header says, have a key on a compacted
//! topic, and a time near the broker's. A batch is rewritten only if the topic compresses in another way than it came, or
//! if the offsets in a compressed batch are not from 0 without gaps; a header with a wrong largest time is put right.
//! Sequences and transactions are not judged here: [`super::producer_state`] does. Absent: formats before 2.

use bytes::Bytes;
use kafka_protocol::ResponseError;

use super::LogConfig;
use super::batch::{self, BatchError, BatchHeader};
use super::compression::Codec;
use super::record::{self, OpenError, Record, Records};
use crate::config::{Compression, TimestampType};

/// How many of its records a batch is refused with by name. Kafka names all of them; a few KiB can unpack to millions.
pub const RECORD_ERRORS_MAX: usize = 10_000;

/// The time of a record that has none.
const NO_TIMESTAMP: i64 = -1;

/// A batch that may be appended.
#[derive(Clone, Debug)]
pub struct Validated {
    /// Its header, as in `batch`.
    pub header: BatchHeader,
    /// As it came, or rewritten.
    pub batch: Bytes,
}

/// Why a batch is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Kafka's code.
    pub code: ResponseError,
    /// Why, for the client's log.
    pub message: String,
    /// The records that are to blame, if it is about records, but no more than [`RECORD_ERRORS_MAX`]: the others of the
    /// batch are refused with them.
    pub record_errors: Vec<RecordError>,
}

/// What is wrong with one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordError {
    /// Which one, from 0.
    pub index: i32,
    /// Why, for the client's log.
    pub message: String,
}

fn refuse<T>(code: ResponseError, message: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { code, message: message.into(), record_errors: Vec::new() })
}

/// Validates the one batch that a client sent for a partition.
///
/// # Errors
/// [`Refused`]: `CORRUPT_MESSAGE`, `MESSAGE_TOO_LARGE`, `INVALID_RECORD`, `INVALID_TIMESTAMP`,
/// `RECORD_LIST_TOO_LARGE` for what does not fit into a segment, and `UNKNOWN_SERVER_ERROR` for records that cannot be
/// unpacked, as Kafka says.
pub fn validate(now_ms: i64, config: &LogConfig, batch: &Bytes) -> Result<Validated, Refused> {
    let header = read_header(config, batch)?;
    check_header(&header)?;
    let records = match record::open(&header, batch) {
        Ok(records) => records,
        Err(OpenError::Malformed(error)) => return refuse(ResponseError::InvalidRecord, error.to_string()),
        Err(error) => return refuse(ResponseError::UnknownServerError, error.to_string()),
    };
    check_records(now_ms, config, &header, &records)?;
    let validated = brought_into_form(config, header, batch, &records);
    let size = validated.batch.len();
    if size > config.max_message_bytes {
        return too_large(size, config.max_message_bytes);
    }
    if size > config.segment.bytes {
        let message =
            format!("a batch of {size} bytes does not fit into a segment of {}", config.segment.bytes);
        return refuse(ResponseError::RecordListTooLarge, message);
    }
    Ok(validated)
}

fn too_large<T>(size: usize, max: usize) -> Result<T, Refused> {
    refuse(ResponseError::MessageTooLarge, format!("a batch of {size} bytes is above the limit of {max}"))
}

fn read_header(config: &LogConfig, batch: &Bytes) -> Result<BatchHeader, Refused> {
    let header = match BatchHeader::parse(batch) {
        Ok(header) => header,
        // What is cut short is no batch at all for Kafka's reader, and a request must have one: clients do not send it
        // again, as they would what is corrupt.
        Err(error @ (BatchError::UnsupportedFormat(_) | BatchError::Truncated)) => {
            return refuse(ResponseError::InvalidRecord, error.to_string());
        }
        Err(error) => return refuse(ResponseError::CorruptMessage, error.to_string()),
    };
    if header.size() != batch.len() {
        let message = "a partition takes exactly one record batch in a request";
        return refuse(ResponseError::InvalidRecord, message);
    }
    if header.base_offset != 0 {
        let message = format!("the base offset of a batch to append must be 0, not {}", header.base_offset);
        return refuse(ResponseError::InvalidRecord, message);
    }
    if batch.len() > config.max_message_bytes {
        return too_large(batch.len(), config.max_message_bytes);
    }
    if let Err(error) = header.check(batch) {
        return refuse(ResponseError::CorruptMessage, error.to_string());
    }
    Ok(header)
}

fn check_header(header: &BatchHeader) -> Result<(), Refused> {
    let invalid = |message: &str| refuse(ResponseError::InvalidRecord, message);
    if header.record_count <= 0 || i64::from(header.record_count) != i64::from(header.last_offset_delta) + 1 {
        return invalid("the number of records does not match their offsets");
    }
    if header.is_control() {
        return invalid("clients may not write control batches");
    }
    if header.has_producer() && (header.base_sequence < 0 || header.producer_epoch < 0) {
        return invalid("a batch of an idempotent producer needs an epoch and a sequence");
    }
    Ok(())
}

fn check_records(
    now_ms: i64,
    config: &LogConfig,
    header: &BatchHeader,
    records: &Records,
) -> Result<(), Refused> {
    let mut out_of_time = false;
    let mut refused = 0;
    let mut record_errors = Vec::new();
    for (index, record) in (0..).zip(records.iter()) {
        let message = if config.compact && record.key.is_none() {
            "a compacted topic takes only records with a key".to_owned()
        } else if let Some(message) = check_time(now_ms, config, header, &record) {
            out_of_time = true;
            message
        } else {
            continue;
        };
        refused += 1;
        if record_errors.len() < RECORD_ERRORS_MAX {
            record_errors.push(RecordError { index, message });
        }
    }
    let Some(first) = record_errors.first() else { return Ok(()) };
    let code = if out_of_time { ResponseError::InvalidTimestamp } else { ResponseError::InvalidRecord };
    let message = format!("{refused} of {} records refused: {}", header.record_count, first.message);
    Err(Refused { code, message, record_errors })
}

fn check_time(
    now_ms: i64,
    config: &LogConfig,
    header: &BatchHeader,
    record: &Record<&[u8]>,
) -> Option<String> {
    let time = record.timestamp(header);
    if config.timestamp_type == TimestampType::CreateTime && time != NO_TIMESTAMP {
        let early = now_ms.saturating_sub(time) > config.timestamp_before_max_ms;
        let late = time.saturating_sub(now_ms) > config.timestamp_after_max_ms;
        return (early || late).then(|| format!("timestamp {time} is out of range at {now_ms}"));
    }
    header.is_log_append_time().then(|| "clients may not set log append time".to_owned())
}

/// The batch as it is stored, but for offset, epoch and append time.
fn brought_into_form(config: &LogConfig, header: BatchHeader, batch: &Bytes, records: &Records) -> Validated {
    let source = header.compression();
    let target = match config.compression {
        Compression::Producer => source,
        Compression::Uncompressed => Codec::None as i16,
        Compression::Gzip => Codec::Gzip as i16,
        Compression::Snappy => Codec::Snappy as i16,
        Compression::Lz4 => Codec::Lz4 as i16,
        Compression::Zstd => Codec::Zstd as i16,
    };
    let numbered =
        source == 0 || (0..).zip(records.iter()).all(|(index, record)| record.offset_delta == index);
    let latest = records.iter().map(|record| record.timestamp(&header)).max().unwrap_or(NO_TIMESTAMP);
    if target == source && numbered {
        let batch = batch::with_create_time(batch, &header, latest);
        let header = BatchHeader::parse(&batch).expect("a batch with another time is a batch");
        return Validated { header, batch };
    }
    let first = records.iter().next().map_or(NO_TIMESTAMP, |record| record.timestamp(&header));
    let renumbered = (0..).zip(records.iter()).map(|(offset_delta, record)| Record {
        offset_delta,
        timestamp_delta: record.timestamp(&header).wrapping_sub(first),
        ..record
    });
    let rebuilt = BatchHeader { base_timestamp: first, max_timestamp: latest, ..header };
    let batch = record::rewrite(&rebuilt.with_create_time().with_compression(target), renumbered);
    Validated { header: BatchHeader::parse(&batch).expect("a rewritten batch is a batch"), batch }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::batch::assemble;
    use crate::log::compression;

    const NOW_MS: i64 = 10_000_000;

    /// A batch with one record for each key, at its time.
    fn batch(records: &[(Option<&str>, i64)], codec: Codec) -> Bytes {
        let plain: Vec<_> = records
            .iter()
            .map(|(key, _)| (key.map(|key| Bytes::from(key.to_owned())), Some(Bytes::from_static(b"value"))))
            .collect();
        let plain = record::write_batch(records[0].1, &plain);
        let header = BatchHeader::parse(&plain).unwrap();
        let mut read = record::open(&header, &plain).unwrap().to_vec();
        for (record, (_, time)) in read.iter_mut().zip(records) {
            record.timestamp_delta = time - records[0].1;
        }
        let max_timestamp = records.iter().map(|(_, time)| *time).max().unwrap();
        record::rewrite(&BatchHeader { max_timestamp, ..header }.with_compression(codec as i16), read)
    }

    fn check(config: LogConfig, batch: &Bytes) -> Result<Validated, (ResponseError, Vec<i32>)> {
        validate(NOW_MS, &config, batch).map_err(|refused| {
            (refused.code, refused.record_errors.iter().map(|error| error.index).collect())
        })
    }

    const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    #[test]
    fn the_records_that_are_to_blame_are_named_in_compressed_batches_too() {
        for codec in CODECS {
            let compacted = LogConfig { compact: true, ..LogConfig::default() };
            let without_key = batch(&[(Some("a"), 1), (None, 1), (Some("b"), 1), (None, 1)], codec);
            assert_eq!(
                check(compacted, &without_key).unwrap_err(),
                (ResponseError::InvalidRecord, vec![1, 3])
            );
            let late = NOW_MS + 3_600_001;
            let out_of_time = batch(&[(Some("a"), NOW_MS), (Some("b"), late)], codec);
            let refused = check(LogConfig::default(), &out_of_time).unwrap_err();
            assert_eq!(refused, (ResponseError::InvalidTimestamp, vec![1]));
        }
    }

    #[test]
    fn a_record_without_a_time_is_never_out_of_range() {
        let config = LogConfig { timestamp_before_max_ms: 1_000, ..LogConfig::default() };
        assert_eq!(
            check(config, &batch(&[(None, 5)], Codec::None)).unwrap_err().0,
            ResponseError::InvalidTimestamp
        );
        check(config, &batch(&[(None, -1)], Codec::None)).unwrap();
    }

    #[test]
    fn a_batch_is_compressed_as_its_topic_says() {
        let records = [(Some("a"), 7), (Some("b"), 5)];
        for source in CODECS {
            let targets = [
                (Compression::Producer, source),
                (Compression::Uncompressed, Codec::None),
                (Compression::Gzip, Codec::Gzip),
                (Compression::Snappy, Codec::Snappy),
                (Compression::Lz4, Codec::Lz4),
                (Compression::Zstd, Codec::Zstd),
            ];
            for (compression, target) in targets {
                let config = LogConfig { compression, ..LogConfig::default() };
                let sent = batch(&records, source);
                let stored = check(config, &sent).unwrap();
                assert_eq!(stored.header.compression(), target as i16);
                stored.header.check(&stored.batch).unwrap();
                let read = record::open(&stored.header, &stored.batch).unwrap();
                let times: Vec<i64> = read.iter().map(|record| record.timestamp(&stored.header)).collect();
                assert_eq!((times, stored.header.max_timestamp), (vec![7, 5], 7));
                assert_eq!(stored.batch == sent, source == target, "rewritten only if it must be");
            }
        }
    }

    /// Four KiB that unpack to 70 MB: ten million records, each of them too late.
    #[test]
    fn a_batch_that_unpacks_to_millions_of_records_is_refused_with_a_bounded_answer() {
        const RECORDS: i32 = 10_000_000;
        let smallest = [12, 0, 0, 0, 1, 1, 0];
        let header = BatchHeader::parse(&batch(&[(None, NOW_MS + 3_600_001)], Codec::None)).unwrap();
        let header = BatchHeader { record_count: RECORDS, last_offset_delta: RECORDS - 1, ..header };
        let packed = compression::compress(Codec::Zstd, &smallest.repeat(RECORDS as usize));
        let sent = assemble(&header.with_compression(Codec::Zstd as i16), &packed);
        let refused = validate(NOW_MS, &LogConfig::default(), &sent).unwrap_err();
        assert_eq!((refused.code, refused.record_errors.len()), (ResponseError::InvalidTimestamp, 10_000));
        assert!(refused.message.starts_with("10000000 of 10000000 records"), "{}", refused.message);
    }

    #[test]
    fn a_wrong_largest_time_is_put_right() {
        let sent = batch(&[(None, 7), (None, 9)], Codec::None);
        let header = BatchHeader { max_timestamp: 1_000, ..BatchHeader::parse(&sent).unwrap() };
        let stored = check(LogConfig::default(), &assemble(&header, &sent[batch::HEADER_LEN..])).unwrap();
        assert_eq!((stored.header.max_timestamp, stored.batch), (9, sent));
    }

    #[test]
    fn a_compressed_batch_that_cannot_be_unpacked_is_the_servers_error() {
        let sent = batch(&[(None, 7)], Codec::None);
        for codec in &CODECS[1..] {
            let header = BatchHeader::parse(&sent).unwrap().with_compression(*codec as i16);
            let lying = assemble(&header, &sent[batch::HEADER_LEN..]);
            let refused = check(LogConfig::default(), &lying).unwrap_err();
            assert_eq!(refused.0, ResponseError::UnknownServerError, "{codec:?}");
        }
        let header = BatchHeader::parse(&sent).unwrap().with_compression(6);
        let unknown = assemble(&header, &sent[batch::HEADER_LEN..]);
        assert_eq!(check(LogConfig::default(), &unknown).unwrap_err().0, ResponseError::UnknownServerError);
    }

    #[test]
    fn a_batch_must_fit_into_a_segment() {
        let config = LogConfig { segment: 60.into(), ..LogConfig::default() };
        let refused = check(config, &batch(&[(None, 7)], Codec::None)).unwrap_err();
        assert_eq!(refused.0, ResponseError::RecordListTooLarge);
    }
}

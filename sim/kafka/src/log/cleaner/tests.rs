use proptest::prelude::*;

use super::*;
use crate::log::batch;
use crate::log::compression::Codec;
use crate::log::transactions::AbortedTransaction;

const DAY_MS: u64 = 86_400_000;

fn compacting() -> LogConfig {
    LogConfig { compact: true, delete: false, segment: 400.into(), ..LogConfig::default() }
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(ms)
}

/// Appends a batch of keys with values; `None` is a tombstone.
fn put(log: &mut Log, records: &[(&str, Option<&str>)], codec: Codec) -> i64 {
    put_for(log, records, codec, None)
}

/// The same, in a transaction of a producer.
fn put_for(log: &mut Log, records: &[(&str, Option<&str>)], codec: Codec, producer: Option<i64>) -> i64 {
    let text = |text: &str| Bytes::from(text.to_owned());
    let records: Vec<_> = records.iter().map(|(key, value)| (Some(text(key)), value.map(text))).collect();
    let plain = record::write_batch(1_000, &records);
    let header = BatchHeader::parse(&plain).unwrap().with_compression(codec as i16);
    let header = match producer {
        Some(producer_id) => BatchHeader {
            producer_id,
            producer_epoch: 0,
            base_sequence: 0,
            attributes: header.attributes | 0b1_0000,
            ..header
        },
        None => header,
    };
    let read = record::read_all(&BatchHeader::parse(&plain).unwrap(), &plain).unwrap();
    append(log, record::rewrite(&header, read))
}

fn append(log: &mut Log, batch: Bytes) -> i64 {
    let stamped = batch::stamp(&batch, log.end_offset(), 0, None);
    log.append(at(1_000), stamped, compacting().segment).base_offset
}

fn end_transaction(log: &mut Log, producer_id: i64, first_offset: i64, committed: bool) -> i64 {
    let marker = Marker { producer_id, producer_epoch: 0, coordinator_epoch: 0, committed };
    let last_offset = append(log, marker.batch(1_000));
    if !committed {
        let entry = AbortedTransaction {
            producer_id,
            first_offset,
            last_offset,
            last_stable_offset: last_offset + 1,
        };
        log.aborted.push(entry);
    }
    last_offset
}

/// Rolls, so that all there is may be cleaned, and cleans it.
fn clean_all(log: &mut Log, now: Timestamp, keep: impl Fn(&BatchHeader) -> bool) {
    log.roll(now, log.end_offset());
    let dirt = log.dirt(now, log.end_offset(), &compacting());
    log.clean(now, &dirt, &compacting(), keep);
}

/// Offset, key and value of everything that is left; markers have no key.
fn left(log: &Log) -> Vec<(i64, String, Option<String>)> {
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let data = log.batches().filter(|batch| !batch.header.is_control());
    let records = data.flat_map(|batch| {
        batch.header.check(&batch.bytes).unwrap();
        opened(batch)
            .to_vec()
            .into_iter()
            .map(|record| (batch.header.base_offset + i64::from(record.offset_delta), record))
    });
    records.map(|(offset, record)| (offset, text(record.key.unwrap()), record.value.map(text))).collect()
}

fn offsets(log: &Log) -> Vec<i64> {
    left(log).into_iter().map(|(offset, ..)| offset).collect()
}

#[test]
fn the_last_of_a_key_keeps_its_offset() {
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut log = Log::default();
        put(&mut log, &[("a", Some("1")), ("b", Some("1"))], codec);
        put(&mut log, &[("a", Some("2")), ("c", Some("1"))], codec);
        clean_all(&mut log, at(2_000), |_| false);
        let expected = [(1, "b", "1"), (2, "a", "2"), (3, "c", "1")];
        let expected = expected.map(|(offset, key, value)| (offset, key.to_owned(), Some(value.to_owned())));
        assert_eq!(left(&log), expected);
        let first = log.batches().next().unwrap().header;
        assert_eq!((first.base_offset, first.last_offset(), first.record_count), (0, 1, 1));
        assert_eq!(first.compression(), codec as i16);
    }
}

#[test]
fn a_tombstone_goes_only_after_its_horizon() {
    let mut log = Log::default();
    put(&mut log, &[("a", Some("1"))], Codec::None);
    put(&mut log, &[("a", None), ("b", Some("1"))], Codec::None);
    put(&mut log, &[("last", Some("1"))], Codec::None);
    clean_all(&mut log, at(2_000), |_| false);
    assert_eq!(offsets(&log), [1, 2, 3]);
    let horizon = log.batches().next().unwrap().header.delete_horizon_ms();
    assert_eq!(horizon, Some(2_000 + DAY_MS as i64));
    let time =
        opened(log.batches().next().unwrap()).to_vec()[0].timestamp(&log.batches().next().unwrap().header);
    assert_eq!(time, 1_000, "the records keep their times");
    put(&mut log, &[("x", Some("1"))], Codec::None);
    clean_all(&mut log, at(1_999 + DAY_MS), |_| false);
    assert_eq!(offsets(&log), [1, 2, 3, 4]);
    put(&mut log, &[("y", Some("1"))], Codec::None);
    clean_all(&mut log, at(2_000 + DAY_MS), |_| false);
    assert_eq!(offsets(&log), [2, 3, 4, 5]);
}

#[test]
fn aborted_data_goes_at_once_and_its_marker_later() {
    let mut log = Log::default();
    put(&mut log, &[("a", Some("kept"))], Codec::None);
    let first = put_for(&mut log, &[("a", Some("aborted"))], Codec::None, Some(7));
    let marker = end_transaction(&mut log, 7, first, false);
    put(&mut log, &[("b", Some("1"))], Codec::None);
    let has_marker = |log: &Log| log.batches().any(|batch| batch.header.base_offset == marker);
    clean_all(&mut log, at(2_000), |_| false);
    assert_eq!(offsets(&log), [0, 3], "an aborted record supersedes nothing");
    assert!(has_marker(&log) && log.aborted().entries().len() == 1);
    put(&mut log, &[("x", Some("1"))], Codec::None);
    clean_all(&mut log, at(3_000), |_| false);
    assert!(has_marker(&log), "it is told now when it may go");
    assert!(log.aborted().entries().is_empty());
    put(&mut log, &[("y", Some("1"))], Codec::None);
    clean_all(&mut log, at(3_000 + DAY_MS), |_| false);
    assert!(!has_marker(&log));
}

#[test]
fn a_commit_marker_stays_as_long_as_its_data() {
    let mut log = Log::default();
    let first = put_for(&mut log, &[("a", Some("1"))], Codec::None, Some(7));
    let marker = end_transaction(&mut log, 7, first, true);
    for round in 1..4 {
        put(&mut log, &[("x", Some("1"))], Codec::None);
        clean_all(&mut log, at(round * 10 * DAY_MS), |_| false);
        assert!(log.batches().any(|batch| batch.header.base_offset == marker), "round {round}");
    }
}

#[test]
fn the_last_batch_of_a_producer_stays_empty() {
    let mut log = Log::default();
    put_for(&mut log, &[("a", Some("1"))], Codec::Gzip, Some(7));
    put(&mut log, &[("a", Some("2"))], Codec::None);
    clean_all(&mut log, at(2_000), |header| header.producer_id == 7);
    let emptied = log.batches().next().unwrap();
    emptied.header.check(&emptied.bytes).unwrap();
    assert_eq!((emptied.header.record_count, emptied.header.base_sequence), (0, 0));
    assert_eq!((emptied.header.base_offset, emptied.bytes.len()), (0, batch::HEADER_LEN));
    assert_eq!(offsets(&log), [1]);
}

#[test]
fn what_is_active_unstable_or_young_stays_dirty() {
    let mut log = Log::default();
    for _ in 0..20 {
        put(&mut log, &[("a", Some("1"))], Codec::None);
    }
    let config = compacting();
    let active = log.active_base_offset();
    let dirt = log.dirt(at(2_000), log.end_offset(), &config);
    assert_eq!((dirt.first_dirty_offset, dirt.first_uncleanable_offset), (0, active));
    assert!(dirt.is_due(&config));
    let second = log.segments().nth(1).unwrap().base_offset();
    assert_eq!(
        log.dirt(at(2_000), second + 1, &config).first_uncleanable_offset,
        second,
        "whole segments only"
    );
    let young = LogConfig { min_compaction_lag_ms: 1_500, ..config };
    assert_eq!(log.dirt(at(2_000), log.end_offset(), &young).first_uncleanable_offset, 0);
    assert_eq!(log.dirt(at(2_500), log.end_offset(), &young).first_uncleanable_offset, active);
    log.clean(at(2_000), &dirt, &config, |_| false);
    let clean = log.dirt(at(2_000), log.end_offset(), &config);
    assert_eq!((clean.first_dirty_offset, clean.cleanable_bytes), (active, 0));
    assert!(!clean.is_due(&config));
}

#[test]
fn what_is_overdue_is_cleaned_however_little_it_is() {
    let mut log = Log::default();
    for key in 0..40 {
        put(&mut log, &[(&format!("{key}"), Some("1"))], Codec::None);
    }
    clean_all(&mut log, at(2_000), |_| false);
    put(&mut log, &[("x", Some("1"))], Codec::None);
    log.roll(at(2_000), log.end_offset());
    let overdue = LogConfig { max_compaction_lag_ms: 5_000, ..compacting() };
    let is_due = |now| log.dirt(at(now), log.end_offset(), &overdue).is_due(&overdue);
    assert_eq!((is_due(6_000), is_due(6_001)), (false, true));
}

proptest! {
    /// The model is the list of all records ever put: what is left is of each key the last, at its offset; a key whose last
    /// is a tombstone has that or nothing.
    #[test]
    fn compaction_is_the_last_of_each_key(
        puts in proptest::collection::vec((proptest::collection::vec((0..6_u8, any::<bool>()), 1..4), 0..5_i16, any::<bool>()), 1..40),
        end_ms in 0..3 * DAY_MS,
    ) {
        let mut log = Log::default();
        let mut all: Vec<(String, Option<String>)> = Vec::new();
        let mut now_ms = 2_000;
        for (records, codec, clean) in puts {
            let records: Vec<_> = records
                .iter()
                .enumerate()
                .map(|(index, (key, tombstone))| {
                    (key.to_string(), (!tombstone).then(|| format!("{}", all.len() + index)))
                })
                .collect();
            let put_records: Vec<_> = records.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
            put(&mut log, &put_records, Codec::from_id(codec).unwrap());
            all.extend(records);
            if clean {
                now_ms += end_ms / 4;
                clean_all(&mut log, at(now_ms), |_| false);
            }
        }
        now_ms += end_ms;
        clean_all(&mut log, at(now_ms), |_| false);
        prop_assert_eq!(log.end_offset(), all.len() as i64);
        let is_last = |offset: usize| all[offset + 1..].iter().all(|(key, _)| *key != all[offset].0);
        let found = left(&log);
        for (offset, key, value) in &found {
            prop_assert_eq!(&(key.clone(), value.clone()), &all[*offset as usize]);
            prop_assert!(is_last(*offset as usize), "offset {} is superseded", offset);
        }
        for (offset, (_, value)) in all.iter().enumerate() {
            if is_last(offset) && value.is_some() {
                prop_assert!(found.iter().any(|(at, ..)| *at == offset as i64), "offset {} is lost", offset);
            }
        }
        let ends: Vec<(i64, i64)> = log.batches().map(|batch| (batch.header.base_offset, batch.header.next_offset())).collect();
        prop_assert!(ends.windows(2).all(|pair| pair[0].1 <= pair[1].0), "batches stay in order");
    }
}

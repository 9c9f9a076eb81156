use context::Seed;
use proptest::prelude::*;

use super::*;

/// `count` records, appended at the log's end under `epoch`.
fn append(log: &mut Log, count: usize, epoch: i32, now_ms: u64) {
    let records = vec![(None, Some(Bytes::from_static(b"value"))); count];
    let batch = record::write_batch(now_ms as i64, &records);
    let stamped = batch::stamp(&batch, log.end_offset(), epoch, None);
    log.append(Timestamp::from_millis(now_ms), stamped, 300);
}

fn offsets(bytes: &Bytes) -> Vec<i64> {
    let mut rest = bytes.clone();
    let mut offsets = Vec::new();
    while !rest.is_empty() {
        let header = BatchHeader::parse(&rest).unwrap();
        offsets.extend(header.base_offset..header.next_offset());
        rest = rest.split_off(header.size());
    }
    offsets
}

/// What a reader gets that asks again and again.
fn read_on(log: &Log, start: i64, end: i64) -> Bytes {
    let mut read = BytesMut::new();
    let mut next = start;
    loop {
        let bytes = log.read(next, end, usize::MAX, true);
        let Some(last) = offsets(&bytes).last().copied() else { return read.freeze() };
        read.extend_from_slice(&bytes);
        next = last + 1;
    }
}

#[test]
fn a_read_ends_with_its_segment() {
    let mut log = Log::default();
    // Two batches in each segment of 300 bytes at most.
    (0..5).for_each(|_| append(&mut log, 1, 0, 1));
    let bases: Vec<i64> = log.segments().map(Segment::base_offset).collect();
    assert!(bases.len() > 1 && bases[1] > 1, "{bases:?}");
    let whole: Vec<i64> = (0..bases[1]).collect();
    assert_eq!(offsets(&log.read(0, 5, usize::MAX, true)), whole);
    assert_eq!(offsets(&log.read(bases[1], 5, usize::MAX, true))[0], bases[1]);
    assert_eq!(offsets(&read_on(&log, 0, 5)), [0, 1, 2, 3, 4]);
    assert_eq!(log.segment_of_read(bases[1] - 1, 5), 0);
    assert_eq!(log.segment_of_read(bases[1], 5), bases[1]);
    assert_eq!(
        log.segment_of_read(bases[1], bases[1]),
        0,
        "where nothing is to be read it ends in the one before"
    );
    assert_eq!(log.segment_of_read(5, 5), log.active_base_offset());
}

#[test]
fn a_read_from_inside_a_batch_gives_the_whole_batch() {
    let mut log = Log::default();
    append(&mut log, 3, 0, 1);
    append(&mut log, 2, 0, 2);
    assert_eq!(offsets(&log.read(1, 5, 10_000, true)), [0, 1, 2, 3, 4]);
    assert_eq!(offsets(&log.read(3, 5, 10_000, true)), [3, 4]);
    assert_eq!(offsets(&log.read(1, 3, 10_000, true)), [0, 1, 2]);
}

#[test]
fn the_first_batch_comes_whatever_its_size() {
    let mut log = Log::default();
    append(&mut log, 3, 0, 1);
    append(&mut log, 2, 0, 2);
    assert_eq!(offsets(&log.read(0, 5, 1, true)), [0, 1, 2]);
    assert!(log.read(0, 5, 1, false).is_empty());
}

#[test]
fn a_power_loss_keeps_what_was_written_back() {
    let mut log = Log::default();
    append(&mut log, 1, 0, 0);
    append(&mut log, 1, 0, 20_000);
    log.cache.write_back(Timestamp::from_millis(31_000));
    assert_eq!((log.flushed_offset(), log.end_offset()), (1, 2));
    log.lose_power(Timestamp::from_millis(31_000), &mut Seed(1).stream("power"));
    assert_eq!(log.end_offset(), 1);
    append(&mut log, 1, 1, 32_000);
    assert_eq!(log.epoch_of(1), Some(1));
}

#[test]
fn the_kernel_goes_on_writing_when_nothing_is_appended_any_more() {
    let mut log = Log::default();
    append(&mut log, 1, 0, 1_000);
    append(&mut log, 1, 0, 3_000);
    // It looks every five seconds: at 30 s the first was 29 s old.
    let lost =
        |at_ms| log.clone().lose_power(Timestamp::from_millis(at_ms), &mut Seed(1).stream("power")).end;
    assert_eq!([34_999, 35_000].map(lost), [0, 2]);
}

/// A batch of three pages: what is written back of it is never whole.
fn torn() -> (Log, PowerLoss) {
    let value = Bytes::from(vec![b'v'; 3 * PAGE_BYTES]);
    (0..100)
        .map(|seed| {
            let mut log = Log::default();
            append(&mut log, 2, 0, 1);
            log.flush(Timestamp::ZERO);
            let batch = record::write_batch(2, &[(None, Some(value.clone())), (None, None)]);
            log.append(Timestamp::from_millis(2), batch::stamp(&batch, 2, 0, None), 100_000);
            let loss = log.lose_power(Timestamp::from_millis(3), &mut Seed(seed).stream("power"));
            (log, loss)
        })
        .find(|(_, loss)| loss.torn_bytes > 0)
        .expect("one power loss of a hundred tears a batch")
}

#[test]
fn a_torn_batch_lies_on_the_platter_until_recovery_drops_it() {
    let (mut log, loss) = torn();
    assert_eq!((loss.end_before, loss.end, loss.records), (4, 2, 2));
    let whole = log.size();
    let file = log.remains.as_ref().expect("a power loss leaves a file").bytes.clone();
    assert_eq!(file.len(), whole + loss.torn_bytes);
    log.load(Timestamp::from_millis(4));
    assert_eq!((log.end_offset(), log.size()), (2, whole));
    append(&mut log, 1, 1, 5);
    assert_eq!(offsets(&log.read(0, 3, 10_000, true)), [0, 1, 2]);
}

#[test]
fn it_is_recovery_that_decides_what_a_power_loss_leaves() {
    let (mut log, _) = torn();
    // The platter has garbled the first batch as well: nobody but recovery looks.
    let remains = log.remains.as_mut().expect("a power loss leaves a file");
    let mut bytes = remains.bytes.to_vec();
    bytes[batch::HEADER_LEN] ^= 1;
    remains.bytes = bytes.into();
    log.load(Timestamp::from_millis(4));
    assert_eq!((log.end_offset(), log.size()), (0, 0));
}

/// As [`torn`], with a small batch behind the large one: it could have found room in what survived, but the order is that of
/// the file.
#[test]
fn no_batch_survives_a_power_loss_that_the_one_before_it_did_not() {
    let large = Bytes::from(vec![b'v'; 3 * PAGE_BYTES - 100]);
    let (mut torn, mut kept) = (0, 0);
    for seed in 0..200 {
        let mut log = Log::default();
        append(&mut log, 2, 0, 1);
        log.flush(Timestamp::ZERO);
        let flushed = log.size();
        let batch = record::write_batch(2, &[(None, Some(large.clone()))]);
        log.append(Timestamp::from_millis(2), batch::stamp(&batch, 2, 0, None), 100_000);
        let whole = log.size();
        let batch = record::write_batch(2, &[(None, Some(Bytes::from_static(b"small")))]);
        log.append(Timestamp::from_millis(2), batch::stamp(&batch, 3, 0, None), 100_000);
        let written = log.batches().map(|batch| batch.bytes.clone()).collect::<Vec<_>>().concat();

        let loss = log.lose_power(Timestamp::from_millis(3), &mut Seed(seed).stream("power"));
        let file = log.remains.as_ref().expect("a power loss leaves a file").bytes.clone();
        assert!(written.starts_with(&file), "the file is a prefix of what was written");
        let end = if file.len() < whole {
            2
        } else if file.len() < written.len() {
            3
        } else {
            4
        };
        assert_eq!((loss.end, loss.records), (end, (4 - end) as u64), "{} bytes survived", file.len());
        torn += usize::from(end == 2 && file.len() > flushed);
        kept += usize::from(end == 3);
    }
    assert!(torn > 0 && kept > 0, "{torn} tore the large batch, {kept} kept it alone");
}

#[test]
fn a_power_loss_finds_a_log_that_begins_with_a_hole() {
    // What compaction left of the leader's log begins at 7: an empty follower gets that first.
    let mut log = Log::default();
    let batch = record::write_batch(1, &[(None, Some(Bytes::from_static(b"value")))]);
    log.append(Timestamp::from_millis(1), batch::stamp(&batch, 7, 0, None), 300);
    assert_eq!((log.flushed_offset(), log.recovery_point(), log.end_offset()), (7, 7, 8));
    let ends = (0..100).map(|seed| {
        let mut log = log.clone();
        let loss = log.lose_power(Timestamp::from_millis(2), &mut Seed(seed).stream("power"));
        log.load(Timestamp::from_millis(3));
        assert_eq!(loss.end, log.end_offset());
        loss.end
    });
    assert_eq!(ends.collect::<std::collections::BTreeSet<_>>(), [7, 8].into());
}

#[test]
fn a_second_power_loss_before_recovery_finds_nothing_more_to_take() {
    let (mut log, first) = torn();
    let again = log.lose_power(Timestamp::from_millis(4), &mut Seed(1).stream("power"));
    assert_eq!((again.end_before, again.end, again.records), (first.end, first.end, 0));
    assert!(log.remains.is_some(), "what is torn is still there");
}

/// `count` records with this time, appended at the log's end.
fn append_at(log: &mut Log, time_ms: i64, count: usize) {
    let records = vec![(None, Some(Bytes::from_static(b"value"))); count];
    let batch = record::write_batch(time_ms, &records);
    log.append(Timestamp::from_millis(9_000), batch::stamp(&batch, log.end_offset(), 0, None), 150);
}

fn retaining(retention_ms: i64, retention_bytes: i64) -> LogConfig {
    LogConfig { retention_ms, retention_bytes, ..LogConfig::default() }
}

#[test]
fn a_segment_is_rolled_by_size_by_time_and_by_offset() {
    let rules = SegmentRules { bytes: 10_000, ms: 1_000, flush_messages: i64::MAX };
    let mut log = Log::default();
    let put = |log: &mut Log, base_offset, time_ms| {
        let batch = record::write_batch(time_ms, &[(None, None)]);
        log.append(Timestamp::ZERO, batch::stamp(&batch, base_offset, 0, None), rules);
        log.segments().len()
    };
    assert_eq!(put(&mut log, 0, 5_000), 1);
    assert_eq!(put(&mut log, 1, 6_000), 1, "as old as it may be");
    assert_eq!(put(&mut log, 2, 6_001), 2, "by the records' time");
    assert_eq!((log.flushed_offset(), log.recovery_point()), (2, 2), "a roll flushes");
    assert_eq!(put(&mut log, i64::from(i32::MAX) + 2, 6_001), 2);
    assert_eq!(put(&mut log, i64::from(i32::MAX) + 3, 6_001), 3, "an index keeps 32 bits");
    assert_eq!(log.segments().last().unwrap().base_offset(), i64::from(i32::MAX) + 3);
}

#[test]
fn as_many_records_as_flush_messages_says_are_unflushed() {
    let rules = SegmentRules { bytes: 10_000, ms: i64::MAX, flush_messages: 3 };
    let mut log = Log::default();
    let flushed = [1, 2, 3, 4].map(|_| {
        let batch = record::write_batch(1, &[(None, None)]);
        log.append(Timestamp::ZERO, batch::stamp(&batch, log.end_offset(), 0, None), rules);
        log.flushed_offset()
    });
    assert_eq!(flushed, [0, 0, 3, 3]);
}

#[test]
fn old_segments_go_the_active_one_too_but_nothing_that_is_not_committed() {
    let mut log = Log::default();
    [1_000, 2_000, 3_000, 3_000].iter().for_each(|&time_ms| append_at(&mut log, time_ms, 1));
    assert_eq!(log.segments().len(), 2);
    let now = Timestamp::from_millis(10_000);
    assert_eq!(
        log.delete_old_segments(now, 1, &retaining(1, -1)),
        0,
        "the high watermark is within the first"
    );
    assert_eq!(log.delete_old_segments(now, 2, &retaining(8_000, -1)), 0, "its last record is not older");
    assert_eq!(log.delete_old_segments(now, 2, &retaining(7_999, -1)), 1);
    assert_eq!((log.start_offset(), log.epochs()[0].start_offset), (2, 2));
    assert_eq!(log.delete_old_segments(now, 4, &retaining(1, -1)), 1);
    assert_eq!((log.start_offset(), log.end_offset(), log.size()), (4, 4, 0));
    append_at(&mut log, 9_000, 1);
    log.load(Timestamp::from_millis(9_000));
    assert_eq!((log.start_offset(), log.end_offset()), (4, 5));
}

#[test]
fn a_log_keeps_at_least_as_many_bytes_as_it_should() {
    let mut log = Log::default();
    (0..8).for_each(|_| append_at(&mut log, 9_000, 1));
    let (size, segment) = (log.size(), log.segments().next().unwrap().size());
    let now = Timestamp::from_millis(10_000);
    assert_eq!(log.delete_old_segments(now, 8, &retaining(-1, (size - segment + 1) as i64)), 0);
    assert_eq!(log.delete_old_segments(now, 8, &retaining(-1, (size - segment) as i64)), 1);
    assert_eq!(log.size(), size - segment);
}

#[test]
fn a_start_that_was_not_written_down_is_forgotten_by_a_kill() {
    let mut log = Log::default();
    append_at(&mut log, 9_000, 5);
    assert_eq!(
        log.raise_start_offset(6, 5),
        Err(retention::BeyondHighWatermark { offset: 6, high_watermark: 5 })
    );
    assert_eq!((log.raise_start_offset(2, 5), log.raise_start_offset(2, 5)), (Ok(true), Ok(false)));
    log.checkpoint_start_offset();
    log.raise_start_offset(4, 5).unwrap();
    log.load(Timestamp::from_millis(9_000));
    assert_eq!(log.start_offset(), 2);
}

/// Kafka's flusher goes by the log's last flush, not by the age of what is not flushed.
#[test]
fn a_log_is_flushed_when_its_last_flush_was_long_ago() {
    let at = Timestamp::from_millis;
    let mut log = Log::new(at(1_000));
    append(&mut log, 1, 0, 10_000);
    log.flush_if_due(at(10_999), 10_000);
    assert_eq!(log.recovery_point(), 0);
    log.flush_if_due(at(11_000), 10_000);
    assert_eq!(log.recovery_point(), 1, "the record is a second old, the log ten");
    append(&mut log, 1, 0, 20_900);
    log.flush_if_due(at(20_999), 10_000);
    assert_eq!(log.recovery_point(), 1);
    log.roll(at(20_999), 2);
    append(&mut log, 1, 0, 21_000);
    log.flush_if_due(at(30_998), 10_000);
    assert_eq!(log.recovery_point(), 2, "a roll is a flush");
    log.flush_if_due(at(30_999), 10_000);
    assert_eq!(log.recovery_point(), 3);
    log.flush_if_due(at(99_999), 10_000);
    append(&mut log, 1, 0, 100_000);
    log.flush_if_due(at(100_000), 10_000);
    assert_eq!(log.recovery_point(), 4, "where nothing was to flush, nothing was flushed");
}

#[test]
fn a_high_watermark_that_was_written_down_may_be_ahead_of_what_a_power_loss_left() {
    let mut log = Log::default();
    append_at(&mut log, 9_000, 1);
    log.flush(Timestamp::ZERO);
    append_at(&mut log, 9_000, 5);
    log.checkpoint_high_watermark(6);
    log.truncate_to(1);
    log.load(Timestamp::from_millis(9_000));
    assert_eq!(log.checkpointed_high_watermark(), 1);
}

#[test]
fn a_log_that_ends_before_its_start_begins_there_anew() {
    let mut log = Log::default();
    append_at(&mut log, 9_000, 5);
    log.raise_start_offset(4, 5).unwrap();
    log.checkpoint_start_offset();
    // A power loss takes what lies in the page cache, and leaves the checkpoint.
    log.lose_power(Timestamp::from_millis(9_000), &mut Seed(1).stream("power"));
    log.load(Timestamp::from_millis(9_000));
    assert!(log.start_offset() == 4 && log.end_offset() >= 4, "{log:?}");
}

#[test]
fn a_time_is_found_in_the_first_segment_that_has_it_and_not_before_the_start() {
    let mut log = Log::default();
    [1_000, 5_000, 2_000, 7_000].iter().for_each(|&time_ms| append_at(&mut log, time_ms, 1));
    let found = |log: &Log, time| log.offset_for_timestamp(time).map(|found| (found.offset, found.timestamp));
    assert_eq!(found(&log, 0), Some((0, 1_000)));
    assert_eq!(found(&log, 1_001), Some((1, 5_000)));
    assert_eq!(found(&log, 5_001), Some((3, 7_000)));
    assert_eq!(found(&log, 7_001), None);
    assert_eq!(log.offset_of_max_timestamp().unwrap().offset, 3);
    log.raise_start_offset(1, 4).unwrap();
    assert_eq!(found(&log, 0), Some((1, 5_000)));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Append(usize),
    NextEpoch,
    Truncate(i64),
    Flush,
    WriteBack,
    LosePower,
    Raise(i64),
    Retain,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..6_usize).prop_map(Step::Append),
        1 => Just(Step::NextEpoch),
        1 => (0..60_i64).prop_map(Step::Truncate),
        1 => Just(Step::Flush),
        1 => Just(Step::WriteBack),
        1 => Just(Step::LosePower),
        1 => (0..60_i64).prop_map(Step::Raise),
        1 => Just(Step::Retain),
    ]
}

proptest! {
    /// The model is the epoch of each offset from 0, where batches end, where the log starts, and what is flushed.
    #[test]
    fn a_log_is_a_list_of_records(steps in proptest::collection::vec(any_step(), 1..80), seed in any::<u64>()) {
        let mut log = Log::default();
        let mut rng = Seed(seed).stream("power");
        let (mut model, mut batch_ends): (Vec<i32>, Vec<i64>) = (Vec::new(), vec![0]);
        let (mut start, mut flushed, mut epoch, mut now_ms) = (0_i64, 0_i64, 0, 0_u64);
        for step in steps {
            now_ms += 1_000;
            let before = log.end_offset();
            match step {
                Step::Append(count) => {
                    append(&mut log, count, epoch, now_ms);
                    model.extend(std::iter::repeat_n(epoch, count));
                    batch_ends.push(model.len() as i64);
                    // A roll flushes.
                    flushed = flushed.max(log.active_base_offset().min(before));
                }
                Step::NextEpoch => epoch += 1,
                Step::Truncate(offset) => {
                    log.truncate_to(offset.max(start));
                }
                Step::Flush => {
                    log.flush(Timestamp::ZERO);
                    flushed = before;
                }
                Step::WriteBack => {
                    now_ms += 36_000;
                    log.cache.write_back(Timestamp::from_millis(now_ms));
                    flushed = before;
                }
                Step::LosePower => {
                    log.checkpoint_recovery_point();
                    log.checkpoint_start_offset();
                    let loss = log.lose_power(Timestamp::from_millis(now_ms), &mut rng);
                    prop_assert!(loss.end >= flushed.min(before), "what was flushed is there");
                    prop_assert!(batch_ends.contains(&loss.end) || loss.end == start, "batches are whole or gone");
                    log.load(Timestamp::from_millis(now_ms));
                    prop_assert!(loss.end == log.end_offset() || log.end_offset() == start, "recovery drops what is torn, and no more");
                    flushed = log.end_offset();
                }
                Step::Raise(offset) => {
                    log.raise_start_offset(offset.min(before), before).unwrap();
                    prop_assert_eq!(log.start_offset(), start.max(offset.min(before)));
                }
                Step::Retain => {
                    log.delete_old_segments(Timestamp::from_millis(now_ms), before, &retaining(10_000, -1));
                    prop_assert!(log.start_offset() >= start);
                }
            }
            start = log.start_offset();
            let end = log.end_offset();
            if end > model.len() as i64 {
                prop_assert_eq!(end, start, "an emptied log goes on from its start");
                model.resize(end as usize, epoch);
            }
            model.truncate(end as usize);
            batch_ends.retain(|&batch_end| batch_end <= end);
            if !batch_ends.contains(&end) {
                batch_ends.push(end);
            }
            flushed = flushed.min(end);
            prop_assert!(start <= end && log.flushed_offset() >= flushed && log.flushed_offset() <= end);
            for offset in start..end {
                prop_assert_eq!(log.epoch_of(offset), Some(model[offset as usize]), "epoch of {}", offset);
            }
            let read = offsets(&read_on(&log, start, end));
            prop_assert!(read.first().is_none_or(|&first| first <= start) && read.len() as i64 >= end - start);
            prop_assert!(read.windows(2).all(|pair| pair[0] + 1 == pair[1]));
            prop_assert!(read.last().is_none_or(|&last| last + 1 == end));
        }
    }
}

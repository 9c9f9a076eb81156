//! What a broker's new process makes of any files of a log: torn tails, damaged headers, checkpoints that lie.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use context::Seed;
use shakedown_kafka::log::batch::{BatchHeader, stamp};
use shakedown_kafka::log::marker::Marker;
use shakedown_kafka::log::producer_state::ProducerState;
use shakedown_kafka::log::{Checkpoints, EpochStart, Log, LogConfig};

use crate::batches::{CODECS, compressed, sealed};
use crate::support::START;
use crate::support::transactional::transactional;
use crate::support::verbs::{batch, idempotent};

/// In the first byte of an input: whole batches get a right checksum, so that what is wrong with them is something else.
const SEALED: u8 = 0x80;
/// In the first byte of an input: how many checkpoints and epochs come before the segments.
const EPOCHS: u8 = 0x07;
/// Between the segments of an input.
const SEPARATOR: [u8; 4] = *b"NEXT";

const DAY: Duration = Duration::from_secs(86_400);

/// Any bytes as the files of one log; what is recovered is read, appended to, cleaned, cut, and recovered from a power loss.
pub fn run(data: &[u8]) {
    let Some((how, checkpoints, epochs, segments)) = files(data) else { return };
    let segments = segments.into_iter().map(|(base, bytes)| {
        (base, if how & SEALED != 0 { with_sealed_batches(bytes) } else { Bytes::copy_from_slice(bytes) })
    });
    let segments: BTreeMap<i64, Bytes> = segments.collect();
    let size: usize = segments.values().map(Bytes::len).sum();
    let mut log = Log::recover(START, &segments, &epochs, checkpoints);
    assert!(log.size() <= size, "recovery makes no bytes");
    inspect(&log);
    let mut producers = ProducerState::load(&mut log, START.as_millis() as i64, DAY.as_millis() as i64);

    let config = LogConfig { compact: how & EPOCHS > 4, ..LogConfig::default() };
    if log.end_offset() < i64::MAX / 2 {
        let epoch = log.latest_epoch().unwrap_or(0);
        let stamped = stamp(&idempotent(&["after"], 1, 0, 0), log.end_offset(), epoch, None);
        let header = log.append(START, stamped, &config);
        producers.remember(&mut log, &header);
        inspect(&log);
    }
    log.checkpoint_high_watermark(log.end_offset());
    log.checkpoint_recovery_point();
    log.checkpoint_start_offset();
    let mut rng = Seed(7).stream("power");
    log.lose_power(START, &mut rng);
    log.load(START);
    inspect(&log);
    log.delete_old_segments(START + DAY, log.checkpointed_high_watermark(), &config);
    inspect(&log);
    let middle = log.start_offset() + (log.end_offset() - log.start_offset()) / 2;
    log.truncate_to(middle);
    inspect(&log);
    ProducerState::load(&mut log, START.as_millis() as i64, DAY.as_millis() as i64);
}

fn inspect(log: &Log) {
    let (start, end) = (log.start_offset(), log.end_offset());
    assert!(start <= end, "a log that begins at {start} ends at {end}");
    let mut next = i64::MIN;
    for stored in log.batches() {
        assert!(stored.header.base_offset >= next, "batches follow each other");
        next = stored.header.next_offset();
        assert!(next > stored.header.base_offset, "a batch has an offset");
        assert!(
            stored.header.check(&stored.bytes).is_ok(),
            "a batch that was recovered has a right checksum"
        );
        Marker::read(&stored.header, &stored.bytes);
    }
    assert!(next <= end, "no batch is beyond the end");
    assert!(log.epochs().is_sorted_by(|a, b| a.epoch < b.epoch && a.start_offset < b.start_offset));
    for offset in [start, start + (end - start) / 2, end] {
        log.read(offset, end, 1 << 20, true);
        log.epoch_of(offset);
    }
    for epoch in [-1, 0, 1, 5, i32::MAX] {
        log.end_of_epoch(epoch);
    }
    log.offset_for_timestamp(START.as_millis() as i64);
    log.offset_of_max_timestamp();
}

type Files<'a> = (u8, Checkpoints, Vec<EpochStart>, Vec<(i64, &'a [u8])>);

/// One byte, three checkpoints, some epochs, then segments, each with its base offset in front.
fn files(data: &[u8]) -> Option<Files<'_>> {
    let mut rest = data;
    let how = take::<1>(&mut rest)?[0];
    let mut offset = || take::<8>(&mut rest).map(i64::from_be_bytes);
    let checkpoints = Checkpoints {
        recovery_point: offset()?,
        start_offset: offset()?,
        high_watermark: offset()?,
        first_dirty_offset: Some(offset()?).filter(|&offset| offset >= 0),
    };
    let mut epochs = Vec::new();
    for _ in 0..how & EPOCHS {
        let epoch = i32::from_be_bytes(take(&mut rest)?);
        epochs.push(EpochStart { epoch, start_offset: i64::from_be_bytes(take(&mut rest)?) });
    }
    let mut segments = Vec::new();
    while let Some(base) = take(&mut rest) {
        let end = rest.windows(SEPARATOR.len()).position(|bytes| bytes == SEPARATOR);
        let (segment, after) = rest.split_at(end.unwrap_or(rest.len()));
        segments.push((i64::from_be_bytes(base), segment));
        rest = after.get(SEPARATOR.len()..).unwrap_or_default();
    }
    Some((how, checkpoints, epochs, segments))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

/// A segment whose batches have right checksums, up to the first that is cut short.
fn with_sealed_batches(segment: &[u8]) -> Bytes {
    let mut rest = Bytes::copy_from_slice(segment);
    let mut whole = Vec::with_capacity(segment.len());
    while let Ok(header) = BatchHeader::parse(&rest) {
        whole.extend_from_slice(&sealed(&rest.split_to(header.size())));
    }
    whole.extend_from_slice(&rest);
    whole.into()
}

/// Logs as brokers leave them: one segment and three, transactions that ended and one that did not, and torn tails.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let marker = |committed| {
        let marker = Marker { producer_id: 5, producer_epoch: 0, coordinator_epoch: 0, committed };
        marker.batch(START.as_millis() as i64)
    };
    let mut batches: Vec<Bytes> =
        CODECS.iter().map(|&codec| compressed(&batch(&["a", "b"]), codec)).collect();
    batches.extend([
        idempotent(&["c"], 4, 0, 0),
        transactional(&["d"], 5, 0, 0),
        marker(false),
        transactional(&["e"], 5, 0, 1),
        marker(true),
        transactional(&["f"], 5, 0, 2),
    ]);
    let mut next = 0;
    let mut stamped = Vec::new();
    for (number, batch) in batches.iter().enumerate() {
        let batch = stamp(batch, next, number as i32 / 4, None);
        let header = BatchHeader::parse(&batch).expect("a stamped batch is one");
        next = header.next_offset();
        stamped.push((header.base_offset, batch));
    }
    let mut seeds = Vec::new();
    for how in [0, SEALED, 3, SEALED | 5] {
        for batches_in_segment in [stamped.len(), 4] {
            for torn in [0, 1, 40] {
                let mut seed = vec![how];
                for checkpoint in [next, 0, next - 1, -1] {
                    seed.extend_from_slice(&i64::to_be_bytes(checkpoint));
                }
                for epoch in 0..i32::from(how & EPOCHS) {
                    seed.extend_from_slice(&epoch.to_be_bytes());
                    seed.extend_from_slice(&i64::from(epoch * 6).to_be_bytes());
                }
                for (number, segment) in stamped.chunks(batches_in_segment).enumerate() {
                    if number > 0 {
                        seed.extend_from_slice(&SEPARATOR);
                    }
                    seed.extend_from_slice(&segment[0].0.to_be_bytes());
                    segment.iter().for_each(|(_, batch)| seed.extend_from_slice(batch));
                }
                seed.truncate(seed.len() - torn);
                seeds.push(seed);
            }
        }
    }
    seeds
}

//! Directories that are written, damaged, and read back.

use std::fs::OpenOptions;

use bytes::Bytes;
use kafka_protocol::ResponseError;

use super::log_files::{SEGMENT, SNAPSHOT, offset_of};
use super::*;
use crate::config::{Settings, TopicSettings};
use crate::log::batch::{self, BatchHeader};
use crate::log::{Log, LogConfig, record};
use crate::metadata::PartitionImage;
use crate::partition::{AppendRules, Appended, Partition};

const KEY: PartitionKey = PartitionKey { topic: Uuid::from_u128(7), index: 3 };

fn append(log: &mut Log, epoch: i32) {
    let plain = record::write_batch(1_000, &[(None, Some(Bytes::from_static(b"value")))]);
    let stamped = batch::stamp(&plain, log.end_offset(), epoch, None);
    log.append(Timestamp::from_millis(1_000), stamped, 200);
}

fn reopened(dir: &Path) -> BrokerDisk {
    Storage::open(dir, Timestamp::from_millis(2_000)).unwrap().1
}

fn read(log: &Log) -> Bytes {
    log.batches().flat_map(|batch| batch.bytes.iter().copied()).collect()
}

/// A storage in a directory of its own, with a log of five batches in three segments.
fn written() -> (tempfile::TempDir, Storage, BrokerDisk) {
    let dir = tempfile::tempdir().unwrap();
    let (mut storage, mut disk) = Storage::open(dir.path(), Timestamp::from_millis(1_000)).unwrap();
    let log = disk.logs.get_or_make(Timestamp::ZERO, KEY);
    [1, 1, 1, 4, 4].iter().for_each(|&epoch| append(log, epoch));
    assert_eq!(log.segments().len(), 3);
    storage.write(&mut disk).unwrap();
    (dir, storage, disk)
}

fn check_same(dir: &Path, disk: &BrokerDisk) {
    let found = reopened(dir);
    let (found, wanted) = (&found.logs[&KEY], &disk.logs[&KEY]);
    assert_eq!(read(found), read(wanted));
    assert_eq!(found.epochs(), wanted.epochs());
    let offsets = |log: &Log| (log.start_offset(), log.end_offset(), log.checkpoints());
    assert_eq!(offsets(found), offsets(wanted));
}

#[test]
fn a_log_reads_back_as_written_through_all_that_happens_to_it() {
    let (dir, mut storage, mut disk) = written();
    check_same(dir.path(), &disk);
    let log = disk.logs.get_mut(&KEY).unwrap();
    log.truncate_to(3);
    append(log, 6);
    log.flush(Timestamp::from_millis(6));
    log.checkpoint_high_watermark(4);
    storage.write(&mut disk).unwrap();
    check_same(dir.path(), &disk);
    let log = disk.logs.get_mut(&KEY).unwrap();
    log.raise_start_offset(3, 4).unwrap();
    log.delete_old_segments(Timestamp::from_millis(5_000), 4, &crate::log::LogConfig::default());
    log.checkpoint_recovery_point();
    log.checkpoint_start_offset();
    storage.write(&mut disk).unwrap();
    check_same(dir.path(), &disk);
    disk.logs.get_mut(&KEY).unwrap().truncate_fully_and_start_at(90);
    storage.write(&mut disk).unwrap();
    check_same(dir.path(), &disk);
    append(disk.logs.get_mut(&KEY).unwrap(), 7);
    storage.write(&mut disk).unwrap();
    disk.logs.get_mut(&KEY).unwrap().truncate_to(90);
    storage.write(&mut disk).unwrap();
    check_same(dir.path(), &disk);
    disk.logs.retain(|_| false);
    storage.write(&mut disk).unwrap();
    assert!(reopened(dir.path()).logs.is_empty());
}

#[test]
fn a_torn_tail_is_cut_and_what_is_appended_then_is_whole() {
    let (dir, storage, _) = written();
    let path = storage.logs[&KEY].path(4, SEGMENT);
    drop(storage);
    let len = fs::metadata(&path).unwrap().len();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(len - 1).unwrap();
    let (mut storage, mut disk) = Storage::open(dir.path(), Timestamp::from_millis(2_000)).unwrap();
    assert_eq!(disk.logs[&KEY].end_offset(), 4);
    append(disk.logs.get_mut(&KEY).unwrap(), 5);
    storage.write(&mut disk).unwrap();
    check_same(dir.path(), &disk);
}

#[test]
fn segments_behind_a_damaged_batch_go() {
    let (dir, storage, _) = written();
    let path = storage.logs[&KEY].path(2, SEGMENT);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(reopened(dir.path()).logs[&KEY].end_offset(), 3);
    assert_eq!(reopened(dir.path()).logs[&KEY].end_offset(), 3, "and stay gone");
}

/// What a process that is killed in the middle of a cleaning leaves: the merged segment in its place, those that went into
/// it still there, and a file that was being written.
#[test]
fn a_segment_that_was_merged_and_is_still_there_costs_nothing() {
    let (dir, storage, disk) = written();
    let wanted = read(&disk.logs[&KEY]);
    let path = |base| storage.logs[&KEY].path(base, SEGMENT);
    let bases: Vec<i64> = disk.logs[&KEY].segments().map(|segment| segment.base_offset()).collect();
    assert!(bases.len() > 2, "the log has {bases:?}");
    let merged = [fs::read(path(bases[0])).unwrap(), fs::read(path(bases[1])).unwrap()].concat();
    fs::write(path(bases[0]), merged).unwrap();
    let unfinished = [dir.path().join("x.tmp"), path(bases[0]).with_extension(NEW)];
    unfinished.iter().for_each(|path| fs::write(path, b"half").unwrap());

    assert_eq!(read(&reopened(dir.path()).logs[&KEY]), wanted);
    assert!(!path(bases[1]).exists(), "it is in the one before");
    assert!(unfinished.iter().all(|path| !path.exists()));
}

/// A log is cut from behind and cleaned to the front: a process that is killed on the way has a log at every moment.
#[test]
fn files_that_go_go_when_nothing_needs_them_any_more() {
    let (dir, mut storage, mut disk) = written();
    let bases: Vec<i64> = disk.logs[&KEY].segments().map(|segment| segment.base_offset()).collect();
    let path = storage.logs[&KEY].path(bases[0], SEGMENT);
    disk.logs.get_mut(&KEY).unwrap().truncate_to(0);
    append(disk.logs.get_mut(&KEY).unwrap(), 9);
    // The first segment cannot be written: what is behind the log's new end has gone by then, the rest is there.
    fs::create_dir(path.with_extension(NEW)).unwrap();
    storage.write(&mut disk).unwrap_err();
    let left = bases.iter().filter(|base| storage.logs[&KEY].path(**base, SEGMENT).exists());
    let kept: Vec<i64> = bases.iter().copied().filter(|&base| base == bases[0] || base < 1).collect();
    assert_eq!(left.copied().collect::<Vec<_>>(), kept);
    drop(dir);
}

/// A topic whose segments hold one batch each, and keep it for 2.5 s.
fn rules() -> (AppendRules, LogConfig) {
    let config = [("segment.ms", "1"), ("retention.ms", "2500")];
    let topic = TopicSettings::parse(&config.map(|(name, value)| (name.into(), value.into())).into());
    let (broker, topic) = (Settings::default(), topic.unwrap());
    (AppendRules::new(&broker, &topic), LogConfig::new(&broker, &topic))
}

/// The replica that a process makes of the log, as its leader.
fn replica(disk: &mut BrokerDisk) -> Partition {
    let (now, log) = (Timestamp::from_millis(4_000), disk.logs.get_mut(&KEY).unwrap());
    let mut partition = Partition::load(now, log, 86_400_000);
    partition.lead(now, 1, log, &PartitionImage::new(vec![1], vec![1]));
    partition
}

fn produce(
    (disk, partition): (&mut BrokerDisk, &mut Partition),
    time_ms: i64,
    (producer_id, sequence): (i64, i32),
) -> Result<Appended, ResponseError> {
    let plain = record::write_batch(time_ms, &[(None, Some(Bytes::from_static(b"value")))]);
    let header = BatchHeader::parse(&plain).unwrap();
    let header = BatchHeader { producer_id, producer_epoch: 0, base_sequence: sequence, ..header };
    let batch = batch::assemble(&header, &plain[batch::HEADER_LEN..]);
    let log = disk.logs.get_mut(&KEY).unwrap();
    let appended = partition.append(Timestamp::from_millis(4_000), log, &rules().0, &batch, None);
    appended.map_err(|error| error.code)
}

/// Producer 9 wrote one batch, which retention has deleted, and producer 10 two, which are there. Before that a minute has
/// passed, if `is_checkpointed`, and the broker wrote down what was flushed: all but the active segment.
fn without_the_first_segment(is_checkpointed: bool) -> (tempfile::TempDir, Storage, BrokerDisk) {
    let dir = tempfile::tempdir().unwrap();
    let (mut storage, mut disk) = Storage::open(dir.path(), Timestamp::from_millis(1_000)).unwrap();
    disk.logs.get_or_make(Timestamp::ZERO, KEY);
    let mut partition = replica(&mut disk);
    for (time_ms, batch) in [(1_000, (9, 0)), (2_000, (10, 0)), (3_000, (10, 1))] {
        produce((&mut disk, &mut partition), time_ms, batch).unwrap();
        storage.write(&mut disk).unwrap();
    }
    let log = disk.logs.get_mut(&KEY).unwrap();
    if is_checkpointed {
        log.checkpoint_recovery_point();
        assert_eq!(log.checkpoints().recovery_point, 2);
    }
    assert_eq!(log.delete_old_segments(Timestamp::from_millis(4_000), 3, &rules().1), 1);
    storage.write(&mut disk).unwrap();
    (dir, storage, disk)
}

#[test]
fn a_producer_whose_records_retention_took_is_known_after_a_restart() {
    let (dir, storage, disk) = without_the_first_segment(true);
    drop((storage, disk));
    let (_, mut disk) = Storage::open(dir.path(), Timestamp::from_millis(4_000)).unwrap();
    assert_eq!(disk.logs[&KEY].start_offset(), 1);
    let mut partition = replica(&mut disk);
    let mut produce = |batch| produce((&mut disk, &mut partition), 4_000, batch);
    assert_eq!(produce((9, 2)), Err(ResponseError::OutOfOrderSequenceNumber));
    assert_eq!(produce((9, 1)).unwrap().base_offset, 3);
    assert!(produce((10, 1)).unwrap().duplicate, "the last batch of the other is known too");
}

/// Recovery begins at the first segment that may not have been flushed, and drops all snapshots after its base offset
/// (`LogLoader.recoverSegment`, `ProducerStateManager.truncateAndReload`): the only one that knew producer 9.
#[test]
fn a_producer_whose_records_retention_took_is_forgotten_by_a_recovery_that_goes_back_further() {
    let (dir, storage, disk) = without_the_first_segment(false);
    drop((storage, disk));
    let (_, mut disk) = Storage::open(dir.path(), Timestamp::from_millis(4_000)).unwrap();
    let mut partition = replica(&mut disk);
    let mut produce = |batch| produce((&mut disk, &mut partition), 4_000, batch);
    assert_eq!(produce((9, 7)).unwrap().base_offset, 3, "nothing is known of it");
    assert!(produce((10, 1)).unwrap().duplicate, "its batch is there");
}

#[test]
fn snapshots_before_the_start_of_the_log_go_from_the_directory() {
    let (dir, mut storage, mut disk) = without_the_first_segment(true);
    let files = |kind: &str| {
        let partition = dir.path().join(directory_of(KEY));
        let names = fs::read_dir(partition).unwrap().map(|entry| entry.unwrap().path());
        let mut offsets: Vec<i64> = names.filter_map(|path| offset_of(&path, kind)).collect();
        offsets.sort_unstable();
        offsets
    };
    assert_eq!((files(SEGMENT), files(SNAPSHOT)), (vec![1, 2], vec![2]));
    disk.logs.get_mut(&KEY).unwrap().truncate_to(1);
    replica(&mut disk);
    storage.write(&mut disk).unwrap();
    assert!(files(SNAPSHOT).is_empty(), "none is beyond the end");
    assert_eq!(files(SEGMENT), [1]);
    let found = reopened(dir.path());
    assert_eq!((found.logs[&KEY].start_offset(), found.logs[&KEY].end_offset()), (1, 1));
}

#[test]
fn a_damaged_snapshot_goes_and_the_log_is_read_instead() {
    let (dir, storage, _) = without_the_first_segment(true);
    let path = storage.logs[&KEY].path(2, SNAPSHOT);
    drop(storage);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let (_, mut disk) = Storage::open(dir.path(), Timestamp::from_millis(4_000)).unwrap();
    assert!(!path.exists());
    let mut partition = replica(&mut disk);
    let mut produce = |batch| produce((&mut disk, &mut partition), 4_000, batch);
    assert!(produce((10, 1)).unwrap().duplicate, "its batch is there");
    assert_eq!(produce((9, 7)).unwrap().base_offset, 3, "of the other nothing is");
}

#[test]
fn a_clean_shutdown_is_remembered_until_it_is_taken_back() {
    let (dir, mut storage, mut disk) = written();
    disk.clean_shutdown = Some(12);
    storage.write(&mut disk).unwrap();
    assert_eq!(reopened(dir.path()).clean_shutdown, Some(12));
    disk.clean_shutdown = None;
    storage.write(&mut disk).unwrap();
    assert_eq!(reopened(dir.path()).clean_shutdown, None);
}

#[test]
fn a_directory_with_other_things_in_it_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("holiday-photos")).unwrap();
    let error = Storage::open(dir.path(), Timestamp::ZERO).unwrap_err();
    assert!(matches!(error, StorageError::Stranger { .. }), "{error}");
}

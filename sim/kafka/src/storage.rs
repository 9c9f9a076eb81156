//! A node's disk in a directory of the real machine, for clusters that shall outlive their process.
//!
//! The cores keep their logs in memory; this writes down what has changed in them, in Kafka's own formats: a directory for
//! each partition with its segments (`00000000000000000000.log`, batches as they are on the wire), the snapshots of its
//! producers (`00000000000000000042.snapshot`) and a `leader-epoch-checkpoint`, and the broker's checkpoint files beside
//! them. What a core flushes is synced. Start reading at [`Storage::open`] and [`Storage::write`].
//!
//! It is written before any answer goes out, so a killed process loses nothing that it has acknowledged. What is read back
//! goes through the same recovery as in Kafka: a segment ends at its first batch that is cut short or has a wrong checksum,
//! and segments after that one go; a snapshot that is damaged goes, and an older one is used. Directories are named by topic
//! id, not by name: a topic that is made anew is another one. Absent: index files, which are made anew from the batches; and
//! several directories.

#![expect(clippy::disallowed_methods, reason = "the real disk of a cluster that is served")]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use context::Timestamp;
use uuid::Uuid;

use crate::broker::BrokerDisk;
use crate::log::checkpoint_file::{self, MalformedCheckpoint};
use crate::log::producer_state::Snapshots;
use crate::log::{Checkpoints, EpochStart, Log};
use crate::metadata::PartitionKey;

/// How the files of a log end, after the offset that they begin at, or tell of.
const SEGMENT: &str = ".log";
const SNAPSHOT: &str = ".snapshot";
/// How a file ends that is not whole yet, and then takes the place of another.
const NEW: &str = "tmp";
const LEADER_EPOCHS: &str = "leader-epoch-checkpoint";
const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
const LOG_STARTS: &str = "log-start-offset-checkpoint";
const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";
const FIRST_DIRTY: &str = "cleaner-offset-checkpoint";
/// The broker epoch of a process that ended cleanly.
const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";

/// Why a directory cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The machine says no.
    #[error("cannot use `{path}`: {source}", path = path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// A checkpoint file is damaged: it is written whole, so this was not us.
    #[error("`{path}` is damaged: {source}; remove it to go on without", path = path.display())]
    Checkpoint {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: MalformedCheckpoint,
    },
    /// Something else lies in the directory.
    #[error("`{path}` is no partition's directory: use a directory of its own for the data", path = path.display())]
    Stranger {
        /// Which.
        path: PathBuf,
    },
}

/// Tells which path an error is about.
trait At<T> {
    fn at(self, path: &Path) -> Result<T, StorageError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, StorageError> {
        self.map_err(|source| StorageError::Io { path: path.to_owned(), source })
    }
}

/// A broker's directory.
#[derive(Debug)]
pub struct Storage {
    dir: PathBuf,
    logs: BTreeMap<PartitionKey, LogFiles>,
    clean_shutdown: Option<i64>,
}

impl Storage {
    /// Opens a broker's directory, or makes it, and loads the disk that is in it.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn open(dir: &Path, now: Timestamp) -> Result<(Storage, BrokerDisk), StorageError> {
        fs::create_dir_all(dir).at(dir)?;
        let checkpoints = read_checkpoints(dir)?;
        let mut storage = Storage { dir: dir.to_owned(), logs: BTreeMap::new(), clean_shutdown: None };
        let marker = read_entries(&dir.join(CLEAN_SHUTDOWN), |words| words.first()?.parse().ok())?;
        let mut disk = BrokerDisk { clean_shutdown: marker.last().copied(), ..BrokerDisk::default() };
        storage.clean_shutdown = disk.clean_shutdown;
        for entry in fs::read_dir(dir).at(dir)? {
            let path = entry.at(dir)?.path();
            if !path.is_dir() {
                remove_if_unfinished(&path)?;
                continue;
            }
            let key = partition_of(&path).ok_or_else(|| StorageError::Stranger { path: path.clone() })?;
            let (files, log) = LogFiles::open(path, now, checkpoints.get(&key).copied().unwrap_or_default())?;
            storage.logs.insert(key, files);
            disk.logs.insert(key, log);
        }
        disk.logs.watch();
        Ok((storage, disk))
    }

    /// Writes down what has changed on the disk since the last time, and syncs what was flushed.
    ///
    /// # Errors
    /// [`StorageError`]; the directory may then be behind the disk.
    ///
    /// # Panics
    /// If the disk is not the one that [`Storage::open`] gave.
    pub fn write(&mut self, disk: &mut BrokerDisk) -> Result<(), StorageError> {
        let mut checkpoints_changed = false;
        for key in disk.logs.take_touched() {
            let Some(log) = disk.logs.get(&key) else {
                if let Some(files) = self.logs.remove(&key) {
                    fs::remove_dir_all(&files.dir).at(&files.dir)?;
                    checkpoints_changed = true;
                }
                continue;
            };
            let files = match self.logs.get_mut(&key) {
                Some(files) => files,
                None => {
                    let files = LogFiles::create(self.dir.join(directory_of(key)))?;
                    self.logs.entry(key).or_insert(files)
                }
            };
            checkpoints_changed |= files.write(log)?;
        }
        if checkpoints_changed {
            self.write_checkpoints()?;
        }
        if self.clean_shutdown != disk.clean_shutdown {
            let epoch: Vec<String> = disk.clean_shutdown.iter().map(|epoch| epoch.to_string()).collect();
            replace(&self.dir.join(CLEAN_SHUTDOWN), checkpoint_file::write(&epoch).as_bytes())?;
            self.clean_shutdown = disk.clean_shutdown;
        }
        Ok(())
    }

    fn write_checkpoints(&self) -> Result<(), StorageError> {
        let file = |name: &str, offset: &dyn Fn(&Checkpoints) -> Option<i64>| {
            let offsets =
                self.logs.iter().filter_map(|(key, files)| Some((key, offset(&files.checkpoints)?)));
            let lines: Vec<String> =
                offsets.map(|(key, offset)| format!("{} {} {offset}", key.topic, key.index)).collect();
            replace(&self.dir.join(name), checkpoint_file::write(&lines).as_bytes())
        };
        file(RECOVERY_POINTS, &|at| Some(at.recovery_point))?;
        file(LOG_STARTS, &|at| (at.start_offset > 0).then_some(at.start_offset))?;
        file(HIGH_WATERMARKS, &|at| Some(at.high_watermark))?;
        file(FIRST_DIRTY, &|at| at.first_dirty_offset)
    }
}

fn directory_of(key: PartitionKey) -> String {
    format!("{}-{}", key.topic, key.index)
}

fn partition_of(path: &Path) -> Option<PartitionKey> {
    let (topic, index) = path.file_name()?.to_str()?.rsplit_once('-')?;
    Some(PartitionKey { topic: Uuid::try_parse(topic).ok()?, index: index.parse().ok()? })
}

/// The offset in the name of a file of that kind.
fn offset_of(path: &Path, kind: &str) -> Option<i64> {
    path.file_name()?.to_str()?.strip_suffix(kind)?.parse().ok()
}

fn read_checkpoints(dir: &Path) -> Result<BTreeMap<PartitionKey, Checkpoints>, StorageError> {
    let mut checkpoints: BTreeMap<PartitionKey, Checkpoints> = BTreeMap::new();
    let mut file = |name: &str, set: &dyn Fn(&mut Checkpoints, i64)| -> Result<(), StorageError> {
        for (key, offset) in read_entries(&dir.join(name), |words| {
            let [topic, index, offset] = words else { return None };
            let key = PartitionKey { topic: Uuid::try_parse(topic).ok()?, index: index.parse().ok()? };
            Some((key, offset.parse().ok()?))
        })? {
            set(checkpoints.entry(key).or_default(), offset);
        }
        Ok(())
    };
    file(RECOVERY_POINTS, &|at, offset| at.recovery_point = offset)?;
    file(LOG_STARTS, &|at, offset| at.start_offset = offset)?;
    file(HIGH_WATERMARKS, &|at, offset| at.high_watermark = offset)?;
    file(FIRST_DIRTY, &|at, offset| at.first_dirty_offset = Some(offset))?;
    Ok(checkpoints)
}

/// The entries of a checkpoint file; none if there is no such file.
fn read_entries<T>(path: &Path, parse: impl Fn(&[&str]) -> Option<T>) -> Result<Vec<T>, StorageError> {
    match fs::read_to_string(path) {
        Ok(text) => checkpoint_file::read(&text, parse)
            .map_err(|source| StorageError::Checkpoint { path: path.to_owned(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).at(path),
    }
}

/// Removes a file that a process had begun to write when it was killed.
fn remove_if_unfinished(path: &Path) -> Result<(), StorageError> {
    if path.extension().is_some_and(|extension| extension == NEW) {
        fs::remove_file(path).at(path)?;
    }
    Ok(())
}

/// Writes a small file whole: whoever reads it finds the old bytes or the new.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let new = path.with_extension(NEW);
    let mut file = File::create(&new).at(&new)?;
    file.write_all(bytes).at(&new)?;
    file.sync_data().at(&new)?;
    fs::rename(&new, path).at(path)
}

/// The files of one log.
#[derive(Debug)]
pub struct LogFiles {
    dir: PathBuf,
    revision: Option<u64>,
    segments: BTreeMap<i64, SegmentFile>,
    epochs: Vec<EpochStart>,
    /// The snapshots of producers that are written, as [`Snapshots::taken`] tells them.
    snapshots: BTreeMap<i64, u64>,
    checkpoints: Checkpoints,
    recovery_point: i64,
}

#[derive(Debug)]
struct SegmentFile {
    file: File,
    content: u64,
    batches: usize,
}

impl LogFiles {
    /// The directory of a log that is empty.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn create(dir: PathBuf) -> Result<LogFiles, StorageError> {
        fs::create_dir_all(&dir).at(&dir)?;
        Ok(LogFiles {
            dir,
            revision: None,
            segments: BTreeMap::new(),
            epochs: Vec::new(),
            snapshots: BTreeMap::new(),
            checkpoints: Checkpoints::default(),
            recovery_point: 0,
        })
    }

    /// Reads the log of a directory, and recovers it.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn open(
        dir: PathBuf,
        now: Timestamp,
        checkpoints: Checkpoints,
    ) -> Result<(LogFiles, Log), StorageError> {
        let (mut segments, mut snapshots) = (BTreeMap::new(), Snapshots::default());
        let mut snapshot_files = Vec::new();
        for entry in fs::read_dir(&dir).at(&dir)? {
            let path = entry.at(&dir)?.path();
            remove_if_unfinished(&path)?;
            if let Some(base) = offset_of(&path, SEGMENT) {
                segments.insert(base, Bytes::from(fs::read(&path).at(&path)?));
            }
            if let Some(offset) = offset_of(&path, SNAPSHOT) {
                let bytes = fs::read(&path).at(&path)?;
                if snapshots.read(offset, &bytes).is_err() {
                    // Kafka does the same: what the log says instead is right, and may be less.
                    fs::remove_file(&path).at(&path)?;
                } else {
                    snapshot_files.push((offset, path));
                }
            }
        }
        let epochs = read_entries(&dir.join(LEADER_EPOCHS), |words| {
            let [epoch, start_offset] = words else { return None };
            Some(EpochStart { epoch: epoch.parse().ok()?, start_offset: start_offset.parse().ok()? })
        })?;
        let log = Log::recover(now, &segments, &epochs, checkpoints).with_snapshots(snapshots);
        let mut files = LogFiles::create(dir)?;
        files.checkpoints = checkpoints;
        files.snapshots = log.snapshots.taken().collect();
        for (_, path) in snapshot_files.iter().filter(|(offset, _)| !files.snapshots.contains_key(offset)) {
            fs::remove_file(path).at(path)?;
        }
        // What recovery dropped goes from the files too, and what it kept is not written again.
        for segment in log.segments() {
            let path = files.path(segment.base_offset(), SEGMENT);
            let file = OpenOptions::new().append(true).create(true).open(&path).at(&path)?;
            file.set_len(segment.size() as u64).at(&path)?;
            let (content, batches) = (segment.content(), segment.batches().len());
            files.segments.insert(segment.base_offset(), SegmentFile { file, content, batches });
        }
        for base in segments.keys().filter(|base| !files.segments.contains_key(base)) {
            let path = files.path(*base, SEGMENT);
            fs::remove_file(&path).at(&path)?;
        }
        Ok((files, log))
    }

    /// Reads the log of a directory, or begins one there: for a log that is no broker's, without checkpoints.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn open_or_create(dir: PathBuf, now: Timestamp) -> Result<(LogFiles, Log), StorageError> {
        fs::create_dir_all(&dir).at(&dir)?;
        LogFiles::open(dir, now, Checkpoints::default())
    }

    fn path(&self, offset: i64, kind: &str) -> PathBuf {
        self.dir.join(format!("{offset:020}{kind}"))
    }

    /// Writes down what has changed in the log since the last time, and syncs what was flushed. Whether its checkpoints
    /// have changed, which are not here but with the broker's.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn write(&mut self, log: &Log) -> Result<bool, StorageError> {
        if self.revision == Some(log.revision()) {
            return Ok(false);
        }
        // A log that was cut loses its end first, from behind: a process that is killed between two files must not find what
        // was cut off behind what took its place. A segment that was merged into the one before goes last, when that one is
        // there.
        self.drop_segments(log, |base| base >= log.end_offset())?;
        for segment in log.segments() {
            let base = segment.base_offset();
            let path = self.path(base, SEGMENT);
            let known = self.segments.get(&base);
            if known.is_none_or(|known| known.content != segment.content()) {
                // A new one, or cut, or cleaned: it takes the place of the old one as a whole.
                let new = path.with_extension(NEW);
                let mut file = File::create(&new).at(&new)?;
                for batch in segment.batches() {
                    file.write_all(&batch.bytes).at(&new)?;
                }
                if known.is_some() {
                    file.sync_data().at(&new)?;
                }
                fs::rename(&new, &path).at(&path)?;
                let (content, batches) = (segment.content(), segment.batches().len());
                self.segments.insert(base, SegmentFile { file, content, batches });
            }
            let written = self.segments.get_mut(&base).expect("it was just made");
            for batch in &segment.batches()[written.batches..] {
                written.file.write_all(&batch.bytes).at(&path)?;
            }
            written.batches = segment.batches().len();
            let is_flushed_now = segment.end_offset() > self.recovery_point && base < log.recovery_point();
            if is_flushed_now {
                written.file.sync_data().at(&path)?;
            }
        }
        let base = log.end_offset();
        if log.segments().len() == 0 && self.segments.get(&base).is_none_or(|known| known.batches > 0) {
            // Where an empty log begins, its one segment says.
            let path = self.path(base, SEGMENT);
            let file = File::create(&path).at(&path)?;
            self.segments.insert(base, SegmentFile { file, content: 0, batches: 0 });
        }
        self.drop_segments(log, |_| true)?;
        if self.epochs != log.epochs() {
            self.epochs = log.epochs().to_vec();
            let lines: Vec<String> =
                self.epochs.iter().map(|entry| format!("{} {}", entry.epoch, entry.start_offset)).collect();
            replace(&self.dir.join(LEADER_EPOCHS), checkpoint_file::write(&lines).as_bytes())?;
        }
        self.write_snapshots(log)?;
        self.recovery_point = log.recovery_point();
        self.revision = Some(log.revision());
        let changed = self.checkpoints != log.checkpoints();
        self.checkpoints = log.checkpoints();
        Ok(changed)
    }

    /// Writes the snapshots of producers that are new, and removes the files of those that are no more.
    fn write_snapshots(&mut self, log: &Log) -> Result<(), StorageError> {
        if log.snapshots.taken().eq(self.snapshots.iter().map(|(&offset, &taken)| (offset, taken))) {
            return Ok(());
        }
        let written = std::mem::replace(&mut self.snapshots, log.snapshots.taken().collect());
        for (&offset, _) in self.snapshots.iter().filter(|(offset, taken)| written.get(offset) != Some(taken))
        {
            replace(&self.path(offset, SNAPSHOT), &log.snapshots.file(offset))?;
        }
        for &offset in written.keys().filter(|offset| !self.snapshots.contains_key(offset)) {
            let path = self.path(offset, SNAPSHOT);
            fs::remove_file(&path).at(&path)?;
        }
        Ok(())
    }

    /// Removes the files of segments that are no more and of which `goes` says so by their base offset, the last one first.
    fn drop_segments(&mut self, log: &Log, goes: impl Fn(i64) -> bool) -> Result<(), StorageError> {
        let mut kept: Vec<i64> = log.segments().map(|segment| segment.base_offset()).collect();
        if kept.is_empty() {
            kept.push(log.end_offset());
        }
        if self.segments.keys().eq(&kept) {
            return Ok(());
        }
        let gone =
            self.segments.keys().copied().filter(|base| kept.binary_search(base).is_err() && goes(*base));
        for base in gone.collect::<Vec<_>>().into_iter().rev() {
            self.segments.remove(&base);
            let path = self.path(base, SEGMENT);
            fs::remove_file(&path).at(&path)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::ResponseError;

    use super::*;
    use crate::config::{Settings, TopicSettings};
    use crate::log::batch::{self, BatchHeader};
    use crate::log::{LogConfig, record};
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
        log.read(log.start_offset(), log.end_offset(), usize::MAX, true)
    }

    /// A storage in a directory of its own, with a log of five batches in three segments.
    fn written() -> (tempfile::TempDir, Storage, BrokerDisk) {
        let dir = tempfile::tempdir().unwrap();
        let (mut storage, mut disk) = Storage::open(dir.path(), Timestamp::from_millis(1_000)).unwrap();
        let log = disk.logs.get_or_make(KEY);
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
        log.flush();
        log.checkpoint_high_watermark(4);
        storage.write(&mut disk).unwrap();
        check_same(dir.path(), &disk);
        let log = disk.logs.get_mut(&KEY).unwrap();
        log.raise_start_offset(3, 4).unwrap();
        log.delete_old_segments(Timestamp::from_millis(5_000), 4, &crate::log::LogConfig::default());
        log.checkpoint_offsets();
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

    /// Producer 9 wrote one batch, which retention has deleted, and producer 10 two, which are there.
    fn without_the_first_segment() -> (tempfile::TempDir, Storage, BrokerDisk) {
        let dir = tempfile::tempdir().unwrap();
        let (mut storage, mut disk) = Storage::open(dir.path(), Timestamp::from_millis(1_000)).unwrap();
        disk.logs.get_or_make(KEY);
        let mut partition = replica(&mut disk);
        for (time_ms, batch) in [(1_000, (9, 0)), (2_000, (10, 0)), (3_000, (10, 1))] {
            produce((&mut disk, &mut partition), time_ms, batch).unwrap();
            storage.write(&mut disk).unwrap();
        }
        let log = disk.logs.get_mut(&KEY).unwrap();
        assert_eq!(log.delete_old_segments(Timestamp::from_millis(4_000), 3, &rules().1), 1);
        storage.write(&mut disk).unwrap();
        (dir, storage, disk)
    }

    #[test]
    fn a_producer_whose_records_retention_took_is_known_after_a_restart() {
        let (dir, storage, disk) = without_the_first_segment();
        drop((storage, disk));
        let (_, mut disk) = Storage::open(dir.path(), Timestamp::from_millis(4_000)).unwrap();
        assert_eq!(disk.logs[&KEY].start_offset(), 1);
        let mut partition = replica(&mut disk);
        let mut produce = |batch| produce((&mut disk, &mut partition), 4_000, batch);
        assert_eq!(produce((9, 2)), Err(ResponseError::OutOfOrderSequenceNumber));
        assert_eq!(produce((9, 1)).unwrap().base_offset, 3);
        assert!(produce((10, 1)).unwrap().duplicate, "the last batch of the other is known too");
    }

    #[test]
    fn snapshots_before_the_start_of_the_log_go_from_the_directory() {
        let (dir, mut storage, mut disk) = without_the_first_segment();
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
        let (dir, storage, _) = without_the_first_segment();
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
}

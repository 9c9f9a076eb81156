//! A node's disk in a directory of the real machine, for clusters that shall outlive their process.
//!
//! The cores keep their logs in memory; this writes down what has changed in them, in Kafka's own formats: a directory for
//! each partition with its segments (`00000000000000000000.log`, batches as they are on the wire), a
//! `leader-epoch-checkpoint` in each, and the broker's checkpoint files beside them. What a core flushes is synced. Start
//! reading at [`Storage::open`] and [`Storage::write`].
//!
//! It is written before any answer goes out, so a killed process loses nothing that it has acknowledged. What is read back
//! goes through the same recovery as in Kafka: a segment ends at its first batch that is cut short or has a wrong checksum,
//! and segments after that one go. Directories are named by topic id, not by name: a topic that is made anew is another
//! one. Absent: index files and producer snapshots, both of which are made anew from the batches; and several directories.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use context::Timestamp;
use uuid::Uuid;

use crate::broker::BrokerDisk;
use crate::log::checkpoint_file::{self, MalformedCheckpoint};
use crate::log::{Checkpoints, EpochStart, Log};
use crate::metadata::PartitionKey;

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
                continue;
            }
            let key = partition_of(&path).ok_or_else(|| StorageError::Stranger { path: path.clone() })?;
            let (files, log) = LogFiles::open(path, now, checkpoints.get(&key).copied().unwrap_or_default())?;
            storage.logs.insert(key, files);
            disk.logs.insert(key, log);
        }
        Ok((storage, disk))
    }

    /// Writes down what has changed on the disk since the last time, and syncs what was flushed.
    ///
    /// # Errors
    /// [`StorageError`]; the directory may then be behind the disk.
    pub fn write(&mut self, disk: &BrokerDisk) -> Result<(), StorageError> {
        let mut checkpoints_changed = false;
        for (&key, log) in &disk.logs {
            let files = match self.logs.get_mut(&key) {
                Some(files) => files,
                None => {
                    let files = LogFiles::create(self.dir.join(directory_of(key)))?;
                    self.logs.entry(key).or_insert(files)
                }
            };
            checkpoints_changed |= files.write(log)?;
        }
        if self.logs.len() > disk.logs.len() {
            for (_, files) in self.logs.extract_if(.., |key, _| !disk.logs.contains_key(key)) {
                fs::remove_dir_all(&files.dir).at(&files.dir)?;
            }
            checkpoints_changed = true;
        }
        if checkpoints_changed {
            self.write_checkpoints()?;
        }
        if self.clean_shutdown != disk.clean_shutdown {
            let epoch: Vec<String> = disk.clean_shutdown.iter().map(|epoch| epoch.to_string()).collect();
            replace(&self.dir.join(CLEAN_SHUTDOWN), &checkpoint_file::write(&epoch))?;
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
            replace(&self.dir.join(name), &checkpoint_file::write(&lines))
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

/// Writes a small file whole: whoever reads it finds the old text or the new.
fn replace(path: &Path, text: &str) -> Result<(), StorageError> {
    let new = path.with_extension("tmp");
    let mut file = File::create(&new).at(&new)?;
    file.write_all(text.as_bytes()).at(&new)?;
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
        let mut segments = BTreeMap::new();
        for entry in fs::read_dir(&dir).at(&dir)? {
            let path = entry.at(&dir)?.path();
            let base =
                path.file_name().and_then(|name| name.to_str()?.strip_suffix(".log")?.parse::<i64>().ok());
            if let Some(base) = base {
                segments.insert(base, Bytes::from(fs::read(&path).at(&path)?));
            }
        }
        let epochs = read_entries(&dir.join(LEADER_EPOCHS), |words| {
            let [epoch, start_offset] = words else { return None };
            Some(EpochStart { epoch: epoch.parse().ok()?, start_offset: start_offset.parse().ok()? })
        })?;
        let log = Log::recover(now, &segments, &epochs, checkpoints);
        let mut files = LogFiles::create(dir)?;
        files.checkpoints = checkpoints;
        // What recovery dropped goes from the files too, and what it kept is not written again.
        for segment in log.segments() {
            let path = files.path(segment.base_offset());
            let file = OpenOptions::new().append(true).create(true).open(&path).at(&path)?;
            file.set_len(segment.size() as u64).at(&path)?;
            let (content, batches) = (segment.content(), segment.batches().len());
            files.segments.insert(segment.base_offset(), SegmentFile { file, content, batches });
        }
        for base in segments.keys().filter(|base| !files.segments.contains_key(base)) {
            let path = files.path(*base);
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

    fn path(&self, base_offset: i64) -> PathBuf {
        self.dir.join(format!("{base_offset:020}.log"))
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
        self.drop_segments(log)?;
        for segment in log.segments() {
            let base = segment.base_offset();
            let path = self.path(base);
            let known = self.segments.get(&base);
            if known.is_none_or(|known| known.content != segment.content()) {
                // A new one, or cut, or cleaned: it takes the place of the old one as a whole.
                let new = path.with_extension("log.swap");
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
        if log.segments().len() == 0 && !self.segments.contains_key(&log.end_offset()) {
            // Where an empty log begins, its one segment says.
            let base = log.end_offset();
            let path = self.path(base);
            let file = File::create(&path).at(&path)?;
            self.segments.insert(base, SegmentFile { file, content: 0, batches: 0 });
        }
        if self.epochs != log.epochs() {
            self.epochs = log.epochs().to_vec();
            let lines: Vec<String> =
                self.epochs.iter().map(|entry| format!("{} {}", entry.epoch, entry.start_offset)).collect();
            replace(&self.dir.join(LEADER_EPOCHS), &checkpoint_file::write(&lines))?;
        }
        self.recovery_point = log.recovery_point();
        self.revision = Some(log.revision());
        let changed = self.checkpoints != log.checkpoints();
        self.checkpoints = log.checkpoints();
        Ok(changed)
    }

    /// Removes the files of segments that are no more.
    fn drop_segments(&mut self, log: &Log) -> Result<(), StorageError> {
        let mut kept: Vec<i64> = log.segments().map(|segment| segment.base_offset()).collect();
        if kept.is_empty() {
            kept.push(log.end_offset());
        }
        if self.segments.keys().eq(&kept) {
            return Ok(());
        }
        let gone: Vec<i64> =
            self.segments.keys().copied().filter(|base| kept.binary_search(base).is_err()).collect();
        for base in gone {
            self.segments.remove(&base);
            let path = self.path(base);
            fs::remove_file(&path).at(&path)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{batch, record};

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
        let log = disk.logs.entry(KEY).or_default();
        [1, 1, 1, 4, 4].iter().for_each(|&epoch| append(log, epoch));
        assert_eq!(log.segments().len(), 3);
        storage.write(&disk).unwrap();
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
        storage.write(&disk).unwrap();
        check_same(dir.path(), &disk);
        let log = disk.logs.get_mut(&KEY).unwrap();
        log.raise_start_offset(3, 4).unwrap();
        log.delete_old_segments(Timestamp::from_millis(5_000), 4, &crate::log::LogConfig::default());
        log.checkpoint_offsets();
        storage.write(&disk).unwrap();
        check_same(dir.path(), &disk);
        disk.logs.get_mut(&KEY).unwrap().truncate_fully_and_start_at(90);
        storage.write(&disk).unwrap();
        check_same(dir.path(), &disk);
        disk.logs.clear();
        storage.write(&disk).unwrap();
        assert!(reopened(dir.path()).logs.is_empty());
    }

    #[test]
    fn a_torn_tail_is_cut_and_what_is_appended_then_is_whole() {
        let (dir, storage, _) = written();
        let path = storage.logs[&KEY].path(4);
        drop(storage);
        let len = fs::metadata(&path).unwrap().len();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(len - 1).unwrap();
        let (mut storage, mut disk) = Storage::open(dir.path(), Timestamp::from_millis(2_000)).unwrap();
        assert_eq!(disk.logs[&KEY].end_offset(), 4);
        append(disk.logs.get_mut(&KEY).unwrap(), 5);
        storage.write(&disk).unwrap();
        check_same(dir.path(), &disk);
    }

    #[test]
    fn segments_behind_a_damaged_batch_go() {
        let (dir, storage, _) = written();
        let path = storage.logs[&KEY].path(2);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(reopened(dir.path()).logs[&KEY].end_offset(), 3);
        assert_eq!(reopened(dir.path()).logs[&KEY].end_offset(), 3, "and stay gone");
    }

    #[test]
    fn a_clean_shutdown_is_remembered_until_it_is_taken_back() {
        let (dir, mut storage, mut disk) = written();
        disk.clean_shutdown = Some(12);
        storage.write(&disk).unwrap();
        assert_eq!(reopened(dir.path()).clean_shutdown, Some(12));
        disk.clean_shutdown = None;
        storage.write(&disk).unwrap();
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

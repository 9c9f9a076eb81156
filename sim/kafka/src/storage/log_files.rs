//! The files of one log: its segments, the snapshots of its producers, and where its leaders' epochs begin.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use context::Timestamp;

use super::{At as _, NEW, StorageError, read_entries, remove_if_unfinished, replace};
use crate::log::checkpoint_file;
use crate::log::producer_state::Snapshots;
use crate::log::{Checkpoints, EpochStart, Log};

/// How the files of a log end, after the offset that they begin at, or tell of.
pub(super) const SEGMENT: &str = ".log";
pub(super) const SNAPSHOT: &str = ".snapshot";
const LEADER_EPOCHS: &str = "leader-epoch-checkpoint";

/// The files of one log.
#[derive(Debug)]
pub struct LogFiles {
    pub(super) dir: PathBuf,
    revision: Option<u64>,
    segments: BTreeMap<i64, SegmentFile>,
    epochs: Vec<EpochStart>,
    /// The snapshots of producers that are written, as [`Snapshots::taken`] tells them.
    snapshots: BTreeMap<i64, u64>,
    pub(super) checkpoints: Checkpoints,
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

    pub(super) fn path(&self, offset: i64, kind: &str) -> PathBuf {
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

/// The offset in the name of a file of that kind.
pub(super) fn offset_of(path: &Path, kind: &str) -> Option<i64> {
    path.file_name()?.to_str()?.strip_suffix(kind)?.parse().ok()
}

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
//!
//! Here are the directory and its checkpoint files; `log_files.rs` has the files of one log.

#![expect(clippy::disallowed_methods, reason = "the real disk of a cluster that is served")]

mod log_files;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use context::Timestamp;
use uuid::Uuid;

pub use log_files::LogFiles;

use crate::broker::BrokerDisk;
use crate::log::Checkpoints;
use crate::log::checkpoint_file::{self, MalformedCheckpoint};
use crate::metadata::PartitionKey;

/// How a file ends that is not whole yet, and then takes the place of another.
const NEW: &str = "tmp";
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

#[cfg(test)]
mod tests;

//! A store in a file, on redb: for programs in the real world.
//!
//! # What a commit survives
//! A transaction that returned is in the file. [`Survives`] says how far that goes: to the disk, so that the machine may
//! lose power, or to the operating system, so that the process may be killed. A file that was not closed is checked at its
//! next open, and goes back to its last commit.
//!
//! # Who waits together
//! One transaction runs at a time, but those that wait at the same time wait for the disk together (`batch`). A disk that takes
//! milliseconds for each wait is no limit then, as long as there are threads to wait on: a commit blocks its thread.
//!
//! # One process a file
//! The file is locked while it is open; whoever comes second is told so. Replicas of a service in processes of their own
//! need a database server in place of this.
//!
//! # When the disk fails
//! After a commit that failed for the disk's sake nobody knows what the file holds, and trying again would not tell (a second
//! `fsync` may well succeed without the bytes of the first). After a read that failed redb writes no more. So the store refuses
//! everything from then on, and [`RedbStore::failure`] ends: its program should stop, and open the file anew.
//!
//! Absent on purpose: a simulated disk, compaction of the file, and values beyond what redb takes (3 GiB).

#![expect(clippy::disallowed_methods, reason = "this store is a real file; no simulated run has one")]

mod backend;
mod batch;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use context::Context;
use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase as _, ReadableTable, StorageError,
    TableDefinition, TableError, TableHandle as _,
};
use tokio::sync::Notify;

use self::backend::Backend;
use self::batch::Queue;
use super::memory::Entry;
use super::{Range, ReadTables, ReadWork, Store, StoreError, Tables, Work};

/// Memory for pages of the file, in bytes. A service's working set is its open sagas and its outbox; redb's own default,
/// 1 GiB, is for a database that has a machine to itself.
const CACHE_BYTES: usize = 64 << 20;

/// What a commit outlives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Survives {
    /// The machine: a commit waits for the disk (`fdatasync`).
    #[default]
    PowerLoss,
    /// The process: a commit is handed to the operating system, which writes it when it sees fit. Many times as fast; a
    /// machine that loses power may leave a file that does not open.
    ProcessCrash,
}

/// Why a file is not open as a store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another store of this one, has it.
    #[error(
        "the store `{path}` is open already: a file belongs to one process; stop the other one, or give this one a folder of its own"
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is not a store, or what a store needs in it is damaged.
    #[error(
        "`{path}` is not a store that can be read ({cause}): put the file back from a copy, or move it away to begin with an empty store"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What redb says.
        cause: String,
    },
    /// It was written by an older redb.
    #[error(
        "the store `{path}` has the file format {format}, which this program no longer writes: open it once with the program that wrote it"
    )]
    TooOld {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u8,
    },
    /// The operating system does not let it be read and written.
    #[error(
        "the store `{path}` cannot be opened ({cause}): its folder must be there, and this user must be allowed to write in it"
    )]
    Refused {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        cause: io::Error,
    },
}

/// Tables in a file. A clone is the same store: hand one to every replica in this process.
#[derive(Clone)]
pub struct RedbStore {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    path: PathBuf,
    database: Database,
    changed: Arc<Notify>,
    failure: OnceLock<String>,
    failed: Notify,
    queue: Queue,
}

/// A table as redb sees it: bytes by bytes, in the order of the keys.
type Raw<'a> = TableDefinition<'a, &'static [u8], &'static [u8]>;

impl RedbStore {
    /// Opens the store in the file `path`, or makes it. `name` shows in the trace.
    ///
    /// # Errors
    /// [`OpenError`] says what to do.
    pub fn open(
        name: impl Into<String>,
        path: impl Into<PathBuf>,
        survives: Survives,
    ) -> Result<RedbStore, OpenError> {
        let path = path.into();
        let database = open(&path, survives).map_err(|error| OpenError::of(&path, error))?;
        Ok(RedbStore::over(name.into(), path, database))
    }

    fn over(name: String, path: PathBuf, database: Database) -> RedbStore {
        let shared = Shared {
            name,
            path,
            database,
            changed: Arc::new(Notify::new()),
            failure: OnceLock::new(),
            failed: Notify::new(),
            queue: Queue::default(),
        };
        RedbStore { shared: Arc::new(shared) }
    }

    /// Every entry of every table, in order: what [`MemStore::load`](super::MemStore::load) makes the same store of.
    ///
    /// # Errors
    /// [`StoreError::Failed`] if the file cannot be read.
    pub fn dump(&self) -> Result<Vec<Entry>, StoreError> {
        let transaction = self.begin_read()?;
        let dump = || {
            let names = transaction.list_tables().map_err(TableError::Storage)?;
            let mut names: Vec<String> = names.map(|table| table.name().to_owned()).collect();
            names.sort();
            let mut entries = Vec::new();
            for name in names {
                let table = transaction.open_table(Raw::new(&name))?;
                let all = walk(&table, Range::ALL, usize::MAX).map_err(TableError::Storage)?;
                entries.extend(all.into_iter().map(|(key, value)| (name.clone(), key, value)));
            }
            Ok(entries)
        };
        dump().map_err(|error: TableError| self.shared.cannot(error))
    }

    /// Puts `entries` into the store, in one transaction that is not recorded: another's dump.
    ///
    /// # Errors
    /// [`StoreError::Failed`] if they cannot be written; none is then.
    pub fn load(&self, entries: impl IntoIterator<Item = Entry>) -> Result<(), StoreError> {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let mut put = |tables: &mut dyn Tables| {
            entries.iter().try_for_each(|(table, key, value)| tables.put(table, key, value))
        };
        self.shared.transact(None, &mut put)
    }

    /// Ends when the disk has failed, with what it said. Nothing works from then on; opening the file anew may help.
    pub async fn failure(&self) -> String {
        loop {
            let mut failed = std::pin::pin!(self.shared.failed.notified());
            failed.as_mut().enable();
            if let Some(failure) = self.shared.failure.get() {
                return failure.clone();
            }
            failed.await;
        }
    }

    fn begin_read(&self) -> Result<ReadTransaction, StoreError> {
        self.shared.database.begin_read().map_err(|error| self.shared.cannot(error))
    }
}

impl Store for RedbStore {
    fn transact(&self, context: &Context, work: Work<'_>) -> Result<(), StoreError> {
        self.shared.transact(Some(context), work)
    }

    fn read(&self, work: ReadWork<'_>) -> Result<(), StoreError> {
        work(&Reading { shared: &self.shared, transaction: self.begin_read()? })
    }

    fn changed(&self) -> Arc<Notify> {
        self.shared.changed.clone()
    }
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedbStore({} in {})", self.shared.name, self.shared.path.display())
    }
}

impl Shared {
    /// What redb refused. If that was for the disk's sake, it is the end.
    fn cannot(&self, error: impl Into<redb::Error>) -> StoreError {
        match error.into() {
            error @ (redb::Error::Io(_) | redb::Error::PreviousIo | redb::Error::Corrupted(_)) => {
                self.fail(&error)
            }
            error => StoreError::Failed(format!("{}: {error}", self.path.display())),
        }
    }

    /// The end: see the module's page.
    fn fail(&self, error: &dyn fmt::Display) -> StoreError {
        let failure =
            format!("{}: {error}; the store is closed until it is opened anew", self.path.display());
        self.failure.set(failure.clone()).ok();
        self.failed.notify_waiters();
        StoreError::Failed(failure)
    }
}

struct Reading<'a> {
    shared: &'a Shared,
    transaction: ReadTransaction,
}

impl Reading<'_> {
    /// Reads a table; `none` if it was never written.
    fn read<T>(
        &self,
        table: &str,
        none: T,
        read: impl FnOnce(&redb::ReadOnlyTable<&'static [u8], &'static [u8]>) -> Result<T, StorageError>,
    ) -> Result<T, StoreError> {
        match self.transaction.open_table(Raw::new(table)) {
            Ok(table) => read(&table).map_err(|error| self.shared.cannot(error)),
            Err(TableError::TableDoesNotExist(_)) => Ok(none),
            Err(error) => Err(self.shared.cannot(error)),
        }
    }
}

impl ReadTables for Reading<'_> {
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.read(table, None, |table| get(table, key))
    }

    fn scan(&self, table: &str, range: Range<'_>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.read(table, Vec::new(), |table| walk(table, range, limit))
    }

    fn count(&self, table: &str) -> Result<u64, StoreError> {
        self.read(table, 0, redb::ReadableTableMetadata::len)
    }
}

fn get(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> Result<Option<Bytes>, StorageError> {
    Ok(table.get(key)?.map(|value| Bytes::copy_from_slice(value.value())))
}

fn walk(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    range: Range<'_>,
    limit: usize,
) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
    let mut entries = Vec::new();
    let mut from = table.range::<&[u8]>((range.first(), Bound::Unbounded))?;
    while entries.len() < limit
        && let Some(entry) = from.next()
    {
        let (key, value) = entry?;
        if range.ends_before(key.value()) {
            break;
        }
        entries.push((Bytes::copy_from_slice(key.value()), Bytes::copy_from_slice(value.value())));
    }
    Ok(entries)
}

fn open(path: &Path, survives: Survives) -> Result<Database, DatabaseError> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let backend = Backend { file: FileBackend::new(file)?, survives };
    let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend)?;
    if survives == Survives::PowerLoss {
        // A file is there after a power loss when its folder says so on the disk; who made it may have been killed before.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(database)
}

impl OpenError {
    fn of(path: &Path, error: DatabaseError) -> OpenError {
        let path = path.to_owned();
        match error {
            DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path },
            DatabaseError::UpgradeRequired(format) => OpenError::TooOld { path, format },
            DatabaseError::Storage(StorageError::Io(cause)) => match cause.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
                    OpenError::Damaged { path, cause: cause.to_string() }
                }
                _ => OpenError::Refused { path, cause },
            },
            other => OpenError::Damaged { path, cause: other.to_string() },
        }
    }
}

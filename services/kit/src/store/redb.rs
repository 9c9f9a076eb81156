//! A store in a file, on redb: for programs in the real world.
//!
//! # What a commit survives
//! A transaction that returned is in the store's files. [`Survives`] says how far that goes: to the disk, so that the machine may
//! lose power, or to the operating system, so that the process may be killed. A store needs no closing: its next open finds every
//! commit.
//!
//! # Two files
//! A commit is appended to a log (`log`, the file `<path>.log`) and added to what was changed lately, in memory (`recent`); reads
//! look there first. When the log is full, redb takes over all that changed in one transaction, and the log begins anew. A commit
//! in redb costs a dozen pages and a few hundred microseconds of processor; one here costs as many bytes as it says. What is
//! written and soon deleted (an outbox, the steps of a saga) never gets to redb. The two files belong together: move and copy
//! both, or none.
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
//! After a commit that failed for the disk's sake nobody knows what the files hold, and trying again would not tell (a second
//! `fsync` may well succeed without the bytes of the first). So the store refuses everything from then on, and
//! [`RedbStore::failure`] ends: its program should stop, and open the files anew.
//!
//! Absent on purpose: a simulated disk, compaction of the file, a log that heals itself of more than a torn end, and values beyond what redb takes (3 GiB).

#![expect(clippy::disallowed_methods, reason = "this store is a real file; no simulated run has one")]

mod backend;
mod batch;
mod log;
mod recent;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use context::Context;
use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase as _, StorageBackend, StorageError, TableDefinition,
    TableError,
};
use tokio::sync::Notify;

use self::backend::Backend;
use self::batch::Queue;
use self::log::{Log, LogError};
use self::recent::{Base, Committed};
use super::journal::Write;
use super::memory::Entry;
use super::{Range, ReadTables, ReadWork, Store, StoreError, Tables, Work};

/// Memory for pages of the file, in bytes. A service's working set is its open sagas and its outbox; redb's own default,
/// 1 GiB, is for a database that has a machine to itself.
const CACHE_BYTES: usize = 64 << 20;

/// The table of redb's file that says which generation of the log it lacks.
const OWN: &str = "kit.log";
const GENERATION: &[u8] = b"generation";

/// What a commit outlives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Survives {
    /// The machine: a commit waits for the disk (`fdatasync`).
    #[default]
    PowerLoss,
    /// The process: a commit is handed to the operating system, which writes it when it sees fit. Many times as fast; a
    /// machine that loses power may leave a store without its last commits, or a file that does not open.
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
        "`{path}` is not a store that can be read ({cause}): put the file and its log (`.log`) back from a copy, or move both away to begin with an empty store"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What redb says, or what the log does.
        cause: String,
    },
    /// Its log is there, and it is not.
    #[error(
        "the store `{path}` is not there, but its log is (`{path}.log`), with commits: put the store back, or move the log away to begin with an empty store"
    )]
    LogAlone {
        /// The file.
        path: PathBuf,
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
    committed: RwLock<Committed>,
    changed: Arc<Notify>,
    failure: OnceLock<String>,
    failed: Notify,
    queue: Queue,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No work runs unguarded under these locks: what they hold is whole, whoever panicked elsewhere.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        let (database, log) = open_files(&path, survives)?;
        RedbStore::over(name.into(), path, database, log, log::FULL)
    }

    /// The store in these two files. Its log is taken over when it has `full` bytes.
    fn over(
        name: String,
        path: PathBuf,
        database: Database,
        log: Box<dyn StorageBackend>,
        full: u64,
    ) -> Result<RedbStore, OpenError> {
        let of = |error: redb::Error| OpenError::of(&path, error);
        let generation = generation(&database).map_err(of)?;
        let (log, again) = Log::open(log, generation, full).map_err(|error| match error {
            LogError::Io(cause) => OpenError::Refused { path: path.clone(), cause },
            other => OpenError::Damaged { path: path.clone(), cause: other.to_string() },
        })?;
        let committed = Committed::over(Base::open(&database).map_err(of)?);
        let shared = Shared {
            name,
            path: path.clone(),
            database,
            committed: RwLock::new(committed),
            changed: Arc::new(Notify::new()),
            failure: OnceLock::new(),
            failed: Notify::new(),
            queue: Queue::new(log),
        };
        shared.do_again(again).map_err(of)?;
        Ok(RedbStore { shared: Arc::new(shared) })
    }

    /// Every entry of every table, in order: what [`MemStore::load`](super::MemStore::load) makes the same store of.
    ///
    /// # Errors
    /// [`StoreError::Failed`] if the file cannot be read.
    pub fn dump(&self) -> Result<Vec<Entry>, StoreError> {
        self.shared.committed().view().dump().map_err(|error| self.shared.cannot(&error))
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
}

impl Store for RedbStore {
    fn transact(&self, context: &Context, work: Work<'_>) -> Result<(), StoreError> {
        self.shared.transact(Some(context), work)
    }

    fn read(&self, work: ReadWork<'_>) -> Result<(), StoreError> {
        work(&Reading { shared: &self.shared, committed: self.shared.committed() })
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
    fn cannot(&self, error: &dyn fmt::Display) -> StoreError {
        StoreError::Failed(format!("{}: {error}", self.path.display()))
    }

    /// The end: see the module's page.
    fn fail(&self, error: &dyn fmt::Display) -> StoreError {
        let failure =
            format!("{}: {error}; the store is closed until it is opened anew", self.path.display());
        self.failure.set(failure.clone()).ok();
        self.failed.notify_waiters();
        StoreError::Failed(failure)
    }

    fn committed(&self) -> RwLockReadGuard<'_, Committed> {
        self.committed.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Committed)) {
        change(&mut self.committed.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Does again what the log says, and leaves it to redb. So a log that is written to is always of a generation of its own:
    /// no record can be taken for one of its, whole though it may look, that was torn before.
    fn do_again(&self, writes: Vec<Write>) -> Result<(), redb::Error> {
        let mut log = self.queue.log();
        if log.was_empty() {
            return Ok(());
        }
        self.change(|committed| {
            for Write { table, key, value } in writes {
                committed.recent.table(&table).entries.insert(key, value);
            }
        });
        self.take_over(&mut log)
    }

    /// Puts all that changed into redb's file, in one transaction that waits for the disk, and begins the log anew. Until that
    /// transaction is there the log is as it was, and redb lacks its generation: a crash in between changes nothing.
    fn take_over(&self, log: &mut Log) -> Result<(), redb::Error> {
        let next = log.generation + 1;
        let transaction = self.database.begin_write()?;
        for (name, changes) in &self.committed().recent.tables {
            if changes.entries.is_empty() {
                continue;
            }
            let mut table = transaction.open_table(Raw::new(name))?;
            for (key, value) in &changes.entries {
                match value {
                    Some(value) => drop(table.insert(&**key, &**value)?),
                    None => drop(table.remove(&**key)?),
                }
            }
        }
        transaction.open_table(Raw::new(OWN))?.insert(GENERATION, &next.to_be_bytes()[..])?;
        transaction.commit()?;
        let committed = Committed::over(Base::open(&self.database)?);
        self.change(|before| *before = committed);
        log.restart(next);
        Ok(())
    }
}

struct Reading<'a> {
    shared: &'a Shared,
    committed: RwLockReadGuard<'a, Committed>,
}

impl ReadTables for Reading<'_> {
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.committed.view().get(table, key).map_err(|error| self.shared.cannot(&error))
    }

    fn scan(&self, table: &str, range: Range<'_>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.committed.view().scan(table, range, limit).map_err(|error| self.shared.cannot(&error))
    }

    fn count(&self, table: &str) -> Result<u64, StoreError> {
        self.committed.view().count(table).map_err(|error| self.shared.cannot(&error))
    }
}

/// Which generation of the log redb's file lacks. A file of before there were logs lacks the first.
fn generation(database: &Database) -> Result<u64, redb::Error> {
    let table = match database.begin_read()?.open_table(Raw::new(OWN)) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    let Some(value) = table.get(GENERATION)? else { return Ok(0) };
    let number = value
        .value()
        .try_into()
        .map_err(|_| StorageError::Corrupted(format!("the table `{OWN}` holds no number of a generation")))?;
    Ok(u64::from_be_bytes(number))
}

fn open_files(path: &Path, survives: Survives) -> Result<(Database, Box<dyn StorageBackend>), OpenError> {
    let refused = |cause: io::Error| OpenError::Refused { path: path.to_owned(), cause };
    let mut log_path = OsString::from(path);
    log_path.push(".log");
    let is_new = !path.exists();
    let has_commits = |path: &OsString| std::fs::metadata(path).is_ok_and(|log| log.len() > 0);
    if is_new && has_commits(&log_path) {
        return Err(OpenError::LogAlone { path: path.to_owned() });
    }
    let file = |path: &Path| {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        Ok(Backend { file: FileBackend::new(file?)?, survives })
    };
    let of = |error: DatabaseError| OpenError::of(path, error.into());
    // Who has this file has the log, too: it alone is locked.
    let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(file(path).map_err(of)?);
    let database = database.map_err(of)?;
    let has_log = Path::new(&log_path).exists();
    let log = file(Path::new(&log_path)).map_err(of)?;
    if !has_log && survives == Survives::PowerLoss {
        // Files are there after a power loss when their folder says so on the disk.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all());
        folder.map_err(refused)?;
    }
    Ok((database, Box::new(log)))
}

impl OpenError {
    fn of(path: &Path, error: redb::Error) -> OpenError {
        let path = path.to_owned();
        match error {
            redb::Error::DatabaseAlreadyOpen => OpenError::InUse { path },
            redb::Error::UpgradeRequired(format) => OpenError::TooOld { path, format },
            redb::Error::Io(cause) => match cause.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
                    OpenError::Damaged { path, cause: cause.to_string() }
                }
                _ => OpenError::Refused { path, cause },
            },
            other => OpenError::Damaged { path, cause: other.to_string() },
        }
    }
}

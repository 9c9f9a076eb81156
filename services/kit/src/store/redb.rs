//! A store in a file, on redb: for programs in the real world.
//!
//! # What a commit survives
//! A transaction that returned is in the file. [`Survives`] says how far that goes: to the disk, so that the machine may
//! lose power, or to the operating system, so that the process may be killed. A file that was not closed is checked at its
//! next open, and goes back to its last commit.
//!
//! # One process a file
//! The file is locked while it is open; whoever comes second is told so. Replicas of a service in processes of their own
//! need a database server in place of this.
//!
//! # When the disk fails
//! After a commit that failed for the disk's sake nobody knows what the file holds, and trying again would not tell (a second
//! `fsync` may well succeed without the bytes of the first). So the store refuses everything from then on, and
//! [`RedbStore::failure`] ends: its program should stop, and open the file anew.
//!
//! Absent on purpose: a simulated disk, compaction of the file, and values beyond what redb takes (3 GiB).

#![expect(clippy::disallowed_methods, reason = "this store is a real file; no simulated run has one")]

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use context::Context;
use redb::backends::FileBackend;
use redb::{
    BackendError, Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase as _, ReadableTable,
    ReadableTableMetadata as _, StorageBackend, StorageError, TableDefinition, TableError, TableHandle as _,
    WriteTransaction,
};
use tokio::sync::Notify;

use super::journal::{self, Write};
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
        dump().map_err(|error: TableError| self.shared.cannot(&error))
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
        self.shared.run(&mut put).map(drop)
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
        self.shared.database.begin_read().map_err(|error| self.shared.cannot(&error))
    }
}

impl Store for RedbStore {
    fn transact(&self, context: &Context, work: Work<'_>) -> Result<(), StoreError> {
        let writes = self.shared.run(work)?;
        if !writes.is_empty() {
            journal::record(context, &self.shared.name, &writes);
            self.shared.changed.notify_waiters();
        }
        Ok(())
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
    /// Runs `work` in a transaction of its own, and commits it; gives its writes.
    fn run(&self, work: Work<'_>) -> Result<Vec<Write>, StoreError> {
        if let Some(failure) = self.failure.get() {
            return Err(StoreError::Failed(failure.clone()));
        }
        let transaction = self.database.begin_write().map_err(|error| self.cannot(&error))?;
        let mut open = Transaction { shared: self, transaction, writes: Vec::new() };
        // A panic must not unwind through redb's transaction: it would leave its pages behind instead of undoing it.
        let outcome = catch_unwind(AssertUnwindSafe(|| work(&mut open)));
        let Transaction { transaction, writes, .. } = open;
        match outcome {
            Ok(Ok(())) if !writes.is_empty() => {
                transaction.commit().map_err(|error| self.fail(&error))?;
                Ok(writes)
            }
            Ok(result) => {
                transaction.abort().map_err(|error| self.fail(&error))?;
                result.map(|()| writes)
            }
            Err(panic) => {
                // The panic is what the caller must hear of; a disk that failed as well says so to the next.
                transaction.abort().map_err(|error| self.fail(&error)).ok();
                resume_unwind(panic)
            }
        }
    }

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
            Ok(table) => read(&table).map_err(|error| self.shared.cannot(&error)),
            Err(TableError::TableDoesNotExist(_)) => Ok(none),
            Err(error) => Err(self.shared.cannot(&error)),
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

struct Transaction<'a> {
    shared: &'a Shared,
    transaction: WriteTransaction,
    writes: Vec<Write>,
}

impl Transaction<'_> {
    /// Does something with a table, which is made if it is not there.
    fn with<T>(
        &self,
        table: &str,
        work: impl FnOnce(&mut redb::Table<'_, &'static [u8], &'static [u8]>) -> Result<T, StorageError>,
    ) -> Result<T, StoreError> {
        let open = self.transaction.open_table(Raw::new(table));
        let mut open = open.map_err(|error| self.shared.cannot(&error))?;
        work(&mut open).map_err(|error| self.shared.cannot(&error))
    }
}

impl ReadTables for Transaction<'_> {
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.with(table, |table| get(table, key))
    }

    fn scan(&self, table: &str, range: Range<'_>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.with(table, |table| walk(table, range, limit))
    }

    fn count(&self, table: &str) -> Result<u64, StoreError> {
        self.with(table, |table| table.len())
    }
}

impl Tables for Transaction<'_> {
    fn put(&mut self, table: &str, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.with(table, |table| table.insert(key, value).map(drop))?;
        let (key, value) = (Bytes::copy_from_slice(key), Some(Bytes::copy_from_slice(value)));
        self.writes.push(Write { table: table.to_owned(), key, value });
        Ok(())
    }

    fn delete(&mut self, table: &str, key: &[u8]) -> Result<bool, StoreError> {
        let was_there = self.with(table, |table| table.remove(key).map(|value| value.is_some()))?;
        self.writes.push(Write { table: table.to_owned(), key: Bytes::copy_from_slice(key), value: None });
        Ok(was_there)
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
    let is_new = !path.exists();
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let backend = Backend { file: FileBackend::new(file)?, survives };
    let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend)?;
    if is_new && survives == Survives::PowerLoss {
        // A file is there after a power loss when its folder says so on the disk.
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

/// The file, waited for or not.
#[derive(Debug)]
struct Backend {
    file: FileBackend,
    survives: Survives,
}

impl StorageBackend for Backend {
    fn len(&self) -> Result<u64, io::Error> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        match self.survives {
            Survives::PowerLoss => self.file.sync_data(),
            Survives::ProcessCrash => Ok(()),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.file.write(offset, data)
    }

    fn close(&self) -> Result<(), io::Error> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use context::Seed;
    use context::real::RealHost;

    use super::*;
    use crate::MemStore;
    use crate::store::{StoreExt, conformance};

    fn context() -> Context {
        RealHost::new("host", Seed(1)).into_context()
    }

    fn put(store: &RedbStore, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        store.transact_with(&context(), |tables| tables.put("table", key, value))
    }

    #[test]
    fn the_file_store_passes_the_conformance_suite() {
        for survives in [Survives::PowerLoss, Survives::ProcessCrash] {
            let folder = tempfile::tempdir().unwrap();
            let made = std::cell::Cell::new(0);
            conformance::all(&|| {
                made.set(made.get() + 1);
                let path = folder.path().join(format!("{}.redb", made.get()));
                Box::new(RedbStore::open("store", path, survives).unwrap())
            });
        }
    }

    /// What the same work leaves, and how it is recorded, on either store.
    #[test]
    fn it_records_and_dumps_as_the_store_in_memory_does() {
        let folder = tempfile::tempdir().unwrap();
        let file = RedbStore::open("store", folder.path().join("s.redb"), Survives::ProcessCrash).unwrap();
        let memory = MemStore::new("store");
        let stores: [&dyn Store; 2] = [&file, &memory];
        let recorded = stores.map(|store| {
            let (recorded, context) = journal::testing::recording();
            let mut work = |tables: &mut dyn Tables| {
                tables.put("b", b"key", b"value")?;
                tables.put("a", b"", b"")?;
                tables.put("a", b"gone", b"1")?;
                tables.delete("a", b"gone")?;
                tables.delete("never written", b"nothing").map(drop)
            };
            store.transact(&context, &mut work).unwrap();
            store.transact(&context, &mut |tables| tables.get("a", b"").map(drop)).unwrap();
            recorded.commits()
        });
        assert_eq!(recorded[0], recorded[1]);
        assert_eq!(file.dump().unwrap(), memory.dump());
        let other = RedbStore::open("other", folder.path().join("o.redb"), Survives::ProcessCrash).unwrap();
        other.load(memory.dump()).unwrap();
        assert_eq!(other.dump().unwrap(), memory.dump());
    }

    #[test]
    fn what_was_committed_is_there_when_the_file_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.redb");
        put(&RedbStore::open("store", &path, Survives::PowerLoss).unwrap(), b"key", b"value").unwrap();
        let again = RedbStore::open("store", &path, Survives::PowerLoss).unwrap();
        let value = again.read_with::<_, StoreError>(|tables| tables.get("table", b"key"));
        assert_eq!(value, Ok(Some(Bytes::from("value"))));
    }

    /// A disk in memory that can be made to refuse its syncs.
    #[derive(Debug, Default)]
    struct Failing {
        disk: redb::backends::InMemoryBackend,
        full: Arc<AtomicBool>,
    }

    impl StorageBackend for Failing {
        fn len(&self) -> Result<u64, io::Error> {
            self.disk.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
            self.disk.read(offset, out)
        }

        fn set_len(&self, len: u64) -> Result<(), io::Error> {
            self.disk.set_len(len)
        }

        fn sync_data(&self) -> Result<(), io::Error> {
            if self.full.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.disk.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
            self.disk.write(offset, data)
        }
    }

    #[tokio::test]
    async fn a_disk_that_fails_closes_the_store_and_says_so() {
        let disk = Failing::default();
        let full = disk.full.clone();
        let database = Builder::new().create_with_backend(disk).unwrap();
        let store = RedbStore::over("store".into(), "s.redb".into(), database);
        put(&store, b"key", b"1").unwrap();
        let mut failure = Box::pin(store.failure());
        assert!(futures_util::FutureExt::now_or_never(&mut failure).is_none(), "all is well");
        full.store(true, Ordering::Relaxed);
        let failed = put(&store, b"key", b"2").unwrap_err();
        full.store(false, Ordering::Relaxed);
        assert_eq!(put(&store, b"key", b"3"), Err(failed.clone()), "though the disk works again");
        assert_eq!(StoreError::Failed(failure.await), failed);
    }

    fn refusal(path: &Path) -> String {
        let error = RedbStore::open("store", path, Survives::PowerLoss).expect_err("this does not open");
        error.to_string().replace(&path.display().to_string(), "PATH")
    }

    #[test]
    fn a_second_opener_is_told_that_a_file_belongs_to_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.redb");
        let first = RedbStore::open("store", &path, Survives::PowerLoss).unwrap();
        insta::assert_snapshot!(refusal(&path), @"the store `PATH` is open already: a file belongs to one process; stop the other one, or give this one a folder of its own");
        put(&first, b"key", b"the first goes on").unwrap();
        drop(first);
        RedbStore::open("store", &path, Survives::PowerLoss).expect("the file is free again");
    }

    #[test]
    fn a_file_that_is_no_store_and_one_that_is_cut_are_refused_and_left_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.redb");
        std::fs::write(&path, "orders, by hand\n".repeat(1_000)).unwrap();
        insta::assert_snapshot!(refusal(&path), @"`PATH` is not a store that can be read (Not a redb database: magic number mismatch): put the file back from a copy, or move it away to begin with an empty store");
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("orders, by hand"));

        std::fs::remove_file(&path).unwrap();
        put(&RedbStore::open("store", &path, Survives::PowerLoss).unwrap(), b"key", b"value").unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        insta::assert_snapshot!(refusal(&path), @"`PATH` is not a store that can be read (DB corrupted: File truncated below stored layout: file_len=528384, layout_len=1056768): put the file back from a copy, or move it away to begin with an empty store");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        insta::assert_snapshot!(refusal(&folder.path().join("missing/s.redb")), @"the store `PATH` cannot be opened (No such file or directory (os error 2)): its folder must be there, and this user must be allowed to write in it");
        insta::assert_snapshot!(refusal(folder.path()), @"the store `PATH` cannot be opened (Is a directory (os error 21)): its folder must be there, and this user must be allowed to write in it");
    }
}

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use context::Seed;
use context::real::RealHost;

use redb::StorageBackend;

use super::*;
use crate::MemStore;
use crate::store::{StoreExt, conformance, journal};

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

/// A disk in memory: slow, and it can be made to refuse its syncs, or its reads.
#[derive(Debug, Default)]
struct Disk {
    memory: redb::backends::InMemoryBackend,
    full: Arc<AtomicBool>,
    unreadable: Arc<AtomicBool>,
    syncs: Arc<AtomicUsize>,
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        if self.unreadable.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Other.into());
        }
        self.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.memory.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        if self.full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.syncs.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(2));
        self.memory.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.memory.write(offset, data)
    }
}

#[tokio::test]
async fn a_disk_that_fails_closes_the_store_and_says_so() {
    let disk = Disk::default();
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

#[tokio::test]
async fn a_read_that_fails_closes_the_store_too() {
    let disk = Disk::default();
    let unreadable = disk.unreadable.clone();
    let database = Builder::new().set_cache_size(0).create_with_backend(disk).unwrap();
    let store = RedbStore::over("store".into(), "s.redb".into(), database);
    put(&store, b"key", b"1").unwrap();
    unreadable.store(true, Ordering::Relaxed);
    let read = || store.read_with::<_, StoreError>(|tables| tables.get("table", b"key"));
    let failed = read().unwrap_err();
    unreadable.store(false, Ordering::Relaxed);
    assert_eq!(put(&store, b"key", b"2"), Err(failed.clone()), "though the disk works again");
    assert_eq!(StoreError::Failed(store.failure().await), failed);
}

/// A recorder with a defect.
struct Panics;

impl context::Recorder for Panics {
    fn record(&self, _: context::Event<'_>) {
        panic!("planted");
    }
}

#[test]
fn a_panic_in_mid_commit_leaves_nobody_waiting() {
    let store = RedbStore::over(
        "store".into(),
        "s.redb".into(),
        Builder::new().create_with_backend(Disk::default()).unwrap(),
    );
    let panics = RealHost::new("host", Seed(1)).with_recorder(Arc::new(Panics)).into_context();
    std::thread::scope(|scope| {
        let commit =
            || store.transact_with::<_, StoreError>(&panics, |tables| tables.put("table", b"key", b"1"));
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(commit)).collect();
        let ended: Vec<_> = threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        assert!(ended.iter().any(Result::is_err), "one of them has made the commit");
        assert!(ended.iter().all(|end| !matches!(end, Ok(Ok(())))), "nobody is told that all is well");
    });
    assert!(put(&store, b"key", b"2").is_err());
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

/// Many threads that count one number up, some of which fail or panic half-way.
#[test]
fn those_that_commit_at_the_same_time_wait_together_and_who_fails_leaves_nothing() {
    const THREADS: u64 = 8;
    const EACH: u64 = 40;
    let disk = Disk::default();
    let syncs = disk.syncs.clone();
    let database = Builder::new().create_with_backend(disk).unwrap();
    let store = RedbStore::over("store".into(), "s.redb".into(), database);
    let (recorded, context) = journal::testing::recording();
    let count = |thread: u64, number: u64| {
        let work = || {
            store.transact_with::<_, StoreError>(&context, |tables| {
                let counted = tables.get("count", b"")?.map_or(0, |bytes| bytes[0]);
                tables.put("count", b"", &[counted.wrapping_add(1)])?;
                tables.put("who", &[thread as u8, number as u8], &[])?;
                match number % 10 {
                    3 => Err(StoreError::Failed("on purpose".into())),
                    // Not `panic!`: that prints through the hook, and this one is expected.
                    7 => std::panic::resume_unwind(Box::new("on purpose")),
                    _ => Ok(()),
                }
            })
        };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        let as_expected = match number % 10 {
            3 => matches!(outcome, Ok(Err(_))),
            7 => outcome.is_err(),
            _ => matches!(outcome, Ok(Ok(()))),
        };
        assert!(as_expected, "thread {thread}, number {number}: {outcome:?}");
    };
    syncs.store(0, Ordering::Relaxed);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || (0..EACH).for_each(|number| count(thread, number)));
        }
    });
    let commits = THREADS * EACH * 8 / 10;
    let counted = store.read_with::<_, StoreError>(|tables| tables.get("count", b"")).unwrap().unwrap();
    assert_eq!(
        u64::from(counted[0]),
        commits % 256,
        "each that succeeded counted once, the others not at all"
    );
    assert_eq!(store.read_with::<_, StoreError>(|tables| tables.count("who")), Ok(commits));
    assert_eq!(recorded.commits().len() as u64, commits);
    let syncs = syncs.load(Ordering::Relaxed) as u64;
    assert!(syncs < commits, "{commits} commits of {THREADS} threads waited {syncs} times");
    // Commits are recorded in their order: who follows them comes to the same.
    let copy = MemStore::new("copy");
    for (_, bytes) in recorded.commits() {
        copy.follow(&journal::decode(&bytes).unwrap());
    }
    assert_eq!(copy.dump(), store.dump().unwrap());
}

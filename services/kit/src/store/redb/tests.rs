use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use context::Seed;
use context::real::RealHost;
use rand::RngExt as _;

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

/// A file in memory, which can be made slow, and to refuse its syncs. A clone is the same file.
#[derive(Clone, Debug, Default)]
struct Disk {
    bytes: Arc<Mutex<Vec<u8>>>,
    sync_takes: Duration,
    full: Arc<AtomicBool>,
    syncs: Arc<AtomicUsize>,
}

fn write_at(bytes: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let from = offset as usize;
    bytes.resize(bytes.len().max(from + data.len()), 0);
    bytes[from..from + data.len()].copy_from_slice(data);
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(lock(&self.bytes).len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let from = offset as usize;
        out.copy_from_slice(&lock(&self.bytes)[from..from + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        lock(&self.bytes).resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        if self.full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.syncs.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(self.sync_takes);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        write_at(&mut lock(&self.bytes), offset, data);
        Ok(())
    }
}

#[tokio::test]
async fn a_disk_that_fails_closes_the_store_and_says_so() {
    let log = Disk::default();
    let full = log.full.clone();
    let store = on(Disk::default(), log);
    put(&store, b"key", b"1").unwrap();
    let mut failure = Box::pin(store.failure());
    assert!(futures_util::FutureExt::now_or_never(&mut failure).is_none(), "all is well");
    full.store(true, Ordering::Relaxed);
    let failed = put(&store, b"key", b"2").unwrap_err();
    full.store(false, Ordering::Relaxed);
    assert_eq!(put(&store, b"key", b"3"), Err(failed.clone()), "though the disk works again");
    assert_eq!(StoreError::Failed(failure.await), failed);
}

/// A store on such disks, with a log that is taken over early.
fn on(disk: impl StorageBackend, log: impl StorageBackend) -> RedbStore {
    let database = Builder::new().create_with_backend(disk).unwrap();
    RedbStore::over("store".into(), "s.redb".into(), database, Box::new(log), 4_000).unwrap()
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
    insta::assert_snapshot!(refusal(&path), @"`PATH` is not a store that can be read (Not a redb database: magic number mismatch): put the file and its log (`.log`) back from a copy, or move both away to begin with an empty store");
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("orders, by hand"));

    std::fs::remove_file(&path).unwrap();
    put(&RedbStore::open("store", &path, Survives::PowerLoss).unwrap(), b"key", b"value").unwrap();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    insta::assert_snapshot!(refusal(&path), @"`PATH` is not a store that can be read (DB corrupted: File truncated below stored layout: file_len=10240, layout_len=20480): put the file and its log (`.log`) back from a copy, or move both away to begin with an empty store");
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
    let log = Disk { sync_takes: Duration::from_millis(2), ..Disk::default() };
    let syncs = log.syncs.clone();
    let store = on(Disk::default(), log);
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

/// What was done to one of two files.
#[derive(Clone, Debug)]
enum Done {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

/// A file whose story is written down, together with that of the other.
#[derive(Clone, Debug)]
struct Taped {
    which: usize,
    bytes: Arc<Mutex<Vec<u8>>>,
    tape: Arc<Mutex<Vec<(usize, Done)>>>,
}

impl Taped {
    fn did(&self, done: Done) -> Result<(), io::Error> {
        play(&mut lock(&self.bytes), &done);
        lock(&self.tape).push((self.which, done));
        Ok(())
    }
}

fn play(bytes: &mut Vec<u8>, done: &Done) {
    match done {
        Done::Write(offset, data) => write_at(bytes, *offset, data),
        Done::SetLen(length) => bytes.resize(*length as usize, 0),
        Done::Sync => {}
    }
}

impl StorageBackend for Taped {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(lock(&self.bytes).len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let from = offset as usize;
        out.copy_from_slice(&lock(&self.bytes)[from..from + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.did(Done::SetLen(len))
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.did(Done::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.did(Done::Write(offset, data.to_vec()))
    }
}

/// Commit `number`: overwrites, adds, and deletes what was added some commits ago, in and out of the log.
fn commit(store: &dyn Store, number: u64) {
    let work = |tables: &mut dyn Tables| {
        let key = |number: u64| number.to_be_bytes();
        tables.put("count", b"", &key(number))?;
        tables.put("rows", &key(number), &vec![number as u8; number as usize % 700])?;
        for back in [3, 40] {
            if number > back {
                tables.delete(if back == 3 { "brief" } else { "rows" }, &key(number - back))?;
            }
        }
        tables.put("brief", &key(number), b"soon gone")
    };
    store.transact_with::<_, StoreError>(&context(), work).unwrap();
}

/// The two files after each step of their story: whole, as a killed process leaves them, and without what was not synced (or
/// with half of the log's last write), as a machine may that loses power. Of redb's own writes all that were not synced are lost.
#[test]
fn a_crash_at_any_moment_loses_nothing_that_was_reported_and_tears_nothing() {
    const COMMITS: u64 = 90;
    let tape = Arc::default();
    let [file, log] = [0, 1].map(|which| Taped { which, bytes: Arc::default(), tape: Arc::clone(&tape) });
    let store = on(file, log);
    let opened = lock(&tape).len();
    let memory = MemStore::new("store");
    let mut reported = Vec::new();
    let mut states = vec![memory.dump()];
    for number in 1..=COMMITS {
        commit(&store, number);
        commit(&memory, number);
        reported.push(lock(&tape).len());
        states.push(memory.dump());
        assert_eq!(store.dump().unwrap(), memory.dump(), "after commit {number}");
    }
    let tape = lock(&tape).clone();
    let mut generations = BTreeSet::new();
    // What is there, and what is there for certain.
    let (mut now, mut certain) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for (at, (which, done)) in tape.iter().enumerate() {
        play(&mut now[*which], done);
        match done {
            Done::Sync => certain[*which].clone_from(&now[*which]),
            // Half of it, in the log: it is not synced, and so it may be.
            Done::Write(offset, data) if *which == 1 => {
                write_at(&mut certain[1], *offset, &data[..data.len() / 2])
            }
            _ => {}
        }
        if at + 1 < opened {
            continue;
        }
        let committed = reported.iter().filter(|end| **end <= at + 1).count();
        let may_be = &states[committed..states.len().min(committed + 2)];
        for files in [&now, &certain] {
            let [file, log] =
                files.clone().map(|bytes| Disk { bytes: Arc::new(Mutex::new(bytes)), ..Disk::default() });
            let again = on(file.clone(), log.clone());
            let state = again.dump().unwrap();
            assert!(may_be.contains(&state), "step {at}, {done:?}: {committed} commits were reported");
            generations.insert(again.shared.queue.log().generation);
            // It goes on from there, and a second crash right then changes nothing.
            commit(&again, 1_000);
            let state = again.dump().unwrap();
            drop(again);
            assert_eq!(on(file, log).dump().unwrap(), state, "step {at}: one commit more, and opened again");
        }
    }
    assert!(generations.len() > 5, "the log was taken over again and again: {generations:?}");
}

#[test]
fn reads_see_through_what_redb_has_not_yet() {
    let store = on(Disk::default(), Disk::default());
    let memory = MemStore::new("store");
    let mut rng = context().rng("keys");
    let stores: [&dyn Store; 2] = [&store, &memory];
    for round in 0..400 {
        let draws: Vec<(u8, bool)> =
            (0..4).map(|_| (rng.random_range(0..40), rng.random_bool(0.4))).collect();
        let fails = rng.random_bool(0.2);
        let outcomes = stores.map(|store| {
            store.transact_with::<_, StoreError>(&context(), |tables| {
                let mut seen = Vec::new();
                for (key, deletes) in &draws {
                    if *deletes {
                        seen.push((u64::from(tables.delete("table", &[*key])?), Vec::new()));
                    } else {
                        tables.put("table", &[*key], &[round as u8; 20])?;
                    }
                    seen.push((tables.count("table")?, tables.scan("table", Range::after(&[10]), 7)?));
                }
                if fails { Err(StoreError::Failed(format!("{seen:?}"))) } else { Ok(seen) }
            })
        });
        assert_eq!(outcomes[0], outcomes[1], "round {round}");
        assert_eq!(store.dump().unwrap(), memory.dump(), "round {round}");
        let counts = stores.map(|store| store.read_with::<_, StoreError>(|tables| tables.count("table")));
        assert_eq!(counts[0], counts[1], "round {round}");
    }
}

#[test]
fn a_log_and_a_file_of_different_times_are_not_taken_for_one_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    let log = folder.path().join("s.redb.log");
    let open = || RedbStore::open("store", &path, Survives::ProcessCrash);
    put(&open().unwrap(), b"key", b"1").unwrap();
    let old = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    insta::assert_snapshot!(refusal(&path), @"the store `PATH` is not there, but its log is (`PATH.log`), with commits: put the store back, or move the log away to begin with an empty store");
    std::fs::write(&path, &old).unwrap();
    put(&open().unwrap(), b"key", b"2").unwrap();
    // A copy of before goes back, and the log stays.
    std::fs::write(&path, &old).unwrap();
    insta::assert_snapshot!(refusal(&path), @"`PATH` is not a store that can be read (its log is of generation 1, and it lacks only 0: they are not of one time): put the file and its log (`.log`) back from a copy, or move both away to begin with an empty store");
    std::fs::remove_file(&log).unwrap();
    open().expect("without its log it is the store that it was");
}

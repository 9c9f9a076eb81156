//! What every [`Store`] must do, one function a case. A new store runs [`all`] in its tests.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use context::real::RealHost;
use context::{Context, Event, EventKind, Recorder, Seed};

use super::{Range, Store, StoreError, StoreExt, Tables};

/// Makes an empty store.
pub type Factory<'a> = &'a dyn Fn() -> Box<dyn Store>;

/// Runs every case on a store of its own.
///
/// # Panics
/// At the first case that the store fails.
pub fn all(factory: Factory<'_>) {
    a_commit_is_seen_by_later_reads(&*factory());
    a_transaction_reads_its_own_writes(&*factory());
    an_error_leaves_nothing(&*factory());
    a_panic_leaves_nothing(&*factory());
    keys_come_in_order(&*factory());
    a_scan_keeps_to_its_range(&*factory());
    a_commit_is_recorded_once_with_its_writes(&*factory());
    a_commit_wakes_those_who_wait(&*factory());
}

type Entries = Vec<(&'static [u8], &'static [u8])>;

fn quiet() -> Context {
    RealHost::new("conformance", Seed(1)).into_context()
}

fn put(store: &dyn Store, entries: Entries) {
    let put =
        |tables: &mut dyn Tables| entries.iter().try_for_each(|(key, value)| tables.put("table", key, value));
    store.transact_with::<_, StoreError>(&quiet(), put).expect("puts commit");
}

fn scan(store: &dyn Store, range: Range<'_>, limit: usize) -> Vec<Vec<u8>> {
    let entries = store.read_with::<_, StoreError>(|tables| tables.scan("table", range, limit));
    entries.expect("a scan reads").into_iter().map(|(key, _)| key.to_vec()).collect()
}

fn get(store: &dyn Store, key: &[u8]) -> Option<Vec<u8>> {
    let value = store.read_with::<_, StoreError>(|tables| tables.get("table", key));
    value.expect("a get reads").map(|value| value.to_vec())
}

fn a_commit_is_seen_by_later_reads(store: &dyn Store) {
    assert_eq!(get(store, b"key"), None, "a table that was never written is empty");
    put(store, vec![(b"key", b"1"), (b"key", b"2"), (b"empty", b"")]);
    assert_eq!(get(store, b"key"), Some(b"2".to_vec()), "the last write counts");
    assert_eq!(get(store, b"empty"), Some(Vec::new()), "the empty value is a value");
    let other = store.read_with::<_, StoreError>(|tables| tables.get("other", b"key"));
    assert_eq!(other, Ok(None), "tables are apart");
    let count = store.read_with::<_, StoreError>(|tables| tables.count("table"));
    assert_eq!(count, Ok(2), "the count is that of the keys");
}

fn a_transaction_reads_its_own_writes(store: &dyn Store) {
    put(store, vec![(b"a", b"1"), (b"b", b"1")]);
    let result = store.transact_with::<_, StoreError>(&quiet(), |tables| {
        assert!(tables.delete("table", b"a")?, "what is there can be deleted");
        assert!(!tables.delete("table", b"a")?, "what is deleted is gone");
        tables.put("table", b"c", b"1")?;
        assert_eq!(tables.get("table", b"a")?, None, "a transaction sees its deletes");
        let keys = tables.scan("table", Range::ALL, usize::MAX)?;
        Ok(keys.into_iter().map(|(key, _)| key.to_vec()).collect::<Vec<_>>())
    });
    assert_eq!(result, Ok(vec![b"b".to_vec(), b"c".to_vec()]), "a scan sees the transaction's writes");
    assert_eq!(scan(store, Range::ALL, usize::MAX), [b"b".to_vec(), b"c".to_vec()]);
}

/// Overwrites, deletes and adds, in two tables.
fn disturb(tables: &mut dyn Tables) -> Result<(), StoreError> {
    tables.put("table", b"kept", b"changed")?;
    tables.put("table", b"kept", b"changed again")?;
    tables.delete("table", b"deleted")?;
    tables.put("table", b"deleted", b"put back otherwise")?;
    tables.put("table", b"new", b"1")?;
    tables.delete("table", b"new")?;
    tables.put("other", b"new", b"1")
}

fn before(store: &dyn Store) {
    put(store, vec![(b"kept", b"1"), (b"deleted", b"1")]);
}

fn assert_as_before(store: &dyn Store) {
    assert_eq!(get(store, b"kept"), Some(b"1".to_vec()), "an overwrite was rolled back");
    assert_eq!(get(store, b"deleted"), Some(b"1".to_vec()), "a delete was rolled back");
    assert_eq!(get(store, b"new"), None, "a new key was rolled back");
    let other = store.read_with::<_, StoreError>(|tables| tables.count("other"));
    assert_eq!(other, Ok(0), "the other table was rolled back too");
}

fn an_error_leaves_nothing(store: &dyn Store) {
    before(store);
    let result = store.transact_with::<(), _>(&quiet(), |tables| {
        disturb(tables)?;
        Err(StoreError::Failed("on purpose".into()))
    });
    assert_eq!(result, Err(StoreError::Failed("on purpose".into())), "the work's error comes through");
    assert_as_before(store);
}

fn a_panic_leaves_nothing(store: &dyn Store) {
    before(store);
    let work = || {
        store.transact_with::<(), StoreError>(&quiet(), |tables| {
            disturb(tables)?;
            // Not `panic!`: that prints through the hook, and this one is expected.
            std::panic::resume_unwind(Box::new("on purpose"))
        })
    };
    assert!(catch_unwind(AssertUnwindSafe(work)).is_err(), "the panic passes through");
    assert_as_before(store);
    put(store, vec![(b"later", b"1")]);
    assert_eq!(get(store, b"later"), Some(b"1".to_vec()), "the store goes on after a panic");
}

fn keys_come_in_order(store: &dyn Store) {
    put(store, vec![(b"b", b""), (b"\xff", b""), (b"a\x00", b""), (b"a", b""), (b"", b"")]);
    let expected: [&[u8]; 5] = [b"", b"a", b"a\x00", b"b", b"\xff"];
    assert_eq!(scan(store, Range::ALL, usize::MAX), expected);
    assert_eq!(scan(store, Range::ALL, 2), expected[..2], "a limit keeps the first");
}

fn a_scan_keeps_to_its_range(store: &dyn Store) {
    put(store, vec![(b"a", b""), (b"b", b""), (b"b1", b""), (b"b2", b""), (b"c", b""), (b"\xff\xff", b"")]);
    let keys = |range| scan(store, range, usize::MAX);
    let expect = |keys: &[&[u8]]| keys.iter().map(|key| key.to_vec()).collect::<Vec<_>>();
    assert_eq!(keys(Range::prefix(b"b")), expect(&[b"b", b"b1", b"b2"]));
    assert_eq!(keys(Range::prefix(b"\xff")), expect(&[b"\xff\xff"]), "the last prefix has no next");
    assert_eq!(keys(Range::from(b"b1")), expect(&[b"b1", b"b2", b"c", b"\xff\xff"]));
    assert_eq!(keys(Range::after(b"b1").up_to(b"c")), expect(&[b"b2", b"c"]));
    assert_eq!(
        keys(Range::after(b"c").up_to(b"b")),
        expect(&[]),
        "a range that ends before it begins is empty"
    );
    assert_eq!(keys(Range { prefix: b"b", ..Range::after(b"b1") }), expect(&[b"b2"]));
    assert_eq!(keys(Range { prefix: b"b", ..Range::after(b"a") }), expect(&[b"b", b"b1", b"b2"]));
}

#[derive(Default)]
struct Commits(Mutex<Vec<(String, Vec<u8>)>>);

impl Recorder for Commits {
    fn record(&self, event: Event<'_>) {
        if event.kind == EventKind::Commit {
            let mut commits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            commits.push((event.text.to_string(), event.bytes.to_vec()));
        }
    }
}

fn a_commit_is_recorded_once_with_its_writes(store: &dyn Store) {
    let commits = Arc::new(Commits::default());
    let context = RealHost::new("conformance", Seed(1)).with_recorder(commits.clone()).into_context();
    let put = |value: &'static [u8]| {
        store.transact_with::<_, StoreError>(&context, |tables| tables.put("table", b"key", value))
    };
    put(b"first").expect("a put commits");
    put(b"other").expect("a put commits");
    store
        .transact_with::<_, StoreError>(&context, |tables| tables.get("table", b"key"))
        .expect("a get reads");
    let failed = store.transact_with::<(), _>(&context, |tables| {
        tables.put("table", b"key", b"never")?;
        Err(StoreError::Failed("on purpose".into()))
    });
    assert!(failed.is_err());
    let commits = commits.0.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(commits.len(), 2, "one record a commit that wrote, none for reads and rollbacks: {commits:?}");
    assert!(commits[0].1.windows(5).any(|bytes| bytes == b"first"), "the value is in the record");
    assert_ne!(commits[0].1, commits[1].1, "another value gives another record");
}

fn a_commit_wakes_those_who_wait(store: &dyn Store) {
    use std::future::Future as _;
    let changed = store.changed();
    let mut waiting = Box::pin(changed.notified());
    waiting.as_mut().enable();
    let mut nobody = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(waiting.as_mut().poll(&mut nobody).is_pending(), "nothing has changed yet");
    put(store, vec![(b"key", b"1")]);
    assert!(waiting.as_mut().poll(&mut nobody).is_ready(), "a commit wakes");
}

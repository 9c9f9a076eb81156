//! A store in memory that outlives its hosts: for sweeps over many seeds.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use context::Context;
use tokio::sync::Notify;

use super::journal::{self, Write};
use super::{Range, ReadTables, ReadWork, Store, StoreError, Tables, Work};

/// Tables in memory. A clone is the same store: make it outside of the hosts and hand a clone to every replica.
///
/// It has the crash semantics of a database with synchronous commits: a commit that returned survives every crash, and
/// of a transaction that did not commit nothing is left. Torn and lost writes it cannot show.
#[derive(Clone)]
pub struct MemStore {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    tables: Mutex<Contents>,
    changed: Arc<Notify>,
}

/// One entry of a store: its table, key and value.
pub type Entry = (String, Bytes, Bytes);

type Contents = BTreeMap<String, BTreeMap<Bytes, Bytes>>;

impl MemStore {
    /// An empty store; `name` shows in the trace.
    pub fn new(name: impl Into<String>) -> MemStore {
        let shared = Shared { name: name.into(), tables: Mutex::default(), changed: Arc::new(Notify::new()) };
        MemStore { shared: Arc::new(shared) }
    }

    /// A store with these entries: another's [`MemStore::dump`].
    pub fn load(name: impl Into<String>, entries: impl IntoIterator<Item = Entry>) -> MemStore {
        let store = MemStore::new(name);
        let mut contents = store.contents();
        for (table, key, value) in entries {
            set(&mut contents, &table, &key, Some(value));
        }
        drop(contents);
        store
    }

    /// Every entry of every table, in order: for comparing two stores, and to make the same store again.
    pub fn dump(&self) -> Vec<Entry> {
        let contents = self.contents();
        let entries = contents.iter().flat_map(|(table, entries)| {
            entries.iter().map(move |(key, value)| (table.clone(), key.clone(), value.clone()))
        });
        entries.collect()
    }

    /// Makes the writes of a commit that another store has recorded ([`journal`]), so that this one follows it. It is
    /// recorded there, hence not again here.
    pub fn follow(&self, writes: &[Write]) {
        let mut contents = self.contents();
        for write in writes {
            set(&mut contents, &write.table, &write.key, write.value.clone());
        }
        drop(contents);
        self.shared.changed.notify_waiters();
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        // A panic within a transaction was rolled back as it unwound: the contents are whole.
        self.shared.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemStore {
    fn transact(&self, context: &Context, work: Work<'_>) -> Result<(), StoreError> {
        let mut transaction =
            Transaction { contents: self.contents(), writes: Vec::new(), before: Vec::new(), done: false };
        work(&mut transaction)?;
        let writes = transaction.commit();
        if writes.is_empty() {
            return Ok(());
        }
        // After the lock: whoever hears of the commit may look into the store.
        journal::record(context, &self.shared.name, &writes);
        self.shared.changed.notify_waiters();
        Ok(())
    }

    fn read(&self, work: ReadWork<'_>) -> Result<(), StoreError> {
        work(&Reading(self.contents()))
    }

    fn changed(&self) -> Arc<Notify> {
        self.shared.changed.clone()
    }
}

impl fmt::Debug for MemStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemStore({})", self.shared.name)
    }
}

fn get(contents: &Contents, table: &str, key: &[u8]) -> Option<Bytes> {
    contents.get(table)?.get(key).cloned()
}

fn scan(contents: &Contents, table: &str, range: Range<'_>, limit: usize) -> Vec<(Bytes, Bytes)> {
    let Some(entries) = contents.get(table) else { return Vec::new() };
    entries
        .range::<[u8], _>((range.first(), Bound::Unbounded))
        .take_while(|(key, _)| !range.ends_before(key))
        .take(limit)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn count(contents: &Contents, table: &str) -> u64 {
    contents.get(table).map_or(0, |entries| entries.len() as u64)
}

struct Reading<'a>(MutexGuard<'a, Contents>);

impl ReadTables for Reading<'_> {
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(get(&self.0, table, key))
    }

    fn scan(&self, table: &str, range: Range<'_>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        Ok(scan(&self.0, table, range, limit))
    }

    fn count(&self, table: &str) -> Result<u64, StoreError> {
        Ok(count(&self.0, table))
    }
}

/// Writes in place, and remembers how to undo it.
struct Transaction<'a> {
    contents: MutexGuard<'a, Contents>,
    writes: Vec<Write>,
    /// What was there before each of the writes.
    before: Vec<Option<Bytes>>,
    done: bool,
}

impl Transaction<'_> {
    fn write(&mut self, table: &str, key: &[u8], value: Option<Bytes>) -> bool {
        let key = Bytes::copy_from_slice(key);
        let before = set(&mut self.contents, table, &key, value.clone());
        let was_there = before.is_some();
        self.writes.push(Write { table: table.to_owned(), key, value });
        self.before.push(before);
        was_there
    }

    fn commit(mut self) -> Vec<Write> {
        self.done = true;
        std::mem::take(&mut self.writes)
    }
}

/// Sets or removes an entry; gives what was there.
fn set(contents: &mut Contents, table: &str, key: &Bytes, value: Option<Bytes>) -> Option<Bytes> {
    match value {
        Some(value) => match contents.get_mut(table) {
            Some(entries) => entries.insert(key.clone(), value),
            None => contents.entry(table.to_owned()).or_default().insert(key.clone(), value),
        },
        None => contents.get_mut(table)?.remove(key),
    }
}

impl Drop for Transaction<'_> {
    /// Error or panic: back to the state before, the last write first.
    fn drop(&mut self) {
        if !self.done {
            for (write, before) in self.writes.drain(..).zip(self.before.drain(..)).rev() {
                set(&mut self.contents, &write.table, &write.key, before);
            }
        }
    }
}

impl ReadTables for Transaction<'_> {
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(get(&self.contents, table, key))
    }

    fn scan(&self, table: &str, range: Range<'_>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        Ok(scan(&self.contents, table, range, limit))
    }

    fn count(&self, table: &str) -> Result<u64, StoreError> {
        Ok(count(&self.contents, table))
    }
}

impl Tables for Transaction<'_> {
    fn put(&mut self, table: &str, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.write(table, key, Some(Bytes::copy_from_slice(value)));
        Ok(())
    }

    fn delete(&mut self, table: &str, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self.write(table, key, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    #[test]
    fn the_memory_store_passes_the_conformance_suite() {
        conformance::all(&|| Box::new(MemStore::new("store")));
    }

    #[test]
    fn a_store_that_follows_anothers_commits_is_the_same() {
        let (recorded, context) = journal::testing::recording();
        let store = MemStore::new("store");
        let put = |tables: &mut dyn Tables| {
            tables.put("one", b"kept", b"1")?;
            tables.put("one", b"gone", b"1")?;
            tables.put("two", b"", b"")
        };
        store.transact(&context, &mut |tables| put(tables)).unwrap();
        let copy = MemStore::load("copy", store.dump());
        store.transact(&context, &mut |tables| tables.delete("one", b"gone").map(drop)).unwrap();
        store.transact(&context, &mut |tables| tables.put("one", b"kept", b"2")).unwrap();
        assert_ne!(copy.dump(), store.dump());
        for (_, bytes) in &recorded.commits()[1..] {
            copy.follow(&journal::decode(bytes).expect("a journal reads"));
        }
        assert_eq!(copy.dump(), store.dump());
    }
}

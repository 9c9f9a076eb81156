//! A store in memory that outlives its hosts: for sweeps over many seeds.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use context::{Context, EventKind};
use tokio::sync::Notify;

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

type Contents = BTreeMap<String, BTreeMap<Bytes, Bytes>>;

impl MemStore {
    /// An empty store; `name` shows in the trace.
    pub fn new(name: impl Into<String>) -> MemStore {
        let shared = Shared { name: name.into(), tables: Mutex::default(), changed: Arc::new(Notify::new()) };
        MemStore { shared: Arc::new(shared) }
    }

    /// Every entry of every table, in order: for comparing two stores.
    pub fn dump(&self) -> Vec<(String, Bytes, Bytes)> {
        let contents = self.contents();
        let entries = contents.iter().flat_map(|(table, entries)| {
            entries.iter().map(move |(key, value)| (table.clone(), key.clone(), value.clone()))
        });
        entries.collect()
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        // A panic within a transaction was rolled back as it unwound: the contents are whole.
        self.shared.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemStore {
    fn transact(&self, context: &Context, work: Work<'_>) -> Result<(), StoreError> {
        let mut transaction = Transaction { contents: self.contents(), writes: Vec::new(), done: false };
        work(&mut transaction)?;
        let journal = transaction.commit();
        if journal.writes == 0 {
            return Ok(());
        }
        // After the lock: whoever hears of the commit may look into the store.
        context.record(
            EventKind::Commit,
            format_args!("{} wrote {} to {}", self.shared.name, journal.writes, journal.tables),
            &journal.bytes,
        );
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
    // The prefix is a lower bound of its own; the higher of the two counts.
    let from = match range.from {
        Bound::Unbounded => Bound::Included(range.prefix),
        Bound::Included(from) | Bound::Excluded(from) if from < range.prefix => Bound::Included(range.prefix),
        from => from,
    };
    let beyond = |key: &[u8]| match range.to {
        Bound::Unbounded => false,
        Bound::Included(to) => key > to,
        Bound::Excluded(to) => key >= to,
    };
    entries
        .range::<[u8], _>((from, Bound::Unbounded))
        .take_while(|(key, _)| key.starts_with(range.prefix) && !beyond(key))
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
    done: bool,
}

struct Write {
    table: String,
    key: Bytes,
    before: Option<Bytes>,
    after: Option<Bytes>,
}

/// The writes of a commit, as they go into a run's hash.
struct Journal {
    writes: usize,
    tables: String,
    bytes: Vec<u8>,
}

impl Transaction<'_> {
    fn write(&mut self, table: &str, key: &[u8], after: Option<Bytes>) -> bool {
        let key = Bytes::copy_from_slice(key);
        let before = set(&mut self.contents, table, &key, after.clone());
        let was_there = before.is_some();
        self.writes.push(Write { table: table.to_owned(), key, before, after });
        was_there
    }

    fn commit(mut self) -> Journal {
        self.done = true;
        let mut journal = Journal { writes: self.writes.len(), tables: String::new(), bytes: Vec::new() };
        for write in &self.writes {
            if !journal.tables.split(' ').any(|table| table == write.table) {
                if !journal.tables.is_empty() {
                    journal.tables.push(' ');
                }
                journal.tables.push_str(&write.table);
            }
            // Lengths go before the parts, so that no two journals share their bytes.
            let value = write.after.as_deref();
            for part in [write.table.as_bytes(), &write.key, value.unwrap_or_default()] {
                journal.bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
                journal.bytes.extend_from_slice(part);
            }
            journal.bytes.push(u8::from(value.is_some()));
        }
        journal
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
            for write in self.writes.drain(..).rev() {
                set(&mut self.contents, &write.table, &write.key, write.before);
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
}

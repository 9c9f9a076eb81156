//! What was committed since redb last took the log over, in memory, and how it is read over redb's tables.

use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;
use std::ops::Bound;

use bytes::Bytes;
use redb::{
    Database, ReadOnlyTable, ReadableDatabase as _, ReadableTableMetadata as _, StorageError,
    TableHandle as _,
};

use super::{OWN, Raw};
use crate::store::{Range, memory::Entry};

/// Changes of tables, by name.
#[derive(Debug, Default)]
pub(super) struct Recent {
    pub(super) tables: BTreeMap<String, Changes>,
}

/// Changes of one table.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// The last value of a key; none if it was deleted.
    pub(super) entries: BTreeMap<Bytes, Option<Bytes>>,
    /// How many entries the table has more than what is beneath.
    pub(super) grown: i64,
}

impl Recent {
    /// What became of `key`; the outer none if nothing did.
    pub(super) fn get(&self, table: &str, key: &[u8]) -> Option<&Option<Bytes>> {
        self.tables.get(table)?.entries.get(key)
    }

    /// The changes of a table.
    pub(super) fn table(&mut self, table: &str) -> &mut Changes {
        if !self.tables.contains_key(table) {
            self.tables.insert(table.to_owned(), Changes::default());
        }
        self.tables.get_mut(table).expect("it was just made")
    }

    fn grown(&self, table: &str) -> i64 {
        self.tables.get(table).map_or(0, |changes| changes.grown)
    }

    fn range(&self, table: &str, first: Bound<&[u8]>) -> btree_map::Range<'_, Bytes, Option<Bytes>> {
        match self.tables.get(table) {
            Some(changes) => changes.entries.range::<[u8], _>((first, Bound::Unbounded)),
            None => btree_map::Range::default(),
        }
    }
}

/// The tables in redb's file, as redb last took them over.
pub(super) struct Base {
    tables: BTreeMap<String, ReadOnlyTable<&'static [u8], &'static [u8]>>,
}

impl Base {
    pub(super) fn open(database: &Database) -> Result<Base, redb::Error> {
        let transaction = database.begin_read()?;
        let mut tables = BTreeMap::new();
        for table in transaction.list_tables()? {
            if table.name() != OWN {
                tables.insert(table.name().to_owned(), transaction.open_table(Raw::new(table.name()))?);
            }
        }
        Ok(Base { tables })
    }

    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        match self.tables.get(table) {
            Some(table) => Ok(table.get(key)?.map(|value| Bytes::copy_from_slice(value.value()))),
            None => Ok(None),
        }
    }

    fn has(&self, table: &str, key: &[u8]) -> Result<bool, StorageError> {
        self.tables.get(table).map_or(Ok(false), |table| Ok(table.get(key)?.is_some()))
    }
}

/// What is committed: what redb has, and the changes since.
pub(super) struct Committed {
    pub(super) base: Base,
    pub(super) recent: Recent,
}

impl Committed {
    pub(super) fn over(base: Base) -> Committed {
        Committed { base, recent: Recent::default() }
    }

    /// Adds the changes of a batch.
    pub(super) fn add(&mut self, batch: Recent) {
        for (name, changes) in batch.tables {
            let into = self.recent.table(&name);
            into.grown += changes.grown;
            for (key, value) in changes.entries {
                // What redb never had need not be deleted there. A deletion too many does no harm, so an error does not, either:
                // whoever reads next will say it.
                if value.is_none() && !self.base.has(&name, &key).unwrap_or(true) {
                    into.entries.remove(&key);
                } else {
                    into.entries.insert(key, value);
                }
            }
        }
    }

    /// As it is read by those who see no open batch.
    pub(super) fn view(&self) -> View<'_> {
        View { base: &self.base, recent: &self.recent, batch: None }
    }

    /// As it is read within a batch.
    pub(super) fn view_in<'a>(&'a self, batch: &'a Recent) -> View<'a> {
        View { base: &self.base, recent: &self.recent, batch: Some(batch) }
    }
}

/// Layers of a store, the upper before the lower.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    base: &'a Base,
    recent: &'a Recent,
    batch: Option<&'a Recent>,
}

impl View<'_> {
    pub(super) fn get(&self, table: &str, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        match self.changed(table, key) {
            Some(value) => Ok(value.clone()),
            None => self.base.get(table, key),
        }
    }

    /// Whether `key` is there.
    pub(super) fn has(&self, table: &str, key: &[u8]) -> Result<bool, StorageError> {
        match self.changed(table, key) {
            Some(value) => Ok(value.is_some()),
            None => self.base.has(table, key),
        }
    }

    /// What became of `key` above redb.
    fn changed(&self, table: &str, key: &[u8]) -> Option<&Option<Bytes>> {
        self.batch.and_then(|batch| batch.get(table, key)).or_else(|| self.recent.get(table, key))
    }

    pub(super) fn count(&self, table: &str) -> Result<u64, StorageError> {
        let beneath = self.base.tables.get(table).map_or(Ok(0), |table| table.len())?;
        let grown = self.recent.grown(table) + self.batch.map_or(0, |batch| batch.grown(table));
        Ok(beneath.checked_add_signed(grown).expect("a table has no fewer than no entries"))
    }

    pub(super) fn scan(
        &self,
        table: &str,
        range: Range<'_>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        let first = range.first();
        let mut batch = self.batch.map(|batch| batch.range(table, first)).unwrap_or_default().peekable();
        let mut recent = self.recent.range(table, first).peekable();
        let mut base = match self.base.tables.get(table) {
            Some(table) => Some(table.range::<&[u8]>((first, Bound::Unbounded))?),
            None => None,
        };
        let mut next_of_base = || base.as_mut().and_then(Iterator::next).transpose();
        let mut held = next_of_base()?;
        let mut entries = Vec::new();
        while entries.len() < limit {
            let keys = [peek(&mut batch), peek(&mut recent), held.as_ref().map(|(key, _)| key.value())];
            let Some(least) = keys.into_iter().flatten().min() else { break };
            if range.ends_before(least) {
                break;
            }
            // All that have the key go on; the uppermost says its value.
            let [in_batch, in_recent, in_base] = keys.map(|key| key == Some(least));
            let mut entry = None;
            if in_base && let Some((key, value)) = held.take() {
                if !in_batch && !in_recent {
                    entries
                        .push((Bytes::copy_from_slice(key.value()), Bytes::copy_from_slice(value.value())));
                }
                held = next_of_base()?;
            }
            if in_recent {
                entry = recent.next();
            }
            if in_batch {
                entry = batch.next();
            }
            if let Some((key, Some(value))) = entry {
                entries.push((key.clone(), value.clone()));
            }
        }
        Ok(entries)
    }

    /// Every entry of every table, in order.
    pub(super) fn dump(&self) -> Result<Vec<Entry>, StorageError> {
        let mut names: Vec<&String> = self.base.tables.keys().chain(self.recent.tables.keys()).collect();
        names.sort();
        names.dedup();
        let mut entries = Vec::new();
        for name in names {
            let all = self.scan(name, Range::ALL, usize::MAX)?;
            entries.extend(all.into_iter().map(|(key, value)| (name.clone(), key, value)));
        }
        Ok(entries)
    }
}

fn peek<'a>(changes: &mut Peekable<btree_map::Range<'a, Bytes, Option<Bytes>>>) -> Option<&'a [u8]> {
    changes.peek().map(|&(key, _)| &key[..])
}

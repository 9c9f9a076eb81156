//! One local ACID transaction over named tables: state, inbox and outbox commit together.
//!
//! Keys and values are bytes, tables are ordered by key; [`Table`] puts types over them. [`MemStore`] is the cheap
//! implementation, for sweeps; [`RedbStore`] keeps a file, for programs. What every implementation must
//! do is said by [`conformance`], and how a commit is recorded by [`journal`].
//!
//! A transaction is exclusive and synchronous: it runs alone, from start to commit, without an await. So its work is
//! called exactly once, and a read within it cannot be stale. The replicas of one service share one store, as they would
//! share a database.
//!
//! Absent on purpose: queries, secondary indexes (write a second table in the same transaction), and transactions over
//! two stores.

pub mod conformance;
pub mod journal;
mod key;
mod memory;
mod redb;
mod table;

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use context::Context;
use tokio::sync::Notify;

pub use self::redb::{OpenError, RedbStore, Survives};
pub use key::Key;
pub use memory::{Entry, MemStore};
pub use table::{Codec, Json, Protobuf, Table};

/// Why a transaction or a read did not happen. Nothing of it was committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The work asked for a rollback; what it wanted to say travels beside this.
    #[error("the transaction was rolled back by its own work")]
    RolledBack,
    /// What is stored is not what the reader expects: a bug or a damaged store. Trying again does not help.
    #[error("table `{table}` holds what cannot be read: {cause}")]
    Corrupt {
        /// The table.
        table: String,
        /// What does not fit.
        cause: String,
    },
    /// The store could not do it now.
    #[error("the store failed: {0}")]
    Failed(String),
}

/// Reads named tables. A table that was never written is empty.
pub trait ReadTables {
    /// The value of `key`.
    ///
    /// # Errors
    /// [`StoreError::Failed`] if the store cannot read.
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// At most `limit` entries between two keys, in the order of their keys.
    ///
    /// # Errors
    /// As [`ReadTables::get`].
    fn scan(&self, table: &str, range: Range<'_>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError>;

    /// How many entries a table has.
    ///
    /// # Errors
    /// As [`ReadTables::get`].
    fn count(&self, table: &str) -> Result<u64, StoreError>;
}

/// Reads and writes named tables within a transaction. Its own writes are visible to its reads.
pub trait Tables: ReadTables {
    /// Puts `value` under `key`, in place of what was there.
    ///
    /// # Errors
    /// [`StoreError::Failed`] if the store cannot write.
    fn put(&mut self, table: &str, key: &[u8], value: &[u8]) -> Result<(), StoreError>;

    /// Deletes `key`; says whether it was there.
    ///
    /// # Errors
    /// As [`Tables::put`].
    fn delete(&mut self, table: &str, key: &[u8]) -> Result<bool, StoreError>;
}

/// A range of keys.
#[derive(Clone, Copy, Debug)]
pub struct Range<'a> {
    /// Where it begins.
    pub from: Bound<&'a [u8]>,
    /// Where it ends.
    pub to: Bound<&'a [u8]>,
    /// Only keys that begin with this.
    pub prefix: &'a [u8],
}

impl<'a> Range<'a> {
    /// All keys.
    pub const ALL: Range<'static> = Range { from: Bound::Unbounded, to: Bound::Unbounded, prefix: &[] };

    /// The keys that begin with `prefix`.
    pub fn prefix(prefix: &'a [u8]) -> Range<'a> {
        Range { prefix, ..Range::ALL }
    }

    /// The keys from `from` on, it included.
    pub fn from(from: &'a [u8]) -> Range<'a> {
        Range { from: Bound::Included(from), ..Range::ALL }
    }

    /// The keys after `after`.
    pub fn after(after: &'a [u8]) -> Range<'a> {
        Range { from: Bound::Excluded(after), ..Range::ALL }
    }

    /// Of these, the keys up to `to`, it included.
    #[must_use]
    pub fn up_to(self, to: &'a [u8]) -> Range<'a> {
        Range { to: Bound::Included(to), ..self }
    }

    /// Where a walk over ordered keys begins. The prefix is a lower bound of its own; the higher of the two counts.
    fn first(&self) -> Bound<&'a [u8]> {
        match self.from {
            Bound::Unbounded => Bound::Included(self.prefix),
            Bound::Included(from) | Bound::Excluded(from) if from < self.prefix => {
                Bound::Included(self.prefix)
            }
            from => from,
        }
    }

    /// Whether such a walk is over when it comes to `key`.
    fn ends_before(&self, key: &[u8]) -> bool {
        let beyond = match self.to {
            Bound::Unbounded => false,
            Bound::Included(to) => key > to,
            Bound::Excluded(to) => key >= to,
        };
        beyond || !key.starts_with(self.prefix)
    }
}

/// The work of a transaction: an error rolls it back.
pub type Work<'a> = &'a mut dyn FnMut(&mut dyn Tables) -> Result<(), StoreError>;

/// The work of a read.
pub type ReadWork<'a> = &'a mut dyn FnMut(&dyn ReadTables) -> Result<(), StoreError>;

/// A service's database. What it has committed is durable: it survives the crash of every replica.
pub trait Store: Send + Sync + 'static {
    /// Runs `work`, alone and exactly once, and commits what it wrote. Nothing stays of a `work` that fails or panics.
    ///
    /// A commit that wrote something is recorded through `context`, with its writes in order.
    ///
    /// # Errors
    /// That of `work`, or [`StoreError::Failed`] if the commit failed. Nothing is committed then, as far as any other
    /// transaction of this process will see.
    fn transact(&self, context: &Context, work: Work<'_>) -> Result<(), StoreError>;

    /// Runs `work` on one consistent state.
    ///
    /// # Errors
    /// That of `work`.
    fn read(&self, work: ReadWork<'_>) -> Result<(), StoreError>;

    /// Notified (`notify_waiters`) after every commit that wrote something, by whichever replica, as a database's
    /// LISTEN does. A waiter must look at the store between `enable` and the await of its `notified()`.
    fn changed(&self) -> Arc<Notify>;
}

/// [`Store`] with results, for every store.
pub trait StoreExt: Store {
    /// [`Store::transact`] with a result, and an error type of the caller's.
    ///
    /// # Errors
    /// That of `work`, or the store's own.
    fn transact_with<T, E: From<StoreError>>(
        &self,
        context: &Context,
        work: impl FnOnce(&mut dyn Tables) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut work = Some(work);
        let mut outcome = None;
        let committed = self.transact(context, &mut |tables| {
            let work = work.take().expect("a store runs the work of a transaction once");
            let result = work(tables);
            let verdict = if result.is_ok() { Ok(()) } else { Err(StoreError::RolledBack) };
            outcome = Some(result);
            verdict
        });
        match (committed, outcome) {
            (Ok(()), outcome) => outcome.expect("a committed transaction ran its work"),
            (Err(_), Some(Err(error))) => Err(error),
            (Err(error), _) => Err(E::from(error)),
        }
    }

    /// [`Store::read`] with a result, and an error type of the caller's.
    ///
    /// # Errors
    /// That of `work`, or the store's own.
    fn read_with<T, E: From<StoreError>>(
        &self,
        work: impl FnOnce(&dyn ReadTables) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut work = Some(work);
        let mut outcome = None;
        self.read(&mut |tables| {
            let work = work.take().expect("a store runs the work of a read once");
            outcome = Some(work(tables));
            Ok(())
        })?;
        outcome.expect("a read ran its work")
    }
}

impl<S: Store + ?Sized> StoreExt for S {}

impl fmt::Debug for dyn Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

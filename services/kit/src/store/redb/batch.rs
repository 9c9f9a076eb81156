//! Transactions that wait for the disk together.
//!
//! A transaction runs alone: whoever has the open batch does its work in it, on what those before him in the batch have
//! written, and then makes room. The last who was waiting for room commits the batch for all, and each returns when that is
//! done. So a transaction that comes alone is committed at once, and the more come at a time, the fewer waits there are.
//!
//! A work that fails is undone within the batch, write by write, the last first; its neighbours do not notice. If the commit
//! fails, it fails for all of them.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use context::Context;
use redb::{ReadableTableMetadata as _, StorageError, WriteTransaction};

use super::{Raw, Shared, get, walk};
use crate::store::journal::{self, Write};
use crate::store::{Range, ReadTables, StoreError, Tables, Work};

/// Transactions of a batch. Its first is answered after its last has run, so it must end even if they never stop coming.
const TOGETHER_MAX: usize = 256;

/// Where transactions wait for their turn.
#[derive(Default)]
pub(super) struct Queue {
    /// Those that wait for the open batch.
    waiting: AtomicUsize,
    open: Mutex<Option<Batch>>,
    /// Held from before a commit until it is recorded, so that commits are recorded in their order.
    committing: Mutex<()>,
}

struct Batch {
    transaction: WriteTransaction,
    /// What was written, in order, and through whom each is recorded.
    written: Vec<(Option<Context>, Vec<Write>)>,
    together: usize,
    /// Why nothing of it can be committed: something could not be undone.
    spoiled: Option<StoreError>,
    fate: Arc<Fate>,
}

/// What became of a batch, for those who wait.
#[derive(Default)]
struct Fate {
    settled: Mutex<Option<Result<(), StoreError>>>,
    told: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No work runs unguarded under these locks: what they hold is whole, whoever panicked elsewhere.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Runs `work` alone and commits what it wrote, recorded through `context` if there is one.
    pub(super) fn transact(&self, context: Option<&Context>, work: Work<'_>) -> Result<(), StoreError> {
        // Before it waits: from then on somebody may count on it to commit the batch.
        if let Some(failure) = self.failure.get() {
            return Err(StoreError::Failed(failure.clone()));
        }
        let Queue { waiting, open, .. } = &self.queue;
        waiting.fetch_add(1, Ordering::SeqCst);
        let mut open = lock(open);
        waiting.fetch_sub(1, Ordering::SeqCst);
        // It waits in redb until the batch before is committed.
        let batch = match &mut *open {
            Some(batch) => batch,
            None => open.insert(self.begin()?),
        };
        let outcome = batch.run(self, context, work);
        let fate = batch.fate.clone();
        let is_last = waiting.load(Ordering::SeqCst) == 0 || batch.together >= TOGETHER_MAX;
        match is_last.then(|| open.take()).flatten() {
            Some(batch) => {
                let committing = lock(&self.queue.committing);
                drop(open);
                self.commit(batch);
                drop(committing);
            }
            None => drop(open),
        }
        match outcome {
            // Also if it wrote nothing: it may have read what its neighbours wrote.
            Ok(Ok(())) => fate.wait(),
            Ok(Err(error)) => Err(error),
            Err(panic) => resume_unwind(panic),
        }
    }

    fn begin(&self) -> Result<Batch, StoreError> {
        let transaction = self.database.begin_write().map_err(|error| self.cannot(error))?;
        let fate = Arc::default();
        Ok(Batch { transaction, written: Vec::new(), together: 0, spoiled: None, fate })
    }

    fn commit(&self, batch: Batch) {
        let Batch { transaction, written, spoiled, fate, .. } = batch;
        let fate = Unsettled { shared: self, fate: Some(fate) };
        let committed = match spoiled {
            Some(error) => transaction.abort().map_err(|error| self.fail(&error)).and(Err(error)),
            None if written.is_empty() => transaction.abort().map_err(|error| self.fail(&error)),
            None => transaction.commit().map_err(|error| self.fail(&error)),
        };
        if committed.is_ok() && !written.is_empty() {
            for (context, writes) in written {
                if let Some(context) = context {
                    journal::record(&context, &self.name, &writes);
                }
            }
            self.changed.notify_waiters();
        }
        fate.settle(committed);
    }
}

impl Batch {
    /// Runs a work in it, and keeps what it wrote unless it failed.
    fn run(
        &mut self,
        shared: &Shared,
        context: Option<&Context>,
        work: Work<'_>,
    ) -> std::thread::Result<Result<(), StoreError>> {
        self.together += 1;
        let mut open =
            Transaction { shared, transaction: &self.transaction, writes: Vec::new(), before: Vec::new() };
        // A panic must not pass by the undo, nor through the lock that others wait for.
        let outcome = catch_unwind(AssertUnwindSafe(|| work(&mut open)));
        if !matches!(outcome, Ok(Ok(()))) {
            self.spoiled = self.spoiled.take().or(open.undo().err());
        } else if !open.writes.is_empty() {
            self.written.push((context.cloned(), open.writes));
        }
        outcome
    }
}

/// A fate that others wait for, whatever happens on the way to it.
struct Unsettled<'a> {
    shared: &'a Shared,
    fate: Option<Arc<Fate>>,
}

impl Unsettled<'_> {
    fn settle(mut self, outcome: Result<(), StoreError>) {
        self.fate.take().expect("it is settled once").settle(outcome);
    }
}

impl Drop for Unsettled<'_> {
    fn drop(&mut self) {
        if let Some(fate) = self.fate.take() {
            fate.settle(Err(self.shared.fail(&"a commit has panicked, and may have been made or not")));
        }
    }
}

impl Fate {
    fn settle(&self, fate: Result<(), StoreError>) {
        *lock(&self.settled) = Some(fate);
        self.told.notify_all();
    }

    fn wait(&self) -> Result<(), StoreError> {
        let mut settled = lock(&self.settled);
        loop {
            if let Some(fate) = &*settled {
                return fate.clone();
            }
            settled = self.told.wait(settled).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

struct Transaction<'a> {
    shared: &'a Shared,
    transaction: &'a WriteTransaction,
    writes: Vec<Write>,
    /// What was there before each of the writes.
    before: Vec<Option<Bytes>>,
}

impl Transaction<'_> {
    /// Does something with a table, which is made if it is not there.
    fn with<T>(
        &self,
        table: &str,
        work: impl FnOnce(&mut redb::Table<'_, &'static [u8], &'static [u8]>) -> Result<T, StorageError>,
    ) -> Result<T, StoreError> {
        let open = self.transaction.open_table(Raw::new(table));
        let mut open = open.map_err(|error| self.shared.cannot(error))?;
        work(&mut open).map_err(|error| self.shared.cannot(error))
    }

    /// Puts or deletes; gives what was there.
    fn set(&self, table: &str, key: &[u8], value: Option<&[u8]>) -> Result<Option<Bytes>, StoreError> {
        self.with(table, |table| {
            let before = match value {
                Some(value) => table.insert(key, value)?,
                None => table.remove(key)?,
            };
            Ok(before.map(|before| Bytes::copy_from_slice(before.value())))
        })
    }

    fn write(&mut self, table: &str, key: &[u8], value: Option<&[u8]>) -> Result<bool, StoreError> {
        let before = self.set(table, key, value)?;
        let was_there = before.is_some();
        let (key, value) = (Bytes::copy_from_slice(key), value.map(Bytes::copy_from_slice));
        self.writes.push(Write { table: table.to_owned(), key, value });
        self.before.push(before);
        Ok(was_there)
    }

    fn undo(&self) -> Result<(), StoreError> {
        for (write, before) in self.writes.iter().zip(&self.before).rev() {
            self.set(&write.table, &write.key, before.as_deref())?;
        }
        Ok(())
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
        self.write(table, key, Some(value)).map(drop)
    }

    fn delete(&mut self, table: &str, key: &[u8]) -> Result<bool, StoreError> {
        self.write(table, key, None)
    }
}

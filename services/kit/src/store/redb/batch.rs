//! Transactions that wait for the disk together.
//!
//! A transaction runs alone: whoever has the open batch does its work in it, on what those before him in the batch have
//! written, and then makes room. The last who was waiting for room commits the batch for all, and each returns when that is
//! done. So a transaction that comes alone is committed at once, and the more come at a time, the fewer waits there are.
//!
//! A batch is in memory until it is in the log; nobody reads it before. A work that fails is undone within it, write by write, the
//! last first; its neighbours do not notice. If the commit fails, it fails for all of them.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use context::Context;

use super::log::Log;
use super::recent::{Committed, Recent};
use super::{Shared, lock};
use crate::store::journal::{self, Write};
use crate::store::{Range, ReadTables, StoreError, Tables, Work};

/// Transactions of a batch. Its first is answered after its last has run, so it must end even if they never stop coming.
const TOGETHER_MAX: usize = 256;

/// Where transactions wait for their turn.
pub(super) struct Queue {
    /// Those that wait for the open batch.
    waiting: AtomicUsize,
    open: Mutex<Option<Batch>>,
    /// Held from before a commit until it is recorded, so that commits are recorded in their order.
    log: Mutex<Log>,
}

impl Queue {
    pub(super) fn new(log: Log) -> Queue {
        Queue { waiting: AtomicUsize::new(0), open: Mutex::new(None), log: Mutex::new(log) }
    }

    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.log)
    }
}

#[derive(Default)]
struct Batch {
    changes: Recent,
    /// What was written, in order, and through whom each is recorded.
    written: Vec<(Option<Context>, Vec<Write>)>,
    together: usize,
    fate: Arc<Fate>,
}

/// What became of a batch, for those who wait.
#[derive(Default)]
struct Fate {
    settled: Mutex<Option<Result<(), StoreError>>>,
    told: Condvar,
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
        let batch = open.get_or_insert_with(|| {
            // It begins on what the batch before has committed.
            drop(self.queue.log());
            Batch::default()
        });
        let outcome = batch.run(self, context, work);
        let fate = batch.fate.clone();
        let is_last = waiting.load(Ordering::SeqCst) == 0 || batch.together >= TOGETHER_MAX;
        match is_last.then(|| open.take()).flatten() {
            Some(batch) => {
                let mut log = self.queue.log();
                drop(open);
                self.commit(&mut log, batch);
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

    fn commit(&self, log: &mut Log, batch: Batch) {
        let Batch { changes, written, fate, .. } = batch;
        if written.is_empty() {
            return fate.settle(Ok(()));
        }
        // One encoding for the log and for whoever hears of the commits.
        let mut payload = Vec::new();
        let ends: Vec<usize> = written
            .iter()
            .map(|(_, writes)| {
                journal::encode_into(writes, &mut payload);
                payload.len()
            })
            .collect();
        if let Err(error) = log.append(&payload) {
            return fate.settle(Err(self.fail(&error)));
        }
        self.change(|committed| committed.add(changes));
        let mut begin = 0;
        for ((context, writes), end) in written.iter().zip(ends) {
            if let Some(context) = context {
                journal::record_encoded(context, &self.name, writes, &payload[begin..end]);
            }
            begin = end;
        }
        self.changed.notify_waiters();
        fate.settle(Ok(()));
        // It has its answer, whatever becomes of this.
        if log.is_full()
            && let Err(error) = self.take_over(log)
        {
            self.fail(&error);
        }
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
        let mut open = Transaction {
            shared,
            committed: &shared.committed(),
            batch: &mut self.changes,
            writes: Vec::new(),
            before: Vec::new(),
        };
        // A panic must not pass by the undo, nor through the lock that others wait for.
        let outcome = catch_unwind(AssertUnwindSafe(|| work(&mut open)));
        if !matches!(outcome, Ok(Ok(()))) {
            open.undo();
        } else if !open.writes.is_empty() {
            self.written.push((context.cloned(), open.writes));
        }
        outcome
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
    committed: &'a Committed,
    batch: &'a mut Recent,
    writes: Vec<Write>,
    /// For each of the writes: what the batch had for its key, and by how many entries the table grew.
    before: Vec<(Option<Option<Bytes>>, i64)>,
}

impl Transaction<'_> {
    fn write(&mut self, table: &str, key: &[u8], value: Option<&[u8]>) -> Result<bool, StoreError> {
        let was_there = match self.batch.get(table, key) {
            Some(value) => value.is_some(),
            None => {
                let beneath = self.committed.view().has(table, key);
                beneath.map_err(|error| self.shared.cannot(&error))?
            }
        };
        let grown = i64::from(value.is_some()) - i64::from(was_there);
        let (key, value) = (Bytes::copy_from_slice(key), value.map(Bytes::copy_from_slice));
        let changes = self.batch.table(table);
        changes.grown += grown;
        let before = changes.entries.insert(key.clone(), value.clone());
        self.writes.push(Write { table: table.to_owned(), key, value });
        self.before.push((before, grown));
        Ok(was_there)
    }

    fn undo(&mut self) {
        for (write, (before, grown)) in self.writes.drain(..).zip(self.before.drain(..)).rev() {
            let changes = self.batch.table(&write.table);
            changes.grown -= grown;
            match before {
                Some(before) => drop(changes.entries.insert(write.key, before)),
                None => drop(changes.entries.remove(&write.key)),
            }
        }
    }
}

impl ReadTables for Transaction<'_> {
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.committed.view_in(self.batch).get(table, key);
        value.map_err(|error| self.shared.cannot(&error))
    }

    fn scan(&self, table: &str, range: Range<'_>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let entries = self.committed.view_in(self.batch).scan(table, range, limit);
        entries.map_err(|error| self.shared.cannot(&error))
    }

    fn count(&self, table: &str) -> Result<u64, StoreError> {
        self.committed.view_in(self.batch).count(table).map_err(|error| self.shared.cannot(&error))
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

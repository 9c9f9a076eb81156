//! One assigned partition: a queue, and a task that handles its records in order.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker::{ConsumerRecord, Offset, OffsetAndMetadata};
use context::TaskHandle;
use tokio::sync::Notify;

use super::innermost::Innermost;
use crate::Scope;
use crate::backoff::Backoff;
use crate::middleware::{Incoming, Middleware, Next};

/// Waits before a record is tried again that all layers have given up, because its dead letter could not be stored, say.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));

/// How every record of a subscription is handled.
pub(super) struct Pipeline {
    pub(super) scope: Scope,
    pub(super) layers: Vec<Arc<dyn Middleware>>,
    pub(super) core: Innermost,
}

/// A lane; its task stops when it is dropped.
pub(super) struct Lane {
    shared: Arc<Shared>,
    task: TaskHandle,
    /// Its partition is paused at the consumer.
    pub(super) paused: bool,
    /// What was committed last.
    pub(super) committed: Option<Offset>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// The task has something to look at.
    work: Notify,
    /// The task has settled a record.
    settled: Notify,
}

#[derive(Default)]
struct State {
    queue: VecDeque<ConsumerRecord>,
    working: bool,
    /// The position after the last settled record.
    done: Option<OffsetAndMetadata>,
    /// Nothing more is taken up.
    draining: bool,
    /// The task is gone.
    dead: bool,
}

impl Lane {
    pub(super) fn open(pipeline: Arc<Pipeline>) -> Lane {
        let shared = Arc::new(Shared::default());
        let context = pipeline.scope.context.clone();
        let task = context.spawn("lane", work(shared.clone(), pipeline));
        Lane { shared, task: task.handle(), paused: false, committed: None }
    }

    pub(super) fn push(&mut self, record: ConsumerRecord) {
        let mut state = self.shared.lock();
        if !state.draining {
            state.queue.push_back(record);
            self.shared.work.notify_one();
        }
    }

    /// Records that wait, the one in work not counted.
    pub(super) fn waiting(&self) -> usize {
        self.shared.lock().queue.len()
    }

    pub(super) fn is_idle(&self) -> bool {
        let state = self.shared.lock();
        !state.working && state.queue.is_empty()
    }

    pub(super) fn is_dead(&self) -> bool {
        self.shared.lock().dead
    }

    /// The position to commit, if there is progress.
    pub(super) fn to_commit(&self) -> Option<OffsetAndMetadata> {
        let done = self.shared.lock().done.clone()?;
        (self.committed != Some(done.offset)).then_some(done)
    }

    /// Takes up no more records; the future ends when the one in work is settled.
    pub(super) fn drain(&mut self) -> impl Future<Output = ()> + Send + 'static {
        let mut state = self.shared.lock();
        state.draining = true;
        state.queue.clear();
        drop(state);
        let shared = self.shared.clone();
        async move {
            loop {
                let mut settled = std::pin::pin!(shared.settled.notified());
                settled.as_mut().enable();
                if !shared.lock().working {
                    return;
                }
                settled.await;
            }
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn next(&self) -> ConsumerRecord {
        loop {
            let taken = {
                let mut state = self.lock();
                let taken = state.queue.pop_front();
                state.working = taken.is_some();
                taken
            };
            match taken {
                Some(record) => return record,
                None => self.work.notified().await,
            }
        }
    }

    fn settle(&self, record: &ConsumerRecord) {
        let mut state = self.lock();
        state.working = false;
        state.done = Some(OffsetAndMetadata {
            leader_epoch: record.leader_epoch,
            ..OffsetAndMetadata::new(record.offset + 1)
        });
        drop(state);
        self.settled.notify_waiters();
    }
}

/// Says that the task is gone, however it went.
struct Death(Arc<Shared>);

impl Drop for Death {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.dead = true;
        state.working = false;
        drop(state);
        self.0.settled.notify_waiters();
    }
}

async fn work(shared: Arc<Shared>, pipeline: Arc<Pipeline>) {
    let _death = Death(shared.clone());
    let scope = &pipeline.scope;
    let mut rng = None;
    loop {
        let incoming = Incoming::new(shared.next().await);
        let mut failed = 0;
        // Until it is settled: nothing is committed past it.
        while let Err(error) = Next::new(&pipeline.layers, &pipeline.core).run(scope, &incoming).await {
            failed += 1;
            let name = || format!("lane/{}/{}", scope.group, incoming.record.partition);
            let wait = BACKOFF.wait(failed, rng.get_or_insert_with(|| scope.context.rng(&name())));
            scope.context.trouble(format_args!(
                "{} {incoming}: its partition waits for it, again in {wait:?}: {error}",
                scope.group
            ));
            scope.context.sleep(wait).await;
        }
        shared.settle(&incoming.record);
    }
}

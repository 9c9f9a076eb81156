//! What users call for a transaction. What is asked of coordinators on the way is in `questions.rs`.
//!
//! A call is a task of its own. When a caller's time is up the task goes on, and the same call resumes it, as in
//! librdkafka; another call is refused meanwhile. A request without an answer is asked again, over a new connection and
//! under the same producer id and epoch: with the first protocol that is what KAFKA-17754 is about.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker::{Error, ErrorClass, ErrorCode, GroupMetadata, OffsetAndMetadata, TopicPartition};
use context::{BoxFuture, TaskHandle};
use tokio::sync::Notify;

use super::Protocol;
use crate::cluster::Cluster;
use crate::coordinator::Coordinator;
use crate::error::timed_out;
use crate::producer::Shared;
use crate::properties::Habits;

/// The transactional part of a producer: its coordinators, and the call that is under way.
pub(crate) struct Transactions {
    /// `None` without a `transactional.id`.
    coordinator: Option<Arc<Coordinator>>,
    groups: Mutex<BTreeMap<String, Arc<Coordinator>>>,
    running: Mutex<Option<Running>>,
}

/// A call that has not ended, or whose end nobody has heard.
struct Running {
    name: &'static str,
    /// Someone waits for it.
    awaited: bool,
    end: Arc<End>,
    task: TaskHandle,
}

#[derive(Default)]
struct End {
    result: Mutex<Option<Result<(), Error>>>,
    there: Notify,
}

impl End {
    async fn wait(&self) -> Result<(), Error> {
        loop {
            // Registered before the look, so that an end in between is heard.
            let there = self.there.notified();
            if let Some(result) = self.result.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return result;
            }
            there.await;
        }
    }
}

impl Transactions {
    pub(crate) fn new(cluster: &Arc<Cluster>) -> Transactions {
        let id = cluster.settings.producer.transactional_id.clone();
        Transactions {
            coordinator: id.map(|id| Arc::new(Coordinator::of_transactions(cluster.clone(), id))),
            groups: Mutex::default(),
            running: Mutex::default(),
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the call that is under way; who waits for it waits in vain.
    pub(crate) fn abort(&self) {
        if let Some(running) = &*self.running() {
            running.task.abort();
        }
    }

    /// The coordinator of the transactional id; there must be one.
    pub(crate) fn coordinator(&self) -> Arc<Coordinator> {
        self.coordinator.clone().expect("the state refuses transactions without an id")
    }

    pub(super) fn group_coordinator(&self, cluster: &Arc<Cluster>, group: &str) -> Arc<Coordinator> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || Arc::new(Coordinator::of_offsets(cluster.clone(), group.to_owned()));
        groups.entry(group.to_owned()).or_insert_with(make).clone()
    }
}

/// Someone waits for a call; dropped, nobody does.
struct Awaited<'a>(&'a Transactions);

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        if let Some(running) = &mut *self.0.running() {
            running.awaited = false;
        }
    }
}

impl Shared {
    /// Runs a call, or resumes it, for at most `timeout`. `begin` checks and changes the state for a new one.
    async fn call(
        self: &Arc<Shared>,
        name: &'static str,
        timeout: Duration,
        begin: impl FnOnce() -> Result<BoxFuture<'static, Result<(), Error>>, Error> + Send,
    ) -> Result<(), Error> {
        let end = {
            let mut running = self.transactions.running();
            match &mut *running {
                Some(other) if other.name != name || other.awaited => {
                    let text = format!("`{}` is still under way; call it again to resume it", other.name);
                    return Err(Error::new(ErrorCode::InvalidState, ErrorClass::Retriable, text));
                }
                Some(same) => {
                    same.awaited = true;
                    same.end.clone()
                }
                None => {
                    let (work, end) = (begin()?, Arc::new(End::default()));
                    let hears = end.clone();
                    let task = self.cluster.context.spawn("kafka transaction", async move {
                        let result = work.await;
                        hears.result.lock().unwrap_or_else(PoisonError::into_inner).replace(result);
                        hears.there.notify_waiters();
                    });
                    *running = Some(Running { name, awaited: true, end: end.clone(), task: task.handle() });
                    end
                }
            }
        };
        let awaited = Awaited(&self.transactions);
        let result = self.cluster.context.timeout(timeout, end.wait()).await;
        drop(awaited);
        match result {
            Ok(result) => {
                *self.transactions.running() = None;
                result
            }
            Err(_) => {
                Err(timed_out(format!("`{name}` goes on after {timeout:?}; call it again to resume it")))
            }
        }
    }

    fn no_call_under_way(&self) -> Result<(), Error> {
        match &*self.transactions.running() {
            Some(other) => {
                let text = format!("`{}` is still under way; call it again to resume it", other.name);
                Err(Error::new(ErrorCode::InvalidState, ErrorClass::Retriable, text))
            }
            None => Ok(()),
        }
    }

    fn not_given_up(&self) -> Result<(), Error> {
        self.state().fatal.clone().map_or(Ok(()), Err)
    }

    pub(crate) async fn init_transactions(self: &Arc<Shared>, timeout: Duration) -> Result<(), Error> {
        let shared = self.clone();
        self.call("init_transactions", timeout, || {
            shared.not_given_up()?;
            shared.state().transaction.may_init()?;
            let working = shared.clone();
            Ok(Box::pin(async move {
                working.register_producer().await?;
                let cluster = &working.cluster;
                let second = cluster.settings.habits == Habits::Java
                    && cluster.finalized_level("transaction.version") >= 2;
                let protocol = if second { Protocol::V2 } else { Protocol::V1 };
                working.state().transaction.initialized(protocol);
                Ok(())
            }))
        })
        .await
    }

    pub(crate) fn begin_transaction(&self) -> Result<(), Error> {
        self.not_given_up()?;
        self.no_call_under_way()?;
        self.state().transaction.begin()
    }

    pub(crate) async fn commit_transaction(self: &Arc<Shared>, timeout: Duration) -> Result<(), Error> {
        let shared = self.clone();
        self.call("commit_transaction", timeout, || {
            shared.not_given_up()?;
            shared.state().transaction.begin_commit()?;
            let working = shared.clone();
            Ok(Box::pin(async move { working.commit().await }))
        })
        .await
    }

    async fn commit(self: Arc<Shared>) -> Result<(), Error> {
        self.all_settled().await;
        {
            let mut state = self.state();
            if let Some(fatal) = &state.fatal {
                return Err(fatal.clone());
            }
            if let Some(failure) = state.transaction.failure() {
                return Err(failure);
            }
            if !state.transaction.has_begun() {
                // Nothing was sent: the coordinator knows of no transaction.
                state.transaction.ended();
                return Ok(());
            }
        }
        self.end(true).await?;
        self.ended("committed");
        Ok(())
    }

    pub(crate) async fn abort_transaction(self: &Arc<Shared>, timeout: Duration) -> Result<(), Error> {
        let shared = self.clone();
        self.call("abort_transaction", timeout, || {
            shared.not_given_up()?;
            shared.state().transaction.begin_abort()?;
            let working = shared.clone();
            Ok(Box::pin(async move {
                let aborted = working.clone().abort().await;
                if let Err(error) = &aborted {
                    working.state().transaction.abort_failed(error.clone());
                }
                aborted
            }))
        })
        .await
    }

    async fn abort(self: Arc<Shared>) -> Result<(), Error> {
        // The sender drops what was not sent, and waits for the fate of what was.
        self.wake.notify_one();
        self.all_settled().await;
        let (begun, fatal) = {
            let state = self.state();
            (state.transaction.has_begun(), state.fatal.clone())
        };
        if let Some(fatal) = fatal {
            return Err(fatal);
        }
        if begun {
            self.end(false).await?;
        }
        if self.state().transaction.wants_bump() {
            self.register_producer().await?;
        }
        self.ended("aborted");
        Ok(())
    }

    fn ended(&self, how: &str) {
        let id = &self.transactions.coordinator().key;
        self.cluster.context.note(format_args!("transaction of `{id}` {how}"));
        self.state().transaction.ended();
    }

    /// Waits until every record sent so far has its fate.
    async fn all_settled(&self) {
        {
            let mut state = self.state();
            state.flushing += 1;
        }
        self.wake.notify_one();
        let flushing = crate::producer::Flushing { shared: self };
        loop {
            let settled = self.settled.notified();
            if self.state().is_settled() {
                break;
            }
            settled.await;
        }
        drop(flushing);
    }

    /// Makes positions part of the transaction.
    pub(crate) async fn send_offsets(
        self: &Arc<Shared>,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
        group: &GroupMetadata,
        timeout: Duration,
    ) -> Result<(), Error> {
        // The transaction does not live longer.
        let timeout = timeout.min(self.cluster.settings.producer.transaction_timeout);
        let deadline = self.cluster.context.now() + timeout;
        let (shared, offsets, group) = (self.clone(), offsets.to_vec(), group.clone());
        // The work keeps the time itself: a call that is resumed might bring other offsets.
        let patience = timeout + Duration::from_secs(1);
        self.call("send_offsets_to_transaction", patience, || {
            shared.not_given_up()?;
            shared.state().transaction.admits_offsets()?;
            let working = shared.clone();
            Ok(Box::pin(async move {
                if offsets.is_empty() {
                    return Ok(());
                }
                if working.state().transaction.protocol() == Protocol::V1 {
                    working.add_offsets(&group, deadline).await?;
                } else {
                    // The group's coordinator registers its partition itself.
                    working.state().transaction.begun();
                }
                working.commit_offsets(offsets, &group, deadline).await
            }))
        })
        .await
    }
}

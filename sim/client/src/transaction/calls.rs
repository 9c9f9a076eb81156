//! What users call for a transaction, and what is asked of coordinators on the way.
//!
//! A call is a task of its own. When a caller's time is up the task goes on, and the same call resumes it, as in
//! librdkafka; another call is refused meanwhile. A request without an answer is asked again, over a new connection and
//! under the same producer id and epoch: with the first protocol that is what KAFKA-17754 is about.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker::{Error, ErrorClass, ErrorCode, GroupMetadata, OffsetAndMetadata, TopicPartition};
use context::{BoxFuture, TaskHandle, Timestamp};
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest, TransactionalId,
    TxnOffsetCommitRequest,
};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::Notify;

use super::Protocol;
use super::rules::{Ask, Next, read};
use crate::backoff::Backoff;
use crate::cluster::{Cluster, topic_name};
use crate::coordinator::Coordinator;
use crate::error::{self, invalid_state, timed_out};
use crate::offsets::{by_topic, group_id};
use crate::producer::Shared;
use crate::properties::Habits;

/// The last versions of the first protocol (KIP-890).
const END_V1: i16 = 4;
const COMMIT_OFFSETS_V1: i16 = 4;

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

    fn group_coordinator(&self, cluster: &Arc<Cluster>, group: &str) -> Arc<Coordinator> {
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

    /// Gets a producer id under the transactional id: the first time whatever epoch comes next, later the next epoch of
    /// the same producer, if no other has taken its place (KIP-360).
    async fn register_producer(&self) -> Result<(), Error> {
        let coordinator = self.transactions.coordinator();
        let timeout_ms = millis(self.cluster.settings.producer.transaction_timeout);
        let mut waits = Waits::new(self, "init producer");
        loop {
            let id = transactional_id(&coordinator);
            let (producer_id, epoch) = self.state().sequences.producer().unwrap_or((-1, -1));
            let build = move |version| {
                let request = InitProducerIdRequest::default()
                    .with_transactional_id(Some(id))
                    .with_transaction_timeout_ms(timeout_ms);
                if version >= 3 {
                    request.with_producer_id(producer_id.into()).with_producer_epoch(epoch)
                } else {
                    request
                }
            };
            let asked = coordinator.ask(self.cluster.settings.socket_timeout, build).await;
            let error = match asked {
                Ok(answer) if answer.body.error_code == 0 => {
                    let (producer_id, epoch) = (answer.body.producer_id.0, answer.body.producer_epoch);
                    self.cluster
                        .context
                        .note(format_args!("`{}` is producer {producer_id}, epoch {epoch}", coordinator.key));
                    self.state().sequences.begin(producer_id, epoch);
                    self.wake.notify_one();
                    return Ok(());
                }
                Ok(answer) => {
                    error::answered(answer.body.error_code, format!("a producer id for {coordinator}"))
                }
                Err(error) => error,
            };
            let next = read(self.cluster.settings.habits, Ask::InitProducer, error.code, true);
            self.go_on(&coordinator, next, error, &mut waits).await?;
        }
    }

    async fn end(&self, committed: bool) -> Result<(), Error> {
        let coordinator = self.transactions.coordinator();
        let what = if committed { "commit" } else { "abort" };
        let mut waits = Waits::new(self, "end transaction");
        loop {
            let (producer, protocol) = {
                let state = self.state();
                (state.sequences.producer(), state.transaction.protocol())
            };
            let (producer_id, epoch) = producer.expect("a transaction begins with a producer id");
            let id = transactional_id(&coordinator);
            let build = move |_| {
                EndTxnRequest::default()
                    .with_transactional_id(id)
                    .with_producer_id(producer_id.into())
                    .with_producer_epoch(epoch)
                    .with_committed(committed)
            };
            let version_max = if protocol == Protocol::V2 { i16::MAX } else { END_V1 };
            let timeout = self.cluster.settings.socket_timeout;
            let error = match coordinator.try_ask(timeout, version_max, build).await {
                Ok(answer) if answer.body.error_code == 0 => {
                    if answer.version > END_V1 {
                        let (producer_id, epoch) = (answer.body.producer_id.0, answer.body.producer_epoch);
                        self.state().sequences.begin(producer_id, epoch);
                    }
                    return Ok(());
                }
                Ok(answer) => error::answered(answer.body.error_code, format!("{what} of {coordinator}")),
                Err(failed) => failed.error,
            };
            let next = read(self.cluster.settings.habits, Ask::End, error.code, false);
            if !committed && next == (Next::Abort { bump: true }) {
                // The coordinator knows the producer no longer: nothing is there to abort, a new epoch is all it takes.
                self.state().transaction.fail(&error, true);
                return Ok(());
            }
            self.go_on(&coordinator, next, error, &mut waits).await?;
        }
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

    async fn add_offsets(&self, group: &GroupMetadata, deadline: Timestamp) -> Result<(), Error> {
        let coordinator = self.transactions.coordinator();
        let mut waits = Waits::until(self, "add offsets", deadline);
        loop {
            let id = transactional_id(&coordinator);
            let (producer_id, epoch) = self.producer()?;
            let group = group_id(&group.group_id);
            let build = move |_| {
                AddOffsetsToTxnRequest::default()
                    .with_transactional_id(id)
                    .with_producer_id(producer_id.into())
                    .with_producer_epoch(epoch)
                    .with_group_id(group)
            };
            let error = match coordinator.try_ask(waits.request_timeout(self), i16::MAX, build).await {
                Ok(answer) if answer.body.error_code == 0 => {
                    self.state().transaction.begun();
                    return Ok(());
                }
                Ok(answer) => error::answered(answer.body.error_code, format!("offsets in {coordinator}")),
                Err(failed) => {
                    if failed.sent {
                        self.state().transaction.begun();
                    }
                    failed.error
                }
            };
            let next = read(self.cluster.settings.habits, Ask::AddOffsets, error.code, false);
            self.go_on(&coordinator, next, error, &mut waits).await?;
        }
    }

    async fn commit_offsets(
        &self,
        offsets: Vec<(TopicPartition, OffsetAndMetadata)>,
        group: &GroupMetadata,
        deadline: Timestamp,
    ) -> Result<(), Error> {
        let coordinator = self.transactions.group_coordinator(&self.cluster, &group.group_id);
        let id = transactional_id(&self.transactions.coordinator());
        let mut waits = Waits::until(self, "commit offsets", deadline);
        loop {
            let (producer_id, epoch) = self.producer()?;
            let (id, group, offsets) = (id.clone(), group.clone(), offsets.clone());
            let build = move |version| {
                let request = TxnOffsetCommitRequest::default()
                    .with_transactional_id(id)
                    .with_group_id(group_id(&group.group_id))
                    .with_producer_id(producer_id.into())
                    .with_producer_epoch(epoch)
                    .with_topics(offset_topics(offsets, version));
                if version >= 3 {
                    // So a member that its group went on without is fenced (KIP-447).
                    request
                        .with_generation_id(group.generation_id)
                        .with_member_id(StrBytes::from_string(group.member_id))
                        .with_group_instance_id(group.group_instance_id.map(StrBytes::from_string))
                } else {
                    request
                }
            };
            let protocol = self.state().transaction.protocol();
            let version_max = if protocol == Protocol::V2 { i16::MAX } else { COMMIT_OFFSETS_V1 };
            let asked = coordinator.try_ask(waits.request_timeout(self), version_max, build).await;
            let error = match asked {
                Ok(answer) => {
                    let partitions = answer.body.topics.iter().flat_map(|topic| &topic.partitions);
                    match partitions.map(|partition| partition.error_code).find(|code| *code != 0) {
                        None => return Ok(()),
                        Some(code) => {
                            error::answered(code, format!("offsets of {coordinator} in a transaction"))
                        }
                    }
                }
                Err(failed) => failed.error,
            };
            let next = read(self.cluster.settings.habits, Ask::CommitOffsets, error.code, false);
            let went = self.go_on(&coordinator, next, error, &mut waits).await;
            if let Err(error) = &went
                && error.is_retriable()
            {
                // Whether they are part of it is unknown now.
                self.state().transaction.fail(error, false);
                return Err(self.state().transaction.failure().unwrap_or_else(|| error.clone()));
            }
            went?;
        }
    }

    fn producer(&self) -> Result<(i64, i16), Error> {
        self.state().sequences.producer().ok_or_else(|| invalid_state("the producer has no id at the moment"))
    }

    /// Waits before the next question.
    ///
    /// # Errors
    /// If there is none to be asked: the error, in its class.
    async fn go_on(
        &self,
        coordinator: &Coordinator,
        next: Next,
        error: Error,
        waits: &mut Waits,
    ) -> Result<(), Error> {
        match next {
            Next::Again { elsewhere, wait } => {
                if elsewhere {
                    coordinator.forget();
                }
                let wait = waits.next(self, wait);
                if waits.deadline.is_some_and(|deadline| deadline <= self.cluster.context.now() + wait) {
                    return Err(Error { class: ErrorClass::Retriable, ..error });
                }
                self.cluster.context.sleep(wait).await;
                Ok(())
            }
            stop => Err(self.state().stop_transaction(self, stop, error)),
        }
    }
}

/// The waits between the attempts of one question.
struct Waits {
    backoff: Backoff,
    rng: context::Rng,
    deadline: Option<Timestamp>,
}

impl Waits {
    fn new(shared: &Shared, what: &str) -> Waits {
        Waits { backoff: shared.cluster.backoff(), rng: shared.cluster.rng(what), deadline: None }
    }

    fn until(shared: &Shared, what: &str, deadline: Timestamp) -> Waits {
        Waits { deadline: Some(deadline), ..Waits::new(shared, what) }
    }

    fn next(&mut self, shared: &Shared, wait: Option<Duration>) -> Duration {
        match (wait, shared.cluster.settings.habits) {
            (Some(wait), _) => wait,
            (None, Habits::Java) => shared.cluster.settings.retry_backoff,
            (None, Habits::Librdkafka) => self.backoff.next(&mut self.rng),
        }
    }

    fn request_timeout(&self, shared: &Shared) -> Duration {
        let timeout = shared.cluster.settings.socket_timeout;
        let left = self.deadline.map(|deadline| deadline.since(shared.cluster.context.now()));
        left.map_or(timeout, |left| timeout.min(left.max(Duration::from_millis(1))))
    }
}

/// The request that registers partitions, in the versions that clients send.
pub(crate) fn add_partitions(
    coordinator: &Coordinator,
    (producer_id, epoch): (i64, i16),
    partitions: &[TopicPartition],
) -> AddPartitionsToTxnRequest {
    let topics =
        by_topic(partitions.iter().map(|at| (at.clone(), ()))).into_iter().map(|(topic, numbers)| {
            let numbers = numbers.into_iter().map(|(number, ())| number).collect();
            AddPartitionsToTxnTopic::default().with_name(topic_name(&topic)).with_partitions(numbers)
        });
    AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(transactional_id(coordinator))
        .with_v3_and_below_producer_id(producer_id.into())
        .with_v3_and_below_producer_epoch(epoch)
        .with_v3_and_below_topics(topics.collect())
}

fn offset_topics(
    offsets: Vec<(TopicPartition, OffsetAndMetadata)>,
    version: i16,
) -> Vec<TxnOffsetCommitRequestTopic> {
    let topics = by_topic(offsets).into_iter().map(|(topic, partitions)| {
        let partitions = partitions.into_iter().map(|(number, position)| {
            let partition = TxnOffsetCommitRequestPartition::default()
                .with_partition_index(number)
                .with_committed_offset(position.offset)
                .with_committed_metadata(Some(StrBytes::from_string(position.metadata)));
            if version >= 2 {
                partition.with_committed_leader_epoch(position.leader_epoch.unwrap_or(-1))
            } else {
                partition
            }
        });
        TxnOffsetCommitRequestTopic::default()
            .with_name(topic_name(&topic))
            .with_partitions(partitions.collect())
    });
    topics.collect()
}

fn transactional_id(coordinator: &Coordinator) -> TransactionalId {
    TransactionalId(StrBytes::from_string(coordinator.key.clone()))
}

fn millis(span: Duration) -> i32 {
    i32::try_from(span.as_millis()).expect("bounded by the property's range")
}

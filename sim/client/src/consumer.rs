//! The consumer as its users hold it: polls work off what the group and the fetcher have for it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use broker::{
    Consumer, ConsumerRecord, Error, ErrorCode, GroupMetadata, NoRebalanceListener, Offset,
    OffsetAndMetadata, RebalanceListener, TopicPartition,
};
use context::{Context, TaskHandle};
use tokio::sync::Notify;

use crate::auto_commit::{AutoCommit, Positions};
use crate::cluster::Cluster;
use crate::coordinator::Coordinator;
use crate::error::{code, invalid_state};
use crate::fetcher::Fetcher;
use crate::membership::{Group, GroupEvent, Membership};
use crate::offsets::{commit, commit_once, group_offsets};
use crate::properties::Settings;
use crate::reading::{Phase, Reading};

/// A consumer over the wire.
pub(crate) struct WireConsumer {
    shared: Arc<Shared>,
    fetcher: TaskHandle,
    auto_commit: AutoCommit,
    mode: Mode,
    listener: Box<dyn RebalanceListener>,
    /// Takes over once the partitions of the earlier subscription are given back.
    next_listener: Option<Box<dyn RebalanceListener>>,
    /// The consumer cannot go on: another has its place, or its configuration is refused.
    fatal: Option<Error>,
}

/// What a consumer and its tasks share.
pub(crate) struct Shared {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) coordinator: Option<Arc<Coordinator>>,
    reading: Mutex<Reading>,
    /// The member as polls have seen it: commits are made in its name, so that a zombie's are refused.
    member: Mutex<GroupMetadata>,
    /// Something new for the fetcher.
    pub(crate) work: Notify,
    /// Something new for the poll.
    pub(crate) news: Arc<Notify>,
    /// Records were polled that are not committed.
    pub(crate) polled: Notify,
}

enum Mode {
    Idle,
    Assigned,
    Subscribed {
        group: Arc<Group>,
        membership: TaskHandle,
        /// Partitions of a generation are held, maybe none.
        holding: bool,
    },
}

impl Shared {
    pub(crate) fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn member(&self) -> MutexGuard<'_, GroupMetadata> {
        self.member.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own_coordinator(&self) -> Result<&Arc<Coordinator>, Error> {
        self.coordinator.as_ref().ok_or_else(|| invalid_state("a commit needs `group.id`"))
    }

    pub(crate) async fn commit(
        &self,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
        patience: Duration,
    ) -> Result<(), Error> {
        let member = self.member().clone();
        commit(self.own_coordinator()?, &member, offsets, patience).await
    }

    /// As [`Shared::commit`], but asks the coordinator once.
    pub(crate) async fn commit_once(
        &self,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
    ) -> Result<(), Error> {
        let member = self.member().clone();
        commit_once(self.own_coordinator()?, &member, offsets).await
    }

    fn unjoined(&self) -> GroupMetadata {
        let settings = &self.cluster.settings.consumer;
        GroupMetadata {
            group_id: settings.group_id.clone().unwrap_or_default(),
            generation_id: -1,
            member_id: String::new(),
            group_instance_id: settings.group_instance_id.clone(),
        }
    }
}

impl WireConsumer {
    pub(crate) fn new(context: Context, settings: Settings, label: String) -> WireConsumer {
        let auto_create = settings.consumer.allow_auto_create_topics;
        let cluster = Arc::new(Cluster::new(context.clone(), settings, label, auto_create));
        let group = cluster.settings.consumer.group_id.clone();
        let coordinator = group.map(|group| Arc::new(Coordinator::of_group(cluster.clone(), group)));
        let habits = cluster.settings.habits;
        let shared = Arc::new(Shared {
            cluster,
            coordinator,
            reading: Mutex::new(Reading::new(habits)),
            member: Mutex::new(GroupMetadata::default()),
            work: Notify::new(),
            news: Arc::new(Notify::new()),
            polled: Notify::new(),
        });
        *shared.member() = shared.unjoined();
        let fetcher = context.spawn("kafka fetcher", Fetcher::new(shared.clone()).run()).handle();
        let auto_commit = AutoCommit::new(shared.clone());
        WireConsumer {
            shared,
            fetcher,
            auto_commit,
            mode: Mode::Idle,
            listener: Box::new(NoRebalanceListener),
            next_listener: None,
            fatal: None,
        }
    }

    fn socket_timeout(&self) -> Duration {
        self.shared.cluster.settings.socket_timeout
    }

    /// Works off what the group has said since the last poll.
    ///
    /// # Errors
    /// What the user should know; the next poll goes on.
    async fn follow_group(&mut self) -> Result<(), Error> {
        while let Mode::Subscribed { group, .. } = &self.mode {
            let group = group.clone();
            let Some(event) = group.next_event() else { break };
            match event {
                GroupEvent::Assigned(member, partitions) => {
                    *self.shared.member() = member;
                    self.auto_commit.assigned();
                    self.hold(&partitions);
                }
                GroupEvent::RevokeSome(member, partitions) => {
                    // Committed in the name of the new generation, in which they are the member's for the last time.
                    *self.shared.member() = member;
                    let committed = self.give_some_back(&partitions).await;
                    group.revoked();
                    committed?;
                }
                GroupEvent::Revoke => {
                    // The group goes on whether or not the commit arrived; the user hears of a failure all the same.
                    let committed = self.give_back().await;
                    group.revoked();
                    committed?;
                }
                GroupEvent::Lost => self.lose(),
                GroupEvent::NotPolled(error) => {
                    group.revoked();
                    if let Some(error) = error {
                        return Err(error);
                    }
                }
                GroupEvent::Failed(error) => {
                    if error.is_fatal() {
                        self.fatal = Some(error.clone());
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn hold(&mut self, partitions: &[TopicPartition]) {
        self.take_next_listener();
        self.set_holding(true);
        self.shared.reading().add(partitions, Phase::Committed);
        self.listener.assigned(partitions);
        self.shared.work.notify_one();
    }

    /// As [`WireConsumer::give_back`], for some partitions while the others are read on.
    async fn give_some_back(&mut self, partitions: &[TopicPartition]) -> Result<(), Error> {
        let mut offsets = self.auto_commit.before_they_go(Some(partitions));
        let returned = self.listener.revoked(partitions);
        offsets.retain(|(at, _)| !returned.iter().any(|(other, _)| other == at));
        offsets.extend(returned);
        let committed = self.shared.commit_some(&offsets, self.patience()).await;
        if let Err(error) = &committed {
            self.shared.cluster.context.note(format_args!("commit before a revocation failed: {error}"));
        }
        self.shared.reading().remove(partitions);
        self.take_next_listener();
        committed
    }

    /// As [`WireConsumer::give_back_with`], with what an automatic commit would cover.
    async fn give_back(&mut self) -> Result<(), Error> {
        let offsets = self.auto_commit.before_they_go(None);
        self.give_back_with(offsets).await
    }

    /// The listener hears of the revocation, `offsets` and what it returns are committed, and nothing is held any more.
    ///
    /// # Errors
    /// The commit's. It stops nobody: the group goes on, and what was not committed is read again.
    async fn give_back_with(&mut self, mut offsets: Positions) -> Result<(), Error> {
        if !self.set_holding(false) {
            return Ok(());
        }
        let held = self.shared.reading().assignment();
        if !held.is_empty() {
            let returned = self.listener.revoked(&held);
            offsets.retain(|(at, _)| !returned.iter().any(|(other, _)| other == at));
            offsets.extend(returned);
        }
        let committed = self.shared.commit_some(&offsets, self.patience()).await;
        if let Err(error) = &committed {
            self.shared.cluster.context.note(format_args!("commit before a revocation failed: {error}"));
        }
        self.shared.reading().clear();
        self.take_next_listener();
        committed
    }

    fn lose(&mut self) {
        let held = self.shared.reading().assignment();
        if self.set_holding(false) && !held.is_empty() {
            self.listener.lost(&held);
        }
        self.shared.reading().clear();
        self.take_next_listener();
    }

    fn take_next_listener(&mut self) {
        if let Some(next) = self.next_listener.take() {
            self.listener = next;
        }
    }

    /// Notes whether a generation's partitions are held; gives what was before.
    fn set_holding(&mut self, now: bool) -> bool {
        match &mut self.mode {
            Mode::Subscribed { holding, .. } => std::mem::replace(holding, now),
            Mode::Idle | Mode::Assigned => false,
        }
    }

    /// How long a last commit or a leave may take: after `session.timeout.ms` the group knows by itself.
    fn patience(&self) -> Duration {
        self.shared.cluster.settings.consumer.session_timeout.min(self.socket_timeout())
    }

    /// What the group has said and no poll has seen: partitions that are lost are not to be committed for.
    fn hear_of_losses(&mut self) {
        if let Mode::Subscribed { group, .. } = &self.mode {
            let group = group.clone();
            while let Some(event) = group.next_event() {
                if event == GroupEvent::Lost {
                    self.lose();
                }
            }
        }
    }

    /// Gives back what is held, as [`WireConsumer::give_back_with`], and leaves the group; `offsets` are committed for
    /// partitions assigned by hand too.
    async fn leave(&mut self, offsets: Positions) -> Result<(), Error> {
        let patience = self.patience();
        let given_back = match &self.mode {
            Mode::Subscribed { .. } => self.give_back_with(offsets).await,
            Mode::Idle | Mode::Assigned => self.shared.commit_some(&offsets, patience).await,
        };
        self.shared.reading().clear();
        let left = match std::mem::replace(&mut self.mode, Mode::Idle) {
            Mode::Subscribed { group, membership, .. } => {
                membership.abort();
                group.leave(patience).await
            }
            Mode::Idle | Mode::Assigned => Ok(()),
        };
        *self.shared.member() = self.shared.unjoined();
        given_back.and(left)
    }
}

impl Shared {
    /// As [`Shared::commit`], but nothing is nothing to do.
    async fn commit_some(
        &self,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
        patience: Duration,
    ) -> Result<(), Error> {
        if offsets.is_empty() { Ok(()) } else { self.commit(offsets, patience).await }
    }
}

impl Drop for WireConsumer {
    fn drop(&mut self) {
        self.fetcher.abort();
        if let Mode::Subscribed { membership, .. } = &self.mode {
            membership.abort();
        }
    }
}

#[async_trait]
impl Consumer for WireConsumer {
    async fn subscribe(
        &mut self,
        topics: &[Arc<str>],
        listener: Box<dyn RebalanceListener>,
    ) -> Result<(), Error> {
        if topics.is_empty() {
            return self.unsubscribe().await;
        }
        let Some(coordinator) = &self.shared.coordinator else {
            return Err(invalid_state("a subscription needs `group.id`"));
        };
        let topics: BTreeSet<Arc<str>> = topics.iter().cloned().collect();
        match &self.mode {
            Mode::Assigned => Err(invalid_state("partitions are assigned by hand; unsubscribe first")),
            Mode::Subscribed { group, .. } => {
                group.subscribe(topics);
                self.next_listener = Some(listener);
                Ok(())
            }
            Mode::Idle => {
                let group = Arc::new(Group::new(coordinator.clone(), self.shared.news.clone()));
                group.subscribe(topics);
                let task = Membership::new(group.clone()).run();
                let membership = self.shared.cluster.context.spawn("kafka membership", task).handle();
                self.listener = listener;
                self.mode = Mode::Subscribed { group, membership, holding: false };
                Ok(())
            }
        }
    }

    async fn unsubscribe(&mut self) -> Result<(), Error> {
        self.hear_of_losses();
        self.next_listener = None;
        let offsets = self.auto_commit.before_unsubscribing();
        self.leave(offsets).await
    }

    async fn assign(&mut self, partitions: &[TopicPartition]) -> Result<(), Error> {
        if let Mode::Subscribed { .. } = self.mode {
            return Err(invalid_state("the consumer is subscribed; unsubscribe first"));
        }
        self.mode = Mode::Assigned;
        self.shared.reading().assign(partitions, Phase::Committed);
        self.shared.work.notify_one();
        Ok(())
    }

    async fn poll(&mut self, timeout: Duration) -> Result<Vec<ConsumerRecord>, Error> {
        if let Some(fatal) = &self.fatal {
            return Err(fatal.clone());
        }
        let context = self.shared.cluster.context.clone();
        let deadline = context.now() + timeout;
        let _alive = match &self.mode {
            Mode::Subscribed { group, .. } => Some(group.poll_begins()),
            Mode::Idle | Mode::Assigned => None,
        };
        loop {
            self.follow_group().await?;
            self.auto_commit.look().await;
            let records = {
                let mut reading = self.shared.reading();
                if let Some(error) = reading.take_error() {
                    return Err(error);
                }
                reading.take(self.shared.cluster.settings.consumer.max_poll_records)
            };
            if !records.is_empty() {
                self.shared.polled.notify_one();
                // What was fetched ahead became less.
                self.shared.work.notify_one();
                return Ok(records);
            }
            let now = context.now();
            if deadline <= now {
                return Ok(Vec::new());
            }
            let commits = self.auto_commit.due().filter(|due| (now..deadline).contains(due));
            let patience = commits.unwrap_or(deadline).since(now);
            let news = context.timeout(patience, self.shared.news.notified()).await;
            if news.is_err() && commits.is_none() {
                return Ok(Vec::new());
            }
        }
    }

    async fn commit(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<(), Error> {
        if let Some(fatal) = &self.fatal {
            return Err(fatal.clone());
        }
        let committed = self.shared.commit(offsets, self.socket_timeout()).await;
        if let (Err(error), Mode::Subscribed { group, .. }) = (&committed, &self.mode)
            && matches!(
                error.code,
                ErrorCode::Broker(
                    code::ILLEGAL_GENERATION | code::UNKNOWN_MEMBER_ID | code::REBALANCE_IN_PROGRESS
                )
            )
        {
            group.suspect();
        }
        if let Err(error) = &committed
            && error.is_fatal()
        {
            self.fatal = Some(error.clone());
        }
        committed
    }

    async fn committed(
        &mut self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> Result<Vec<(TopicPartition, OffsetAndMetadata)>, Error> {
        match &self.shared.coordinator {
            Some(coordinator) => group_offsets(coordinator, Some(partitions), timeout).await,
            None => Err(invalid_state("committed offsets need `group.id`")),
        }
    }

    fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<(), Error> {
        self.shared.reading().seek(partition, offset)?;
        self.shared.work.notify_one();
        Ok(())
    }

    fn pause(&mut self, partitions: &[TopicPartition]) {
        self.shared.reading().set_paused(partitions, true);
    }

    fn resume(&mut self, partitions: &[TopicPartition]) {
        self.shared.reading().set_paused(partitions, false);
        self.shared.work.notify_one();
        self.shared.news.notify_one();
    }

    fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        self.shared.reading().position(partition)
    }

    fn assignment(&self) -> Vec<TopicPartition> {
        self.shared.reading().assignment()
    }

    fn group_metadata(&self) -> GroupMetadata {
        self.shared.member().clone()
    }

    async fn close(mut self: Box<Self>) -> Result<(), Error> {
        self.hear_of_losses();
        let offsets = self.auto_commit.before_they_go(None);
        self.leave(offsets).await
    }
}

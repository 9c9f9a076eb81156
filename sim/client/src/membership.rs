//! A consumer's membership in its group: joins, keeps it alive, notices when the group moves on.
//!
//! A background task, so that heartbeats go on while a user's handler is slow. What concerns the user it puts into a
//! queue of [`GroupEvent`]s that polls work off: listeners are called from polls alone. The protocol is the classic one in
//! both its ways. Eager: before each new generation a member gives back all it holds. Cooperative (KIP-429), if every
//! assignor that is named is: a member joins with what it holds, reads on meanwhile, gives up what the assignment leaves
//! out, and joins once more, so that others can have it. Absent: KIP-848.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker::{Error, ErrorClass, ErrorCode, GroupMetadata, PartitionId, TopicPartition};
use context::{Rng, Timestamp};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::Notify;

use crate::assignor::{
    COOPERATIVE_STICKY, Member, Subscription, assign, decode_assignment, decode_subscription,
    encode_assignment, encode_subscription,
};
use crate::coordinator::Coordinator;
use crate::error::{self, code, wants_coordinator};
use crate::offsets::group_id;
use crate::properties::{Habits, Settings};

const PROTOCOL_TYPE: StrBytes = StrBytes::from_static_str("consumer");

/// How much longer librdkafka waits than a rebalance may last, or the leader's assignment a session
/// (`rd_kafka_JoinGroupRequest`, `rd_kafka_SyncGroupRequest`).
const LIBRDKAFKA_MARGIN: Duration = Duration::from_secs(3);
/// How much longer Java waits than a rebalance may last (`JOIN_GROUP_TIMEOUT_LAPSE`).
const JAVA_MARGIN: Duration = Duration::from_secs(5);

/// What a poll must deal with, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GroupEvent {
    /// These partitions are the member's in this generation, besides those that it holds.
    Assigned(GroupMetadata, Vec<TopicPartition>),
    /// These of the partitions held go to others: give them back, then [`Group::revoked`].
    RevokeSome(GroupMetadata, Vec<TopicPartition>),
    /// The group wants to assign anew: give back what is held, then [`Group::revoked`].
    Revoke,
    /// The group went on without the member.
    Lost,
    /// The member left because it was not polled; the group is joined again after this. Java says nothing to the user
    /// but that the partitions are lost.
    NotPolled(Option<Error>),
    /// Something the user should know.
    Failed(Error),
}

/// What the task and the polls share.
pub(crate) struct Group {
    pub(crate) coordinator: Arc<Coordinator>,
    state: Mutex<State>,
    /// Something new for the task.
    wake: Notify,
    /// Something new for the poll; the fetcher rings it too.
    news: Arc<Notify>,
}

struct State {
    topics: BTreeSet<Arc<str>>,
    /// As the task knows it, which may be ahead of what polls have seen.
    member: GroupMetadata,
    events: VecDeque<GroupEvent>,
    polling: bool,
    last_poll: Timestamp,
    /// A poll has done what the last event asked for: see [`Group::revoked`].
    answered: bool,
    /// The topics have changed since the last join.
    resubscribed: bool,
    /// Ask the coordinator now rather than at the next interval.
    beat_now: bool,
}

impl Group {
    pub(crate) fn new(coordinator: Arc<Coordinator>, news: Arc<Notify>) -> Group {
        let state = State {
            topics: BTreeSet::new(),
            member: outside(&coordinator),
            events: VecDeque::new(),
            polling: false,
            last_poll: coordinator.cluster.context.now(),
            answered: false,
            resubscribed: false,
            beat_now: false,
        };
        Group { coordinator, state: Mutex::new(state), wake: Notify::new(), news }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        self.coordinator.cluster.context.now()
    }

    /// Joins for these topics from now on. A running task joins anew.
    pub(crate) fn subscribe(&self, topics: BTreeSet<Arc<str>>) {
        let now = self.now();
        let mut state = self.state();
        state.topics = topics;
        state.resubscribed = true;
        state.last_poll = now;
        drop(state);
        self.wake.notify_one();
    }

    /// A poll begins; the user is alive until the guard is dropped.
    pub(crate) fn poll_begins(self: &Arc<Group>) -> Polling {
        self.state().polling = true;
        Polling { group: self.clone() }
    }

    /// The next thing that a poll must deal with.
    pub(crate) fn next_event(&self) -> Option<GroupEvent> {
        self.state().events.pop_front()
    }

    /// What [`GroupEvent::Revoke`], [`GroupEvent::RevokeSome`] or [`GroupEvent::NotPolled`] asked for is done.
    pub(crate) fn revoked(&self) {
        self.state().answered = true;
        self.wake.notify_one();
    }

    /// A commit was refused in a way that tells about the group: ask it.
    pub(crate) fn suspect(&self) {
        self.state().beat_now = true;
        self.wake.notify_one();
    }

    fn publish(&self, event: GroupEvent) {
        let mut state = self.state();
        if event == GroupEvent::Lost {
            // What no poll has seen yet is overtaken.
            state.events.retain(|event| matches!(event, GroupEvent::Failed(_)));
        }
        state.events.push_back(event);
        drop(state);
        self.news.notify_one();
    }

    /// Whether polls have not come for longer than `max.poll.interval.ms`; else when that would be.
    fn poll_deadline(&self) -> Option<Timestamp> {
        let state = self.state();
        let interval = self.coordinator.cluster.settings.consumer.max_poll_interval;
        (!state.polling).then(|| state.last_poll + interval)
    }

    /// Leaves the group, if it was joined. The task must have been stopped.
    ///
    /// # Errors
    /// When the coordinator gave no answer within `patience`; it notices by `session.timeout.ms`.
    pub(crate) async fn leave(&self, patience: Duration) -> Result<(), Error> {
        let member = {
            let mut state = self.state();
            state.events.clear();
            std::mem::replace(&mut state.member, outside(&self.coordinator))
        };
        if member.member_id.is_empty() || member.group_instance_id.is_some() {
            // Nothing to leave; and a static member stays until its session ends (KIP-345).
            return Ok(());
        }
        let group = group_id(&member.group_id);
        let id = StrBytes::from_string(member.member_id);
        let build = move |version| {
            let request = LeaveGroupRequest::default().with_group_id(group);
            if version >= 3 {
                request.with_members(vec![MemberIdentity::default().with_member_id(id)])
            } else {
                request.with_member_id(id)
            }
        };
        let asked = self.coordinator.ask(patience, build);
        match self.coordinator.cluster.context.timeout(patience, asked).await {
            Ok(Ok(answer)) => {
                let of_member = answer.body.members.first().map_or(0, |member| member.error_code);
                match if answer.body.error_code != 0 { answer.body.error_code } else { of_member } {
                    // Gone already is left too.
                    0 | code::UNKNOWN_MEMBER_ID => Ok(()),
                    code => Err(error::answered(code, format!("leaving group `{}`", member.group_id))),
                }
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(error::timed_out(format!("leaving group `{}`", member.group_id))),
        }
    }
}

/// While it lives, the user is within a poll.
pub(crate) struct Polling {
    group: Arc<Group>,
}

impl Drop for Polling {
    fn drop(&mut self) {
        let now = self.group.now();
        let mut state = self.group.state();
        state.polling = false;
        // The task sees the deadline at its next heartbeat; to wake it for each poll would cost more than it tells.
        state.last_poll = now;
    }
}

fn outside(coordinator: &Coordinator) -> GroupMetadata {
    GroupMetadata {
        group_id: coordinator.key.clone(),
        generation_id: -1,
        member_id: String::new(),
        group_instance_id: coordinator.cluster.settings.consumer.group_instance_id.clone(),
    }
}

/// It is in no generation, and maybe no member.
fn forget(member: &mut GroupMetadata, keeps_id: bool) {
    member.generation_id = -1;
    if !keeps_id {
        member.member_id.clear();
    }
}

/// How long an answer to a join may take.
fn join_patience(settings: &Settings) -> Duration {
    let rebalance = settings.consumer.max_poll_interval;
    match settings.habits {
        Habits::Librdkafka => rebalance + LIBRDKAFKA_MARGIN,
        Habits::Java => settings.socket_timeout.max(rebalance + JAVA_MARGIN),
    }
}

/// How long an answer to a sync may take: no client waits for as long as a leader may take to assign, it joins again.
fn sync_patience(settings: &Settings) -> Duration {
    match settings.habits {
        Habits::Librdkafka => settings.consumer.session_timeout + LIBRDKAFKA_MARGIN,
        Habits::Java => settings.socket_timeout,
    }
}

/// How a generation ended for the member.
enum End {
    /// The group assigns anew, or the topics changed.
    Rebalance,
    /// A poll has given back what was held.
    Revoked,
    /// The group went on without the member. One whose generation alone is over keeps its id: the group still knows it,
    /// and would wait for it under the old one.
    Lost { keeps_id: bool },
    /// The user does not poll.
    NotPolled,
    /// The member can never be in this group.
    Failed(Error),
}

/// The task. See [`Membership::run`].
pub(crate) struct Membership {
    group: Arc<Group>,
    rng: Rng,
    cooperative: bool,
    /// What the group has given to this member and not taken back; used by the cooperative protocol alone.
    owned: BTreeSet<TopicPartition>,
    /// The partitions of the topics as this member, being the leader, last assigned them.
    assigned_counts: Option<BTreeMap<Arc<str>, PartitionId>>,
}

impl Membership {
    pub(crate) fn new(group: Arc<Group>) -> Membership {
        let rng = group.coordinator.cluster.rng("membership");
        let assignors = &group.coordinator.cluster.settings.consumer.assignors;
        let cooperative = assignors.iter().all(|name| name == COOPERATIVE_STICKY);
        Membership { group, rng, cooperative, owned: BTreeSet::new(), assigned_counts: None }
    }

    /// Runs until it is aborted, or the group refuses the member for good.
    pub(crate) async fn run(mut self) {
        loop {
            let mut end = match self.drop_topics().await {
                None => match self.join().await {
                    Ok(partitions) => self.take_over(partitions.into_iter().collect()).await,
                    Err(error) => {
                        self.lose(false);
                        return self.group.publish(GroupEvent::Failed(error));
                    }
                },
                Some(end) => end,
            };
            if let End::Rebalance = end
                && !self.cooperative
            {
                end = self.wait_for(GroupEvent::Revoke).await;
            }
            match end {
                End::Rebalance | End::Revoked => {}
                End::Lost { keeps_id } => {
                    let id = self.group.state().member.member_id.clone();
                    self.note(format_args!("the group went on without {id}"));
                    self.lose(keeps_id);
                }
                End::NotPolled => self.leave_unpolled().await,
                End::Failed(error) => {
                    self.lose(false);
                    return self.group.publish(GroupEvent::Failed(error));
                }
            }
        }
    }

    /// Holds nothing any more, and is no member.
    fn lose(&mut self, keeps_id: bool) {
        self.forget_member(keeps_id);
        self.group.publish(GroupEvent::Lost);
    }

    /// Asks the next poll for something, and keeps the membership alive until it is done.
    async fn wait_for(&mut self, event: GroupEvent) -> End {
        self.group.state().answered = false;
        self.group.publish(event);
        self.stay(true).await
    }

    /// Has partitions given back whose topics are no longer subscribed; only the cooperative protocol holds any here.
    /// Gives how the generation ended meanwhile, if it did.
    async fn drop_topics(&mut self) -> Option<End> {
        let (topics, member) = {
            let state = self.group.state();
            (state.topics.clone(), state.member.clone())
        };
        let gone: Vec<_> = self.owned.iter().filter(|at| !topics.contains(&at.topic)).cloned().collect();
        if gone.is_empty() {
            return None;
        }
        match self.wait_for(GroupEvent::RevokeSome(member, gone.clone())).await {
            End::Revoked => {
                self.owned.retain(|at| !gone.contains(at));
                None
            }
            other => Some(other),
        }
    }

    /// The member has an assignment: has the user take it over, and stays until the generation ends.
    async fn take_over(&mut self, assigned: BTreeSet<TopicPartition>) -> End {
        let member = self.group.state().member.clone();
        if !self.cooperative {
            self.group.publish(GroupEvent::Assigned(member, assigned.into_iter().collect()));
            return self.stay(false).await;
        }
        let gone: Vec<_> = self.owned.difference(&assigned).cloned().collect();
        let new: Vec<_> = assigned.difference(&self.owned).cloned().collect();
        let gives_up = !gone.is_empty();
        if gives_up {
            match self.wait_for(GroupEvent::RevokeSome(member.clone(), gone)).await {
                End::Revoked => {}
                other => return other,
            }
        }
        self.owned = assigned;
        self.group.publish(GroupEvent::Assigned(member, new));
        // Others wait for what was given up.
        if gives_up { End::Rebalance } else { self.stay(false).await }
    }

    fn habits(&self) -> Habits {
        self.group.coordinator.cluster.settings.habits
    }

    fn note(&self, text: std::fmt::Arguments<'_>) {
        let group = &self.group.coordinator.key;
        self.group.coordinator.cluster.context.note(format_args!("group {group}: {text}"));
    }

    fn forget_member(&mut self, keeps_id: bool) {
        self.owned.clear();
        forget(&mut self.group.state().member, keeps_id);
    }

    /// Leaves because the user does not poll, and waits until it does.
    async fn leave_unpolled(&mut self) {
        let consumer = &self.group.coordinator.cluster.settings.consumer;
        let (interval, session) = (consumer.max_poll_interval, consumer.session_timeout);
        self.note(format_args!("not polled for {interval:?}: leaving"));
        // If it does not reach the coordinator, the session ends by itself: no heartbeat comes any more.
        if let Err(error) = self.group.leave(session).await {
            self.note(format_args!("could not leave: {error}"));
        }
        let text = format!("no poll within `max.poll.interval.ms` ({interval:?}); the member left its group");
        let error = Error::new(ErrorCode::MaxPollExceeded, ErrorClass::Retriable, text);
        let error = (self.habits() == Habits::Librdkafka).then_some(error);
        self.owned.clear();
        self.group.state().answered = false;
        self.group.publish(GroupEvent::Lost);
        self.group.publish(GroupEvent::NotPolled(error));
        while !self.group.state().answered {
            self.group.wake.notified().await;
        }
    }

    /// Joins and syncs until the member has its partitions.
    ///
    /// # Errors
    /// If the group refuses it for good.
    async fn join(&mut self) -> Result<Vec<TopicPartition>, Error> {
        let mut backoff = self.group.coordinator.cluster.backoff();
        loop {
            let error = match self.join_once().await {
                Ok(Some(partitions)) => return Ok(partitions),
                // One more round is due at once.
                Ok(None) => continue,
                Err(error) => error,
            };
            if wants_coordinator(error.code) {
                self.group.coordinator.forget();
            }
            match error.code {
                ErrorCode::Broker(code @ (code::UNKNOWN_MEMBER_ID | code::ILLEGAL_GENERATION)) => {
                    let keeps_id = code == code::ILLEGAL_GENERATION;
                    // In the cooperative protocol it still held what others have now.
                    match self.owned.is_empty() {
                        true => self.forget_member(keeps_id),
                        false => self.lose(keeps_id),
                    }
                }
                _ if error.is_retriable() => {}
                _ => return Err(error),
            }
            let wait = backoff.next(&mut self.rng);
            self.group.coordinator.cluster.context.sleep(wait).await;
        }
    }

    async fn join_once(&mut self) -> Result<Option<Vec<TopicPartition>>, Error> {
        let group = self.group.clone();
        let (member, topics) = {
            let mut state = group.state();
            state.resubscribed = false;
            (state.member.clone(), state.topics.clone())
        };
        self.assigned_counts = None;
        let joined = self.ask_to_join(&member, &topics).await?;
        match joined.error_code {
            0 => {}
            code::MEMBER_ID_REQUIRED => {
                group.state().member.member_id = joined.member_id.to_string();
                return Ok(None);
            }
            code => return Err(error::answered(code, format!("joining group `{}`", member.group_id))),
        }
        let member = {
            let mut state = group.state();
            state.member.member_id = joined.member_id.to_string();
            state.member.generation_id = joined.generation_id;
            state.member.clone()
        };
        // A static leader that comes back is told that all stays as it is (KIP-814).
        let assignments = match joined.leader == joined.member_id && !joined.skip_assignment {
            true => self.assign(&joined).await?,
            false => Vec::new(),
        };
        let partitions = self.sync(&member, &joined, assignments).await?;
        let (generation, id) = (member.generation_id, &member.member_id);
        self.note(format_args!("generation {generation}: {id} reads {partitions:?}"));
        Ok(Some(partitions))
    }

    async fn ask_to_join(
        &self,
        member: &GroupMetadata,
        topics: &BTreeSet<Arc<str>>,
    ) -> Result<JoinGroupResponse, Error> {
        let settings = self.group.coordinator.cluster.settings.consumer.clone();
        let member = member.clone();
        let owned = self.owned.iter().cloned().collect();
        let generation = member.generation_id;
        let metadata = encode_subscription(&Subscription { topics: topics.clone(), owned, generation });
        let session_ms = millis(settings.session_timeout);
        let rebalance_ms = millis(settings.max_poll_interval);
        let build = move |version| {
            let protocols = settings.assignors.iter().map(|name| {
                JoinGroupRequestProtocol::default()
                    .with_name(StrBytes::from_string(name.clone()))
                    .with_metadata(metadata.clone())
            });
            let instance = member.group_instance_id.filter(|_| version >= 5);
            JoinGroupRequest::default()
                .with_group_id(group_id(&member.group_id))
                .with_session_timeout_ms(session_ms)
                .with_rebalance_timeout_ms(rebalance_ms)
                .with_member_id(StrBytes::from_string(member.member_id))
                .with_group_instance_id(instance.map(StrBytes::from_string))
                .with_protocol_type(PROTOCOL_TYPE)
                .with_protocols(protocols.collect())
        };
        let timeout = join_patience(&self.group.coordinator.cluster.settings);
        Ok(self.group.coordinator.ask(timeout, build).await?.body)
    }

    /// As the group's leader: who reads what.
    async fn assign(&mut self, joined: &JoinGroupResponse) -> Result<Vec<SyncGroupRequestAssignment>, Error> {
        let members: Vec<Member> = joined
            .members
            .iter()
            .map(|member| {
                // Who says nothing that can be understood gets nothing.
                let said = decode_subscription(member.metadata.clone());
                Member {
                    member_id: member.member_id.to_string(),
                    group_instance_id: member.group_instance_id.as_ref().map(|id| id.to_string()),
                    generation: said.as_ref().map_or(-1, |said| said.generation),
                    owned: said.as_ref().map(|said| said.owned.clone()).unwrap_or_default(),
                    topics: said.map(|said| said.topics).unwrap_or_default(),
                }
            })
            .collect();
        let topics: BTreeSet<Arc<str>> =
            members.iter().flat_map(|member| member.topics.iter().cloned()).collect();
        let cluster = &self.group.coordinator.cluster;
        cluster.refresh(&topics, cluster.version()).await?;
        let counts = self.counts(&topics);
        for missing in topics.iter().filter(|topic| !counts.contains_key(*topic)) {
            let error = error::answered(
                code::UNKNOWN_TOPIC_OR_PARTITION,
                format!("subscribed topic `{missing}`; it is read as soon as it is there"),
            );
            self.group.publish(GroupEvent::Failed(error));
        }
        let protocol = joined.protocol_name.as_ref().map_or("range", |name| name.as_str());
        let assignments = assign(protocol, &members, &counts);
        self.assigned_counts = Some(
            topics.iter().map(|topic| (topic.clone(), counts.get(topic).copied().unwrap_or(0))).collect(),
        );
        let assignments = assignments.into_iter().map(|(member, partitions)| {
            SyncGroupRequestAssignment::default()
                .with_member_id(StrBytes::from_string(member))
                .with_assignment(encode_assignment(&partitions))
        });
        Ok(assignments.collect())
    }

    fn counts(&self, topics: &BTreeSet<Arc<str>>) -> BTreeMap<Arc<str>, PartitionId> {
        let cluster = &self.group.coordinator.cluster;
        topics.iter().filter_map(|topic| Some((topic.clone(), cluster.partition_count(topic)?))).collect()
    }

    async fn sync(
        &self,
        member: &GroupMetadata,
        joined: &JoinGroupResponse,
        assignments: Vec<SyncGroupRequestAssignment>,
    ) -> Result<Vec<TopicPartition>, Error> {
        let asking = member.clone();
        let protocol = joined.protocol_name.clone();
        let build = move |version| {
            let request = SyncGroupRequest::default()
                .with_group_id(group_id(&asking.group_id))
                .with_generation_id(asking.generation_id)
                .with_member_id(StrBytes::from_string(asking.member_id))
                .with_assignments(assignments);
            let instance = asking.group_instance_id.filter(|_| version >= 3);
            let request = request.with_group_instance_id(instance.map(StrBytes::from_string));
            if version >= 5 {
                request.with_protocol_type(Some(PROTOCOL_TYPE)).with_protocol_name(protocol)
            } else {
                request
            }
        };
        let timeout = sync_patience(&self.group.coordinator.cluster.settings);
        let answer = self.group.coordinator.ask(timeout, build).await?.body;
        let what = || format!("syncing group `{}`", member.group_id);
        match answer.error_code {
            0 => decode_assignment(answer.assignment)
                .ok_or_else(|| error::answered(code::CORRUPT_MESSAGE, what())),
            code => Err(error::answered(code, what())),
        }
    }

    /// Sends heartbeats until the generation ends; with `revoking`, until a poll has given back what is held.
    async fn stay(&mut self, revoking: bool) -> End {
        let group = self.group.clone();
        let cluster = group.coordinator.cluster.clone();
        let settings = &cluster.settings.consumer;
        let mut backoff = cluster.backoff();
        let mut confirmed = group.now();
        let mut next_beat = confirmed + settings.heartbeat_interval;
        loop {
            let deadline = group.poll_deadline();
            let wake_at = deadline.map_or(next_beat, |deadline| next_beat.min(deadline));
            tokio::select! {
                biased;
                () = group.wake.notified() => {}
                () = cluster.context.sleep_until(wake_at) => {}
            }
            let now = group.now();
            let (answered, resubscribed, beat_now) = {
                let mut state = group.state();
                (state.answered, state.resubscribed, std::mem::take(&mut state.beat_now))
            };
            if revoking && answered {
                return End::Revoked;
            }
            if group.poll_deadline().is_some_and(|deadline| deadline <= now) {
                return End::NotPolled;
            }
            if !revoking && resubscribed {
                return End::Rebalance;
            }
            if now < next_beat && !beat_now {
                continue;
            }
            match self.beat().await {
                Ok(()) => {
                    backoff.reset();
                    confirmed = group.now();
                    next_beat = confirmed + settings.heartbeat_interval;
                    if !revoking && self.topics_changed().await {
                        return End::Rebalance;
                    }
                }
                Err(error) => match error.code {
                    ErrorCode::Broker(code::REBALANCE_IN_PROGRESS) if revoking => {
                        confirmed = group.now();
                        next_beat = confirmed + settings.heartbeat_interval;
                    }
                    ErrorCode::Broker(code::REBALANCE_IN_PROGRESS) => return End::Rebalance,
                    ErrorCode::Broker(code @ (code::UNKNOWN_MEMBER_ID | code::ILLEGAL_GENERATION)) => {
                        return End::Lost { keeps_id: code == code::ILLEGAL_GENERATION };
                    }
                    _ if !error.is_retriable() => return End::Failed(error),
                    _ => {
                        if wants_coordinator(error.code) {
                            group.coordinator.forget();
                        }
                        if group.now().since(confirmed) > settings.session_timeout {
                            match self.habits() {
                                // The coordinator has given the member up by now, whether or not it can say so
                                // (`rd_kafka_cgrp_session_timeout_check`).
                                Habits::Librdkafka => return End::Lost { keeps_id: false },
                                // It looks for the coordinator and lets that say so (`AbstractCoordinator`'s
                                // heartbeat thread).
                                Habits::Java => {
                                    group.coordinator.forget();
                                    confirmed = group.now();
                                }
                            }
                        }
                        next_beat = group.now() + backoff.next(&mut self.rng);
                    }
                },
            }
        }
    }

    async fn beat(&self) -> Result<(), Error> {
        let member = self.group.state().member.clone();
        let what = format!("heartbeat of group `{}`", member.group_id);
        let build = move |version| {
            let instance = member.group_instance_id.filter(|_| version >= 3);
            HeartbeatRequest::default()
                .with_group_id(group_id(&member.group_id))
                .with_generation_id(member.generation_id)
                .with_member_id(StrBytes::from_string(member.member_id))
                .with_group_instance_id(instance.map(StrBytes::from_string))
        };
        let settings = &self.group.coordinator.cluster.settings;
        let timeout = settings.socket_timeout.min(settings.consumer.session_timeout);
        match self.group.coordinator.ask(timeout, build).await?.body.error_code {
            0 => Ok(()),
            code => Err(error::answered(code, what)),
        }
    }

    /// As the group's leader: whether a topic has other partitions than those that were assigned. While one is missing
    /// its creation is looked out for at every heartbeat, otherwise the periodic refresh tells.
    async fn topics_changed(&self) -> bool {
        let Some(assigned) = &self.assigned_counts else { return false };
        let cluster = &self.group.coordinator.cluster;
        let topics: BTreeSet<Arc<str>> = assigned.keys().cloned().collect();
        if assigned.values().any(|count| *count == 0) {
            // If no broker answers now, one will at a later heartbeat.
            cluster.refresh(&topics, cluster.version()).await.ok();
        }
        // A topic that is unknown at the moment is no reason to move everything.
        self.counts(&topics).iter().any(|(topic, count)| assigned.get(topic) != Some(count))
    }
}

fn millis(span: Duration) -> i32 {
    i32::try_from(span.as_millis()).expect("bounded by the property's range")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_whose_generation_alone_is_over_keeps_its_id() {
        let member = GroupMetadata { generation_id: 4, member_id: "one".into(), ..GroupMetadata::default() };
        for (keeps_id, id) in [(true, "one"), (false, "")] {
            let mut member = member.clone();
            forget(&mut member, keeps_id);
            assert_eq!((member.generation_id, member.member_id.as_str()), (-1, id));
        }
    }

    #[test]
    fn each_client_has_its_own_patience_with_a_rebalance() {
        for (habits, join, sync) in [("librdkafka", 303, 48), ("java", 305, 30)] {
            let properties = broker::Properties::new()
                .set("bootstrap.servers", "b")
                .set("shakedown.client.habits", habits);
            let settings = Settings::read(&properties).expect("sound properties");
            assert_eq!(join_patience(&settings), Duration::from_secs(join), "{habits}");
            assert_eq!(sync_patience(&settings), Duration::from_secs(sync), "{habits}");
        }
    }
}

//! The task of a member: generation after generation, with heartbeats in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use broker::{Error, ErrorClass, ErrorCode, PartitionId, TopicPartition};
use context::Rng;
use kafka_protocol::messages::HeartbeatRequest;
use kafka_protocol::protocol::StrBytes;

use super::{Group, GroupEvent, forget};
use crate::assignor::COOPERATIVE_STICKY;
use crate::error::{self, code, wants_coordinator};
use crate::offsets::group_id;
use crate::properties::Habits;

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
    pub(super) group: Arc<Group>,
    pub(super) rng: Rng,
    pub(super) cooperative: bool,
    /// What the group has given to this member and not taken back; used by the cooperative protocol alone.
    pub(super) owned: BTreeSet<TopicPartition>,
    /// The partitions of the topics as this member, being the leader, last assigned them.
    pub(super) assigned_counts: Option<BTreeMap<Arc<str>, PartitionId>>,
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
    pub(super) fn lose(&mut self, keeps_id: bool) {
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

    pub(super) fn habits(&self) -> Habits {
        self.group.coordinator.cluster.settings.habits
    }

    pub(super) fn note(&self, text: std::fmt::Arguments<'_>) {
        let group = &self.group.coordinator.key;
        self.group.coordinator.cluster.context.note(format_args!("group {group}: {text}"));
    }

    pub(super) fn forget_member(&mut self, keeps_id: bool) {
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

//! A consumer's membership in its group: joins, keeps it alive, notices when the group moves on.
//!
//! A background task, so that heartbeats go on while a user's handler is slow. What concerns the user it puts into a
//! queue of [`GroupEvent`]s that polls work off: listeners are called from polls alone. The protocol is the classic one in
//! both its ways. Eager: before each new generation a member gives back all it holds. Cooperative (KIP-429), if every
//! assignor that is named is: a member joins with what it holds, reads on meanwhile, gives up what the assignment leaves
//! out, and joins once more, so that others can have it. Absent: KIP-848.
//!
//! Here is what the task and the polls share. The task is in `task.rs`, what it says to join in `rebalance.rs`.

mod rebalance;
mod task;

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker::{Error, GroupMetadata, TopicPartition};
use context::Timestamp;
use kafka_protocol::messages::LeaveGroupRequest;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::protocol::StrBytes;
use tokio::sync::Notify;

pub(crate) use task::Membership;

use crate::coordinator::Coordinator;
use crate::error::{self, code};
use crate::offsets::group_id;

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
}

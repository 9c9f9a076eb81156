//! The groups that one broker coordinates: those whose partition of the offsets topic it leads.
//!
//! It decides and remembers; its broker appends to the log, and answers clients when that is committed. As in Kafka's
//! `CoordinatorRuntime`, each partition is loaded from its log before it answers (COORDINATOR_LOAD_IN_PROGRESS), is given
//! up with its leadership (NOT_COORDINATOR), and applies its own records as soon as they are in the log.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use context::Timestamp;
use kafka_protocol::ResponseError;

use super::classic::{
    Answer, Ask, ClassicGroup, Decision, GroupSettings, JoinRequest, State, SyncRequest, Token,
};
use super::offsets::View;
use super::partition_for;
use super::shard::{Entry, Shard};
use crate::config::{Settings, millis};

/// What a coordinator waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A partition's log is read.
    Load {
        /// The partition.
        index: i32,
        /// The leader's epoch of which the load was begun.
        epoch: i32,
    },
    /// It is time to look for expired offsets.
    Expire {
        /// The partition.
        index: i32,
    },
    /// A group's deadline.
    Group(String),
}

/// How a member's commit is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitKind {
    /// OffsetCommit, in this version.
    Plain(i16),
    /// TxnOffsetCommit.
    Transactional,
}

/// The groups of one broker.
#[derive(Clone, Debug)]
pub struct Coordinator {
    settings: Settings,
    /// How many partitions the offsets topic has; 0 before this broker has led one.
    partitions: usize,
    shards: BTreeMap<i32, Shard>,
}

impl Coordinator {
    /// A coordinator of nothing.
    pub fn new(settings: Settings) -> Coordinator {
        Coordinator { settings, partitions: 0, shards: BTreeMap::new() }
    }

    fn group_settings(&self) -> GroupSettings {
        GroupSettings {
            initial_rebalance_delay: millis(self.settings.group_initial_rebalance_delay_ms),
            max_size: self.settings.group_max_size as usize,
        }
    }

    /// Begins to take over partition `index` of the `partitions` of the offsets topic. `false` if it is here already: a
    /// leader that was elected again goes on with what it knows.
    pub fn elected(&mut self, index: i32, partitions: usize, epoch: i32) -> bool {
        self.partitions = partitions;
        let settings = self.group_settings();
        let known = self.shards.contains_key(&index);
        self.shards.entry(index).or_insert_with(|| Shard::new(settings, epoch));
        !known
    }

    /// Takes over what the log of a partition holds, up to its end. Gives the groups that it found, each with what it says
    /// to that; `None` if the partition was given up meanwhile.
    pub fn load(
        &mut self,
        now: Timestamp,
        index: i32,
        epoch: i32,
        entries: impl IntoIterator<Item = Entry>,
        (log_end, high_watermark): (i64, i64),
    ) -> Option<BTreeMap<String, Vec<Answer>>> {
        let shard = self.shards.get_mut(&index).filter(|shard| shard.epoch == epoch && !shard.loaded)?;
        let mut answers = BTreeMap::new();
        shard.load(now, entries, log_end, high_watermark, &mut answers);
        Some(answers)
    }

    /// Gives a partition of the offsets topic up. Members that wait for an answer are told that this is no longer their
    /// coordinator.
    pub fn resigned(&mut self, index: i32, out: &mut Vec<Answer>) {
        if let Some(mut shard) = self.shards.remove(&index) {
            shard.groups.values_mut().for_each(|held| held.group.resign(out));
        }
    }

    /// The partitions of the offsets topic that are here, loaded or not.
    pub fn partitions(&self) -> Vec<i32> {
        self.shards.keys().copied().collect()
    }

    /// The partition of a group, if this broker coordinates it.
    ///
    /// # Errors
    /// `NOT_COORDINATOR`, `COORDINATOR_LOAD_IN_PROGRESS`.
    pub fn index(&self, group: &str) -> Result<i32, ResponseError> {
        let index = self.place(group).ok_or(ResponseError::NotCoordinator)?;
        self.ready(index).map(|()| index)
    }

    /// The partition of a group, whoever coordinates it; `None` before this broker has led one.
    pub fn place(&self, group: &str) -> Option<i32> {
        (self.partitions > 0).then(|| partition_for(group, self.partitions) as i32)
    }

    /// Whether a partition of the offsets topic is loaded.
    ///
    /// # Errors
    /// As [`Coordinator::index`].
    pub fn ready(&self, index: i32) -> Result<(), ResponseError> {
        match self.shards.get(&index) {
            None => Err(ResponseError::NotCoordinator),
            Some(shard) if shard.loaded => Ok(()),
            Some(_) => Err(ResponseError::CoordinatorLoadInProgress),
        }
    }

    /// The partition with a group.
    ///
    /// # Errors
    /// As [`Coordinator::index`].
    pub fn shard(&self, group: &str) -> Result<&Shard, ResponseError> {
        Ok(&self.shards[&self.index(group)?])
    }

    /// A partition that is here.
    pub fn shard_at(&self, index: i32) -> Option<&Shard> {
        self.shards.get(&index)
    }

    fn shard_mut(&mut self, group: &str) -> Result<&mut Shard, ResponseError> {
        let index = self.index(group)?;
        Ok(self.shards.get_mut(&index).expect("it was just found"))
    }

    fn group(&self, group: &str) -> Option<&ClassicGroup> {
        self.shard(group).ok()?.group(View::Latest, group)
    }

    fn group_mut(&mut self, group: &str) -> Option<&mut ClassicGroup> {
        self.shard_mut(group).ok()?.groups.get_mut(group).map(|held| &mut held.group)
    }

    /// The offsets that a group has committed.
    pub fn committed(&self, group: &str) -> BTreeMap<(String, i32), i64> {
        let Ok(shard) = self.shard(group) else { return BTreeMap::new() };
        let offsets = shard.offsets.of_group(View::Latest, group);
        offsets.map(|(topic, index, committed)| ((topic.to_owned(), index), committed.offset)).collect()
    }

    /// `consumer`, for a group that has had a member.
    pub fn protocol_type(&self, group: &str) -> Option<&str> {
        self.group(group)?.protocol_type()
    }

    /// Whether a group is stable.
    pub fn is_stable(&self, group: &str) -> bool {
        self.group(group).is_some_and(|group| group.state() == State::Stable)
    }

    /// A member joins.
    pub fn join(&mut self, now: Timestamp, group: &str, request: JoinRequest, out: &mut Vec<Answer>) {
        let sessions =
            self.settings.group_min_session_timeout_ms..=self.settings.group_max_session_timeout_ms;
        let session_ms = i32::try_from(request.session_timeout.as_millis()).unwrap_or(i32::MAX);
        let checked = if group.is_empty() {
            Err(ResponseError::InvalidGroupId)
        } else if !sessions.contains(&session_ms) {
            Err(ResponseError::InvalidSessionTimeout)
        } else {
            self.shard_mut(group)
        };
        let known = checked.and_then(|shard| {
            let known = shard.groups.contains_key(group);
            if !known && !request.member_id.is_empty() {
                return Err(ResponseError::UnknownMemberId);
            }
            Ok((shard, known))
        });
        match known {
            Ok((shard, known)) => {
                let written = shard.written;
                let token = request.token.clone();
                let held = if known {
                    shard.groups.get_mut(group).expect("it is known")
                } else {
                    shard.create(now, group, written)
                };
                held.group.join(now, request, out);
                if !known {
                    out.push(Answer::Persist(Some(Decision::Create { token })));
                }
            }
            Err(error) => {
                let (token, member_id) = (request.token, request.member_id);
                out.push(Answer::JoinFailed { token, member_id, error });
            }
        }
    }

    /// A member asks for its assignment.
    pub fn sync(&mut self, group: &str, request: SyncRequest, out: &mut Vec<Answer>) {
        match self.known(group) {
            Ok(known) => known.sync(request, out),
            Err(error) => out.push(Answer::SyncFailed { token: request.token, error }),
        }
    }

    fn known(&mut self, group: &str) -> Result<&mut ClassicGroup, ResponseError> {
        if group.is_empty() {
            return Err(ResponseError::InvalidGroupId);
        }
        let held = self.shard_mut(group)?.groups.get_mut(group);
        held.map(|held| &mut held.group).ok_or(ResponseError::UnknownMemberId)
    }

    /// A member says that it lives.
    ///
    /// # Errors
    /// As [`ClassicGroup::heartbeat`].
    pub fn heartbeat(&mut self, now: Timestamp, group: &str, ask: Ask<'_>) -> Result<(), ResponseError> {
        self.known(group)?.heartbeat(now, ask)
    }

    /// Members leave together; gives each one's error.
    ///
    /// # Errors
    /// `INVALID_GROUP_ID`, as [`Coordinator::index`], and `UNKNOWN_MEMBER_ID` where there is no such group.
    pub fn leave(
        &mut self,
        now: Timestamp,
        group: &str,
        members: &[(&str, Option<&str>)],
        out: &mut Vec<Answer>,
    ) -> Result<Vec<Result<(), ResponseError>>, ResponseError> {
        let known = self.known(group)?;
        let left: Vec<_> = members.iter().map(|(id, instance)| known.leave(id, *instance, out)).collect();
        let names = members.iter().zip(&left).filter(|(_, left)| left.is_ok());
        let names: Vec<&str> = names
            .map(|((id, instance), _)| if id.is_empty() { instance.unwrap_or_default() } else { *id })
            .collect();
        if !names.is_empty() {
            known.left(now, &names.join(", "), out);
        }
        Ok(left)
    }

    /// Whether a member may commit.
    ///
    /// # Errors
    /// As [`ClassicGroup::check_commit`] and [`Coordinator::index`]; for a group that is not there `GROUP_ID_NOT_FOUND`
    /// from version 9 of OffsetCommit on, `ILLEGAL_GENERATION` before and in transactions.
    pub fn check_commit(
        &mut self,
        now: Timestamp,
        group: &str,
        ask: Ask<'_>,
        kind: CommitKind,
    ) -> Result<(), ResponseError> {
        match self.shard_mut(group)?.groups.get_mut(group) {
            Some(held) => held.group.check_commit(now, ask, kind == CommitKind::Transactional),
            // Offsets alone make a group, if nobody claims to be its member.
            None if ask.generation < 0 => Ok(()),
            None if matches!(kind, CommitKind::Plain(9..)) => Err(ResponseError::GroupIdNotFound),
            None => Err(ResponseError::IllegalGeneration),
        }
    }

    /// Applies what was just appended to a partition's log.
    pub fn replay(
        &mut self,
        now: Timestamp,
        index: i32,
        entries: impl IntoIterator<Item = Entry>,
        high_watermark: i64,
    ) {
        let Some(shard) = self.shards.get_mut(&index) else { return };
        entries.into_iter().for_each(|entry| shard.replay(now, entry, high_watermark));
    }

    /// The log of a partition ends here after this coordinator's last write.
    pub fn written(&mut self, index: i32, log_end: i64) {
        if let Some(shard) = self.shards.get_mut(&index) {
            shard.written = shard.written.max(log_end);
        }
    }

    /// Carries on with what a group decided, if it is still coordinated as it was then.
    pub fn decided(
        &mut self,
        now: Timestamp,
        group: &str,
        epoch: i32,
        decision: Decision,
        result: Result<(), ResponseError>,
        out: &mut Vec<Answer>,
    ) {
        if self.shard(group).is_ok_and(|shard| shard.epoch == epoch)
            && let Some(group) = self.group_mut(group)
        {
            group.decided(now, decision, result, out);
        }
    }

    /// Whether a member waits with this request for its group.
    pub fn waits(&self, group: &str, token: &Token) -> bool {
        self.group(group).is_some_and(|group| group.waits(token))
    }

    /// A member has waited too long with this request: what it hears, if it still waits.
    pub fn waited_too_long(&mut self, group: &str, token: &Token, error: ResponseError) -> Option<Answer> {
        self.group_mut(group)?.waited_too_long(token, error)
    }

    /// A new group could not be appended to the log: it is gone again, with the ids that it has given. What its first member
    /// hears if that waits; Kafka's `classicGroupJoinToClassicGroup` takes the group back in the same way.
    pub fn not_created(&mut self, group: &str, token: &Token, error: ResponseError) -> Vec<Answer> {
        let mut answers = Vec::new();
        let held = self.shard_mut(group).ok().and_then(|shard| shard.groups.remove(group));
        if let Some(mut held) = held {
            held.group.created(token, Err(error), &mut answers);
        }
        answers
    }

    /// The deadline of a group: not earlier than asked for.
    pub fn tick(&mut self, now: Timestamp, group: &str, out: &mut Vec<Answer>) {
        if let Ok(shard) = self.shard_mut(group)
            && let Some(held) = shard.groups.get_mut(group)
            && held.armed.is_some_and(|armed| armed <= now)
        {
            held.armed = None;
            held.group.tick(now, out);
        }
    }

    /// A new deadline of a group, if it is sooner than the one last given.
    pub fn arm(&mut self, group: &str) -> Option<Timestamp> {
        let held = self.shard_mut(group).ok()?.groups.get_mut(group)?;
        let next = held.group.next_deadline()?;
        if held.armed.is_some_and(|armed| armed <= next) {
            return None;
        }
        held.armed = Some(next);
        Some(next)
    }

    /// When a partition must look for expired offsets next, if that is to be set: it has groups, and no time is set yet.
    pub fn arm_expiry(&mut self, now: Timestamp, index: i32) -> Option<Timestamp> {
        let interval_ms =
            u64::try_from(self.settings.offsets_retention_check_interval_ms).unwrap_or(u64::MAX);
        let shard = self.shards.get_mut(&index).filter(|shard| shard.expiry.is_none())?;
        if shard.groups.is_empty() {
            return None;
        }
        shard.expiry = Some(now + Duration::from_millis(interval_ms));
        shard.expiry
    }

    /// The tombstones of what has expired in a partition.
    pub fn expire(&mut self, now: Timestamp, index: i32) -> Vec<super::GroupRecord> {
        let retention_ms = i64::from(self.settings.offsets_retention_minutes) * 60_000;
        let due = |shard: &&mut Shard| shard.loaded && shard.expiry.is_some_and(|at| at <= now);
        let Some(shard) = self.shards.get_mut(&index).filter(due) else { return Vec::new() };
        shard.expiry = None;
        shard.expired(now.as_millis() as i64, retention_ms)
    }

    /// The names of the groups in a partition.
    pub fn groups_in(&self, index: i32) -> BTreeSet<String> {
        self.shards.get(&index).map(Shard::names).unwrap_or_default()
    }
}

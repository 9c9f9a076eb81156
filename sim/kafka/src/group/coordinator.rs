//! The groups and offsets of the partitions of the offsets topic that one broker leads.
//!
//! It decides and remembers; its broker appends to the log. A change is given out as [`GroupRecord`]s, and on a broker
//! that takes a partition over the same records bring the same state back.

use std::collections::{BTreeMap, BTreeSet};

use context::Timestamp;
use kafka_protocol::ResponseError;

use super::classic::{Answer, Ask, ClassicGroup, GroupSettings, JoinRequest, State, SyncRequest};
use super::partition_for;
use super::records::{GroupRecord, StoredGroup};
use crate::config::{Settings, millis};

/// What a group has committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next record to read.
    pub offset: i64,
    /// Of the last record read; -1 if the client did not say.
    pub leader_epoch: i32,
    /// The client's own words.
    pub metadata: String,
    /// When it was committed, in milliseconds.
    pub commit_timestamp_ms: i64,
}

/// What a group has committed, by topic and partition.
pub type Offsets = BTreeMap<(String, i32), CommittedOffset>;

/// A group whose deadline it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timer(pub String);

#[derive(Clone, Debug)]
struct Held {
    members: ClassicGroup,
    offsets: Offsets,
    /// The deadline that the broker was last told.
    armed: Option<Timestamp>,
}

/// The groups of one broker.
#[derive(Clone, Debug)]
pub struct Coordinator {
    settings: Settings,
    partitions: usize,
    /// The partitions of the offsets topic that are loaded.
    loaded: BTreeSet<i32>,
    groups: BTreeMap<String, Held>,
}

impl Coordinator {
    /// A coordinator of nothing.
    pub fn new(settings: Settings) -> Coordinator {
        Coordinator { settings, partitions: 0, loaded: BTreeSet::new(), groups: BTreeMap::new() }
    }

    fn group_settings(&self) -> GroupSettings {
        GroupSettings {
            initial_rebalance_delay: millis(self.settings.group_initial_rebalance_delay_ms),
            max_size: self.settings.group_max_size as usize,
        }
    }

    /// Takes over partition `index` of the `partitions` of the offsets topic, with what its log holds. Gives the number
    /// of groups found.
    pub fn load(
        &mut self,
        now: Timestamp,
        index: i32,
        partitions: usize,
        records: impl Iterator<Item = GroupRecord>,
    ) -> usize {
        self.partitions = partitions;
        self.loaded.insert(index);
        let mut offsets: BTreeMap<String, Offsets> = BTreeMap::new();
        let mut stored: BTreeMap<String, StoredGroup> = BTreeMap::new();
        for record in records {
            match record {
                GroupRecord::Offset { group, topic, partition, value } => {
                    let of_group = offsets.entry(group).or_default();
                    match value {
                        Some(value) => _ = of_group.insert((topic, partition), value),
                        None => _ = of_group.remove(&(topic, partition)),
                    }
                }
                GroupRecord::Group { group, value: Some(value) } => _ = stored.insert(group, value),
                GroupRecord::Group { group, value: None } => _ = stored.remove(&group),
            }
        }
        let settings = self.group_settings();
        let names: BTreeSet<String> = offsets.keys().chain(stored.keys()).cloned().collect();
        for name in &names {
            let members = match stored.get(name) {
                Some(stored) => ClassicGroup::restore(now, name.clone(), settings, stored),
                None => ClassicGroup::new(name.clone(), settings),
            };
            let offsets = offsets.remove(name).unwrap_or_default();
            self.groups.insert(name.clone(), Held { members, offsets, armed: None });
        }
        names.len()
    }

    /// Gives a partition of the offsets topic up. Members that wait for an answer are told that this is no longer their
    /// coordinator.
    pub fn unload(&mut self, index: i32, out: &mut Vec<Answer>) {
        self.loaded.remove(&index);
        let partitions = self.partitions;
        self.groups.retain(|name, held| {
            let gone = partition_for(name, partitions) as i32 == index;
            if gone {
                held.members.resign(out);
            }
            !gone
        });
    }

    /// The partitions of the offsets topic that are here.
    pub fn partitions(&self) -> Vec<i32> {
        self.loaded.iter().copied().collect()
    }

    /// The partition of a group, if this broker coordinates it.
    ///
    /// # Errors
    /// `INVALID_GROUP_ID` for an empty name, `NOT_COORDINATOR`.
    pub fn partition(&self, group: &str) -> Result<i32, ResponseError> {
        if group.is_empty() {
            return Err(ResponseError::InvalidGroupId);
        }
        self.partition_of_any(group)
    }

    /// The same where the empty name is a group too: consumers without one committed under it before they could not
    /// (Kafka's `isGroupIdValid` lets it commit and fetch).
    ///
    /// # Errors
    /// `NOT_COORDINATOR`.
    pub fn partition_of_any(&self, group: &str) -> Result<i32, ResponseError> {
        if self.partitions == 0 {
            return Err(ResponseError::NotCoordinator);
        }
        let index = partition_for(group, self.partitions) as i32;
        if self.loaded.contains(&index) { Ok(index) } else { Err(ResponseError::NotCoordinator) }
    }

    /// The offsets that a group has committed.
    pub fn committed(&self, group: &str) -> BTreeMap<(String, i32), i64> {
        let offsets = self.groups.get(group).into_iter().flat_map(|held| &held.offsets);
        offsets.map(|(at, committed)| (at.clone(), committed.offset)).collect()
    }

    /// `consumer`, for a group that has had a member.
    pub fn protocol_type(&self, group: &str) -> Option<&str> {
        self.groups.get(group)?.members.protocol_type()
    }

    /// Whether a group is stable.
    pub fn is_stable(&self, group: &str) -> bool {
        self.groups.get(group).is_some_and(|held| held.members.state() == State::Stable)
    }

    /// A member joins.
    pub fn join(&mut self, now: Timestamp, group: &str, request: JoinRequest, out: &mut Vec<Answer>) {
        let sessions =
            self.settings.group_min_session_timeout_ms..=self.settings.group_max_session_timeout_ms;
        let session_ms = i32::try_from(request.session_timeout.as_millis()).unwrap_or(i32::MAX);
        let error = if let Err(error) = self.partition(group) {
            Some(error)
        } else if !sessions.contains(&session_ms) {
            Some(ResponseError::InvalidSessionTimeout)
        } else if !request.member_id.is_empty() && !self.groups.contains_key(group) {
            Some(ResponseError::UnknownMemberId)
        } else {
            None
        };
        if let Some(error) = error {
            return out.push(Answer::JoinFailed {
                token: request.token,
                member_id: request.member_id,
                error,
            });
        }
        self.held(group).members.join(now, request, out);
    }

    fn held(&mut self, group: &str) -> &mut Held {
        let settings = self.group_settings();
        self.groups.entry(group.to_owned()).or_insert_with(|| Held {
            members: ClassicGroup::new(group, settings),
            offsets: BTreeMap::new(),
            armed: None,
        })
    }

    /// A member asks for its assignment.
    pub fn sync(&mut self, now: Timestamp, group: &str, request: SyncRequest, out: &mut Vec<Answer>) {
        match self.known(group) {
            Ok(held) => held.members.sync(now, request, out),
            Err(error) => out.push(Answer::SyncFailed { token: request.token, error }),
        }
    }

    fn known(&mut self, group: &str) -> Result<&mut Held, ResponseError> {
        self.partition(group)?;
        self.groups.get_mut(group).ok_or(ResponseError::UnknownMemberId)
    }

    /// A member says that it lives.
    ///
    /// # Errors
    /// As [`ClassicGroup::heartbeat`].
    pub fn heartbeat(&mut self, now: Timestamp, group: &str, ask: Ask<'_>) -> Result<(), ResponseError> {
        self.known(group)?.members.heartbeat(now, ask)
    }

    /// A member leaves.
    ///
    /// # Errors
    /// As [`ClassicGroup::leave`].
    pub fn leave(
        &mut self,
        now: Timestamp,
        group: &str,
        id: &str,
        instance: Option<&str>,
        out: &mut Vec<Answer>,
    ) -> Result<(), ResponseError> {
        self.known(group)?.members.leave(now, id, instance, out)
    }

    /// Whether a member may commit, before any partition is looked at.
    ///
    /// # Errors
    /// As [`ClassicGroup::check_commit`]; for a group that is not there `GROUP_ID_NOT_FOUND` from version 9 of
    /// OffsetCommit on, `ILLEGAL_GENERATION` before.
    pub fn check_commit(
        &mut self,
        now: Timestamp,
        group: &str,
        ask: Ask<'_>,
        version: i16,
    ) -> Result<(), ResponseError> {
        self.partition_of_any(group)?;
        if !self.groups.contains_key(group) {
            // Offsets alone make a group, if nobody claims to be its member.
            return match version {
                _ if ask.generation < 0 => Ok(()),
                9.. => Err(ResponseError::GroupIdNotFound),
                _ => Err(ResponseError::IllegalGeneration),
            };
        }
        self.held(group).members.check_commit(now, ask)
    }

    /// Remembers offsets that were written to the log.
    pub fn committed_now(&mut self, group: &str, offsets: Vec<((String, i32), CommittedOffset)>) {
        self.held(group).offsets.extend(offsets);
    }

    /// What a group has committed.
    ///
    /// # Errors
    /// `NOT_COORDINATOR`.
    pub fn offsets(&self, group: &str) -> Result<Option<&Offsets>, ResponseError> {
        self.partition_of_any(group)?;
        Ok(self.groups.get(group).map(|held| &held.offsets))
    }

    /// Forgets what any group has committed for a topic that is deleted; gives the tombstones to write, by group.
    pub fn forget_topic(&mut self, topic: &str) -> Vec<(String, Vec<GroupRecord>)> {
        let mut tombstones = Vec::new();
        for (name, held) in &mut self.groups {
            let gone: Vec<_> = held.offsets.keys().filter(|(of, _)| of == topic).cloned().collect();
            let records: Vec<_> = gone
                .into_iter()
                .map(|at| {
                    held.offsets.remove(&at);
                    GroupRecord::Offset { group: name.clone(), topic: at.0, partition: at.1, value: None }
                })
                .collect();
            if !records.is_empty() {
                tombstones.push((name.clone(), records));
            }
        }
        tombstones
    }

    /// A group as it must be written.
    pub fn record(&self, now: Timestamp, group: &str) -> GroupRecord {
        let held = &self.groups[group];
        let value = Some(StoredGroup::of(&held.members, now.as_millis() as i64));
        GroupRecord::Group { group: group.to_owned(), value }
    }

    /// The deadline of a group: not earlier than asked for.
    pub fn tick(&mut self, now: Timestamp, group: &str, out: &mut Vec<Answer>) {
        if let Some(held) = self.groups.get_mut(group) {
            held.armed = None;
            held.members.tick(now, out);
        }
    }

    /// A new deadline of a group, if it is sooner than the one last given.
    pub fn arm(&mut self, group: &str) -> Option<Timestamp> {
        let held = self.groups.get_mut(group)?;
        let next = held.members.next_deadline()?;
        if held.armed.is_some_and(|armed| armed <= next) {
            return None;
        }
        held.armed = Some(next);
        Some(next)
    }

    /// The names of the groups in a partition of the offsets topic.
    pub fn groups_in(&self, index: i32) -> Vec<String> {
        let here = |name: &&String| partition_for(name, self.partitions) as i32 == index;
        self.groups.keys().filter(here).cloned().collect()
    }
}

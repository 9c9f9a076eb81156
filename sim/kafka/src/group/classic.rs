//! The state machine of one classic group, as Kafka's `ClassicGroup` and the classic part of `GroupMetadataManager`.
//!
//! ```text
//!            join                 all joined, or timeout            leader's sync
//! Empty ------------> PreparingRebalance -----------> CompletingRebalance ----------> Stable
//!   ^                   ^        |    ^                       |                        |
//!   |                   |        |    +------ join, leave, session end, sync timeout --+
//!   +--- no member left +--------+
//! ```
//!
//! - The first join of an empty group waits `group.initial.rebalance.delay.ms` for others, again for each that comes.
//! - A rebalance ends when all members have joined, or at the longest rebalance timeout of its members; who has not
//!   joined by then is out (a static member stays).
//! - A member lives while its heartbeats come within its session timeout; one that waits for a join or a sync lives.
//! - A static member (`group.instance.id`) that comes back under a new member id takes its old place without a rebalance
//!   if it asks for the same; whoever uses the old id is fenced.
//!
//! Time goes in with each call and comes out as deadlines ([`ClassicGroup::next_deadline`]). What must be in the log before
//! the group goes on is an [`Answer::Persist`] with a [`Decision`], which comes back to [`ClassicGroup::decided`] when it is
//! committed, or cannot be.
//!
//! Joins and the rebalance are in `join`, assignments in `sync`, members that go in `leave`.

mod exchange;
mod join;
mod leave;
mod sync;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::{Buf, Bytes};
use context::Timestamp;
use kafka_protocol::ResponseError;

use crate::wire::primitive::Take;

pub use exchange::{Answer, Ask, Decision, JoinRequest, Protocol, Replaced, SyncRequest, Token};

/// How long a member that has never been in a generation may wait for its first: Kafka's
/// `classicGroupNewMemberJoinTimeoutMs`, 5 min.
const NEW_MEMBER_JOIN_TIMEOUT: Duration = Duration::from_secs(300);

/// The protocol type of Kafka's consumers.
const CONSUMER: &str = "consumer";

/// Where a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No members; perhaps offsets.
    Empty,
    /// Members are asked to join anew.
    PreparingRebalance,
    /// All have joined; the leader's assignment is awaited.
    CompletingRebalance,
    /// All have their assignment.
    Stable,
}

impl State {
    /// As DescribeGroups and ListGroups name it.
    pub const fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::PreparingRebalance => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Given by the coordinator.
    pub id: String,
    /// `group.instance.id` of a static member.
    pub instance: Option<String>,
    /// For tools.
    pub client_id: String,
    /// For tools.
    pub client_host: String,
    /// How long it may take to join anew.
    pub rebalance_timeout: Duration,
    /// How long it may be silent.
    pub session_timeout: Duration,
    /// In its order of preference.
    pub protocols: Vec<Protocol>,
    /// What it reads; opaque here.
    pub assignment: Bytes,
    heard: Timestamp,
    /// It has not been in a generation yet.
    new: bool,
    joining: Option<Token>,
    syncing: Option<Token>,
}

/// A broker's settings for groups.
#[derive(Clone, Copy, Debug)]
pub struct GroupSettings {
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay: Duration,
    /// `group.max.size`.
    pub max_size: usize,
}

/// When a rebalance ends whoever is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JoinPhase {
    /// The first of an empty group: waits for others, for as long as `left` allows.
    Initial { until: Timestamp, left: Duration, more_came: bool },
    /// Ends early when all have joined.
    Until(Timestamp),
}

/// One classic group.
#[derive(Clone, Debug)]
pub struct ClassicGroup {
    id: String,
    settings: GroupSettings,
    state: State,
    state_since: Timestamp,
    generation: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Ids given with MEMBER_ID_REQUIRED and not used yet, with their deadlines.
    pending: BTreeMap<String, Timestamp>,
    instances: BTreeMap<String, String>,
    /// As of its last generation; `None` if that cannot be told.
    subscribed: Option<BTreeSet<String>>,
    join_phase: Option<JoinPhase>,
    /// Members whose sync is awaited, and until when.
    pending_sync: BTreeSet<String>,
    sync_until: Option<Timestamp>,
}

impl ClassicGroup {
    /// A group without members.
    pub fn new(now: Timestamp, id: impl Into<String>, settings: GroupSettings) -> ClassicGroup {
        ClassicGroup {
            id: id.into(),
            settings,
            state: State::Empty,
            state_since: now,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            pending: BTreeMap::new(),
            instances: BTreeMap::new(),
            subscribed: None,
            join_phase: None,
            pending_sync: BTreeSet::new(),
            sync_until: None,
        }
    }

    /// A group as its log has it: its members go on with their generation, and their sessions begin anew.
    pub fn restore(
        now: Timestamp,
        id: impl Into<String>,
        settings: GroupSettings,
        stored: &super::records::StoredGroup,
    ) -> ClassicGroup {
        let mut group = ClassicGroup::new(now, id, settings);
        group.generation = stored.generation;
        group.protocol_type = Some(stored.protocol_type.clone()).filter(|kind| !kind.is_empty());
        group.protocol.clone_from(&stored.protocol);
        group.leader.clone_from(&stored.leader);
        for stored_member in &stored.members {
            let name = stored.protocol.clone().unwrap_or_default();
            let member = Member {
                id: stored_member.id.clone(),
                instance: stored_member.instance.clone(),
                client_id: stored_member.client_id.clone(),
                client_host: stored_member.client_host.clone(),
                rebalance_timeout: stored_member.rebalance_timeout,
                session_timeout: stored_member.session_timeout,
                protocols: vec![Protocol { name, metadata: stored_member.subscription.clone() }],
                assignment: stored_member.assignment.clone(),
                heard: now,
                new: false,
                joining: None,
                syncing: None,
            };
            group.instances.extend(member.instance.clone().map(|instance| (instance, member.id.clone())));
            group.members.insert(member.id.clone(), member);
        }
        group.subscribed = group.subscribed_topics();
        group.state = if group.members.is_empty() { State::Empty } else { State::Stable };
        if let Ok(since_ms) = u64::try_from(stored.timestamp_ms) {
            group.state_since = Timestamp::from_millis(since_ms);
        }
        group
    }

    /// Where it is.
    pub fn state(&self) -> State {
        self.state
    }

    /// Since when it is in its state.
    pub fn state_since(&self) -> Timestamp {
        self.state_since
    }

    fn enter(&mut self, now: Timestamp, state: State) {
        self.state = state;
        self.state_since = now;
    }

    /// Grows with each rebalance.
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// Its members, by id.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// `consumer`, once it has had a member.
    pub fn protocol_type(&self) -> Option<&str> {
        self.protocol_type.as_deref()
    }

    /// The protocol that all speak.
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// The member that assigns.
    pub fn leader(&self) -> Option<&str> {
        self.leader.as_deref()
    }

    /// The topics that the members subscribe to, read from what they told the assignor; `None` for a group that is not one of
    /// consumers, or whose members speak another language than Kafka's consumers.
    fn subscribed_topics(&self) -> Option<BTreeSet<String>> {
        if self.protocol_type.as_deref() != Some(CONSUMER) {
            return None;
        }
        let mut topics = BTreeSet::new();
        if !self.members.is_empty() {
            for (_, _, metadata) in self.protocol.as_ref().map(|_| self.subscriptions())? {
                topics.extend(topics_of(metadata)?);
            }
        }
        Some(topics)
    }

    /// Whether the last generation reads a topic; who joins or leaves since then changes nothing. Where the subscriptions of
    /// consumers cannot be read, it reads all.
    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        let consumers = self.protocol_type.as_deref() == Some(CONSUMER);
        self.subscribed.as_ref().map_or(consumers, |topics| topics.contains(topic))
    }

    /// Whether offsets may be deleted: those of a group of consumers where no member reads the topic, of others only
    /// without members.
    ///
    /// # Errors
    /// `NON_EMPTY_GROUP`.
    pub fn check_offset_delete(&self) -> Result<(), ResponseError> {
        let consumers = self.protocol_type.as_deref() == Some(CONSUMER);
        if self.state == State::Empty || consumers { Ok(()) } else { Err(ResponseError::NonEmptyGroup) }
    }

    /// From when on an offset that was committed at `commit_timestamp_ms` counts as unused (KIP-211): with the last member
    /// gone since then; in a group without members ever, since the commit; in a stable group of consumers, since the commit
    /// if nobody subscribes to its topic. `None`: it is in use.
    pub fn unused_since_ms(&self, topic: &str, commit_timestamp_ms: i64) -> Option<i64> {
        if self.protocol_type.is_none() {
            return Some(commit_timestamp_ms);
        }
        if self.is_subscribed_to(topic) {
            return None;
        }
        match self.state {
            State::Empty => Some(self.state_since.as_millis() as i64),
            State::Stable if self.subscribed.is_some() => Some(commit_timestamp_ms),
            _ => None,
        }
    }

    /// A member says that it lives: its session begins anew.
    ///
    /// # Errors
    /// What it must do: join anew (`REBALANCE_IN_PROGRESS`, `ILLEGAL_GENERATION`, `UNKNOWN_MEMBER_ID`), or stop
    /// (`FENCED_INSTANCE_ID`).
    pub fn heartbeat(&mut self, now: Timestamp, ask: Ask<'_>) -> Result<(), ResponseError> {
        self.check(ask)?;
        if self.state == State::Empty {
            return Err(ResponseError::UnknownMemberId);
        }
        self.members.get_mut(ask.member_id).expect("it was checked").heard = now;
        if self.state == State::PreparingRebalance { Err(ResponseError::RebalanceInProgress) } else { Ok(()) }
    }

    fn check(&self, ask: Ask<'_>) -> Result<(), ResponseError> {
        self.check_member(ask.member_id, ask.instance)?;
        if ask.generation == self.generation { Ok(()) } else { Err(ResponseError::IllegalGeneration) }
    }

    fn check_member(&self, id: &str, instance: Option<&str>) -> Result<(), ResponseError> {
        if let Some(instance) = instance {
            match self.instances.get(instance) {
                None => return Err(ResponseError::UnknownMemberId),
                Some(holder) if holder != id => return Err(ResponseError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(id) { Ok(()) } else { Err(ResponseError::UnknownMemberId) }
    }

    /// Whether offsets may be committed. A consumer outside of group management (no member, generation -1) may only
    /// while the group is empty. In a transaction a client that does not say which member it is may always, and members
    /// may while the assignment is awaited: only their offsets' transaction counts then.
    ///
    /// # Errors
    /// As [`ClassicGroup::heartbeat`].
    pub fn check_commit(
        &mut self,
        now: Timestamp,
        ask: Ask<'_>,
        transactional: bool,
    ) -> Result<(), ResponseError> {
        if ask.generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        if ask.generation >= 0 || !ask.member_id.is_empty() || ask.instance.is_some() {
            self.check(ask)?;
        } else if !transactional {
            return Err(ResponseError::UnknownMemberId);
        }
        if transactional {
            return Ok(());
        }
        if self.state == State::CompletingRebalance {
            return Err(ResponseError::RebalanceInProgress);
        }
        self.members.get_mut(ask.member_id).expect("it was checked").heard = now;
        Ok(())
    }

    /// Carries on after a [`Decision`] was committed, or could not be.
    pub fn decided(
        &mut self,
        now: Timestamp,
        decision: Decision,
        result: Result<(), ResponseError>,
        out: &mut Vec<Answer>,
    ) {
        match decision {
            Decision::Create { token } => self.created(&token, result, out),
            Decision::Assign { generation, assignments } => {
                self.assigned(now, generation, assignments, result, out);
            }
            Decision::Replace(replaced) => self.replaced(now, *replaced, result, out),
        }
    }
}

/// The topics in a consumer's subscription: a version, then the names, then what later versions add.
fn topics_of(mut metadata: Bytes) -> Option<Vec<String>> {
    metadata.try_get_i16().ok()?;
    let count = usize::try_from(metadata.try_get_i32().ok()?).ok()?;
    // A name has at least its length's two bytes: the count is the client's word only.
    let mut topics = Vec::with_capacity(count.min(metadata.len() / 2));
    for _ in 0..count {
        topics.push(metadata.take_text()?);
    }
    Some(topics)
}

#[cfg(test)]
mod tests;

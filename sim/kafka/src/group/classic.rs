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
//! Time goes in with each call and comes out as deadlines ([`ClassicGroup::next_deadline`]).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use context::Timestamp;
use kafka_protocol::ResponseError;

use crate::core::ConnectionId;
use crate::wire::Call;

/// How long a member that has never been in a generation may wait for its first: Kafka's
/// `classicGroupNewMemberJoinTimeoutMs`, 5 min.
const NEW_MEMBER_JOIN_TIMEOUT: Duration = Duration::from_secs(300);

/// Whom to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The connection.
    pub connection: ConnectionId,
    /// The request.
    pub call: Call,
}

/// A protocol that a member can speak: an assignor's name and what the member tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// `range`, `cooperative-sticky`…
    pub name: String,
    /// Topics subscribed to, and more; opaque here.
    pub metadata: Bytes,
}

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

/// What a member asks for when it joins.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// Whom to answer.
    pub token: Token,
    /// Empty for a new member.
    pub member_id: String,
    /// Of a static member.
    pub instance: Option<String>,
    /// The id that a new member gets.
    pub fresh_id: String,
    /// For tools.
    pub client_id: String,
    /// For tools.
    pub client_host: String,
    /// How long it may be silent.
    pub session_timeout: Duration,
    /// How long it may take to join anew.
    pub rebalance_timeout: Duration,
    /// `consumer`.
    pub protocol_type: String,
    /// In its order of preference.
    pub protocols: Vec<Protocol>,
    /// The client knows MEMBER_ID_REQUIRED (JoinGroup 4 and later).
    pub requires_known_id: bool,
    /// The client knows `skip_assignment` (JoinGroup 9 and later).
    pub can_skip_assignment: bool,
}

/// What a member asks for, and a leader brings, when the members have joined.
#[derive(Clone, Debug)]
pub struct SyncRequest {
    /// Whom to answer.
    pub token: Token,
    /// Given by the coordinator.
    pub member_id: String,
    /// Of a static member.
    pub instance: Option<String>,
    /// The generation that it believes in.
    pub generation: i32,
    /// What it takes the protocol type for; `None` if its version cannot say.
    pub protocol_type: Option<String>,
    /// What it takes the protocol for; `None` if its version cannot say.
    pub protocol: Option<String>,
    /// From the leader: what each member reads.
    pub assignments: Vec<(String, Bytes)>,
}

/// How a member names itself in a sync, heartbeat or commit.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Given by the coordinator.
    pub member_id: &'a str,
    /// Of a static member.
    pub instance: Option<&'a str>,
    /// The generation that it believes in.
    pub generation: i32,
}

/// What a group tells its members and its coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A join is done.
    Joined {
        /// Whom to answer.
        token: Token,
        /// The new generation.
        generation: i32,
        /// The protocol that all speak.
        protocol: Option<String>,
        /// The member that assigns.
        leader: String,
        /// The member answered.
        member_id: String,
        /// For the leader: id, instance and metadata of each member.
        members: Vec<(String, Option<String>, Bytes)>,
        /// The leader need not assign: nothing has changed.
        skip_assignment: bool,
    },
    /// A join failed.
    JoinFailed {
        /// Whom to answer.
        token: Token,
        /// The member id, which is new with MEMBER_ID_REQUIRED.
        member_id: String,
        /// Why.
        error: ResponseError,
    },
    /// A sync is done.
    Synced {
        /// Whom to answer.
        token: Token,
        /// The protocol that all speak.
        protocol: Option<String>,
        /// What the member reads.
        assignment: Bytes,
    },
    /// A sync failed.
    SyncFailed {
        /// Whom to answer.
        token: Token,
        /// Why.
        error: ResponseError,
    },
    /// The group must be written to its log.
    Persist,
    /// A line for the trace.
    Note(String),
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
    generation: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Ids given with MEMBER_ID_REQUIRED and not used yet, with their deadlines.
    pending: BTreeMap<String, Timestamp>,
    instances: BTreeMap<String, String>,
    join_phase: Option<JoinPhase>,
    /// Members whose sync is awaited, and until when.
    pending_sync: BTreeSet<String>,
    sync_until: Option<Timestamp>,
}

impl ClassicGroup {
    /// A group without members.
    pub fn new(id: impl Into<String>, settings: GroupSettings) -> ClassicGroup {
        ClassicGroup {
            id: id.into(),
            settings,
            state: State::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            pending: BTreeMap::new(),
            instances: BTreeMap::new(),
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
        let mut group = ClassicGroup::new(id, settings);
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
        group.state = if group.members.is_empty() { State::Empty } else { State::Stable };
        group
    }

    /// Where it is.
    pub fn state(&self) -> State {
        self.state
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

    /// A member joins, for the first time or anew.
    pub fn join(&mut self, now: Timestamp, request: JoinRequest, out: &mut Vec<Answer>) {
        if let Err((error, member_id)) = self.try_join(now, &request, out) {
            out.push(Answer::JoinFailed { token: request.token, member_id, error });
        }
    }

    fn try_join(
        &mut self,
        now: Timestamp,
        request: &JoinRequest,
        out: &mut Vec<Answer>,
    ) -> Result<(), (ResponseError, String)> {
        let refuse = |error| Err((error, request.member_id.clone()));
        if !self.has_room_for(&request.member_id) {
            self.pending.remove(&request.member_id);
            if self.members.contains_key(&request.member_id) {
                self.drop_member(&request.member_id);
            }
            return Err((ResponseError::GroupMaxSizeReached, String::new()));
        }
        if !self.supports(request) {
            return refuse(ResponseError::InconsistentGroupProtocol);
        }
        if request.member_id.is_empty() {
            return self.join_unknown(now, request, out);
        }
        if let Some(instance) = &request.instance {
            match self.instances.get(instance) {
                None => return refuse(ResponseError::UnknownMemberId),
                Some(holder) if *holder != request.member_id => {
                    return refuse(ResponseError::FencedInstanceId);
                }
                Some(_) => {}
            }
        }
        if self.pending.remove(&request.member_id).is_some() {
            self.add_member(now, request.member_id.clone(), request);
            self.rebalance(now, out, &format!("{} joins", request.member_id));
            return Ok(());
        }
        let Some(member) = self.members.get(&request.member_id) else {
            return refuse(ResponseError::UnknownMemberId);
        };
        let same = member.protocols == request.protocols;
        let leads = self.leader.as_ref() == Some(&request.member_id);
        match self.state {
            // It may have missed the answer to its last join. The session goes on as it was: only heartbeats renew it.
            State::CompletingRebalance if same => {
                out.push(self.joined(&request.member_id, request.token.clone(), false));
            }
            State::Stable if same && !leads => {
                out.push(self.joined(&request.member_id, request.token.clone(), false));
            }
            State::Empty => return refuse(ResponseError::UnknownMemberId),
            _ => {
                self.update_member(request, out);
                self.rebalance(now, out, &format!("{} joins anew", request.member_id));
            }
        }
        Ok(())
    }

    fn join_unknown(
        &mut self,
        now: Timestamp,
        request: &JoinRequest,
        out: &mut Vec<Answer>,
    ) -> Result<(), (ResponseError, String)> {
        let id = request.fresh_id.clone();
        if let Some(instance) = &request.instance
            && let Some(old) = self.instances.get(instance).cloned()
        {
            self.replace_static(now, &old, id, request, out);
            return Ok(());
        }
        if request.instance.is_none() && request.requires_known_id {
            self.pending.insert(id.clone(), now + request.session_timeout);
            return Err((ResponseError::MemberIdRequired, id));
        }
        self.add_member(now, id.clone(), request);
        self.rebalance(now, out, &format!("{id} joins"));
        Ok(())
    }

    /// `group.max.size`, as Kafka's `acceptJoiningMember`: while members join anew, who asks first is in, and the last
    /// of the old ones may be out.
    fn has_room_for(&self, id: &str) -> bool {
        let member = self.members.get(id);
        let joining = |member: &Member| member.joining.is_some();
        match self.state {
            State::Empty => true,
            State::PreparingRebalance => {
                let joined = self.members.values().filter(|member| joining(member)).count();
                member.is_some_and(joining) || joined < self.settings.max_size
            }
            State::CompletingRebalance | State::Stable => {
                member.is_some() || self.members.len() < self.settings.max_size
            }
        }
    }

    fn supports(&self, request: &JoinRequest) -> bool {
        if request.protocol_type.is_empty() || request.protocols.is_empty() {
            return false;
        }
        if self.state == State::Empty {
            return true;
        }
        let spoken_by_all = |protocol: &Protocol| {
            self.members
                .values()
                .all(|member| member.protocols.iter().any(|known| known.name == protocol.name))
        };
        self.protocol_type.as_ref() == Some(&request.protocol_type)
            && request.protocols.iter().any(spoken_by_all)
    }

    fn add_member(&mut self, now: Timestamp, id: String, request: &JoinRequest) {
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type.clone());
        }
        self.leader.get_or_insert_with(|| id.clone());
        self.instances.extend(request.instance.clone().map(|instance| (instance, id.clone())));
        let member = Member {
            id: id.clone(),
            instance: request.instance.clone(),
            client_id: request.client_id.clone(),
            client_host: request.client_host.clone(),
            rebalance_timeout: request.rebalance_timeout,
            session_timeout: request.session_timeout,
            protocols: request.protocols.clone(),
            assignment: Bytes::new(),
            heard: now,
            new: true,
            joining: Some(request.token.clone()),
            syncing: None,
        };
        self.members.insert(id, member);
        if let Some(JoinPhase::Initial { more_came, .. }) = &mut self.join_phase {
            *more_came = true;
        }
    }

    fn update_member(&mut self, request: &JoinRequest, out: &mut Vec<Answer>) {
        let member = self.members.get_mut(&request.member_id).expect("the caller found it");
        member.protocols.clone_from(&request.protocols);
        member.rebalance_timeout = request.rebalance_timeout;
        member.session_timeout = request.session_timeout;
        // A client that lost its connection asks again: the old question will not be read.
        if let Some(token) = member.joining.replace(request.token.clone()) {
            let (member_id, error) = (request.member_id.clone(), ResponseError::RebalanceInProgress);
            out.push(Answer::JoinFailed { token, member_id, error });
        }
    }

    fn joined(&self, id: &str, token: Token, skip_assignment: bool) -> Answer {
        let leader = self.leader.clone().unwrap_or_default();
        Answer::Joined {
            token,
            generation: self.generation,
            protocol: self.protocol.clone(),
            members: if leader == id { self.subscriptions() } else { Vec::new() },
            leader,
            member_id: id.to_owned(),
            skip_assignment,
        }
    }

    fn subscriptions(&self) -> Vec<(String, Option<String>, Bytes)> {
        let chosen = self.protocol.as_deref().unwrap_or_default();
        let metadata = |member: &Member| {
            let chosen = member.protocols.iter().find(|protocol| protocol.name == chosen);
            chosen.map(|protocol| protocol.metadata.clone()).unwrap_or_default()
        };
        self.members
            .values()
            .map(|member| (member.id.clone(), member.instance.clone(), metadata(member)))
            .collect()
    }

    /// A static member is back under a new id.
    fn replace_static(
        &mut self,
        now: Timestamp,
        old: &str,
        id: String,
        request: &JoinRequest,
        out: &mut Vec<Answer>,
    ) {
        let mut member = self.members.remove(old).expect("an instance's member is in the group");
        let error = ResponseError::FencedInstanceId;
        if let Some(token) = member.joining.take() {
            out.push(Answer::JoinFailed { token, member_id: old.to_owned(), error });
        }
        if let Some(token) = member.syncing.take() {
            out.push(Answer::SyncFailed { token, error });
        }
        out.push(Answer::Note(format!("group {}: {id} takes the place of {old}", self.id)));
        let chosen_before = self.protocol.clone();
        member.id.clone_from(&id);
        member.protocols.clone_from(&request.protocols);
        member.session_timeout = request.session_timeout;
        member.rebalance_timeout = request.rebalance_timeout;
        member.heard = now;
        self.instances.insert(member.instance.clone().expect("it is static"), id.clone());
        self.members.insert(id.clone(), member);
        self.pending_sync.remove(old);
        let led = self.leader.as_deref() == Some(old);
        if led {
            self.leader = Some(id.clone());
        }
        if self.state == State::Stable && self.choose_protocol() == chosen_before {
            out.push(Answer::Persist);
            let mut answer = self.joined(&id, request.token.clone(), led && request.can_skip_assignment);
            if led
                && !request.can_skip_assignment
                && let Answer::Joined { leader, members, .. } = &mut answer
            {
                // A client that cannot be told to skip must not take itself for the leader: it would assign anew.
                *leader = old.to_owned();
                members.clear();
            }
            return out.push(answer);
        }
        self.members.get_mut(&id).expect("it was just put in").joining = Some(request.token.clone());
        self.rebalance(now, out, &format!("{id} is back with other protocols or amid a rebalance"));
    }

    /// Asks all members to join anew, unless that is under way; ends it if all have.
    fn rebalance(&mut self, now: Timestamp, out: &mut Vec<Answer>, why: &str) {
        if self.state != State::PreparingRebalance {
            self.cancel_syncs(now, out);
            let delay = self.settings.initial_rebalance_delay;
            let longest = self.longest_rebalance();
            self.join_phase = Some(if self.state == State::Empty {
                JoinPhase::Initial {
                    until: now + delay,
                    left: longest.saturating_sub(delay),
                    more_came: false,
                }
            } else {
                JoinPhase::Until(now + longest)
            });
            self.state = State::PreparingRebalance;
            out.push(Answer::Note(format!("group {} rebalances: {why}", self.id)));
        }
        self.end_join_if_all_joined(now, out);
    }

    /// Syncs that wait belong to a generation that will not be. Sessions of those who waited begin anew, as Kafka's
    /// `propagateAssignment` has it: they could send no heartbeat meanwhile, and must not fall with the one they waited for.
    fn cancel_syncs(&mut self, now: Timestamp, out: &mut Vec<Answer>) {
        self.pending_sync.clear();
        self.sync_until = None;
        for member in self.members.values_mut() {
            if self.state == State::CompletingRebalance {
                member.assignment = Bytes::new();
            }
            if let Some(token) = member.syncing.take() {
                member.heard = now;
                out.push(Answer::SyncFailed { token, error: ResponseError::RebalanceInProgress });
            }
        }
    }

    fn longest_rebalance(&self) -> Duration {
        self.members.values().map(|member| member.rebalance_timeout).max().unwrap_or_default()
    }

    fn end_join_if_all_joined(&mut self, now: Timestamp, out: &mut Vec<Answer>) {
        let all = self.pending.is_empty() && self.members.values().all(|member| member.joining.is_some());
        if all && matches!(self.join_phase, Some(JoinPhase::Until(_))) {
            self.end_join(now, out);
        }
    }

    /// The rebalance is over: who has not joined is out, the others are the next generation.
    fn end_join(&mut self, now: Timestamp, out: &mut Vec<Answer>) {
        let late = |member: &&Member| member.joining.is_none() && member.instance.is_none();
        let late: Vec<String> = self.members.values().filter(late).map(|member| member.id.clone()).collect();
        for id in late {
            out.push(Answer::Note(format!("group {} evicts {id}: it did not join in time", self.id)));
            self.drop_member(&id);
        }
        if !self.members.is_empty() && self.members.values().all(|member| member.joining.is_none()) {
            // Only static members, none of them back: they keep their places for another while.
            self.join_phase = Some(JoinPhase::Until(now + self.longest_rebalance()));
            return;
        }
        self.join_phase = None;
        self.generation += 1;
        self.protocol = self.choose_protocol();
        if self.members.is_empty() {
            self.state = State::Empty;
            out.push(Answer::Note(format!("group {} is empty in generation {}", self.id, self.generation)));
            return out.push(Answer::Persist);
        }
        self.choose_leader();
        self.state = State::CompletingRebalance;
        self.pending_sync = self.members.keys().cloned().collect();
        self.sync_until = Some(now + self.longest_rebalance());
        let (generation, count) = (self.generation, self.members.len());
        out.push(Answer::Note(format!(
            "group {} is in generation {generation} with {count} members",
            self.id
        )));
        let mut joining = Vec::new();
        for member in self.members.values_mut() {
            member.new = false;
            member.heard = now;
            joining.extend(member.joining.take().map(|token| (member.id.clone(), token)));
        }
        for (id, token) in joining {
            out.push(self.joined(&id, token, false));
        }
    }

    /// The leader stays if it joined; else the first that did.
    fn choose_leader(&mut self) {
        let joined = |id: &String| self.members.get(id).is_some_and(|member| member.joining.is_some());
        if !self.leader.as_ref().is_some_and(joined) {
            self.leader =
                self.members.values().find(|member| member.joining.is_some()).map(|member| member.id.clone());
        }
    }

    /// Each member votes for the first of its protocols that all speak; ties go to the first name.
    fn choose_protocol(&self) -> Option<String> {
        let speak = |name: &str| {
            self.members.values().all(|member| member.protocols.iter().any(|protocol| protocol.name == name))
        };
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some(choice) = member.protocols.iter().find(|protocol| speak(&protocol.name)) {
                *votes.entry(&choice.name).or_default() += 1;
            }
        }
        let most = votes.values().max().copied();
        votes.into_iter().find(|(_, count)| Some(*count) == most).map(|(name, _)| name.to_owned())
    }

    /// A member asks for its assignment; the leader brings everybody's.
    pub fn sync(&mut self, now: Timestamp, request: SyncRequest, out: &mut Vec<Answer>) {
        let SyncRequest { token, member_id, instance, generation, protocol_type, protocol, assignments } =
            request;
        let ask = Ask { member_id: &member_id, instance: instance.as_deref(), generation };
        let checked = self.check(ask).and_then(|()| {
            let agrees = |told: &Option<String>, known: &Option<String>| told.is_none() || told == known;
            if agrees(&protocol_type, &self.protocol_type) && agrees(&protocol, &self.protocol) {
                Ok(())
            } else {
                Err(ResponseError::InconsistentGroupProtocol)
            }
        });
        if let Err(error) = checked {
            return out.push(Answer::SyncFailed { token, error });
        }
        match self.state {
            State::Empty => out.push(Answer::SyncFailed { token, error: ResponseError::UnknownMemberId }),
            State::PreparingRebalance => {
                out.push(Answer::SyncFailed { token, error: ResponseError::RebalanceInProgress });
            }
            State::CompletingRebalance => {
                self.pending_sync.remove(ask.member_id);
                let leads = self.leader.as_deref() == Some(ask.member_id);
                let member = self.members.get_mut(ask.member_id).expect("it was checked");
                if let Some(token) = member.syncing.replace(token) {
                    out.push(Answer::SyncFailed { token, error: ResponseError::RebalanceInProgress });
                }
                if leads {
                    self.assign(now, assignments, out);
                }
            }
            State::Stable => {
                self.pending_sync.remove(ask.member_id);
                let member = &self.members[ask.member_id];
                let (protocol, assignment) = (self.protocol.clone(), member.assignment.clone());
                out.push(Answer::Synced { token, protocol, assignment });
            }
        }
        if self.pending_sync.is_empty() {
            self.sync_until = None;
        }
    }

    fn assign(&mut self, now: Timestamp, assignments: Vec<(String, Bytes)>, out: &mut Vec<Answer>) {
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
        }
        for (id, assignment) in assignments {
            if let Some(member) = self.members.get_mut(&id) {
                member.assignment = assignment;
            }
        }
        self.state = State::Stable;
        out.push(Answer::Persist);
        out.push(Answer::Note(format!("group {} is stable in generation {}", self.id, self.generation)));
        for member in self.members.values_mut() {
            if let Some(token) = member.syncing.take() {
                member.heard = now;
                let (protocol, assignment) = (self.protocol.clone(), member.assignment.clone());
                out.push(Answer::Synced { token, protocol, assignment });
            }
        }
    }

    /// A member says that it lives.
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
    /// while the group is empty.
    ///
    /// # Errors
    /// As [`ClassicGroup::heartbeat`].
    pub fn check_commit(&mut self, now: Timestamp, ask: Ask<'_>) -> Result<(), ResponseError> {
        if ask.generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        if ask.generation < 0 && ask.member_id.is_empty() && ask.instance.is_none() {
            return Err(ResponseError::UnknownMemberId);
        }
        self.check(ask)?;
        if self.state == State::CompletingRebalance {
            return Err(ResponseError::RebalanceInProgress);
        }
        self.members.get_mut(ask.member_id).expect("it was checked").heard = now;
        Ok(())
    }

    /// A member leaves; a static one may be named by its instance alone.
    ///
    /// # Errors
    /// `UNKNOWN_MEMBER_ID` or `FENCED_INSTANCE_ID`.
    pub fn leave(
        &mut self,
        now: Timestamp,
        id: &str,
        instance: Option<&str>,
        out: &mut Vec<Answer>,
    ) -> Result<(), ResponseError> {
        let id = match instance {
            Some(instance) if id.is_empty() => {
                self.instances.get(instance).ok_or(ResponseError::UnknownMemberId)?.clone()
            }
            _ => id.to_owned(),
        };
        if self.pending.remove(&id).is_none() {
            self.check_member(&id, instance)?;
            self.dismiss(&id, out);
        }
        self.go_on_without(now, &format!("{id} leaves"), out);
        Ok(())
    }

    /// Takes a member out; whoever waits in its name is told.
    fn dismiss(&mut self, id: &str, out: &mut Vec<Answer>) {
        let member = self.drop_member(id);
        let error = ResponseError::UnknownMemberId;
        if let Some(token) = member.joining {
            out.push(Answer::JoinFailed { token, member_id: String::new(), error });
        }
        if let Some(token) = member.syncing {
            out.push(Answer::SyncFailed { token, error });
        }
    }

    /// What a group does when someone is gone, and be it one that was never in: Kafka makes no difference.
    fn go_on_without(&mut self, now: Timestamp, why: &str, out: &mut Vec<Answer>) {
        match self.state {
            State::Stable | State::CompletingRebalance => self.rebalance(now, out, why),
            State::PreparingRebalance | State::Empty => {
                out.push(Answer::Note(format!("group {}: {why}", self.id)));
                self.end_join_if_all_joined(now, out);
            }
        }
    }

    fn drop_member(&mut self, id: &str) -> Member {
        let member = self.members.remove(id).expect("a member that is dropped is in the group");
        if let Some(instance) = &member.instance {
            self.instances.remove(instance);
        }
        self.pending_sync.remove(id);
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
        member
    }

    /// The next time at which something happens by itself.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let join = self.join_phase.map(|phase| match phase {
            JoinPhase::Initial { until, .. } | JoinPhase::Until(until) => until,
        });
        let sessions = self.members.values().filter_map(|member| self.session_end(member));
        let pending = self.pending.values().copied();
        sessions.chain(pending).chain(join).chain(self.sync_until).min()
    }

    fn session_end(&self, member: &Member) -> Option<Timestamp> {
        if member.new {
            return Some(member.heard + NEW_MEMBER_JOIN_TIMEOUT);
        }
        // Who waits for an answer of ours is alive as far as we know.
        let waits = member.joining.is_some() || member.syncing.is_some();
        (!waits).then(|| member.heard + member.session_timeout)
    }

    /// Time has passed: sessions end, rebalances end.
    pub fn tick(&mut self, now: Timestamp, out: &mut Vec<Answer>) {
        let overdue: Vec<String> =
            self.pending.iter().filter(|(_, until)| **until <= now).map(|(id, _)| id.clone()).collect();
        for id in overdue {
            self.pending.remove(&id);
            self.end_join_if_all_joined(now, out);
        }
        // One after the other: with the first gone the others may be in a new generation, with new sessions.
        while let Some(id) = self.overdue(now) {
            self.dismiss(&id, out);
            self.go_on_without(now, &format!("{id} is evicted: its session ended"), out);
        }
        match self.join_phase {
            Some(JoinPhase::Initial { until, left, more_came }) if until <= now => {
                let again = self.settings.initial_rebalance_delay.min(left);
                if more_came && !again.is_zero() {
                    let left = left.saturating_sub(again);
                    self.join_phase = Some(JoinPhase::Initial { until: now + again, left, more_came: false });
                } else {
                    self.end_join(now, out);
                }
            }
            Some(JoinPhase::Until(until)) if until <= now => self.end_join(now, out),
            _ => {}
        }
        if self.sync_until.is_some_and(|until| until <= now) {
            self.sync_until = None;
            let late: Vec<String> = std::mem::take(&mut self.pending_sync).into_iter().collect();
            late.iter().for_each(|id| self.dismiss(id, out));
            if !late.is_empty() {
                let why = format!("{} evicted: not synced in time", late.join(", "));
                self.go_on_without(now, &why, out);
            }
        }
    }

    fn overdue(&self, now: Timestamp) -> Option<String> {
        let dead = |member: &&Member| self.session_end(member).is_some_and(|end| end <= now);
        self.members.values().find(dead).map(|member| member.id.clone())
    }
}

impl ClassicGroup {
    /// This broker no longer coordinates the group: whoever waits is sent away.
    pub fn resign(&mut self, out: &mut Vec<Answer>) {
        let error = ResponseError::NotCoordinator;
        for member in self.members.values_mut() {
            if let Some(token) = member.joining.take() {
                out.push(Answer::JoinFailed { token, member_id: member.id.clone(), error });
            }
            if let Some(token) = member.syncing.take() {
                out.push(Answer::SyncFailed { token, error });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::ApiKey;
    use proptest::prelude::*;

    use super::*;

    fn token(number: u64) -> Token {
        let call = Call { api: ApiKey::JoinGroup, version: 5, correlation: 0, client_id: None };
        Token { connection: ConnectionId(number), call }
    }

    /// A group, its clients' questions that wait for an answer, and the ids that it has given.
    struct Scene {
        group: ClassicGroup,
        now: Timestamp,
        waiting: BTreeSet<u64>,
        asked: u64,
        ids: Vec<String>,
    }

    impl Scene {
        fn new() -> Scene {
            let settings = GroupSettings { initial_rebalance_delay: Duration::from_secs(3), max_size: 5 };
            let group = ClassicGroup::new("group", settings);
            Scene { group, now: Timestamp::ZERO, waiting: BTreeSet::new(), asked: 0, ids: Vec::new() }
        }

        fn token(&mut self) -> Token {
            self.asked += 1;
            self.waiting.insert(self.asked);
            token(self.asked)
        }

        fn hear(&mut self, answers: Vec<Answer>) {
            for answer in answers {
                let (token, id) = match answer {
                    Answer::Joined { token, member_id, .. } | Answer::JoinFailed { token, member_id, .. } => {
                        (token, Some(member_id))
                    }
                    Answer::Synced { token, .. } | Answer::SyncFailed { token, .. } => (token, None),
                    Answer::Persist | Answer::Note(_) => continue,
                };
                assert!(self.waiting.remove(&token.connection.0), "a question is answered once");
                self.ids.extend(id.filter(|id| !id.is_empty() && !self.ids.contains(id)));
            }
        }

        fn act(&mut self, what: u8, who: usize, instance: bool) {
            let mut out = Vec::new();
            let id = if self.ids.is_empty() { String::new() } else { self.ids[who % self.ids.len()].clone() };
            let generation = self.group.generation();
            match what {
                0 | 1 => {
                    let token = self.token();
                    let member_id = if what == 0 { String::new() } else { id };
                    let request = JoinRequest {
                        fresh_id: format!("member-{}", self.asked),
                        token,
                        instance: instance.then(|| format!("instance-{}", who % 2)),
                        member_id,
                        client_id: String::new(),
                        client_host: String::new(),
                        session_timeout: Duration::from_secs(10),
                        rebalance_timeout: Duration::from_secs(30),
                        protocol_type: "consumer".into(),
                        protocols: vec![Protocol { name: "range".into(), metadata: Bytes::new() }],
                        requires_known_id: who.is_multiple_of(2),
                        can_skip_assignment: who.is_multiple_of(3),
                    };
                    self.group.join(self.now, request, &mut out);
                }
                2 => {
                    let assignments = vec![(id.clone(), Bytes::from_static(b"all"))];
                    let (protocol_type, protocol) = (None, None);
                    let token = self.token();
                    let (member_id, instance) = (id, None);
                    let request = SyncRequest {
                        token,
                        member_id,
                        instance,
                        generation,
                        protocol_type,
                        protocol,
                        assignments,
                    };
                    self.group.sync(self.now, request, &mut out);
                }
                3 => {
                    let ask = Ask { member_id: &id, instance: None, generation };
                    let beat = self.group.heartbeat(self.now, ask);
                    let member = self.group.members().any(|member| member.id == id);
                    let expected = match (member, self.group.state()) {
                        (false, _) => Err(ResponseError::UnknownMemberId),
                        (true, State::PreparingRebalance) => Err(ResponseError::RebalanceInProgress),
                        (true, _) => Ok(()),
                    };
                    assert_eq!(beat, expected, "{:?}", self.group.state());
                    let zombie = Ask { member_id: &id, instance: None, generation: generation + 1 };
                    assert!(self.group.check_commit(self.now, zombie).is_err(), "of another generation");
                }
                4 => _ = self.group.leave(self.now, &id, None, &mut out),
                _ => self.pass(Duration::from_millis(500 * who as u64)),
            }
            self.hear(out);
        }

        fn pass(&mut self, span: Duration) {
            let until = self.now + span;
            while let Some(next) = self.group.next_deadline().filter(|next| *next <= until) {
                self.now = self.now.max(next);
                let mut out = Vec::new();
                self.group.tick(self.now, &mut out);
                self.hear(out);
                let left = self.group.next_deadline();
                assert!(left.is_none_or(|left| left > self.now), "a tick leaves nothing overdue");
            }
            self.now = until;
        }

        fn check(&self) {
            let members: Vec<_> = self.group.members().collect();
            let joining = members.iter().filter(|member| member.joining.is_some()).count();
            match self.group.state() {
                State::Empty => assert!(members.is_empty()),
                State::PreparingRebalance => assert!(self.group.join_phase.is_some()),
                State::CompletingRebalance => {
                    assert!(joining == 0 && !members.is_empty() && self.group.sync_until.is_some());
                }
                State::Stable => assert!(joining == 0 && !members.is_empty()),
            }
            if self.group.state() != State::PreparingRebalance && !members.is_empty() {
                let leader = self.group.leader().expect("a generation has a leader");
                assert!(members.iter().any(|member| member.id == leader));
            }
            let held = members.iter().filter(|member| member.joining.is_some()).count()
                + members.iter().filter(|member| member.syncing.is_some()).count();
            assert_eq!(held, self.waiting.len(), "each question that waits is held by a member");
        }
    }

    /// Verbs for stories: sessions of 10 s, rebalances of 30 s, an initial delay of 3 s, five members at most.
    impl Scene {
        fn request(&mut self, id: &str, instance: Option<&str>, requires_known_id: bool) -> JoinRequest {
            let token = self.token();
            JoinRequest {
                fresh_id: format!("member-{}", self.asked),
                token,
                instance: instance.map(str::to_owned),
                member_id: id.to_owned(),
                client_id: String::new(),
                client_host: String::new(),
                session_timeout: Duration::from_secs(10),
                rebalance_timeout: Duration::from_secs(30),
                protocol_type: "consumer".into(),
                protocols: vec![Protocol { name: "range".into(), metadata: Bytes::new() }],
                requires_known_id,
                can_skip_assignment: false,
            }
        }

        /// A join of a client that knows no MEMBER_ID_REQUIRED; gives what was answered at once.
        fn join(&mut self, id: &str, instance: Option<&str>) -> Vec<Answer> {
            let request = self.request(id, instance, false);
            let mut out = Vec::new();
            self.group.join(self.now, request, &mut out);
            self.hear(out.clone());
            out
        }

        fn sync(&mut self, id: &str) -> Vec<Answer> {
            let request = SyncRequest {
                token: self.token(),
                member_id: id.to_owned(),
                instance: None,
                generation: self.group.generation(),
                protocol_type: None,
                protocol: None,
                assignments: Vec::new(),
            };
            let mut out = Vec::new();
            self.group.sync(self.now, request, &mut out);
            self.hear(out.clone());
            out
        }

        fn beat(&mut self, id: &str) -> Result<(), ResponseError> {
            let ask = Ask { member_id: id, instance: None, generation: self.group.generation() };
            self.group.heartbeat(self.now, ask)
        }

        fn ids(&self) -> Vec<&str> {
            self.group.members().map(|member| member.id.as_str()).collect()
        }

        /// A group of `count` members, `member-1` leading, all of them synced.
        fn stable(count: usize) -> Scene {
            let mut scene = Scene::new();
            (0..count).for_each(|_| _ = scene.join("", None));
            while scene.group.state() == State::PreparingRebalance {
                scene.pass(Duration::from_secs(3));
            }
            let ids: Vec<String> = scene.ids().into_iter().map(str::to_owned).collect();
            ids.iter().rev().for_each(|id| _ = scene.sync(id));
            assert_eq!((scene.group.state(), scene.group.leader()), (State::Stable, Some("member-1")));
            scene
        }
    }

    fn failures(answers: &[Answer]) -> Vec<ResponseError> {
        let error = |answer: &Answer| match answer {
            Answer::JoinFailed { error, .. } | Answer::SyncFailed { error, .. } => Some(*error),
            _ => None,
        };
        answers.iter().filter_map(error).collect()
    }

    #[test]
    fn who_waited_for_the_assignment_of_a_dead_leader_has_a_whole_session_left() {
        let mut scene = Scene::new();
        (0..2).for_each(|_| _ = scene.join("", None));
        scene.pass(Duration::from_secs(6));
        assert_eq!(scene.group.state(), State::CompletingRebalance);
        scene.sync("member-2");
        scene.pass(Duration::from_secs(10));
        assert!(scene.waiting.is_empty(), "the sync is cancelled");
        assert_eq!(scene.ids(), ["member-2"], "only the leader was silent");
        scene.pass(Duration::from_millis(9_999));
        assert_eq!(scene.ids(), ["member-2"]);
        scene.pass(Duration::from_millis(1));
        assert!(scene.ids().is_empty(), "from the cancelled sync on it must be heard again");
    }

    #[test]
    fn sessions_are_renewed_by_heartbeats_and_not_by_joins_that_change_nothing() {
        let mut scene = Scene::stable(2);
        scene.pass(Duration::from_secs(9));
        scene.beat("member-1").unwrap();
        assert!(matches!(scene.join("member-2", None)[..], [Answer::Joined { .. }]));
        scene.sync("member-2");
        scene.pass(Duration::from_secs(1));
        assert_eq!(scene.ids(), ["member-1"]);
    }

    /// The broker stood still, and both deadlines have passed when it goes on.
    #[test]
    fn who_joins_as_another_dies_is_in_the_next_generation() {
        let mut scene = Scene::stable(1);
        scene.join("", None);
        let newcomer = format!("member-{}", scene.asked);
        scene.now += NEW_MEMBER_JOIN_TIMEOUT;
        let mut out = Vec::new();
        scene.group.tick(scene.now, &mut out);
        assert!(out.iter().any(|answer| matches!(answer, Answer::Joined { generation: 2, .. })));
        assert_eq!(scene.ids(), [newcomer]);
    }

    #[test]
    fn a_member_that_leaves_before_it_is_in_makes_a_stable_group_rebalance() {
        let mut scene = Scene::stable(1);
        let request = scene.request("", None, true);
        let id = request.fresh_id.clone();
        let mut out = Vec::new();
        scene.group.join(scene.now, request, &mut out);
        assert_eq!(failures(&out), [ResponseError::MemberIdRequired]);
        assert_eq!(scene.group.state(), State::Stable);
        scene.group.leave(scene.now, &id, None, &mut Vec::new()).unwrap();
        assert_eq!(scene.group.state(), State::PreparingRebalance);
    }

    #[test]
    fn a_full_group_takes_nobody_new_unless_it_asks_before_the_old() {
        let mut scene = Scene::stable(5);
        assert_eq!(failures(&scene.join("", None)), [ResponseError::GroupMaxSizeReached]);
        assert_eq!(scene.group.state(), State::Stable);
        scene.join("member-1", None);
        assert_eq!(scene.group.state(), State::PreparingRebalance);
        scene.join("", None);
        (2..5).for_each(|number| _ = scene.join(&format!("member-{number}"), None));
        assert_eq!(failures(&scene.join("member-5", None)), [ResponseError::GroupMaxSizeReached]);
        assert!(!scene.ids().contains(&"member-5"), "the last of the old ones is out");
    }

    #[test]
    fn who_does_not_sync_in_time_is_out_and_the_others_join_anew() {
        let mut scene = Scene::new();
        (0..3).for_each(|_| _ = scene.join("", None));
        scene.pass(Duration::from_secs(6));
        scene.sync("member-1");
        for _ in 0..6 {
            scene.pass(Duration::from_secs(5));
            (1..4).for_each(|number| _ = scene.beat(&format!("member-{number}")));
        }
        assert_eq!((scene.ids(), scene.group.state()), (vec!["member-1"], State::PreparingRebalance));
    }

    proptest! {
        #[test]
        fn whatever_clients_do_each_is_answered_once_and_silence_empties_the_group(
            acts in proptest::collection::vec((0..6_u8, 0..12_usize, any::<bool>()), 1..80)
        ) {
            let mut scene = Scene::new();
            for (what, who, instance) in acts {
                scene.act(what, who, instance);
                scene.check();
            }
            scene.pass(Duration::from_secs(1_200));
            scene.check();
            prop_assert_eq!(scene.group.state(), State::Empty);
            prop_assert!(scene.waiting.is_empty());
        }
    }
}

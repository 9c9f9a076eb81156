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

mod exchange;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use context::Timestamp;
use kafka_protocol::ResponseError;

pub use exchange::{Answer, Ask, JoinRequest, Protocol, SyncRequest, Token};

/// How long a member that has never been in a generation may wait for its first: Kafka's
/// `classicGroupNewMemberJoinTimeoutMs`, 5 min.
const NEW_MEMBER_JOIN_TIMEOUT: Duration = Duration::from_secs(300);

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
mod tests;

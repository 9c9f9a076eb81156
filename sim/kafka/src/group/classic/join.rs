//! Joins, and the rebalance that gathers them into a generation.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use context::Timestamp;
use kafka_protocol::ResponseError;

use super::{
    Answer, ClassicGroup, Decision, JoinPhase, JoinRequest, Member, Protocol, Replaced, State, Token,
};

impl ClassicGroup {
    /// A group that was loaded from its log has more members than it may have now: they join anew, and the last ones are
    /// out.
    pub fn loaded(&mut self, now: Timestamp, out: &mut Vec<Answer>) {
        if self.members.len() > self.settings.max_size {
            self.rebalance(now, out, "it was loaded with too many members");
        }
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
        if self.pending.contains_key(&request.member_id) {
            if request.instance.is_some() {
                // Only members without an instance are given such an id; Kafka's coordinator trips over it.
                return refuse(ResponseError::UnknownServerError);
            }
            self.pending.remove(&request.member_id);
            self.add_member(now, request.member_id.clone(), request);
            self.rebalance(now, out, &format!("{} joins", request.member_id));
            return Ok(());
        }
        if let Err(error) = self.check_member(&request.member_id, request.instance.as_deref()) {
            return refuse(error);
        }
        let same = self.members[&request.member_id].protocols == request.protocols;
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

    /// The record of a new group is committed, or was not in time: then its first member is told, if it still waits. The
    /// group stays, for its record may be committed yet.
    pub(in crate::group) fn created(
        &mut self,
        token: &Token,
        result: Result<(), ResponseError>,
        out: &mut Vec<Answer>,
    ) {
        out.extend(result.err().and_then(|error| self.waited_too_long(token, error)));
    }

    /// Whether a member waits with this request, and was told nothing yet.
    pub(in crate::group) fn waits(&self, token: &Token) -> bool {
        let waits = |waiting: &Option<Token>| waiting.as_ref() == Some(token);
        self.members.values().any(|member| waits(&member.joining) || waits(&member.syncing))
    }

    /// A member has waited too long with this request: what it hears, if it still waits. To the group it waits on, as in
    /// Kafka, where the future of its answer is done and still there.
    pub(in crate::group) fn waited_too_long(
        &mut self,
        token: &Token,
        error: ResponseError,
    ) -> Option<Answer> {
        for member in self.members.values_mut() {
            if let Some(waiting) = member.joining.as_mut().filter(|waiting| *waiting == token) {
                waiting.answered = true;
                return Some(Answer::JoinFailed { token: token.clone(), member_id: String::new(), error });
            }
            if let Some(waiting) = member.syncing.as_mut().filter(|waiting| *waiting == token) {
                waiting.answered = true;
                return Some(Answer::SyncFailed { token: token.clone(), error });
            }
        }
        None
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

    pub(super) fn joined(&self, id: &str, token: Token, skip_assignment: bool) -> Answer {
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

    pub(super) fn subscriptions(&self) -> Vec<(String, Option<String>, Bytes)> {
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
        let before = member.clone();
        let leader_before = self.leader.clone();
        member.id.clone_from(&id);
        member.protocols.clone_from(&request.protocols);
        member.session_timeout = request.session_timeout;
        member.rebalance_timeout = request.rebalance_timeout;
        member.heard = now;
        member.new = false;
        member.joining = Some(request.token.clone());
        self.instances.insert(member.instance.clone().expect("it is static"), id.clone());
        self.members.insert(id.clone(), member);
        if leader_before.as_deref() == Some(old) {
            self.leader = Some(id.clone());
        }
        if self.state == State::Stable && self.choose_protocol() == self.protocol {
            let (token, can_skip_assignment) = (request.token.clone(), request.can_skip_assignment);
            let replaced = Replaced { id, before, leader_before, token, can_skip_assignment };
            return out.push(Answer::Persist(Some(Decision::Replace(Box::new(replaced)))));
        }
        self.rebalance(now, out, &format!("{id} is back with other protocols or amid a rebalance"));
    }

    /// The new id of a static member is committed, and it is answered; or it cannot be, and the old one is in its place
    /// again.
    pub(super) fn replaced(
        &mut self,
        now: Timestamp,
        replaced: Replaced,
        result: Result<(), ResponseError>,
        out: &mut Vec<Answer>,
    ) {
        let Replaced { id, before, leader_before, token, can_skip_assignment } = replaced;
        let waits = |member: &Member| member.joining.as_ref() == Some(&token);
        if !self.members.get(&id).is_some_and(waits) {
            // It was fenced itself, has asked again, or is out.
            return;
        }
        if let Err(error) = result {
            self.members.remove(&id);
            out.push(Answer::JoinFailed { token, member_id: String::new(), error });
            self.instances.insert(before.instance.clone().expect("it is static"), before.id.clone());
            if self.leader.as_ref() == Some(&id) {
                self.leader = Some(before.id.clone());
            }
            self.members.insert(before.id.clone(), Member { heard: now, ..before });
            return;
        }
        if self.state != State::Stable {
            // A rebalance began meanwhile: this is its join.
            return;
        }
        let member = self.members.get_mut(&id).expect("it waits");
        member.joining = None;
        member.heard = now;
        let leads = self.leader.as_ref() == Some(&id);
        let mut answer = self.joined(&id, token, leads && can_skip_assignment);
        if !can_skip_assignment && let Answer::Joined { leader, members, .. } = &mut answer {
            // A client that cannot be told to skip must not take itself for the leader: it would assign anew.
            *leader = leader_before.unwrap_or_default();
            members.clear();
        }
        out.push(answer);
    }

    /// Asks all members to join anew, unless that is under way; ends it if all have.
    pub(super) fn rebalance(&mut self, now: Timestamp, out: &mut Vec<Answer>, why: &str) {
        if self.state != State::PreparingRebalance {
            self.cancel_syncs(now, ResponseError::RebalanceInProgress, out);
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
            self.enter(now, State::PreparingRebalance);
            out.push(Answer::Note(format!("group {} rebalances: {why}", self.id)));
        }
        self.end_join_if_all_joined(now, out);
    }

    /// Syncs that wait belong to a generation that will not be. Sessions of those who waited begin anew, as Kafka's
    /// `propagateAssignment` has it: they could send no heartbeat meanwhile, and must not fall with the one they waited for.
    pub(super) fn cancel_syncs(&mut self, now: Timestamp, error: ResponseError, out: &mut Vec<Answer>) {
        self.pending_sync.clear();
        self.sync_until = None;
        for member in self.members.values_mut() {
            if self.state == State::CompletingRebalance {
                member.assignment = Bytes::new();
            }
            if let Some(token) = member.syncing.take() {
                member.heard = now;
                out.push(Answer::SyncFailed { token, error });
            }
        }
    }

    pub(super) fn longest_rebalance(&self) -> Duration {
        self.members.values().map(|member| member.rebalance_timeout).max().unwrap_or_default()
    }

    pub(super) fn end_join_if_all_joined(&mut self, now: Timestamp, out: &mut Vec<Answer>) {
        if matches!(self.join_phase, Some(JoinPhase::Until(_))) && self.all_joined() {
            self.end_join(now, out);
        }
    }

    pub(super) fn all_joined(&self) -> bool {
        self.pending.is_empty() && self.members.values().all(|member| member.joining.is_some())
    }

    /// The rebalance is over: who has not joined is out, the others are the next generation.
    pub(super) fn end_join(&mut self, now: Timestamp, out: &mut Vec<Answer>) {
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
        self.subscribed = self.subscribed_topics();
        if self.members.is_empty() {
            self.enter(now, State::Empty);
            out.push(Answer::Note(format!("group {} is empty in generation {}", self.id, self.generation)));
            return out.push(Answer::Persist(None));
        }
        self.choose_leader();
        self.enter(now, State::CompletingRebalance);
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
}

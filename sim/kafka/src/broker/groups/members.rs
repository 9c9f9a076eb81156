//! JoinGroup (11), SyncGroup (14), Heartbeat (12), LeaveGroup (13): the members of groups.
//!
//! Here requests become the coordinator's questions, and its answers become responses and records of the offsets topic.
//! Joins and syncs are answered when the group says so, or with an error when what was written before is not committed in
//! time; heartbeats and leaves when it is committed.
//!
//! Version notes: JoinGroup asks for a known member id from 4 on, static members from 5 (Heartbeat, SyncGroup and
//! LeaveGroup 3), protocol type from 7 (SyncGroup 5), skip_assignment from 9 on; LeaveGroup takes several members from 3
//! on.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::{GroupThen, code};
use crate::broker::{Broker, Turn, text};
use crate::config::millis;
use crate::core::ConnectionId;
use crate::group::{Answer, Ask, Decision, JoinRequest, Protocol, SyncRequest, Timer, Token};
use crate::wire::Call;

impl Broker {
    pub(in crate::broker) fn join_group(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        peer: &Arc<str>,
        call: Call,
        request: JoinGroupRequest,
    ) {
        let client_id = call.client_id.as_ref().map(ToString::to_string).unwrap_or_default();
        let instance = request.group_instance_id.as_ref().map(ToString::to_string);
        let fresh_id = format!("{}-{}", instance.as_ref().unwrap_or(&client_id), self.new_uuid());
        // Version 0 has one timeout for both.
        let rebalance_ms =
            if call.version == 0 { request.session_timeout_ms } else { request.rebalance_timeout_ms };
        let protocol = |protocol: &kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol| {
            Protocol { name: protocol.name.to_string(), metadata: protocol.metadata.clone() }
        };
        let join = JoinRequest {
            member_id: request.member_id.to_string(),
            instance,
            fresh_id,
            client_id,
            client_host: format!("/{peer}"),
            session_timeout: millis(request.session_timeout_ms.max(0)),
            rebalance_timeout: millis(rebalance_ms.max(0)),
            protocol_type: request.protocol_type.to_string(),
            protocols: request.protocols.iter().map(protocol).collect(),
            requires_known_id: call.version >= 4,
            can_skip_assignment: call.version >= 9,
            token: Token::new(connection, call),
        };
        let let_in_at_once = !join.requires_known_id || join.instance.is_some();
        if let_in_at_once && join.fresh_id.len() > i16::MAX as usize {
            // Such an id has no room in the group's record; one that is only told to the client has to come back first.
            let failed =
                JoinGroupResponse::default().with_error_code(ResponseError::UnknownServerError.code());
            return turn.respond(join.token.connection, &join.token.call, failed);
        }
        let (group, token) = (request.group_id.as_str(), join.token.clone());
        let mut answers = Vec::new();
        self.coordinator.join(turn.now, group, join, &mut answers);
        self.answer_members(turn, group, answers);
        self.answer_in_time(turn, group, token);
    }

    pub(in crate::broker) fn sync_group(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: Call,
        request: SyncGroupRequest,
    ) {
        let told = |told: &Option<StrBytes>| told.as_ref().map(ToString::to_string);
        let assignments = request.assignments.iter();
        let sync = SyncRequest {
            token: Token::new(connection, call),
            member_id: request.member_id.to_string(),
            instance: told(&request.group_instance_id),
            generation: request.generation_id,
            protocol_type: told(&request.protocol_type),
            protocol: told(&request.protocol_name),
            assignments: assignments
                .map(|each| (each.member_id.to_string(), each.assignment.clone()))
                .collect(),
        };
        let group = request.group_id.as_str();
        if sync.token.call.version >= 5 && (sync.protocol_type.is_none() || sync.protocol.is_none()) {
            // Null is for older versions: from here on a member says what it takes the group for (KIP-559).
            let Token { connection, call, .. } = &sync.token;
            let error = ResponseError::InconsistentGroupProtocol.code();
            return turn.respond(*connection, call, SyncGroupResponse::default().with_error_code(error));
        }
        let token = sync.token.clone();
        let mut answers = Vec::new();
        self.coordinator.sync(group, sync, &mut answers);
        self.answer_members(turn, group, answers);
        self.answer_in_time(turn, group, token);
    }

    /// A join or a sync waits for its group, but not longer than a write for what was written before it: Kafka's coordinator
    /// has each as a write, also one without records.
    fn answer_in_time(&mut self, turn: &mut Turn<'_>, group: &str, token: Token) {
        if let Ok(index) = self.coordinator.index(group)
            && self.must_wait(index)
            && self.coordinator.waits(group, &token)
        {
            self.go_on_when_written(turn, index, GroupThen::Waiting { group: group.to_owned(), token });
        }
    }

    pub(in crate::broker) fn heartbeat(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        request: &HeartbeatRequest,
    ) {
        let group = request.group_id.as_str();
        let ask = Ask {
            member_id: request.member_id.as_str(),
            instance: request.group_instance_id.as_ref().map(|instance| instance.as_str()),
            generation: request.generation_id,
        };
        let result = self.coordinator.heartbeat(turn.now, group, ask);
        let waits = matches!(result, Ok(()) | Err(ResponseError::RebalanceInProgress));
        // A coordinator that is loading asks for patience by saying that all is well: members would join anew otherwise.
        let result = match result {
            Err(ResponseError::CoordinatorLoadInProgress) => Ok(()),
            result => result,
        };
        let response = HeartbeatResponse::default().with_error_code(code(result));
        match self.coordinator.index(group) {
            Ok(index) if waits => self.answer_when_written(turn, index, connection, call, response),
            _ => turn.respond(connection, call, response),
        }
    }

    pub(in crate::broker) fn leave_group(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        request: &LeaveGroupRequest,
    ) {
        let group = request.group_id.as_str();
        let members: Vec<(&str, Option<&str>)> = if call.version < 3 {
            vec![(request.member_id.as_str(), None)]
        } else {
            request.members.iter().map(|member| (member.member_id.as_str(), instance_of(member))).collect()
        };
        let mut answers = Vec::new();
        let left = self.coordinator.leave(turn.now, group, &members, &mut answers);
        let mut response = LeaveGroupResponse::default();
        let left = match left {
            // A group that is not there is told for each member, as if it had not known them.
            Err(error @ ResponseError::UnknownMemberId) => vec![Err(error); members.len()],
            Err(error) => {
                response.error_code = error.code();
                return turn.respond(connection, call, response);
            }
            Ok(left) => left,
        };
        if call.version < 3 {
            response.error_code = left.first().map_or(0, |left| code(*left));
        } else {
            let members = request.members.iter().zip(&left).map(|(member, left)| {
                MemberResponse::default()
                    .with_member_id(member.member_id.clone())
                    .with_group_instance_id(member.group_instance_id.clone())
                    .with_error_code(code(*left))
            });
            response.members = members.collect();
        }
        self.answer_members(turn, group, answers);
        match self.coordinator.index(group) {
            Ok(index) => self.answer_when_written(turn, index, connection, call, response),
            Err(_) => turn.respond(connection, call, response),
        }
    }

    /// Carries out what a group decided, and sets its next timer.
    pub(super) fn answer_members(&mut self, turn: &mut Turn<'_>, group: &str, answers: Vec<Answer>) {
        for answer in answers {
            match answer {
                Answer::Persist(decision) => self.persist(turn, group, decision),
                answer => self.answer_member(turn, group, answer),
            }
        }
        if let Some(at) = self.coordinator.arm(group) {
            self.timers.set(at, crate::broker::Timer::Group(Timer::Group(group.to_owned())));
        }
    }

    /// Writes a group's record; the group goes on when it is committed.
    fn persist(&mut self, turn: &mut Turn<'_>, group: &str, decision: Option<Decision>) {
        let index = self.coordinator.index(group).expect("a group that decides is coordinated here");
        let shard = self.coordinator.shard_at(index).expect("it is coordinated here");
        let epoch = shard.epoch();
        let record = shard.record(group, decision.as_ref());
        let written = self.write_group(turn, index, vec![record], None);
        let Some(decision) = decision else {
            // Nobody waits for the record of a group that is empty now; the next one says more.
            if let Err(error) = written {
                turn.note(format!("group {group} is not stored: {error}"));
            }
            return;
        };
        match (written, decision) {
            (Ok(()), decision) => {
                let then = GroupThen::Decided { group: group.to_owned(), epoch, decision };
                self.go_on_when_written(turn, index, then);
            }
            (Err(error), Decision::Create { token }) => {
                turn.note(format!("group {group} is not created: {error}"));
                let failed = self.coordinator.not_created(group, &token, error);
                failed.into_iter().for_each(|answer| self.answer_member(turn, group, answer));
            }
            (Err(error), decision) => {
                let then = GroupThen::Decided { group: group.to_owned(), epoch, decision };
                self.group_goes_on(turn, then, Err(error));
            }
        }
    }

    pub(super) fn answer_member(&self, turn: &mut Turn<'_>, group: &str, answer: Answer) {
        if answer.token().is_some_and(|token| token.answered) {
            return;
        }
        match answer {
            Answer::Joined { token, generation, protocol, leader, member_id, members, skip_assignment } => {
                let version = token.call.version;
                let member = |(id, instance, metadata): (String, Option<String>, bytes::Bytes)| {
                    let mut member =
                        JoinGroupResponseMember::default().with_member_id(text(&id)).with_metadata(metadata);
                    if version >= 5 {
                        member.group_instance_id = instance.as_deref().map(text);
                    }
                    member
                };
                let mut response = JoinGroupResponse::default()
                    .with_generation_id(generation)
                    .with_protocol_name(Some(text(protocol.as_deref().unwrap_or_default())))
                    .with_leader(text(&leader))
                    .with_member_id(text(&member_id))
                    .with_members(members.into_iter().map(member).collect());
                if version >= 7 {
                    response.protocol_type = self.coordinator.protocol_type(group).map(text);
                }
                if version >= 9 {
                    response.skip_assignment = skip_assignment;
                }
                turn.respond(token.connection, &token.call, response);
            }
            Answer::JoinFailed { token, member_id, error } => {
                let mut response = JoinGroupResponse::default()
                    .with_error_code(error.code())
                    .with_generation_id(-1)
                    .with_member_id(text(&member_id));
                // Null only where the version knows it.
                response.protocol_name = (token.call.version < 7).then(StrBytes::default);
                turn.respond(token.connection, &token.call, response);
            }
            Answer::Synced { token, protocol, assignment } => {
                let mut response = SyncGroupResponse::default().with_assignment(assignment);
                if token.call.version >= 5 {
                    response.protocol_type = self.coordinator.protocol_type(group).map(text);
                    response.protocol_name = protocol.as_deref().map(text);
                }
                turn.respond(token.connection, &token.call, response);
            }
            Answer::SyncFailed { token, error } => {
                let response = SyncGroupResponse::default().with_error_code(error.code());
                turn.respond(token.connection, &token.call, response);
            }
            Answer::Note(line) => turn.note(line),
            Answer::Persist(_) => unreachable!("records are written by the caller"),
        }
    }
}

fn instance_of(member: &kafka_protocol::messages::leave_group_request::MemberIdentity) -> Option<&str> {
    member.group_instance_id.as_ref().map(|instance| instance.as_str())
}

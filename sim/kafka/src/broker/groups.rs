//! The group APIs: JoinGroup (11), SyncGroup (14), Heartbeat (12), LeaveGroup (13), OffsetCommit (8), OffsetFetch (9).
//!
//! Here requests become the coordinator's questions, and its answers become responses and records of the offsets topic.
//! The rules are in [`crate::group`].
//!
//! Version notes: JoinGroup asks for a known member id from 4 on, static members from 5 (Heartbeat, SyncGroup and
//! LeaveGroup 3, OffsetCommit 7), protocol type from 7 (SyncGroup 5), skip_assignment from 9 on; LeaveGroup takes several
//! members from 3 on; OffsetFetch takes several groups from 8 on.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
    SyncGroupRequest, SyncGroupResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::commit::Then;
use super::{Broker, Turn, text};
use crate::config::millis;
use crate::core::ConnectionId;
use crate::group::{
    Answer, Ask, CommittedOffset, GroupRecord, JoinRequest, OFFSETS_TOPIC, Protocol, SyncRequest, Timer,
    Token,
};
use crate::log::marker::Marker;
use crate::log::{Log, record};
use crate::metadata::PartitionKey;
use crate::wire::Call;

impl Broker {
    pub(super) fn join_group(
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
            token: Token { connection, call },
        };
        let mut answers = Vec::new();
        self.coordinator.join(turn.now, request.group_id.as_str(), join, &mut answers);
        self.answer_members(turn, request.group_id.as_str(), answers);
    }

    pub(super) fn sync_group(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: Call,
        request: SyncGroupRequest,
    ) {
        let told = |told: &Option<StrBytes>| told.as_ref().map(ToString::to_string);
        let assignments = request.assignments.iter();
        let sync = SyncRequest {
            token: Token { connection, call },
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
            let Token { connection, call } = &sync.token;
            let error = ResponseError::InconsistentGroupProtocol.code();
            return turn.respond(*connection, call, SyncGroupResponse::default().with_error_code(error));
        }
        let mut answers = Vec::new();
        self.coordinator.sync(turn.now, group, sync, &mut answers);
        self.answer_members(turn, group, answers);
    }

    pub(super) fn heartbeat(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        request: &HeartbeatRequest,
    ) {
        let ask = Ask {
            member_id: request.member_id.as_str(),
            instance: request.group_instance_id.as_ref().map(|instance| instance.as_str()),
            generation: request.generation_id,
        };
        let result = self.coordinator.heartbeat(turn.now, request.group_id.as_str(), ask);
        turn.respond(connection, call, HeartbeatResponse::default().with_error_code(code(result)));
    }

    pub(super) fn leave_group(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        request: &LeaveGroupRequest,
    ) {
        let group = request.group_id.as_str();
        let mut answers = Vec::new();
        let mut response = LeaveGroupResponse::default();
        if let Err(error) = self.coordinator.partition(group) {
            response.error_code = error.code();
        } else if call.version < 3 {
            let left =
                self.coordinator.leave(turn.now, group, request.member_id.as_str(), None, &mut answers);
            response.error_code = code(left);
        } else {
            for member in &request.members {
                let instance = member.group_instance_id.as_ref().map(|instance| instance.as_str());
                let left = self.coordinator.leave(
                    turn.now,
                    group,
                    member.member_id.as_str(),
                    instance,
                    &mut answers,
                );
                let left = MemberResponse::default()
                    .with_member_id(member.member_id.clone())
                    .with_group_instance_id(member.group_instance_id.clone())
                    .with_error_code(code(left));
                response.members.push(left);
            }
        }
        turn.respond(connection, call, response);
        self.answer_members(turn, group, answers);
    }

    pub(super) fn group_timer(&mut self, turn: &mut Turn<'_>, Timer(group): Timer) {
        let mut answers = Vec::new();
        self.coordinator.tick(turn.now, &group, &mut answers);
        self.answer_members(turn, &group, answers);
    }

    /// Carries out what a group decided, and sets its next timer.
    fn answer_members(&mut self, turn: &mut Turn<'_>, group: &str, answers: Vec<Answer>) {
        for answer in answers {
            match answer {
                Answer::Persist => {
                    let record = self.coordinator.record(turn.now, group);
                    self.write(turn, group, &[record]);
                }
                answer => self.answer_member(turn, group, answer),
            }
        }
        if let Some(at) = self.coordinator.arm(group) {
            self.timers.set(at, super::Timer::Group(Timer(group.to_owned())));
        }
    }

    fn answer_member(&self, turn: &mut Turn<'_>, group: &str, answer: Answer) {
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
            Answer::Persist => unreachable!("records are written by the caller"),
        }
    }

    /// Appends records to the partition of the offsets topic that `group` lives in.
    fn write(&mut self, turn: &mut Turn<'_>, group: &str, records: &[GroupRecord]) {
        let index =
            self.coordinator.partition_of_any(group).expect("a group that decides is coordinated here");
        let topic = self.image.topic(OFFSETS_TOPIC).expect("a coordinator has its topic");
        let key = PartitionKey { topic: topic.id, index };
        let encoded: Vec<_> = records.iter().map(GroupRecord::encode).collect();
        let batch = record::write_batch(turn.now_ms(), &encoded);
        let deadline = turn.now + millis(self.settings.offsets_commit_timeout_ms);
        if let Err(error) = self.append_own(turn, key, &batch, deadline, Then::Nothing) {
            turn.note(format!("group {group} is not written down: {error}"));
        }
    }

    /// A marker that ends a producer's transaction was appended at `offset` of a partition of the offsets topic, and waits
    /// to be committed. Offsets are not committed in transactions yet, so it decides nothing here.
    pub(super) fn marker_on_offsets(
        &mut self,
        turn: &mut Turn<'_>,
        key: PartitionKey,
        marker: &Marker,
        offset: i64,
    ) {
        let (id, index) = (marker.producer_id, key.index);
        turn.note(format!("a marker of producer {id} is at offset {offset} of {OFFSETS_TOPIC}/{index}"));
    }

    pub(super) fn load_groups(&mut self, turn: &mut Turn<'_>, key: PartitionKey) {
        let partitions = self.image.topics[&key.topic].partitions.len();
        let records = read_records(&turn.disk.logs[&key]);
        let count = self.coordinator.load(turn.now, key.index, partitions, records.into_iter());
        if count > 0 {
            turn.note(format!(
                "broker {} coordinates {count} groups of {OFFSETS_TOPIC}/{}",
                self.node, key.index
            ));
        }
        for group in self.coordinator.groups_in(key.index) {
            self.answer_members(turn, &group, Vec::new());
        }
    }

    pub(super) fn unload_groups(&mut self, turn: &mut Turn<'_>, index: i32) {
        let mut answers = Vec::new();
        self.coordinator.unload(index, &mut answers);
        for answer in answers {
            self.answer_member(turn, "", answer);
        }
    }

    /// A topic is deleted: what was committed for it is forgotten.
    pub(super) fn forget_topic(&mut self, turn: &mut Turn<'_>, topic: &str) {
        if topic == OFFSETS_TOPIC {
            // The groups go with it.
            for index in self.coordinator.partitions() {
                self.unload_groups(turn, index);
            }
            return;
        }
        for (group, tombstones) in self.coordinator.forget_topic(topic) {
            self.write(turn, &group, &tombstones);
        }
    }

    pub(super) fn offset_commit(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        request: &OffsetCommitRequest,
    ) {
        let group = request.group_id.as_str();
        let ask = Ask {
            member_id: request.member_id.as_str(),
            instance: request.group_instance_id.as_ref().map(|instance| instance.as_str()),
            generation: request.generation_id_or_member_epoch,
        };
        let allowed = self.coordinator.check_commit(turn.now, group, ask, call.version);
        let mut response = OffsetCommitResponse::default();
        let mut accepted = Vec::new();
        for topic in &request.topics {
            let known =
                self.image.topic(topic.name.as_str()).map_or(0, |topic| topic.partitions.len() as i32);
            let mut answered = OffsetCommitResponseTopic::default().with_name(topic.name.clone());
            for asked in &topic.partitions {
                let metadata = asked.committed_metadata.as_ref().map(ToString::to_string).unwrap_or_default();
                let result = if (0..known).contains(&asked.partition_index) {
                    allowed
                } else {
                    // The coordinator is not asked about what is not there.
                    Err(ResponseError::UnknownTopicOrPartition)
                };
                let result = result.and_then(|()| {
                    if metadata.len() > self.settings.offset_metadata_max_bytes as usize {
                        return Err(ResponseError::OffsetMetadataTooLarge);
                    }
                    Ok(())
                });
                if result.is_ok() {
                    let committed = CommittedOffset {
                        offset: asked.committed_offset,
                        leader_epoch: asked.committed_leader_epoch,
                        metadata,
                        commit_timestamp_ms: turn.now_ms(),
                    };
                    accepted.push(((topic.name.to_string(), asked.partition_index), committed));
                }
                let partition =
                    OffsetCommitResponsePartition::default().with_partition_index(asked.partition_index);
                answered.partitions.push(partition.with_error_code(code(result)));
            }
            response.topics.push(answered);
        }
        if !accepted.is_empty() {
            let record =
                |((topic, partition), value): &((String, i32), CommittedOffset)| GroupRecord::Offset {
                    group: group.to_owned(),
                    topic: topic.clone(),
                    partition: *partition,
                    value: Some(value.clone()),
                };
            let records: Vec<_> = accepted.iter().map(record).collect();
            self.coordinator.committed_now(group, accepted);
            self.write(turn, group, &records);
        }
        turn.respond(connection, call, response);
    }

    pub(super) fn offset_fetch(
        &self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        request: &OffsetFetchRequest,
    ) {
        let mut response = OffsetFetchResponse::default();
        if call.version >= 8 {
            for asked in &request.groups {
                let topics = asked.topics.as_ref().map(|topics| {
                    topics.iter().map(|topic| (topic.name.clone(), topic.partition_indexes.clone())).collect()
                });
                let mut answered = OffsetFetchResponseGroup::default().with_group_id(asked.group_id.clone());
                match self.fetched(asked.group_id.as_str(), topics) {
                    Ok(topics) => answered.topics = topics.into_iter().map(in_groups).collect(),
                    Err(error) => answered.error_code = error.code(),
                }
                response.groups.push(answered);
            }
            return turn.respond(connection, call, response);
        }
        let topics = request.topics.as_ref();
        // Before version 2 null did not mean all, and an error had its place only in each partition.
        let topics: Option<Vec<_>> = topics.map(|topics| {
            topics.iter().map(|topic| (topic.name.clone(), topic.partition_indexes.clone())).collect()
        });
        match self.fetched(request.group_id.as_str(), topics.clone()) {
            Ok(found) => response.topics = found.into_iter().map(|topic| alone(call, topic)).collect(),
            Err(error) if call.version >= 2 => response.error_code = error.code(),
            Err(error) => {
                let failed = topics.unwrap_or_default().into_iter().map(|(name, indexes)| {
                    let partitions = indexes.into_iter().map(|index| {
                        let partition = OffsetFetchResponsePartition::default().with_partition_index(index);
                        partition.with_committed_offset(-1).with_error_code(error.code())
                    });
                    OffsetFetchResponseTopic::default().with_name(name).with_partitions(partitions.collect())
                });
                response.topics = failed.collect();
            }
        }
        turn.respond(connection, call, response);
    }

    fn fetched(
        &self,
        group: &str,
        asked: Option<Vec<(TopicName, Vec<i32>)>>,
    ) -> Result<Vec<FetchedTopic>, ResponseError> {
        let none = BTreeMap::new();
        let offsets = self.coordinator.offsets(group)?.unwrap_or(&none);
        let asked = asked.unwrap_or_else(|| {
            let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
            for (topic, partition) in offsets.keys() {
                topics.entry(topic).or_default().push(*partition);
            }
            topics.into_iter().map(|(topic, partitions)| (TopicName(text(topic)), partitions)).collect()
        });
        let find = |(name, indexes): (TopicName, Vec<i32>)| {
            let found =
                indexes.into_iter().map(|index| (index, offsets.get(&(name.to_string(), index)).cloned()));
            let found = found.collect();
            (name, found)
        };
        Ok(asked.into_iter().map(find).collect())
    }
}

type FetchedTopic = (TopicName, Vec<(i32, Option<CommittedOffset>)>);

/// What is answered for a partition without a commit.
fn or_none(committed: Option<CommittedOffset>) -> CommittedOffset {
    let none =
        CommittedOffset { offset: -1, leader_epoch: -1, metadata: String::new(), commit_timestamp_ms: -1 };
    committed.unwrap_or(none)
}

fn in_groups((name, partitions): FetchedTopic) -> OffsetFetchResponseTopics {
    let partition = |(index, committed): (i32, Option<CommittedOffset>)| {
        let committed = or_none(committed);
        OffsetFetchResponsePartitions::default()
            .with_partition_index(index)
            .with_committed_offset(committed.offset)
            .with_committed_leader_epoch(committed.leader_epoch)
            .with_metadata(Some(text(&committed.metadata)))
    };
    let partitions = partitions.into_iter().map(partition).collect();
    OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions)
}

fn alone(call: &Call, (name, partitions): FetchedTopic) -> OffsetFetchResponseTopic {
    let partition = |(index, committed): (i32, Option<CommittedOffset>)| {
        let committed = or_none(committed);
        let mut partition = OffsetFetchResponsePartition::default()
            .with_partition_index(index)
            .with_committed_offset(committed.offset)
            .with_metadata(Some(text(&committed.metadata)));
        if call.version >= 5 {
            partition.committed_leader_epoch = committed.leader_epoch;
        }
        partition
    };
    let partitions = partitions.into_iter().map(partition).collect();
    OffsetFetchResponseTopic::default().with_name(name).with_partitions(partitions)
}

fn read_records(log: &Log) -> Vec<GroupRecord> {
    let mut records = Vec::new();
    for batch in log.batches() {
        let read = record::read_all(&batch.header, &batch.bytes)
            .expect("the offsets topic holds its coordinator's records");
        for record in read {
            let record = GroupRecord::decode(record.key, record.value);
            records.push(record.expect("the offsets topic holds its coordinator's records"));
        }
    }
    records
}

fn code(result: Result<(), ResponseError>) -> i16 {
    result.map_or_else(|error| error.code(), |()| 0)
}

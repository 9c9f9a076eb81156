//! DescribeGroups (15), ListGroups (16), DeleteGroups (42), OffsetDelete (47): groups as tools see and clean them up.
//!
//! Reads see the groups that are committed; deletions are answered when their tombstones are.
//!
//! Version notes: ListGroups filters by state from 4 and by type from 5 on; DescribeGroups says what the caller may do
//! from 3, names static members from 4, and tells a group that is not there from one that is dead from 6 on (KIP-1043).

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, GroupId,
    ListGroupsRequest, ListGroupsResponse, OffsetDeleteRequest, OffsetDeleteResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::{Gathered, code};
use crate::broker::{Broker, Turn, text};
use crate::core::ConnectionId;
use crate::group::{ClassicGroup, GroupRecord, Member, State, View};
use crate::wire::Call;

/// Every group here is one of the classic protocol.
const CLASSIC: &str = "classic";
/// The bits of what anybody may do with a group where nobody is kept from anything: READ, DELETE, DESCRIBE,
/// DESCRIBE_CONFIGS and ALTER_CONFIGS (`AclEntry.supportedOperations`).
const ALL_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

/// One group's part of the answer to a deletion.
#[derive(Clone, Debug)]
pub(super) struct DeletedGroup {
    id: GroupId,
    pub(super) result: Result<(), ResponseError>,
}

impl Broker {
    pub(in crate::broker) fn describe_groups(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        request: &DescribeGroupsRequest,
    ) {
        let groups = request.groups.iter().map(|id| {
            let found = self.seen_group(id.as_str());
            let mut described = DescribedGroup::default().with_group_id(id.clone());
            match found {
                Err(error) => described.error_code = error.code(),
                Ok(None) => {
                    described.group_state = text("Dead");
                    if call.version >= 6 {
                        described.error_code = ResponseError::GroupIdNotFound.code();
                        described.error_message = Some(text(&format!("Group {} not found.", id.as_str())));
                    }
                }
                Ok(Some(group)) => {
                    describe(call, group, &mut described);
                    if call.version >= 3 && request.include_authorized_operations {
                        described.authorized_operations = ALL_OPERATIONS;
                    }
                }
            }
            described
        });
        let response = DescribeGroupsResponse::default().with_groups(groups.collect());
        turn.respond(connection, call, response);
    }

    fn seen_group(&self, group: &str) -> Result<Option<&ClassicGroup>, ResponseError> {
        let index = self.coordinator.index(group)?;
        let view = View::Committed(self.offsets_high_watermark(index));
        Ok(self.coordinator.shard(group)?.group(view, group))
    }

    pub(in crate::broker) fn list_groups(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        request: &ListGroupsRequest,
    ) {
        let wanted = |filter: &[StrBytes], what: &str| {
            filter.is_empty() || filter.iter().any(|name| name.eq_ignore_ascii_case(what))
        };
        let mut response = ListGroupsResponse::default();
        for index in self.coordinator.partitions() {
            if let Err(error) = self.coordinator.ready(index) {
                // One partition that is loading hides all the others: half a list would look like a whole one.
                response.error_code = error.code();
                response.groups.clear();
                break;
            }
            let shard = self.coordinator.shard_at(index).expect("it is ready");
            for (name, group) in shard.groups(View::Committed(self.offsets_high_watermark(index))) {
                let state = group.state().name();
                if !wanted(&request.states_filter, state) || !wanted(&request.types_filter, CLASSIC) {
                    continue;
                }
                let mut listed = ListedGroup::default()
                    .with_group_id(GroupId(text(name)))
                    .with_protocol_type(text(group.protocol_type().unwrap_or_default()));
                if call.version >= 4 {
                    listed.group_state = text(state);
                }
                if call.version >= 5 {
                    listed.group_type = text(CLASSIC);
                }
                response.groups.push(listed);
            }
        }
        turn.respond(connection, call, response);
    }

    pub(in crate::broker) fn delete_groups(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        request: &DeleteGroupsRequest,
    ) {
        // One batch for each partition, as Kafka asks each of its coordinators once.
        let mut parts: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        let mut records: BTreeMap<i32, Vec<GroupRecord>> = BTreeMap::new();
        let mut groups = Vec::with_capacity(request.groups_names.len());
        for (place, id) in request.groups_names.iter().enumerate() {
            let tombstones = self.coordinator.shard(id.as_str()).and_then(|shard| {
                let group = shard.group(View::Latest, id.as_str()).ok_or(ResponseError::GroupIdNotFound)?;
                match group.state() {
                    State::Empty => Ok(shard.tombstones(id.as_str())),
                    _ => Err(ResponseError::NonEmptyGroup),
                }
            });
            let result = tombstones.map(|tombstones| {
                let index = self.coordinator.index(id.as_str()).expect("its group was just found");
                parts.entry(index).or_default().push(place);
                records.entry(index).or_default().extend(tombstones);
            });
            groups.push(DeletedGroup { id: id.clone(), result });
        }
        for (index, records) in records {
            if let Err(error) = self.write_group(turn, index, records, None) {
                let failed = parts.remove(&index).expect("its groups are listed");
                failed.into_iter().for_each(|group| groups[group].result = Err(error));
            }
        }
        self.gather(turn, connection, call, Gathered::Deleted(groups), parts);
    }

    pub(in crate::broker) fn offset_delete(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        request: &OffsetDeleteRequest,
    ) {
        let name = request.group_id.as_str();
        let known = request.topics.iter().any(|topic| {
            topic.partitions.iter().any(|asked| self.knows_partition(&topic.name, asked.partition_index))
        });
        let (index, group) = match known.then(|| self.check_offset_delete(name)).transpose() {
            Ok(checked) => checked.unzip(),
            Err(error) => {
                let response = OffsetDeleteResponse::default().with_error_code(error.code());
                return turn.respond(connection, call, response);
            }
        };
        let mut records = Vec::new();
        let mut response = OffsetDeleteResponse::default();
        for topic in &request.topics {
            let subscribed = group.is_some_and(|group| group.is_subscribed_to(topic.name.as_str()));
            let mut answered = OffsetDeleteResponseTopic::default().with_name(topic.name.clone());
            for asked in &topic.partitions {
                let partition = asked.partition_index;
                let result = if !self.knows_partition(&topic.name, partition) {
                    Err(ResponseError::UnknownTopicOrPartition)
                } else if subscribed {
                    Err(ResponseError::GroupSubscribedToTopic)
                } else {
                    records.extend(self.offset_tombstone(name, topic.name.as_str(), partition));
                    Ok(())
                };
                let partition = OffsetDeleteResponsePartition::default().with_partition_index(partition);
                answered.partitions.push(partition.with_error_code(code(result)));
            }
            response.topics.push(answered);
        }
        let Some(index) = index else { return turn.respond(connection, call, response) };
        let written = self.write_group(turn, index, records, None);
        self.answer_write(turn, index, written, connection, call, response);
    }

    fn check_offset_delete(&self, name: &str) -> Result<(i32, &ClassicGroup), ResponseError> {
        if name.is_empty() {
            return Err(ResponseError::InvalidGroupId);
        }
        let index = self.coordinator.index(name)?;
        let group = self.coordinator.shard(name)?.group(View::Latest, name);
        let group = group.ok_or(ResponseError::GroupIdNotFound)?;
        group.check_offset_delete()?;
        Ok((index, group))
    }

    /// The tombstone of an offset that is there, committed or pending.
    fn offset_tombstone(&self, group: &str, topic: &str, partition: i32) -> Option<GroupRecord> {
        let offsets = self.coordinator.shard(group).ok()?.offsets();
        let there = offsets.get(View::Latest, group, topic, partition).is_some()
            || offsets.has_pending(group, topic, partition);
        let (group, topic) = (group.to_owned(), topic.to_owned());
        there.then_some(GroupRecord::Offset { group, topic, partition, value: None })
    }
}

fn describe(call: &Call, group: &ClassicGroup, described: &mut DescribedGroup) {
    let stable = group.state() == State::Stable;
    described.group_state = text(group.state().name());
    described.protocol_type = text(group.protocol_type().unwrap_or_default());
    let protocol = group.protocol().filter(|_| stable).unwrap_or_default();
    described.protocol_data = text(protocol);
    let member = |member: &Member| {
        let mut described = DescribedGroupMember::default()
            .with_member_id(text(&member.id))
            .with_client_id(text(&member.client_id))
            .with_client_host(text(&member.client_host));
        if call.version >= 4 {
            described.group_instance_id = member.instance.as_deref().map(text);
        }
        if stable {
            // Before that there is nothing to tell that all agree on.
            let chosen = member.protocols.iter().find(|known| known.name == protocol);
            described.member_metadata = chosen.map(|chosen| chosen.metadata.clone()).unwrap_or_default();
            described.member_assignment = member.assignment.clone();
        }
        described
    };
    described.members = group.members().map(member).collect();
}

pub(super) fn respond_deleted(
    turn: &mut Turn<'_>,
    connection: ConnectionId,
    call: &Call,
    groups: Vec<DeletedGroup>,
) {
    let results = groups.into_iter().map(|DeletedGroup { id, result }| {
        DeletableGroupResult::default().with_group_id(id).with_error_code(code(result))
    });
    turn.respond(connection, call, DeleteGroupsResponse::default().with_results(results.collect()));
}

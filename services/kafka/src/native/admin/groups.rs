//! What goes to the coordinators of groups: `super` says with which client.

use std::ffi::CString;
use std::ptr::{self, NonNull};
use std::time::Duration;

use broker::{Error, GroupDescription, MemberDescription, TopicPartition};
use rdkafka::TopicPartitionList;
use rdkafka::bindings as rd;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;

use super::{Call, Kind, NEVER, Owned, c_string, check, entries, from_code, list, protocol, text};

/// Describes groups, in the order asked for. The client must serve nothing else; see the module.
pub(crate) fn describe_groups<C: ClientContext>(
    client: &Client<C>,
    groups: &[String],
    patience: Duration,
) -> Result<Vec<GroupDescription>, Error> {
    let names: Vec<CString> = groups.iter().map(|group| c_string(group)).collect::<Result<_, _>>()?;
    let call = Call::new(client, Kind::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS, NEVER);
    // SAFETY: all that is passed is alive; librdkafka copies the names.
    unsafe {
        let mut names: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
        rd::rd_kafka_DescribeConsumerGroups(
            call.client,
            names.as_mut_ptr(),
            names.len(),
            call.options,
            call.queue,
        );
    }
    let answer = call.answer(patience, &format!("groups {groups:?}"))?;
    // SAFETY: what is read belongs to the answer.
    unsafe {
        let result = rd::rd_kafka_event_DescribeConsumerGroups_result(answer.0);
        let described = list(|count| rd::rd_kafka_DescribeConsumerGroups_result_groups(result, count));
        described.iter().map(|&group| group_description(group)).collect()
    }
}

/// # Safety
/// `group` is alive.
unsafe fn group_description(
    group: *const rd::rd_kafka_ConsumerGroupDescription_t,
) -> Result<GroupDescription, Error> {
    // SAFETY: as the caller promises; what is read belongs to the group, and texts are copied.
    unsafe {
        let group_id = text(rd::rd_kafka_ConsumerGroupDescription_group_id(group));
        check(rd::rd_kafka_ConsumerGroupDescription_error(group), || format!("group {group_id}"))?;
        let members = 0..rd::rd_kafka_ConsumerGroupDescription_member_count(group);
        let member = |index| member_description(rd::rd_kafka_ConsumerGroupDescription_member(group, index));
        Ok(GroupDescription {
            group_id,
            state: text(rd::rd_kafka_consumer_group_state_name(rd::rd_kafka_ConsumerGroupDescription_state(
                group,
            ))),
            protocol_type: protocol(
                rd::rd_kafka_ConsumerGroupDescription_is_simple_consumer_group(group) != 0,
            ),
            assignor: text(rd::rd_kafka_ConsumerGroupDescription_partition_assignor(group)),
            members: members.map(member).collect(),
        })
    }
}

/// # Safety
/// `member` is alive.
unsafe fn member_description(member: *const rd::rd_kafka_MemberDescription_t) -> MemberDescription {
    // SAFETY: as the caller promises; what is read belongs to the member, and texts are copied.
    unsafe {
        let instance = rd::rd_kafka_MemberDescription_group_instance_id(member);
        let assignment = rd::rd_kafka_MemberDescription_assignment(member);
        let partitions = if assignment.is_null() {
            ptr::null()
        } else {
            rd::rd_kafka_MemberAssignment_partitions(assignment)
        };
        MemberDescription {
            member_id: text(rd::rd_kafka_MemberDescription_consumer_id(member)),
            // librdkafka has an empty one for none.
            group_instance_id: Some(text(instance)).filter(|instance| !instance.is_empty()),
            client_id: text(rd::rd_kafka_MemberDescription_client_id(member)),
            client_host: text(rd::rd_kafka_MemberDescription_host(member)),
            assignment: entries(partitions)
                .iter()
                .map(|at| TopicPartition::new(text(at.topic), at.partition))
                .collect(),
        }
    }
}

/// Deletes groups with their offsets. The client must serve nothing else; see the module.
pub(crate) fn delete_groups<C: ClientContext>(
    client: &Client<C>,
    groups: &[String],
    patience: Duration,
) -> Result<(), Error> {
    let mut asked = Vec::new();
    for group in groups {
        let name = c_string(group)?;
        // SAFETY: the name lives until the call has returned, which copies it.
        let native = NonNull::new(unsafe { rd::rd_kafka_DeleteGroup_new(name.as_ptr()) });
        let native = native.expect("librdkafka ends the process when there is no memory");
        asked.push(Owned { native, destroy: rd::rd_kafka_DeleteGroup_destroy });
    }
    let call = Call::new(client, Kind::RD_KAFKA_ADMIN_OP_DELETEGROUPS, NEVER);
    // SAFETY: all that is passed is alive; librdkafka copies what is asked.
    unsafe {
        let mut asked: Vec<_> = asked.iter().map(|group| group.native.as_ptr()).collect();
        rd::rd_kafka_DeleteGroups(call.client, asked.as_mut_ptr(), asked.len(), call.options, call.queue);
    }
    let answer = call.answer(patience, &format!("the deletion of groups {groups:?}"))?;
    // SAFETY: what is read belongs to the answer.
    unsafe {
        let result = rd::rd_kafka_event_DeleteGroups_result(answer.0);
        for &group in list(|count| rd::rd_kafka_DeleteGroups_result_groups(result, count)) {
            let name = || format!("the deletion of group {}", text(rd::rd_kafka_group_result_name(group)));
            check(rd::rd_kafka_group_result_error(group), name)?;
        }
    }
    Ok(())
}

/// Forgets what a group has committed. The client must serve nothing else; see the module.
pub(crate) fn delete_group_offsets<C: ClientContext>(
    client: &Client<C>,
    group: &str,
    partitions: &TopicPartitionList,
    patience: Duration,
) -> Result<(), Error> {
    let what = format!("the deletion of offsets of group {group}");
    let name = c_string(group)?;
    let call = Call::new(client, Kind::RD_KAFKA_ADMIN_OP_DELETECONSUMERGROUPOFFSETS, NEVER);
    // SAFETY: name and list are alive and copied, the request is ours and copied.
    unsafe {
        let mut asked = [rd::rd_kafka_DeleteConsumerGroupOffsets_new(name.as_ptr(), partitions.ptr())];
        rd::rd_kafka_DeleteConsumerGroupOffsets(
            call.client,
            asked.as_mut_ptr(),
            asked.len(),
            call.options,
            call.queue,
        );
        rd::rd_kafka_DeleteConsumerGroupOffsets_destroy(asked[0]);
    }
    let answer = call.answer(patience, &what)?;
    // SAFETY: what is read belongs to the answer.
    unsafe {
        let result = rd::rd_kafka_event_DeleteConsumerGroupOffsets_result(answer.0);
        for &group in list(|count| rd::rd_kafka_DeleteConsumerGroupOffsets_result_groups(result, count)) {
            check(rd::rd_kafka_group_result_error(group), || what.clone())?;
            for at in entries(rd::rd_kafka_group_result_partitions(group)) {
                let code = RDKafkaErrorCode::from(at.err);
                if code != RDKafkaErrorCode::NoError {
                    return Err(from_code(code, format!("{what} in {}-{}", text(at.topic), at.partition)));
                }
            }
        }
    }
    Ok(())
}

//! Groups: listed, described, deleted, and their offsets forgotten.

use broker::{Error, GroupDescription, GroupListing, MemberDescription, TopicPartition};
use kafka_protocol::messages::describe_groups_response::DescribedGroup;
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, ListGroupsRequest, OffsetDeleteRequest,
};

use super::WireAdmin;
use crate::assignor::decode_assignment;
use crate::cluster::topic_name;
use crate::coordinator::Coordinator;
use crate::error::{self, wants_coordinator};
use crate::offsets::{GROUP_ID_NOT_FOUND, by_topic, group_id};

impl WireAdmin {
    /// Asks once.
    pub(super) async fn list_groups(&self) -> Result<Vec<GroupListing>, Error> {
        let mut groups = Vec::new();
        for answer in self.ask_all(|_| ListGroupsRequest::default()).await? {
            if answer.error_code != 0 {
                return Err(error::answered(answer.error_code, "list groups"));
            }
            groups.extend(answer.groups.into_iter().map(|group| GroupListing {
                group_id: group.group_id.to_string(),
                protocol_type: group.protocol_type.to_string(),
                state: group.group_state.to_string(),
            }));
        }
        groups.sort();
        Ok(groups)
    }

    pub(super) async fn describe_groups(&self, groups: &[&str]) -> Result<Vec<GroupDescription>, Error> {
        let mut described = Vec::new();
        for group in groups {
            let coordinator = Coordinator::of_group(self.cluster.clone(), (*group).to_owned());
            let mut attempts = self.attempts("describe groups");
            loop {
                match self.describe_group_once(&coordinator).await {
                    Ok(group) => {
                        described.push(group);
                        break;
                    }
                    Err(error) => self.after(&coordinator, &mut attempts, error).await?,
                }
            }
        }
        Ok(described)
    }

    async fn after(
        &self,
        coordinator: &Coordinator,
        attempts: &mut crate::attempts::Attempts,
        error: Error,
    ) -> Result<(), Error> {
        if wants_coordinator(error.code) {
            coordinator.forget();
        }
        attempts.after(error).await
    }

    async fn describe_group_once(&self, coordinator: &Coordinator) -> Result<GroupDescription, Error> {
        let id = group_id(&coordinator.key);
        let build = move |_| DescribeGroupsRequest::default().with_groups(vec![id]);
        let answer = coordinator.ask(self.cluster.settings.socket_timeout, build).await?.body;
        let what = || format!("description of {coordinator}");
        let Some(group) = answer.groups.into_iter().next() else {
            return Err(error::transport(format!("an answer without the {}", what())));
        };
        match group.error_code {
            // From version 6 on a group that is not there has an error of its own; before, it is `Dead`.
            0 | GROUP_ID_NOT_FOUND => Ok(description(group)),
            code => Err(error::answered(code, what())),
        }
    }

    pub(super) async fn delete_groups(&self, groups: &[&str]) -> Result<(), Error> {
        for group in groups {
            let coordinator = Coordinator::of_group(self.cluster.clone(), (*group).to_owned());
            let mut attempts = self.attempts("delete groups");
            while let Err(error) = self.delete_group_once(&coordinator).await {
                self.after(&coordinator, &mut attempts, error).await?;
            }
        }
        Ok(())
    }

    async fn delete_group_once(&self, coordinator: &Coordinator) -> Result<(), Error> {
        let id = group_id(&coordinator.key);
        let build = move |_| DeleteGroupsRequest::default().with_groups_names(vec![id]);
        let answer = coordinator.ask(self.cluster.settings.socket_timeout, build).await?.body;
        match answer.results.first().map_or(0, |result| result.error_code) {
            0 => Ok(()),
            code => Err(error::answered(code, format!("deletion of {coordinator}"))),
        }
    }

    pub(super) async fn delete_group_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<(), Error> {
        let coordinator = Coordinator::of_group(self.cluster.clone(), group.to_owned());
        let mut attempts = self.attempts("delete offsets");
        while let Err(error) = self.delete_offsets_once(&coordinator, partitions).await {
            self.after(&coordinator, &mut attempts, error).await?;
        }
        Ok(())
    }

    async fn delete_offsets_once(
        &self,
        coordinator: &Coordinator,
        partitions: &[TopicPartition],
    ) -> Result<(), Error> {
        let id = group_id(&coordinator.key);
        let topics = by_topic(partitions.iter().map(|at| (at.clone(), ())));
        let topics: Vec<_> = topics
            .into_iter()
            .map(|(topic, numbers)| {
                let partitions = numbers
                    .into_iter()
                    .map(|(number, ())| OffsetDeleteRequestPartition::default().with_partition_index(number));
                OffsetDeleteRequestTopic::default()
                    .with_name(topic_name(&topic))
                    .with_partitions(partitions.collect())
            })
            .collect();
        let build = move |_| OffsetDeleteRequest::default().with_group_id(id).with_topics(topics);
        let answer = coordinator.ask(self.cluster.settings.socket_timeout, build).await?.body;
        if answer.error_code != 0 {
            return Err(error::answered(answer.error_code, format!("offsets of {coordinator}")));
        }
        for topic in answer.topics {
            for partition in topic.partitions {
                if partition.error_code != 0 {
                    let at = TopicPartition::new(topic.name.as_str(), partition.partition_index);
                    let what = format!("offset of {coordinator} in {at}");
                    return Err(error::answered(partition.error_code, what));
                }
            }
        }
        Ok(())
    }
}

fn description(group: DescribedGroup) -> GroupDescription {
    let members = group.members.into_iter().map(|member| MemberDescription {
        member_id: member.member_id.to_string(),
        group_instance_id: member.group_instance_id.map(|id| id.to_string()),
        client_id: member.client_id.to_string(),
        client_host: member.client_host.to_string(),
        // Another kind of group's assignment is its own affair.
        assignment: decode_assignment(member.member_assignment).unwrap_or_default(),
    });
    let state = if group.error_code == GROUP_ID_NOT_FOUND {
        "Dead".to_owned()
    } else {
        group.group_state.to_string()
    };
    GroupDescription {
        group_id: group.group_id.to_string(),
        state,
        protocol_type: group.protocol_type.to_string(),
        assignor: group.protocol_data.to_string(),
        members: members.collect(),
    }
}

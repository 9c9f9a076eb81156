//! How a member gets its partitions: it joins, assigns if it leads, and syncs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use broker::{Error, ErrorCode, GroupMetadata, PartitionId, TopicPartition};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse, SyncGroupRequest};
use kafka_protocol::protocol::StrBytes;

use super::GroupEvent;
use super::task::Membership;
use crate::assignor::{
    Member, Subscription, assign, decode_assignment, decode_subscription, encode_assignment,
    encode_subscription,
};
use crate::error::{self, code, wants_coordinator};
use crate::offsets::group_id;
use crate::properties::{Habits, Settings};

const PROTOCOL_TYPE: StrBytes = StrBytes::from_static_str("consumer");

/// How much longer librdkafka waits than a rebalance may last, or the leader's assignment a session
/// (`rd_kafka_JoinGroupRequest`, `rd_kafka_SyncGroupRequest`).
const LIBRDKAFKA_MARGIN: Duration = Duration::from_secs(3);

/// How much longer Java waits than a rebalance may last (`JOIN_GROUP_TIMEOUT_LAPSE`).
const JAVA_MARGIN: Duration = Duration::from_secs(5);

impl Membership {
    /// Joins and syncs until the member has its partitions.
    ///
    /// # Errors
    /// If the group refuses it for good.
    pub(super) async fn join(&mut self) -> Result<Vec<TopicPartition>, Error> {
        let mut backoff = self.group.coordinator.cluster.backoff();
        loop {
            let error = match self.join_once().await {
                Ok(Some(partitions)) => return Ok(partitions),
                // One more round is due at once.
                Ok(None) => continue,
                Err(error) => error,
            };
            if wants_coordinator(error.code) {
                self.group.coordinator.forget();
            }
            match error.code {
                ErrorCode::Broker(code @ (code::UNKNOWN_MEMBER_ID | code::ILLEGAL_GENERATION)) => {
                    let keeps_id = code == code::ILLEGAL_GENERATION;
                    // In the cooperative protocol it still held what others have now.
                    match self.owned.is_empty() {
                        true => self.forget_member(keeps_id),
                        false => self.lose(keeps_id),
                    }
                }
                _ if error.is_retriable() => {}
                _ => return Err(error),
            }
            let wait = backoff.next(&mut self.rng);
            self.group.coordinator.cluster.context.sleep(wait).await;
        }
    }

    async fn join_once(&mut self) -> Result<Option<Vec<TopicPartition>>, Error> {
        let group = self.group.clone();
        let (member, topics) = {
            let mut state = group.state();
            state.resubscribed = false;
            (state.member.clone(), state.topics.clone())
        };
        self.assigned_counts = None;
        let joined = self.ask_to_join(&member, &topics).await?;
        match joined.error_code {
            0 => {}
            code::MEMBER_ID_REQUIRED => {
                group.state().member.member_id = joined.member_id.to_string();
                return Ok(None);
            }
            code => return Err(error::answered(code, format!("joining group `{}`", member.group_id))),
        }
        let member = {
            let mut state = group.state();
            state.member.member_id = joined.member_id.to_string();
            state.member.generation_id = joined.generation_id;
            state.member.clone()
        };
        // A static leader that comes back is told that all stays as it is (KIP-814).
        let assignments = match joined.leader == joined.member_id && !joined.skip_assignment {
            true => self.assign(&joined).await?,
            false => Vec::new(),
        };
        let partitions = self.sync(&member, &joined, assignments).await?;
        let (generation, id) = (member.generation_id, &member.member_id);
        self.note(format_args!("generation {generation}: {id} reads {partitions:?}"));
        Ok(Some(partitions))
    }

    async fn ask_to_join(
        &self,
        member: &GroupMetadata,
        topics: &BTreeSet<Arc<str>>,
    ) -> Result<JoinGroupResponse, Error> {
        let settings = self.group.coordinator.cluster.settings.consumer.clone();
        let member = member.clone();
        let owned = self.owned.iter().cloned().collect();
        let generation = member.generation_id;
        let metadata = encode_subscription(&Subscription { topics: topics.clone(), owned, generation });
        let session_ms = millis(settings.session_timeout);
        let rebalance_ms = millis(settings.max_poll_interval);
        let build = move |version| {
            let protocols = settings.assignors.iter().map(|name| {
                JoinGroupRequestProtocol::default()
                    .with_name(StrBytes::from_string(name.clone()))
                    .with_metadata(metadata.clone())
            });
            let instance = member.group_instance_id.filter(|_| version >= 5);
            JoinGroupRequest::default()
                .with_group_id(group_id(&member.group_id))
                .with_session_timeout_ms(session_ms)
                .with_rebalance_timeout_ms(rebalance_ms)
                .with_member_id(StrBytes::from_string(member.member_id))
                .with_group_instance_id(instance.map(StrBytes::from_string))
                .with_protocol_type(PROTOCOL_TYPE)
                .with_protocols(protocols.collect())
        };
        let timeout = join_patience(&self.group.coordinator.cluster.settings);
        Ok(self.group.coordinator.ask(timeout, build).await?.body)
    }

    /// As the group's leader: who reads what.
    async fn assign(&mut self, joined: &JoinGroupResponse) -> Result<Vec<SyncGroupRequestAssignment>, Error> {
        let members: Vec<Member> = joined
            .members
            .iter()
            .map(|member| {
                // Who says nothing that can be understood gets nothing.
                let said = decode_subscription(member.metadata.clone());
                Member {
                    member_id: member.member_id.to_string(),
                    group_instance_id: member.group_instance_id.as_ref().map(|id| id.to_string()),
                    generation: said.as_ref().map_or(-1, |said| said.generation),
                    owned: said.as_ref().map(|said| said.owned.clone()).unwrap_or_default(),
                    topics: said.map(|said| said.topics).unwrap_or_default(),
                }
            })
            .collect();
        let topics: BTreeSet<Arc<str>> =
            members.iter().flat_map(|member| member.topics.iter().cloned()).collect();
        let cluster = &self.group.coordinator.cluster;
        cluster.refresh(&topics, cluster.version()).await?;
        let counts = self.counts(&topics);
        for missing in topics.iter().filter(|topic| !counts.contains_key(*topic)) {
            let error = error::answered(
                code::UNKNOWN_TOPIC_OR_PARTITION,
                format!("subscribed topic `{missing}`; it is read as soon as it is there"),
            );
            self.group.publish(GroupEvent::Failed(error));
        }
        let protocol = joined.protocol_name.as_ref().map_or("range", |name| name.as_str());
        let assignments = assign(protocol, &members, &counts);
        self.assigned_counts = Some(
            topics.iter().map(|topic| (topic.clone(), counts.get(topic).copied().unwrap_or(0))).collect(),
        );
        let assignments = assignments.into_iter().map(|(member, partitions)| {
            SyncGroupRequestAssignment::default()
                .with_member_id(StrBytes::from_string(member))
                .with_assignment(encode_assignment(&partitions))
        });
        Ok(assignments.collect())
    }

    pub(super) fn counts(&self, topics: &BTreeSet<Arc<str>>) -> BTreeMap<Arc<str>, PartitionId> {
        let cluster = &self.group.coordinator.cluster;
        topics.iter().filter_map(|topic| Some((topic.clone(), cluster.partition_count(topic)?))).collect()
    }

    async fn sync(
        &self,
        member: &GroupMetadata,
        joined: &JoinGroupResponse,
        assignments: Vec<SyncGroupRequestAssignment>,
    ) -> Result<Vec<TopicPartition>, Error> {
        let asking = member.clone();
        let protocol = joined.protocol_name.clone();
        let build = move |version| {
            let request = SyncGroupRequest::default()
                .with_group_id(group_id(&asking.group_id))
                .with_generation_id(asking.generation_id)
                .with_member_id(StrBytes::from_string(asking.member_id))
                .with_assignments(assignments);
            let instance = asking.group_instance_id.filter(|_| version >= 3);
            let request = request.with_group_instance_id(instance.map(StrBytes::from_string));
            if version >= 5 {
                request.with_protocol_type(Some(PROTOCOL_TYPE)).with_protocol_name(protocol)
            } else {
                request
            }
        };
        let timeout = sync_patience(&self.group.coordinator.cluster.settings);
        let answer = self.group.coordinator.ask(timeout, build).await?.body;
        let what = || format!("syncing group `{}`", member.group_id);
        match answer.error_code {
            0 => decode_assignment(answer.assignment)
                .ok_or_else(|| error::answered(code::CORRUPT_MESSAGE, what())),
            code => Err(error::answered(code, what())),
        }
    }
}

/// How long an answer to a join may take.
fn join_patience(settings: &Settings) -> Duration {
    let rebalance = settings.consumer.max_poll_interval;
    match settings.habits {
        Habits::Librdkafka => rebalance + LIBRDKAFKA_MARGIN,
        Habits::Java => settings.socket_timeout.max(rebalance + JAVA_MARGIN),
    }
}

/// How long an answer to a sync may take: no client waits for as long as a leader may take to assign, it joins again.
fn sync_patience(settings: &Settings) -> Duration {
    match settings.habits {
        Habits::Librdkafka => settings.consumer.session_timeout + LIBRDKAFKA_MARGIN,
        Habits::Java => settings.socket_timeout,
    }
}

fn millis(span: Duration) -> i32 {
    i32::try_from(span.as_millis()).expect("bounded by the property's range")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_own_patience_with_a_rebalance() {
        for (habits, join, sync) in [("librdkafka", 303, 48), ("java", 305, 30)] {
            let properties = broker::Properties::new()
                .set("bootstrap.servers", "b")
                .set("shakedown.client.habits", habits);
            let settings = Settings::read(&properties).expect("sound properties");
            assert_eq!(join_patience(&settings), Duration::from_secs(join), "{habits}");
            assert_eq!(sync_patience(&settings), Duration::from_secs(sync), "{habits}");
        }
    }
}

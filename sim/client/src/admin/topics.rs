//! Topics: created, grown, cut, described, deleted; and who leads their partitions.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker::{
    ElectionType, Error, ErrorClass, ErrorCode, NewTopic, Offset, OffsetSpec, PartitionDescription,
    TopicDescription, TopicPartition,
};
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::describe_topic_partitions_request::TopicRequest;
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    DescribeTopicPartitionsRequest, ElectLeadersRequest,
};
use kafka_protocol::protocol::StrBytes;

use super::{UNKNOWN_TOPIC, WireAdmin, timeout_ms, with_reason};
use crate::cluster::{NodeId, Peer, Topic, topic_error, topic_name};
use crate::error::{self, code, timed_out, transport};
use crate::offsets::by_topic;

const PREFERRED_LEADER_NOT_AVAILABLE: ErrorCode = ErrorCode::Broker(80);
const ELIGIBLE_LEADERS_NOT_AVAILABLE: ErrorCode = ErrorCode::Broker(83);
/// Kafka's code for an election that would change nothing.
const ELECTION_NOT_NEEDED: i16 = 84;

impl WireAdmin {
    pub(super) async fn create_topics(&self, topics: &[NewTopic]) -> Result<(), Error> {
        if topics.is_empty() {
            return Ok(());
        }
        let mut attempts = self.attempts("create topics");
        let timeout_ms = timeout_ms(self.cluster.settings.socket_timeout);
        let mut left: Vec<NewTopic> = topics.to_vec();
        // An attempt without an answer may have created what the next finds there.
        let mut maybe_created = false;
        let mut first_error = None;
        while !left.is_empty() {
            let asked: Vec<CreatableTopic> = left.iter().map(creatable).collect();
            let build = move |_| {
                CreateTopicsRequest::default().with_timeout_ms(timeout_ms).with_topics(asked.clone())
            };
            let answer = match self.ask_controller(build).await {
                Ok(answer) => answer.body,
                Err(failed) => {
                    maybe_created |= failed.sent;
                    attempts.after(failed.error).await?;
                    continue;
                }
            };
            let mut again = None;
            for result in &answer.topics {
                let name = result.name.as_str();
                let why = result.error_message.as_ref().map_or("", |text| text.as_str());
                let retriable = ErrorClass::of_broker(result.error_code) == ErrorClass::Retriable;
                match result.error_code {
                    0 => left.retain(|topic| topic.name != name),
                    code::TOPIC_ALREADY_EXISTS if maybe_created => left.retain(|topic| topic.name != name),
                    code if retriable => again = Some(topic_error(name, code)),
                    code => {
                        left.retain(|topic| topic.name != name);
                        let mut error = topic_error(name, code);
                        error.message = format!("{}: {why}", error.message);
                        first_error = first_error.or(Some(error));
                    }
                }
            }
            match again {
                Some(error) => attempts.after(error).await?,
                None => break,
            }
        }
        if let Some(error) = first_error {
            return Err(error);
        }
        let names: Vec<Arc<str>> = topics.iter().map(|topic| topic.name.as_str().into()).collect();
        self.wait_for_leaders(&names, 1).await
    }

    pub(super) async fn delete_topics(&self, names: &[&str]) -> Result<(), Error> {
        if names.is_empty() {
            return Ok(());
        }
        let mut attempts = self.attempts("delete topics");
        let timeout_ms = timeout_ms(self.cluster.settings.socket_timeout);
        let mut left: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut maybe_deleted = false;
        let mut first_error = None;
        while !left.is_empty() {
            let asked: Vec<_> = left.iter().map(|name| topic_name(name)).collect();
            let build = move |_| {
                DeleteTopicsRequest::default().with_timeout_ms(timeout_ms).with_topic_names(asked.clone())
            };
            let answer = match self.ask_controller(build).await {
                Ok(answer) => answer.body,
                Err(failed) => {
                    maybe_deleted |= failed.sent;
                    attempts.after(failed.error).await?;
                    continue;
                }
            };
            let mut again = None;
            for result in &answer.responses {
                let name = result.name.as_ref().map_or("", |name| name.as_str());
                match result.error_code {
                    0 => left.retain(|topic| topic != name),
                    code::UNKNOWN_TOPIC_OR_PARTITION if maybe_deleted => left.retain(|topic| topic != name),
                    // Retriable elsewhere; here it is the answer.
                    code @ code::UNKNOWN_TOPIC_OR_PARTITION => {
                        left.retain(|topic| topic != name);
                        first_error = first_error.or_else(|| Some(topic_error(name, code)));
                    }
                    code => match topic_error(name, code) {
                        error if error.is_retriable() => again = Some(error),
                        error => {
                            left.retain(|topic| topic != name);
                            first_error = first_error.or(Some(error));
                        }
                    },
                }
            }
            match again {
                Some(error) => attempts.after(error).await?,
                None => break,
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    pub(super) async fn describe_topics(&self, names: &[&str]) -> Result<Vec<TopicDescription>, Error> {
        let asked =
            (!names.is_empty()).then(|| names.iter().map(|name| Arc::from(*name)).collect::<Vec<_>>());
        let mut attempts = self.attempts("describe topics");
        loop {
            let described = match self.cluster.describe(asked.clone()).await {
                Ok(described) => described,
                Err(error) => {
                    attempts.after(error).await?;
                    continue;
                }
            };
            let mut topics = Vec::new();
            for (name, topic) in described {
                match topic.error {
                    // A topic whose partitions have no leader is there all the same.
                    0 | code::LEADER_NOT_AVAILABLE => topics.push(description(name, &topic)),
                    code::UNKNOWN_TOPIC_OR_PARTITION => {}
                    code => return Err(topic_error(&name, code)),
                }
            }
            topics.sort_by(|one, other| one.name.cmp(&other.name));
            // Only a partition that lacks replicas can have them.
            let short = |topic: &&TopicDescription| {
                topic.partitions.iter().any(|partition| partition.in_sync.len() < partition.replicas.len())
            };
            let names = topics.iter().filter(short).map(|topic| topic.name.clone()).collect();
            let mut eligible = self.eligible_leaders(names).await;
            for topic in &mut topics {
                for partition in &mut topic.partitions {
                    let at = TopicPartition::new(topic.name.clone(), partition.partition);
                    partition.eligible_leaders = eligible.remove(&at).unwrap_or_default();
                }
            }
            return Ok(topics);
        }
    }

    pub(super) async fn create_partitions(&self, topic: &str, count: i32) -> Result<(), Error> {
        let mut attempts = self.attempts("create partitions");
        let timeout_ms = timeout_ms(self.cluster.settings.socket_timeout);
        let name = topic_name(topic);
        loop {
            let asked = CreatePartitionsTopic::default()
                .with_name(name.clone())
                .with_count(count)
                .with_assignments(None);
            let build = move |_| {
                CreatePartitionsRequest::default()
                    .with_timeout_ms(timeout_ms)
                    .with_topics(vec![asked.clone()])
            };
            let error = match self.ask_controller(build).await {
                Ok(answer) => match answer.body.results.into_iter().next() {
                    Some(result) if result.error_code == 0 => break,
                    Some(result) => with_reason(topic_error(topic, result.error_code), result.error_message),
                    None => transport(format!("an answer without topic `{topic}`")),
                },
                Err(failed) => failed.error,
            };
            match error.code {
                UNKNOWN_TOPIC => return Err(error),
                _ => attempts.after(error).await?,
            }
        }
        self.wait_for_leaders(&[topic.into()], count).await
    }

    pub(super) async fn delete_records(
        &self,
        before: &[(TopicPartition, Offset)],
    ) -> Result<Vec<(TopicPartition, Offset)>, Error> {
        let mut attempts = self.attempts("delete records");
        let mut left = before.to_vec();
        let mut starts = Vec::new();
        while !left.is_empty() {
            match self.delete_records_once(&mut left, &mut starts).await {
                Ok(()) => {}
                Err(error) => attempts.after(error).await?,
            }
        }
        starts.sort();
        Ok(starts)
    }

    /// Asks every leader once; what is done moves from `left` to `starts`.
    async fn delete_records_once(
        &self,
        left: &mut Vec<(TopicPartition, Offset)>,
        starts: &mut Vec<(TopicPartition, Offset)>,
    ) -> Result<(), Error> {
        let topics = left.iter().map(|(at, _)| at.topic.clone()).collect();
        self.cluster.refresh(&topics, self.cluster.version()).await?;
        let mut leaders: BTreeMap<NodeId, Vec<(TopicPartition, Offset)>> = BTreeMap::new();
        for (at, offset) in left.iter() {
            let Some((leader, _)) = self.cluster.leader(at) else {
                return Err(transport(format!("{at} has no leader")));
            };
            leaders.entry(leader).or_default().push((at.clone(), *offset));
        }
        let timeout = self.cluster.settings.socket_timeout;
        for (leader, asked) in leaders {
            let topics = by_topic(asked).into_iter().map(|(topic, partitions)| {
                let partitions = partitions.into_iter().map(|(number, offset)| {
                    DeleteRecordsPartition::default().with_partition_index(number).with_offset(offset)
                });
                DeleteRecordsTopic::default()
                    .with_name(topic_name(&topic))
                    .with_partitions(partitions.collect())
            });
            let request = DeleteRecordsRequest::default()
                .with_timeout_ms(timeout_ms(timeout))
                .with_topics(topics.collect());
            let connection = self.cluster.connection(Peer::Node(leader))?;
            let answer = connection.request(timeout, i16::MAX, move |_| request).await?.body;
            for topic in answer.topics {
                for partition in topic.partitions {
                    let at = TopicPartition::new(topic.name.as_str(), partition.partition_index);
                    match partition.error_code {
                        0 => {
                            left.retain(|(other, _)| *other != at);
                            starts.push((at, partition.low_watermark));
                        }
                        code => return Err(error::answered(code, format!("delete records of {at}"))),
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) async fn elect_leaders(
        &self,
        kind: ElectionType,
        partitions: &[TopicPartition],
    ) -> Result<(), Error> {
        let mut attempts = self.attempts("elect leaders");
        let timeout_ms = timeout_ms(self.cluster.settings.socket_timeout);
        let kind = match kind {
            ElectionType::Preferred => 0,
            ElectionType::Unclean => 1,
        };
        let asked: Vec<_> = by_topic(partitions.iter().map(|at| (at.clone(), ())))
            .into_iter()
            .map(|(topic, numbers)| {
                let numbers = numbers.into_iter().map(|(number, ())| number).collect();
                TopicPartitions::default().with_topic(topic_name(&topic)).with_partitions(numbers)
            })
            .collect();
        loop {
            let asked = asked.clone();
            let build = move |version| {
                let request = ElectLeadersRequest::default()
                    .with_timeout_ms(timeout_ms)
                    .with_topic_partitions(Some(asked.clone()));
                if version >= 1 { request.with_election_type(kind) } else { request }
            };
            let error = match self.ask_controller(build).await {
                Ok(answer) if answer.body.error_code != 0 => {
                    error::answered(answer.body.error_code, "elect leaders")
                }
                Ok(answer) => {
                    let results = answer.body.replica_election_results.into_iter().flat_map(|topic| {
                        let name = topic.topic;
                        topic.partition_result.into_iter().map(move |result| (name.clone(), result))
                    });
                    let mut failed =
                        results.filter(|(_, result)| !matches!(result.error_code, 0 | ELECTION_NOT_NEEDED));
                    match failed.next() {
                        None => return Ok(()),
                        Some((name, result)) => {
                            let what = format!("leader of {}/{}", name.as_str(), result.partition_id);
                            with_reason(error::answered(result.error_code, what), result.error_message)
                        }
                    }
                }
                Err(failed) => failed.error,
            };
            match error.code {
                UNKNOWN_TOPIC => return Err(error),
                // The election is over. Whether to hold another is for whoever asked, when replicas have come back.
                PREFERRED_LEADER_NOT_AVAILABLE | ELIGIBLE_LEADERS_NOT_AVAILABLE => return Err(error),
                _ => attempts.after(error).await?,
            }
        }
    }

    /// Who may lead without loss though out of sync, where the cluster can tell.
    async fn eligible_leaders(&self, names: Vec<Arc<str>>) -> BTreeMap<TopicPartition, Vec<NodeId>> {
        if names.is_empty() {
            return BTreeMap::new();
        }
        let build = move |_| {
            let topics = names.iter().map(|name| TopicRequest::default().with_name(topic_name(name)));
            DescribeTopicPartitionsRequest::default()
                .with_topics(topics.collect())
                .with_response_partition_limit(2_000)
                .with_cursor(None)
        };
        // A broker that has no such request has no such leaders either; else the description goes without them.
        let Ok(answer) = self.cluster.ask_any(build).await else { return BTreeMap::new() };
        let mut eligible = BTreeMap::new();
        for topic in answer.body.topics {
            let Some(name) = topic.name else { continue };
            for partition in topic.partitions {
                let nodes = partition.eligible_leader_replicas.unwrap_or_default();
                if !nodes.is_empty() {
                    let at = TopicPartition::new(name.as_str(), partition.partition_index);
                    eligible.insert(at, nodes.iter().map(|node| node.0).collect());
                }
            }
        }
        eligible
    }

    /// Waits until every topic is there for all who may be asked, with `count` partitions at least: each has a leader,
    /// and it answers.
    async fn wait_for_leaders(&self, topics: &[Arc<str>], count: i32) -> Result<(), Error> {
        let mut attempts = self.attempts("wait for leaders");
        loop {
            let described = self.cluster.describe(Some(topics.to_vec())).await;
            let error = match described {
                Ok(described) if described.iter().all(|(_, topic)| has_leaders(topic, count)) => {
                    let asked: Vec<_> = partitions(&described).map(|at| (at, OffsetSpec::Earliest)).collect();
                    match self.list_once(&asked).await {
                        Ok(_) => return Ok(()),
                        Err(error) => error,
                    }
                }
                Ok(_) => timed_out("topics without a leader"),
                Err(error) => error,
            };
            attempts.after(error).await?;
        }
    }
}

fn has_leaders(topic: &Topic, count: i32) -> bool {
    topic.error == 0
        && topic.partitions.len() >= usize::try_from(count).unwrap_or(0)
        && topic.partitions.values().all(|partition| partition.leader.is_some())
}

fn partitions(topics: &[(Arc<str>, Topic)]) -> impl Iterator<Item = TopicPartition> {
    topics.iter().flat_map(|(name, topic)| {
        topic.partitions.keys().map(|number| TopicPartition::new(name.clone(), *number))
    })
}

fn creatable(topic: &NewTopic) -> CreatableTopic {
    let configs = topic.config.iter().map(|(name, value)| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_string(name.clone()))
            .with_value(Some(StrBytes::from_string(value.clone())))
    });
    CreatableTopic::default()
        .with_name(topic_name(&topic.name))
        // -1 takes the broker's own number (KIP-464).
        .with_num_partitions(topic.partitions.unwrap_or(-1))
        .with_replication_factor(topic.replication_factor.unwrap_or(-1))
        .with_configs(configs.collect())
}

fn description(name: Arc<str>, topic: &Topic) -> TopicDescription {
    let partitions: BTreeMap<_, _> = topic.partitions.clone();
    let partitions = partitions.into_iter().map(|(number, partition)| PartitionDescription {
        partition: number,
        leader: partition.leader,
        leader_epoch: Some(partition.leader_epoch).filter(|epoch| *epoch >= 0),
        replicas: partition.replicas,
        in_sync: partition.in_sync,
        eligible_leaders: Vec::new(),
    });
    TopicDescription { name, partitions: partitions.collect() }
}

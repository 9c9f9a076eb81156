//! CreateTopics and DeleteTopics, which brokers pass on to the controller.
//!
//! The leaders of a topic's partitions go round the live brokers from one that is drawn, as Kafka's striped placement
//! has it. Version notes: topic ids in CreateTopics from 7 on, in DeleteTopics from 6 on; error messages in
//! CreateTopics from 1 on, in DeleteTopics from 5 on.

use std::collections::BTreeMap;

use context::Timestamp;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use rand::RngExt as _;
use uuid::Uuid;

use super::{Controller, ControllerDisk, Output};
use crate::config::TopicSettings;
use crate::metadata::{MetadataRecord, NodeId, PartitionImage, PartitionKey};
use crate::wire::Call;

/// The longest name that Kafka takes: it becomes a folder's.
const NAME_LEN_MAX: usize = 249;

/// What Kafka lets one request create, so that it stays one batch of the metadata log.
const PARTITIONS_PER_REQUEST_MAX: i64 = 10_000;

type Refusal = (ResponseError, String);

impl Controller {
    pub(super) fn create_topics(
        &mut self,
        now: Timestamp,
        call: &Call,
        request: &CreateTopicsRequest,
        disk: &mut ControllerDisk,
        out: &mut Vec<Output>,
    ) -> CreateTopicsResponse {
        let partitions = |topic: &CreatableTopic| match topic.assignments.len() {
            0 if topic.num_partitions == -1 => i64::from(self.settings.num_partitions),
            0 => i64::from(topic.num_partitions),
            assigned => assigned as i64,
        };
        let too_many = request.topics.iter().map(partitions).sum::<i64>() > PARTITIONS_PER_REQUEST_MAX;
        let mut results = Vec::new();
        for topic in &request.topics {
            let twice = request.topics.iter().filter(|other| other.name == topic.name).count() > 1;
            let made = if too_many {
                let message =
                    format!("a request may ask for {PARTITIONS_PER_REQUEST_MAX} partitions at most");
                Err((ResponseError::PolicyViolation, message))
            } else if twice {
                Err((ResponseError::InvalidRequest, "the request names this topic more than once".to_owned()))
            } else {
                self.create_topic(now, topic, request.validate_only, disk, out)
            };
            let mut result = CreatableTopicResult::default().with_name(topic.name.clone());
            match made {
                Ok((id, config, partitions)) if call.version >= 5 => {
                    result.num_partitions = partitions;
                    result.replication_factor = 1;
                    result.configs = Some(described(&config));
                    if call.version >= 7 {
                        result.topic_id = id;
                    }
                }
                Ok(_) => {}
                Err((error, message)) => {
                    result.error_code = error.code();
                    result.error_message = Some(StrBytes::from_string(shortened(message)));
                    if call.version >= 5 {
                        (result.num_partitions, result.replication_factor) = (-1, -1);
                    }
                }
            }
            results.push(result);
        }
        CreateTopicsResponse::default().with_topics(results)
    }

    fn create_topic(
        &mut self,
        now: Timestamp,
        topic: &CreatableTopic,
        validate_only: bool,
        disk: &mut ControllerDisk,
        out: &mut Vec<Output>,
    ) -> Result<(Uuid, BTreeMap<String, String>, i32), Refusal> {
        let name = topic.name.as_str();
        check_name(name).map_err(|message| (ResponseError::InvalidTopicException, message))?;
        if self.image.topic(name).is_some() {
            return Err((ResponseError::TopicAlreadyExists, format!("topic `{name}` already exists")));
        }
        if let Some(other) = self.image.topics.values().find(|other| collide(name, &other.name)) {
            let message = format!("topic `{name}` collides with existing topic `{}`", other.name);
            return Err((ResponseError::InvalidTopicException, message));
        }
        let config = self.topic_config(topic)?;
        let leaders = if topic.assignments.is_empty() { self.place(topic)? } else { self.assigned(topic)? };
        let partitions = leaders.len() as i32;
        if validate_only {
            return Ok((Uuid::nil(), config, partitions));
        }
        let id = self.new_topic_id();
        let mut records = vec![MetadataRecord::Topic { id, name: name.to_owned(), config: config.clone() }];
        for (index, leader) in (0..).zip(leaders) {
            let state = PartitionImage {
                replicas: vec![leader],
                in_sync: vec![leader],
                leader,
                leader_epoch: 0,
                partition_epoch: 0,
            };
            records.push(MetadataRecord::Partition { key: PartitionKey { topic: id, index }, state });
        }
        self.append(now, disk, records);
        out.push(Output::Note(format!("topic {name} is created with {partitions} partitions")));
        Ok((id, config, partitions))
    }

    fn topic_config(&self, topic: &CreatableTopic) -> Result<BTreeMap<String, String>, Refusal> {
        let mut config = BTreeMap::new();
        for setting in &topic.configs {
            let Some(value) = &setting.value else {
                let message = format!("topic setting `{}` has no value", setting.name.as_str());
                return Err((ResponseError::InvalidConfig, message));
            };
            config.insert(setting.name.to_string(), value.to_string());
        }
        TopicSettings::parse(&config).map_err(|error| (ResponseError::InvalidConfig, error.to_string()))?;
        Ok(config)
    }

    /// One leader for each partition, round the live brokers.
    fn place(&mut self, topic: &CreatableTopic) -> Result<Vec<NodeId>, Refusal> {
        let partitions = match topic.num_partitions {
            -1 => self.settings.num_partitions,
            partitions if partitions > 0 => partitions,
            _ => {
                let message = "number of partitions was set to an invalid non-positive value".to_owned();
                return Err((ResponseError::InvalidPartitions, message));
            }
        };
        let refuse = |message: String| Err((ResponseError::InvalidReplicationFactor, message));
        match topic.replication_factor {
            -1 | 1 => {}
            factor if factor < 1 => return refuse("replication factor must be larger than 0".into()),
            factor if factor as usize > self.image.brokers.len() => {
                let brokers = self.image.brokers.len();
                return refuse(format!(
                    "the target replication factor of {factor} cannot be reached because only {brokers} broker(s) are registered"
                ));
            }
            factor => {
                return refuse(format!(
                    "replication factor {factor} is more than 1, and replication is not built yet"
                ));
            }
        }
        let live: Vec<NodeId> = self.image.live_brokers().map(|(node, _)| node).collect();
        if live.is_empty() {
            return refuse("all brokers are currently fenced".into());
        }
        let first = self.rng.random_range(0..live.len());
        Ok((0..partitions as usize).map(|index| live[(first + index) % live.len()]).collect())
    }

    fn assigned(&self, topic: &CreatableTopic) -> Result<Vec<NodeId>, Refusal> {
        let refuse = |message: String| Err((ResponseError::InvalidReplicaAssignment, message));
        if topic.num_partitions != -1 || topic.replication_factor != -1 {
            let message = "with an assignment, partitions and replication factor must be -1".to_owned();
            return Err((ResponseError::InvalidRequest, message));
        }
        let mut leaders = BTreeMap::new();
        for assignment in &topic.assignments {
            let [leader] = assignment.broker_ids[..] else {
                return refuse(format!(
                    "partition {} needs exactly one replica for now",
                    assignment.partition_index
                ));
            };
            if !self.image.brokers.contains_key(&leader.0) {
                return refuse(format!("broker {} is not registered", leader.0));
            }
            leaders.insert(assignment.partition_index, leader.0);
        }
        if !leaders.keys().copied().eq(0..topic.assignments.len() as i32) {
            return refuse("partitions must be numbered from 0, each once".into());
        }
        Ok(leaders.into_values().collect())
    }

    pub(super) fn delete_topics(
        &mut self,
        now: Timestamp,
        call: &Call,
        request: &DeleteTopicsRequest,
        disk: &mut ControllerDisk,
        out: &mut Vec<Output>,
    ) -> DeleteTopicsResponse {
        let by_name = request.topic_names.iter().map(|name| (Some(name.clone()), Uuid::nil()));
        let states = request.topics.iter().map(|topic| (topic.name.clone(), topic.topic_id));
        let results =
            by_name.chain(states).map(|(name, id)| self.delete_topic(now, call, name, id, disk, out));
        DeleteTopicsResponse::default().with_responses(results.collect())
    }

    fn delete_topic(
        &mut self,
        now: Timestamp,
        call: &Call,
        name: Option<TopicName>,
        id: Uuid,
        disk: &mut ControllerDisk,
        out: &mut Vec<Output>,
    ) -> DeletableTopicResult {
        let known = match &name {
            Some(name) => self.image.topic(name.as_str()),
            None => self.image.topics.get(&id),
        };
        let known = known.map(|topic| (topic.id, topic.name.clone()));
        let mut result = DeletableTopicResult::default().with_name(name.clone());
        let Some((id, known_name)) = known else {
            let error = match name {
                Some(_) => ResponseError::UnknownTopicOrPartition,
                None => ResponseError::UnknownTopicId,
            };
            result.error_code = error.code();
            if call.version >= 6 {
                result.topic_id = id;
            }
            return result;
        };
        self.append(now, disk, vec![MetadataRecord::RemoveTopic { id }]);
        out.push(Output::Note(format!("topic {known_name} is deleted")));
        result.name = Some(TopicName(StrBytes::from_string(known_name.to_string())));
        if call.version >= 6 {
            result.topic_id = id;
        }
        result
    }
}

fn described(config: &BTreeMap<String, String>) -> Vec<CreatableTopicConfigs> {
    // 1 is Kafka's `DYNAMIC_TOPIC_CONFIG`: set on this topic.
    let describe = |(name, value): (&String, &String)| {
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_string(name.clone()))
            .with_value(Some(StrBytes::from_string(value.clone())))
            .with_config_source(1)
    };
    config.iter().map(describe).collect()
}

/// What a message may hold of a name that a client made up: old versions say at most 32 KiB.
const MESSAGE_BYTES_MAX: usize = 1_000;

pub(super) fn shortened(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES_MAX {
        let end = message.floor_char_boundary(MESSAGE_BYTES_MAX);
        message.truncate(end);
        message.push('…');
    }
    message
}

/// Kafka's metrics write `.` as `_`, so that it refuses a name that differs from another in these alone
/// (`Topic.hasCollision`).
fn collide(one: &str, other: &str) -> bool {
    one.len() == other.len() && one.replace('.', "_") == other.replace('.', "_")
}

/// Kafka's rule for names, from `Topic.validate`.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() {
        return Err("the topic name is empty".into());
    }
    if matches!(name, "." | "..") {
        return Err(format!("the topic name cannot be `{name}`"));
    }
    if name.len() > NAME_LEN_MAX {
        return Err(format!("the topic name is longer than {NAME_LEN_MAX} characters"));
    }
    if !name.bytes().all(legal) {
        return Err(format!(
            "the topic name `{name}` has a character other than ASCII letters, digits, `.`, `_` and `-`"
        ));
    }
    Ok(())
}

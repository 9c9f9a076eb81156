//! CreateTopics, DeleteTopics and CreatePartitions, which brokers pass on to the controller
//! (`ReplicationControlManager`, `ControllerApis`).
//!
//! Where replicas go is [`super::placement`]'s. Version notes: topic ids in CreateTopics from 7 on, in DeleteTopics from
//! 6 on; error messages in CreateTopics from 1 on, in DeleteTopics from 5 on; CreateTopics tells all settings of the topic
//! from 5 on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use context::Timestamp;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    BrokerId, CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::placement::{Usable, place};
use super::{Controller, ControllerDisk, METADATA_TOPIC, Output};
use crate::config::TopicSettings;
use crate::config::told::{Layers, Told};
use crate::metadata::{ConfigResource, MetadataRecord, NodeId, PartitionImage, PartitionKey};
use crate::wire::Call;

/// The longest name that Kafka takes: it becomes a folder's.
const NAME_LEN_MAX: usize = 249;

/// What Kafka lets one request create, so that it stays one batch of the metadata log.
const PARTITIONS_PER_REQUEST_MAX: i64 = 10_000;

/// The longest value of a setting (`ConfigurationControlManager.validateAlterConfig`).
pub(super) const CONFIG_VALUE_LEN_MAX: usize = 32_767;

/// Why a request is refused: Kafka's code, and words for whoever asked.
pub(super) type Refusal = (ResponseError, String);

/// A topic that is made, or would be.
struct Made {
    id: Uuid,
    config: BTreeMap<String, String>,
    partitions: i32,
    replication_factor: i16,
}

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
        let repeated = repeated(request.topics.iter().map(|topic| &topic.name));
        // Names are held against the topics that are there, not against each other.
        let collision = |topic: &CreatableTopic| {
            let mut there = self.image.topics.values();
            there.find(|other| collide(topic.name.as_str(), &other.name)).map(|other| other.name.clone())
        };
        let collisions: Vec<_> = request.topics.iter().map(collision).collect();
        let mut results = Vec::new();
        for (topic, collision) in request.topics.iter().zip(collisions) {
            let made = if too_many {
                let message =
                    format!("a request may ask for {PARTITIONS_PER_REQUEST_MAX} partitions at most");
                Err((ResponseError::PolicyViolation, message))
            } else if repeated.contains(&topic.name) {
                Err((ResponseError::InvalidRequest, "the request names this topic more than once".to_owned()))
            } else {
                self.create_topic(now, (topic, collision), request.validate_only, disk, out)
            };
            let mut result = CreatableTopicResult::default().with_name(topic.name.clone());
            match made {
                Ok(made) if call.version >= 5 => {
                    result.num_partitions = made.partitions;
                    result.replication_factor = made.replication_factor;
                    result.configs = Some(self.effective_config(&made.config));
                    if call.version >= 7 {
                        result.topic_id = made.id;
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
        (topic, collision): (&CreatableTopic, Option<impl fmt::Display>),
        validate_only: bool,
        disk: &mut ControllerDisk,
        out: &mut Vec<Output>,
    ) -> Result<Made, Refusal> {
        let name = topic.name.as_str();
        if name == METADATA_TOPIC {
            return Err((ResponseError::TopicAuthorizationFailed, "Authorization failed.".into()));
        }
        check_name(name).map_err(|message| (ResponseError::InvalidTopicException, message))?;
        if self.image.topic(name).is_some() {
            return Err((ResponseError::TopicAlreadyExists, format!("topic `{name}` already exists")));
        }
        if let Some(other) = collision {
            let message = format!("topic `{name}` collides with existing topic `{other}`");
            return Err((ResponseError::InvalidTopicException, message));
        }
        let config = self.topic_config(topic)?;
        let partitions = if topic.assignments.is_empty() {
            self.placed(topic)?
        } else {
            let fixed = topic.assignments.iter().map(|fixed| (fixed.partition_index, &fixed.broker_ids[..]));
            if topic.num_partitions != -1 || topic.replication_factor != -1 {
                let message = "with an assignment, partitions and replication factor must be -1".to_owned();
                return Err((ResponseError::InvalidRequest, message));
            }
            self.assigned(fixed, None)?
        };
        let made = Made {
            // One that is only asked for is told one as well.
            id: self.new_topic_id(),
            config,
            partitions: partitions.len() as i32,
            replication_factor: partitions[0].replicas.len() as i16,
        };
        if validate_only {
            return Ok(made);
        }
        let (id, config) = (made.id, made.config.clone());
        let mut records = vec![MetadataRecord::Topic { id, name: name.to_owned(), config }];
        let keys = (0..).map(|index| PartitionKey { topic: id, index });
        records.extend(keys.zip(partitions).map(|(key, state)| MetadataRecord::Partition { key, state }));
        self.append(now, disk, records);
        let Made { partitions, replication_factor, .. } = made;
        out.push(Output::Note(format!(
            "topic {name} is created with {partitions} partitions of {replication_factor} replicas"
        )));
        Ok(made)
    }

    fn topic_config(&self, topic: &CreatableTopic) -> Result<BTreeMap<String, String>, Refusal> {
        let mut config = BTreeMap::new();
        for setting in &topic.configs {
            let Some(value) = &setting.value else {
                let message = format!("topic setting `{}` has no value", setting.name.as_str());
                return Err((ResponseError::InvalidConfig, message));
            };
            if value.len() > CONFIG_VALUE_LEN_MAX {
                return Err(value_too_long(setting.name.as_str()));
            }
            config.insert(setting.name.to_string(), value.to_string());
        }
        let parsed = TopicSettings::parse(&config).and_then(|settings| settings.check(&self.settings));
        parsed.map_err(|error| (ResponseError::InvalidConfig, error.of_topic()))?;
        Ok(config)
    }

    /// All settings of a topic that says this for itself, those too that it leaves to others
    /// (`ConfigurationControlManager.computeEffectiveTopicConfigs`).
    fn effective_config(&self, config: &BTreeMap<String, String>) -> Vec<CreatableTopicConfigs> {
        let nothing = BTreeMap::new();
        let layers = Layers {
            settings: &self.settings,
            own: &self.own_settings,
            of_broker: &nothing,
            of_brokers: self.image.broker_config(&ConfigResource::Brokers),
        };
        let parsed = TopicSettings::parse(config).expect("a topic that is made has settings that hold");
        layers.told_of_topic(config, &parsed).into_iter().map(described).collect()
    }

    /// Partitions where the controller likes them.
    fn placed(&mut self, topic: &CreatableTopic) -> Result<Vec<PartitionImage>, Refusal> {
        let factor = match topic.replication_factor {
            -1 => self.settings.default_replication_factor as usize,
            factor if factor > 0 => factor as usize,
            _ => {
                let message = "Replication factor must be larger than 0, or -1 to use the default value.";
                return Err((ResponseError::InvalidReplicationFactor, message.into()));
            }
        };
        let partitions = match topic.num_partitions {
            -1 => self.settings.num_partitions,
            partitions if partitions > 0 => partitions,
            _ => {
                let message = "Number of partitions was set to an invalid non-positive value.";
                return Err((ResponseError::InvalidPartitions, message.into()));
            }
        };
        self.place(partitions as usize, factor)
    }

    fn place(&mut self, partitions: usize, replicas: usize) -> Result<Vec<PartitionImage>, Refusal> {
        let usable = self.image.brokers.iter().filter(|(_, broker)| broker.fenced || broker.is_active());
        let usable = usable.map(|(&node, broker)| {
            let (rack, fenced) = (broker.rack.as_deref(), broker.fenced);
            Usable { node, rack, fenced }
        });
        let placed = place(&usable.collect::<Vec<_>>(), partitions, replicas, &mut self.rng);
        let placed = placed.map_err(|why| {
            let message = format!("Unable to replicate the partition {replicas} time(s): {why}");
            (ResponseError::InvalidReplicationFactor, message)
        })?;
        Ok(placed.into_iter().map(|replicas| self.new_partition(replicas)).collect())
    }

    /// The live replicas are in sync from the start, and there is one.
    fn new_partition(&self, replicas: Vec<NodeId>) -> PartitionImage {
        let in_sync = replicas.iter().copied().filter(|node| self.is_active(*node)).collect();
        PartitionImage::new(replicas, in_sync)
    }

    /// Partitions where the client wants them: numbers with their replicas, which must be `replication_factor` many, or
    /// as many for each.
    fn assigned<'a>(
        &self,
        assignments: impl Iterator<Item = (i32, &'a [BrokerId])>,
        mut replication_factor: Option<usize>,
    ) -> Result<Vec<PartitionImage>, Refusal> {
        let refuse = |message: String| Err((ResponseError::InvalidReplicaAssignment, message));
        let mut partitions = BTreeMap::new();
        for (index, brokers) in assignments {
            let replicas: Vec<NodeId> = brokers.iter().map(|broker| broker.0).collect();
            if let Some(stranger) = replicas.iter().find(|node| !self.image.brokers.contains_key(node)) {
                return refuse(format!(
                    "The manual partition assignment includes broker {stranger}, but no such broker is registered."
                ));
            }
            let count = replicas.len();
            if count == 0 {
                return refuse("The manual partition assignment includes an empty replica list.".into());
            }
            if replicas.iter().collect::<BTreeSet<_>>().len() < count {
                return refuse("The manual partition assignment includes a broker more than once.".into());
            }
            if count != *replication_factor.get_or_insert(count) {
                return refuse(format!(
                    "The manual partition assignment includes a partition with {count} replica(s), but others have another number."
                ));
            }
            if !replicas.iter().any(|node| self.is_active(*node)) {
                return refuse(format!(
                    "All brokers specified in the manual partition assignment for partition {index} are fenced or in controlled shutdown."
                ));
            }
            if partitions.insert(index, self.new_partition(replicas)).is_some() {
                return refuse(format!("Found multiple manual partition assignments for partition {index}"));
            }
        }
        if !partitions.keys().copied().eq(0..partitions.len() as i32) {
            return refuse("partitions should be a consecutive 0-based integer sequence".into());
        }
        Ok(partitions.into_values().collect())
    }

    pub(super) fn create_partitions(
        &mut self,
        now: Timestamp,
        request: &CreatePartitionsRequest,
        disk: &mut ControllerDisk,
        out: &mut Vec<Output>,
    ) -> CreatePartitionsResponse {
        let repeated = repeated(request.topics.iter().map(|topic| &topic.name));
        let mut results = Vec::new();
        for topic in &request.topics {
            let made = if repeated.contains(&topic.name) {
                Err((ResponseError::InvalidRequest, "Duplicate topic name.".to_owned()))
            } else {
                self.add_partitions(now, topic, request.validate_only, disk, out)
            };
            let mut result = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
            if let Err((error, message)) = made {
                result.error_code = error.code();
                result.error_message = Some(StrBytes::from_string(shortened(message)));
            }
            results.push(result);
        }
        CreatePartitionsResponse::default().with_results(results)
    }

    fn add_partitions(
        &mut self,
        now: Timestamp,
        topic: &CreatePartitionsTopic,
        validate_only: bool,
        disk: &mut ControllerDisk,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        let name = topic.name.as_str();
        let unknown = || (ResponseError::UnknownTopicOrPartition, format!("there is no topic `{name}`"));
        let known = self.image.topic(name).ok_or_else(unknown)?;
        let (id, before, factor) = (known.id, known.partitions.len(), known.partitions[0].replicas.len());
        let refuse = |message: String| Err((ResponseError::InvalidPartitions, message));
        let count = usize::try_from(topic.count).unwrap_or(0);
        if count == before {
            return refuse(format!("Topic already has {before} partition(s)."));
        }
        if count < before {
            return refuse(format!(
                "The topic {name} currently has {before} partition(s); {} would not be an increase.",
                topic.count
            ));
        }
        let more = count - before;
        if more > PARTITIONS_PER_REQUEST_MAX as usize {
            let message = format!("a request may ask for {PARTITIONS_PER_REQUEST_MAX} partitions at most");
            return Err((ResponseError::PolicyViolation, message));
        }
        let partitions = match &topic.assignments {
            Some(assignments) if assignments.len() != more => {
                let message = format!(
                    "Attempted to add {more} additional partition(s), but only {} assignment(s) were specified.",
                    assignments.len()
                );
                return Err((ResponseError::InvalidReplicaAssignment, message));
            }
            Some(assignments) => {
                let fixed = (0..).zip(assignments.iter().map(|fixed| &fixed.broker_ids[..]));
                self.assigned(fixed, Some(factor))?
            }
            None => self.place(more, factor)?,
        };
        if !validate_only {
            let keys = (before as i32..).map(|index| PartitionKey { topic: id, index });
            let records = keys.zip(partitions).map(|(key, state)| MetadataRecord::Partition { key, state });
            self.append(now, disk, records.collect());
            out.push(Output::Note(format!("topic {name} has {count} partitions, {more} of them new")));
        }
        Ok(())
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
        let asked: Vec<_> = by_name.chain(states).collect();
        let repeated = repeated(asked.iter());
        let mut results = Vec::new();
        for (name, id) in &asked {
            let refused = match (name, id.is_nil()) {
                (Some(_), false) => Some("You may not specify both topic name and topic id."),
                (None, true) => Some("Neither topic name nor id were specified."),
                _ if repeated.contains(&(name.clone(), *id)) => Some("Duplicate topic name or id."),
                _ => None,
            };
            let Some(why) = refused else {
                results.push(self.delete_topic(now, call, name.clone(), *id, disk, out));
                continue;
            };
            let mut result = DeletableTopicResult::default()
                .with_name(name.clone())
                .with_error_code(ResponseError::InvalidRequest.code());
            if call.version >= 5 {
                result.error_message = Some(StrBytes::from_static_str(why));
            }
            if call.version >= 6 {
                result.topic_id = *id;
            }
            results.push(result);
        }
        DeleteTopicsResponse::default().with_responses(results)
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

/// What a list names more than once.
pub(super) fn repeated<T: Ord>(all: impl Iterator<Item = T>) -> BTreeSet<T> {
    let mut seen = BTreeSet::new();
    let mut repeated = BTreeSet::new();
    for one in all {
        if let Some(again) = seen.replace(one) {
            repeated.insert(again);
        }
    }
    repeated
}

fn described(told: Told) -> CreatableTopicConfigs {
    CreatableTopicConfigs::default()
        .with_name(StrBytes::from_static_str(told.name))
        .with_read_only(told.read_only)
        .with_config_source(told.source() as i8)
        .with_is_sensitive(false)
        .with_value(told.value.map(StrBytes::from_string))
}

pub(super) fn value_too_long(name: &str) -> Refusal {
    let message = format!("the value of `{name}` is longer than {CONFIG_VALUE_LEN_MAX} bytes");
    (ResponseError::InvalidConfig, message)
}

/// What a message may hold of a name that a client made up: old versions say at most 32 KiB.
const MESSAGE_BYTES_MAX: usize = 1_000;

pub(crate) fn shortened(mut message: String) -> String {
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

//! AlterConfigs and IncrementalAlterConfigs: settings that change while the cluster runs
//! (`ConfigurationControlManager`, and the part of `ConfigAdminManager` that asks what a broker's setting may be).
//!
//! The broker that was asked has refused what is wrong with a request as such: see its `alter_configs`. What comes here
//! names each resource once, and each of its settings once.
//!
//! A resource is changed as a whole or not at all. With eligible leader replicas on, the min ISR is set for all brokers
//! or for a topic, never for one broker, and who was eligible under another min ISR is so no more.

use std::collections::{BTreeMap, BTreeSet};

use context::Timestamp;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse as LegacyResult;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::topics::{CONFIG_VALUE_LEN_MAX, Refusal, shortened, value_too_long};
use super::{Controller, ControllerDisk, Output, check_name};
use crate::config::resource::{BROKER, BROKER_LOGGER, TOPIC};
use crate::config::{
    Dynamic, Kind, SETTINGS, Settings, TOPIC_SETTINGS, TopicSettings, UNSEEN_BROKER_SETTINGS,
    UNSEEN_TOPIC_SETTINGS,
};
use crate::metadata::{ConfigResource, MetadataRecord, NodeId};

const MIN_ISR: &str = "min.insync.replicas";

/// What settings are to be altered of.
struct Target {
    resource: ConfigResource,
    /// It is a topic that is not there. Kafka says so last, when its settings are found sound
    /// (`ConfigurationControlManager.validateAlterConfig`).
    absence: Option<Refusal>,
}

fn check_lengths(config: &BTreeMap<String, String>) -> Result<(), Refusal> {
    match config.iter().find(|(_, value)| value.len() > CONFIG_VALUE_LEN_MAX) {
        Some((name, _)) => Err(value_too_long(name)),
        None => Ok(()),
    }
}

/// What is to be done with a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change<'a> {
    Set(&'a str),
    Delete,
    /// To a list.
    Append(&'a str),
    /// From a list.
    Subtract(&'a str),
}

impl<'a> Change<'a> {
    /// By Kafka's number of it (`AlterConfigOp.OpType`). To set a setting to null is to delete it, as in Kafka's record.
    fn read(operation: i8, value: Option<&'a str>) -> Result<Change<'a>, Refusal> {
        match (operation, value) {
            (0, Some(value)) => Ok(Change::Set(value)),
            (0 | 1, _) => Ok(Change::Delete),
            (2, value) => Ok(Change::Append(value.unwrap_or_default())),
            (3, value) => Ok(Change::Subtract(value.unwrap_or_default())),
            (other, _) => Err((ResponseError::InvalidRequest, format!("Unknown operation type {other}."))),
        }
    }
}

impl Controller {
    pub(super) fn incremental_alter_configs(
        &mut self,
        now: Timestamp,
        request: &IncrementalAlterConfigsRequest,
        disk: &mut ControllerDisk,
        out: &mut Vec<Output>,
    ) -> IncrementalAlterConfigsResponse {
        let mut responses = Vec::new();
        for asked in &request.resources {
            let (kind, name) = (asked.resource_type, &asked.resource_name);
            let changes = asked.configs.iter().map(|config| {
                let value = config.value.as_ref().map(|value| value.as_str());
                Ok((config.name.as_str(), Change::read(config.config_operation, value)?))
            });
            let done = changes.collect::<Result<Vec<_>, _>>().and_then(|changes| {
                let target = self.target(kind, name.as_str())?;
                let config = self.altered(&target.resource, &changes)?;
                self.alter_config(now, target, config, request.validate_only, disk, out)
            });
            let mut response = AlterConfigsResourceResponse::default()
                .with_resource_type(kind)
                .with_resource_name(name.clone());
            if let Err((error, message)) = done {
                response.error_code = error.code();
                response.error_message = Some(StrBytes::from_string(shortened(message)));
            }
            responses.push(response);
        }
        IncrementalAlterConfigsResponse::default().with_responses(responses)
    }

    /// The older request: what it names is all that a resource has from then on.
    pub(super) fn alter_configs(
        &mut self,
        now: Timestamp,
        request: &AlterConfigsRequest,
        disk: &mut ControllerDisk,
        out: &mut Vec<Output>,
    ) -> AlterConfigsResponse {
        let mut responses = Vec::new();
        for asked in &request.resources {
            let (kind, name) = (asked.resource_type, &asked.resource_name);
            let values = asked.configs.iter().filter_map(|config| {
                let value = config.value.as_ref()?;
                Some((config.name.to_string(), value.to_string()))
            });
            let config: BTreeMap<_, _> = values.collect();
            let done = self
                .target(kind, name.as_str())
                .and_then(|target| self.alter_config(now, target, config, request.validate_only, disk, out));
            let mut response =
                LegacyResult::default().with_resource_type(kind).with_resource_name(name.clone());
            if let Err((error, message)) = done {
                response.error_code = error.code();
                response.error_message = Some(StrBytes::from_string(shortened(message)));
            }
            responses.push(response);
        }
        AlterConfigsResponse::default().with_responses(responses)
    }

    fn target(&self, kind: i8, name: &str) -> Result<Target, Refusal> {
        let refuse = |message: String| Err((ResponseError::InvalidRequest, message));
        let resource = match kind {
            TOPIC => {
                check_name(name).map_err(|message| (ResponseError::InvalidTopicException, message))?;
                let topic = self.image.topic(name).map(|topic| topic.id);
                let unknown = format!("The topic '{name}' does not exist.");
                let absence = topic.is_none().then_some((ResponseError::UnknownTopicOrPartition, unknown));
                let resource = ConfigResource::Topic(topic.unwrap_or(Uuid::nil()));
                return Ok(Target { resource, absence });
            }
            BROKER if name.is_empty() => ConfigResource::Brokers,
            BROKER => match name.parse::<NodeId>() {
                Ok(node) if self.image.brokers.contains_key(&node) => ConfigResource::Broker(node),
                _ => return refuse(format!("No broker with id {name} found.")),
            },
            BROKER_LOGGER => return refuse("the loggers of a simulated broker have no levels".into()),
            other => return refuse(format!("Unexpected resource type {other}.")),
        };
        Ok(Target { resource, absence: None })
    }

    /// Nothing for a topic that is not there.
    fn config_of(&self, resource: &ConfigResource) -> &BTreeMap<String, String> {
        static NOTHING: BTreeMap<String, String> = BTreeMap::new();
        match resource {
            ConfigResource::Topic(id) => self.image.topics.get(id).map_or(&NOTHING, |topic| &topic.config),
            brokers => self.image.broker_config(brokers),
        }
    }

    /// What a resource's settings are after some changes.
    fn altered(
        &self,
        resource: &ConfigResource,
        changes: &[(&str, Change<'_>)],
    ) -> Result<BTreeMap<String, String>, Refusal> {
        let mut config = self.config_of(resource).clone();
        for &(name, change) in changes {
            let before = || config.get(name).cloned().or_else(|| self.default_of(resource, name));
            let value = match change {
                Change::Delete => {
                    config.remove(name);
                    continue;
                }
                Change::Set(value) => value.to_owned(),
                Change::Append(_) | Change::Subtract(_) if !is_list(resource, name) => {
                    let change = if matches!(change, Change::Append(_)) { "APPEND" } else { "SUBTRACT" };
                    let message = format!("Can't {change} to key {name} because its type is not LIST.");
                    return Err((ResponseError::InvalidConfig, message));
                }
                Change::Append(words) => appended(&before().unwrap_or_default(), words),
                Change::Subtract(words) => subtracted(&before().unwrap_or_default(), words),
            };
            config.insert(name.to_owned(), value);
        }
        Ok(config)
    }

    fn default_of(&self, resource: &ConfigResource, name: &str) -> Option<String> {
        match resource {
            ConfigResource::Topic(_) => TopicSettings::default().shown(&Settings::default(), name),
            _ => Settings::default().shown(name),
        }
    }

    /// Gives a resource these settings and no others.
    fn alter_config(
        &mut self,
        now: Timestamp,
        Target { resource, absence }: Target,
        after: BTreeMap<String, String>,
        validate_only: bool,
        disk: &mut ControllerDisk,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        let before = self.config_of(&resource);
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let changed: Vec<String> =
            names.into_iter().filter(|name| before.get(*name) != after.get(*name)).cloned().collect();
        check_lengths(&after)?;
        self.check_config(&resource, &changed, &after)?;
        if let Some(refusal) = absence {
            return Err(refusal);
        }
        if validate_only || changed.is_empty() {
            return Ok(());
        }
        let mut records = Vec::new();
        for name in changed {
            let value = after.get(&name).cloned();
            let whose = match &resource {
                ConfigResource::Brokers => "all brokers".to_owned(),
                ConfigResource::Broker(node) => format!("broker {node}"),
                ConfigResource::Topic(id) => format!("topic {}", self.image.topics[id].name),
            };
            let what = value.as_deref().map_or("its default".to_owned(), |value| format!("`{value}`"));
            out.push(Output::Note(format!("`{name}` of {whose} is {what}")));
            if name == MIN_ISR && self.elr_enabled() {
                records.push(MetadataRecord::ClearElr {
                    topic: match resource {
                        ConfigResource::Topic(id) => Some(id),
                        _ => None,
                    },
                });
            }
            records.push(MetadataRecord::Config { resource: resource.clone(), name, value });
        }
        self.append(now, disk, records);
        self.settings = self.with_cluster_config();
        self.plan_elections(now);
        Ok(())
    }

    fn check_config(
        &self,
        resource: &ConfigResource,
        changed: &[String],
        after: &BTreeMap<String, String>,
    ) -> Result<(), Refusal> {
        if let ConfigResource::Topic(_) = resource {
            let parsed = TopicSettings::parse(after).and_then(|settings| settings.check(&self.settings));
            return parsed.map_err(|error| (ResponseError::InvalidConfig, error.of_topic()));
        }
        let per_broker = *resource != ConfigResource::Brokers;
        for name in changed {
            // Kafka's code for these is odd (KAFKA-13609), and stays as it is.
            let refuse = |message: String| Err((ResponseError::InvalidRequest, message));
            match dynamic(name) {
                Some(Dynamic::ClusterWide) => {}
                Some(Dynamic::PerBroker) if per_broker => {}
                Some(Dynamic::PerBroker) => {
                    return refuse(format!(
                        "Cannot update these configs at default cluster level, broker id must be specified: {name}"
                    ));
                }
                Some(Dynamic::ReadOnly) => {
                    return refuse(format!("Cannot update these configs dynamically: {name}"));
                }
                // What is not known and goes was never here.
                None if after.contains_key(name) => {
                    return refuse(format!("Unknown broker config name: {name}"));
                }
                None => {}
            }
            if name == MIN_ISR && self.elr_enabled() {
                let message = match (per_broker, after.contains_key(name)) {
                    (true, _) => "Broker-level min.insync.replicas cannot be altered while ELR is enabled.",
                    (false, false) => {
                        "Cluster-level min.insync.replicas cannot be removed while ELR is enabled."
                    }
                    (false, true) => continue,
                };
                return Err((ResponseError::InvalidConfig, message.into()));
            }
        }
        let parsed = self.own_settings.with(after);
        parsed.map(drop).map_err(|error| (ResponseError::InvalidRequest, error.to_string()))
    }
}

/// Whether a broker's setting may change; `None` if there is no such setting.
fn dynamic(name: &str) -> Option<Dynamic> {
    let known = SETTINGS.iter().find(|setting| setting.name == name).map(|setting| setting.dynamic);
    known.or_else(|| {
        UNSEEN_BROKER_SETTINGS.iter().find(|setting| setting.name == name).map(|setting| setting.dynamic)
    })
}

fn words_of(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').filter(|word| !word.is_empty())
}

fn appended(list: &str, asked: &str) -> String {
    let mut words: Vec<&str> = words_of(list).collect();
    for word in asked.split(',') {
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words.join(",")
}

fn subtracted(list: &str, asked: &str) -> String {
    let goes = |word: &&str| asked.split(',').any(|asked| asked == *word);
    words_of(list).filter(|word| !goes(word)).collect::<Vec<_>>().join(",")
}

fn is_list(resource: &ConfigResource, name: &str) -> bool {
    let kind = match resource {
        ConfigResource::Topic(_) => {
            let known =
                TOPIC_SETTINGS.iter().find(|setting| setting.name == name).map(|setting| setting.kind);
            known.or_else(|| {
                UNSEEN_TOPIC_SETTINGS.iter().find(|setting| setting.name == name).map(|setting| setting.kind)
            })
        }
        _ => SETTINGS.iter().find(|setting| setting.name == name).map(|setting| setting.kind),
    };
    matches!(kind, Some(Kind::List(_)))
}

//! AlterConfigs and IncrementalAlterConfigs: settings that change while the cluster runs
//! (`ConfigurationControlManager`, and what `ConfigAdminManager` checks on the broker before).
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

use super::topics::{CONFIG_VALUE_LEN_MAX, Refusal, repeated, shortened, value_too_long};
use super::{Controller, ControllerDisk, Output, check_name};
use crate::config::{
    Dynamic, Kind, SETTINGS, Settings, TOPIC_SETTINGS, TopicSettings, UNSEEN_BROKER_SETTINGS,
    UNSEEN_TOPIC_SETTINGS,
};
use crate::metadata::{ConfigResource, MetadataRecord, NodeId};

const MIN_ISR: &str = "min.insync.replicas";
/// Kafka's numbers of resources (`ConfigResource.Type`).
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;

/// What is to be done with a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Set,
    Delete,
    Append,
    Subtract,
}

/// One change that somebody asked for.
struct Wish<'a> {
    name: &'a str,
    op: Op,
    value: Option<&'a str>,
}

impl Controller {
    pub(super) fn incremental_alter_configs(
        &mut self,
        now: Timestamp,
        request: &IncrementalAlterConfigsRequest,
        disk: &mut ControllerDisk,
        out: &mut Vec<Output>,
    ) -> IncrementalAlterConfigsResponse {
        let twice =
            repeated(request.resources.iter().map(|asked| (asked.resource_type, &asked.resource_name)));
        let mut responses = Vec::new();
        for asked in &request.resources {
            let (kind, name) = (asked.resource_type, &asked.resource_name);
            let wishes = asked.configs.iter().map(|config| {
                let op = match config.config_operation {
                    0 => Op::Set,
                    1 => Op::Delete,
                    2 => Op::Append,
                    3 => Op::Subtract,
                    other => {
                        return Err((
                            ResponseError::InvalidRequest,
                            format!("Unknown operation type {other}."),
                        ));
                    }
                };
                Ok(Wish {
                    name: config.name.as_str(),
                    op,
                    value: config.value.as_ref().map(|value| value.as_str()),
                })
            });
            let done = if twice.contains(&(kind, name)) {
                Err((ResponseError::InvalidRequest, "Each resource must appear at most once.".into()))
            } else {
                wishes.collect::<Result<Vec<_>, _>>().and_then(|wishes| {
                    let resource = self.resource(kind, name.as_str())?;
                    let config = self.altered(&resource, &wishes)?;
                    self.alter_config(now, resource, config, request.validate_only, disk, out)
                })
            };
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
        let twice =
            repeated(request.resources.iter().map(|asked| (asked.resource_type, &asked.resource_name)));
        let mut responses = Vec::new();
        for asked in &request.resources {
            let (kind, name) = (asked.resource_type, &asked.resource_name);
            let values = asked.configs.iter().map(|config| match &config.value {
                Some(value) => Ok((config.name.to_string(), value.to_string())),
                None => Err((
                    ResponseError::InvalidRequest,
                    format!("Null value not supported for : {}", config.name.as_str()),
                )),
            });
            let done = if twice.contains(&(kind, name)) {
                Err((ResponseError::InvalidRequest, "Each resource must appear at most once.".into()))
            } else {
                values.collect::<Result<BTreeMap<_, _>, _>>().and_then(|config| {
                    let resource = self.resource(kind, name.as_str())?;
                    self.alter_config(now, resource, config, request.validate_only, disk, out)
                })
            };
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

    fn resource(&self, kind: i8, name: &str) -> Result<ConfigResource, Refusal> {
        let refuse = |message: String| Err((ResponseError::InvalidRequest, message));
        match kind {
            TOPIC => {
                check_name(name).map_err(|message| (ResponseError::InvalidTopicException, message))?;
                let topic = self.image.topic(name).map(|topic| ConfigResource::Topic(topic.id));
                let unknown = format!("The topic '{name}' does not exist.");
                topic.ok_or((ResponseError::UnknownTopicOrPartition, unknown))
            }
            BROKER if name.is_empty() => Ok(ConfigResource::Brokers),
            BROKER => match name.parse::<NodeId>() {
                Ok(node) if self.image.brokers.contains_key(&node) => Ok(ConfigResource::Broker(node)),
                Ok(node) => refuse(format!("No broker with id {node} found.")),
                Err(_) => refuse(format!("Node id must be an integer, but it is: {name}")),
            },
            BROKER_LOGGER => refuse("the loggers of a simulated broker have no levels".into()),
            other => refuse(format!("Unexpected resource type {other}.")),
        }
    }

    fn config_of(&self, resource: &ConfigResource) -> &BTreeMap<String, String> {
        match resource {
            ConfigResource::Topic(id) => &self.image.topics[id].config,
            brokers => self.image.broker_config(brokers),
        }
    }

    /// What a resource's settings are after some wishes.
    fn altered(
        &self,
        resource: &ConfigResource,
        wishes: &[Wish<'_>],
    ) -> Result<BTreeMap<String, String>, Refusal> {
        let mut config = self.config_of(resource).clone();
        let mut seen = BTreeSet::new();
        for wish in wishes {
            if !seen.insert(wish.name) {
                return Err((ResponseError::InvalidRequest, "Error due to duplicate config keys".into()));
            }
            let Some(value) = wish.value else {
                if wish.op != Op::Delete {
                    let message = format!("Null value not supported for : {}", wish.name);
                    return Err((ResponseError::InvalidRequest, message));
                }
                config.remove(wish.name);
                continue;
            };
            match wish.op {
                Op::Delete => _ = config.remove(wish.name),
                Op::Set => _ = config.insert(wish.name.to_owned(), value.to_owned()),
                Op::Append | Op::Subtract => {
                    if !is_list(resource, wish.name) {
                        let op = if wish.op == Op::Append { "APPEND" } else { "SUBTRACT" };
                        let message =
                            format!("Can't {op} to key {} because its type is not LIST.", wish.name);
                        return Err((ResponseError::InvalidConfig, message));
                    }
                    let before =
                        config.get(wish.name).cloned().or_else(|| self.default_of(resource, wish.name));
                    let before = before.unwrap_or_default();
                    let mut words: Vec<&str> = before.split(',').filter(|word| !word.is_empty()).collect();
                    let asked: Vec<&str> = value.split(',').collect();
                    if wish.op == Op::Append {
                        asked.iter().for_each(|word| {
                            if !words.contains(word) {
                                words.push(word);
                            }
                        });
                    } else {
                        words.retain(|word| !asked.contains(word));
                    }
                    config.insert(wish.name.to_owned(), words.join(","));
                }
            }
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
        resource: ConfigResource,
        after: BTreeMap<String, String>,
        validate_only: bool,
        disk: &mut ControllerDisk,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        let before = self.config_of(&resource);
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let changed: Vec<String> =
            names.into_iter().filter(|name| before.get(*name) != after.get(*name)).cloned().collect();
        if let Some((name, _)) = after.iter().find(|(_, value)| value.len() > CONFIG_VALUE_LEN_MAX) {
            return Err(value_too_long(name));
        }
        self.check_config(&resource, &changed, &after)?;
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

//! Settings of topics and brokers.

use std::collections::BTreeMap;

use broker::{ConfigChange, ConfigEntry, ConfigResource, ConfigSource, Error};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};
use kafka_protocol::protocol::StrBytes;

use super::{WireAdmin, with_reason};
use crate::error;

/// Kafka's `ConfigResource.Type`.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

impl WireAdmin {
    /// Asks once. A broker's settings are known to itself alone, so each is asked for its own.
    pub(super) async fn describe_configs(
        &self,
        resources: &[ConfigResource],
    ) -> Result<Vec<(ConfigResource, BTreeMap<String, ConfigEntry>)>, Error> {
        let mut described = Vec::new();
        for resource in resources {
            let (kind, name) = on_the_wire(resource);
            let build = move |_| {
                let asked = DescribeConfigsResource::default()
                    .with_resource_type(kind)
                    .with_resource_name(StrBytes::from_string(name.clone()))
                    .with_configuration_keys(None);
                DescribeConfigsRequest::default().with_resources(vec![asked])
            };
            let answer = match resource {
                ConfigResource::Broker(node) => {
                    self.describe_cluster_once().await?;
                    self.ask_node(*node, build).await?
                }
                ConfigResource::Topic(_) | ConfigResource::ClusterDefaults => {
                    self.cluster.ask_any(build).await?.body
                }
            };
            let mut settings = BTreeMap::new();
            for result in answer.results {
                if result.error_code != 0 {
                    let error = error::answered(result.error_code, format!("settings of {resource:?}"));
                    return Err(with_reason(error, result.error_message));
                }
                settings.extend(result.configs.into_iter().map(|config| {
                    let entry = ConfigEntry {
                        value: config.value.map(|value| value.to_string()),
                        source: source(config.config_source),
                        read_only: config.read_only,
                    };
                    (config.name.to_string(), entry)
                }));
            }
            described.push((resource.clone(), settings));
        }
        Ok(described)
    }

    /// Asks once; a change twice is a change.
    pub(super) async fn alter_configs(
        &self,
        resource: &ConfigResource,
        changes: &[(String, ConfigChange)],
    ) -> Result<(), Error> {
        let (kind, name) = on_the_wire(resource);
        let configs: Vec<_> = changes
            .iter()
            .map(|(setting, change)| {
                let (operation, value) = match change {
                    ConfigChange::Set(value) => (0, Some(value)),
                    ConfigChange::Delete => (1, None),
                    ConfigChange::Append(value) => (2, Some(value)),
                    ConfigChange::Subtract(value) => (3, Some(value)),
                };
                AlterableConfig::default()
                    .with_name(StrBytes::from_string(setting.clone()))
                    .with_config_operation(operation)
                    .with_value(value.cloned().map(StrBytes::from_string))
            })
            .collect();
        let build = move |_| {
            let asked = AlterConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(StrBytes::from_string(name.clone()))
                .with_configs(configs.clone());
            IncrementalAlterConfigsRequest::default().with_resources(vec![asked])
        };
        let answer = match resource {
            ConfigResource::Broker(node) => {
                self.describe_cluster_once().await?;
                self.ask_node(*node, build).await?
            }
            ConfigResource::Topic(_) | ConfigResource::ClusterDefaults => {
                self.ask_controller(build).await?.body
            }
        };
        match answer.responses.into_iter().find(|result| result.error_code != 0) {
            None => Ok(()),
            Some(result) => {
                let error = error::answered(result.error_code, format!("settings of {resource:?}"));
                Err(with_reason(error, result.error_message))
            }
        }
    }
}

fn on_the_wire(resource: &ConfigResource) -> (i8, String) {
    match resource {
        ConfigResource::Topic(name) => (TOPIC, name.clone()),
        ConfigResource::Broker(node) => (BROKER, node.to_string()),
        ConfigResource::ClusterDefaults => (BROKER, String::new()),
    }
}

fn source(code: i8) -> ConfigSource {
    match code {
        1 => ConfigSource::Topic,
        2 => ConfigSource::DynamicBroker,
        3 => ConfigSource::DynamicDefaultBroker,
        4 => ConfigSource::StaticBroker,
        5 => ConfigSource::Default,
        other => ConfigSource::Other(other),
    }
}

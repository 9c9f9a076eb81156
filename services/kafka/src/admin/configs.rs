//! Settings of topics and brokers. librdkafka knows no defaults of all brokers: the name of a resource must not be empty.

use std::collections::BTreeMap;

use broker::{ConfigChange, ConfigEntry, ConfigResource, ConfigSource, Error, ErrorClass, ErrorCode};
use rdkafka::admin::{ConfigEntry as RdConfigEntry, ConfigSource as RdConfigSource, ResourceSpecifier};

use super::RdKafkaAdmin;
use crate::error::{from_code, from_kafka};
use crate::native::admin::{self as native, Addressee};

impl RdKafkaAdmin {
    pub(super) async fn describe_settings(
        &self,
        resources: &[ConfigResource],
    ) -> Result<Vec<(ConfigResource, BTreeMap<String, ConfigEntry>)>, Error> {
        let mut asked = Vec::new();
        for resource in resources {
            asked.push(match resource {
                ConfigResource::Topic(name) => ResourceSpecifier::Topic(name),
                ConfigResource::Broker(node) => ResourceSpecifier::Broker(*node),
                ConfigResource::ClusterDefaults => return Err(no_defaults()),
            });
        }
        // librdkafka takes one broker a call, and what else is asked goes there as well.
        let of_broker = resources.iter().find(|resource| matches!(resource, ConfigResource::Broker(_)));
        let options = self.options();
        let found = self.call(of_broker.map_or(Addressee::Controller, addressee), async {
            let found = self.changes().describe_configs(&asked, &options).await;
            found.map_err(|error| from_kafka(&error, "the settings"))
        });
        let found = found.await?;
        let mut described = Vec::new();
        for (resource, result) in resources.iter().zip(found) {
            let found =
                result.map_err(|code| from_code(code, format_args!("the settings of {resource:?}")))?;
            let entries = found.entries.into_iter().map(|entry| (entry.name.clone(), setting(entry)));
            described.push((resource.clone(), entries.collect()));
        }
        Ok(described)
    }

    pub(super) async fn change_settings(
        &self,
        resource: &ConfigResource,
        changes: &[(String, ConfigChange)],
    ) -> Result<(), Error> {
        let to = addressee(resource);
        let (resource, changes, patience) = (resource.clone(), changes.to_vec(), self.patience);
        let change = self.change(move |client| {
            let resource = match &resource {
                ConfigResource::Topic(name) => native::Resource::Topic(name),
                ConfigResource::Broker(node) => native::Resource::Broker(*node),
                ConfigResource::ClusterDefaults => return Err(no_defaults()),
            };
            native::alter_configs(client, resource, &changes, patience)
        });
        self.call(to, change).await
    }
}

/// Settings of topics are the controller's, those of a broker its own.
fn addressee(of: &ConfigResource) -> Addressee {
    match of {
        ConfigResource::Broker(node) => Addressee::Broker(*node),
        ConfigResource::Topic(_) | ConfigResource::ClusterDefaults => Addressee::Controller,
    }
}

fn no_defaults() -> Error {
    let text = "librdkafka has settings of single brokers and of topics, but not the defaults of all brokers";
    Error::new(ErrorCode::Unsupported, ErrorClass::Failed, text)
}

fn setting(entry: RdConfigEntry) -> ConfigEntry {
    let source = match entry.source {
        RdConfigSource::DynamicTopic => ConfigSource::Topic,
        RdConfigSource::DynamicBroker => ConfigSource::DynamicBroker,
        RdConfigSource::DynamicDefaultBroker => ConfigSource::DynamicDefaultBroker,
        RdConfigSource::StaticBroker => ConfigSource::StaticBroker,
        RdConfigSource::Default => ConfigSource::Default,
        // Kafka's number for an unknown source.
        RdConfigSource::Unknown => ConfigSource::Other(0),
    };
    ConfigEntry { value: entry.value, source, read_only: entry.is_read_only }
}

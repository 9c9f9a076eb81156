//! DescribeConfigs (32), versions 1 to 4: the settings of topics and of this broker, with where each comes from
//! (`ConfigHelper`). AlterConfigs (33) and IncrementalAlterConfigs (44) are passed on to the controller.
//!
//! A topic's setting comes from the topic, else from the broker's setting of the other name; a broker's from itself, from
//! what was set for all brokers, from its own configuration, or is Kafka's default. A broker tells of its own settings
//! only; under the empty name it tells what was set for all. It has no loggers to tell of.
//!
//! Version notes: types and documentation from 3 on.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use super::{Broker, Turn, text};
use crate::ConnectionId;
use crate::config::{
    Dynamic, Kind, SETTINGS, Settings, TOPIC_SETTINGS, UNSEEN_BROKER_SETTINGS, UNSEEN_TOPIC_SETTINGS,
};
use crate::controller::check_name;
use crate::metadata::{ConfigResource, TopicImage};
use crate::wire::Call;

/// Kafka's numbers of resources (`ConfigResource.Type`).
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;

/// Where a value comes from, by Kafka's numbers (`DescribeConfigsResponse.ConfigSource`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Topic = 1,
    Broker = 2,
    Brokers = 3,
    Static = 4,
    Default = 5,
}

/// A value of a setting under some name.
#[derive(Clone, Debug)]
struct Value {
    name: &'static str,
    value: Option<String>,
    source: Source,
}

/// A setting as it is told of.
#[derive(Clone, Debug)]
struct Told {
    name: &'static str,
    kind: Kind,
    read_only: bool,
    doc: &'static str,
    /// What holds.
    value: Option<String>,
    /// Where it could come from; it comes from the first.
    synonyms: Vec<Value>,
}

impl Broker {
    pub(super) fn describe_configs(
        &self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        request: &DescribeConfigsRequest,
    ) {
        let mut results = Vec::new();
        for asked in &request.resources {
            let mut result = DescribeConfigsResult::default()
                .with_resource_type(asked.resource_type)
                .with_resource_name(asked.resource_name.clone());
            match self.told(asked) {
                Ok(told) => result.configs = told.into_iter().map(|told| told.entry(call, request)).collect(),
                Err((error, message)) => {
                    result.error_code = error.code();
                    result.error_message = Some(text(&message));
                }
            }
            results.push(result);
        }
        turn.respond(connection, call, DescribeConfigsResponse::default().with_results(results));
    }

    fn told(&self, asked: &DescribeConfigsResource) -> Result<Vec<Told>, (ResponseError, String)> {
        let name = asked.resource_name.as_str();
        let refuse = |message: String| Err((ResponseError::InvalidRequest, message));
        let mut told = match asked.resource_type {
            TOPIC => {
                check_name(name).map_err(|message| (ResponseError::InvalidTopicException, message))?;
                let topic = self.image.topic(name);
                self.told_of_topic(topic.ok_or((ResponseError::UnknownTopicOrPartition, String::new()))?)
            }
            BROKER | BROKER_LOGGER if !name.is_empty() || asked.resource_type == BROKER_LOGGER => {
                match name.parse::<i32>() {
                    Ok(node) if node == self.node && asked.resource_type == BROKER => self.told_of_broker(),
                    Ok(node) if node == self.node => Vec::new(),
                    Ok(_) => {
                        return refuse(format!(
                            "Unexpected broker id, expected {} but received {name}",
                            self.node
                        ));
                    }
                    Err(_) => return refuse(format!("Node id must be an integer, but it is: {name}")),
                }
            }
            BROKER => {
                let mut told = self.told_of_broker();
                told.iter_mut()
                    .for_each(|told| told.synonyms.retain(|value| value.source == Source::Brokers));
                told.retain(|told| !told.synonyms.is_empty());
                told.iter_mut().for_each(|told| told.value.clone_from(&told.synonyms[0].value));
                told
            }
            other => return refuse(format!("Unsupported resource type: {other}")),
        };
        if let Some(keys) = asked.configuration_keys.as_ref().filter(|keys| !keys.is_empty()) {
            told.retain(|told| keys.iter().any(|key| key.as_str() == told.name));
        }
        Ok(told)
    }

    fn told_of_topic(&self, topic: &TopicImage) -> Vec<Told> {
        let own = |name: &'static str, shown: Option<String>| {
            topic.config.contains_key(name).then_some(Value { name, value: shown, source: Source::Topic })
        };
        let seen = TOPIC_SETTINGS.iter().map(|setting| {
            let name = setting.name;
            // As it was written: the order of words in a list stays.
            let value =
                topic.config.get(name).cloned().or_else(|| topic.settings.shown(&self.settings, name));
            let mut synonyms: Vec<Value> = own(name, value.clone()).into_iter().collect();
            for broker in broker_names(setting.broker) {
                synonyms.extend(self.values_of(broker));
            }
            Told { name, kind: setting.kind, read_only: false, doc: setting.doc, value, synonyms }
        });
        let unseen = UNSEEN_TOPIC_SETTINGS.iter().map(|setting| {
            let name = setting.name;
            let mut synonyms: Vec<Value> = own(name, topic.config.get(name).cloned()).into_iter().collect();
            synonyms.extend(setting.broker.into_iter().flat_map(|broker| self.values_of(broker)));
            let value =
                synonyms.first().map_or(setting.default.map(str::to_owned), |first| first.value.clone());
            Told { name, kind: setting.kind, read_only: false, doc: setting.doc, value, synonyms }
        });
        let mut told: Vec<Told> = seen.chain(unseen).collect();
        told.sort_by_key(|told| told.name);
        told
    }

    fn told_of_broker(&self) -> Vec<Told> {
        let told = |name: &'static str, kind, dynamic, doc| Told {
            name,
            kind,
            read_only: dynamic == Dynamic::ReadOnly,
            doc,
            value: self.settings.shown(name),
            synonyms: broker_names(name).into_iter().flat_map(|name| self.values_of(name)).collect(),
        };
        let seen =
            SETTINGS.iter().map(|setting| told(setting.name, setting.kind, setting.dynamic, setting.doc));
        let unseen = UNSEEN_BROKER_SETTINGS
            .iter()
            .map(|setting| told(setting.name, setting.kind, setting.dynamic, setting.doc));
        let mut all: Vec<Told> = seen.chain(unseen).chain(self.told_of_place()).collect();
        all.sort_by_key(|told| told.name);
        all
    }

    /// What a broker says of where it is.
    fn told_of_place(&self) -> Vec<Told> {
        let listener = format!("PLAINTEXT://{}:{}", self.endpoint.host, self.endpoint.port);
        let node = self.node.to_string();
        [
            ("advertised.listeners", listener.clone(), "What clients are told to connect to."),
            ("broker.id", node.clone(), "The number of this broker."),
            ("listeners", listener, "Where it listens."),
            ("node.id", node, "The number of this node."),
            ("process.roles", "broker".to_owned(), "What this node is."),
        ]
        .into_iter()
        .map(|(name, value, doc)| Told {
            name,
            kind: if name.ends_with(".id") { Kind::Int(0, i64::from(i32::MAX)) } else { Kind::Choice(&[]) },
            read_only: true,
            doc,
            value: Some(value.clone()),
            synonyms: vec![Value { name, value: Some(value), source: Source::Static }],
        })
        .collect()
    }

    /// Settings of this broker may have changed.
    pub(super) fn settings_changed(&mut self, resource: &ConfigResource) {
        let (all, own) = (ConfigResource::Brokers, ConfigResource::Broker(self.node));
        if *resource == all || *resource == own {
            let settings = self.own_settings.with(self.image.broker_config(&all));
            let settings = settings.and_then(|settings| settings.with(self.image.broker_config(&own)));
            self.settings = settings.expect("the controller checks settings");
        }
    }

    /// The values of a broker's setting, the one that holds first.
    fn values_of(&self, name: &'static str) -> Vec<Value> {
        let mut values = Vec::new();
        for (resource, source) in
            [(ConfigResource::Broker(self.node), Source::Broker), (ConfigResource::Brokers, Source::Brokers)]
        {
            if let Some(value) = self.image.broker_config(&resource).get(name) {
                values.push(Value { name, value: Some(value.clone()), source });
            }
        }
        if self.own_settings.is_given(name) {
            values.push(Value { name, value: self.own_settings.shown(name), source: Source::Static });
        }
        let known = SETTINGS.iter().any(|setting| setting.name == name)
            || UNSEEN_BROKER_SETTINGS.iter().any(|setting| setting.name == name);
        if let Some(value) = known.then(|| Settings::default().shown(name)).flatten() {
            values.push(Value { name, value: Some(value), source: Source::Default });
        }
        values
    }
}

/// The names under which a broker's setting may be given, the finest unit first (`DynamicBrokerConfig.brokerConfigSynonyms`).
fn broker_names(name: &'static str) -> Vec<&'static str> {
    match name {
        "log.retention.ms" => vec!["log.retention.ms", "log.retention.minutes", "log.retention.hours"],
        "log.retention.minutes" => vec!["log.retention.minutes", "log.retention.hours"],
        "log.roll.ms" => vec!["log.roll.ms", "log.roll.hours"],
        name => vec![name],
    }
}

impl Told {
    fn entry(self, call: &Call, request: &DescribeConfigsRequest) -> DescribeConfigsResourceResult {
        let source = self.synonyms.first().map_or(Source::Default, |first| first.source);
        let mut entry = DescribeConfigsResourceResult::default()
            .with_name(text(self.name))
            .with_value(self.value.as_deref().map(text))
            .with_read_only(self.read_only)
            .with_config_source(source as i8)
            .with_is_sensitive(false);
        if request.include_synonyms {
            let told = |value: Value| {
                DescribeConfigsSynonym::default()
                    .with_name(text(value.name))
                    .with_value(value.value.as_deref().map(text))
                    .with_source(value.source as i8)
            };
            entry.synonyms = self.synonyms.into_iter().map(told).collect();
        }
        if call.version >= 3 {
            entry.config_type = self.kind.code();
            if request.include_documentation {
                entry.documentation = Some(text(self.doc.trim()));
            }
        }
        entry
    }
}

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
use crate::config::resource::{BROKER, BROKER_LOGGER, TOPIC};
use crate::config::told::{Layers, Source, Told, Value};
use crate::config::{Dynamic, Kind, SETTINGS, UNSEEN_BROKER_SETTINGS};
use crate::controller::check_name;
use crate::metadata::ConfigResource;
use crate::wire::Call;

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
                Ok(told) => {
                    result.configs = told.into_iter().map(|told| entry(told, call, request)).collect();
                }
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
                let topic = topic.ok_or((ResponseError::UnknownTopicOrPartition, String::new()))?;
                let told = self.layers().told_of_topic(&topic.config, &topic.settings);
                told.into_iter().map(Told::with_values_as_read).collect()
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

    fn layers(&self) -> Layers<'_> {
        Layers {
            settings: &self.settings,
            own: &self.own_settings,
            of_broker: self.image.broker_config(&ConfigResource::Broker(self.node)),
            of_brokers: self.image.broker_config(&ConfigResource::Brokers),
        }
    }

    fn told_of_broker(&self) -> Vec<Told> {
        let layers = self.layers();
        let told = |name: &'static str, kind, dynamic, doc| Told {
            name,
            kind,
            read_only: dynamic == Dynamic::ReadOnly,
            doc,
            value: self.settings.shown(name),
            synonyms: layers.synonyms_of(name),
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
}

fn entry(told: Told, call: &Call, request: &DescribeConfigsRequest) -> DescribeConfigsResourceResult {
    let mut entry = DescribeConfigsResourceResult::default()
        .with_name(text(told.name))
        .with_value(told.value.as_deref().map(text))
        .with_read_only(told.read_only)
        .with_config_source(told.source() as i8)
        .with_is_sensitive(false);
    if request.include_synonyms {
        let synonym = |value: Value| {
            DescribeConfigsSynonym::default()
                .with_name(text(value.name))
                .with_value(value.value.as_deref().map(text))
                .with_source(value.source as i8)
        };
        entry.synonyms = told.synonyms.into_iter().map(synonym).collect();
    }
    if call.version >= 3 {
        entry.config_type = told.kind.code();
        if request.include_documentation {
            entry.documentation = Some(text(told.doc.trim()));
        }
    }
    entry
}

//! What is told of settings: the value that holds, where it comes from, and where else it could come from.
//!
//! A topic's setting comes from the topic, else from the broker's setting of the other name; a broker's from itself, from
//! what was set for all brokers, from its own configuration, or is Kafka's default (`ConfigHelper` on brokers,
//! `KafkaConfigSchema.resolveEffectiveTopicConfigs` on the controller). None that is known here is a secret.

use std::collections::BTreeMap;

use super::{
    Kind, SETTINGS, Settings, TOPIC_SETTINGS, TopicSettings, UNSEEN_BROKER_SETTINGS, UNSEEN_TOPIC_SETTINGS,
};

/// Where a value comes from, by Kafka's numbers (`DescribeConfigsResponse.ConfigSource`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Topic = 1,
    Broker = 2,
    Brokers = 3,
    Static = 4,
    Default = 5,
}

/// A value of a setting under some name.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub(crate) name: &'static str,
    pub(crate) value: Option<String>,
    pub(crate) source: Source,
}

/// A setting as it is told of.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) read_only: bool,
    pub(crate) doc: &'static str,
    /// What holds.
    pub(crate) value: Option<String>,
    /// Where it could come from; it comes from the first.
    pub(crate) synonyms: Vec<Value>,
}

impl Told {
    /// With its value, and the topic's own word for it, as they are read. So DescribeConfigs tells them
    /// (`ConfigHelper.createTopicConfigEntry`), and CreateTopics as they were written (`KafkaConfigSchema.toConfigEntry`).
    pub(crate) fn with_values_as_read(mut self) -> Told {
        let own = self.synonyms.iter_mut().filter(|synonym| synonym.source == Source::Topic);
        for value in own.map(|synonym| &mut synonym.value).chain([&mut self.value]) {
            *value = value.as_deref().map(|value| self.kind.as_read(value));
        }
        self
    }

    /// Where its value comes from.
    pub(crate) fn source(&self) -> Source {
        self.synonyms.first().map_or(Source::Default, |first| first.source)
    }
}

/// Where a node's settings come from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layers<'a> {
    /// All together.
    pub(crate) settings: &'a Settings,
    /// As the node was configured.
    pub(crate) own: &'a Settings,
    /// What was set for this node while it ran.
    pub(crate) of_broker: &'a BTreeMap<String, String>,
    /// What was set for all brokers while they ran.
    pub(crate) of_brokers: &'a BTreeMap<String, String>,
}

impl Layers<'_> {
    /// The settings of a topic, by name. `config` is what it says for itself, as written, and `parsed` as read.
    pub(crate) fn told_of_topic(
        &self,
        config: &BTreeMap<String, String>,
        parsed: &TopicSettings,
    ) -> Vec<Told> {
        let own = |name: &'static str| {
            let value = config.get(name)?;
            Some(Value { name, value: Some(value.clone()), source: Source::Topic })
        };
        let seen = TOPIC_SETTINGS.iter().map(|setting| {
            let name = setting.name;
            // As it was written: the order of words in a list stays.
            let value = config.get(name).cloned().or_else(|| parsed.shown(self.settings, name));
            let synonyms = own(name).into_iter().chain(self.synonyms_of(setting.broker)).collect();
            Told { name, kind: setting.kind, read_only: false, doc: setting.doc, value, synonyms }
        });
        let unseen = UNSEEN_TOPIC_SETTINGS.iter().map(|setting| {
            let name = setting.name;
            let brokers = setting.broker.into_iter().flat_map(|broker| self.values_of(broker));
            let synonyms: Vec<Value> = own(name).into_iter().chain(brokers).collect();
            let value =
                synonyms.first().map_or(setting.default.map(str::to_owned), |first| first.value.clone());
            Told { name, kind: setting.kind, read_only: false, doc: setting.doc, value, synonyms }
        });
        let mut told: Vec<Told> = seen.chain(unseen).collect();
        told.sort_by_key(|told| told.name);
        told
    }

    /// The values of a broker's setting under all names that it may be given by, the one that holds first: the finest unit
    /// comes before the others (`DynamicBrokerConfig.brokerConfigSynonyms`).
    pub(crate) fn synonyms_of(&self, name: &'static str) -> Vec<Value> {
        let alone = [name];
        let names: &[&'static str] = match name {
            "log.retention.ms" => &["log.retention.ms", "log.retention.minutes", "log.retention.hours"],
            "log.retention.minutes" => &["log.retention.minutes", "log.retention.hours"],
            "log.roll.ms" => &["log.roll.ms", "log.roll.hours"],
            _ => &alone,
        };
        names.iter().flat_map(|name| self.values_of(name)).collect()
    }

    fn values_of(&self, name: &'static str) -> Vec<Value> {
        let mut values = Vec::new();
        for (config, source) in [(self.of_broker, Source::Broker), (self.of_brokers, Source::Brokers)] {
            if let Some(value) = config.get(name) {
                values.push(Value { name, value: Some(value.clone()), source });
            }
        }
        if self.own.is_given(name) {
            values.push(Value { name, value: self.own.shown(name), source: Source::Static });
        }
        if let Some(default) = default_of(name) {
            values.push(Value { name, value: Some(default.to_owned()), source: Source::Default });
        }
        values
    }
}

fn default_of(name: &str) -> Option<&'static str> {
    let seen = SETTINGS.iter().find(|setting| setting.name == name).map(|setting| setting.default);
    seen.or_else(|| super::unseen::find(UNSEEN_BROKER_SETTINGS, name).map(|setting| setting.default))
        .flatten()
}

//! Topics and offsets from outside a group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use broker::{
    Admin, Error, ErrorCode, NewTopic, Offset, OffsetAndMetadata, OffsetSpec, PartitionDescription,
    TopicDescription, TopicPartition,
};
use context::Context;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest};
use kafka_protocol::protocol::{Request, StrBytes};

use crate::attempts::Attempts;
use crate::cluster::{Cluster, Peer, Topic, topic_error, topic_name};
use crate::connection::{Answered, Failed};
use crate::coordinator::Coordinator;
use crate::error::{class_of, code, timed_out};
use crate::offsets::{self, group_offsets, list_offsets};
use crate::properties::Settings;

/// An admin client over the wire. A call gives up after `socket.timeout.ms`.
pub(crate) struct WireAdmin {
    cluster: Arc<Cluster>,
}

impl WireAdmin {
    pub(crate) fn new(context: Context, settings: Settings, label: String) -> WireAdmin {
        WireAdmin { cluster: Arc::new(Cluster::new(context, settings, label, false)) }
    }

    fn attempts(&self, what: &'static str) -> Attempts {
        Attempts::new(&self.cluster, what, self.cluster.settings.socket_timeout)
    }

    /// Asks the controller, through the broker that takes requests for it.
    async fn ask_controller<R>(
        &self,
        build: impl Fn(i16) -> R + Clone + Send + 'static,
    ) -> Result<Answered<R::Response>, Failed>
    where
        R: Request + 'static,
        R::Response: Send,
    {
        let not_sent = |error| Failed { error, sent: false };
        // Who the controller is changes, and asking costs little.
        self.cluster.describe(Some(Vec::new())).await.map_err(not_sent)?;
        let node = self.cluster.controller().ok_or_else(|| not_sent(timed_out("no controller is known")))?;
        let connection = self.cluster.connection(Peer::Node(node)).map_err(not_sent)?;
        connection.request(self.cluster.settings.socket_timeout, i16::MAX, build).await
    }

    /// Waits until every topic is there for all who may be asked: each partition has a leader, and it answers.
    async fn wait_for_leaders(&self, topics: &[Arc<str>]) -> Result<(), Error> {
        let mut attempts = self.attempts("wait for leaders");
        loop {
            let described = self.cluster.describe(Some(topics.to_vec())).await;
            let error = match described {
                Ok(described) if described.iter().all(|(_, topic)| has_leaders(topic)) => {
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

    async fn list_once(
        &self,
        asked: &[(TopicPartition, OffsetSpec)],
    ) -> Result<Vec<(TopicPartition, Offset)>, Error> {
        let known = self.cluster.version();
        let topics = asked.iter().map(|(at, _)| at.topic.clone()).collect();
        self.cluster.refresh(&topics, known).await?;
        list_offsets(&self.cluster, asked).await
    }
}

fn has_leaders(topic: &Topic) -> bool {
    topic.error == 0
        && !topic.partitions.is_empty()
        && topic.partitions.values().all(|partition| partition.leader.is_some())
}

fn partitions(topics: &[(Arc<str>, Topic)]) -> impl Iterator<Item = TopicPartition> {
    topics.iter().flat_map(|(name, topic)| {
        topic.partitions.keys().map(|number| TopicPartition::new(name.clone(), *number))
    })
}

#[async_trait]
impl Admin for WireAdmin {
    async fn create_topics(&self, topics: &[NewTopic]) -> Result<(), Error> {
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
                let retriable = class_of(result.error_code) == broker::ErrorClass::Retriable;
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
        self.wait_for_leaders(&names).await
    }

    async fn delete_topics(&self, names: &[&str]) -> Result<(), Error> {
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

    async fn describe_topics(&self, names: &[&str]) -> Result<Vec<TopicDescription>, Error> {
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
            return Ok(topics);
        }
    }

    async fn list_offsets(
        &self,
        partitions: &[(TopicPartition, OffsetSpec)],
    ) -> Result<Vec<(TopicPartition, Offset)>, Error> {
        let mut attempts = self.attempts("list offsets");
        loop {
            match self.list_once(partitions).await {
                Ok(offsets) => return Ok(offsets),
                Err(error) => attempts.after(error).await?,
            }
        }
    }

    async fn group_offsets(&self, group: &str) -> Result<Vec<(TopicPartition, OffsetAndMetadata)>, Error> {
        let coordinator = Coordinator::new(self.cluster.clone(), group.to_owned());
        match group_offsets(&coordinator, None, self.cluster.settings.socket_timeout).await {
            // A group that was never there has committed nothing.
            Err(error) if error.code == ErrorCode::Broker(offsets::GROUP_ID_NOT_FOUND) => Ok(Vec::new()),
            result => result,
        }
    }
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
        replicas: partition.replicas,
        in_sync: partition.in_sync,
    });
    TopicDescription { name, partitions: partitions.collect() }
}

fn timeout_ms(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)
}

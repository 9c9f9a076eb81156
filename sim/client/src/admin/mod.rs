//! A cluster looked after from outside a group.
//!
//! A file for each subject. Here is what they share: who is asked, and how often. A call gives up after
//! `socket.timeout.ms`.

mod configs;
mod groups;
mod topics;
mod transactions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use broker::{
    Admin, BrokerDescription, ClusterDescription, ConfigChange, ConfigEntry, ConfigResource, ElectionType,
    Error, ErrorCode, GroupDescription, GroupListing, NewTopic, Offset, OffsetAndMetadata, OffsetSpec,
    ProducerDescription, TopicDescription, TopicPartition, TransactionDescription, TransactionListing,
};
use context::Context;
use kafka_protocol::messages::DescribeClusterRequest;
use kafka_protocol::protocol::{Request, StrBytes};

use crate::attempts::Attempts;
use crate::cluster::{Cluster, NodeId, Peer};
use crate::connection::{Answered, Failed};
use crate::coordinator::Coordinator;
use crate::error::{self, code, timed_out};
use crate::offsets::{self, group_offsets, list_offsets};
use crate::properties::Settings;

/// An admin client over the wire.
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

    /// Asks one broker.
    async fn ask_node<R>(
        &self,
        node: NodeId,
        build: impl FnOnce(i16) -> R + Send + 'static,
    ) -> Result<R::Response, Error>
    where
        R: Request + 'static,
        R::Response: Send,
    {
        let connection = self.cluster.connection(Peer::Node(node))?;
        Ok(connection.request(self.cluster.settings.socket_timeout, i16::MAX, build).await?.body)
    }

    /// Asks every broker that is there, one after the other.
    ///
    /// # Errors
    /// The first that does not answer.
    async fn ask_all<R>(
        &self,
        build: impl Fn(i16) -> R + Clone + Send + 'static,
    ) -> Result<Vec<R::Response>, Error>
    where
        R: Request + 'static,
        R::Response: Send,
    {
        let mut answers = Vec::new();
        for broker in self.describe_cluster_once().await?.brokers {
            answers.push(self.ask_node(broker.node_id, build.clone()).await?);
        }
        Ok(answers)
    }

    async fn describe_cluster_once(&self) -> Result<ClusterDescription, Error> {
        let answer = self.cluster.ask_any(|_| DescribeClusterRequest::default()).await?.body;
        if answer.error_code != 0 {
            return Err(error::answered(answer.error_code, "describe the cluster"));
        }
        let mut brokers = Vec::new();
        for broker in answer.brokers {
            let (node_id, host) = (broker.broker_id.0, broker.host.to_string());
            self.cluster.learn_broker(node_id, &host, broker.port);
            brokers.extend(u16::try_from(broker.port).map(|port| BrokerDescription { node_id, host, port }));
        }
        brokers.sort_by_key(|broker| broker.node_id);
        let controller = Some(answer.controller_id.0).filter(|node| *node >= 0);
        Ok(ClusterDescription { cluster_id: answer.cluster_id.to_string(), controller, brokers })
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

/// No such topic or partition.
const UNKNOWN_TOPIC: ErrorCode = ErrorCode::Broker(code::UNKNOWN_TOPIC_OR_PARTITION);

/// With what the broker said why.
fn with_reason(error: Error, reason: Option<StrBytes>) -> Error {
    match reason {
        Some(reason) if !reason.is_empty() => {
            Error { message: format!("{}: {}", error.message, reason.as_str()), ..error }
        }
        _ => error,
    }
}

fn timeout_ms(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)
}

/// Tries `$once` until it is done or its time is up.
macro_rules! until_done {
    ($admin:expr, $what:literal, $once:expr) => {{
        let mut attempts = $admin.attempts($what);
        loop {
            match $once.await {
                Ok(done) => return Ok(done),
                // Retriable elsewhere; here it is the answer.
                Err(error) if error.code == UNKNOWN_TOPIC => return Err(error),
                Err(error) => attempts.after(error).await?,
            }
        }
    }};
}

#[async_trait]
impl Admin for WireAdmin {
    async fn create_topics(&self, topics: &[NewTopic]) -> Result<(), Error> {
        self.create_topics(topics).await
    }

    async fn delete_topics(&self, names: &[&str]) -> Result<(), Error> {
        self.delete_topics(names).await
    }

    async fn describe_topics(&self, names: &[&str]) -> Result<Vec<TopicDescription>, Error> {
        self.describe_topics(names).await
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
        let coordinator = Coordinator::of_group(self.cluster.clone(), group.to_owned());
        match group_offsets(&coordinator, None, self.cluster.settings.socket_timeout).await {
            // A group that was never there has committed nothing.
            Err(error) if error.code == ErrorCode::Broker(offsets::GROUP_ID_NOT_FOUND) => Ok(Vec::new()),
            result => result,
        }
    }

    async fn create_partitions(&self, topic: &str, count: i32) -> Result<(), Error> {
        self.create_partitions(topic, count).await
    }

    async fn delete_records(
        &self,
        before: &[(TopicPartition, Offset)],
    ) -> Result<Vec<(TopicPartition, Offset)>, Error> {
        self.delete_records(before).await
    }

    async fn elect_leaders(&self, kind: ElectionType, partitions: &[TopicPartition]) -> Result<(), Error> {
        self.elect_leaders(kind, partitions).await
    }

    async fn describe_cluster(&self) -> Result<ClusterDescription, Error> {
        until_done!(self, "describe the cluster", self.describe_cluster_once())
    }

    async fn describe_configs(
        &self,
        resources: &[ConfigResource],
    ) -> Result<Vec<(ConfigResource, BTreeMap<String, ConfigEntry>)>, Error> {
        until_done!(self, "describe settings", self.describe_configs(resources))
    }

    async fn alter_configs(
        &self,
        resource: &ConfigResource,
        changes: &[(String, ConfigChange)],
    ) -> Result<(), Error> {
        until_done!(self, "change settings", self.alter_configs(resource, changes))
    }

    async fn list_groups(&self) -> Result<Vec<GroupListing>, Error> {
        until_done!(self, "list groups", self.list_groups())
    }

    async fn describe_groups(&self, groups: &[&str]) -> Result<Vec<GroupDescription>, Error> {
        self.describe_groups(groups).await
    }

    async fn delete_groups(&self, groups: &[&str]) -> Result<(), Error> {
        self.delete_groups(groups).await
    }

    async fn delete_group_offsets(&self, group: &str, partitions: &[TopicPartition]) -> Result<(), Error> {
        self.delete_group_offsets(group, partitions).await
    }

    async fn list_transactions(&self) -> Result<Vec<TransactionListing>, Error> {
        until_done!(self, "list transactions", self.list_transactions())
    }

    async fn describe_transactions(&self, ids: &[&str]) -> Result<Vec<TransactionDescription>, Error> {
        self.describe_transactions(ids).await
    }

    async fn describe_producers(
        &self,
        partition: &TopicPartition,
    ) -> Result<Vec<ProducerDescription>, Error> {
        until_done!(self, "describe producers", self.describe_producers(partition))
    }

    async fn abort_hanging_transaction(
        &self,
        partition: &TopicPartition,
        producer: &ProducerDescription,
    ) -> Result<(), Error> {
        until_done!(self, "abort a transaction", self.abort_hanging_transaction(partition, producer))
    }
}

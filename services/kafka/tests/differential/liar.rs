//! A simulated Kafka that gives wrong offsets by time, to see the comparison bite.

use std::sync::Arc;

use async_trait::async_trait;
use broker::conformance::{Features, Subject};
use broker::{
    Admin, Broker, Consumer, Error, NewTopic, Offset, OffsetAndMetadata, OffsetSpec, Producer, Properties,
    TopicDescription, TopicPartition,
};
use context::Context;

pub(crate) fn lying(subject: Arc<dyn Subject>) -> Arc<dyn Subject> {
    Arc::new(Liar(subject))
}

struct Liar(Arc<dyn Subject>);

#[async_trait]
impl Subject for Liar {
    fn context(&self) -> Context {
        self.0.context()
    }

    fn broker(&self) -> Arc<dyn Broker> {
        Arc::new(LyingBroker(self.0.broker()))
    }

    fn features(&self) -> Features {
        self.0.features()
    }

    async fn kill_broker(&self, node_id: i32) -> Result<(), Error> {
        self.0.kill_broker(node_id).await
    }

    async fn start_broker(&self, node_id: i32) -> Result<(), Error> {
        self.0.start_broker(node_id).await
    }

    fn run_id(&self) -> String {
        self.0.run_id()
    }
}

struct LyingBroker(Arc<dyn Broker>);

#[async_trait]
impl Broker for LyingBroker {
    async fn producer(&self, properties: &Properties) -> Result<Arc<dyn Producer>, Error> {
        self.0.producer(properties).await
    }

    async fn consumer(&self, properties: &Properties) -> Result<Box<dyn Consumer>, Error> {
        self.0.consumer(properties).await
    }

    async fn admin(&self, properties: &Properties) -> Result<Arc<dyn Admin>, Error> {
        Ok(Arc::new(LyingAdmin(self.0.admin(properties).await?)))
    }
}

/// The one after the right one. It has no call that is not needed for the lie: those are not compared.
struct LyingAdmin(Arc<dyn Admin>);

#[async_trait]
impl Admin for LyingAdmin {
    async fn create_topics(&self, topics: &[NewTopic]) -> Result<(), Error> {
        self.0.create_topics(topics).await
    }

    async fn delete_topics(&self, names: &[&str]) -> Result<(), Error> {
        self.0.delete_topics(names).await
    }

    async fn describe_topics(&self, names: &[&str]) -> Result<Vec<TopicDescription>, Error> {
        self.0.describe_topics(names).await
    }

    async fn list_offsets(
        &self,
        partitions: &[(TopicPartition, OffsetSpec)],
    ) -> Result<Vec<(TopicPartition, Offset)>, Error> {
        let by_time = matches!(partitions, [(_, OffsetSpec::At(_))]);
        let found = self.0.list_offsets(partitions).await?;
        Ok(found.into_iter().map(|(at, offset)| (at, offset + Offset::from(by_time))).collect())
    }

    async fn group_offsets(&self, group: &str) -> Result<Vec<(TopicPartition, OffsetAndMetadata)>, Error> {
        self.0.group_offsets(group).await
    }

    async fn delete_records(
        &self,
        before: &[(TopicPartition, Offset)],
    ) -> Result<Vec<(TopicPartition, Offset)>, Error> {
        self.0.delete_records(before).await
    }
}

//! Names of a run's own in a cluster that others may use, too.
//!
//! [`Named`] is a [`Broker`] around a [`Broker`]: topics, groups and transactional ids carry a prefix in the cluster, and
//! none of it shows to whoever uses the client. So the services keep their names, and two runs on one cluster do not meet.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use broker::{
    Admin, Broker, Consumer, ConsumerRecord, Delivery, Error, GroupMetadata, NewTopic, Offset,
    OffsetAndMetadata, OffsetSpec, Producer, ProducerRecord, Properties, RebalanceListener, TopicDescription,
    TopicPartition,
};

/// What stands before the names of one run.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Prefix(Arc<str>);

impl Prefix {
    pub(crate) fn new(prefix: impl Into<Arc<str>>) -> Prefix {
        Prefix(prefix.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The name in the cluster.
    pub(crate) fn put(&self, name: &str) -> String {
        format!("{}{name}", self.0)
    }

    /// The name as the run knows it; as it is if it is not the run's.
    pub(crate) fn take<'a>(&self, name: &'a str) -> &'a str {
        name.strip_prefix(&*self.0).unwrap_or(name)
    }

    fn put_at(&self, at: &TopicPartition) -> TopicPartition {
        TopicPartition::new(self.put(&at.topic), at.partition)
    }

    pub(crate) fn take_at(&self, at: &TopicPartition) -> TopicPartition {
        TopicPartition::new(self.take(&at.topic), at.partition)
    }

    fn put_all(&self, all: &[TopicPartition]) -> Vec<TopicPartition> {
        all.iter().map(|at| self.put_at(at)).collect()
    }

    fn take_all(&self, all: &[TopicPartition]) -> Vec<TopicPartition> {
        all.iter().map(|at| self.take_at(at)).collect()
    }

    fn put_each<T: Clone>(&self, all: &[(TopicPartition, T)]) -> Vec<(TopicPartition, T)> {
        all.iter().map(|(at, with)| (self.put_at(at), with.clone())).collect()
    }

    fn take_each<T>(&self, all: Vec<(TopicPartition, T)>) -> Vec<(TopicPartition, T)> {
        all.into_iter().map(|(at, with)| (self.take_at(&at), with)).collect()
    }

    fn properties(&self, properties: &Properties) -> Properties {
        let named = ["group.id", "transactional.id"].into_iter();
        named.fold(properties.clone(), |properties, name| match properties.get(name).map(|id| self.put(id)) {
            Some(id) => properties.set(name, id),
            None => properties,
        })
    }

    fn group(&self, group: GroupMetadata) -> GroupMetadata {
        GroupMetadata { group_id: self.take(&group.group_id).to_owned(), ..group }
    }
}

/// How topics are made where the cluster's own defaults are not the scenario's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TopicDefaults {
    pub(crate) replication_factor: i16,
    pub(crate) min_insync_replicas: u32,
}

/// A cluster in which all names carry a prefix.
#[derive(Clone)]
pub(crate) struct Named {
    inner: Arc<dyn Broker>,
    prefix: Prefix,
    topics: TopicDefaults,
}

impl Named {
    pub(crate) fn new(inner: Arc<dyn Broker>, prefix: Prefix, topics: TopicDefaults) -> Named {
        Named { inner, prefix, topics }
    }
}

#[async_trait]
impl Broker for Named {
    async fn producer(&self, properties: &Properties) -> Result<Arc<dyn Producer>, Error> {
        let inner = self.inner.producer(&self.prefix.properties(properties)).await?;
        Ok(Arc::new(NamedProducer { inner, prefix: self.prefix.clone() }))
    }

    async fn consumer(&self, properties: &Properties) -> Result<Box<dyn Consumer>, Error> {
        let inner = self.inner.consumer(&self.prefix.properties(properties)).await?;
        Ok(Box::new(NamedConsumer { inner, prefix: self.prefix.clone() }))
    }

    async fn admin(&self, properties: &Properties) -> Result<Arc<dyn Admin>, Error> {
        let inner = self.inner.admin(properties).await?;
        Ok(Arc::new(NamedAdmin { inner, prefix: self.prefix.clone(), topics: self.topics }))
    }
}

struct NamedProducer {
    inner: Arc<dyn Producer>,
    prefix: Prefix,
}

#[async_trait]
impl Producer for NamedProducer {
    fn send(&self, record: ProducerRecord) -> Delivery {
        let prefix = self.prefix.clone();
        let record = ProducerRecord { topic: prefix.put(&record.topic).into(), ..record };
        // The record is on its way whether or not its fate is awaited: `send` has queued it by now.
        let delivery = self.inner.send(record);
        Delivery::new(async move {
            let mut metadata = delivery.await?;
            metadata.partition = prefix.take_at(&metadata.partition);
            Ok(metadata)
        })
    }

    async fn flush(&self, timeout: Duration) -> Result<(), Error> {
        self.inner.flush(timeout).await
    }

    async fn init_transactions(&self, timeout: Duration) -> Result<(), Error> {
        self.inner.init_transactions(timeout).await
    }

    async fn begin_transaction(&self) -> Result<(), Error> {
        self.inner.begin_transaction().await
    }

    async fn send_offsets_to_transaction(
        &self,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
        group: &GroupMetadata,
        timeout: Duration,
    ) -> Result<(), Error> {
        let group = GroupMetadata { group_id: self.prefix.put(&group.group_id), ..group.clone() };
        self.inner.send_offsets_to_transaction(&self.prefix.put_each(offsets), &group, timeout).await
    }

    async fn commit_transaction(&self, timeout: Duration) -> Result<(), Error> {
        self.inner.commit_transaction(timeout).await
    }

    async fn abort_transaction(&self, timeout: Duration) -> Result<(), Error> {
        self.inner.abort_transaction(timeout).await
    }

    async fn close(&self, timeout: Duration) -> Result<(), Error> {
        self.inner.close(timeout).await
    }
}

struct NamedConsumer {
    inner: Box<dyn Consumer>,
    prefix: Prefix,
}

#[async_trait]
impl Consumer for NamedConsumer {
    async fn subscribe(
        &mut self,
        topics: &[Arc<str>],
        listener: Box<dyn RebalanceListener>,
    ) -> Result<(), Error> {
        let topics: Vec<Arc<str>> = topics.iter().map(|topic| self.prefix.put(topic).into()).collect();
        let listener = NamedListener { inner: listener, prefix: self.prefix.clone() };
        self.inner.subscribe(&topics, Box::new(listener)).await
    }

    async fn unsubscribe(&mut self) -> Result<(), Error> {
        self.inner.unsubscribe().await
    }

    async fn assign(&mut self, partitions: &[TopicPartition]) -> Result<(), Error> {
        self.inner.assign(&self.prefix.put_all(partitions)).await
    }

    async fn poll(&mut self, timeout: Duration) -> Result<Vec<ConsumerRecord>, Error> {
        let mut records = self.inner.poll(timeout).await?;
        for record in &mut records {
            record.partition = self.prefix.take_at(&record.partition);
        }
        Ok(records)
    }

    async fn commit(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<(), Error> {
        self.inner.commit(&self.prefix.put_each(offsets)).await
    }

    async fn committed(
        &mut self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> Result<Vec<(TopicPartition, OffsetAndMetadata)>, Error> {
        let committed = self.inner.committed(&self.prefix.put_all(partitions), timeout).await?;
        Ok(self.prefix.take_each(committed))
    }

    fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<(), Error> {
        self.inner.seek(&self.prefix.put_at(partition), offset)
    }

    fn pause(&mut self, partitions: &[TopicPartition]) {
        self.inner.pause(&self.prefix.put_all(partitions));
    }

    fn resume(&mut self, partitions: &[TopicPartition]) {
        self.inner.resume(&self.prefix.put_all(partitions));
    }

    fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        self.inner.position(&self.prefix.put_at(partition))
    }

    fn assignment(&self) -> Vec<TopicPartition> {
        self.prefix.take_all(&self.inner.assignment())
    }

    fn group_metadata(&self) -> GroupMetadata {
        self.prefix.group(self.inner.group_metadata())
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        self.inner.close().await
    }
}

struct NamedListener {
    inner: Box<dyn RebalanceListener>,
    prefix: Prefix,
}

impl RebalanceListener for NamedListener {
    fn assigned(&mut self, partitions: &[TopicPartition]) {
        self.inner.assigned(&self.prefix.take_all(partitions));
    }

    fn revoked(&mut self, partitions: &[TopicPartition]) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        let offsets = self.inner.revoked(&self.prefix.take_all(partitions));
        self.prefix.put_each(&offsets)
    }

    fn lost(&mut self, partitions: &[TopicPartition]) {
        self.inner.lost(&self.prefix.take_all(partitions));
    }
}

/// What the harness's observer asks for. The rest is answered as unsupported, as the trait has it.
struct NamedAdmin {
    inner: Arc<dyn Admin>,
    prefix: Prefix,
    topics: TopicDefaults,
}

impl NamedAdmin {
    fn described(&self, topic: TopicDescription) -> TopicDescription {
        TopicDescription { name: self.prefix.take(&topic.name).into(), ..topic }
    }
}

#[async_trait]
impl Admin for NamedAdmin {
    async fn create_topics(&self, topics: &[NewTopic]) -> Result<(), Error> {
        let named = topics.iter().map(|topic| {
            let mut named = NewTopic { name: self.prefix.put(&topic.name), ..topic.clone() };
            named.replication_factor.get_or_insert(self.topics.replication_factor);
            let replicas = self.topics.min_insync_replicas.to_string();
            named.config.entry("min.insync.replicas".to_owned()).or_insert(replicas);
            named
        });
        self.inner.create_topics(&named.collect::<Vec<_>>()).await
    }

    async fn delete_topics(&self, names: &[&str]) -> Result<(), Error> {
        let names: Vec<String> = names.iter().map(|name| self.prefix.put(name)).collect();
        self.inner.delete_topics(&names.iter().map(String::as_str).collect::<Vec<_>>()).await
    }

    /// Without names: all of the run's.
    async fn describe_topics(&self, names: &[&str]) -> Result<Vec<TopicDescription>, Error> {
        let named: Vec<String> = names.iter().map(|name| self.prefix.put(name)).collect();
        let named: Vec<&str> = named.iter().map(String::as_str).collect();
        let found = self.inner.describe_topics(&named).await?;
        let ours = found.into_iter().filter(|topic| topic.name.starts_with(self.prefix.as_str()));
        Ok(ours.map(|topic| self.described(topic)).collect())
    }

    async fn list_offsets(
        &self,
        partitions: &[(TopicPartition, OffsetSpec)],
    ) -> Result<Vec<(TopicPartition, Offset)>, Error> {
        Ok(self.prefix.take_each(self.inner.list_offsets(&self.prefix.put_each(partitions)).await?))
    }

    async fn group_offsets(&self, group: &str) -> Result<Vec<(TopicPartition, OffsetAndMetadata)>, Error> {
        Ok(self.prefix.take_each(self.inner.group_offsets(&self.prefix.put(group)).await?))
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

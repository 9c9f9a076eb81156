//! Topics and offsets from outside.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{Error, Offset, OffsetAndMetadata, PartitionId, TopicPartition};

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; `None` takes the broker's `num.partitions`.
    pub partitions: Option<i32>,
    /// How many replicas; `None` takes the broker's `default.replication.factor`.
    pub replication_factor: Option<i16>,
    /// Topic settings by Kafka's names.
    pub config: BTreeMap<String, String>,
}

impl NewTopic {
    /// A topic with so many partitions, the rest as the broker has it.
    pub fn new(name: impl Into<String>, partitions: i32) -> NewTopic {
        NewTopic {
            name: name.into(),
            partitions: Some(partitions),
            replication_factor: None,
            config: BTreeMap::new(),
        }
    }
}

/// A topic as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: Arc<str>,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionDescription>,
}

/// A partition as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionDescription {
    /// Its number.
    pub partition: PartitionId,
    /// The broker that leads it; `None` while there is none.
    pub leader: Option<i32>,
    /// The brokers that hold it.
    pub replicas: Vec<i32>,
    /// Those in sync.
    pub in_sync: Vec<i32>,
}

/// Which offset of a partition is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first that is kept.
    Earliest,
    /// The next to be written, as readers see it.
    Latest,
    /// The first with this time or a later one.
    At(context::Timestamp),
}

/// Looks after topics and offsets.
#[async_trait]
pub trait Admin: Send + Sync {
    /// Creates topics; returns when the cluster's controller has them and each has a leader that answers.
    ///
    /// # Errors
    /// The first topic's error, with its name; the others may have been created.
    async fn create_topics(&self, topics: &[NewTopic]) -> Result<(), Error>;

    /// Deletes topics.
    ///
    /// # Errors
    /// As [`Admin::create_topics`].
    async fn delete_topics(&self, names: &[&str]) -> Result<(), Error>;

    /// Describes topics; all of the cluster if `names` is empty. One that does not exist is left out.
    ///
    /// # Errors
    /// Retriable when no broker answers.
    async fn describe_topics(&self, names: &[&str]) -> Result<Vec<TopicDescription>, Error>;

    /// The offsets asked for; a partition with none (no record so late) is left out.
    ///
    /// # Errors
    /// Retriable when a leader does not answer.
    async fn list_offsets(
        &self,
        partitions: &[(TopicPartition, OffsetSpec)],
    ) -> Result<Vec<(TopicPartition, Offset)>, Error>;

    /// What `group` has committed, for all its partitions.
    ///
    /// # Errors
    /// Retriable when its coordinator does not answer.
    async fn group_offsets(&self, group: &str) -> Result<Vec<(TopicPartition, OffsetAndMetadata)>, Error>;

    /// How many records `group` has yet to read: latest minus committed (minus earliest where none is committed), for
    /// each partition of `topics`.
    ///
    /// # Errors
    /// As [`Admin::list_offsets`] and [`Admin::group_offsets`].
    async fn lag(&self, group: &str, topics: &[&str]) -> Result<BTreeMap<TopicPartition, i64>, Error> {
        let mut asked = Vec::new();
        for topic in self.describe_topics(topics).await? {
            for partition in &topic.partitions {
                asked.push(TopicPartition::new(topic.name.clone(), partition.partition));
            }
        }
        let with = |spec| asked.iter().map(move |at| (at.clone(), spec)).collect::<Vec<_>>();
        let earliest: BTreeMap<_, _> =
            self.list_offsets(&with(OffsetSpec::Earliest)).await?.into_iter().collect();
        let latest = self.list_offsets(&with(OffsetSpec::Latest)).await?;
        let committed: BTreeMap<_, _> = self.group_offsets(group).await?.into_iter().collect();
        Ok(latest
            .into_iter()
            .map(|(at, end)| {
                let from = committed.get(&at).map(|committed| committed.offset);
                let from = from.or_else(|| earliest.get(&at).copied()).unwrap_or(end);
                (at, (end - from).max(0))
            })
            .collect())
    }
}

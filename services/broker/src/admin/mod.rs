//! Looking after a cluster from outside: topics, settings, groups and transactions.
//!
//! Start reading at [`Admin`]; the words it uses are in a file for each subject. An implementation need not have every
//! call: one that it has not answers [`ErrorCode::Unsupported`]. Absent: ACLs, quotas, reassignment of replicas, log
//! directories, delegation tokens.

mod cluster;
mod configs;
mod groups;
mod topics;
mod transactions;

use std::collections::BTreeMap;

use async_trait::async_trait;

pub use cluster::{BrokerDescription, ClusterDescription};
pub use configs::{ConfigChange, ConfigEntry, ConfigResource, ConfigSource};
pub use groups::{GroupDescription, GroupListing, MemberDescription};
pub use topics::{ElectionType, NewTopic, OffsetSpec, PartitionDescription, TopicDescription};
pub use transactions::{ProducerDescription, TransactionDescription, TransactionListing};

use crate::{Error, ErrorClass, ErrorCode, Offset, OffsetAndMetadata, TopicPartition};

fn unsupported<T>(call: &str) -> Result<T, Error> {
    let text = format!("this implementation has no `{call}`");
    Err(Error::new(ErrorCode::Unsupported, ErrorClass::Failed, text))
}

/// Looks after a cluster.
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

    /// Gives a topic more partitions, up to `count` in all; the controller places them.
    ///
    /// # Errors
    /// INVALID_PARTITIONS if it has as many already; UNKNOWN_TOPIC_OR_PARTITION.
    async fn create_partitions(&self, topic: &str, count: i32) -> Result<(), Error> {
        let _ = (topic, count);
        unsupported("create_partitions")
    }

    /// Deletes the records before these offsets; -1 means the high watermark. Gives each partition's new start.
    ///
    /// # Errors
    /// OFFSET_OUT_OF_RANGE beyond the high watermark; POLICY_VIOLATION where the topic is only compacted.
    async fn delete_records(
        &self,
        before: &[(TopicPartition, Offset)],
    ) -> Result<Vec<(TopicPartition, Offset)>, Error> {
        let _ = before;
        unsupported("delete_records")
    }

    /// Elects leaders now. A partition that needs no election is left as it is, without an error.
    ///
    /// # Errors
    /// The first partition's: PREFERRED_LEADER_NOT_AVAILABLE, ELIGIBLE_LEADERS_NOT_AVAILABLE.
    async fn elect_leaders(&self, kind: ElectionType, partitions: &[TopicPartition]) -> Result<(), Error> {
        let _ = (kind, partitions);
        unsupported("elect_leaders")
    }

    /// The brokers that are there, and which of them takes requests for the controller.
    ///
    /// # Errors
    /// Retriable when no broker answers.
    async fn describe_cluster(&self) -> Result<ClusterDescription, Error> {
        unsupported("describe_cluster")
    }

    /// The settings of these resources, defaults included, by name.
    ///
    /// # Errors
    /// The first resource's.
    async fn describe_configs(
        &self,
        resources: &[ConfigResource],
    ) -> Result<Vec<(ConfigResource, BTreeMap<String, ConfigEntry>)>, Error> {
        let _ = resources;
        unsupported("describe_configs")
    }

    /// Changes single settings of a resource and leaves the others (KIP-339).
    ///
    /// # Errors
    /// INVALID_CONFIG, INVALID_REQUEST; nothing was changed then.
    async fn alter_configs(
        &self,
        resource: &ConfigResource,
        changes: &[(String, ConfigChange)],
    ) -> Result<(), Error> {
        let _ = (resource, changes);
        unsupported("alter_configs")
    }

    /// Every group of the cluster, by id: each broker is asked for those that it coordinates.
    ///
    /// # Errors
    /// Retriable when a broker does not answer.
    async fn list_groups(&self) -> Result<Vec<GroupListing>, Error> {
        unsupported("list_groups")
    }

    /// Describes groups, in the order asked for. One that does not exist is described as `Dead`, without members.
    ///
    /// # Errors
    /// Retriable when a coordinator does not answer.
    async fn describe_groups(&self, groups: &[&str]) -> Result<Vec<GroupDescription>, Error> {
        let _ = groups;
        unsupported("describe_groups")
    }

    /// Deletes groups with their offsets.
    ///
    /// # Errors
    /// The first group's: NON_EMPTY_GROUP, GROUP_ID_NOT_FOUND.
    async fn delete_groups(&self, groups: &[&str]) -> Result<(), Error> {
        let _ = groups;
        unsupported("delete_groups")
    }

    /// Forgets what `group` has committed for these partitions.
    ///
    /// # Errors
    /// The first partition's: GROUP_SUBSCRIBED_TO_TOPIC while a member reads its topic; GROUP_ID_NOT_FOUND.
    async fn delete_group_offsets(&self, group: &str, partitions: &[TopicPartition]) -> Result<(), Error> {
        let _ = (group, partitions);
        unsupported("delete_group_offsets")
    }

    /// Every transactional id of the cluster: each broker is asked for those that it coordinates.
    ///
    /// # Errors
    /// Retriable when a broker does not answer.
    async fn list_transactions(&self) -> Result<Vec<TransactionListing>, Error> {
        unsupported("list_transactions")
    }

    /// Describes transactional ids, in the order asked for.
    ///
    /// # Errors
    /// TRANSACTIONAL_ID_NOT_FOUND.
    async fn describe_transactions(&self, ids: &[&str]) -> Result<Vec<TransactionDescription>, Error> {
        let _ = ids;
        unsupported("describe_transactions")
    }

    /// The producers whose state the leader of a partition keeps, by id.
    ///
    /// # Errors
    /// Retriable when the leader does not answer.
    async fn describe_producers(
        &self,
        partition: &TopicPartition,
    ) -> Result<Vec<ProducerDescription>, Error> {
        let _ = partition;
        unsupported("describe_producers")
    }

    /// Ends a transaction that its coordinator no longer knows, in one partition: writes an abort marker for the
    /// producer (KIP-664). `producer` is what [`Admin::describe_producers`] said.
    ///
    /// # Errors
    /// INVALID_PRODUCER_EPOCH, TRANSACTION_COORDINATOR_FENCED.
    async fn abort_hanging_transaction(
        &self,
        partition: &TopicPartition,
        producer: &ProducerDescription,
    ) -> Result<(), Error> {
        let _ = (partition, producer);
        unsupported("abort_hanging_transaction")
    }

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

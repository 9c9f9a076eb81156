//! Groups and their offsets, asked of their coordinators by a client that is made for the one call: `native::admin` says why.

use broker::{Error, GroupDescription, OffsetAndMetadata, PartitionDescription, TopicPartition};
use rdkafka::client::Client;
use rdkafka::consumer::{BaseConsumer, Consumer, DefaultConsumerContext};

use super::RdKafkaAdmin;
use crate::blocking::blocking;
use crate::error::from_kafka;
use crate::native::admin as native;
use crate::partitions;

impl RdKafkaAdmin {
    /// Asks with a client of its own, which ends with the call.
    async fn ask_coordinator<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Client<DefaultConsumerContext>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let config = self.config.clone();
        blocking(move || {
            let client: BaseConsumer =
                config.create().map_err(|error| from_kafka(&error, "an admin client"))?;
            question(client.client())
        })
        .await
    }

    pub(super) async fn groups_described(&self, groups: &[&str]) -> Result<Vec<GroupDescription>, Error> {
        if groups.is_empty() {
            return Ok(Vec::new());
        }
        let (groups, patience) = (owned(groups), self.patience);
        self.ask_coordinator(move |client| native::describe_groups(client, &groups, patience)).await
    }

    pub(super) async fn groups_deleted(&self, groups: &[&str]) -> Result<(), Error> {
        if groups.is_empty() {
            return Ok(());
        }
        let (groups, patience) = (owned(groups), self.patience);
        self.ask_coordinator(move |client| native::delete_groups(client, &groups, patience)).await
    }

    pub(super) async fn offsets_deleted(&self, group: &str, of: &[TopicPartition]) -> Result<(), Error> {
        let (group, of, patience) = (group.to_owned(), of.to_vec(), self.patience);
        self.ask_coordinator(move |client| {
            native::delete_group_offsets(client, &group, &partitions::list(&of), patience)
        })
        .await
    }

    /// Asks as a member does, through the group's coordinator, for every partition of the cluster.
    pub(super) async fn offsets_of(
        &self,
        group: &str,
    ) -> Result<Vec<(TopicPartition, OffsetAndMetadata)>, Error> {
        let mut all = Vec::new();
        for topic in broker::Admin::describe_topics(self, &[]).await? {
            let at = |at: &PartitionDescription| TopicPartition::new(topic.name.clone(), at.partition);
            all.extend(topic.partitions.iter().map(at));
        }
        let (group, mut config, patience) = (group.to_owned(), self.config.clone(), self.patience);
        blocking(move || {
            config.set("group.id", &group);
            // A member waits for the end of a transaction that may move the group; an admin is told where it was before.
            config.set("isolation.level", "read_uncommitted");
            let client: BaseConsumer =
                config.create().map_err(|error| from_kafka(&error, "an admin client"))?;
            let what = format!("the offsets of group {group}");
            let found = client.committed_offsets(partitions::list(&all), patience);
            partitions::committed(&found.map_err(|error| from_kafka(&error, &what))?, &what)
        })
        .await
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

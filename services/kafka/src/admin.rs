//! Looking after a cluster by librdkafka's admin calls.
//!
//! Start reading at [`RdKafkaAdmin`]. What goes to the coordinators of groups is in `groups`, settings are in `configs`, and
//! calls that crate `rdkafka` does not wrap in `native::admin`.
//!
//! Absent, and answered as unsupported, for librdkafka 2.12 has no call: describing and listing transactions, describing
//! producers, ending a hanging transaction, and the settings of all brokers together. Of groups it lists those of consumers.

mod configs;
mod groups;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use broker::{
    Admin, ClusterDescription, ConfigChange, ConfigEntry, ConfigResource, ElectionType, Error,
    GroupDescription, GroupListing, NewTopic, Offset, OffsetAndMetadata, OffsetSpec, PartitionDescription,
    Properties, TopicDescription, TopicPartition,
};
use context::Context;
use rdkafka::admin::{
    AdminClient, AdminOptions, NewPartitions, NewTopic as RdNewTopic, TopicReplication, TopicResult,
};
use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::topic_partition_list::Offset as RdOffset;
use rdkafka::{ClientConfig, TopicPartitionList};

use crate::blocking::{blocking, drop_aside};
use crate::error::{from_code, from_kafka, invalid_state, timed_out};
use crate::native::admin::Addressee;
use crate::properties::settings;
use crate::statistics::INTERVAL;
use crate::{native, partitions};

/// The longest that one question may take, and librdkafka's default of it.
const PATIENCE: (&str, Duration) = ("socket.timeout.ms", Duration::from_secs(60));
/// How often a new topic is asked for its leaders.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How often a client whose call waits asks who is there, and how long it waits for one that it asks. Not more often: a broker
/// that an answer leaves out loses what was sent to it, though it may have done it.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Asks ListOffsets for the record with the largest time (KIP-734).
const MAX_TIMESTAMP: i64 = -3;

/// An admin client on librdkafka.
pub(crate) struct RdKafkaAdmin {
    context: Context,
    /// Creates and deletes, and asks brokers about themselves. An option only so that its end can be handed on.
    changes: Option<Arc<AdminClient<DefaultClientContext>>>,
    /// Asks. It belongs to no group, and asking creates no topic.
    questions: Option<Arc<BaseConsumer>>,
    /// What both were made with.
    config: ClientConfig,
    /// The longest that one question may take. A call may be two: who is there, and its own.
    patience: Duration,
}

impl RdKafkaAdmin {
    pub(crate) fn new(context: Context, properties: &Properties) -> Result<RdKafkaAdmin, Error> {
        let mut config = settings(properties)?.config;
        config.remove("group.id");
        // Nobody would take them up.
        config.remove(INTERVAL);
        let changes = config.create().map_err(|error| from_kafka(&error, "an admin client"))?;
        let questions = config.create().map_err(|error| from_kafka(&error, "an admin client"))?;
        let (changes, questions) = (Some(Arc::new(changes)), Some(Arc::new(questions)));
        // librdkafka refused what is no number.
        let patience = config.get(PATIENCE.0).and_then(|millis| millis.parse().ok());
        let patience = patience.map_or(PATIENCE.1, Duration::from_millis);
        Ok(RdKafkaAdmin { context, changes, questions, config, patience })
    }

    fn changes(&self) -> &AdminClient<DefaultClientContext> {
        self.changes.as_ref().expect("it is there until the drop")
    }

    fn options(&self) -> AdminOptions {
        AdminOptions::new().operation_timeout(Some(self.patience)).request_timeout(Some(self.patience))
    }

    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Client<DefaultClientContext>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let client = self.changes.clone().expect("it is there until the drop");
        blocking(move || change(client.inner())).await
    }

    /// Makes a call that librdkafka sends to this one, and keeps telling librdkafka who is there. By itself it asks when it
    /// connects and then every five minutes (`topic.metadata.refresh.interval.ms`), and so long a call would wait for a broker
    /// that came since, or for one that took the controller's requests and is gone.
    async fn call<T>(
        &self,
        addressee: Addressee,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.introduced(addressee).await?;
        let asking = async {
            loop {
                self.context.sleep(ASK_AGAIN).await;
                // That nobody answers is for the call itself to say.
                let _ = self.change(move |client| native::admin::knows(client, addressee, ASK_AGAIN)).await;
            }
        };
        tokio::select! {
            answer = call => answer,
            never = asking => never,
        }
    }

    /// Waits until librdkafka knows this one.
    async fn introduced(&self, addressee: Addressee) -> Result<(), Error> {
        let deadline = self.context.now() + self.patience;
        loop {
            let left = deadline.since(self.context.now());
            let look = left.min(ASK_AGAIN);
            match self.change(move |client| native::admin::knows(client, addressee, look)).await {
                Ok(true) => return Ok(()),
                Err(error) if !error.is_retriable() || left.is_zero() => return Err(error),
                Ok(false) if left.is_zero() => {
                    let patience = self.patience;
                    return Err(timed_out(format!("the cluster has had no {addressee:?} for {patience:?}")));
                }
                Ok(false) | Err(_) => self.context.sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// A call for the controller, by crate `rdkafka`.
    async fn call_controller<T>(
        &self,
        what: &str,
        call: impl Future<Output = KafkaResult<T>>,
    ) -> Result<T, Error> {
        self.call(Addressee::Controller, async { call.await.map_err(|error| from_kafka(&error, what)) }).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&BaseConsumer) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let client = self.questions.clone().expect("it is there until the drop");
        blocking(move || {
            let answer = question(&client);
            // Nobody polls this client for records, so lost connections would be reported to nobody and pile up.
            while client.poll(Duration::ZERO).is_some() {}
            answer
        })
        .await
    }

    /// Waits until every partition of the topics has a leader that answers.
    async fn wait_for_leaders(&self, topics: &[NewTopic]) -> Result<(), Error> {
        let deadline = self.context.now() + self.patience;
        let names: Vec<_> = topics.iter().map(|topic| topic.name.as_str()).collect();
        loop {
            let found = self.describe_topics(&names).await?;
            let led = |topic: &TopicDescription| {
                !topic.partitions.is_empty() && topic.partitions.iter().all(|at| at.leader.is_some())
            };
            if found.len() == names.len() && found.iter().all(led) {
                let mut ends = Vec::new();
                for topic in &found {
                    let at =
                        |at: &PartitionDescription| TopicPartition::new(topic.name.clone(), at.partition);
                    ends.extend(topic.partitions.iter().map(|found| (at(found), OffsetSpec::Latest)));
                }
                match self.list_offsets(&ends).await {
                    Ok(_) => return Ok(()),
                    Err(error) if !error.is_retriable() => return Err(error),
                    Err(_) => {}
                }
            }
            if self.context.now() > deadline {
                return Err(timed_out(format!(
                    "topics {names:?} have no leaders {:?} after their creation",
                    self.patience
                )));
            }
            self.context.sleep(LOOK_AGAIN).await;
        }
    }
}

impl Drop for RdKafkaAdmin {
    fn drop(&mut self) {
        drop_aside((self.changes.take(), self.questions.take()));
    }
}

#[async_trait]
impl Admin for RdKafkaAdmin {
    async fn create_topics(&self, topics: &[NewTopic]) -> Result<(), Error> {
        let wanted: Vec<RdNewTopic<'_>> = topics
            .iter()
            .map(|topic| {
                // -1 leaves the choice to the broker's own settings (KIP-464).
                let factor = TopicReplication::Fixed(topic.replication_factor.unwrap_or(-1).into());
                let new = RdNewTopic::new(&topic.name, topic.partitions.unwrap_or(-1), factor);
                topic.config.iter().fold(new, |new, (name, value)| new.set(name, value))
            })
            .collect();
        let options = self.options();
        let create = self.changes().create_topics(&wanted, &options);
        topic_results(self.call_controller("the creation of topics", create).await?, "creation")?;
        self.wait_for_leaders(topics).await
    }

    async fn delete_topics(&self, names: &[&str]) -> Result<(), Error> {
        let options = self.options();
        let delete = self.changes().delete_topics(names, &options);
        topic_results(self.call_controller("the deletion of topics", delete).await?, "deletion")
    }

    async fn describe_topics(&self, names: &[&str]) -> Result<Vec<TopicDescription>, Error> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let patience = self.patience;
        self.ask(move |client| {
            let ask = |topic: Option<&str>| {
                let what = format!("metadata of {}", topic.unwrap_or("all topics"));
                client.fetch_metadata(topic, patience).map_err(|error| from_kafka(&error, what))
            };
            let mut found = Vec::new();
            if names.is_empty() {
                found.extend(ask(None)?.topics().iter().map(description));
            }
            for name in &names {
                found.extend(ask(Some(name))?.topics().iter().map(description));
            }
            found.into_iter().filter_map(Result::transpose).collect()
        })
        .await
    }

    async fn create_partitions(&self, topic: &str, count: i32) -> Result<(), Error> {
        let what = format!("more partitions for topic {topic}");
        let count = usize::try_from(count).map_err(|_| invalid_state(format!("{what}: {count} in all")))?;
        let (options, wanted) = (self.options(), [NewPartitions::new(topic, count)]);
        let create = self.changes().create_partitions(&wanted, &options);
        topic_results(self.call_controller(&what, create).await?, "growth")
    }

    async fn delete_records(
        &self,
        before: &[(TopicPartition, Offset)],
    ) -> Result<Vec<(TopicPartition, Offset)>, Error> {
        let to = |offset: &Offset| match offset {
            -1 => RdOffset::End,
            offset => RdOffset::Offset(*offset),
        };
        let list = partitions::list_at(before.iter().map(|(at, offset)| (at, to(offset))))?;
        let deleted = self.changes().delete_records(&list, &self.options()).await;
        let starts = deleted.map_err(|error| from_kafka(&error, "the deletion of records"))?;
        partitions::offsets(&starts, "the deletion of records in")
    }

    async fn describe_configs(
        &self,
        resources: &[ConfigResource],
    ) -> Result<Vec<(ConfigResource, BTreeMap<String, ConfigEntry>)>, Error> {
        self.describe_settings(resources).await
    }

    async fn alter_configs(
        &self,
        resource: &ConfigResource,
        changes: &[(String, ConfigChange)],
    ) -> Result<(), Error> {
        self.change_settings(resource, changes).await
    }

    async fn elect_leaders(&self, kind: ElectionType, partitions: &[TopicPartition]) -> Result<(), Error> {
        if partitions.is_empty() {
            return Ok(());
        }
        let (partitions, patience) = (partitions.to_vec(), self.patience);
        let elect = self.change(move |client| {
            native::admin::elect_leaders(client, kind, &partitions::list(&partitions), patience)
        });
        self.call(Addressee::Controller, elect).await
    }

    async fn describe_cluster(&self) -> Result<ClusterDescription, Error> {
        let patience = self.patience;
        let describe = self.change(move |client| native::admin::describe_cluster(client, patience));
        self.call(Addressee::Controller, describe).await
    }

    async fn list_groups(&self) -> Result<Vec<GroupListing>, Error> {
        let patience = self.patience;
        // It asks every broker that it knows.
        let list = self.change(move |client| native::admin::list_groups(client, patience));
        self.call(Addressee::Controller, list).await
    }

    async fn describe_groups(&self, groups: &[&str]) -> Result<Vec<GroupDescription>, Error> {
        self.groups_described(groups).await
    }

    async fn delete_groups(&self, groups: &[&str]) -> Result<(), Error> {
        self.groups_deleted(groups).await
    }

    async fn delete_group_offsets(&self, group: &str, partitions: &[TopicPartition]) -> Result<(), Error> {
        self.offsets_deleted(group, partitions).await
    }

    async fn list_offsets(
        &self,
        asked: &[(TopicPartition, OffsetSpec)],
    ) -> Result<Vec<(TopicPartition, Offset)>, Error> {
        let (asked, patience) = (asked.to_vec(), self.patience);
        self.ask(move |client| {
            let time = |spec: &OffsetSpec| match spec {
                OffsetSpec::Earliest => RdOffset::Beginning,
                OffsetSpec::Latest => RdOffset::End,
                // A number of Kafka's that crate `rdkafka` has no word for: set below.
                OffsetSpec::LargestTimestamp => RdOffset::Invalid,
                OffsetSpec::At(time) => RdOffset::Offset(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)),
            };
            let mut times = partitions::list_at(asked.iter().map(|(at, spec)| (at, time(spec))))?;
            for (at, _) in asked.iter().filter(|(_, spec)| *spec == OffsetSpec::LargestTimestamp) {
                native::set_raw_offset(&mut times, at, MAX_TIMESTAMP);
            }
            let found: TopicPartitionList = client
                .offsets_for_times(times, patience)
                .map_err(|error| from_kafka(&error, "the offsets of partitions"))?;
            partitions::offsets(&found, "the offset of")
        })
        .await
    }

    async fn group_offsets(&self, group: &str) -> Result<Vec<(TopicPartition, OffsetAndMetadata)>, Error> {
        self.offsets_of(group).await
    }
}

/// The first topic's error.
fn topic_results(results: Vec<TopicResult>, what: &str) -> Result<(), Error> {
    for result in results {
        result.map_err(|(topic, code)| from_code(code, format_args!("the {what} of topic {topic}")))?;
    }
    Ok(())
}

/// A topic as the metadata tell it; `None` for one that does not exist.
fn description(topic: &MetadataTopic) -> Result<Option<TopicDescription>, Error> {
    match topic.error().map(RDKafkaErrorCode::from) {
        None => {}
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => return Ok(None),
        // A partition of it has no leader right now: its partitions say which.
        Some(RDKafkaErrorCode::LeaderNotAvailable) => {}
        Some(code) => return Err(from_code(code, format_args!("metadata of {}", topic.name()))),
    }
    let mut partitions: Vec<_> = topic.partitions().iter().map(partition).collect();
    partitions.sort_by_key(|found| found.partition);
    Ok(Some(TopicDescription { name: topic.name().into(), partitions }))
}

fn partition(found: &MetadataPartition) -> PartitionDescription {
    PartitionDescription {
        partition: found.id(),
        leader: (found.leader() >= 0).then_some(found.leader()),
        // librdkafka's metadata have neither.
        leader_epoch: None,
        eligible_leaders: Vec::new(),
        replicas: found.replicas().to_vec(),
        in_sync: found.isr().to_vec(),
    }
}

//! What the cases share: names, clients, and waiting for facts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use context::Context;

use super::Subject;
use crate::{
    Admin, Broker, Consumer, ConsumerRecord, Error, ErrorCode, NewTopic, NoRebalanceListener,
    OffsetAndMetadata, OffsetSpec, Producer, ProducerRecord, Properties, RebalanceListener, RecordMetadata,
    TopicDescription, TopicPartition,
};

/// Why a case failed: the claim that broke, with the evidence.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure(pub String);

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure(format!("a call failed: {error}"))
    }
}

/// The longest that a case waits for a fact. Real Kafka's slowest here is a killed broker's session of 9 s with an
/// election and a client's backoff on top; the rest is for machines that are busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(180);

/// One case's bench: names of its own and the clients it makes.
pub struct Bench {
    subject: Arc<dyn Subject>,
    case: &'static str,
}

impl Bench {
    pub(super) fn new(subject: Arc<dyn Subject>, case: &'static str) -> Bench {
        Bench { subject, case }
    }

    /// Clock and tasks.
    pub fn context(&self) -> Context {
        self.subject.context()
    }

    /// The implementation under test.
    pub fn broker(&self) -> Arc<dyn Broker> {
        self.subject.broker()
    }

    pub(super) fn subject(&self) -> &dyn Subject {
        &*self.subject
    }

    /// A name that no other case and no other run uses.
    pub fn name(&self, part: &str) -> String {
        format!("{}.{}.{part}", self.subject.run_id(), self.case)
    }

    /// Creates a topic with so many partitions, of which every broker has heard, and gives its name.
    pub async fn topic(&self, part: &str, partitions: i32) -> Result<Arc<str>, Failure> {
        let name = self.name(part);
        self.create(NewTopic::new(name.clone(), partitions)).await?;
        Ok(name.into())
    }

    /// Creates a topic, and returns when every broker has heard of it. Clients wait for its leaders only, and any broker may be asked
    /// about it. Brokers hear of what is made in its order: one that leads a partition of a later topic has heard of this one.
    pub(super) async fn create(&self, topic: NewTopic) -> Result<(), Failure> {
        let later = on_every_broker(format!("{}.later", topic.name));
        let admin = self.admin().await?;
        admin.create_topics(&[topic]).await?;
        Ok(admin.create_topics(&[later]).await?)
    }

    pub(super) async fn admin(&self) -> Result<Arc<dyn Admin>, Failure> {
        Ok(self.broker().admin(&Properties::new()).await?)
    }

    /// A producer as careful services set it up: idempotent, all replicas, no lingering.
    pub async fn producer(&self) -> Result<Arc<dyn Producer>, Failure> {
        self.producer_with(Properties::new()).await
    }

    pub(super) async fn producer_with(&self, more: Properties) -> Result<Arc<dyn Producer>, Failure> {
        let properties = Properties::new().set("enable.idempotence", true).set("linger.ms", 0).with(&more);
        Ok(self.broker().producer(&properties).await?)
    }

    /// The properties of a careful consumer: commits by hand, starts at the beginning, short timeouts.
    pub fn consumer_properties(&self, group: &str) -> Properties {
        Properties::new()
            .set("group.id", self.name(group))
            .set("enable.auto.commit", false)
            .set("auto.offset.reset", "earliest")
            .set("session.timeout.ms", 6_000)
            .set("heartbeat.interval.ms", 1_000)
    }

    /// A careful consumer that has not subscribed.
    pub async fn consumer(&self, group: &str) -> Result<Box<dyn Consumer>, Failure> {
        self.consumer_with(group, Properties::new()).await
    }

    pub(super) async fn consumer_with(
        &self,
        group: &str,
        more: Properties,
    ) -> Result<Box<dyn Consumer>, Failure> {
        Ok(self.broker().consumer(&self.consumer_properties(group).with(&more)).await?)
    }

    /// A careful consumer of `topic`.
    pub async fn subscriber(&self, group: &str, topic: &Arc<str>) -> Result<Box<dyn Consumer>, Failure> {
        self.subscriber_with(group, topic, Properties::new()).await
    }

    pub(super) async fn subscriber_with(
        &self,
        group: &str,
        topic: &Arc<str>,
        more: Properties,
    ) -> Result<Box<dyn Consumer>, Failure> {
        let mut consumer = self.consumer_with(group, more).await?;
        consumer.subscribe(std::slice::from_ref(topic), Box::new(NoRebalanceListener)).await?;
        Ok(consumer)
    }

    /// Sends `values` under `key`, all in flight at once, and waits for every acknowledgement.
    pub async fn send_all(
        &self,
        producer: &dyn Producer,
        topic: &Arc<str>,
        key: &str,
        values: impl IntoIterator<Item = String>,
    ) -> Result<Vec<RecordMetadata>, Failure> {
        let deliveries: Vec<_> = values
            .into_iter()
            .map(|value| producer.send(ProducerRecord::new(topic.clone(), key.to_owned(), value)))
            .collect();
        let mut acknowledged = Vec::new();
        for delivery in deliveries {
            acknowledged.push(delivery.await?);
        }
        Ok(acknowledged)
    }

    /// Polls until `wanted` records came, or [`PATIENCE`] ran out, which fails the case.
    pub async fn poll_count(
        &self,
        consumer: &mut dyn Consumer,
        wanted: usize,
    ) -> Result<Vec<ConsumerRecord>, Failure> {
        let deadline = self.context().now() + PATIENCE;
        let mut records = Vec::new();
        while records.len() < wanted {
            if self.context().now() > deadline {
                let values = values(&records);
                return Err(Failure(format!(
                    "{} of {wanted} records came within {PATIENCE:?}: {values:?}",
                    records.len()
                )));
            }
            records.extend(self.poll_once(consumer, Duration::from_millis(200)).await?);
        }
        Ok(records)
    }

    /// Polls once. What the next poll gets over gives nothing, as the interface says.
    pub(super) async fn poll_once(
        &self,
        consumer: &mut dyn Consumer,
        span: Duration,
    ) -> Result<Vec<ConsumerRecord>, Failure> {
        match consumer.poll(span).await {
            Err(error) if !error.is_fatal() => Ok(Vec::new()),
            polled => Ok(polled?),
        }
    }

    /// Polls for `span` and gives what came.
    pub async fn poll_for(
        &self,
        consumer: &mut dyn Consumer,
        span: Duration,
    ) -> Result<Vec<ConsumerRecord>, Failure> {
        let deadline = self.context().now() + span;
        let mut records = Vec::new();
        while self.context().now() < deadline {
            records.extend(self.poll_once(consumer, Duration::from_millis(100)).await?);
        }
        Ok(records)
    }

    /// Polls until the consumer says that there is nowhere to read on; it reads nothing before.
    pub(super) async fn out_of_range(&self, consumer: &mut dyn Consumer) -> Result<(), Failure> {
        let deadline = self.context().now() + PATIENCE;
        loop {
            match consumer.poll(Duration::from_millis(200)).await {
                Err(error) if error.code == ErrorCode::OffsetOutOfRange => return Ok(()),
                Err(error) if error.is_fatal() => return Err(error.into()),
                Err(_) => {}
                Ok(records) if records.is_empty() => {}
                Ok(records) => {
                    return Err(Failure(format!("out of range it read {:?}", values(&records))));
                }
            }
            if self.context().now() > deadline {
                return Err(Failure(format!(
                    "not within {PATIENCE:?}: it says that there is nowhere to read on"
                )));
            }
        }
    }

    /// Asks again and again until it is `true`; fails the case with `sentence` when [`PATIENCE`] ran out.
    pub async fn eventually<F>(&self, sentence: &str, mut fact: impl FnMut() -> F) -> Result<(), Failure>
    where
        F: Future<Output = Result<bool, Failure>>,
    {
        let deadline = self.context().now() + PATIENCE;
        while !fact().await? {
            if self.context().now() > deadline {
                return Err(Failure(format!("not within {PATIENCE:?}: {sentence}")));
            }
            self.context().sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Calls again while the error says so, for [`PATIENCE`]: the interface leaves that to its users.
    pub(super) async fn retried<T, F>(&self, call: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let deadline = self.context().now() + PATIENCE;
        loop {
            match call().await {
                Err(error) if error.is_retriable() && self.context().now() < deadline => {
                    self.context().sleep(Duration::from_millis(100)).await;
                }
                result => return result,
            }
        }
    }

    /// The brokers of the cluster. The first call of a case makes a topic with a leader on every broker. Later calls wait for nothing.
    pub(super) async fn brokers(&self) -> Result<BTreeSet<i32>, Failure> {
        let spread = self.spread().await?;
        Ok(spread.partitions.iter().flat_map(|partition| &partition.replicas).copied().collect())
    }

    /// Waits until a broker that was killed and started leads again what only it has.
    pub(super) async fn serving_again(&self, broker: i32) -> Result<(), Failure> {
        self.eventually(&format!("broker {broker} leads again"), async || {
            let Ok(spread) = self.spread().await else { return Ok(false) };
            let own = || spread.partitions.iter().filter(|partition| partition.replicas == [broker]);
            if own().next().is_none() || own().any(|partition| partition.leader != Some(broker)) {
                return Ok(false);
            }
            // Until its session ends, one that was killed is said to lead. So it is asked.
            let at = |number| TopicPartition::new(spread.name.clone(), number);
            let asked: Vec<_> = own().map(|own| (at(own.partition), OffsetSpec::Latest)).collect();
            let hasty = Properties::new().set("socket.timeout.ms", 10_000);
            let admin = self.broker().admin(&hasty).await?;
            Ok(admin.list_offsets(&asked).await.is_ok())
        })
        .await
    }

    /// A topic that is on every broker.
    async fn spread(&self) -> Result<TopicDescription, Failure> {
        let (admin, name) = (self.admin().await?, self.name("spread"));
        let found = admin.describe_topics(&[&name]).await?;
        if let Some(found) = found.into_iter().next() {
            return Ok(found);
        }
        admin.create_topics(&[on_every_broker(name.clone())]).await?;
        let found = admin.describe_topics(&[&name]).await?;
        found.into_iter().next().ok_or_else(|| Failure(format!("{name} was created and is not there")))
    }

    /// Commits the position after each record.
    pub async fn commit_all(
        &self,
        consumer: &mut dyn Consumer,
        records: &[ConsumerRecord],
    ) -> Result<(), Failure> {
        Ok(consumer.commit(&positions_after(records)).await?)
    }
}

/// A topic that has at least one partition alone on each broker.
fn on_every_broker(name: String) -> NewTopic {
    NewTopic { replication_factor: Some(1), ..NewTopic::new(name, 6) }
}

/// The position after the last record of each partition.
pub(super) fn positions_after(records: &[ConsumerRecord]) -> Vec<(TopicPartition, OffsetAndMetadata)> {
    let mut next = BTreeMap::new();
    for record in records {
        next.insert(record.partition.clone(), OffsetAndMetadata::new(record.offset + 1));
    }
    next.into_iter().collect()
}

/// The values as text, in the order in which they came.
pub(super) fn values(records: &[ConsumerRecord]) -> Vec<String> {
    records.iter().map(|record| text(record.value.as_deref())).collect()
}

pub(super) fn text(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(|| "null".into(), |bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// `prefix-0` to `prefix-(count-1)`.
pub(super) fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}-{number}")).collect()
}

/// Remembers what a listener heard.
#[derive(Clone, Default)]
pub(super) struct Heard(Arc<Mutex<Vec<HeardCall>>>);

type HeardCall = (Call, Vec<TopicPartition>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Assigned,
    Revoked,
    Lost,
}

impl Heard {
    pub(super) fn listener(&self) -> Box<dyn RebalanceListener> {
        Box::new(self.clone())
    }

    pub(super) fn calls(&self) -> Vec<(Call, Vec<TopicPartition>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn hear(&self, call: Call, partitions: &[TopicPartition]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((call, partitions.to_vec()));
    }
}

impl RebalanceListener for Heard {
    fn assigned(&mut self, partitions: &[TopicPartition]) {
        self.hear(Call::Assigned, partitions);
    }

    fn revoked(&mut self, partitions: &[TopicPartition]) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        self.hear(Call::Revoked, partitions);
        Vec::new()
    }

    fn lost(&mut self, partitions: &[TopicPartition]) {
        self.hear(Call::Lost, partitions);
    }
}

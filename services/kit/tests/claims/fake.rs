//! A broker in memory that does what a claim asks: fail sends, forget acknowledgements, take partitions away.
//!
//! It is no model of Kafka: groups rebalance at once and all members hear of it at their next poll, latency is 1 ms.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use broker::{
    Admin, Broker, Consumer, ConsumerRecord, Delivery, Error, ErrorClass, ErrorCode, GroupMetadata, Offset,
    OffsetAndMetadata, Producer, ProducerRecord, Properties, RebalanceListener, RecordMetadata,
    TopicPartition,
};
use context::{Context, Timestamp};
use tokio::sync::Notify;

/// Partitions of every topic.
const PARTITIONS: i32 = 4;

/// The cluster. A clone is the same one.
#[derive(Clone, Default)]
pub(crate) struct FakeKafka(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    logs: BTreeMap<TopicPartition, Vec<ConsumerRecord>>,
    groups: BTreeMap<String, Group>,
    faults: Vec<Fault>,
    sends: u64,
    clients: u64,
    commits: Vec<(TopicPartition, Offset)>,
    paused: BTreeSet<TopicPartition>,
    cut_off: BTreeSet<String>,
}

/// A fault of the sends to `topic`, `times` of them.
struct Fault {
    topic: String,
    times: u32,
    kind: Trouble,
}

/// What goes wrong with a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Refused with a retriable error; not appended.
    Refused,
    /// Appended, and the acknowledgement is lost.
    Unacknowledged,
    /// The producer is fenced; not appended.
    Fenced,
}

#[derive(Default)]
struct Group {
    members: BTreeMap<u64, Member>,
    committed: BTreeMap<TopicPartition, Offset>,
    generation: i32,
}

struct Member {
    host: String,
    topics: Vec<Arc<str>>,
    assignment: Vec<TopicPartition>,
}

impl FakeKafka {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a record, as some other client's producer would.
    pub(crate) fn append(&self, record: ProducerRecord) {
        self.lock().append(record, Timestamp::ZERO);
        self.0.changed.notify_waiters();
    }

    /// The next `times` sends to `topic` go wrong.
    pub(crate) fn trouble(&self, topic: &str, times: u32, kind: Trouble) {
        self.lock().faults.push(Fault { topic: topic.into(), times, kind });
    }

    /// What producers on `host` send is refused, until `ends`.
    pub(crate) fn cut_off(&self, host: &str, ends: bool) {
        let mut state = self.lock();
        if ends {
            state.cut_off.remove(host);
        } else {
            state.cut_off.insert(host.to_owned());
        }
    }

    /// All records of a topic, partition after partition.
    pub(crate) fn records(&self, topic: &str) -> Vec<ConsumerRecord> {
        let state = self.lock();
        let of_topic = state.logs.iter().filter(|(partition, _)| &*partition.topic == topic);
        of_topic.flat_map(|(_, records)| records.iter().cloned()).collect()
    }

    /// Records sent by producers so far, those that went wrong included.
    pub(crate) fn sends(&self) -> u64 {
        self.lock().sends
    }

    /// All commits so far, in order.
    pub(crate) fn commits(&self) -> Vec<(TopicPartition, Offset)> {
        self.lock().commits.clone()
    }

    /// Partitions that a consumer has paused now.
    pub(crate) fn paused(&self) -> Vec<TopicPartition> {
        self.lock().paused.iter().cloned().collect()
    }

    /// The process of `host` is dead: its members leave their groups.
    pub(crate) fn client_gone(&self, host: &str) {
        let mut state = self.lock();
        for group in state.groups.values_mut() {
            let before = group.members.len();
            group.members.retain(|_, member| member.host != host);
            if group.members.len() != before {
                group.rebalance();
            }
        }
        drop(state);
        self.0.changed.notify_waiters();
    }

    /// How many records `group` has yet to commit of `topic`.
    pub(crate) fn lag(&self, group: &str, topic: &str) -> i64 {
        let state = self.lock();
        let committed = state.groups.get(group).map(|group| group.committed.clone()).unwrap_or_default();
        let of_topic = state.logs.iter().filter(|(partition, _)| &*partition.topic == topic);
        of_topic
            .map(|(partition, records)| records.len() as i64 - committed.get(partition).copied().unwrap_or(0))
            .sum()
    }
}

/// The partition of a key: spread, and the same always.
pub(crate) fn partition_of(topic: &str, key: &[u8]) -> TopicPartition {
    let sum: u32 = key.iter().map(|&byte| u32::from(byte)).sum();
    TopicPartition::new(topic, sum.cast_signed() % PARTITIONS)
}

impl State {
    fn append(&mut self, record: ProducerRecord, now: Timestamp) -> RecordMetadata {
        let key = record.key.clone().unwrap_or_default();
        let partition = partition_of(&record.topic, &key);
        let log = self.logs.entry(partition.clone()).or_default();
        let offset = log.len() as Offset;
        let timestamp = record.timestamp.unwrap_or(now);
        log.push(ConsumerRecord {
            partition: partition.clone(),
            offset,
            leader_epoch: Some(0),
            timestamp,
            key: record.key,
            value: record.value,
            headers: record.headers,
        });
        RecordMetadata { partition, offset: Some(offset), timestamp }
    }

    fn trouble(&mut self, topic: &str) -> Option<Trouble> {
        let fault = self.faults.iter_mut().find(|fault| fault.topic == topic && fault.times > 0)?;
        fault.times -= 1;
        Some(fault.kind)
    }
}

impl Group {
    fn rebalance(&mut self) {
        self.generation += 1;
        let topics: BTreeSet<Arc<str>> =
            self.members.values().flat_map(|member| member.topics.iter().cloned()).collect();
        let partitions = topics
            .iter()
            .flat_map(|topic| (0..PARTITIONS).map(|number| TopicPartition::new(topic.clone(), number)));
        let partitions: Vec<_> = partitions.collect();
        let count = self.members.len();
        for (number, member) in self.members.values_mut().enumerate() {
            member.assignment = partitions.iter().skip(number).step_by(count).cloned().collect();
        }
    }
}

/// The clients of one host.
pub(crate) struct FakeBroker {
    kafka: FakeKafka,
    context: Context,
}

impl FakeBroker {
    pub(crate) fn new(kafka: FakeKafka, context: Context) -> FakeBroker {
        FakeBroker { kafka, context }
    }
}

fn not_here(what: &str) -> Error {
    Error::new(ErrorCode::InvalidState, ErrorClass::Fatal, format!("the fake broker has no {what}"))
}

#[async_trait]
impl Broker for FakeBroker {
    async fn producer(&self, properties: &Properties) -> Result<Arc<dyn Producer>, Error> {
        assert_eq!(properties.get("enable.idempotence"), Some("true"), "the relay's producer is idempotent");
        let (kafka, context) = (self.kafka.clone(), self.context.clone());
        Ok(Arc::new(FakeProducer { kafka, context, fenced: Arc::default() }))
    }

    async fn consumer(&self, properties: &Properties) -> Result<Box<dyn Consumer>, Error> {
        assert_eq!(properties.get("enable.auto.commit"), Some("false"), "the router commits by itself");
        assert_eq!(properties.get("auto.offset.reset"), Some("earliest"), "a new group misses nothing");
        let mut state = self.kafka.lock();
        state.clients += 1;
        Ok(Box::new(FakeConsumer {
            kafka: self.kafka.clone(),
            context: self.context.clone(),
            group: properties.get("group.id").expect("the router has a group").to_owned(),
            id: state.clients,
            held: BTreeMap::new(),
            paused: BTreeSet::new(),
            generation: 0,
            listener: None,
        }))
    }

    async fn admin(&self, _: &Properties) -> Result<Arc<dyn Admin>, Error> {
        Err(not_here("admin client"))
    }
}

struct FakeProducer {
    kafka: FakeKafka,
    context: Context,
    fenced: Arc<Mutex<bool>>,
}

#[async_trait]
impl Producer for FakeProducer {
    fn send(&self, record: ProducerRecord) -> Delivery {
        let (kafka, context, fenced) = (self.kafka.clone(), self.context.clone(), self.fenced.clone());
        let now = context.now();
        // It arrives at once; the answer takes its time.
        let fate = {
            let mut state = kafka.lock();
            state.sends += 1;
            let mut fenced = fenced.lock().unwrap_or_else(PoisonError::into_inner);
            match state.trouble(&record.topic) {
                _ if *fenced => Err(Trouble::Fenced),
                _ if state.cut_off.contains(context.name()) => Err(Trouble::Refused),
                None => Ok(state.append(record, now)),
                Some(Trouble::Unacknowledged) => {
                    state.append(record, now);
                    Err(Trouble::Unacknowledged)
                }
                Some(Trouble::Fenced) => {
                    *fenced = true;
                    Err(Trouble::Fenced)
                }
                Some(Trouble::Refused) => Err(Trouble::Refused),
            }
        };
        kafka.0.changed.notify_waiters();
        Delivery::new(async move {
            context.sleep(Duration::from_millis(1)).await;
            fate.map_err(|trouble| {
                let (code, class) = match trouble {
                    Trouble::Refused => (ErrorCode::Broker(19), ErrorClass::Retriable),
                    Trouble::Unacknowledged => (ErrorCode::MessageTimedOut, ErrorClass::Retriable),
                    Trouble::Fenced => (ErrorCode::Broker(47), ErrorClass::Fenced),
                };
                Error::new(code, class, "a trouble that was asked for")
            })
        })
    }

    async fn flush(&self, _: Duration) -> Result<(), Error> {
        Ok(())
    }

    async fn init_transactions(&self, _: Duration) -> Result<(), Error> {
        Err(not_here("transactions"))
    }

    async fn begin_transaction(&self) -> Result<(), Error> {
        Err(not_here("transactions"))
    }

    async fn send_offsets_to_transaction(
        &self,
        _: &[(TopicPartition, OffsetAndMetadata)],
        _: &GroupMetadata,
        _: Duration,
    ) -> Result<(), Error> {
        Err(not_here("transactions"))
    }

    async fn commit_transaction(&self, _: Duration) -> Result<(), Error> {
        Err(not_here("transactions"))
    }

    async fn abort_transaction(&self, _: Duration) -> Result<(), Error> {
        Err(not_here("transactions"))
    }

    async fn close(&self, _: Duration) -> Result<(), Error> {
        Ok(())
    }
}

struct FakeConsumer {
    kafka: FakeKafka,
    context: Context,
    group: String,
    id: u64,
    /// What is held, with the next offset.
    held: BTreeMap<TopicPartition, Offset>,
    paused: BTreeSet<TopicPartition>,
    generation: i32,
    listener: Option<Box<dyn RebalanceListener>>,
}

impl FakeConsumer {
    /// Takes over what the group has assigned since.
    fn follow(&mut self) {
        let mut state = self.kafka.lock();
        let group = state.groups.entry(self.group.clone()).or_default();
        if group.generation == self.generation {
            return;
        }
        self.generation = group.generation;
        let assignment =
            group.members.get(&self.id).map(|member| member.assignment.clone()).unwrap_or_default();
        let held: Vec<_> = self.held.keys().cloned().collect();
        drop(state);
        // Eager: all goes, then what is assigned comes.
        self.give_up(&held);
        let state = self.kafka.lock();
        let committed = &state.groups[&self.group].committed;
        self.held = assignment
            .iter()
            .map(|partition| (partition.clone(), committed.get(partition).copied().unwrap_or(0)))
            .collect();
        drop(state);
        if let Some(listener) = &mut self.listener {
            listener.assigned(&assignment);
        }
    }

    fn give_up(&mut self, partitions: &[TopicPartition]) {
        if partitions.is_empty() {
            return;
        }
        let offsets = self.listener.as_mut().map(|listener| listener.revoked(partitions)).unwrap_or_default();
        self.note_commits(&offsets);
        self.held.clear();
        self.paused.clear();
    }

    fn note_commits(&self, offsets: &[(TopicPartition, OffsetAndMetadata)]) {
        let mut state = self.kafka.lock();
        for (partition, position) in offsets {
            state.commits.push((partition.clone(), position.offset));
            let group = state.groups.entry(self.group.clone()).or_default();
            group.committed.insert(partition.clone(), position.offset);
        }
    }

    fn fetch(&mut self) -> Vec<ConsumerRecord> {
        let state = self.kafka.lock();
        let mut records = Vec::new();
        for (partition, next) in &mut self.held {
            if self.paused.contains(partition) {
                continue;
            }
            let log = state.logs.get(partition).map(Vec::as_slice).unwrap_or_default();
            let new = log.iter().skip(usize::try_from(*next).expect("offsets are positive")).take(100);
            let before = records.len();
            records.extend(new.cloned());
            *next += (records.len() - before) as Offset;
        }
        records
    }
}

#[async_trait]
impl Consumer for FakeConsumer {
    async fn subscribe(
        &mut self,
        topics: &[Arc<str>],
        listener: Box<dyn RebalanceListener>,
    ) -> Result<(), Error> {
        self.listener = Some(listener);
        let mut state = self.kafka.lock();
        let group = state.groups.entry(self.group.clone()).or_default();
        let host = self.context.name().to_owned();
        group.members.insert(self.id, Member { host, topics: topics.to_vec(), assignment: Vec::new() });
        group.rebalance();
        drop(state);
        self.kafka.0.changed.notify_waiters();
        Ok(())
    }

    async fn unsubscribe(&mut self) -> Result<(), Error> {
        Err(not_here("unsubscribe"))
    }

    async fn assign(&mut self, _: &[TopicPartition]) -> Result<(), Error> {
        Err(not_here("assign"))
    }

    async fn poll(&mut self, timeout: Duration) -> Result<Vec<ConsumerRecord>, Error> {
        let end = self.context.now() + timeout;
        loop {
            let kafka = self.kafka.clone();
            let mut changed = std::pin::pin!(kafka.0.changed.notified());
            changed.as_mut().enable();
            self.follow();
            let records = self.fetch();
            if !records.is_empty() || self.context.now() >= end {
                return Ok(records);
            }
            let left = end.since(self.context.now());
            // Either way there is something to look at.
            self.context.timeout(left, changed).await.ok();
        }
    }

    async fn commit(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<(), Error> {
        self.context.sleep(Duration::from_millis(1)).await;
        let generation = self.kafka.lock().groups[&self.group].generation;
        if generation != self.generation {
            return Err(Error::new(ErrorCode::Broker(22), ErrorClass::Failed, "the group went on"));
        }
        self.note_commits(offsets);
        Ok(())
    }

    async fn committed(
        &mut self,
        _: &[TopicPartition],
        _: Duration,
    ) -> Result<Vec<(TopicPartition, OffsetAndMetadata)>, Error> {
        Err(not_here("committed"))
    }

    fn seek(&mut self, _: &TopicPartition, _: Offset) -> Result<(), Error> {
        Err(not_here("seek"))
    }

    fn pause(&mut self, partitions: &[TopicPartition]) {
        self.paused.extend(partitions.iter().cloned());
        self.kafka.lock().paused.extend(partitions.iter().cloned());
    }

    fn resume(&mut self, partitions: &[TopicPartition]) {
        let mut state = self.kafka.lock();
        for partition in partitions {
            self.paused.remove(partition);
            state.paused.remove(partition);
        }
    }

    fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        self.held.get(partition).copied()
    }

    fn assignment(&self) -> Vec<TopicPartition> {
        self.held.keys().cloned().collect()
    }

    fn group_metadata(&self) -> GroupMetadata {
        GroupMetadata::default()
    }

    async fn close(mut self: Box<Self>) -> Result<(), Error> {
        let held: Vec<_> = self.held.keys().cloned().collect();
        self.give_up(&held);
        let mut state = self.kafka.lock();
        let group = state.groups.entry(self.group.clone()).or_default();
        group.members.remove(&self.id);
        group.rebalance();
        drop(state);
        self.kafka.0.changed.notify_waiters();
        Ok(())
    }
}

//! What watches a story: the state of a partition, its high watermark, and a reader at the end.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use context::{Context, Task, Timestamp};
use kafka::log::batch::BatchHeader;
use kafka::log::record;
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::describe_topic_partitions_request::TopicRequest;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::*;

use crate::account::Account;
use crate::stage::{Stage, StageError};
use crate::wire::{Line, text};

/// The topic of every story: one partition, its replicas on brokers 1, 2 and 3 in this order: A, B, C.
pub(crate) const TOPIC: &str = "story";
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a high watermark that moves with the records of a producer may be the same.
const REST: Duration = Duration::from_secs(1);

/// One telling in progress.
#[derive(Clone)]
pub(crate) struct Telling {
    pub(crate) stage: Arc<dyn Stage>,
    pub(crate) context: Context,
    began: Timestamp,
    account: Arc<Mutex<Account>>,
    /// Brokers that the story has not taken down.
    answering: Arc<Mutex<BTreeSet<i32>>>,
    /// In the order of the assignment.
    replicas: Vec<i32>,
    /// The broker that described the partition last.
    asked_last: Arc<AtomicI32>,
    /// The leader that was seen last; none is -1.
    led_last: Arc<AtomicI32>,
    /// A producer writes all the time, so that no two tellings have the same offsets.
    pub(crate) is_written: Arc<AtomicBool>,
    /// It has stopped: where the high watermark stands then says nothing any more.
    pub(crate) was_written: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
}

/// A partition as one broker describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) leader: i32,
    pub(crate) epoch: i32,
    pub(crate) in_sync: BTreeSet<i32>,
    eligible: BTreeSet<i32>,
    last_known: BTreeSet<i32>,
}

impl Telling {
    /// A telling on a stage whose cluster may still be starting.
    pub(crate) fn open(stage: Arc<dyn Stage>) -> Telling {
        let context = stage.context();
        Telling {
            began: context.now(),
            stage,
            context,
            account: Arc::default(),
            answering: Arc::new(Mutex::new((1..=3).collect())),
            replicas: Vec::new(),
            asked_last: Arc::default(),
            led_last: Arc::new(AtomicI32::new(-1)),
            is_written: Arc::default(),
            was_written: Arc::default(),
            over: Arc::default(),
        }
    }

    /// Waits until the cluster answers, and makes the topic.
    pub(crate) async fn begin(
        stage: Arc<dyn Stage>,
        replicas: &[i32],
        config: &[(&str, &str)],
    ) -> Result<Telling, StageError> {
        Telling::open(stage).with_topic(replicas, config).await
    }

    /// Makes the topic; the story begins when all replicas are in sync.
    pub(crate) async fn with_topic(
        mut self,
        replicas: &[i32],
        config: &[(&str, &str)],
    ) -> Result<Telling, StageError> {
        self.eventually("the topic is made", async || self.make_topic(replicas, config).await).await?;
        let all: BTreeSet<i32> = replicas.iter().copied().collect();
        self.eventually("all replicas are in sync", async || {
            self.look().await.filter(|seen| seen.in_sync == all && seen.leader == replicas[0]).map(drop)
        })
        .await?;
        // A leader hears of its office like everyone else.
        self.eventually("the leader leads", async || self.latest(replicas[0], false).await.map(drop)).await?;
        self.began = self.context.now();
        self.replicas = replicas.to_vec();
        self.led_last.store(replicas[0], Ordering::Relaxed);
        Ok(self)
    }

    /// A replica's letter: A is the first of the assignment.
    fn letter(&self, broker: i32) -> String {
        match self.replicas.iter().position(|&replica| replica == broker) {
            Some(position) => char::from(b'A' + position as u8).to_string(),
            None if broker < 0 => "nobody".into(),
            None => "another broker".into(),
        }
    }

    fn letters(&self, brokers: &BTreeSet<i32>) -> String {
        if brokers.is_empty() {
            return "-".into();
        }
        let mut letters: Vec<_> = brokers.iter().map(|&broker| self.letter(broker)).collect();
        letters.sort();
        letters.join(" ")
    }

    fn describe(&self, seen: &Seen) -> String {
        let mut text = format!(
            "{} leads, epoch {}, in sync {}",
            self.letter(seen.leader),
            seen.epoch,
            self.letters(&seen.in_sync)
        );
        for (what, brokers) in [("eligible", &seen.eligible), ("last known", &seen.last_known)] {
            if !brokers.is_empty() {
                text += &format!(", {what} {}", self.letters(brokers));
            }
        }
        text
    }

    /// The brokers that the story has not taken down.
    pub(crate) fn up(&self) -> BTreeSet<i32> {
        self.answering().clone()
    }

    async fn make_topic(&self, replicas: &[i32], config: &[(&str, &str)]) -> Option<()> {
        let assignment = CreatableReplicaAssignment::default()
            .with_partition_index(0)
            .with_broker_ids(replicas.iter().map(|&id| BrokerId(id)).collect());
        let config = config.iter().map(|(name, value)| {
            CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
        });
        let topic = CreatableTopic::default()
            .with_name(TopicName(text(TOPIC)))
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_assignments(vec![assignment])
            .with_configs(config.collect());
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(5_000);
        match self.line(1).ask(ApiKey::CreateTopics, 5, request, Duration::from_secs(6)).await? {
            // 36: an earlier try was answered too late.
            ResponseKind::CreateTopics(response) => {
                response.topics.first().filter(|topic| matches!(topic.error_code, 0 | 36)).map(drop)
            }
            _ => None,
        }
    }

    pub(crate) fn line(&self, broker: i32) -> Line {
        Line::new(self.context.clone(), self.stage.address(broker))
    }

    /// Seconds into the story.
    pub(crate) fn seconds(&self) -> f64 {
        self.context.now().since(self.began).as_secs_f64()
    }

    /// Waits until so many seconds into the story.
    pub(crate) async fn at(&self, seconds: u64) {
        self.context.sleep_until(self.began + Duration::from_secs(seconds)).await;
    }

    pub(crate) fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answering(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        self.answering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn kill(&self, broker: i32) -> Result<(), StageError> {
        self.answering().remove(&broker);
        self.note(format!("{} is killed", self.letter(broker)));
        self.stage.kill(broker).await
    }

    pub(crate) async fn start(&self, broker: i32) -> Result<(), StageError> {
        self.note(format!("{} is started", self.letter(broker)));
        self.stage.start(broker).await?;
        self.answering().insert(broker);
        Ok(())
    }

    pub(crate) async fn pause(&self, broker: i32) -> Result<(), StageError> {
        self.answering().remove(&broker);
        self.note(format!("{} is paused", self.letter(broker)));
        self.stage.pause(broker).await
    }

    pub(crate) async fn resume(&self, broker: i32) -> Result<(), StageError> {
        self.note(format!("{} goes on", self.letter(broker)));
        self.stage.resume(broker).await?;
        self.answering().insert(broker);
        Ok(())
    }

    fn note(&self, text: String) {
        self.account().state(self.seconds(), "story", text);
    }

    /// Tries every 50 ms until something comes of it.
    pub(crate) async fn eventually<T, F>(
        &self,
        sentence: &str,
        mut fact: impl FnMut() -> F,
    ) -> Result<T, StageError>
    where
        F: Future<Output = Option<T>>,
    {
        let deadline = self.context.now() + Duration::from_secs(90);
        loop {
            if let Some(found) = fact().await {
                return Ok(found);
            }
            if self.context.now() > deadline {
                return Err(StageError(format!("not within 90 s: {sentence}\n{}", self.account().render())));
            }
            self.context.sleep(Duration::from_millis(50)).await;
        }
    }

    /// The partition as one broker has it: the one that answered last, as long as it does. Brokers learn at their own
    /// pace, so that going from one to another could show what was before.
    pub(crate) async fn look(&self) -> Option<Seen> {
        let asked_last = self.asked_last.load(Ordering::Relaxed);
        let mut brokers: Vec<i32> = self.up().into_iter().collect();
        brokers.sort_by_key(|broker| *broker != asked_last);
        for broker in brokers {
            let topic = TopicRequest::default().with_name(TopicName(text(TOPIC)));
            let request = DescribeTopicPartitionsRequest::default()
                .with_topics(vec![topic])
                .with_response_partition_limit(10);
            let answer = self.line(broker).ask(ApiKey::DescribeTopicPartitions, 0, request, PATIENCE).await;
            let Some(ResponseKind::DescribeTopicPartitions(response)) = answer else { continue };
            let Some(partition) = response.topics.first().and_then(|topic| topic.partitions.first()) else {
                continue;
            };
            self.asked_last.store(broker, Ordering::Relaxed);
            let set = |ids: &[BrokerId]| ids.iter().map(|id| id.0).collect::<BTreeSet<i32>>();
            let optional = |ids: &Option<Vec<BrokerId>>| ids.as_deref().map(set).unwrap_or_default();
            return Some(Seen {
                leader: partition.leader_id.0,
                epoch: partition.leader_epoch,
                in_sync: set(&partition.isr_nodes),
                eligible: optional(&partition.eligible_leader_replicas),
                last_known: optional(&partition.last_known_elr),
            });
        }
        None
    }

    /// Waits until the partition is as wanted.
    pub(crate) async fn until(
        &self,
        sentence: &str,
        wanted: impl Fn(&Seen) -> bool,
    ) -> Result<Seen, StageError> {
        let wanted = &wanted;
        let seen = self.eventually(sentence, async || self.look().await.filter(|seen| wanted(seen))).await?;
        // What the story goes on from is part of it, also where the watch has not looked yet.
        self.saw(&seen);
        Ok(seen)
    }

    /// Writes the partition's states and its high watermark down from now on.
    pub(crate) fn watch(&self) -> Task<()> {
        let this = self.clone();
        self.context.spawn("watch", async move {
            let watermark = this.clone();
            let watermark = this.context.spawn("watermark", async move { watermark.watch_watermark().await });
            while !this.over.load(Ordering::Relaxed) {
                if let Some(seen) = this.look().await {
                    this.saw(&seen);
                }
                this.context.sleep(LOOK_EVERY).await;
            }
            watermark.await.expect("it ends with the story");
        })
    }

    /// Asks the leader for the high watermark, as a consumer does that seeks the end: where it is, or, while a producer
    /// writes, whether it moves. A leader that gives an error, or nothing for half a second, tells nothing.
    async fn watch_watermark(&self) {
        // When it last moved, and when before that: a step alone is no motion.
        let (mut last, mut moved, mut before, mut silent) = (0, f64::MIN, f64::MIN, 0.0_f64);
        while !self.over.load(Ordering::Relaxed) && !self.was_written.load(Ordering::Relaxed) {
            let leader = self.led_last.load(Ordering::Relaxed);
            let asked = self.seconds();
            let told = if leader < 0 { None } else { self.latest_within(leader, false, PATIENCE / 4).await };
            let now = self.seconds();
            if let Some(told) = told
                && told != last
            {
                (last, before, moved) = (told, moved, now);
            }
            let (since, text) = match told {
                None => {
                    silent = now;
                    (asked, "nobody tells".into())
                }
                Some(_) if !self.is_written.load(Ordering::Relaxed) => {
                    (moved.max(silent), format!("at {last}"))
                }
                Some(_) if now - before < REST.as_secs_f64() => (now, "moves".into()),
                Some(_) => (moved.max(silent), "stands".into()),
            };
            self.account().state(since, "high watermark", text);
            self.context.sleep(LOOK_EVERY).await;
        }
    }

    fn saw(&self, seen: &Seen) {
        self.led_last.store(seen.leader, Ordering::Relaxed);
        let (at, text) = (self.seconds(), self.describe(seen));
        self.account().state(at, "partition", text);
    }

    /// Ends the watch and gives the account.
    pub(crate) async fn end(self, watch: Task<()>) -> Result<Account, StageError> {
        // What is so now has not been written down yet.
        self.context.sleep(LOOK_EVERY * 3).await;
        self.over.store(true, Ordering::Relaxed);
        watch.await.ok_or_else(|| StageError("the watch ended before the story".into()))?;
        Ok(self.account().clone())
    }

    /// Latest offset as a leader tells it: the high watermark, or the last stable offset.
    pub(crate) async fn latest(&self, broker: i32, committed: bool) -> Option<i64> {
        self.latest_within(broker, committed, PATIENCE).await
    }

    async fn latest_within(&self, broker: i32, committed: bool, patience: Duration) -> Option<i64> {
        let partition = ListOffsetsPartition::default().with_partition_index(0).with_timestamp(-1);
        let topic =
            ListOffsetsTopic::default().with_name(TopicName(text(TOPIC))).with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_isolation_level(i8::from(committed))
            .with_topics(vec![topic]);
        match self.line(broker).ask(ApiKey::ListOffsets, 5, request, patience).await? {
            ResponseKind::ListOffsets(response) => {
                let partition = response.topics.first()?.partitions.first()?;
                (partition.error_code == 0).then_some(partition.offset)
            }
            _ => None,
        }
    }

    /// Every value in the partition that a reader sees, markers left out.
    pub(crate) async fn read_all(&self, leader: i32, committed: bool) -> Option<Vec<String>> {
        let end = self.latest(leader, committed).await?;
        let mut line = self.line(leader);
        let (mut values, mut next) = (Vec::new(), 0);
        let mut aborted: BTreeSet<(i64, i64)> = BTreeSet::new();
        while next < end {
            let partition = FetchPartition::default()
                .with_partition(0)
                .with_fetch_offset(next)
                .with_partition_max_bytes(1 << 20);
            let topic =
                FetchTopic::default().with_topic(TopicName(text(TOPIC))).with_partitions(vec![partition]);
            let request = FetchRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_max_wait_ms(500)
                .with_min_bytes(1)
                .with_isolation_level(i8::from(committed))
                .with_topics(vec![topic]);
            let ResponseKind::Fetch(response) = line.ask(ApiKey::Fetch, 11, request, PATIENCE).await? else {
                return None;
            };
            let partition = response.responses.into_iter().next()?.partitions.into_iter().next()?;
            if partition.error_code != 0 {
                return None;
            }
            for one in partition.aborted_transactions.unwrap_or_default() {
                aborted.insert((one.producer_id.0, one.first_offset));
            }
            let mut rest = partition.records.unwrap_or_default();
            while let Ok(header) = BatchHeader::parse(&rest) {
                let batch = rest.split_to(header.size().min(rest.len()));
                next = header.next_offset();
                let is_aborted = header.is_transactional()
                    && aborted
                        .iter()
                        .any(|(id, from)| *id == header.producer_id && *from <= header.base_offset);
                let is_seen = !committed || !is_aborted;
                if !header.is_control() && is_seen {
                    let records = record::read_all(&header, &batch).ok()?;
                    let value = |record: record::Record| {
                        String::from_utf8_lossy(&record.value.unwrap_or_default()).into_owned()
                    };
                    values.extend(records.into_iter().map(value));
                }
            }
        }
        Some(values)
    }
}

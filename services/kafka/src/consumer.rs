//! The consumer: librdkafka's own, polled without a thread, with rebalances taken up inside the poll.

mod holding;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use broker::{
    Consumer, ConsumerRecord, Error, GroupMetadata, Header, Headers, Offset, OffsetAndMetadata, Properties,
    RebalanceListener, TopicPartition,
};
use bytes::Bytes;
use context::{Context, Timestamp};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::message::{BorrowedMessage, Headers as _, Message};
use rdkafka::topic_partition_list::Offset as RdOffset;

use crate::blocking::{blocking, drop_aside};
use crate::ending::Held;
use crate::error::{closed, from_kafka, invalid_state, passes_by_itself, timed_out};
use crate::lag::Lag;
use crate::properties::settings;
use crate::rebalance::{Callbacks, Change, give_up};
use crate::statistics::Statistics;
use crate::{native, partitions};

/// A poll looks again after this, should librdkafka ever not call.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// librdkafka's default of `max.poll.interval.ms`.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(300);
/// How long an unsubscribe waits for librdkafka to give the partitions up.
const GIVE_UP: Duration = Duration::from_secs(10);
/// librdkafka assigns partitions only to a consumer with a group id. This one is never joined, read or committed to.
const NO_GROUP: &str = "shakedown-without-a-group";

/// A consumer on librdkafka.
pub(crate) struct RdKafkaConsumer {
    context: Context,
    /// `None` once it was closed or given away to be dropped.
    base: Option<Arc<BaseConsumer<Callbacks>>>,
    callbacks: Callbacks,
    max_poll_records: usize,
    /// Whether there is a group to commit to.
    has_group: bool,
    /// Where to start without a committed offset; `Invalid` reports it as an error.
    reset: RdOffset,
    max_poll_interval: Duration,
    polled_at: Timestamp,
    mode: Mode,
    held: BTreeSet<TopicPartition>,
    /// The next offset to read, of the partitions that have been read or sought.
    positions: BTreeMap<TopicPartition, Offset>,
    /// Asked for and not yet passed on: until then no record of these partitions is given.
    seeks: BTreeMap<TopicPartition, Offset>,
    /// Of those held, where it was not learned yet where to start.
    unstarted: BTreeSet<TopicPartition>,
    /// When that is asked again.
    asks_at: Timestamp,
    /// Of those held, which give nothing.
    paused: BTreeSet<TopicPartition>,
    /// Taken from librdkafka and not given yet.
    taken: Vec<ConsumerRecord>,
    /// Errors that came behind records: the next polls give them.
    behind: VecDeque<Error>,
    /// One name for all records of a topic.
    names: BTreeSet<Arc<str>>,
    lag: Lag,
}

enum Mode {
    Idle,
    Subscribed(Box<dyn RebalanceListener>),
    Assigned,
}

impl RdKafkaConsumer {
    pub(crate) fn new(
        context: Context,
        statistics: &Statistics,
        properties: &Properties,
    ) -> Result<RdKafkaConsumer, Error> {
        let mut settings = settings(properties)?;
        let has_group = properties.get("group.id").is_some_and(|group| !group.is_empty());
        if !has_group {
            settings.config.set("group.id", NO_GROUP).set("enable.auto.commit", "false");
        }
        let reset = match properties.get("auto.offset.reset") {
            Some("smallest" | "earliest" | "beginning") => RdOffset::Beginning,
            Some("error") => RdOffset::Invalid,
            _ => RdOffset::End,
        };
        let callbacks = Callbacks::default();
        let base = settings.config.create_with_context(callbacks.clone());
        let mut base: BaseConsumer<Callbacks> = base.map_err(|error| from_kafka(&error, "a consumer"))?;
        base.set_nonempty_callback({
            let callbacks = callbacks.clone();
            move || callbacks.wake()
        });
        Ok(RdKafkaConsumer {
            context,
            base: Some(Arc::new(base)),
            callbacks,
            max_poll_records: settings.max_poll_records,
            has_group,
            reset,
            max_poll_interval: properties
                .get("max.poll.interval.ms")
                .and_then(|text| text.parse().ok())
                .map_or(MAX_POLL_INTERVAL, Duration::from_millis),
            polled_at: Timestamp::FAR_FUTURE,
            mode: Mode::Idle,
            held: BTreeSet::new(),
            positions: BTreeMap::new(),
            seeks: BTreeMap::new(),
            unstarted: BTreeSet::new(),
            asks_at: Timestamp::ZERO,
            paused: BTreeSet::new(),
            taken: Vec::new(),
            behind: VecDeque::new(),
            names: BTreeSet::new(),
            lag: Lag::new(statistics, properties),
        })
    }

    fn base(&self) -> Result<&Arc<BaseConsumer<Callbacks>>, Error> {
        self.base.as_ref().ok_or_else(|| closed("a consumer"))
    }

    /// Runs a call that blocks in librdkafka. If nobody waits for it any more, it may be the last that holds the consumer.
    async fn call<T: Send + 'static>(
        &mut self,
        call: impl FnOnce(&BaseConsumer<Callbacks>) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let base = Held::new(self.base()?.clone());
        Ok(blocking(move || call(&base)).await)
    }

    async fn commit_positions(
        &mut self,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
    ) -> Result<(), Error> {
        if offsets.is_empty() {
            return Ok(());
        }
        if !self.has_group {
            return Err(invalid_state("a commit needs a `group.id`"));
        }
        let list = partitions::positions(offsets)?;
        let committed = self.call(move |base| base.commit(&list, CommitMode::Sync).map(|()| list)).await?;
        let list = committed.map_err(|error| from_kafka(&error, "a commit"))?;
        self.callbacks.committed().extend(partitions::with_offset(&list));
        partitions::first_error(&list, "the commit of")
    }

    /// Takes what librdkafka has, without waiting. An error ends it, and is given alone.
    fn take(&mut self) -> Result<Vec<ConsumerRecord>, Error> {
        if let Some(error) = self.behind.pop_front() {
            return Err(error);
        }
        let base = self.base()?.clone();
        let mut records = Vec::new();
        while records.len() < self.max_poll_records && !self.callbacks.is_waiting() {
            let served = self.callbacks.served();
            match base.poll(Duration::ZERO) {
                Some(Ok(message)) => {
                    let record = self.record(&message);
                    if self.seeks.contains_key(&record.partition) {
                        continue;
                    }
                    self.positions.insert(record.partition.clone(), record.offset + 1);
                    records.push(record);
                }
                Some(Err(error)) if passes_by_itself(&error) => {}
                Some(Err(error)) if records.is_empty() => return Err(from_kafka(&error, "a poll")),
                Some(Err(error)) => {
                    self.behind.push_back(from_kafka(&error, "a poll"));
                    break;
                }
                // A poll that served a callback gives nothing, though there may be more behind it.
                None if self.callbacks.served() != served => {}
                None => break,
            }
        }
        Ok(records)
    }

    /// Passes statistics on, if there are some.
    fn speak(&mut self) {
        if let (Some(said), Some(base)) = (self.callbacks.said(), &self.base) {
            self.lag.say(base, &said, &self.held, &self.positions, &self.callbacks.committed());
        }
    }

    fn record(&mut self, message: &BorrowedMessage<'_>) -> ConsumerRecord {
        let headers = message.headers().map(|headers| {
            let header = |header: rdkafka::message::Header<'_, &[u8]>| Header {
                key: header.key.to_owned(),
                value: header.value.map(Bytes::copy_from_slice),
            };
            headers.iter().map(header).collect()
        });
        let millis = message.timestamp().to_millis().unwrap_or_default();
        ConsumerRecord {
            partition: TopicPartition::new(self.name(message.topic()), message.partition()),
            offset: message.offset(),
            leader_epoch: native::message_leader_epoch(message),
            timestamp: Timestamp::from_millis(u64::try_from(millis).unwrap_or_default()),
            key: message.key().map(Bytes::copy_from_slice),
            value: message.payload().map(Bytes::copy_from_slice),
            headers: Headers(headers.unwrap_or_default()),
        }
    }

    fn name(&mut self, topic: &str) -> Arc<str> {
        if let Some(name) = self.names.get(topic) {
            return name.clone();
        }
        let name: Arc<str> = topic.into();
        self.names.insert(name.clone());
        name
    }
}

#[async_trait]
impl Consumer for RdKafkaConsumer {
    async fn subscribe(
        &mut self,
        topics: &[Arc<str>],
        listener: Box<dyn RebalanceListener>,
    ) -> Result<(), Error> {
        if !self.has_group {
            return Err(invalid_state("a subscription needs a `group.id`"));
        }
        if matches!(self.mode, Mode::Assigned) {
            return Err(invalid_state("a subscription beside partitions that were assigned by hand"));
        }
        let names: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
        self.base()?.subscribe(&names).map_err(|error| from_kafka(&error, "a subscription"))?;
        self.mode = Mode::Subscribed(listener);
        Ok(())
    }

    async fn unsubscribe(&mut self) -> Result<(), Error> {
        if matches!(self.mode, Mode::Assigned) {
            self.give_all_up().await?;
            return self.base()?.unassign().map_err(|error| from_kafka(&error, "an unsubscription"));
        }
        let held = !self.held.is_empty();
        let committed = self.give_all_up().await;
        self.base()?.unsubscribe();
        // librdkafka leaves once it has been told that the partitions are free.
        let deadline = self.context.now() + GIVE_UP;
        let mut free = !held;
        while !free && self.context.now() < deadline {
            self.take().ok();
            while let Some(rebalance) = self.callbacks.next() {
                free |= rebalance.change != Change::Assign;
                give_up(self.base()?, &rebalance).map_err(|error| from_kafka(&error, "an unsubscription"))?;
            }
            if !free {
                self.context.timeout(LOOK_AGAIN, self.callbacks.ready()).await.ok();
            }
        }
        self.behind.clear();
        committed
    }

    async fn assign(&mut self, partitions: &[TopicPartition]) -> Result<(), Error> {
        if matches!(self.mode, Mode::Subscribed(_)) {
            return Err(invalid_state("partitions assigned by hand beside a subscription"));
        }
        self.forget_all();
        let starts = self.starts(partitions).await?;
        self.base()?.assign(&starts).map_err(|error| from_kafka(&error, "an assignment"))?;
        self.mode = Mode::Assigned;
        self.held = partitions.iter().cloned().collect();
        Ok(())
    }

    async fn poll(&mut self, timeout: Duration) -> Result<Vec<ConsumerRecord>, Error> {
        let started = self.context.now();
        let late = started.since(self.polled_at) > self.max_poll_interval;
        let deadline = started + timeout;
        loop {
            self.polled_at = self.context.now();
            if !self.taken.is_empty() {
                // A poll that was given up on its way has left them.
                return Ok(std::mem::take(&mut self.taken));
            }
            self.rebalance(late).await?;
            self.taken = self.take()?;
            self.speak();
            // What librdkafka wants is heard as it is polled. While it waits for an answer, a change to the assignment would be one.
            if !self.callbacks.is_waiting()
                && let Err(error) = self.move_on().await
            {
                if self.taken.is_empty() {
                    return Err(error);
                }
                self.behind.push_back(error);
            }
            if !self.taken.is_empty() || self.callbacks.is_waiting() {
                continue;
            }
            let left = deadline.since(self.context.now());
            if left.is_zero() {
                return Ok(Vec::new());
            }
            // What was refused is tried again soon: nothing wakes for it.
            let patience = match (self.seeks.is_empty(), self.unstarted.is_empty()) {
                (true, true) => LOOK_AGAIN,
                (true, false) => self.asks_at.since(self.context.now()),
                (false, _) => Duration::from_millis(20),
            };
            self.context.timeout(left.min(patience), self.callbacks.ready()).await.ok();
        }
    }

    async fn commit(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<(), Error> {
        self.commit_positions(offsets).await
    }

    async fn committed(
        &mut self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> Result<Vec<(TopicPartition, OffsetAndMetadata)>, Error> {
        if !self.has_group {
            return Err(invalid_state("committed offsets need a `group.id`"));
        }
        let list = partitions::list(partitions);
        let found = self.call(move |base| base.committed_offsets(list, timeout)).await?;
        let found = found.map_err(|error| from_kafka(&error, "the committed offsets"))?;
        partitions::committed(&found, "the committed offset of")
    }

    fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<(), Error> {
        if !self.held.contains(partition) {
            return Err(invalid_state(format!("a seek in {partition}, which is not assigned")));
        }
        self.seeks.insert(partition.clone(), offset);
        self.positions.insert(partition.clone(), offset);
        self.taken.retain(|record| record.partition != *partition);
        Ok(())
    }

    fn pause(&mut self, partitions: &[TopicPartition]) {
        self.paused.extend(partitions.iter().filter(|at| self.held.contains(at)).cloned());
        if let Some(base) = &self.base {
            // It fails for partitions that are not held, and they need no pause.
            base.pause(&partitions::list(partitions)).ok();
        }
    }

    fn resume(&mut self, partitions: &[TopicPartition]) {
        self.paused.retain(|at| !partitions.contains(at));
        if let Some(base) = &self.base {
            base.resume(&partitions::list(partitions)).ok();
        }
    }

    fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        self.positions.get(partition).copied()
    }

    fn assignment(&self) -> Vec<TopicPartition> {
        self.held.iter().cloned().collect()
    }

    fn group_metadata(&self) -> GroupMetadata {
        let outside = GroupMetadata { generation_id: -1, ..GroupMetadata::default() };
        match &self.base {
            Some(base) if self.has_group => native::group_metadata(base).unwrap_or(outside),
            _ => outside,
        }
    }

    async fn close(mut self: Box<Self>) -> Result<(), Error> {
        let committed = self.give_all_up().await;
        self.lag.end().await;
        self.callbacks.leave();
        let Some(base) = self.base.take() else { return committed };
        // Rebalances that nobody took up would hold the close back.
        while let Some(rebalance) = self.callbacks.next() {
            give_up(&base, &rebalance).map_err(|error| from_kafka(&error, "a close"))?;
        }
        let alone = Arc::strong_count(&base) == 1;
        blocking(move || drop(Held::new(base))).await;
        if !alone {
            return Err(timed_out(
                "a call of the consumer is still under way: the group is left when it ends",
            ));
        }
        committed
    }
}

impl Drop for RdKafkaConsumer {
    fn drop(&mut self) {
        self.callbacks.end();
        if let Some(base) = self.base.take() {
            drop_aside(Held::new(base));
        }
    }
}

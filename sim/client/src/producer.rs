//! The producer as its users hold it: takes records, hands them to the [`Sender`](crate::sender::Sender), and keeps the
//! fates that are still open.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use broker::{
    Delivery, Error, ErrorClass, ErrorCode, GroupMetadata, OffsetAndMetadata, Producer, ProducerRecord,
    TopicPartition,
};
use context::{Context, TaskHandle, Timestamp};
use tokio::sync::{Notify, oneshot};

use crate::accumulator::{Accumulator, Batch, Queued};
use crate::batch::{HEADER_BYTES, record_bytes_max};
use crate::cluster::{Cluster, topic_error};
use crate::error::{self, closed, code, timed_out};
use crate::open::Open;
use crate::partitioner::Partitioner;
use crate::properties::{Habits, Settings};
use crate::sender::{Sender, record_metadata};
use crate::sequences::Sequences;
use crate::transaction::Transaction;
use crate::transaction::calls::Transactions;
use crate::transaction::rules::Next;

/// A producer over the wire.
pub(crate) struct WireProducer {
    shared: Arc<Shared>,
    sender: TaskHandle,
}

/// What the producer and its sender share.
pub(crate) struct Shared {
    pub(crate) cluster: Arc<Cluster>,
    state: Mutex<State>,
    /// Something new to look at for the sender.
    pub(crate) wake: Notify,
    /// Records got their fate while someone flushes.
    pub(crate) settled: Notify,
    pub(crate) transactions: Transactions,
}

pub(crate) struct State {
    pub(crate) accumulator: Accumulator,
    pub(crate) sequences: Sequences,
    pub(crate) transaction: Transaction,
    partitioner: Partitioner,
    /// Records whose topic is not known yet, in the order of their sends.
    pub(crate) unplaced: BTreeMap<Arc<str>, VecDeque<Queued>>,
    /// Since when such a topic is known not to be there.
    pub(crate) missing_since: BTreeMap<Arc<str>, Timestamp>,
    /// All records without a fate.
    open: Open,
    open_bytes: usize,
    /// How many flushes wait.
    pub(crate) flushing: usize,
    closed: bool,
    /// The producer gave up.
    pub(crate) fatal: Option<Error>,
}

impl WireProducer {
    pub(crate) fn new(context: Context, settings: Settings, label: String) -> WireProducer {
        // A producer's question for a topic may create it, as in librdkafka.
        let cluster = Arc::new(Cluster::new(context.clone(), settings, label, true));
        let producer = &cluster.settings.producer;
        let state = State {
            accumulator: Accumulator::new(producer),
            sequences: match &producer.transactional_id {
                Some(_) => Sequences::of_transactions(cluster.settings.habits),
                None => Sequences::new(cluster.settings.habits, producer.idempotence),
            },
            transaction: Transaction::new(producer.transactional_id.is_some()),
            partitioner: Partitioner::new(producer, cluster.rng("partitioner")),
            unplaced: BTreeMap::new(),
            missing_since: BTreeMap::new(),
            open: Open::default(),
            open_bytes: 0,
            flushing: 0,
            closed: false,
            fatal: None,
        };
        let shared = Arc::new(Shared {
            transactions: Transactions::new(&cluster),
            cluster,
            state: Mutex::new(state),
            wake: Notify::new(),
            settled: Notify::new(),
        });
        let sender = context.spawn("kafka producer", Sender::new(shared.clone()).run()).handle();
        WireProducer { shared, sender }
    }
}

impl Drop for WireProducer {
    fn drop(&mut self) {
        self.sender.abort();
        self.shared.transactions.abort();
    }
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `at`; for ever if there is no such time.
    pub(crate) async fn until(&self, at: Option<Timestamp>) {
        match at {
            Some(at) => self.cluster.context.sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    fn send(&self, record: ProducerRecord) -> Delivery {
        let settings = &self.cluster.settings.producer;
        let (fate, hears) = oneshot::channel();
        let now = self.cluster.context.now();
        let bytes = record_bytes_max(record.key.as_deref(), record.value.as_deref(), &record.headers);
        let mut state = self.state();
        let refused = if let Some(fatal) = &state.fatal {
            Some(fatal.clone())
        } else if state.closed {
            Some(closed("the producer was closed"))
        } else if let Err(error) = state.transaction.admits() {
            Some(error)
        } else if bytes + HEADER_BYTES > settings.message_max_bytes {
            let max = settings.message_max_bytes;
            let text = format!("a record of {bytes} bytes; `message.max.bytes` is {max}");
            Some(error::answered(code::MESSAGE_TOO_LARGE, text))
        } else if state.open.len() >= settings.queue_messages_max
            || state.open_bytes + bytes > settings.queue_bytes_max
        {
            let text = format!("{} records are waiting for their acknowledgement", state.open.len());
            Some(Error::new(ErrorCode::QueueFull, ErrorClass::Retriable, text))
        } else {
            None
        };
        if let Some(error) = refused {
            return Delivery::failed(error);
        }
        let id = state.open.begin();
        state.open_bytes += bytes;
        let timestamp = record.timestamp.unwrap_or(now).as_millis();
        let timestamp = i64::try_from(timestamp).unwrap_or(i64::MAX);
        let queued = Queued { id, record, bytes, timestamp, sent_at: now, fate };
        let topic = &queued.record.topic;
        // A record must not overtake those that wait for the same topic.
        let known = match self.cluster.partition_count(topic) {
            Some(count) if !state.unplaced.contains_key(topic) => Some(count),
            _ => None,
        };
        let wake = match known {
            Some(count) => state.put(self, queued, count, now),
            None => {
                let first = !state.unplaced.contains_key(topic);
                state.unplaced.entry(topic.clone()).or_default().push_back(queued);
                first
            }
        };
        drop(state);
        if wake {
            self.wake.notify_one();
        }
        Delivery::told(hears)
    }

    async fn flush(&self, timeout: Duration) -> Result<(), Error> {
        let last = {
            let mut state = self.state();
            state.flushing += 1;
            state.open.next()
        };
        self.wake.notify_one();
        let flushing = Flushing { shared: self };
        let done = async {
            loop {
                // Registered before the look, so that a fate in between is heard.
                let settled = self.settled.notified();
                if self.state().open.first() >= last {
                    return;
                }
                settled.await;
            }
        };
        let result = self.cluster.context.timeout(timeout, done).await;
        drop(flushing);
        result.map_err(|_| {
            let open = self.state().open.before(last);
            timed_out(format!("{open} records without an acknowledgement after {timeout:?}"))
        })
    }
}

/// Keeps count of flushes, also of those that are dropped half way.
pub(crate) struct Flushing<'a> {
    pub(crate) shared: &'a Shared,
}

impl Drop for Flushing<'_> {
    fn drop(&mut self) {
        self.shared.state().flushing -= 1;
    }
}

impl State {
    /// Chooses the partition of a record and queues it there.
    fn put(&mut self, shared: &Shared, queued: Queued, count: i32, now: Timestamp) -> bool {
        let topic = &queued.record.topic;
        let partition = match queued.record.partition {
            Some(partition) if (0..count).contains(&partition) => partition,
            Some(partition) => {
                let text = format!("`{topic}` has partitions 0 to {}, not {partition}", count - 1);
                let error =
                    Error::new(ErrorCode::Broker(code::UNKNOWN_TOPIC_OR_PARTITION), ErrorClass::Failed, text);
                self.transaction.fail(&error, false);
                self.close_one(shared, queued.id, queued.bytes);
                // The one who sent it may not care.
                queued.fate.send(Err(error)).ok();
                return false;
            }
            None => {
                let key = queued.record.key.as_deref();
                self.partitioner.choose(now, topic, key, queued.bytes, count)
            }
        };
        let partition = TopicPartition::new(topic.clone(), partition);
        let registers = self.transaction.touch(&partition);
        self.accumulator.append(now, partition, queued) || registers
    }

    /// Every record sent so far has its fate, and nothing about partitions is under way.
    pub(crate) fn is_settled(&self) -> bool {
        self.open.is_empty() && !self.transaction.is_registering()
    }

    /// The topic is known now: queues what waited for it.
    pub(crate) fn place(&mut self, shared: &Shared, topic: &Arc<str>, now: Timestamp) {
        self.missing_since.remove(topic);
        let Some(count) = shared.cluster.partition_count(topic) else { return };
        for queued in self.unplaced.remove(topic).unwrap_or_default() {
            self.put(shared, queued, count, now);
        }
    }

    /// The topic will not be there.
    pub(crate) fn fail_unplaced(&mut self, shared: &Shared, topic: &Arc<str>, code: i16) {
        self.missing_since.remove(topic);
        // Retrying is over, so the class is not retriable, whatever the code's is.
        let error = Error { class: ErrorClass::Failed, ..topic_error(topic, code) };
        for queued in self.unplaced.remove(topic).unwrap_or_default() {
            self.transaction.fail(&error, false);
            self.close_one(shared, queued.id, queued.bytes);
            queued.fate.send(Err(error.clone())).ok();
        }
    }

    /// Fails what waited for its topic longer than `delivery.timeout.ms`.
    pub(crate) fn expire_unplaced(
        &mut self,
        shared: &Shared,
        topic: &Arc<str>,
        now: Timestamp,
        error: &Error,
    ) {
        let Some(timeout) = shared.cluster.settings.producer.delivery_timeout else { return };
        let Some(mut waiting) = self.unplaced.remove(topic) else { return };
        while waiting.front().is_some_and(|queued| queued.sent_at + timeout <= now) {
            let queued = waiting.pop_front().expect("looked at above");
            self.transaction.fail(error, false);
            self.close_one(shared, queued.id, queued.bytes);
            queued.fate.send(Err(error.clone())).ok();
        }
        if !waiting.is_empty() {
            self.unplaced.insert(topic.clone(), waiting);
        }
    }

    /// When the first record that waits for its topic runs out of time.
    pub(crate) fn next_unplaced_expiry(&self, timeout: Option<Duration>) -> Option<Timestamp> {
        let timeout = timeout?;
        self.unplaced.values().filter_map(VecDeque::front).map(|queued| queued.sent_at + timeout).min()
    }

    /// The batch is written: tells everyone where.
    pub(crate) fn deliver(
        &mut self,
        shared: &Shared,
        batch: Batch,
        base_offset: Option<i64>,
        appended_at: Option<i64>,
    ) {
        for (number, waiter) in (0..).zip(batch.waiters) {
            self.close_one(shared, waiter.id, waiter.bytes);
            let offset = base_offset.map(|base| base + number);
            let timestamp = appended_at.unwrap_or(waiter.timestamp);
            waiter.fate.send(Ok(record_metadata(&batch.partition, offset, timestamp))).ok();
        }
    }

    /// The batch is given up, and with it the transaction that it belongs to. With `ends_epoch` later ones need another
    /// epoch; Java takes one for each transaction that fails (`TransactionManager.maybeTransitionToErrorState`).
    pub(crate) fn fail(&mut self, shared: &Shared, batch: Batch, error: &Error, ends_epoch: bool) {
        let java = shared.cluster.settings.habits == Habits::Java;
        self.sequences.given_up(&batch, ends_epoch);
        self.transaction.fail(error, ends_epoch || java);
        self.drop_batch(shared, batch, error);
    }

    fn drop_batch(&mut self, shared: &Shared, batch: Batch, error: &Error) {
        for waiter in batch.waiters {
            self.close_one(shared, waiter.id, waiter.bytes);
            waiter.fate.send(Err(error.clone())).ok();
        }
    }

    /// The producer cannot go on: everything queued fails with it. What is in flight still gets its answer.
    pub(crate) fn give_up(&mut self, shared: &Shared, error: Error) {
        shared.cluster.context.note(format_args!("producer gives up: {error}"));
        self.fatal = Some(error.clone());
        self.fail_all(shared, &error);
    }

    /// What comes of a coordinator's error that ends the transaction, or the producer with it: the error in its class.
    pub(crate) fn stop_transaction(&mut self, shared: &Shared, next: Next, error: Error) -> Error {
        let class = match next {
            Next::Again { .. } => ErrorClass::Retriable,
            Next::Abort { .. } => ErrorClass::Abortable,
            Next::Fenced => ErrorClass::Fenced,
            Next::Fatal => ErrorClass::Fatal,
        };
        let error = Error { class, ..error };
        match next {
            Next::Again { .. } => {}
            Next::Abort { bump } => {
                self.transaction.fail(&error, bump);
                shared.wake.notify_one();
            }
            Next::Fenced | Next::Fatal => self.give_up(shared, error.clone()),
        }
        error
    }

    /// Drops what will not be sent because its transaction ends without it: all that has no number yet, and all there
    /// is once the epoch is used up.
    pub(crate) fn drop_unsent(&mut self, shared: &Shared) {
        if !self.transaction.drops_queued() {
            return;
        }
        let everything = self.sequences.is_draining() || self.transaction.wants_bump();
        let text = "dropped before it was sent: its transaction is aborted";
        let error = Error::new(ErrorCode::Purged, ErrorClass::Failed, text);
        for batch in self.accumulator.take_if(|batch| everything || batch.stamp.is_none()) {
            self.drop_batch(shared, batch, &error);
        }
        for queued in std::mem::take(&mut self.unplaced).into_values().flatten() {
            self.close_one(shared, queued.id, queued.bytes);
            queued.fate.send(Err(error.clone())).ok();
        }
    }

    fn fail_all(&mut self, shared: &Shared, error: &Error) {
        for batch in self.accumulator.take_all() {
            self.fail(shared, batch, error, false);
        }
        for queued in std::mem::take(&mut self.unplaced).into_values().flatten() {
            self.close_one(shared, queued.id, queued.bytes);
            queued.fate.send(Err(error.clone())).ok();
        }
    }

    fn close_one(&mut self, shared: &Shared, id: u64, bytes: usize) {
        self.open.end(id);
        self.open_bytes -= bytes;
        if self.flushing > 0 {
            shared.settled.notify_waiters();
        }
    }
}

#[async_trait]
impl Producer for WireProducer {
    fn send(&self, record: ProducerRecord) -> Delivery {
        self.shared.send(record)
    }

    async fn flush(&self, timeout: Duration) -> Result<(), Error> {
        self.shared.flush(timeout).await
    }

    async fn init_transactions(&self, timeout: Duration) -> Result<(), Error> {
        self.shared.init_transactions(timeout).await
    }

    async fn begin_transaction(&self) -> Result<(), Error> {
        self.shared.begin_transaction()
    }

    async fn send_offsets_to_transaction(
        &self,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
        group: &GroupMetadata,
        timeout: Duration,
    ) -> Result<(), Error> {
        self.shared.send_offsets(offsets, group, timeout).await
    }

    async fn commit_transaction(&self, timeout: Duration) -> Result<(), Error> {
        self.shared.commit_transaction(timeout).await
    }

    async fn abort_transaction(&self, timeout: Duration) -> Result<(), Error> {
        self.shared.abort_transaction(timeout).await
    }

    async fn close(&self, timeout: Duration) -> Result<(), Error> {
        if std::mem::replace(&mut self.shared.state().closed, true) {
            return Ok(());
        }
        let flushed = self.shared.flush(timeout).await;
        // With its task go the fates of what is in flight: their senders are dropped.
        self.sender.abort();
        self.shared.transactions.abort();
        self.shared
            .state()
            .fail_all(&self.shared, &closed("the producer was closed before the record was sent"));
        flushed
    }
}

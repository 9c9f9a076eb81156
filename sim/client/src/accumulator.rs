//! Records that wait to be sent: one queue of batches for each partition.
//!
//! A queue is in the order of the sends. A batch that must be sent again goes back to its old place, so that its
//! partition waits for it. Who may be sent when, and to whom, is the sender's to decide.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use broker::{Error, ProducerRecord, RecordMetadata, TopicPartition};
use bytes::Bytes;
use context::Timestamp;
use kafka::log::compression::Codec;
use tokio::sync::oneshot;

use crate::batch::{BatchBuilder, ProducerStamp};
use crate::properties::ProducerSettings;

/// A record with the one who waits for its fate.
pub(crate) struct Queued {
    /// Rises with each send.
    pub(crate) id: u64,
    pub(crate) record: ProducerRecord,
    /// What it counts for in the queue.
    pub(crate) bytes: usize,
    /// Milliseconds.
    pub(crate) timestamp: i64,
    pub(crate) sent_at: Timestamp,
    pub(crate) fate: oneshot::Sender<Result<RecordMetadata, Error>>,
}

/// Who waits for a record that is encoded already.
pub(crate) struct Waiter {
    pub(crate) id: u64,
    pub(crate) bytes: usize,
    pub(crate) timestamp: i64,
    pub(crate) fate: oneshot::Sender<Result<RecordMetadata, Error>>,
}

/// Records of one partition that travel together.
pub(crate) struct Batch {
    /// The id of its first record; later batches have higher ones.
    pub(crate) id: u64,
    pub(crate) partition: TopicPartition,
    pub(crate) waiters: Vec<Waiter>,
    /// When its first record runs out of time.
    pub(crate) expires: Timestamp,
    /// How often it was sent.
    pub(crate) attempts: u32,
    /// An attempt may have been written although its answer is missing.
    pub(crate) maybe_written: bool,
    /// Given by the first attempt of an idempotent producer and kept by the others.
    pub(crate) stamp: Option<ProducerStamp>,
    /// It belongs to a transaction.
    transactional: bool,
    codec: Codec,
    builder: BatchBuilder,
    /// Takes no more records.
    full: bool,
    /// Was put back: it waits for `ready_at` whatever happens.
    held: bool,
    /// The end of its linger, or of its backoff after a failure.
    ready_at: Timestamp,
}

impl Batch {
    /// How many records.
    pub(crate) fn count(&self) -> i32 {
        self.builder.count()
    }

    /// Its size on the wire.
    pub(crate) fn bytes(&self) -> usize {
        self.builder.bytes()
    }

    /// As it goes over the wire.
    pub(crate) fn encode(&self) -> Bytes {
        let stamp = self.stamp.unwrap_or(ProducerStamp::NONE);
        self.builder.encode(stamp, self.transactional, self.codec)
    }

    fn is_ready(&self, now: Timestamp, flushing: bool) -> bool {
        self.ready_at <= now || (!self.held && (self.full || flushing))
    }
}

/// The queues of all partitions.
pub(crate) struct Accumulator {
    linger: Duration,
    batch_bytes_max: usize,
    batch_messages_max: i32,
    delivery_timeout: Option<Duration>,
    transactional: bool,
    codec: Codec,
    queues: BTreeMap<TopicPartition, VecDeque<Batch>>,
}

impl Accumulator {
    pub(crate) fn new(settings: &ProducerSettings) -> Accumulator {
        Accumulator {
            linger: settings.linger,
            batch_bytes_max: settings.batch_bytes_max,
            batch_messages_max: settings.batch_messages_max,
            delivery_timeout: settings.delivery_timeout,
            transactional: settings.transactional_id.is_some(),
            codec: settings.codec,
            queues: BTreeMap::new(),
        }
    }

    /// Appends a record to its partition's queue. Says whether the sender has something new to look at: a batch that
    /// began or became full.
    pub(crate) fn append(&mut self, now: Timestamp, partition: TopicPartition, queued: Queued) -> bool {
        let entry = self.queues.entry(partition);
        let partition = entry.key().clone();
        let queue = entry.or_default();
        let fits = |batch: &Batch| !batch.full && batch.bytes() + queued.bytes <= self.batch_bytes_max;
        let begins = !queue.back().is_some_and(fits);
        if begins {
            if let Some(last) = queue.back_mut() {
                last.full = true;
            }
            queue.push_back(Batch {
                id: queued.id,
                partition,
                waiters: Vec::new(),
                expires: self
                    .delivery_timeout
                    .map_or(Timestamp::FAR_FUTURE, |timeout| queued.sent_at + timeout),
                attempts: 0,
                maybe_written: false,
                stamp: None,
                transactional: self.transactional,
                codec: self.codec,
                builder: BatchBuilder::default(),
                full: false,
                held: false,
                ready_at: now + self.linger,
            });
        }
        let batch = queue.back_mut().expect("one was pushed if there was none");
        let Queued { id, record, bytes, timestamp, fate, .. } = queued;
        batch.builder.append(timestamp, record.key.as_deref(), record.value.as_deref(), &record.headers);
        batch.waiters.push(Waiter { id, bytes, timestamp, fate });
        batch.full = batch.count() >= self.batch_messages_max || batch.bytes() >= self.batch_bytes_max;
        begins || batch.full
    }

    /// The partitions with something queued, in order.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        self.queues.iter().filter(|(_, queue)| !queue.is_empty()).map(|(partition, _)| partition)
    }

    /// The batch that is next in a partition, if it is ready: full, done lingering, or done waiting after a failure.
    pub(crate) fn ready(&self, partition: &TopicPartition, now: Timestamp, flushing: bool) -> Option<&Batch> {
        self.queues.get(partition)?.front().filter(|batch| batch.is_ready(now, flushing))
    }

    /// Takes the batch that is next in a partition; it takes no more records.
    pub(crate) fn take(&mut self, partition: &TopicPartition) -> Option<Batch> {
        let mut batch = self.queues.get_mut(partition)?.pop_front()?;
        batch.full = true;
        Some(batch)
    }

    /// Puts a batch back to its place in the order of the sends. It is ready again at `ready_at`.
    pub(crate) fn put_back(&mut self, mut batch: Batch, ready_at: Timestamp) {
        batch.ready_at = ready_at;
        batch.held = true;
        let queue = self.queues.entry(batch.partition.clone()).or_default();
        let place = queue.partition_point(|other| other.id < batch.id);
        queue.insert(place, batch);
    }

    /// Takes every batch whose time has run out.
    pub(crate) fn expire(&mut self, now: Timestamp) -> Vec<Batch> {
        self.take_if(|batch| batch.expires <= now)
    }

    /// Takes everything.
    pub(crate) fn take_all(&mut self) -> Vec<Batch> {
        self.take_if(|_| true)
    }

    /// Takes every batch for which the condition holds.
    pub(crate) fn take_if(&mut self, condition: impl Fn(&Batch) -> bool) -> Vec<Batch> {
        let mut taken = Vec::new();
        for queue in self.queues.values_mut() {
            if queue.iter().any(&condition) {
                let (out, kept): (VecDeque<_>, VecDeque<_>) = queue.drain(..).partition(&condition);
                taken.extend(out);
                *queue = kept;
            }
        }
        taken
    }

    /// Every queued batch, to be changed.
    pub(crate) fn batches_mut(&mut self) -> impl Iterator<Item = &mut Batch> {
        self.queues.values_mut().flatten()
    }

    /// Whether any queued batch may have been written by an attempt without an answer.
    pub(crate) fn any_maybe_written(&self) -> bool {
        self.queues.values().flatten().any(|batch| batch.maybe_written && batch.stamp.is_some())
    }

    /// The next time after `now` at which a front batch becomes ready, or any runs out of time.
    pub(crate) fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let fronts = self.queues.values().filter_map(VecDeque::front);
        let ready = fronts.map(|batch| batch.ready_at).filter(|at| *at > now);
        let expires = self.queues.values().flatten().map(|batch| batch.expires);
        ready.chain(expires).filter(|at| *at < Timestamp::FAR_FUTURE).min()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::properties::Settings;
    use broker::Properties;

    pub(crate) fn accumulator(pairs: &[(&str, i64)]) -> Accumulator {
        let base = Properties::new().set("bootstrap.servers", "b");
        let properties = pairs.iter().fold(base, |properties, (name, value)| properties.set(*name, value));
        Accumulator::new(&Settings::read(&properties).unwrap().producer)
    }

    pub(crate) fn at(partition: i32) -> TopicPartition {
        TopicPartition::new("t", partition)
    }

    pub(crate) fn append(accumulator: &mut Accumulator, now: u64, partition: i32, id: u64) -> bool {
        let now = Timestamp::from_millis(now);
        let record = ProducerRecord::new("t", "key", "value");
        let queued = Queued { id, record, bytes: 50, timestamp: 0, sent_at: now, fate: oneshot::channel().0 };
        accumulator.append(now, at(partition), queued)
    }

    fn millis(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn records_linger_together_and_the_sender_hears_once() {
        let mut accumulator = accumulator(&[("linger.ms", 5)]);
        assert!(append(&mut accumulator, 0, 0, 1));
        assert!(!append(&mut accumulator, 3, 0, 2));
        assert!(accumulator.ready(&at(0), millis(4), false).is_none());
        assert_eq!(accumulator.next_change(millis(4)), Some(millis(5)));
        assert!(accumulator.ready(&at(0), millis(4), true).is_some(), "a flush does not linger");
        assert_eq!(accumulator.ready(&at(0), millis(5), false).unwrap().count(), 2);
    }

    #[test]
    fn a_full_batch_is_ready_at_once_and_the_next_begins() {
        let mut accumulator = accumulator(&[("linger.ms", 1_000), ("batch.num.messages", 2)]);
        for id in 1..=3 {
            append(&mut accumulator, 0, 0, id);
        }
        assert_eq!(accumulator.ready(&at(0), millis(0), false).unwrap().count(), 2);
        assert_eq!(accumulator.take(&at(0)).unwrap().id, 1);
        assert!(accumulator.ready(&at(0), millis(0), false).is_none(), "the third record lingers");
    }

    #[test]
    fn a_batch_for_another_attempt_goes_back_to_its_place_and_holds_its_partition() {
        let mut accumulator = accumulator(&[("linger.ms", 0), ("batch.num.messages", 1)]);
        for id in 1..=3 {
            append(&mut accumulator, 0, 0, id);
        }
        append(&mut accumulator, 0, 1, 4);
        let mut first = accumulator.take(&at(0)).unwrap();
        let mut second = accumulator.take(&at(0)).unwrap();
        first.attempts += 1;
        second.attempts += 1;
        accumulator.put_back(second, millis(100));
        accumulator.put_back(first, millis(150));
        assert!(accumulator.ready(&at(0), millis(149), true).is_none(), "the first waits, so all wait");
        assert!(accumulator.ready(&at(1), millis(0), false).is_some(), "another partition does not");
        let order: Vec<_> = std::iter::from_fn(|| accumulator.take(&at(0))).map(|batch| batch.id).collect();
        assert_eq!(order, [1, 2, 3]);
    }

    #[test]
    fn a_batch_expires_with_its_first_record() {
        let mut accumulator = accumulator(&[("linger.ms", 0), ("delivery.timeout.ms", 1_000)]);
        append(&mut accumulator, 0, 0, 1);
        append(&mut accumulator, 500, 0, 2);
        append(&mut accumulator, 500, 1, 3);
        assert!(accumulator.expire(millis(999)).is_empty());
        assert_eq!(accumulator.next_change(millis(999)), Some(millis(1_000)));
        let expired = accumulator.expire(millis(1_000));
        assert_eq!(expired.len(), 1);
        assert_eq!(expired[0].count(), 2);
        assert_eq!(accumulator.partitions().count(), 1);
    }

    #[test]
    fn a_batch_keeps_below_its_size() {
        let mut accumulator = accumulator(&[("batch.size", 200)]);
        for id in 1..=20 {
            append(&mut accumulator, 0, 0, id);
        }
        let sizes: Vec<_> =
            std::iter::from_fn(|| accumulator.take(&at(0))).map(|batch| batch.bytes()).collect();
        assert!(sizes.len() > 1 && sizes.iter().all(|bytes| *bytes <= 200), "{sizes:?}");
    }
}

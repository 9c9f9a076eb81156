//! The harness's own host in the world: it creates the topics, copies records where a fault asks for it, and reads every
//! log from its start when the run is over.
//!
//! It is a client like any other, watched like any other. The runner gives it orders between two steps of time
//! ([`Observer`]); what became of them stands on a board that the runner reads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker::{
    Admin, Broker, Consumer, Error, NewTopic, OffsetSpec, ProducerRecord, Properties, TopicPartition,
};
use context::{Context, Program};
use rand::RngExt as _;
use tokio::sync::mpsc;

use crate::check::client::Content;
use crate::observed::{ObservedBroker, ObservedConsumer};

/// The observer's host.
pub const HOST: &str = "observer";

/// How long one call may take before it is tried again.
const CALL: Duration = Duration::from_secs(5);

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// The runner's side of the observer.
#[derive(Debug)]
pub struct Observer {
    orders: mpsc::UnboundedSender<Order>,
    board: Arc<Mutex<Board>>,
}

#[derive(Debug)]
enum Order {
    Create(Vec<NewTopic>),
    Copy { fault: usize, round: u64, topic: String, probability_ppm: u32 },
    ReadAll(Vec<String>),
}

/// What became of the orders.
#[derive(Debug, Default)]
struct Board {
    created: bool,
    /// The round of copying that is wanted, by fault. An earlier round that has not yet seen its end must not go on.
    copying: BTreeMap<usize, u64>,
    /// How many rounds each fault has begun.
    rounds: BTreeMap<usize, u64>,
    copied: BTreeMap<usize, u64>,
    read: bool,
    /// The last thing that went wrong, for the report of an order that is never done.
    trouble: Option<String>,
}

impl Observer {
    /// An observer and the program of its host. `broker` makes its way to the cluster.
    pub fn new(broker: impl Fn(&Context) -> ObservedBroker + Send + Sync + 'static) -> (Observer, Program) {
        let (orders, taken) = mpsc::unbounded_channel();
        let board = Arc::new(Mutex::new(Board::default()));
        let program = {
            let (board, taken) = (board.clone(), Mutex::new(Some(taken)));
            let broker = Arc::new(broker);
            context::program(move |context: Context| {
                let taken = lock(&taken).take().expect("no fault restarts the observer");
                let host = Host { broker: broker(&context), context, board: board.clone() };
                host.serve(taken)
            })
        };
        (Observer { orders, board }, program)
    }

    /// Has topics created; [`Observer::created`] tells when they are.
    pub fn create_topics(&self, topics: Vec<NewTopic>) {
        self.order(Order::Create(topics));
    }

    /// Every topic exists and each partition has a leader that answers.
    pub fn created(&self) -> bool {
        lock(&self.board).created
    }

    /// Appends a copy of records of `topic` that arrive from now on, each with this chance.
    pub fn copy_records(&self, fault: usize, topic: &str, probability_ppm: u32) {
        let round = {
            let mut board = lock(&self.board);
            let round = board.rounds.entry(fault).or_default();
            *round += 1;
            let round = *round;
            board.copying.insert(fault, round);
            round
        };
        self.order(Order::Copy { fault, round, topic: topic.to_owned(), probability_ppm });
    }

    /// Ends the copying for this fault.
    pub fn stop_copying(&self, fault: usize) {
        lock(&self.board).copying.remove(&fault);
    }

    /// How many copies this fault had acknowledged so far.
    pub fn copied(&self, fault: usize) -> u64 {
        lock(&self.board).copied.get(&fault).copied().unwrap_or(0)
    }

    /// Has every partition of `topics` read from its start; [`Observer::has_read`] tells when that is done.
    pub fn read_all(&self, topics: Vec<String>) {
        self.order(Order::ReadAll(topics));
    }

    /// Every log was read to its end.
    pub fn has_read(&self) -> bool {
        lock(&self.board).read
    }

    /// What went wrong last, if anything did.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.board).trouble.clone()
    }

    fn order(&self, order: Order) {
        // The other end lives in the host's program; it is gone only when the world is.
        self.orders.send(order).expect("the observer runs as long as its world");
    }
}

/// The host's side.
#[derive(Clone)]
struct Host {
    context: Context,
    broker: ObservedBroker,
    board: Arc<Mutex<Board>>,
}

impl Host {
    async fn serve(self, mut orders: mpsc::UnboundedReceiver<Order>) {
        while let Some(order) = orders.recv().await {
            let host = self.clone();
            self.context.spawn("order", host.carry_out(order));
        }
    }

    async fn carry_out(self, order: Order) {
        loop {
            let done = match &order {
                Order::Create(topics) => self.create(topics).await,
                Order::Copy { fault, round, topic, probability_ppm } => {
                    self.copy(*fault, *round, topic, *probability_ppm).await
                }
                Order::ReadAll(topics) => self.read(topics).await,
            };
            match done {
                Ok(()) => return,
                Err(error) => self.trouble(&error),
            }
            self.context.sleep(PAUSE).await;
        }
    }

    fn trouble(&self, error: &Error) {
        self.context.note(format_args!("observer tries again: {error}"));
        lock(&self.board).trouble = Some(error.to_string());
    }

    async fn create(&self, topics: &[NewTopic]) -> Result<(), Error> {
        let admin = self.broker.admin(&Properties::new()).await?;
        // An earlier try may have created some of them before its answer was lost.
        let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
        let existing = admin.describe_topics(&names).await?;
        let is_missing = |topic: &&NewTopic| existing.iter().all(|other| *other.name != *topic.name);
        let missing: Vec<NewTopic> = topics.iter().filter(is_missing).cloned().collect();
        if !missing.is_empty() {
            admin.create_topics(&missing).await?;
        }
        lock(&self.board).created = true;
        Ok(())
    }

    /// Copies records as they arrive, each into the partition it came from, until it is told to stop. Its own copies
    /// come back to it and are let pass, or one record would be copied for ever.
    async fn copy(&self, fault: usize, round: u64, topic: &str, probability_ppm: u32) -> Result<(), Error> {
        let producer = self.broker.producer(&Properties::new().set("enable.idempotence", true)).await?;
        // Each partition from its end, as soon as its own leader answers: other faults may have taken some of them.
        let mut consumer = self.reader("latest").await?;
        consumer.assign(&self.partitions(&[topic]).await?).await?;
        // A stream of its own for each fault and beginning: one fault more leaves the others' draws where they were.
        let mut rng = self.context.rng(&format!("copies/{fault}/{round}"));
        let mut own: BTreeMap<Content, u32> = BTreeMap::new();
        while lock(&self.board).copying.get(&fault) == Some(&round) {
            let records = match consumer.poll(Duration::from_millis(50)).await {
                Err(error) if error.is_retriable() => {
                    self.context.sleep(PAUSE).await;
                    continue;
                }
                records => records?,
            };
            for record in records {
                if let Some(returning) = own.get_mut(&Content::read(&record)).filter(|count| **count > 0) {
                    *returning -= 1;
                    continue;
                }
                if rng.random_range(0..1_000_000) >= probability_ppm {
                    continue;
                }
                let copy = ProducerRecord {
                    topic: record.partition.topic.clone(),
                    partition: Some(record.partition.partition),
                    key: record.key.clone(),
                    value: record.value.clone(),
                    headers: record.headers.clone(),
                    timestamp: Some(record.timestamp),
                };
                *own.entry(Content::read(&record)).or_default() += 1;
                let (delivery, board) = (producer.send(copy), self.board.clone());
                self.context.spawn("copy", async move {
                    if delivery.await.is_ok() {
                        *lock(&board).copied.entry(fault).or_default() += 1;
                    }
                });
            }
        }
        producer.close(CALL).await?;
        Box::new(consumer).close().await
    }

    async fn read(&self, topics: &[String]) -> Result<(), Error> {
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let partitions = self.partitions(&names).await?;
        let admin = self.broker.admin(&Properties::new()).await?;
        let starts = offsets(&*admin, &partitions, OffsetSpec::Earliest).await?;
        // The high watermarks first: what is written between the two questions would look as if it hung.
        let all = Properties::new().set("isolation.level", "read_uncommitted");
        let committed = Properties::new().set("isolation.level", "read_committed");
        let highs = offsets(&*self.broker.admin(&all).await?, &partitions, OffsetSpec::Latest).await?;
        let ends = offsets(&*self.broker.admin(&committed).await?, &partitions, OffsetSpec::Latest).await?;
        let mut consumer = self.reader("earliest").await?;
        consumer.assign(&partitions).await?;
        let mut left: BTreeMap<TopicPartition, (i64, i64)> = BTreeMap::new();
        for (((partition, start), (_, end)), (_, high)) in starts.into_iter().zip(ends).zip(highs) {
            consumer.seek(&partition, start)?;
            if start == end {
                consumer.read_to_end(&partition, end, high);
            } else {
                left.insert(partition, (end, high));
            }
        }
        while !left.is_empty() {
            consumer.poll(Duration::from_millis(500)).await?;
            left.retain(|partition, (end, high)| {
                // The position, not the last record: the log may end in a hole.
                let done = consumer.position(partition).is_some_and(|position| position >= *end);
                if done {
                    consumer.read_to_end(partition, *end, *high);
                }
                !done
            });
        }
        lock(&self.board).read = true;
        Box::new(consumer).close().await
    }

    /// A consumer without a group, that starts at the `earliest` or `latest` offset.
    async fn reader(&self, start: &str) -> Result<ObservedConsumer, Error> {
        let properties = Properties::new()
            .set("enable.auto.commit", false)
            .set("auto.offset.reset", start)
            .set("isolation.level", "read_committed");
        self.broker.observed_consumer(&properties).await
    }

    async fn partitions(&self, topics: &[&str]) -> Result<Vec<TopicPartition>, Error> {
        let admin = self.broker.admin(&Properties::new()).await?;
        let described = admin.describe_topics(topics).await?;
        let of_topic = |topic: &broker::TopicDescription| {
            let name = topic.name.clone();
            topic
                .partitions
                .iter()
                .map(move |at| TopicPartition::new(name.clone(), at.partition))
                .collect::<Vec<_>>()
        };
        let mut partitions: Vec<_> = described.iter().flat_map(of_topic).collect();
        partitions.sort();
        Ok(partitions)
    }
}

/// The offset of every partition, in the order of the partitions.
async fn offsets(
    admin: &dyn Admin,
    partitions: &[TopicPartition],
    spec: OffsetSpec,
) -> Result<Vec<(TopicPartition, i64)>, Error> {
    let asked: Vec<_> = partitions.iter().map(|partition| (partition.clone(), spec)).collect();
    let mut offsets = admin.list_offsets(&asked).await?;
    offsets.sort();
    assert_eq!(offsets.len(), partitions.len(), "every partition has a first and a last offset");
    Ok(offsets)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Random operations of clients on one partition.
//!
//! [`perform`] does a list of [`Operation`]s one after the other through a Broker and writes down the [`Answer`] of each;
//! [`expected`] tells the answers of a [model](Partition). A property test draws the lists and holds the two against each
//! other; brokers may be killed and started on the way, and no answer may change for it.
//!
//! There is one idempotent producer, one holder of a transactional id, and a reader for each isolation level. An
//! operation begins when the one before it was answered, so that each has one right answer. Absent: what several clients
//! do at once (the checks of a running scenario judge that), and time, which is why records carry times of their own.

mod model;

use std::sync::Arc;
use std::time::Duration;

use context::Timestamp;

pub use model::{Partition, expected};

use super::bench::text;
use super::{Bench, Failure, Subject};
use crate::{
    Admin, Consumer, NewTopic, Offset, OffsetAndMetadata, OffsetSpec, Producer, ProducerRecord, Properties,
    TopicPartition,
};

/// What a client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The idempotent producer sends so many records, all in flight at once, of this second and the following
    /// milliseconds.
    Send {
        /// How many.
        records: u8,
        /// The second of the first, after the times' beginning; seconds need not go up.
        second: u8,
    },
    /// The same in a transaction, which begins with it unless one is open.
    SendInTransaction {
        /// How many.
        records: u8,
        /// As in [`Operation::Send`].
        second: u8,
    },
    /// The group's position becomes part of the open transaction; nothing happens without one.
    SendOffset(Offset),
    /// The open transaction is committed; nothing happens without one.
    Commit,
    /// The open transaction is aborted; nothing happens without one.
    Abort,
    /// Another producer takes the transactional id, which ends the open transaction.
    TakeOver,
    /// A reader reads to the end of what it may see.
    Read {
        /// With `isolation.level=read_committed`.
        committed: bool,
        /// From where: hundredths of the way from offset 0 to the end. What is deleted by then is skipped, as
        /// `auto.offset.reset=earliest` says.
        from: u8,
    },
    /// The first offset that is kept.
    Earliest,
    /// The high watermark.
    Latest,
    /// The first offset of this second or later.
    AtTime(u8),
    /// The group commits this offset.
    CommitOffset(Offset),
    /// What the group has committed.
    Committed,
    /// Records are deleted: hundredths of the way from the start to the end.
    DeleteRecords(u8),
    /// The broker with this node id is killed and started again at once. After a deletion that waits until every replica has
    /// written down where its log begins: Kafka may lose a deletion with the processes of all replicas before that
    /// (`UnifiedLog.maybeIncrementLogStartOffset`).
    RestartBroker(i32),
}

/// What came of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// There was nothing to answer.
    Done,
    /// The offset asked for, if there is one; the offset of each record sent; the position committed.
    Offsets(Vec<Offset>),
    /// What was read: offsets and values.
    Records(Vec<(Offset, String)>),
    /// The coordinator keeps the position back while a transaction that may change it is open.
    Unstable,
}

/// When the times of records begin: some time ago on any clock, and later than nothing.
const TIMES_BEGIN: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const PATIENCE: Duration = Duration::from_secs(30);
/// A reader to whom nothing comes for so long has read everything, if its client does not count what it skips.
const SILENCE: Duration = Duration::from_secs(15);
/// A broker that was killed so long ago is known to be gone, or is back.
const SESSION_IS_OVER: Duration = Duration::from_secs(12);
/// So long after it came into sync a replica has heard where its leader's log begins, which may be half a second later than
/// the leader hears of it, and has written it down ([`super::FREQUENT_CLEANUP`]).
const START_IS_WRITTEN: Duration = Duration::from_secs(4);

fn time(second: u8, number: usize) -> Timestamp {
    TIMES_BEGIN + Duration::from_millis(u64::from(second) * 1_000 + number as u64)
}

/// A percentage of the way from `start` to `end`.
fn between(start: Offset, end: Offset, hundredths: u8) -> Offset {
    start + (end - start) * Offset::from(hundredths.min(100)) / 100
}

/// Performs the operations on a topic of its own, with `name` in its name and so many replicas.
///
/// # Errors
/// When an operation was not answered in a minute of retries, or failed for good.
pub async fn perform(
    subject: Arc<dyn Subject>,
    name: &'static str,
    replicas: i16,
    operations: &[Operation],
) -> Result<Vec<Answer>, Failure> {
    let mut desk = Desk::open(Bench::new(subject, name), replicas).await?;
    let mut answers = Vec::new();
    for operation in operations {
        let answer = desk.perform(operation).await;
        answers.push(answer.map_err(|failure| Failure(format!("{operation:?}: {}", failure.0)))?);
    }
    Ok(answers)
}

/// An open transaction, as its client knows it.
#[derive(Default)]
struct Open {
    first: Option<Offset>,
    last: Option<Offset>,
    offsets: bool,
}

/// The partition, and who asks for its offsets.
struct Place {
    bench: Bench,
    admin: Arc<dyn Admin>,
    at: TopicPartition,
}

struct Desk {
    place: Place,
    idempotent: Arc<dyn Producer>,
    transactional: Arc<dyn Producer>,
    open: Option<Open>,
    /// By isolation level: uncommitted, committed.
    readers: [Box<dyn Consumer>; 2],
    sent: usize,
    deleted: bool,
    /// When a broker was last killed.
    killed: Option<Timestamp>,
}

impl Desk {
    async fn open(bench: Bench, replicas: i16) -> Result<Desk, Failure> {
        let name = bench.name("t");
        let minimum = if replicas > 2 { "2" } else { "1" };
        // The records' times are old: they are kept all the same, and in one segment with the markers, which are new. In
        // several, a time is looked for only in the first that has it, whatever the log's start.
        let config =
            [("min.insync.replicas", minimum), ("retention.ms", "-1"), ("segment.ms", "315360000000")];
        let config = config.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let topic = NewTopic { replication_factor: Some(replicas), config, ..NewTopic::new(name.clone(), 1) };
        // The end is asked for as the high watermark is; by default it would be the last stable offset.
        let uncommitted = Properties::new().set("isolation.level", "read_uncommitted");
        let admin = bench.broker().admin(&uncommitted).await?;
        admin.create_topics(&[topic]).await?;
        let idempotent = bench.producer_with(Properties::new().set("message.timeout.ms", 300_000)).await?;
        let transactional = holder(&bench).await?;
        let mut readers = Vec::new();
        for isolation in ["read_uncommitted", "read_committed"] {
            let properties = Properties::new().set("isolation.level", isolation);
            let mut reader = bench.consumer_with("g", properties).await?;
            reader.assign(&[TopicPartition::new(name.clone(), 0)]).await?;
            readers.push(reader);
        }
        let readers = readers.try_into().map_err(|_| Failure("there are two isolation levels".into()))?;
        let at = TopicPartition::new(name, 0);
        let place = Place { bench, admin, at };
        Ok(Desk {
            place,
            idempotent,
            transactional,
            open: None,
            readers,
            sent: 0,
            deleted: false,
            killed: None,
        })
    }

    async fn perform(&mut self, operation: &Operation) -> Result<Answer, Failure> {
        Ok(match *operation {
            Operation::Send { records, second } => {
                Answer::Offsets(self.send(self.idempotent.clone(), records, second).await?)
            }
            Operation::SendInTransaction { records, second } => {
                let mut open = self.begun().await?;
                let offsets = self.send(self.transactional.clone(), records, second).await?;
                open.first = open.first.or(offsets.first().copied());
                open.last = offsets.last().copied().or(open.last);
                self.open = Some(open);
                Answer::Offsets(offsets)
            }
            Operation::SendOffset(offset) => {
                if let Some(open) = &mut self.open {
                    let position = [(self.place.at.clone(), OffsetAndMetadata::new(offset))];
                    let group = self.readers[1].group_metadata();
                    let producer = self.transactional.clone();
                    self.place
                        .bench
                        .retried(async || {
                            producer.send_offsets_to_transaction(&position, &group, PATIENCE).await
                        })
                        .await?;
                    open.offsets = true;
                }
                Answer::Done
            }
            Operation::Commit | Operation::Abort => {
                if let Some(open) = self.open.take() {
                    let producer = self.transactional.clone();
                    let end = async || match operation {
                        Operation::Commit => producer.commit_transaction(PATIENCE).await,
                        _ => producer.abort_transaction(PATIENCE).await,
                    };
                    self.place.bench.retried(end).await?;
                    self.place.ended(&open).await?;
                }
                Answer::Done
            }
            Operation::TakeOver => {
                self.transactional = holder(&self.place.bench).await?;
                if let Some(open) = self.open.take() {
                    self.place.ended(&open).await?;
                }
                Answer::Done
            }
            Operation::Read { committed, from } => self.read(committed, from).await?,
            Operation::Earliest => Answer::Offsets(self.place.offsets(OffsetSpec::Earliest).await?),
            Operation::Latest => Answer::Offsets(self.place.offsets(OffsetSpec::Latest).await?),
            Operation::AtTime(second) => {
                Answer::Offsets(self.place.offsets(OffsetSpec::At(time(second, 0))).await?)
            }
            Operation::CommitOffset(offset) => {
                let position = [(self.place.at.clone(), OffsetAndMetadata::new(offset))];
                let deadline = self.place.bench.context().now() + PATIENCE * 2;
                while let Err(error) = self.readers[1].commit(&position).await {
                    if !error.is_retriable() || self.place.bench.context().now() > deadline {
                        return Err(error.into());
                    }
                    self.place.bench.context().sleep(Duration::from_millis(100)).await;
                }
                Answer::Done
            }
            Operation::Committed => self.committed().await?,
            Operation::DeleteRecords(hundredths) => {
                let (start, end) = (self.place.earliest().await?, self.place.latest().await?);
                let before = [(self.place.at.clone(), between(start, end, hundredths))];
                let admin = self.place.admin.clone();
                self.deleted = true;
                let starts = self.place.bench.retried(async || admin.delete_records(&before).await).await?;
                Answer::Offsets(starts.into_iter().map(|(_, start)| start).collect())
            }
            Operation::RestartBroker(node) => {
                if self.deleted {
                    self.place.start_is_written(self.killed).await?;
                }
                self.killed = Some(self.place.bench.context().now());
                self.place.bench.subject().restart_broker(node).await?;
                Answer::Done
            }
        })
    }

    async fn begun(&mut self) -> Result<Open, Failure> {
        if let Some(open) = self.open.take() {
            return Ok(open);
        }
        self.transactional.begin_transaction().await?;
        Ok(Open::default())
    }

    async fn send(
        &mut self,
        producer: Arc<dyn Producer>,
        records: u8,
        second: u8,
    ) -> Result<Vec<Offset>, Failure> {
        let mut deliveries = Vec::new();
        for number in 0..usize::from(records) {
            let record = ProducerRecord {
                partition: Some(self.place.at.partition),
                timestamp: Some(time(second, number)),
                ..ProducerRecord::new(self.place.at.topic.clone(), "k", value(self.sent))
            };
            self.sent += 1;
            deliveries.push(producer.send(record));
        }
        let mut offsets = Vec::new();
        for delivery in deliveries {
            let offset = delivery.await?.offset;
            offsets.push(offset.ok_or_else(|| Failure("an acknowledgement without an offset".into()))?);
        }
        Ok(offsets)
    }

    async fn read(&mut self, committed: bool, from: u8) -> Result<Answer, Failure> {
        let latest = self.place.latest().await?;
        let first_open = self.open.as_ref().and_then(|open| open.first).filter(|_| committed);
        let end = first_open.unwrap_or(latest);
        let reader = &mut self.readers[usize::from(committed)];
        reader.seek(&self.place.at, between(0, end, from))?;
        let mut records = Vec::new();
        let mut heard = self.place.bench.context().now();
        while reader.position(&self.place.at).is_none_or(|position| position < end) {
            match reader.poll(Duration::from_millis(200)).await {
                Ok(more) if more.is_empty() => {}
                Ok(more) => {
                    heard = self.place.bench.context().now();
                    records.extend(more);
                }
                Err(error) if error.is_fatal() => return Err(error.into()),
                // The next poll goes on, as the interface says.
                Err(_) => {}
            }
            if self.place.bench.context().now() > heard + SILENCE {
                break;
            }
        }
        let seen = records.iter().map(|record| (record.offset, text(record.value.as_deref())));
        Ok(Answer::Records(seen.collect()))
    }

    async fn committed(&mut self) -> Result<Answer, Failure> {
        let unstable = self.open.as_ref().is_some_and(|open| open.offsets);
        let patience = if unstable { Duration::from_secs(2) } else { PATIENCE };
        let deadline = self.place.bench.context().now() + PATIENCE * 2;
        let at = std::slice::from_ref(&self.place.at);
        loop {
            match self.readers[1].committed(at, patience).await {
                Ok(positions) => {
                    let offsets = positions.into_iter().map(|(_, position)| position.offset);
                    return Ok(Answer::Offsets(offsets.collect()));
                }
                Err(error) if error.is_retriable() && unstable => return Ok(Answer::Unstable),
                Err(error) if error.is_retriable() && self.place.bench.context().now() < deadline => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Place {
    async fn earliest(&self) -> Result<Offset, Failure> {
        self.one(OffsetSpec::Earliest).await
    }

    async fn latest(&self) -> Result<Offset, Failure> {
        self.one(OffsetSpec::Latest).await
    }

    async fn one(&self, spec: OffsetSpec) -> Result<Offset, Failure> {
        let found = self.offsets(spec).await?;
        found.first().copied().ok_or_else(|| Failure("every partition has a start and an end".into()))
    }

    async fn offsets(&self, spec: OffsetSpec) -> Result<Vec<Offset>, Failure> {
        let asked = [(self.at.clone(), spec)];
        let found = self.bench.retried(async || self.admin.list_offsets(&asked).await).await?;
        Ok(found.into_iter().map(|(_, offset)| offset).collect())
    }

    /// Waits until every replica has written down where its log begins.
    async fn start_is_written(&self, killed: Option<Timestamp>) -> Result<(), Failure> {
        let context = self.bench.context();
        if let Some(killed) = killed {
            context.sleep_until(killed + SESSION_IS_OVER).await;
        }
        self.bench
            .eventually("all replicas are in sync", async || {
                let Ok(described) = self.admin.describe_topics(&[&self.at.topic]).await else {
                    return Ok(false);
                };
                let partition = described.first().and_then(|topic| topic.partitions.first());
                Ok(partition.is_some_and(|partition| partition.in_sync.len() == partition.replicas.len()))
            })
            .await?;
        context.sleep(START_IS_WRITTEN).await;
        Ok(())
    }

    /// Waits for the marker of a transaction: it is written after the producer was answered.
    async fn ended(&self, open: &Open) -> Result<(), Failure> {
        let Some(last) = open.last else { return Ok(()) };
        self.bench
            .eventually("the transaction's marker is there", async || Ok(self.latest().await? > last + 1))
            .await
    }
}

/// A producer that has just taken the transactional id.
async fn holder(bench: &Bench) -> Result<Arc<dyn Producer>, Failure> {
    let properties = Properties::new()
        .set("transactional.id", bench.name("p"))
        .set("transaction.timeout.ms", 600_000)
        .set("message.timeout.ms", 300_000);
    let producer = bench.producer_with(properties).await?;
    bench.retried(async || producer.init_transactions(PATIENCE).await).await?;
    Ok(producer)
}

fn value(number: usize) -> String {
    format!("r-{number}")
}

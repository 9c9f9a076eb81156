//! The harness's own clients: producers and a reader that write and read nothing but numbers, so that what goes wrong is
//! Kafka's or the client's.
//!
//! They are hosts like any other, watched like any other; the checks of Kafka judge them. A writer that dies goes on
//! where it was: its place is on the [`Board`], which outlives its host, as a database would.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker::{
    Broker, Error, NoRebalanceListener, OffsetAndMetadata, Producer, ProducerRecord, Properties,
    TopicPartition,
};
use context::{Context, Rng, Timestamp};
use rand::RngExt as _;

use crate::scenario::Probe;
use crate::system::{Clients, Group, Role, SystemHost};

/// How many records a transaction writes, each some time after the other.
const RECORDS: u32 = 4;
/// How long one call on a transaction waits before it is made again.
const CALL: Duration = Duration::from_secs(5);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);
const POLL: Duration = Duration::from_millis(500);
/// The reader commits all of its positions at every so many polls.
const RECOMMIT: u64 = 10;

/// How far the writers are.
#[derive(Debug, Default)]
pub(crate) struct Board {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The next number of each writer.
    next: BTreeMap<u32, u32>,
    /// Records without a fate.
    open: u64,
    finished: BTreeMap<u32, bool>,
}

impl Board {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every writer has written all, and each record has its fate.
    pub(crate) fn finished(&self, probe: &Probe) -> bool {
        let state = self.state();
        state.open == 0
            && (1..=probe.writers).all(|writer| state.finished.get(&writer).copied().unwrap_or(false))
    }
}

/// The probe's topic has no other readers.
pub(crate) fn group() -> Group {
    Group { id: Probe::GROUP.to_owned(), topics: vec![Probe::TOPIC.to_owned()] }
}

/// The hosts of a probe.
pub(crate) fn hosts(
    probe: &Probe,
    partitions: u32,
    clients: &Clients,
    board: &Arc<Board>,
) -> Vec<SystemHost> {
    let reader = clients.clone();
    let mut hosts = vec![SystemHost {
        name: Probe::READER.to_owned(),
        role: Role::Service,
        program: context::program(move |context| read(context.clone(), reader.broker(&context))),
    }];
    for number in 1..=probe.writers {
        let (clients, probe, board) = (clients.clone(), probe.clone(), board.clone());
        hosts.push(SystemHost {
            name: Probe::writer(number),
            role: Role::Workload,
            program: context::program(move |context| {
                let writer = Writer {
                    broker: clients.broker(&context),
                    rng: context.rng("probe"),
                    began: context.now(),
                    context,
                    number,
                    probe: probe.clone(),
                    partitions,
                    board: board.clone(),
                };
                writer.run()
            }),
        });
    }
    hosts
}

struct Writer {
    context: Context,
    broker: Arc<dyn Broker>,
    rng: Rng,
    began: Timestamp,
    number: u32,
    probe: Probe,
    partitions: u32,
    board: Arc<Board>,
}

impl Writer {
    async fn run(mut self) {
        // What the count leaves over goes to the first writers.
        let share = (self.probe.count + self.probe.writers - self.number) / self.probe.writers;
        let first = self.next();
        while self.next() < share {
            match self.write(share, first).await {
                Ok(()) => {}
                Err(error) => {
                    self.context.note(format_args!("probe begins with a new producer: {error}"));
                    self.context.sleep(PAUSE).await;
                }
            }
        }
        self.board.state().finished.insert(self.number, true);
    }

    fn next(&self) -> u32 {
        self.board.state().next.get(&self.number).copied().unwrap_or(0)
    }

    /// Takes the next number: whatever becomes of it, it is not written again.
    fn take(&self) -> u32 {
        let mut state = self.board.state();
        let next = state.next.entry(self.number).or_default();
        *next += 1;
        *next - 1
    }

    /// Writes until all is written, or the producer can go on no longer.
    async fn write(&mut self, share: u32, first: u32) -> Result<(), Error> {
        let producer = self.broker.producer(&self.probe.producer_properties(self.number)).await?;
        if self.probe.transactions {
            self.retried(async || producer.init_transactions(CALL).await).await?;
        }
        while self.next() < share {
            // Each writer has its part of the arrivals.
            let gap = self.probe.arrival.gap() * self.probe.writers;
            let due = self.began + gap * (self.next() - first);
            self.context.sleep_until(due).await;
            let number = self.take();
            if self.probe.transactions {
                self.transaction(&*producer, number, gap).await?;
            } else {
                self.record(&*producer, number);
            }
        }
        producer.flush(Duration::from_secs(600)).await?;
        producer.close(CALL).await
    }

    /// Sends one record; its fate is awaited beside.
    fn record(&mut self, producer: &dyn Producer, number: u32) {
        let partition = self.rng.random_range(0..self.partitions);
        self.board.state().open += 1;
        let delivery = producer.send(self.value(partition, format!("{}-{number}", self.number)));
        let board = self.board.clone();
        self.context.spawn("delivery", async move {
            // The checks hear of the fate by themselves.
            drop(delivery.await);
            board.state().open -= 1;
        });
    }

    fn value(&self, partition: u32, value: String) -> ProducerRecord {
        let mut record = ProducerRecord::new(Probe::TOPIC, format!("probe-{}", self.number), value);
        record.partition = Some(i32::try_from(partition).expect("a topic's partitions fit"));
        record
    }

    /// One transaction over some time: what is delayed of the one before has a chance to meet it.
    async fn transaction(
        &mut self,
        producer: &dyn Producer,
        number: u32,
        gap: Duration,
    ) -> Result<(), Error> {
        let commit = self.rng.random_range(0..1_000_000) >= self.probe.abort_ppm;
        let pause = gap / (RECORDS + 1);
        producer.begin_transaction().await?;
        let mut deliveries = Vec::new();
        for part in 0..RECORDS {
            let partition = self.rng.random_range(0..self.partitions);
            deliveries.push(producer.send(self.value(partition, format!("{}-{number}.{part}", self.number))));
            self.context.sleep(whole_millis(pause)).await;
        }
        let mut sent = Ok(());
        for delivery in deliveries {
            if let Err(error) = delivery.await {
                sent = Err(error);
            }
        }
        match sent {
            Ok(()) if commit => {}
            Err(error) if error.is_fatal() => return Err(error),
            _ => return self.retried(async || producer.abort_transaction(CALL).await).await,
        }
        match self.retried(async || producer.commit_transaction(CALL).await).await {
            Err(error) if error.class == broker::ErrorClass::Abortable => {
                self.retried(async || producer.abort_transaction(CALL).await).await
            }
            result => result,
        }
    }

    /// Calls again while the error says so.
    async fn retried<F>(&self, call: impl Fn() -> F) -> Result<(), Error>
    where
        F: Future<Output = Result<(), Error>>,
    {
        loop {
            match call().await {
                Err(error) if error.is_retriable() => self.context.sleep(PAUSE).await,
                result => return result,
            }
        }
    }
}

fn whole_millis(span: Duration) -> Duration {
    Duration::from_millis(u64::try_from(span.as_millis()).expect("a scenario's times fit"))
}

/// Reads the topic in a group, and commits where it is.
async fn read(context: Context, broker: Arc<dyn Broker>) {
    loop {
        if let Err(error) = read_on(&context, &*broker).await {
            context.note(format_args!("probe begins with a new consumer: {error}"));
        }
        context.sleep(PAUSE).await;
    }
}

async fn read_on(context: &Context, broker: &dyn Broker) -> Result<(), Error> {
    let properties = Properties::new()
        .set("group.id", Probe::GROUP)
        .set("enable.auto.commit", false)
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("session.timeout.ms", 10_000)
        // A join whose coordinator loses power is answered by nobody: the client waits for as long as this.
        .set("max.poll.interval.ms", 30_000);
    let mut consumer = broker.consumer(&properties).await?;
    consumer.subscribe(&[Probe::TOPIC.into()], Box::new(NoRebalanceListener)).await?;
    let mut committed: BTreeMap<TopicPartition, i64> = BTreeMap::new();
    let mut polls = 0_u64;
    loop {
        match consumer.poll(POLL).await {
            Err(error) if error.is_fatal() => return Err(error),
            Err(error) => context.note(format_args!("probe polls again: {error}")),
            Ok(_) => {}
        }
        // The positions, not the last records: a log may end in markers.
        let held = consumer.assignment();
        let positions = held.iter().filter_map(|at| Some((at.clone(), consumer.position(at)?)));
        polls += 1;
        // Now and then all of them: a commit that was acknowledged may have been lost with the log that it was in.
        let all = polls.is_multiple_of(RECOMMIT);
        let news: BTreeMap<_, _> =
            positions.filter(|(at, position)| all || committed.get(at) != Some(position)).collect();
        if news.is_empty() {
            continue;
        }
        let offsets: Vec<_> =
            news.iter().map(|(at, position)| (at.clone(), OffsetAndMetadata::new(*position))).collect();
        match consumer.commit(&offsets).await {
            Ok(()) => committed.extend(news),
            Err(error) if error.is_fatal() => return Err(error),
            Err(error) => context.note(format_args!("probe commits later: {error}")),
        }
    }
}

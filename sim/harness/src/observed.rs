//! Kafka's clients, watched: a [`Broker`] around a [`Broker`] that shows the checks what each client did and was told.
//!
//! It changes nothing and adds no time. Every client of a run goes through it, the harness's own included; that is how
//! the check on idempotent producers knows the copies that `duplicate_records` appends.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use broker::{
    Admin, Broker, Consumer, ConsumerRecord, Delivery, Error, GroupMetadata, Offset, OffsetAndMetadata,
    Producer, ProducerRecord, Properties, RebalanceListener, TopicPartition,
};
use context::{Context, Timestamp};

use crate::check::client::{ClientAct, ClientEvent, ClientId, SendId};
use crate::recorder::RunRecorder;

/// Hears what clients did and were told.
pub trait Listening: Send + Sync {
    /// It happened at `at`, on the clock of the client's host.
    fn hear(&self, at: Timestamp, event: &ClientEvent<'_>);
}

/// Shows the checks of a run what clients did, at once.
#[derive(Debug)]
pub struct Onlookers {
    recorder: Arc<RunRecorder>,
}

impl Onlookers {
    /// The checks behind a run's recorder, which numbers its events.
    pub fn new(recorder: Arc<RunRecorder>) -> Onlookers {
        Onlookers { recorder }
    }
}

impl Listening for Onlookers {
    fn hear(&self, at: Timestamp, event: &ClientEvent<'_>) {
        self.recorder.show_client(at, event);
    }
}

/// Where the clients of one run report.
pub struct Desk {
    listening: Arc<dyn Listening>,
    clients: AtomicU64,
    sends: AtomicU64,
}

impl Desk {
    /// A desk for the clients of a run; `listening` hears of all of them.
    pub fn new(listening: Arc<dyn Listening>) -> Desk {
        Desk::numbered_after(0, listening)
    }

    /// A desk whose clients and sends are numbered after `last`: for one of several processes.
    pub fn numbered_after(last: u64, listening: Arc<dyn Listening>) -> Desk {
        Desk { listening, clients: AtomicU64::new(last), sends: AtomicU64::new(last) }
    }

    /// A simulated run has one thread; the counters are atomic because clients must be `Sync`.
    fn next_client(&self) -> ClientId {
        ClientId(self.clients.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn next_send(&self) -> SendId {
        SendId(self.sends.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// A cluster as one host reaches it, watched.
#[derive(Clone)]
pub struct ObservedBroker {
    inner: Arc<dyn Broker>,
    context: Context,
    desk: Arc<Desk>,
}

/// One client's line to the desk.
#[derive(Clone)]
struct Reporter {
    client: ClientId,
    context: Context,
    desk: Arc<Desk>,
}

impl Reporter {
    fn report(&self, act: ClientAct<'_>) {
        let event = ClientEvent { client: self.client, host: self.context.name(), act };
        self.desk.listening.hear(self.context.now(), &event);
    }
}

impl ObservedBroker {
    /// Watches what the host of `context` does through `inner`.
    pub fn new(inner: Arc<dyn Broker>, context: Context, desk: Arc<Desk>) -> ObservedBroker {
        ObservedBroker { inner, context, desk }
    }

    /// As [`Broker::consumer`], with its own type.
    ///
    /// # Errors
    /// As [`Broker::consumer`].
    pub async fn observed_consumer(&self, properties: &Properties) -> Result<ObservedConsumer, Error> {
        let inner = self.inner.consumer(properties).await?;
        let reporter = self.reporter();
        // On unless it is switched off: the default of librdkafka.
        let auto_commit = properties.get("enable.auto.commit") != Some("false");
        // The default of librdkafka; Java's client reads all.
        let java = properties.get("shakedown.client.habits") == Some("java");
        let isolation = properties.get("isolation.level");
        let committed_only = isolation.map_or(!java, |level| level == "read_committed");
        let group = properties.get("group.id");
        let reset = properties.get("auto.offset.reset");
        let from_earliest = reset.is_some_and(|reset| matches!(reset, "earliest" | "smallest" | "beginning"));
        reporter.report(ClientAct::ConsumerOpened { group, committed_only, auto_commit, from_earliest });
        Ok(ObservedConsumer { inner, reporter })
    }

    fn reporter(&self) -> Reporter {
        Reporter { client: self.desk.next_client(), context: self.context.clone(), desk: self.desk.clone() }
    }
}

#[async_trait]
impl Broker for ObservedBroker {
    async fn producer(&self, properties: &Properties) -> Result<Arc<dyn Producer>, Error> {
        let inner = self.inner.producer(properties).await?;
        let reporter = self.reporter();
        // A transactional producer is idempotent whatever it says.
        let transactional = properties.get("transactional.id").is_some();
        let java = properties.get("shakedown.client.habits") == Some("java");
        let idempotence = properties.get("enable.idempotence");
        let idempotent = transactional || idempotence.map_or(java, |value| value == "true");
        reporter.report(ClientAct::ProducerOpened { idempotent, transactional });
        Ok(Arc::new(ObservedProducer { inner, reporter, turn: Mutex::default() }))
    }

    async fn consumer(&self, properties: &Properties) -> Result<Box<dyn Consumer>, Error> {
        Ok(Box::new(self.observed_consumer(properties).await?))
    }

    async fn admin(&self, properties: &Properties) -> Result<Arc<dyn Admin>, Error> {
        self.inner.admin(properties).await
    }
}

struct ObservedProducer {
    inner: Arc<dyn Producer>,
    reporter: Reporter,
    /// Held over a send and its report: on several threads the reports must come in the order of the sends.
    turn: Mutex<()>,
}

#[async_trait]
impl Producer for ObservedProducer {
    fn send(&self, record: ProducerRecord) -> Delivery {
        let send = self.reporter.desk.next_send();
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.reporter.report(ClientAct::Sent { send, record: &record });
        let (delivery, reporter) = (self.inner.send(record), self.reporter.clone());
        drop(turn);
        // Whoever drops the delivery never learns the fate, and neither do the checks: it may have happened.
        Delivery::new(async move {
            let fate = delivery.await;
            reporter.report(match &fate {
                Ok(metadata) => ClientAct::Acknowledged { send, metadata },
                Err(error) => ClientAct::GivenUp { send, error },
            });
            fate
        })
    }

    async fn flush(&self, timeout: Duration) -> Result<(), Error> {
        self.inner.flush(timeout).await
    }

    async fn init_transactions(&self, timeout: Duration) -> Result<(), Error> {
        self.inner.init_transactions(timeout).await
    }

    async fn begin_transaction(&self) -> Result<(), Error> {
        self.inner.begin_transaction().await?;
        self.reporter.report(ClientAct::TransactionBegan);
        Ok(())
    }

    async fn send_offsets_to_transaction(
        &self,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
        group: &GroupMetadata,
        timeout: Duration,
    ) -> Result<(), Error> {
        self.reporter.report(ClientAct::SendingOffsets { group: &group.group_id, offsets });
        self.inner.send_offsets_to_transaction(offsets, group, timeout).await
    }

    async fn commit_transaction(&self, timeout: Duration) -> Result<(), Error> {
        self.reporter.report(ClientAct::TransactionEnding { commit: true });
        self.inner.commit_transaction(timeout).await?;
        self.reporter.report(ClientAct::TransactionEnded { commit: true });
        Ok(())
    }

    async fn abort_transaction(&self, timeout: Duration) -> Result<(), Error> {
        self.reporter.report(ClientAct::TransactionEnding { commit: false });
        self.inner.abort_transaction(timeout).await?;
        self.reporter.report(ClientAct::TransactionEnded { commit: false });
        Ok(())
    }

    async fn close(&self, timeout: Duration) -> Result<(), Error> {
        self.inner.close(timeout).await
    }
}

/// A consumer, watched.
pub struct ObservedConsumer {
    inner: Box<dyn Consumer>,
    reporter: Reporter,
}

impl ObservedConsumer {
    /// Says that this consumer has read `partition` from its start to the end of what is committed.
    pub fn read_to_end(&self, partition: &TopicPartition, end: Offset, high_watermark: Offset) {
        self.reporter.report(ClientAct::ReadToEnd { partition, end, high_watermark });
    }

    fn gone(&self, held: &[TopicPartition]) {
        if !held.is_empty() {
            self.reporter.report(ClientAct::Revoked(held));
        }
    }
}

#[async_trait]
impl Consumer for ObservedConsumer {
    async fn subscribe(
        &mut self,
        topics: &[Arc<str>],
        listener: Box<dyn RebalanceListener>,
    ) -> Result<(), Error> {
        let listener = ObservedListener { inner: listener, reporter: self.reporter.clone() };
        self.inner.subscribe(topics, Box::new(listener)).await
    }

    async fn unsubscribe(&mut self) -> Result<(), Error> {
        let held = self.inner.assignment();
        let done = self.inner.unsubscribe().await;
        self.gone(&held);
        done
    }

    async fn assign(&mut self, partitions: &[TopicPartition]) -> Result<(), Error> {
        let held = self.inner.assignment();
        self.inner.assign(partitions).await?;
        self.gone(&held);
        self.reporter.report(ClientAct::Assigned(partitions));
        Ok(())
    }

    async fn poll(&mut self, timeout: Duration) -> Result<Vec<ConsumerRecord>, Error> {
        let records = self.inner.poll(timeout).await?;
        if !records.is_empty() {
            self.reporter.report(ClientAct::Polled(&records));
        }
        Ok(records)
    }

    async fn commit(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<(), Error> {
        self.reporter.report(ClientAct::Committing(offsets));
        self.inner.commit(offsets).await?;
        self.reporter.report(ClientAct::Committed(offsets));
        Ok(())
    }

    async fn committed(
        &mut self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> Result<Vec<(TopicPartition, OffsetAndMetadata)>, Error> {
        self.inner.committed(partitions, timeout).await
    }

    fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<(), Error> {
        self.inner.seek(partition, offset)?;
        self.reporter.report(ClientAct::Sought { partition, offset });
        Ok(())
    }

    fn pause(&mut self, partitions: &[TopicPartition]) {
        self.inner.pause(partitions);
    }

    fn resume(&mut self, partitions: &[TopicPartition]) {
        self.inner.resume(partitions);
    }

    fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        self.inner.position(partition)
    }

    fn assignment(&self) -> Vec<TopicPartition> {
        self.inner.assignment()
    }

    fn group_metadata(&self) -> GroupMetadata {
        self.inner.group_metadata()
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        let held = self.inner.assignment();
        let ObservedConsumer { inner, reporter } = *self;
        let done = inner.close().await;
        if !held.is_empty() {
            reporter.report(ClientAct::Revoked(&held));
        }
        done
    }
}

struct ObservedListener {
    inner: Box<dyn RebalanceListener>,
    reporter: Reporter,
}

impl RebalanceListener for ObservedListener {
    fn assigned(&mut self, partitions: &[TopicPartition]) {
        self.reporter.report(ClientAct::Assigned(partitions));
        self.inner.assigned(partitions);
    }

    fn revoked(&mut self, partitions: &[TopicPartition]) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        let offsets = self.inner.revoked(partitions);
        if !offsets.is_empty() {
            self.reporter.report(ClientAct::Committing(&offsets));
        }
        self.reporter.report(ClientAct::Revoked(partitions));
        offsets
    }

    fn lost(&mut self, partitions: &[TopicPartition]) {
        self.reporter.report(ClientAct::Revoked(partitions));
        self.inner.lost(partitions);
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Desk({} clients)", self.clients.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for ObservedBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObservedBroker({})", self.context.name())
    }
}

impl fmt::Debug for ObservedConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObservedConsumer({:?})", self.reporter.client)
    }
}

//! The producer: records go into librdkafka's queue, deliveries come back through one polling thread.

use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use broker::{
    Delivery, Error, ErrorCode, GroupMetadata, Offset, OffsetAndMetadata, Producer, ProducerRecord,
    Properties, RecordMetadata, TopicPartition,
};
use context::Timestamp;
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::statistics::Statistics as Said;
use tokio::sync::oneshot;

use crate::blocking::{blocking, drop_aside};
use crate::error::{Flags, closed, from_code, from_flags, from_kafka};
use crate::properties::settings;
use crate::statistics::{self, Place, Registered, Statistics};
use crate::{native, partitions};

/// A producer on librdkafka.
pub(crate) struct RdKafkaProducer {
    /// `None` once closed. Sends share it, so they do not wait for one another.
    inner: RwLock<Option<Arc<ThreadedProducer<Deliveries>>>>,
    /// Until the close.
    registered: Mutex<Option<Registered>>,
}

/// Carries each delivery report to the one who waits for it, and statistics to where they are looked at.
struct Deliveries {
    statistics: Place,
}

/// What a record in flight keeps: where it goes, and who waits.
struct InFlight {
    topic: Arc<str>,
    fate: oneshot::Sender<Result<RecordMetadata, Error>>,
}

impl ClientContext for Deliveries {
    fn stats(&self, said: Said) {
        self.statistics.put(statistics::producer(&said));
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<InFlight>;

    fn delivery(&self, result: &DeliveryResult<'_>, in_flight: Box<InFlight>) {
        let InFlight { topic, fate } = *in_flight;
        let outcome = match result {
            Ok(message) => Ok(RecordMetadata {
                partition: TopicPartition::new(topic, message.partition()),
                offset: known(message.offset()),
                timestamp: millis(message.timestamp().to_millis().unwrap_or_default()),
            }),
            Err((error, message)) => {
                let at = TopicPartition::new(topic, message.partition());
                Err(from_kafka(error, format_args!("a record for {at}")))
            }
        };
        // Nobody waits for a delivery that was dropped.
        fate.send(outcome).ok();
    }
}

/// After a fatal error librdkafka drops records without saying why: the reason is the producer's.
fn cause(producer: &Weak<ThreadedProducer<Deliveries>>, error: Error) -> Error {
    let dropped = matches!(error.code, ErrorCode::Purged | ErrorCode::InvalidState);
    let fatal = producer.upgrade().filter(|_| dropped).and_then(|inner| inner.client().fatal_error());
    match fatal {
        Some((code, text)) => {
            let flags = Flags { fatal: true, ..Flags::default() };
            from_flags(code, flags, format!("{}: {text}", error.message))
        }
        None => error,
    }
}

/// librdkafka has -1001 for an offset that was not told (`acks=0`), and -1 for that of an old duplicate.
fn known(offset: i64) -> Option<Offset> {
    (offset >= 0).then_some(offset)
}

fn millis(since_epoch: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(since_epoch).unwrap_or_default())
}

impl RdKafkaProducer {
    pub(crate) fn new(all: &Statistics, properties: &Properties) -> Result<RdKafkaProducer, Error> {
        let settings = settings(properties)?;
        let registered = all.register();
        let inner = settings.config.create_with_context(Deliveries { statistics: registered.place() });
        let inner: ThreadedProducer<_> = inner.map_err(|error| from_kafka(&error, "a producer"))?;
        let inner = RwLock::new(Some(Arc::new(inner)));
        Ok(RdKafkaProducer { inner, registered: Mutex::new(Some(registered)) })
    }

    fn inner(&self, what: &str) -> Result<Arc<ThreadedProducer<Deliveries>>, Error> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.clone().ok_or_else(|| closed(what))
    }

    /// Runs a call that blocks in librdkafka.
    async fn call(
        &self,
        what: &'static str,
        call: impl FnOnce(&ThreadedProducer<Deliveries>) -> Result<(), KafkaError> + Send + 'static,
    ) -> Result<(), Error> {
        let inner = self.inner(what)?;
        blocking(move || call(&inner)).await.map_err(|error| from_kafka(&error, what))
    }
}

#[async_trait]
impl Producer for RdKafkaProducer {
    fn send(&self, record: ProducerRecord) -> Delivery {
        let inner = match self.inner("a send") {
            Ok(inner) => inner,
            Err(error) => return Delivery::failed(error),
        };
        let (fate, outcome) = oneshot::channel();
        let in_flight = Box::new(InFlight { topic: record.topic.clone(), fate });
        let mut sent = BaseRecord::<[u8], [u8], _>::with_opaque_to(&record.topic, in_flight);
        sent.key = record.key.as_deref();
        sent.payload = record.value.as_deref();
        sent.partition = record.partition;
        sent.timestamp = record.timestamp.map(|at| i64::try_from(at.as_millis()).unwrap_or(i64::MAX));
        if !record.headers.0.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(record.headers.0.len());
            sent.headers = Some(record.headers.iter().fold(headers, |headers, header| {
                headers.insert(Header { key: &header.key, value: header.value.as_deref() })
            }));
        }
        match inner.send(sent) {
            Ok(()) => {
                let inner = Arc::downgrade(&inner);
                Delivery::new(async move {
                    match outcome.await {
                        Ok(outcome) => outcome.map_err(|error| cause(&inner, error)),
                        // The producer was dropped with the record still in flight.
                        Err(_) => Err(closed("a record in flight")),
                    }
                })
            }
            Err((error, _)) => {
                let error = from_kafka(&error, format_args!("a record for {}", record.topic));
                Delivery::failed(cause(&Arc::downgrade(&inner), error))
            }
        }
    }

    async fn flush(&self, timeout: Duration) -> Result<(), Error> {
        self.call("a flush", move |inner| inner.flush(timeout)).await
    }

    async fn init_transactions(&self, timeout: Duration) -> Result<(), Error> {
        self.call("init_transactions", move |inner| inner.init_transactions(timeout)).await
    }

    async fn begin_transaction(&self) -> Result<(), Error> {
        self.call("begin_transaction", |inner| inner.begin_transaction()).await
    }

    async fn send_offsets_to_transaction(
        &self,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
        group: &GroupMetadata,
        timeout: Duration,
    ) -> Result<(), Error> {
        let inner = self.inner("send_offsets_to_transaction")?;
        let offsets = partitions::positions(offsets)?;
        let group = group.clone();
        blocking(move || native::send_offsets_to_transaction(&*inner, &offsets, &group, timeout)).await
    }

    async fn commit_transaction(&self, timeout: Duration) -> Result<(), Error> {
        self.call("commit_transaction", move |inner| inner.commit_transaction(timeout)).await
    }

    async fn abort_transaction(&self, timeout: Duration) -> Result<(), Error> {
        self.call("abort_transaction", move |inner| inner.abort_transaction(timeout)).await
    }

    async fn close(&self, timeout: Duration) -> Result<(), Error> {
        let inner = self.inner.write().unwrap_or_else(PoisonError::into_inner).take();
        let Some(inner) = inner else { return Ok(()) };
        let flushed = blocking(move || {
            let flushed = inner.flush(timeout);
            // Here, because it waits for the polling thread.
            drop(inner);
            flushed
        });
        let flushed = flushed.await;
        drop(self.registered.lock().unwrap_or_else(PoisonError::into_inner).take());
        flushed.map_err(|error| match error {
            KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut) => from_code(
                RDKafkaErrorCode::OperationTimedOut,
                format_args!("records are in flight still, {timeout:?} after the close"),
            ),
            error => from_kafka(&error, "a close"),
        })
    }
}

impl Drop for RdKafkaProducer {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            drop_aside(inner);
        }
    }
}

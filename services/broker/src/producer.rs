//! Sending records.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use async_trait::async_trait;
use context::BoxFuture;
use tokio::sync::oneshot;

use crate::{
    Error, ErrorClass, ErrorCode, GroupMetadata, OffsetAndMetadata, ProducerRecord, RecordMetadata,
    TopicPartition,
};

/// The fate of a record that was sent. The record goes out whether or not this is awaited.
///
/// An error of class retriable here means that the producer gave up retrying. With [`crate::ErrorCode::TimedOut`] or
/// [`crate::ErrorCode::MessageTimedOut`] the record may have been appended all the same.
#[must_use = "an unacknowledged record may be lost; await the delivery, or flush"]
pub struct Delivery(Fate);

enum Fate {
    /// Records are many: what waits for one is no more than the channel on which it is told.
    Told(oneshot::Receiver<Result<RecordMetadata, Error>>),
    Becomes(BoxFuture<'static, Result<RecordMetadata, Error>>),
}

impl Delivery {
    /// A delivery that ends as `fate` does.
    pub fn new(fate: impl Future<Output = Result<RecordMetadata, Error>> + Send + 'static) -> Delivery {
        Delivery(Fate::Becomes(Box::pin(fate)))
    }

    /// A delivery that ends as the producer says on this channel; with [`ErrorCode::Closed`] if it goes away and says
    /// nothing.
    pub fn told(fate: oneshot::Receiver<Result<RecordMetadata, Error>>) -> Delivery {
        Delivery(Fate::Told(fate))
    }

    /// A delivery that failed before it began.
    pub fn failed(error: Error) -> Delivery {
        Delivery::new(std::future::ready(Err(error)))
    }
}

fn unsaid() -> Error {
    let text = "the producer went away before the acknowledgement";
    Error::new(ErrorCode::Closed, ErrorClass::Fatal, text)
}

impl Future for Delivery {
    type Output = Result<RecordMetadata, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Fate::Told(fate) => Pin::new(fate).poll(cx).map(|said| said.unwrap_or_else(|_| Err(unsaid()))),
            Fate::Becomes(fate) => fate.as_mut().poll(cx),
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Delivery")
    }
}

/// Sends records; shared between tasks. Sends of one task to one partition keep their order, as far as
/// `enable.idempotence` and `max.in.flight.requests.per.connection` promise it.
#[async_trait]
pub trait Producer: Send + Sync {
    /// Queues a record and returns at once; many may be in flight.
    ///
    /// A full queue gives a delivery that failed with [`crate::ErrorCode::QueueFull`].
    fn send(&self, record: ProducerRecord) -> Delivery;

    /// Sends what lingers and waits until every record sent before has its fate.
    ///
    /// # Errors
    /// [`crate::ErrorCode::TimedOut`] if some have none within `timeout`.
    async fn flush(&self, timeout: Duration) -> Result<(), Error>;

    /// Registers `transactional.id`: fences its earlier holders and ends their transactions. Once, before the first
    /// transaction.
    ///
    /// # Errors
    /// [`crate::ErrorCode::InvalidState`] without a `transactional.id`.
    async fn init_transactions(&self, timeout: Duration) -> Result<(), Error>;

    /// Begins a transaction: sends until its end belong to it.
    ///
    /// # Errors
    /// [`crate::ErrorCode::InvalidState`] if one is open or none can be; fenced.
    async fn begin_transaction(&self) -> Result<(), Error>;

    /// Makes consumed positions part of the transaction. `group` fences a member that its group went on without.
    ///
    /// # Errors
    /// Abortable or fenced, as Kafka answers.
    async fn send_offsets_to_transaction(
        &self,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
        group: &GroupMetadata,
        timeout: Duration,
    ) -> Result<(), Error>;

    /// Flushes, then commits.
    ///
    /// # Errors
    /// Abortable: abort and begin again. Retriable: call again, whether it took effect is unknown.
    async fn commit_transaction(&self, timeout: Duration) -> Result<(), Error>;

    /// Drops what lingers, then aborts.
    ///
    /// # Errors
    /// Retriable: call again. Fenced or fatal: the producer is done.
    async fn abort_transaction(&self, timeout: Duration) -> Result<(), Error>;

    /// Flushes for at most `timeout`, then closes: later sends fail with [`crate::ErrorCode::Closed`].
    ///
    /// # Errors
    /// As [`Producer::flush`]; it is closed all the same.
    async fn close(&self, timeout: Duration) -> Result<(), Error>;
}

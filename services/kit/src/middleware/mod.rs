//! What happens around a handler: layers, each of which calls the next.
//!
//! From the outside in, [`standard`] puts: [`Measure`] (numbers), [`Correlate`] (the trace says what belongs
//! together), [`DeadLetter`] (what cannot be handled goes to `<topic>.dlq`), [`Retry`] (transient errors, with backoff
//! and jitter), [`Timeout`] (each try), [`Recover`] (a panic becomes an error), and within it the faults that a test
//! asks for ([`RandomFail`], [`Duplicate`]). The innermost is [`crate::router`]'s: inbox, `prepare`, transaction, `apply`.
//!
//! A layer says nothing about offsets. If it returns an error, the message is not settled, and the router tries it again:
//! nothing is committed past it (D3.1).

mod correlate;
mod dead_letter;
mod faults;
mod measure;
mod recover;
mod retry;
mod timeout;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use broker::ConsumerRecord;
use context::BoxFuture;

use crate::backoff::Backoff;
use crate::metrics::Metrics;
use crate::{HandlerError, Message, ParseError, Scope};

pub use correlate::Correlate;
pub use dead_letter::{DeadLetter, headers};
pub use faults::{Duplicate, RandomFail};
pub use measure::Measure;
pub use recover::Recover;
pub use retry::Retry;
pub use timeout::Timeout;

/// A record on its way to a handler.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// As it was read.
    pub record: ConsumerRecord,
    /// Its message, or why it is none.
    pub message: Result<Message, ParseError>,
}

impl Incoming {
    /// Reads a record.
    pub fn new(record: ConsumerRecord) -> Incoming {
        let message = Message::parse(&record);
        Incoming { record, message }
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.record.partition.topic
    }
}

impl fmt::Display for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Ok(message) => message.fmt(f),
            Err(_) => write!(f, "a record at {}@{}", self.record.partition, self.record.offset),
        }
    }
}

/// How a delivery ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its effects are committed.
    Applied,
    /// The inbox knew it; nothing was done.
    Skipped,
    /// It went to the dead letters, which is committed.
    DeadLettered,
}

/// One layer.
#[async_trait]
pub trait Middleware: Send + Sync + 'static {
    /// Handles a delivery by calling `next`, any number of times.
    ///
    /// # Errors
    /// Those of `next` that it does not deal with, and its own.
    async fn handle(
        &self,
        scope: &Scope,
        incoming: &Incoming,
        next: Next<'_>,
    ) -> Result<Outcome, HandlerError>;
}

/// The innermost layer: what all others surround.
#[async_trait]
pub trait Core: Send + Sync + 'static {
    /// Handles a delivery.
    ///
    /// # Errors
    /// As the handler says.
    async fn handle(&self, scope: &Scope, incoming: &Incoming) -> Result<Outcome, HandlerError>;
}

/// The layers further in.
#[derive(Clone, Copy)]
pub struct Next<'a> {
    layers: &'a [Arc<dyn Middleware>],
    core: &'a dyn Core,
}

impl<'a> Next<'a> {
    /// All of `layers`, the outermost first, around `core`.
    pub fn new(layers: &'a [Arc<dyn Middleware>], core: &'a dyn Core) -> Next<'a> {
        Next { layers, core }
    }

    /// Hands a delivery further in.
    pub fn run<'b>(
        self,
        scope: &'b Scope,
        incoming: &'b Incoming,
    ) -> BoxFuture<'b, Result<Outcome, HandlerError>>
    where
        'a: 'b,
    {
        match self.layers.split_first() {
            Some((layer, layers)) => layer.handle(scope, incoming, Next { layers, core: self.core }),
            None => self.core.handle(scope, incoming),
        }
    }
}

impl fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Next({} layers)", self.layers.len())
    }
}

/// How tenacious a subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How often a message is tried before it is a dead letter; `None` is for ever.
    pub tries_max: Option<u32>,
    /// The waits between tries.
    pub backoff: Backoff,
    /// How long a try may take.
    pub timeout: Duration,
}

impl Default for Policy {
    /// Ten tries in about half a minute, 10 s for each: longer than a broker's or a peer's restart, short enough for a
    /// saga's patience. While a message is tried, its partition waits; others go on.
    fn default() -> Policy {
        Policy {
            tries_max: Some(10),
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
            timeout: Duration::from_secs(10),
        }
    }
}

/// The layers that every subscription has, the outermost first.
pub fn standard(policy: Policy, metrics: &Metrics) -> Vec<Arc<dyn Middleware>> {
    vec![
        Arc::new(Measure::new(metrics.clone())),
        Arc::new(Correlate),
        Arc::new(DeadLetter::new(metrics.clone())),
        Arc::new(Retry::new(policy.tries_max, policy.backoff, metrics.clone())),
        Arc::new(Timeout(policy.timeout)),
        Arc::new(Recover::new(metrics.clone())),
    ]
}

//! What a service writes: how it handles one message.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use context::Context;
use uuid::Uuid;

use crate::{Message, Naive, NaiveSwitch, ParseError, Store, StoreError, Unit};

/// Handles the messages of a subscription, one at a time for each partition.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Calls to the outside, before the transaction. It may run again for the same message (a crash, a retry, a
    /// rebalance), so every call carries an idempotency key ([`Scope::idempotency_key`]). Not called for a message that
    /// the inbox already has.
    ///
    /// # Errors
    /// [`HandlerError::Transient`] is retried; any other error makes a dead letter.
    async fn prepare(&self, scope: &Scope, message: &Message) -> Result<Prepared, HandlerError> {
        let _ = (scope, message);
        Ok(Prepared::nothing())
    }

    /// Effects, in one local transaction with the inbox entry and the outbox rows. No call to the outside belongs here.
    ///
    /// # Errors
    /// As [`Handler::prepare`]; nothing of the transaction is left.
    fn apply(&self, unit: &mut Unit<'_>, message: &Message, prepared: Prepared) -> Result<(), HandlerError>;
}

/// What [`Handler::prepare`] brings to [`Handler::apply`].
#[derive(Default)]
pub struct Prepared(Option<Box<dyn Any + Send>>);

impl Prepared {
    /// Nothing.
    pub fn nothing() -> Prepared {
        Prepared(None)
    }

    /// A value.
    pub fn new<T: Send + 'static>(value: T) -> Prepared {
        Prepared(Some(Box::new(value)))
    }

    /// The value.
    ///
    /// # Panics
    /// If `prepare` brought nothing, or a value of another type: the two halves of one handler disagree.
    pub fn take<T: 'static>(self) -> T {
        let value = self.0.expect("apply takes what prepare brought, and it brought nothing");
        *value.downcast().unwrap_or_else(|_| panic!("apply takes a `{}`", std::any::type_name::<T>()))
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Prepared(..)" } else { "Prepared(nothing)" })
    }
}

/// What surrounds the handling of one message.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The host's clock, network, tasks and randomness.
    pub context: Context,
    /// The service's store, for reads in `prepare`. Effects belong in `apply`.
    pub store: Arc<dyn Store>,
    /// The subscription's name: its consumer group.
    pub group: Arc<str>,
    /// How often this delivery was tried before: 0 at first.
    pub attempt: u32,
    /// The protections that a scenario switched off.
    pub naive: Naive,
}

impl Scope {
    /// The idempotency key for the effect called `effect` (a payment's id, say): the same for the same effect, on every
    /// delivery, replica and incarnation. With the defect `fresh_keys` planted it is another one each time.
    pub fn idempotency_key(&self, effect: &str) -> String {
        if self.naive.is_on(NaiveSwitch::FreshKeys) {
            return self.context.new_id().to_string();
        }
        Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{}/{effect}", self.group).as_bytes()).to_string()
    }
}

/// Why a message was not handled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandlerError {
    /// It may work later: no answer, a busy store, a timeout.
    #[error("{0}")]
    Transient(String),
    /// It will never work: a rule of the business says no, in a way that has no answer of its own.
    #[error("{0}")]
    Business(String),
    /// It is not what its topic carries.
    #[error("{0}")]
    Parse(String),
    /// The handler panicked: a bug of the service.
    #[error("the handler panicked: {0}")]
    Panicked(String),
}

impl HandlerError {
    /// One word for headers and metrics.
    pub fn class(&self) -> &'static str {
        match self {
            HandlerError::Transient(_) => "transient",
            HandlerError::Business(_) => "business",
            HandlerError::Parse(_) => "parse",
            HandlerError::Panicked(_) => "panic",
        }
    }

    /// It may work later.
    pub fn is_transient(&self) -> bool {
        matches!(self, HandlerError::Transient(_))
    }
}

impl From<StoreError> for HandlerError {
    fn from(error: StoreError) -> HandlerError {
        match error {
            StoreError::Corrupt { .. } => HandlerError::Business(error.to_string()),
            StoreError::Failed(_) | StoreError::RolledBack => HandlerError::Transient(error.to_string()),
        }
    }
}

impl From<ParseError> for HandlerError {
    fn from(error: ParseError) -> HandlerError {
        HandlerError::Parse(error.to_string())
    }
}

impl From<proto::DecodeError> for HandlerError {
    fn from(error: proto::DecodeError) -> HandlerError {
        HandlerError::Parse(error.to_string())
    }
}

impl From<proto::InvalidId> for HandlerError {
    fn from(error: proto::InvalidId) -> HandlerError {
        HandlerError::Parse(error.to_string())
    }
}

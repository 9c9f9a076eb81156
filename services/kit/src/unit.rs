//! One unit of work: what an effect may do within its transaction.

use std::fmt;

use context::{Context, Timestamp};
use proto::{Contract, MessageId, SagaId};
use uuid::Uuid;

use crate::{Message, Outgoing, StoreError, Tables, outbox};

/// The open transaction, and the messages that follow from it.
///
/// Everything it makes up is derived from its cause, so that a redo makes up the same: message ids, and what
/// [`Unit::derived_id`] gives.
pub struct Unit<'a> {
    tables: &'a mut dyn Tables,
    context: &'a Context,
    cause: Cause,
    published: u32,
}

/// What a unit's messages carry on.
#[derive(Clone, Debug)]
struct Cause {
    /// What ids derive from.
    name: String,
    correlation_id: Option<MessageId>,
    causation_id: Option<MessageId>,
    saga_id: Option<SagaId>,
    step: Option<String>,
}

impl<'a> Unit<'a> {
    /// The work that `message` causes in `group`.
    pub fn caused_by(
        context: &'a Context,
        tables: &'a mut dyn Tables,
        group: &str,
        message: &Message,
    ) -> Unit<'a> {
        let cause = Cause {
            // The group belongs to the name: two groups that follow the same message say different things.
            name: format!("{group}/{}", message.id),
            correlation_id: Some(message.correlation_id),
            causation_id: Some(message.id),
            saga_id: message.saga_id.clone(),
            step: message.step.clone(),
        };
        Unit { tables, context, cause, published: 0 }
    }

    /// Work that no message causes: a timer's, a request's. `name` must be another for each unit, and the same for a
    /// redo of the same unit: ids derive from it. `correlation_id` is that of the request it belongs to, if any.
    pub fn named(
        context: &'a Context,
        tables: &'a mut dyn Tables,
        name: impl Into<String>,
        correlation_id: Option<MessageId>,
    ) -> Unit<'a> {
        let cause =
            Cause { name: name.into(), correlation_id, causation_id: None, saga_id: None, step: None };
        Unit { tables, context, cause, published: 0 }
    }

    /// The tables of the transaction.
    pub fn tables(&mut self) -> &mut dyn Tables {
        self.tables
    }

    /// The time on this host.
    pub fn now(&self) -> Timestamp {
        self.context.now()
    }

    /// The host's context, for notes and draws. Its `new_id` gives another id on a redo: see [`Unit::derived_id`].
    pub fn context(&self) -> &Context {
        self.context
    }

    /// Says something in the trace.
    pub fn note(&self, text: fmt::Arguments<'_>) {
        self.context.note(text);
    }

    /// Says in the trace that something goes wrong.
    pub fn trouble(&self, text: fmt::Arguments<'_>) {
        self.context.trouble(text);
    }

    /// The request that this work belongs to, if it is known.
    pub fn correlation_id(&self) -> Option<MessageId> {
        self.cause.correlation_id
    }

    /// An id for the thing called `name` that this unit makes: the same on a redo.
    pub fn derived_id(&self, name: &str) -> Uuid {
        Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{}/{name}", self.cause.name).as_bytes())
    }

    /// Publishes a message of the contract, with the correlation, saga and step of what caused it. It is sent after the
    /// commit.
    ///
    /// # Errors
    /// As [`Tables::put`].
    pub fn publish<M: Contract>(&mut self, message: &M) -> Result<MessageId, StoreError> {
        self.send(Outgoing::of(message))
    }

    /// Publishes for a step of a saga, in place of the cause's.
    ///
    /// # Errors
    /// As [`Tables::put`].
    pub fn publish_for<M: Contract>(
        &mut self,
        saga_id: &SagaId,
        step: &str,
        message: &M,
    ) -> Result<MessageId, StoreError> {
        self.send(Outgoing::of(message).for_step(saga_id.clone(), step))
    }

    /// Publishes what was put together by hand.
    ///
    /// # Errors
    /// As [`Tables::put`].
    pub fn send(&mut self, mut outgoing: Outgoing) -> Result<MessageId, StoreError> {
        let id = MessageId::derived(&format!("{}/{}", self.cause.name, self.published));
        self.published += 1;
        outgoing.saga_id = outgoing.saga_id.or_else(|| self.cause.saga_id.clone());
        outgoing.step = outgoing.step.or_else(|| self.cause.step.clone());
        let correlation_id = self.cause.correlation_id.unwrap_or(id);
        let record = outgoing.into_record(id, correlation_id, self.cause.causation_id, self.now());
        outbox::append(self.tables, record)?;
        Ok(id)
    }
}

impl fmt::Debug for Unit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unit({}, {} published)", self.cause.name, self.published)
    }
}

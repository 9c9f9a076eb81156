//! Puts aside what cannot be handled, so that what comes after it can.

use async_trait::async_trait;
use broker::{ConsumerRecord, ProducerRecord};
use proto::{MessageId, topics};

use super::{Incoming, Middleware, Next, Outcome};
use crate::inbox::{self, Fate};
use crate::metrics::Metrics;
use crate::{HandlerError, NaiveSwitch, Scope, StoreError, StoreExt, outbox};

/// The headers that a dead letter has in addition to its own. All values are text.
pub mod headers {
    /// The topic it was read from (D4.3).
    pub const TOPIC: &str = "dlq-original-topic";
    /// The partition it was read from, decimal.
    pub const PARTITION: &str = "dlq-original-partition";
    /// The offset it was read from, decimal.
    pub const OFFSET: &str = "dlq-original-offset";
    /// The group that could not handle it.
    pub const GROUP: &str = "dlq-group";
    /// The class of the error: `parse`, `business`, `transient`, `panic`.
    pub const CLASS: &str = "dlq-error-class";
    /// The error, for people.
    pub const ERROR: &str = "dlq-error";
}

/// Sends what cannot be handled to `<topic>.dlq`, with key, value and headers as they were and where it came from.
///
/// It is written through the outbox, in one transaction with the inbox entry. So it is sent as surely as any message, and
/// a broker that cannot take it now loses nothing (D0.10, D3.2); if the transaction fails, the error goes on to the
/// router, which does not commit past the message.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    metrics: Metrics,
}

impl DeadLetter {
    /// Counts in `metrics`.
    pub fn new(metrics: Metrics) -> DeadLetter {
        DeadLetter { metrics }
    }
}

#[async_trait]
impl Middleware for DeadLetter {
    async fn handle(
        &self,
        scope: &Scope,
        incoming: &Incoming,
        next: Next<'_>,
    ) -> Result<Outcome, HandlerError> {
        // A record that is no message has no id to be remembered by; its place serves as one.
        let id =
            incoming.message.as_ref().map_or_else(|_| id_of_place(&incoming.record), |message| message.id);
        let remembers = !scope.naive.is_on(NaiveSwitch::NoInbox);
        if remembers && incoming.message.is_err() {
            let known = |tables: &dyn crate::ReadTables| {
                inbox::is_settled(tables, &scope.group, id, &incoming.record)
            };
            if scope.store.read_with(known)? {
                return Ok(Outcome::Skipped);
            }
        }
        let error = match next.run(scope, incoming).await {
            Ok(outcome) => return Ok(outcome),
            Err(error) => error,
        };
        scope.context.trouble(format_args!(
            "{} {incoming}: dead letter, {}: {error}",
            scope.group,
            error.class()
        ));
        scope.store.transact_with::<_, StoreError>(&scope.context, |tables| {
            if remembers {
                let now = scope.context.now();
                inbox::settle(tables, &scope.group, id, &incoming.record, Fate::DeadLettered, now)?;
            }
            outbox::append(tables, letter(scope, &incoming.record, &error)).map(drop)
        })?;
        self.metrics.dead_lettered(incoming.topic(), error.class());
        Ok(Outcome::DeadLettered)
    }
}

fn id_of_place(record: &ConsumerRecord) -> MessageId {
    MessageId::derived(&format!("{}@{}", record.partition, record.offset))
}

fn letter(scope: &Scope, record: &ConsumerRecord, error: &HandlerError) -> ProducerRecord {
    let mut letter = ProducerRecord {
        topic: topics::dead_letter(&record.partition.topic).into(),
        partition: None,
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record.headers.clone(),
        timestamp: Some(scope.context.now()),
    };
    let mut set = |name: &str, value: String| letter.headers.set(name, value);
    set(headers::TOPIC, record.partition.topic.as_ref().to_owned());
    set(headers::PARTITION, record.partition.partition.to_string());
    set(headers::OFFSET, record.offset.to_string());
    set(headers::GROUP, scope.group.as_ref().to_owned());
    set(headers::CLASS, error.class().to_owned());
    set(headers::ERROR, error.to_string());
    letter
}

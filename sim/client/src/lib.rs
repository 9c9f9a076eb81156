//! Broker on our own small Kafka client, for use inside the simulation and over real TCP.
//!
//! [`WireBroker`] speaks Kafka's wire protocol over a [`context::Context`]: its sockets, clock, tasks and randomness are
//! the world's, so the same seed gives the same bytes. Property names, defaults, error classes and behaviour are
//! librdkafka's; the property `shakedown.client.habits` = `java` makes them those of Java's client, where the two differ
//! (`properties` has the list). Exceptions:
//! - a question that any broker can answer is asked of a second broker after 1 s, where librdkafka keeps a connection to
//!   every broker;
//! - one request carries batches of several partitions, as in Java's client;
//! - a new epoch waits for the fate of what may have been written under the one before;
//! - a subscribed topic that does not exist is looked out for at every heartbeat, not every five minutes.
//!
//! # Map
//! A `connection` is an actor for one broker; the `cluster` holds connections and metadata. A `producer` puts
//! records into an `accumulator`, from which its `sender` sends batches, numbered by `sequences`, within a `transaction`
//! if there is one. A `consumer` has a `reading`, which its `fetcher` fills, a `membership` in a group, and an
//! `auto_commit`. Everything in the background is a task of the host, and stops when its client is dropped.
//!
//! Absent on purpose: TLS, SASL, fetch sessions, KIP-848's groups.

mod properties;

mod cluster;
mod connection;

mod accumulator;
mod batch;
mod open;
mod partitioner;
mod producer;
mod sender;
mod sequences;
mod transaction;

mod assignor;
mod auto_commit;
mod consumer;
mod coordinator;
mod fetcher;
mod membership;
mod offsets;
mod reading;
mod sticky;
mod validation;

mod admin;

#[cfg(feature = "conformance")]
pub mod conformance;

mod attempts;
mod backoff;
mod error;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use broker::{Admin, Broker, Consumer, Error, Producer, Properties};
use context::Context;

use crate::admin::WireAdmin;
use crate::consumer::WireConsumer;
use crate::producer::WireProducer;
use crate::properties::Settings;

/// A Kafka cluster reached over the wire protocol.
#[derive(Clone, Debug)]
pub struct WireBroker {
    context: Context,
    properties: Properties,
    /// Numbers the clients, so that each has randomness of its own.
    clients: Arc<AtomicU64>,
}

impl WireBroker {
    /// Clients of one host. `properties` are the defaults of every client made here and must hold `bootstrap.servers`;
    /// what a client is given on top wins.
    pub fn new(context: Context, properties: Properties) -> WireBroker {
        WireBroker { context, properties, clients: Arc::default() }
    }

    /// The settings of one more client, and its label, which no other client of this host's has.
    fn client(&self, kind: &str, properties: &Properties) -> Result<(Settings, String), Error> {
        let settings = Settings::read(&self.properties.clone().with(properties))?;
        let number = self.clients.fetch_add(1, Ordering::Relaxed);
        Ok((settings, format!("{kind} {number}")))
    }
}

/// Whether a client can be made with these properties.
///
/// # Errors
/// Fatal with `InvalidConfig`, naming the property and, for an unknown one, the nearest name.
pub fn check(properties: &Properties) -> Result<(), Error> {
    Settings::read(properties).map(drop)
}

#[async_trait]
impl Broker for WireBroker {
    async fn producer(&self, properties: &Properties) -> Result<Arc<dyn Producer>, Error> {
        let (settings, label) = self.client("producer", properties)?;
        Ok(Arc::new(WireProducer::new(self.context.clone(), settings, label)))
    }

    async fn consumer(&self, properties: &Properties) -> Result<Box<dyn Consumer>, Error> {
        let (settings, label) = self.client("consumer", properties)?;
        Ok(Box::new(WireConsumer::new(self.context.clone(), settings, label)))
    }

    async fn admin(&self, properties: &Properties) -> Result<Arc<dyn Admin>, Error> {
        let (settings, label) = self.client("admin", properties)?;
        Ok(Arc::new(WireAdmin::new(self.context.clone(), settings, label)))
    }
}

//! Broker on our own small Kafka client, for use inside the simulation and over real TCP.
//!
//! [`WireBroker`] speaks Kafka's wire protocol over a [`context::Context`]: its sockets, clock, tasks and randomness are
//! the world's, so the same seed gives the same bytes. It behaves as librdkafka does, whose property names, defaults and
//! error classes it takes.
//!
//! Start reading at [`WireBroker`]. Absent on purpose: compression, TLS, SASL, incremental fetch sessions. Transactions
//! have their calls in the interface and answer [`broker::ErrorCode::InvalidState`] until they are built.

use std::sync::Arc;

use async_trait::async_trait;
use broker::{Admin, Broker, Consumer, Error, ErrorClass, ErrorCode, Producer, Properties};
use context::Context;

/// A Kafka cluster reached over the wire protocol.
#[derive(Clone, Debug)]
pub struct WireBroker {
    context: Context,
    properties: Properties,
}

impl WireBroker {
    /// Clients of one host. `properties` are the defaults of every client made here and must hold `bootstrap.servers`;
    /// what a client is given on top wins.
    pub fn new(context: Context, properties: Properties) -> WireBroker {
        WireBroker { context, properties }
    }

    fn not_yet<T>(&self, what: &str, properties: &Properties) -> Result<T, Error> {
        let servers = self.properties.clone().with(properties).get("bootstrap.servers").map(str::to_owned);
        let text = format!("{what} of {:?} for {servers:?} is not built yet", self.context);
        Err(Error::new(ErrorCode::InvalidState, ErrorClass::Fatal, text))
    }
}

#[async_trait]
impl Broker for WireBroker {
    async fn producer(&self, properties: &Properties) -> Result<Arc<dyn Producer>, Error> {
        self.not_yet("the producer", properties)
    }

    async fn consumer(&self, properties: &Properties) -> Result<Box<dyn Consumer>, Error> {
        self.not_yet("the consumer", properties)
    }

    async fn admin(&self, properties: &Properties) -> Result<Arc<dyn Admin>, Error> {
        self.not_yet("the admin client", properties)
    }
}

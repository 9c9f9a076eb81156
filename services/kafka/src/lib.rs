//! Broker on librdkafka, by crate `rdkafka`: how the services reach a Kafka that runs outside of the simulation.
//!
//! [`RdKafkaBroker`] passes Kafka's property names through to librdkafka and its answers back: error classes come from
//! librdkafka's own flags, rebalance callbacks are carried to [`broker::RebalanceListener`], and a send costs no thread
//! and no task. librdkafka decides about retries, order and membership; nothing of that is here.
//!
//! Start reading at [`RdKafkaBroker`], then `producer` and `consumer`. `native` holds the few calls into librdkafka that
//! crate `rdkafka` does not wrap, and all of the unsafe code. Calls that block in librdkafka run on tokio's blocking
//! threads (`blocking`), so a current-thread runtime serves as well.
//!
//! With `statistics.interval.ms` set, [`RdKafkaBroker::statistics`] shows lag, queues and round trips of all clients.
//!
//! Authentication by SASL PLAIN is always there. The cargo feature `tls` adds TLS and SCRAM; it builds OpenSSL from source, which
//! takes Perl beside the compiler. Off by default: without it a client that is told of TLS says what to build.
//!
//! Absent on purpose: Kerberos, tokens for OAUTHBEARER, KIP-848 groups. Nothing below the program `shakedown` may depend on this
//! crate unless its feature `kafka` is on: the simulator builds without a C client.

mod admin;
mod blocking;
mod consumer;
mod ending;
mod error;
mod lag;
mod native;
mod partitions;
mod producer;
mod properties;
mod rebalance;
mod security;
mod statistics;

use std::sync::Arc;

use async_trait::async_trait;
use broker::{Admin, Broker, Consumer, Error, Producer, Properties};
use context::Context;

use crate::admin::RdKafkaAdmin;
use crate::consumer::RdKafkaConsumer;
use crate::producer::RdKafkaProducer;
pub use crate::statistics::{
    BrokerStatistics, ClientKind, ClientStatistics, PartitionStatistics, Queue, RoundTrip, Statistics,
};

/// A Kafka cluster reached by librdkafka.
#[derive(Clone, Debug)]
pub struct RdKafkaBroker {
    context: Context,
    properties: Properties,
    statistics: Statistics,
}

impl RdKafkaBroker {
    /// Clients of one process. `properties` are the defaults of every client made here and must hold
    /// `bootstrap.servers`; what a client is given on top wins. `context` gives their timers, on tokio.
    pub fn new(context: Context, properties: Properties) -> RdKafkaBroker {
        RdKafkaBroker { context, properties, statistics: Statistics::default() }
    }

    /// What its producers and consumers say of themselves. None says anything unless `statistics.interval.ms` is set.
    pub fn statistics(&self) -> Statistics {
        self.statistics.clone()
    }

    fn with(&self, properties: &Properties) -> Properties {
        self.properties.clone().with(properties)
    }
}

#[async_trait]
impl Broker for RdKafkaBroker {
    async fn producer(&self, properties: &Properties) -> Result<Arc<dyn Producer>, Error> {
        Ok(Arc::new(RdKafkaProducer::new(&self.statistics, &self.with(properties))?))
    }

    async fn consumer(&self, properties: &Properties) -> Result<Box<dyn Consumer>, Error> {
        Ok(Box::new(RdKafkaConsumer::new(self.context.clone(), &self.statistics, &self.with(properties))?))
    }

    async fn admin(&self, properties: &Properties) -> Result<Arc<dyn Admin>, Error> {
        Ok(Arc::new(RdKafkaAdmin::new(self.context.clone(), &self.with(properties))?))
    }
}

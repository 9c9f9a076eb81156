//! The Broker trait and its vocabulary: Kafka as a service sees it.
//!
//! A service is written against [`Broker`] and runs unchanged on the simulated cluster and on real Kafka. The words are
//! Kafka's, configuration uses Kafka's property names ([`Properties`]), and errors carry librdkafka's classes
//! ([`Error`]): retriable, abortable, fenced, fatal.
//!
//! Start reading at [`Broker`], then [`Producer`] and [`Consumer`]. [`conformance`] holds the cases that every
//! implementation must pass. Absent on purpose: the wire protocol, retries (an implementation's own), and anything that
//! decides what a message means.

mod admin;
pub mod conformance;
mod consumer;
mod error;
mod producer;
mod properties;
mod record;

pub use admin::{
    Admin, BrokerDescription, ClusterDescription, ConfigChange, ConfigEntry, ConfigResource, ConfigSource,
    ElectionType, GroupDescription, GroupListing, MemberDescription, NewTopic, OffsetSpec,
    PartitionDescription, ProducerDescription, TopicDescription, TransactionDescription, TransactionListing,
};
pub use consumer::{Consumer, GroupMetadata, NoRebalanceListener, RebalanceListener};
pub use error::{Error, ErrorClass, ErrorCode};
pub use producer::{Delivery, Producer};
pub use properties::Properties;
pub use record::{
    ConsumerRecord, Header, Headers, Offset, OffsetAndMetadata, PartitionId, ProducerRecord, RecordMetadata,
    TopicPartition,
};

use std::sync::Arc;

use async_trait::async_trait;

/// A Kafka cluster: makes producers, consumers and admins.
///
/// Keys a user left out of `properties` take the defaults of librdkafka's CONFIGURATION.md, auto-commit included.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// A producer with properties of its own.
    ///
    /// # Errors
    /// Fatal with [`ErrorCode::InvalidConfig`] for a property that is unknown or has no such value.
    async fn producer(&self, properties: &Properties) -> Result<Arc<dyn Producer>, Error>;

    /// A consumer with properties of its own. It joins no group before it subscribes.
    ///
    /// # Errors
    /// As [`Broker::producer`].
    async fn consumer(&self, properties: &Properties) -> Result<Box<dyn Consumer>, Error>;

    /// An admin client.
    ///
    /// # Errors
    /// As [`Broker::producer`].
    async fn admin(&self, properties: &Properties) -> Result<Arc<dyn Admin>, Error>;
}

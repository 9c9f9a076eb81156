//! Kafka's numbers of what has settings (`ConfigResource.Type`), as requests name it.

/// A topic.
pub(crate) const TOPIC: i8 = 2;
/// One broker, or under the empty name all of them.
pub(crate) const BROKER: i8 = 4;
/// The loggers of a broker.
pub(crate) const BROKER_LOGGER: i8 = 8;
/// Which metrics clients send (KIP-714).
pub(crate) const CLIENT_METRICS: i8 = 16;
/// A group (KIP-848).
pub(crate) const GROUP: i8 = 32;

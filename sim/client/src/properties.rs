//! What the properties mean: names, ranges and defaults of librdkafka's CONFIGURATION.md (2.12).
//!
//! `shakedown.client.habits`, which is ours, picks whose defaults and rules the client has: `librdkafka`, the default, or
//! `java`, the client of Kafka 4.1 (its defaults from `ProducerConfig`, `ConsumerConfig` and `CommonClientConfigs`).
//! Names stay librdkafka's, with Java's names as second ones where they differ. What else the habits decide is listed at
//! [`Habits`].
//!
//! A property that librdkafka has and this client does not act on is accepted at its default and refused otherwise, so
//! that nobody believes in an effect that is not there. As in librdkafka, a producer ignores a consumer's properties
//! and the other way round, but their values are checked. `max.poll.records` is ours, by Java's name.
//!
//! Here is what they come to. `table.rs` has the names with their bounds and defaults; `values.rs` reads them.

mod table;
mod values;

use std::time::Duration;

use broker::{Error, Properties};
use kafka::log::compression::Codec;

use values::Values;

use crate::partitioner::Strategy;

/// Whose client this one takes after. Besides the defaults they decide:
/// - the versions of requests (`connection/versions.rs`): librdkafka never speaks the second protocol of transactions (KIP-890),
///   whatever the cluster has; Java does if the feature `transaction.version` is finalized at 2;
/// - which errors end a transaction, a producer, or neither (`transaction/rules.rs`, `sequences.rs`);
/// - when positions are committed automatically, and which (`auto_commit.rs`);
/// - what comes of records fetched ahead when a log was truncated or its leader changed (`reading.rs`);
/// - what a member does that gets no heartbeat answered or is not polled, and how long it waits (`membership.rs`);
/// - the connection to a transaction's coordinator: its own, or the one that carries records;
/// - what a key that is empty but there hashes to, and how records without a key stick to a partition;
/// - whether assignors of both rebalance protocols may be named together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habits {
    Librdkafka,
    Java,
}

/// What a client is told, read and checked.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) habits: Habits,
    pub(crate) client_id: String,
    /// Host and port of each bootstrap server.
    pub(crate) bootstrap: Vec<(String, u16)>,
    pub(crate) receive_message_max_bytes: usize,
    pub(crate) max_in_flight: usize,
    /// How old metadata may become.
    pub(crate) metadata_max_age: Duration,
    /// The first wait while a topic has no leader; it grows to `retry_backoff_max`.
    pub(crate) metadata_refresh_fast: Duration,
    pub(crate) metadata_propagation_max: Duration,
    pub(crate) socket_timeout: Duration,
    pub(crate) connection_setup_timeout: Duration,
    pub(crate) reconnect_backoff: Duration,
    pub(crate) reconnect_backoff_max: Duration,
    pub(crate) retry_backoff: Duration,
    pub(crate) retry_backoff_max: Duration,
    pub(crate) client_rack: String,
    pub(crate) producer: ProducerSettings,
    pub(crate) consumer: ConsumerSettings,
}

/// A producer's part.
#[derive(Clone, Debug)]
pub(crate) struct ProducerSettings {
    pub(crate) transactional_id: Option<String>,
    pub(crate) transaction_timeout: Duration,
    pub(crate) idempotence: bool,
    /// A record that is given up ends the producer, because later ones would leave a gap where it was.
    pub(crate) gapless: bool,
    pub(crate) queue_messages_max: usize,
    pub(crate) queue_bytes_max: usize,
    pub(crate) linger: Duration,
    pub(crate) retries: u32,
    pub(crate) batch_messages_max: i32,
    pub(crate) batch_bytes_max: usize,
    pub(crate) message_max_bytes: usize,
    pub(crate) sticky_linger: Duration,
    pub(crate) acks: i16,
    pub(crate) request_timeout: Duration,
    /// `None`: for ever.
    pub(crate) delivery_timeout: Option<Duration>,
    pub(crate) partitioner: Strategy,
    pub(crate) codec: Codec,
}

/// A consumer's part.
#[derive(Clone, Debug)]
pub(crate) struct ConsumerSettings {
    pub(crate) group_id: Option<String>,
    pub(crate) group_instance_id: Option<String>,
    /// Assignors by name, the preferred one first.
    pub(crate) assignors: Vec<String>,
    pub(crate) session_timeout: Duration,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) max_poll_interval: Duration,
    /// The interval; `None`: off. Zero: at each poll with Java's habits, and with librdkafka's only before partitions go.
    pub(crate) auto_commit: Option<Duration>,
    pub(crate) queued_min_messages: usize,
    pub(crate) queued_max_bytes: usize,
    pub(crate) fetch_wait_max: Duration,
    pub(crate) fetch_partition_max_bytes: i32,
    pub(crate) fetch_max_bytes: i32,
    pub(crate) fetch_min_bytes: i32,
    pub(crate) fetch_error_backoff: Duration,
    pub(crate) read_committed: bool,
    pub(crate) check_crcs: bool,
    pub(crate) auto_offset_reset: OffsetReset,
    pub(crate) max_poll_records: usize,
    pub(crate) allow_auto_create_topics: bool,
}

/// Where to read where nothing is committed, or what is committed is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OffsetReset {
    Earliest,
    Latest,
    Error,
}

impl Settings {
    /// Reads and checks everything in `properties`.
    ///
    /// # Errors
    /// Fatal with [`ErrorCode::InvalidConfig`], naming the property and, for an unknown one, the nearest name.
    pub(crate) fn read(properties: &Properties) -> Result<Settings, Error> {
        Values::checked(properties)?.settings()
    }
}

#[cfg(test)]
mod tests;

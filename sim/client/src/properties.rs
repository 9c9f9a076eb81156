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

use std::collections::BTreeMap;
use std::time::Duration;

use broker::{Error, ErrorClass, ErrorCode, Properties};
use kafka::log::compression::Codec;

use crate::assignor::COOPERATIVE_STICKY;
use crate::partitioner::Strategy;

/// What values a property takes.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Flag,
    /// An integer within these bounds, both included.
    Number(i64, i64),
    OneOf(&'static [&'static str]),
    /// Some of these, with commas between them.
    SomeOf(&'static [&'static str]),
}

struct Property {
    name: &'static str,
    kind: Kind,
    /// librdkafka's.
    default: &'static str,
    /// Java's, where it is another.
    java: Option<&'static str>,
}

const fn property(name: &'static str, kind: Kind, default: &'static str) -> Property {
    Property { name, kind, default, java: None }
}

impl Property {
    const fn java(mut self, default: &'static str) -> Property {
        self.java = Some(default);
        self
    }

    fn default(&self, habits: Habits) -> &'static str {
        match habits {
            Habits::Librdkafka => self.default,
            Habits::Java => self.java.unwrap_or(self.default),
        }
    }
}

/// Whose client this one takes after. Besides the defaults they decide:
/// - the versions of requests (`connection.rs`): librdkafka never speaks the second protocol of transactions (KIP-890),
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

const MAX: i64 = i32::MAX as i64;

/// What this client acts on.
const PROPERTIES: &[Property] = &[
    property("shakedown.client.habits", Kind::OneOf(&["librdkafka", "java"]), "librdkafka"),
    property("client.id", Kind::Text, "rdkafka").java(""),
    property("bootstrap.servers", Kind::Text, ""),
    property("message.max.bytes", Kind::Number(1_000, 1_000_000_000), "1000000").java("1048576"),
    property("receive.message.max.bytes", Kind::Number(1_000, MAX), "100000000"),
    property("max.in.flight.requests.per.connection", Kind::Number(1, 1_000_000), "1000000").java("5"),
    property("topic.metadata.refresh.interval.ms", Kind::Number(-1, 3_600_000), "300000").java("-1"),
    property("metadata.max.age.ms", Kind::Number(1, 86_400_000), "900000").java("300000"),
    property("topic.metadata.refresh.fast.interval.ms", Kind::Number(1, 60_000), "100"),
    property("topic.metadata.propagation.max.ms", Kind::Number(0, 3_600_000), "30000"),
    property("socket.timeout.ms", Kind::Number(10, 300_000), "60000").java("30000"),
    property("socket.connection.setup.timeout.ms", Kind::Number(1_000, MAX), "30000").java("10000"),
    property("reconnect.backoff.ms", Kind::Number(0, 3_600_000), "100").java("50"),
    property("reconnect.backoff.max.ms", Kind::Number(0, 3_600_000), "10000").java("1000"),
    property("retry.backoff.ms", Kind::Number(1, 300_000), "100"),
    property("retry.backoff.max.ms", Kind::Number(1, 300_000), "1000"),
    property("allow.auto.create.topics", Kind::Flag, "false").java("true"),
    property("client.rack", Kind::Text, ""),
    // Producer.
    property("transactional.id", Kind::Text, ""),
    property("transaction.timeout.ms", Kind::Number(1_000, MAX), "60000"),
    property("enable.idempotence", Kind::Flag, "false").java("true"),
    property("enable.gapless.guarantee", Kind::Flag, "false"),
    property("queue.buffering.max.messages", Kind::Number(0, MAX), "100000").java("0"),
    property("queue.buffering.max.kbytes", Kind::Number(1, MAX), "1048576").java("32768"),
    property("linger.ms", Kind::Number(0, 900_000), "5"),
    property("retries", Kind::Number(0, MAX), "2147483647"),
    property("batch.num.messages", Kind::Number(1, 1_000_000), "10000").java("1000000"),
    property("batch.size", Kind::Number(1, MAX), "1000000").java("16384"),
    property("compression.type", Kind::OneOf(&["none", "gzip", "snappy", "lz4", "zstd"]), "none"),
    property("sticky.partitioning.linger.ms", Kind::Number(0, 900_000), "10"),
    property("acks", Kind::OneOf(&["all", "-1", "0", "1"]), "-1"),
    property("request.timeout.ms", Kind::Number(1, 900_000), "30000"),
    property("delivery.timeout.ms", Kind::Number(0, MAX), "300000").java("120000"),
    property("partitioner", Kind::OneOf(&Strategy::NAMES), "consistent_random").java("java"),
    // Consumer.
    property("group.id", Kind::Text, ""),
    property("group.instance.id", Kind::Text, ""),
    property(
        "partition.assignment.strategy",
        Kind::SomeOf(&["range", "roundrobin", "cooperative-sticky"]),
        "range,roundrobin",
    )
    .java("range,cooperative-sticky"),
    property("session.timeout.ms", Kind::Number(1, 3_600_000), "45000"),
    property("heartbeat.interval.ms", Kind::Number(1, 3_600_000), "3000"),
    property("max.poll.interval.ms", Kind::Number(1, 86_400_000), "300000"),
    property("enable.auto.commit", Kind::Flag, "true"),
    property("auto.commit.interval.ms", Kind::Number(0, 86_400_000), "5000"),
    property("queued.min.messages", Kind::Number(1, 10_000_000), "100000"),
    property("queued.max.messages.kbytes", Kind::Number(1, 2_097_151), "65536"),
    property("fetch.wait.max.ms", Kind::Number(0, 300_000), "500"),
    property("fetch.message.max.bytes", Kind::Number(1, 1_000_000_000), "1048576"),
    property("fetch.max.bytes", Kind::Number(0, 2_147_483_135), "52428800"),
    property("fetch.min.bytes", Kind::Number(1, 100_000_000), "1"),
    property("fetch.error.backoff.ms", Kind::Number(0, 300_000), "500"),
    property("isolation.level", Kind::OneOf(&["read_uncommitted", "read_committed"]), "read_committed")
        .java("read_uncommitted"),
    property("check.crcs", Kind::Flag, "false").java("true"),
    property(
        "auto.offset.reset",
        Kind::OneOf(&["smallest", "earliest", "beginning", "largest", "latest", "end", "error"]),
        "largest",
    ),
    property("max.poll.records", Kind::Number(1, 10_000_000), "500"),
];

/// What librdkafka also has: accepted at its default, refused otherwise.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("api.version.request", "true"),
    ("api.version.request.timeout.ms", "10000"),
    ("broker.address.family", "any"),
    ("broker.address.ttl", "1000"),
    ("client.dns.lookup", "use_all_dns_ips"),
    ("compression.level", "-1"),
    ("connections.max.idle.ms", "0"),
    ("coordinator.query.interval.ms", "600000"),
    ("debug", ""),
    ("delivery.report.only.error", "false"),
    ("enable.auto.offset.store", "true"),
    ("enable.metrics.push", "true"),
    ("enable.partition.eof", "false"),
    ("enable.random.seed", "true"),
    ("fetch.queue.backoff.ms", "1000"),
    ("group.protocol", "classic"),
    ("group.protocol.type", "consumer"),
    ("group.remote.assignor", ""),
    ("log.connection.close", "true"),
    ("log.queue", "false"),
    ("log_level", "6"),
    ("message.copy.max.bytes", "65535"),
    ("metadata.recovery.rebootstrap.trigger.ms", "300000"),
    ("metadata.recovery.strategy", "rebootstrap"),
    ("plugin.library.paths", ""),
    ("queue.buffering.backpressure.threshold", "1"),
    ("queuing.strategy", "fifo"),
    ("sasl.mechanisms", "GSSAPI"),
    ("sasl.password", ""),
    ("sasl.username", ""),
    ("security.protocol", "plaintext"),
    ("socket.keepalive.enable", "false"),
    ("socket.max.fails", "1"),
    ("socket.nagle.disable", "true"),
    ("socket.receive.buffer.bytes", "0"),
    ("socket.send.buffer.bytes", "0"),
    ("ssl.ca.location", ""),
    ("ssl.certificate.location", ""),
    ("ssl.key.location", ""),
    ("statistics.interval.ms", "0"),
    ("topic.blacklist", ""),
    ("topic.metadata.refresh.sparse", "true"),
];

/// Second names.
const ALIASES: &[(&str, &str)] = &[
    ("metadata.broker.list", "bootstrap.servers"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("message.send.max.retries", "retries"),
    ("compression.codec", "compression.type"),
    ("request.required.acks", "acks"),
    ("message.timeout.ms", "delivery.timeout.ms"),
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
    ("sasl.mechanism", "sasl.mechanisms"),
    // Java's.
    ("max.request.size", "message.max.bytes"),
    ("fetch.max.wait.ms", "fetch.wait.max.ms"),
];

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

/// Checked values under their first names.
struct Values<'a> {
    habits: Habits,
    set: BTreeMap<&'static str, &'a str>,
}

impl<'a> Values<'a> {
    fn checked(properties: &'a Properties) -> Result<Values<'a>, Error> {
        let mut values = Values { habits: Habits::Librdkafka, set: BTreeMap::new() };
        for (name, value) in properties.iter() {
            let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, first)| *first);
            if let Some((name, default)) = WITHOUT_EFFECT.iter().find(|(known, _)| *known == name) {
                if value != *default {
                    return Err(invalid(format!(
                        "`{name}` = `{value}`: this client has no such function; leave it at `{default}`"
                    )));
                }
            } else if let Some(property) = PROPERTIES.iter().find(|property| property.name == name) {
                check(property, value)?;
                values.set.insert(property.name, value);
            } else {
                return Err(invalid(format!(
                    "no property is called `{name}`; did you mean `{}`?",
                    nearest(name)
                )));
            }
        }
        if values.set("shakedown.client.habits") == Some("java") {
            values.habits = Habits::Java;
        }
        Ok(values)
    }

    fn set(&self, name: &str) -> Option<&'a str> {
        self.set.get(name).copied()
    }

    fn text(&self, name: &str) -> &'a str {
        let property = || PROPERTIES.iter().find(|property| property.name == name);
        let default = || property().map(|property| property.default(self.habits));
        self.set(name).or_else(default).expect("asked for by a name of the table")
    }

    fn some_text(&self, name: &str) -> Option<String> {
        Some(self.text(name)).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    fn flag(&self, name: &str) -> bool {
        self.text(name) == "true"
    }

    fn number(&self, name: &str) -> i64 {
        self.text(name).parse().expect("checked to be a number")
    }

    fn size(&self, name: &str) -> usize {
        usize::try_from(self.number(name)).expect("its range begins at zero or above")
    }

    fn i32(&self, name: &str) -> i32 {
        i32::try_from(self.number(name)).expect("its range ends within 31 bits")
    }

    fn millis(&self, name: &str) -> Duration {
        Duration::from_millis(u64::try_from(self.number(name)).expect("its range begins at zero or above"))
    }

    fn settings(&self) -> Result<Settings, Error> {
        Ok(Settings {
            habits: self.habits,
            client_id: self.text("client.id").to_owned(),
            bootstrap: bootstrap(self.text("bootstrap.servers"))?,
            receive_message_max_bytes: self.size("receive.message.max.bytes"),
            max_in_flight: self.max_in_flight()?,
            metadata_max_age: match self.number("topic.metadata.refresh.interval.ms") {
                ..=0 => self.millis("metadata.max.age.ms"),
                _ => {
                    self.millis("topic.metadata.refresh.interval.ms").min(self.millis("metadata.max.age.ms"))
                }
            },
            metadata_refresh_fast: self.millis("topic.metadata.refresh.fast.interval.ms"),
            metadata_propagation_max: self.millis("topic.metadata.propagation.max.ms"),
            socket_timeout: self.socket_timeout()?,
            connection_setup_timeout: self.millis("socket.connection.setup.timeout.ms"),
            reconnect_backoff: self.millis("reconnect.backoff.ms"),
            reconnect_backoff_max: self.millis("reconnect.backoff.max.ms"),
            retry_backoff: self.millis("retry.backoff.ms"),
            retry_backoff_max: self.millis("retry.backoff.max.ms"),
            client_rack: self.text("client.rack").to_owned(),
            producer: self.producer()?,
            consumer: self.consumer()?,
        })
    }

    fn is_transactional(&self) -> bool {
        !self.text("transactional.id").is_empty()
    }

    /// Java has one `request.timeout.ms` for what librdkafka has two for. librdkafka keeps a transactional producer's
    /// requests shorter than its transactions (`rd_kafka_conf_finalize`).
    fn socket_timeout(&self) -> Result<Duration, Error> {
        const NAME: &str = "socket.timeout.ms";
        let transaction = self.millis("transaction.timeout.ms");
        match (self.habits, self.set(NAME)) {
            (Habits::Java, None) => Ok(self.millis("request.timeout.ms")),
            (Habits::Librdkafka, None) if self.is_transactional() => {
                Ok((transaction - Duration::from_millis(100)).max(Duration::from_millis(900)))
            }
            (Habits::Librdkafka, Some(_))
                if self.is_transactional()
                    && transaction + Duration::from_millis(100) < self.millis(NAME) =>
            {
                Err(invalid(format!("`{NAME}` must be at most `transaction.timeout.ms` and 100 ms")))
            }
            _ => Ok(self.millis(NAME)),
        }
    }

    /// librdkafka gives a transaction's records as long as the transaction (`rd_kafka_topic_conf_finalize`).
    fn delivery_timeout(&self) -> Result<Option<Duration>, Error> {
        const NAME: &str = "delivery.timeout.ms";
        let transaction = self.millis("transaction.timeout.ms");
        let of_transaction = self.habits == Habits::Librdkafka && self.is_transactional();
        let timeout = match self.set(NAME) {
            None if of_transaction => transaction,
            Some(_) if of_transaction && self.millis(NAME) > transaction => {
                return Err(invalid(format!("`{NAME}` must be at most `transaction.timeout.ms`")));
            }
            _ => self.millis(NAME),
        };
        let timeout = Some(timeout).filter(|timeout| !timeout.is_zero());
        if timeout.is_some_and(|timeout| timeout < self.millis("linger.ms")) {
            return Err(invalid(format!("`{NAME}` must not be below `linger.ms`")));
        }
        Ok(timeout)
    }

    /// Java's default steps back before a property that contradicts it; what was asked for does not
    /// (`ProducerConfig.postProcessAndValidateIdempotenceConfigs`).
    fn idempotence(&self) -> bool {
        if self.is_transactional() {
            return true;
        }
        let asked_for = self.set("enable.idempotence").is_some();
        let contradicted = matches!(self.text("acks"), "0" | "1") || self.number("retries") == 0;
        self.flag("enable.idempotence") && (asked_for || !contradicted)
    }

    fn max_in_flight(&self) -> Result<usize, Error> {
        const NAME: &str = "max.in.flight.requests.per.connection";
        match self.set(NAME) {
            // Brokers remember five batches of a producer for each partition.
            None if self.idempotence() => Ok(5),
            Some(value) if self.idempotence() && self.size(NAME) > 5 => {
                Err(invalid(format!("`{NAME}` = `{value}` must be at most 5 with `enable.idempotence`")))
            }
            _ => Ok(self.size(NAME)),
        }
    }

    fn gapless(&self) -> Result<bool, Error> {
        let gapless = self.flag("enable.gapless.guarantee");
        if gapless && !self.idempotence() {
            return Err(invalid("`enable.gapless.guarantee` needs `enable.idempotence`"));
        }
        Ok(gapless)
    }

    /// The assignors by preference. librdkafka refuses to mix the two rebalance protocols; Java takes the one that all
    /// of them have, which is the eager one unless every assignor is cooperative.
    fn assignors(&self) -> Result<Vec<String>, Error> {
        const NAME: &str = "partition.assignment.strategy";
        let names: Vec<String> = self.text(NAME).split(',').map(|name| name.trim().to_owned()).collect();
        let cooperative = names.iter().filter(|name| *name == COOPERATIVE_STICKY).count();
        if self.habits == Habits::Librdkafka && cooperative != 0 && cooperative != names.len() {
            let text = format!("`{NAME}` = `{}` must be all cooperative or all eager", names.join(","));
            return Err(invalid(text));
        }
        Ok(names)
    }

    fn producer(&self) -> Result<ProducerSettings, Error> {
        let acks = match self.text("acks") {
            "all" => -1,
            number => number.parse().expect("checked to be one of four"),
        };
        if self.idempotence() && acks != -1 {
            return Err(invalid(format!("`acks` = `{acks}` must be `all` with `enable.idempotence`")));
        }
        if self.idempotence() && self.number("retries") == 0 {
            return Err(invalid("`retries` = `0` must be at least 1 with `enable.idempotence`"));
        }
        Ok(ProducerSettings {
            transactional_id: self.some_text("transactional.id"),
            transaction_timeout: self.millis("transaction.timeout.ms"),
            idempotence: self.idempotence(),
            gapless: self.gapless()?,
            queue_messages_max: match self.size("queue.buffering.max.messages") {
                0 => usize::MAX,
                limit => limit,
            },
            queue_bytes_max: self.size("queue.buffering.max.kbytes") * 1_024,
            linger: self.millis("linger.ms"),
            retries: u32::try_from(self.number("retries")).expect("its range begins at zero"),
            batch_messages_max: self.i32("batch.num.messages"),
            batch_bytes_max: self.size("batch.size").min(self.size("message.max.bytes")),
            message_max_bytes: self.size("message.max.bytes"),
            sticky_linger: self.millis("sticky.partitioning.linger.ms"),
            acks,
            request_timeout: self.millis("request.timeout.ms"),
            delivery_timeout: self.delivery_timeout()?,
            partitioner: Strategy::named(self.text("partitioner")).expect("checked to be one of the names"),
            codec: match self.text("compression.type") {
                "gzip" => Codec::Gzip,
                "snappy" => Codec::Snappy,
                "lz4" => Codec::Lz4,
                "zstd" => Codec::Zstd,
                _ => Codec::None,
            },
        })
    }

    fn consumer(&self) -> Result<ConsumerSettings, Error> {
        let session_timeout = self.millis("session.timeout.ms");
        let max_poll_interval = self.millis("max.poll.interval.ms");
        if max_poll_interval < session_timeout {
            return Err(invalid(format!(
                "`max.poll.interval.ms` = `{}` must not be below `session.timeout.ms` = `{}`",
                max_poll_interval.as_millis(),
                session_timeout.as_millis()
            )));
        }
        Ok(ConsumerSettings {
            group_id: self.some_text("group.id"),
            group_instance_id: self.some_text("group.instance.id"),
            assignors: self.assignors()?,
            session_timeout,
            heartbeat_interval: self.millis("heartbeat.interval.ms"),
            max_poll_interval,
            auto_commit: self.flag("enable.auto.commit").then(|| self.millis("auto.commit.interval.ms")),
            queued_min_messages: self.size("queued.min.messages"),
            queued_max_bytes: self.size("queued.max.messages.kbytes") * 1_024,
            fetch_wait_max: self.millis("fetch.wait.max.ms"),
            fetch_partition_max_bytes: self.i32("fetch.message.max.bytes"),
            fetch_max_bytes: self.i32("fetch.max.bytes"),
            fetch_min_bytes: self.i32("fetch.min.bytes"),
            fetch_error_backoff: self.millis("fetch.error.backoff.ms"),
            read_committed: self.text("isolation.level") == "read_committed",
            check_crcs: self.flag("check.crcs"),
            auto_offset_reset: match self.text("auto.offset.reset") {
                "smallest" | "earliest" | "beginning" => OffsetReset::Earliest,
                "largest" | "latest" | "end" => OffsetReset::Latest,
                _ => OffsetReset::Error,
            },
            max_poll_records: self.size("max.poll.records"),
            allow_auto_create_topics: self.flag("allow.auto.create.topics"),
        })
    }
}

fn check(property: &Property, value: &str) -> Result<(), Error> {
    let name = property.name;
    match property.kind {
        Kind::Text => Ok(()),
        Kind::Flag if matches!(value, "true" | "false") => Ok(()),
        Kind::Flag => Err(invalid(format!("`{name}` = `{value}` must be `true` or `false`"))),
        Kind::Number(low, high) => match value.parse() {
            Ok(number) if (low..=high).contains(&number) => Ok(()),
            _ => Err(invalid(format!("`{name}` = `{value}` must be a whole number from {low} to {high}"))),
        },
        Kind::OneOf(choices) if choices.contains(&value) => Ok(()),
        Kind::SomeOf(choices) if value.split(',').all(|one| choices.contains(&one.trim())) => Ok(()),
        Kind::SomeOf(choices) => {
            Err(invalid(format!("`{name}` = `{value}` must be some of `{}`", choices.join("`, `"))))
        }
        Kind::OneOf(choices) => {
            Err(invalid(format!("`{name}` = `{value}` must be one of `{}`", choices.join("`, `"))))
        }
    }
}

fn bootstrap(list: &str) -> Result<Vec<(String, u16)>, Error> {
    let mut servers = Vec::new();
    for server in list.split(',').map(str::trim).filter(|server| !server.is_empty()) {
        let (host, port) = server.rsplit_once(':').unwrap_or((server, "9092"));
        let port = port.parse().map_err(|_| {
            invalid(format!(
                "`bootstrap.servers`: `{server}` must be a host, or a host and a port as `host:9092`"
            ))
        })?;
        servers.push((host.to_owned(), port));
    }
    if servers.is_empty() {
        return Err(invalid("`bootstrap.servers` must name at least one broker"));
    }
    Ok(servers)
}

fn nearest(name: &str) -> &'static str {
    let known =
        PROPERTIES.iter().map(|property| property.name).chain(WITHOUT_EFFECT.iter().map(|(name, _)| *name));
    known
        .min_by_key(|known| strsim::damerau_levenshtein(name, known))
        .expect("the table of properties is not empty")
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidConfig, ErrorClass::Fatal, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, Error> {
        let base = Properties::new().set("bootstrap.servers", "broker-1:9092,broker-2:9093");
        Settings::read(&pairs.iter().fold(base, |properties, (name, value)| properties.set(*name, value)))
    }

    fn refused(pairs: &[(&str, &str)], sentence: &str) {
        let error = read(pairs).expect_err("refused");
        assert_eq!(error.code, ErrorCode::InvalidConfig);
        assert!(error.message.contains(sentence), "{error}");
    }

    #[test]
    fn the_defaults_are_librdkafkas() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.bootstrap, [("broker-1".into(), 9092), ("broker-2".into(), 9093)]);
        assert_eq!(settings.max_in_flight, 1_000_000);
        assert_eq!(settings.producer.acks, -1);
        assert!(!settings.producer.idempotence);
        assert_eq!(settings.producer.delivery_timeout, Some(Duration::from_secs(300)));
        assert_eq!(settings.consumer.auto_commit, Some(Duration::from_secs(5)));
        assert_eq!(settings.consumer.auto_offset_reset, OffsetReset::Latest);
        assert!(settings.consumer.read_committed);
        assert_eq!(settings.consumer.assignors, ["range", "roundrobin"]);
    }

    #[test]
    fn the_other_habits_have_javas_defaults() {
        let settings = read(&[("shakedown.client.habits", "java")]).unwrap();
        assert_eq!(settings.habits, Habits::Java);
        assert_eq!(settings.max_in_flight, 5);
        assert_eq!(settings.metadata_max_age, Duration::from_secs(300));
        assert_eq!(settings.socket_timeout, Duration::from_secs(30));
        assert!(settings.producer.idempotence);
        assert_eq!(settings.producer.delivery_timeout, Some(Duration::from_secs(120)));
        assert_eq!(settings.producer.batch_bytes_max, 16_384);
        assert_eq!(settings.producer.partitioner, Strategy::Java);
        assert!(!settings.consumer.read_committed);
        assert_eq!(settings.consumer.assignors, ["range", "cooperative-sticky"]);
        let eager = read(&[("shakedown.client.habits", "java"), ("acks", "1")]).unwrap();
        assert!(!eager.producer.idempotence, "its default steps back before `acks=1`");
        let timeout = [("shakedown.client.habits", "java"), ("request.timeout.ms", "2000")];
        assert_eq!(read(&timeout).unwrap().socket_timeout, Duration::from_secs(2));
    }

    #[test]
    fn a_transaction_bounds_its_requests_and_records_as_in_librdkafka() {
        let id = ("transactional.id", "t");
        let settings = read(&[id, ("transaction.timeout.ms", "20000")]).unwrap();
        assert_eq!(settings.socket_timeout, Duration::from_millis(19_900));
        assert_eq!(settings.producer.delivery_timeout, Some(Duration::from_secs(20)));
        assert!(settings.producer.idempotence);
        refused(&[id, ("delivery.timeout.ms", "60001")], "at most `transaction.timeout.ms`");
        refused(&[id, ("socket.timeout.ms", "60101")], "at most `transaction.timeout.ms`");
        let java = read(&[id, ("shakedown.client.habits", "java")]).unwrap();
        assert_eq!(java.producer.delivery_timeout, Some(Duration::from_secs(120)));
    }

    #[test]
    fn librdkafka_does_not_mix_rebalance_protocols() {
        const NAME: &str = "partition.assignment.strategy";
        let settings = read(&[(NAME, "cooperative-sticky")]).unwrap();
        assert_eq!(settings.consumer.assignors, ["cooperative-sticky"]);
        refused(&[(NAME, "cooperative-sticky,range")], "all cooperative or all eager");
        refused(&[(NAME, "sticky")], "some of");
    }

    #[test]
    fn every_default_of_the_table_is_a_value_it_takes() {
        for property in PROPERTIES {
            check(property, property.default(Habits::Librdkafka)).unwrap();
            check(property, property.default(Habits::Java)).unwrap();
        }
    }

    #[test]
    fn idempotence_brings_its_limits() {
        assert_eq!(read(&[("enable.idempotence", "true")]).unwrap().max_in_flight, 5);
        assert_eq!(read(&[("enable.idempotence", "true"), ("max.in.flight", "1")]).unwrap().max_in_flight, 1);
        refused(&[("enable.idempotence", "true"), ("max.in.flight", "6")], "at most 5");
        refused(&[("enable.idempotence", "true"), ("acks", "1")], "must be `all`");
        refused(&[("enable.idempotence", "true"), ("retries", "0")], "at least 1");
    }

    #[test]
    fn a_wrong_name_or_value_is_refused_by_name() {
        refused(&[("enable.idempotense", "true")], "did you mean `enable.idempotence`");
        refused(&[("acks", "most")], "`acks` = `most`");
        refused(&[("linger.ms", "-5")], "from 0 to 900000");
        refused(&[("compression.codec", "lz5")], "one of");
        refused(&[("compression.level", "9")], "no such function");
        refused(&[("security.protocol", "ssl")], "no such function");
        refused(&[("session.timeout.ms", "400000")], "must not be below");
        refused(&[("bootstrap.servers", "broker-1:kafka")], "host and a port");
        refused(&[("bootstrap.servers", " ,")], "at least one");
    }

    #[test]
    fn an_alias_means_its_first_name() {
        assert_eq!(read(&[("message.timeout.ms", "0")]).unwrap().producer.delivery_timeout, None);
        assert_eq!(
            read(&[("queue.buffering.max.ms", "7")]).unwrap().producer.linger,
            Duration::from_millis(7)
        );
        read(&[("compression.codec", "none")]).unwrap();
    }
}

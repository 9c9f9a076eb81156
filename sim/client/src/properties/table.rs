//! The table of properties: names, bounds and defaults.

use super::Habits;
use crate::partitioner::Strategy;

/// What values a property takes.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    Flag,
    /// An integer within these bounds, both included.
    Number(i64, i64),
    OneOf(&'static [&'static str]),
    /// Some of these, with commas between them.
    SomeOf(&'static [&'static str]),
}

pub(super) struct Property {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
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

    pub(super) fn default(&self, habits: Habits) -> &'static str {
        match habits {
            Habits::Librdkafka => self.default,
            Habits::Java => self.java.unwrap_or(self.default),
        }
    }
}

const MAX: i64 = i32::MAX as i64;

/// What this client acts on.
pub(super) const PROPERTIES: &[Property] = &[
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
pub(super) const WITHOUT_EFFECT: &[(&str, &str)] = &[
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
pub(super) const ALIASES: &[(&str, &str)] = &[
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

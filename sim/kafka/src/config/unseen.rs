//! Settings of Kafka that a client can read and write, and whose effect it cannot see here: threads, buffers, files.
//!
//! Real clients and tools set some of them, so they are accepted with Kafka's own types and bounds, kept, and told of
//! again. What would have an effect that is not built (tiered storage) accepts only the value that means nothing.

use super::settings::Dynamic;
use super::values::{Kind, LONG_MAX, MAX};

/// One setting of a topic or of a broker.
#[derive(Clone, Copy, Debug)]
pub struct Unseen {
    /// Kafka's name.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Its default as text; `None` is Kafka's null.
    pub default: Option<&'static str>,
    /// For a topic's: the broker's setting that holds where a topic says nothing.
    pub broker: Option<&'static str>,
    /// For a broker's: whether it may change.
    pub dynamic: Dynamic,
    /// What it means.
    pub doc: &'static str,
}

const fn topic(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    broker: Option<&'static str>,
    doc: &'static str,
) -> Unseen {
    Unseen { name, kind, default: Some(default), broker, dynamic: Dynamic::ClusterWide, doc }
}

const fn broker(
    name: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    dynamic: Dynamic,
    doc: &'static str,
) -> Unseen {
    Unseen { name, kind, default, broker: None, dynamic, doc }
}

const INT: Kind = Kind::Int(0, MAX);
const LONG: Kind = Kind::Long(0, LONG_MAX);
const NO: Kind = Kind::Choice(&["false"]);
const UNTHROTTLED: Kind = Kind::Choice(&[""]);

/// Settings of topics, by name.
pub static UNSEEN_TOPIC_SETTINGS: &[Unseen] = &[
    topic(
        "compression.gzip.level",
        Kind::Int(-1, 9),
        "-1",
        Some("compression.gzip.level"),
        "How hard gzip tries.",
    ),
    topic(
        "compression.lz4.level",
        Kind::Int(1, 17),
        "9",
        Some("compression.lz4.level"),
        "How hard lz4 tries.",
    ),
    topic(
        "compression.zstd.level",
        Kind::Int(-131_072, 22),
        "3",
        Some("compression.zstd.level"),
        "How hard zstd tries.",
    ),
    topic(
        "file.delete.delay.ms",
        LONG,
        "60000",
        Some("log.segment.delete.delay.ms"),
        "How long a deleted file stays, in milliseconds.",
    ),
    topic(
        "follower.replication.throttled.replicas",
        UNTHROTTLED,
        "",
        None,
        "Followers whose replication is throttled; none can be.",
    ),
    topic(
        "index.interval.bytes",
        INT,
        "4096",
        Some("log.index.interval.bytes"),
        "How many bytes lie between entries of an index.",
    ),
    topic(
        "leader.replication.throttled.replicas",
        UNTHROTTLED,
        "",
        None,
        "Leaders whose replication is throttled; none can be.",
    ),
    topic(
        "local.retention.bytes",
        Kind::Long(-2, LONG_MAX),
        "-2",
        Some("log.local.retention.bytes"),
        "With tiered storage: how much stays on the broker.",
    ),
    topic(
        "local.retention.ms",
        Kind::Long(-2, LONG_MAX),
        "-2",
        Some("log.local.retention.ms"),
        "With tiered storage: how long records stay on the broker.",
    ),
    topic(
        "preallocate",
        Kind::Boolean,
        "false",
        Some("log.preallocate"),
        "Whether files are made at their full size.",
    ),
    topic(
        "remote.log.copy.disable",
        Kind::Boolean,
        "false",
        None,
        "With tiered storage: whether no more is copied.",
    ),
    topic(
        "remote.log.delete.on.disable",
        Kind::Boolean,
        "false",
        None,
        "With tiered storage: whether its records go when it is switched off.",
    ),
    topic("remote.storage.enable", NO, "false", None, "Whether storage is tiered; it cannot be here."),
    topic(
        "segment.index.bytes",
        Kind::Int(4, MAX),
        "10485760",
        Some("log.index.size.max.bytes"),
        "How large an index grows, in bytes.",
    ),
    topic(
        "segment.jitter.ms",
        LONG,
        "0",
        Some("log.roll.jitter.ms"),
        "By how much the roll of segments is spread, in milliseconds.",
    ),
];

/// Settings of brokers, by name.
pub static UNSEEN_BROKER_SETTINGS: &[Unseen] = &[
    broker(
        "background.threads",
        Kind::Int(1, MAX),
        Some("10"),
        Dynamic::ClusterWide,
        "Threads for this and that.",
    ),
    broker(
        "compression.gzip.level",
        Kind::Int(-1, 9),
        Some("-1"),
        Dynamic::ClusterWide,
        "How hard gzip tries.",
    ),
    broker("compression.lz4.level", Kind::Int(1, 17), Some("9"), Dynamic::ClusterWide, "How hard lz4 tries."),
    broker(
        "compression.zstd.level",
        Kind::Int(-131_072, 22),
        Some("3"),
        Dynamic::ClusterWide,
        "How hard zstd tries.",
    ),
    broker(
        "delete.topic.enable",
        Kind::Choice(&["true"]),
        Some("true"),
        Dynamic::ReadOnly,
        "Whether topics may be deleted; here they always may.",
    ),
    broker(
        "log.cleaner.dedupe.buffer.size",
        LONG,
        Some("134217728"),
        Dynamic::ClusterWide,
        "Memory of the cleaner, in bytes.",
    ),
    broker(
        "log.cleaner.io.buffer.load.factor",
        Kind::Double(0.0, 1.0),
        Some("0.9"),
        Dynamic::ClusterWide,
        "How full the cleaner's memory gets.",
    ),
    broker(
        "log.cleaner.io.buffer.size",
        INT,
        Some("524288"),
        Dynamic::ClusterWide,
        "Buffers of the cleaner, in bytes.",
    ),
    broker(
        "log.cleaner.threads",
        Kind::Int(0, MAX),
        Some("1"),
        Dynamic::ClusterWide,
        "Threads of the cleaner.",
    ),
    broker(
        "log.index.interval.bytes",
        INT,
        Some("4096"),
        Dynamic::ClusterWide,
        "How many bytes lie between entries of an index.",
    ),
    broker(
        "log.index.size.max.bytes",
        Kind::Int(4, MAX),
        Some("10485760"),
        Dynamic::ClusterWide,
        "How large an index grows, in bytes.",
    ),
    broker(
        "log.local.retention.bytes",
        Kind::Long(-2, LONG_MAX),
        Some("-2"),
        Dynamic::ClusterWide,
        "With tiered storage: how much stays on the broker.",
    ),
    broker(
        "log.local.retention.ms",
        Kind::Long(-2, LONG_MAX),
        Some("-2"),
        Dynamic::ClusterWide,
        "With tiered storage: how long records stay on the broker.",
    ),
    broker(
        "log.preallocate",
        Kind::Boolean,
        Some("false"),
        Dynamic::ClusterWide,
        "Whether files are made at their full size.",
    ),
    broker(
        "log.roll.jitter.ms",
        LONG,
        None,
        Dynamic::ClusterWide,
        "By how much the roll of segments is spread, in milliseconds.",
    ),
    broker(
        "log.segment.delete.delay.ms",
        LONG,
        Some("60000"),
        Dynamic::ClusterWide,
        "How long a deleted file stays, in milliseconds.",
    ),
    broker(
        "num.io.threads",
        Kind::Int(1, MAX),
        Some("8"),
        Dynamic::ClusterWide,
        "Threads that handle requests.",
    ),
    broker(
        "num.network.threads",
        Kind::Int(1, MAX),
        Some("3"),
        Dynamic::ClusterWide,
        "Threads that read and write connections.",
    ),
    broker(
        "num.recovery.threads.per.data.dir",
        Kind::Int(1, MAX),
        Some("2"),
        Dynamic::ClusterWide,
        "Threads that load logs.",
    ),
    broker(
        "num.replica.fetchers",
        Kind::Int(1, MAX),
        Some("1"),
        Dynamic::ClusterWide,
        "Threads that follow each leader.",
    ),
    broker(
        "queued.max.requests",
        Kind::Int(1, MAX),
        Some("500"),
        Dynamic::ReadOnly,
        "Requests that wait for a thread.",
    ),
    broker(
        "sasl.kerberos.min.time.before.relogin",
        LONG,
        Some("60000"),
        Dynamic::PerBroker,
        "How often a Kerberos login is renewed at most, in milliseconds.",
    ),
    broker(
        "socket.receive.buffer.bytes",
        Kind::Int(-1, MAX),
        Some("102400"),
        Dynamic::ReadOnly,
        "Buffers of connections, in bytes.",
    ),
    broker(
        "socket.send.buffer.bytes",
        Kind::Int(-1, MAX),
        Some("102400"),
        Dynamic::ReadOnly,
        "Buffers of connections, in bytes.",
    ),
];

/// The setting of that name.
pub(crate) fn find(table: &'static [Unseen], name: &str) -> Option<&'static Unseen> {
    table.iter().find(|setting| setting.name == name)
}

//! Values under their names: checked one by one, then against each other, and read as [`Settings`].

use std::collections::BTreeMap;
use std::time::Duration;

use broker::{Error, ErrorClass, ErrorCode, Properties};
use kafka::log::compression::Codec;

use super::table::{ALIASES, Kind, PROPERTIES, Property, WITHOUT_EFFECT};
use super::{ConsumerSettings, Habits, OffsetReset, ProducerSettings, Settings};
use crate::assignor::COOPERATIVE_STICKY;
use crate::partitioner::Strategy;

/// Checked values under their first names.
pub(super) struct Values<'a> {
    habits: Habits,
    set: BTreeMap<&'static str, &'a str>,
}

impl<'a> Values<'a> {
    pub(super) fn checked(properties: &'a Properties) -> Result<Values<'a>, Error> {
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

    pub(super) fn settings(&self) -> Result<Settings, Error> {
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

pub(super) fn check(property: &Property, value: &str) -> Result<(), Error> {
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

//! Properties for librdkafka: its own pass through, ours are taken out.

use broker::{Error, Properties};
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::error::invalid_config;
use crate::security::secure;

/// Ours, by Java's name: librdkafka has no such property.
const MAX_POLL_RECORDS: &str = "max.poll.records";
/// Java's default, and `services/broker`'s.
const MAX_POLL_RECORDS_DEFAULT: usize = 500;

/// What a client is made of.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// For librdkafka.
    pub(crate) config: ClientConfig,
    /// How many records a poll gives at most.
    pub(crate) max_poll_records: usize,
}

/// Splits the properties. librdkafka checks its own when the client is made.
pub(crate) fn settings(properties: &Properties) -> Result<Settings, Error> {
    let mut config = ClientConfig::new();
    // Lost connections are this log's main line, and a client of a harness loses them by design.
    config.set_log_level(RDKafkaLogLevel::Critical);
    for (name, value) in properties.iter().filter(|(name, _)| *name != MAX_POLL_RECORDS) {
        config.set(name, value);
    }
    secure(properties, &mut config)?;
    let max_poll_records = match properties.get(MAX_POLL_RECORDS) {
        None => MAX_POLL_RECORDS_DEFAULT,
        Some(text) => match text.parse() {
            Ok(count) if count >= 1 => count,
            _ => return Err(invalid_config(format!("`{MAX_POLL_RECORDS}` = `{text}`: must be 1 or more"))),
        },
    };
    Ok(Settings { config, max_poll_records })
}

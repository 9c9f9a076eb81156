//! What the service is told at its start.

use std::time::Duration;

use kit::{Backoff, Policy, ServiceConfig};

/// Settings of the shipping service. The same on every replica.
#[derive(Clone, Debug)]
pub struct Config {
    /// The kit's settings, planted defects among them.
    pub service: ServiceConfig,
    /// How tenacious it is with a command. It must not give up by itself: a command that ended as a dead letter leaves
    /// a parcel behind that nobody knows of.
    pub policy: Policy,
    /// The host name of the carrier.
    pub carrier_host: String,
    /// Its port.
    pub carrier_port: u16,
    /// How long one request may take; less than the time that `policy` gives a try.
    pub answer_timeout: Duration,
}

impl Default for Config {
    /// `carrier:80`, an answer within 3 s, tries for ever with waits of 100 ms to 5 s and 10 s each.
    fn default() -> Config {
        Config {
            service: ServiceConfig::default(),
            policy: Policy {
                tries_max: None,
                backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
                timeout: Duration::from_secs(10),
            },
            carrier_host: "carrier".into(),
            carrier_port: 80,
            answer_timeout: Duration::from_secs(3),
        }
    }
}

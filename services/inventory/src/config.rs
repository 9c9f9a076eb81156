//! What the service is told at its start.

use std::collections::BTreeMap;
use std::time::Duration;

use kit::{Policy, ServiceConfig};

/// Settings of the inventory service. The same on every replica.
#[derive(Clone, Debug)]
pub struct Config {
    /// The kit's settings, planted defects among them.
    pub service: ServiceConfig,
    /// How tenacious it is with a command. Only its own store can fail it; by default the kit's policy, without end: a
    /// release that was given up would keep stock from everyone.
    pub policy: Policy,
    /// How many of each SKU there are when the store is first opened. A SKU that is not named is not carried. Empty by
    /// default.
    pub initial_stock: BTreeMap<String, u64>,
    /// How long a reservation lasts if its command does not say. By default 10 minutes, far longer than a saga lives: a
    /// reservation that expires under a living saga costs a customer an order.
    pub reservation_life: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            service: ServiceConfig::default(),
            policy: Policy { tries_max: None, ..Policy::default() },
            initial_stock: BTreeMap::new(),
            reservation_life: Duration::from_secs(600),
        }
    }
}

//! What the service is told at its start.

use std::collections::BTreeMap;
use std::time::Duration;

/// Settings of the inventory service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How many of each SKU there are when the store is first opened. A SKU that is not named is not carried. Empty by
    /// default.
    pub initial_stock: BTreeMap<String, u64>,
    /// How long a reservation lasts if its command does not say. By default 10 minutes, far longer than a saga lives: a
    /// reservation that expires under a living saga costs a customer an order.
    pub reservation_life: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config { initial_stock: BTreeMap::new(), reservation_life: Duration::from_secs(600) }
    }
}

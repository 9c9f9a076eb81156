//! The inventory service: it reserves, commits and releases stock for orders, and lets reservations expire.
//!
//! No unit is ever made or lost: initial = available + reserved + shipped, for every SKU, asserted after every move.
//!
//! Start reading at [`reservation`], the core, then [`Stock`]. [`run`] is the service. Absent on purpose: warehouses,
//! replenishment, prices.

mod config;
pub mod reservation;
mod service;
mod stock;

pub use config::Config;
pub use service::{EXPIRIES, Expiry, RESERVATIONS, Reservations, STOCK, open};
pub use stock::Stock;

use std::sync::Arc;
use std::time::Duration;

use broker::Broker;
use context::Context;
use kit::{Service, Store, Subscription};

/// The consumer group that takes commands.
pub const GROUP: &str = "inventory";

/// How long a start rests before it tries the store again.
const OPEN_PAUSE: Duration = Duration::from_secs(1);

/// A replica, to be run once the stock was [`open`]ed. All replicas share `store`.
pub fn replica(context: Context, broker: Arc<dyn Broker>, store: Arc<dyn Store>, config: Config) -> Service {
    let handler = Reservations::new(config.reservation_life);
    let commands =
        Subscription::new(GROUP, [proto::topics::INVENTORY_COMMANDS], handler).policy(config.policy);
    Service::new(context, broker, store, config.service).timer(Arc::new(Expiry)).subscribe(commands)
}

/// Runs a replica until its host stops.
pub async fn run(context: Context, broker: Arc<dyn Broker>, store: Arc<dyn Store>, config: Config) {
    while let Err(error) = open(&context, &*store, &config) {
        context.trouble(format_args!("the initial stock was not written: {error}"));
        context.sleep(OPEN_PAUSE).await;
    }
    replica(context, broker, store, config).run().await;
}

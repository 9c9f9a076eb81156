//! The shipping service: it books one shipment for an order with a carrier, or tells why there is none.
//!
//! Start reading at [`shipment`], the core, then [`Shipments`], the handler that asks the carrier. [`run`] is the
//! service. Absent on purpose: transport and delivery, several parcels for an order.

mod carrier;
mod config;
mod service;
pub mod shipment;

pub use carrier::Carrier;
pub use config::Config;
pub use service::{SHIPMENTS, Shipments};
pub use shipment::Shipment;

use std::sync::Arc;

use broker::Broker;
use context::Context;
use kit::{Service, Store, Subscription, http};

/// The consumer group that takes commands.
pub const GROUP: &str = "shipping";

/// A replica, to be run. All replicas share `store`.
pub fn replica(context: Context, broker: Arc<dyn Broker>, store: Arc<dyn Store>, config: Config) -> Service {
    let client = http::Client::new(context.clone(), &config.carrier_host, config.carrier_port)
        .with_timeout(config.answer_timeout);
    let handler = Shipments::new(Carrier::new(client));
    let commands =
        Subscription::new(GROUP, [proto::topics::SHIPPING_COMMANDS], handler).policy(config.policy);
    Service::new(context, broker, store, config.service).subscribe(commands)
}

/// Runs a replica until its host stops.
pub async fn run(context: Context, broker: Arc<dyn Broker>, store: Arc<dyn Store>, config: Config) {
    replica(context, broker, store, config).run().await;
}

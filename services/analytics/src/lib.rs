//! The analytics service: totals over all events of all services.
//!
//! Start reading at [`facts`], which is pure: what is known of an order, and what it adds to the totals. [`service`]
//! keeps both in tables. [`facts::fold`] over all events from offset zero gives the same totals as the service's tables,
//! however the topics interleaved; so the service can be thrown away and built anew.
//!
//! Absent on purpose: queries over time ranges beyond days, and any effect on the outside.

pub mod facts;
pub mod service;

pub use facts::{Event, Facts, Totals, fold};

use std::sync::Arc;

use broker::Broker;
use context::Context;
use kit::{Service, ServiceConfig, Store, Subscription};

/// The group that reads [`proto::topics::EVENTS`].
pub const GROUP: &str = "analytics";

/// A replica, to be run. All replicas share `store`.
pub fn replica(
    context: Context,
    broker: Arc<dyn Broker>,
    store: Arc<dyn Store>,
    config: ServiceConfig,
) -> Service {
    let events = Subscription::new(GROUP, proto::topics::EVENTS, service::Analytics);
    Service::new(context, broker, store, config).subscribe(events)
}

/// Runs a replica until its host stops.
pub async fn run(context: Context, broker: Arc<dyn Broker>, store: Arc<dyn Store>, config: ServiceConfig) {
    replica(context, broker, store, config).run().await;
}

#[cfg(test)]
mod tests;

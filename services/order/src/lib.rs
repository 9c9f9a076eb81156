//! The order service: takes orders, runs their sagas, shows how they stand.
//!
//! Start reading at [`saga`], which says what is done for an order and what is undone, and [`aggregate`], which is
//! the order as its events tell it. [`history`] keeps the events, [`view`] is the read side, [`service`] carries it all
//! on the kit. Nothing here knows whether it is simulated.
//!
//! Absent on purpose: the payment-first and the choreographed saga, which come later, and the mechanics of sagas, which are
//! the kit's.

pub mod aggregate;
pub mod config;
pub mod history;
pub mod saga;
pub mod service;
pub mod view;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use config::{Config, Defect};

use std::sync::Arc;

use broker::Broker;
use context::Context;
use kit::{Service, Store, Subscription};

use service::{Orders, Projection};

/// The group that takes commands and answers: [`service::TOPICS`].
pub const GROUP: &str = "order";
/// The group that keeps the read side.
pub const VIEW_GROUP: &str = "order-view";

/// A replica, to be run. All replicas share `store`.
pub fn replica(context: Context, broker: Arc<dyn Broker>, store: Arc<dyn Store>, config: Config) -> Service {
    let kit = config.service.clone();
    let orders = Orders::new(config);
    Service::new(context, broker, store, kit)
        .timer(orders.sagas())
        .subscribe(Subscription::new(GROUP, service::TOPICS, orders))
        .subscribe(Subscription::new(VIEW_GROUP, [proto::topics::ORDER_EVENTS], Projection))
}

/// Runs a replica until its host stops.
pub async fn run(context: Context, broker: Arc<dyn Broker>, store: Arc<dyn Store>, config: Config) {
    replica(context, broker, store, config).run().await;
}

//! The payment service: it charges and refunds through a payment gateway, once for each payment.
//!
//! A call to the gateway may be done though its answer never came. So every call carries an idempotency key that derives
//! from the payment, and is repeated with it until the answer is known. A refund closes the key of a charge it does not
//! know of before it says that there is nothing to refund, so that charge and refund may come in any order.
//!
//! Start reading at [`payment`], the core, then [`gateway`], what is asked of the outside, then [`Payments`], the
//! handler between the two. [`run`] is the service. Absent on purpose: partial refunds, authorisation without capture,
//! a circuit breaker (it comes with the kit's).

mod config;
pub mod gateway;
pub mod payment;
mod service;

pub use config::Config;
pub use gateway::{Gateway, HttpGateway};
pub use payment::{Payment, Status};
pub use service::{PAYMENTS, Payments};

use std::sync::Arc;

use broker::Broker;
use context::Context;
use kit::{Service, Store, Subscription, http};

/// The consumer group that takes commands.
pub const GROUP: &str = "payment";

/// A replica, to be run. All replicas share `store`.
pub fn replica(context: Context, broker: Arc<dyn Broker>, store: Arc<dyn Store>, config: Config) -> Service {
    let client = http::Client::new(context.clone(), &config.gateway_host, config.gateway_port)
        .with_timeout(config.answer_timeout);
    let handler = Payments::new(Arc::new(HttpGateway::new(client)));
    let commands = Subscription::new(GROUP, [proto::topics::PAYMENT_COMMANDS], handler).policy(config.policy);
    Service::new(context, broker, store, config.service).subscribe(commands)
}

/// Runs a replica until its host stops.
pub async fn run(context: Context, broker: Arc<dyn Broker>, store: Arc<dyn Store>, config: Config) {
    replica(context, broker, store, config).run().await;
}

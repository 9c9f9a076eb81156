//! The notification service: it tells customers through a mail provider, once for each kind and order.
//!
//! The provider's idempotency key is the order and the kind, so a notice that is asked for again, under whatever message
//! id, is not sent again; it is answered again.
//!
//! Start reading at [`Notices`], the handler. [`run`] is the service. Absent on purpose: other channels than mail, texts
//! and languages (the order service writes them).

mod config;
mod mail;
mod service;

pub use config::Config;
pub use mail::Mail;
pub use service::{NOTICES, Notice, Notices, word};

use std::sync::Arc;

use broker::Broker;
use context::Context;
use kit::{Service, Store, Subscription, http};

/// The consumer group that takes commands.
pub const GROUP: &str = "notification";

/// A replica, to be run. All replicas share `store`.
pub fn replica(context: Context, broker: Arc<dyn Broker>, store: Arc<dyn Store>, config: Config) -> Service {
    let client = http::Client::new(context.clone(), &config.mail_host, config.mail_port)
        .with_timeout(config.answer_timeout);
    let handler = Notices::new(Mail::new(client));
    let commands =
        Subscription::new(GROUP, [proto::topics::NOTIFICATION_COMMANDS], handler).policy(config.policy);
    Service::new(context, broker, store, config.service).subscribe(commands)
}

/// Runs a replica until its host stops.
pub async fn run(context: Context, broker: Arc<dyn Broker>, store: Arc<dyn Store>, config: Config) {
    replica(context, broker, store, config).run().await;
}

//! What event-driven services share: stores, inbox and outbox, router and middleware, saga, HTTP.
//!
//! A service is a set of [`Handler`]s on a [`Store`] and a Broker. The kit gives it these properties, whatever crashes
//! when:
//! - an effect, the memory of its cause (inbox) and the messages that follow from it (outbox) commit together, or none
//!   of them does;
//! - a message is applied once, however often it is delivered;
//! - a message that cannot be applied goes to `<topic>.dlq`, and nothing is committed past a message whose fate is open;
//! - messages of one key leave in the order in which they were written.
//!
//! # Where to start reading
//! [`handler`] (what a service writes), [`unit`] (what an effect may do), [`service`] (how the parts run together),
//! then [`router`] and [`relay`] (how messages come and go), [`saga`] and [`http`].
//!
//! # How a service looks
//! ```
//! # use shakedown_kit as kit;
//! use std::sync::Arc;
//!
//! use async_trait::async_trait;
//! use broker::Broker;
//! use context::Context;
//! use kit::store::{Json, Table};
//! use kit::{Handler, HandlerError, Message, Prepared, Scope, Service, ServiceConfig, Store, Subscription, Unit, http};
//! use proto::payment::{ChargePayment, PaymentCaptured};
//! use proto::topics;
//!
//! /// What was captured, by payment.
//! const CAPTURED: Table<String, i64, Json> = Table::new("captured");
//!
//! struct Charging {
//!     gateway: http::Client,
//! }
//!
//! #[async_trait]
//! impl Handler for Charging {
//!     async fn prepare(&self, scope: &Scope, message: &Message) -> Result<Prepared, HandlerError> {
//!         // What does not decode is a dead letter; a gateway that does not answer is asked again, with the same key.
//!         let charge: ChargePayment = message.decode()?;
//!         let key = scope.idempotency_key(&charge.payment_id);
//!         let answer = self.gateway.post("/charges", Some(&key), &charge.amount).await?.unless_busy()?;
//!         Ok(Prepared::new(answer.decode::<i64>()?))
//!     }
//!
//!     fn apply(&self, unit: &mut Unit<'_>, message: &Message, prepared: Prepared) -> Result<(), HandlerError> {
//!         let ChargePayment { order_id, payment_id, currency, .. } = message.decode()?;
//!         let amount: i64 = prepared.take();
//!         CAPTURED.put(unit.tables(), &payment_id, &amount)?;
//!         // It leaves after the commit, with the correlation, causation, saga and step of the charge.
//!         unit.publish(&PaymentCaptured { order_id, payment_id, amount, currency })?;
//!         Ok(())
//!     }
//! }
//!
//! async fn run(context: Context, broker: Arc<dyn Broker>, store: Arc<dyn Store>, config: ServiceConfig) {
//!     let charging = Charging { gateway: http::Client::new(context.clone(), "gateway", 80) };
//!     Service::new(context, broker, store, config)
//!         .subscribe(Subscription::new("payment", [topics::PAYMENT_COMMANDS], charging))
//!         .run()
//!         .await;
//! }
//! ```
//!
//! Absent on purpose: event sourcing, a CQRS bus, circuit breakers and replay of dead letters (they come later), and
//! everything that knows what an order is.

pub mod backoff;
pub mod handler;
pub mod http;
pub mod inbox;
pub mod message;
pub mod metrics;
pub mod middleware;
pub mod naive;
pub mod outbox;
pub mod relay;
pub mod router;
pub mod saga;
pub mod service;
pub mod store;
pub mod timer;
pub mod unit;

pub use backoff::Backoff;
pub use handler::{Handler, HandlerError, Prepared, Scope};
pub use message::{Message, Outgoing, ParseError};
pub use metrics::Metrics;
pub use middleware::Policy;
pub use naive::{Naive, NaiveSwitch, UnknownNaive};
pub use router::Subscription;
pub use service::{Health, Service, ServiceConfig, ServiceHandle};
pub use store::{MemStore, ReadTables, Store, StoreError, StoreExt, Table, Tables};
pub use timer::Timer;
pub use unit::Unit;

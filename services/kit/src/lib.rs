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
//! ```ignore
//! struct Charging { gateway: http::Client }
//!
//! #[async_trait]
//! impl Handler for Charging {
//!     async fn prepare(&self, scope: &Scope, message: &Message) -> Result<Prepared, HandlerError> {
//!         let charge: ChargePayment = message.decode()?;          // a parse error: dead letter
//!         let key = scope.idempotency_key(charge.payment_id.as_str());
//!         let reply = self.gateway.post("/charges", Some(&key), &body).await?;   // transient: retried
//!         Ok(Prepared::new(reply))
//!     }
//!     fn apply(&self, unit: &mut Unit<'_>, message: &Message, prepared: Prepared) -> Result<(), HandlerError> {
//!         let reply: Reply = prepared.take();
//!         PAYMENTS.put(unit.tables(), &payment_id, &payment)?;
//!         unit.publish(&PaymentCaptured { .. })?;                 // correlation, causation, saga, step are carried on
//!         Ok(())
//!     }
//! }
//!
//! pub async fn run(context: Context, broker: Arc<dyn Broker>, store: Arc<dyn Store>, config: Config) {
//!     Service::new(context, broker, store, config.service)
//!         .subscribe(Subscription::new("payment", [topics::PAYMENT_COMMANDS], Charging { .. }))
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

//! The payment service: it charges and refunds through a payment gateway, once for each payment.
//!
//! A call to the gateway may be done though its answer never came. So every call carries an idempotency key that derives
//! from the payment, and is repeated with it until the answer is known. A refund closes the key of a charge it does not
//! know of before it says that there is nothing to refund, so that charge and refund may come in any order.
//!
//! Start reading at [`payment`], the core, then [`gateway`], what is asked of the outside, then [`Payments`], the
//! handler between the two. [`run`] is the service. Absent on purpose: partial refunds, authorisation without capture,
//! a circuit breaker (it comes with the kit's).

pub mod gateway;
pub mod payment;
mod service;

pub use gateway::{Gateway, HttpGateway};
pub use payment::{Payment, Status};
pub use service::{PAYMENTS, Payments};

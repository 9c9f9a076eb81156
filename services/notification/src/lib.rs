//! The notification service: it tells customers through a mail provider, once for each kind and order.
//!
//! The provider's idempotency key is the order and the kind, so a notice that is asked for again, under whatever message
//! id, is not sent again; it is answered again.
//!
//! Start reading at [`Notices`], the handler. [`run`] is the service. Absent on purpose: other channels than mail, texts
//! and languages (the order service writes them).

mod mail;
mod service;

pub use mail::Mail;
pub use service::{NOTICES, Notice, Notices, word};

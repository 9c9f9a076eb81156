//! The systems outside: payment gateway, carrier and mail provider, HTTP servers with ledgers of their own.
//!
//! They belong to somebody else. The services reach them over HTTP only, and what their ledgers say is true: money
//! moved, parcels left and mails went out as written there, whatever the services believe. The harness compares the
//! two.
//!
//! Each is a pure ledger ([`Gateway`], [`Carrier`], [`Mail`]) in a [`Provider`], which outlives the host that serves
//! it, or keeps a journal: a crash of the gateway's machine forgets no charge. An effect is in the ledger before its answer is sent, so a
//! crash or a cut in between leaves the caller with an outcome that it does not know. Start reading at [`Provider`],
//! then at [`gateway`].
//!
//! Absent on purpose: authentication, TLS, web hooks (a caller must ask), and everything a service could rely on that
//! real providers do not give.

pub mod carrier;
pub mod gateway;
pub mod mail;
mod provider;
mod wire;

pub use carrier::Carrier;
pub use gateway::Gateway;
pub use mail::Mail;
pub use provider::{Ledger, Provider, ServiceTime};

/// The port on which each of them listens.
pub const PORT: u16 = 80;

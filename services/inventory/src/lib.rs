//! The inventory service: it reserves, commits and releases stock for orders, and lets reservations expire.
//!
//! No unit is ever made or lost: initial = available + reserved + shipped, for every SKU, asserted after every move.
//!
//! Start reading at [`reservation`], the core, then [`Stock`]. [`run`] is the service. Absent on purpose: warehouses,
//! replenishment, prices.

mod config;
pub mod reservation;
mod service;
mod stock;

pub use config::Config;
pub use service::{EXPIRIES, Expiry, RESERVATIONS, Reservations, STOCK};
pub use stock::Stock;

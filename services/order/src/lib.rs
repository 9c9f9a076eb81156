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

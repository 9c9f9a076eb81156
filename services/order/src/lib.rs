//! The order service: takes orders, runs their sagas, shows how they stand.
//!
//! Start reading at [`saga`], which decides what is done for an order and what is undone, and [`aggregate`], which is
//! the order as its events tell it. [`history`] keeps the events, [`view`] is the read side, [`service`] carries it all
//! on the kit. The first two are pure; nothing here knows whether it is simulated.
//!
//! Absent on purpose: the payment-first and the choreographed saga, which come later as further definitions.

pub mod aggregate;
pub mod config;
pub mod history;
pub mod saga;
pub mod service;
pub mod view;

#[cfg(test)]
mod testing;

pub use config::{Config, Defect};

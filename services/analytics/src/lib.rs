//! The analytics service: totals over all events of all services.
//!
//! Start reading at [`facts`], which is pure: what is known of an order, and what it adds to the totals. [`service`]
//! keeps both in tables. [`facts::fold`] over all events from offset zero gives the same totals as the service's tables,
//! however the topics interleaved; so the service can be thrown away and built anew.
//!
//! Absent on purpose: queries over time ranges beyond days, and any effect on the outside.

pub mod facts;
pub mod service;

pub use facts::{Event, Facts, Totals, fold};

#[cfg(test)]
mod tests;

//! The shipping service: it books one shipment for an order with a carrier, or tells why there is none.
//!
//! Start reading at [`shipment`], the core, then [`Shipments`], the handler that asks the carrier. [`run`] is the
//! service. Absent on purpose: transport and delivery, several parcels for an order.

mod carrier;
mod service;
pub mod shipment;

pub use carrier::Carrier;
pub use service::{SHIPMENTS, Shipments};
pub use shipment::Shipment;

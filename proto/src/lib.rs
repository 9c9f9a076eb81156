//! The contracts of the six services: messages, topic names, header names, ids, money.
//!
//! The messages are generated from `v1/*.proto`, one module a domain: [`order`], [`inventory`], [`payment`],
//! [`shipping`], [`notification`]. Each message is a [`Contract`]: it knows its event-type name, its topic, and the
//! order that keys it. Each domain's `Command` and `Event` are the messages of its two topics as one enum, decoded by
//! event type.
//!
//! Start reading at [`Contract`], then the .proto files. Encoding is deterministic: fields in the order of their
//! numbers, no hash maps. Absent on purpose: how messages travel (that is the kit's), and versions other than 1.

mod contract;
pub mod headers;
mod ids;
mod money;
pub mod tokens;
pub mod topics;

pub mod inventory;
pub mod notification;
pub mod order;
pub mod payment;
pub mod shipping;

pub use contract::{Contract, DecodeError};
pub use ids::{CustomerId, InvalidId, MessageId, OrderId, PaymentId, ReservationId, SagaId, ShipmentId};
pub use money::{Currency, Money, MoneyError};

/// All of `v1/*.proto` as an encoded `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Where prost's code finds messages of other packages: the modules nest as the packages do.
mod generated {
    #![allow(missing_docs, unreachable_pub, reason = "the .proto files document what needs it")]

    pub mod order {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/shakedown.order.v1.rs"));
        }
    }
    pub mod inventory {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/shakedown.inventory.v1.rs"));
        }
    }
    pub mod payment {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/shakedown.payment.v1.rs"));
        }
    }
    pub mod shipping {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/shakedown.shipping.v1.rs"));
        }
    }
    pub mod notification {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/shakedown.notification.v1.rs"));
        }
    }
}

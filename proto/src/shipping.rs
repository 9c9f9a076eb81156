//! Shipments: `shipping.commands` and `shipping.events`.

pub use crate::generated::shipping::v1::{
    CancelShipment, ScheduleShipment, ShipmentCancelled, ShipmentRefused, ShipmentScheduled,
};

crate::contract::contracts! {
    /// What travels on `shipping.commands`.
    Command on crate::topics::SHIPPING_COMMANDS { ScheduleShipment, CancelShipment }
}

crate::contract::contracts! {
    /// What travels on `shipping.events`.
    Event on crate::topics::SHIPPING_EVENTS { ShipmentScheduled, ShipmentRefused, ShipmentCancelled }
}

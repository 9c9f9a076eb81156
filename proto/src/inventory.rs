//! Stock: `inventory.commands` and `inventory.events`.

pub use crate::generated::inventory::v1::{
    CommitRefused, CommitStock, Line, ReleaseStock, ReservationRefused, ReserveStock, StockCommitted,
    StockReleased, StockReserved,
};

crate::contract::contracts! {
    /// What travels on `inventory.commands`.
    Command on crate::topics::INVENTORY_COMMANDS { ReserveStock, CommitStock, ReleaseStock }
}

crate::contract::contracts! {
    /// What travels on `inventory.events`.
    Event on crate::topics::INVENTORY_EVENTS {
        StockReserved, ReservationRefused, StockCommitted, CommitRefused, StockReleased
    }
}

//! Orders: `order.commands` and `order.events`.

pub use crate::generated::order::v1::{
    Address, CancelOrder, CancelReason, CreateOrder, Item, OrderCancelRefused, OrderCancelled,
    OrderConfirmed, OrderCreated, OrderRejected, OrderStatus, OrderStatusChanged,
};

crate::contract::contracts! {
    /// What travels on `order.commands`.
    Command on crate::topics::ORDER_COMMANDS { CreateOrder, CancelOrder }
}

crate::contract::contracts! {
    /// What travels on `order.events`.
    Event on crate::topics::ORDER_EVENTS {
        OrderCreated, OrderStatusChanged, OrderConfirmed, OrderCancelled, OrderRejected, OrderCancelRefused
    }
}

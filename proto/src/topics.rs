//! Topic names. Every topic is keyed by order id; none is compacted, since compaction by order would eat the history
//! that read models and analytics are rebuilt from.

/// Commands to the order service.
pub const ORDER_COMMANDS: &str = "order.commands";
/// What became of orders.
pub const ORDER_EVENTS: &str = "order.events";
/// Commands to inventory.
pub const INVENTORY_COMMANDS: &str = "inventory.commands";
/// What became of stock.
pub const INVENTORY_EVENTS: &str = "inventory.events";
/// Commands to payment.
pub const PAYMENT_COMMANDS: &str = "payment.commands";
/// What became of payments.
pub const PAYMENT_EVENTS: &str = "payment.events";
/// Commands to shipping.
pub const SHIPPING_COMMANDS: &str = "shipping.commands";
/// What became of shipments.
pub const SHIPPING_EVENTS: &str = "shipping.events";
/// Commands to notification.
pub const NOTIFICATION_COMMANDS: &str = "notification.commands";
/// Which notices went out.
pub const NOTIFICATION_EVENTS: &str = "notification.events";

/// All topics of commands.
pub const COMMANDS: [&str; 5] =
    [ORDER_COMMANDS, INVENTORY_COMMANDS, PAYMENT_COMMANDS, SHIPPING_COMMANDS, NOTIFICATION_COMMANDS];

/// All topics of events.
pub const EVENTS: [&str; 5] =
    [ORDER_EVENTS, INVENTORY_EVENTS, PAYMENT_EVENTS, SHIPPING_EVENTS, NOTIFICATION_EVENTS];

/// Where the dead letters of `topic` go.
pub fn dead_letter(topic: &str) -> String {
    format!("{topic}.dlq")
}

/// Every topic that the six need, dead letters included: what a cluster is set up with.
pub fn all() -> Vec<String> {
    let topics = || COMMANDS.into_iter().chain(EVENTS);
    topics().map(str::to_owned).chain(topics().map(dead_letter)).collect()
}

//! Notices to customers: `notification.commands` and `notification.events`.

pub use crate::generated::notification::v1::{CustomerNotified, NoticeKind, NotifyCustomer};

crate::contract::contracts! {
    /// What travels on `notification.commands`.
    Command on crate::topics::NOTIFICATION_COMMANDS { NotifyCustomer }
}

crate::contract::contracts! {
    /// What travels on `notification.events`.
    Event on crate::topics::NOTIFICATION_EVENTS { CustomerNotified }
}

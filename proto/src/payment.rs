//! Money: `payment.commands` and `payment.events`.

pub use crate::generated::payment::v1::{
    ChargePayment, PaymentCaptured, PaymentDeclined, PaymentRefunded, RefundPayment,
};

crate::contract::contracts! {
    /// What travels on `payment.commands`.
    Command on crate::topics::PAYMENT_COMMANDS { ChargePayment, RefundPayment }
}

crate::contract::contracts! {
    /// What travels on `payment.events`.
    Event on crate::topics::PAYMENT_EVENTS { PaymentCaptured, PaymentDeclined, PaymentRefunded }
}

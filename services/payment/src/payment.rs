//! One payment: the core of the service, without gateway, store or broker.
//!
//! [`Payment`] is what the service remembers of a payment, and what the gateway said decides how it changes. The
//! gateway is the authority on money: it binds the charge's key to one fate, captured, declined or voided. So charge
//! and refund commute. A refund that finds nothing captured has voided the key first, and leaves [`Status::Voided`]
//! behind: no charge of this payment, not even one still under way in the network, takes money after that.

use proto::payment::{
    ChargePayment, Event, PaymentCaptured, PaymentDeclined, PaymentRefunded, RefundPayment,
};
use serde::{Deserialize, Serialize};

/// What the service remembers of one payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// Its id.
    pub payment_id: String,
    /// The order that it pays for.
    pub order_id: String,
    /// Where it stands.
    pub status: Status,
}

/// Where a payment stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// The gateway took the money.
    Captured(Captured),
    /// The gateway took nothing, for this reason. Final.
    Declined(String),
    /// The gateway gave all of it back. Final.
    Refunded(Captured),
    /// Refunded before it was charged: the gateway will never take anything. Final.
    Voided,
}

/// Money that the gateway took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Captured {
    /// The gateway's id of the charge.
    pub charge_id: String,
    /// In minor units.
    pub amount_minor: i64,
    /// ISO 4217 code.
    pub currency: String,
}

/// What the gateway says of a charge's key, once it is known for certain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChargeFate {
    /// Money was taken under this key.
    Captured(Captured),
    /// The card was declined.
    Declined(String),
    /// Nothing will ever be taken under this key.
    Voided,
}

/// What the gateway says of a refund, once it is known for certain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefundFate {
    /// All that was taken was given back.
    Refunded(Captured),
    /// Nothing was taken, and the charge's key takes nothing from now on.
    NothingToRefund,
}

/// The gateway found nothing to refund, but money was captured: another replica charged meanwhile, under another key
/// or before this one asked. Whoever sees this must look again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{payment_id}` was captured while its refund was prepared")]
pub struct StillCaptured {
    /// The payment.
    pub payment_id: String,
}

impl From<StillCaptured> for kit::HandlerError {
    fn from(moved: StillCaptured) -> kit::HandlerError {
        kit::HandlerError::Transient(moved.to_string())
    }
}

impl Payment {
    /// A payment and the answer to its charge, from what was known of it and what the gateway says.
    pub fn charged(known: Option<Payment>, command: &ChargePayment, fate: ChargeFate) -> (Payment, Event) {
        let payment = known.unwrap_or_else(|| Payment {
            payment_id: command.payment_id.clone(),
            order_id: command.order_id.clone(),
            status: match fate {
                ChargeFate::Captured(captured) => Status::Captured(captured),
                ChargeFate::Declined(reason) => Status::Declined(reason),
                ChargeFate::Voided => Status::Voided,
            },
        });
        let event = payment.answer_to_charge();
        (payment, event)
    }

    /// A payment and the answer to its refund, from what was known of it and what the gateway says.
    ///
    /// # Errors
    /// [`StillCaptured`] if the charge was written down after the gateway was asked.
    pub fn refunded(
        known: Option<Payment>,
        command: &RefundPayment,
        fate: RefundFate,
    ) -> Result<(Payment, Event), StillCaptured> {
        let mut payment = known.unwrap_or_else(|| Payment {
            payment_id: command.payment_id.clone(),
            order_id: command.order_id.clone(),
            status: Status::Voided,
        });
        if let RefundFate::Refunded(captured) = fate {
            payment.status = Status::Refunded(captured);
        }
        let (amount, currency) = match &payment.status {
            Status::Refunded(captured) => (captured.amount_minor, captured.currency.clone()),
            Status::Declined(_) | Status::Voided => (0, String::new()),
            Status::Captured(_) => return Err(StillCaptured { payment_id: payment.payment_id }),
        };
        let event = PaymentRefunded {
            order_id: payment.order_id.clone(),
            payment_id: payment.payment_id.clone(),
            amount,
            currency,
        };
        Ok((payment, event.into()))
    }

    /// What a charge is answered by what is known, without asking the gateway.
    fn answer_to_charge(&self) -> Event {
        let declined = |reason: &str| PaymentDeclined {
            order_id: self.order_id.clone(),
            payment_id: self.payment_id.clone(),
            reason: reason.into(),
        };
        match &self.status {
            Status::Captured(captured) => PaymentCaptured {
                order_id: self.order_id.clone(),
                payment_id: self.payment_id.clone(),
                amount: captured.amount_minor,
                currency: captured.currency.clone(),
            }
            .into(),
            Status::Declined(reason) => declined(reason).into(),
            Status::Refunded(_) => declined("the payment was refunded").into(),
            Status::Voided => declined("the payment was refunded before it was charged").into(),
        }
    }
}

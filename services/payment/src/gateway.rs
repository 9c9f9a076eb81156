//! The payment gateway as this service sees it.
//!
//! [`Gateway`] is the seam, [`HttpGateway`] what runs. Each call is one attempt: what got no answer, or an answer that
//! may change, is [`HandlerError::Transient`], and whoever retries must ask with the same key. A refused call is final.

use async_trait::async_trait;
use kit::{HandlerError, http};
use proto::payment::ChargePayment;
use serde::{Deserialize, Serialize};

use crate::payment::{Captured, ChargeFate};

/// What this service asks of a payment gateway.
#[async_trait]
pub trait Gateway: Send + Sync + 'static {
    /// Takes the money, once for this key; or says what became of the key before.
    ///
    /// # Errors
    /// [`HandlerError::Transient`] if the outcome is not known.
    async fn charge(&self, key: &str, charge: &ChargePayment) -> Result<ChargeFate, HandlerError>;

    /// Makes sure that nothing is taken under this key from now on, and says what became of it before.
    ///
    /// # Errors
    /// As [`Gateway::charge`].
    async fn void(&self, key: &str) -> Result<ChargeFate, HandlerError>;

    /// Gives all of a charge back, once for this key.
    ///
    /// # Errors
    /// As [`Gateway::charge`].
    async fn refund(&self, key: &str, captured: &Captured) -> Result<(), HandlerError>;
}

/// A gateway behind HTTP.
#[derive(Clone, Debug)]
pub struct HttpGateway {
    client: http::Client,
}

impl HttpGateway {
    /// The gateway that `client` reaches.
    pub fn new(client: http::Client) -> HttpGateway {
        HttpGateway { client }
    }

    async fn post(
        &self,
        path: &str,
        key: Option<&str>,
        body: &impl Serialize,
    ) -> Result<Answer, HandlerError> {
        let response = self.client.post(path, key, body).await?.unless_busy()?;
        if response.status.is_success() {
            return response.decode();
        }
        // Nothing was done, and nothing will be: a request of ours that the gateway does not take.
        let body = String::from_utf8_lossy(&response.body);
        Err(HandlerError::Business(format!("the gateway refused `{path}`: {} {body}", response.status)))
    }
}

#[async_trait]
impl Gateway for HttpGateway {
    async fn charge(&self, key: &str, charge: &ChargePayment) -> Result<ChargeFate, HandlerError> {
        let body = ChargeBody {
            payment_id: &charge.payment_id,
            order_id: &charge.order_id,
            amount_minor: charge.amount,
            currency: &charge.currency,
            card_token: &charge.payment_method,
        };
        self.post("/charges", Some(key), &body).await?.fate_of_charge()
    }

    async fn void(&self, key: &str) -> Result<ChargeFate, HandlerError> {
        self.post(&format!("/charges/{key}/void"), None, &Nothing {}).await?.fate_of_charge()
    }

    async fn refund(&self, key: &str, captured: &Captured) -> Result<(), HandlerError> {
        let body = RefundBody { charge_id: &captured.charge_id, amount_minor: captured.amount_minor };
        match self.post("/refunds", Some(key), &body).await? {
            Answer::Refunded {} => Ok(()),
            other => Err(other.unexpected()),
        }
    }
}

#[derive(Serialize)]
struct ChargeBody<'a> {
    payment_id: &'a str,
    order_id: &'a str,
    amount_minor: i64,
    currency: &'a str,
    card_token: &'a str,
}

#[derive(Serialize)]
struct RefundBody<'a> {
    charge_id: &'a str,
    amount_minor: i64,
}

#[derive(Serialize)]
struct Nothing {}

/// What the gateway answers with status 200. Fields that this service does not need are not read.
#[derive(Debug, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
enum Answer {
    Captured { charge: Captured },
    Declined { decline: Decline },
    Voided {},
    Refunded {},
}

#[derive(Debug, Deserialize)]
struct Decline {
    reason: String,
}

impl Answer {
    fn fate_of_charge(self) -> Result<ChargeFate, HandlerError> {
        match self {
            Answer::Captured { charge } => Ok(ChargeFate::Captured(charge)),
            Answer::Declined { decline } => Ok(ChargeFate::Declined(decline.reason)),
            Answer::Voided {} => Ok(ChargeFate::Voided),
            Answer::Refunded {} => Err(self.unexpected()),
        }
    }

    fn unexpected(self) -> HandlerError {
        HandlerError::Business(format!("the gateway answered something else: {self:?}"))
    }
}

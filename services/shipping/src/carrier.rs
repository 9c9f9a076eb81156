//! The carrier as this service sees it, over HTTP.
//!
//! Each call is one attempt: what got no answer, or an answer that may change, is [`HandlerError::Transient`], and
//! whoever retries must ask with the same key. A refused call is final.

use kit::{HandlerError, http};
use proto::shipping::ScheduleShipment;
use serde::{Deserialize, Serialize};

use crate::shipment::{BookingFate, NothingCarried};

/// A carrier behind HTTP.
#[derive(Clone, Debug)]
pub struct Carrier {
    client: http::Client,
}

impl Carrier {
    /// The carrier that `client` reaches.
    pub fn new(client: http::Client) -> Carrier {
        Carrier { client }
    }

    /// Books a shipment, once for this key; or says what became of the key before.
    ///
    /// # Errors
    /// [`HandlerError::Transient`] if the outcome is not known.
    pub async fn book(&self, key: &str, command: &ScheduleShipment) -> Result<BookingFate, HandlerError> {
        let address = command.address.clone().unwrap_or_default();
        let body = Booking {
            order_id: &command.order_id,
            address: Address {
                street: &address.street,
                city: &address.city,
                postal_code: &address.postal_code,
                country: &address.country,
            },
        };
        Ok(match self.post("/shipments", Some(key), &body).await? {
            Answer::Booked { shipment } => BookingFate::Booked { tracking: shipment.tracking_number },
            Answer::Refused { refusal } => BookingFate::Refused(refusal.reason),
            Answer::Cancelled {} => BookingFate::Cancelled,
        })
    }

    /// Makes sure that nothing is carried under this key from now on.
    ///
    /// # Errors
    /// As [`Carrier::book`].
    pub async fn cancel(&self, key: &str) -> Result<NothingCarried, HandlerError> {
        match self.post(&format!("/shipments/{key}/cancel"), None, &Nothing {}).await? {
            Answer::Cancelled {} | Answer::Refused { .. } => Ok(NothingCarried),
            Answer::Booked { .. } => {
                Err(HandlerError::Business("the carrier carries what was to be cancelled".into()))
            }
        }
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
        let body = String::from_utf8_lossy(&response.body);
        Err(HandlerError::Business(format!("the carrier refused `{path}`: {} {body}", response.status)))
    }
}

#[derive(Serialize)]
struct Booking<'a> {
    order_id: &'a str,
    address: Address<'a>,
}

#[derive(Serialize)]
struct Address<'a> {
    street: &'a str,
    city: &'a str,
    postal_code: &'a str,
    country: &'a str,
}

#[derive(Serialize)]
struct Nothing {}

/// What the carrier answers with status 200. Fields that this service does not need are not read.
#[derive(Debug, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
enum Answer {
    Booked { shipment: Booked },
    Refused { refusal: Refused },
    Cancelled {},
}

#[derive(Debug, Deserialize)]
struct Booked {
    tracking_number: String,
}

#[derive(Debug, Deserialize)]
struct Refused {
    reason: String,
}

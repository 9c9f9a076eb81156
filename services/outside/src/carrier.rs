//! The carrier: it books shipments, once for each key, and refuses addresses it does not serve.
//!
//! [`Carrier`] is a core without IO, with the gateway's rules for keys: the first request binds a key, and the same
//! request under it gets the same answer. A cancellation of a key that was never booked is kept, so that a booking that
//! arrives later is refused.
//!
//! Start reading at [`Carrier::handle`]. Absent on purpose: pick-up, transport and delivery; a booked shipment is on
//! its way as far as an order is concerned.

mod wire;

use std::collections::BTreeMap;

use context::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The host name of the carrier in a simulated world.
pub const HOST: &str = "carrier";

/// The postal code to which this carrier does not deliver. Any other is served.
pub const UNSERVED_POSTAL_CODE: &str = proto::tokens::UNSERVED_POSTAL_CODE;

/// Why an address in [`UNSERVED_POSTAL_CODE`] is refused.
pub const ADDRESS_UNSERVED: &str = "address_unserved";

/// The namespace of tracking numbers: a number is a function of the booking's key, whatever happened before.
const TRACKING: Uuid = Uuid::from_u128(0x6b9a_2f5e_0b1d_4c57_9d3e_5a51_7e0c_41aa);

/// What a merchant asks to have carried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BookingRequest {
    /// The order that is sent.
    pub order_id: String,
    /// Where to.
    pub address: Address,
}

/// Where a shipment goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// Street and number.
    pub street: String,
    /// The city.
    pub city: String,
    /// As the country writes it; not empty.
    pub postal_code: String,
    /// ISO 3166-1 alpha-2.
    pub country: String,
}

/// All that can be asked of the carrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Book a shipment, once for this key.
    Book {
        /// The idempotency key.
        key: String,
        /// What to carry.
        booking: BookingRequest,
    },
    /// Make sure that nothing is carried under this key.
    Cancel {
        /// The key of a booking.
        key: String,
    },
    /// What became of this key.
    Find {
        /// The key it was asked for under.
        key: String,
    },
}

/// All that the carrier answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// The shipment is booked, now or when the key was first used.
    Booked(Shipment),
    /// The carrier will not carry it. Final for this key.
    Refused(Refusal),
    /// Nothing is carried under this key, and nothing ever will be.
    Cancelled {
        /// The key.
        key: String,
    },
    /// The key was used before for another request; nothing was done.
    KeyReused {
        /// The key.
        key: String,
    },
    /// The carrier has never seen this key.
    UnknownKey {
        /// The key.
        key: String,
    },
    /// The request makes no sense; the text says why.
    Invalid(String),
}

/// A shipment that was booked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shipment {
    /// The idempotency key under which it was booked.
    pub key: String,
    /// The order that is sent.
    pub order_id: String,
    /// Where to.
    pub address: Address,
    /// What a customer follows it by; a function of the key.
    pub tracking_number: String,
    /// When it was booked, on the carrier's clock.
    #[serde(serialize_with = "crate::provider::millis")]
    pub at: Timestamp,
    /// When it was cancelled, if it was.
    #[serde(serialize_with = "crate::provider::millis_or_null")]
    pub cancelled_at: Option<Timestamp>,
}

/// A shipment that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The idempotency key under which it was asked for.
    pub key: String,
    /// The order that was to be sent.
    pub order_id: String,
    /// Why, as a fixed word.
    pub reason: String,
    /// When it was first asked for, on the carrier's clock.
    #[serde(serialize_with = "crate::provider::millis")]
    pub at: Timestamp,
}

/// What became of a key. Numbers are places in the ledger's lists.
#[derive(Clone, Debug)]
enum Fate {
    Booked { request: BookingRequest, place: usize },
    Refused { request: BookingRequest, place: usize },
    Cancelled,
}

/// The carrier's ledger. It only grows.
#[derive(Clone, Debug, Default)]
pub struct Carrier {
    shipments: Vec<Shipment>,
    refusals: Vec<Refusal>,
    fates: BTreeMap<String, Fate>,
}

impl Carrier {
    /// A carrier that has seen nobody.
    pub fn new() -> Carrier {
        Carrier::default()
    }

    /// All shipments ever booked, cancelled ones included, in order.
    pub fn shipments(&self) -> &[Shipment] {
        &self.shipments
    }

    /// All bookings refused, in order.
    pub fn refusals(&self) -> &[Refusal] {
        &self.refusals
    }

    /// Applies one request and answers it.
    pub fn handle(&mut self, now: Timestamp, request: Request) -> Response {
        match request {
            Request::Book { key, booking } => self.book(now, key, booking),
            Request::Cancel { key } => self.cancel(now, key),
            Request::Find { key } => self.find(key),
        }
    }

    fn book(&mut self, now: Timestamp, key: String, request: BookingRequest) -> Response {
        match self.fates.get(&key) {
            Some(Fate::Booked { request: first, .. } | Fate::Refused { request: first, .. })
                if *first != request =>
            {
                return Response::KeyReused { key };
            }
            Some(_) => return self.find(key),
            None => {}
        }
        if request.address.postal_code.trim().is_empty() {
            return Response::Invalid("`address.postal_code` is empty".into());
        }
        let fate = if request.address.postal_code == UNSERVED_POSTAL_CODE {
            self.refusals.push(Refusal {
                key: key.clone(),
                order_id: request.order_id.clone(),
                reason: ADDRESS_UNSERVED.into(),
                at: now,
            });
            Fate::Refused { request, place: self.refusals.len() - 1 }
        } else {
            self.shipments.push(Shipment {
                key: key.clone(),
                order_id: request.order_id.clone(),
                address: request.address.clone(),
                tracking_number: tracking_number(&key),
                at: now,
                cancelled_at: None,
            });
            Fate::Booked { request, place: self.shipments.len() - 1 }
        };
        self.fates.insert(key.clone(), fate);
        self.find(key)
    }

    fn cancel(&mut self, now: Timestamp, key: String) -> Response {
        match self.fates.entry(key.clone()).or_insert(Fate::Cancelled) {
            Fate::Booked { place, .. } => {
                self.shipments[*place].cancelled_at.get_or_insert(now);
            }
            Fate::Refused { .. } | Fate::Cancelled => {}
        }
        self.find(key)
    }

    fn find(&self, key: String) -> Response {
        match self.fates.get(&key) {
            Some(Fate::Booked { place, .. }) if self.shipments[*place].cancelled_at.is_some() => {
                Response::Cancelled { key }
            }
            Some(Fate::Booked { place, .. }) => Response::Booked(self.shipments[*place].clone()),
            Some(Fate::Refused { place, .. }) => Response::Refused(self.refusals[*place].clone()),
            Some(Fate::Cancelled) => Response::Cancelled { key },
            None => Response::UnknownKey { key },
        }
    }
}

/// The tracking number of the shipment booked under `key`.
fn tracking_number(key: &str) -> String {
    let id = Uuid::new_v5(&TRACKING, key.as_bytes()).simple().to_string();
    format!("TRACK-{}", id[..12].to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(key: &str, postal_code: &str) -> Request {
        let address = Address {
            street: "1 Quay Street".into(),
            city: "Galway".into(),
            postal_code: postal_code.into(),
            country: "IE".into(),
        };
        let booking = BookingRequest { order_id: "order-1".into(), address };
        Request::Book { key: key.into(), booking }
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_repeated_booking_is_one_shipment_with_one_tracking_number() {
        let mut carrier = Carrier::new();
        let first = carrier.handle(at(1), book("k", "H91"));
        assert!(matches!(first, Response::Booked(_)), "{first:?}");
        assert_eq!(carrier.handle(at(2), book("k", "H91")), first);
        assert_eq!(carrier.handle(at(3), Request::Find { key: "k".into() }), first);
        assert_eq!(carrier.shipments().len(), 1);
    }

    #[test]
    fn another_address_under_a_used_key_is_refused() {
        let mut carrier = Carrier::new();
        carrier.handle(at(1), book("k", "H91"));
        assert_eq!(carrier.handle(at(2), book("k", "H92")), Response::KeyReused { key: "k".into() });
    }

    #[test]
    fn an_unserved_address_is_refused_for_good() {
        let mut carrier = Carrier::new();
        let first = carrier.handle(at(1), book("k", UNSERVED_POSTAL_CODE));
        assert!(matches!(first, Response::Refused(_)), "{first:?}");
        assert_eq!(carrier.handle(at(2), book("k", UNSERVED_POSTAL_CODE)), first);
        assert_eq!(carrier.handle(at(3), Request::Cancel { key: "k".into() }), first);
        assert!(carrier.shipments().is_empty());
        assert_eq!(carrier.refusals().len(), 1);
    }

    #[test]
    fn booking_and_cancellation_end_cancelled_in_either_order() {
        for cancel_first in [false, true] {
            let mut carrier = Carrier::new();
            let mut requests = [book("k", "H91"), Request::Cancel { key: "k".into() }];
            if cancel_first {
                requests.reverse();
            }
            for (time, request) in requests.into_iter().enumerate() {
                carrier.handle(at(time as u64), request);
            }
            let again = carrier.handle(at(9), book("k", "H91"));
            assert_eq!(again, Response::Cancelled { key: "k".into() }, "cancel first: {cancel_first}");
            assert!(carrier.shipments().iter().all(|shipment| shipment.cancelled_at.is_some()));
        }
    }

    #[test]
    fn a_tracking_number_depends_on_the_key_alone() {
        assert_eq!(tracking_number("a"), tracking_number("a"));
        assert_ne!(tracking_number("a"), tracking_number("b"));
    }
}

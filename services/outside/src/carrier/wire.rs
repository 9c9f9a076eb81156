//! The carrier's paths and JSON.
//!
//! | request | does |
//! |---|---|
//! | `POST /shipments`, idempotency key | books |
//! | `GET /shipments/KEY` | what became of the key |
//! | `POST /shipments/KEY/cancel` | makes sure that nothing is carried under the key |

use context::Timestamp;
use kit::http;
use serde::Serialize;

use super::{Carrier, Refusal, Request, Response, Shipment};
use crate::provider::Ledger;
use crate::wire;

/// The bodies of answers with status 200.
#[derive(Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
enum Fate<'a> {
    Booked { shipment: &'a Shipment },
    Refused { refusal: &'a Refusal },
    Cancelled { key: &'a str },
}

impl Ledger for Carrier {
    fn answer(&mut self, now: Timestamp, request: &http::Request) -> http::Response {
        match read(request) {
            Ok(request) => write(&self.handle(now, request)),
            Err(refusal) => refusal,
        }
    }
}

fn read(request: &http::Request) -> Result<Request, http::Response> {
    Ok(match (request.method.as_str(), wire::segments(request).as_slice()) {
        ("POST", ["shipments"]) => {
            Request::Book { key: wire::effect_key(request)?, booking: wire::json(request)? }
        }
        ("GET", ["shipments", key]) => Request::Find { key: (*key).to_owned() },
        ("POST", ["shipments", key, "cancel"]) => Request::Cancel { key: (*key).to_owned() },
        _ => return Err(wire::route_unknown(request)),
    })
}

fn write(response: &Response) -> http::Response {
    match response {
        Response::Booked(shipment) => wire::fate(&Fate::Booked { shipment }),
        Response::Refused(refusal) => wire::fate(&Fate::Refused { refusal }),
        Response::Cancelled { key } => wire::fate(&Fate::Cancelled { key }),
        Response::KeyReused { key } => wire::key_reused(key),
        Response::UnknownKey { key } => wire::key_unknown(key),
        Response::Invalid(message) => wire::invalid(message),
    }
}

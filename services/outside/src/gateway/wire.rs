//! The gateway's paths and JSON.
//!
//! | request | does |
//! |---|---|
//! | `POST /charges`, idempotency key | takes money |
//! | `GET /charges/KEY` | what became of the key |
//! | `POST /charges/KEY/void` | makes sure that nothing is captured under the key from now on |
//! | `POST /refunds`, idempotency key | gives money back |

use context::Timestamp;
use kit::http;
use serde::Serialize;

use super::{Charge, Decline, Gateway, Refund, Request, Response};
use crate::provider::Ledger;
use crate::wire;

/// The bodies of answers with status 200.
#[derive(Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
enum Fate<'a> {
    Captured { charge: &'a Charge, refunded_minor: i64 },
    Declined { decline: &'a Decline },
    Voided { key: &'a str },
    Refunded { refund: &'a Refund },
}

impl Ledger for Gateway {
    fn answer(&mut self, now: Timestamp, request: &http::Request) -> http::Response {
        match read(request) {
            Ok(request) => write(&self.handle(now, request)),
            Err(refusal) => refusal,
        }
    }
}

fn read(request: &http::Request) -> Result<Request, http::Response> {
    Ok(match (request.method.as_str(), wire::segments(request).as_slice()) {
        ("POST", ["charges"]) => {
            Request::Charge { key: wire::effect_key(request)?, charge: wire::json(request)? }
        }
        ("GET", ["charges", key]) => Request::Find { key: (*key).to_owned() },
        ("POST", ["charges", key, "void"]) => Request::Void { key: (*key).to_owned() },
        ("POST", ["refunds"]) => {
            Request::Refund { key: wire::effect_key(request)?, refund: wire::json(request)? }
        }
        _ => return Err(wire::route_unknown(request)),
    })
}

fn write(response: &Response) -> http::Response {
    match response {
        Response::Captured { charge, refunded_minor } => {
            wire::fate(&Fate::Captured { charge, refunded_minor: *refunded_minor })
        }
        Response::Declined(decline) => wire::fate(&Fate::Declined { decline }),
        Response::Voided { key } => wire::fate(&Fate::Voided { key }),
        Response::Refunded(refund) => wire::fate(&Fate::Refunded { refund }),
        Response::KeyReused { key } => wire::key_reused(key),
        Response::UnknownKey { key } => wire::key_unknown(key),
        Response::UnknownCharge { charge_id } => wire::failure(
            http::StatusCode::NOT_FOUND,
            "charge_unknown",
            &format!("there is no charge `{charge_id}`"),
        ),
        Response::MoreThanIsLeft { charge_id, left_minor } => wire::failure(
            http::StatusCode::UNPROCESSABLE_ENTITY,
            "more_than_is_left",
            &format!("of `{charge_id}` {left_minor} is left"),
        ),
        Response::Invalid(message) => wire::invalid(message),
    }
}

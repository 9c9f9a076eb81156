//! The mail provider's paths and JSON.
//!
//! | request | does |
//! |---|---|
//! | `POST /notices`, idempotency key | sends |
//! | `GET /notices/KEY` | what became of the key |

use context::Timestamp;
use kit::http;
use serde::Serialize;

use super::{Mail, Notice, Request, Response};
use crate::provider::Ledger;
use crate::wire;

/// The bodies of answers with status 200.
#[derive(Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
enum Fate<'a> {
    Sent { notice: &'a Notice },
}

impl Ledger for Mail {
    fn answer(&mut self, now: Timestamp, request: &http::Request) -> http::Response {
        match read(request) {
            Ok(request) => write(&self.handle(now, request)),
            Err(refusal) => refusal,
        }
    }
}

fn read(request: &http::Request) -> Result<Request, http::Response> {
    Ok(match (request.method.as_str(), wire::segments(request).as_slice()) {
        ("POST", ["notices"]) => {
            Request::Send { key: wire::effect_key(request)?, notice: wire::json(request)? }
        }
        ("GET", ["notices", key]) => Request::Find { key: (*key).to_owned() },
        _ => return Err(wire::route_unknown(request)),
    })
}

fn write(response: &Response) -> http::Response {
    match response {
        Response::Sent(notice) => wire::fate(&Fate::Sent { notice }),
        Response::KeyReused { key } => wire::key_reused(key),
        Response::UnknownKey { key } => wire::key_unknown(key),
        Response::Invalid(message) => wire::invalid(message),
    }
}

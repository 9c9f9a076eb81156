//! HTTP/1.1 for calls to the outside, small: requests and responses with bytes or JSON, over the handed network.
//!
//! [`serve`] answers requests with an [`Endpoint`]; [`Client`] makes them, with a timeout and an idempotency key. Both
//! are hyper's connection machinery on [`context::Context`]'s streams; every connection is a task of its host, so that
//! it dies with it. No `Date` header is written: hyper takes it from the real clock.
//!
//! Absent on purpose: TLS, HTTP/2, streaming bodies, redirects, retries of what may have been done (a handler retries,
//! with the same idempotency key).

mod client;
mod io;
mod server;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use client::{Client, Error};
pub use hyper::{Method, StatusCode};
pub use server::{Endpoint, serve};

use crate::HandlerError;

/// The header of the idempotency key, as the IETF draft `idempotency-key-header` names it.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The largest body that is read, in either direction.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// A request, made or received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: Method,
    /// Path and query, from the slash on.
    pub path: String,
    /// What makes a repeat recognisable.
    pub idempotency_key: Option<String>,
    /// The body; empty if there is none.
    pub body: Bytes,
}

impl Request {
    /// A request without a body.
    pub fn new(method: Method, path: impl Into<String>) -> Request {
        Request { method, path: path.into(), idempotency_key: None, body: Bytes::new() }
    }

    /// With a JSON body.
    #[must_use]
    pub fn with_json(mut self, body: &impl Serialize) -> Request {
        self.body = to_json(body);
        self
    }

    /// With an idempotency key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Request {
        self.idempotency_key = Some(key.into());
        self
    }

    /// The body from JSON.
    ///
    /// # Errors
    /// A response with status 400 that says what does not read: an endpoint can return it as it is.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Response> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Response::text(StatusCode::BAD_REQUEST, error.to_string()))
    }

    /// A repeat of it does no harm.
    pub fn is_repeatable(&self) -> bool {
        self.idempotency_key.is_some() || self.method.is_idempotent()
    }
}

/// A response, made or received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// What the body is, where a reader insists on being told: the header `content-type`. It is not read from a peer.
    pub content_type: Option<&'static str>,
    /// The body; empty if there is none.
    pub body: Bytes,
}

impl Response {
    /// A response without a body.
    pub fn empty(status: StatusCode) -> Response {
        Response { status, content_type: None, body: Bytes::new() }
    }

    /// A response with text.
    pub fn text(status: StatusCode, text: impl Into<String>) -> Response {
        Response { status, content_type: None, body: text.into().into() }
    }

    /// A response with JSON.
    pub fn json(status: StatusCode, body: &impl Serialize) -> Response {
        Response { status, content_type: None, body: to_json(body) }
    }

    /// The body from JSON.
    ///
    /// # Errors
    /// [`HandlerError::Transient`]: a peer that answers nonsense may answer sense later.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, HandlerError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            HandlerError::Transient(format!("an answer with status {} does not read: {error}", self.status))
        })
    }

    /// The response, unless its status says that the peer could not do it now: 5xx, 408, 409, 425 or 429. 409 is among
    /// them because a peer answers so while it still works on the first request of a key.
    ///
    /// # Errors
    /// [`HandlerError::Transient`] with status and body.
    pub fn unless_busy(self) -> Result<Response, HandlerError> {
        let busy = self.status.is_server_error() || matches!(self.status.as_u16(), 408 | 409 | 425 | 429);
        if !busy {
            return Ok(self);
        }
        let body = String::from_utf8_lossy(&self.body);
        Err(HandlerError::Transient(format!("the peer answered {}: {body}", self.status)))
    }
}

fn to_json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("a body has no keys that JSON refuses").into()
}

//! How all three systems speak, over HTTP.
//!
//! JSON both ways; an effect needs an `idempotency-key`. Status 200 tells the fate of a key, a refusal by card or
//! carrier included: the `status` in the body says which. Every other status carries an `error`, and nothing was done.

use kit::http::{Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The body of every answer that is not a fate.
#[derive(Serialize)]
struct Failure<'a> {
    /// A fixed word.
    error: &'a str,
    /// For people.
    message: &'a str,
}

/// The path without its first `/`, cut at every other.
pub(crate) fn segments(request: &Request) -> Vec<&str> {
    request.path.trim_start_matches('/').split('/').collect()
}

/// The idempotency key, which an effect needs.
pub(crate) fn effect_key(request: &Request) -> Result<String, Response> {
    match &request.idempotency_key {
        Some(key) if (1..=255).contains(&key.len()) => Ok(key.clone()),
        _ => Err(failure(
            StatusCode::BAD_REQUEST,
            "key_missing",
            "an `idempotency-key` of 1 to 255 characters is needed",
        )),
    }
}

/// The body as what it should be.
pub(crate) fn json<T: DeserializeOwned>(request: &Request) -> Result<T, Response> {
    serde_json::from_slice(&request.body).map_err(|error| {
        failure(StatusCode::BAD_REQUEST, "body_malformed", &format!("the body does not read: {error}"))
    })
}

/// The fate of a key.
pub(crate) fn fate(body: &impl Serialize) -> Response {
    Response::json(StatusCode::OK, body)
}

/// Nothing was done; `error` says why in a fixed word.
pub(crate) fn failure(status: StatusCode, error: &str, message: &str) -> Response {
    Response::json(status, &Failure { error, message })
}

/// There is no such path and method.
pub(crate) fn route_unknown(request: &Request) -> Response {
    let message = format!("there is no `{} {}`", request.method, request.path);
    failure(StatusCode::NOT_FOUND, "route_unknown", &message)
}

/// The key is bound to another request.
pub(crate) fn key_reused(key: &str) -> Response {
    let message = format!("`{key}` was used for another request");
    failure(StatusCode::UNPROCESSABLE_ENTITY, "key_reused", &message)
}

/// The key was never seen.
pub(crate) fn key_unknown(key: &str) -> Response {
    failure(StatusCode::NOT_FOUND, "key_unknown", &format!("`{key}` was never used"))
}

/// The request makes no sense.
pub(crate) fn invalid(message: &str) -> Response {
    failure(StatusCode::BAD_REQUEST, "invalid", message)
}

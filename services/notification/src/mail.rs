//! The mail provider as this service sees it, over HTTP.

use kit::{HandlerError, http};
use proto::notification::NotifyCustomer;
use serde::{Deserialize, Serialize};

/// A mail provider behind HTTP.
#[derive(Clone, Debug)]
pub struct Mail {
    client: http::Client,
}

impl Mail {
    /// The provider that `client` reaches.
    pub fn new(client: http::Client) -> Mail {
        Mail { client }
    }

    /// Sends a notice, once for this key, and gives the provider's id of it. One attempt.
    ///
    /// # Errors
    /// [`HandlerError::Transient`] if the outcome is not known: ask again with the same key. Any other is final.
    pub async fn send(
        &self,
        key: &str,
        kind: &str,
        command: &NotifyCustomer,
    ) -> Result<String, HandlerError> {
        let body =
            Notice { order_id: &command.order_id, kind, to: &command.customer_id, text: &command.text };
        let response = self.client.post("/notices", Some(key), &body).await?.unless_busy()?;
        if response.status.is_success() {
            let Answer::Sent { notice } = response.decode()?;
            return Ok(notice.notice_id);
        }
        let body = String::from_utf8_lossy(&response.body);
        Err(HandlerError::Business(format!("the mail provider refused: {} {body}", response.status)))
    }
}

#[derive(Serialize)]
struct Notice<'a> {
    order_id: &'a str,
    kind: &'a str,
    to: &'a str,
    text: &'a str,
}

/// What the provider answers with status 200.
#[derive(Debug, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
enum Answer {
    Sent { notice: Sent },
}

#[derive(Debug, Deserialize)]
struct Sent {
    notice_id: String,
}

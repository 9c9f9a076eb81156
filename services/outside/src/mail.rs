//! The mail provider: it sends notices, once for each key, and keeps what it has sent.
//!
//! [`Mail`] is a core without IO. It does not know what an order or a kind means: a sender that wants one notice for
//! each kind and order must make the key of both. Start reading at [`Mail::handle`]. Absent on purpose: delivery,
//! bounces, unsubscribing.

mod wire;

use std::collections::BTreeMap;

use context::Timestamp;
use serde::{Deserialize, Serialize};

/// The host name of the mail provider in a simulated world.
pub const HOST: &str = "mail";

/// What a merchant asks to send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoticeRequest {
    /// The order it is about.
    pub order_id: String,
    /// What it says about the order, as a fixed word: `confirmed`, `cancelled`.
    pub kind: String,
    /// To whom.
    pub to: String,
    /// The text.
    pub text: String,
}

/// All that can be asked of the mail provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Send a notice, once for this key.
    Send {
        /// The idempotency key.
        key: String,
        /// What to send.
        notice: NoticeRequest,
    },
    /// What became of this key.
    Find {
        /// The key it was asked for under.
        key: String,
    },
}

/// All that the mail provider answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// The notice was sent, now or when the key was first used.
    Sent(Notice),
    /// The key was used before for another notice; nothing was sent.
    KeyReused {
        /// The key.
        key: String,
    },
    /// The provider has never seen this key.
    UnknownKey {
        /// The key.
        key: String,
    },
    /// The request makes no sense; the text says why.
    Invalid(String),
}

/// A notice that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// The provider's own id, in order of sending.
    pub notice_id: String,
    /// The idempotency key under which it was sent.
    pub key: String,
    /// The order it is about.
    pub order_id: String,
    /// What it says about the order.
    pub kind: String,
    /// To whom.
    pub to: String,
    /// The text.
    pub text: String,
    /// When it was sent, on the provider's clock.
    #[serde(serialize_with = "crate::provider::millis")]
    pub at: Timestamp,
}

/// The provider's ledger. It only grows.
#[derive(Clone, Debug, Default)]
pub struct Mail {
    notices: Vec<Notice>,
    /// What was asked under each key, and its place among the notices.
    keys: BTreeMap<String, (NoticeRequest, usize)>,
}

impl Mail {
    /// A provider that has sent nothing.
    pub fn new() -> Mail {
        Mail::default()
    }

    /// All notices sent, in order.
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// Applies one request and answers it.
    pub fn handle(&mut self, now: Timestamp, request: Request) -> Response {
        match request {
            Request::Send { key, notice } => self.send(now, key, notice),
            Request::Find { key } => self.find(key),
        }
    }

    fn send(&mut self, now: Timestamp, key: String, request: NoticeRequest) -> Response {
        match self.keys.get(&key) {
            Some((first, _)) if *first != request => return Response::KeyReused { key },
            Some(_) => return self.find(key),
            None => {}
        }
        if request.to.trim().is_empty() {
            return Response::Invalid("`to` is empty".into());
        }
        self.notices.push(Notice {
            notice_id: format!("no_{:06}", self.notices.len() + 1),
            key: key.clone(),
            order_id: request.order_id.clone(),
            kind: request.kind.clone(),
            to: request.to.clone(),
            text: request.text.clone(),
            at: now,
        });
        self.keys.insert(key.clone(), (request, self.notices.len() - 1));
        self.find(key)
    }

    fn find(&self, key: String) -> Response {
        match self.keys.get(&key) {
            Some((_, place)) => Response::Sent(self.notices[*place].clone()),
            None => Response::UnknownKey { key },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(key: &str, text: &str) -> Request {
        let notice = NoticeRequest {
            order_id: "order-1".into(),
            kind: "confirmed".into(),
            to: "ada@example.com".into(),
            text: text.into(),
        };
        Request::Send { key: key.into(), notice }
    }

    #[test]
    fn a_repeated_notice_is_sent_once() {
        let mut mail = Mail::new();
        let first = mail.handle(Timestamp::from_millis(1), send("order-1.confirmed", "on its way"));
        let again = mail.handle(Timestamp::from_millis(2), send("order-1.confirmed", "on its way"));
        assert!(matches!(first, Response::Sent(_)), "{first:?}");
        assert_eq!(first, again);
        assert_eq!(mail.notices().len(), 1);
    }

    #[test]
    fn another_text_under_a_used_key_is_refused() {
        let mut mail = Mail::new();
        mail.handle(Timestamp::ZERO, send("k", "on its way"));
        assert_eq!(
            mail.handle(Timestamp::ZERO, send("k", "cancelled")),
            Response::KeyReused { key: "k".into() }
        );
        assert_eq!(mail.notices().len(), 1);
    }
}

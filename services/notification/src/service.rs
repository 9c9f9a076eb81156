//! The handler: a command in, a mail sent, one transaction.

use async_trait::async_trait;
use kit::store::Json;
use kit::{Handler, HandlerError, Message, Prepared, Scope, Table, Unit};
use proto::OrderId;
use proto::notification::{CustomerNotified, NoticeKind, NotifyCustomer};
use serde::{Deserialize, Serialize};

use crate::mail::Mail;

/// All notices that went out, by order and kind ([`word`]).
pub const NOTICES: Table<(OrderId, String), Notice, Json> = Table::new("notices");

/// A notice that went out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// To whom.
    pub customer_id: String,
    /// The mail provider's id of it.
    pub notice_id: String,
}

/// Handles `notification.commands`.
#[derive(Debug)]
pub struct Notices {
    mail: Mail,
}

impl Notices {
    /// A handler that sends through `mail`.
    pub fn new(mail: Mail) -> Notices {
        Notices { mail }
    }
}

/// The word for a kind of notice, in tables and at the mail provider. None for what no contract names.
pub fn word(kind: NoticeKind) -> Option<&'static str> {
    match kind {
        NoticeKind::Confirmed => Some("confirmed"),
        NoticeKind::Cancelled => Some("cancelled"),
        NoticeKind::Unspecified => None,
    }
}

/// The command, and the word for its kind.
fn read(message: &Message) -> Result<(NotifyCustomer, &'static str), HandlerError> {
    let command: NotifyCustomer = message.decode()?;
    let kind = word(command.kind());
    let error = || HandlerError::Parse(format!("there is no kind of notice with number {}", command.kind));
    let kind = kind.ok_or_else(error)?;
    Ok((command, kind))
}

#[async_trait]
impl Handler for Notices {
    async fn prepare(&self, scope: &Scope, message: &Message) -> Result<Prepared, HandlerError> {
        let (command, kind) = read(message)?;
        let key = scope.idempotency_key(&format!("{}/{kind}", command.order_id));
        self.mail.send(&key, kind, &command).await.map(Prepared::new)
    }

    fn apply(&self, unit: &mut Unit<'_>, message: &Message, prepared: Prepared) -> Result<(), HandlerError> {
        let (command, kind) = read(message)?;
        let notice = Notice { customer_id: command.customer_id.clone(), notice_id: prepared.take() };
        let order_id = OrderId::new(&command.order_id)?;
        NOTICES.put(unit.tables(), &(order_id, kind.to_owned()), &notice)?;
        unit.note(format_args!("{} was told `{kind}` of {}", command.customer_id, command.order_id));
        unit.publish(&CustomerNotified {
            order_id: command.order_id,
            customer_id: command.customer_id,
            kind: command.kind,
        })?;
        Ok(())
    }
}

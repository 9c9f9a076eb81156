//! The innermost layer: inbox, prepare, and one transaction of inbox entry, effects and outbox rows.

use std::sync::Arc;

use async_trait::async_trait;

use crate::inbox::{self, Fate};
use crate::middleware::{Core, Incoming, Outcome};
use crate::{Handler, HandlerError, NaiveSwitch, Scope, StoreError, StoreExt, Unit};

pub(super) struct Innermost {
    pub(super) handler: Arc<dyn Handler>,
}

#[async_trait]
impl Core for Innermost {
    async fn handle(&self, scope: &Scope, incoming: &Incoming) -> Result<Outcome, HandlerError> {
        let message = incoming.message.as_ref().map_err(Clone::clone)?;
        let remembers = !scope.naive.is_on(NaiveSwitch::NoInbox);
        // Before `prepare`, to spare the outside a call; the look that counts is the one in the transaction.
        let known = |tables: &(dyn crate::ReadTables + '_)| {
            inbox::is_settled(tables, &scope.group, message.id, &incoming.record)
        };
        if remembers && scope.store.read_with::<_, StoreError>(known)? {
            return Ok(Outcome::Skipped);
        }
        let prepared = self.handler.prepare(scope, message).await?;
        scope.store.transact_with(&scope.context, |tables| {
            if remembers && inbox::is_settled(tables, &scope.group, message.id, &incoming.record)? {
                return Ok(Outcome::Skipped);
            }
            let mut unit = Unit::caused_by(&scope.context, tables, &scope.group, message);
            self.handler.apply(&mut unit, message, prepared)?;
            if remembers {
                let now = scope.context.now();
                inbox::settle(tables, &scope.group, message.id, &incoming.record, Fate::Applied, now)?;
            }
            Ok(Outcome::Applied)
        })
    }
}

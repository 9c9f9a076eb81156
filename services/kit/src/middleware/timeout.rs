//! Ends a try that takes too long.

use std::time::Duration;

use async_trait::async_trait;

use super::{Incoming, Middleware, Next, Outcome};
use crate::{HandlerError, Scope};

/// Gives each try so much time. The try is dropped at an await, hence never within its transaction: whatever of it has
/// reached the outside has its idempotency key.
#[derive(Clone, Copy, Debug)]
pub struct Timeout(pub Duration);

#[async_trait]
impl Middleware for Timeout {
    async fn handle(
        &self,
        scope: &Scope,
        incoming: &Incoming,
        next: Next<'_>,
    ) -> Result<Outcome, HandlerError> {
        let result = scope.context.timeout(self.0, next.run(scope, incoming)).await;
        result.unwrap_or_else(|elapsed| Err(HandlerError::Transient(format!("the handler {elapsed}"))))
    }
}

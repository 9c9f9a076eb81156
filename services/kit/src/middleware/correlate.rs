//! Says in the trace which request a delivery belongs to, and what became of it.

use async_trait::async_trait;

use super::{Incoming, Middleware, Next, Outcome};
use crate::{HandlerError, Scope};

/// Notes deliveries that did not go the plain way, each with its correlation id, so that a person can follow one request
/// through all services. The plain way is silent: the commit shows it. (The ids themselves are carried on by
/// [`crate::Unit::publish`], which a layer could not do for messages that leave later.)
#[derive(Clone, Copy, Debug, Default)]
pub struct Correlate;

#[async_trait]
impl Middleware for Correlate {
    async fn handle(
        &self,
        scope: &Scope,
        incoming: &Incoming,
        next: Next<'_>,
    ) -> Result<Outcome, HandlerError> {
        let result = next.run(scope, incoming).await;
        let became = match &result {
            Ok(Outcome::Applied) => return result,
            Ok(Outcome::Skipped) => "a repeat, skipped".to_owned(),
            Ok(Outcome::DeadLettered) => "a dead letter".to_owned(),
            Err(error) => format!("not settled: {error}"),
        };
        match &incoming.message {
            Ok(message) => scope
                .context
                .note(format_args!("{} [{}] {incoming}: {became}", scope.group, message.correlation_id)),
            Err(_) => scope.context.note(format_args!("{} {incoming}: {became}", scope.group)),
        }
        result
    }
}

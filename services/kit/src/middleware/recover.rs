//! Turns a panic of a handler into an error.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::{Incoming, Middleware, Next, Outcome};
use crate::metrics::Metrics;
use crate::{HandlerError, Scope};

/// Catches a panic within, so that one message cannot stop a service: it becomes [`HandlerError::Panicked`], and so a
/// dead letter. The transaction was rolled back as the panic unwound. Every one is counted, and noted in the trace: a
/// panic is a bug of the service, and a simulated run may treat it as its own failure.
#[derive(Clone, Debug)]
pub struct Recover {
    metrics: Metrics,
}

impl Recover {
    /// Counts in `metrics`.
    pub fn new(metrics: Metrics) -> Recover {
        Recover { metrics }
    }
}

#[async_trait]
impl Middleware for Recover {
    async fn handle(
        &self,
        scope: &Scope,
        incoming: &Incoming,
        next: Next<'_>,
    ) -> Result<Outcome, HandlerError> {
        let caught = AssertUnwindSafe(next.run(scope, incoming)).catch_unwind().await;
        caught.unwrap_or_else(|panic| {
            let text = text(&*panic);
            self.metrics.panicked();
            scope.context.trouble(format_args!("PANIC in {} at {incoming}: {text}", scope.group));
            Err(HandlerError::Panicked(text))
        })
    }
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "something that is no text".to_owned())
}

//! Tries again what may work later.

use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use context::Rng;

use super::{Incoming, Middleware, Next, Outcome};
use crate::backoff::Backoff;
use crate::metrics::Metrics;
use crate::{HandlerError, Scope};

/// Tries transient errors again, with exponential backoff and jitter. Every other error passes through at once.
///
/// The wait blocks its partition, which keeps the order per key, and nothing else: the router goes on polling, so the
/// member keeps its place in the group however long it takes (D2.7).
pub struct Retry {
    tries_max: Option<u32>,
    backoff: Backoff,
    metrics: Metrics,
    /// Seeded by the context at the first use.
    rng: OnceLock<Mutex<Rng>>,
}

impl Retry {
    /// At most `tries_max` tries (`None` is for ever).
    pub fn new(tries_max: Option<u32>, backoff: Backoff, metrics: Metrics) -> Retry {
        Retry { tries_max, backoff, metrics, rng: OnceLock::new() }
    }

    fn wait(&self, scope: &Scope, failed: u32) -> std::time::Duration {
        let rng = self.rng.get_or_init(|| Mutex::new(scope.context.rng(&format!("retry/{}", scope.group))));
        self.backoff.wait(failed, &mut rng.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Middleware for Retry {
    async fn handle(
        &self,
        scope: &Scope,
        incoming: &Incoming,
        next: Next<'_>,
    ) -> Result<Outcome, HandlerError> {
        let mut scope = scope.clone();
        let mut failed = 0;
        loop {
            scope.attempt = failed;
            let error = match next.run(&scope, incoming).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => error,
            };
            self.metrics.failed(incoming.topic(), error.class());
            failed += 1;
            if !error.is_transient() || self.tries_max.is_some_and(|max| failed >= max) {
                return Err(error);
            }
            let wait = self.wait(&scope, failed);
            scope.context.trouble(format_args!(
                "{} {incoming}: try {failed} failed, again in {wait:?}: {error}",
                scope.group
            ));
            scope.context.sleep(wait).await;
            self.metrics.retried(incoming.topic());
        }
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("tries_max", &self.tries_max).field("backoff", &self.backoff).finish()
    }
}

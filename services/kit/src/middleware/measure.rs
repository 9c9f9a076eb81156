//! Counts and times deliveries.

use async_trait::async_trait;

use super::{Incoming, Middleware, Next, Outcome};
use crate::metrics::Metrics;
use crate::{HandlerError, Scope};

/// Counts deliveries, repeats and the time they take.
#[derive(Clone, Debug)]
pub struct Measure {
    metrics: Metrics,
}

impl Measure {
    /// Counts in `metrics`.
    pub fn new(metrics: Metrics) -> Measure {
        Measure { metrics }
    }
}

/// Ends the measure of a delivery that is dropped in the middle too: its partition went to another member.
struct Running<'a> {
    metrics: &'a Metrics,
    scope: &'a Scope,
    topic: &'a str,
    from: context::Timestamp,
    settled: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let took = self.scope.context.now().since(self.from);
        self.metrics.ended(self.topic, took, self.settled);
    }
}

#[async_trait]
impl Middleware for Measure {
    async fn handle(
        &self,
        scope: &Scope,
        incoming: &Incoming,
        next: Next<'_>,
    ) -> Result<Outcome, HandlerError> {
        let (metrics, topic) = (&self.metrics, incoming.topic());
        metrics.received(topic);
        let mut running = Running { metrics, scope, topic, from: scope.context.now(), settled: false };
        let result = next.run(scope, incoming).await;
        running.settled = result.is_ok();
        if result == Ok(Outcome::Skipped) {
            metrics.skipped(topic);
        }
        result
    }
}

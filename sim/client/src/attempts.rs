//! Calls that are tried again until their time is up.

use std::time::Duration;

use broker::Error;
use context::{Context, Rng, Timestamp};

use crate::backoff::Backoff;
use crate::cluster::Cluster;

/// Tries again after retriable errors, until the time is up.
pub(crate) struct Attempts {
    context: Context,
    deadline: Timestamp,
    backoff: Backoff,
    rng: Rng,
    what: &'static str,
}

impl Attempts {
    pub(crate) fn new(cluster: &Cluster, what: &'static str, patience: Duration) -> Attempts {
        Attempts {
            context: cluster.context.clone(),
            deadline: cluster.context.now() + patience,
            backoff: cluster.backoff(),
            rng: cluster.rng(what),
            what,
        }
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// `error`, if it is not retriable or the time is up.
    pub(crate) async fn after(&mut self, error: Error) -> Result<(), Error> {
        if !error.is_retriable() {
            return Err(error);
        }
        if self.context.now() >= self.deadline {
            let text = format!("{}: gave up: {}", self.what, error.message);
            return Err(Error { message: text, ..error });
        }
        let wait = self.backoff.next(&mut self.rng);
        self.context.sleep(wait).await;
        Ok(())
    }
}

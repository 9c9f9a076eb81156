//! Faults as layers: for tests of what surrounds them, and for a service run on purpose under trouble.

use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use context::Rng;
use rand::RngExt as _;

use super::{Incoming, Middleware, Next, Outcome};
use crate::{HandlerError, Scope};

/// Parts per million.
const MILLION: u32 = 1_000_000;

/// A drawn yes or no; the stream belongs to the host and the group.
struct Chance {
    per_million: u32,
    rng: OnceLock<Mutex<Rng>>,
}

impl Chance {
    fn new(per_million: u32) -> Chance {
        assert!(per_million <= MILLION, "a probability is at most {MILLION} parts per million");
        Chance { per_million, rng: OnceLock::new() }
    }

    fn strikes(&self, scope: &Scope, part: &str) -> bool {
        let rng = self.rng.get_or_init(|| Mutex::new(scope.context.rng(&format!("{part}/{}", scope.group))));
        let drawn = rng.lock().unwrap_or_else(PoisonError::into_inner).random_range(0..MILLION);
        drawn < self.per_million
    }
}

/// Fails a try with a transient error, before the work at a first try, after it at a second, and so on. After the
/// work it is like a crash between the commit of the effects and that of the offset.
pub struct RandomFail(Chance);

impl RandomFail {
    /// With this probability, in parts per million.
    ///
    /// # Panics
    /// If it is above a million.
    pub fn new(per_million: u32) -> RandomFail {
        RandomFail(Chance::new(per_million))
    }
}

#[async_trait]
impl Middleware for RandomFail {
    async fn handle(
        &self,
        scope: &Scope,
        incoming: &Incoming,
        next: Next<'_>,
    ) -> Result<Outcome, HandlerError> {
        let fail =
            |when| Err(HandlerError::Transient(format!("a fault that was asked for, {when} the work")));
        if !self.0.strikes(scope, "random fail") {
            return next.run(scope, incoming).await;
        }
        // Every other try, so that both kinds come early.
        if scope.attempt.is_multiple_of(2) {
            return fail("before");
        }
        next.run(scope, incoming).await?;
        fail("after")
    }
}

/// Handles a delivery twice, as a redelivery would.
pub struct Duplicate(Chance);

impl Duplicate {
    /// With this probability, in parts per million.
    ///
    /// # Panics
    /// If it is above a million.
    pub fn new(per_million: u32) -> Duplicate {
        Duplicate(Chance::new(per_million))
    }
}

#[async_trait]
impl Middleware for Duplicate {
    async fn handle(
        &self,
        scope: &Scope,
        incoming: &Incoming,
        next: Next<'_>,
    ) -> Result<Outcome, HandlerError> {
        let result = next.run(scope, incoming).await?;
        if self.0.strikes(scope, "duplicate") {
            next.run(scope, incoming).await?;
        }
        Ok(result)
    }
}

impl fmt::Debug for RandomFail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RandomFail({} ppm)", self.0.per_million)
    }
}

impl fmt::Debug for Duplicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Duplicate({} ppm)", self.0.per_million)
    }
}

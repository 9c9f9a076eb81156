//! Where a story is told: a cluster whose brokers can be killed, started, paused and resumed.

use async_trait::async_trait;
use context::Context;

/// Why the stage could not do as told.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct StageError(pub String);

/// A cluster of three brokers, 1 to 3.
#[async_trait]
pub trait Stage: Send + Sync {
    /// Clock, sockets and tasks of the one who tells the story.
    fn context(&self) -> Context;

    /// Where a broker listens.
    fn address(&self, broker: i32) -> (String, u16);

    /// Kills a broker's process; its disk stays.
    async fn kill(&self, broker: i32) -> Result<(), StageError>;

    /// Starts a broker that was killed.
    async fn start(&self, broker: i32) -> Result<(), StageError>;

    /// Stops a broker's process in its tracks.
    async fn pause(&self, broker: i32) -> Result<(), StageError>;

    /// Ends a pause.
    async fn resume(&self, broker: i32) -> Result<(), StageError>;
}

//! Real Kafka as a stage.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use cluster::{ClusterError, Jars, Processes, Spec};
use context::real::RealHost;
use context::{Context, Seed};

use crate::account::Account;
use crate::stage::{Stage, StageError};
use crate::tales::Tale;

struct Real {
    context: Context,
    processes: Mutex<Processes>,
}

impl Real {
    fn processes(&self) -> MutexGuard<'_, Processes> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<ClusterError> for StageError {
    fn from(error: ClusterError) -> StageError {
        StageError(error.to_string())
    }
}

#[async_trait]
impl Stage for Real {
    fn context(&self) -> Context {
        self.context.clone()
    }

    fn address(&self, broker: i32) -> (String, u16) {
        ("127.0.0.1".into(), self.processes().port(broker as u32))
    }

    async fn kill(&self, broker: i32) -> Result<(), StageError> {
        self.processes().kill(broker as u32)?;
        Ok(())
    }

    async fn start(&self, broker: i32) -> Result<(), StageError> {
        Ok(self.processes().restart(broker as u32)?)
    }

    async fn pause(&self, broker: i32) -> Result<(), StageError> {
        Ok(self.processes().pause(broker as u32)?)
    }

    async fn resume(&self, broker: i32) -> Result<(), StageError> {
        Ok(self.processes().resume(broker as u32)?)
    }
}

/// Tells a story to real Kafka: three brokers and a controller of their own, as local processes, fresh for the story.
///
/// # Errors
/// As [`Tale::tell`]; if there is no Java or no Maven, what to do.
pub fn on_real_kafka(tale: Tale) -> Result<Account, StageError> {
    let jars = Jars::find()?;
    let spec = Spec { brokers: 3, config: tale.config(), features: tale.levels(), ..Spec::default() };
    let processes = Processes::start(&jars, &spec)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| StageError(format!("no runtime: {error}")))?;
    runtime.block_on(async {
        let context = RealHost::new("teller", Seed(1)).into_context();
        tale.tell(Arc::new(Real { context, processes: Mutex::new(processes) })).await
    })
}

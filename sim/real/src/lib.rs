//! The harness on real Kafka: the same scenario files, phases and checks, in real time.
//!
//! [`RealBackend`] is a [`Backend`]: it finds or starts a cluster, and sets a stage on which each service and each outside
//! system is a process of its own. A crash is SIGKILL and a pause SIGSTOP, for brokers too; links are cut, held and slowed
//! by proxies. Orders and faults are drawn from the seed as in the simulation, but the run is not the same run again: real
//! time is nobody's to repeat.
//!
//! - `stage`: one run, and the thread that shows the checks what happened;
//! - `process`, `host`: a service in a process of its own, from outside and from inside; `telegram`, `act`, `inbox`: what it tells,
//!   and how all that is told comes into one order;
//! - `grounds`, `warm`, `links`, `watcher`, `names`: the cluster, the proxies before it, who looks at it, and names of a run's own;
//! - `able`: what of a scenario can be brought.
//!
//! Start reading at [`RealBackend`], then `stage`. Absent on purpose: power losses, links between brokers, several replicas of
//! a service with a file store, and several runs at once: they would take each other's processor.

#![expect(clippy::disallowed_methods, reason = "the real clock, and signals")]

mod able;
mod act;
mod grounds;
mod host;
mod inbox;
mod links;
mod names;
mod process;
mod stage;
mod telegram;
mod warm;
mod watcher;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cluster::Wanted;
use context::{Seed, Timestamp};
use harness::RunError;
use harness::fault::Unsupported;
use harness::scenario::Scenario;
use harness::stage::{Ask, Backend, Stage};
use harness::system::System;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use grounds::{Grounds, Wish};
use names::Prefix;
use stage::{Around, RealStage};

pub use host::{HostError, host};
pub use process::HostCommand;

/// The backend's word in reports.
pub const NAME: &str = "kafka";

/// Beside the runner's own thread. The brokers and services are what the processor is for.
const WORKERS: usize = 2;
/// By its name a panic of one of these threads is told from the runner's own.
const THREADS: &str = "real-backend";

/// A run that was interrupted has so long to end its hosts and clean up; then the program ends, and the kernel and the
/// guardians of the brokers do the rest.
const ENDS_WITHIN: Duration = Duration::from_secs(6);

/// The exit code of a program that was interrupted and could not end in order: 128 and SIGINT's number, as shells have it.
const INTERRUPTED: i32 = 130;

/// Real Kafka, in real time.
pub struct RealBackend<'s> {
    system: &'s dyn System,
    command: HostCommand,
    owned: bool,
    interrupted: Arc<AtomicBool>,
    /// The first panic of a task in this process: customers, observer, probe, or this crate's own.
    panicked: Arc<Mutex<Option<String>>>,
    grounds: Option<Grounds>,
    // Last: what was spawned on it is dropped first.
    runtime: Runtime,
}

impl<'s> RealBackend<'s> {
    /// A backend without a cluster yet; `command` starts this program as a host, which calls [`host`]. From now on SIGINT and
    /// SIGTERM end the run under way in order, with [`RunError::Interrupted`].
    ///
    /// # Errors
    /// [`RunError::Unavailable`] if the environment asks for a cluster in words that mean nothing; [`RunError::Stage`].
    pub fn new(system: &'s dyn System, command: HostCommand) -> Result<RealBackend<'s>, RunError> {
        let wanted = Wanted::from_environment().map_err(RunError::Unavailable)?;
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(WORKERS).thread_name(THREADS).enable_all().build();
        let runtime = runtime.map_err(|error| RunError::Stage(format!("a runtime: {error}")))?;
        let interrupted = Arc::<AtomicBool>::default();
        let heard = interrupted.clone();
        let within = runtime.enter();
        let signals = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
        drop(within);
        for listening in signals {
            let mut listening = listening.map_err(|error| RunError::Stage(format!("a signal: {error}")))?;
            let heard = heard.clone();
            runtime.spawn(async move {
                if listening.recv().await.is_some() {
                    heard.store(true, Ordering::Relaxed);
                    tokio::time::sleep(ENDS_WITHIN).await;
                    std::process::exit(INTERRUPTED);
                }
            });
        }
        let owned = wanted.bootstrap_servers.is_none();
        let panicked = Arc::<Mutex<Option<String>>>::default();
        let (slot, hook) = (panicked.clone(), std::panic::take_hook());
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name() == Some(THREADS) {
                slot.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic.to_string());
            }
            hook(panic);
        }));
        Ok(RealBackend { system, command, owned, interrupted, panicked, grounds: None, runtime })
    }

    /// Somebody asked the program to end.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// What runs take place on, once the first has begun: which cluster, and where.
    pub fn describe(&self) -> Option<String> {
        self.grounds.as_ref().map(|grounds| grounds.kafka().to_string())
    }
}

impl Backend for RealBackend<'_> {
    fn name(&self) -> String {
        NAME.to_owned()
    }

    fn replays(&self) -> bool {
        false
    }

    fn supported(&self, scenario: &Scenario) -> Result<(), Unsupported> {
        able::supported(self.system, scenario, self.owned)
    }

    fn began(&self) -> Timestamp {
        now()
    }

    fn prepare(&mut self, system: &dyn System, scenario: &Scenario, seed: u64) -> Result<(), RunError> {
        if self.is_interrupted() {
            return Err(RunError::Interrupted);
        }
        let wish = Wish::of(system, scenario);
        if self.grounds.as_ref().is_some_and(|grounds| !grounds.serve(&wish)) {
            self.grounds = None;
        }
        if self.grounds.is_none() {
            let found = Grounds::find(wish, self.runtime.handle(), Seed(seed));
            self.grounds = Some(found.map_err(|error| RunError::Unavailable(error.to_string()))?);
        }
        Ok(())
    }

    fn set(&mut self, ask: Ask<'_>) -> Result<Box<dyn Stage + '_>, RunError> {
        let runtime = self.runtime.handle().clone();
        let grounds = self.grounds.as_mut().expect("a stage is set on grounds that were prepared");
        // Nobody else's, on this machine or another.
        let prefix = format!("sd-{:x}-{:x}-", now().as_micros(), std::process::id());
        let (command, interrupted) = (self.command.clone(), self.interrupted.clone());
        let around = Around { runtime, command, interrupted, panicked: self.panicked.clone() };
        Ok(Box::new(RealStage::new(&ask, grounds, around, Prefix::new(prefix))?))
    }
}

impl std::fmt::Debug for RealBackend<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RealBackend").field("grounds", &self.describe()).finish_non_exhaustive()
    }
}

/// The machine's clock.
fn now() -> Timestamp {
    Timestamp::ZERO + SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

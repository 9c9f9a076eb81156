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
//! - `able`: what of a scenario can be brought; `interrupt`: what becomes of a run that somebody ends; `leavings`: what can be kept
//!   of one that did not hold.
//!
//! Start reading at [`RealBackend`], then `stage`. Absent on purpose: power losses, links between brokers, several replicas of
//! a service with a file store, and several runs at once: they would take each other's processor.

#![expect(clippy::disallowed_methods, reason = "the real clock")]

mod able;
mod act;
mod grounds;
mod host;
mod inbox;
mod interrupt;
mod leavings;
mod links;
mod names;
mod process;
mod stage;
mod telegram;
mod warm;
mod watcher;

use std::net::ToSocketAddrs as _;
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

use grounds::{Grounds, Wish};
use interrupt::Interrupt;
use names::Prefix;
use stage::{Around, RealStage};

pub use host::{HostError, host};
pub use leavings::Leavings;
pub use process::HostCommand;

/// The backend's word in reports.
pub const NAME: &str = "kafka";

/// Beside the runner's own thread. The brokers and services are what the processor is for.
const WORKERS: usize = 2;
/// By its name a panic of one of these threads is told from the runner's own.
const THREADS: &str = "real-backend";

/// What still runs on the backend's threads when it is dropped has so long: no task of a run should be among it.
const STOPS_WITHIN: Duration = Duration::from_secs(1);

/// Real Kafka, in real time.
pub struct RealBackend<'s> {
    system: &'s dyn System,
    command: HostCommand,
    /// How many brokers the cluster has that was given; `None` if clusters are started.
    given: Option<u32>,
    interrupt: Interrupt,
    leavings: Leavings,
    /// The first panic of a task in this process: customers, observer, probe, or this crate's own.
    panicked: Arc<Mutex<Option<String>>>,
    grounds: Option<Grounds>,
    /// Taken when the backend is dropped.
    runtime: Option<Runtime>,
}

impl<'s> RealBackend<'s> {
    /// A backend without a cluster yet; `command` starts this program as a host, which calls [`host`]. From now on SIGINT and
    /// SIGTERM end the run under way in order, with [`RunError::Interrupted`]; when the backend is gone, or at the second one,
    /// they end the program at once. A program has one backend at a time.
    ///
    /// # Errors
    /// [`RunError::Unavailable`] if the environment asks for a cluster in words that mean nothing, or names one that does not
    /// answer; [`RunError::Stage`].
    pub fn new(system: &'s dyn System, command: HostCommand) -> Result<RealBackend<'s>, RunError> {
        let wanted = Wanted::from_environment().map_err(RunError::Unavailable)?;
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(WORKERS).thread_name(THREADS).enable_all().build();
        let runtime = runtime.map_err(|error| RunError::Stage(format!("a runtime: {error}")))?;
        let interrupt = Interrupt::listen().map_err(|error| RunError::Stage(format!("signals: {error}")))?;
        let given = wanted.bootstrap_servers.as_deref().map(brokers_of).transpose();
        let given = given.map_err(RunError::Unavailable)?;
        let panicked = Arc::<Mutex<Option<String>>>::default();
        let (slot, hook) = (panicked.clone(), std::panic::take_hook());
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name() == Some(THREADS) {
                slot.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic.to_string());
            }
            hook(panic);
        }));
        let (leavings, runtime) = (Leavings::default(), Some(runtime));
        Ok(RealBackend { system, command, given, interrupt, leavings, panicked, grounds: None, runtime })
    }

    /// Somebody asked the program to end.
    pub fn is_interrupted(&self) -> bool {
        self.interrupt.was_asked()
    }

    /// Holds what each run has left, from its end to the beginning of the next.
    pub fn leavings(&self) -> Leavings {
        self.leavings.clone()
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is taken only when the backend is dropped")
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
        able::supported(self.system, scenario, self.given)
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
            let found = Grounds::find(wish, self.runtime().handle(), Seed(seed));
            self.grounds = Some(found.map_err(|error| RunError::Unavailable(error.to_string()))?);
        }
        Ok(())
    }

    fn set(&mut self, ask: Ask<'_>) -> Result<Box<dyn Stage + '_>, RunError> {
        let runtime = self.runtime().handle().clone();
        let grounds = self.grounds.as_mut().expect("a stage is set on grounds that were prepared");
        // Nobody else's, on this machine or another.
        let prefix = format!("sd-{:x}-{:x}-", now().as_micros(), std::process::id());
        let around = Around {
            runtime,
            command: self.command.clone(),
            interrupt: self.interrupt.clone(),
            leavings: self.leavings.clone(),
            panicked: self.panicked.clone(),
        };
        Ok(Box::new(RealStage::new(&ask, grounds, around, Prefix::new(prefix))?))
    }
}

impl Drop for RealBackend<'_> {
    fn drop(&mut self) {
        // What was spawned on the runtime first; and nothing that hangs there keeps the program from its end.
        self.grounds = None;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(STOPS_WITHIN);
        }
        self.interrupt.nothing_to_end();
    }
}

impl std::fmt::Debug for RealBackend<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RealBackend").field("grounds", &self.describe()).finish_non_exhaustive()
    }
}

/// How many brokers the cluster lists that was given: those of the first server that answers.
fn brokers_of(servers: &str) -> Result<u32, String> {
    let mut refusals = Vec::new();
    for server in servers.split(',').map(str::trim) {
        let listed = server.to_socket_addrs().and_then(|mut addresses| {
            let nowhere = || std::io::Error::other("it has no address");
            addresses.next().ok_or_else(nowhere).and_then(cluster::listed_by)
        });
        match listed {
            Ok(brokers) => return Ok(u32::try_from(brokers.len()).expect("a list of brokers is short")),
            Err(error) => refusals.push(format!("{server}: {error}")),
        }
    }
    Err(format!(
        "KAFKA_BOOTSTRAP_SERVERS is {servers}, where nobody tells of brokers: {}",
        refusals.join(", ")
    ))
}

/// The machine's clock.
fn now() -> Timestamp {
    Timestamp::ZERO + SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

//! The world of a simulated run: hosts, time, network, and what can go wrong with them.
//!
//! One thread, one seed. A host is a name and a [`Program`]; the world starts it with a [`context::Context`] of its own
//! and moves time from event to event. Between steps the harness changes the world ([`Change`]): it kills, pauses,
//! restarts hosts, holds and slows links.
//!
//! # What the changes mean, whatever the engine
//! - **Kill**: the process dies, its machine lives. Its connections close (peers read end of file, and a reset if they go
//!   on writing), new ones are refused.
//! - **Power off**: the machine is silent, also one whose process was killed before. Peers hear nothing; connects wait. When it is back it resets the connections
//!   on which a peer has sent meanwhile, as a machine does that knows nothing of them. What it had sent before arrives.
//! - **Restart**: the program starts anew, as the host's next incarnation, and may listen on its ports at once.
//! - **Pause**: no task of the host is polled (SIGSTOP); its kernel goes on acknowledging and takes connects. On resume
//!   its timers are late.
//! - **Hold**: bytes on a link wait, in one direction, connects too, and what is under way; they arrive a latency after
//!   the release, each connection's in order. A hold does not nest: one release ends it. Nothing is ever lost on a link.
//! - **Ties** between hosts that are ready at the same instant are drawn from the seed.
//! - A program that ends leaves the tasks that it started running, and its host up.
//! - Time moves in whole milliseconds.
//!
//! An engine that cannot express a change refuses it by name ([`Refusal`]); [`Engine::can`] says so before a run. The
//! claims above are tests (`tests/meaning`), the same for every engine; what turmoil does otherwise without refusing
//! stands in the header of its module.
//!
//! Start reading at [`World`] and [`Change`]; then `jump.rs`, the engine that matters. Absent on purpose: Kafka, scenario
//! files, and the decision when something goes wrong. Clock skew is absent too: all hosts have one time.

mod change;
mod clock;
mod digest;
mod engine;
mod jump;
mod panic;
mod turmoil_sim;

pub use change::{Change, HostStats, LatencyRange, LinkStats, Refusal};
pub use digest::Digest;
pub use engine::{Engine, NoSuchEngine};

use std::sync::Arc;

use context::{Program, Recorder, Seed, Timestamp};

/// When every simulated run begins: 2026-01-01 00:00:00 UTC. Fixed, so that timestamps replay.
pub const EPOCH: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// What a world is made from.
pub struct WorldConfig {
    /// Decides ties, latencies, and every stream of randomness of its hosts.
    pub seed: Seed,
    /// The latency of links that have none of their own.
    pub latency: LatencyRange,
    /// Hears every event, in order.
    pub recorder: Arc<dyn Recorder>,
}

/// Why no world can be made in this binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// tokio was built without its unstable interface: `select!` would draw from the process, not from the seed.
    #[error(
        "built without `--cfg tokio_unstable`, so a run would not replay; build inside the repository, where \
         `.cargo/config.toml` sets it, and without `RUSTFLAGS` in the environment, which overrides it"
    )]
    TokioStable,
}

/// Whether this binary can make a world that replays.
///
/// # Errors
/// [`NotReady::TokioStable`] if it was built without `tokio_unstable`.
pub fn ready() -> Result<(), NotReady> {
    if cfg!(tokio_unstable) { Ok(()) } else { Err(NotReady::TokioStable) }
}

/// Makes a world. One at a time on a thread; several threads may each have one.
///
/// # Errors
/// As [`ready`].
///
/// # Panics
/// If this thread has a world already.
pub fn build(engine: Engine, config: WorldConfig) -> Result<Box<dyn World>, NotReady> {
    ready()?;
    match engine {
        Engine::Jump => Ok(Box::new(jump::Jump::new(config))),
        Engine::Turmoil => Ok(Box::new(turmoil_sim::TurmoilSim::new(config))),
    }
}

/// Hosts, time and network of one run. Not `Send`: a run stays on its thread.
pub trait World {
    /// Simulated time; it starts at [`EPOCH`].
    fn now(&self) -> Timestamp;

    /// Adds a host; its program starts with the next step of time. All hosts are added before the first step.
    ///
    /// # Panics
    /// If the name is taken, or time has moved.
    fn add_host(&mut self, name: &str, program: Program);

    /// Lets everything happen that happens before or at `until`.
    ///
    /// # Panics
    /// A panic of a task passes through: it is a bug, and ends the run.
    fn run_until(&mut self, until: Timestamp);

    /// Makes several changes at this instant, in order. A two-way partition is its holds in both directions, made
    /// together: an engine whose links know no direction ([`Engine::can`]) takes them only so.
    ///
    /// # Errors
    /// [`Refusal::Unsupported`] if the engine cannot express one of them: then none is made. Another [`Refusal`] if one
    /// does not fit (no such host, a restart of what runs): those before it are made, it and those after it are not.
    fn change_all(&mut self, changes: &[Change]) -> Result<(), Refusal>;

    /// Makes one change now.
    ///
    /// # Errors
    /// As [`World::change_all`].
    fn change(&mut self, change: &Change) -> Result<(), Refusal> {
        self.change_all(std::slice::from_ref(change))
    }

    /// What has happened to a host so far; `None` if there is none of that name.
    fn host(&self, name: &str) -> Option<HostStats>;

    /// What has happened on the link from one host to another so far.
    fn link(&self, from: &str, to: &str) -> LinkStats;
}

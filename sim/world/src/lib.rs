//! The world of a simulated run: hosts, time, network, and what can go wrong with them.
//!
//! One thread, one seed. A host is a name and a [`Program`]; the world starts it with a [`context::Context`] of its own
//! and moves time from event to event. Between steps the harness changes the world ([`Change`]): it kills, pauses,
//! restarts hosts, holds and slows links.
//!
//! # What the changes mean, whatever the engine
//! - **Kill**: the process dies, its machine lives. Its connections close (peers read end of file), new ones are refused.
//! - **Power off**: the machine is silent. Peers hear nothing; connects wait. When it is back it resets the connections
//!   on which a peer has sent meanwhile, as a machine does that knows nothing of them.
//! - **Pause**: no task of the host is polled (SIGSTOP); its kernel goes on acknowledging. On resume its timers are late.
//! - **Hold**: bytes on a link wait, in one direction, connects too; they arrive after the release, in order.
//! - **Ties** between hosts that are ready at the same instant are drawn from the seed.
//!
//! An engine that cannot express a change refuses it by name ([`Refusal`]). Absent on purpose: Kafka, scenario files,
//! and the decision when something goes wrong.

mod change;

pub use change::{Change, HostStats, LatencyRange, LinkStats, Refusal};

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

    /// Changes the world now.
    ///
    /// # Errors
    /// [`Refusal`] if the engine cannot express it, or it does not fit (no such host, a restart of what runs).
    fn change(&mut self, change: &Change) -> Result<(), Refusal>;

    /// What has happened to a host so far; `None` if there is none of that name.
    fn host(&self, name: &str) -> Option<HostStats>;

    /// What has happened on the link from one host to another so far.
    fn link(&self, from: &str, to: &str) -> LinkStats;
}

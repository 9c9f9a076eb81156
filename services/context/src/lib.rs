//! What the world hands to a service: network, clock, randomness, ids, tasks, and a recorder for what happened.
//!
//! A service takes a [`Context`] and nothing from the process: no clock, no socket, no random number, no task of its
//! own making. So the same service runs in a simulated world, where all of these come from one seed, and in production,
//! where [`real::RealHost`] gives it tokio's.
//!
//! Start reading at [`Context`]. What a world must provide is the trait [`Host`]. This crate decides nothing about
//! faults, hosts' names or latencies: that is the world's. Files are absent on purpose: a service keeps its state in
//! a store.

mod context;
mod event;
mod net;
mod random;
pub mod real;
mod task;
mod time;

pub use context::{Context, Elapsed};
pub use event::{Event, EventKind, NoRecorder, Recorder};
pub use net::{BoxListener, BoxStream, Listener, Net, Stream};
pub use random::{Rng, Seed};
pub use task::{BoxFuture, Task, TaskHandle};
pub use time::Timestamp;

use std::sync::Arc;

/// What a host runs: called with a fresh context at every start of the host.
pub type Program = Arc<dyn Fn(Context) -> BoxFuture<'static, ()> + Send + Sync>;

/// Wraps an async function as a [`Program`].
pub fn program<F>(start: impl Fn(Context) -> F + Send + Sync + 'static) -> Program
where
    F: Future<Output = ()> + Send + 'static,
{
    Arc::new(move |context| Box::pin(start(context)))
}

/// One host as its world provides it; [`Context`] is the comfortable face of it.
///
/// A host is one incarnation of a machine's process: after a restart the world makes a new one.
pub trait Host: Send + Sync + 'static {
    /// The name that peers use in [`Net::connect`].
    fn name(&self) -> &str;

    /// How often this host was started before: 0 at first. It keeps the draws of two incarnations apart.
    fn incarnation(&self) -> u64;

    /// The time on this host.
    fn now(&self) -> Timestamp;

    /// Starts a task that lives until it ends, is aborted, or its host is killed.
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> TaskHandle;

    /// The network as this host sees it.
    fn net(&self) -> Arc<dyn Net>;

    /// The seed from which all randomness on this host derives.
    fn seed(&self) -> Seed;

    /// Where events of this host go.
    fn recorder(&self) -> Arc<dyn Recorder>;
}

//! The handle that every service holds.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand_chacha::rand_core::Rng as _;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::{BoxListener, BoxStream, Event, EventKind, Host, Rng, Seed, Task, TaskHandle, Timestamp};

/// A host's clock, network, tasks, randomness and recorder. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    host: Arc<dyn Host>,
    ids: Arc<Mutex<Rng>>,
}

/// The time given to [`Context::timeout`] ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out after {0:?}")]
pub struct Elapsed(pub Duration);

impl Context {
    /// Wraps a host. Worlds call this once for each incarnation.
    pub fn new(host: Arc<dyn Host>) -> Context {
        let ids = host.seed().stream(&format!("{}#{}/ids", host.name(), host.incarnation()));
        Context { host, ids: Arc::new(Mutex::new(ids)) }
    }

    /// The name of this host.
    pub fn name(&self) -> &str {
        self.host.name()
    }

    /// How often this host was started before.
    pub fn incarnation(&self) -> u64 {
        self.host.incarnation()
    }

    /// The time on this host.
    pub fn now(&self) -> Timestamp {
        self.host.now()
    }

    /// The stream of randomness of the part called `name` on this incarnation of this host.
    pub fn rng(&self, name: &str) -> Rng {
        self.host.seed().stream(&format!("{}#{}/{name}", self.host.name(), self.host.incarnation()))
    }

    /// The seed behind all streams, for what is shared between hosts.
    pub fn seed(&self) -> Seed {
        self.host.seed()
    }

    /// A fresh id: UUID version 7, made of this host's time and its own stream of randomness.
    pub fn new_id(&self) -> Uuid {
        let mut random = [0; 10];
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut random);
        uuid::Builder::from_unix_timestamp_millis(self.now().as_millis(), &random).into_uuid()
    }

    /// Sleeps for `span`, rounded up to whole milliseconds.
    pub async fn sleep(&self, span: Duration) {
        #[expect(clippy::disallowed_methods, reason = "the one door to timers: it records what fires")]
        tokio::time::sleep(span).await;
        self.record(EventKind::Timer, format_args!("slept {span:?}"), &[]);
    }

    /// Sleeps until `until`; returns at once if it has passed.
    pub async fn sleep_until(&self, until: Timestamp) {
        self.sleep(until.since(self.now())).await;
    }

    /// Runs `future` for at most `span`.
    ///
    /// # Errors
    /// [`Elapsed`] when the time ran out; the future is dropped then.
    pub async fn timeout<T>(&self, span: Duration, future: impl Future<Output = T>) -> Result<T, Elapsed> {
        #[expect(clippy::disallowed_methods, reason = "the one door to timers: it records what fires")]
        let result = tokio::time::timeout(span, future).await;
        result.map_err(|_| {
            self.record(EventKind::Timer, format_args!("timed out after {span:?}"), &[]);
            Elapsed(span)
        })
    }

    /// Starts a task on this host; it ends with its host. `name` shows in traces.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &'static str,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        let (sender, receiver) = oneshot::channel();
        let task = async move {
            // The receiver may be gone: not everyone waits for the result.
            sender.send(future.await).ok();
        };
        let handle: TaskHandle = self.host.spawn(name, Box::pin(task));
        Task::new(receiver, handle)
    }

    /// Listens on a port of this host. See [`crate::Net::listen`].
    ///
    /// # Errors
    /// As [`crate::Net::listen`].
    pub async fn listen(&self, port: u16) -> std::io::Result<BoxListener> {
        self.host.net().listen(port).await
    }

    /// Connects to a port of another host. See [`crate::Net::connect`].
    ///
    /// # Errors
    /// As [`crate::Net::connect`].
    pub async fn connect(&self, host: &str, port: u16) -> std::io::Result<BoxStream> {
        self.host.net().connect(host, port).await
    }

    /// Records an event of this host.
    pub fn record(&self, kind: EventKind, text: fmt::Arguments<'_>, bytes: &[u8]) {
        self.host.recorder().record(Event { at: self.now(), host: self.host.name(), kind, text, bytes });
    }

    /// Records something a person would want to read in the trace.
    pub fn note(&self, text: fmt::Arguments<'_>) {
        self.record(EventKind::Note, text, &[]);
    }

    /// Records that something goes wrong and is dealt with: tried again, waited for, given up.
    pub fn trouble(&self, text: fmt::Arguments<'_>) {
        self.record(EventKind::Trouble, text, &[]);
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({}#{})", self.name(), self.incarnation())
    }
}

//! One incarnation of a host, as its program sees it, and what all incarnations share with the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use context::{BoxFuture, Event, EventKind, Host, Net, Recorder, Seed, TaskHandle, Timestamp};
use turmoil_net::HostId;

use super::network::Network;
use super::tasks::Tasks;
use super::wire::Ends;
use crate::clock::Clock;

/// What the engine shares with every host.
pub(crate) struct Shared {
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) clock: Clock,
    pub(crate) seed: Seed,
    pub(crate) recorder: Arc<dyn Recorder>,
    directory: Mutex<Directory>,
    closed: Mutex<BTreeSet<Ends>>,
    scratch: Mutex<Vec<u8>>,
    stirred: AtomicBool,
    gone: AtomicBool,
    thread: ThreadId,
}

/// Who is where.
#[derive(Default)]
pub(crate) struct Directory {
    pub(crate) numbers: BTreeMap<Arc<str>, usize>,
    /// By number.
    pub(crate) hosts: Vec<Entry>,
}

/// A host in the directory.
pub(crate) struct Entry {
    pub(crate) name: Arc<str>,
    /// The number of the address on which each port is listened to.
    pub(crate) ports: BTreeMap<u16, u8>,
}

impl Shared {
    pub(crate) fn new(seed: Seed, recorder: Arc<dyn Recorder>) -> Shared {
        Shared {
            tasks: Arc::default(),
            clock: Clock::new(),
            seed,
            recorder,
            directory: Mutex::default(),
            closed: Mutex::default(),
            scratch: Mutex::default(),
            stirred: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            thread: std::thread::current().id(),
        }
    }

    /// Records an event of the host called `name`; an empty name is the world itself.
    pub(crate) fn record(&self, name: &str, kind: EventKind, text: fmt::Arguments<'_>, bytes: &[u8]) {
        self.recorder.record(Event { at: self.clock.now(), host: name, kind, text, bytes });
    }

    pub(crate) fn directory(&self) -> MutexGuard<'_, Directory> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn name(&self, host: usize) -> Arc<str> {
        self.directory().hosts[host].name.clone()
    }

    /// The connections that a program has closed without reading to the end. The network stack would take in, and
    /// acknowledge, what a peer still sends on them; the engine answers it with a reset, as Linux does.
    pub(crate) fn closed(&self) -> MutexGuard<'_, BTreeSet<Ends>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer for one poll.
    pub(crate) fn scratch(&self) -> MutexGuard<'_, Vec<u8>> {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stack has been given something, so it may have packets to send.
    pub(crate) fn stir(&self) {
        self.stirred.store(true, Ordering::Relaxed);
    }

    /// Whether the stack was stirred since the last call. To ask it for packets costs a walk over all sockets.
    pub(crate) fn take_stirred(&self) -> bool {
        self.stirred.swap(false, Ordering::Relaxed)
    }

    /// The network stack can be called: the world is there, and this is its thread. A socket that a test or a panic has
    /// carried out of its world must not act on another world's.
    pub(crate) fn is_here(&self) -> bool {
        !self.gone.load(Ordering::Relaxed) && std::thread::current().id() == self.thread
    }

    pub(crate) fn set_gone(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}

/// One run of a host's process.
pub(crate) struct Incarnation {
    shared: Arc<Shared>,
    number: usize,
    name: Arc<str>,
    incarnation: u64,
    dead: Arc<AtomicBool>,
    network: Arc<Network>,
}

impl Incarnation {
    pub(crate) fn new(shared: Arc<Shared>, number: usize, id: HostId, incarnation: u64) -> Incarnation {
        let dead = Arc::new(AtomicBool::new(false));
        let name = shared.name(number);
        let network = Arc::new(Network::new(shared.clone(), number, id, dead.clone()));
        Incarnation { shared, number, name, incarnation, dead, network }
    }

    /// The process is gone: what still holds its context can start nothing any more.
    pub(crate) fn end(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }
}

impl Host for Incarnation {
    fn name(&self) -> &str {
        &self.name
    }

    fn incarnation(&self) -> u64 {
        self.incarnation
    }

    fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> TaskHandle {
        if self.dead.load(Ordering::Relaxed) {
            drop(task);
            return TaskHandle::new(|| {});
        }
        self.shared.tasks.spawn(self.number, name, task)
    }

    fn net(&self) -> Arc<dyn Net> {
        self.network.clone()
    }

    fn seed(&self) -> Seed {
        self.shared.seed
    }

    fn recorder(&self) -> Arc<dyn Recorder> {
        self.shared.recorder.clone()
    }
}

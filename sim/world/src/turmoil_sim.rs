//! The engine `turmoil`: turmoil's own `Sim` behind the same seam, as the reference.
//!
//! It ticks: every host runs for a millisecond, whether it has work or not. What it does otherwise than `jump`, beyond the
//! changes that it refuses ([`Engine::can`](crate::Engine::can)):
//! - Within a link's range the latency is drawn from turmoil's exponential curve, so most are near the shortest.
//! - A writer waits for its reader after 1,024 writes, not after some bytes.
//! - Events of one millisecond come host by host, so their times may step back by one within a tick.
//! - A frame is recorded where a program reads it, not where it arrives; a link counts writes and reads, not packets.
//!
//! [`network`] is the network as a program sees it.

mod network;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, UNIX_EPOCH};

use context::{
    BoxFuture, Context, Event, EventKind, Host, Net, Program, Recorder, Seed, TaskHandle, Timestamp,
};
use turmoil::{Builder, Sim};

use crate::clock::Clock;
use crate::panic::with_blame;
use crate::{Change, EPOCH, Engine, HostStats, LatencyRange, LinkStats, Refusal, World, WorldConfig};
use network::Network;

/// turmoil's clock resolution, and ours.
const TICK: Duration = Duration::from_millis(1);

/// Unread writes on a connection, and connects that nobody has accepted yet. turmoil panics at the second.
const TCP_CAPACITY: usize = 1_024;

/// The world of this engine.
pub(crate) struct TurmoilSim {
    // Declared first, so that tasks are dropped before what they share.
    sim: Sim<'static>,
    shared: Arc<Shared>,
    latency: LatencyRange,
    begun: bool,
}

/// What the engine shares with its hosts.
struct Shared {
    clock: Clock,
    seed: Seed,
    recorder: Arc<dyn Recorder>,
    places: Mutex<BTreeMap<Arc<str>, Arc<Place>>>,
    links: Mutex<Links>,
    /// Of the first task that panicked.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

#[derive(Default)]
struct Links {
    stats: BTreeMap<(Arc<str>, Arc<str>), LinkStats>,
    slowed: BTreeSet<(Arc<str>, Arc<str>)>,
}

/// A host with all its incarnations.
struct Place {
    name: Arc<str>,
    running: AtomicBool,
    incarnation: AtomicU64,
    /// Alive now.
    tasks: AtomicU64,
    connections: AtomicU64,
    tasks_killed: AtomicU64,
    connections_cut: AtomicU64,
    current: Mutex<Option<Arc<Incarnation>>>,
}

/// One run of a host's process.
struct Incarnation {
    shared: Arc<Shared>,
    place: Arc<Place>,
    number: u64,
    dead: Arc<AtomicBool>,
    network: Arc<Network>,
}

impl TurmoilSim {
    pub(crate) fn new(config: WorldConfig) -> TurmoilSim {
        let WorldConfig { seed, latency, recorder } = config;
        let sim = Builder::new()
            .epoch(UNIX_EPOCH + EPOCH.since(Timestamp::ZERO))
            .rng_seed(seed.child("world/turmoil").0)
            .simulation_duration(Duration::MAX)
            .tick_duration(TICK)
            .min_message_latency(latency.min)
            .max_message_latency(latency.max)
            .tcp_capacity(TCP_CAPACITY)
            .enable_random_order()
            .build();
        let shared = Shared {
            clock: Clock::new(),
            seed,
            recorder,
            places: Mutex::default(),
            links: Mutex::default(),
            panic: Mutex::default(),
        };
        TurmoilSim { sim, shared: Arc::new(shared), latency, begun: false }
    }

    fn begin(&mut self) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        for name in lock(&self.shared.places).keys() {
            self.shared.record(name, EventKind::Fault, format_args!("start {name}"), &[]);
        }
    }

    /// Refuses what does not fit.
    fn check(&self, change: &Change) -> Result<(), Refusal> {
        if let Change::Hold { from, to } | Change::Release { from, to } | Change::Latency { from, to, .. } =
            change
        {
            let (from, to) = (self.place(from)?, self.place(to)?);
            if Arc::ptr_eq(&from, &to) {
                return Err(Refusal::Unfit { change: change.to_string(), state: "at both ends" });
            }
        }
        if let Some(host) = change.host() {
            let running = self.place(host)?.running.load(Ordering::Relaxed);
            if running == matches!(change, Change::Restart { .. }) {
                let state = if running { "running" } else { "down" };
                return Err(Refusal::Unfit { change: change.to_string(), state });
            }
        }
        Ok(())
    }

    fn make(&mut self, change: &Change) {
        match change {
            Change::Kill { host } => {
                let place = self.place(host).expect("it was checked");
                place.end();
                self.sim.crash(host.as_str());
            }
            Change::Restart { host } => {
                let place = self.place(host).expect("it was checked");
                place.incarnation.fetch_add(1, Ordering::Relaxed);
                place.running.store(true, Ordering::Relaxed);
                self.sim.bounce(host.as_str());
            }
            Change::Hold { from, to } => self.sim.hold(from.as_str(), to.as_str()),
            Change::Release { from, to } => {
                self.count_held(from, to);
                self.sim.release(from.as_str(), to.as_str());
            }
            Change::Latency { from, to, range } => {
                let LatencyRange { min, max } = range.unwrap_or(self.latency);
                self.sim.set_link_latency(from.as_str(), to.as_str(), min);
                self.sim.set_link_max_message_latency(from.as_str(), to.as_str(), max);
                let ends = (from.as_str().into(), to.as_str().into());
                let slowed = &mut lock(&self.shared.links).slowed;
                let _ = if range.is_some() { slowed.insert(ends) } else { slowed.remove(&ends) };
            }
            Change::PowerOff { .. } | Change::Pause { .. } | Change::Resume { .. } => {
                unreachable!("the engine refuses it")
            }
        }
    }

    /// Counts what waits between two hosts, in both directions: the first release of the two lets all of it go.
    fn count_held(&self, from: &str, to: &str) {
        let ends = [(self.sim.lookup(from), from), (self.sim.lookup(to), to)];
        let name = |address| ends.iter().find(|(of, _)| *of == address).map(|(_, name)| *name);
        let mut links = lock(&self.shared.links);
        self.sim.links(|all| {
            for message in all.flatten() {
                let (source, target) = message.pair();
                if let (Some(source), Some(target)) = (name(source.ip()), name(target.ip())) {
                    links.of(&source.into(), &target.into()).held += 1;
                }
            }
        });
    }

    fn place(&self, host: &str) -> Result<Arc<Place>, Refusal> {
        lock(&self.shared.places).get(host).cloned().ok_or_else(|| Refusal::NoSuchHost(host.into()))
    }
}

impl World for TurmoilSim {
    fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    fn add_host(&mut self, name: &str, program: Program) {
        assert!(!self.begun, "`{name}` comes too late: all hosts are added before the first step or change");
        let place = Arc::new(Place::new(name.into()));
        let taken = lock(&self.shared.places).insert(place.name.clone(), place.clone());
        assert!(taken.is_none(), "there are two hosts `{name}`");
        let shared = self.shared.clone();
        self.sim.host(name, move || {
            let incarnation = Arc::new(Incarnation::new(shared.clone(), place.clone()));
            *lock(&place.current) = Some(incarnation.clone());
            let program = program.clone();
            let context = Context::new(incarnation.clone());
            let main = incarnation.watch("main", Box::pin(async move { program(context).await }));
            async move {
                main.await;
                // turmoil stops a host whose program has ended; here its tasks go on.
                pending().await
            }
        });
    }

    fn run_until(&mut self, until: Timestamp) {
        self.begin();
        while self.now() < until {
            let stepped = self.sim.step();
            if let Some(panic) = lock(&self.shared.panic).take() {
                resume_unwind(panic);
            }
            stepped.expect("no host's program ends");
            self.shared.clock.set(EPOCH.as_millis() + self.sim.elapsed().as_millis() as u64);
        }
    }

    fn change_all(&mut self, changes: &[Change]) -> Result<(), Refusal> {
        Engine::Turmoil.can(changes)?;
        self.begin();
        for change in changes {
            self.check(change)?;
            let host = change.host().unwrap_or_default();
            self.shared.record(host, EventKind::Fault, format_args!("{change}"), &[]);
            self.make(change);
        }
        Ok(())
    }

    fn host(&self, name: &str) -> Option<HostStats> {
        let place = self.place(name).ok()?;
        Some(HostStats {
            running: self.begun && place.running.load(Ordering::Relaxed),
            paused: false,
            incarnation: place.incarnation.load(Ordering::Relaxed),
            tasks_killed: place.tasks_killed.load(Ordering::Relaxed),
            connections_cut: place.connections_cut.load(Ordering::Relaxed),
            wakes_deferred: 0,
        })
    }

    fn link(&self, from: &str, to: &str) -> LinkStats {
        let ends = (from.into(), to.into());
        lock(&self.shared.links).stats.get(&ends).copied().unwrap_or_default()
    }
}

impl Drop for TurmoilSim {
    fn drop(&mut self) {
        // What tasks start or ask while they are dropped must not reach turmoil, which is then out of its world.
        for place in lock(&self.shared.places).values() {
            place.end();
        }
    }
}

impl Shared {
    fn record(&self, name: &str, kind: EventKind, text: fmt::Arguments<'_>, bytes: &[u8]) {
        self.recorder.record(Event { at: self.now(), host: name, kind, text, bytes });
    }

    /// The time of the host that runs now; between steps, the world's.
    fn now(&self) -> Timestamp {
        match turmoil::since_epoch() {
            Some(since) => Timestamp::from_millis(since.as_millis() as u64),
            None => self.clock.now(),
        }
    }
}

impl Links {
    fn of(&mut self, from: &Arc<str>, to: &Arc<str>) -> &mut LinkStats {
        self.stats.entry((from.clone(), to.clone())).or_default()
    }
}

impl Place {
    fn new(name: Arc<str>) -> Place {
        Place {
            name,
            running: AtomicBool::new(true),
            incarnation: AtomicU64::new(0),
            tasks: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            tasks_killed: AtomicU64::new(0),
            connections_cut: AtomicU64::new(0),
            current: Mutex::default(),
        }
    }

    /// The process is about to die.
    fn end(&self) {
        if let Some(incarnation) = lock(&self.current).take() {
            incarnation.dead.store(true, Ordering::Relaxed);
        }
        self.running.store(false, Ordering::Relaxed);
        self.tasks_killed.fetch_add(self.tasks.load(Ordering::Relaxed), Ordering::Relaxed);
        self.connections_cut.fetch_add(self.connections.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Incarnation {
    fn new(shared: Arc<Shared>, place: Arc<Place>) -> Incarnation {
        let number = place.incarnation.load(Ordering::Relaxed);
        let dead = Arc::new(AtomicBool::new(false));
        let network = Arc::new(Network::new(shared.clone(), place.clone()));
        Incarnation { shared, place, number, dead, network }
    }

    /// Counts the task while it lives, and keeps its panic for the engine: turmoil would say only that there was one.
    fn watch(&self, name: &'static str, future: BoxFuture<'static, ()>) -> Watched {
        self.place.tasks.fetch_add(1, Ordering::Relaxed);
        let (shared, place) = (self.shared.clone(), self.place.clone());
        Watched { shared, place, number: self.number, name, future }
    }
}

impl Host for Incarnation {
    fn name(&self) -> &str {
        &self.place.name
    }

    fn incarnation(&self) -> u64 {
        self.number
    }

    fn now(&self) -> Timestamp {
        // While a host is torn down turmoil's time for it is the real one.
        if self.dead.load(Ordering::Relaxed) { self.shared.clock.now() } else { self.shared.now() }
    }

    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> TaskHandle {
        if self.dead.load(Ordering::Relaxed) {
            drop(task);
            return TaskHandle::new(|| {});
        }
        let task = self.watch(name, task);
        #[expect(clippy::disallowed_methods, reason = "a task of turmoil's runtime for this host")]
        let handle = tokio::task::spawn_local(task);
        TaskHandle::new(move || handle.abort())
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

/// A task of a host.
struct Watched {
    shared: Arc<Shared>,
    place: Arc<Place>,
    number: u64,
    name: &'static str,
    future: BoxFuture<'static, ()>,
}

impl Future for Watched {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let poll = catch_unwind(AssertUnwindSafe(|| self.future.as_mut().poll(cx)));
        poll.unwrap_or_else(|panic| {
            let (task, host, number, now) = (self.name, &self.place.name, self.number, self.shared.now());
            let panic = with_blame(panic, task, host, number, now);
            lock(&self.shared.panic).get_or_insert(panic);
            Poll::Ready(())
        })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.place.tasks.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

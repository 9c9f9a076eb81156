//! The engine `jump`: turmoil's network stack under a driver of our own, which jumps from event to event.
//!
//! One paused tokio runtime gives the timers, and moves its clock to the next of them whenever the driver waits. The
//! driver is the one future on that runtime. It polls the hosts' tasks itself ([`tasks`]), so that the seed decides whose
//! turn it is and a kill is a drop; it takes what the hosts send from the stack, gives each packet its time on its link
//! ([`links`]), and hands it over when that has come. [`changes`] is what the harness does to it, [`network`] is what a program sees of it, [`wire`] what a packet is.
//!
//! The stack (crate turmoil-net) is a kernel for every host: handshakes, windows, FIN, RST. It retransmits by counting,
//! which means nothing here, so that is off and no packet is ever lost: a partition holds them. Some of Linux's behaviour
//! that it leaves out is made here, each where it is needed: a reset for data to a closed connection, a machine that
//! forgets its connections when it loses power, a listener that may bind again while old connections linger.

mod changes;
mod host;
mod links;
mod network;
mod tasks;
mod wire;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use context::{Context, EventKind, Program, Rng, Seed, Timestamp};
use rand_chacha::rand_core::Rng as _;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, Sleep};
use turmoil_net::{EnterGuard, HostId, KernelConfig, Net, Packet};

use crate::panic::with_blame;
use crate::{Change, EPOCH, HostStats, LatencyRange, LinkStats, Refusal, World, WorldConfig};
use host::{Entry, Incarnation, Shared};
use links::Links;
use wire::{ADDRESSES, Ends, Kind, Segment, address, host_of};

/// One packet carries all that a window allows: a segment of 64 KiB as 45 packets would cost 45 times as much.
const MTU: u32 = 65_000;

/// Far more connects than a test makes at once. The stack drops a SYN beyond it, and it would never come again.
const BACKLOG: usize = 1 << 20;

/// So many turns without a millisecond passing are a loop among the tasks: a run takes a few dozen.
const TURNS_AT_ONE_INSTANT_MAX: u64 = 1_000_000;

/// The world of this engine.
pub(crate) struct Jump {
    shared: Arc<Shared>,
    machines: Vec<Machine>,
    links: Links,
    /// The order of hosts that are ready at the same instant.
    ties: Rng,
    phase: Phase,
    latency: LatencyRange,
    /// Shared with the step that it drives; a world is not `Send`.
    runtime: Rc<Runtime>,
    /// The instant of the runtime's paused clock that is [`EPOCH`].
    start: Instant,
    alarm: Option<Pin<Box<Sleep>>>,
    outbox: Vec<Packet>,
    /// The initial sequence numbers of SYN-ACKs that are under way, by the server's view of the connection.
    handshakes: BTreeMap<Ends, u32>,
    turns: u64,
}

/// The stack takes hosts only before it is entered.
enum Phase {
    Gathering(Box<Net>),
    Running(EnterGuard),
}

/// A host with all its incarnations.
struct Machine {
    name: Arc<str>,
    id: HostId,
    program: Program,
    state: State,
    incarnation: Option<Arc<Incarnation>>,
    stats: HostStats,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Paused,
    /// The process is gone, the machine is there.
    Down,
    /// The machine is without power.
    Dark,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Paused => "paused",
            State::Down | State::Dark => "down",
        }
    }
}

impl Jump {
    pub(crate) fn new(config: WorldConfig) -> Jump {
        let WorldConfig { seed, latency, recorder } = config;
        let kernel = KernelConfig::default().mtu(MTU).default_backlog(BACKLOG).retx_threshold(u32::MAX);
        let runtime = Rc::new(runtime(seed));
        let start = {
            let _entered = runtime.enter();
            now_of_runtime()
        };
        Jump {
            shared: Arc::new(Shared::new(seed, recorder)),
            machines: Vec::new(),
            links: Links::new(seed, Vec::new(), latency),
            ties: seed.stream("world/ties of hosts"),
            phase: Phase::Gathering(Box::new(Net::with_config(kernel))),
            latency,
            runtime,
            start,
            alarm: None,
            outbox: Vec::new(),
            handshakes: BTreeMap::new(),
            turns: 0,
        }
    }

    /// Starts the hosts, at the first step or change.
    fn begin(&mut self) {
        let Phase::Gathering(net) = &mut self.phase else { return };
        let guard = std::mem::take(&mut **net).enter();
        self.phase = Phase::Running(guard);
        let names = self.machines.iter().map(|machine| machine.name.to_string()).collect();
        self.links = Links::new(self.shared.seed, names, self.latency);
        self.shared.tasks.set_hosts(self.machines.len());
        for number in 0..self.machines.len() {
            let name = self.machines[number].name.clone();
            self.shared.record(&name, EventKind::Fault, format_args!("start {name}"), &[]);
            self.start(number);
        }
    }

    fn start(&mut self, number: usize) {
        let machine = &mut self.machines[number];
        machine.state = State::Running;
        machine.stats.running = true;
        let incarnation =
            Incarnation::new(self.shared.clone(), number, machine.id, machine.stats.incarnation);
        let incarnation = Arc::new(incarnation);
        machine.incarnation = Some(incarnation.clone());
        let program = machine.program.clone();
        let main = async move { program(Context::new(incarnation)).await };
        self.shared.tasks.spawn(number, "main", Box::pin(main));
    }

    // ---- Time.

    /// Lets happen what is due, and sets the alarm for what comes next.
    fn poll_until(&mut self, until: u64, cx: &mut TaskContext<'_>) -> Poll<()> {
        self.shared.tasks.engine_at_work();
        loop {
            self.read_clock();
            let turns_before = self.turns;
            self.settle();
            if self.shared.clock.millis() >= until {
                if self.turns == turns_before {
                    return Poll::Ready(());
                }
                // A task that yields leaves its waker with tokio, which uses it when this future waits, and forgets it
                // when this future ends.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let next = self.links.next_due().map_or(until, |due| due.min(until));
            if self.poll_alarm(next, cx).is_pending() {
                self.shared.tasks.wake_when_ready(cx.waker());
                return Poll::Pending;
            }
        }
    }

    fn read_clock(&mut self) {
        let passed = now_of_runtime().duration_since(self.start);
        assert!(
            passed.subsec_nanos().is_multiple_of(1_000_000),
            "the paused clock moves in whole milliseconds, not to {passed:?}"
        );
        let now = EPOCH.as_millis() + passed.as_millis() as u64;
        if now > self.shared.clock.millis() {
            self.shared.clock.set(now);
            self.turns = 0;
        }
    }

    fn poll_alarm(&mut self, at: u64, cx: &mut TaskContext<'_>) -> Poll<()> {
        let at = self.start + Duration::from_millis(at - EPOCH.as_millis());
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(alarm_at(at)));
        if alarm.deadline() != at {
            alarm.as_mut().reset(at);
        }
        alarm.as_mut().poll(cx)
    }

    /// Until nothing is left to do at this instant.
    fn settle(&mut self) {
        loop {
            self.poll_tasks();
            if self.shared.take_stirred() {
                self.collect();
            }
            if !self.shared.tasks.any_ready() && !self.deliver_due() {
                return;
            }
        }
    }

    fn poll_tasks(&mut self) {
        let tasks = self.shared.tasks.clone();
        while let Some(number) = tasks.draw(&mut self.ties) {
            let machine = &self.machines[number];
            let (incarnation, now) = (machine.stats.incarnation, self.shared.clock.now());
            let name = &machine.name;
            self.turns += tasks.run(number, |panic, task| with_blame(panic, task, name, incarnation, now));
            assert!(
                self.turns < TURNS_AT_ONE_INSTANT_MAX,
                "time stands still at {now:?}: tasks wake one another without waiting, on {name} at least"
            );
        }
    }

    // ---- Packets.

    /// Puts what the hosts have sent on the links.
    fn collect(&mut self) {
        let mut outbox = std::mem::take(&mut self.outbox);
        self.guard().egress_all(&mut outbox);
        let now = self.shared.clock.millis();
        for packet in outbox.drain(..) {
            let (from, to) = (host_of(packet.src), host_of(packet.dst));
            if self.machines[from].state == State::Dark {
                continue;
            }
            let segment = Segment::of(&packet);
            match segment.kind() {
                Kind::Syn => {
                    self.shared.closed().remove(&segment.sender_ends());
                }
                Kind::SynAck => {
                    self.handshakes.insert(segment.sender_ends(), segment.tcp.seq);
                }
                _ => {}
            }
            self.links.send(now, from, to, packet);
        }
        self.outbox = outbox;
    }

    /// Delivers all packets that are due; false if there was none.
    fn deliver_due(&mut self) -> bool {
        let now = self.shared.clock.millis();
        let mut any = false;
        while let Some((from, to, packet)) = self.links.take_due(now) {
            any = true;
            self.shared.stir();
            self.arrive(from, to, packet);
        }
        any
    }

    fn arrive(&mut self, from: usize, to: usize, packet: Packet) {
        let segment = Segment::of(&packet);
        let kind = segment.kind();
        if self.machines[to].state == State::Dark {
            // An acknowledgement is not sent again, so nothing is left of it when the machine is back.
            self.links.unheard(from, to, kind.is_retransmitted().then_some(packet));
            return;
        }
        self.links.heard(from, to);
        self.record_frame(from, to, &segment, kind);
        let ends = segment.receiver_ends();
        if let Some(isn) = self.handshakes.remove(&ends)
            && kind == Kind::Reset
        {
            // The client gave up before the handshake was over. The stack would keep the half-open connection for ever;
            // complete, it is one that the listener finds reset, and passes over.
            let (local, remote) = ends;
            self.guard().deliver(wire::handshake_ack(remote, local, isn.wrapping_add(1)));
        }
        match kind {
            Kind::Data(_) if self.shared.closed().remove(&ends) => {
                return self.refuse_data(from, to, &segment);
            }
            Kind::Syn | Kind::Fin | Kind::Reset => {
                self.shared.closed().remove(&ends);
            }
            _ => {}
        }
        self.guard().deliver(packet);
    }

    /// Data for a connection that the program has closed: the connection is forgotten and the peer told so.
    fn refuse_data(&mut self, from: usize, to: usize, segment: &Segment<'_>) {
        self.guard().deliver(wire::reset(segment.from, segment.to, segment.tcp.seq));
        let now = self.shared.clock.millis();
        self.links.send(now, to, from, segment.reset());
    }

    fn record_frame(&self, from: usize, to: usize, segment: &Segment<'_>, kind: Kind) {
        if kind == Kind::Ack {
            return;
        }
        let (from, to) = (&self.machines[from].name, &self.machines[to].name);
        let text = format_args!("{to}:{} <- {from} {kind}", segment.to.port());
        self.shared.record(to, EventKind::Frame, text, &segment.tcp.payload);
    }

    // ---- Places.

    fn number(&self, host: &str) -> Result<usize, Refusal> {
        let number = self.shared.directory().numbers.get(host).copied();
        number.ok_or_else(|| Refusal::NoSuchHost(host.into()))
    }

    fn guard(&self) -> &EnterGuard {
        match &self.phase {
            Phase::Running(guard) => guard,
            Phase::Gathering(_) => panic!("the network is entered with the first step or change"),
        }
    }
}

impl World for Jump {
    fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    fn add_host(&mut self, name: &str, program: Program) {
        let Phase::Gathering(net) = &mut self.phase else {
            panic!("`{name}` comes too late: all hosts are added before the first step or change")
        };
        let number = self.machines.len();
        let addresses: Vec<_> = (0..ADDRESSES).map(|of| address(number, of)).collect();
        let id = net.add_host(addresses);
        let name: Arc<str> = name.into();
        let mut directory = self.shared.directory();
        let taken = directory.numbers.insert(name.clone(), number);
        assert!(taken.is_none(), "there are two hosts `{name}`");
        directory.hosts.push(Entry { name: name.clone(), ports: BTreeMap::new() });
        drop(directory);
        let (state, stats) = (State::Down, HostStats::default());
        self.machines.push(Machine { name, id, program, state, incarnation: None, stats });
    }

    fn run_until(&mut self, until: Timestamp) {
        self.begin();
        let runtime = self.runtime.clone();
        // Unconstrained: the driver is one future, and tokio's budget for it would be spent by all hosts together.
        let driving = std::future::poll_fn(|cx| self.poll_until(until.as_millis(), cx));
        runtime.block_on(tokio::task::unconstrained(driving));
    }

    fn change_all(&mut self, changes: &[Change]) -> Result<(), Refusal> {
        self.begin();
        let runtime = self.runtime.clone();
        // Tasks that end here may hold timers.
        let _entered = runtime.enter();
        for change in changes {
            let target = self.target(change)?;
            let host = change.host().unwrap_or_default();
            self.shared.record(host, EventKind::Fault, format_args!("{change}"), &[]);
            self.make(change, target);
            self.shared.stir();
        }
        Ok(())
    }

    fn host(&self, name: &str) -> Option<HostStats> {
        let number = self.number(name).ok()?;
        let mut stats = self.machines[number].stats;
        if let Phase::Running(_) = self.phase {
            stats.wakes_deferred = self.shared.tasks.wakes_deferred(number);
        }
        Some(stats)
    }

    fn link(&self, from: &str, to: &str) -> LinkStats {
        match (&self.phase, self.number(from), self.number(to)) {
            (Phase::Running(_), Ok(from), Ok(to)) => self.links.stats(self.shared.clock.millis(), from, to),
            _ => LinkStats::default(),
        }
    }
}

impl Drop for Jump {
    fn drop(&mut self) {
        // Tasks end while network and runtime are there; what they start or wake in doing so is gone with them.
        let runtime = self.runtime.clone();
        let _entered = runtime.enter();
        for number in 0..self.machines.len() {
            if let Some(incarnation) = self.machines[number].incarnation.take() {
                incarnation.end();
            }
        }
        if let Phase::Running(_) = self.phase {
            for number in 0..self.machines.len() {
                drop(self.shared.tasks.take(number));
            }
        }
        self.shared.set_gone();
    }
}

fn runtime(seed: Seed) -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    #[cfg(tokio_unstable)]
    {
        // `tokio::select!` without `biased` draws from it.
        let mut bytes = [0; 32];
        seed.stream("world/tokio").fill_bytes(&mut bytes);
        builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&bytes));
    }
    #[cfg(not(tokio_unstable))]
    let _ = seed;
    builder.build().expect("a runtime without files and sockets can be made")
}

#[expect(clippy::disallowed_methods, reason = "the paused clock that this engine drives")]
fn now_of_runtime() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the driver's own alarm is no event of a host")]
fn alarm_at(at: Instant) -> Sleep {
    tokio::time::sleep_until(at)
}

/// A number in `0..bound`, the same on every platform. Its bias is below `bound / 2^64`.
fn draw_below(rng: &mut Rng, bound: u64) -> u64 {
    ((u128::from(rng.next_u64()) * u128::from(bound)) >> 64) as u64
}

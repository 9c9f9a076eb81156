//! The stage of one run on real Kafka.
//!
//! The runner's thread is the only one that shows checks anything: at every step it takes what all hosts told, in order
//! ([`Inbox`]), mirrors what they keep, and shows it. Customers, observer and probe live in this process, on the backend's
//! runtime; services and outside systems are processes of their own ([`Process`]).

#![expect(clippy::disallowed_methods, reason = "real processes, files and time")]

mod hosts;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use cluster::{CONTROLLER, RealKafka};
use context::real::RealHost;
use context::{Event, EventKind, Recorder as _, Seed, Timestamp};
use harness::RunError;
use harness::check::client::{ClientEvent, ClientId};
use harness::fault::Wound;
use harness::observed::Desk;
use harness::recorder::RunRecorder;
use harness::run::Panic;
use harness::stage::{Ask, Gate, MakeClients, Offsets, Part, Stage, StageHost};
use harness::system::{Deployment, News, Role};
use tempfile::TempDir;
use tokio::runtime::Handle;
use world::Change;

use self::hosts::{BrokerState, Host};
use crate::able::{Kind, broker};
use crate::grounds::Grounds;
use crate::host::{clients, topic_defaults};
use crate::inbox::{Inbox, Mail, Posting};
use crate::interrupt::Interrupt;
use crate::leavings::Leavings;
use crate::names::Prefix;
use crate::process::{HostCommand, Process};
use crate::telegram::{Kind as TelegramKind, Telegram};
use crate::watcher::{Sights, Watcher};

/// How often what hosts told is taken. Their sockets hold some thousand telegrams; who finds one full waits.
const TAKES_EVERY: Duration = Duration::from_millis(5);
/// The longest that the cluster is asked who leads a partition.
const LEADER_WITHIN: Duration = Duration::from_secs(5);
/// How long groups may take to be deleted: as long as a member that was killed counts as one of them, and some more.
const CLEAN_WITHIN: Duration = Duration::from_secs(20);
const CLEAN_AGAIN: Duration = Duration::from_millis(500);
/// How often the cluster is asked whether all of its nodes live: of containers the engine is asked, which takes
/// milliseconds.
const NODES_EVERY: Duration = Duration::from_millis(500);

/// The stage of one run.
pub(crate) struct RealStage<'b> {
    grounds: &'b mut Grounds,
    runtime: Handle,
    command: HostCommand,
    interrupt: Interrupt,
    leavings: Leavings,
    panicked: Arc<Mutex<Option<String>>>,
    began: Timestamp,
    seed: u64,
    scenario: harness::scenario::Scenario,
    kinds: BTreeMap<String, Kind>,
    recorder: Arc<RunRecorder>,
    inbox: Arc<Inbox>,
    draining: tokio::task::JoinHandle<()>,
    desk: Arc<Desk>,
    prefix: Prefix,
    /// Looks at the cluster, from a host of its own.
    watcher: Watcher,
    watching: Arc<RealHost>,
    hosts: BTreeMap<String, Host>,
    /// Where the outside systems listen.
    ports: BTreeMap<String, u16>,
    processes_started: u64,
    brokers: BTreeMap<String, BrokerState>,
    /// When all nodes of the cluster were last seen to live.
    nodes_seen: Instant,
    failed: Option<RunError>,
    closed: bool,
    // Last: what the processes keep goes when they are gone.
    folder: TempDir,
}

/// What a stage has from its backend.
pub(crate) struct Around {
    pub(crate) runtime: Handle,
    pub(crate) command: HostCommand,
    pub(crate) interrupt: Interrupt,
    pub(crate) leavings: Leavings,
    pub(crate) panicked: Arc<Mutex<Option<String>>>,
}

impl<'b> RealStage<'b> {
    pub(crate) fn new(
        ask: &Ask<'_>,
        grounds: &'b mut Grounds,
        around: Around,
        prefix: Prefix,
    ) -> Result<RealStage<'b>, RunError> {
        let Around { runtime, command, interrupt, leavings, panicked } = around;
        leavings.begin(grounds.kafka());
        if !grounds.kafka().is_ours() {
            let prefix = prefix.as_str();
            interrupt.leaves(Some(format!(
                "topics and groups that begin with `{prefix}` may be left in the cluster"
            )));
        }
        let folder = TempDir::with_prefix("shakedown-").map_err(stage_error("a folder for the run"))?;
        let inbox = Arc::<Inbox>::default();
        let within = runtime.enter();
        let (context, watching) = RealHost::new("watcher", Seed(ask.seed)).start();
        let sights = Sights {
            groups: harness::run::groups(ask.system, ask.scenario),
            partitions: ask.scenario.cluster.partitions,
            prefix: prefix.clone(),
        };
        let watcher = Watcher::new(context, &grounds.bootstrap("watcher"), sights);
        drop(within);
        let draining = runtime.spawn({
            let inbox = inbox.clone();
            async move {
                loop {
                    inbox.drain();
                    tokio::time::sleep(TAKES_EVERY).await;
                }
            }
        });
        let mut brokers = BTreeMap::from([("controller".to_owned(), BrokerState::default())]);
        for number in 1..=ask.scenario.cluster.brokers {
            brokers.insert(format!("broker-{number}"), BrokerState::default());
        }
        let outside = ask.system.outside();
        let free = cluster::ports::free(outside.len()).map_err(stage_error("ports for outside systems"))?;
        let mut ports = BTreeMap::new();
        for (outside, port) in outside.into_iter().zip(free) {
            grounds.place_outside(&outside, port).map_err(stage_error("a proxy of an outside system"))?;
            ports.insert(outside, port);
        }
        Ok(RealStage {
            grounds,
            runtime,
            command,
            interrupt,
            leavings,
            panicked,
            began: ask.began,
            seed: ask.seed,
            scenario: ask.scenario.clone(),
            kinds: BTreeMap::new(),
            recorder: ask.recorder.clone(),
            desk: Arc::new(Desk::new(Arc::new(Posting(inbox.clone())))),
            inbox,
            draining,
            prefix,
            watcher,
            watching,
            hosts: BTreeMap::new(),
            ports,
            processes_started: 0,
            brokers,
            nodes_seen: Instant::now(),
            failed: None,
            closed: false,
            folder,
        })
    }

    fn kafka(&self) -> &Arc<RealKafka> {
        self.grounds.kafka()
    }

    /// Remembers the first thing that went wrong; the next step tells it.
    fn keep<T>(&mut self, what: &str, done: Result<T, impl std::fmt::Display>) -> Option<T> {
        match done {
            Ok(value) => Some(value),
            Err(error) => {
                self.failed.get_or_insert(RunError::Stage(format!("{what}: {error}")));
                None
            }
        }
    }

    /// Shows everything that was told up to now.
    fn show(&mut self, deployment: &dyn Deployment) -> Result<(), RunError> {
        let mail = self.inbox.take().map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => RunError::Bug(error.to_string()),
            _ => RunError::Stage(format!("hearing of the hosts: {error}")),
        })?;
        for Mail { host, incarnation: sender, telegram } in mail {
            let record = |at_us, kind, text: &str, bytes: &[u8]| {
                let at = Timestamp::from_micros(at_us);
                self.recorder.record(Event { at, host: &host, kind, text: format_args!("{text}"), bytes });
            };
            match telegram {
                Telegram::Event { at_us, kind, text, bytes } => {
                    if kind == TelegramKind::Commit {
                        deployment.mirror(&host, News::Committed(&bytes)).map_err(unread(&host))?;
                    }
                    record(at_us, kind.as_event(), &text, &bytes);
                }
                Telegram::Client { at_us, client, act } => {
                    let whole = act.whole();
                    let event = ClientEvent { client: ClientId(client), host: &host, act: whole.as_act() };
                    self.recorder.show_client(Timestamp::from_micros(at_us), &event);
                }
                Telegram::State { at_us, bytes } => {
                    let news = deployment.mirror(&host, News::Told(&bytes));
                    if let Some(text) = news.map_err(unread(&host))? {
                        record(at_us, EventKind::Commit, &text, &bytes);
                    }
                    if let Some(Host::Process { incarnation, is_starting, .. }) = self.hosts.get_mut(&host)
                        && *incarnation == sender
                    {
                        *is_starting = false;
                    }
                }
            }
        }
        Ok(())
    }

    /// A process that ends by itself is a bug of what it runs.
    fn all_live(&mut self) -> Result<(), RunError> {
        for host in self.hosts.values_mut() {
            let Host::Process { process: Some(process), .. } = host else { continue };
            if let Some(status) = process.ended().map_err(stage_error("looking for a process"))? {
                let message =
                    format!("{} ended by itself, {status}:\n{}", process.host(), process.last_words());
                return Err(self.bug(message));
            }
        }
        let panicked = self.panicked.lock().unwrap_or_else(PoisonError::into_inner).take();
        panicked.map_or(Ok(()), |message| Err(self.bug(message)))
    }

    /// A node that dies by itself is a crash that no scenario asked for: what comes of it says nothing of the claim.
    fn nodes_live(&mut self) -> Result<(), RunError> {
        let dead = self.kafka().dead_by_itself().map_err(stage_error("looking for a node"))?;
        self.nodes_seen = Instant::now();
        dead.map_or(Ok(()), |dead| Err(RunError::Stage(dead)))
    }

    fn bug(&self, message: String) -> RunError {
        let (scenario, engine) = (self.scenario.name.clone(), crate::NAME.to_owned());
        Panic { scenario, seed: self.seed, engine, message }.into()
    }

    /// Takes topics and groups out of the cluster. A group whose member was killed has it until its session is over.
    fn clean(&mut self) -> Result<(), RunError> {
        let deadline = Instant::now() + CLEAN_WITHIN;
        loop {
            let cleaned = self
                .runtime
                .block_on(async { tokio::time::timeout(CLEAN_WITHIN, self.watcher.clean()).await });
            let why = match cleaned {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error.to_string(),
                Err(late) => late.to_string(),
            };
            // A cluster of ours serves nobody else, and other runs under other names; with it goes what is left.
            if self.kafka().is_ours() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let prefix = self.prefix.as_str();
                return Err(RunError::Stage(format!(
                    "what begins with `{prefix}` could not be taken out of the cluster: {why}"
                )));
            }
            sleep(CLEAN_AGAIN);
        }
    }
}

impl Stage for RealStage<'_> {
    fn now(&self) -> Timestamp {
        crate::now()
    }

    fn clients(&self) -> MakeClients {
        // Observer, customers and probe may each have links of their own.
        let topics = topic_defaults(&self.scenario);
        let usual = self.kafka().bootstrap_servers();
        let proxied = self.grounds.proxied();
        let (desk, prefix) = (self.desk.clone(), self.prefix.clone());
        Arc::new(move |context| {
            let bootstrap = proxied.get(context.name()).unwrap_or(&usual);
            clients(bootstrap, prefix.clone(), topics, desk.clone())(context)
        })
    }

    fn add(&mut self, host: StageHost) {
        let kind = match host.part {
            Part::System(Role::Service) => Kind::Service,
            Part::System(Role::Outside) => Kind::Outside,
            Part::System(Role::Workload) | Part::Observer | Part::Probe(_) => Kind::Guest,
        };
        let role = host.part.role();
        let new = match kind {
            Kind::Guest => Host::Guest { program: host.program, role, started: None },
            _ => Host::started(None, 0, Duration::ZERO),
        };
        self.kinds.insert(host.name.clone(), kind);
        self.hosts.insert(host.name, new);
        self.start_hosts(|role| role.is_none());
    }

    fn open(&mut self, gate: Gate) {
        match gate {
            Gate::Services => self.start_hosts(|role| matches!(role, Some(Role::Service | Role::Outside))),
            Gate::Workload => self.start_hosts(|role| role == Some(Role::Workload)),
        }
    }

    fn run_until(&mut self, until: Timestamp, deployment: &dyn Deployment) -> Result<(), RunError> {
        loop {
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            if self.interrupt.was_asked() {
                return Err(RunError::Interrupted);
            }
            self.all_live()?;
            if self.nodes_seen.elapsed() >= NODES_EVERY {
                self.nodes_live()?;
            }
            let left = until.since(self.now());
            if left.is_zero() {
                return self.show(deployment);
            }
            sleep(left.min(TAKES_EVERY));
            self.show(deployment)?;
        }
    }

    fn settle(&mut self, deployment: &dyn Deployment) -> Result<(), RunError> {
        self.show(deployment)
    }

    fn change(&mut self, changes: &[Change]) -> Vec<(&'static str, u64)> {
        let mut killed = 0;
        if changes.iter().any(|change| matches!(change, Change::Kill { .. })) {
            // Whoever is dead already died by itself, which a kill would hide.
            let live = self.all_live().and_then(|()| self.nodes_live());
            self.failed = self.failed.take().or(live.err());
        }
        for change in changes {
            match change {
                Change::Kill { host } => killed += self.kill(host),
                Change::Restart { host } => self.restart(host),
                Change::Pause { host } => self.pause(host, true),
                Change::Resume { host } => self.pause(host, false),
                Change::PowerOff { host } => {
                    panic!("{host} has no power to lose; this was checked before the run")
                }
                Change::Hold { .. } | Change::Release { .. } | Change::Latency { .. } => {
                    self.grounds.links().change(change);
                }
            }
            let (at, kind) = (self.now(), EventKind::Fault);
            self.recorder.record(Event { at, host: "", kind, text: format_args!("{change}"), bytes: &[] });
        }
        vec![("processes killed", killed)]
    }

    fn suffered(&self, wound: &Wound, effects: &mut BTreeMap<&'static str, u64>) {
        let (name, count) = match wound {
            Wound::Down { .. } => return,
            Wound::Paused { host } => {
                let paused = match (self.brokers.get(host), self.hosts.get(host)) {
                    (Some(broker), _) => broker.paused(),
                    (None, Some(Host::Process { process, paused, .. })) => {
                        *paused + process.as_ref().map(Process::paused_for).unwrap_or_default()
                    }
                    (None, _) => Duration::ZERO,
                };
                ("milliseconds paused", u64::try_from(paused.as_millis()).unwrap_or(u64::MAX))
            }
            Wound::Held { from, to } => ("bytes held", self.grounds.links().suffered(from, to).0),
            Wound::Slowed { from, to, .. } => ("bytes slowed", self.grounds.links().suffered(from, to).1),
        };
        *effects.entry(name).or_default() += count;
    }

    fn lame_host(&self) -> Option<String> {
        let brokers = self.brokers.iter().filter(|(_, state)| state.down || state.paused_at.is_some());
        let brokers = brokers.map(|(name, _)| name);
        let hosts = self.hosts.iter().filter(|(_, host)| match host {
            Host::Process { process, .. } => process.as_ref().is_none_or(Process::is_paused),
            Host::Guest { started, .. } => started.is_none(),
        });
        // A process that could not be started is told by the next step.
        let lame = brokers.chain(hosts.map(|(name, _)| name)).next().cloned();
        lame.filter(|_| self.failed.is_none())
    }

    fn starting_host(&self) -> Option<String> {
        let is_starting = |host: &Host| matches!(host, Host::Process { is_starting: true, .. });
        self.hosts.iter().find(|(_, host)| is_starting(host)).map(|(name, _)| name.clone())
    }

    fn is_broker(&self, host: &str) -> bool {
        broker(host).is_some()
    }

    fn leader_of(&self, topic: &str, partition: i32) -> Option<String> {
        let asked = self.watcher.leader_of(topic, partition);
        let leader = self.runtime.block_on(async { tokio::time::timeout(LEADER_WITHIN, asked).await });
        // Nobody answers: nobody leads, as far as anyone can tell.
        leader.ok()?.ok()?.map(|node| format!("broker-{node}"))
    }

    fn shut_down(&mut self, host: &str) {
        let node = node_of(host).expect("only brokers are asked to end");
        let state = self.brokers.get_mut(host).expect("a scenario's brokers are there");
        if std::mem::replace(&mut state.asked_to_end, true) {
            // It has been told, and was not started since.
            return;
        }
        // One that does not end is killed by the one who waits for it.
        let asked = self.grounds.kafka().terminate(node);
        self.keep(&format!("asking {host} to end"), asked);
    }

    fn has_stopped(&self, host: &str) -> bool {
        let asked = self.brokers.get(host).is_some_and(|state| state.asked_to_end);
        // If nobody can tell now, the next look may.
        asked && node_of(host).is_some_and(|node| self.kafka().is_running(node).is_ok_and(|runs| !runs))
    }

    fn group_is_stable(&self, group: &str) -> bool {
        self.watcher.is_stable(group)
    }

    fn last_stable_offsets(&self) -> Option<Offsets> {
        self.watcher.ends()
    }

    fn committed_offsets(&self, group: &str) -> Option<Offsets> {
        self.watcher.committed(group)
    }

    fn close(&mut self) -> Result<(), RunError> {
        if self.closed {
            return Ok(());
        }
        self.closed = true;
        let interrupted = self.interrupt.was_asked();
        self.grounds.links().heal();
        let ended = self.end_hosts();
        self.leavings.collect(self.folder.path());
        let leaves_nothing = interrupted && self.kafka().is_ours();
        let cleaned = if leaves_nothing { Ok(()) } else { self.clean() };
        // What was not cleaned is told by the error.
        self.interrupt.leaves(None);
        self.runtime.block_on(self.watching.stop());
        self.draining.abort();
        ended.and(cleaned)
    }
}

impl Drop for RealStage<'_> {
    fn drop(&mut self) {
        // What went wrong before this says more than what goes wrong here.
        self.close().ok();
    }
}

fn node_of(host: &str) -> Option<u32> {
    if host == "controller" { Some(CONTROLLER) } else { broker(host) }
}

/// A host and the harness are one program: what one says the other understands, or it has a bug.
fn unread(host: &str) -> impl FnOnce(String) -> RunError {
    let host = host.to_owned();
    move |error| RunError::Bug(format!("what {host} told cannot be read: {error}"))
}

fn stage_error<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> RunError {
    move |error| RunError::Stage(format!("{what}: {error}"))
}

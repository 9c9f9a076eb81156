//! One scenario with one seed, from an empty world to a result.
//!
//! A run goes through these phases, in steps of at most [`STEP`] of simulated time:
//! 1. **Start**: the cluster comes up, the observer creates the topics, the services start and their groups settle.
//! 2. **Safety**: the workload begins, and its beginning is the zero of the scenario's times. Anything may break. It ends
//!    when the workload is sent and the last fault is over.
//! 3. **Liveness**: everything heals; the system must come to rest within `recovers_within`, and stay so for [`REST`].
//! 4. **Judgement**: the observer reads every log, the checks look for the last time, the expectations are compared.
//!
//! Start reading at [`run`]. What it may find is in [`crate::verdict`].

use std::any::Any;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use broker::{NewTopic, Properties};
use client::WireBroker;
use context::{Context, Event, EventKind, Program, Recorder as _, Timestamp};
use kafka::{Cluster, ClusterConfig};
use reports::{Evidence, Finding, FindingKind, SeedResult};
use tokio::sync::watch;
use world::{Engine, NotReady, World, WorldConfig};

use crate::check::{Moment, Occasion, Watch, kafka as kafka_checks};
use crate::fault::{Faults, Plan, Scene, Unsupported, supported};
use crate::observed::{Desk, ObservedBroker};
use crate::observer::{self, Observer};
use crate::probe::{self, Board};
use crate::recorder::{RunRecorder, Trace};
use crate::scenario::{Probe, Scenario};
use crate::system::{Clients, Deployment, Group, Progress, Role, Setup, System};
use crate::verdict::{self, Recovery};

/// The longest step of simulated time: how precisely the end of a phase is known.
pub const STEP: Duration = Duration::from_millis(100);

/// How long a system must have been quiet to be at rest: longer than a heartbeat or a relay's poll takes to stir it.
pub const REST: Duration = Duration::from_secs(2);

/// How long topics may take to be created, and groups to settle. Kafka waits 3 s for a group's first members.
pub const START: Duration = Duration::from_secs(60);

/// How much longer a system is watched that has not recovered in time: late is told from never.
pub const GRACE: Duration = Duration::from_secs(60);

/// How long the observer may take to read every log of a healed cluster.
pub const READING: Duration = Duration::from_secs(120);

/// Why a run gave no result.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A bug: of ours, of the system under test, or of a check.
    #[error("{0}")]
    Panicked(#[from] Panic),
    /// The engine cannot bring a fault of the scenario.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// This binary cannot make a world that replays.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// The cluster cannot be made as the scenario says.
    #[error(transparent)]
    Cluster(#[from] kafka::ConfigError),
    /// The trace could not be written.
    #[error("the trace cannot be written: {0}")]
    Trace(#[source] io::Error),
}

/// A run that panicked. The seed finds it again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("scenario `{scenario}` panicked with seed {seed} on engine `{engine}`: {message}")]
pub struct Panic {
    /// The scenario's name.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// The engine.
    pub engine: Engine,
    /// What the panic said.
    pub message: String,
}

/// Runs a scenario with a seed. The result is judged by itself; what holds only over many seeds is in
/// [`crate::verdict::over_all_seeds`].
///
/// The thread must have no other world. The same binary, scenario, seed and engine give the same result and the same
/// trace.
///
/// # Errors
/// [`RunError`]; a claim that broke is no error but a finding of the result.
pub fn run(
    system: &dyn System,
    scenario: &Scenario,
    seed: u64,
    engine: Engine,
    trace: Option<Trace>,
) -> Result<SeedResult, RunError> {
    supported(scenario, engine)?;
    let run = || Run::new(system, scenario, seed, engine, trace)?.finish();
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let (scenario, message) = (scenario.name.clone(), said(&*panic));
        Err(Panic { scenario, seed, engine, message }.into())
    })
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic that says nothing").to_owned()
}

/// One run under way.
struct Run<'a> {
    scenario: &'a Scenario,
    plan: Plan,
    probe: Arc<Board>,
    // The world goes first when a run is dropped: its tasks hold the rest.
    world: Box<dyn World>,
    recorder: Arc<RunRecorder>,
    watch: Arc<Watch>,
    cluster: Cluster,
    observer: Observer,
    deployment: Box<dyn Deployment>,
    hosts: Vec<String>,
    groups: Vec<Group>,
    topics: Vec<String>,
    services_may_start: watch::Sender<bool>,
    workload_may_start: watch::Sender<bool>,
    findings: Vec<Finding>,
}

impl<'a> Run<'a> {
    fn new(
        system: &dyn System,
        scenario: &'a Scenario,
        seed: u64,
        engine: Engine,
        trace: Option<Trace>,
    ) -> Result<Run<'a>, RunError> {
        let plan = Plan::draw(scenario, seed, engine);
        let watch = Arc::new(Watch::new(scenario.expect.exactly_once));
        let recorder = Arc::new(RunRecorder::new(watch.clone(), trace));
        let cluster = Cluster::new(cluster_config(scenario))?;
        let config = WorldConfig { seed: plan.seed, latency: scenario.latency, recorder: recorder.clone() };
        let mut world = world::build(engine, config)?;

        let broker = watched_clients(&cluster, Arc::new(Desk::new(watch.clone(), recorder.clone())));
        let clients = Clients::new({
            let broker = broker.clone();
            move |context| Arc::new(broker(context))
        });
        let probe = Arc::<Board>::default();
        let partitions = scenario.cluster.partitions;
        let probe_hosts =
            scenario.probe.iter().flat_map(|settings| probe::hosts(settings, partitions, &clients, &probe));
        let probe_hosts: Vec<_> = probe_hosts.collect();
        let mut deployment = system.start(&Setup { scenario, seed: plan.seed, clients });
        let (observer, observer_program) = Observer::new(move |context| broker(context));
        kafka_checks::checks().into_iter().chain(deployment.checks()).for_each(|check| watch.add(check));

        let (services_may_start, workload_may_start) = (watch::Sender::new(false), watch::Sender::new(false));
        let mut hosts = cluster.hosts();
        hosts.push((observer::HOST.to_owned(), observer_program));
        for host in deployment.hosts().into_iter().chain(probe_hosts) {
            let gate = match host.role {
                Role::Service | Role::Outside => &services_may_start,
                Role::Workload => &workload_may_start,
            };
            hosts.push((host.name, behind(gate, host.program)));
        }
        for (name, program) in &hosts {
            world.add_host(name, program.clone());
        }
        Ok(Run {
            scenario,
            plan,
            probe,
            world,
            recorder,
            watch,
            cluster,
            observer,
            deployment,
            hosts: hosts.into_iter().map(|(name, _)| name).collect(),
            groups: system.groups(scenario).into_iter().chain(of_probe(scenario, probe::group())).collect(),
            topics: system.topics().into_iter().chain(of_probe(scenario, Probe::TOPIC.to_owned())).collect(),
            services_may_start,
            workload_may_start,
            findings: Vec::new(),
        })
    }

    fn finish(mut self) -> Result<SeedResult, RunError> {
        self.note(format_args!("{}", self.plan));
        let mut recovery = None;
        let mut faults = Faults::new(&self.scenario.faults, &self.plan, Duration::ZERO);
        if self.start() {
            faults = Faults::new(&self.scenario.faults, &self.plan, self.now());
            self.safety(&mut faults);
            recovery = Some(self.liveness());
        }
        self.read_logs();
        let at_rest = recovery.as_ref().is_some_and(|recovery| recovery.at_rest);
        self.look(Occasion::End { at_rest });
        self.announce();
        self.judge(faults, recovery)
    }

    /// Brings up the cluster and the services. False, with a finding, if that did not come to its end.
    fn start(&mut self) -> bool {
        let partitions = i32::try_from(self.scenario.cluster.partitions).expect("a topic's partitions fit");
        let topics = self.topics.iter().map(|topic| NewTopic::new(topic, partitions)).collect();
        self.observer.create_topics(topics);
        if !self.wait(START, |run| run.observer.created()) {
            let trouble = self.observer.trouble().unwrap_or_else(|| "no answer".to_owned());
            self.no_progress("start", format!("the topics were not created within {START:?}"), vec![trouble]);
            return false;
        }
        self.note(format_args!("the services may start"));
        self.services_may_start.send_replace(true);
        if !self.wait(START, Run::groups_are_stable) {
            let unstable = |group: &&Group| !self.cluster.group_is_stable(&group.id);
            let evidence: Vec<String> = self.groups.iter().filter(unstable).map(unsettled).collect();
            self.no_progress(
                "start",
                format!("the consumer groups did not settle within {START:?}"),
                evidence,
            );
            return false;
        }
        true
    }

    fn groups_are_stable(&self) -> bool {
        self.groups.iter().all(|group| self.cluster.group_is_stable(&group.id))
    }

    /// Sends the workload and lets things go wrong.
    fn safety(&mut self, faults: &mut Faults<'_>) {
        let began = self.now();
        self.note(format_args!("the workload starts"));
        self.workload_may_start.send_replace(true);
        // A workload that cannot be sent is stuck like anything else: heal, and see whether it goes on.
        let orders = self.scenario.run.arrival.gap() * self.scenario.run.orders;
        let probed = self.scenario.probe.as_ref().map(|probe| probe.arrival.gap() * probe.count);
        let arrivals = orders.max(probed.unwrap_or_default());
        let patience = arrivals.max(self.plan.last_fault_ends()) + self.scenario.expect.recovers_within;
        while self.now() < began + patience {
            if self.deployment.progress().workload_sent && self.probed() && faults.next().is_none() {
                break;
            }
            let step = self.now() + STEP;
            self.run_until(faults.next().map_or(step, |due| due.min(step)));
            self.bring(faults, Faults::advance);
        }
        self.bring(faults, Faults::heal_all);
        for host in &self.hosts {
            let stats = self.world.host(host).expect("a run's hosts are in its world");
            assert!(stats.running && !stats.paused, "{host} is not up although all is healed");
        }
        self.note(format_args!("all is healed"));
    }

    /// The probe has written all, if there is one.
    fn probed(&self) -> bool {
        self.scenario.probe.as_ref().is_none_or(|settings| self.probe.finished(settings))
    }

    fn bring<'f>(
        &mut self,
        faults: &mut Faults<'f>,
        what: impl Fn(&mut Faults<'f>, Duration, &mut Scene<'_>),
    ) {
        let now = self.now();
        let Run { world, hosts, cluster, observer, recorder, .. } = self;
        let mut scene =
            Scene { world: world.as_mut(), hosts, cluster, observer, recorder: recorder.as_ref() };
        what(faults, now, &mut scene);
    }

    /// Waits until the system has been quiet for [`REST`].
    fn liveness(&mut self) -> Recovery {
        let healed = self.now();
        let watched_until = healed + self.scenario.expect.recovers_within + GRACE;
        let mut quiet_since = None;
        loop {
            match (self.open(), quiet_since) {
                (None, None) => quiet_since = Some(self.now()),
                (None, Some(since)) if self.now() >= since + REST => break,
                (None, Some(_)) => {}
                (Some(_), _) => quiet_since = None,
            }
            if quiet_since.is_none() && self.now() >= watched_until {
                break;
            }
            self.run_until(self.now() + STEP);
        }
        let at_rest = quiet_since.is_some();
        let open = self.open();
        self.note(format_args!("{}", open.as_deref().unwrap_or("the system is at rest")));
        let unfinished = if at_rest { Vec::new() } else { self.deployment.unfinished() };
        Recovery { at_rest, took: quiet_since.map(|since| since - healed), open, unfinished }
    }

    /// What is left to do, in a few words; `None` if the system is quiet.
    fn open(&self) -> Option<String> {
        let progress = self.deployment.progress();
        // As many sagas may hang as the scenario allows.
        let sagas_open = progress.sagas_open.saturating_sub(self.scenario.expect.stuck_sagas);
        if !(Progress { sagas_open, ..progress }).quiet() {
            return Some(progress.to_string());
        }
        if !self.probed() {
            return Some("the probe still writes".to_owned());
        }
        // What a hanging transaction keeps from readers has a check of its own.
        let ends = self.cluster.last_stable_offsets();
        for group in &self.groups {
            let committed = self.cluster.committed_offsets(&group.id);
            for (partition, end) in ends.iter().filter(|((topic, _), _)| group.topics.contains(topic)) {
                let at = committed.get(partition).copied().unwrap_or(0);
                if at < *end {
                    let (topic, number) = partition;
                    return Some(format!("group {} is at {at} of {end} in {topic}/{number}", group.id));
                }
            }
        }
        None
    }

    fn read_logs(&mut self) {
        self.observer.read_all(self.topics.clone());
        if !self.wait(READING, |run| run.observer.has_read()) {
            let trouble = self.observer.trouble().unwrap_or_else(|| "no answer".to_owned());
            let says = format!("the observer could not read the logs within {READING:?}");
            self.no_progress("final_read", says, vec![trouble]);
        }
    }

    fn judge(mut self, faults: Faults<'_>, recovery: Option<Recovery>) -> Result<SeedResult, RunError> {
        let measured = self.deployment.measurements();
        let mut findings = self.watch.findings();
        findings.append(&mut self.findings);
        if let Some(recovery) = &recovery {
            findings.extend(verdict::progress(&self.scenario.expect, &measured, recovery));
            findings.extend(verdict::expectations(&self.scenario.expect, &measured));
        }
        let simulated = self.now();
        let digest = self.recorder.digest();
        self.recorder.finish().map_err(RunError::Trace)?;
        Ok(SeedResult {
            scenario: self.scenario.name.clone(),
            seed: self.plan.seed.0,
            engine: self.plan.engine.to_string(),
            hash: digest.hash,
            events: digest.events,
            simulated,
            recovered_in: recovery.and_then(|recovery| recovery.took),
            sagas: measured.sagas,
            saga_durations: measured.saga_durations,
            order_latencies: measured.order_latencies,
            hops: measured.hops,
            faults: faults.into_reports(),
            findings,
        })
    }

    /// Lets time pass until `done`, for at most `patience`; whether it was.
    fn wait(&mut self, patience: Duration, done: impl Fn(&Run<'a>) -> bool) -> bool {
        let until = self.now() + patience;
        while !done(self) {
            if self.now() >= until {
                return false;
            }
            self.run_until(self.now() + STEP);
        }
        true
    }

    fn run_until(&mut self, until: Duration) {
        self.world.run_until(world::EPOCH + until);
        self.look(Occasion::Step);
        self.announce();
    }

    fn look(&self, occasion: Occasion<'_>) {
        let moment = Moment { at: self.now(), event: self.recorder.events() };
        self.watch.look(moment, occasion);
    }

    /// Puts what the checks found into the trace, beside the events that it came from.
    fn announce(&self) {
        for line in self.watch.announce() {
            self.note(format_args!("{line}"));
        }
    }

    /// From the start of the run.
    fn now(&self) -> Duration {
        self.world.now().since(world::EPOCH)
    }

    fn note(&self, text: fmt::Arguments<'_>) {
        let at: Timestamp = self.world.now();
        self.recorder.record(Event { at, host: "", kind: EventKind::Note, text, bytes: &[] });
    }

    fn no_progress(&mut self, check: &str, says: String, evidence: Vec<String>) {
        let at = Moment { at: self.now(), event: self.recorder.events() };
        let evidence: Vec<Evidence> = evidence.into_iter().map(|what| at.evidence(what)).collect();
        self.findings.push(Finding {
            kind: FindingKind::NoProgress,
            check: check.to_owned(),
            says,
            evidence,
        });
    }
}

fn unsettled(group: &Group) -> String {
    format!("group {} of {} is not stable", group.id, group.topics.join(", "))
}

fn cluster_config(scenario: &Scenario) -> ClusterConfig {
    let cluster = &scenario.cluster;
    let config = ClusterConfig::simulated(cluster.brokers)
        .with("default.replication.factor", cluster.replication_factor)
        .with("offsets.topic.replication.factor", cluster.replication_factor)
        .with("transaction.state.log.replication.factor", cluster.replication_factor)
        .with("min.insync.replicas", cluster.min_insync_replicas);
    let config = cluster.config.iter().fold(config, |config, (name, value)| config.with(name, value));
    cluster.features.iter().fold(config, |config, (name, level)| config.with_feature(name, *level))
}

/// Something that is there only if the scenario has a probe.
fn of_probe<T>(scenario: &Scenario, thing: T) -> Option<T> {
    scenario.probe.as_ref().map(|_| thing)
}

/// Makes the clients of a host, each of them watched.
fn watched_clients(
    cluster: &Cluster,
    desk: Arc<Desk>,
) -> impl Fn(&Context) -> ObservedBroker + Clone + Send + Sync + 'static {
    let properties = Properties::new().set("bootstrap.servers", cluster.bootstrap_servers());
    move |context: &Context| {
        let wire = Arc::new(WireBroker::new(context.clone(), properties.clone()));
        ObservedBroker::new(wire, context.clone(), desk.clone())
    }
}

/// A program that waits for a gate before it begins. Once the gate is open, a restarted host goes right through.
fn behind(gate: &watch::Sender<bool>, program: Program) -> Program {
    let gate = gate.clone();
    context::program(move |context| {
        let (mut gate, program) = (gate.subscribe(), program.clone());
        async move {
            // The sender lives as long as the run; should it be gone, so is the world.
            if gate.wait_for(|open| *open).await.is_ok() {
                program(context).await;
            }
        }
    })
}

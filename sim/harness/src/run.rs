//! One scenario with one seed, from an empty world to a result.
//!
//! A run takes place on a [`Stage`], simulated or real, and goes through these phases in steps of at most [`STEP`]:
//! 1. **Start**: the cluster comes up, the observer creates the topics, the services start and their groups settle.
//! 2. **Safety**: the workload begins, and its beginning is the zero of the scenario's times. Anything may break. It ends
//!    when the workload is sent and the last fault is over.
//! 3. **Liveness**: everything heals; the system must come to rest within `recovers_within`, and stay so for [`REST`].
//! 4. **Judgement**: the observer reads every log, the checks look for the last time, the expectations are compared.
//!
//! Start reading at [`run_on`]. What it may find is in [`crate::verdict`].

use std::any::Any;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use broker::NewTopic;
use context::{Event, EventKind, Recorder as _, Timestamp};
use reports::{Evidence, Finding, FindingKind, SeedResult};
use world::{Engine, NotReady};

use crate::check::{Moment, Occasion, Watch, kafka as kafka_checks};
use crate::fault::{Faults, Plan, Scene, Unsupported};
use crate::observer::{self, Observer};
use crate::probe::{self, Board};
use crate::recorder::{RunRecorder, Trace};
use crate::scenario::{Probe, Scenario};
use crate::stage::{Ask, Backend, Gate, Part, Simulated, Stage, StageHost};
use crate::system::{Clients, Deployment, Group, Progress, Setup, System};
use crate::verdict::{self, Recovery};

/// The longest step of time: how precisely the end of a phase is known.
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
    /// The backend cannot bring something of the scenario.
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
    /// There is no real cluster to run on; the text says what is missing.
    #[error("{0}")]
    Unavailable(String),
    /// Something of a real stage failed that is neither the services' nor the scenario's: a signal, a socket, a file, a
    /// broker that died by itself.
    #[error("the run cannot go on: {0}")]
    Stage(String),
    /// A bug of the harness's own that is no panic: one of its processes does not understand another.
    #[error("{0}")]
    Bug(String),
    /// Somebody asked the program to end (SIGINT, SIGTERM).
    #[error("interrupted")]
    Interrupted,
}

/// A run that panicked. In a simulated world its seed finds it again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("scenario `{scenario}` panicked with seed {seed} on engine `{engine}`: {message}")]
pub struct Panic {
    /// The scenario's name.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// The engine, or `kafka`.
    pub engine: String,
    /// What the panic said.
    pub message: String,
}

/// What a run left.
#[derive(Debug)]
pub struct Ran {
    /// What was found out. It stands whatever became of the stage.
    pub result: SeedResult,
    /// What could not be ended or taken away when the run was over, if anything.
    pub unclosed: Option<RunError>,
}

/// Runs a scenario with a seed in a simulated world. The result is judged by itself; what holds only over many seeds is
/// in [`crate::verdict::over_all_seeds`].
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
    let Ran { result, unclosed } = run_on(&mut Simulated(engine), system, scenario, seed, trace)?;
    unclosed.map_or(Ok(result), Err)
}

/// The same on any backend. A real one may fail to clean up after a run that was judged: that is no error here, for the
/// verdict may be all there is of a run that nobody can repeat.
///
/// # Errors
/// As [`run`].
pub fn run_on(
    backend: &mut dyn Backend,
    system: &dyn System,
    scenario: &Scenario,
    seed: u64,
    trace: Option<Trace>,
) -> Result<Ran, RunError> {
    backend.supported(scenario)?;
    let engine = backend.name();
    let run = || Run::new(backend, system, scenario, seed, trace)?.finish();
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
    began: Timestamp,
    replays: bool,
    probe: Arc<Board>,
    // The stage goes first when a run is dropped: its tasks hold the rest.
    stage: Box<dyn Stage + 'a>,
    recorder: Arc<RunRecorder>,
    watch: Arc<Watch>,
    observer: Observer,
    deployment: Box<dyn Deployment>,
    groups: Vec<Group>,
    topics: Vec<String>,
    findings: Vec<Finding>,
}

impl<'a> Run<'a> {
    fn new(
        backend: &'a mut dyn Backend,
        system: &dyn System,
        scenario: &'a Scenario,
        seed: u64,
        trace: Option<Trace>,
    ) -> Result<Run<'a>, RunError> {
        backend.prepare(system, scenario, seed)?;
        let (began, replays) = (backend.began(), backend.replays());
        let plan = Plan::draw(scenario, seed, backend.name());
        let watch = Arc::new(Watch::new(scenario.expect.exactly_once));
        let recorder = Arc::new(RunRecorder::new(watch.clone(), trace, began));
        let mut stage = backend.set(Ask { system, scenario, seed, began, recorder: recorder.clone() })?;

        let broker = stage.clients();
        let clients = Clients::new({
            let broker = broker.clone();
            move |context| Arc::new(broker(context))
        });
        let probe = Arc::<Board>::default();
        let partitions = scenario.cluster.partitions;
        let probe_hosts =
            scenario.probe.iter().flat_map(|settings| probe::hosts(settings, partitions, &clients, &probe));
        let probe_hosts: Vec<_> = probe_hosts.collect();
        let mut deployment = system.start(&Setup { scenario, seed: plan.seed, began, clients });
        let (observer, observer_program) = Observer::new(move |context| broker(context));
        kafka_checks::checks().into_iter().chain(deployment.checks()).for_each(|check| watch.add(check));

        let name = observer::HOST.to_owned();
        stage.add(StageHost { name, program: observer_program, part: Part::Observer });
        for host in deployment.hosts() {
            let part = Part::System(host.role);
            stage.add(StageHost { name: host.name, program: host.program, part });
        }
        for host in probe_hosts {
            stage.add(StageHost { name: host.name, program: host.program, part: Part::Probe(host.role) });
        }
        Ok(Run {
            scenario,
            plan,
            began,
            replays,
            probe,
            stage,
            recorder,
            watch,
            observer,
            deployment,
            groups: groups(system, scenario),
            topics: system.topics().into_iter().chain(of_probe(scenario, Probe::TOPIC.to_owned())).collect(),
            findings: Vec::new(),
        })
    }

    fn finish(mut self) -> Result<Ran, RunError> {
        self.note(format_args!("{}", self.plan));
        let mut recovery = None;
        let mut faults = Faults::new(&self.scenario.faults, &self.plan, Duration::ZERO);
        if self.start()? {
            faults = Faults::new(&self.scenario.faults, &self.plan, self.now());
            self.safety(&mut faults)?;
            recovery = Some(self.liveness()?);
        }
        self.read_logs()?;
        // What the observer read last was told before it said that it has read all.
        self.stage.settle(self.deployment.as_ref())?;
        let at_rest = recovery.as_ref().is_some_and(|recovery| recovery.at_rest);
        self.look(Occasion::End { at_rest });
        self.announce();
        self.judge(faults, recovery)
    }

    /// Brings up the cluster and the services. False, with a finding, if that did not come to its end.
    fn start(&mut self) -> Result<bool, RunError> {
        let partitions = i32::try_from(self.scenario.cluster.partitions).expect("a topic's partitions fit");
        let topics = self.topics.iter().map(|topic| NewTopic::new(topic, partitions)).collect();
        self.observer.create_topics(topics);
        if !self.wait(START, |run| run.observer.created())? {
            let trouble = self.observer.trouble().unwrap_or_else(|| "no answer".to_owned());
            self.no_progress("start", format!("the topics were not created within {START:?}"), vec![trouble]);
            return Ok(false);
        }
        self.note(format_args!("the services may start"));
        self.stage.open(Gate::Services);
        if !self.wait(START, Run::groups_are_stable)? {
            let unstable = |group: &&Group| !self.stage.group_is_stable(&group.id);
            let evidence: Vec<String> = self.groups.iter().filter(unstable).map(unsettled).collect();
            self.no_progress(
                "start",
                format!("the consumer groups did not settle within {START:?}"),
                evidence,
            );
            return Ok(false);
        }
        Ok(true)
    }

    fn groups_are_stable(&self) -> bool {
        self.groups.iter().all(|group| self.stage.group_is_stable(&group.id))
    }

    /// Sends the workload and lets things go wrong.
    fn safety(&mut self, faults: &mut Faults<'_>) -> Result<(), RunError> {
        let began = self.now();
        self.note(format_args!("the workload starts"));
        self.stage.open(Gate::Workload);
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
            self.run_until(faults.next().map_or(step, |due| due.min(step)))?;
            self.bring(faults, Faults::advance);
        }
        self.bring(faults, Faults::heal_all);
        if let Some(host) = self.stage.lame_host() {
            panic!("{host} is not up although all is healed");
        }
        self.note(format_args!("all is healed"));
        Ok(())
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
        let Run { stage, observer, recorder, .. } = self;
        let mut scene = Scene { stage: stage.as_mut(), observer, recorder: recorder.as_ref() };
        what(faults, now, &mut scene);
    }

    /// Waits until the system has been quiet for [`REST`].
    fn liveness(&mut self) -> Result<Recovery, RunError> {
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
            self.run_until(self.now() + STEP)?;
        }
        let at_rest = quiet_since.is_some();
        let open = self.open();
        self.note(format_args!("{}", open.as_deref().unwrap_or("the system is at rest")));
        let unfinished = if at_rest { Vec::new() } else { self.deployment.unfinished() };
        Ok(Recovery { at_rest, took: quiet_since.map(|since| since - healed), open, unfinished })
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
        if let Some(host) = self.stage.starting_host() {
            return Some(format!("{host} has not told what it keeps"));
        }
        // What a hanging transaction keeps from readers has a check of its own.
        let Some(ends) = self.stage.last_stable_offsets() else {
            return Some("the cluster does not tell the ends of its logs".to_owned());
        };
        for group in &self.groups {
            let Some(committed) = self.stage.committed_offsets(&group.id) else {
                return Some(format!("the cluster does not tell what group {} has committed", group.id));
            };
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

    fn read_logs(&mut self) -> Result<(), RunError> {
        self.observer.read_all(self.topics.clone());
        if !self.wait(READING, |run| run.observer.has_read())? {
            let trouble = self.observer.trouble().unwrap_or_else(|| "no answer".to_owned());
            let says = format!("the observer could not read the logs within {READING:?}");
            self.no_progress("final_read", says, vec![trouble]);
        }
        Ok(())
    }

    fn judge(mut self, faults: Faults<'_>, recovery: Option<Recovery>) -> Result<Ran, RunError> {
        let measured = self.deployment.measurements();
        let mut findings = self.watch.findings();
        findings.append(&mut self.findings);
        if let Some(recovery) = &recovery {
            findings.extend(verdict::progress(&self.scenario.expect, &measured, recovery));
            findings.extend(verdict::expectations(&self.scenario.expect, &measured));
        }
        let simulated = self.now();
        let unclosed = self.stage.close().err();
        let digest = self.recorder.digest();
        self.recorder.finish().map_err(RunError::Trace)?;
        let result = SeedResult {
            scenario: self.scenario.name.clone(),
            seed: self.plan.seed.0,
            engine: self.plan.engine.clone(),
            hash: self.replays.then_some(digest.hash),
            events: digest.events,
            simulated,
            recovered_in: recovery.and_then(|recovery| recovery.took),
            sagas: measured.sagas,
            saga_durations: measured.saga_durations,
            order_latencies: measured.order_latencies,
            hops: measured.hops,
            faults: faults.into_reports(),
            findings,
        };
        Ok(Ran { result, unclosed })
    }

    /// Lets time pass until `done`, for at most `patience`; whether it was.
    fn wait(&mut self, patience: Duration, done: impl Fn(&Run<'a>) -> bool) -> Result<bool, RunError> {
        let until = self.now() + patience;
        while !done(self) {
            if self.now() >= until {
                return Ok(false);
            }
            self.run_until(self.now() + STEP)?;
        }
        Ok(true)
    }

    fn run_until(&mut self, until: Duration) -> Result<(), RunError> {
        self.stage.run_until(self.began + until, self.deployment.as_ref())?;
        self.look(Occasion::Step);
        self.announce();
        Ok(())
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
        self.stage.now().since(self.began)
    }

    fn note(&self, text: fmt::Arguments<'_>) {
        let at: Timestamp = self.stage.now();
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

/// The consumer groups of a run: the system's, and the probe's if there is one.
pub fn groups(system: &dyn System, scenario: &Scenario) -> Vec<Group> {
    system.groups(scenario).into_iter().chain(of_probe(scenario, probe::group())).collect()
}

/// Something that is there only if the scenario has a probe.
fn of_probe<T>(scenario: &Scenario, thing: T) -> Option<T> {
    scenario.probe.as_ref().map(|_| thing)
}

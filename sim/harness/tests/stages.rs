//! What a run makes of a stage that fails it: one that cannot be cleaned up, hosts that take their time to start.

mod toy;

use std::collections::BTreeMap;
use std::time::Duration;

use context::Timestamp;
use reports::{FindingKind, SeedResult};
use shakedown_harness::fault::{Unsupported, Wound};
use shakedown_harness::scenario::Scenario;
use shakedown_harness::stage::{Ask, Backend, Gate, MakeClients, Offsets, Simulated, Stage, StageHost};
use shakedown_harness::system::{Deployment, System};
use shakedown_harness::{Ran, RunError, Work, one_by_one, run_on};
use toy::{Toy, broken, scenario};
use world::{Change, Engine};

/// The simulated backend, but for what is said here.
#[derive(Clone, Copy, Debug)]
struct Clumsy {
    simulated: Simulated,
    /// What its stages say when they are closed.
    close_fails: Option<&'static str>,
    /// The service of the toy tells what it keeps only after so long.
    starts_in: Duration,
}

impl Default for Clumsy {
    fn default() -> Clumsy {
        Clumsy { simulated: Simulated(Engine::Jump), close_fails: None, starts_in: Duration::ZERO }
    }
}

impl Backend for Clumsy {
    fn name(&self) -> String {
        self.simulated.name()
    }

    fn replays(&self) -> bool {
        self.simulated.replays()
    }

    fn supported(&self, scenario: &Scenario) -> Result<(), Unsupported> {
        self.simulated.supported(scenario)
    }

    fn began(&self) -> Timestamp {
        self.simulated.began()
    }

    fn prepare(&mut self, system: &dyn System, scenario: &Scenario, seed: u64) -> Result<(), RunError> {
        self.simulated.prepare(system, scenario, seed)
    }

    fn set(&mut self, ask: Ask<'_>) -> Result<Box<dyn Stage + '_>, RunError> {
        let started_at = ask.began + self.starts_in;
        let close_fails = self.close_fails;
        Ok(Box::new(ClumsyStage { stage: self.simulated.set(ask)?, close_fails, started_at }))
    }
}

struct ClumsyStage<'b> {
    stage: Box<dyn Stage + 'b>,
    close_fails: Option<&'static str>,
    started_at: Timestamp,
}

impl Stage for ClumsyStage<'_> {
    fn close(&mut self) -> Result<(), RunError> {
        self.stage.close()?;
        self.close_fails.map_or(Ok(()), |why| Err(RunError::Stage(why.to_owned())))
    }

    fn starting_host(&self) -> Option<String> {
        (self.now() < self.started_at).then(|| "echo-1".to_owned())
    }

    fn now(&self) -> Timestamp {
        self.stage.now()
    }

    fn clients(&self) -> MakeClients {
        self.stage.clients()
    }

    fn add(&mut self, host: StageHost) {
        self.stage.add(host);
    }

    fn open(&mut self, gate: Gate) {
        self.stage.open(gate);
    }

    fn run_until(&mut self, until: Timestamp, deployment: &dyn Deployment) -> Result<(), RunError> {
        self.stage.run_until(until, deployment)
    }

    fn settle(&mut self, deployment: &dyn Deployment) -> Result<(), RunError> {
        self.stage.settle(deployment)
    }

    fn change(&mut self, changes: &[Change]) -> Vec<(&'static str, u64)> {
        self.stage.change(changes)
    }

    fn suffered(&self, wound: &Wound, effects: &mut BTreeMap<&'static str, u64>) {
        self.stage.suffered(wound, effects);
    }

    fn lame_host(&self) -> Option<String> {
        self.stage.lame_host()
    }

    fn is_broker(&self, host: &str) -> bool {
        self.stage.is_broker(host)
    }

    fn leader_of(&self, topic: &str, partition: i32) -> Option<String> {
        self.stage.leader_of(topic, partition)
    }

    fn shut_down(&mut self, broker: &str) {
        self.stage.shut_down(broker);
    }

    fn has_stopped(&self, broker: &str) -> bool {
        self.stage.has_stopped(broker)
    }

    fn group_is_stable(&self, group: &str) -> bool {
        self.stage.group_is_stable(group)
    }

    fn last_stable_offsets(&self) -> Option<Offsets> {
        self.stage.last_stable_offsets()
    }

    fn committed_offsets(&self, group: &str) -> Option<Offsets> {
        self.stage.committed_offsets(group)
    }
}

fn result(backend: &mut Clumsy, scenario: &Scenario) -> SeedResult {
    let ran = run_on(backend, &Toy, scenario, 1, None).unwrap_or_else(|error| panic!("{error}"));
    assert!(ran.unclosed.is_none(), "{ran:?}");
    ran.result
}

#[test]
fn a_broken_claim_stands_although_nothing_could_be_cleaned_up() {
    let flawed = scenario(
        20,
        "[services.echo]\nnaive = [\"stamps_again\"]\n[[fault]]\nduring = \"0s..3s\"\n\
         duplicate_records = { topic = \"questions\", probability = \"50%\" }\n",
    );
    let sound = result(&mut Clumsy::default(), &flawed);
    let mut backend = Clumsy { close_fails: Some("the topics are still there"), ..Clumsy::default() };
    let Ran { result, unclosed } = run_on(&mut backend, &Toy, &flawed, 1, None).expect("it was judged");
    assert_eq!(broken(&result), ["stamped_once"]);
    assert_eq!(result, sound, "how it is cleaned up changes nothing of what was found");
    let unclosed = unclosed.expect("the stage failed to close");
    assert_eq!(unclosed.to_string(), "the run cannot go on: the topics are still there");

    // Over many seeds both are told: the verdict, and that something is left.
    let work = Work { scenario: &flawed, seeds: &[1] };
    let swept = one_by_one(&mut backend, &Toy, &[work], &mut |_, _| None, &mut |_, _, _| {});
    assert_eq!(swept[0].result.seeds, [result]);
    assert!(swept[0].result.failed.is_empty(), "it has a result");
    assert!(matches!(swept[0].errors[..], [RunError::Stage(_)]), "{:?}", swept[0].errors);
}

#[test]
fn nothing_is_judged_before_every_host_has_told_what_it_keeps() {
    let calm = scenario(20, "");
    let sound = result(&mut Clumsy::default(), &calm);
    let late = sound.simulated + Duration::from_secs(5);
    let waited = result(&mut Clumsy { starts_in: late, ..Clumsy::default() }, &calm);
    assert_eq!(broken(&waited), Vec::<&str>::new());
    assert!(waited.simulated > late, "it was judged after {:?}", waited.simulated);

    let never = Duration::from_secs(100_000);
    let stuck = result(&mut Clumsy { starts_in: never, ..Clumsy::default() }, &calm);
    assert_eq!(broken(&stuck), ["recovers_within"]);
    assert_eq!(stuck.findings[0].kind, FindingKind::NoProgress);
    assert!(stuck.findings[0].says.contains("echo-1 has not told what it keeps"), "{:?}", stuck.findings);
}

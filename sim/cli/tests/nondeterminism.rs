//! A source of nondeterminism, planted: a walk over a `HashMap`, whose order differs in every process, reaches the trace.
//! `check-determinism` must name the first event that differs.
//!
//! The comparison runs its own executable twice, so this test is a program, too: with a command line of `shakedown`'s it
//! is that, with the leaking system in place of the six; without, it is the test.

use std::collections::BTreeMap;
use std::env;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser as _;
use context::{Context, program};
use harness::check::Check;
use harness::scenario::{Scenario, ServiceWords};
use harness::system::{
    CheckWords, Deployment, Group, Measurements, Progress, Role, Setup, System, SystemHost,
};
use libtest_mimic::{Arguments, Failed, Trial};
use reports::Evidence;
use shakedown::args::Args;
use shakedown::{exit, six};

fn main() -> ExitCode {
    if env::args().nth(1).is_some_and(|word| word == "check-determinism" || word == "child") {
        return exit::code(shakedown::main(&Args::parse(), &Leaking(six::system())));
    }
    let trial = Trial::test("a_walk_over_a_hash_map_is_caught_and_its_event_named", is_caught);
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}

fn is_caught() -> Result<(), Failed> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scenarios/calm-sea.toml");
    let output =
        Command::new(env::current_exe()?).args(["check-determinism", file, "--seeds", "1"]).output()?;
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(i32::from(exit::NOT_DETERMINISTIC)), "{shown}");
    assert!(shown.contains("is the first that differs"), "no event is named: {shown}");
    assert!(shown.contains("leak note found "), "the planted walk is not the event that is named: {shown}");
    Ok(())
}

/// A system with one host more, which tells the order in which a `HashMap` gives its keys.
struct Leaking(&'static dyn System);

struct LeakingDeployment(Box<dyn Deployment>);

async fn leak(context: Context) {
    #[expect(clippy::disallowed_types, reason = "the planted bug")]
    let map: std::collections::HashMap<u32, ()> = (0..100).map(|key| (key, ())).collect();
    for key in map.keys() {
        context.note(format_args!("found {key}"));
    }
}

impl System for Leaking {
    fn services(&self) -> BTreeMap<String, ServiceWords> {
        self.0.services()
    }

    fn outside(&self) -> Vec<String> {
        self.0.outside()
    }

    fn workload(&self) -> Vec<String> {
        self.0.workload()
    }

    fn topics(&self) -> Vec<String> {
        self.0.topics()
    }

    fn groups(&self, scenario: &Scenario) -> Vec<Group> {
        self.0.groups(scenario)
    }

    fn refusals(&self) -> Vec<String> {
        self.0.refusals()
    }

    fn checks(&self) -> Vec<CheckWords> {
        self.0.checks()
    }

    fn consumer_session_timeout(&self) -> Duration {
        self.0.consumer_session_timeout()
    }

    fn start(&self, setup: &Setup<'_>) -> Box<dyn Deployment> {
        Box::new(LeakingDeployment(self.0.start(setup)))
    }
}

impl Deployment for LeakingDeployment {
    fn hosts(&mut self) -> Vec<SystemHost> {
        let mut hosts = self.0.hosts();
        hosts.push(SystemHost { name: "leak".to_owned(), role: Role::Service, program: program(leak) });
        hosts
    }

    fn checks(&mut self) -> Vec<Box<dyn Check>> {
        self.0.checks()
    }

    fn progress(&self) -> Progress {
        self.0.progress()
    }

    fn unfinished(&self) -> Vec<Evidence> {
        self.0.unfinished()
    }

    fn measurements(&self) -> Measurements {
        self.0.measurements()
    }
}

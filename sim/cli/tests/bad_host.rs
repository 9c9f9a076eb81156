//! Bugs of a kind that no service of the six has, planted on a host of their own beside them.
//!
//! A walk over a `HashMap`, whose order differs in every process, reaches the trace: `check-determinism` must name the
//! first event that differs. And a panic: `run` must say with which seed, and call nothing held; `serve` must end.
//!
//! `check-determinism` runs its own executable twice, so this test is a program, too: with a command line of
//! `shakedown`'s it is that, with the bad host added to the six, or a panic to what is served; without, it is the test.

#![expect(clippy::disallowed_methods, reason = "a program, and the processes that it waits for")]

use std::collections::BTreeMap;
use std::env;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser as _;
use context::{Context, Program, program};
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
    let bad_host = match env::args().nth(1).as_deref() {
        Some("serve") => {
            panic_at_the_end_of_input();
            return exit::code(shakedown::main(&Args::parse(), six::system()));
        }
        Some("check-determinism" | "child") => Some(program(leak)),
        Some("run") => Some(program(panics)),
        _ => None,
    };
    if let Some(bad_host) = bad_host {
        return exit::code(shakedown::main(&Args::parse(), &WithHost(six::system(), bad_host)));
    }
    let trials = vec![
        Trial::test("a_walk_over_a_hash_map_is_caught_and_its_event_named", is_caught),
        Trial::test("a_panic_ends_with_1_and_names_its_seed", a_panic_names_its_seed),
        Trial::test("a_panic_ends_what_is_served_with_1", a_panic_ends_what_is_served),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn is_caught() -> Result<(), Failed> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scenarios/calm-sea.toml");
    let output =
        Command::new(env::current_exe()?).args(["check-determinism", file, "--seeds", "1"]).output()?;
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(i32::from(exit::NOT_DETERMINISTIC)), "{shown}");
    assert!(shown.contains("is the first that differs"), "no event is named: {shown}");
    assert!(shown.contains("bad-1 note found "), "the planted walk is not the event that is named: {shown}");
    Ok(())
}

fn a_panic_names_its_seed() -> Result<(), Failed> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scenarios/calm-sea.toml");
    let output = Command::new(env::current_exe()?).args(["run", file, "--seeds", "4..6"]).output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(i32::from(exit::BUG)), "{out}{err}");
    assert!(out.starts_with("FAILED  calm-sea ") && !out.contains("held "), "{out}");
    for seed in [4, 5] {
        let says = format!("scenario `calm-sea` panicked with seed {seed} on engine `jump`: ");
        assert!(err.contains(&format!("error: {says}")) && err.contains(": a planted panic"), "{err}");
        assert!(out.contains(&format!("  failed    seed {seed}: {says}")), "{out}");
        assert!(out.contains(&format!("calm-sea.toml --seed {seed}\n")), "no replay command: {out}");
    }
    Ok(())
}

fn a_panic_ends_what_is_served() -> Result<(), Failed> {
    let mut process = Command::new(env::current_exe()?)
        .args(["serve", "--port", "0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let mut out = BufReader::new(process.stdout.take().expect("it is piped"));
    out.read_line(&mut line)?;
    assert!(line.starts_with("bootstrap.servers="), "{line}");
    drop(process.stdin.take());
    // Its output ends when it does. One that serves on is killed, and has no code.
    let output = std::thread::spawn(move || out.read_to_string(&mut String::new()));
    let deadline = Instant::now() + Duration::from_secs(20);
    while !output.is_finished() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    if !output.is_finished() {
        process.kill()?;
    }
    let code = process.wait()?.code();
    let mut err = String::new();
    process.stderr.take().expect("it is piped").read_to_string(&mut err)?;
    assert_eq!(code, Some(i32::from(exit::BUG)), "{err}");
    assert!(err.contains("a planted panic"), "{err}");
    Ok(())
}

/// A thread that panics when whoever started the program says so.
fn panic_at_the_end_of_input() {
    std::thread::spawn(|| {
        io::stdin().read_to_end(&mut Vec::new()).expect("it is a pipe");
        panic!("a planted panic");
    });
}

/// A system with one host more.
struct WithHost(&'static dyn System, Program);

struct DeploymentWithHost(Box<dyn Deployment>, Program);

async fn panics(context: Context) {
    context.sleep(Duration::from_secs(1)).await;
    panic!("a planted panic");
}

/// Tells the order in which a `HashMap` gives its keys.
async fn leak(context: Context) {
    #[expect(clippy::disallowed_types, reason = "the planted bug")]
    let map: std::collections::HashMap<u32, ()> = (0..100).map(|key| (key, ())).collect();
    for key in map.keys() {
        context.note(format_args!("found {key}"));
    }
}

impl System for WithHost {
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
        Box::new(DeploymentWithHost(self.0.start(setup), self.1.clone()))
    }
}

impl Deployment for DeploymentWithHost {
    fn hosts(&mut self) -> Vec<SystemHost> {
        let mut hosts = self.0.hosts();
        hosts.push(SystemHost { name: "bad-1".to_owned(), role: Role::Service, program: self.1.clone() });
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

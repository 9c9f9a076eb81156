//! Nothing is left behind. This program starts itself as another, which starts a cluster, and kills it. For the engine that a
//! script starts, a process that does nothing stands for the run.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use shakedown_cluster::{RealKafka, Spec};

/// What it gives is a reason to skip.
pub(crate) type Claim = fn() -> Result<Option<&'static str>, Failed>;

pub(crate) const CLAIMS: &[(&str, Claim)] = &[
    ("nothing_is_left_of_a_run_that_is_interrupted", || nothing_is_left("INT", When::Ready)),
    ("nothing_is_left_of_a_run_that_is_terminated", || nothing_is_left("TERM", When::Ready)),
    ("nothing_is_left_of_a_run_that_is_killed", || nothing_is_left("KILL", When::Ready)),
    ("nothing_is_left_of_a_run_that_is_killed_before_its_cluster_is_ready", || {
        nothing_is_left("KILL", When::Starting)
    }),
];

pub(crate) const ENGINE_CLAIMS: &[(&str, Claim)] =
    &[("an_engine_stops_when_the_run_it_is_for_is_killed", an_engine_stops_when_the_run_it_is_for_is_killed)];

/// Says that the program is the one to be killed, and where it puts its files.
const FOLDER: &str = "SHAKEDOWN_TEST_KILLED_IN";
/// How long anything may be left. Issue and README promise it.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// How long a cluster may take to start.
const STARTED_WITHIN: Duration = Duration::from_secs(150);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Starting,
    Ready,
}

/// The folder, if this process is the one to be killed.
pub(crate) fn told_to_be_killed() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// Starts a cluster, says so, and waits to be killed.
pub(crate) fn wait_for_the_end(folder: &Path) -> ExitCode {
    assert!(std::env::temp_dir().starts_with(folder), "its files go elsewhere");
    println!("starting");
    match RealKafka::find(&Spec::for_tests(1)) {
        Ok(kafka) => {
            println!("ready: {kafka}");
            std::thread::sleep(STARTED_WITHIN);
            println!("nobody killed it");
        }
        Err(none) => println!("{none}"),
    }
    ExitCode::FAILURE
}

fn nothing_is_left(signal: &str, when: When) -> Result<Option<&'static str>, Failed> {
    // Its name is in the command line of each process that belongs to the run.
    let folder = tempfile::Builder::new().prefix("shakedown-killed-").tempdir()?;
    let name = folder.path().display().to_string();
    let before = made_by_an_engine();
    let left = || left(&name, &before);
    let mut run = start(folder.path())?;
    let mut lines = BufReader::new(run.stdout.take().ok_or("its output is piped")?).lines();
    assert_eq!(lines.next().transpose()?.as_deref(), Some("starting"));
    match when {
        When::Ready => {
            let line =
                lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("ready"))).transpose()?;
            assert!(line.is_some(), "the cluster did not start");
        }
        // The first process of its cluster is enough.
        When::Starting => wait("a process", STARTED_WITHIN, || Ok(!left()?.is_empty()))?,
    }
    assert!(!left()?.is_empty(), "a cluster runs, and none of its processes is seen");
    let killed = Command::new("kill").arg(format!("-{signal}")).arg(run.id().to_string()).status()?;
    assert!(killed.success(), "{killed}");
    let status = run.wait()?;
    assert!(!status.success(), "it ended by itself: {status}");
    let gone = wait("nothing", GONE_WITHIN, || Ok(left()?.is_empty() && is_empty(folder.path())?));
    gone.map(|()| None).map_err(|_| {
        let what = left().unwrap_or_default().join("\n");
        Failed::from(format!(
            "ten seconds after SIG{signal}: {what}\nin {name}: {:?}",
            is_empty(folder.path())
        ))
    })
}

fn an_engine_stops_when_the_run_it_is_for_is_killed() -> Result<Option<&'static str>, Failed> {
    if said("dockerd", &["--version"]).is_none() {
        return Ok(Some("there is no `dockerd`, and installing one is not for a test"));
    }
    if said("id", &["-u"]).is_none_or(|user| user != ["0"]) {
        return Ok(Some("an engine needs root"));
    }
    let parent = tempfile::Builder::new().prefix("shakedown-engine-").tempdir()?;
    let folder = parent.path().join("engine");
    let name = folder.display().to_string();
    let mut run = Command::new("sleep").arg("600").spawn()?;
    let started = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/engine"))
        .args(["start", "--for", &run.id().to_string()])
        .env("SHAKEDOWN_ENGINE", &folder)
        // Whatever engine answers here is not the one that is tested.
        .env("DOCKER_HOST", "unix:///nowhere")
        .output();
    // Killed before anything is looked at, so that it ends if this fails.
    run.kill()?;
    run.wait()?;
    let started = started?;
    let printed = String::from_utf8_lossy(&started.stdout).trim().to_owned();
    assert_eq!(printed, format!("DOCKER_HOST=unix://{name}/engine.sock"), "{started:?}");
    // Other clusters are of other engines.
    let others = made_by_an_engine();
    let left = || left(&format!("{name}/"), &others);
    wait("nothing is left", GONE_WITHIN, || Ok(left()?.is_empty() && !folder.exists()))
        .map_err(|_| Failed::from(format!("ten seconds later: {:?}", left())))?;
    Ok(None)
}

fn start(folder: &Path) -> Result<Child, Failed> {
    let program = std::env::current_exe()?;
    let child =
        Command::new(program).env(FOLDER, folder).env("TMPDIR", folder).stdout(Stdio::piped()).spawn()?;
    Ok(child)
}

/// The processes whose command line has the name, as `ps` shows them, and what an engine made since.
fn left(name: &str, before: &BTreeSet<String>) -> Result<Vec<String>, Failed> {
    let processes = said("ps", &["-eo", "pid,args"]).ok_or("`ps` fails")?;
    let made = made_by_an_engine();
    Ok(processes
        .into_iter()
        .filter(|line| line.contains(name))
        .chain(made.difference(before).cloned())
        .collect())
}

/// The containers and networks of clusters, if there is an engine.
fn made_by_an_engine() -> BTreeSet<String> {
    let containers = said(
        "docker",
        &["ps", "--all", "--filter", "label=shakedown.cluster", "--format", "container {{.Names}}"],
    );
    let networks =
        said("docker", &["network", "ls", "--filter", "name=shakedown-", "--format", "network {{.Name}}"]);
    containers.into_iter().chain(networks).flatten().collect()
}

/// The lines that a program prints; none if it fails.
fn said(program: &str, arguments: &[&str]) -> Option<Vec<String>> {
    let output =
        Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

fn is_empty(folder: &Path) -> Result<bool, Failed> {
    Ok(std::fs::read_dir(folder)?.next().is_none())
}

fn wait(what: &str, limit: Duration, fact: impl Fn() -> Result<bool, Failed>) -> Result<(), Failed> {
    let started = Instant::now();
    while !fact()? {
        if started.elapsed() > limit {
            return Err(format!("not within {limit:?}: {what}").into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

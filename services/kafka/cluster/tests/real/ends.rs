//! Nothing is left behind. This program starts itself as another, which starts a cluster, and kills it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use shakedown_cluster::{RealKafka, Spec};

pub(crate) type Claim = fn() -> Result<(), Failed>;

pub(crate) const CLAIMS: &[(&str, Claim)] = &[
    ("nothing_is_left_of_a_run_that_is_interrupted", || nothing_is_left("INT", When::Ready)),
    ("nothing_is_left_of_a_run_that_is_terminated", || nothing_is_left("TERM", When::Ready)),
    ("nothing_is_left_of_a_run_that_is_killed", || nothing_is_left("KILL", When::Ready)),
    ("nothing_is_left_of_a_run_that_is_killed_before_its_cluster_is_ready", || {
        nothing_is_left("KILL", When::Starting)
    }),
];

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

fn nothing_is_left(signal: &str, when: When) -> Result<(), Failed> {
    // Its name is in the command line of each process that belongs to the run.
    let folder = tempfile::Builder::new().prefix("shakedown-killed-").tempdir()?;
    let name = folder.path().display().to_string();
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
        When::Starting => wait("a process", STARTED_WITHIN, || Ok(!left(&name)?.is_empty()))?,
    }
    assert!(!left(&name)?.is_empty(), "a cluster runs, and none of its processes is seen");
    let killed = Command::new("kill").arg(format!("-{signal}")).arg(run.id().to_string()).status()?;
    assert!(killed.success(), "{killed}");
    let status = run.wait()?;
    assert!(!status.success(), "it ended by itself: {status}");
    let gone = wait("nothing", GONE_WITHIN, || Ok(left(&name)?.is_empty() && is_empty(folder.path())?));
    gone.map_err(|_| {
        let what = left(&name).unwrap_or_default().join("\n");
        Failed::from(format!(
            "ten seconds after SIG{signal}: {what}\nin {name}: {:?}",
            is_empty(folder.path())
        ))
    })
}

fn start(folder: &Path) -> Result<Child, Failed> {
    let program = std::env::current_exe()?;
    let child =
        Command::new(program).env(FOLDER, folder).env("TMPDIR", folder).stdout(Stdio::piped()).spawn()?;
    Ok(child)
}

/// The processes whose command line has the name, as `ps` shows them.
fn left(name: &str) -> Result<Vec<String>, Failed> {
    let output = Command::new("ps").args(["-eo", "pid,args"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter(|line| line.contains(name)).map(str::to_owned).collect())
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

//! Nothing is left behind. This program starts itself as another, which starts a cluster, and kills it.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use rustix::process::{Pid, Signal, kill_process};
use shakedown_cluster::{NoKafka, RealKafka, Spec};
use tempfile::TempDir;

use crate::traces::{GONE_WITHIN, is_empty, left, made_by_an_engine, processes, wait};

/// Of a run with a cluster of its own.
pub(crate) type Claim = fn() -> Result<(), Failed>;

pub(crate) const CLAIMS: &[(&str, Claim)] = &[
    ("nothing_is_left_of_a_run_that_is_interrupted", || nothing_is_left(Signal::INT, When::Ready)),
    ("nothing_is_left_of_a_run_that_is_terminated", || nothing_is_left(Signal::TERM, When::Ready)),
    ("nothing_is_left_of_a_run_that_is_killed", || nothing_is_left(Signal::KILL, When::Ready)),
    ("nothing_is_left_of_a_run_that_is_killed_while_a_broker_is_paused", || {
        nothing_is_left(Signal::KILL, When::Paused)
    }),
    ("nothing_is_left_of_a_run_that_is_killed_before_its_cluster_is_ready", || {
        nothing_is_left(Signal::KILL, When::Starting)
    }),
    (
        "nothing_is_left_of_runs_that_are_killed_while_their_nodes_are_made",
        nothing_is_left_of_runs_that_are_killed_while_their_nodes_are_made,
    ),
    (
        "the_logs_of_a_cluster_that_does_not_start_are_kept",
        the_logs_of_a_cluster_that_does_not_start_are_kept,
    ),
];

/// Says that the program is the one to be killed, and where it puts its files.
const FOLDER: &str = "SHAKEDOWN_TEST_KILLED_IN";
/// Says that it pauses a broker first.
const PAUSES: &str = "SHAKEDOWN_TEST_PAUSES";
/// How long a container may be left that was being made when its run was killed: its guardian waits up to eight seconds for it,
/// and then the engine takes its time to remove it.
const REMOVED_WITHIN: Duration = Duration::from_secs(30);
/// How long a cluster may take to start.
const STARTED_WITHIN: Duration = Duration::from_secs(150);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Starting,
    Ready,
    Paused,
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
            if std::env::var_os(PAUSES).is_some() {
                kafka.pause(1).expect("a broker that runs can be paused");
            }
            println!("ready: {kafka}");
            std::thread::sleep(STARTED_WITHIN);
            println!("nobody killed it");
        }
        Err(none) => println!("{none}"),
    }
    ExitCode::FAILURE
}

/// The program to be killed; it ends with this.
struct Run {
    // In the command line of each process that belongs to it, but not in its own.
    folder: TempDir,
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Run {
    fn start(when: When) -> Result<Run, Failed> {
        let folder = tempfile::Builder::new().prefix("shakedown-killed-").tempdir()?;
        // A shell that runs something in the background has it ignore SIGINT, and that is passed on.
        let mut command = Command::new("env");
        command
            .arg("--default-signal=INT")
            .arg(std::env::current_exe()?)
            .env(FOLDER, folder.path())
            .env("TMPDIR", folder.path())
            .stdout(Stdio::piped());
        if when == When::Paused {
            command.env(PAUSES, "1");
        }
        let mut child = command.spawn()?;
        let lines = BufReader::new(child.stdout.take().expect("its output is piped")).lines();
        let mut run = Run { folder, child, lines };
        assert_eq!(run.lines.next().transpose()?.as_deref(), Some("starting"));
        Ok(run)
    }

    fn name(&self) -> String {
        self.folder.path().display().to_string()
    }

    fn is_ready(&mut self) -> Result<(), Failed> {
        let mut said = Vec::new();
        for line in &mut self.lines {
            said.push(line?);
            if said.last().is_some_and(|line| line.starts_with("ready")) {
                return Ok(());
            }
        }
        Err(format!("the cluster did not start: {}", said.join("\n")).into())
    }

    /// It ends by the signal, and by nothing else.
    fn end_by(&mut self, signal: Signal) -> Result<(), Failed> {
        kill_process(Pid::from_child(&self.child), signal)?;
        let sent = Instant::now();
        let status: ExitStatus = loop {
            match self.child.try_wait()? {
                Some(status) => break status,
                None if sent.elapsed() > GONE_WITHIN => {
                    return Err(format!("{signal:?} did not end it").into());
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        assert_eq!(status.signal(), Some(signal.as_raw()), "it ended by itself: {status}");
        Ok(())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // An error means that it has ended.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn nothing_is_left(signal: Signal, when: When) -> Result<(), Failed> {
    let before = made_by_an_engine();
    let mut run = Run::start(when)?;
    let name = run.name();
    let left = || left(&name, &before);
    match when {
        When::Ready | When::Paused => run.is_ready()?,
        // The first process of its cluster is enough.
        When::Starting => wait("a process", STARTED_WITHIN, || Ok(!left()?.is_empty()))?,
    }
    assert!(!left()?.is_empty(), "a cluster runs, and none of its processes is seen");
    run.end_by(signal)?;
    let ended = Instant::now();
    let removed_within = if when == When::Starting { REMOVED_WITHIN } else { GONE_WITHIN };
    let nothing_runs =
        || -> Result<bool, Failed> { Ok(processes(&name)?.is_empty() && is_empty(run.folder.path())?) };
    let gone = wait("nothing runs", GONE_WITHIN, nothing_runs).and_then(|()| {
        let span = removed_within.saturating_sub(ended.elapsed());
        wait("nothing", span, || Ok(left()?.is_empty()))
    });
    gone.map_err(|_| {
        let what = left().unwrap_or_default().join("\n");
        Failed::from(format!(
            "{:?} after {signal:?}: {what}\nin {name}: {:?}",
            ended.elapsed(),
            is_empty(run.folder.path())
        ))
    })
}

/// An engine that was asked for a container makes it although whoever asked has died, and shows it only then.
fn nothing_is_left_of_runs_that_are_killed_while_their_nodes_are_made() -> Result<(), Failed> {
    let before = made_by_an_engine();
    let mut runs = Vec::new();
    for moment in [0, 100, 300, 700, 1_500].map(Duration::from_millis) {
        // Something of the runs before may still be there.
        let others = made_by_an_engine();
        let mut run = Run::start(When::Starting)?;
        let name = run.name();
        // The first is its folder's guardian; the second a node's, or the network on which the engine makes the node.
        wait("a node is made", STARTED_WITHIN, || Ok(left(&name, &others)?.len() >= 2))?;
        std::thread::sleep(moment);
        run.end_by(Signal::KILL)?;
        runs.push((moment, run));
    }
    // Not until nothing is seen, which may be too early.
    std::thread::sleep(GONE_WITHIN);
    for (moment, run) in &runs {
        let left = processes(&run.name())?;
        assert!(left.is_empty(), "killed after {moment:?}, and ten seconds later: {left:?}");
        assert!(
            is_empty(run.folder.path())?,
            "killed after {moment:?}, and ten seconds later there are files"
        );
    }
    let made = || made_by_an_engine().difference(&before).cloned().collect::<Vec<_>>();
    wait("nothing", REMOVED_WITHIN - GONE_WITHIN, || Ok(made().is_empty()))
        .map_err(|_| Failed::from(format!("{REMOVED_WITHIN:?} after the last was killed: {:?}", made())))
}

fn the_logs_of_a_cluster_that_does_not_start_are_kept() -> Result<(), Failed> {
    // Sound to whoever formats a disk, and no node starts with it.
    let spec = Spec::for_tests(1).with([("authorizer.class.name", "org.example.Nobody")]);
    let Err(NoKafka::Broken(why)) = RealKafka::find(&spec) else {
        return Err("it started, or is not at hand".into());
    };
    let (_, folder) = why.rsplit_once("the logs are kept in ").ok_or_else(|| format!("no logs: {why}"))?;
    // Whoever died first is its broker, or its controller if that is another.
    let mut logs = String::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            logs += &std::fs::read_to_string(path)?;
        }
    }
    assert!(logs.contains("org.example.Nobody"), "{logs}");
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

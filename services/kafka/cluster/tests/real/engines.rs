//! What is claimed of the engine that a script starts. A process that does nothing stands for the run that it is for.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::Duration;

use libtest_mimic::Failed;
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::traces::{left, made_by_an_engine, said, wait};

/// What it gives is a reason to skip.
pub(crate) type Claim = fn() -> Result<Option<&'static str>, Failed>;

/// How long an engine may take to start or to stop, of which nothing is promised.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const CLAIMS: &[(&str, Claim)] = &[
    ("an_engine_and_its_containers_stop_when_the_run_is_killed", || {
        let lacking = lacking();
        if said("busybox", &["true"]).is_none() {
            return Ok(lacking.or(Some("there is no `busybox` for a container")));
        }
        claim(lacking, an_engine_and_its_containers_stop_when_the_run_is_killed)
    }),
    ("an_engine_stops_when_the_run_is_killed_while_it_starts", || {
        claim(lacking(), an_engine_stops_when_the_run_is_killed_while_it_starts)
    }),
    ("the_end_of_one_run_does_not_stop_the_engine_of_the_next", || {
        claim(lacking(), the_end_of_one_run_does_not_stop_the_engine_of_the_next)
    }),
    ("a_process_that_has_the_number_of_a_dead_engine_lives", || {
        claim(lacking(), a_process_that_has_the_number_of_a_dead_engine_lives)
    }),
    ("a_folder_of_another_is_refused", || claim(lacking(), a_folder_of_another_is_refused)),
];

fn claim(
    lacking: Option<&'static str>,
    hold: fn() -> Result<(), Failed>,
) -> Result<Option<&'static str>, Failed> {
    if lacking.is_none() {
        hold()?;
    }
    Ok(lacking)
}

fn lacking() -> Option<&'static str> {
    if said("dockerd", &["--version"]).is_none() {
        return Some("there is no `dockerd`, and installing one is not for a test");
    }
    said("id", &["-u"]).is_none_or(|user| user != ["0"]).then_some("an engine needs root")
}

/// A place for an engine. Dropped, the engine is gone.
struct Place {
    _parent: TempDir,
    folder: PathBuf,
    // Those of other clusters are of other engines.
    others: BTreeSet<String>,
}

impl Place {
    fn new() -> Result<Place, Failed> {
        let parent = tempfile::Builder::new().prefix("shakedown-engine-").tempdir()?;
        let folder = parent.path().join("engine");
        Ok(Place { _parent: parent, folder, others: made_by_an_engine() })
    }

    fn script(&self, arguments: &[&str]) -> Command {
        let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/engine"));
        script.args(arguments).env("SHAKEDOWN_ENGINE", &self.folder);
        // Whatever engine answers here is not the one that is tested.
        script.env("DOCKER_HOST", "unix:///nowhere");
        script
    }

    fn start(&self, arguments: &[&str]) -> Result<(), Failed> {
        let started = self.script(&[&["start"], arguments].concat()).output()?;
        let printed = String::from_utf8_lossy(&started.stdout).trim().to_owned();
        assert_eq!(printed, format!("DOCKER_HOST={}", self.host()), "{started:?}");
        Ok(())
    }

    fn stop(&self) -> Result<Output, Failed> {
        Ok(self.script(&["stop"]).output()?)
    }

    fn host(&self) -> String {
        format!("unix://{}/engine.sock", self.folder.display())
    }

    fn docker(&self, arguments: &[&str]) -> Option<Vec<String>> {
        let host = self.host();
        said("docker", &[&["--host", &host], arguments].concat())
    }

    fn left(&self) -> Result<Vec<String>, Failed> {
        left(&format!("{}/", self.folder.display()), &self.others)
    }

    fn is_clean_in_time(&self) -> Result<(), Failed> {
        wait("nothing is left", PATIENCE, || Ok(self.left()?.is_empty() && !self.folder.exists()))
            .map_err(|_| Failed::from(format!("{PATIENCE:?} later: {:?}", self.left())))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // For when a claim does not hold, which it says itself; else there is nothing to stop.
        self.stop().ok();
    }
}

/// Stands for a run.
struct Sleeper(Child);

impl Sleeper {
    fn new() -> Result<Sleeper, Failed> {
        Ok(Sleeper(Command::new("sleep").arg("600").spawn()?))
    }

    fn id(&self) -> String {
        self.0.id().to_string()
    }

    fn kill(&mut self) -> Result<(), Failed> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.kill().ok();
    }
}

fn an_engine_and_its_containers_stop_when_the_run_is_killed() -> Result<(), Failed> {
    let (place, mut run) = (Place::new()?, Sleeper::new()?);
    place.start(&["--for", &run.id()])?;
    let userland = place.folder.join("userland.tar");
    let userland = userland.display().to_string();
    said("tar", &["--create", "--dereference", "--file", &userland, "--directory", "/bin", "busybox"])
        .ok_or("`tar` fails")?;
    place.docker(&["import", &userland, "userland"]).ok_or("the image cannot be made")?;
    // Its command line has the folder, as those of the engine have.
    let name = format!("{}/", place.folder.display());
    let command = ["/busybox", "sh", "-c", "while :; do /busybox sleep 1; done", &name];
    let run_it = ["run", "--detach", "--network", "none", "userland"];
    place.docker(&[&run_it[..], &command[..]].concat()).ok_or("the container does not start")?;
    let there = place.left()?;
    assert!(there.iter().any(|line| line.contains("/busybox sh -c")), "the container is not seen: {there:?}");
    run.kill()?;
    place.is_clean_in_time()
}

fn an_engine_stops_when_the_run_is_killed_while_it_starts() -> Result<(), Failed> {
    let (place, mut run) = (Place::new()?, Sleeper::new()?);
    // The script and what it starts are killed with the run, as those are who belong to one terminal.
    let mut script = place.script(&["start", "--for", &run.id()]).process_group(0).spawn()?;
    let engine = |line: &String| line.contains("dockerd --config-file");
    let seen = wait("the engine starts", PATIENCE, || Ok(place.left()?.iter().any(engine)));
    let killed = kill_process_group(Pid::from_child(&script), Signal::KILL);
    run.kill()?;
    script.wait()?;
    seen?;
    killed?;
    place.is_clean_in_time()
}

fn the_end_of_one_run_does_not_stop_the_engine_of_the_next() -> Result<(), Failed> {
    let (place, mut run) = (Place::new()?, Sleeper::new()?);
    place.start(&["--for", &run.id()])?;
    place.stop()?;
    place.start(&[])?;
    run.kill()?;
    // That nothing happens is no fact to wait for; whoever watches looks twice a second.
    std::thread::sleep(Duration::from_secs(2));
    assert!(place.docker(&["version"]).is_some(), "the engine is gone");
    place.stop()?;
    place.is_clean_in_time()
}

fn a_process_that_has_the_number_of_a_dead_engine_lives() -> Result<(), Failed> {
    let (place, mut other) = (Place::new()?, Sleeper::new()?);
    std::fs::create_dir(&place.folder)?;
    for file in ["pid", "engine.pid"] {
        std::fs::write(place.folder.join(file), other.id())?;
    }
    let stopped = place.stop()?;
    assert!(stopped.status.success() && !place.folder.exists(), "{stopped:?}");
    assert_eq!(other.0.try_wait()?, None, "the other was killed");
    Ok(())
}

fn a_folder_of_another_is_refused() -> Result<(), Failed> {
    let place = Place::new()?;
    std::fs::create_dir(&place.folder)?;
    const NOBODY: u32 = 65_534;
    std::os::unix::fs::chown(&place.folder, Some(NOBODY), None)?;
    refuses(&place)?;
    std::fs::remove_dir(&place.folder)?;
    std::os::unix::fs::symlink(Path::new("/nowhere"), &place.folder)?;
    refuses(&place)?;
    std::fs::remove_file(&place.folder)?;
    Ok(())
}

fn refuses(place: &Place) -> Result<(), Failed> {
    for what in ["start", "stop"] {
        let refused = place.script(&[what]).output()?;
        assert!(!refused.status.success(), "`{what}` goes on: {refused:?}");
    }
    assert!(place.folder.symlink_metadata().is_ok(), "it was removed");
    Ok(())
}

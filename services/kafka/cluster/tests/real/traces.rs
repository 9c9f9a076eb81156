//! What a run leaves on a machine: processes, files, and what a Docker engine made for it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;

/// How long anything may be left of whatever was killed. Issue and README promise it.
pub(crate) const GONE_WITHIN: Duration = Duration::from_secs(10);

/// The processes whose command line has the name, and what an engine made since.
pub(crate) fn left(name: &str, before: &BTreeSet<String>) -> Result<Vec<String>, Failed> {
    let mut left = processes(name)?;
    left.extend(made_by_an_engine().difference(before).cloned());
    Ok(left)
}

/// The processes whose command line has the name, as `ps` shows them.
pub(crate) fn processes(name: &str) -> Result<Vec<String>, Failed> {
    let all = said("ps", &["-eo", "pid,args"]).ok_or("`ps` fails")?;
    Ok(all.into_iter().filter(|line| line.contains(name)).collect())
}

/// The containers and networks of clusters, if there is an engine.
pub(crate) fn made_by_an_engine() -> BTreeSet<String> {
    let containers = said(
        "docker",
        &["ps", "--all", "--filter", "label=shakedown.cluster", "--format", "container {{.Names}}"],
    );
    let networks =
        said("docker", &["network", "ls", "--filter", "name=shakedown-", "--format", "network {{.Name}}"]);
    containers.into_iter().chain(networks).flatten().collect()
}

/// The lines that a program prints; none if it fails.
pub(crate) fn said(program: &str, arguments: &[&str]) -> Option<Vec<String>> {
    let output =
        Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

pub(crate) fn is_empty(folder: &Path) -> Result<bool, Failed> {
    Ok(std::fs::read_dir(folder)?.next().is_none())
}

pub(crate) fn wait(
    what: &str,
    limit: Duration,
    fact: impl Fn() -> Result<bool, Failed>,
) -> Result<(), Failed> {
    let started = Instant::now();
    while !fact()? {
        if started.elapsed() > limit {
            return Err(format!("not within {limit:?}: {what}").into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

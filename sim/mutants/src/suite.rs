//! Test programs: built once, run once a mutant, killed when they hang.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::source::{AWAKE, Tree};

/// A test program, by the word before the first `::` of its cases' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Suite(&'static str);

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Suite {
    /// That of a case.
    pub(crate) fn of(case: &&'static str) -> Suite {
        Suite(case.split_once("::").map_or(*case, |(suite, _)| suite))
    }

    /// Its package, and the name of its test file; `None` is the package's unit tests.
    fn target(self) -> (&'static str, Option<&'static str>) {
        match self.0 {
            // The conformance suite and the claims of sim/client, inside the simulated world.
            "world" => ("shakedown-client", Some("conformance")),
            "client" => ("shakedown-client", Some("world")),
            "kafka" => ("shakedown-kafka", None),
            test => ("shakedown-kafka", Some(test)),
        }
    }

    /// A case's name in the table, from how its program calls it.
    fn case(self, printed: &str) -> String {
        match self.0 {
            "world" => printed.to_owned(),
            suite => format!("{suite}::{printed}"),
        }
    }
}

/// What a run showed.
#[derive(Debug, Default)]
pub(crate) struct Run {
    /// Cases that failed.
    pub(crate) red: BTreeSet<String>,
    /// Cases that passed.
    pub(crate) green: BTreeSet<String>,
    /// It came to its end by itself.
    pub(crate) finished: bool,
    /// What it printed.
    pub(crate) output: String,
}

impl Run {
    /// Another suite's, with the same mutant.
    pub(crate) fn add(&mut self, other: Run) {
        let first = self.output.is_empty();
        self.finished = other.finished && (first || self.finished);
        self.red.extend(other.red);
        self.green.extend(other.green);
        self.output.push_str(&other.output);
    }
}

/// Each with its file, and the folder of its package, in which it runs.
type Programs = BTreeMap<Suite, (PathBuf, PathBuf)>;

/// The test programs.
pub(crate) struct Suites {
    programs: Programs,
    log: PathBuf,
}

impl Suites {
    /// Builds these suites, once each.
    pub(crate) fn build(tree: &Tree, suites: impl Iterator<Item = Suite>) -> Result<Suites, String> {
        let mut by_package: BTreeMap<&str, BTreeSet<Suite>> = BTreeMap::new();
        for suite in suites {
            by_package.entry(suite.target().0).or_default().insert(suite);
        }
        let mut programs = BTreeMap::new();
        for (package, suites) in by_package {
            build(tree, package, &suites, &mut programs)?;
        }
        Ok(Suites { programs, log: tree.build.join("mutant.log") })
    }

    /// Those that were built.
    pub(crate) fn all(&self) -> impl Iterator<Item = Suite> {
        self.programs.keys().copied()
    }

    /// Runs a suite with a mutant awake, or none, for at most `limit`.
    pub(crate) fn run(&self, suite: Suite, mutant: Option<&str>, limit: Duration) -> Result<Run, String> {
        let (program, folder) = &self.programs[&suite];
        // A file, not a pipe: a mutant that hangs is not waited for.
        let log = File::create(&self.log).map_err(|error| format!("{}: {error}", self.log.display()))?;
        let told = |error| format!("{}: {error}", program.display());
        let mut command = Command::new(program);
        // What fails here is meant to: no snapshot and no seed of it is kept.
        command.env("INSTA_UPDATE", "no").env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
        command.env("RUST_BACKTRACE", "0");
        command.current_dir(folder).env_remove(AWAKE).stdin(Stdio::null()).stderr(Stdio::null()).stdout(log);
        if let Some(mutant) = mutant {
            command.env(AWAKE, mutant);
        }
        if suite.0 == "world" {
            command.arg("world::");
        }
        let mut child = command.spawn().map_err(told)?;
        let end = now() + limit;
        let finished = loop {
            if child.try_wait().map_err(told)?.is_some() {
                break true;
            }
            if now() > end {
                child.kill().and_then(|()| child.wait()).map_err(told)?;
                break false;
            }
            pause();
        };
        let output = read(&self.log)?;
        let ended = output.lines().any(|line| line.starts_with("test result:"));
        Ok(Run { finished: finished && ended, ..told_by(suite, output) })
    }
}

/// The cases in a test program's output. libtest prints a line when a case has ended.
fn told_by(suite: Suite, output: String) -> Run {
    let mut run = Run::default();
    for line in output.lines() {
        let Some((name, outcome)) = line.strip_prefix("test ").and_then(|line| line.split_once(" ... "))
        else {
            continue;
        };
        match outcome.trim() {
            "ok" => _ = run.green.insert(suite.case(name.trim())),
            outcome if outcome.starts_with("FAILED") => _ = run.red.insert(suite.case(name.trim())),
            _ => {}
        }
    }
    run.output = output;
    run
}

fn read(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Builds the test programs of one package.
fn build(
    tree: &Tree,
    package: &str,
    suites: &BTreeSet<Suite>,
    programs: &mut Programs,
) -> Result<(), String> {
    let mut command = Command::new("cargo");
    command
        .current_dir(&tree.sources)
        .args(["test", "--locked", "--no-run", "--message-format=json-render-diagnostics", "-p", package])
        .env("CARGO_TARGET_DIR", &tree.build)
        // Nobody debugs a mutant; one that is changed is built again at once.
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("CARGO_INCREMENTAL", "1")
        .stderr(Stdio::inherit());
    for suite in suites {
        match suite.target().1 {
            Some(test) => command.args(["--test", test]),
            None => command.arg("--lib"),
        };
    }
    let output = command.output().map_err(|error| format!("cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "the mutants do not compile for the tests of {package}; see above, and mend the table"
        ));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let messages: Vec<serde_json::Value> =
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for &suite in suites {
        let wanted = |message: &&serde_json::Value| {
            let (target, kind) = (&message["target"], &message["target"]["kind"][0]);
            message["profile"]["test"] == true
                && match suite.target().1 {
                    Some(test) => kind == "test" && target["name"] == test,
                    None => kind == "lib",
                }
        };
        let built = messages.iter().find(wanted).and_then(|message| {
            let (program, manifest) = (message["executable"].as_str()?, message["manifest_path"].as_str()?);
            Some((PathBuf::from(program), Path::new(manifest).parent()?.to_owned()))
        });
        programs.insert(suite, built.ok_or_else(|| format!("cargo built no test program for `{suite}`"))?);
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a hanging test program is killed in real time")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "waits for another process")]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_read_from_what_a_test_program_prints() {
        let output =
            "running 3 tests\ntest world::a   ... ok\ntest world::b ... FAILED\ntest world::c ... \n";
        let run = told_by(Suite::of(&"world::a"), output.into());
        assert_eq!(run.green.into_iter().collect::<Vec<_>>(), ["world::a"]);
        assert_eq!(run.red.into_iter().collect::<Vec<_>>(), ["world::b"]);
        let run = told_by(Suite::of(&"replication::a"), "test a ... FAILED\n".into());
        assert_eq!(run.red.into_iter().collect::<Vec<_>>(), ["replication::a"]);
    }
}

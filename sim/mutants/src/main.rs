//! Breaks the simulated Kafka on purpose, one feature at a time, and sees the conformance suite notice.
//!
//! `cargo run --release -p shakedown-mutants [NAME…]` copies the sources to `target/mutants`, runs the suite there inside
//! the simulated world, which must pass, and then once for each line of the [table](table::MUTANTS) with one place in the
//! code changed. The cases that the line names must go red. A mutant that survives, a change that fits nowhere, and a
//! case that goes red only by chance fail the command. It takes about a minute for each mutant.

mod table;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use table::{MUTANTS, Mutant};

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    match run(&wanted) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(survivors) => {
            eprintln!("{survivors} mutants survive");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn run(wanted: &[String]) -> Result<usize, String> {
    if let Some(unknown) =
        wanted.iter().find(|name| !MUTANTS.iter().any(|mutant| mutant.name == name.as_str()))
    {
        return Err(format!("there is no mutant `{unknown}`"));
    }
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).ok_or("the crate is two folders deep")?;
    let tree = root.join("target/mutants/tree");
    copy(root, &tree)?;
    println!("unchanged: the suite must pass");
    let red = suite(&tree)?;
    if !red.is_empty() {
        return Err(format!("the suite is red before anything is changed: {red:?}"));
    }
    let chosen =
        MUTANTS.iter().filter(|mutant| wanted.is_empty() || wanted.iter().any(|name| name == mutant.name));
    let mut survivors = 0;
    for mutant in chosen {
        let changed = Changed::make(&tree, mutant)?;
        let red = suite(&tree)?;
        drop(changed);
        let missed: Vec<_> = mutant.red.iter().filter(|case| !red.contains(**case)).collect();
        let verdict = if missed.is_empty() { "caught" } else { "SURVIVES" };
        println!("{verdict:<9} {:<44} {} cases red", mutant.name, red.len());
        if !missed.is_empty() {
            survivors += 1;
            println!("          {}: still green: {missed:?}; red: {red:?}", mutant.breaks);
        }
    }
    Ok(survivors)
}

/// The sources as they are now, committed or not. What is the same is left alone, so that builds stay warm.
fn copy(root: &Path, tree: &Path) -> Result<(), String> {
    let listed = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .map_err(|error| format!("git: {error}"))?;
    for name in listed.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = PathBuf::from(String::from_utf8_lossy(name).into_owned());
        let (from, to) = (root.join(&name), tree.join(&name));
        // Deleted and not yet committed.
        let Ok(bytes) = fs::read(&from) else { continue };
        if fs::read(&to).ok().as_deref() == Some(&bytes[..]) {
            continue;
        }
        let folder = to.parent().ok_or("a file is in a folder")?;
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&to, bytes))
            .map_err(|error| format!("{}: {error}", to.display()))?;
    }
    Ok(())
}

/// A file with one place changed; dropped, it is as before.
struct Changed {
    file: PathBuf,
    before: String,
}

impl Changed {
    fn make(tree: &Path, mutant: &Mutant) -> Result<Changed, String> {
        let file = tree.join(mutant.file);
        let before = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let places = before.matches(mutant.from).count();
        if places != 1 {
            let (name, file) = (mutant.name, mutant.file);
            return Err(format!(
                "mutant `{name}`: its place is {places} times in {file}, not once; mend the table"
            ));
        }
        let after = before.replacen(mutant.from, mutant.to, 1);
        fs::write(&file, after).map_err(|error| format!("{}: {error}", file.display()))?;
        Ok(Changed { file, before })
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.file, &self.before) {
            eprintln!("{} stays changed: {error}", self.file.display());
        }
    }
}

/// Runs the suite inside the simulated world and gives the cases that are red.
fn suite(tree: &Path) -> Result<BTreeSet<String>, String> {
    let output = Command::new("cargo")
        .current_dir(tree)
        .args(["test", "--locked", "-p", "shakedown-client", "--test", "conformance", "--", "world::"])
        .env("CARGO_TARGET_DIR", tree.with_file_name("build"))
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let ran = text.lines().any(|line| line.starts_with("test result:"));
    if !ran {
        let errors = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<_> = errors.lines().rev().take(30).collect();
        let tail: Vec<_> = tail.into_iter().rev().collect();
        return Err(format!("the suite did not run:\n{}", tail.join("\n")));
    }
    let red = text.lines().filter_map(|line| {
        let name = line.strip_prefix("test world::")?;
        let (name, outcome) = name.split_once(" ... ")?;
        outcome.starts_with("FAILED").then(|| name.trim().to_owned())
    });
    Ok(red.collect())
}

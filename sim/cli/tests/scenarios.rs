//! Every file in `scenarios/` is a test of its own, on each engine: `cargo test --test scenarios jump::broker-crash`.
//!
//! The claims hold on both engines; where `turmoil` cannot bring a fault, it must say so by name. A few seeds each, because
//! this is a debug build; `shakedown run scenarios/ --seeds 200` in a release build takes many. What a file says to break is
//! judged only over as many seeds as the file runs by itself, so such a file runs with all of them. Which files there are is
//! under snapshot in `tests/list.rs`.

#![expect(clippy::disallowed_methods, reason = "looks for the scenario files")]

mod common;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Failed, Trial};

/// The files that claim that something `breaks`.
const BREAK: [&str; 6] = [
    "delayed-commit",
    "delayed-commit-level-1",
    "hanging-transaction",
    "last-replica-standing-elr-0",
    "unclean-election",
    "unclean-election-goes-on",
];

/// The files with a fault that `turmoil` cannot bring: pauses, power losses, links held in one direction.
const REFUSED_BY_TURMOIL: [&str; 6] = [
    "last-replica-standing-elr-0",
    "last-replica-standing-elr-1",
    "paused-consumer",
    "paused-leader",
    "power-loss",
    "unheard-answers",
];

fn main() {
    let args = Arguments::from_args();
    let mut files: Vec<PathBuf> = fs::read_dir(common::top().join("scenarios"))
        .expect("the repository has a folder `scenarios`")
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    let mut trials = vec![
        Trial::test("each_file_that_breaks_is_listed", {
            let files = files.clone();
            move || named(&files, &BREAK, |text| text.contains("\nbreaks = "))
        }),
        Trial::test("each_file_that_turmoil_refuses_is_there", {
            let files = files.clone();
            move || exist(&files, &REFUSED_BY_TURMOIL)
        }),
    ];
    for file in files {
        let name = name_of(&file);
        let on_jump = if BREAK.contains(&name.as_str()) { None } else { Some("2") };
        for (engine, seeds) in [("jump", on_jump), ("turmoil", Some("1"))] {
            let file = file.clone();
            trials.push(Trial::test(format!("{engine}::{name}"), move || holds(&file, engine, seeds)));
        }
    }
    libtest_mimic::run(&args, trials).exit();
}

fn name_of(file: &Path) -> String {
    file.file_stem().unwrap_or(OsStr::new("?")).to_string_lossy().into_owned()
}

/// The files whose text is such are these.
fn named(files: &[PathBuf], names: &[&str], is_such: impl Fn(&str) -> bool) -> Result<(), Failed> {
    let such = files.iter().filter(|file| is_such(&fs::read_to_string(file).unwrap_or_default()));
    let found: BTreeSet<String> = such.map(|file| name_of(file)).collect();
    let wanted: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    if found == wanted { Ok(()) } else { Err(format!("found {found:?}, listed are {wanted:?}").into()) }
}

fn exist(files: &[PathBuf], names: &[&str]) -> Result<(), Failed> {
    let missing = names.iter().find(|name| !files.iter().any(|file| name_of(file) == **name));
    missing.map_or(Ok(()), |name| Err(format!("there is no scenario `{name}`").into()))
}

/// On so many seeds, or on as many as the file says.
fn holds(file: &Path, engine: &str, seeds: Option<&str>) -> Result<(), Failed> {
    let refused = engine == "turmoil" && REFUSED_BY_TURMOIL.contains(&name_of(file).as_str());
    let file = file.as_os_str();
    let mut args = vec!["run".as_ref(), file];
    args.extend(["--engine", engine, "--jobs", "1"].map(OsStr::new));
    args.extend(seeds.iter().flat_map(|seeds| ["--seeds", *seeds]).map(OsStr::new));
    let outcome = common::shakedown(args);
    match outcome.code {
        Some(0) if !refused => Ok(()),
        Some(69) if refused && outcome.err.contains("the engine `turmoil` cannot") => Ok(()),
        code => Err(format!("exit code {code:?}\n{}{}", outcome.out, outcome.err).into()),
    }
}

//! Every file in `scenarios/` is a test of its own, on each engine: `cargo test --test scenarios jump::broker-crash`.
//!
//! The claims hold on both engines; where `turmoil` cannot bring a fault, it must say so by name. A few seeds each, because this is a debug build; `shakedown run scenarios/ --seeds 200` in a release build takes many.

mod common;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    let args = Arguments::from_args();
    let mut files: Vec<PathBuf> = fs::read_dir(common::top().join("scenarios"))
        .expect("the repository has a folder `scenarios`")
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    assert!(files.len() >= 9, "the folder `scenarios` holds only {} scenarios", files.len());
    let mut trials = Vec::new();
    for file in files {
        let name = file.file_stem().unwrap_or(OsStr::new("?")).to_string_lossy().into_owned();
        for (engine, seeds) in [("jump", "2"), ("turmoil", "1")] {
            let file = file.clone();
            trials.push(Trial::test(format!("{engine}::{name}"), move || holds(&file, engine, seeds)));
        }
    }
    libtest_mimic::run(&args, trials).exit();
}

fn holds(file: &Path, engine: &str, seeds: &str) -> Result<(), Failed> {
    let file = file.as_os_str();
    let [run, of, on, jobs, one] = ["run", "--seeds", "--engine", "--jobs", "1"].map(OsStr::new);
    let outcome = common::shakedown([run, file, of, seeds.as_ref(), on, engine.as_ref(), jobs, one]);
    match outcome.code {
        Some(0) => Ok(()),
        Some(69) if engine == "turmoil" && outcome.err.contains("the engine `turmoil` cannot") => Ok(()),
        code => Err(format!("exit code {code:?}\n{}{}", outcome.out, outcome.err).into()),
    }
}

//! Every file in `scenarios/` is a test of its own: `cargo test --test scenarios broker-crash`.
//!
//! A few seeds each, because this is a debug build; `shakedown run scenarios/ --seeds 200` in a release build takes many.

mod common;

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;

use libtest_mimic::{Arguments, Failed, Trial};

const SEEDS: &str = "2";

fn main() {
    let args = Arguments::from_args();
    let mut files: Vec<PathBuf> = fs::read_dir(common::top().join("scenarios"))
        .expect("the repository has a folder `scenarios`")
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    assert!(files.len() >= 9, "the folder `scenarios` holds only {} scenarios", files.len());
    let trials = files.into_iter().map(|file| {
        let name = file.file_stem().unwrap_or(OsStr::new("?")).to_string_lossy().into_owned();
        Trial::test(name, move || holds(&file))
    });
    libtest_mimic::run(&args, trials.collect()).exit();
}

fn holds(file: &PathBuf) -> Result<(), Failed> {
    let args: [&OsStr; 6] =
        ["run".as_ref(), file.as_ref(), "--seeds".as_ref(), SEEDS.as_ref(), "--jobs".as_ref(), "1".as_ref()];
    let outcome = common::shakedown(args);
    match outcome.code {
        Some(0) => Ok(()),
        code => Err(format!("exit code {code:?}\n{}{}", outcome.out, outcome.err).into()),
    }
}

//! What a bench did, beside how long it took: criterion keeps times only, the summary wants rates.

#![expect(clippy::disallowed_methods, reason = "criterion's folder is on the real disk")]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What one iteration of a bench does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// How many of the bench's units.
    pub units: f64,
    /// Seconds of simulated time; 0 outside a world.
    pub simulated_seconds: f64,
}

/// Criterion's folder, found from the running bench: `target/release/deps/<bench>` is beside `target/criterion`.
///
/// # Errors
/// If the program runs from somewhere else.
pub fn criterion_folder() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(3).ok_or_else(|| io::Error::other("run it by `cargo bench`"))?;
    Ok(target.join("criterion"))
}

fn file(folder: &Path) -> PathBuf {
    folder.join("shakedown-facts.json")
}

/// All that were noted; empty before the first.
///
/// # Errors
/// If the file is there and cannot be read.
pub fn read() -> io::Result<BTreeMap<String, Facts>> {
    match fs::read(file(&criterion_folder()?)) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

/// Notes the facts of the bench with this id, in place of earlier ones.
///
/// # Errors
/// If the file cannot be written.
pub fn note(id: &str, facts: Facts) -> io::Result<()> {
    let folder = criterion_folder()?;
    fs::create_dir_all(&folder)?;
    let mut all = read()?;
    all.insert(id.to_owned(), facts);
    fs::write(file(&folder), serde_json::to_vec_pretty(&all)?)
}

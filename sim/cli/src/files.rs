//! What a broken seed leaves on disk: `DIR/<scenario>/seed-N/result.json`, and a trace of the first one of a scenario.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use reports::{ScenarioResult, SeedResult, json};

/// The folder of one seed.
#[derive(Clone, Debug)]
pub(crate) struct SeedFolder(PathBuf);

impl SeedFolder {
    /// Made if it is not there.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn create(report: &Path, scenario: &str, seed: u64) -> io::Result<SeedFolder> {
        let folder = report.join(scenario).join(format!("seed-{seed}"));
        fs::create_dir_all(&folder)?;
        Ok(SeedFolder(folder))
    }

    /// Writes the result; gives the file's name.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn write_result(&self, result: &ScenarioResult, seed: &SeedResult) -> io::Result<String> {
        let path = self.0.join("result.json");
        fs::write(&path, format!("{:#}\n", json::seed(result, seed)))?;
        Ok(path.display().to_string())
    }

    /// Opens the file for the trace; gives its name, too.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn create_trace(&self) -> io::Result<(String, BufWriter<File>)> {
        let path = self.0.join("trace.txt");
        let file = File::create(&path)?;
        Ok((path.display().to_string(), BufWriter::new(file)))
    }
}

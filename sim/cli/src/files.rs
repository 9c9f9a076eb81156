//! What a broken seed leaves on disk: `DIR/<scenario>/seed-N/result.json`, and a trace of the first one of a scenario.
//! Scenarios of one name, from different folders, are in `DIR/<folder>/<scenario>`. On real Kafka each broken seed, and each without
//! a result, leaves its trace, and what its hosts printed.

#![expect(clippy::disallowed_methods, reason = "what a run leaves is for people")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Component, Path, PathBuf};

use harness::scenario::Scenario;
use reports::{ScenarioResult, SeedResult, json};

/// Where below the report's folder each scenario leaves its files: under its name, and if that is another's too, under its
/// own folder. A file that is named twice leaves the same twice.
pub(crate) fn scenario_folders(scenarios: &[Scenario]) -> Vec<PathBuf> {
    let shared = |one: &Scenario| {
        scenarios.iter().any(|other| other.name == one.name && other.file.parent() != one.file.parent())
    };
    let folder = |scenario: &Scenario| {
        let parent = scenario.file.parent().filter(|_| shared(scenario));
        // Not out of the report's folder, whatever the path says.
        let parts = parent.into_iter().flat_map(Path::components).filter_map(|part| match part {
            Component::Normal(part) => Some(part),
            Component::ParentDir => Some(OsStr::new("up")),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
        });
        parts.collect::<PathBuf>().join(&scenario.name)
    };
    scenarios.iter().map(folder).collect()
}

/// The folder of one seed.
#[derive(Clone, Debug)]
pub(crate) struct SeedFolder(PathBuf);

impl SeedFolder {
    /// Made if it is not there.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn create(scenario: &Path, seed: u64) -> io::Result<SeedFolder> {
        let folder = scenario.join(format!("seed-{seed}"));
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

    /// Writes what a host printed; gives the file's name.
    ///
    /// # Errors
    /// What the file system says.
    #[cfg(feature = "kafka")]
    pub(crate) fn write_log(&self, host: &str, printed: &[u8]) -> io::Result<String> {
        let path = self.0.join(format!("{host}.log"));
        fs::write(&path, printed)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn folders(files: &[&str]) -> Vec<String> {
        let vocabulary = harness::vocabulary(crate::six::system());
        let parse = |file: &&str| Scenario::parse(Path::new(file), "claim = \"a claim\"", &vocabulary);
        let scenarios: Vec<Scenario> = files.iter().map(parse).collect::<Result<_, _>>().unwrap();
        scenario_folders(&scenarios).iter().map(|folder| folder.display().to_string()).collect()
    }

    #[test]
    fn scenarios_of_one_name_from_different_folders_leave_their_files_apart() {
        assert_eq!(folders(&["a/storm.toml", "b/calm.toml"]), ["storm", "calm"]);
        assert_eq!(
            folders(&["a/storm.toml", "/b/storm.toml", "../storm.toml", "a/calm.toml", "storm.toml"]),
            ["a/storm", "b/storm", "up/storm", "calm", "storm"]
        );
        assert_eq!(folders(&["a/storm.toml", "a/storm.toml"]), ["storm", "storm"], "it is one scenario");
    }
}

//! The program `shakedown`, as a user starts it.

#![allow(dead_code, reason = "each test file uses a part of this")]
#![expect(clippy::disallowed_methods, reason = "writes scenario files")]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The top of the repository: where a user stands.
pub(crate) fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the crate lies two folders down")
}

/// What a finished program left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs the program at the top of the repository.
pub(crate) fn shakedown<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Outcome {
    let output = Command::new(env!("CARGO_BIN_EXE_shakedown"))
        .args(args)
        .current_dir(top())
        .output()
        .expect("the program was built for this test");
    Outcome {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("the program writes UTF-8"),
        err: String::from_utf8(output.stderr).expect("the program writes UTF-8"),
    }
}

/// A folder of its own for a test, with one scenario in it.
pub(crate) struct Place {
    folder: tempfile::TempDir,
    pub(crate) file: PathBuf,
}

impl Place {
    pub(crate) fn with(name: &str, text: &str) -> Place {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join(format!("{name}.toml"));
        fs::write(&file, text).expect("the folder is ours");
        Place { folder, file }
    }

    pub(crate) fn report(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    /// `run FILE --report …` and more.
    pub(crate) fn run(&self, more: &[&str]) -> Outcome {
        let mut args: Vec<&OsStr> = vec!["run".as_ref(), self.file.as_os_str()];
        let report = self.report();
        args.extend(["--report".as_ref(), report.as_os_str()]);
        args.extend(more.iter().map(OsStr::new));
        shakedown(args)
    }

    /// The text without the folder's name, which differs from run to run.
    pub(crate) fn anonymous(&self, text: &str) -> String {
        text.replace(&self.folder.path().display().to_string(), "PLACE")
    }
}

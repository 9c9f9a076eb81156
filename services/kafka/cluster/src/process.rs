//! A process that does not outlive the one that started it.
//!
//! It is started by a guardian, a small shell script, which holds a pipe from here: when the pipe closes, because this
//! process dropped it or died, the guardian kills its charge.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use crate::{ClusterError, io_error, now, rest};

/// Prints the charge's process id, and ends when the charge ends; kills it when the pipe closes.
const GUARDIAN: &str = r#"exec 3<&0; log="$1"; shift
"$@" </dev/null >>"$log" 2>&1 3<&- & charge=$!
echo "$charge"
(cat <&3 >/dev/null; kill -KILL "$charge" 2>/dev/null) & killer=$!
wait "$charge" 2>/dev/null
kill "$killer" 2>/dev/null"#;

const ENDS_WITHIN: Duration = Duration::from_secs(60);

pub(crate) struct Process {
    id: u32,
    guardian: Child,
    /// Held open for as long as the process may live.
    pipe: Option<ChildStdin>,
}

impl Process {
    pub(crate) fn spawn(command: &Command, log: &Path) -> Result<Process, ClusterError> {
        // Made here, so that the reader of a log never finds none.
        File::options().create(true).append(true).open(log).map_err(io_error("opening a process's log"))?;
        let mut guardian = Command::new("sh")
            .args(["-c", GUARDIAN, "guardian"])
            .arg(log)
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(io_error("starting a process"))?;
        let pipe = guardian.stdin.take();
        let mut line = String::new();
        let stdout = guardian.stdout.take().expect("its output is piped");
        BufReader::new(stdout).read_line(&mut line).map_err(io_error("reading a process id"))?;
        let id = line.trim().parse().map_err(|_| {
            ClusterError::NotReady(format!("the guardian of a process said {line:?} in place of its id"))
        })?;
        Ok(Process { id, guardian, pipe })
    }

    pub(crate) fn signal(&self, name: &str) -> Result<(), ClusterError> {
        let status = Command::new("kill").args([&format!("-{name}"), &self.id.to_string()]).status();
        let status = status.map_err(io_error("sending a signal"))?;
        if status.success() {
            return Ok(());
        }
        Err(ClusterError::NotReady(format!("process {} does not take SIG{name}: {status}", self.id)))
    }

    /// SIGKILL; returns when it is gone.
    pub(crate) fn kill(mut self) -> Result<(), ClusterError> {
        self.end();
        Ok(())
    }

    /// SIGTERM; returns when it has ended.
    pub(crate) fn terminate(mut self) -> Result<(), ClusterError> {
        self.signal("TERM")?;
        let deadline = now() + ENDS_WITHIN;
        while self.guardian.try_wait().map_err(io_error("looking for a process"))?.is_none() {
            if now() > deadline {
                return Err(ClusterError::NotReady(format!("process {} does not end", self.id)));
            }
            rest(Duration::from_millis(20));
        }
        self.end();
        Ok(())
    }

    /// Closes the pipe, which kills it, and waits for the guardian.
    fn end(&mut self) {
        self.pipe = None;
        // An error means that it has been waited for: there is nothing left to end.
        self.guardian.wait().ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

//! A process that does not outlive the one that started it: its guardian kills it then.

use std::fs::File;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::guardian::Guardian;
use crate::{ClusterError, io_error, now, rest};

/// Prints the charge's process id, and ends as the charge does; kills it when the pipe closes.
const SCRIPT: &str = r#"exec 3<&0; log="$1"; shift
"$@" </dev/null >>"$log" 2>&1 3<&- & charge=$!
echo "$charge"
(while read -r _ <&3; do :; done; kill -KILL "$charge") >/dev/null & killer=$!
wait "$charge"; status=$?
kill "$killer"
exit "$status""#;

const LOOK_AGAIN: Duration = Duration::from_millis(10);

pub(crate) struct Process {
    id: Pid,
    guardian: Guardian,
}

impl Process {
    /// Starts a program; what it prints goes to the end of `log`.
    pub(crate) fn spawn(command: &Command, log: &Path) -> Result<Process, ClusterError> {
        // Made here, so that the reader of a log never finds none.
        File::options().create(true).append(true).open(log).map_err(io_error("opening a process's log"))?;
        let command = [command.get_program()].into_iter().chain(command.get_args());
        let (guardian, line) = Guardian::start(SCRIPT, [log.as_os_str()].into_iter().chain(command))?;
        let id = line.parse().ok().and_then(Pid::from_raw).ok_or_else(|| {
            ClusterError::NotReady(format!("the guardian of a process said {line:?} in place of its id"))
        })?;
        Ok(Process { id, guardian })
    }

    /// Its number, which is nobody else's as long as this is there.
    pub(crate) fn id(&self) -> Pid {
        self.id
    }

    /// Sends a signal, without waiting for what comes of it.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<(), ClusterError> {
        // The guardian waits for its charge, so while it lives the id is nobody else's.
        if self.ended()?.is_some() {
            return Err(ClusterError::NotReady(format!("process {} has ended", self.id)));
        }
        let what = format!("sending {signal:?} to process {}", self.id);
        kill_process(self.id, signal).map_err(|error| io_error(what)(error.into()))
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>, ClusterError> {
        self.guardian.ended()
    }

    /// Waits until it ends by itself; `None` if it does not within `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>, ClusterError> {
        let deadline = now() + limit;
        loop {
            match self.ended()? {
                None if now() < deadline => rest(LOOK_AGAIN),
                ended => return Ok(ended),
            }
        }
    }

    /// SIGKILL; returns when it is gone.
    pub(crate) fn kill(mut self) {
        self.guardian.release();
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{kill_process_group, test_kill_process};

    use super::*;

    /// As the kernel does it to an orphaned group in which one is stopped.
    #[test]
    fn a_paused_process_is_killed_although_its_group_hears_sighup() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("600");
        let mut process = Process::spawn(&command, &folder.path().join("log")).unwrap();
        let id = process.id;
        process.signal(Signal::STOP).unwrap();
        let group = Pid::from_raw(process.guardian.group().try_into().unwrap()).unwrap();
        kill_process_group(group, Signal::HUP).unwrap();
        kill_process_group(group, Signal::CONT).unwrap();
        let ended = process.wait(Duration::from_millis(300)).unwrap();
        assert!(ended.is_none(), "SIGHUP ended it, or its guardian: {ended:?}");
        process.kill();
        assert!(test_kill_process(id).is_err(), "it outlived its guardian");
    }
}

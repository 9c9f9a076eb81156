//! A service or an outside system in a process of its own: the harness's side.
//!
//! The process is this program again, with the hidden command `host`. Its standard input is a socket ([`crate::host`]);
//! what it prints goes to a file beside its data.

#![expect(clippy::disallowed_methods, reason = "real processes, files and time")]

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::inbox::Inbox;
use crate::telegram::{Engagement, frame, stamp};

/// How long a host may take to close its clients, before it is killed.
const ENDS_WITHIN: Duration = Duration::from_secs(6);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// So much of what it printed stands in a report.
const LAST_LINES: usize = 20;

/// How this program starts itself as a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments before the host's name, which it may ignore: it shows in lists of processes.
    pub args: Vec<OsString>,
}

/// A running process.
pub(crate) struct Process {
    host: String,
    child: Child,
    socket: UnixStream,
    log: PathBuf,
    paused_at: Option<Instant>,
}

impl Process {
    /// Starts a host; `inbox` hears of it from now on. Its data are in `engaged.data`.
    pub(crate) fn start(command: &HostCommand, engaged: &Engagement, inbox: &Inbox) -> io::Result<Process> {
        fs::create_dir_all(&engaged.data)?;
        let log = log_of(&engaged.data);
        let errors = File::options().create(true).append(true).open(&log)?;
        let (ours, theirs) = UnixStream::pair()?;
        let child = Command::new(&command.program)
            .args(&command.args)
            .arg(&engaged.host)
            // What a terminal sends to all (Ctrl-C) is for the harness, which then ends its hosts in order.
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(errors.try_clone()?)
            .stderr(errors)
            .spawn()?;
        let mut process =
            Process { host: engaged.host.clone(), child, socket: ours.try_clone()?, log, paused_at: None };
        process.socket.write_all(&frame(stamp(), engaged))?;
        inbox.listen(&engaged.host, engaged.incarnation, ours)?;
        Ok(process)
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// SIGKILL; returns when it is gone. How long it was paused until then, if it was.
    pub(crate) fn kill(mut self) -> io::Result<Duration> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(self.paused_for())
    }

    /// SIGSTOP.
    pub(crate) fn pause(&mut self) -> io::Result<()> {
        self.signal(Signal::STOP)?;
        self.paused_at = Some(Instant::now());
        Ok(())
    }

    /// SIGCONT; how long it was paused.
    pub(crate) fn resume(&mut self) -> io::Result<Duration> {
        self.signal(Signal::CONT)?;
        let paused = self.paused_for();
        self.paused_at = None;
        Ok(paused)
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused_at.is_some()
    }

    /// How long it has been paused, if it is.
    pub(crate) fn paused_for(&self) -> Duration {
        self.paused_at.map(|since| since.elapsed()).unwrap_or_default()
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        // It was not waited for, so its number is nobody else's.
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(id.expect("a process has a number"), signal)?)
    }

    /// Asks it to end: it closes its clients. See [`Process::end`].
    pub(crate) fn ask_to_end(&self) -> io::Result<()> {
        match self.socket.shutdown(std::net::Shutdown::Write) {
            // It is gone.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            done => done,
        }
    }

    /// Waits until it has ended, or kills it. `meanwhile` is called again and again: it must read what the process says.
    pub(crate) fn end(mut self, meanwhile: impl Fn()) -> io::Result<()> {
        let deadline = Instant::now() + ENDS_WITHIN;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.child.kill()?;
                self.child.wait()?;
                break;
            }
            meanwhile();
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// What it printed last.
    pub(crate) fn last_words(&self) -> String {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that was waited for takes both for nothing. One that cannot be killed ends with this process, its parent.
        if self.child.kill().is_ok() {
            self.child.wait().ok();
        }
    }
}

fn log_of(data: &Path) -> PathBuf {
    data.with_extension("log")
}

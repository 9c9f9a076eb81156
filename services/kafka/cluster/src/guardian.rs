//! A small shell script that outlives this process for as long as it takes to clean up after it.
//!
//! It holds the other end of a pipe. The pipe closes when this process lets go of it or dies, by whatever signal: then
//! the script does its work and ends. It is in a process group of its own, so that what a terminal sends to all (Ctrl-C)
//! ends this process and not the one that cleans up after it.
//!
//! Such a group is orphaned when this process dies, and if one in it is stopped then (a broker that is paused), the kernel sends
//! SIGHUP and SIGCONT to all of it. So the script, and whatever it starts, does not hear SIGHUP: neither may it end before its
//! work is done, nor may a broker take it for an order to shut down.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use crate::{ClusterError, io_error};

pub(crate) struct Guardian {
    shell: Child,
    /// Held open for as long as there is something to guard.
    pipe: Option<ChildStdin>,
}

impl Guardian {
    /// Starts `script`, whose standard input is the pipe and whose `$1`… are the arguments; waits for the line that it
    /// prints first.
    pub(crate) fn start<A: AsRef<OsStr>>(
        script: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<(Guardian, String), ClusterError> {
        let script = format!("trap '' HUP\n{script}");
        let mut shell = Command::new("sh")
            .args(["-c", &script, "guardian"])
            .args(arguments)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(io_error("starting `sh`, which guards what is started"))?;
        let pipe = shell.stdin.take();
        let stdout = shell.stdout.take().expect("its output is piped");
        let guardian = Guardian { shell, pipe };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).map_err(io_error("hearing from a guardian"))?;
        Ok((guardian, line.trim().to_owned()))
    }

    /// The id of its process group.
    #[cfg(test)]
    pub(crate) fn group(&self) -> u32 {
        self.shell.id()
    }

    /// Writes a line into the pipe.
    pub(crate) fn tell(&mut self, line: &str) -> Result<(), ClusterError> {
        match &mut self.pipe {
            Some(pipe) => writeln!(pipe, "{line}").map_err(io_error("telling a guardian")),
            None => Ok(()),
        }
    }

    /// Closes the pipe and waits until the script has done its work.
    pub(crate) fn release(&mut self) {
        self.pipe = None;
        // An error means that it has been waited for: it has ended.
        self.shell.wait().ok();
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>, ClusterError> {
        self.shell.try_wait().map_err(io_error("looking for a process"))
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        self.release();
    }
}

//! A cluster that `shakedown serve` serves, as a process of its own.

#![allow(dead_code, reason = "each test file uses a part of this")]
#![allow(clippy::disallowed_methods, reason = "a real process on real sockets, in real time")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use broker::Properties;
use client::WireBroker;
use context::Seed;
use context::real::RealHost;

/// Generous, since machines are busy; each step takes milliseconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A cluster that serves. It is killed if a test fails.
pub(crate) struct Serving {
    process: Child,
    out: BufReader<ChildStdout>,
    bootstrap: String,
}

impl Serving {
    /// On ports that the operating system chooses, so that no two tests meet on one.
    pub(crate) fn start(brokers: u16, more: &[&str]) -> Serving {
        let mut process = Command::new(env!("CARGO_BIN_EXE_shakedown"))
            .args(["serve", "--brokers", &brokers.to_string(), "--port", "0"])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program was built for this test");
        let mut out = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut line = String::new();
        out.read_line(&mut line).expect("the program writes UTF-8");
        let bootstrap = line.trim_end().strip_prefix("bootstrap.servers=");
        let bootstrap = bootstrap.unwrap_or_else(|| panic!("no bootstrap line, but {line:?}")).to_owned();
        assert_eq!(bootstrap.split(',').count(), usize::from(brokers), "one address for each broker");
        Serving { process, out, bootstrap }
    }

    pub(crate) fn broker(&self) -> WireBroker {
        let context = RealHost::new("tester", Seed(7)).into_context();
        WireBroker::new(context, Properties::new().set("bootstrap.servers", &self.bootstrap))
    }

    /// As clients want it.
    pub(crate) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let first = self.bootstrap.split(',').next().expect("a broker at least");
        let stream = TcpStream::connect(first).expect("it serves");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time above zero");
        stream
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.process.id().to_string()]).status();
        assert!(sent.expect("there is a `kill`").success());
    }

    /// The exit code, and what it said on standard error.
    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + PATIENCE;
        while self.process.try_wait().expect("it is our child").is_none() {
            assert!(Instant::now() < deadline, "it did not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).expect("UTF-8");
        assert_eq!(rest, "", "one line is all that it prints");
        let mut said = String::new();
        self.process.stderr.take().expect("it is piped").read_to_string(&mut said).expect("UTF-8");
        (self.process.wait().expect("it has ended").code(), said)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

//! A shop of nine processes in a folder of its own.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use kafka::loopback::own_address;
use kit::store::{RedbStore, Survives};
use libtest_mimic::Failed;
use rustix::process::{Pid, Signal, kill_process};
use shakedown_services::Part;
use tempfile::TempDir;

/// How long anything may take that takes a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Processes, and where they keep things. Dropped, it is gone.
pub(crate) struct Shop {
    folder: TempDir,
    first_port: u16,
    running: BTreeMap<Part, Child>,
    environment: Vec<(&'static str, &'static str)>,
}

impl Shop {
    /// One that runs nothing yet. Its ports begin at `first_port`, on this process's own address; `settings` go into its
    /// configuration.
    pub(crate) fn open(bootstrap: &str, first_port: u16, settings: &str) -> Shop {
        let folder = tempfile::tempdir().expect("a folder");
        let address = own_address();
        let ports = |line: &dyn Fn(Part, u16) -> String, parts: &[Part]| -> String {
            parts.iter().map(|part| line(*part, port(first_port, *part))).collect()
        };
        let all: Vec<Part> = Part::all().collect();
        // What a setting of the caller's has no section for comes first.
        let (top, sections) = settings.split_at(settings.find('[').unwrap_or(settings.len()));
        let text = format!(
            "data = {:?}\n{top}\n[kafka]\n\"bootstrap.servers\" = {bootstrap:?}\n[topics]\nreplication_factor = 3\n\
             [http]\nhost = \"{address}\"\n{}[outside]\n{}{sections}",
            folder.path().join("data").display().to_string(),
            ports(&|part, port| format!("{part} = {port}\n"), &all),
            ports(&|part, port| format!("{part} = \"{address}:{port}\"\n"), &Part::OUTSIDE),
        );
        fs::write(folder.path().join("services.toml"), text).expect("a file");
        Shop { folder, first_port, running: BTreeMap::new(), environment: Vec::new() }
    }

    /// A setting of the environment, for the next command alone.
    pub(crate) fn with(&mut self, name: &'static str, value: &'static str) -> &mut Shop {
        self.environment.push((name, value));
        self
    }

    fn services(&mut self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_services"));
        command.arg("--config").arg(self.folder.path().join("services.toml")).args(arguments);
        command.current_dir(self.folder.path()).envs(self.environment.drain(..));
        command
    }

    /// Starts a part, with a log in the folder.
    pub(crate) fn start(&mut self, part: Part) {
        self.start_as(part, &[part.name()]);
    }

    /// Starts a process for several parts, known by one of them.
    pub(crate) fn start_as(&mut self, part: Part, what: &[&str]) {
        let log = fs::File::options().append(true).create(true).open(self.log(part)).expect("a log");
        let mut command = self.services(&[&["run"], what, &["--leashed"]].concat());
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).spawn();
        let before = self.running.insert(part, child.expect("the program was built for this test"));
        assert!(before.is_none(), "{part} runs already");
    }

    /// What a part has logged.
    pub(crate) fn logged(&self, part: Part) -> String {
        fs::read_to_string(self.log(part)).expect("it was started")
    }

    fn log(&self, part: Part) -> PathBuf {
        self.folder.path().join(format!("{part}.log"))
    }

    /// Starts all, and waits until the services poll.
    pub(crate) fn start_all(&mut self) -> Result<(), Failed> {
        Part::all().for_each(|part| self.start(part));
        Part::SERVICES.into_iter().try_for_each(|part| self.until(part, "/health/ready", 200))
    }

    /// SIGKILL, to a part that has worked until now.
    pub(crate) fn kill(&mut self, part: Part) -> Result<(), Failed> {
        let mut child = self.take(part)?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGTERM; it must end by itself, in order.
    pub(crate) fn end(&mut self, part: Part) -> Result<(), Failed> {
        let mut child = self.take(part)?;
        terminate(&child);
        self.ended(part, &mut child)
    }

    /// SIGTERM to all, then waits for each.
    pub(crate) fn end_all(&mut self) -> Result<(), Failed> {
        let mut all = std::mem::take(&mut self.running);
        all.values().for_each(terminate);
        all.iter_mut().try_for_each(|(part, child)| self.ended(*part, child))
    }

    fn take(&mut self, part: Part) -> Result<Child, Failed> {
        let mut child = self.running.remove(&part).expect("it was started");
        match child.try_wait()? {
            None => Ok(child),
            Some(status) => Err(self.tail(part, &format!("has ended by itself: {status}"))),
        }
    }

    fn ended(&self, part: Part, child: &mut Child) -> Result<(), Failed> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.tail(part, &format!("ended with {status}"))),
                None if Instant::now() > deadline => {
                    child.kill()?;
                    return Err(self.tail(part, &format!("has not ended after {PATIENCE:?}")));
                }
                None => sleep(LOOK_AGAIN),
            }
        }
    }

    fn tail(&self, part: Part, what: &str) -> Failed {
        let log = fs::read_to_string(self.log(part)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(30)..].join("\n");
        format!("{part} {what}; its log ends with:\n{last}").into()
    }

    /// Waits until a part answers a path with this status.
    pub(crate) fn until(&mut self, part: Part, path: &str, status: u16) -> Result<(), Failed> {
        let deadline = Instant::now() + PATIENCE;
        let mut said = "nothing".to_owned();
        while Instant::now() < deadline {
            match get(port(self.first_port, part), path) {
                Ok(answer) if answer == status.to_string() => return Ok(()),
                Ok(answer) => said = answer,
                Err(error) => said = error.to_string(),
            }
            // Without a child of its own it runs in another's process.
            if let Some(child) = self.running.get_mut(&part)
                && let Some(status) = child.try_wait()?
            {
                return Err(self.tail(part, &format!("has ended: {status}")));
            }
            sleep(LOOK_AGAIN);
        }
        Err(self.tail(part, &format!("answers {said} to {path}")))
    }

    /// Records that wait in the outbox of a part that has ended.
    pub(crate) fn outbox(&self, part: Part) -> u64 {
        let file = self.folder.path().join(format!("data/{part}.redb"));
        let store = RedbStore::open(part.name(), file, Survives::PowerLoss).expect("nobody has it open");
        kit::outbox::depth(&store).expect("the store reads")
    }

    /// Runs a command to its end.
    pub(crate) fn command(&mut self, arguments: &[&str]) -> Ended {
        let what = arguments.join(" ");
        let output = self.services(arguments).stdin(Stdio::null()).output().expect("the program runs");
        Ended { what, output }
    }

    /// Runs a command beside the test.
    pub(crate) fn begin(&mut self, arguments: &[&str]) -> Begun {
        let what = arguments.join(" ");
        let mut command = self.services(arguments);
        Begun(std::thread::spawn(move || {
            let output = command.stdin(Stdio::null()).output().expect("the program runs");
            Ended { what, output }
        }))
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            // A test failed, or has ended them all.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn port(first: u16, part: Part) -> u16 {
    first + part.port() - 8_080
}

fn terminate(child: &Child) {
    let pid = Pid::from_child(child);
    kill_process(pid, Signal::TERM).expect("it runs, or nobody has waited for it");
}

/// The status of an answer.
fn get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((own_address(), port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split(' ').nth(1).unwrap_or_default().to_owned())
}

/// A command that runs.
pub(crate) struct Begun(JoinHandle<Ended>);

impl Begun {
    pub(crate) fn must_succeed(self) -> Result<String, Failed> {
        self.0.join().expect("the thread only waits").must_succeed()
    }
}

/// A command that has ended.
pub(crate) struct Ended {
    what: String,
    output: Output,
}

impl Ended {
    /// Its standard output.
    pub(crate) fn must_succeed(self) -> Result<String, Failed> {
        let Ended { what, output } = self;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(said);
        }
        let complained = String::from_utf8_lossy(&output.stderr);
        Err(format!("`{what}` ended with {}:\n{said}{complained}", output.status).into())
    }

    /// What it complained of.
    pub(crate) fn must_fail(self, code: i32) -> String {
        let complained = String::from_utf8_lossy(&self.output.stderr).into_owned();
        assert_eq!(self.output.status.code(), Some(code), "`{}` said:\n{complained}", self.what);
        complained
    }
}

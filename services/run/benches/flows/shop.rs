//! The shop: two processes that work, and short-lived ones for what is done to it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use kafka::loopback::own_address;
use rustix::process::{Pid, Signal, kill_process};
use shakedown_services::Part;
use tempfile::TempDir;

use crate::cluster::Cluster;
use crate::spent::Spent;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(180);
/// How often to look whether all is done: so exact is the time of an iteration.
const LOOK: Duration = Duration::from_millis(20);
/// All is done when nothing was handled for so long, and nothing waits. Longer than a fetch may wait for its first byte.
const QUIET: Duration = Duration::from_millis(700);

/// What some orders took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Took {
    pub(crate) orders: u64,
    pub(crate) wall: Duration,
    pub(crate) spent: Spent,
    /// Messages that the services handled.
    pub(crate) handled: u64,
}

/// The six services in one process, the outside systems in another.
pub(crate) struct Shop {
    folder: TempDir,
    first_port: u16,
    running: BTreeMap<&'static str, Child>,
    orders: u64,
}

impl Shop {
    /// Starts it, with ports from `first_port` on, and waits until all poll.
    pub(crate) fn open(cluster: &Cluster, survives: &str, first_port: u16) -> Shop {
        let folder = tempfile::tempdir().expect("a folder");
        let address = own_address();
        let lines = |line: &dyn Fn(Part) -> String, parts: &[Part]| -> String {
            parts.iter().map(|part| line(*part)).collect()
        };
        let port = |part: Part| first_port + part.port() - 8_080;
        let all: Vec<Part> = Part::all().collect();
        let text = format!(
            "data = {:?}\nlog = \"warn\"\ncommits_survive = {survives:?}\nstep_timeout = \"10m\"\n\
             [kafka]\n\"bootstrap.servers\" = {:?}\n[topics]\nreplication_factor = {}\n\
             [http]\nhost = \"{address}\"\n{}[outside]\n{}",
            folder.path().join("data").display().to_string(),
            cluster.bootstrap,
            cluster.brokers,
            lines(&|part| format!("{part} = {}\n", port(part)), &all),
            lines(&|part| format!("{part} = \"{address}:{}\"\n", port(part)), &Part::OUTSIDE),
        );
        fs::write(folder.path().join("services.toml"), text).expect("a file");
        let mut shop = Shop { folder, first_port, running: BTreeMap::new(), orders: 0 };
        for parts in ["outside", "all"] {
            let child = shop.services(&["run", parts, "--leashed"]).stdin(Stdio::piped()).spawn();
            shop.running.insert(parts, child.expect("the program was built for this bench"));
        }
        let deadline = Instant::now() + PATIENCE;
        while !Part::SERVICES.into_iter().all(|part| shop.get(part, "/health/ready").is_some()) {
            assert!(Instant::now() < deadline, "the services are not ready after {PATIENCE:?}");
            sleep(LOOK);
        }
        shop
    }

    fn services(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_services"));
        command.arg("--config").arg(self.folder.path().join("services.toml")).args(arguments);
        command.current_dir(self.folder.path());
        command
    }

    /// Places so many orders and waits until all is done for each.
    pub(crate) fn flows(&mut self, orders: u64) -> Took {
        let spent = self.spent();
        let handled = self.look().handled;
        let began = Instant::now();
        // Every seed is other customers with other orders.
        let (seed, count) = ((self.orders / orders + 1).to_string(), orders.to_string());
        let mut customers = self.services(&["place", &count, "--seed", &seed]);
        let mut customers = customers.stdin(Stdio::null()).spawn().expect("the customers come");
        self.orders += orders;
        let (mut last, mut ended) = (0, began);
        loop {
            sleep(LOOK);
            let look = self.look();
            if look.handled != last {
                (last, ended) = (look.handled, Instant::now());
            }
            if look.sagas == self.orders && look.open == 0 && ended.elapsed() >= QUIET {
                break;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "of {orders} orders not all are done after {PATIENCE:?}: {look:?}"
            );
        }
        assert!(customers.wait().expect("they have ended").success(), "some orders were not placed");
        let wall = ended - began;
        Took { orders, wall, spent: self.spent() - spent, handled: last - handled }
    }

    fn spent(&self) -> Spent {
        Spent::so_far(self.running["all"].id(), self.running["outside"].id())
    }

    fn look(&self) -> Look {
        let mut look = Look::default();
        for part in Part::SERVICES {
            let numbers = self.get(part, "/metrics").expect("a service tells its numbers");
            look.handled += sum(&numbers, "messages_handled_total");
            look.open += sum(&numbers, "outbox_waiting");
            if part == Part::Order {
                look.sagas = sum(&numbers, "sagas_started");
                look.open += sum(&numbers, "sagas_open");
            }
        }
        look
    }

    /// The answer of a service, if it is a good one.
    fn get(&self, part: Part, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect((own_address(), self.first_port + part.port() - 8_080)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(answer)
    }

    /// Closes it in order, and compares its books.
    pub(crate) fn close(mut self) {
        for (parts, child) in &mut self.running {
            // A wait closes the leash, and a part whose leash is closed ends where it stands.
            let leash = child.stdin.take();
            kill_process(Pid::from_child(child), Signal::TERM).expect("it runs");
            assert!(child.wait().expect("a child").success(), "`{parts}` did not end in order");
            drop(leash);
        }
        self.running.clear();
        let audit =
            self.services(&["audit", "--orders", &self.orders.to_string()]).stdout(Stdio::null()).status();
        assert!(audit.expect("the program runs").success(), "the books do not agree");
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            // It was not closed: something has failed, and says so.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// The numbers of all services.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    handled: u64,
    sagas: u64,
    /// Sagas that have not ended, records that wait to be sent.
    open: u64,
}

/// A number of the metrics, over all labels.
fn sum(metrics: &str, name: &str) -> u64 {
    let lines = metrics
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    lines.filter_map(|line| line.rsplit(' ').next()?.trim().parse::<u64>().ok()).sum()
}

//! `shakedown serve`: the simulated Kafka on real sockets, for clients in any language.
//!
//! The same cores as inside the world, on tokio's TCP and clock. Each broker listens on a port of its own; the controller
//! has a port that only the brokers know. Here are the ports, the data's directory, the wait until every broker serves, and
//! the end; what a connection may claim is bounded in the shell of `sim/kafka`, and `kafka::storage` writes disks down.

#![expect(clippy::disallowed_methods, reason = "real sockets and files are what this command serves on")]

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use context::real::RealHost;
use context::{Context, Event, Recorder, Seed};
use kafka::{Cluster, ClusterConfig, OpenError};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::ServeArgs;
use crate::{exit, terminal};

/// By then the brokers are registered and unfenced a hundred times over.
const START: Duration = Duration::from_secs(30);
/// How often is looked whether they have ended.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// How long the brokers may take to end: Kafka's controlled shutdown gives up after that long, too (three tries, 5 s apart).
const END: Duration = Duration::from_secs(15);

/// Whoever holds this file's lock has the directory for himself (Kafka's name for it).
const LOCK: &str = ".lock";

/// Serves until a signal ends it; gives the exit code.
pub(crate) fn serve(args: &ServeArgs) -> u8 {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            terminal::complain(&format!("error: no threads to serve with: {error}"));
            return exit::UNAVAILABLE;
        }
    };
    match runtime.block_on(run(args)) {
        Ok(code) => code,
        Err(refusal) => {
            terminal::complain(&format!("error: {refusal}"));
            refusal.code()
        }
    }
}

/// Why nothing is served. Whoever started it can mend it.
#[derive(Debug)]
enum Refusal {
    /// The brokers' ports end beyond the last port.
    Ports { first: u16, brokers: u16 },
    /// Clients cannot be sent to that address.
    Unspecified(IpAddr),
    /// A setting or a feature level is no good, or what is in the directory is not ours or damaged.
    Cluster(OpenError),
    /// Another process has the directory.
    InUse(PathBuf),
    /// The directory cannot be used.
    Data { path: PathBuf, error: io::Error },
    /// A port cannot be had.
    Port { at: SocketAddr, error: io::Error },
    /// The operating system does not tell of signals.
    Signals(io::Error),
    /// The brokers did not come up. What they said last.
    NotUp(Vec<String>),
}

impl Refusal {
    fn code(&self) -> u8 {
        match self {
            Refusal::Ports { .. } | Refusal::Unspecified(_) | Refusal::Cluster(OpenError::Config(_)) => {
                exit::USAGE
            }
            Refusal::Port { .. }
            | Refusal::Signals(_)
            | Refusal::InUse(_)
            | Refusal::Data { .. }
            | Refusal::Cluster(OpenError::Storage(_)) => exit::UNAVAILABLE,
            Refusal::NotUp(_) => exit::BUG,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Ports { first, brokers } => write!(
                f,
                "{brokers} brokers from port {first} on need ports beyond 65535\n  = help: choose a lower `--port`",
            ),
            Refusal::Unspecified(host) => write!(
                f,
                "clients cannot be sent to {host}\n  = help: give `--host` the address of this machine by which they reach it",
            ),
            Refusal::Cluster(error) => error.fmt(f),
            Refusal::InUse(path) => write!(
                f,
                "another process uses `{}`\n  = help: stop it, or choose another directory with `--data`",
                path.display(),
            ),
            Refusal::Data { path, error } => write!(f, "cannot use `{}`: {error}", path.display()),
            Refusal::Port { at, error } if error.kind() == io::ErrorKind::AddrInUse => write!(
                f,
                "port {} of {} is taken\n  = help: stop what listens there, or choose other ports with `--port`",
                at.port(),
                at.ip(),
            ),
            Refusal::Port { at, error } if error.kind() == io::ErrorKind::AddrNotAvailable => write!(
                f,
                "{} is no address of this machine\n  = help: give `--host` one that is, or leave it out for loopback",
                at.ip(),
            ),
            Refusal::Port { at, error } => {
                write!(f, "cannot listen on {at}: {error}\n  = help: choose other ports with `--port`")
            }
            Refusal::Signals(error) => write!(f, "cannot wait for SIGINT and SIGTERM: {error}"),
            Refusal::NotUp(notes) => {
                write!(f, "the brokers do not serve {START:?} after their start; they said last:")?;
                notes.iter().try_for_each(|note| write!(f, "\n  {note}"))
            }
        }
    }
}

async fn run(args: &ServeArgs) -> Result<u8, Refusal> {
    halt_together();
    // Before anything takes time, so that no signal is missed.
    let mut signals = Signals::new().map_err(Refusal::Signals)?;
    let ports = Ports::take(args)?;
    let config = config(args, &ports)?;
    let notes = Arc::new(Notes { loud: args.verbose, last: Mutex::default() });
    let seed = seed_of_the_clock(&notes);
    let clock = RealHost::new("serve", seed).into_context();
    // Held until the end.
    let _lock = args.data.as_deref().map(lock).transpose()?;
    let cluster = match &args.data {
        Some(dir) => Cluster::open(config, dir, clock.now()),
        None => Cluster::new(config).map_err(OpenError::Config),
    };
    let cluster = cluster.map_err(Refusal::Cluster)?;
    let hosts = start(&cluster, ports, seed, &notes)?;
    tokio::select! {
        ready = up(&cluster, &clock) => {
            ready.then_some(()).ok_or_else(|| Refusal::NotUp(notes.last().clone()))?;
        }
        // Whoever is tired of waiting is not made to wait for the end either.
        number = signals.next() => return Ok(128 + number),
    }
    terminal::say(&format!("bootstrap.servers={}\n", cluster.bootstrap_servers()));
    signals.next().await;
    tokio::select! {
        () = down(&cluster, &clock) => {}
        number = signals.next() => return Ok(128 + number),
    }
    hosts.iter().for_each(|host| host.shutdown());
    Ok(exit::HELD)
}

/// Takes a directory for this process, and makes it if there is none. Its lock goes with the process.
fn lock(dir: &Path) -> Result<File, Refusal> {
    let path = dir.join(LOCK);
    let unusable = |error| Refusal::Data { path: path.clone(), error };
    fs::create_dir_all(dir).map_err(unusable)?;
    let file = File::create(&path).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Refusal::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
}

/// A panic ends the process: the node that it strikes is half changed, and the others would serve on without it until
/// somebody looks. A node that cannot write halts in this way, too; a start goes on with what is written.
fn halt_together() {
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        say(panic);
        std::process::exit(exit::BUG.into());
    }));
}

/// Where the nodes will listen. The ports are this process's from the start on, so that nobody takes one before its node
/// listens there.
struct Ports {
    /// For the brokers alone.
    controller: (TcpListener, SocketAddr),
    brokers: Vec<(TcpListener, SocketAddr)>,
}

impl Ports {
    fn take(args: &ServeArgs) -> Result<Ports, Refusal> {
        if args.host.is_unspecified() {
            return Err(Refusal::Unspecified(args.host));
        }
        let count = args.brokers.get();
        let wanted: Vec<u16> = if args.port == 0 {
            vec![0; count.into()]
        } else {
            let last = args.port.checked_add(count - 1);
            (args.port..=last.ok_or(Refusal::Ports { first: args.port, brokers: count })?).collect()
        };
        let brokers = wanted.into_iter().map(|port| listener(SocketAddr::new(args.host, port)));
        let brokers = brokers.collect::<Result<_, _>>()?;
        Ok(Ports { brokers, controller: listener((Ipv4Addr::LOCALHOST, 0).into())? })
    }
}

/// A listener, and where it listens: for port 0 the operating system has chosen one.
fn listener(at: SocketAddr) -> Result<(TcpListener, SocketAddr), Refusal> {
    let listener = TcpListener::bind(at).and_then(|listener| {
        let at = listener.local_addr()?;
        Ok((listener, at))
    });
    listener.map_err(|error| Refusal::Port { at, error })
}

/// The cluster's configuration.
fn config(args: &ServeArgs, ports: &Ports) -> Result<ClusterConfig, Refusal> {
    let numbers: Vec<u16> = ports.brokers.iter().map(|(_, at)| at.port()).collect();
    let mut config = ClusterConfig::loopback(&numbers, ports.controller.1.port());
    for broker in &mut config.brokers {
        broker.host = args.host.to_string();
    }
    // An embedded Kafka is for tests: a group of one need not wait 3 s for a second member. Said in the help.
    config = config.with("group.initial.rebalance.delay.ms", 0);
    for (name, value) in &args.config {
        config = config.with(name, value);
    }
    for (name, level) in &args.feature {
        config = config.with_feature(name, *level);
    }
    Ok(config)
}

/// Starts every node on a host of its own, the controller first.
fn start(
    cluster: &Cluster,
    ports: Ports,
    seed: Seed,
    notes: &Arc<Notes>,
) -> Result<Vec<Arc<RealHost>>, Refusal> {
    let ports = std::iter::once(ports.controller).chain(ports.brokers);
    let hosts = cluster.hosts().into_iter().zip(ports).map(|((name, program), (listener, at))| {
        let node = RealHost::new(name, seed).bind_to(at.ip().to_string()).with_recorder(notes.clone());
        let node = node.with_listener(listener).map_err(|error| Refusal::Port { at, error })?;
        let (context, host) = node.start();
        context.spawn("node", program(context.clone()));
        Ok(host)
    });
    hosts.collect()
}

/// Ids must differ from one start to the next: clients remember them, and so does a data folder.
fn seed_of_the_clock(notes: &Arc<Notes>) -> Seed {
    let clock = RealHost::new("clock", Seed(0)).with_recorder(notes.clone()).into_context();
    Seed(clock.now().as_micros())
}

/// Waits until every broker is unfenced: it takes connections then. `false` if they are not.
async fn up(cluster: &Cluster, clock: &Context) -> bool {
    clock.timeout(START, cluster.until_live(clock)).await.is_ok()
}

/// Asks every broker to end as SIGTERM would, and waits for them.
async fn down(cluster: &Cluster, clock: &Context) {
    cluster.brokers().for_each(|node| cluster.shut_down(node));
    let stopped = async {
        while !cluster.brokers().all(|node| cluster.has_stopped(node)) {
            clock.sleep(LOOK_AGAIN).await;
        }
    };
    if clock.timeout(END, stopped).await.is_err() {
        terminal::complain(&format!("warning: not every broker ended within {END:?}"));
    }
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The number of the next one.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
        }
    }
}

/// What the nodes say. It goes to standard error if asked for; the last lines are kept in any case.
struct Notes {
    loud: bool,
    last: Mutex<Vec<String>>,
}

impl Notes {
    const KEPT: usize = 10;

    fn last(&self) -> MutexGuard<'_, Vec<String>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder for Notes {
    fn record(&self, event: Event<'_>) {
        if !event.kind.is_note() {
            return;
        }
        let line = format!("{}: {}", event.host, event.text);
        if self.loud {
            terminal::complain(&line);
        }
        let mut last = self.last();
        if last.len() == Notes::KEPT {
            last.remove(0);
        }
        last.push(line);
    }
}

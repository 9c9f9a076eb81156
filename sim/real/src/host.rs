//! A host of the system under test, in a process of its own: the child's side.
//!
//! Its standard input is a socket to the harness. It reads what it is to be, tells all that it does, and ends when the
//! socket does: in order, closing its clients, so that its groups hear of it at once. A crash is a SIGKILL by the harness,
//! a pause a SIGSTOP. If the harness dies, the kernel kills the host with it, paused or not.

#![expect(clippy::disallowed_methods, reason = "a process in the real world")]

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use broker::Properties;
use context::real::RealHost;
use context::{Context, Event, Recorder, Seed, Timestamp};
use harness::check::client::ClientEvent;
use harness::observed::{Desk, Listening, ObservedBroker};
use harness::scenario::{Scenario, ScenarioError};
use harness::system::{Clients, Home, Setup, System};
use rdkafka_broker::RdKafkaBroker;
use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::sync::oneshot;

use crate::inbox::{heard, told};
use crate::names::{Named, Prefix, TopicDefaults};
use crate::telegram::{Engagement, Telegram, frame, read_frame, stamp};

/// How long clients may take to close before the process ends without them.
const CLOSES_WITHIN: Duration = Duration::from_secs(5);
/// A service is one of a dozen on the machine.
const WORKERS: usize = 2;

/// Why a process did not become a host.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Its standard input is not what the harness gives it, or the process cannot be set up.
    #[error("this command is for the harness's own children: {0}")]
    Io(#[from] io::Error),
    /// The scenario that the harness sent is none to this program.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// The system cannot run this host so.
    #[error("{0}")]
    Unfit(String),
}

/// Is what the harness on the other side of standard input says, until that side is closed.
///
/// # Errors
/// [`HostError`].
pub fn host(system: &dyn System) -> Result<(), HostError> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)?;
    let mut socket = UnixStream::from(rustix::stdio::stdin().try_clone_to_owned()?);
    let engaged: Engagement = read_frame(&mut socket)?;
    // A panic is a bug of the service, in whichever of its tasks: the harness reports how this process ended.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        hook(panic);
        std::process::abort();
    }));

    // Not read from the file again, which may have changed since: every host is of the same scenario at every start.
    let scenario = Scenario::parse(&engaged.file, &engaged.text, &harness::vocabulary(system))?;
    let line = Arc::new(Line(Mutex::new(socket.try_clone()?)));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    let (end, ended) = oneshot::channel();
    std::thread::spawn(move || {
        // Nothing is said after the first frame; whatever comes, an end or an error, is the end.
        let over = socket.read(&mut [0]);
        drop(over);
        // The other side waits for as long as there is a run.
        end.send(()).ok();
    });
    runtime.block_on(live(system, &scenario, engaged, line, ended))?;
    runtime.shutdown_timeout(CLOSES_WITHIN);
    Ok(())
}

async fn live(
    system: &dyn System,
    scenario: &Scenario,
    engaged: Engagement,
    line: Arc<Line>,
    ended: oneshot::Receiver<()>,
) -> Result<(), HostError> {
    let mut host = RealHost::new(engaged.host.as_str(), Seed(engaged.seed))
        .with_incarnation(engaged.incarnation)
        .with_recorder(line.clone());
    for (name, port, address) in &engaged.peers {
        host = host.with_peer(name.as_str(), *port, *address);
    }
    for (asked, port) in &engaged.ports {
        host = host.with_port(*asked, *port);
    }
    let (context, host) = host.start();

    let desk = Arc::new(Desk::numbered_after(engaged.last_number, line.clone()));
    let clients =
        clients(&engaged.bootstrap, Prefix::new(engaged.prefix.as_str()), topic_defaults(scenario), desk);
    let clients = Clients::new(move |context: &Context| Arc::new(clients(context)));
    let setup = Setup {
        scenario,
        seed: Seed(engaged.seed),
        began: Timestamp::from_micros(engaged.began_us),
        clients,
    };
    let home = Home::new(engaged.data.clone(), {
        let (line, context) = (line.clone(), context.clone());
        move |news: &[u8]| {
            line.say(&Telegram::State { at_us: context.now().as_micros(), bytes: news.to_vec() })
        }
    });
    let program = system.process(&setup, &engaged.host, home).map_err(HostError::Unfit)?;
    context.spawn("program", program(context.clone()));
    // An error means that the thread that waits is gone, which is an end as well.
    ended.await.ok();
    host.stop().await;
    Ok(())
}

/// Topics as the scenario's cluster has them.
pub(crate) fn topic_defaults(scenario: &Scenario) -> TopicDefaults {
    let cluster = &scenario.cluster;
    let replication_factor = i16::try_from(cluster.replication_factor).expect("a scenario has at most 99");
    TopicDefaults { replication_factor, min_insync_replicas: cluster.min_insync_replicas }
}

/// Makes the watched clients of a host: librdkafka's, under the names of the run.
pub(crate) fn clients(
    bootstrap: &str,
    prefix: Prefix,
    topics: TopicDefaults,
    desk: Arc<Desk>,
) -> impl Fn(&Context) -> ObservedBroker + Send + Sync + 'static {
    let properties = Properties::new().set("bootstrap.servers", bootstrap).set("broker.address.family", "v4");
    move |context: &Context| {
        let properties = properties.clone().set("client.id", context.name());
        let inner = Arc::new(RdKafkaBroker::new(context.clone(), properties));
        let named = Arc::new(Named::new(inner, prefix.clone(), topics));
        ObservedBroker::new(named, context.clone(), desk.clone())
    }
}

/// The socket to the harness.
#[derive(Debug)]
struct Line(Mutex<UnixStream>);

impl Line {
    /// Returns when it is in the socket, and so will be heard whatever becomes of this process.
    fn say(&self, telegram: &Telegram) {
        let mut socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Stamped within the lock, so that the stream of stamps is in order.
        if socket.write_all(&frame(stamp(), telegram)).is_err() {
            // Nobody listens: what this host does from now on nobody could judge.
            std::process::exit(0);
        }
    }
}

impl Recorder for Line {
    fn record(&self, event: Event<'_>) {
        if let Some(telegram) = told(&event) {
            self.say(&telegram);
        }
    }
}

impl Listening for Line {
    fn hear(&self, at: Timestamp, event: &ClientEvent<'_>) {
        self.say(&heard(at, event));
    }
}

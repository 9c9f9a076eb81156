//! The system under test: the one door through which services come into the harness.
//!
//! [`System`] is what is true of it in every run: its words, its topics. [`System::start`] makes a [`Deployment`], the
//! system of one run: the hosts with their programs, and the windows through which the harness looks at it from outside
//! (how far it is, what it measured, what must hold). The harness decides when hosts start, fail and stop, and when a
//! run is over; it knows nothing of orders or payments.
//!
//! What outlives a host (a store, a ledger) is an `Arc` made in [`System::start`], shared between the host's program
//! and the deployment's windows. A window must not wait for anything: it is opened between two events of the world.
//!
//! On a real stage services and outside systems are processes of their own ([`System::process`]); what they keep is then
//! mirrored in the deployment ([`Deployment::mirror`]), so that windows and checks are the same.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use broker::Broker;
use context::{Context, Program, Seed, Timestamp};
use reports::{Durations, Evidence, Hop, Sagas};

use crate::check::Check;
use crate::scenario::{Scenario, ServiceWords};

/// Services that can be tested: what is known of them before any run.
///
/// Shared by the threads that run seeds side by side; all that belongs to one run is in its [`Deployment`].
pub trait System: Send + Sync + 'static {
    /// The services, with what a scenario may say of each. A replica is a host called `<service>-<number from 1>`.
    fn services(&self) -> BTreeMap<String, ServiceWords>;

    /// The outside systems; each is a host of that name.
    fn outside(&self) -> Vec<String>;

    /// The hosts that send the workload.
    fn workload(&self) -> Vec<String>;

    /// The topics that the harness creates before anything starts, each with the scenario's number of partitions.
    fn topics(&self) -> Vec<String>;

    /// The consumer groups, with the topics they read. A run starts its workload when every partition of each is
    /// assigned, and is not over before each has read to the end.
    fn groups(&self, scenario: &Scenario) -> Vec<Group>;

    /// The kinds of refusal that `[refusals]` may ask for.
    fn refusals(&self) -> Vec<String>;

    /// The names of the checks that [`Deployment::checks`] makes, each with its claim, in the order in which they are
    /// listed. Names are unique, and none is a check of Kafka's ([`crate::check::kafka::CHECKS`]).
    fn checks(&self) -> Vec<CheckWords>;

    /// `session.timeout.ms` of the services' consumers.
    fn consumer_session_timeout(&self) -> Duration;

    /// The system of one run.
    fn start(&self, setup: &Setup<'_>) -> Box<dyn Deployment>;

    /// What a host of the system runs when it is a process of its own, apart from [`Deployment`]. It keeps what outlives
    /// it in `home`, and tells its deployment of all that it finds there before it begins.
    ///
    /// # Errors
    /// Why it cannot be one, in words; by default because the system has not said how.
    fn process(&self, setup: &Setup<'_>, host: &str, home: Home) -> Result<Program, String> {
        let _ = (setup, home);
        Err(format!("`{host}` cannot run as a process of its own: its system does not say how"))
    }
}

/// Where a host lives that is a process of its own.
#[derive(Clone)]
pub struct Home {
    /// A folder of this host alone. It is there at every start, with what earlier processes left.
    pub folder: PathBuf,
    tell: Arc<Tell>,
}

type Tell = dyn Fn(&[u8]) + Send + Sync;

impl Home {
    /// A home in `folder` whose news go to `tell`.
    pub fn new(folder: PathBuf, tell: impl Fn(&[u8]) + Send + Sync + 'static) -> Home {
        Home { folder, tell: Arc::new(tell) }
    }

    /// Tells the host's deployment something ([`News::Told`]). What the host does after that is seen after that.
    pub fn tell(&self, news: &[u8]) {
        (self.tell)(news);
    }
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Home({})", self.folder.display())
    }
}

/// What a host in a process of its own let be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News<'a> {
    /// Its store committed: the bytes of that event.
    Committed(&'a [u8]),
    /// What it told by [`Home::tell`].
    Told(&'a [u8]),
}

/// A consumer group and what it reads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// `group.id`.
    pub id: String,
    /// Its topics.
    pub topics: Vec<String>,
}

/// A check by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckWords {
    /// As `breaks` and findings name it: `charged_exactly_once`.
    pub name: &'static str,
    /// It claims that something happens once, and is left out where a scenario says `exactly_once = false`: what
    /// [`Check::is_exactly_once`](crate::check::Check::is_exactly_once) says.
    pub exactly_once: bool,
    /// What it claims, a sentence without a full stop.
    pub claim: &'static str,
}

/// What a deployment is made from.
pub struct Setup<'a> {
    /// What the scenario says: services' settings, workload, refusals.
    pub scenario: &'a Scenario,
    /// The run's seed. Draw from streams named after the part that draws.
    pub seed: Seed,
    /// The instant from which the run's times count.
    pub began: Timestamp,
    /// How a program reaches Kafka.
    pub clients: Clients,
}

/// Makes the Kafka clients of a run's hosts. What they do is observed by the checks of Kafka.
#[derive(Clone)]
pub struct Clients {
    make: Arc<MakeBroker>,
}

type MakeBroker = dyn Fn(&Context) -> Arc<dyn Broker> + Send + Sync;

impl Clients {
    /// Clients that are made by `make`.
    pub fn new(make: impl Fn(&Context) -> Arc<dyn Broker> + Send + Sync + 'static) -> Clients {
        Clients { make: Arc::new(make) }
    }

    /// The cluster as a host reaches it. Called by the host's program, with the context of its incarnation.
    pub fn broker(&self, context: &Context) -> Arc<dyn Broker> {
        (self.make)(context)
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clients")
    }
}

/// One host of the system.
pub struct SystemHost {
    /// Its name in the world.
    pub name: String,
    /// What it is; decides when it starts.
    pub role: Role,
    /// What it runs, at every start. A program that ends leaves its host up and idle.
    pub program: Program,
}

/// What a host of the system is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Starts when the topics exist.
    Service,
    /// Starts when the topics exist.
    Outside,
    /// Starts when every group of the system holds its partitions. This moment is the zero of the scenario's times.
    Workload,
}

/// The system in one run, seen from outside.
pub trait Deployment {
    /// All of its hosts, in a fixed order. Called once, before time moves.
    fn hosts(&mut self) -> Vec<SystemHost>;

    /// The checks, made for this run. Called once, before time moves. Each appears in [`System::checks`].
    fn checks(&mut self) -> Vec<Box<dyn Check>>;

    /// How far it is.
    fn progress(&self) -> Progress;

    /// What is not at its end, for the evidence of a run that got stuck: which saga waits for what, since when.
    fn unfinished(&self) -> Vec<Evidence>;

    /// What it measured. Called once, when the run is over.
    fn measurements(&self) -> Measurements;

    /// A host in a process of its own has news: the windows show it from now on. Gives what is to be shown as a commit
    /// that nobody has heard of, if that is what the news come to: a process that is killed may have committed and not
    /// said so, and its successor finds it.
    ///
    /// # Errors
    /// If the news cannot be read.
    fn mirror(&self, host: &str, news: News<'_>) -> Result<Option<String>, String> {
        let _ = news;
        Err(format!("nobody mirrors `{host}`"))
    }
}

/// How far a system is. It is quiet when the workload is sent and nothing is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Every message of the workload is with Kafka.
    pub workload_sent: bool,
    /// Sagas started.
    pub sagas_started: u64,
    /// Sagas without an end.
    pub sagas_open: u64,
    /// Messages that are committed with a state and not yet relayed.
    pub outbox_rows: u64,
    /// Calls to outside systems that are under way.
    pub calls_open: u64,
}

impl Progress {
    /// Whether nothing is left to do.
    pub fn quiet(&self) -> bool {
        self.workload_sent && self.sagas_open == 0 && self.outbox_rows == 0 && self.calls_open == 0
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sent = if self.workload_sent { "sent" } else { "not all sent" };
        write!(
            f,
            "workload {sent}, {} of {} sagas open, {} outbox rows, {} calls open",
            self.sagas_open, self.sagas_started, self.outbox_rows, self.calls_open
        )
    }
}

/// What a system measured, in the run's time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measurements {
    /// What became of the sagas.
    pub sagas: Sagas,
    /// Saga started to its terminal state.
    pub saga_durations: Durations,
    /// Order placed to customer notified.
    pub order_latencies: Durations,
    /// How long records waited, by topic and handler, in the order of their names.
    pub hops: Vec<Hop>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_is_quiet_only_when_nothing_at_all_is_open() {
        let quiet = Progress { workload_sent: true, sagas_started: 3, ..Progress::default() };
        assert!(quiet.quiet());
        for open in [
            Progress { workload_sent: false, ..quiet },
            Progress { sagas_open: 1, ..quiet },
            Progress { outbox_rows: 1, ..quiet },
            Progress { calls_open: 1, ..quiet },
        ] {
            assert!(!open.quiet(), "{open}");
        }
    }
}

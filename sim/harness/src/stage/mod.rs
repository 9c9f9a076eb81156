//! What a run happens on: hosts, a Kafka cluster, and the time they live in.
//!
//! A [`Backend`] sets the [`Stage`] of one run. Phases, faults, checks and verdicts are the same on every stage
//! ([`mod@crate::run`]); a stage moves time, starts and hurts hosts, and tells what the cluster looks like from outside.
//! [`Simulated`] is the world of one seed with the simulated Kafka in it. Real Kafka, in real time, with every service a
//! process of its own, is a backend of crate `shakedown-real`: this crate knows no socket, process or C client.
//!
//! Start reading at [`Stage`]. Absent on purpose: what is broken when, which is [`crate::fault`]'s.

mod simulated;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use context::{Context, Program, Timestamp};
use world::Change;

use crate::fault::{Unsupported, Wound};
use crate::observed::ObservedBroker;
use crate::recorder::RunRecorder;
use crate::run::RunError;
use crate::scenario::Scenario;
use crate::system::{Deployment, Role, System};

pub use simulated::Simulated;

/// The next offset of each partition, by topic and number.
pub type Offsets = BTreeMap<(String, i32), i64>;

/// Where runs take place.
pub trait Backend {
    /// Its word in plans and reports: `jump`, `turmoil`, `kafka`.
    fn name(&self) -> String;

    /// Whether it gives the same run again for the same seed, so that the hash of a run says something.
    fn replays(&self) -> bool;

    /// Whether it can bring all of a scenario; known before anything runs.
    ///
    /// # Errors
    /// [`Unsupported`] names the first thing that it cannot.
    fn supported(&self, scenario: &Scenario) -> Result<(), Unsupported>;

    /// Makes ready for a run of this scenario, which may take a while: its times count from afterwards.
    ///
    /// # Errors
    /// Why there can be no run.
    fn prepare(&mut self, system: &dyn System, scenario: &Scenario, seed: u64) -> Result<(), RunError> {
        let _ = (system, scenario, seed);
        Ok(())
    }

    /// The instant from which the times of the next run count.
    fn began(&self) -> Timestamp;

    /// A stage for one run, without the system's hosts.
    ///
    /// # Errors
    /// Why there can be no run.
    fn set(&mut self, ask: Ask<'_>) -> Result<Box<dyn Stage + '_>, RunError>;
}

/// What a stage is made for.
#[derive(Clone)]
pub struct Ask<'a> {
    /// The system under test.
    pub system: &'a dyn System,
    /// What to run.
    pub scenario: &'a Scenario,
    /// With which seed.
    pub seed: u64,
    /// What [`Backend::began`] said.
    pub began: Timestamp,
    /// Hears of every event.
    pub recorder: Arc<RunRecorder>,
}

/// A host that the harness puts on a stage.
pub struct StageHost {
    /// Its name.
    pub name: String,
    /// What it runs, at every start.
    pub program: Program,
    /// Whose it is.
    pub part: Part,
}

/// Whose host it is. The system's services and outside systems may be processes of their own; what else there is shares
/// memory with the harness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The harness's observer: starts at once.
    Observer,
    /// A host of the system under test.
    System(Role),
    /// A host of the harness's probe.
    Probe(Role),
}

impl Part {
    /// The role that decides when it starts; `None` starts at once.
    pub fn role(self) -> Option<Role> {
        match self {
            Part::Observer => None,
            Part::System(role) | Part::Probe(role) => Some(role),
        }
    }
}

/// A gate behind which hosts wait for their start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// The topics exist: services and outside systems may start.
    Services,
    /// The groups are stable: the workload may.
    Workload,
}

/// Makes the watched clients of a host.
pub type MakeClients = Arc<dyn Fn(&Context) -> ObservedBroker + Send + Sync>;

/// Hosts, a cluster and the time of one run.
///
/// What can fail on a real stage (a process that ends by itself, a signal that cannot be sent) is kept, and told by the
/// next [`Stage::run_until`].
pub trait Stage {
    /// The time.
    fn now(&self) -> Timestamp;

    /// How a host's program reaches the cluster.
    fn clients(&self) -> MakeClients;

    /// Adds a host. All are added before time moves.
    fn add(&mut self, host: StageHost);

    /// Lets the hosts behind a gate start.
    fn open(&mut self, gate: Gate);

    /// Lets everything happen that happens before or at `until`. What hosts in other processes told meanwhile is in the
    /// windows of `deployment` and was shown to the checks when this returns.
    ///
    /// # Errors
    /// Why the run cannot go on.
    fn run_until(&mut self, until: Timestamp, deployment: &dyn Deployment) -> Result<(), RunError>;

    /// Shows the checks what hosts in other processes or threads told up to now, without letting time pass.
    ///
    /// # Errors
    /// As [`Stage::run_until`].
    fn settle(&mut self, deployment: &dyn Deployment) -> Result<(), RunError> {
        let _ = deployment;
        Ok(())
    }

    /// Makes changes, all at this instant; gives what they did on the spot, by name.
    fn change(&mut self, changes: &[Change]) -> Vec<(&'static str, u64)>;

    /// Adds to `effects` what has happened so far, by name, where a wound is: what waited, what was late.
    fn suffered(&self, wound: &Wound, effects: &mut BTreeMap<&'static str, u64>);

    /// Some host that is not up and running.
    fn lame_host(&self) -> Option<String>;

    /// Some host that was started and has not yet told what it found where it keeps things. What its predecessor has
    /// committed and not told is known only then, so nothing can be judged before. A simulated host has no such time.
    fn starting_host(&self) -> Option<String> {
        None
    }

    /// Whether a host is a broker.
    fn is_broker(&self, host: &str) -> bool;

    /// The host that leads a partition; `None` if no broker does, or it does not exist.
    fn leader_of(&self, topic: &str, partition: i32) -> Option<String>;

    /// Asks a broker to end (SIGTERM): it gives its leaderships away, flushes and goes. See [`Stage::has_stopped`].
    fn shut_down(&mut self, broker: &str);

    /// Whether a broker has ended as it was asked to.
    fn has_stopped(&self, broker: &str) -> bool;

    /// Whether a group has members, none of which waits for a rebalance.
    fn group_is_stable(&self, group: &str) -> bool;

    /// Where readers of committed records stop in every partition; `None` if that cannot be told now.
    fn last_stable_offsets(&self) -> Option<Offsets>;

    /// What a group has committed; `None` if that cannot be told now.
    fn committed_offsets(&self, group: &str) -> Option<Offsets>;

    /// Ends all hosts, and leaves nothing of the run in the cluster.
    ///
    /// # Errors
    /// What could not be ended or taken away.
    fn close(&mut self) -> Result<(), RunError>;
}

impl fmt::Debug for Ask<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ask({}, seed {})", self.scenario.name, self.seed)
    }
}

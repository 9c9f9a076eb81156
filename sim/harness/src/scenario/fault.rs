//! What goes wrong, when, and for how long.

use std::ops::RangeInclusive;
use std::time::Duration;

use world::LatencyRange;

/// How long a quorum is without a controller when its leader dies: `controller.quorum.fetch.timeout.ms` (2 s) until that is
/// noticed, and hardly more if the first vote elects another. A vote that is split costs its candidates their timeout, which
/// is drawn from once to twice `controller.quorum.election.timeout.ms` (1 s), so 1.5 s in the mean
/// (`QuorumState.randomElectionTimeoutMs`); after two of those it is 5 s.
pub const ELECTION: RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_secs(5);

/// How long a broker that was asked to end may take; then it is killed. Kubernetes' `terminationGracePeriodSeconds`.
pub const STOPS_WITHIN: Duration = Duration::from_secs(30);

/// One `[[fault]]` of a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line of its `[[fault]]` in the file, from 1: reports name a fault by it.
    pub line: usize,
    /// When it begins.
    pub start: Start,
    /// From its beginning to its healing; for a rolling restart the time that each host is down.
    pub lasts: Duration,
    /// What happens.
    pub kind: FaultKind,
}

/// When a fault begins. Times count from the start of the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// `at = "5s"`: then.
    At(Duration),
    /// `during = "2s..20s"` with a length of its own: once, at a millisecond drawn from the seed, both ends included.
    Within {
        /// The earliest.
        from: Duration,
        /// The latest.
        to: Duration,
    },
    /// `during` and `every`: at `from`, `from + every`, and so on up to and including `to`. The file guarantees that
    /// one is over before the next begins.
    Every {
        /// The first.
        from: Duration,
        /// None begins after it.
        to: Duration,
        /// From one beginning to the next.
        every: Duration,
    },
}

/// What happens, to whom, and what heals it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A broker's process dies, or its machine loses power. Heals by a restart after `lasts`.
    CrashBroker {
        /// Which one.
        broker: BrokerChoice,
        /// The machine loses power: what was not flushed is gone, and the network hears nothing of it.
        power_loss: bool,
    },
    /// The controller dies. It stands for all nodes of its quorum: until another is elected, after `lasts`, there is none.
    CrashController {
        /// The file names no time: each is drawn from [`ELECTION`], and `lasts` is the longest.
        is_drawn: bool,
    },
    /// Hosts go down one after the other, each for `lasts`.
    RollingRestart {
        /// In this order.
        hosts: Vec<String>,
        /// From the moment that one is up again to the moment that the next goes down.
        gap: Duration,
        /// As for a broker's crash.
        power_loss: bool,
        /// Brokers are asked to end, as an upgrade does (SIGTERM): each gives its leaderships away, flushes its logs, and goes
        /// down when it has ended, or after [`STOPS_WITHIN`]. Other hosts are killed in any case.
        clean: bool,
    },
    /// Hosts of a service die together. Heals by their restart after `lasts`.
    CrashService {
        /// One replica, or all of the service's.
        hosts: Vec<String>,
        /// The machines lose power: the network hears nothing of it. No data is lost by it: a store has synced what it has
        /// committed, as databases do.
        power_loss: bool,
    },
    /// An outside system dies. Heals by its restart after `lasts`; its ledger stays.
    CrashOutside {
        /// The system, which is also the name of its host.
        system: String,
    },
    /// A process stops, as by SIGSTOP. Heals by its resumption after `lasts`.
    Pause {
        /// The host.
        host: String,
    },
    /// Bytes between two sets of hosts wait. Heals after `lasts`; what waited then arrives.
    Partition {
        /// One side.
        between: Vec<String>,
        /// The other; no host is on both sides.
        and: Vec<String>,
        /// Only bytes from `between` to `and` wait.
        one_way: bool,
    },
    /// Bytes from each host of one set to each of the other wait. Heals after `lasts`; what waited then arrives.
    Hold {
        /// The senders.
        from: Vec<String>,
        /// The receivers; may overlap with the senders.
        to: Vec<String>,
    },
    /// Links between two sets of hosts become slower or faster, in both directions. Heals after `lasts`.
    Latency {
        /// One side.
        between: Vec<String>,
        /// The other; no host is on both sides.
        and: Vec<String>,
        /// The latency meanwhile.
        range: LatencyRange,
    },
    /// The harness's own producer appends a copy of records of a topic, for `lasts`.
    DuplicateRecords {
        /// The topic.
        topic: String,
        /// The chance of each record, in parts per million.
        probability_ppm: u32,
    },
}

impl FaultKind {
    /// Every kind as scenario files name it, and what it does.
    pub const WORDS: &'static [(&'static str, &'static str)] = &[
        ("crash_broker", "a broker's process dies, or its machine loses power, and comes back"),
        (
            "crash_controller",
            "there is no controller for `down_for`, by default 2s to 5s: a quorum's election",
        ),
        (
            "rolling_restart",
            "hosts go down and come back one after the other; brokers are asked to end first",
        ),
        (
            "crash_service",
            "one replica of a service, or all, die and come back; its store keeps what it committed",
        ),
        ("crash_outside", "an outside system dies and comes back; its ledger stays"),
        ("pause", "a process stops, as by SIGSTOP, and goes on"),
        ("partition", "bytes between two sets of hosts wait until it heals"),
        ("hold", "bytes from one set of hosts to another wait until it heals"),
        ("latency", "links between two sets of hosts take another latency"),
        ("duplicate_records", "copies of records are appended to their topic"),
    ];

    /// The word for it in scenario files.
    pub fn word(&self) -> &'static str {
        match self {
            FaultKind::CrashBroker { .. } => "crash_broker",
            FaultKind::CrashController { .. } => "crash_controller",
            FaultKind::RollingRestart { .. } => "rolling_restart",
            FaultKind::CrashService { .. } => "crash_service",
            FaultKind::CrashOutside { .. } => "crash_outside",
            FaultKind::Pause { .. } => "pause",
            FaultKind::Partition { .. } => "partition",
            FaultKind::Hold { .. } => "hold",
            FaultKind::Latency { .. } => "latency",
            FaultKind::DuplicateRecords { .. } => "duplicate_records",
        }
    }

    /// Whether a broker's machine loses power by it, so that records must be lost on its disk.
    pub fn takes_power_from_brokers(&self) -> bool {
        match self {
            FaultKind::CrashBroker { power_loss, .. } => *power_loss,
            FaultKind::RollingRestart { hosts, power_loss, .. } => {
                *power_loss && hosts.iter().any(|host| host.starts_with("broker-"))
            }
            _ => false,
        }
    }
}

/// Which broker a crash meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerChoice {
    /// The broker of this number, which exists.
    Number(u32),
    /// Whoever leads this partition when the fault begins.
    LeaderOf {
        /// The topic.
        topic: String,
        /// The partition, which exists.
        partition: u32,
    },
}

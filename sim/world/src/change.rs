//! What can be done to a world, and what it did.

use std::fmt;
use std::time::Duration;

/// One change of the world. Hosts are named; links run from one host to another and each direction is its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The process dies. Heals by `Restart`.
    Kill {
        /// The host.
        host: String,
    },
    /// The machine loses power; its process may be dead already. Heals by `Restart`.
    PowerOff {
        /// The host.
        host: String,
    },
    /// A killed or powered-off host starts anew, as its next incarnation.
    Restart {
        /// The host.
        host: String,
    },
    /// The process stops, as by SIGSTOP. Heals by `Resume`.
    Pause {
        /// The host.
        host: String,
    },
    /// The process goes on.
    Resume {
        /// The host.
        host: String,
    },
    /// Bytes from `from` to `to` wait. Heals by `Release`.
    Hold {
        /// The sending host.
        from: String,
        /// The receiving host.
        to: String,
    },
    /// What waited arrives after the link's latency, each connection's bytes in order; connections may overtake each other.
    Release {
        /// The sending host.
        from: String,
        /// The receiving host.
        to: String,
    },
    /// The link's latency, drawn for each packet; `None` gives it back the world's own.
    Latency {
        /// The sending host.
        from: String,
        /// The receiving host.
        to: String,
        /// The range; whole milliseconds.
        range: Option<LatencyRange>,
    },
}

impl Change {
    /// The host that it changes, if it is not one of a link.
    pub fn host(&self) -> Option<&str> {
        match self {
            Change::Kill { host }
            | Change::PowerOff { host }
            | Change::Restart { host }
            | Change::Pause { host }
            | Change::Resume { host } => Some(host),
            Change::Hold { .. } | Change::Release { .. } | Change::Latency { .. } => None,
        }
    }

    /// The same change of the opposite direction, if it is one of a link.
    pub fn reversed(&self) -> Option<Change> {
        let swap = |from: &String, to: &String| (to.clone(), from.clone());
        match self {
            Change::Hold { from, to } => {
                let (from, to) = swap(from, to);
                Some(Change::Hold { from, to })
            }
            Change::Release { from, to } => {
                let (from, to) = swap(from, to);
                Some(Change::Release { from, to })
            }
            Change::Latency { from, to, range } => {
                let (from, to) = swap(from, to);
                Some(Change::Latency { from, to, range: *range })
            }
            _ => None,
        }
    }
}

/// A latency is drawn evenly from this range, both ends included, in whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatencyRange {
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
}

impl LatencyRange {
    /// From whole milliseconds.
    ///
    /// # Panics
    /// If `min` is above `max`.
    pub fn millis(min: u64, max: u64) -> LatencyRange {
        assert!(min <= max, "a latency range must not end before it begins");
        LatencyRange { min: Duration::from_millis(min), max: Duration::from_millis(max) }
    }
}

/// What has happened to a host, counted from the start of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostStats {
    /// A process is there; a paused one too.
    pub running: bool,
    /// It is paused.
    pub paused: bool,
    /// How often it was restarted.
    pub incarnation: u64,
    /// Tasks that a kill or a power loss ended.
    pub tasks_killed: u64,
    /// Connections that a kill closed or a power loss silenced.
    pub connections_cut: u64,
    /// Wakes that came while it was paused and had to wait.
    pub wakes_deferred: u64,
}

/// What has happened on a link in one direction, counted in packets from the start of the run (on `turmoil` in reads and
/// writes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Packets that arrived.
    pub delivered: u64,
    /// Packets that had to wait for a release.
    pub held: u64,
    /// Packets whose latency was a changed one.
    pub slowed: u64,
    /// Packets that met a machine without power.
    pub unheard: u64,
}

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The engine has no such thing.
    #[error("the engine `{engine}` cannot {change}; use the engine `jump`")]
    Unsupported {
        /// The engine's name.
        engine: &'static str,
        /// The change.
        change: String,
    },
    /// There is no host of that name.
    #[error("there is no host `{0}`")]
    NoSuchHost(String),
    /// The host is not in a state for it.
    #[error("cannot {change}: the host is {state}")]
    Unfit {
        /// The change.
        change: String,
        /// What the host is: running, paused, down.
        state: &'static str,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Kill { host } => write!(f, "kill {host}"),
            Change::PowerOff { host } => write!(f, "power off {host}"),
            Change::Restart { host } => write!(f, "restart {host}"),
            Change::Pause { host } => write!(f, "pause {host}"),
            Change::Resume { host } => write!(f, "resume {host}"),
            Change::Hold { from, to } => write!(f, "hold {from} -> {to}"),
            Change::Release { from, to } => write!(f, "release {from} -> {to}"),
            Change::Latency { from, to, range: Some(range) } => {
                write!(f, "slow {from} -> {to} to {:?}..{:?}", range.min, range.max)
            }
            Change::Latency { from, to, range: None } => write!(f, "reset the latency of {from} -> {to}"),
        }
    }
}

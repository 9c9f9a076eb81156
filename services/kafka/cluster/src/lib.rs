//! Real Kafka for tests: found, or started, broken and ended.
//!
//! - [`RealKafka`] is whatever real Kafka is at hand, the first of: the one that `KAFKA_BOOTSTRAP_SERVERS` names, containers
//!   of a Docker engine, local processes. Tests that several may run share one through [`Shared`], which also says what to
//!   do where there is none: skip, or fail if `SHAKEDOWN_REQUIRE_KAFKA=1`.
//! - [`Processes`] is a cluster of local processes with jars from Maven and Java 17 or newer, for those who need its nodes to
//!   be as they say: settings by node, listeners, feature levels.
//!
//! Brokers can be killed (SIGKILL), paused (SIGSTOP), resumed and started again, which is what makes a real cluster worth
//! comparing a simulated one with. Where there are several, the controller is a node of its own, so that no broker's death
//! costs the quorum.
//!
//! **Nothing is left behind.** Whatever is started has a guardian, a small shell script that cleans up when whoever started it
//! goes away, however that happens: SIGINT, SIGTERM, SIGKILL. Logs are kept only if asked for.
//!
//! **Calls block**, and none needs a runtime. Those that only send a signal or start a process return within milliseconds and
//! may be called from a task (an engine takes up to a second for a container); those that wait for Kafka say so, and belong
//! on a thread that may block. All take `&self`, so that several tasks can share a cluster. They are for tests and tools,
//! never for a simulation.
//!
//! Start reading at [`RealKafka::find`], or at [`Processes::start`].

#![expect(clippy::disallowed_methods, reason = "real processes, files, ports and time")]

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "containers")]
mod containers;
mod folder;
mod found;
mod guardian;
mod jars;
mod metadata;
mod nodes;
pub mod ports;
mod process;
mod processes;
mod spec;
#[cfg(feature = "trials")]
pub mod trials;
mod wanted;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[cfg(feature = "containers")]
pub use containers::Containers;
pub use found::{NoKafka, RealKafka, Shared};
pub use jars::{Jars, KAFKA_VERSION};
pub use metadata::listed_by;
pub use processes::Processes;
pub use spec::{CONTROLLER, DIRECT, Listener, Spec};
pub use wanted::{DEFAULT_IMAGE, Kind, Wanted};

/// Why there is no cluster, or why it does not do what it is told.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// What real Kafka needs is not on this machine; what, and what to do.
    #[error("{0}")]
    Unavailable(String),
    /// The cluster cannot be as it was asked for.
    #[error("{0}")]
    Unsound(String),
    /// A file, a process or a socket.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A node did not come up in time, does not run, or its storage could not be formatted.
    #[error("{0}")]
    NotReady(String),
    /// The cluster is someone else's: nobody but its owner kills its brokers.
    #[error("the cluster is not ours to {0}")]
    NotOurs(&'static str),
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> ClusterError {
    let what = what.into();
    move |source| ClusterError::Io { what, source }
}

fn now() -> Instant {
    Instant::now()
}

fn rest(span: Duration) {
    std::thread::sleep(span);
}

/// A number that no other call gives, in this process or another.
fn unlike_others() -> u128 {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = u128::from(CALLS.fetch_add(1, Ordering::Relaxed));
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    (since_1970 << 48) ^ (u128::from(std::process::id()) << 16) ^ call
}

/// An id for a cluster: a new one each time, because nodes of an old one that still run join whoever has their id and ports.
fn new_cluster_id() -> String {
    // Kafka's `Uuid`: 16 bytes in base64 for URLs, without padding. It must not begin with `-`.
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let number = unlike_others() >> 2;
    let digit = |place: u32| char::from(DIGITS[(number >> (126 - 6 * (place + 1)) & 63) as usize]);
    // The last digit has two bits of the sixteenth byte and four of nothing.
    (0..21).map(digit).chain(['A']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_id_is_new_and_as_kafka_wants_it() {
        let (one, other) = (new_cluster_id(), new_cluster_id());
        assert_ne!(one, other);
        assert_eq!(one.len(), 22);
        assert!(!one.starts_with('-'), "{one}");
    }
}

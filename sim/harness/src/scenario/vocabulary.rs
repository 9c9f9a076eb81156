//! The words of one system under test: what a scenario file for it may name.

use std::collections::BTreeMap;
use std::time::Duration;

/// The names that exist in a system under test. A scenario that uses any other is refused before anything runs, with
/// the nearest of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    /// The services, each with what can be said of it.
    pub services: BTreeMap<String, ServiceWords>,
    /// Outside systems; each is a host of that name.
    pub outside: Vec<String>,
    /// Hosts beside brokers, controller, services and outside systems: the workload and the harness's observer.
    pub others: Vec<String>,
    /// The topics.
    pub topics: Vec<String>,
    /// The kinds of refusal, as `[refusals]` names them.
    pub refusals: Vec<String>,
    /// The checks, as `breaks` names them: those of Kafka and those of the system.
    pub checks: Vec<String>,
    /// Those of them that `exactly_once = false` leaves out.
    pub exactly_once_checks: Vec<String>,
    /// How long the group coordinator waits for a silent consumer of the services: their `session.timeout.ms`.
    pub consumer_session_timeout: Duration,
}

/// What can be said of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceWords {
    /// What it does, for `shakedown list services`.
    pub about: String,
    /// Planted flaws that it knows: name and what it does wrong.
    pub flaws: BTreeMap<String, String>,
    /// It runs sagas, so that `step_timeout` means something.
    pub has_steps: bool,
}

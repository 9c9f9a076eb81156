//! All that the seed decides about what goes wrong, fixed before the first event.

use std::fmt;
use std::time::Duration;

use context::Seed;
use rand::RngExt as _;
use world::LatencyRange;

use super::describe::{describe, span};
use crate::scenario::{ELECTION, Fault, FaultKind, STOPS_WITHIN, Scenario, Start};

/// What a run will do, before its first event: printed by `replay`, and the first note of every trace.
///
/// What else is random in a run (latencies, ties, the services' own draws) comes from streams of the same seed, each
/// named after the part that draws.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The scenario's name.
    pub scenario: String,
    /// The seed.
    pub seed: Seed,
    /// The engine, or `kafka`.
    pub engine: String,
    /// The latency of a link that no fault has changed.
    pub latency: LatencyRange,
    /// When each fault begins, in the order of time, then of the file.
    pub occurrences: Vec<Occurrence>,
}

/// One time that a fault happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// Its place among the scenario's faults, from 0.
    pub fault: usize,
    /// When it begins, from the start of the workload; whole milliseconds.
    pub begins: Duration,
    /// How long it lasts; of a rolling restart each part.
    pub lasts: Duration,
    /// When it is over and healed, at the latest: a broker that is asked to end may take up to [`STOPS_WITHIN`].
    pub ends: Duration,
    /// `lasts` was drawn.
    is_drawn: bool,
    what: String,
    line: usize,
}

impl Plan {
    /// Draws what the seed decides.
    pub fn draw(scenario: &Scenario, seed: u64, engine: impl fmt::Display) -> Plan {
        let (seed, engine) = (Seed(seed), engine.to_string());
        let mut occurrences = Vec::new();
        for (number, fault) in scenario.faults.iter().enumerate() {
            let begins = beginnings(number, fault, seed);
            for (begins, lasts) in begins.iter().zip(lengths(number, fault, seed)) {
                let (what, line, begins, is_drawn) =
                    (describe(fault), fault.line, *begins, has_drawn_length(fault));
                let ends = begins + whole_length(fault, lasts);
                occurrences.push(Occurrence { fault: number, begins, lasts, ends, is_drawn, what, line });
            }
        }
        occurrences.sort_by_key(|occurrence| (occurrence.begins, occurrence.fault));
        Plan { scenario: scenario.name.clone(), seed, engine, latency: scenario.latency, occurrences }
    }

    /// When the last fault is over, at the latest; zero without faults.
    pub fn last_fault_ends(&self) -> Duration {
        self.occurrences.iter().map(|occurrence| occurrence.ends).max().unwrap_or_default()
    }
}

fn beginnings(number: usize, fault: &Fault, seed: Seed) -> Vec<Duration> {
    match fault.start {
        Start::At(at) => vec![at],
        Start::Within { from, to } => {
            // A stream for each fault: taking one out of the file leaves the others where they were drawn.
            let mut rng = seed.stream(&format!("fault/{number}/begins"));
            vec![Duration::from_millis(rng.random_range(millis(from)..=millis(to)))]
        }
        Start::Every { from, to, every } => {
            assert!(!every.is_zero(), "a fault that repeats without time between would never end");
            std::iter::successors(Some(from), |begins| Some(*begins + every))
                .take_while(|begins| *begins <= to)
                .collect()
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).expect("a scenario's times fit")
}

fn has_drawn_length(fault: &Fault) -> bool {
    matches!(fault.kind, FaultKind::CrashController { is_drawn: true })
}

/// How long each occurrence lasts, one after the other.
fn lengths(number: usize, fault: &Fault, seed: Seed) -> impl Iterator<Item = Duration> {
    let mut rng = seed.stream(&format!("fault/{number}/lasts"));
    let (drawn, lasts) = (has_drawn_length(fault), fault.lasts);
    std::iter::repeat_with(move || match drawn {
        true => Duration::from_millis(rng.random_range(millis(*ELECTION.start())..=millis(*ELECTION.end()))),
        false => lasts,
    })
}

/// From the beginning of one occurrence to the moment that all of it is healed, at the latest; each of its parts takes
/// `lasts`.
fn whole_length(fault: &Fault, lasts: Duration) -> Duration {
    match &fault.kind {
        FaultKind::RollingRestart { hosts, gap, clean, .. } => {
            let asked = hosts.iter().filter(|host| *clean && host.starts_with("broker-")).count();
            let count = |hosts: usize| u32::try_from(hosts).expect("a cluster's hosts fit");
            let hosts = count(hosts.len());
            lasts * hosts + *gap * hosts.saturating_sub(1) + STOPS_WITHIN * count(asked)
        }
        _ => lasts,
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (min, max) = (span(self.latency.min), span(self.latency.max));
        write!(
            f,
            "scenario {}, seed {}, engine {}, latency {min}..{max}",
            self.scenario, self.seed.0, self.engine
        )?;
        for Occurrence { begins, lasts, is_drawn, line, what, .. } in &self.occurrences {
            write!(f, "; at {} {what} (line {line}", span(*begins))?;
            match is_drawn {
                true => write!(f, ", here {})", span(*lasts))?,
                false => write!(f, ")")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(start: Start) -> Fault {
        let lasts = Duration::from_secs(1);
        Fault { line: 1, start, lasts, kind: FaultKind::Pause { host: "a".into() } }
    }

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_time_within_a_window_is_drawn_from_the_seed_and_the_faults_place() {
        let fault = fault(Start::Within { from: seconds(2), to: seconds(20) });
        let drawn = |number, seed| beginnings(number, &fault, Seed(seed))[0];
        assert_eq!(drawn(0, 7), drawn(0, 7));
        assert_ne!(drawn(0, 7), drawn(0, 8));
        assert_ne!(drawn(0, 7), drawn(1, 7));
        assert!((0..100).all(|seed| (seconds(2)..=seconds(20)).contains(&drawn(0, seed))));
    }

    #[test]
    fn a_repeated_fault_begins_up_to_the_end_of_its_window() {
        let every = fault(Start::Every { from: seconds(1), to: seconds(7), every: seconds(3) });
        assert_eq!(beginnings(0, &every, Seed(0)), [seconds(1), seconds(4), seconds(7)]);
    }

    #[test]
    fn a_rolling_restart_is_over_when_its_last_host_is_up() {
        let length = |clean| {
            let hosts = vec!["broker-1".into(), "broker-2".into(), "a".into()];
            let kind = FaultKind::RollingRestart { hosts, gap: seconds(5), power_loss: false, clean };
            whole_length(&Fault { kind, ..fault(Start::At(Duration::ZERO)) }, seconds(1))
        };
        assert_eq!(length(false), seconds(13));
        assert_eq!(
            length(true),
            seconds(13 + 60),
            "two brokers may take 30 s each to end, and none is left out"
        );
    }

    #[test]
    fn an_election_without_a_time_takes_one_of_its_own_each_time() {
        let of = |is_drawn, seed| -> Vec<Duration> {
            let kind = FaultKind::CrashController { is_drawn };
            let fault = Fault { kind, ..fault(Start::At(Duration::ZERO)) };
            lengths(0, &fault, Seed(seed)).take(20).collect()
        };
        assert!(of(true, 1).iter().all(|lasts| ELECTION.contains(lasts)));
        assert!(of(true, 1).windows(2).any(|pair| pair[0] != pair[1]));
        assert_eq!(of(true, 1), of(true, 1));
        assert_ne!(of(true, 1), of(true, 2));
        assert_eq!(of(false, 1), [seconds(1); 20]);
    }
}

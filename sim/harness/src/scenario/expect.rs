//! What must hold. Every seed is judged by itself.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// `[expect]`. The checks of safety hold in any case; this is what a scenario claims beyond them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expect {
    /// Completed sagas of all that were started, in parts per million.
    pub saga_success_rate: Option<Bound<u32>>,
    /// Sagas that ended in the effect they were started for.
    pub completed_sagas: Option<Bound<u64>>,
    /// Sagas that ended by undoing what they had done.
    pub compensated_sagas: Option<Bound<u64>>,
    /// How many sagas may be left without an end; 0 where the file says nothing.
    pub stuck_sagas: u64,
    /// Order placed, which is before it is sent, to customer notified.
    pub order_latency: BTreeMap<Statistic, Bound<Duration>>,
    /// Saga started to its terminal state.
    pub saga_duration: BTreeMap<Statistic, Bound<Duration>>,
    /// An effect that happens twice breaks the claim. True where the file says nothing.
    pub exactly_once: bool,
    /// From the moment that all is healed to the moment that the system is quiet, at most.
    pub recovers_within: Duration,
    /// Turns the claim round: each of these checks breaks on at least one seed, and no other but those of
    /// `may_break`. Empty: all hold.
    pub breaks: Vec<String>,
    /// Checks that may break beside those of `breaks`, for the same reason: a bug can have another face on another seed.
    pub may_break: Vec<String>,
}

/// Which figure of many measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Statistic {
    /// The sum over the count.
    Mean,
    /// Half are no longer.
    P50,
    /// 95 of 100 are no longer.
    P95,
    /// 99 of 100 are no longer.
    P99,
    /// The longest.
    Max,
}

/// A comparison with a limit: `>= 95%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound<T> {
    /// How the measured value must stand to the limit.
    pub comparison: Comparison,
    /// The limit.
    pub limit: T,
}

/// How a measured value stands to a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `<`
    Below,
    /// `<=`
    AtMost,
    /// `=`
    Equal,
    /// `>=`
    AtLeast,
    /// `>`
    Above,
}

impl<T: PartialOrd> Bound<T> {
    /// Whether a measured value satisfies it.
    pub fn holds(&self, measured: &T) -> bool {
        match self.comparison {
            Comparison::Below => measured < &self.limit,
            Comparison::AtMost => measured <= &self.limit,
            Comparison::Equal => measured == &self.limit,
            Comparison::AtLeast => measured >= &self.limit,
            Comparison::Above => measured > &self.limit,
        }
    }
}

impl Statistic {
    /// All of them, as files name them.
    pub const ALL: [Statistic; 5] =
        [Statistic::Mean, Statistic::P50, Statistic::P95, Statistic::P99, Statistic::Max];
}

impl fmt::Display for Statistic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Statistic::Mean => "mean",
            Statistic::P50 => "p50",
            Statistic::P95 => "p95",
            Statistic::P99 => "p99",
            Statistic::Max => "max",
        })
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Comparison::Below => "<",
            Comparison::AtMost => "<=",
            Comparison::Equal => "=",
            Comparison::AtLeast => ">=",
            Comparison::Above => ">",
        })
    }
}

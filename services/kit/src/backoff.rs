//! Waiting times between tries: exponential, with jitter from the service's own randomness.

use std::time::Duration;

use context::Rng;
use rand::RngExt as _;

/// How long to wait before the next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest wait before the second try.
    pub initial: Duration,
    /// The longest wait of all.
    pub max: Duration,
}

impl Backoff {
    /// From `initial`, doubled with each try, up to `max`.
    pub const fn new(initial: Duration, max: Duration) -> Backoff {
        Backoff { initial, max }
    }

    /// The wait after so many failed tries (1 after the first): between half of `min(initial * 2^(failed - 1), max)` and
    /// all of it. Half, so that it always waits; drawn, so that many who failed together do not come back together.
    pub fn wait(&self, failed: u32, rng: &mut Rng) -> Duration {
        let doublings = failed.saturating_sub(1).min(20);
        let longest = self.initial.saturating_mul(1 << doublings).min(self.max);
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(micros / 2 + rng.random_range(0..=micros.div_ceil(2)))
    }
}

#[cfg(test)]
mod tests {
    use context::Seed;

    use super::*;

    #[test]
    fn waits_double_to_their_limit_and_differ() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let mut rng = Seed(7).stream("backoff");
        for (failed, longest_ms) in
            [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1_000), (4_000_000_000, 1_000)]
        {
            let longest = Duration::from_millis(longest_ms);
            let waits: Vec<_> = (0..50).map(|_| backoff.wait(failed, &mut rng)).collect();
            assert!(waits.iter().all(|wait| (longest / 2..=longest).contains(wait)), "{failed}: {waits:?}");
            assert!(waits.iter().any(|wait| *wait != waits[0]), "the waits differ");
        }
    }
}

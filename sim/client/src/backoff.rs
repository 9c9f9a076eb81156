//! Waiting longer after each failure, with jitter from the seed.

use std::time::Duration;

use context::Rng;
use rand::RngExt as _;

/// Exponential backoff: `initial`, doubled after each failure up to `max`, each wait up to 20 % shorter or longer, as in
/// librdkafka (KIP-580).
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    initial: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(initial: Duration, max: Duration) -> Backoff {
        Backoff { initial, max, failures: 0 }
    }

    /// How long to wait after one more failure.
    pub(crate) fn next(&mut self, rng: &mut Rng) -> Duration {
        self.failures += 1;
        after_failures(self.initial, self.max, self.failures, rng)
    }

    /// It went well: start small again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// How long to wait after `failures` failures in a row.
pub(crate) fn after_failures(initial: Duration, max: Duration, failures: u32, rng: &mut Rng) -> Duration {
    let doubled = initial.saturating_mul(1 << failures.saturating_sub(1).min(20));
    jittered(doubled.min(max), 80..=120, rng)
}

/// `span` times a percentage drawn from `percent`, in whole milliseconds.
pub(crate) fn jittered(span: Duration, percent: std::ops::RangeInclusive<u32>, rng: &mut Rng) -> Duration {
    let scaled = span * rng.random_range(percent) / 100;
    Duration::from_millis(u64::try_from(scaled.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_maximum_within_their_jitter() {
        let mut rng = context::Seed(1).stream("backoff");
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(1_000));
        for expected in [100, 200, 400, 800, 1_000, 1_000] {
            let wait = backoff.next(&mut rng).as_millis();
            assert!((expected * 80 / 100..=expected * 120 / 100).contains(&wait), "{wait} for {expected}");
        }
        backoff.reset();
        assert!(backoff.next(&mut rng) <= Duration::from_millis(120));
    }
}

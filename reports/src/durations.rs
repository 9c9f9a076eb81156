//! Many measured spans and the figures drawn from them.

use std::time::Duration;

/// Measured spans of simulated time. All are kept, so that figures are exact and two sets merge without loss.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    spans: Vec<Duration>,
}

impl Durations {
    /// Adds one.
    pub fn record(&mut self, span: Duration) {
        let place = self.spans.partition_point(|other| *other <= span);
        self.spans.insert(place, span);
    }

    /// Adds all of another set.
    pub fn merge(&mut self, other: &Durations) {
        self.spans.extend_from_slice(&other.spans);
        self.spans.sort_unstable();
    }

    /// All of them, the shortest first.
    pub fn iter(&self) -> impl Iterator<Item = Duration> + '_ {
        self.spans.iter().copied()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The sum over the count, rounded down to whole nanoseconds; `None` if there is none.
    pub fn mean(&self) -> Option<Duration> {
        let count = u128::try_from(self.spans.len()).ok().filter(|count| *count > 0)?;
        let sum: u128 = self.spans.iter().map(Duration::as_nanos).sum();
        u64::try_from(sum / count).ok().map(Duration::from_nanos)
    }

    /// The shortest span that at least `percent` of 100 do not exceed (the nearest-rank percentile, no interpolation);
    /// `None` if there is none.
    ///
    /// # Panics
    /// If `percent` is not in 1 to 100.
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        assert!((1..=100).contains(&percent), "a percentile is one of 1 to 100, not {percent}");
        let rank = (self.spans.len() * percent).div_ceil(100);
        self.spans.get(rank.checked_sub(1)?).copied()
    }

    /// The shortest.
    pub fn shortest(&self) -> Option<Duration> {
        self.spans.first().copied()
    }

    /// The longest.
    pub fn longest(&self) -> Option<Duration> {
        self.spans.last().copied()
    }
}

impl FromIterator<Duration> for Durations {
    fn from_iter<I: IntoIterator<Item = Duration>>(spans: I) -> Durations {
        let mut spans: Vec<Duration> = spans.into_iter().collect();
        spans.sort_unstable();
        Durations { spans }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(spans: impl IntoIterator<Item = u64>) -> Durations {
        spans.into_iter().map(Duration::from_millis).collect()
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let durations = millis((1..=20).rev());
        assert_eq!(durations.percentile(50), Some(Duration::from_millis(10)));
        assert_eq!(durations.percentile(95), Some(Duration::from_millis(19)));
        assert_eq!(durations.percentile(99), Some(Duration::from_millis(20)));
        assert_eq!(millis([7]).percentile(1), Some(Duration::from_millis(7)));
    }

    #[test]
    fn nothing_measured_has_no_figures() {
        let none = Durations::default();
        assert_eq!((none.mean(), none.percentile(50), none.longest(), none.count()), (None, None, None, 0));
    }

    #[test]
    fn merging_and_recording_give_the_same_set() {
        let mut merged = millis([5, 1]);
        merged.merge(&millis([3, 9]));
        let mut recorded = Durations::default();
        [9, 1, 5, 3].into_iter().for_each(|span| recorded.record(Duration::from_millis(span)));
        assert_eq!(merged, recorded);
        assert_eq!(merged.mean(), Some(Duration::from_micros(4_500)));
        assert_eq!(
            (merged.shortest(), merged.longest()),
            (Some(Duration::from_millis(1)), Some(Duration::from_millis(9)))
        );
    }
}

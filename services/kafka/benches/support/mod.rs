//! What the benches on real sockets share: clusters, and time taken.

pub(crate) mod acknowledged;
pub(crate) mod clusters;

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

#[expect(clippy::disallowed_methods, reason = "whether real Kafka must be there is for the caller to say")]
pub(crate) fn real_kafka_is_required() -> bool {
    std::env::var("SHAKEDOWN_REQUIRE_KAFKA").is_ok_and(|value| value == "1")
}

/// Wall time of `work`.
#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let before = Instant::now();
    let result = work();
    (result, before.elapsed())
}

/// CPU time of this process, all threads.
fn cpu_time() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32)
}

/// What something took, summed over all of its iterations.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    units: u64,
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
}

impl Tally {
    /// Does `work`, which is so many units; gives its wall time.
    pub(crate) fn add(&mut self, units: u64, work: impl FnOnce()) -> Duration {
        let before = cpu_time();
        let ((), wall) = timed(work);
        self.units += units;
        self.wall += wall;
        self.cpu += cpu_time() - before;
        wall
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.units as f64 / self.wall.as_secs_f64()
    }

    pub(crate) fn micros_each(&self, of: Duration) -> f64 {
        of.as_secs_f64() * 1e6 / self.units as f64
    }
}

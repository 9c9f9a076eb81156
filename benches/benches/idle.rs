//! A minute of a cluster of three that nobody talks to. CPU time; the unit is an event.

use std::time::Duration;

use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
// The program's allocator.
use shakedown as _;
use shakedown_benches::facts::{Facts, note};
use shakedown_benches::idle::idle;

const SIMULATED: Duration = Duration::from_secs(60);

fn idle_cluster(criterion: &mut Criterion) {
    let (_, events) = idle(SIMULATED);
    let mut group = criterion.benchmark_group("idle");
    group.sampling_mode(SamplingMode::Flat).sample_size(10).measurement_time(Duration::from_secs(3));
    group.bench_function("3 brokers, 50 topics, RF 3", |bench| {
        bench.iter_custom(|iterations| (0..iterations).map(|_| idle(SIMULATED).0).sum());
    });
    group.finish();
    let facts = Facts { units: events as f64, simulated_seconds: SIMULATED.as_secs_f64() };
    note("idle/3 brokers, 50 topics, RF 3", facts).expect("the facts can be written");
}

criterion_group!(benches, idle_cluster);
criterion_main!(benches);

//! One produce request through client, wire, world and broker, beside the same frames on the bare world. CPU time.

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
// The program's allocator.
use shakedown as _;
use shakedown_benches::exchange::{produces, round_trips, sizes_of_produce};
use shakedown_benches::facts::{Facts, note};

/// So many in one world, so that its making does not show.
const IN_ONE_WORLD: u64 = 500;

fn in_worlds(run: impl Fn(u64) -> Duration) -> impl Fn(u64) -> Duration {
    move |iterations| {
        let (whole, rest) = (iterations / IN_ONE_WORLD, iterations % IN_ONE_WORLD);
        let counts = std::iter::repeat_n(IN_ONE_WORLD, whole as usize).chain((rest > 0).then_some(rest));
        counts.map(&run).sum()
    }
}

fn request(criterion: &mut Criterion) {
    let sizes = sizes_of_produce();
    let mut group = criterion.benchmark_group("request");
    group.sample_size(20);
    group.bench_function("bare world", |bench| {
        bench.iter_custom(in_worlds(|count| round_trips(sizes, count)))
    });
    group.bench_function("produce", |bench| bench.iter_custom(in_worlds(produces)));
    group.finish();
    for id in ["request/bare world", "request/produce"] {
        note(id, Facts { units: 1.0, simulated_seconds: 0.0 }).expect("the facts can be written");
    }
}

criterion_group!(benches, request);
criterion_main!(benches);

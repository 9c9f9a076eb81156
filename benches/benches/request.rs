//! One produce request through client, wire, world and broker, beside the same bytes on the bare world.

use criterion::{Criterion, criterion_group, criterion_main};
use shakedown_benches::facts::{Facts, note};
use shakedown_benches::{produces, round_trips};

/// So many in one world, so that its making does not show.
const IN_ONE_WORLD: u64 = 500;

fn request(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("request");
    let measure = |run: fn(u64) -> std::time::Duration| {
        move |iterations: u64| {
            let (whole, rest) = (iterations / IN_ONE_WORLD, iterations % IN_ONE_WORLD);
            let counts = std::iter::repeat_n(IN_ONE_WORLD, whole as usize).chain((rest > 0).then_some(rest));
            counts.map(run).sum()
        }
    };
    group.bench_function("bare world", |bench| bench.iter_custom(measure(round_trips)));
    group.bench_function("produce", |bench| bench.iter_custom(measure(produces)));
    group.finish();
    for id in ["request/bare world", "request/produce"] {
        note(id, Facts { units: 1.0, simulated_seconds: 0.0 }).expect("the facts can be written");
    }
}

criterion_group!(benches, request);
criterion_main!(benches);

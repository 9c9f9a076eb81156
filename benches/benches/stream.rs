//! Records of 64 bytes in batches of 100, produced and consumed in one world, on one replica and on three. CPU time.

use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
// The program's allocator.
use shakedown as _;
use shakedown_benches::facts::{Facts, note};
use shakedown_benches::stream::produce_and_consume;

const RECORDS: u64 = 200_000;

fn stream(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stream");
    group.sampling_mode(SamplingMode::Flat).sample_size(10).measurement_time(Duration::from_secs(8));
    group.throughput(Throughput::Elements(RECORDS));
    for replicas in [1, 3] {
        let name = format!("RF {replicas}");
        group.bench_function(&name, |bench| {
            bench.iter_custom(|iterations| {
                (0..iterations).map(|_| produce_and_consume(replicas, RECORDS)).sum()
            });
        });
        let facts = Facts { units: RECORDS as f64, simulated_seconds: 0.0 };
        note(&format!("stream/{name}"), facts).expect("the facts can be written");
    }
    group.finish();
}

criterion_group!(benches, stream);
criterion_main!(benches);

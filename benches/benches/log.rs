//! A partition's log: an append as a leader makes it (checks, producer window, stamp), and a fetch of a full megabyte.

use std::collections::BTreeMap;
use std::hint::black_box;

use bytes::Bytes;
use context::Timestamp;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kafka::log::{Log, record};
use kafka::metadata::PartitionImage;
use kafka::partition::{AppendRules, Partition};
use kafka::{Settings, TopicSettings};
// The program's allocator.
use shakedown as _;
use shakedown_benches::facts::{Facts, note};

const RECORDS: usize = 100;
const NOW: Timestamp = Timestamp::from_millis(5_000);
const FETCH_BYTES: usize = 1024 * 1024;

fn batch() -> Bytes {
    let record = (Some(Bytes::from_static(b"key")), Some(Bytes::from_static(&[b'x'; 64])));
    record::write_batch(5_000, &vec![record; RECORDS])
}

/// A new partition and its log, led here.
fn leader() -> (Log, Partition) {
    let mut log = Log::default();
    let mut partition = Partition::load(NOW, &mut log, i32::MAX);
    partition.lead(NOW, 1, &mut log, &PartitionImage::new(vec![1], vec![1]));
    (log, partition)
}

fn rules() -> AppendRules {
    let topic = TopicSettings::parse(&BTreeMap::new()).expect("no settings are sound settings");
    AppendRules::new(&Settings::default(), &topic)
}

fn log(criterion: &mut Criterion) {
    let (batch, rules) = (batch(), rules());
    let mut group = criterion.benchmark_group("log");
    group.throughput(Throughput::Elements(RECORDS as u64));
    group.bench_function("append 100 x 64 B", |bench| {
        bench.iter_batched_ref(
            leader,
            |(log, partition)| partition.append(NOW, log, &rules, &batch, None).expect("a sound batch"),
            BatchSize::SmallInput,
        );
    });
    let (mut filled, mut partition) = leader();
    while filled.bytes_between(0, filled.end_offset(), 2 * FETCH_BYTES) < 2 * FETCH_BYTES {
        partition.append(NOW, &mut filled, &rules, &batch, None).expect("a sound batch");
    }
    group.throughput(Throughput::Bytes(FETCH_BYTES as u64));
    group.bench_function("fetch 1 MiB", |bench| {
        bench.iter(|| black_box(filled.read(0, filled.end_offset(), FETCH_BYTES, true)));
    });
    group.finish();
    let of = |units| Facts { units, simulated_seconds: 0.0 };
    note("log/append 100 x 64 B", of(RECORDS as f64)).expect("the facts can be written");
    note("log/fetch 1 MiB", of(1.0)).expect("the facts can be written");
}

criterion_group!(benches, log);
criterion_main!(benches);

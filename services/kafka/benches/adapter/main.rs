//! What the Broker adapter costs beside plain rdkafka: the same records to the same cluster, in turns, in one run.
//!
//! Three patterns: a stream of sends with many in flight (`acks=all`, idempotent, linger 5 ms, keys of 8 bytes, values of 64), the same
//! records read, and one send after the other. Plain is librdkafka at its fastest from Rust: deliveries counted in the callback,
//! records borrowed from its queue. The adapter gives each send a future with its offset, and each reader records of its own.
//!
//! Clients and cluster share the machine, so the throughput of both is also the cluster's. The table has the client's own CPU time too,
//! where the cluster is processes of its own: that ratio is the adapter's alone.
//!
//! Without Java and Maven real Kafka is skipped, and says so; with `SHAKEDOWN_REQUIRE_KAFKA=1` that is a failure.

mod adapter;
mod plain;
#[path = "../support/mod.rs"]
mod support;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput};

use adapter::Adapter;
use plain::Plain;
use support::clusters::{Cluster, Kind};
use support::real_kafka_is_required;
use table::{Pair, Row, Table};

/// As in the programs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Records in one iteration of a stream.
const RECORDS: u64 = 100_000;
/// Sends whose fate is not known, at most.
const IN_FLIGHT: u64 = 50_000;
const KEY_BYTES: usize = 8;
const VALUE: [u8; 64] = [b'x'; 64];
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let mut criterion = Criterion::default().configure_from_args();
    let mut table = Table::default();
    let mut missing = None;
    for (kind, brokers) in [(Kind::Served, 1), (Kind::Served, 3), (Kind::Real, 1), (Kind::Real, 3)] {
        match Cluster::start(kind, brokers) {
            Ok(cluster) => {
                println!("{} x {brokers}: ready after {:?}", kind.name(), cluster.ready_after);
                table.rows.push(measure(&mut criterion, &cluster));
            }
            Err(reason) => {
                println!("skipped: {} with {brokers} brokers ({reason})", kind.name());
                missing = Some(kind.name());
            }
        }
    }
    criterion.final_summary();
    println!("\n{table}");
    match missing {
        Some(kind) if real_kafka_is_required() => {
            eprintln!("error: {kind} was not measured, and SHAKEDOWN_REQUIRE_KAFKA asks for it");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Criterion's times are the adapter's; plain rdkafka has its turn before each.
fn measure(criterion: &mut Criterion, cluster: &Cluster) -> Row {
    let mut row = Row::new(cluster.kind.name(), cluster.brokers);
    let plain = Plain::new(&cluster.bootstrap);
    let mut adapter = Adapter::new(&cluster.bootstrap);
    // Connections, leaders, and a just-in-time compiler that must see its code first.
    plain.produce(RECORDS);
    adapter.produce(RECORDS);
    plain.consume(2 * RECORDS);
    adapter.consume(2 * RECORDS);
    let mut unread = 0;
    let mut group =
        criterion.benchmark_group(format!("adapter on {} x {}", cluster.kind.name(), cluster.brokers));
    group.sampling_mode(SamplingMode::Flat).sample_size(10).measurement_time(Duration::from_secs(5));
    group.warm_up_time(Duration::from_millis(500)).throughput(Throughput::Elements(RECORDS));
    group.bench_function("produce", |bench| {
        bench.iter_custom(|iterations| {
            (0..iterations)
                .map(|_| {
                    unread += 2 * RECORDS;
                    let Pair { plain: beside, adapter: own } = &mut row.produce;
                    beside.add(RECORDS, || plain.produce(RECORDS));
                    own.add(RECORDS, || adapter.produce(RECORDS))
                })
                .sum()
        });
    });
    plain.consume(unread);
    adapter.consume(unread);
    group.bench_function("consume", |bench| {
        bench.iter_custom(|iterations| {
            (0..iterations)
                .map(|_| {
                    plain.produce(RECORDS);
                    let Pair { plain: beside, adapter: own } = &mut row.consume;
                    beside.add(RECORDS, || plain.consume(RECORDS));
                    own.add(RECORDS, || adapter.consume(RECORDS))
                })
                .sum()
        });
    });
    group.throughput(Throughput::Elements(1)).measurement_time(Duration::from_secs(2));
    group.bench_function("one by one", |bench| {
        bench.iter_custom(|iterations| {
            let Pair { plain: beside, adapter: own } = &mut row.one_by_one;
            beside.add(iterations, || plain.one_by_one(iterations));
            own.add(iterations, || adapter.one_by_one(iterations))
        });
    });
    group.finish();
    row
}

/// As many keys as records, so that every partition gets its share.
fn key(number: u64) -> [u8; KEY_BYTES] {
    number.to_be_bytes()
}

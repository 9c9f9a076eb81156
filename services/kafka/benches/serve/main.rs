//! librdkafka as the client of three kinds of Kafka in one run: the simulated one on loopback TCP, as `shakedown serve` has
//! it; the mock cluster that librdkafka brings along; and Kafka 4.1. One broker and three.
//!
//! Two things are measured: a stream of 64-byte records in batches of 100, produced and consumed, and one produce request
//! after the other. The client is the same each time, and takes its share of the same cores; so read the ratios, which the
//! table at the end shows, and not the numbers. The mock cluster does not replicate, and keeps no more than the newest
//! records.
//!
//! Without Java and Maven the third kind is skipped, and says so; with `SHAKEDOWN_REQUIRE_KAFKA=1` that is a failure.

mod client;
#[path = "../support/mod.rs"]
mod support;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput};

use client::Client;
use rdkafka::mocking::MockCluster;
use support::clusters::{Cluster, Kind, PARTITIONS, Started, TOPIC};
use support::real_kafka_is_required;
use table::{Row, Table};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Records in one iteration of the stream.
const RECORDS: u64 = 100_000;

/// librdkafka's mock cluster.
const MOCK: Kind = Kind::Other("librdkafka's mock", mock);

fn mock(brokers: u32) -> Started {
    let mock = MockCluster::new(brokers as i32).map_err(|error| error.to_string())?;
    mock.create_topic(TOPIC, PARTITIONS, brokers as i32).map_err(|error| error.to_string())?;
    Ok((mock.bootstrap_servers(), Box::new(mock)))
}

fn main() -> ExitCode {
    let mut criterion = Criterion::default().configure_from_args();
    let mut table = Table::default();
    let mut missing = None;
    for brokers in [1, 3] {
        for kind in [Kind::Served, MOCK, Kind::Real] {
            match Cluster::start(kind, brokers) {
                Ok(cluster) => table.rows.push(measure(&mut criterion, &cluster)),
                Err(reason) => {
                    println!("skipped: {} with {brokers} brokers ({reason})", kind.name());
                    missing = Some(kind.name());
                }
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

fn measure(criterion: &mut Criterion, cluster: &Cluster) -> Row {
    let mut row = Row::new(cluster.kind.name(), cluster.brokers, cluster.ready_after);
    let mut client = Client::new(&cluster.bootstrap);
    // Connections, leaders, and a just-in-time compiler that must see its code first.
    client.stream(RECORDS);
    let mut group = criterion.benchmark_group(format!("{} x {}", cluster.kind.name(), cluster.brokers));
    group.sampling_mode(SamplingMode::Flat).sample_size(10).measurement_time(Duration::from_secs(5));
    group.warm_up_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(RECORDS));
    group.bench_function("stream", |bench| {
        bench.iter_custom(|iterations| {
            (0..iterations).map(|_| row.stream.add(RECORDS, || client.stream(RECORDS))).sum()
        });
    });
    group.throughput(Throughput::Elements(1)).measurement_time(Duration::from_secs(2));
    group.bench_function("one request", |bench| {
        bench.iter_custom(|iterations| row.request.add(iterations, || client.one_by_one(iterations)));
    });
    group.finish();
    row
}

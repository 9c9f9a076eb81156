//! Full order flows: the six services and the outside systems as their programs run (`services run all`, `services run outside`,
//! stores in files), with customers who place as many orders as Kafka takes.
//!
//! One iteration is [`ORDERS`] orders, from the first that is placed until nothing is left to do for any of them: sagas ended,
//! outboxes empty, every message of every group handled. At the end the shop is closed and `services audit` must find that ledgers,
//! stock, notices and read models agree to the unit: what was measured was done.
//!
//! On the simulated Kafka on loopback (the cores and the shell of `shakedown serve`, in this process) and on Kafka 4.1 as local
//! processes. Without Java and Maven the latter is skipped, and says so; with `SHAKEDOWN_REQUIRE_KAFKA=1` that is a failure. All
//! share this machine's processors: the table at the end says who spent how much of them on a flow.

#![expect(clippy::disallowed_methods, reason = "real processes, files, ports and time")]

mod cluster;
mod shop;
mod spent;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput};

use cluster::{Cluster, Kind};
use shop::Shop;
use table::{Row, Table};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Orders of an iteration.
const ORDERS: u64 = 2_000;

/// Kafka, its brokers, and what a commit survives (`commits_survive`).
const CASES: [(Kind, u32, &str); 5] = [
    (Kind::Served, 1, "process_crash"),
    (Kind::Served, 1, "power_loss"),
    (Kind::Served, 3, "power_loss"),
    (Kind::Real, 1, "power_loss"),
    (Kind::Real, 3, "power_loss"),
];

fn main() -> ExitCode {
    let mut criterion = Criterion::default().configure_from_args();
    let mut table = Table::default();
    let mut missing = false;
    for (first_port, (kind, brokers, survives)) in (31_000..).step_by(100).zip(CASES) {
        match Cluster::start(kind, brokers, first_port) {
            Ok(cluster) => measure(&mut criterion, &mut table, &cluster, survives, first_port + 50),
            Err(reason) => {
                println!("skipped: {} with {brokers} brokers ({reason})", kind.name());
                missing = true;
            }
        }
    }
    criterion.final_summary();
    println!("\n{table}");
    if missing && std::env::var("SHAKEDOWN_REQUIRE_KAFKA").is_ok_and(|value| value == "1") {
        eprintln!("error: not all was measured, and SHAKEDOWN_REQUIRE_KAFKA asks for it");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn measure(
    criterion: &mut Criterion,
    table: &mut Table,
    cluster: &Cluster,
    survives: &'static str,
    first_port: u16,
) {
    let name = format!("{} x {}, {survives}", cluster.kind.name(), cluster.brokers);
    let mut shop = None;
    let mut row = Row::new(cluster, survives);
    let mut group = criterion.benchmark_group("flows");
    group.sampling_mode(SamplingMode::Flat).sample_size(10).measurement_time(Duration::from_secs(10));
    group.warm_up_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(ORDERS));
    group.bench_function(name, |bench| {
        // Only if the filter of the command line wants it.
        let shop = shop.get_or_insert_with(|| Shop::open(cluster, survives, first_port));
        bench.iter_custom(|iterations| (0..iterations).map(|_| row.add(shop.flows(ORDERS))).sum());
    });
    group.finish();
    if let Some(shop) = shop {
        shop.close();
        table.rows.push(row);
    }
}

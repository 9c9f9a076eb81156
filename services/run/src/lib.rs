//! The six services and the outside systems as programs of the real world, against any Kafka.
//!
//! One binary, `services`. `services run order` is the order service alone, `services run all` are the six in one process, and
//! `services run outside` are gateway, carrier and mail provider. `services place` plays the customers, `services settle` waits
//! until the shop is at rest, and `services audit` compares what every store and ledger says, to the unit.
//!
//! What is made here is what a simulated world makes otherwise: hosts on tokio's clock and network ([`context::real`]), a
//! Broker on librdkafka, stores in files. The services are the same, and know of none of it.
//!
//! Start reading at [`config`], which is what there is to choose, then [`running`], the life of a program. [`monitor`] answers
//! for its health, [`audit`] judges the books.
//!
//! Absent on purpose: several processes of one service that keeps a store (a file belongs to one process), TLS between the
//! services and the outside systems, and anything that decides what a service does.

#![expect(clippy::disallowed_methods, reason = "these are programs of the real world")]

pub mod args;
pub mod audit;
mod clients;
pub mod config;
pub mod exit;
pub mod log;
pub mod monitor;
pub mod part;
pub mod place;
pub mod running;
pub mod settle;
mod signals;
pub mod topics;

use std::sync::Arc;

use broker::Properties;
use context::real::RealHost;
use context::{Context, Seed};
use rdkafka_broker::RdKafkaBroker;

pub use args::{Args, Command};
pub use config::{Config, ConfigError};
pub use part::Part;

/// Threads for each part. A commit blocks its thread until the disk has it, and those that wait at the same time wait for the
/// disk together; so there are more than processors.
const THREADS_EACH: usize = 8;

/// Does what the command line says; gives the exit code.
pub fn main(args: Args) -> u8 {
    let config = match Config::read(args.config.as_deref()) {
        Ok(config) => config,
        Err(error) => return exit::complain(&error, exit::CONFIG),
    };
    log::start(config.log);
    let parts = match &args.command {
        Command::Run { parts, .. } => Part::resolve(parts),
        _ => Vec::new(),
    };
    let threads = THREADS_EACH * parts.len().max(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return exit::complain(&format!("no threads to run on: {error}"), exit::UNAVAILABLE),
    };
    let code = runtime.block_on(async {
        match args.command {
            Command::Run { leashed, .. } => {
                if leashed {
                    signals::end_with_standard_input();
                }
                running::run(&config, &parts).await
            }
            Command::Topics => topics::command(&config).await,
            Command::Place(orders) => place::command(&config, &orders).await,
            Command::Settle(patience) => settle::command(&config, &patience).await,
            Command::Audit { orders } => audit::command(&config, orders),
        }
    });
    // librdkafka's last threads may take a while; nothing that they do matters any more.
    runtime.shutdown_background();
    code
}

/// A seed of this process alone: ids and jitter derive from it.
fn seed() -> Result<Seed, String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| format!("the operating system gives no randomness: {error}"))?;
    Ok(Seed(u64::from_le_bytes(bytes)))
}

/// A context for a command that is no host to anybody.
fn errand(name: &str) -> Result<Context, String> {
    Ok(RealHost::new(name, seed()?).with_recorder(Arc::new(log::Recorder)).into_context())
}

/// The Kafka of the configuration, for a host.
fn broker(config: &Config, context: &Context) -> RdKafkaBroker {
    let named = Properties::new().set("client.id", context.name());
    let properties = named.set("statistics.interval.ms", clients::EVERY.as_millis()).with(&config.kafka);
    RdKafkaBroker::new(context.clone(), properties)
}

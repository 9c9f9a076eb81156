//! The simulated Kafka on loopback: `cargo run -p shakedown-kafka --example serve -- [BROKERS] [FIRST_PORT]`.
//!
//! Brokers listen on FIRST_PORT and the ports after it, the controller 1,000 further up. For trying real clients by
//! hand; it runs until it is stopped.

use std::sync::Arc;

use context::real::RealHost;
use context::{Event, EventKind, Recorder, Seed};
use shakedown_kafka::{Cluster, ClusterConfig};

struct Print;

impl Recorder for Print {
    fn record(&self, event: Event<'_>) {
        if event.kind == EventKind::Note {
            println!("{}: {}", event.host, event.text);
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let brokers: u16 = arguments.next().unwrap_or_else(|| "3".into()).parse()?;
    let port: u16 = arguments.next().unwrap_or_else(|| "19092".into()).parse()?;
    let ports: Vec<u16> = (port..port + brokers).collect();
    let cluster = Cluster::new(ClusterConfig::loopback(&ports, port + 1_000))?;
    for (name, program) in cluster.hosts() {
        let context = RealHost::new(name, Seed(1)).with_recorder(Arc::new(Print)).into_context();
        let running = context.clone();
        context.spawn("node", async move { program(running).await });
    }
    println!("bootstrap.servers={}", cluster.bootstrap_servers());
    std::future::pending().await
}

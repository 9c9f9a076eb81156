//! Runs the conformance suite and the claims about transactions with this client on a Kafka cluster that is there:
//! `cargo run -p shakedown-client --example conformance -- 127.0.0.1:9092 [part of a name]`.
//!
//! For a look at real Kafka by hand. What kills brokers is left out: the cluster belongs to someone else.

#![expect(clippy::disallowed_methods, reason = "a program with a command line; its names outlive it")]

#[path = "../tests/claims/mod.rs"]
mod claims;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use broker::Properties;
use broker::conformance::{Bed, Features, NotOurs, Outcome, cases};
use context::Seed;
use context::real::RealHost;
use shakedown_client::WireBroker;

fn run_id() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(bootstrap) = arguments.next() else {
        eprintln!("give the bootstrap servers, as 127.0.0.1:9092");
        return ExitCode::from(2);
    };
    let only = arguments.next().unwrap_or_default();
    let run = run_id();
    let context = RealHost::new("tester", Seed(run)).into_context();
    let properties = Properties::new().set("bootstrap.servers", bootstrap);
    let broker = Arc::new(WireBroker::new(context.clone(), properties));
    let bed = Arc::new(Bed {
        context: context.clone(),
        broker: broker.clone(),
        features: Features::of_a_given_cluster(),
        nodes: Arc::new(NotOurs),
        run_id: run.to_string(),
    });
    let mut failed = 0;
    for case in cases().into_iter().filter(|case| case.name.contains(&only)) {
        match case.run(bed.clone()).await {
            Outcome::Passed => println!("passed: {}", case.name),
            Outcome::Skipped(reason) => println!("skipped: {} ({reason})", case.name),
            Outcome::Failed(failure) => {
                failed += 1;
                println!("FAILED: {}: {}", case.name, failure.0);
            }
        }
    }
    for habits in ["librdkafka", "java"] {
        let all = claims::CLAIMS.iter().chain(claims::ADMIN_CLAIMS);
        for (name, claim) in all.filter(|(name, _)| name.contains(&only)) {
            let run = run.to_string();
            let desk = claims::Desk { context: context.clone(), broker: broker.clone(), habits, run };
            match context.spawn("claim", claim(desk)).await {
                Some(()) => println!("passed: {habits}: {name}"),
                None => {
                    failed += 1;
                    println!("FAILED: {habits}: {name}");
                }
            }
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

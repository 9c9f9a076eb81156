//! Runs the conformance suite and the claims about transactions with this client on a Kafka cluster that is there:
//! `cargo run -p shakedown-client --example conformance -- 127.0.0.1:9092 [part of a name]`.
//!
//! For a look at real Kafka by hand. What kills brokers is left out: the cluster belongs to someone else.

#[path = "../tests/claims/mod.rs"]
mod claims;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use broker::conformance::{Feature, Features, Outcome, Subject, cases};
use broker::{Broker, Error, ErrorClass, ErrorCode, Properties};
use context::real::RealHost;
use context::{Context, Seed};
use shakedown_client::WireBroker;

struct Bed {
    context: Context,
    bootstrap: String,
    run: String,
}

impl Bed {
    fn broker(&self) -> Arc<WireBroker> {
        let properties = Properties::new().set("bootstrap.servers", &self.bootstrap);
        Arc::new(WireBroker::new(self.context.clone(), properties))
    }
}

#[async_trait]
impl Subject for Bed {
    fn context(&self) -> Context {
        self.context.clone()
    }

    fn broker(&self) -> Arc<dyn Broker> {
        Bed::broker(self)
    }

    fn features(&self) -> Features {
        let elsewhere = || Feature::Off("the cluster is someone else's".into());
        Features { restart_broker: elsewhere(), frequent_cleanup: elsewhere(), ..Features::all() }
    }

    async fn kill_broker(&self, _: i32) -> Result<(), Error> {
        Err(not_ours())
    }

    async fn start_broker(&self, _: i32) -> Result<(), Error> {
        Err(not_ours())
    }

    fn run_id(&self) -> String {
        self.run.clone()
    }
}

fn not_ours() -> Error {
    Error::new(ErrorCode::Unsupported, ErrorClass::Failed, "the cluster is someone else's")
}

#[expect(clippy::disallowed_methods, reason = "names on a cluster that outlives this run")]
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
    let bed = Arc::new(Bed { context: context.clone(), bootstrap, run: run.to_string() });
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
            let desk =
                claims::Desk { context: context.clone(), broker: bed.broker(), habits, run: bed.run.clone() };
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

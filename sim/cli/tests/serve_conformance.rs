//! The conformance suite of `services/broker` on the program `shakedown serve`: its threads, its sockets, our own client.
//!
//! `sim/client` and `services/kafka` run all of it on brokers in the test's own process. What kills brokers is left to them: these
//! are one process. Apart from `serve.rs`, which looks at the clock.

#![allow(clippy::disallowed_methods, reason = "a real process on real sockets, in real time")]

#[path = "common/serving.rs"]
mod serving;

use std::sync::Arc;

use broker::conformance::{Bed, FREQUENT_CLEANUP, Feature, Features, NotOurs, cases};
use context::Seed;
use context::real::RealHost;
use serving::Serving;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// So many cases run side by side: they wait for sessions and cleanings, not for the processor.
const AT_ONCE: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn every_case_that_kills_no_broker_holds() {
    let cleanup = FREQUENT_CLEANUP.iter().map(|(name, value)| format!("{name}={value}"));
    let cleanup: Vec<_> = cleanup.flat_map(|setting| ["--config".to_owned(), setting]).collect();
    let serving = Serving::start(3, &cleanup.iter().map(String::as_str).collect::<Vec<_>>());
    let off = Feature::Off("the brokers are one process".into());
    let bed = Arc::new(Bed {
        context: RealHost::new("cases", Seed(8)).into_context(),
        broker: Arc::new(serving.broker()),
        features: Features { restart_broker: off, ..Features::all() },
        nodes: Arc::new(NotOurs),
        run_id: "program".into(),
    });
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    for case in cases().into_iter().filter(|case| bed.features.lacking(case).is_none()) {
        let (bed, turns) = (bed.clone(), turns.clone());
        running.spawn(async move {
            let _turn = turns.acquire().await.expect("nobody closes it");
            (case.name, case.run(bed).await.must_pass())
        });
    }
    assert!(running.len() > 50, "only {} cases run", running.len());
    let ended = running.join_all().await.into_iter();
    let broken: Vec<_> =
        ended.filter_map(|(name, outcome)| Some(format!("{name}: {}", outcome.err()?))).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    serving.signal("TERM");
    assert_eq!(serving.ended(), (Some(0), String::new()));
}

//! What is claimed of real clusters, tried on them: what can be done to nodes, and that nothing is left of a run that is killed.
//!
//! Tests are listed as ignored, with the reason, where there is no real Kafka.

#![expect(clippy::disallowed_methods, reason = "real processes, files and time")]

mod ends;
mod engines;
mod nodes;
mod traces;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Completion, Trial};
use shakedown_cluster::{Listener, Shared, Spec, trials};

fn main() -> ExitCode {
    if let Some(folder) = ends::told_to_be_killed() {
        return ends::wait_for_the_end(&folder);
    }
    let mut arguments = Arguments::from_args();
    // They break one cluster, and count the processes of another.
    arguments.test_threads = Some(1);
    let shared = Arc::new(Shared::new(spec()));
    let mut tests: Vec<Trial> = Vec::new();
    for (name, claim) in nodes::CLAIMS {
        tests.push(trials::trial(*name, &shared, move |kafka| {
            if !kafka.is_ours() {
                return Ok(Completion::ignored_with("its nodes are not ours"));
            }
            claim(kafka)?;
            Ok(Completion::Completed)
        }));
    }
    for (name, claim) in nodes::CLAIMS_OF_PROCESSES {
        tests.push(trials::trial(*name, &shared, move |kafka| {
            if !kafka.to_string().contains("local processes") {
                return Ok(Completion::ignored_with("its nodes are no processes of this machine"));
            }
            claim(kafka)?;
            Ok(Completion::Completed)
        }));
    }
    for (name, claim) in ends::CLAIMS {
        tests.push(trials::trial(*name, &shared, move |kafka| {
            if !kafka.is_ours() {
                return Ok(Completion::ignored_with("nothing is started"));
            }
            claim()?;
            Ok(Completion::Completed)
        }));
    }
    for (name, claim) in engines::CLAIMS {
        tests.push(Trial::ignorable_test(*name, move || {
            Ok(claim()?.map_or(Completion::Completed, Completion::ignored_with))
        }));
    }
    trials::run(&arguments, tests, shared)
}

/// Three brokers, each with a listener that a proxy might stand before.
fn spec() -> Spec {
    let listener = |broker: u32| Listener {
        broker,
        name: "PROXIED".into(),
        port: 0,
        advertised_host: format!("proxy-{broker}.example"),
        advertised_port: 9_000 + broker as u16,
    };
    Spec { listeners: (1..=3).map(listener).collect(), ..Spec::for_tests(3) }
}

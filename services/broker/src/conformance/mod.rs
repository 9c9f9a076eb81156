//! The conformance suite: one function a case, over any Broker.
//!
//! A case states something that Kafka's users rely on. It runs in simulated time, where waiting costs nothing, and in
//! real time against real Kafka; so it waits for facts with [`Bench::eventually`], never for a fixed span.
//!
//! Start reading at [`Subject`], which is what an implementation gives to be tested, and [`cases`], which is the list. A
//! [`Bed`] is a subject put together from a Broker and whoever runs the cluster.
//! What a subject cannot do it says in [`Features`], with the reason, and the cases that need it are listed as skipped.
//! In the spirit of Watermill's universal Pub/Sub suite; the cases are Kafka's.

mod admin;
mod bed;
mod bench;
mod cleanup;
mod consume;
mod groups;
mod looking_after;
pub mod operations;
mod produce;
mod replication;
mod restart;
mod transactions;

pub use bed::{Bed, Nodes, NotOurs};
pub use bench::{Bench, Failure};

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use context::{BoxFuture, Context};

use crate::{Broker, Error};

/// An implementation under test, with the cluster behind it.
#[async_trait]
pub trait Subject: Send + Sync + 'static {
    /// Clock and tasks for the cases themselves.
    fn context(&self) -> Context;

    /// The Broker under test.
    fn broker(&self) -> Arc<dyn Broker>;

    /// What it can do.
    fn features(&self) -> Features;

    /// Kills the process of the broker with this node id. Its disk stays. Called only if [`Features::restart_broker`] is
    /// on.
    ///
    /// # Errors
    /// If the cluster cannot be reached for it.
    async fn kill_broker(&self, node_id: i32) -> Result<(), Error>;

    /// Starts a broker that was killed; returns when the process has been started, not when it serves again. Called only
    /// if [`Features::restart_broker`] is on.
    ///
    /// # Errors
    /// As [`Subject::kill_broker`].
    async fn start_broker(&self, node_id: i32) -> Result<(), Error>;

    /// Kills a broker and starts it again at once.
    ///
    /// # Errors
    /// As [`Subject::kill_broker`].
    async fn restart_broker(&self, node_id: i32) -> Result<(), Error> {
        self.kill_broker(node_id).await?;
        self.start_broker(node_id).await
    }

    /// Put into the names of topics and groups, so that runs on one cluster do not meet.
    fn run_id(&self) -> String;
}

/// Whether a subject has something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Feature {
    /// It has.
    On,
    /// It has not, for this reason.
    Off(String),
}

/// What a subject can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// The cluster has at least three brokers, and each can be killed and started again.
    pub restart_broker: Feature,
    /// Transactions and `read_committed`.
    pub transactions: Feature,
    /// A consumer that is dropped without a close leaves its group to notice by `session.timeout.ms`.
    pub die_without_leaving: Feature,
    /// The cluster looks for old segments and for what can be compacted every few seconds, and writes down as often where
    /// its logs begin (see [`FREQUENT_CLEANUP`]), so that a case need not wait for Kafka's five minutes.
    pub frequent_cleanup: Feature,
}

/// Broker settings by Kafka's names with which [`Features::frequent_cleanup`] is on.
pub const FREQUENT_CLEANUP: &[(&str, &str)] = &[
    ("log.initial.task.delay.ms", "1000"),
    ("log.retention.check.interval.ms", "1000"),
    ("log.cleaner.backoff.ms", "1000"),
    ("log.flush.start.offset.checkpoint.interval.ms", "1000"),
];

impl Features {
    /// Everything.
    pub fn all() -> Features {
        Features {
            restart_broker: Feature::On,
            transactions: Feature::On,
            die_without_leaving: Feature::On,
            frequent_cleanup: Feature::On,
        }
    }

    /// What is off and the case needs; `None` if it can run.
    pub fn lacking(&self, case: &Case) -> Option<&Feature> {
        case.needs.iter().map(|need| self.of(*need)).find(|feature| **feature != Feature::On)
    }

    fn of(&self, need: Need) -> &Feature {
        match need {
            Need::RestartBroker => &self.restart_broker,
            Need::Transactions => &self.transactions,
            Need::DieWithoutLeaving => &self.die_without_leaving,
            Need::FrequentCleanup => &self.frequent_cleanup,
        }
    }
}

/// What a case needs beyond the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// [`Features::restart_broker`].
    RestartBroker,
    /// [`Features::transactions`].
    Transactions,
    /// [`Features::die_without_leaving`].
    DieWithoutLeaving,
    /// [`Features::frequent_cleanup`].
    FrequentCleanup,
}

/// One case.
#[derive(Clone, Copy)]
pub struct Case {
    /// The claim, in snake case.
    pub name: &'static str,
    /// What it needs.
    pub needs: &'static [Need],
    run: fn(Bench) -> BoxFuture<'static, Result<(), Failure>>,
}

impl Case {
    /// Runs the case on a subject.
    pub async fn run(&self, subject: Arc<dyn Subject>) -> Outcome {
        if let Some(Feature::Off(reason)) = subject.features().lacking(self) {
            return Outcome::Skipped(reason.clone());
        }
        match (self.run)(Bench::new(subject, self.name)).await {
            Ok(()) => Outcome::Passed,
            Err(failure) => Outcome::Failed(failure),
        }
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The claim held.
    Passed,
    /// The claim broke, with the evidence.
    Failed(Failure),
    /// The subject lacks what the case needs, for this reason.
    Skipped(String),
}

impl Outcome {
    /// The verdict on a subject that was to pass: one that lacks what the case needs has not.
    ///
    /// # Errors
    /// What broke, or what is lacking.
    pub fn must_pass(self) -> Result<(), String> {
        match self {
            Outcome::Passed => Ok(()),
            Outcome::Failed(failure) => Err(failure.0),
            Outcome::Skipped(reason) => Err(format!("skipped, though its features are on: {reason}")),
        }
    }
}

/// Every case, in the order in which they are best read.
pub fn cases() -> Vec<Case> {
    [
        produce::CASES,
        consume::CASES,
        groups::CASES,
        admin::CASES,
        looking_after::CASES,
        restart::CASES,
        replication::CASES,
        transactions::CASES,
        cleanup::CASES,
    ]
    .concat()
}

/// Runs every case, one after the other, and gives each one's outcome.
pub async fn run_all(subject: Arc<dyn Subject>) -> Vec<(Case, Outcome)> {
    let mut outcomes = Vec::new();
    for case in cases() {
        let outcome = case.run(subject.clone()).await;
        outcomes.push((case, outcome));
    }
    outcomes
}

/// Lists the cases of a file: each name is the function's.
macro_rules! case_list {
    ($($name:ident $([$($need:ident),+])?),+ $(,)?) => {
        pub(super) const CASES: &[super::Case] = &[$(super::Case {
            name: stringify!($name),
            needs: &[$($(super::Need::$need),+)?],
            run: |bench| Box::pin($name(bench)),
        }),+];
    };
}
use case_list;

/// Fails the case with a sentence unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($sentence:tt)+) => {
        if !$condition {
            return Err(super::Failure(format!($($sentence)+)));
        }
    };
}
use ensure;

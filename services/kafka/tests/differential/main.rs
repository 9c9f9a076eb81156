//! The same random operations on the simulated Kafka and on the real one, answer by answer.
//!
//! A list of operations on one partition (`broker::conformance::operations`) is drawn from a seed and performed three times, each
//! time one operation after the other: in the simulated world through our own client, on the real Kafka that is at hand over
//! librdkafka, and there through our own client over TCP. Every answer must be the same. Lists that kill brokers on the way have
//! the real cluster for themselves and go over one of the two clients, in turn: a killed broker costs about ten seconds. Where
//! there is no real Kafka, each list shows as ignored, with the reason.
//!
//! Of a list that differs the shortest is reported that still does, as far as a minute or two of real Kafka allow.
//! `SHAKEDOWN_LISTS=100..200` draws the lists of other seeds than the first few, and more of them; of each four one kills
//! brokers.
//!
//! No answer is left out but what is a matter of time, ids (which the operations say by what they are of), and what librdkafka
//! has no call for (who wrote to a partition, how a transactional id stands): the other client asks for that on both sides.
//!
//! Start reading at `hold`. `liar` is a simulated Kafka that differs on purpose.

mod liar;

use std::ops::Range;
use std::process::ExitCode;
use std::sync::Arc;

use broker::conformance::operations::{Answer, Operation, expected, first_difference, lists, perform};
use broker::conformance::{Failure, Subject};
use broker::{Broker, Properties};
use client::WireBroker;
use client::conformance::in_the_world;
use cluster::conformance::{self, Client, Stand, Turn};
use cluster::{Shared, trials};
use context::Context;
use libtest_mimic::{Arguments, Failed};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestError, TestRunner};
use shakedown_rdkafka::RdKafkaBroker;

/// The lists of these seeds, unless others are asked for: about two minutes.
const LISTS: Range<u64> = 0..16;
/// So many lists go for one that kills brokers.
const CALM_FOR_ONE: u64 = 4;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The lists wait for real brokers and for silence, not for the processor.
    arguments.test_threads.get_or_insert(8);
    let (spec, seeds) =
        match conformance::spec().map_err(|none| none.to_string()).and_then(|spec| Ok((spec, seeds()?))) {
            Ok(wanted) => wanted,
            Err(why) => {
                eprintln!("{why}");
                return ExitCode::FAILURE;
            }
        };
    let shared = Arc::new(Shared::new(spec));
    let stand = Stand::new(shared.clone(), librdkafka);
    let mut trials = Vec::new();
    for seed in seeds {
        trials.push(stand.turn(
            format!("simulated_and_real_kafka_answer_alike::{seed}"),
            false,
            move |turn| hold(turn, seed, lists::calm(), &[LIBRDKAFKA, WIRE], honest),
        ));
        if seed.is_multiple_of(CALM_FOR_ONE) {
            let client = if (seed / CALM_FOR_ONE).is_multiple_of(2) { LIBRDKAFKA } else { WIRE };
            let name = format!("they_do_while_brokers_are_killed::{seed}");
            trials.push(
                stand.turn(name, true, move |turn| {
                    hold(turn, seed, lists::with_restarts(13), &[client], honest)
                }),
            );
        }
    }
    trials.push(stand.turn("a_wrong_offset_by_time_is_caught".into(), false, |turn| {
        let held = hold(turn, 0, lists::calm(), &[WIRE], liar::lying);
        let found = held.err().ok_or("nothing differs, though every offset by time is wrong")?;
        let text = found.message().unwrap_or_default();
        if text.contains("AtTime") { Ok(()) } else { Err(format!("something else differs: {text}").into()) }
    }));
    drop(stand);
    trials::run(&arguments, trials, shared)
}

#[expect(clippy::disallowed_methods, reason = "what the one who runs the tests wants")]
fn seeds() -> Result<Range<u64>, String> {
    let Some(wanted) = std::env::var("SHAKEDOWN_LISTS").ok().filter(|wanted| !wanted.is_empty()) else {
        return Ok(LISTS);
    };
    let range = wanted.split_once("..").and_then(|(first, end)| Some(first.parse().ok()?..end.parse().ok()?));
    range.ok_or_else(|| format!("SHAKEDOWN_LISTS is a range of seeds such as `0..16`, not `{wanted}`"))
}

/// A client, and its name.
type Named = (&'static str, Client);

const LIBRDKAFKA: Named = ("librdkafka", librdkafka);
const WIRE: Named = ("our own client", wire);

fn librdkafka(context: Context, bootstrap: &str) -> Arc<dyn Broker> {
    Arc::new(RdKafkaBroker::new(context, Properties::new().set("bootstrap.servers", bootstrap)))
}

fn wire(context: Context, bootstrap: &str) -> Arc<dyn Broker> {
    Arc::new(WireBroker::new(context, Properties::new().set("bootstrap.servers", bootstrap)))
}

/// The simulated side as it is.
fn honest(subject: Arc<dyn Subject>) -> Arc<dyn Subject> {
    subject
}

/// Draws the list of a seed and holds both sides against each other; of one that differs, the shortest that still does.
fn hold(
    turn: &Turn<'_>,
    seed: u64,
    lists: impl Strategy<Value = Vec<Operation>>,
    clients: &[Named],
    simulated: fn(Arc<dyn Subject>) -> Arc<dyn Subject>,
) -> Result<(), Failed> {
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 1,
        rng_seed: RngSeed::Fixed(seed),
        max_shrink_iters: 100,
        max_shrink_time: 100_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let held = runner.run(&lists, |operations| {
        compare(turn, seed, &operations, clients, simulated).map_err(TestCaseError::fail)
    });
    held.map_err(|error| match error {
        TestError::Fail(why, operations) => {
            let listed: Vec<_> =
                operations.iter().map(|operation| format!("  Operation::{operation:?},")).collect();
            format!("seed {seed}: {why}\nthe shortest list found is\n{}", listed.join("\n")).into()
        }
        TestError::Abort(why) => Failed::from(format!("seed {seed}: {why}")),
    })
}

fn compare(
    turn: &Turn<'_>,
    seed: u64,
    operations: &[Operation],
    clients: &[Named],
    simulated: fn(Arc<dyn Subject>) -> Arc<dyn Subject>,
) -> Result<(), String> {
    let replicas = turn.replicas();
    let account = |subject: Arc<dyn Subject>, asked: Vec<Operation>| async move {
        perform(subject, "differential", replicas, &asked).await
    };
    let said = |whose: &str, account: Result<Vec<Answer>, Failure>| {
        account.map_err(|failure| format!("{whose} does not answer: {}", failure.0))
    };
    let asked = operations.to_vec();
    let in_world = in_the_world(seed, move |subject| {
        let (subject, asked) = (simulated(subject), asked.clone());
        async move { perform(subject, "differential", replicas, &asked).await }
    });
    let in_world = said("the simulated Kafka", in_world)?;
    for &(name, client) in clients {
        turn.make_whole().map_err(|error| error.to_string())?;
        let on_real = turn.block_on(client, |subject| Box::pin(account(subject, operations.to_vec())));
        let on_real = said(&format!("real Kafka over {name}"), on_real)?;
        if let Some(difference) = first_difference(operations, &in_world, &on_real) {
            let model = expected(operations);
            return Err(format!(
                "the simulated Kafka here and the real one over {name} there differ at {difference}; the model has {:?}",
                model.get(difference.number)
            ));
        }
    }
    Ok(())
}

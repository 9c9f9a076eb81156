//! A small system of its own: proof that the harness knows nothing of the six services.
//!
//! Customers ask; `echo` lets the outside system `bank` stamp each question, and answers; `sink` takes the answers. A
//! question is a saga: it begins when it is sent and ends when its answer was taken.

// Each test file uses its own part of this.
#![allow(dead_code, reason = "shared by several test programs, none of which uses all of it")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use broker::{Broker, Consumer, Error, NoRebalanceListener, OffsetAndMetadata, ProducerRecord, Properties};
use context::{Context, EventKind, Timestamp};
use reports::{Evidence, Sagas, SeedResult};
use shakedown_harness::check::{Breaches, Check, Moment, Occasion};
use shakedown_harness::scenario::{Scenario, ServiceWords};
use shakedown_harness::system::{
    CheckWords, Clients, Deployment, Group, Measurements, Progress, Role, Setup, System, SystemHost,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use world::Engine;

pub(crate) const QUESTIONS: &str = "questions";
pub(crate) const ANSWERS: &str = "answers";
const BANK_PORT: u16 = 80;

pub(crate) struct Toy;

/// Planted flaws of `echo`.
const FLAWS: [(&str, &str); 9] = [
    ("commits_first", "commits what it polled before it has handled it"),
    ("commits_ahead", "commits ten records more than it has polled"),
    ("never_commits", "answers, and commits nothing"),
    ("never_joins", "does not join its group"),
    ("errs_in_one_bit", "gives question 7 an answer that differs from the right one in a single bit"),
    ("stamps_again", "asks for a new stamp for each delivery of a question"),
    ("never_answers", "keeps the answer to itself"),
    ("walks_a_hash_map", "notes its questions in the order of a HashMap"),
    ("panics", "panics at its first question"),
];

#[derive(Default)]
struct State {
    asked: BTreeMap<u64, Timestamp>,
    answered: BTreeMap<u64, Timestamp>,
    /// The bank's ledger: stamps by question, and when each was given.
    stamps: BTreeMap<u64, Vec<Timestamp>>,
    all_sent: bool,
    calls_open: u64,
}

type Shared = Arc<Mutex<State>>;

fn lock(state: &Shared) -> MutexGuard<'_, State> {
    state.lock().unwrap()
}

impl System for Toy {
    fn services(&self) -> BTreeMap<String, ServiceWords> {
        let flaws = FLAWS.map(|(name, about)| (name.to_owned(), about.to_owned()));
        let echo = ServiceWords { about: "answers questions".into(), flaws: flaws.into(), has_steps: false };
        let sink = ServiceWords { about: "takes answers".into(), ..ServiceWords::default() };
        [("echo".to_owned(), echo), ("sink".to_owned(), sink)].into()
    }

    fn outside(&self) -> Vec<String> {
        vec!["bank".into()]
    }

    fn workload(&self) -> Vec<String> {
        vec!["customers".into()]
    }

    fn topics(&self) -> Vec<String> {
        vec![QUESTIONS.into(), ANSWERS.into()]
    }

    fn groups(&self, _: &Scenario) -> Vec<Group> {
        let group = |id: &str, topic: &str| Group { id: id.into(), topics: vec![topic.into()] };
        vec![group("echo", QUESTIONS), group("sink", ANSWERS)]
    }

    fn refusals(&self) -> Vec<String> {
        Vec::new()
    }

    fn checks(&self) -> Vec<CheckWords> {
        vec![CheckWords {
            name: "stamped_once",
            exactly_once: true,
            claim: "the bank stamps no question twice",
        }]
    }

    fn consumer_session_timeout(&self) -> Duration {
        Duration::from_secs(6)
    }

    fn start(&self, setup: &Setup<'_>) -> Box<dyn Deployment> {
        Box::new(ToyRun {
            state: Shared::default(),
            clients: setup.clients.clone(),
            scenario: setup.scenario.clone(),
        })
    }
}

struct ToyRun {
    state: Shared,
    clients: Clients,
    scenario: Scenario,
}

impl Deployment for ToyRun {
    fn hosts(&mut self) -> Vec<SystemHost> {
        let mut hosts = Vec::new();
        let state = self.state.clone();
        hosts.push(SystemHost {
            name: "bank".into(),
            role: Role::Outside,
            program: context::program(move |context| bank(context, state.clone())),
        });
        for (service, settings) in &self.scenario.services {
            for replica in 1..=settings.replicas {
                let (state, clients, flaws) =
                    (self.state.clone(), self.clients.clone(), settings.naive.clone());
                let is_echo = service == "echo";
                let program = context::program(move |context: Context| {
                    let (state, clients, flaws) = (state.clone(), clients.clone(), flaws.clone());
                    async move {
                        loop {
                            let broker = clients.broker(&context);
                            let done = match is_echo {
                                true => echo(&context, &*broker, &state, &flaws).await,
                                false => sink(&context, &*broker, &state).await,
                            };
                            context.note(format_args!("starts over: {done:?}"));
                            context.sleep(Duration::from_millis(500)).await;
                        }
                    }
                });
                hosts.push(SystemHost { name: format!("{service}-{replica}"), role: Role::Service, program });
            }
        }
        let (state, clients, run) = (self.state.clone(), self.clients.clone(), self.scenario.run.clone());
        let program = context::program(move |context: Context| {
            let (state, clients, run) = (state.clone(), clients.clone(), run.clone());
            async move {
                let broker = clients.broker(&context);
                ask(&context, &*broker, &state, run.orders, run.arrival.gap())
                    .await
                    .expect("questions can be sent");
            }
        });
        hosts.push(SystemHost { name: "customers".into(), role: Role::Workload, program });
        hosts
    }

    fn checks(&mut self) -> Vec<Box<dyn Check>> {
        vec![Box::new(StampedOnce { state: self.state.clone(), reported: 0 })]
    }

    fn progress(&self) -> Progress {
        let state = lock(&self.state);
        Progress {
            workload_sent: state.all_sent,
            sagas_started: state.asked.len() as u64,
            sagas_open: (state.asked.len() - state.answered.len()) as u64,
            outbox_rows: 0,
            calls_open: state.calls_open,
        }
    }

    fn unfinished(&self) -> Vec<Evidence> {
        let state = lock(&self.state);
        let open = state.asked.iter().filter(|(question, _)| !state.answered.contains_key(question));
        open.map(|(question, at)| Evidence {
            at: Some(at.since(world::EPOCH)),
            event: None,
            place: None,
            what: format!("question {question} was asked and has no answer"),
        })
        .collect()
    }

    fn measurements(&self) -> Measurements {
        let state = lock(&self.state);
        let durations = state.answered.iter().map(|(question, at)| at.since(state.asked[question]));
        let (started, completed) = (state.asked.len() as u64, state.answered.len() as u64);
        Measurements {
            sagas: Sagas { started, completed, compensated: 0, stuck: started - completed },
            saga_durations: durations.clone().collect(),
            order_latencies: durations.collect(),
            hops: Vec::new(),
        }
    }
}

/// The bank stamps no question twice.
struct StampedOnce {
    state: Shared,
    reported: usize,
}

impl Check for StampedOnce {
    fn name(&self) -> &'static str {
        "stamped_once"
    }

    fn is_exactly_once(&self) -> bool {
        true
    }

    fn look(&mut self, _: Moment, occasion: Occasion<'_>, breaches: &mut Breaches) {
        if !matches!(occasion, Occasion::Event(event) if event.kind == EventKind::Commit) {
            return;
        }
        let state = lock(&self.state);
        let twice: Vec<_> = state.stamps.iter().filter(|(_, stamps)| stamps.len() > 1).collect();
        if twice.len() > self.reported {
            self.reported = twice.len();
            for (question, stamps) in twice {
                let stamp = |at: &Timestamp| Evidence {
                    at: Some(at.since(world::EPOCH)),
                    event: None,
                    place: None,
                    what: format!("the bank stamps question {question}"),
                };
                breaches.report(
                    format!("question {question} has {} stamps", stamps.len()),
                    stamps.iter().map(stamp).collect(),
                );
            }
        }
    }
}

async fn bank(context: Context, state: Shared) {
    let mut listener = context.listen(BANK_PORT).await.expect("the port is free");
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        let (context, state) = (context.clone(), state.clone());
        context.clone().spawn("stamp", async move {
            while let Ok(question) = stream.read_u64().await {
                let again = stream.read_u8().await.unwrap_or(0) == 1;
                {
                    let mut state = lock(&state);
                    let stamps = state.stamps.entry(question).or_default();
                    // Without a key that says so, each call is a new one.
                    if stamps.is_empty() || again {
                        stamps.push(context.now());
                    }
                }
                context.record(EventKind::Commit, format_args!("stamp {question}"), &question.to_be_bytes());
                if stream.write_u8(1).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// A call that is under way; a crash of the caller ends it as well.
struct OpenCall<'a>(&'a Shared);

impl<'a> OpenCall<'a> {
    fn new(state: &'a Shared) -> OpenCall<'a> {
        lock(state).calls_open += 1;
        OpenCall(state)
    }
}

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        lock(self.0).calls_open -= 1;
    }
}

async fn stamp(context: &Context, state: &Shared, question: u64, again: bool) {
    let _open = OpenCall::new(state);
    loop {
        let call = async {
            let mut stream = context.connect("bank", BANK_PORT).await?;
            stream.write_u64(question).await?;
            stream.write_u8(u8::from(again)).await?;
            stream.read_u8().await
        };
        match context.timeout(Duration::from_secs(1), call).await {
            Ok(Ok(_)) => break,
            _ => context.sleep(Duration::from_millis(200)).await,
        }
    }
}

async fn member(broker: &dyn Broker, group: &str, topic: &str) -> Result<Box<dyn Consumer>, Error> {
    let properties = Properties::new()
        .set("group.id", group)
        .set("session.timeout.ms", 6_000)
        .set("heartbeat.interval.ms", 2_000)
        .set("enable.auto.commit", false)
        .set("auto.offset.reset", "earliest");
    let mut consumer = broker.consumer(&properties).await?;
    consumer.subscribe(&[topic.into()], Box::new(NoRebalanceListener)).await?;
    Ok(consumer)
}

fn question_of(record: &broker::ConsumerRecord) -> u64 {
    let text = record.key.as_ref().map(|key| String::from_utf8_lossy(key).into_owned());
    text.and_then(|text| text.parse().ok()).expect("every question has its number as a key")
}

async fn echo(context: &Context, broker: &dyn Broker, state: &Shared, flaws: &[String]) -> Result<(), Error> {
    let has = |flaw: &str| flaws.iter().any(|other| other == flaw);
    let producer = broker.producer(&Properties::new().set("enable.idempotence", true)).await?;
    if has("never_joins") {
        std::future::pending::<()>().await;
    }
    let mut consumer = member(broker, "echo", QUESTIONS).await?;
    loop {
        let records = match consumer.poll(Duration::from_millis(200)).await {
            Err(error) if error.is_retriable() => continue,
            records => records?,
        };
        assert!(records.is_empty() || !has("panics"), "a planted panic");
        if has("walks_a_hash_map") && !records.is_empty() {
            #[expect(clippy::disallowed_types, reason = "the planted source of nondeterminism")]
            let seen: std::collections::HashMap<u64, ()> = (0..32).map(|number| (number, ())).collect();
            context.note(format_args!("questions {:?}", seen.keys().collect::<Vec<_>>()));
        }
        for record in records {
            let ahead = if has("commits_ahead") { 10 } else { 0 };
            let next = [(record.partition.clone(), OffsetAndMetadata::new(record.offset + 1 + ahead))];
            if has("commits_first") {
                consumer.commit(&next).await?;
                context.sleep(Duration::from_millis(500)).await;
            }
            let question = question_of(&record);
            stamp(context, state, question, has("stamps_again")).await;
            if !has("never_answers") {
                let text = if has("errs_in_one_bit") && question == 7 { "43" } else { "42" };
                let mut answer = ProducerRecord::new(ANSWERS, question.to_string(), text);
                answer.headers.add("place", record.offset.to_string());
                producer.send(answer).await?;
            }
            if !has("commits_first") && !has("never_commits") {
                consumer.commit(&next).await?;
            }
        }
    }
}

async fn sink(context: &Context, broker: &dyn Broker, state: &Shared) -> Result<(), Error> {
    let mut consumer = member(broker, "sink", ANSWERS).await?;
    loop {
        let records = match consumer.poll(Duration::from_millis(200)).await {
            Err(error) if error.is_retriable() => continue,
            records => records?,
        };
        let mut next = BTreeMap::new();
        for record in records {
            let question = question_of(&record);
            lock(state).answered.entry(question).or_insert(context.now());
            context.record(EventKind::Commit, format_args!("answered {question}"), &question.to_be_bytes());
            next.insert(record.partition, OffsetAndMetadata::new(record.offset + 1));
        }
        if !next.is_empty() {
            consumer.commit(&next.into_iter().collect::<Vec<_>>()).await?;
        }
    }
}

async fn ask(
    context: &Context,
    broker: &dyn Broker,
    state: &Shared,
    count: u32,
    gap: Duration,
) -> Result<(), Error> {
    let producer = broker.producer(&Properties::new().set("enable.idempotence", true)).await?;
    let mut deliveries = Vec::new();
    for question in 0..u64::from(count) {
        lock(state).asked.insert(question, context.now());
        deliveries.push(producer.send(ProducerRecord::new(QUESTIONS, question.to_string(), "?")));
        context.sleep(gap).await;
    }
    for delivery in deliveries {
        delivery.await?;
    }
    lock(state).all_sent = true;
    Ok(())
}

/// A scenario for the toy: twenty questions a second, and what `rest` says.
pub(crate) fn scenario(questions: u32, rest: &str) -> Scenario {
    let text = format!(
        "claim = \"a test\"\n[run]\nseeds = 3\norders = {questions}\narrival = \"20/s\"\n[cluster]\nbrokers = 2\npartitions = 2\n{rest}"
    );
    Scenario::parse(Path::new("toy.toml"), &text, &shakedown_harness::vocabulary(&Toy))
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Runs it on the default engine.
pub(crate) fn run(scenario: &Scenario, seed: u64) -> SeedResult {
    shakedown_harness::run(&Toy, scenario, seed, Engine::Jump, None).unwrap_or_else(|error| panic!("{error}"))
}

/// The names of the broken claims.
pub(crate) fn broken(result: &SeedResult) -> Vec<&str> {
    result.findings.iter().map(|finding| finding.check.as_str()).collect()
}

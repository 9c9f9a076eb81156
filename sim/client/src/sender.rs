//! The producer's background task: finds leaders, sends what is ready, sends again what failed.
//!
//! One task for a producer. Its requests are futures that it polls side by side; each broker's connection keeps them in
//! the order in which they were sent. Without idempotence and with more than one request in flight, a batch that is sent
//! again may land behind a later one, as with every Kafka client.
//!
//! What it asks besides (metadata, a producer id, partitions of a transaction) is in `inquiries.rs`.

mod inquiries;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use broker::{Error, ErrorClass, ErrorCode, RecordMetadata, TopicPartition};
use context::{BoxFuture, Rng, Timestamp};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    AddPartitionsToTxnResponse, ProduceRequest, ProduceResponse, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;

use inquiries::Inquiry;

use crate::accumulator::Batch;
use crate::backoff::after_failures;
use crate::cluster::{NodeId, Peer, topic_name};
use crate::connection::{Failed, Standing};
use crate::error::{self, code, transport};
use crate::producer::{Shared, State};
use crate::properties::Habits;
use crate::sequences::{Verdict, judge};
use crate::transaction::Protocol;

/// One request carries at most so many bytes of batches, far below the broker's `socket.request.max.bytes` (100 MiB).
const REQUEST_BYTES_MAX: usize = 8 << 20;

/// The last version in which a partition must be registered before (KIP-890).
const PRODUCE_V1: i16 = 11;

enum Event {
    Produced {
        node: NodeId,
        batches: Vec<Batch>,
        answer: Result<Option<ProduceResponse>, Failed>,
    },
    /// A connection to a leader was wanted.
    Connected {
        node: NodeId,
        result: Result<(), Failed>,
    },
    Refreshed(Result<(), Error>),
    ProducerId(Result<(i64, i16), Error>),
    /// Partitions were to be registered with the transaction.
    Registered(Result<AddPartitionsToTxnResponse, Failed>),
}

/// The task. See [`Sender::run`].
pub(crate) struct Sender {
    shared: Arc<Shared>,
    events: FuturesUnordered<BoxFuture<'static, Event>>,
    in_flight: BTreeMap<NodeId, usize>,
    /// Leaders that are being connected to.
    connecting: BTreeSet<NodeId>,
    metadata: Inquiry,
    producer_id: Inquiry,
    registration: Inquiry,
    rng: Rng,
}

impl Sender {
    pub(crate) fn new(shared: Arc<Shared>) -> Sender {
        Sender {
            rng: shared.cluster.rng("sender"),
            events: FuturesUnordered::new(),
            in_flight: BTreeMap::new(),
            connecting: BTreeSet::new(),
            metadata: Inquiry::new(shared.cluster.metadata_backoff()),
            producer_id: Inquiry::new(shared.cluster.backoff()),
            registration: Inquiry::new(shared.cluster.backoff()),
            shared,
        }
    }

    /// Runs until it is aborted.
    pub(crate) async fn run(mut self) {
        let shared = self.shared.clone();
        loop {
            let next = self.act();
            tokio::select! {
                biased;
                Some(event) = self.events.next(), if !self.events.is_empty() => self.handle(event),
                () = shared.wake.notified() => {}
                () = shared.until(next) => {}
            }
        }
    }

    /// Does all that can be done now; says when to look again if nothing happens before.
    fn act(&mut self) -> Option<Timestamp> {
        let shared = self.shared.clone();
        let now = shared.cluster.context.now();
        let mut state = shared.state();
        self.place(&mut state, now);
        for batch in state.accumulator.expire(now) {
            let ends_epoch = state.sequences.timeout_ends_epoch(&batch);
            state.fail(&shared, batch, &expired(), ends_epoch);
        }
        state.drop_unsent(&shared);
        self.finish_drain(&mut state);
        self.dispatch(&mut state, now);
        let registration = self.register(&mut state, now);
        let refresh = self.ask(&state, now);
        drop(state);
        let waiting = shared.state();
        let unplaced = waiting.next_unplaced_expiry(shared.cluster.settings.producer.delivery_timeout);
        [waiting.accumulator.next_change(now), unplaced, registration, refresh].into_iter().flatten().min()
    }

    /// Gives partitions to records whose topic was unknown when they were sent.
    fn place(&mut self, state: &mut State, now: Timestamp) {
        let topics: Vec<_> = state.unplaced.keys().cloned().collect();
        for name in topics {
            let gone = match self.shared.cluster.topic(&name) {
                Some(topic) if topic.error == 0 && !topic.partitions.is_empty() => {
                    state.place(&self.shared, &name, now);
                    continue;
                }
                Some(topic)
                    if topic.error == 0 || ErrorClass::of_broker(topic.error) == ErrorClass::Retriable =>
                {
                    // A topic may take a while until every broker knows it.
                    let patience = self.shared.cluster.settings.metadata_propagation_max;
                    let since = *state.missing_since.entry(name.clone()).or_insert(now);
                    let code = if topic.error == 0 { code::LEADER_NOT_AVAILABLE } else { topic.error };
                    (now.since(since) >= patience).then_some(code)
                }
                Some(topic) => Some(topic.error),
                None => None,
            };
            match gone {
                Some(code) => state.fail_unplaced(&self.shared, &name, code),
                None => self.metadata.wanted = true,
            }
            state.expire_unplaced(&self.shared, &name, now, &expired());
        }
    }

    fn finish_drain(&self, state: &mut State) {
        // A transaction's next epoch comes from its coordinator.
        if state.sequences.is_draining()
            && !state.transaction.is_transactional()
            && self.in_flight.is_empty()
            && !state.accumulator.any_maybe_written()
        {
            state.sequences.bump();
            state.accumulator.batches_mut().for_each(|batch| batch.stamp = None);
            self.shared.cluster.context.note(format_args!("producer goes on under its next epoch"));
        }
    }

    /// Sends what is ready, one batch of a partition in a request, as many requests as may be in flight.
    fn dispatch(&mut self, state: &mut State, now: Timestamp) {
        let limit = self.shared.cluster.settings.max_in_flight;
        loop {
            let mut requests: BTreeMap<NodeId, (usize, Vec<Batch>)> = BTreeMap::new();
            let partitions: Vec<TopicPartition> = state.accumulator.partitions().cloned().collect();
            for partition in partitions {
                let flushing = state.flushing > 0;
                let Some(batch) = state.accumulator.ready(&partition, now, flushing) else { continue };
                if !state.transaction.may_send_to(&partition) {
                    continue;
                }
                if !state.sequences.may_send(batch) {
                    self.producer_id.wanted |= state.sequences.wants_producer_id();
                    continue;
                }
                let Some((leader, _)) = self.shared.cluster.leader(&partition) else {
                    self.metadata.wanted = true;
                    continue;
                };
                if !self.is_up(leader) {
                    continue;
                }
                let (bytes, batches) = requests.entry(leader).or_default();
                let room = batches.is_empty() || *bytes + batch.bytes() <= REQUEST_BYTES_MAX;
                if self.in_flight.get(&leader).copied().unwrap_or(0) >= limit || !room {
                    continue;
                }
                let mut batch = state.accumulator.take(&partition).expect("it was ready");
                state.sequences.number(&mut batch);
                state.sequences.leaves(&batch);
                batch.attempts += 1;
                *bytes += batch.bytes();
                batches.push(batch);
            }
            requests.retain(|_, (_, batches)| !batches.is_empty());
            if requests.is_empty() {
                return;
            }
            for (node, (_, batches)) in requests {
                *self.in_flight.entry(node).or_insert(0) += 1;
                let produced = self.produce(node, batches, state.transaction.protocol(), now);
                self.events.push(produced);
            }
        }
    }

    /// Whether a leader is connected to; connects if not. Batches wait here meanwhile, not in the connection's queue: the
    /// partition may have another leader long before a dead one's connection is tried again.
    fn is_up(&mut self, leader: NodeId) -> bool {
        let cluster = &self.shared.cluster;
        let Ok(connection) = cluster.connection(Peer::Node(leader)) else {
            self.metadata.wanted = true;
            return false;
        };
        if connection.standing() == Standing::Up {
            return true;
        }
        if connection.standing() == Standing::Down {
            self.metadata.wanted = true;
        }
        if self.connecting.insert(leader) {
            let ready = connection.ready(cluster.settings.socket_timeout);
            self.events.push(Box::pin(async move { Event::Connected { node: leader, result: ready.await } }));
        }
        false
    }

    fn produce(
        &self,
        node: NodeId,
        batches: Vec<Batch>,
        protocol: Protocol,
        now: Timestamp,
    ) -> BoxFuture<'static, Event> {
        let cluster = &self.shared.cluster;
        let settings = &cluster.settings;
        let connection = match cluster.connection(Peer::Node(node)) {
            Ok(connection) => connection,
            Err(error) => {
                let answer = Err(Failed { error, sent: false });
                return Box::pin(std::future::ready(Event::Produced { node, batches, answer }));
            }
        };
        let acks = settings.producer.acks;
        let timeout_ms = i32::try_from(settings.producer.request_timeout.as_millis()).unwrap_or(i32::MAX);
        let mut topics: Vec<TopicProduceData> = Vec::new();
        // Batches come in the order of their partitions, so those of one topic are neighbours.
        for batch in &batches {
            let name = topic_name(&batch.partition.topic);
            let data = PartitionProduceData::default()
                .with_index(batch.partition.partition)
                .with_records(Some(batch.encode()));
            match topics.last_mut().filter(|topic| topic.name == name) {
                Some(topic) => topic.partition_data.push(data),
                None => {
                    topics.push(TopicProduceData::default().with_name(name).with_partition_data(vec![data]))
                }
            }
        }
        let id = settings.producer.transactional_id.clone();
        let version_max = match (&id, protocol) {
            (Some(_), Protocol::V1) => PRODUCE_V1,
            _ => i16::MAX,
        };
        let id = id.map(|id| TransactionalId(StrBytes::from_string(id)));
        let build = move |_| {
            ProduceRequest::default()
                .with_transactional_id(id)
                .with_acks(acks)
                .with_timeout_ms(timeout_ms)
                .with_topic_data(topics)
        };
        let soonest = batches.iter().map(|batch| batch.expires).min().unwrap_or(Timestamp::FAR_FUTURE);
        // librdkafka: until the first message runs out of time, but no longer than `socket.timeout.ms`.
        let timeout = soonest.since(now).clamp(Duration::from_millis(100), settings.socket_timeout);
        // Both futures queue the request at once; only the answer is waited for.
        if acks == 0 {
            let sent = connection.send(timeout, version_max, build);
            Box::pin(async move { Event::Produced { node, batches, answer: sent.await.map(|()| None) } })
        } else {
            let answer = connection.request(timeout, version_max, build);
            Box::pin(async move {
                let answer = answer.await.map(|answer| Some(answer.body));
                Event::Produced { node, batches, answer }
            })
        }
    }

    fn handle(&mut self, event: Event) {
        let shared = self.shared.clone();
        let now = shared.cluster.context.now();
        match event {
            Event::Connected { node, result } => {
                self.connecting.remove(&node);
                self.metadata.wanted |= result.is_err();
            }
            Event::Refreshed(result) => {
                self.metadata.asking = false;
                if result.is_ok() && shared.state().unplaced.is_empty() {
                    self.metadata.backoff.reset();
                }
                self.metadata.wait(now, &mut self.rng);
            }
            Event::ProducerId(result) => {
                self.producer_id.asking = false;
                match result {
                    Ok((producer_id, epoch)) => {
                        self.producer_id.backoff.reset();
                        shared.state().sequences.begin(producer_id, epoch);
                    }
                    Err(error) if error.is_retriable() => self.producer_id.wait(now, &mut self.rng),
                    Err(error) => {
                        shared.state().give_up(&shared, Error { class: ErrorClass::Fatal, ..error })
                    }
                }
            }
            Event::Registered(answer) => self.registered(&mut shared.state(), answer, now),
            Event::Produced { node, batches, answer } => {
                let count = self.in_flight.get_mut(&node).expect("it was counted when it was sent");
                *count -= 1;
                if *count == 0 {
                    self.in_flight.remove(&node);
                }
                self.settle(&mut shared.state(), batches, answer, now);
            }
        }
    }

    fn settle(
        &mut self,
        state: &mut State,
        batches: Vec<Batch>,
        answer: Result<Option<ProduceResponse>, Failed>,
        now: Timestamp,
    ) {
        for batch in &batches {
            state.sequences.returns(batch);
        }
        let answers = match answer {
            Ok(Some(answer)) => answer,
            Ok(None) => {
                for batch in batches {
                    state.deliver(&self.shared, batch, None, None);
                }
                return;
            }
            Err(failed) => {
                self.metadata.wanted = true;
                // To librdkafka what never left costs no retry.
                let counts = failed.sent || self.shared.cluster.settings.habits == Habits::Java;
                for mut batch in batches {
                    batch.maybe_written |= failed.sent;
                    if failed.error.is_retriable() {
                        self.again(state, batch, counts, &failed.error, now);
                    } else {
                        let ends_epoch = state.sequences.refusal_ends_epoch(&batch);
                        state.fail(&self.shared, batch, &failed.error, ends_epoch);
                    }
                }
                return;
            }
        };
        let mut answered: BTreeMap<TopicPartition, PartitionProduceResponse> = BTreeMap::new();
        for topic in answers.responses {
            let name: Arc<str> = topic.name.as_str().into();
            for partition in topic.partition_responses {
                answered.insert(TopicPartition::new(name.clone(), partition.index), partition);
            }
        }
        for mut batch in batches {
            let Some(answer) = answered.remove(&batch.partition) else {
                batch.maybe_written = true;
                let error = transport(format!("an answer without {}", batch.partition));
                self.again(state, batch, true, &error, now);
                continue;
            };
            if error::wants_metadata(answer.error_code) {
                self.metadata.wanted = true;
                let leader = &answer.current_leader;
                self.shared.cluster.learn_leader(&batch.partition, leader.leader_id.0, leader.leader_epoch);
            }
            let error = || error::answered(answer.error_code, format!("records for {}", batch.partition));
            match judge(&state.sequences, &batch, answer.error_code, answer.base_offset) {
                Verdict::Written(offset) => {
                    state.sequences.written(&batch);
                    let appended = Some(answer.log_append_time_ms).filter(|millis| *millis >= 0);
                    state.deliver(&self.shared, batch, offset, appended);
                }
                Verdict::Again { counts, maybe_written } => {
                    let error = error();
                    batch.maybe_written = maybe_written;
                    self.again(state, batch, counts, &error, now);
                }
                Verdict::Split => {
                    let Some(mut batch) = self.unless_ended(state, batch) else { continue };
                    batch.attempts = 0;
                    state.accumulator.put_back(batch, now);
                }
                Verdict::AgainUnderNextEpoch => {
                    let error = error();
                    batch.maybe_written = false;
                    state.sequences.drain();
                    self.again(state, batch, false, &error, now);
                }
                Verdict::Failed { error, ends_epoch } => {
                    let gap = self.shared.cluster.settings.producer.gapless
                        && !state.transaction.is_transactional();
                    state.fail(&self.shared, batch, &error, ends_epoch);
                    if gap {
                        let text = format!("`enable.gapless.guarantee` cannot be kept: {}", error.message);
                        let fatal = Error::new(error.code, ErrorClass::Fatal, text);
                        state.give_up(&self.shared, fatal);
                    }
                }
                Verdict::Fatal(error) => {
                    state.fail(&self.shared, batch, &error, false);
                    state.give_up(&self.shared, error);
                }
            }
        }
    }

    /// Sends a batch again after its backoff, unless its time or its retries are used up.
    fn again(&mut self, state: &mut State, batch: Batch, counts: bool, error: &Error, now: Timestamp) {
        let Some(mut batch) = self.unless_ended(state, batch) else { return };
        let settings = &self.shared.cluster.settings;
        let given_up = if batch.expires <= now {
            Some((expired(), state.sequences.timeout_ends_epoch(&batch)))
        } else if counts && batch.attempts > settings.producer.retries {
            Some((error.clone(), state.sequences.refusal_ends_epoch(&batch)))
        } else {
            None
        };
        if let Some((error, ends_epoch)) = given_up {
            return state.fail(&self.shared, batch, &error, ends_epoch);
        }
        state.sequences.settle(&batch);
        let failures = batch.attempts.max(1);
        if !counts {
            batch.attempts -= 1;
        }
        let wait =
            after_failures(settings.retry_backoff, settings.retry_backoff_max, failures, &mut self.rng);
        state.accumulator.put_back(batch, now + wait);
    }

    /// A batch is to be sent again: gives it back, unless the producer has ended, with which it fails.
    fn unless_ended(&self, state: &mut State, batch: Batch) -> Option<Batch> {
        let Some(fatal) = state.fatal.clone() else { return Some(batch) };
        state.fail(&self.shared, batch, &fatal, false);
        None
    }
}

/// The error of records whose time ran out.
fn expired() -> Error {
    Error::new(
        ErrorCode::MessageTimedOut,
        ErrorClass::Retriable,
        "no acknowledgement within `delivery.timeout.ms`; the records may have been appended all the same",
    )
}

/// What the log says about a record, once its batch is there.
pub(crate) fn record_metadata(
    partition: &TopicPartition,
    offset: Option<i64>,
    timestamp: i64,
) -> RecordMetadata {
    RecordMetadata {
        partition: partition.clone(),
        offset,
        timestamp: Timestamp::from_millis(u64::try_from(timestamp).unwrap_or(0)),
    }
}

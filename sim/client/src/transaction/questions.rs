//! What a producer asks the coordinators of its transactions and of its groups: each until it is answered, or its time is up.

use std::time::Duration;

use broker::{Error, ErrorClass, GroupMetadata, OffsetAndMetadata, TopicPartition};
use context::Timestamp;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest, TransactionalId,
    TxnOffsetCommitRequest,
};
use kafka_protocol::protocol::StrBytes;

use super::Protocol;
use super::rules::{Ask, Next, read};
use crate::backoff::Backoff;
use crate::cluster::topic_name;
use crate::coordinator::Coordinator;
use crate::error::{self, invalid_state};
use crate::offsets::{by_topic, group_id};
use crate::producer::Shared;
use crate::properties::Habits;

/// The last versions of the first protocol (KIP-890).
const END_V1: i16 = 4;
const COMMIT_OFFSETS_V1: i16 = 4;

impl Shared {
    /// Gets a producer id under the transactional id: the first time whatever epoch comes next, later the next epoch of
    /// the same producer, if no other has taken its place (KIP-360).
    pub(super) async fn register_producer(&self) -> Result<(), Error> {
        let coordinator = self.transactions.coordinator();
        let timeout_ms = millis(self.cluster.settings.producer.transaction_timeout);
        let mut waits = Waits::new(self, "init producer");
        loop {
            let id = transactional_id(&coordinator);
            let (producer_id, epoch) = self.state().sequences.producer().unwrap_or((-1, -1));
            let build = move |version| {
                let request = InitProducerIdRequest::default()
                    .with_transactional_id(Some(id))
                    .with_transaction_timeout_ms(timeout_ms);
                if version >= 3 {
                    request.with_producer_id(producer_id.into()).with_producer_epoch(epoch)
                } else {
                    request
                }
            };
            let asked = coordinator.ask(self.cluster.settings.socket_timeout, build).await;
            let error = match asked {
                Ok(answer) if answer.body.error_code == 0 => {
                    let (producer_id, epoch) = (answer.body.producer_id.0, answer.body.producer_epoch);
                    self.cluster
                        .context
                        .note(format_args!("`{}` is producer {producer_id}, epoch {epoch}", coordinator.key));
                    self.state().sequences.begin(producer_id, epoch);
                    self.wake.notify_one();
                    return Ok(());
                }
                Ok(answer) => {
                    error::answered(answer.body.error_code, format!("a producer id for {coordinator}"))
                }
                Err(error) => error,
            };
            let next = read(self.cluster.settings.habits, Ask::InitProducer, error.code, true);
            self.go_on(&coordinator, next, error, &mut waits).await?;
        }
    }

    pub(super) async fn end(&self, committed: bool) -> Result<(), Error> {
        let coordinator = self.transactions.coordinator();
        let what = if committed { "commit" } else { "abort" };
        let mut waits = Waits::new(self, "end transaction");
        loop {
            let (producer, protocol) = {
                let state = self.state();
                (state.sequences.producer(), state.transaction.protocol())
            };
            let (producer_id, epoch) = producer.expect("a transaction begins with a producer id");
            let id = transactional_id(&coordinator);
            let build = move |_| {
                EndTxnRequest::default()
                    .with_transactional_id(id)
                    .with_producer_id(producer_id.into())
                    .with_producer_epoch(epoch)
                    .with_committed(committed)
            };
            let version_max = if protocol == Protocol::V2 { i16::MAX } else { END_V1 };
            let timeout = self.cluster.settings.socket_timeout;
            let error = match coordinator.try_ask(timeout, version_max, build).await {
                Ok(answer) if answer.body.error_code == 0 => {
                    if answer.version > END_V1 {
                        let (producer_id, epoch) = (answer.body.producer_id.0, answer.body.producer_epoch);
                        self.state().sequences.begin(producer_id, epoch);
                    }
                    return Ok(());
                }
                Ok(answer) => error::answered(answer.body.error_code, format!("{what} of {coordinator}")),
                Err(failed) => failed.error,
            };
            let next = read(self.cluster.settings.habits, Ask::End, error.code, false);
            if !committed && next == (Next::Abort { bump: true }) {
                // The coordinator knows the producer no longer: nothing is there to abort, a new epoch is all it takes.
                self.state().transaction.fail(&error, true);
                return Ok(());
            }
            self.go_on(&coordinator, next, error, &mut waits).await?;
        }
    }

    pub(super) async fn add_offsets(&self, group: &GroupMetadata, deadline: Timestamp) -> Result<(), Error> {
        let coordinator = self.transactions.coordinator();
        let mut waits = Waits::until(self, "add offsets", deadline);
        loop {
            let id = transactional_id(&coordinator);
            let (producer_id, epoch) = self.producer()?;
            let group = group_id(&group.group_id);
            let build = move |_| {
                AddOffsetsToTxnRequest::default()
                    .with_transactional_id(id)
                    .with_producer_id(producer_id.into())
                    .with_producer_epoch(epoch)
                    .with_group_id(group)
            };
            let error = match coordinator.try_ask(waits.request_timeout(self), i16::MAX, build).await {
                Ok(answer) if answer.body.error_code == 0 => {
                    self.state().transaction.begun();
                    return Ok(());
                }
                Ok(answer) => error::answered(answer.body.error_code, format!("offsets in {coordinator}")),
                Err(failed) => {
                    if failed.sent {
                        self.state().transaction.begun();
                    }
                    failed.error
                }
            };
            let next = read(self.cluster.settings.habits, Ask::AddOffsets, error.code, false);
            self.go_on(&coordinator, next, error, &mut waits).await?;
        }
    }

    pub(super) async fn commit_offsets(
        &self,
        offsets: Vec<(TopicPartition, OffsetAndMetadata)>,
        group: &GroupMetadata,
        deadline: Timestamp,
    ) -> Result<(), Error> {
        let coordinator = self.transactions.group_coordinator(&self.cluster, &group.group_id);
        let id = transactional_id(&self.transactions.coordinator());
        let mut waits = Waits::until(self, "commit offsets", deadline);
        loop {
            let (producer_id, epoch) = self.producer()?;
            let (id, group, offsets) = (id.clone(), group.clone(), offsets.clone());
            let build = move |version| {
                let request = TxnOffsetCommitRequest::default()
                    .with_transactional_id(id)
                    .with_group_id(group_id(&group.group_id))
                    .with_producer_id(producer_id.into())
                    .with_producer_epoch(epoch)
                    .with_topics(offset_topics(offsets, version));
                if version >= 3 {
                    // So a member that its group went on without is fenced (KIP-447).
                    request
                        .with_generation_id(group.generation_id)
                        .with_member_id(StrBytes::from_string(group.member_id))
                        .with_group_instance_id(group.group_instance_id.map(StrBytes::from_string))
                } else {
                    request
                }
            };
            let protocol = self.state().transaction.protocol();
            let version_max = if protocol == Protocol::V2 { i16::MAX } else { COMMIT_OFFSETS_V1 };
            let asked = coordinator.try_ask(waits.request_timeout(self), version_max, build).await;
            let error = match asked {
                Ok(answer) => {
                    let partitions = answer.body.topics.iter().flat_map(|topic| &topic.partitions);
                    match partitions.map(|partition| partition.error_code).find(|code| *code != 0) {
                        None => return Ok(()),
                        Some(code) => {
                            error::answered(code, format!("offsets of {coordinator} in a transaction"))
                        }
                    }
                }
                Err(failed) => failed.error,
            };
            let next = read(self.cluster.settings.habits, Ask::CommitOffsets, error.code, false);
            let went = self.go_on(&coordinator, next, error, &mut waits).await;
            if let Err(error) = &went
                && error.is_retriable()
            {
                // Whether they are part of it is unknown now.
                self.state().transaction.fail(error, false);
                return Err(self.state().transaction.failure().unwrap_or_else(|| error.clone()));
            }
            went?;
        }
    }

    pub(super) fn producer(&self) -> Result<(i64, i16), Error> {
        self.state().sequences.producer().ok_or_else(|| invalid_state("the producer has no id at the moment"))
    }

    /// Waits before the next question.
    ///
    /// # Errors
    /// If there is none to be asked: the error, in its class.
    async fn go_on(
        &self,
        coordinator: &Coordinator,
        next: Next,
        error: Error,
        waits: &mut Waits,
    ) -> Result<(), Error> {
        match next {
            Next::Again { elsewhere, wait } => {
                if elsewhere {
                    coordinator.forget();
                }
                let wait = waits.next(self, wait);
                if waits.deadline.is_some_and(|deadline| deadline <= self.cluster.context.now() + wait) {
                    return Err(Error { class: ErrorClass::Retriable, ..error });
                }
                self.cluster.context.sleep(wait).await;
                Ok(())
            }
            stop => Err(self.state().stop_transaction(self, stop, error)),
        }
    }
}

/// The waits between the attempts of one question.
struct Waits {
    backoff: Backoff,
    rng: context::Rng,
    deadline: Option<Timestamp>,
}

impl Waits {
    fn new(shared: &Shared, what: &str) -> Waits {
        Waits { backoff: shared.cluster.backoff(), rng: shared.cluster.rng(what), deadline: None }
    }

    fn until(shared: &Shared, what: &str, deadline: Timestamp) -> Waits {
        Waits { deadline: Some(deadline), ..Waits::new(shared, what) }
    }

    fn next(&mut self, shared: &Shared, wait: Option<Duration>) -> Duration {
        match (wait, shared.cluster.settings.habits) {
            (Some(wait), _) => wait,
            (None, Habits::Java) => shared.cluster.settings.retry_backoff,
            (None, Habits::Librdkafka) => self.backoff.next(&mut self.rng),
        }
    }

    fn request_timeout(&self, shared: &Shared) -> Duration {
        let timeout = shared.cluster.settings.socket_timeout;
        let left = self.deadline.map(|deadline| deadline.since(shared.cluster.context.now()));
        left.map_or(timeout, |left| timeout.min(left.max(Duration::from_millis(1))))
    }
}

/// The request that registers partitions, in the versions that clients send.
pub(crate) fn add_partitions(
    coordinator: &Coordinator,
    (producer_id, epoch): (i64, i16),
    partitions: &[TopicPartition],
) -> AddPartitionsToTxnRequest {
    let topics =
        by_topic(partitions.iter().map(|at| (at.clone(), ()))).into_iter().map(|(topic, numbers)| {
            let numbers = numbers.into_iter().map(|(number, ())| number).collect();
            AddPartitionsToTxnTopic::default().with_name(topic_name(&topic)).with_partitions(numbers)
        });
    AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(transactional_id(coordinator))
        .with_v3_and_below_producer_id(producer_id.into())
        .with_v3_and_below_producer_epoch(epoch)
        .with_v3_and_below_topics(topics.collect())
}

fn offset_topics(
    offsets: Vec<(TopicPartition, OffsetAndMetadata)>,
    version: i16,
) -> Vec<TxnOffsetCommitRequestTopic> {
    let topics = by_topic(offsets).into_iter().map(|(topic, partitions)| {
        let partitions = partitions.into_iter().map(|(number, position)| {
            let partition = TxnOffsetCommitRequestPartition::default()
                .with_partition_index(number)
                .with_committed_offset(position.offset)
                .with_committed_metadata(Some(StrBytes::from_string(position.metadata)));
            if version >= 2 {
                partition.with_committed_leader_epoch(position.leader_epoch.unwrap_or(-1))
            } else {
                partition
            }
        });
        TxnOffsetCommitRequestTopic::default()
            .with_name(topic_name(&topic))
            .with_partitions(partitions.collect())
    });
    topics.collect()
}

fn transactional_id(coordinator: &Coordinator) -> TransactionalId {
    TransactionalId(StrBytes::from_string(coordinator.key.clone()))
}

fn millis(span: Duration) -> i32 {
    i32::try_from(span.as_millis()).expect("bounded by the property's range")
}

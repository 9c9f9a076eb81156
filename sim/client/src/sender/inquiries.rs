//! What a producer asks before it can send: metadata, a producer id, and that partitions join its transaction.

use std::collections::BTreeSet;
use std::sync::Arc;

use broker::TopicPartition;
use context::{Rng, Timestamp};
use kafka_protocol::messages::{AddPartitionsToTxnResponse, InitProducerIdRequest};

use super::{Event, Sender};
use crate::backoff::Backoff;
use crate::connection::Failed;
use crate::error;
use crate::producer::State;
use crate::transaction::questions::add_partitions;
use crate::transaction::rules::{Ask, Next, read};

/// A partition that was not looked at because of another.
const OPERATION_NOT_ATTEMPTED: i16 = 55;

/// A question that is asked one at a time, and after a failure not at once.
pub(super) struct Inquiry {
    pub(super) wanted: bool,
    pub(super) asking: bool,
    pub(super) not_before: Timestamp,
    pub(super) backoff: Backoff,
}

impl Inquiry {
    pub(super) fn new(backoff: Backoff) -> Inquiry {
        Inquiry { wanted: false, asking: false, not_before: Timestamp::ZERO, backoff }
    }

    pub(super) fn may_ask(&self, now: Timestamp) -> bool {
        !self.asking && self.not_before <= now
    }

    pub(super) fn wait(&mut self, now: Timestamp, rng: &mut Rng) {
        self.not_before = now + self.backoff.next(rng);
    }
}

impl Sender {
    /// Asks for metadata and for a producer id where they are wanted; says when to look again.
    pub(super) fn ask(&mut self, state: &State, now: Timestamp) -> Option<Timestamp> {
        let cluster = self.shared.cluster.clone();
        let topics: BTreeSet<Arc<str>> = state.unplaced.keys().cloned().collect();
        let periodic = cluster.refresh_due();
        self.metadata.wanted |= periodic.is_some_and(|due| due <= now);
        let mut next = periodic;
        if self.metadata.wanted {
            if self.metadata.may_ask(now) {
                self.metadata.wanted = false;
                self.metadata.asking = true;
                let known = cluster.version();
                let cluster = cluster.clone();
                self.events
                    .push(Box::pin(async move { Event::Refreshed(cluster.refresh(&topics, known).await) }));
            }
            next = Some(self.metadata.not_before);
        }
        if self.producer_id.wanted && state.sequences.wants_producer_id() {
            if self.producer_id.may_ask(now) {
                self.producer_id.wanted = false;
                self.producer_id.asking = true;
                self.events.push(Box::pin(async move {
                    let build = |version| {
                        // The codec's default is an empty id, which a broker refuses; no transactions is null.
                        let request = InitProducerIdRequest::default()
                            .with_transactional_id(None)
                            .with_transaction_timeout_ms(-1);
                        if version >= 3 {
                            request.with_producer_id((-1).into()).with_producer_epoch(-1)
                        } else {
                            request
                        }
                    };
                    Event::ProducerId(match cluster.ask_any(build).await {
                        Ok(answer) if answer.body.error_code == 0 => {
                            Ok((answer.body.producer_id.0, answer.body.producer_epoch))
                        }
                        Ok(answer) => Err(error::answered(answer.body.error_code, "a producer id")),
                        Err(error) => Err(error),
                    })
                }));
            }
            next = next.into_iter().chain([self.producer_id.not_before]).min();
        }
        next.filter(|at| *at > now)
    }

    /// Registers partitions with the transaction where that is wanted; says when to look again.
    pub(super) fn register(&mut self, state: &mut State, now: Timestamp) -> Option<Timestamp> {
        if !state.transaction.wants_to_register() {
            return None;
        }
        if !self.registration.may_ask(now) {
            return Some(self.registration.not_before).filter(|at| *at > now);
        }
        let producer = state.sequences.producer()?;
        let partitions = state.transaction.ask_to_register()?;
        self.registration.asking = true;
        let coordinator = self.shared.transactions.coordinator();
        let timeout = self.shared.cluster.settings.socket_timeout;
        self.events.push(Box::pin(async move {
            let request = add_partitions(&coordinator, producer, &partitions);
            let answer = coordinator.try_ask(timeout, i16::MAX, move |_| request).await;
            Event::Registered(answer.map(|answer| answer.body))
        }));
        None
    }

    pub(super) fn registered(
        &mut self,
        state: &mut State,
        answer: Result<AddPartitionsToTxnResponse, Failed>,
        now: Timestamp,
    ) {
        self.registration.asking = false;
        let mut known = BTreeSet::new();
        let mut failure = None;
        let mut uncertain = false;
        match answer {
            Ok(answer) => {
                for topic in answer.results_by_topic_v3_and_below {
                    let name: Arc<str> = topic.name.as_str().into();
                    for result in topic.results_by_partition {
                        let at = TopicPartition::new(name.clone(), result.partition_index);
                        match result.partition_error_code {
                            0 => {
                                known.insert(at);
                            }
                            // Its neighbour's error says more.
                            OPERATION_NOT_ATTEMPTED if failure.is_some() => {}
                            code => failure = Some(error::answered(code, format!("{at} in a transaction"))),
                        }
                    }
                }
            }
            Err(failed) => {
                uncertain = failed.sent;
                failure = Some(failed.error);
            }
        }
        let first = state.transaction.is_first_registration();
        state.transaction.registration_answered(known, uncertain);
        self.shared.settled.notify_waiters();
        let Some(error) = failure else {
            self.registration.backoff.reset();
            return;
        };
        match read(self.shared.cluster.settings.habits, Ask::AddPartitions, error.code, first) {
            Next::Again { elsewhere, wait } => {
                if elsewhere {
                    self.shared.transactions.coordinator().forget();
                }
                let wait = wait.unwrap_or(self.shared.cluster.settings.retry_backoff);
                self.registration.not_before = now + wait;
            }
            // An answer that comes when the transaction is aborted anyway ends nothing but the producer.
            stop => {
                state.stop_transaction(&self.shared, stop, error);
            }
        }
    }
}

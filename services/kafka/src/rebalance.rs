//! Rebalances on their way from librdkafka's callback to [`broker::RebalanceListener`].
//!
//! The callback only notes what librdkafka wants. The consumer takes it up in its poll, where it can wait for commits,
//! and then tells librdkafka to go on; until it does, librdkafka waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker::{Offset, TopicPartition};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::statistics::Statistics as Said;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};
use tokio::sync::Notify;

use crate::partitions;

/// What librdkafka asks the member to do.
#[derive(Debug)]
pub(crate) struct Rebalance {
    pub(crate) change: Change,
    pub(crate) partitions: Vec<TopicPartition>,
    /// Whether the change is relative to what is held (cooperative), or replaces all of it (eager).
    pub(crate) incremental: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Assign,
    Revoke,
    /// Revoked, and others have them already.
    Lose,
}

/// The context of a consumer: shared between librdkafka's callbacks and the consumer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Callbacks(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    rebalances: Mutex<VecDeque<Rebalance>>,
    /// Nobody will take rebalances up any more: they are agreed to at once.
    ended: AtomicBool,
    /// It was closed, so that the group is to be left.
    leaves: AtomicBool,
    /// What was committed, by commits of the consumer's own and by librdkafka's.
    committed: Mutex<BTreeMap<TopicPartition, Offset>>,
    /// The last statistics, until they are taken up.
    said: Mutex<Option<Box<Said>>>,
    /// Counts what a poll served that was no record.
    served: AtomicU64,
    /// Something is there to poll.
    ready: Notify,
}

impl Callbacks {
    pub(crate) fn next(&self) -> Option<Rebalance> {
        self.0.rebalances.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    pub(crate) fn is_waiting(&self) -> bool {
        !self.0.rebalances.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub(crate) fn end(&self) {
        self.0.ended.store(true, Ordering::Release);
    }

    pub(crate) fn leave(&self) {
        self.0.leaves.store(true, Ordering::Release);
        self.end();
    }

    pub(crate) fn leaves(&self) -> bool {
        self.0.leaves.load(Ordering::Acquire)
    }

    pub(crate) fn committed(&self) -> MutexGuard<'_, BTreeMap<TopicPartition, Offset>> {
        self.0.committed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn said(&self) -> Option<Box<Said>> {
        self.0.said.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn served(&self) -> u64 {
        self.0.served.load(Ordering::Relaxed)
    }

    pub(crate) fn wake(&self) {
        self.0.ready.notify_one();
    }

    pub(crate) async fn ready(&self) {
        self.0.ready.notified().await;
    }

    fn serve(&self) {
        self.0.served.fetch_add(1, Ordering::Relaxed);
    }
}

impl ClientContext for Callbacks {
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {
        // What matters comes as an error of a call.
        self.serve();
    }

    fn stats(&self, said: Said) {
        *self.0.said.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(said));
        self.serve();
    }

    fn error(&self, _: KafkaError, _: &str) {
        self.serve();
    }
}

impl ConsumerContext for Callbacks {
    fn rebalance(&self, base: &BaseConsumer<Self>, asked: RDKafkaRespErr, list: &mut TopicPartitionList) {
        self.serve();
        let change = match asked {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Change::Assign,
            _ if base.assignment_lost() => Change::Lose,
            _ => Change::Revoke,
        };
        let incremental = matches!(base.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let rebalance = Rebalance { change, partitions: partitions::names(list), incremental };
        if self.0.ended.load(Ordering::Acquire) {
            // The consumer is being closed: nothing is taken on, all is given up.
            give_up(base, &rebalance).ok();
            return;
        }
        self.0.rebalances.lock().unwrap_or_else(PoisonError::into_inner).push_back(rebalance);
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        if result.is_ok() {
            self.committed().extend(partitions::with_offset(offsets));
        }
        self.serve();
    }
}

/// Takes partitions on. The list says where each starts.
pub(crate) fn take_on(
    base: &BaseConsumer<Callbacks>,
    rebalance: &Rebalance,
    starts: &TopicPartitionList,
) -> KafkaResult<()> {
    if rebalance.incremental { base.incremental_assign(starts) } else { base.assign(starts) }
}

/// Gives up what librdkafka wants back; an assignment is left alone.
pub(crate) fn give_up(base: &BaseConsumer<Callbacks>, rebalance: &Rebalance) -> KafkaResult<()> {
    match rebalance.change {
        Change::Assign => Ok(()),
        _ if rebalance.incremental => base.incremental_unassign(&partitions::list(&rebalance.partitions)),
        _ => base.unassign(),
    }
}

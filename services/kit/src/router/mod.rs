//! Reads a subscription's messages and has them handled: one at a time for each partition, partitions side by side.
//!
//! # Who does what
//! - [`Router`] (here) is the loop around the consumer: polls, hands records to lanes, commits what lanes have done, joins
//!   again after errors, closes in order.
//! - `Listener` opens and closes lanes as partitions come and go.
//! - A `Lane` is a task for one assigned partition; it handles records in their order and says how far it is.
//! - `Innermost` is the innermost layer of the handling: inbox, prepare, transaction, apply.
//!
//! # What holds
//! - Only offsets of settled records are committed, and of a partition only without a gap: a record that fails is tried
//!   until it is settled, and nothing is committed past it (D3.1).
//! - The loop never waits for a handler: it goes on polling, so a slow or retried message costs no membership (D2.7,
//!   D3.3). A partition with a full lane is paused.
//! - A partition that is taken away loses its lane at once; what the lane had settled is committed with the revocation. The
//!   record in work is dropped at an await, hence never within its transaction, and comes again at the next owner.
//!
//! Absent on purpose: order across partitions, and batches.

mod innermost;
mod lane;
mod listener;
mod subscription;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker::{
    Broker, Consumer, ConsumerRecord, Error, ErrorClass, ErrorCode, OffsetAndMetadata, Properties,
    TopicPartition,
};
use context::{Context, Rng, Timestamp};
use tokio::sync::Notify;

use crate::backoff::Backoff;
use crate::metrics::Metrics;
use crate::middleware;
use crate::{Naive, Scope, Store};
use innermost::Innermost;
use lane::{Lane, Pipeline};
use listener::Listener;

pub use subscription::Subscription;

/// Records that wait in a lane before its partition is paused, and at which it is resumed.
const LANE_FULL: usize = 200;
const LANE_LOW: usize = 50;
/// How long a poll waits while lanes work: their progress is committed after it.
const POLL_BUSY: Duration = Duration::from_millis(100);
/// How long a poll waits when nothing is in work.
const POLL_IDLE: Duration = Duration::from_millis(500);
/// How often progress is committed. Less costs redeliveries after a crash, more costs requests.
const COMMIT_EVERY: Duration = Duration::from_millis(200);
/// Waits after an error of the consumer.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));

/// How long a group waits for a member that died before it goes on without it.
///
/// librdkafka's default is 45 s, chosen so that a slow machine loses no membership. A killed replica leaves its orders
/// waiting for as long, longer than a saga's step may take (30 s); a member that is only slow rejoins, and its inbox
/// knows what it has done.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// The consumer's properties that the kit needs: no commit but its own, and a new group begins at the beginning (D0.19).
pub fn properties(group: &str) -> Properties {
    Properties::new()
        .set("group.id", group)
        .set("enable.auto.commit", false)
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", SESSION_TIMEOUT.as_millis())
}

/// What a router needs of its service.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) context: Context,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) metrics: Metrics,
    pub(crate) naive: Naive,
    pub(crate) properties: Properties,
    pub(crate) closing: Closing,
    pub(crate) close_within: Duration,
}

/// Tells the parts of a service to come to an end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Closing {
    shared: Arc<(Mutex<bool>, Notify)>,
}

impl Closing {
    pub(crate) fn begin(&self) {
        *self.shared.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.1.notify_waiters();
    }

    pub(crate) fn has_begun(&self) -> bool {
        *self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn begun(&self) {
        let mut told = std::pin::pin!(self.shared.1.notified());
        told.as_mut().enable();
        if !self.has_begun() {
            told.await;
        }
    }
}

/// The loop of one subscription.
pub(crate) struct Router {
    around: Surroundings,
    topics: Vec<Arc<str>>,
    pipeline: Arc<Pipeline>,
    properties: Properties,
    lanes: Lanes,
    healthy: Arc<AtomicBool>,
}

/// The lanes, shared with the listener that hears of assignments.
#[derive(Clone, Default)]
struct Lanes(Arc<Mutex<BTreeMap<TopicPartition, Lane>>>);

impl Lanes {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TopicPartition, Lane>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Router {
    pub(crate) fn new(around: Surroundings, subscription: Subscription) -> Router {
        let Subscription { group, topics, handler, policy, inner, properties: own } = subscription;
        let mut layers = middleware::standard(policy, &around.metrics);
        layers.extend(inner);
        let scope = Scope {
            context: around.context.clone(),
            store: around.store.clone(),
            group: group.clone(),
            attempt: 0,
            naive: around.naive.clone(),
        };
        let core = Innermost { handler };
        Router {
            properties: properties(&group)
                .set("client.id", around.context.name())
                .with(&around.properties)
                .with(&own),
            around,
            topics,
            pipeline: Arc::new(Pipeline { scope, layers, core }),
            lanes: Lanes::default(),
            healthy: Arc::default(),
        }
    }

    /// True after a poll that went well, false after an error.
    pub(crate) fn health(&self) -> Arc<AtomicBool> {
        self.healthy.clone()
    }

    /// Runs until the service closes, or the host stops.
    pub(crate) async fn run(self) {
        let context = self.around.context.clone();
        let mut rng = context.rng(&format!("router/{}", self.group()));
        let mut failed = 0;
        while !self.around.closing.has_begun() {
            let ended = match self.join().await {
                Ok(consumer) => self.consume(consumer, &mut failed, &mut rng).await,
                Err(error) => Err(error),
            };
            self.lanes.lock().clear();
            let Err(error) = ended else { return };
            self.healthy.store(false, Ordering::Relaxed);
            failed += 1;
            let wait = BACKOFF.wait(failed, &mut rng);
            context.trouble(format_args!("{}: joins anew in {wait:?}: {error}", self.group()));
            context.sleep(wait).await;
        }
    }

    async fn join(&self) -> Result<Box<dyn Consumer>, Error> {
        let mut consumer = self.around.broker.consumer(&self.properties).await?;
        let listener = Listener { lanes: self.lanes.clone(), pipeline: self.pipeline.clone() };
        consumer.subscribe(&self.topics, Box::new(listener)).await?;
        Ok(consumer)
    }

    /// Polls until the service closes (`Ok`) or the consumer can no longer be used.
    async fn consume(
        &self,
        mut consumer: Box<dyn Consumer>,
        failed: &mut u32,
        rng: &mut Rng,
    ) -> Result<(), Error> {
        let context = &self.around.context;
        let mut committed_at = context.now();
        while !self.around.closing.has_begun() {
            match self.round(&mut *consumer, &mut committed_at).await {
                Ok(()) => {
                    *failed = 0;
                    self.healthy.store(true, Ordering::Relaxed);
                }
                Err(error) if error.is_fatal() || error.code == ErrorCode::Closed => return Err(error),
                Err(error) => {
                    *failed += 1;
                    self.healthy.store(false, Ordering::Relaxed);
                    context.trouble(format_args!("{}: {error}", self.group()));
                    context.sleep(BACKOFF.wait(*failed, rng)).await;
                }
            }
        }
        self.close(consumer).await;
        Ok(())
    }

    /// One poll, and a commit when it is time.
    async fn round(&self, consumer: &mut dyn Consumer, committed_at: &mut Timestamp) -> Result<(), Error> {
        let busy = self.lanes.lock().values().any(|lane| !lane.is_idle() || lane.to_commit().is_some());
        // Never dropped in the middle: what a poll has fetched would be lost with it.
        let records = consumer.poll(if busy { POLL_BUSY } else { POLL_IDLE }).await?;
        self.hand_out(records);
        self.check_lanes()?;
        self.hold_back(consumer);
        let now = self.around.context.now();
        if now.since(*committed_at) >= COMMIT_EVERY {
            *committed_at = now;
            self.commit(consumer).await?;
        }
        Ok(())
    }

    fn hand_out(&self, records: Vec<ConsumerRecord>) {
        let mut lanes = self.lanes.lock();
        for record in records {
            // Without a lane its partition was taken away after the record was fetched: its next owner reads it.
            if let Some(lane) = lanes.get_mut(&record.partition) {
                lane.push(record);
            }
        }
    }

    /// A lane ends only with its assignment; one that ended otherwise has panicked, and its partition stands still.
    fn check_lanes(&self) -> Result<(), Error> {
        let lanes = self.lanes.lock();
        let dead = lanes.iter().find(|(_, lane)| lane.is_dead());
        dead.map_or(Ok(()), |(partition, _)| {
            let message = format!("the lane of {partition} has died");
            Err(Error::new(ErrorCode::Closed, ErrorClass::Fatal, message))
        })
    }

    /// Pauses partitions whose lanes are full, resumes those that have room.
    fn hold_back(&self, consumer: &mut dyn Consumer) {
        let mut lanes = self.lanes.lock();
        let (mut full, mut free) = (Vec::new(), Vec::new());
        for (partition, lane) in lanes.iter_mut() {
            let waiting = lane.waiting();
            if !lane.paused && waiting >= LANE_FULL {
                lane.paused = true;
                full.push(partition.clone());
            } else if lane.paused && waiting <= LANE_LOW {
                lane.paused = false;
                free.push(partition.clone());
            }
        }
        if !full.is_empty() {
            consumer.pause(&full);
        }
        if !free.is_empty() {
            consumer.resume(&free);
        }
    }

    /// Commits what lanes have settled. A commit that fails is made again with the next; a rebalance that made it fail
    /// comes out of the next poll.
    async fn commit(&self, consumer: &mut dyn Consumer) -> Result<(), Error> {
        let offsets = progress(&self.lanes.lock());
        if offsets.is_empty() {
            return Ok(());
        }
        match consumer.commit(&offsets).await {
            Ok(()) => {
                let mut lanes = self.lanes.lock();
                for (partition, position) in &offsets {
                    if let Some(lane) = lanes.get_mut(partition) {
                        lane.committed = Some(position.offset);
                    }
                }
                Ok(())
            }
            Err(error) if error.is_fatal() => Err(error),
            Err(error) => {
                self.around.context.trouble(format_args!("{}: commit failed: {error}", self.group()));
                Ok(())
            }
        }
    }

    /// Lets lanes finish what is in work, commits, leaves the group. Lanes that do not finish in time are dropped; what they
    /// had in work comes again.
    async fn close(&self, mut consumer: Box<dyn Consumer>) {
        let context = &self.around.context;
        consumer.pause(&consumer.assignment());
        let drained: Vec<_> = self.lanes.lock().values_mut().map(Lane::drain).collect();
        let all = futures_util::future::join_all(drained);
        if context.timeout(self.around.close_within, all).await.is_err() {
            context.trouble(format_args!("{}: closes with messages in work", self.group()));
        }
        // The listener's `revoked` gives the last offsets to commit.
        if let Err(error) = consumer.close().await {
            context.trouble(format_args!("{}: closed, but {error}", self.group()));
        }
    }

    fn group(&self) -> &str {
        &self.pipeline.scope.group
    }
}

/// What lanes have settled and nobody has committed.
fn progress(lanes: &BTreeMap<TopicPartition, Lane>) -> Vec<(TopicPartition, OffsetAndMetadata)> {
    let position = |(partition, lane): (&TopicPartition, &Lane)| Some((partition.clone(), lane.to_commit()?));
    lanes.iter().filter_map(position).collect()
}

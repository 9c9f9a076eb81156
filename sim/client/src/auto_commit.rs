//! Commits that a consumer makes by itself (`enable.auto.commit`), as each client makes them.
//!
//! librdkafka stores the position after each record that it gives out. A timer that starts with the consumer commits what
//! is stored each time that it fires, also while a handler works on those records (`rd_kafka_cgrp_new`). Java commits from
//! polls alone, so only what an earlier poll gave out: once `auto.commit.interval.ms` is over, the next poll, or one that
//! waits for records at that moment, commits every position that it has, whether or not it moved
//! (`ConsumerCoordinator.maybeAutoCommitOffsetsAsync`, `timeToNextPoll`). Each assignment begins the interval anew
//! (`onJoinComplete`). Before partitions go both commit once more; an unsubscribe does so with librdkafka alone.
//!
//! Deviations: a cooperative member of Java's commits before it joins, and ours before it gives up. Without an interval a
//! poll of Java's that waits commits as fast as it can; ours does so when it begins, and when there is news.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use broker::{OffsetAndMetadata, TopicPartition};
use context::{TaskHandle, Timestamp};

use crate::consumer::Shared;
use crate::properties::Habits;

/// Positions to commit.
pub(crate) type Positions = Vec<(TopicPartition, OffsetAndMetadata)>;

/// The automatic commits of one consumer.
pub(crate) struct AutoCommit {
    shared: Arc<Shared>,
    enabled: bool,
    interval: Duration,
    /// librdkafka's timer, or Java's last commit from a poll.
    task: Option<TaskHandle>,
    /// Java: when a poll commits next.
    due: Arc<Mutex<Timestamp>>,
}

impl AutoCommit {
    pub(crate) fn new(shared: Arc<Shared>) -> AutoCommit {
        let cluster = shared.cluster.clone();
        let (context, settings) = (&cluster.context, &cluster.settings);
        let interval = settings.consumer.auto_commit.filter(|_| shared.coordinator.is_some());
        // Without an interval librdkafka has no timer (`rd_kafka_cgrp_new`).
        let timer = interval.filter(|span| settings.habits == Habits::Librdkafka && !span.is_zero());
        let now = context.now();
        let task = timer.map(|interval| {
            context.spawn("kafka auto-commit", by_timer(shared.clone(), now, interval)).handle()
        });
        let due = now + interval.unwrap_or_default();
        AutoCommit {
            shared,
            enabled: interval.is_some(),
            interval: interval.unwrap_or_default(),
            task,
            due: Arc::new(Mutex::new(due)),
        }
    }

    fn is_java(&self) -> bool {
        self.shared.cluster.settings.habits == Habits::Java
    }

    /// There is a new assignment.
    pub(crate) fn assigned(&self) {
        *lock(&self.due) = self.shared.cluster.context.now() + self.interval;
    }

    /// When a poll that waits for records is to look here again, whatever comes.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        let waits = self.enabled && self.is_java() && !self.interval.is_zero();
        waits.then(|| *lock(&self.due))
    }

    /// A poll begins, or looks again. It does not wait for the commit, but what is committed later is committed later.
    pub(crate) async fn look(&mut self) {
        let context = &self.shared.cluster.context;
        let now = context.now();
        if !self.enabled || !self.is_java() || now < *lock(&self.due) {
            return;
        }
        *lock(&self.due) = now + self.interval;
        let positions = self.shared.reading().positions();
        if positions.is_empty() {
            return;
        }
        // What an earlier one without an answer would have said is said again now.
        if let Some(earlier) = self.task.take() {
            earlier.abort();
        }
        let (shared, due) = (self.shared.clone(), self.due.clone());
        let mut commit = Box::pin(async move {
            // Tried once: a later poll knows more.
            if let Err(error) = shared.commit_once(&positions).await {
                shared.cluster.context.note(format_args!("automatic commit failed: {error}"));
                if error.is_retriable() {
                    let again = shared.cluster.context.now() + shared.cluster.settings.retry_backoff;
                    *lock(&due) = again;
                    // A poll that waits does so until then.
                    shared.news.notify_one();
                }
            }
        });
        // So it stands in the coordinator's queue before anything else that the user commits.
        if poll_fn(|task| Poll::Ready(commit.as_mut().poll(task))).await.is_pending() {
            self.task = Some(context.spawn("kafka auto-commit", commit).handle());
        }
    }

    /// What is to be committed before all partitions go, or `some` of them.
    pub(crate) fn before_they_go(&self, some: Option<&[TopicPartition]>) -> Positions {
        let mut reading = self.shared.reading();
        let stored = match some {
            Some(partitions) => reading.take_uncommitted_of(partitions),
            None => reading.take_uncommitted(),
        };
        match (self.enabled, self.is_java()) {
            (false, _) => Vec::new(),
            (true, false) => stored,
            (true, true) => {
                let mut positions = reading.positions();
                positions.retain(|(at, _)| some.is_none_or(|some| some.contains(at)));
                positions
            }
        }
    }

    /// What is to be committed by an unsubscribe.
    pub(crate) fn before_unsubscribing(&self) -> Positions {
        if self.is_java() { Vec::new() } else { self.before_they_go(None) }
    }
}

impl Drop for AutoCommit {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

fn lock(due: &Mutex<Timestamp>) -> MutexGuard<'_, Timestamp> {
    due.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Commits what is stored each time that a timer fires, which runs since `began`; sleeps through those times at which
/// nothing is stored. Runs until it is aborted.
async fn by_timer(shared: Arc<Shared>, began: Timestamp, interval: Duration) {
    loop {
        shared.polled.notified().await;
        shared.cluster.context.sleep_until(fires_next(began, interval, shared.cluster.context.now())).await;
        let offsets = shared.reading().take_uncommitted();
        let committed = shared.commit(&offsets, shared.cluster.settings.socket_timeout).await;
        if let Err(error) = committed {
            shared.cluster.context.note(format_args!("automatic commit failed: {error}"));
            shared.reading().put_uncommitted_back(offsets);
            if error.is_retriable() {
                shared.polled.notify_one();
            }
        }
    }
}

/// The first time after `now` at which a timer fires that began at `began`.
fn fires_next(began: Timestamp, interval: Duration, now: Timestamp) -> Timestamp {
    let interval_ms = u64::try_from(interval.as_millis()).expect("a setting fits").max(1);
    let fired = (now.as_millis() - began.as_millis()) / interval_ms;
    Timestamp::from_millis(began.as_millis() + (fired + 1) * interval_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_keeps_its_pace_whenever_it_is_asked() {
        let began = Timestamp::from_millis(1_007);
        let next = |now| fires_next(began, Duration::from_secs(5), Timestamp::from_millis(now)).as_millis();
        assert_eq!([next(1_007), next(6_006), next(6_007), next(21_000)], [6_007, 6_007, 11_007, 21_007]);
    }
}

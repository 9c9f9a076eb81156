//! The consumer's background task for reading: finds positions and leaders, and keeps one long poll open to each leader.
//!
//! It is idle but for the answers of those long polls (`fetch.wait.max.ms`). After each change of a leader, and before a
//! committed offset is used, the leader is asked whether its log has what was read before (`validation`). With
//! `client.rack` a leader may send the consumer to a follower: it reads there for [`polls::FOLLOWER_LEASE`], or until
//! anything goes wrong there, and then asks the leader again. Absent: fetch sessions (each request names its partitions).
//!
//! Here is the task. `positions.rs` finds out where to read, `polls.rs` reads, `batches.rs` has what a poll brought.

mod batches;
mod polls;
mod positions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use broker::{Error, ErrorClass, ErrorCode, OffsetAndMetadata, OffsetSpec, TopicPartition};
use context::{BoxFuture, Rng, Timestamp};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use kafka_protocol::messages::FetchResponse;

use crate::backoff::{Backoff, after_failures};
use crate::cluster::{NodeId, topic_error};
use crate::connection::Answered;
use crate::consumer::Shared;
use crate::offsets::Listed;
use crate::properties::OffsetReset;
use crate::reading::Reading;
use crate::validation::EpochEnds;

/// A partition with the version of its position when it was asked about.
type Asked = (TopicPartition, u64);

enum Event {
    Refreshed(Result<(), Error>),
    Committed(Vec<Asked>, Result<Vec<(TopicPartition, OffsetAndMetadata)>, Error>),
    Listed(Vec<Asked>, Result<Vec<Listed>, Error>),
    Validated(Vec<Asked>, Result<EpochEnds, Error>),
    Fetched(NodeId, BTreeMap<TopicPartition, u64>, Result<Answered<FetchResponse>, Error>),
}

/// The task. See [`Fetcher::run`].
pub(crate) struct Fetcher {
    shared: Arc<Shared>,
    events: FuturesUnordered<BoxFuture<'static, Event>>,
    fetching: BTreeSet<NodeId>,
    refresh_wanted: bool,
    refreshing: bool,
    refresh_not_before: Timestamp,
    refresh_backoff: Backoff,
    /// Topics whose absence was reported already.
    reported: BTreeSet<Arc<str>>,
    /// Moves the partition that a fetch names first, so that `fetch.max.bytes` starves none.
    rotation: usize,
    rng: Rng,
}

impl Fetcher {
    pub(crate) fn new(shared: Arc<Shared>) -> Fetcher {
        Fetcher {
            refresh_backoff: shared.cluster.metadata_backoff(),
            rng: shared.cluster.rng("fetcher"),
            shared,
            events: FuturesUnordered::new(),
            fetching: BTreeSet::new(),
            refresh_wanted: false,
            refreshing: false,
            refresh_not_before: Timestamp::ZERO,
            reported: BTreeSet::new(),
            rotation: 0,
        }
    }

    /// Runs until it is aborted.
    pub(crate) async fn run(mut self) {
        let shared = self.shared.clone();
        loop {
            let next = self.act();
            let sleep = async {
                match next {
                    Some(at) => shared.cluster.context.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(event) = self.events.next(), if !self.events.is_empty() => self.handle(event),
                () = shared.work.notified() => {}
                () = sleep => {}
            }
        }
    }

    /// Asks all that can be asked now; says when to look again if nothing happens before.
    fn act(&mut self) -> Option<Timestamp> {
        let shared = self.shared.clone();
        let now = shared.cluster.context.now();
        let mut reading = shared.reading();
        self.find_leaders(&mut reading);
        self.ask_committed(&mut reading, now);
        self.ask_ends(&mut reading, now);
        self.validate(&mut reading, now);
        self.fetch(&mut reading, now);
        let waits = reading.iter_mut().map(|(_, cursor)| cursor.not_before).filter(|at| *at > now).min();
        let refresh = self.refresh(&mut reading, now);
        waits.into_iter().chain(refresh).min()
    }

    fn find_leaders(&mut self, reading: &mut Reading) {
        let mut missing = Vec::new();
        for (at, _) in reading.iter_mut() {
            if self.shared.cluster.leader(at).is_some() {
                self.reported.remove(&at.topic);
                continue;
            }
            self.refresh_wanted = true;
            let unknown = self.shared.cluster.topic_error_code(&at.topic) != 0;
            if unknown && self.reported.insert(at.topic.clone()) {
                missing.push(at.topic.clone());
            }
        }
        for topic in missing {
            let code = self.shared.cluster.topic_error_code(&topic);
            reading.report(topic_error(&topic, code));
            self.shared.news.notify_one();
        }
    }

    /// Asks for metadata where it is wanted or due; says when to look again.
    fn refresh(&mut self, reading: &mut Reading, now: Timestamp) -> Option<Timestamp> {
        let cluster = &self.shared.cluster;
        let due = cluster.refresh_due();
        self.refresh_wanted |= due.is_some_and(|due| due <= now);
        if !self.refresh_wanted || self.refreshing {
            return due.filter(|at| *at > now);
        }
        if self.refresh_not_before > now {
            return Some(self.refresh_not_before);
        }
        self.refresh_wanted = false;
        self.refreshing = true;
        let (cluster, known) = (cluster.clone(), cluster.version());
        let held: BTreeSet<Arc<str>> = reading.iter_mut().map(|(at, _)| at.topic.clone()).collect();
        self.events.push(Box::pin(async move { Event::Refreshed(cluster.refresh(&held, known).await) }));
        None
    }

    fn handle(&mut self, event: Event) {
        let shared = self.shared.clone();
        let now = shared.cluster.context.now();
        let mut reading = shared.reading();
        match event {
            Event::Refreshed(result) => {
                self.refreshing = false;
                let all_led = reading.iter_mut().all(|(at, _)| shared.cluster.leader(at).is_some());
                if result.is_ok() && all_led {
                    self.refresh_backoff.reset();
                }
                self.refresh_not_before = now + self.refresh_backoff.next(&mut self.rng);
            }
            Event::Committed(asked, offsets) => self.position_by_group(&mut reading, asked, offsets, now),
            Event::Listed(asked, offsets) => self.position_by_log(&mut reading, asked, offsets, now),
            Event::Validated(asked, ends) => self.take_in_validation(&mut reading, asked, ends, now),
            Event::Fetched(source, asked, answer) => {
                self.fetching.remove(&source);
                self.take_in(&mut reading, &asked, answer, now);
            }
        }
    }

    fn retry_at(&mut self, now: Timestamp) -> Timestamp {
        let settings = &self.shared.cluster.settings;
        now + after_failures(settings.retry_backoff, settings.retry_backoff_max, 1, &mut self.rng)
    }
}

impl Shared {
    /// What `auto.offset.reset` asks for; `None` for `error`.
    fn reset_spec(&self) -> Option<OffsetSpec> {
        match self.cluster.settings.consumer.auto_offset_reset {
            OffsetReset::Earliest => Some(OffsetSpec::Earliest),
            OffsetReset::Latest => Some(OffsetSpec::Latest),
            OffsetReset::Error => None,
        }
    }
}

fn no_offset(at: &TopicPartition, why: &str) -> Error {
    let text = format!("no offset to read {at} from: {why}, and `auto.offset.reset` is `error`");
    Error::new(ErrorCode::OffsetOutOfRange, ErrorClass::Failed, text)
}

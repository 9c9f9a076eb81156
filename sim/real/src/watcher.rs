//! Looks at the cluster from outside, again and again: which groups are stable, what they have committed, where logs end.
//!
//! The runner asks at every step of time and must not wait for a broker; so it is told what was seen last, as long as that
//! is fresh, and else that nothing can be told. The eyes are the wire client of the simulation, over TCP.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker::{Admin, Broker, Error, OffsetSpec, Properties, TopicPartition};
use client::WireBroker;
use context::{Context, Timestamp};
use harness::stage::Offsets;
use harness::system::Group;

use crate::names::Prefix;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(200);
/// A look that takes longer is given up.
const LOOK: Duration = Duration::from_secs(5);
/// What was seen longer ago is not told.
const FRESH: Duration = Duration::from_secs(2);
/// A group is called stable when it has been for so long: a member that has just been given its partitions still asks where
/// to begin, and librdkafka takes its time over it (`retry.backoff.ms`, half a second between two looks).
const SETTLED: Duration = Duration::from_secs(3);

/// What there is to look at.
#[derive(Clone, Debug)]
pub(crate) struct Sights {
    pub(crate) groups: Vec<Group>,
    pub(crate) partitions: u32,
    pub(crate) prefix: Prefix,
}

/// What was seen.
#[derive(Debug, Default)]
struct Seen {
    at: Timestamp,
    /// Since when, by group.
    stable: BTreeMap<String, Timestamp>,
    ends: Offsets,
    committed: BTreeMap<String, Offsets>,
}

/// Looks from the moment it is made until its host stops.
#[derive(Clone)]
pub(crate) struct Watcher {
    context: Context,
    broker: Arc<WireBroker>,
    sights: Arc<Sights>,
    seen: Arc<Mutex<Option<Seen>>>,
}

impl Watcher {
    pub(crate) fn new(context: Context, bootstrap: &str, sights: Sights) -> Watcher {
        let properties = Properties::new().set("bootstrap.servers", bootstrap);
        let broker = Arc::new(WireBroker::new(context.clone(), properties));
        let watcher =
            Watcher { context: context.clone(), broker, sights: Arc::new(sights), seen: Arc::default() };
        let looking = watcher.clone();
        context.spawn("watcher", async move { looking.look_on().await });
        watcher
    }

    async fn look_on(self) {
        loop {
            // Else a broker is down, or a topic not there yet: what was seen last grows stale, and the next look may succeed.
            if let Ok(Ok(seen)) = self.context.timeout(LOOK, self.look()).await {
                *self.seen() = Some(seen);
            }
            self.context.sleep(EVERY).await;
        }
    }

    async fn look(&self) -> Result<Seen, Error> {
        let committed_only = Properties::new().set("isolation.level", "read_committed");
        let admin = self.broker.admin(&committed_only).await?;
        let Sights { groups, prefix, .. } = &*self.sights;
        let at = self.context.now();
        let names: Vec<String> = groups.iter().map(|group| prefix.put(&group.id)).collect();
        let described = admin.describe_groups(&names.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        let stable = described.iter().filter(|group| group.state == "Stable" && !group.members.is_empty());
        let before = self.seen().as_ref().map(|seen| seen.stable.clone()).unwrap_or_default();
        let stable = stable.map(|group| prefix.take(&group.group_id).to_owned());
        let stable = stable.map(|group| (group.clone(), before.get(&group).copied().unwrap_or(at))).collect();
        // The ends first: what is written in between makes a group look further than it is for one look only.
        let ends = self.ask_ends(&*admin).await?;
        let mut committed = BTreeMap::new();
        for group in groups {
            let offsets = admin.group_offsets(&prefix.put(&group.id)).await?;
            let offsets = offsets.into_iter().map(|(at, committed)| (self.key(&at), committed.offset));
            committed.insert(group.id.clone(), offsets.collect());
        }
        Ok(Seen { at, stable, ends, committed })
    }

    async fn ask_ends(&self, admin: &dyn Admin) -> Result<Offsets, Error> {
        let topics: BTreeSet<&String> = self.sights.groups.iter().flat_map(|group| &group.topics).collect();
        let partitions = i32::try_from(self.sights.partitions).expect("a topic's partitions fit");
        let of = |topic: &String| {
            let topic: Arc<str> = self.sights.prefix.put(topic).into();
            (0..partitions)
                .map(move |partition| (TopicPartition::new(topic.clone(), partition), OffsetSpec::Latest))
        };
        let asked: Vec<_> = topics.into_iter().flat_map(of).collect();
        let ends = admin.list_offsets(&asked).await?;
        Ok(ends.into_iter().map(|(at, end)| (self.key(&at), end)).collect())
    }

    fn key(&self, at: &TopicPartition) -> (String, i32) {
        (self.sights.prefix.take(&at.topic).to_owned(), at.partition)
    }

    fn seen(&self) -> MutexGuard<'_, Option<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was seen last, if that is fresh.
    fn tell<T>(&self, what: impl FnOnce(&Seen) -> T) -> Option<T> {
        let now = self.context.now();
        self.seen().as_ref().filter(|seen| now.since(seen.at) <= FRESH).map(what)
    }

    pub(crate) fn is_stable(&self, group: &str) -> bool {
        let settled =
            |seen: &Seen| seen.stable.get(group).is_some_and(|since| seen.at.since(*since) >= SETTLED);
        self.tell(settled).unwrap_or(false)
    }

    pub(crate) fn ends(&self) -> Option<Offsets> {
        self.tell(|seen| seen.ends.clone())
    }

    pub(crate) fn committed(&self, group: &str) -> Option<Offsets> {
        self.tell(|seen| seen.committed.get(group).cloned().unwrap_or_default())
    }

    /// The node that leads a partition now.
    pub(crate) async fn leader_of(&self, topic: &str, partition: i32) -> Result<Option<i32>, Error> {
        let admin = self.broker.admin(&Properties::new()).await?;
        let described = admin.describe_topics(&[&self.sights.prefix.put(topic)]).await?;
        let found = described.iter().flat_map(|topic| &topic.partitions);
        Ok(found.into_iter().find(|found| found.partition == partition).and_then(|found| found.leader))
    }

    /// Takes the run's topics and groups out of the cluster.
    pub(crate) async fn clean(&self) -> Result<(), Error> {
        let admin = self.broker.admin(&Properties::new()).await?;
        let prefix = self.sights.prefix.as_str();
        let topics = admin.describe_topics(&[]).await?;
        let ours: Vec<&str> =
            topics.iter().map(|topic| &*topic.name).filter(|name| name.starts_with(prefix)).collect();
        if !ours.is_empty() {
            admin.delete_topics(&ours).await?;
        }
        let groups = admin.list_groups().await?;
        let ours: Vec<&str> =
            groups.iter().map(|group| group.group_id.as_str()).filter(|id| id.starts_with(prefix)).collect();
        if ours.is_empty() { Ok(()) } else { admin.delete_groups(&ours).await }
    }
}

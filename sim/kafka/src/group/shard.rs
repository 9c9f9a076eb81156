//! One partition of the offsets topic: its groups and their offsets, as Kafka's `GroupCoordinatorShard`.
//!
//! Records that are in the log are applied with [`Shard::replay`], whether just appended or read back when a broker takes
//! the partition over. Who coordinates it, and when it is loaded, is the [`super::Coordinator`]'s.

use std::collections::{BTreeMap, BTreeSet};

use context::Timestamp;

use super::classic::{Answer, ClassicGroup, Decision, GroupSettings, State};
use super::offsets::{OffsetStore, View};
use super::records::{GroupRecord, StoredGroup};

/// One entry of the partition's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A record at its offset, perhaps of a producer's transaction.
    Record {
        /// Where it is.
        at: i64,
        /// Of a transaction.
        producer: Option<i64>,
        /// What it says.
        record: GroupRecord,
    },
    /// The marker that ends a transaction.
    Marker {
        /// Where it is.
        at: i64,
        /// Whose.
        producer: i64,
        /// Or abort.
        commit: bool,
    },
}

/// A group that is here.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) group: ClassicGroup,
    /// Where the log ended when the group came to be: readers of committed state do not see it before.
    created_at: i64,
    /// The deadline that the broker was last told.
    pub(super) armed: Option<Timestamp>,
}

/// The groups and offsets of one partition of the offsets topic.
#[derive(Clone, Debug)]
pub struct Shard {
    settings: GroupSettings,
    /// The leader's epoch under which this broker took it over.
    pub(super) epoch: i32,
    /// `false` while its log is read.
    pub(super) loaded: bool,
    /// The end of what this coordinator has written: later operations build on all before it.
    pub(super) written: i64,
    pub(super) groups: BTreeMap<String, Held>,
    pub(super) offsets: OffsetStore,
    /// When it looks for expired offsets again.
    pub(super) expiry: Option<Timestamp>,
}

impl Shard {
    pub(super) fn new(settings: GroupSettings, epoch: i32) -> Shard {
        Shard {
            settings,
            epoch,
            loaded: false,
            written: 0,
            groups: BTreeMap::new(),
            offsets: OffsetStore::default(),
            expiry: None,
        }
    }

    /// Reads a log back, up to its end. Groups go on with their last generation, and sessions begin anew.
    pub(super) fn load(
        &mut self,
        now: Timestamp,
        entries: impl IntoIterator<Item = Entry>,
        log_end: i64,
        high_watermark: i64,
        out: &mut BTreeMap<String, Vec<Answer>>,
    ) {
        for entry in entries {
            self.replay(now, entry, high_watermark);
        }
        self.loaded = true;
        self.written = log_end;
        for (name, held) in &mut self.groups {
            let mut answers = Vec::new();
            held.group.loaded(now, &mut answers);
            out.insert(name.clone(), answers);
        }
    }

    /// Applies what is in the log.
    pub(super) fn replay(&mut self, now: Timestamp, entry: Entry, high_watermark: i64) {
        match entry {
            Entry::Record { at, producer, record } => match record {
                GroupRecord::Offset { group, topic, partition, value } => {
                    if value.is_some() && !self.groups.contains_key(&group) {
                        // Offsets alone make a group: one without members or a protocol type.
                        self.create(now, &group, at);
                    }
                    self.offsets.apply(at, producer, &group, &topic, partition, value, high_watermark);
                }
                GroupRecord::Group { group, value: Some(stored) } => {
                    let restored = ClassicGroup::restore(now, group.clone(), self.settings, &stored);
                    let created_at = self.groups.get(&group).map_or(at, |held| held.created_at);
                    self.groups.insert(group, Held { group: restored, created_at, armed: None });
                }
                GroupRecord::Group { group, value: None } => _ = self.groups.remove(&group),
            },
            Entry::Marker { at, producer, commit } => {
                let touched = self.offsets.end_transaction(at, producer, commit, high_watermark);
                for group in touched {
                    // The group's tombstone may have come between the offsets and the marker.
                    let has_offsets = self.offsets.of_group(View::Latest, &group).next().is_some();
                    if has_offsets && !self.groups.contains_key(&group) {
                        self.create(now, &group, at);
                    }
                }
            }
        }
    }

    pub(super) fn create(&mut self, now: Timestamp, group: &str, created_at: i64) -> &mut Held {
        let held = Held { group: ClassicGroup::new(now, group, self.settings), created_at, armed: None };
        self.groups.entry(group.to_owned()).or_insert(held)
    }

    /// A group, as readers of `view` see it.
    pub fn group(&self, view: View, name: &str) -> Option<&ClassicGroup> {
        let held = self.groups.get(name)?;
        is_seen(held, view).then_some(&held.group)
    }

    /// All groups, as readers of `view` see them.
    pub fn groups(&self, view: View) -> impl Iterator<Item = (&str, &ClassicGroup)> {
        let seen = self.groups.iter().filter(move |(_, held)| is_seen(held, view));
        seen.map(|(name, held)| (name.as_str(), &held.group))
    }

    /// The offsets.
    pub fn offsets(&self) -> &OffsetStore {
        &self.offsets
    }

    /// The leader's epoch under which this broker took the partition over.
    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    /// The end of what was written by this coordinator, which its later answers must wait for.
    pub fn written(&self) -> i64 {
        self.written
    }

    /// A group as it must be written for a decision of its own.
    pub fn record(&self, name: &str, decision: Option<&Decision>) -> GroupRecord {
        let group = &self.groups[name].group;
        let stored = match decision {
            Some(Decision::Create { .. }) => StoredGroup::empty(group),
            Some(Decision::Assign { assignments, .. }) => StoredGroup::of(group, Some(assignments)),
            Some(Decision::Replace(_)) | None => StoredGroup::of(group, None),
        };
        GroupRecord::Group { group: name.to_owned(), value: Some(stored) }
    }

    /// The tombstones of a group and all its offsets.
    pub fn tombstones(&self, name: &str) -> Vec<GroupRecord> {
        let offsets = self.offsets.partitions(name).into_iter();
        let offsets = offsets.map(|(topic, partition)| tombstone(name, &topic, partition));
        offsets.chain([GroupRecord::Group { group: name.to_owned(), value: None }]).collect()
    }

    /// The tombstones of what any group has committed for a topic.
    pub fn tombstones_of_topic(&self, topic: &str) -> Vec<GroupRecord> {
        let found = self.offsets.with_topic(topic).into_iter();
        found.map(|(group, partition)| tombstone(&group, topic, partition)).collect()
    }

    /// The tombstones of offsets that have expired, and of groups without members that have none left (KIP-211). An offset
    /// that an open transaction would replace stays, and so does its group.
    pub fn expired(&self, now_ms: i64, retention_ms: i64) -> Vec<GroupRecord> {
        let mut records = Vec::new();
        for (name, held) in &self.groups {
            let mut all = !self.offsets.has_open_transaction(name);
            for (topic, partition, committed) in self.offsets.of_group(View::Latest, name) {
                let unused_since = held.group.unused_since_ms(topic, committed.commit_timestamp_ms);
                let expired = unused_since.is_some_and(|since| match committed.expire_timestamp_ms {
                    Some(expire) => now_ms >= expire,
                    None => now_ms - since >= retention_ms,
                });
                if expired && !self.offsets.has_pending(name, topic, partition) {
                    records.push(tombstone(name, topic, partition));
                } else {
                    all = false;
                }
            }
            if all && held.group.state() == State::Empty {
                records.push(GroupRecord::Group { group: name.clone(), value: None });
            }
        }
        records
    }

    /// The names of its groups.
    pub fn names(&self) -> BTreeSet<String> {
        self.groups.keys().cloned().collect()
    }
}

fn is_seen(held: &Held, view: View) -> bool {
    match view {
        View::Latest => true,
        View::Committed(high_watermark) => held.created_at < high_watermark,
    }
}

fn tombstone(group: &str, topic: &str, partition: i32) -> GroupRecord {
    GroupRecord::Offset { group: group.to_owned(), topic: topic.to_owned(), partition, value: None }
}

#[cfg(test)]
mod tests;

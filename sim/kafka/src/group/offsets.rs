//! What the groups of one partition of the offsets topic have committed, as Kafka's `OffsetMetadataManager` keeps it.
//!
//! Each record is applied as soon as it is in the log, and later operations build on it; but a plain OffsetFetch reads
//! only what the high watermark has passed, so an offset that may yet be lost is not told. Kafka keeps snapshots for that
//! (its timeline structures); here each offset keeps the versions that are not committed yet and the last one that is.
//!
//! Offsets committed in a transaction are *pending* until its marker comes. A commit outside of the transaction may come
//! in between; the later record in the log wins, whenever the marker comes (KAFKA-15653 is why the place of the record is
//! kept with each offset).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a group has committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next record to read.
    pub offset: i64,
    /// Of the last record read; -1 if the client did not say.
    pub leader_epoch: i32,
    /// The client's own words.
    pub metadata: String,
    /// When it was committed, in milliseconds.
    pub commit_timestamp_ms: i64,
    /// When it expires, in milliseconds, where the client said so (OffsetCommit 2 to 4).
    pub expire_timestamp_ms: Option<i64>,
}

/// An offset and where in the log its record is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Recorded {
    committed: CommittedOffset,
    record_offset: i64,
}

/// One partition's offset: what the last record says, and what readers of committed state may still see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Slot {
    latest: Option<Recorded>,
    /// The place in the log of the record or marker that brought `latest`.
    since: i64,
    /// Older versions, oldest first, each with the place in the log that brought it.
    before: VecDeque<(i64, Option<Recorded>)>,
}

impl Slot {
    /// Puts a new version; of the old ones only those stay that a reader up to `high_watermark` or beyond may see.
    fn put(&mut self, at: i64, value: Option<Recorded>, high_watermark: i64) {
        let old = std::mem::replace(&mut self.latest, value);
        self.before.push_back((self.since, old));
        self.since = at;
        if at < high_watermark {
            return self.before.clear();
        }
        while self.before.get(1).is_some_and(|(next, _)| *next < high_watermark) {
            self.before.pop_front();
        }
    }

    fn read(&self, high_watermark: i64) -> Option<&Recorded> {
        if self.since < high_watermark {
            return self.latest.as_ref();
        }
        let seen = self.before.iter().rev().find(|(since, _)| *since < high_watermark);
        seen.and_then(|(_, value)| value.as_ref())
    }
}

type ByPartition<T> = BTreeMap<String, BTreeMap<i32, T>>;

fn get<'a, T>(of: &'a ByPartition<T>, topic: &str, partition: i32) -> Option<&'a T> {
    of.get(topic)?.get(&partition)
}

fn remove<T>(of: &mut ByPartition<T>, topic: &str, partition: i32) {
    if let Some(of_topic) = of.get_mut(topic) {
        of_topic.remove(&partition);
        if of_topic.is_empty() {
            of.remove(topic);
        }
    }
}

/// A removed offset whose removal may not be committed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Grave {
    at: i64,
    group: String,
    topic: String,
    partition: i32,
}

/// The offsets of one partition of the offsets topic.
#[derive(Clone, Debug, Default)]
pub struct OffsetStore {
    by_group: BTreeMap<String, ByPartition<Slot>>,
    /// By producer id, then group: offsets of transactions that are open.
    pending: BTreeMap<i64, BTreeMap<String, ByPartition<Recorded>>>,
    /// The producers with an open transaction, by group.
    open: BTreeMap<String, BTreeSet<i64>>,
    graves: VecDeque<Grave>,
}

/// Which state a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// What the last record says.
    Latest,
    /// What the records before this offset say: the high watermark of the partition.
    Committed(i64),
}

impl OffsetStore {
    /// Applies the record of a commit, or a tombstone, at its place in the log. `producer` is that of a transaction.
    #[expect(clippy::too_many_arguments, reason = "a record's key, value and place")]
    pub fn apply(
        &mut self,
        at: i64,
        producer: Option<i64>,
        group: &str,
        topic: &str,
        partition: i32,
        value: Option<CommittedOffset>,
        high_watermark: i64,
    ) {
        self.bury(high_watermark);
        let Some(committed) = value else {
            return self.forget(at, group, topic, partition, high_watermark);
        };
        let recorded = Recorded { committed, record_offset: at };
        match producer {
            None => self.put(at, group, topic, partition, Some(recorded), high_watermark),
            Some(producer) => {
                self.open.entry(group.to_owned()).or_default().insert(producer);
                let of_group = self.pending.entry(producer).or_default().entry(group.to_owned()).or_default();
                of_group.entry(topic.to_owned()).or_default().insert(partition, recorded);
            }
        }
    }

    fn put(
        &mut self,
        at: i64,
        group: &str,
        topic: &str,
        partition: i32,
        value: Option<Recorded>,
        high_watermark: i64,
    ) {
        // Commits are hot: names are copied only for what is new.
        let slot = self
            .by_group
            .get_mut(group)
            .and_then(|of| of.get_mut(topic))
            .and_then(|of| of.get_mut(&partition));
        if let Some(slot) = slot {
            return slot.put(at, value, high_watermark);
        }
        let slot = Slot { latest: value, since: at, before: VecDeque::new() };
        let of_group = self.by_group.entry(group.to_owned()).or_default();
        of_group.entry(topic.to_owned()).or_default().insert(partition, slot);
    }

    fn forget(&mut self, at: i64, group: &str, topic: &str, partition: i32, high_watermark: i64) {
        if self.by_group.get(group).and_then(|of| get(of, topic, partition)).is_some() {
            self.put(at, group, topic, partition, None, high_watermark);
            let (group, topic) = (group.to_owned(), topic.to_owned());
            self.graves.push_back(Grave { at, group, topic, partition });
        }
        for producer in self.open.get(group).into_iter().flatten() {
            if let Some(of_group) = self.pending.get_mut(producer).and_then(|of| of.get_mut(group)) {
                remove(of_group, topic, partition);
            }
        }
    }

    /// Lets go of removed offsets that nobody can read any more.
    fn bury(&mut self, high_watermark: i64) {
        while let Some(Grave { at, group, topic, partition }) =
            self.graves.pop_front_if(|grave| grave.at < high_watermark)
        {
            let Some(of_group) = self.by_group.get_mut(&group) else { continue };
            if get(of_group, &topic, partition).is_some_and(|slot| slot.latest.is_none() && slot.since == at)
            {
                remove(of_group, &topic, partition);
                if of_group.is_empty() {
                    self.by_group.remove(&group);
                }
            }
        }
    }

    /// Applies the marker that ends a producer's transaction, at its place in the log. Gives the groups it touched.
    pub fn end_transaction(
        &mut self,
        at: i64,
        producer: i64,
        commit: bool,
        high_watermark: i64,
    ) -> BTreeSet<String> {
        self.bury(high_watermark);
        let Some(pending) = self.pending.remove(&producer) else { return BTreeSet::new() };
        let groups: BTreeSet<String> = pending.keys().cloned().collect();
        for group in &groups {
            let open =
                self.open.get_mut(group).expect("a group with pending offsets has an open transaction");
            open.remove(&producer);
            if open.is_empty() {
                self.open.remove(group);
            }
        }
        if !commit {
            return groups;
        }
        for (group, topics) in pending {
            for (topic, partitions) in topics {
                for (partition, recorded) in partitions {
                    let known = self.by_group.get(&group).and_then(|of| get(of, &topic, partition));
                    let known = known.and_then(|slot| slot.latest.as_ref());
                    if known.is_none_or(|known| known.record_offset < recorded.record_offset) {
                        self.put(at, &group, &topic, partition, Some(recorded), high_watermark);
                    }
                }
            }
        }
        groups
    }

    /// What a group has committed for a partition.
    pub fn get(&self, view: View, group: &str, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        let slot = get(self.by_group.get(group)?, topic, partition)?;
        seen(slot, view)
    }

    /// All that a group has committed.
    pub fn of_group(&self, view: View, group: &str) -> impl Iterator<Item = (&str, i32, &CommittedOffset)> {
        let topics = self.by_group.get(group).into_iter().flatten();
        topics.flat_map(move |(topic, partitions)| {
            let seen = partitions.iter().filter_map(move |(index, slot)| Some((*index, seen(slot, view)?)));
            seen.map(|(index, committed)| (topic.as_str(), index, committed))
        })
    }

    /// Whether an open transaction has an offset for a partition.
    pub fn has_pending(&self, group: &str, topic: &str, partition: i32) -> bool {
        self.open.get(group).into_iter().flatten().any(|producer| {
            let of_group = self.pending.get(producer).and_then(|of| of.get(group));
            of_group.is_some_and(|of_group| get(of_group, topic, partition).is_some())
        })
    }

    /// Whether a transaction with offsets of a group is open.
    pub fn has_open_transaction(&self, group: &str) -> bool {
        self.open.contains_key(group)
    }

    /// The partitions with an offset of a group, committed or pending.
    pub fn partitions(&self, group: &str) -> BTreeSet<(String, i32)> {
        let mut found: BTreeSet<_> =
            self.of_group(View::Latest, group).map(|(topic, index, _)| (topic.to_owned(), index)).collect();
        for producer in self.open.get(group).into_iter().flatten() {
            let topics = self.pending.get(producer).and_then(|of| of.get(group)).into_iter().flatten();
            found.extend(
                topics.flat_map(|(topic, partitions)| partitions.keys().map(|index| (topic.clone(), *index))),
            );
        }
        found
    }

    /// The groups and partitions with an offset, committed or pending, for a topic.
    pub fn with_topic(&self, topic: &str) -> BTreeSet<(String, i32)> {
        let mut found = BTreeSet::new();
        for (group, topics) in &self.by_group {
            let slots = topics.get(topic).into_iter().flatten();
            let held = slots.filter(|(_, slot)| slot.latest.is_some());
            found.extend(held.map(|(index, _)| (group.clone(), *index)));
        }
        for (group, topics) in self.pending.values().flatten() {
            found.extend(topics.get(topic).into_iter().flatten().map(|(index, _)| (group.clone(), *index)));
        }
        found
    }
}

fn seen(slot: &Slot, view: View) -> Option<&CommittedOffset> {
    let recorded = match view {
        View::Latest => slot.latest.as_ref(),
        View::Committed(high_watermark) => slot.read(high_watermark),
    };
    recorded.map(|recorded| &recorded.committed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(offset: i64) -> Option<CommittedOffset> {
        Some(CommittedOffset {
            offset,
            leader_epoch: -1,
            metadata: String::new(),
            commit_timestamp_ms: 0,
            expire_timestamp_ms: None,
        })
    }

    fn read(store: &OffsetStore, view: View) -> Option<i64> {
        store.get(view, "g", "t", 0).map(|committed| committed.offset)
    }

    #[test]
    fn a_reader_sees_what_the_high_watermark_has_passed() {
        let mut store = OffsetStore::default();
        store.apply(10, None, "g", "t", 0, commit(1), 10);
        assert_eq!(read(&store, View::Committed(10)), None);
        store.apply(11, None, "g", "t", 0, commit(2), 10);
        store.apply(12, None, "g", "t", 0, None, 10);
        let seen = [10, 11, 12, 13].map(|high_watermark| read(&store, View::Committed(high_watermark)));
        assert_eq!(seen, [None, Some(1), Some(2), None]);
        assert_eq!(read(&store, View::Latest), None);
        store.apply(13, None, "g", "u", 0, commit(2), 13);
        assert_eq!(store.by_group["g"].len(), 1, "the removed offset is let go of");
    }

    #[test]
    fn versions_that_nobody_can_read_are_let_go_of() {
        let mut store = OffsetStore::default();
        (0..100).for_each(|at| store.apply(at, None, "g", "t", 0, commit(at), at));
        assert!(store.by_group["g"]["t"][&0].before.len() <= 1);
        assert_eq!(read(&store, View::Committed(99)), Some(98));
    }

    #[test]
    fn offsets_of_a_transaction_wait_for_its_marker() {
        let mut store = OffsetStore::default();
        store.apply(0, None, "g", "t", 0, commit(1), 0);
        store.apply(1, Some(7), "g", "t", 0, commit(5), 1);
        assert_eq!(read(&store, View::Latest), Some(1));
        assert!(store.has_pending("g", "t", 0) && !store.has_pending("g", "t", 1));
        let mut aborted = store.clone();
        aborted.end_transaction(2, 7, false, 2);
        assert_eq!((read(&aborted, View::Latest), aborted.has_pending("g", "t", 0)), (Some(1), false));
        store.end_transaction(2, 7, true, 2);
        assert_eq!(read(&store, View::Latest), Some(5));
        assert_eq!(read(&store, View::Committed(2)), Some(1), "the marker is not committed");
        assert!(!store.has_open_transaction("g"));
    }

    #[test]
    fn of_a_commit_in_and_one_outside_of_a_transaction_the_later_record_wins() {
        let mut store = OffsetStore::default();
        store.apply(0, Some(7), "g", "t", 0, commit(5), 0);
        store.apply(1, None, "g", "t", 0, commit(3), 0);
        store.end_transaction(2, 7, true, 0);
        assert_eq!(read(&store, View::Latest), Some(3));
    }

    #[test]
    fn a_tombstone_takes_the_pending_offset_with_it() {
        let mut store = OffsetStore::default();
        store.apply(0, Some(7), "g", "t", 0, commit(5), 0);
        assert_eq!(store.with_topic("t").len(), 1);
        store.apply(1, None, "g", "t", 0, None, 0);
        assert!(!store.has_pending("g", "t", 0));
        store.end_transaction(2, 7, true, 3);
        assert_eq!(read(&store, View::Latest), None);
    }
}

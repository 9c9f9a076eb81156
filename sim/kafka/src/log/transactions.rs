//! The transactions of one partition, as a replica sees them: open, ended but not yet replicated, aborted.
//!
//! Who is in a transaction is the coordinator's knowledge. A replica knows only what its log says: a producer's first
//! transactional batch begins one, a marker ends it. Kafka's `ProducerStateManager` (`ongoingTxns`, `unreplicatedTxns`)
//! and `TransactionIndex`. Start reading at [`Transactions::first_unstable`] and [`AbortedIndex::overlapping`].

use std::collections::BTreeMap;

/// Transactions that hold readers of committed data back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transactions {
    /// Nobody has decided these: first offset, and whose.
    ongoing: BTreeMap<i64, i64>,
    /// A marker above the high watermark ends these: first offset, and the marker's.
    unreplicated: BTreeMap<i64, i64>,
}

/// A transaction that a marker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompletedTransaction {
    /// Whose.
    pub producer_id: i64,
    /// The first offset of its data.
    pub first_offset: i64,
    /// Its marker's offset.
    pub last_offset: i64,
    /// Aborted, or committed.
    pub aborted: bool,
}

/// A transaction that was aborted, as the index keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose.
    pub producer_id: i64,
    /// The first offset of its data.
    pub first_offset: i64,
    /// Its marker's offset.
    pub last_offset: i64,
    /// Where undecided data began once it was aborted: no transaction that ends later has data before this.
    pub last_stable_offset: i64,
}

impl Transactions {
    /// A producer's first transactional batch is at `first_offset`.
    pub fn begin(&mut self, first_offset: i64, producer_id: i64) {
        self.ongoing.insert(first_offset, producer_id);
    }

    /// A marker ended one. Gives the entry for the index if it was aborted.
    ///
    /// # Panics
    /// If it is not ongoing: the producer's own entry says that it is.
    pub fn complete(&mut self, completed: CompletedTransaction) -> Option<AbortedTransaction> {
        let CompletedTransaction { producer_id, first_offset, last_offset, aborted } = completed;
        let begun = self.ongoing.remove(&first_offset);
        assert_eq!(begun, Some(producer_id), "a transaction that ends at {last_offset} has begun");
        self.unreplicated.insert(first_offset, last_offset);
        let last_stable_offset = self.first_undecided().unwrap_or(last_offset + 1);
        aborted.then_some(AbortedTransaction { producer_id, first_offset, last_offset, last_stable_offset })
    }

    /// The first offset that is undecided, or decided by a marker that is not committed yet.
    pub fn first_unstable(&self) -> Option<i64> {
        let unreplicated = self.unreplicated.first_key_value().map(|(&first, _)| first);
        match (self.first_undecided(), unreplicated) {
            (Some(undecided), Some(unreplicated)) => Some(undecided.min(unreplicated)),
            (undecided, unreplicated) => undecided.or(unreplicated),
        }
    }

    /// The first offset of a transaction without a marker.
    pub fn first_undecided(&self) -> Option<i64> {
        self.ongoing.first_key_value().map(|(&first, _)| first)
    }

    /// Markers before `offset` are committed, or gone with the log's start: they hold nobody back any more.
    pub fn acknowledge_before(&mut self, offset: i64) {
        if !self.unreplicated.is_empty() {
            self.unreplicated.retain(|_, marker| *marker >= offset);
        }
    }

    /// None ongoing, none unreplicated.
    pub fn is_empty(&self) -> bool {
        self.ongoing.is_empty() && self.unreplicated.is_empty()
    }

    /// Whether all that were ended are replicated.
    pub fn all_replicated(&self) -> bool {
        self.unreplicated.is_empty()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.ongoing.clear();
        self.unreplicated.clear();
    }
}

/// The aborted transactions of a log, by the offset of their markers. It lies on disk beside the batches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AbortedIndex {
    entries: Vec<AbortedTransaction>,
}

impl AbortedIndex {
    /// Adds the one whose marker was just appended.
    ///
    /// # Panics
    /// If its marker is not behind the last.
    pub fn push(&mut self, aborted: AbortedTransaction) {
        let last = self.entries.last().map_or(-1, |entry| entry.last_offset);
        assert!(aborted.last_offset > last, "markers come in order");
        self.entries.push(aborted);
    }

    /// Those with data or marker between `from` and `to` (not included): what a reader of committed data is told with
    /// records of that range, and what compaction of that range drops. In the order of their markers.
    pub fn overlapping(&self, from: i64, to: i64) -> impl Iterator<Item = &AbortedTransaction> {
        let first = self.entries.partition_point(|entry| entry.last_offset < from);
        let mut complete = false;
        self.entries[first..]
            .iter()
            .take_while(move |entry| !std::mem::replace(&mut complete, entry.last_stable_offset >= to))
            .filter(move |entry| entry.first_offset < to)
    }

    /// The log was cut: its end is now `end_offset`.
    pub fn truncate_to(&mut self, end_offset: i64) {
        let kept = self.entries.partition_point(|entry| entry.last_offset < end_offset);
        self.entries.truncate(kept);
    }

    /// The segments before the one that begins with `base_offset` are deleted, and their parts of the index with them.
    pub fn drop_before(&mut self, base_offset: i64) {
        let gone = self.entries.partition_point(|entry| entry.last_offset < base_offset);
        self.entries.drain(..gone);
    }

    /// Keeps those that `keep` says: compaction drops entries with the last of their data.
    pub fn retain(&mut self, keep: impl FnMut(&AbortedTransaction) -> bool) {
        self.entries.retain(keep);
    }

    /// All of them, in the order of their markers.
    pub fn entries(&self) -> &[AbortedTransaction] {
        &self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aborted(
        producer_id: i64,
        first_offset: i64,
        last_offset: i64,
        last_stable_offset: i64,
    ) -> AbortedTransaction {
        AbortedTransaction { producer_id, first_offset, last_offset, last_stable_offset }
    }

    fn completed(producer_id: i64, first_offset: i64, last_offset: i64) -> CompletedTransaction {
        CompletedTransaction { producer_id, first_offset, last_offset, aborted: true }
    }

    #[test]
    fn the_first_unstable_offset_waits_for_the_marker_to_be_committed() {
        let mut transactions = Transactions::default();
        assert_eq!(transactions.first_unstable(), None);
        transactions.begin(3, 7);
        transactions.begin(5, 8);
        assert_eq!(transactions.first_unstable(), Some(3));
        assert_eq!(transactions.complete(completed(7, 3, 9)), Some(aborted(7, 3, 9, 5)));
        assert_eq!((transactions.first_unstable(), transactions.first_undecided()), (Some(3), Some(5)));
        transactions.acknowledge_before(9);
        assert_eq!(transactions.first_unstable(), Some(3), "the marker itself is not committed");
        transactions.acknowledge_before(10);
        assert_eq!(transactions.first_unstable(), Some(5));
    }

    #[test]
    fn the_last_of_several_leaves_all_before_its_marker_stable() {
        let mut transactions = Transactions::default();
        transactions.begin(3, 7);
        assert_eq!(transactions.complete(completed(7, 3, 9)), Some(aborted(7, 3, 9, 10)));
    }

    #[test]
    fn a_reader_is_told_of_those_that_overlap_its_range() {
        let mut index = AbortedIndex::default();
        for entry in [aborted(1, 0, 4, 2), aborted(2, 2, 6, 7), aborted(3, 8, 9, 10), aborted(4, 20, 21, 22)]
        {
            index.push(entry);
        }
        let whose = |from, to| index.overlapping(from, to).map(|entry| entry.producer_id).collect::<Vec<_>>();
        assert_eq!(whose(0, 1), [1]);
        assert_eq!(whose(0, 3), [1, 2]);
        assert_eq!(whose(5, 9), [2, 3]);
        assert_eq!(whose(7, 8), [0; 0]);
        assert_eq!(whose(9, 30), [3, 4]);
        assert_eq!(whose(22, 30), [0; 0]);
    }

    #[test]
    fn the_index_is_cut_at_both_ends_by_the_markers_offset() {
        let mut index = AbortedIndex::default();
        for entry in [aborted(1, 0, 4, 2), aborted(2, 2, 6, 7), aborted(3, 8, 9, 10)] {
            index.push(entry);
        }
        index.truncate_to(9);
        index.drop_before(5);
        assert_eq!(index.entries(), [aborted(2, 2, 6, 7)]);
    }
}

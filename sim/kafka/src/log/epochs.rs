//! Which leader wrote what: a log's leader epochs, each with the offset that it began at (Kafka's `LeaderEpochFileCache`).
//!
//! Kafka syncs the file `leader-epoch-checkpoint` whenever an epoch is added, and not when entries are cut: after a power
//! loss the cache may name epochs whose records are gone, never miss one. Loading a log cuts it again, so that nobody sees
//! the difference.

/// From `start_offset` on, batches were written by the leader of `epoch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    /// The leader's epoch.
    pub epoch: i32,
    /// Its first offset.
    pub start_offset: i64,
}

/// The epochs of one log: both epochs and offsets grow strictly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Epochs {
    starts: Vec<EpochStart>,
}

impl Epochs {
    pub(super) fn starts(&self) -> &[EpochStart] {
        &self.starts
    }

    pub(super) fn latest(&self) -> Option<EpochStart> {
        self.starts.last().copied()
    }

    /// Adds an epoch unless it is the latest already. Entries that contradict the new one go: they told of records that
    /// were never written, or were truncated.
    pub(super) fn assign(&mut self, epoch: i32, start_offset: i64) {
        let known = |last: EpochStart| last.epoch == epoch && last.start_offset <= start_offset;
        if epoch < 0 || self.latest().is_some_and(known) {
            return;
        }
        while self.latest().is_some_and(|last| last.epoch >= epoch || last.start_offset >= start_offset) {
            self.starts.pop();
        }
        self.starts.push(EpochStart { epoch, start_offset });
    }

    /// The epoch that wrote `offset`.
    pub(super) fn of(&self, offset: i64) -> Option<i32> {
        let after = self.starts.partition_point(|entry| entry.start_offset <= offset);
        after.checked_sub(1).map(|index| self.starts[index].epoch)
    }

    /// The largest epoch up to `epoch`, and the offset that it ends before. Of an epoch before all that are known: the
    /// same epoch, ended where the first known one begins, for its records are gone. `None` for one beyond all.
    pub(super) fn end_of(&self, epoch: i32, end_offset: i64) -> Option<(i32, i64)> {
        if epoch < 0 {
            return None;
        }
        let after = self.starts.partition_point(|entry| entry.epoch <= epoch);
        let floor = self.starts[..after].last();
        match (floor, self.starts.get(after)) {
            (Some(floor), None) => (floor.epoch == epoch).then_some((epoch, end_offset)),
            (Some(floor), Some(higher)) => Some((floor.epoch, higher.start_offset)),
            (None, Some(higher)) => Some((epoch, higher.start_offset)),
            (None, None) => None,
        }
    }

    /// Forgets epochs that begin at or beyond a log's new end.
    pub(super) fn truncate_from_end(&mut self, end_offset: i64) {
        self.starts.retain(|entry| entry.start_offset < end_offset);
    }

    /// Forgets epochs that end at or before a log's new start; the one that holds it now begins there.
    pub(super) fn truncate_from_start(&mut self, start_offset: i64) {
        let after = self.starts.partition_point(|entry| entry.start_offset <= start_offset);
        if let Some(holder) = after.checked_sub(1) {
            self.starts.drain(..holder);
            self.starts[0].start_offset = start_offset;
        }
    }

    pub(super) fn clear(&mut self) {
        self.starts.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(starts: &[(i32, i64)]) -> Epochs {
        let mut epochs = Epochs::default();
        starts.iter().for_each(|&(epoch, start_offset)| epochs.assign(epoch, start_offset));
        epochs
    }

    #[test]
    fn an_epoch_ends_where_the_next_begins() {
        let epochs = epochs(&[(2, 10), (5, 20)]);
        assert_eq!(epochs.end_of(5, 30), Some((5, 30)));
        assert_eq!(epochs.end_of(3, 30), Some((2, 20)), "epoch 3 wrote nothing");
        assert_eq!(epochs.end_of(1, 30), Some((1, 10)), "what epoch 1 wrote is gone");
        assert_eq!(epochs.end_of(6, 30), None);
        assert_eq!(epochs.end_of(-1, 30), None);
        assert_eq!((epochs.of(9), epochs.of(10), epochs.of(25)), (None, Some(2), Some(5)));
    }

    #[test]
    fn an_epoch_that_wrote_nothing_makes_way() {
        assert_eq!(epochs(&[(2, 10), (5, 20), (6, 20)]), epochs(&[(2, 10), (6, 20)]));
        assert_eq!(epochs(&[(2, 10), (5, 20), (4, 20)]), epochs(&[(2, 10), (4, 20)]));
        assert_eq!(epochs(&[(2, 10), (2, 15)]), epochs(&[(2, 10)]));
    }

    #[test]
    fn epochs_follow_both_ends_of_their_log() {
        let mut cut = epochs(&[(2, 10), (5, 20), (7, 30)]);
        cut.truncate_from_end(30);
        assert_eq!(cut, epochs(&[(2, 10), (5, 20)]));
        cut.truncate_from_start(25);
        assert_eq!(cut, epochs(&[(5, 25)]));
        cut.truncate_from_start(24);
        assert_eq!(cut, epochs(&[(5, 25)]), "a start never goes back");
        cut.truncate_from_end(25);
        assert_eq!(cut, Epochs::default());
    }
}

//! What a consumer holds: for each partition where it reads, what was fetched ahead, and what is paused.
//!
//! Pure state between two parties: the [fetcher](crate::fetcher) fills it, polls empty it. A partition's `version`
//! changes when its position is set from outside, so that an answer to an earlier question is dropped. Where the two
//! clients differ about what was fetched ahead, the [`Habits`] decide.

use std::collections::{BTreeMap, VecDeque};

use broker::{ConsumerRecord, Error, Offset, OffsetAndMetadata, OffsetSpec, TopicPartition};
use context::Timestamp;

use crate::error::invalid_state;
use crate::properties::Habits;

/// How a partition's position comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The group's committed offset is to be asked for.
    Committed,
    /// An end of the log is to be asked for.
    Reset(OffsetSpec),
    /// It is known.
    Known,
    /// It is known, and the leader has changed since: the new one may have less, or something else there (KIP-320).
    Unvalidated,
    /// There is none, and `auto.offset.reset` is `error`: a seek must set it.
    Stuck,
}

/// One partition.
#[derive(Debug)]
pub(crate) struct Cursor {
    pub(crate) phase: Phase,
    pub(crate) version: u64,
    /// Where the next fetch begins; meaningful once [`Phase::Known`].
    pub(crate) fetch_offset: Offset,
    /// The epoch of the leader that wrote what is before it; -1 if that is not known.
    pub(crate) offset_epoch: i32,
    /// As `offset_epoch`, for the position of the polls.
    polled_epoch: i32,
    /// The epoch of the leader that is known to have it.
    pub(crate) valid_under: i32,
    pub(crate) paused: bool,
    /// A question about its position is under way.
    pub(crate) asking: bool,
    /// A follower that the leader said to read from, and until when that holds (KIP-392).
    preferred: Option<(i32, Timestamp)>,
    /// Nothing is asked or fetched before.
    pub(crate) not_before: Timestamp,
    pub(crate) buffered_bytes: usize,
    buffer: VecDeque<ConsumerRecord>,
    /// The position after the last record that was polled, until it is committed.
    uncommitted: Option<OffsetAndMetadata>,
}

impl Cursor {
    /// Records fetched ahead.
    pub(crate) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// The leader says to read from a follower, which holds until `until`.
    pub(crate) fn prefer(&mut self, node: i32, until: Timestamp) {
        self.preferred = Some((node, until));
    }

    /// The follower to read from, if there is one.
    pub(crate) fn preferred(&self, now: Timestamp) -> Option<i32> {
        self.preferred.filter(|(_, until)| *until > now).map(|(node, _)| node)
    }

    /// Reads from the leader again; whether it was a follower before.
    pub(crate) fn back_to_leader(&mut self) -> bool {
        self.preferred.take().is_some()
    }

    /// Reads on from `offset`, before which a leader of `epoch` wrote.
    pub(crate) fn position_at(&mut self, offset: Offset, epoch: i32) {
        self.phase = Phase::Known;
        self.fetch_offset = offset;
        self.offset_epoch = epoch;
        self.polled_epoch = epoch;
        self.valid_under = -1;
    }

    /// The leader changed: whether it has what was read is to be asked, if the epoch of that is known. Java asks about the
    /// position of its polls, and drops what was fetched beyond: no poll gives that out before the answer
    /// (`FetchCollector.fetchRecords`). librdkafka asks about the position of its fetches and gives out what it has.
    fn led_under(&mut self, leader_epoch: i32, habits: Habits) {
        if self.phase != Phase::Known || leader_epoch <= self.valid_under {
            return;
        }
        let read_under = match habits {
            Habits::Librdkafka => self.offset_epoch,
            Habits::Java => self.epoch_of_polls(),
        };
        if read_under < 0 {
            self.valid_under = leader_epoch;
            return;
        }
        self.phase = Phase::Unvalidated;
        if habits == Habits::Java {
            self.fetch_offset = self.buffer.front().map_or(self.fetch_offset, |record| record.offset);
            self.offset_epoch = read_under;
            self.forget_fetched();
        }
    }

    /// The leader of `leader_epoch` has the log up to here.
    pub(crate) fn validated(&mut self, leader_epoch: i32) {
        self.phase = Phase::Known;
        self.valid_under = self.valid_under.max(leader_epoch);
    }

    fn forget_fetched(&mut self) {
        self.buffer.clear();
        self.buffered_bytes = 0;
    }

    /// Of what is before the position of the polls.
    fn epoch_of_polls(&self) -> i32 {
        if self.buffer.is_empty() { self.offset_epoch } else { self.polled_epoch }
    }

    fn position(&self) -> Option<Offset> {
        match self.phase {
            Phase::Known | Phase::Unvalidated => {
                Some(self.buffer.front().map_or(self.fetch_offset, |record| record.offset))
            }
            _ => None,
        }
    }
}

/// All partitions of a consumer.
#[derive(Debug)]
pub(crate) struct Reading {
    habits: Habits,
    cursors: BTreeMap<TopicPartition, Cursor>,
    /// Partitions with something fetched, the one to serve next first.
    turn: VecDeque<TopicPartition>,
    errors: VecDeque<Error>,
    next_version: u64,
}

impl Reading {
    pub(crate) fn new(habits: Habits) -> Reading {
        Reading {
            habits,
            cursors: BTreeMap::new(),
            turn: VecDeque::new(),
            errors: VecDeque::new(),
            next_version: 0,
        }
    }

    /// Holds these partitions and no others.
    pub(crate) fn assign(&mut self, partitions: &[TopicPartition], phase: Phase) {
        self.clear();
        self.add(partitions, phase);
    }

    /// Holds these partitions too.
    pub(crate) fn add(&mut self, partitions: &[TopicPartition], phase: Phase) {
        for partition in partitions {
            self.next_version += 1;
            let cursor = Cursor {
                phase,
                version: self.next_version,
                fetch_offset: -1,
                offset_epoch: -1,
                polled_epoch: -1,
                valid_under: -1,
                paused: false,
                asking: false,
                preferred: None,
                not_before: Timestamp::ZERO,
                buffered_bytes: 0,
                buffer: VecDeque::new(),
                uncommitted: None,
            };
            self.cursors.insert(partition.clone(), cursor);
        }
    }

    /// Holds these partitions no longer.
    pub(crate) fn remove(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.cursors.remove(partition);
        }
        let cursors = &self.cursors;
        self.turn.retain(|partition| cursors.contains_key(partition));
    }

    /// Holds nothing.
    pub(crate) fn clear(&mut self) {
        self.cursors.clear();
        self.turn.clear();
        self.errors.clear();
    }

    /// The partitions held, in order.
    pub(crate) fn assignment(&self) -> Vec<TopicPartition> {
        self.cursors.keys().cloned().collect()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&TopicPartition, &mut Cursor)> {
        self.cursors.iter_mut()
    }

    /// The partition's cursor, unless its position was set anew since the question was put.
    pub(crate) fn asked(&mut self, partition: &TopicPartition, version: u64) -> Option<&mut Cursor> {
        self.cursors.get_mut(partition).filter(|cursor| cursor.version == version)
    }

    /// Where leaders have changed, the positions are to be validated. `leader_epoch` gives the epoch of a leader that is
    /// known.
    pub(crate) fn led_by(&mut self, leader_epoch: impl Fn(&TopicPartition) -> Option<i32>) {
        for (at, cursor) in &mut self.cursors {
            let Some(epoch) = leader_epoch(at) else { continue };
            let before = cursor.fetch_offset;
            cursor.led_under(epoch, self.habits);
            if cursor.fetch_offset != before {
                // What is fetched at the moment goes on from there.
                self.next_version += 1;
                cursor.version = self.next_version;
                cursor.asking = false;
            }
        }
    }

    /// The next poll fails with this.
    pub(crate) fn report(&mut self, error: Error) {
        self.errors.push_back(error);
    }

    pub(crate) fn take_error(&mut self) -> Option<Error> {
        self.errors.pop_front()
    }

    pub(crate) fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<(), Error> {
        self.next_version += 1;
        let version = self.next_version;
        let Some(cursor) = self.cursors.get_mut(partition) else {
            return Err(invalid_state(format!("{partition} is not assigned, so it cannot be sought")));
        };
        cursor.version = version;
        cursor.position_at(offset, -1);
        cursor.asking = false;
        cursor.not_before = Timestamp::ZERO;
        cursor.forget_fetched();
        Ok(())
    }

    /// The log was truncated: its leader has nothing of `epoch` from `end` on. What was fetched and not polled is
    /// dropped. librdkafka goes on from `end`, because it compares that with the position of its fetches, and so passes
    /// over records between the polls and `end` (`rd_kafka_toppar_handle_OffsetForLeaderEpoch`); Java's position is that of
    /// the polls, so it goes on from there, or from `end` if that is before. Gives where.
    pub(crate) fn truncated(
        &mut self,
        partition: &TopicPartition,
        end: Offset,
        epoch: i32,
    ) -> Option<Offset> {
        let position = self.position(partition)?;
        let from = match self.habits {
            Habits::Librdkafka => end,
            Habits::Java => position.min(end),
        };
        self.seek(partition, from).ok()?;
        let cursor = self.cursors.get_mut(partition)?;
        if from == end {
            cursor.offset_epoch = epoch;
            cursor.polled_epoch = epoch;
        }
        Some(from)
    }

    pub(crate) fn set_paused(&mut self, partitions: &[TopicPartition], paused: bool) {
        for partition in partitions {
            if let Some(cursor) = self.cursors.get_mut(partition) {
                cursor.paused = paused;
            }
        }
    }

    pub(crate) fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        self.cursors.get(partition)?.position()
    }

    /// Takes in what a fetch brought: whole batches up to, not including, `next`, the last written by a leader of `epoch`.
    pub(crate) fn fetched(
        &mut self,
        partition: &TopicPartition,
        version: u64,
        records: Vec<ConsumerRecord>,
        bytes: usize,
        next: Offset,
        epoch: i32,
    ) {
        let Some(cursor) = self.asked(partition, version) else { return };
        assert!(next >= cursor.fetch_offset, "a fetch of {partition} went back to {next}");
        if next > cursor.fetch_offset {
            cursor.offset_epoch = epoch;
        }
        cursor.fetch_offset = next;
        if records.is_empty() {
            return;
        }
        let waits_already = !cursor.buffer.is_empty();
        if waits_already {
            cursor.buffer.extend(records);
        } else {
            // As it is: nothing is moved.
            cursor.buffer = records.into();
        }
        cursor.buffered_bytes += bytes;
        if !waits_already {
            self.turn.push_back(partition.clone());
        }
    }

    /// Takes at most `max` records, partition after partition.
    pub(crate) fn take(&mut self, max: usize) -> Vec<ConsumerRecord> {
        let fetched = self.turn.iter().filter_map(|partition| self.cursors.get(partition));
        let fetched: usize = fetched.map(Cursor::buffered).sum();
        let mut taken = Vec::with_capacity(fetched.min(max));
        for _ in 0..self.turn.len() {
            if taken.len() == max {
                break;
            }
            let Some(partition) = self.turn.pop_front() else { break };
            let Some(cursor) = self.cursors.get_mut(&partition).filter(|cursor| !cursor.buffer.is_empty())
            else {
                continue;
            };
            if !cursor.paused {
                let before = cursor.buffer.len();
                let count = before.min(max - taken.len());
                taken.extend(cursor.buffer.drain(..count));
                cursor.buffered_bytes -= cursor.buffered_bytes * count / before;
                let last = taken.last().expect("a buffer that is not empty gave at least one");
                cursor.polled_epoch = last.leader_epoch.unwrap_or(-1);
                cursor.uncommitted = Some(OffsetAndMetadata {
                    leader_epoch: last.leader_epoch,
                    ..OffsetAndMetadata::new(last.offset + 1)
                });
            }
            if !cursor.buffer.is_empty() {
                self.turn.push_back(partition);
            }
        }
        taken
    }

    /// Every position that is known to be good, whether or not anything was polled from there: what Java commits
    /// (`SubscriptionState.allConsumed`).
    pub(crate) fn positions(&self) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        let valid = self.cursors.iter().filter(|(_, cursor)| cursor.phase == Phase::Known);
        let position = |(at, cursor): (&TopicPartition, &Cursor)| {
            let polled = OffsetAndMetadata {
                leader_epoch: Some(cursor.epoch_of_polls()).filter(|epoch| *epoch >= 0),
                ..OffsetAndMetadata::new(cursor.position()?)
            };
            Some((at.clone(), polled))
        };
        valid.filter_map(position).collect()
    }

    /// Positions after what was polled since the last time: what librdkafka has stored for an automatic commit.
    pub(crate) fn take_uncommitted(&mut self) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        let cursors = self.cursors.iter_mut();
        cursors.filter_map(|(at, cursor)| Some((at.clone(), cursor.uncommitted.take()?))).collect()
    }

    /// As [`Reading::take_uncommitted`], for these partitions alone.
    pub(crate) fn take_uncommitted_of(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        let mut taken = Vec::new();
        for at in partitions {
            let position = self.cursors.get_mut(at).and_then(|cursor| cursor.uncommitted.take());
            taken.extend(position.map(|position| (at.clone(), position)));
        }
        taken
    }

    /// An automatic commit failed: these are to be committed still, where nothing later was polled.
    pub(crate) fn put_uncommitted_back(&mut self, offsets: Vec<(TopicPartition, OffsetAndMetadata)>) {
        for (at, position) in offsets {
            if let Some(cursor) = self.cursors.get_mut(&at) {
                cursor.uncommitted.get_or_insert(position);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(partition: i32) -> TopicPartition {
        TopicPartition::new("t", partition)
    }

    fn records(partition: i32, offsets: std::ops::Range<i64>) -> Vec<ConsumerRecord> {
        offsets
            .map(|offset| ConsumerRecord {
                partition: at(partition),
                offset,
                leader_epoch: Some(3),
                timestamp: Timestamp::ZERO,
                key: None,
                value: None,
                headers: broker::Headers::default(),
            })
            .collect()
    }

    /// Partitions 0 and 1, both positioned at 0.
    fn reading() -> Reading {
        with(Habits::Librdkafka)
    }

    fn with(habits: Habits) -> Reading {
        let mut reading = Reading::new(habits);
        reading.assign(&[at(0), at(1)], Phase::Committed);
        for partition in [at(0), at(1)] {
            reading.seek(&partition, 0).unwrap();
        }
        reading
    }

    fn fetch(reading: &mut Reading, partition: i32, offsets: std::ops::Range<i64>) {
        let version = reading.cursors[&at(partition)].version;
        let next = offsets.end;
        reading.fetched(&at(partition), version, records(partition, offsets), 1_000, next, 3);
    }

    fn taken(reading: &mut Reading, max: usize) -> Vec<String> {
        reading.take(max).iter().map(|record| format!("{}@{}", record.partition, record.offset)).collect()
    }

    #[test]
    fn polls_take_turns_between_partitions_and_keep_their_order() {
        let mut reading = reading();
        fetch(&mut reading, 0, 0..4);
        fetch(&mut reading, 1, 0..1);
        assert_eq!(taken(&mut reading, 3), ["t/0@0", "t/0@1", "t/0@2"]);
        assert_eq!(taken(&mut reading, 3), ["t/1@0", "t/0@3"]);
        assert_eq!(reading.position(&at(0)), Some(4));
    }

    #[test]
    fn the_position_is_the_next_to_be_polled_not_to_be_fetched() {
        let mut reading = reading();
        fetch(&mut reading, 0, 0..4);
        assert_eq!(reading.position(&at(0)), Some(0));
        reading.take(1);
        assert_eq!(reading.position(&at(0)), Some(1));
    }

    #[test]
    fn a_seek_drops_what_was_fetched_and_what_is_still_to_come() {
        let mut reading = reading();
        fetch(&mut reading, 0, 0..4);
        let earlier = reading.cursors[&at(0)].version;
        reading.seek(&at(0), 2).unwrap();
        reading.fetched(&at(0), earlier, records(0, 4..6), 10, 6, 3);
        assert!(reading.take(10).is_empty());
        assert_eq!(reading.position(&at(0)), Some(2));
        assert!(reading.seek(&at(9), 0).is_err());
    }

    #[test]
    fn a_new_leader_is_asked_about_what_an_earlier_one_wrote() {
        let mut reading = reading();
        let led_under = |reading: &mut Reading, epoch| {
            reading.led_by(|_| Some(epoch));
            reading.cursors[&at(0)].phase
        };
        let known = led_under(&mut reading, 4);
        assert_eq!(known, Phase::Known, "a sought position has no epoch to ask about");
        fetch(&mut reading, 0, 0..4);
        assert_eq!(led_under(&mut reading, 4), Phase::Known, "fetched from this leader");
        assert_eq!(led_under(&mut reading, 5), Phase::Unvalidated);
        assert_eq!(reading.position(&at(0)), Some(0));
        reading.cursors.get_mut(&at(0)).unwrap().validated(5);
        assert_eq!(led_under(&mut reading, 5), Phase::Known);
    }

    #[test]
    fn after_a_truncation_java_goes_on_from_the_polls_and_librdkafka_from_the_end() {
        for (habits, from) in [(Habits::Java, 2), (Habits::Librdkafka, 4)] {
            let mut reading = with(habits);
            fetch(&mut reading, 0, 0..6);
            reading.take(2);
            let went = reading.truncated(&at(0), 4, 3);
            assert_eq!(went, Some(from), "{habits:?}: polled up to 2; 2 and 3 are still there");
            assert!(reading.take(10).is_empty());
            fetch(&mut reading, 0, from..6);
            reading.take(10);
            let went = reading.truncated(&at(0), 4, 3);
            assert_eq!(went, Some(4), "{habits:?}: 4 and 5 are gone, whatever was polled");
        }
    }

    #[test]
    fn what_was_fetched_before_a_change_of_leaders_comes_from_librdkafka_at_once_and_from_java_anew() {
        for habits in [Habits::Librdkafka, Habits::Java] {
            let mut reading = with(habits);
            fetch(&mut reading, 0, 0..3);
            reading.take(1);
            let under_way = reading.cursors[&at(0)].version;
            reading.led_by(|_| Some(5));
            assert_eq!(reading.cursors[&at(0)].phase, Phase::Unvalidated, "{habits:?}");
            assert_eq!(reading.position(&at(0)), Some(1), "{habits:?}");
            reading.fetched(&at(0), under_way, records(0, 3..4), 10, 4, 3);
            let polled = taken(&mut reading, 10);
            match habits {
                Habits::Librdkafka => assert_eq!(polled, ["t/0@1", "t/0@2", "t/0@3"]),
                Habits::Java => {
                    assert!(polled.is_empty(), "{polled:?}");
                    assert_eq!(reading.cursors[&at(0)].fetch_offset, 1, "read anew from where the polls are");
                }
            }
        }
    }

    #[test]
    fn a_position_of_unknown_epoch_is_not_validated_by_java_whatever_was_fetched_beyond() {
        let mut reading = with(Habits::Java);
        fetch(&mut reading, 0, 0..3);
        reading.led_by(|_| Some(5));
        assert_eq!(reading.cursors[&at(0)].phase, Phase::Known);
        assert_eq!(reading.take(10).len(), 3);
    }

    #[test]
    fn java_commits_every_good_position_and_what_was_sought() {
        let mut reading = with(Habits::Java);
        let positions = |reading: &Reading| {
            let positions = reading.positions().into_iter();
            positions.map(|(at, position)| (at.partition, position.offset)).collect::<Vec<_>>()
        };
        fetch(&mut reading, 0, 0..4);
        assert_eq!(positions(&reading), [(0, 0), (1, 0)], "nothing was polled yet");
        reading.take(3);
        assert_eq!(reading.positions()[0].1.leader_epoch, Some(3));
        assert_eq!(positions(&reading), [(0, 3), (1, 0)]);
        reading.seek(&at(0), 1).unwrap();
        assert_eq!(positions(&reading), [(0, 1), (1, 0)], "not what was polled before the seek");
        reading.cursors.get_mut(&at(1)).unwrap().phase = Phase::Unvalidated;
        assert_eq!(positions(&reading), [(0, 1)]);
    }

    #[test]
    fn a_paused_partition_keeps_what_was_fetched() {
        let mut reading = reading();
        fetch(&mut reading, 0, 0..2);
        reading.set_paused(&[at(0)], true);
        assert!(reading.take(10).is_empty());
        reading.set_paused(&[at(0)], false);
        assert_eq!(taken(&mut reading, 10), ["t/0@0", "t/0@1"]);
    }

    #[test]
    fn what_is_given_up_goes_alone_and_the_rest_reads_on() {
        let mut reading = reading();
        fetch(&mut reading, 0, 0..2);
        fetch(&mut reading, 1, 0..2);
        reading.take(1);
        assert_eq!(reading.take_uncommitted_of(&[at(0)]).len(), 1);
        reading.remove(&[at(0)]);
        reading.add(&[at(2)], Phase::Committed);
        assert_eq!(reading.assignment(), [at(1), at(2)]);
        assert_eq!(taken(&mut reading, 10), ["t/1@0", "t/1@1"]);
        assert_eq!(reading.position(&at(0)), None);
    }

    #[test]
    fn what_was_polled_is_committed_once() {
        let mut reading = reading();
        fetch(&mut reading, 0, 0..2);
        assert!(reading.take_uncommitted().is_empty(), "what was only fetched is not committed");
        reading.take(10);
        let offsets = reading.take_uncommitted();
        assert_eq!(offsets[0].1.offset, 2);
        assert_eq!(offsets[0].1.leader_epoch, Some(3));
        assert!(reading.take_uncommitted().is_empty());
        reading.put_uncommitted_back(offsets);
        assert_eq!(reading.take_uncommitted().len(), 1);
    }
}

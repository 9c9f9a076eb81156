//! What a consumer holds: for each partition where it reads, what was fetched ahead, and what is paused.
//!
//! Pure state between two parties: the [fetcher](crate::fetcher) fills it, polls empty it. A partition's `version`
//! changes when its position is set from outside, so that an answer to an earlier question is dropped.

use std::collections::{BTreeMap, VecDeque};

use broker::{ConsumerRecord, Error, Offset, OffsetAndMetadata, OffsetSpec, TopicPartition};
use context::Timestamp;

use crate::error::invalid_state;

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
    /// The epoch of the leader that is known to have it.
    pub(crate) valid_under: i32,
    pub(crate) paused: bool,
    /// A question about its position is under way.
    pub(crate) asking: bool,
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

    /// Reads on from `offset`, before which a leader of `epoch` wrote.
    pub(crate) fn position_at(&mut self, offset: Offset, epoch: i32) {
        self.phase = Phase::Known;
        self.fetch_offset = offset;
        self.offset_epoch = epoch;
        self.valid_under = -1;
    }

    /// The leader changed: whether it has what was read is to be asked, if the epoch of that is known.
    pub(crate) fn led_under(&mut self, leader_epoch: i32) {
        if self.phase == Phase::Known && leader_epoch > self.valid_under {
            match self.offset_epoch {
                ..0 => self.valid_under = leader_epoch,
                _ => self.phase = Phase::Unvalidated,
            }
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
#[derive(Debug, Default)]
pub(crate) struct Reading {
    cursors: BTreeMap<TopicPartition, Cursor>,
    /// Partitions with something fetched, the one to serve next first.
    turn: VecDeque<TopicPartition>,
    errors: VecDeque<Error>,
    next_version: u64,
}

impl Reading {
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
                valid_under: -1,
                paused: false,
                asking: false,
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
    /// dropped, and reading goes on from `end`, or from where the polls are if that is before. Gives where.
    pub(crate) fn truncated(
        &mut self,
        partition: &TopicPartition,
        end: Offset,
        epoch: i32,
    ) -> Option<Offset> {
        let position = self.position(partition)?;
        let from = position.min(end);
        self.seek(partition, from).ok()?;
        let cursor = self.cursors.get_mut(partition)?;
        if from == end {
            cursor.offset_epoch = epoch;
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
        cursor.buffer.extend(records);
        cursor.buffered_bytes += bytes;
        if !waits_already {
            self.turn.push_back(partition.clone());
        }
    }

    /// Takes at most `max` records, partition after partition.
    pub(crate) fn take(&mut self, max: usize) -> Vec<ConsumerRecord> {
        let mut taken = Vec::new();
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

    /// Positions after what was polled since the last time, for an automatic commit.
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
        let mut reading = Reading::default();
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
        let cursor = |reading: &mut Reading| {
            let cursor = reading.cursors.get_mut(&at(0)).unwrap();
            cursor.led_under(4);
            cursor.phase
        };
        assert_eq!(cursor(&mut reading), Phase::Known, "a sought position has no epoch to ask about");
        fetch(&mut reading, 0, 0..4);
        assert_eq!(cursor(&mut reading), Phase::Known, "fetched from this leader");
        reading.cursors.get_mut(&at(0)).unwrap().led_under(5);
        assert_eq!(reading.cursors[&at(0)].phase, Phase::Unvalidated);
        assert_eq!(reading.position(&at(0)), Some(0), "what was fetched can be polled meanwhile");
        reading.cursors.get_mut(&at(0)).unwrap().validated(5);
        assert_eq!(cursor(&mut reading), Phase::Known);
    }

    #[test]
    fn a_truncated_log_is_read_from_its_end_or_from_where_the_polls_are() {
        let mut reading = reading();
        fetch(&mut reading, 0, 0..6);
        reading.take(2);
        assert_eq!(reading.truncated(&at(0), 4, 3), Some(2), "polled up to 2: 2 and 3 are read again");
        assert!(reading.take(10).is_empty());
        fetch(&mut reading, 0, 2..6);
        reading.take(10);
        assert_eq!(reading.truncated(&at(0), 4, 3), Some(4), "4 and 5 are gone, whatever was polled");
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

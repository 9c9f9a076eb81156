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
            let was_known = cursor.phase == Phase::Known;
            cursor.led_under(epoch, self.habits);
            if self.habits == Habits::Java && was_known && cursor.phase == Phase::Unvalidated {
                // A fetch that is still on its way, from the old leader or from elsewhere in the log, brings nothing. Java
                // refuses it until the position is validated (`FetchCollector.initialize`), we even if it is later.
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
mod tests;

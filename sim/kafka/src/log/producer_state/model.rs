//! The state against a model that keeps every batch and works all out from the beginning, each time it is asked.

use bytes::Bytes;
use context::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::log::record;

const NOW_MS: i64 = 10;
const DAY_MS: i64 = 86_400_000;
const TRANSACTIONAL: i16 = 0b1_0000;

/// A batch or a marker in the model's log.
#[derive(Clone, Copy, Debug)]
struct Entry {
    base_offset: i64,
    count: i32,
    producer_id: i64,
    epoch: i16,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Data { sequence: i32, transactional: bool },
    Marker { coordinator_epoch: i32, committed: bool },
}

impl Entry {
    fn end(&self) -> i64 {
        self.base_offset + i64::from(self.count)
    }

    fn header(&self) -> BatchHeader {
        BatchHeader::parse(&self.bytes()).unwrap()
    }

    fn bytes(&self) -> Bytes {
        let (sequence, transactional) = match self.kind {
            Kind::Data { sequence, transactional } => (sequence, transactional),
            Kind::Marker { coordinator_epoch, committed } => {
                let (producer_id, producer_epoch) = (self.producer_id, self.epoch);
                let marker = Marker { producer_id, producer_epoch, coordinator_epoch, committed };
                return batch::stamp(&marker.batch(NOW_MS), self.base_offset, 0, None);
            }
        };
        let records = vec![(None, Some(Bytes::from_static(b"value"))); self.count as usize];
        let plain = record::write_batch(NOW_MS, &records);
        let header = BatchHeader {
            attributes: if transactional { TRANSACTIONAL } else { 0 },
            base_offset: self.base_offset,
            leader_epoch: 0,
            producer_id: self.producer_id,
            producer_epoch: self.epoch,
            base_sequence: sequence,
            ..BatchHeader::parse(&plain).unwrap()
        };
        batch::assemble(&header, &plain[batch::HEADER_LEN..])
    }
}

/// Everything that was ever appended and not cut off.
#[derive(Clone, Debug, Default)]
struct Model {
    entries: Vec<Entry>,
    high_watermark: i64,
    /// The snapshot that the state was last read from: of what came before, one batch of each producer is remembered.
    snapshot: i64,
    /// Markers before this are taken for replicated: a snapshot does not tell of them.
    acknowledged: i64,
}

impl Model {
    fn end(&self) -> i64 {
        self.entries.last().map_or(0, Entry::end)
    }

    fn of(&self, producer_id: i64) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.producer_id == producer_id)
    }

    fn epoch(&self, producer_id: i64) -> Option<i16> {
        self.of(producer_id).map(|entry| entry.epoch).next_back()
    }

    fn coordinator_epoch(&self, producer_id: i64) -> i32 {
        let mut epochs = self.of(producer_id).filter_map(|entry| match entry.kind {
            Kind::Marker { coordinator_epoch, .. } => Some(coordinator_epoch),
            Kind::Data { .. } => None,
        });
        epochs.next_back().unwrap_or(-1)
    }

    /// The first offset of the transaction that was open at `end`.
    fn open_at(&self, producer_id: i64, end: i64) -> Option<i64> {
        let before = self.of(producer_id).filter(|entry| entry.end() <= end);
        let since = before.rev().take_while(|entry| matches!(entry.kind, Kind::Data { .. }));
        let transactional =
            since.filter(|entry| matches!(entry.kind, Kind::Data { transactional: true, .. }));
        transactional.last().map(|entry| entry.base_offset)
    }

    fn open(&self, producer_id: i64) -> Option<i64> {
        self.open_at(producer_id, self.end())
    }

    /// The batches that a retry is compared with, the newest first.
    fn window(&self, producer_id: i64) -> Vec<Entry> {
        let epoch = self.epoch(producer_id);
        let of_epoch = self.of(producer_id).rev().take_while(|entry| Some(entry.epoch) == epoch);
        let data = of_epoch.filter(|entry| matches!(entry.kind, Kind::Data { .. }));
        let mut before_snapshot = 0;
        let remembered = data.take_while(|entry| {
            before_snapshot += i32::from(entry.base_offset < self.snapshot);
            before_snapshot <= 1
        });
        remembered.take(BATCHES_RETAINED).copied().collect()
    }

    fn check(&self, tried: &Entry) -> Result<Verdict, ResponseError> {
        let Kind::Data { sequence, transactional } = tried.kind else { unreachable!("data is tried") };
        let Some(epoch) = self.epoch(tried.producer_id) else { return Ok(Verdict::Append) };
        let window = self.window(tried.producer_id);
        let sequence_of = |entry: &Entry| match entry.kind {
            Kind::Data { sequence, .. } => sequence,
            Kind::Marker { .. } => unreachable!("the window holds data"),
        };
        let same = |entry: &&Entry| {
            (entry.epoch, sequence_of(entry), entry.count) == (tried.epoch, sequence, tried.count)
        };
        if let Some(kept) = window.iter().find(same) {
            let (base_offset, last_offset) = (kept.base_offset, kept.end() - 1);
            return Ok(Verdict::Duplicate { base_offset, last_offset, max_timestamp: NOW_MS });
        }
        if tried.epoch < epoch {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        let next = match window.first() {
            Some(last) if tried.epoch == epoch => sequence_of(last) + last.count,
            _ => 0,
        };
        if sequence != next {
            return Err(ResponseError::OutOfOrderSequenceNumber);
        }
        if !transactional && self.open(tried.producer_id).is_some() {
            return Err(ResponseError::InvalidTxnState);
        }
        Ok(Verdict::Append)
    }

    fn check_marker(
        &self,
        producer_id: i64,
        epoch: i16,
        coordinator_epoch: i32,
    ) -> Result<(), ResponseError> {
        if self.epoch(producer_id).is_some_and(|known| epoch < known) {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        if coordinator_epoch < self.coordinator_epoch(producer_id) {
            return Err(ResponseError::TransactionCoordinatorFenced);
        }
        Ok(())
    }

    /// Every transaction with a marker: the entry for the index, and whether it was aborted.
    fn completed(&self) -> Vec<(AbortedTransaction, bool)> {
        let mut completed = Vec::new();
        for entry in &self.entries {
            let Kind::Marker { committed, .. } = entry.kind else { continue };
            let Some(first_offset) = self.open_at(entry.producer_id, entry.base_offset) else { continue };
            let others = PRODUCERS.filter(|&id| id != entry.producer_id);
            let others = others.filter_map(|id| self.open_at(id, entry.base_offset));
            let transaction = AbortedTransaction {
                producer_id: entry.producer_id,
                first_offset,
                last_offset: entry.base_offset,
                last_stable_offset: others.min().unwrap_or(entry.end()),
            };
            completed.push((transaction, !committed));
        }
        completed
    }

    fn first_unstable(&self) -> Option<i64> {
        let committed_below = self.high_watermark.max(self.acknowledged);
        let completed = self.completed().into_iter().map(|(transaction, _)| transaction);
        let unreplicated = completed.filter(|transaction| transaction.last_offset >= committed_below);
        let undecided = PRODUCERS.filter_map(|id| self.open(id));
        undecided.chain(unreplicated.map(|transaction| transaction.first_offset)).min()
    }
}

const PRODUCERS: std::ops::Range<i64> = 0..3;

#[derive(Clone, Copy, Debug)]
enum Step {
    Data {
        producer_id: i64,
        epoch: i16,
        sequence: i32,
        count: i32,
        transactional: bool,
    },
    /// The next batch, as a client would send it.
    Next {
        producer_id: i64,
        count: i32,
        transactional: bool,
    },
    Marker {
        producer_id: i64,
        bump: bool,
        stale: bool,
        coordinator_epoch: i32,
        committed: bool,
    },
    Committed(u32),
    Truncate(u32),
    Load,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (PRODUCERS, 0..3_i16, 0..8_i32, 1..3_i32, any::<bool>()).prop_map(
            |(producer_id, epoch, sequence, count, transactional)| Step::Data {
                producer_id, epoch, sequence, count, transactional
            }
        ),
        8 => (PRODUCERS, 1..3_i32, any::<bool>())
            .prop_map(|(producer_id, count, transactional)| Step::Next { producer_id, count, transactional }),
        4 => (PRODUCERS, any::<bool>(), any::<bool>(), 0..3_i32, any::<bool>()).prop_map(
            |(producer_id, bump, stale, coordinator_epoch, committed)| Step::Marker {
                producer_id, bump, stale: stale && !bump, coordinator_epoch, committed
            }
        ),
        2 => (0..100_u32).prop_map(Step::Committed),
        1 => (0..100_u32).prop_map(Step::Truncate),
        1 => Just(Step::Load),
    ]
}

struct Pair {
    model: Model,
    log: Log,
    state: ProducerState,
}

impl Pair {
    fn append(&mut self, entry: Entry) {
        let header = self.log.append(Timestamp::from_millis(10), entry.bytes(), 300);
        self.state.remember(&mut self.log, &header);
        self.model.entries.push(entry);
    }

    fn try_data(&mut self, mut entry: Entry) -> Result<(), TestCaseError> {
        entry.base_offset = self.model.end();
        let verdict = self.state.check(&entry.header(), Origin::Client, false, None);
        prop_assert_eq!(verdict, self.model.check(&entry), "{:?}", entry);
        if verdict == Ok(Verdict::Append) {
            self.append(entry);
        }
        Ok(())
    }

    fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Data { producer_id, epoch, sequence, count, transactional } => {
                let kind = Kind::Data { sequence, transactional };
                self.try_data(Entry { base_offset: 0, count, producer_id, epoch, kind })
            }
            Step::Next { producer_id, count, transactional } => {
                let epoch = self.model.epoch(producer_id).unwrap_or(0);
                let sequence = self.state.producers.get(&producer_id).map_or(0, |p| p.last_sequence() + 1);
                let kind = Kind::Data { sequence, transactional };
                self.try_data(Entry { base_offset: 0, count, producer_id, epoch, kind })
            }
            Step::Marker { producer_id, bump, stale, coordinator_epoch, committed } => {
                let epoch = self.model.epoch(producer_id).unwrap_or(0) + i16::from(bump) - i16::from(stale);
                let marker = Marker { producer_id, producer_epoch: epoch, coordinator_epoch, committed };
                let checked = self.state.check_marker(&marker);
                let expected = self.model.check_marker(producer_id, epoch, coordinator_epoch);
                prop_assert_eq!(checked, expected, "{:?}", marker);
                if checked.is_ok() {
                    let kind = Kind::Marker { coordinator_epoch, committed };
                    let base_offset = self.model.end();
                    self.append(Entry { base_offset, count: 1, producer_id, epoch, kind });
                }
                Ok(())
            }
            Step::Committed(percent) => {
                let reached = self.model.end() * i64::from(percent) / 100;
                self.model.high_watermark = self.model.high_watermark.max(reached);
                self.state.high_watermark_moved(self.model.high_watermark);
                Ok(())
            }
            Step::Truncate(percent) => {
                let to = self.model.end() * i64::from(percent) / 100;
                self.model.entries.retain(|entry| entry.end() <= to);
                let end = self.model.end();
                self.log.truncate_to(to);
                prop_assert_eq!(self.log.end_offset(), end);
                let before = self.log.snapshots.taken().map(|(offset, _)| offset);
                self.model.snapshot = before.filter(|&offset| offset <= end).max().unwrap_or(0);
                self.state.truncated(&mut self.log, NOW_MS, DAY_MS);
                // Who truncates was told by its leader how far it is committed: no further than it goes.
                self.model.high_watermark = self.model.high_watermark.min(end);
                self.model.acknowledged = self.model.snapshot;
                self.state.high_watermark_moved(self.model.high_watermark);
                Ok(())
            }
            Step::Load => {
                self.state = ProducerState::load(&mut self.log, NOW_MS, DAY_MS);
                (self.model.snapshot, self.model.acknowledged) = (self.model.end(), self.model.end());
                self.state.high_watermark_moved(self.model.high_watermark);
                Ok(())
            }
        }
    }
}

proptest! {
    #[test]
    fn the_state_is_what_the_whole_log_says(steps in proptest::collection::vec(step(), 1..80)) {
        let mut pair = Pair { model: Model::default(), log: Log::default(), state: ProducerState::default() };
        for step in steps {
            let end_before = pair.model.end();
            pair.take(step)?;
            let model = &pair.model;
            prop_assert_eq!(pair.state.first_unstable(), model.first_unstable(), "after {:?} at {}", step, end_before);
            let aborted: Vec<_> = model.completed().into_iter().filter(|(_, aborted)| *aborted).collect();
            let aborted: Vec<_> = aborted.into_iter().map(|(transaction, _)| transaction).collect();
            prop_assert_eq!(pair.log.aborted().entries(), &aborted[..]);
            for id in PRODUCERS {
                let known = pair.state.producers.get(&id);
                prop_assert_eq!(known.map(|producer| producer.epoch), model.epoch(id));
                prop_assert_eq!(known.and_then(|producer| producer.transaction_start), model.open(id));
            }
            // A reader of any range is told of all that it must leave out.
            for from in 0..model.end() {
                let to = (from + 3).min(model.end());
                let told: Vec<_> = pair.log.aborted().overlapping(from, to).copied().collect();
                let needed = aborted.iter().filter(|a| a.last_offset >= from && a.first_offset < to);
                prop_assert_eq!(told, needed.copied().collect::<Vec<_>>(), "from {} to {}", from, to);
            }
        }
    }
}

//! One partition, one group's position in it and one transactional id, as Kafka's users think of them.
//!
//! What is refused, and which epoch follows which, is as librdkafka and Kafka 4.1 have it between them (transaction version 1,
//! which is librdkafka's).

use std::ops::Range;

use context::Timestamp;

use super::{Answer, Attempt, Operation, Writer, between, shown, text_with, time, value};
use crate::{ErrorClass, ErrorCode, Offset};

/// What a partition holds at an offset.
#[derive(Clone, Debug)]
enum Entry {
    Record {
        content: String,
        time: Timestamp,
        transaction: Option<usize>,
    },
    /// The end of a transaction. Its time is that of its writing: later than every record's.
    Marker,
}

/// How a transaction stands.
#[derive(Clone, Debug, Default)]
struct Transaction {
    first: Option<Offset>,
    /// The position that goes with it, and when it was sent.
    position: Option<(usize, Offset)>,
    aborted: bool,
}

/// The producer from whom the transactional id was taken.
#[derive(Clone, Copy, Debug)]
struct Former {
    /// It thinks that its transaction is open.
    open: bool,
    /// It knows what happened.
    fenced: bool,
}

/// The transactional id, as its coordinator knows it.
#[derive(Clone, Debug)]
struct Id {
    state: &'static str,
    epoch: i16,
    next_sequence: i32,
    /// A batch was refused for good: librdkafka goes on with the sequence after it, which the partition's leader refuses in
    /// turn, and goes on in order under another epoch then (`rd_kafka_handle_Produce_error`).
    gap: bool,
}

/// The model.
#[derive(Clone, Debug)]
pub struct Partition {
    entries: Vec<Entry>,
    start: Offset,
    transactions: Vec<Transaction>,
    /// The open one is the last.
    open: bool,
    id: Id,
    former: Option<Former>,
    writers: Vec<Writer>,
    /// The epoch and the next sequence of the idempotent producer. It bumps its epoch by itself.
    idempotent: (i32, i32),
    /// By isolation level: uncommitted, committed.
    positions: [Offset; 2],
    /// What the group committed, and when.
    committed: Option<(usize, Offset)>,
    /// Counts what was written for the group: of two positions, the one that was written later holds.
    written: usize,
    sent: usize,
}

/// The answers to these operations on a partition that is new.
pub fn expected(operations: &[Operation]) -> Vec<Answer> {
    let mut partition = Partition::default();
    operations.iter().map(|operation| partition.answer(operation)).collect()
}

impl Default for Partition {
    /// A new one, before the first operation: its producers are there.
    fn default() -> Partition {
        Partition {
            entries: Vec::new(),
            start: 0,
            transactions: Vec::new(),
            open: false,
            id: Id { state: "Empty", epoch: 0, next_sequence: 0, gap: false },
            former: None,
            writers: Vec::new(),
            idempotent: (0, 0),
            positions: [0; 2],
            committed: None,
            written: 0,
            sent: 0,
        }
    }
}

impl Partition {
    /// The answer to the next operation.
    pub fn answer(&mut self, operation: &Operation) -> Answer {
        match *operation {
            Operation::Send { records, second } => Answer::Offsets(self.send(records, second)),
            Operation::SendTooLarge => {
                self.idempotent = (self.idempotent.0 + 1, 0);
                refused([TOO_LARGE])
            }
            Operation::SendInTransaction { records, .. } if self.id.gap => {
                self.begin();
                self.sent += usize::from(records);
                self.end("CompleteAbort");
                self.go_on_under_another_epoch();
                refused([])
            }
            Operation::SendInTransaction { records, second } => {
                Answer::Offsets(self.send_in_transaction(records, second))
            }
            Operation::SpoilTransaction => {
                self.begin();
                self.end("CompleteAbort");
                self.id.gap = true;
                refused([TOO_LARGE, (ErrorCode::Broker(10), ErrorClass::Abortable)])
            }
            Operation::SendOffset(offset) => {
                if self.open {
                    self.written += 1;
                    let written = self.written;
                    let open = self.transactions.last_mut().expect("one is open");
                    open.position = Some((written, offset));
                }
                Answer::Done
            }
            Operation::Commit => self.end("CompleteCommit"),
            Operation::Abort => self.end("CompleteAbort"),
            Operation::TakeOver => self.take_over(),
            Operation::Former(attempt) => self.former_attempts(attempt),
            Operation::Seek { committed, to } => {
                self.positions[usize::from(committed)] = between(0, self.end_offset(), to);
                Answer::Done
            }
            Operation::Read { committed } => self.read(committed),
            Operation::FetchFrom(offset) => {
                if !(self.start..=self.end_offset()).contains(&offset) {
                    return refused([(ErrorCode::OffsetOutOfRange, ErrorClass::Failed)]);
                }
                Answer::Records(self.visible(offset, true))
            }
            Operation::Earliest => Answer::Offsets(vec![self.start]),
            Operation::Latest { committed } => Answer::Offsets(vec![self.readable_end(committed)]),
            Operation::AtTime { committed, second } => {
                let late = |offset: &Offset| match &self.entries[*offset as usize] {
                    Entry::Record { time: at, .. } => *at >= time(second, 0),
                    Entry::Marker => true,
                };
                let found = self.kept().find(late).filter(|found| *found < self.readable_end(committed));
                Answer::Offsets(found.into_iter().collect())
            }
            Operation::CommitOffset(offset) => {
                self.written += 1;
                self.committed = Some((self.written, offset));
                Answer::Done
            }
            Operation::Committed => match self.open_transaction() {
                Some(Transaction { position: Some(_), .. }) => Answer::Unstable,
                _ => Answer::Position(self.committed.map(|(_, offset)| (offset, text_with(offset)))),
            },
            Operation::DeleteRecords(hundredths) => {
                self.delete_before(between(self.start, self.end_offset(), hundredths))
            }
            Operation::DeleteRecordsBefore(offset) => self.delete_before(offset),
            Operation::Producers => {
                let mut writers = self.writers.clone();
                writers.sort_unstable();
                Answer::Producers(writers)
            }
            Operation::Transaction => {
                Answer::Transaction { state: self.id.state.into(), epoch: self.id.epoch, holds: self.open }
            }
            Operation::RestartBroker(_) | Operation::KillBroker(_) | Operation::StartBroker => Answer::Done,
        }
    }

    fn send(&mut self, records: u8, second: u8) -> Vec<Offset> {
        let offsets = self.append(records, second, None);
        self.idempotent.1 += i32::from(records);
        let (epoch, next_sequence) = self.idempotent;
        let last_sequence = next_sequence - 1;
        let writer = Writer { transactional: false, epoch, last_sequence, transaction_start: None };
        self.writers.retain(|writer| writer.transactional);
        self.writers.push(writer);
        offsets
    }

    fn send_in_transaction(&mut self, records: u8, second: u8) -> Vec<Offset> {
        self.begin();
        let number = self.transactions.len() - 1;
        let offsets = self.append(records, second, Some(number));
        let transaction = &mut self.transactions[number];
        transaction.first = transaction.first.or(offsets.first().copied());
        self.id.next_sequence += i32::from(records);
        let (last_sequence, transaction_start) = (self.id.next_sequence - 1, transaction.first);
        self.write(last_sequence, transaction_start);
        offsets
    }

    fn begin(&mut self) {
        if !self.open {
            self.transactions.push(Transaction::default());
            self.open = true;
            self.id.state = "Ongoing";
        }
    }

    /// What the partition's leader knows of the holder from now on.
    fn write(&mut self, last_sequence: i32, transaction_start: Option<Offset>) {
        let epoch = i32::from(self.id.epoch);
        let writer = Writer { transactional: true, epoch, last_sequence, transaction_start };
        self.writers.retain(|writer| !writer.transactional);
        self.writers.push(writer);
    }

    fn append(&mut self, records: u8, second: u8, transaction: Option<usize>) -> Vec<Offset> {
        let first = self.end_offset();
        for number in 0..usize::from(records) {
            let time = time(second, number);
            let content = shown("k", &value(self.sent), &self.sent.to_string(), time);
            self.entries.push(Entry::Record { content, time, transaction });
            self.sent += 1;
        }
        (first..self.end_offset()).collect()
    }

    fn end(&mut self, state: &'static str) -> Answer {
        if !std::mem::take(&mut self.open) {
            return Answer::Done;
        }
        self.id.state = state;
        let aborted = state == "CompleteAbort";
        let transaction = self.transactions.last_mut().expect("one was open");
        transaction.aborted = aborted;
        if !aborted {
            // Nothing is less than anything.
            self.committed = self.committed.max(transaction.position);
        }
        self.entries.push(Entry::Marker);
        let epoch = i32::from(self.id.epoch);
        let known = self.writers.iter().find(|writer| writer.transactional && writer.epoch == epoch);
        // A marker of a new epoch leaves nothing of the records before it.
        self.write(known.map_or(-1, |writer| writer.last_sequence), None);
        Answer::Done
    }

    fn take_over(&mut self) -> Answer {
        self.former = Some(Former { open: self.open, fenced: false });
        self.go_on_under_another_epoch();
        Answer::Done
    }

    /// The epoch that fences the holder is the marker's; the new holder's comes after it.
    fn go_on_under_another_epoch(&mut self) {
        if self.open {
            self.id.epoch += 1;
            self.end("CompleteAbort");
        }
        self.id = Id { state: "Empty", epoch: self.id.epoch + 1, next_sequence: 0, gap: false };
    }

    fn former_attempts(&mut self, attempt: Attempt) -> Answer {
        let Some(former) = &mut self.former else { return Answer::Done };
        if attempt != Attempt::Send && !former.open {
            return Answer::Done;
        }
        former.open |= !former.fenced;
        former.fenced = true;
        refused([(ErrorCode::Broker(90), ErrorClass::Fenced)])
    }

    fn read(&mut self, committed: bool) -> Answer {
        let position = self.positions[usize::from(committed)];
        let reset = !(self.start..=self.end_offset()).contains(&position);
        let from = if reset { self.start } else { position };
        self.positions[usize::from(committed)] = from.max(self.readable_end(committed));
        Answer::Records(self.visible(from, committed))
    }

    fn visible(&self, from: Offset, committed: bool) -> Vec<(Offset, String)> {
        let seen = (from.max(self.start)..self.readable_end(committed)).filter_map(|offset| {
            match &self.entries[offset as usize] {
                Entry::Record { content, transaction, .. } => {
                    let aborted = transaction.is_some_and(|number| self.transactions[number].aborted);
                    (!(committed && aborted)).then(|| (offset, content.clone()))
                }
                Entry::Marker => None,
            }
        });
        seen.collect()
    }

    fn delete_before(&mut self, offset: Offset) -> Answer {
        if offset > self.end_offset() {
            return refused([(ErrorCode::Broker(1), ErrorClass::Failed)]);
        }
        self.start = self.start.max(offset);
        Answer::Offsets(vec![self.start])
    }

    fn open_transaction(&self) -> Option<&Transaction> {
        self.transactions.last().filter(|_| self.open)
    }

    /// The high watermark, or the last stable offset. That is no less than the log's start.
    fn readable_end(&self, committed: bool) -> Offset {
        let first_open = self.open_transaction().and_then(|open| open.first).filter(|_| committed);
        first_open.map_or(self.end_offset(), |first| first.max(self.start))
    }

    fn kept(&self) -> Range<Offset> {
        self.start..self.end_offset()
    }

    fn end_offset(&self) -> Offset {
        self.entries.len() as Offset
    }
}

const TOO_LARGE: (ErrorCode, ErrorClass) = (ErrorCode::Broker(10), ErrorClass::Failed);

fn refused<const N: usize>(errors: [(ErrorCode, ErrorClass); N]) -> Answer {
    Answer::Refused(errors.to_vec())
}

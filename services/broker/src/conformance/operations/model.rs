//! One partition, and one group's position in it, as Kafka's users think of them.

use std::ops::Range;

use context::Timestamp;

use super::{Answer, Operation, between, time, value};
use crate::Offset;

/// What a partition holds at an offset.
#[derive(Clone, Debug)]
enum Entry {
    Record {
        value: String,
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

/// The model.
#[derive(Clone, Debug, Default)]
pub struct Partition {
    entries: Vec<Entry>,
    start: Offset,
    transactions: Vec<Transaction>,
    /// The open one is the last.
    open: bool,
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

impl Partition {
    /// The answer to the next operation.
    pub fn answer(&mut self, operation: &Operation) -> Answer {
        match *operation {
            Operation::Send { records, second } => Answer::Offsets(self.append(records, second, None)),
            Operation::SendInTransaction { records, second } => {
                if !self.open {
                    self.transactions.push(Transaction::default());
                    self.open = true;
                }
                let number = self.transactions.len() - 1;
                let offsets = self.append(records, second, Some(number));
                let transaction = &mut self.transactions[number];
                transaction.first = transaction.first.or(offsets.first().copied());
                Answer::Offsets(offsets)
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
            Operation::Commit => self.end(false),
            Operation::Abort | Operation::TakeOver => self.end(true),
            Operation::Read { committed, from } => self.read(committed, from),
            Operation::Earliest => Answer::Offsets(vec![self.start]),
            Operation::Latest => Answer::Offsets(vec![self.end_offset()]),
            Operation::AtTime(second) => {
                let late = |offset: &Offset| match &self.entries[*offset as usize] {
                    Entry::Record { time: at, .. } => *at >= time(second, 0),
                    Entry::Marker => true,
                };
                Answer::Offsets(self.kept().find(late).into_iter().collect())
            }
            Operation::CommitOffset(offset) => {
                self.written += 1;
                self.committed = Some((self.written, offset));
                Answer::Done
            }
            Operation::Committed => match self.open_transaction() {
                Some(Transaction { position: Some(_), .. }) => Answer::Unstable,
                _ => Answer::Offsets(self.committed.iter().map(|(_, offset)| *offset).collect()),
            },
            Operation::DeleteRecords(hundredths) => {
                self.start = between(self.start, self.end_offset(), hundredths);
                Answer::Offsets(vec![self.start])
            }
            Operation::RestartBroker(_) => Answer::Done,
        }
    }

    fn append(&mut self, records: u8, second: u8, transaction: Option<usize>) -> Vec<Offset> {
        let first = self.end_offset();
        for number in 0..usize::from(records) {
            let (value, time) = (value(self.sent), time(second, number));
            self.entries.push(Entry::Record { value, time, transaction });
            self.sent += 1;
        }
        (first..self.end_offset()).collect()
    }

    fn end(&mut self, aborted: bool) -> Answer {
        if !std::mem::take(&mut self.open) {
            return Answer::Done;
        }
        let transaction = self.transactions.last_mut().expect("one was open");
        transaction.aborted = aborted;
        if !aborted {
            // Nothing is less than anything.
            self.committed = self.committed.max(transaction.position);
        }
        if transaction.first.is_some() {
            self.entries.push(Entry::Marker);
        }
        Answer::Done
    }

    fn read(&self, committed: bool, from: u8) -> Answer {
        let first_open = self.open_transaction().and_then(|open| open.first).filter(|_| committed);
        let end = first_open.unwrap_or(self.end_offset());
        let from = between(0, end, from);
        let seen = self.kept().filter(|offset| (from..end).contains(offset)).filter_map(|offset| match &self
            .entries[offset as usize]
        {
            Entry::Record { value, transaction, .. } => {
                let aborted = transaction.is_some_and(|number| self.transactions[number].aborted);
                (!(committed && aborted)).then(|| (offset, value.clone()))
            }
            Entry::Marker => None,
        });
        Answer::Records(seen.collect())
    }

    fn open_transaction(&self) -> Option<&Transaction> {
        self.transactions.last().filter(|_| self.open)
    }

    fn kept(&self) -> Range<Offset> {
        self.start..self.end_offset()
    }

    fn end_offset(&self) -> Offset {
        self.entries.len() as Offset
    }
}

//! Random operations of clients on one partition.
//!
//! [`perform`] does a list of [`Operation`]s one after the other through a Broker and writes down the [`Answer`] of each;
//! [`expected`] tells the answers of a [model](Partition). A property test draws the lists ([`lists`], with the cargo feature
//! `lists`) and holds two such accounts against each other with [`first_difference`]: a cluster's against the model's, or the
//! simulated cluster's against real Kafka's. Brokers may be killed and started on the way, and no answer may change for it.
//!
//! There is one idempotent producer, one holder of a transactional id and the one from whom it took it, a reader for each
//! isolation level, and one that refuses to be reset. An operation begins when the one before it was answered, so that each
//! has one right answer. Ids are said by what they are of, never as numbers. Absent: what several clients do at once (the
//! checks of a running scenario judge that), several partitions, and time, which is why records carry times of their own.

mod desk;
#[cfg(feature = "lists")]
pub mod lists;
mod model;
mod place;
mod reader;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use context::Timestamp;

use desk::Desk;
pub use model::{Partition, expected};

use super::{Bench, Failure, Subject};
use crate::{Error, ErrorClass, ErrorCode, Offset};

/// What a client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The idempotent producer sends so many records, all in flight at once, of this second and the following
    /// milliseconds.
    Send {
        /// How many.
        records: u8,
        /// The second of the first, after the times' beginning; seconds need not go up.
        second: u8,
    },
    /// The idempotent producer sends a record that is larger than the topic's `max.message.bytes`.
    SendTooLarge,
    /// As [`Operation::Send`], in a transaction, which begins with it unless one is open. If a record is refused so that
    /// the transaction must be aborted, it is; how the client says so is its own.
    SendInTransaction {
        /// How many.
        records: u8,
        /// As in [`Operation::Send`].
        second: u8,
    },
    /// A record too large goes into the transaction, which begins with it unless one is open; then a commit is tried, and
    /// then the abort.
    SpoilTransaction,
    /// The group's position becomes part of the open transaction; nothing happens without one.
    SendOffset(Offset),
    /// The open transaction is committed; nothing happens without one.
    Commit,
    /// The open transaction is aborted; nothing happens without one.
    Abort,
    /// Another producer takes the transactional id, which ends the open transaction.
    TakeOver,
    /// The producer from whom the transactional id was taken goes on as if it held it; nothing happens without one.
    Former(Attempt),
    /// A reader's position moves: hundredths of the way from offset 0 to the end, or beyond it.
    Seek {
        /// Of the reader with `isolation.level=read_committed`.
        committed: bool,
        /// How far.
        to: u8,
    },
    /// A reader reads from its position to the end of what it may see. From outside of the log it starts at the log's start,
    /// as `auto.offset.reset=earliest` says.
    Read {
        /// The reader with `isolation.level=read_committed`.
        committed: bool,
    },
    /// A reader with `auto.offset.reset=error` and `isolation.level=read_committed` reads from here to the end of what it
    /// may see.
    FetchFrom(Offset),
    /// The first offset that is kept.
    Earliest,
    /// The high watermark, or the last stable offset.
    Latest {
        /// Asked with `isolation.level=read_committed`.
        committed: bool,
    },
    /// The first offset of this second or later.
    AtTime {
        /// Asked with `isolation.level=read_committed`.
        committed: bool,
        /// As in [`Operation::Send`].
        second: u8,
    },
    /// The group commits this offset, and a text of its own with it.
    CommitOffset(Offset),
    /// What the group has committed.
    Committed,
    /// Records are deleted: hundredths of the way from the start to the end.
    DeleteRecords(u8),
    /// Records before this offset are deleted: there may be none, and it may lie beyond the end.
    DeleteRecordsBefore(Offset),
    /// What the partition's leader knows of those who wrote to it.
    Producers,
    /// What the coordinator knows of the transactional id.
    Transaction,
    /// The broker with this node id is killed and started again at once. After a deletion that waits until every replica has
    /// written down where its log begins: Kafka may lose a deletion with the processes of all replicas before that
    /// (`UnifiedLog.maybeIncrementLogStartOffset`).
    RestartBroker(i32),
    /// The broker with this node id is killed and stays away. One that is away already is started first, and all replicas come
    /// into sync before: a partition whose last one in sync is away has no leader (KIP-966 counts none that was killed).
    KillBroker(i32),
    /// The broker that is away is started; nothing happens without one.
    StartBroker,
}

/// What a producer tries that no longer holds its transactional id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// To send a record, in a new transaction unless it thinks that one is open.
    Send,
    /// To commit the transaction that it thinks is open.
    Commit,
    /// To abort it.
    Abort,
}

/// What came of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// There was nothing to answer.
    Done,
    /// The offset asked for, if there is one; the offset of each record sent.
    Offsets(Vec<Offset>),
    /// What was read: offsets, and all that a record holds.
    Records(Vec<(Offset, String)>),
    /// The position committed, if there is one, and the text with it.
    Position(Option<(Offset, String)>),
    /// The coordinator keeps the position back while a transaction that may change it is open.
    Unstable,
    /// It was refused, each time that it was tried.
    Refused(Vec<(ErrorCode, ErrorClass)>),
    /// Those who wrote to the partition: the idempotent producer first.
    Producers(Vec<Writer>),
    /// How the transactional id stands.
    Transaction {
        /// Kafka's name of the state.
        state: String,
        /// The epoch of its holder.
        epoch: i16,
        /// Whether the partition is in the open transaction.
        holds: bool,
    },
    /// The client has no such call.
    Unknown,
}

/// A producer as the partition's leader knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Writer {
    /// Whether it is that of the transactional id.
    pub transactional: bool,
    /// Its epoch.
    pub epoch: i32,
    /// The sequence of its last record; -1 without one.
    pub last_sequence: i32,
    /// Where its open transaction begins.
    pub transaction_start: Option<Offset>,
}

/// When the times of records begin: some time ago on any clock, and later than nothing.
const TIMES_BEGIN: Timestamp = Timestamp::from_millis(1_700_000_000_000);
/// The topic's `max.message.bytes`. A batch of the records that are sent has a tenth of it.
const LARGEST: usize = 20_000;

fn time(second: u8, number: usize) -> Timestamp {
    TIMES_BEGIN + Duration::from_millis(u64::from(second) * 1_000 + number as u64)
}

/// A percentage of the way from `start` to `end`.
fn between(start: Offset, end: Offset, hundredths: u8) -> Offset {
    start + (end - start) * Offset::from(hundredths) / 100
}

/// The value of the record that was sent after so many others.
fn value(number: usize) -> String {
    format!("r-{number}")
}

/// All that a record holds, as [`Answer::Records`] has it.
fn shown(key: &str, value: &str, header: &str, time: Timestamp) -> String {
    format!("{key}={value} h={header} at {}", time.since(TIMES_BEGIN).as_millis())
}

/// The text that is committed with a position.
fn text_with(offset: Offset) -> String {
    format!("at {offset}")
}

/// Performs the operations on a topic of its own, with `name` in its name and so many replicas.
///
/// # Errors
/// When an operation was not answered in a minute of retries, or failed for good.
pub async fn perform(
    subject: Arc<dyn Subject>,
    name: &'static str,
    replicas: i16,
    operations: &[Operation],
) -> Result<Vec<Answer>, Failure> {
    let mut desk = Desk::open(Bench::new(subject, name), replicas).await?;
    let mut answers = Vec::new();
    for (number, operation) in operations.iter().enumerate() {
        let answer = desk.perform(operation).await;
        answers.push(
            answer.map_err(|failure| Failure(format!("operation {number}, {operation:?}: {}", failure.0)))?,
        );
    }
    desk.close().await?;
    Ok(answers)
}

/// Where two accounts of the same operations part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The operation's number, from 0.
    pub number: usize,
    /// The operation; `None` if an account has more answers than there are operations.
    pub operation: Option<Operation>,
    /// What each account says; `None` where it ends too early.
    pub answers: [Option<Answer>; 2],
}

/// The first operation that two accounts answer differently. What one of the clients cannot ask is not compared.
pub fn first_difference(operations: &[Operation], one: &[Answer], other: &[Answer]) -> Option<Difference> {
    let longest = operations.len().max(one.len()).max(other.len());
    (0..longest).find_map(|number| {
        let operation = operations.get(number);
        let answers = [one.get(number), other.get(number)];
        let same = match answers {
            [Some(one), Some(other)] => [one, other].contains(&&Answer::Unknown) || one == other,
            _ => false,
        };
        (!same || operation.is_none()).then(|| Difference {
            number,
            operation: operation.cloned(),
            answers: answers.map(Option::<&Answer>::cloned),
        })
    })
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [one, other] = &self.answers;
        write!(f, "operation {}, {:?}: {one:?} here, {other:?} there", self.number, self.operation)
    }
}

/// A producer that is fenced is told so as INVALID_PRODUCER_EPOCH or PRODUCER_FENCED, by who tells it (KIP-588), and remembers
/// it under either: librdkafka under the second. Here that is one.
fn refused(errors: impl IntoIterator<Item = Error>) -> Answer {
    let code = |error: &Error| match (error.code, error.class) {
        (ErrorCode::Broker(47), ErrorClass::Fenced) => ErrorCode::Broker(90),
        (code, _) => code,
    };
    Answer::Refused(errors.into_iter().map(|error| (code(&error), error.class)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPERATIONS: [Operation; 3] = [Operation::Earliest, Operation::Producers, Operation::Committed];

    fn account(start: Offset, producers: Answer) -> Vec<Answer> {
        vec![Answer::Offsets(vec![start]), producers, Answer::Unstable]
    }

    #[test]
    fn equal_accounts_do_not_differ() {
        let one = account(3, Answer::Producers(Vec::new()));
        assert_eq!(first_difference(&OPERATIONS, &one, &one.clone()), None);
    }

    #[test]
    fn the_first_answer_that_differs_is_named() {
        let (one, other) = (account(3, Answer::Done), account(4, Answer::Unstable));
        let found = first_difference(&OPERATIONS, &one, &other).unwrap();
        assert_eq!((found.number, found.operation), (0, Some(Operation::Earliest)));
        assert_eq!(found.answers, [Some(Answer::Offsets(vec![3])), Some(Answer::Offsets(vec![4]))]);
    }

    #[test]
    fn what_a_client_cannot_ask_is_not_compared_and_what_follows_is() {
        let (one, mut other) = (account(3, Answer::Producers(Vec::new())), account(3, Answer::Unknown));
        assert_eq!(first_difference(&OPERATIONS, &one, &other), None);
        other[2] = Answer::Position(None);
        assert_eq!(first_difference(&OPERATIONS, &one, &other).map(|found| found.number), Some(2));
    }

    #[test]
    fn an_account_that_ends_early_or_late_differs() {
        let whole = account(3, Answer::Done);
        let early = first_difference(&OPERATIONS, &whole, &whole[..1]).unwrap();
        assert_eq!((early.number, &early.answers[1]), (1, &None));
        let late = first_difference(&OPERATIONS[..2], &whole, &whole).unwrap();
        assert_eq!((late.number, late.operation), (2, None));
    }
}

//! Random lists of operations, as proptest strategies.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::{Attempt, Operation};

/// Up to forty operations that leave the brokers alone.
pub fn calm() -> impl Strategy<Value = Vec<Operation>> {
    vec(operation(), 1..40)
}

/// Up to forty operations on a cluster of three brokers, which are killed and started on the way. Every so many operations
/// there is one of that kind; one broker at least is killed.
///
/// [`Operation::Producers`] is not among them: records that are sent have old times, and when a broker forgets a producer whose
/// last record is old is a matter of time (`producer.id.expiration.ms`), of its start too.
pub fn with_restarts(every: u32) -> impl Strategy<Value = Vec<Operation>> {
    let timeless = operation().prop_map(|operation| match operation {
        Operation::Producers => Operation::Transaction,
        operation => operation,
    });
    let operations = vec(prop_oneof![every - 1 => timeless, 1 => on_a_broker()], 1..40);
    (operations, any::<Index>(), kill()).prop_map(|(mut operations, at, kill)| {
        if !operations.iter().any(kills) {
            operations.insert(at.index(operations.len() + 1), kill);
        }
        with_a_new_holder(operations)
    })
}

fn kills(operation: &Operation) -> bool {
    matches!(operation, Operation::RestartBroker(_) | Operation::KillBroker(_))
}

/// After a deletion a follower that was away and begins where its leader's log begins knows of producers what the rest of the
/// log tells it (`UnifiedLog.truncateFullyAndStartAt`): of one whose records are gone perhaps its marker alone, which refuses
/// the next sequence once it leads. So whoever holds the transactional id is followed by another.
fn with_a_new_holder(operations: Vec<Operation>) -> Vec<Operation> {
    let mut deleted = false;
    let mut list = Vec::new();
    for operation in operations {
        deleted |= matches!(operation, Operation::DeleteRecords(_) | Operation::DeleteRecordsBefore(_));
        let kills = kills(&operation);
        list.push(operation);
        if deleted && kills {
            list.push(Operation::TakeOver);
        }
    }
    list
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        8 => (1..8u8, 0..20u8).prop_map(|(records, second)| Operation::Send { records, second }),
        1 => Just(Operation::SendTooLarge),
        8 => (1..8u8, 0..20u8).prop_map(|(records, second)| Operation::SendInTransaction { records, second }),
        1 => Just(Operation::SpoilTransaction),
        3 => (0..50i64).prop_map(Operation::SendOffset),
        4 => Just(Operation::Commit),
        4 => Just(Operation::Abort),
        2 => Just(Operation::TakeOver),
        2 => attempt().prop_map(Operation::Former),
        4 => (any::<bool>(), 0..=110u8).prop_map(|(committed, to)| Operation::Seek { committed, to }),
        8 => any::<bool>().prop_map(|committed| Operation::Read { committed }),
        3 => (0..50i64).prop_map(Operation::FetchFrom),
        2 => Just(Operation::Earliest),
        4 => any::<bool>().prop_map(|committed| Operation::Latest { committed }),
        4 => (any::<bool>(), 0..21u8).prop_map(|(committed, second)| Operation::AtTime { committed, second }),
        2 => (0..50i64).prop_map(Operation::CommitOffset),
        4 => Just(Operation::Committed),
        2 => (0..=100u8).prop_map(Operation::DeleteRecords),
        1 => (0..50i64).prop_map(Operation::DeleteRecordsBefore),
        3 => Just(Operation::Producers),
        2 => Just(Operation::Transaction),
    ]
}

fn attempt() -> impl Strategy<Value = Attempt> {
    prop_oneof![Just(Attempt::Send), Just(Attempt::Commit), Just(Attempt::Abort)]
}

fn on_a_broker() -> impl Strategy<Value = Operation> {
    prop_oneof![3 => kill(), 1 => Just(Operation::StartBroker)]
}

fn kill() -> impl Strategy<Value = Operation> {
    prop_oneof![
        2 => (1..=3i32).prop_map(Operation::RestartBroker),
        1 => (1..=3i32).prop_map(Operation::KillBroker),
    ]
}

//! Random operations of clients on one partition, held against the model of `services/broker`.

mod stand;

use broker::conformance::operations::{Answer, Operation, expected, perform};
use proptest::prelude::*;

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (1..8u8, 0..20u8).prop_map(|(records, second)| Operation::Send { records, second }),
        4 => (1..8u8, 0..20u8).prop_map(|(records, second)| Operation::SendInTransaction { records, second }),
        1 => (0..50i64).prop_map(Operation::SendOffset),
        2 => Just(Operation::Commit),
        2 => Just(Operation::Abort),
        1 => Just(Operation::TakeOver),
        4 => (any::<bool>(), 0..=100u8).prop_map(|(committed, from)| Operation::Read { committed, from }),
        1 => Just(Operation::Earliest),
        2 => Just(Operation::Latest),
        2 => (0..21u8).prop_map(Operation::AtTime),
        1 => (0..50i64).prop_map(Operation::CommitOffset),
        2 => Just(Operation::Committed),
        1 => (0..=100u8).prop_map(Operation::DeleteRecords),
    ]
}

fn with_restarts() -> impl Strategy<Value = Operation> {
    prop_oneof![6 => operation(), 1 => (1..=3i32).prop_map(Operation::RestartBroker)]
}

/// What the cluster answers, and what the model does, to its first difference.
fn check(seed: u64, replicas: i16, operations: Vec<Operation>) -> Result<(), TestCaseError> {
    let wanted = expected(&operations);
    let asked = operations.clone();
    let answers: Result<Vec<Answer>, _> = stand::in_the_world(seed, move |subject| {
        let asked = asked.clone();
        async move { perform(subject, "operations", replicas, &asked).await }
    });
    let answers = answers.map_err(|failure| TestCaseError::fail(failure.0))?;
    for (number, ((operation, answer), wanted)) in operations.iter().zip(&answers).zip(&wanted).enumerate() {
        prop_assert_eq!(answer, wanted, "operation {} with seed {}: {:?}", number, seed, operation);
    }
    prop_assert_eq!(answers.len(), operations.len());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        max_shrink_iters: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_partition_answers_as_its_model(seed in any::<u64>(), operations in prop::collection::vec(operation(), 1..40)) {
        check(seed, 1, operations)?;
    }

    #[test]
    fn broker_restarts_change_no_answer(seed in any::<u64>(), operations in prop::collection::vec(with_restarts(), 1..40)) {
        check(seed, 3, operations)?;
    }
}

/// The follower that was away begins anew in the middle of a batch, where the leader's log begins now.
#[test]
fn a_follower_comes_back_after_records_were_deleted_in_mid_batch() {
    let operations = vec![
        Operation::RestartBroker(1),
        Operation::Send { records: 2, second: 0 },
        Operation::DeleteRecords(50),
        Operation::Send { records: 1, second: 0 },
        Operation::RestartBroker(2),
        Operation::RestartBroker(3),
        Operation::Read { committed: true, from: 0 },
    ];
    check(7, 3, operations).unwrap();
}

/// Each replica in turn is killed within a minute of the deletion.
#[test]
fn what_was_deleted_stays_deleted_through_every_restart() {
    let operations = vec![
        Operation::Send { records: 2, second: 0 },
        Operation::Send { records: 1, second: 0 },
        Operation::DeleteRecords(34),
        Operation::RestartBroker(1),
        Operation::Send { records: 1, second: 0 },
        Operation::RestartBroker(3),
        Operation::RestartBroker(2),
        Operation::Earliest,
    ];
    check(4083305934288285370, 3, operations).unwrap();
}

//! Random operations of clients on one partition, held against the model of `services/broker`.

use broker::conformance::operations::{Answer, Operation, expected, first_difference, lists, perform};
use proptest::prelude::*;
use shakedown_client::conformance::in_the_world;

/// What the cluster answers, and what the model does, to its first difference.
fn check(seed: u64, replicas: i16, operations: Vec<Operation>) -> Result<(), TestCaseError> {
    let wanted = expected(&operations);
    let asked = operations.clone();
    let answers: Result<Vec<Answer>, _> = in_the_world(seed, move |subject| {
        let asked = asked.clone();
        async move { perform(subject, "operations", replicas, &asked).await }
    });
    let answers = answers.map_err(|failure| TestCaseError::fail(failure.0))?;
    match first_difference(&operations, &answers, &wanted) {
        None => Ok(()),
        Some(difference) => Err(TestCaseError::fail(format!("with seed {seed}, {difference}"))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        max_shrink_iters: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_partition_answers_as_its_model(seed in any::<u64>(), operations in lists::calm()) {
        check(seed, 1, operations)?;
    }

    #[test]
    fn broker_restarts_change_no_answer(seed in any::<u64>(), operations in lists::with_restarts(7)) {
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
        Operation::Seek { committed: true, to: 0 },
        Operation::Read { committed: true },
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

/// Of a producer whose records were deleted a replica that was killed knows the last sequence still: recovery reads the whole
/// segment.
#[test]
fn a_producer_goes_on_after_its_records_were_deleted_and_every_replica_was_killed() {
    let operations = vec![
        Operation::SendInTransaction { records: 1, second: 0 },
        Operation::Commit,
        Operation::DeleteRecords(50),
        Operation::KillBroker(2),
        Operation::RestartBroker(3),
        Operation::SendInTransaction { records: 1, second: 0 },
    ];
    check(12792975359411860301, 3, operations).unwrap();
}

//! Transactions while answers are lost.

use std::time::Duration;

use broker::{Broker as _, ErrorCode, Properties};

use kafka::ClusterConfig;

use crate::bed::{Bed, Desk, Slot, record, values};

/// The answer to a commit is held for longer than the client waits for it: it closes the connection and asks again.
fn with_a_lost_commit(habits: &'static str) -> (Vec<String>, Duration) {
    let (ready, end) = (Slot::<bool>::default(), Slot::<Option<(Vec<String>, Duration)>>::default());
    let mut bed = {
        let (ready, end) = (ready.clone(), end.clone());
        Bed::new(3, 5, move |desk: Desk| {
            let (ready, end) = (ready.clone(), end.clone());
            async move {
                desk.topic("t", 1).await;
                let properties = [
                    ("shakedown.client.habits", habits),
                    ("transactional.id", "id"),
                    ("linger.ms", "0"),
                    ("socket.timeout.ms", "1000"),
                ];
                let producer = desk.producer(&properties).await;
                let patience = Duration::from_secs(60);
                producer.init_transactions(patience).await.expect("registered");
                producer.begin_transaction().await.expect("begun");
                producer.send(record("t", "a")).await.expect("sent");
                desk.hand_over(&ready).await;
                let asked_at = desk.context.now();
                producer.commit_transaction(patience).await.expect("committed in the end");
                let took = desk.context.now().since(asked_at);
                producer.begin_transaction().await.expect("it goes on");
                producer.send(record("t", "b")).await.expect("sent");
                producer.abort_transaction(patience).await.expect("aborted");
                let mut seen = Vec::new();
                while seen.is_empty() {
                    seen = values(&desk.all("t").await);
                }
                end.set(Some((seen, took)));
            }
        })
    };
    bed.run_until("the transaction is open", || ready.get());
    bed.hold_answers();
    ready.set(false);
    bed.run_for(Duration::from_millis(2_500));
    bed.release_answers();
    bed.finish();
    end.get().expect("it was set")
}

#[test]
fn a_commit_whose_answer_is_lost_is_asked_again_and_happens_once() {
    for habits in ["librdkafka", "java"] {
        let (seen, took) = with_a_lost_commit(habits);
        assert_eq!(seen, ["a"], "{habits}");
        assert!(took >= Duration::from_millis(2_500), "{habits}: {took:?}");
    }
}

/// The epochs of a producer before and after it aborted a transaction in which a record ran out of time before it was
/// sent: its partition could not be registered, because no answer came.
fn epochs_around_an_unsent_record_that_ran_out_of_time() -> (i16, i16) {
    let (ready, epochs) = (Slot::<bool>::default(), Slot::<(i16, i16)>::default());
    let mut bed = {
        let (ready, epochs) = (ready.clone(), epochs.clone());
        Bed::new(1, 7, move |desk: Desk| {
            let (ready, epochs) = (ready.clone(), epochs.clone());
            async move {
                desk.topic("t", 1).await;
                let properties =
                    [("transactional.id", "id"), ("delivery.timeout.ms", "1000"), ("linger.ms", "0")];
                let producer = desk.producer(&properties).await;
                let admin = desk.broker.admin(&Properties::new()).await.expect("sound properties");
                let patience = Duration::from_secs(60);
                producer.init_transactions(patience).await.expect("registered");
                producer.begin_transaction().await.expect("begun");
                producer.send(record("t", "warm")).await.expect("all is well");
                producer.commit_transaction(patience).await.expect("committed");
                let before = admin.describe_transactions(&["id"]).await.expect("it is known");
                producer.begin_transaction().await.expect("begun");
                desk.hand_over(&ready).await;
                let fate = producer.send(record("t", "unsent")).await;
                assert_eq!(fate.expect_err("nobody answers").code, ErrorCode::MessageTimedOut);
                ready.set(true);
                let error = producer.commit_transaction(patience).await.expect_err("a record is missing");
                assert_eq!(error.class, broker::ErrorClass::Abortable, "{error}");
                producer.abort_transaction(patience).await.expect("aborted");
                let after = admin.describe_transactions(&["id"]).await.expect("it is known");
                epochs.set((before[0].producer_epoch, after[0].producer_epoch));
            }
        })
    };
    bed.run_until("the producer is registered", || ready.get());
    bed.hold_answers();
    ready.set(false);
    bed.run_until("the record ran out of time", || ready.get());
    bed.release_answers();
    bed.finish();
    epochs.get()
}

#[test]
fn a_record_that_ran_out_of_time_unsent_costs_librdkafkas_transaction_its_epoch() {
    let (before, after) = epochs_around_an_unsent_record_that_ran_out_of_time();
    assert_eq!(after, before + 1);
}

/// The epoch of a producer behind two transactions, on a cluster at a level of `transaction.version`.
fn epoch_behind_two_transactions(habits: &'static str, level: i16) -> i16 {
    let epoch = Slot::<i16>::default();
    let mut bed = {
        let epoch = epoch.clone();
        let config = ClusterConfig::simulated(1).with_feature("transaction.version", level);
        Bed::with(config, 7, move |desk: Desk| {
            let epoch = epoch.clone();
            async move {
                desk.topic("t", 1).await;
                let properties = [("shakedown.client.habits", habits), ("transactional.id", "id")];
                let producer = desk.producer(&properties).await;
                let patience = Duration::from_secs(60);
                producer.init_transactions(patience).await.expect("registered");
                for value in ["a", "b"] {
                    producer.begin_transaction().await.expect("begun");
                    producer.send(record("t", value)).await.expect("sent");
                    producer.commit_transaction(patience).await.expect("committed");
                }
                assert_eq!(values(&desk.all("t").await), ["a", "b"]);
                let admin = desk.broker.admin(&Properties::new()).await.expect("sound properties");
                let told = admin.describe_transactions(&["id"]).await.expect("it is known");
                epoch.set(told[0].producer_epoch);
            }
        })
    };
    bed.finish();
    epoch.get()
}

#[test]
fn each_transaction_of_the_second_protocol_has_an_epoch_of_its_own_and_below_level_2_nobody_speaks_it() {
    for (habits, level, epoch) in
        [("java", 2, 2), ("java", 1, 0), ("java", 0, 0), ("librdkafka", 2, 0), ("librdkafka", 1, 0)]
    {
        assert_eq!(epoch_behind_two_transactions(habits, level), epoch, "{habits} at level {level}");
    }
}

//! Admins that ask for coordinators who are away.

use std::time::Duration;

use broker::{Broker as _, ErrorCode, Properties};

use crate::bed::{Bed, partition, send};

/// librdkafka 2.12 ends the process where it gives such a call up by itself and the coordinator comes back later.
#[tokio::test]
async fn a_question_that_found_no_coordinator_does_no_harm_when_one_comes_back() {
    let bed = Bed::start(1).await;
    send(&*bed.producer().await, 0, 0..10, 10).await;
    let mut consumer = bed.consumer(Properties::new()).await;
    bed.read(&mut *consumer, 10).await;
    consumer.close().await.expect("a close");
    let impatient = Properties::new().set("socket.timeout.ms", 1_000);
    let impatient = bed.broker.admin(&impatient).await.expect("an admin client");
    let patient = bed.broker.admin(&Properties::new()).await.expect("an admin client");
    let described = patient.describe_groups(&["g"]).await.expect("its coordinator answers");
    assert_eq!(described[0].state, "Empty");
    for node in 1..=3 {
        bed.nodes.kill(node).await;
    }
    let at = [partition(0)];
    let described = async { impatient.describe_groups(&["g"]).await.map(drop) };
    let failed =
        tokio::join!(described, impatient.delete_group_offsets("g", &at), impatient.delete_groups(&["g"]));
    for failed in [failed.0, failed.1, failed.2] {
        let error = failed.expect_err("nobody is there");
        assert_eq!(error.code, ErrorCode::TimedOut, "{error}");
        assert!(error.is_retriable(), "{error}");
    }
    for node in 1..=3 {
        bed.nodes.restart(node);
    }
    let deadline = bed.context.now() + Duration::from_secs(60);
    let described = loop {
        match patient.describe_groups(&["g"]).await {
            Ok(described) => break described,
            Err(error) => {
                assert!(error.is_retriable() && bed.context.now() < deadline, "{error}");
                bed.context.sleep(Duration::from_millis(100)).await;
            }
        }
    };
    assert_eq!(described[0].state, "Empty", "what got no answer was not done");
    patient.delete_groups(&["g"]).await.expect("nobody is in it");
    drop(impatient);
}

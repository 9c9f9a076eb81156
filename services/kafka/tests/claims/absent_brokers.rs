//! Admins that knew a cluster before all of its brokers were there.

use std::time::Duration;

use broker::{Admin, Broker as _, ConfigChange, ConfigResource, Properties};

use crate::bed::Bed;

/// Polls until the cluster has so many brokers.
async fn brokers_are(bed: &Bed, admin: &dyn Admin, count: usize) {
    let deadline = bed.context.now() + Duration::from_secs(60);
    loop {
        match admin.describe_cluster().await {
            Ok(cluster) if cluster.brokers.len() == count => return,
            Ok(_) => {}
            // It went to one that is not there.
            Err(error) => assert!(error.is_retriable(), "the others answer: {error}"),
        }
        assert!(bed.context.now() < deadline, "the cluster has not become {count} brokers");
        bed.context.sleep(Duration::from_millis(100)).await;
    }
}

/// librdkafka 2.12 waits for the next time that it asks for brokers by itself.
#[tokio::test]
async fn a_broker_that_came_after_the_admin_is_asked_for_its_settings() {
    let bed = Bed::start(1).await;
    let impatient = Properties::new().set("socket.timeout.ms", 30_000);
    let observer = bed.broker.admin(&impatient).await.expect("an admin client");
    bed.nodes.kill(3).await;
    brokers_are(&bed, &*observer, 2).await;
    let admin = bed.broker.admin(&impatient).await.expect("an admin client");
    admin.describe_configs(&[ConfigResource::Broker(1)]).await.expect("the first broker's settings");
    bed.nodes.restart(3);
    brokers_are(&bed, &*observer, 3).await;
    let third = ConfigResource::Broker(3);
    let described = admin.describe_configs(std::slice::from_ref(&third)).await.expect("its settings");
    assert_eq!(described[0].1["node.id"].value.as_deref(), Some("3"));
    let change = [("max.connections".to_owned(), ConfigChange::Set("1000".into()))];
    admin.alter_configs(&third, &change).await.expect("a change of its settings");
}

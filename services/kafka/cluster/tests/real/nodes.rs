//! What can be done to the nodes of a cluster that was started here. Each claim leaves it whole.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use shakedown_cluster::{CONTROLLER, ClusterError, RealKafka, listed_by};

pub(crate) type Claim = fn(&RealKafka) -> Result<(), Failed>;

pub(crate) const CLAIMS: &[(&str, Claim)] = &[
    ("a_listener_tells_its_clients_what_it_advertises", a_listener_tells_its_clients_what_it_advertises),
    ("a_killed_broker_is_missed_until_it_is_started", a_killed_broker_is_missed_until_it_is_started),
    ("a_paused_broker_is_there_and_does_not_answer", a_paused_broker_is_there_and_does_not_answer),
    ("a_stopped_broker_leaves_in_order", a_stopped_broker_leaves_in_order),
    ("the_controller_is_killed_and_started", the_controller_is_killed_and_started),
];

const LIMIT: Duration = Duration::from_secs(120);

fn a_listener_tells_its_clients_what_it_advertises(kafka: &RealKafka) -> Result<(), Failed> {
    let told: Vec<_> =
        (1..=3).map(|broker| (broker, (format!("proxy-{broker}.example"), 9_000 + broker as u16))).collect();
    for broker in 1..=3 {
        let port = kafka.listener(broker, "PROXIED").ok_or("the listener is missing")?;
        let listed = listed_by(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        assert_eq!(listed.into_iter().collect::<Vec<_>>(), told);
    }
    assert_eq!(kafka.listener(1, "OTHER"), None);
    Ok(())
}

fn a_killed_broker_is_missed_until_it_is_started(kafka: &RealKafka) -> Result<(), Failed> {
    // Even if it is paused when it is killed.
    kafka.pause(2)?;
    kafka.kill(2)?;
    assert!(!kafka.is_ready(), "a broker is dead");
    assert!(matches!(kafka.pause(2), Err(ClusterError::NotReady(_))), "what does not run cannot be paused");
    kafka.kill(2)?;
    kafka.restart(2)?;
    kafka.restart(2)?;
    kafka.await_ready(LIMIT)?;
    Ok(())
}

fn a_paused_broker_is_there_and_does_not_answer(kafka: &RealKafka) -> Result<(), Failed> {
    kafka.pause(3)?;
    let not_ready = !kafka.is_ready();
    kafka.resume(3)?;
    assert!(not_ready, "a broker does not answer");
    kafka.await_ready(LIMIT)?;
    Ok(())
}

fn a_stopped_broker_leaves_in_order(kafka: &RealKafka) -> Result<(), Failed> {
    // Even if it is paused when it is told.
    kafka.pause(1)?;
    kafka.stop(1)?;
    assert!(!kafka.is_ready(), "a broker is gone");
    let started = Instant::now();
    // It told the controller, so nobody waits for its session: the others know within a moment.
    while kafka_lists(kafka, 2)?.contains(&1) {
        assert!(started.elapsed() < Duration::from_secs(5), "its session was waited for");
        std::thread::sleep(Duration::from_millis(50));
    }
    kafka.restart(1)?;
    kafka.await_ready(LIMIT)?;
    Ok(())
}

fn the_controller_is_killed_and_started(kafka: &RealKafka) -> Result<(), Failed> {
    kafka.kill(CONTROLLER)?;
    assert!(kafka.is_ready(), "brokers serve for a while without a controller");
    kafka.restart(CONTROLLER)?;
    // The brokers find it again: one that starts is let in.
    kafka.kill(1)?;
    kafka.restart(1)?;
    kafka.await_ready(LIMIT)?;
    Ok(())
}

fn kafka_lists(kafka: &RealKafka, broker: u32) -> Result<Vec<u32>, Failed> {
    let port = kafka.listener(broker, "PROXIED").ok_or("the listener is missing")?;
    let listed = listed_by(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    Ok(listed.into_keys().collect())
}

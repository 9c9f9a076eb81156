//! What can be done to the nodes of a cluster that was started here. Each claim leaves it whole.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
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
    ("a_broker_that_does_not_end_as_asked_can_be_killed", a_broker_that_does_not_end_as_asked_can_be_killed),
];

/// What can be tried only where nodes are processes of this machine, by their names in `/proc`.
pub(crate) const CLAIMS_OF_PROCESSES: &[(&str, Claim)] =
    &[("a_broker_that_dies_by_itself_is_named", a_broker_that_dies_by_itself_is_named)];

const LIMIT: Duration = Duration::from_secs(120);

fn a_listener_tells_its_clients_what_it_advertises(kafka: &RealKafka) -> Result<(), Failed> {
    let told: Vec<_> =
        (1..=3).map(|broker| (broker, (format!("proxy-{broker}.example"), 9_000 + broker as u16))).collect();
    for broker in 1..=3 {
        let port = kafka.listener(broker, "PROXIED").ok_or("the listener is missing")?;
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // Each look waits a second, and a broker may be busy.
        let listed = (0..10).find_map(|_| listed_by(at).ok()).ok_or("nobody tells")?;
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
    let stopped = Instant::now();
    // It told the controller, so nobody waits for its session: the others know within a moment.
    loop {
        let asked = stopped.elapsed();
        match kafka_lists(kafka, 2) {
            Ok(listed) if !listed.contains(&1) => break,
            Ok(_) => assert!(asked < Duration::from_secs(5), "its session was waited for"),
            // A broker that is busy tells nothing of the one that is gone.
            Err(_) => assert!(asked < LIMIT, "nobody tells"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // As after a test that panicked between.
    kafka.make_whole(LIMIT)?;
    assert!(kafka.is_ready(), "a broker was left dead");
    Ok(())
}

fn the_controller_is_killed_and_started(kafka: &RealKafka) -> Result<(), Failed> {
    kafka.kill(CONTROLLER)?;
    // Each look waits a second, and a broker may be busy.
    assert!((0..10).any(|_| kafka.is_ready()), "brokers serve for a while without a controller");
    kafka.restart(CONTROLLER)?;
    // The brokers find it again: one that starts is let in.
    kafka.kill(1)?;
    kafka.restart(1)?;
    kafka.await_ready(LIMIT)?;
    Ok(())
}

fn a_broker_that_does_not_end_as_asked_can_be_killed(kafka: &RealKafka) -> Result<(), Failed> {
    // Without a controller it gives nothing away, and waits.
    assert!(kafka.kill(CONTROLLER)?, "it ran");
    std::thread::scope(|scope| -> Result<(), Failed> {
        let stopping = scope.spawn(|| kafka.stop(1));
        // That it goes on waiting is no fact to wait for. Whenever the kill comes the claim holds; the span lets the shutdown begin.
        std::thread::sleep(Duration::from_secs(1));
        assert!(kafka.is_running(1)?, "it waits for the controller");
        let began = Instant::now();
        assert!(kafka.kill(1)?, "it still ran");
        // Whoever asked it to end waits for a minute.
        assert!(began.elapsed() < Duration::from_secs(30), "the kill waited for the controlled shutdown");
        let stopped = stopping.join().map_err(|_| "`stop` panicked")?;
        assert!(matches!(stopped, Err(ClusterError::NotReady(_))), "it did not end as asked: {stopped:?}");
        Ok(())
    })?;
    assert!(!kafka.is_running(1)? && !kafka.kill(1)?, "there is nothing left to kill");
    kafka.restart(CONTROLLER)?;
    kafka.restart(1)?;
    kafka.await_ready(LIMIT)?;
    // One that has ended as it was asked to was not killed, nor did it end by itself.
    kafka.terminate(1)?;
    let asked = Instant::now();
    while kafka.is_running(1)? {
        assert!(asked.elapsed() < LIMIT, "it does not end");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(kafka.dead_by_itself()?, None);
    assert!(!kafka.kill(1)?, "it had ended");
    kafka.restart(1)?;
    kafka.await_ready(LIMIT)?;
    Ok(())
}

fn a_broker_that_dies_by_itself_is_named(kafka: &RealKafka) -> Result<(), Failed> {
    assert_eq!(kafka.dead_by_itself()?, None);
    let killed = Command::new("kill").args(["-KILL", &process_of(2)?.to_string()]).status()?;
    assert!(killed.success(), "the signal was not sent: {killed}");
    let began = Instant::now();
    let dead = loop {
        if let Some(dead) = kafka.dead_by_itself()? {
            break dead;
        }
        assert!(began.elapsed() < LIMIT, "nobody noticed");
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(dead.starts_with("node 2 is not there: ") && dead.contains("log ends with:\n"), "{dead}");
    kafka.restart(2)?;
    kafka.await_ready(LIMIT)?;
    assert_eq!(kafka.dead_by_itself()?, None);
    Ok(())
}

/// The process that runs a node of the shared cluster: this program's only one with such properties.
fn process_of(node: u32) -> Result<u32, Failed> {
    let properties = format!("/node-{node}.properties");
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // It may have ended meanwhile.
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        // Its guardian has the same arguments, and others before them.
        let is_java = line.split('\0').next().is_some_and(|program| program.ends_with("java"));
        if is_java && line.trim_end_matches('\0').ends_with(&properties) && is_ours(id)? {
            return Ok(id);
        }
    }
    Err(format!("no process runs node {node}").into())
}

/// Whether this program is the parent of its parent, which is its guardian.
fn is_ours(id: u32) -> Result<bool, Failed> {
    Ok(parent_of(parent_of(id)?)? == std::process::id())
}

fn parent_of(id: u32) -> Result<u32, Failed> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok());
    parent.ok_or_else(|| format!("process {id} has no parent").into())
}

fn kafka_lists(kafka: &RealKafka, broker: u32) -> Result<Vec<u32>, Failed> {
    let port = kafka.listener(broker, "PROXIED").ok_or("the listener is missing")?;
    let listed = listed_by(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    Ok(listed.into_keys().collect())
}

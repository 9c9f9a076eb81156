//! What of a scenario can be brought on real Kafka, known before anything runs.
//!
//! A cluster that was given keeps its brokers, and has the settings that its owner gave it: of `[cluster]` it takes only what
//! topics can be made with. Nothing slows all links of a machine. Processes have no power to lose, and nothing stands between brokers. What
//! shares memory with the harness (customers, observer, probe) cannot die alone, and all clients are librdkafka's. A file store
//! belongs to one process, so a service has one replica.

use harness::fault::{Unsupported, Wound, wounds_of};
use harness::scenario::{BrokerChoice, Fault, FaultKind, Scenario, USUAL_LATENCY};
use harness::system::System;

/// What properties of the simulator's client begin with that no client of Kafka's knows.
const OURS: &str = "shakedown.";

/// Whose host it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Broker,
    Controller,
    /// A process of its own: a service.
    Service,
    /// A process of its own: an outside system.
    Outside,
    /// In the harness's own process: customers, observer, probe.
    Guest,
}

/// Whose host this is, in a scenario.
pub(crate) fn kind_of(system: &dyn System, host: &str) -> Kind {
    if host == "controller" {
        return Kind::Controller;
    }
    if broker(host).is_some() {
        return Kind::Broker;
    }
    if system.outside().iter().any(|outside| outside == host) {
        return Kind::Outside;
    }
    let is_replica = |service: &String| host.strip_prefix(service.as_str()).is_some_and(is_number);
    if system.services().keys().any(is_replica) { Kind::Service } else { Kind::Guest }
}

fn is_number(rest: &str) -> bool {
    rest.strip_prefix('-').is_some_and(|number| number.parse::<u32>().is_ok())
}

/// The number of a broker's host.
pub(crate) fn broker(host: &str) -> Option<u32> {
    host.strip_prefix("broker-")?.parse().ok()
}

/// Whether a scenario can be brought, on a cluster that is started for it or on one of so many brokers that was given.
pub(crate) fn supported(
    system: &dyn System,
    scenario: &Scenario,
    given: Option<u32>,
) -> Result<(), Unsupported> {
    let unsupported = |fault: Option<&Fault>, why: String| Unsupported {
        file: scenario.file.clone(),
        fault: fault.map(|fault| (fault.kind.word(), fault.line)),
        why: format!("the backend `kafka` cannot {why}"),
    };
    for (service, settings) in &scenario.services {
        if settings.replicas > 1 {
            let replicas = settings.replicas;
            let why =
                format!("run {replicas} replicas of `{service}`: its file store belongs to one process");
            return Err(unsupported(None, why));
        }
    }
    if scenario.latency != USUAL_LATENCY {
        let why = "set `latency` under `[network]`: links are as fast as they are".to_owned();
        return Err(unsupported(None, why));
    }
    let properties = scenario.probe.iter().flat_map(|probe| &probe.properties);
    if let Some((name, value)) = properties.into_iter().find(|(name, _)| name.starts_with(OURS)) {
        let why = format!("set `{name}` to {value} for the probe: its client there is librdkafka");
        return Err(unsupported(None, why));
    }
    if let Some(why) = given.and_then(|brokers| unlike(scenario, brokers)) {
        return Err(unsupported(
            None,
            format!("{why}: the cluster that KAFKA_BOOTSTRAP_SERVERS names is not ours"),
        ));
    }
    for fault in &scenario.faults {
        for wound in wounds(&fault.kind) {
            if let Some(why) = obstacle(system, &wound, given.is_none()) {
                return Err(unsupported(Some(fault), why));
            }
        }
    }
    Ok(())
}

/// What of `[cluster]` a given cluster of so many brokers does not have.
fn unlike(scenario: &Scenario, brokers: u32) -> Option<String> {
    let cluster = &scenario.cluster;
    if let Some((name, value)) = cluster.config.first_key_value() {
        return Some(format!("set `{name}` to {value}"));
    }
    if let Some((name, level)) = cluster.features.first_key_value() {
        return Some(format!("set the feature `{name}` to {level}"));
    }
    (cluster.brokers != brokers).then(|| format!("make {} brokers of {brokers}", cluster.brokers))
}

/// What a fault hurts; whichever broker leads stands for all.
pub(crate) fn wounds(kind: &FaultKind) -> Vec<Wound> {
    match kind {
        FaultKind::CrashBroker { broker: BrokerChoice::LeaderOf { .. }, power_loss } => {
            vec![Wound::Down { host: "broker-1".to_owned(), power_loss: *power_loss }]
        }
        kind => wounds_of(kind),
    }
}

fn obstacle(system: &dyn System, wound: &Wound, owned: bool) -> Option<String> {
    let kind = |host: &str| kind_of(system, host);
    let of_a_process = |host: &str, what: &str| match kind(host) {
        Kind::Service | Kind::Outside => None,
        Kind::Broker | Kind::Controller if owned => None,
        Kind::Broker | Kind::Controller => {
            Some(format!("{what} {host}: the cluster that KAFKA_BOOTSTRAP_SERVERS names is not ours"))
        }
        Kind::Guest => Some(format!("{what} {host}: it shares the harness's process")),
    };
    match wound {
        Wound::Down { host, power_loss: true } => {
            Some(format!("take the power from {host}: it is a process"))
        }
        Wound::Down { host, power_loss: false } => of_a_process(host, "kill"),
        Wound::Paused { host } => of_a_process(host, "pause"),
        Wound::Held { from, to } | Wound::Slowed { from, to, .. } => {
            let what = if matches!(wound, Wound::Held { .. }) { "hold" } else { "slow" };
            let of_cluster = |kind| matches!(kind, Kind::Broker | Kind::Controller);
            match (kind(from), kind(to)) {
                (one, other) if of_cluster(one) && of_cluster(other) => {
                    Some(format!("{what} {from} -> {to}: nothing stands between the nodes of a cluster"))
                }
                (Kind::Broker, _) | (_, Kind::Broker) if !owned => Some(format!(
                    "{what} {from} -> {to}: the brokers that KAFKA_BOOTSTRAP_SERVERS names advertise their own addresses"
                )),
                _ => None,
            }
        }
    }
}

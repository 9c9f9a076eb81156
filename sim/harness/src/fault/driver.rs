//! Brings faults to the world at their times, heals them, and counts what they did there.

use std::collections::BTreeMap;
use std::time::Duration;

use context::{Event, EventKind, Recorder};
use kafka::Cluster;
use reports::FaultReport;
use world::{Change, World};

use super::describe::describe;
use super::{Plan, Wound, Wounds};
use crate::observer::Observer;
use crate::scenario::{BrokerChoice, Fault, FaultKind};

/// What faults act upon.
pub struct Scene<'a> {
    /// The world.
    pub world: &'a mut dyn World,
    /// Every host of it.
    pub hosts: &'a [String],
    /// For the leader of a partition, and for what a broker's disk loses with the power.
    pub cluster: &'a Cluster,
    /// Appends the copies of `duplicate_records`.
    pub observer: &'a Observer,
    /// Hears of every beginning and end.
    pub recorder: &'a dyn Recorder,
}

/// The faults of one run.
#[derive(Debug)]
pub struct Faults<'s> {
    faults: &'s [Fault],
    /// By time from the start of the run; at one instant what heals goes first, since the next occurrence of a fault may
    /// begin at the moment that the last one ends.
    agenda: BTreeMap<(Duration, Turn, u64), Act>,
    scheduled: u64,
    wounds: Wounds,
    reports: Vec<FaultReport>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Heal,
    Hurt,
}

#[derive(Debug)]
enum Act {
    /// One part of a fault begins; only a rolling restart has more than one.
    Hurt { fault: usize, part: usize },
    /// It is over.
    Heal { fault: usize, began: Duration, wounds: Vec<Wound>, before: Counts },
}

/// What has happened to the hosts and links that a part of a fault hurts.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    tasks_killed: u64,
    connections_cut: u64,
    packets_unheard: u64,
    wakes_deferred: u64,
    packets_held: u64,
    packets_slowed: u64,
    records_copied: u64,
}

impl<'s> Faults<'s> {
    /// The faults of a plan, whose times count from `workload_starts` (itself from the start of the run).
    pub fn new(faults: &'s [Fault], plan: &Plan, workload_starts: Duration) -> Faults<'s> {
        let report = |fault: &Fault| FaultReport {
            line: fault.line,
            what: describe(fault),
            active: Vec::new(),
            effects: BTreeMap::new(),
        };
        let reports = faults.iter().map(report).collect();
        let mut this =
            Faults { faults, agenda: BTreeMap::new(), scheduled: 0, wounds: Wounds::default(), reports };
        for occurrence in &plan.occurrences {
            for (part, offset) in parts_of(&faults[occurrence.fault]) {
                let at = workload_starts + occurrence.begins + offset;
                this.schedule(at, Act::Hurt { fault: occurrence.fault, part });
            }
        }
        this
    }

    /// When the next fault begins or ends, from the start of the run; `None` when all are over.
    pub fn next(&self) -> Option<Duration> {
        self.agenda.keys().next().map(|(at, _, _)| *at)
    }

    /// Does what is due at `now` or before.
    ///
    /// # Panics
    /// If the world refuses: the scenario's faults were checked against the engine before the run.
    pub fn advance(&mut self, now: Duration, scene: &mut Scene<'_>) {
        while let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= now) {
            match entry.remove() {
                Act::Hurt { fault, part } => self.hurt(now, fault, part, scene),
                Act::Heal { fault, began, wounds, before } => {
                    self.heal(now, fault, (began, &wounds, before), scene);
                }
            }
        }
    }

    /// Heals whatever is still hurt, and forgets what has not begun.
    pub fn heal_all(&mut self, now: Duration, scene: &mut Scene<'_>) {
        for act in std::mem::take(&mut self.agenda).into_values() {
            if let Act::Heal { fault, began, wounds, before } = act {
                self.heal(now, fault, (began, &wounds, before), scene);
            }
        }
        assert!(self.wounds.is_empty(), "every wound has a fault that heals it");
    }

    /// What each fault did, in the order of the file.
    pub fn into_reports(self) -> Vec<FaultReport> {
        self.reports
    }

    fn hurt(&mut self, now: Duration, number: usize, part: usize, scene: &mut Scene<'_>) {
        let fault = &self.faults[number];
        let what = &self.reports[number].what;
        let wounds = match &fault.kind {
            FaultKind::RollingRestart { hosts, power_loss, .. } => {
                vec![Wound::Down { host: hosts[part].clone(), power_loss: *power_loss }]
            }
            FaultKind::CrashBroker { broker: BrokerChoice::LeaderOf { topic, partition }, power_loss } => {
                let partition = i32::try_from(*partition).expect("a partition's number fits");
                match scene
                    .cluster
                    .leader_of(topic, partition)
                    .and_then(|node| scene.cluster.broker_name(node))
                {
                    Some(leader) => vec![Wound::Down { host: leader.to_owned(), power_loss: *power_loss }],
                    None => Vec::new(),
                }
            }
            kind => wounds_of(kind),
        };
        let before = Counts::of(number, &wounds, scene);
        scene.note(&format!("{what} (line {}) begins{}", fault.line, victims(&wounds)));
        let changes: Vec<Change> = wounds.iter().flat_map(|wound| self.wounds.hurt(number, wound)).collect();
        scene.change(&changes);
        if let FaultKind::DuplicateRecords { topic, probability_ppm } = &fault.kind {
            scene.observer.copy_records(number, topic, *probability_ppm);
        }
        self.schedule(now + fault.lasts, Act::Heal { fault: number, began: now, wounds, before });
    }

    fn heal(
        &mut self,
        now: Duration,
        number: usize,
        (began, wounds, before): (Duration, &[Wound], Counts),
        scene: &mut Scene<'_>,
    ) {
        scene.note(&format!("{} (line {}) is over", self.reports[number].what, self.reports[number].line));
        let changes: Vec<Change> = wounds.iter().flat_map(|wound| self.wounds.heal(number, wound)).collect();
        scene.change(&changes);
        // Counted at the instant of the healing but after it: an engine may know what waited only when it lets it go.
        let after = Counts::of(number, wounds, scene);
        let report = &mut self.reports[number];
        report.active.push((began, now));
        for (effect, count) in after.since(before) {
            *report.effects.entry(effect.to_owned()).or_default() += count;
        }
        if let FaultKind::DuplicateRecords { .. } = &self.faults[number].kind {
            scene.observer.stop_copying(number);
        }
    }

    fn schedule(&mut self, at: Duration, act: Act) {
        self.scheduled += 1;
        let turn = match act {
            Act::Heal { .. } => Turn::Heal,
            Act::Hurt { .. } => Turn::Hurt,
        };
        self.agenda.insert((at, turn, self.scheduled), act);
    }
}

/// Each part of a fault, with the time from the fault's beginning to its own.
fn parts_of(fault: &Fault) -> Vec<(usize, Duration)> {
    match &fault.kind {
        FaultKind::RollingRestart { hosts, gap, .. } => {
            let starts =
                std::iter::successors(Some(Duration::ZERO), |start| Some(*start + fault.lasts + *gap));
            (0..hosts.len()).zip(starts).collect()
        }
        _ => vec![(0, Duration::ZERO)],
    }
}

/// What a fault does to hosts and links. Of a rolling restart all of its parts; of a crash of whoever leads a partition
/// nothing, because that is known only when it happens.
pub(super) fn wounds_of(kind: &FaultKind) -> Vec<Wound> {
    let down = |host: &String, power_loss: &bool| Wound::Down { host: host.clone(), power_loss: *power_loss };
    match kind {
        FaultKind::CrashBroker { broker: BrokerChoice::Number(number), power_loss } => {
            vec![down(&format!("broker-{number}"), power_loss)]
        }
        FaultKind::CrashBroker { broker: BrokerChoice::LeaderOf { .. }, .. } => Vec::new(),
        FaultKind::RollingRestart { hosts, power_loss, .. }
        | FaultKind::CrashService { hosts, power_loss } => {
            hosts.iter().map(|host| down(host, power_loss)).collect()
        }
        FaultKind::CrashController => vec![down(&"controller".to_owned(), &false)],
        FaultKind::CrashOutside { system } => vec![down(system, &false)],
        FaultKind::Pause { host } => vec![Wound::Paused { host: host.clone() }],
        FaultKind::Partition { between, and, one_way } => {
            let there = links(between, and);
            let back = if *one_way { Vec::new() } else { links(and, between) };
            there.into_iter().chain(back).map(|(from, to)| Wound::Held { from, to }).collect()
        }
        FaultKind::Hold { from, to } => {
            links(from, to).into_iter().map(|(from, to)| Wound::Held { from, to }).collect()
        }
        FaultKind::Latency { between, and, range } => links(between, and)
            .into_iter()
            .chain(links(and, between))
            .map(|(from, to)| Wound::Slowed { from, to, range: *range })
            .collect(),
        FaultKind::DuplicateRecords { .. } => Vec::new(),
    }
}

/// Each link from one set of hosts to another; a host has none to itself.
fn links(from: &[String], to: &[String]) -> Vec<(String, String)> {
    let pairs = from.iter().flat_map(|from| to.iter().map(move |to| (from.clone(), to.clone())));
    pairs.filter(|(from, to)| from != to).collect()
}

/// Whom a fault met, where its description may leave it open.
fn victims(wounds: &[Wound]) -> String {
    let down: Vec<&str> = wounds
        .iter()
        .filter_map(|wound| if let Wound::Down { host, .. } = wound { Some(host.as_str()) } else { None })
        .collect();
    if down.is_empty() { String::new() } else { format!(": {}", down.join(", ")) }
}

impl Scene<'_> {
    /// All at once: an engine whose links know no direction takes both directions together.
    fn change(&mut self, changes: &[Change]) {
        if let Err(refusal) = self.world.change_all(changes) {
            panic!("the world refuses what was checked before the run: {refusal}");
        }
        for change in changes {
            if let Change::PowerOff { host } = change {
                self.lose_what_was_not_flushed(host);
            }
        }
    }

    fn lose_what_was_not_flushed(&self, host: &str) {
        let brokers = std::iter::successors(Some(1), |node| Some(node + 1));
        let mut named = brokers.map_while(|node| Some((node, self.cluster.broker_name(node)?)));
        if let Some((node, _)) = named.find(|(_, name)| *name == host) {
            self.cluster.power_lost(node);
        }
    }

    fn note(&self, text: &str) {
        let (at, kind) = (self.world.now(), EventKind::Fault);
        self.recorder.record(Event { at, host: "", kind, text: format_args!("{text}"), bytes: &[] });
    }
}

impl Counts {
    fn of(fault: usize, wounds: &[Wound], scene: &Scene<'_>) -> Counts {
        let mut counts = Counts { records_copied: scene.observer.copied(fault), ..Counts::default() };
        for wound in wounds {
            match wound {
                Wound::Down { host, .. } | Wound::Paused { host } => {
                    let stats = scene.world.host(host).expect("a scenario's hosts are in its world");
                    counts.tasks_killed += stats.tasks_killed;
                    counts.connections_cut += stats.connections_cut;
                    counts.wakes_deferred += stats.wakes_deferred;
                    let links = scene.hosts.iter().map(|from| scene.world.link(from, host));
                    counts.packets_unheard += links.map(|link| link.unheard).sum::<u64>();
                }
                Wound::Held { from, to } => counts.packets_held += scene.world.link(from, to).held,
                Wound::Slowed { from, to, .. } => counts.packets_slowed += scene.world.link(from, to).slowed,
            }
        }
        counts
    }

    /// What has happened since, by name; what has not is left out.
    fn since(self, before: Counts) -> impl Iterator<Item = (&'static str, u64)> {
        let effects = [
            ("tasks killed", self.tasks_killed - before.tasks_killed),
            ("connections cut", self.connections_cut - before.connections_cut),
            ("packets unheard", self.packets_unheard - before.packets_unheard),
            ("wakes deferred", self.wakes_deferred - before.wakes_deferred),
            ("packets held", self.packets_held - before.packets_held),
            ("packets slowed", self.packets_slowed - before.packets_slowed),
            ("records copied", self.records_copied - before.records_copied),
        ];
        effects.into_iter().filter(|(_, count)| *count > 0)
    }
}

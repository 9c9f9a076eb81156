//! Brings faults to the world at their times, heals them, and counts what they did there.
//!
//! What a change does at once (tasks that end, connections that break, records that go with the power) is counted at that
//! change, for the fault that made it: of two crashes of one host the first has killed. What goes on for a while (packets
//! that wait, wakes that are late) is counted from beginning to end, for each fault that asks for it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use context::{Event, EventKind, Recorder};
use kafka::{Cluster, LostWithPower, NodeId};
use reports::FaultReport;
use world::{Change, World};

use super::describe::describe;
use super::{Plan, Wound, Wounds};
use crate::observer::Observer;
use crate::scenario::{BrokerChoice, Fault, FaultKind, STOPS_WITHIN};

/// The effect of a power loss on the disks of brokers, by which it is known to have been one.
pub const RECORDS_LOST: &str = "records lost with the power";

/// How often a broker that was asked to end is looked after.
const LOOKS_EVERY: Duration = Duration::from_millis(100);

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
    /// A part of a fault begins.
    Hurt(Part),
    /// A broker was asked to end at `began`: has it?
    Stop { part: Part, node: NodeId, began: Duration },
    /// It is over.
    Heal { part: Part, began: Duration, wounds: Vec<Wound>, before: Counts },
}

/// One part of a fault; only a rolling restart has more than one.
#[derive(Clone, Copy, Debug)]
struct Part {
    fault: usize,
    number: usize,
    lasts: Duration,
}

/// What goes on at the hosts and links that a part of a fault hurts.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
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
            let part = Part { fault: occurrence.fault, number: 0, lasts: occurrence.lasts };
            this.schedule(workload_starts + occurrence.begins, Act::Hurt(part));
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
                Act::Hurt(part) => self.begin(now, part, scene),
                Act::Stop { part, node, began } => self.await_stop(now, (part, node, began), scene),
                Act::Heal { part, began, wounds, before } => {
                    self.heal(now, part, (began, &wounds, before), scene);
                    self.go_on(now, part);
                }
            }
        }
    }

    /// Heals whatever is still hurt, and forgets what has not begun.
    pub fn heal_all(&mut self, now: Duration, scene: &mut Scene<'_>) {
        while let Some((_, act)) = self.agenda.pop_first() {
            match act {
                Act::Hurt(_) => {}
                // It may have ended already: the host goes down, and is up again at once.
                Act::Stop { part, began, .. } => self.hurt(now, part, began, scene),
                Act::Heal { part, began, wounds, before } => {
                    self.heal(now, part, (began, &wounds, before), scene);
                }
            }
        }
        assert!(self.wounds.is_empty(), "every wound has a fault that heals it");
    }

    /// What each fault did, in the order of the file.
    pub fn into_reports(self) -> Vec<FaultReport> {
        self.reports
    }

    /// A part begins: at once, or by asking a broker to end.
    fn begin(&mut self, now: Duration, part: Part, scene: &mut Scene<'_>) {
        let asked = match &self.faults[part.fault].kind {
            FaultKind::RollingRestart { hosts, clean: true, .. }
                if !self.wounds.is_down(&hosts[part.number]) =>
            {
                scene.node_of(&hosts[part.number])
            }
            _ => None,
        };
        let Some(node) = asked else { return self.hurt(now, part, now, scene) };
        let report = &self.reports[part.fault];
        let host = scene.cluster.broker_name(node).expect("a node has a name");
        scene.note(&format!("{} (line {}) begins: {host} is asked to end", report.what, report.line));
        scene.cluster.shut_down(node);
        self.schedule(now + LOOKS_EVERY, Act::Stop { part, node, began: now });
    }

    fn await_stop(&mut self, now: Duration, asked: (Part, NodeId, Duration), scene: &mut Scene<'_>) {
        let (part, node, began) = asked;
        let host = scene.cluster.broker_name(node).expect("a node has a name");
        if scene.cluster.has_stopped(node) {
            self.count(part.fault, "clean stops", 1);
        } else if now >= began + STOPS_WITHIN {
            scene.note(&format!("{host} has not ended within {STOPS_WITHIN:?} and is killed"));
        } else if !self.wounds.is_down(host) {
            // Another fault may have killed it meanwhile, and started it again: then this process has not heard. One that
            // has takes another SIGTERM for nothing.
            scene.cluster.shut_down(node);
            return self.schedule(now + LOOKS_EVERY, Act::Stop { part, node, began });
        }
        self.hurt(now, part, began, scene);
    }

    fn hurt(&mut self, now: Duration, part: Part, began: Duration, scene: &mut Scene<'_>) {
        let number = part.fault;
        let fault = &self.faults[number];
        let what = &self.reports[number].what;
        let wounds = match &fault.kind {
            FaultKind::RollingRestart { hosts, power_loss, .. } => {
                vec![Wound::Down { host: hosts[part.number].clone(), power_loss: *power_loss }]
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
        let verb = if began == now { "begins" } else { "goes on" };
        scene.note(&format!("{what} (line {}) {verb}{}", fault.line, victims(&wounds)));
        let changes: Vec<Change> = wounds.iter().flat_map(|wound| self.wounds.hurt(number, wound)).collect();
        for (effect, count) in scene.change(&changes) {
            self.count(number, effect, count);
        }
        if let FaultKind::DuplicateRecords { topic, probability_ppm } = &fault.kind {
            scene.observer.copy_records(number, topic, *probability_ppm);
        }
        self.schedule(now + part.lasts, Act::Heal { part, began, wounds, before });
    }

    fn heal(
        &mut self,
        now: Duration,
        Part { fault: number, .. }: Part,
        (began, wounds, before): (Duration, &[Wound], Counts),
        scene: &mut Scene<'_>,
    ) {
        scene.note(&format!("{} (line {}) is over", self.reports[number].what, self.reports[number].line));
        let changes: Vec<Change> = wounds.iter().flat_map(|wound| self.wounds.heal(number, wound)).collect();
        scene.change(&changes);
        // Counted at the instant of the healing but after it: an engine may know what waited only when it lets it go.
        let after = Counts::of(number, wounds, scene);
        self.reports[number].active.push((began, now));
        for (effect, count) in after.since(before) {
            self.count(number, effect, count);
        }
        if let FaultKind::DuplicateRecords { .. } = &self.faults[number].kind {
            scene.observer.stop_copying(number);
        }
    }

    /// What comes after a part that is over: of a rolling restart the next host.
    fn go_on(&mut self, now: Duration, part: Part) {
        if let FaultKind::RollingRestart { hosts, gap, .. } = &self.faults[part.fault].kind
            && part.number + 1 < hosts.len()
        {
            self.schedule(now + *gap, Act::Hurt(Part { number: part.number + 1, ..part }));
        }
    }

    fn count(&mut self, fault: usize, effect: &str, count: u64) {
        if count > 0 {
            *self.reports[fault].effects.entry(effect.to_owned()).or_default() += count;
        }
    }

    fn schedule(&mut self, at: Duration, act: Act) {
        self.scheduled += 1;
        let turn = match act {
            Act::Heal { .. } => Turn::Heal,
            Act::Hurt(_) | Act::Stop { .. } => Turn::Hurt,
        };
        self.agenda.insert((at, turn, self.scheduled), act);
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
        FaultKind::CrashController { .. } => vec![down(&"controller".to_owned(), &false)],
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
    /// All at once: an engine whose links know no direction takes both directions together. Gives what the changes did on
    /// the spot, by name.
    fn change(&mut self, changes: &[Change]) -> [(&'static str, u64); 3] {
        let (tasks, connections) = self.ended(changes);
        if let Err(refusal) = self.world.change_all(changes) {
            panic!("the world refuses what was checked before the run: {refusal}");
        }
        let mut records_lost = 0;
        for change in changes {
            if let Change::PowerOff { host } = change {
                records_lost += self.lose_what_was_not_flushed(host);
            }
        }
        let (tasks_after, connections_after) = self.ended(changes);
        [
            ("tasks killed", tasks_after - tasks),
            ("connections cut", connections_after - connections),
            (RECORDS_LOST, records_lost),
        ]
    }

    /// The tasks that were killed and the connections that were cut so far, at the hosts that are changed.
    fn ended(&self, changes: &[Change]) -> (u64, u64) {
        let hosts: BTreeSet<&str> = changes.iter().filter_map(Change::host).collect();
        let stats = hosts.into_iter().filter_map(|host| self.world.host(host));
        stats.fold((0, 0), |(tasks, cut), stats| (tasks + stats.tasks_killed, cut + stats.connections_cut))
    }

    /// The records that are gone.
    fn lose_what_was_not_flushed(&self, host: &str) -> u64 {
        let Some(node) = self.node_of(host) else { return 0 };
        let lost = self.cluster.power_lost(node, self.world.now());
        for LostWithPower { topic, partition, loss } in &lost {
            self.note(&format!(
                "{host} loses {} records of {topic}/{partition} with the power: its log ended at {}, and ends at {} now, \
                 {} bytes of a torn batch behind it",
                loss.records, loss.end_before, loss.end, loss.torn_bytes
            ));
        }
        lost.iter().map(|lost| lost.loss.records).sum()
    }

    /// The broker that is this host, if one is.
    fn node_of(&self, host: &str) -> Option<NodeId> {
        self.cluster.brokers().find(|node| self.cluster.broker_name(*node) == Some(host))
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
                Wound::Down { host, power_loss: true } => {
                    let links = scene.hosts.iter().map(|from| scene.world.link(from, host));
                    counts.packets_unheard += links.map(|link| link.unheard).sum::<u64>();
                }
                Wound::Down { .. } => {}
                Wound::Paused { host } => {
                    let stats = scene.world.host(host).expect("a scenario's hosts are in its world");
                    counts.wakes_deferred += stats.wakes_deferred;
                }
                Wound::Held { from, to } => counts.packets_held += scene.world.link(from, to).held,
                Wound::Slowed { from, to, .. } => counts.packets_slowed += scene.world.link(from, to).slowed,
            }
        }
        counts
    }

    /// What has happened since, by name.
    fn since(self, before: Counts) -> impl Iterator<Item = (&'static str, u64)> {
        let effects = [
            ("packets unheard", self.packets_unheard - before.packets_unheard),
            ("wakes deferred", self.wakes_deferred - before.wakes_deferred),
            ("packets held", self.packets_held - before.packets_held),
            ("packets slowed", self.packets_slowed - before.packets_slowed),
            ("records copied", self.records_copied - before.records_copied),
        ];
        effects.into_iter()
    }
}

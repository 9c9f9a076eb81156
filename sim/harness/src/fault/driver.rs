//! Brings faults to the stage at their times, heals them, and counts what they did there.
//!
//! What a change does at once (tasks that end, connections that break, records that go with the power) is counted at that
//! change, for the fault that made it: of two crashes of one host the first has killed. What goes on for a while (packets
//! that wait, wakes that are late) is counted from beginning to end, for each fault that asks for it.

use std::collections::BTreeMap;
use std::time::Duration;

use context::{Event, EventKind, Recorder};
use reports::FaultReport;
use world::Change;

use super::describe::describe;
use super::{Plan, Wound, Wounds};
use crate::observer::Observer;
use crate::scenario::{BrokerChoice, Fault, FaultKind, STOPS_WITHIN};
use crate::stage::Stage;

/// The effect of a power loss on the disks of brokers, by which it is known to have been one.
pub const RECORDS_LOST: &str = "records lost with the power";

/// How often a broker that was asked to end is looked after.
const LOOKS_EVERY: Duration = Duration::from_millis(100);

/// What faults act upon.
pub struct Scene<'a> {
    /// Hosts, links and brokers.
    pub stage: &'a mut dyn Stage,
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
    Stop { part: Part, broker: String, began: Duration },
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

/// What goes on at the hosts and links that a part of a fault hurts, by name.
type Counts = BTreeMap<&'static str, u64>;

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
    /// If the stage refuses: the scenario's faults were checked against the backend before the run.
    pub fn advance(&mut self, now: Duration, scene: &mut Scene<'_>) {
        while let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= now) {
            match entry.remove() {
                Act::Hurt(part) => self.begin(now, part, scene),
                Act::Stop { part, broker, began } => self.await_stop(now, (part, broker, began), scene),
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
                Some(hosts[part.number].clone()).filter(|host| scene.stage.is_broker(host))
            }
            _ => None,
        };
        let Some(broker) = asked else { return self.hurt(now, part, now, scene) };
        let report = &self.reports[part.fault];
        scene.note(&format!("{} (line {}) begins: {broker} is asked to end", report.what, report.line));
        scene.stage.shut_down(&broker);
        self.schedule(now + LOOKS_EVERY, Act::Stop { part, broker, began: now });
    }

    fn await_stop(&mut self, now: Duration, asked: (Part, String, Duration), scene: &mut Scene<'_>) {
        let (part, broker, began) = asked;
        if scene.stage.has_stopped(&broker) {
            self.count(part.fault, "clean stops", 1);
        } else if now >= began + STOPS_WITHIN {
            scene.note(&format!("{broker} has not ended within {STOPS_WITHIN:?} and is killed"));
        } else if !self.wounds.is_down(&broker) {
            // Another fault may have killed it meanwhile, and started it again: then this process has not heard. One that
            // has takes another SIGTERM for nothing.
            scene.stage.shut_down(&broker);
            return self.schedule(now + LOOKS_EVERY, Act::Stop { part, broker, began });
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
                match scene.stage.leader_of(topic, partition) {
                    Some(leader) => vec![Wound::Down { host: leader, power_loss: *power_loss }],
                    None => Vec::new(),
                }
            }
            kind => wounds_of(kind),
        };
        let before = scene.suffered(number, &wounds);
        let verb = if began == now { "begins" } else { "goes on" };
        scene.note(&format!("{what} (line {}) {verb}{}", fault.line, victims(&wounds)));
        let changes: Vec<Change> = wounds.iter().flat_map(|wound| self.wounds.hurt(number, wound)).collect();
        for (effect, count) in scene.stage.change(&changes) {
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
        scene.stage.change(&changes);
        // Counted at the instant of the healing but after it: an engine may know what waited only when it lets it go.
        let after = scene.suffered(number, wounds);
        self.reports[number].active.push((began, now));
        for (effect, count) in after {
            self.count(number, effect, count - before.get(effect).copied().unwrap_or(0));
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
pub fn wounds_of(kind: &FaultKind) -> Vec<Wound> {
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
    /// What has happened so far at what a fault hurts.
    fn suffered(&self, fault: usize, wounds: &[Wound]) -> Counts {
        let mut counts = Counts::from([("records copied", self.observer.copied(fault))]);
        wounds.iter().for_each(|wound| self.stage.suffered(wound, &mut counts));
        counts
    }

    fn note(&self, text: &str) {
        let (at, kind) = (self.stage.now(), EventKind::Fault);
        self.recorder.record(Event { at, host: "", kind, text: format_args!("{text}"), bytes: &[] });
    }
}

//! Who hurts what, so that faults may overlap.

use std::collections::{BTreeMap, BTreeSet};

use world::{Change, LatencyRange};

/// One thing that is wrong with a host or a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wound {
    /// The host is down.
    Down {
        /// The host.
        host: String,
        /// Its machine has no power.
        power_loss: bool,
    },
    /// The host is paused.
    Paused {
        /// The host.
        host: String,
    },
    /// Bytes wait.
    Held {
        /// The sender.
        from: String,
        /// The receiver.
        to: String,
    },
    /// The link has another latency.
    Slowed {
        /// The sender.
        from: String,
        /// The receiver.
        to: String,
        /// Which.
        range: LatencyRange,
    },
}

/// A host or a link stays hurt as long as any fault hurts it. This is what the faults want of the world; it gives the
/// changes that bring the world there.
#[derive(Debug, Default)]
pub struct Wounds {
    down: BTreeMap<String, BTreeSet<usize>>,
    /// Those of them whose machine has no power, from the loss to the restart.
    dark: BTreeSet<String>,
    paused: BTreeMap<String, BTreeSet<usize>>,
    held: BTreeMap<(String, String), BTreeSet<usize>>,
    /// The fault that came last decides.
    slowed: BTreeMap<(String, String), Vec<(usize, LatencyRange)>>,
}

impl Wounds {
    /// `fault` hurts; gives what has to change, nothing if the world is there already.
    pub fn hurt(&mut self, fault: usize, wound: &Wound) -> Vec<Change> {
        match wound.clone() {
            Wound::Down { host, power_loss } => {
                let faults = self.down.entry(host.clone()).or_default();
                let was_up = faults.is_empty();
                faults.insert(fault);
                // A process that is stopped dies like any other; its successor is not stopped.
                self.paused.remove(&host);
                // That its process is dead keeps no machine from losing power, and its disk what was not flushed.
                if power_loss && self.dark.insert(host.clone()) {
                    vec![Change::PowerOff { host }]
                } else if was_up {
                    vec![Change::Kill { host }]
                } else {
                    Vec::new()
                }
            }
            Wound::Paused { host } => {
                if self.down.contains_key(&host) {
                    return Vec::new();
                }
                let faults = self.paused.entry(host.clone()).or_default();
                let was_running = faults.is_empty();
                faults.insert(fault);
                if was_running { vec![Change::Pause { host }] } else { Vec::new() }
            }
            Wound::Held { from, to } => {
                let faults = self.held.entry((from.clone(), to.clone())).or_default();
                let was_free = faults.is_empty();
                faults.insert(fault);
                if was_free { vec![Change::Hold { from, to }] } else { Vec::new() }
            }
            Wound::Slowed { from, to, range } => {
                self.slowed.entry((from.clone(), to.clone())).or_default().push((fault, range));
                vec![Change::Latency { from, to, range: Some(range) }]
            }
        }
    }

    /// `fault` no longer hurts; gives what has to change, nothing while another still does.
    pub fn heal(&mut self, fault: usize, wound: &Wound) -> Vec<Change> {
        match wound.clone() {
            Wound::Down { host, .. } => {
                if removed_last(&mut self.down, &host, fault) {
                    self.dark.remove(&host);
                    vec![Change::Restart { host }]
                } else {
                    Vec::new()
                }
            }
            Wound::Paused { host } => {
                if removed_last(&mut self.paused, &host, fault) {
                    vec![Change::Resume { host }]
                } else {
                    Vec::new()
                }
            }
            Wound::Held { from, to } => {
                let link = (from.clone(), to.clone());
                if removed_last(&mut self.held, &link, fault) {
                    vec![Change::Release { from, to }]
                } else {
                    Vec::new()
                }
            }
            Wound::Slowed { from, to, .. } => {
                let link = (from.clone(), to.clone());
                let Some(faults) = self.slowed.get_mut(&link) else { return Vec::new() };
                faults.retain(|(other, _)| *other != fault);
                let range = faults.last().map(|(_, range)| *range);
                if range.is_none() {
                    self.slowed.remove(&link);
                }
                vec![Change::Latency { from, to, range }]
            }
        }
    }

    /// Whether a fault has taken the host down.
    pub fn is_down(&self, host: &str) -> bool {
        self.down.contains_key(host)
    }

    /// Nothing is hurt.
    pub fn is_empty(&self) -> bool {
        self.down.is_empty() && self.paused.is_empty() && self.held.is_empty() && self.slowed.is_empty()
    }
}

fn removed_last<K: Ord>(hurt: &mut BTreeMap<K, BTreeSet<usize>>, key: &K, fault: usize) -> bool {
    let Some(faults) = hurt.get_mut(key) else { return false };
    faults.remove(&fault);
    if faults.is_empty() {
        hurt.remove(key);
        return true;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn down() -> Wound {
        Wound::Down { host: "a".into(), power_loss: false }
    }

    fn texts(changes: Vec<Change>) -> Vec<String> {
        changes.iter().map(Change::to_string).collect()
    }

    #[test]
    fn a_host_that_two_faults_crash_is_up_when_both_are_over() {
        let mut wounds = Wounds::default();
        assert_eq!(texts(wounds.hurt(0, &down())), ["kill a"]);
        assert!(wounds.hurt(1, &down()).is_empty());
        assert!(wounds.heal(0, &down()).is_empty());
        assert_eq!(texts(wounds.heal(1, &down())), ["restart a"]);
        assert!(wounds.is_empty());
    }

    #[test]
    fn a_host_that_is_down_can_still_lose_its_power_once() {
        let (mut wounds, dark) = (Wounds::default(), Wound::Down { host: "a".into(), power_loss: true });
        assert_eq!(texts(wounds.hurt(0, &down())), ["kill a"]);
        assert_eq!(texts(wounds.hurt(1, &dark)), ["power off a"]);
        assert!(wounds.hurt(2, &dark).is_empty(), "it has none to lose");
        assert!(wounds.heal(0, &down()).is_empty() && wounds.heal(1, &dark).is_empty());
        assert_eq!(texts(wounds.heal(2, &dark)), ["restart a"]);
        assert_eq!(texts(wounds.hurt(3, &dark)), ["power off a"]);
    }

    #[test]
    fn a_crash_ends_a_pause_and_what_is_down_cannot_be_paused() {
        let (mut wounds, paused) = (Wounds::default(), Wound::Paused { host: "a".into() });
        assert_eq!(texts(wounds.hurt(0, &paused)), ["pause a"]);
        assert_eq!(texts(wounds.hurt(1, &down())), ["kill a"]);
        assert!(wounds.hurt(2, &paused).is_empty());
        assert_eq!(texts(wounds.heal(1, &down())), ["restart a"]);
        assert!(wounds.heal(0, &paused).is_empty() && wounds.heal(2, &paused).is_empty());
        assert!(wounds.is_empty());
    }

    #[test]
    fn of_two_latencies_the_later_counts_until_it_is_over() {
        let mut wounds = Wounds::default();
        let slow =
            |max| Wound::Slowed { from: "a".into(), to: "b".into(), range: LatencyRange::millis(1, max) };
        wounds.hurt(0, &slow(10));
        wounds.hurt(1, &slow(20));
        assert_eq!(texts(wounds.heal(1, &slow(20))), ["slow a -> b to 1ms..10ms"]);
        assert_eq!(texts(wounds.heal(0, &slow(10))), ["reset the latency of a -> b"]);
        assert!(wounds.is_empty());
    }

    #[test]
    fn a_link_that_two_faults_hold_is_free_when_both_are_over() {
        let (mut wounds, held) = (Wounds::default(), Wound::Held { from: "a".into(), to: "b".into() });
        assert_eq!(texts(wounds.hurt(0, &held)), ["hold a -> b"]);
        assert!(wounds.hurt(1, &held).is_empty());
        assert!(wounds.heal(1, &held).is_empty());
        assert_eq!(texts(wounds.heal(0, &held)), ["release a -> b"]);
    }
}

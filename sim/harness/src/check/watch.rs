//! The checks of one run, and what they have found so far.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use reports::{Finding, FindingKind};

use super::{Breach, Breaches, Check, Moment, Occasion};

/// So many breaches of one check stand in its finding with their evidence; of the others only the number.
const BREACHES_SHOWN: usize = 5;

/// The checks of one run. Shared by all that has something to show them.
#[derive(Default)]
pub struct Watch {
    exactly_once: bool,
    watched: Mutex<Vec<Watched>>,
}

struct Watched {
    check: Box<dyn Check>,
    /// The first few, with the moment at which each was found.
    shown: Vec<(Moment, Breach)>,
    found: usize,
    announced: usize,
}

impl Watch {
    /// No checks yet. Without `exactly_once` the checks that claim it are left out when they are added.
    pub fn new(exactly_once: bool) -> Watch {
        Watch { exactly_once, watched: Mutex::default() }
    }

    /// Adds a check; it hears of everything from now on.
    ///
    /// # Panics
    /// If there is one of that name: findings could not be told apart.
    pub fn add(&self, check: Box<dyn Check>) {
        if check.is_exactly_once() && !self.exactly_once {
            return;
        }
        let mut watched = self.watched();
        let name = check.name();
        assert!(
            watched.iter().all(|other| other.check.name() != name),
            "there are two checks called `{name}`"
        );
        watched.push(Watched { check, shown: Vec::new(), found: 0, announced: 0 });
    }

    /// Shows something to every check, in the order in which they were added.
    pub fn look(&self, moment: Moment, occasion: Occasion<'_>) {
        let mut breaches = Breaches::default();
        for watched in self.watched().iter_mut() {
            watched.check.look(moment, occasion, &mut breaches);
            for breach in breaches.take() {
                watched.found += 1;
                if watched.shown.len() < BREACHES_SHOWN {
                    watched.shown.push((moment, breach));
                }
            }
        }
    }

    /// What was found since the last call, one line each, for the trace.
    pub fn announce(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for watched in self.watched().iter_mut() {
            let name = watched.check.name();
            for (_, breach) in watched.shown.iter().skip(watched.announced) {
                lines.push(format!("`{name}` is broken: {}", breach.says));
            }
            let unseen = watched.found.saturating_sub(watched.announced.max(watched.shown.len()));
            if unseen > 0 {
                lines.push(format!("`{name}` is broken {unseen} more times"));
            }
            watched.announced = watched.found;
        }
        lines
    }

    /// One finding for each check that was broken, in the order in which they broke first.
    pub fn findings(&self) -> Vec<Finding> {
        let watched = self.watched();
        let mut broken: Vec<&Watched> = watched.iter().filter(|watched| !watched.shown.is_empty()).collect();
        broken.sort_by_key(|watched| watched.shown[0].0);
        broken.into_iter().map(Watched::finding).collect()
    }

    fn watched(&self) -> MutexGuard<'_, Vec<Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    fn finding(&self) -> Finding {
        let first = &self.shown[0].1;
        let says = match self.found - 1 {
            0 => first.says.clone(),
            more => format!("{} (and {more} more of this kind)", first.says),
        };
        let evidence = self.shown.iter().flat_map(|(_, breach)| breach.evidence.iter().cloned()).collect();
        Finding { kind: FindingKind::Safety, check: self.check.name().to_owned(), says, evidence }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.watched().iter().map(|watched| watched.check.name())).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Breaks at every step.
    struct NeverHolds {
        name: &'static str,
        exactly_once: bool,
        steps: u32,
    }

    impl Check for NeverHolds {
        fn name(&self) -> &'static str {
            self.name
        }

        fn is_exactly_once(&self) -> bool {
            self.exactly_once
        }

        fn look(&mut self, moment: Moment, occasion: Occasion<'_>, breaches: &mut Breaches) {
            if matches!(occasion, Occasion::Step) {
                self.steps += 1;
                breaches.report(format!("step {}", self.steps), vec![moment.evidence("a step")]);
            }
        }
    }

    fn check(name: &'static str, exactly_once: bool) -> Box<NeverHolds> {
        Box::new(NeverHolds { name, exactly_once, steps: 0 })
    }

    fn at(ms: u64) -> Moment {
        Moment { at: Duration::from_millis(ms), event: ms }
    }

    #[test]
    fn breaches_of_one_check_make_one_finding_that_counts_them() {
        let watch = Watch::new(true);
        watch.add(check("never", false));
        assert_eq!(watch.findings(), vec![]);
        (1..=7).for_each(|ms| watch.look(at(ms), Occasion::Step));
        let findings = watch.findings();
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].says, "step 1 (and 6 more of this kind)");
        assert_eq!(findings[0].evidence.len(), 5);
        assert_eq!(findings[0].kind, FindingKind::Safety);
    }

    #[test]
    fn what_was_found_is_announced_once() {
        let watch = Watch::new(true);
        watch.add(check("never", false));
        watch.look(at(1), Occasion::Step);
        assert_eq!(watch.announce(), ["`never` is broken: step 1"]);
        assert_eq!(watch.announce(), Vec::<String>::new());
        (2..=8).for_each(|ms| watch.look(at(ms), Occasion::Step));
        let lines = watch.announce();
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[4], "`never` is broken 3 more times");
        assert!(watch.announce().is_empty());
    }

    #[test]
    fn a_scenario_without_exactly_once_hears_nothing_of_it() {
        let watch = Watch::new(false);
        watch.add(check("twice", true));
        watch.add(check("never", false));
        watch.look(at(1), Occasion::Step);
        let found: Vec<String> = watch.findings().into_iter().map(|finding| finding.check).collect();
        assert_eq!(found, ["never"]);
    }

    #[test]
    #[should_panic(expected = "two checks called `never`")]
    fn two_checks_of_one_name_are_a_bug() {
        let watch = Watch::new(true);
        watch.add(check("never", false));
        watch.add(check("never", false));
    }
}

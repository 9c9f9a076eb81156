//! What must hold, and how it is watched.
//!
//! A [`Check`] is one claim. It hears of every commit, fault, note and client call as it happens, of every step of time,
//! and of the end ([`Occasion`]); whenever it finds its claim broken it says so to [`Breaches`]. An invariant holds
//! after each event; a validation holds once the run has healed and the system is at rest. One type may do both.
//!
//! [`Watch`] holds the checks of a run and turns what they report into findings. The checks of Kafka, from what clients
//! saw, are in [`kafka`]; [`client`] says what clients saw. Checks of the business come with the system under test.

pub mod client;
pub mod kafka;
mod watch;

pub use watch::Watch;

use std::time::Duration;

use context::Event;
use reports::Evidence;

/// A claim that is watched during a run.
///
/// Called from within the events of the world: it must not wait, and must not record events itself. What it looks at
/// behind a lock must not be locked by whoever records (see [`context::Recorder::record`]).
pub trait Check: Send {
    /// Its name, as `breaks` and findings give it.
    fn name(&self) -> &'static str;

    /// It claims that an effect does not happen twice. Such checks are silent where a scenario says
    /// `exactly_once = false`.
    fn is_exactly_once(&self) -> bool {
        false
    }

    /// Something happened. What breaks the claim goes to `breaches`; report each breach once.
    fn look(&mut self, moment: Moment, occasion: Occasion<'_>, breaches: &mut Breaches);
}

/// When a check looks.
#[derive(Clone, Copy, Debug)]
pub enum Occasion<'a> {
    /// A store committed, a fault began or ended, a note was made. Frames and timers are not shown: they are too many,
    /// and change nothing that a check may claim.
    Event(&'a Event<'a>),
    /// A client of Kafka did something, or was told something.
    Client(&'a client::ClientEvent<'a>),
    /// A step of simulated time is over; a step is 100 ms or less.
    Step,
    /// The run is over.
    End {
        /// The system came to rest: what holds only of a finished system must hold now. If it did not, the runner
        /// reports that by itself, and a check keeps to what holds at any time.
        at_rest: bool,
    },
}

/// When something happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// From the start of the run.
    pub at: Duration,
    /// The number of the run's last event.
    pub event: u64,
}

impl Moment {
    /// Evidence of what happened at this moment.
    pub fn evidence(self, what: impl Into<String>) -> Evidence {
        Evidence { at: Some(self.at), event: Some(self.event), place: None, what: what.into() }
    }

    /// Evidence with the place of a record: `payment.commands/0@17`.
    pub fn evidence_at(self, place: impl Into<String>, what: impl Into<String>) -> Evidence {
        Evidence { place: Some(place.into()), ..self.evidence(what) }
    }
}

/// Takes what a check found broken.
#[derive(Debug, Default)]
pub struct Breaches {
    found: Vec<Breach>,
}

/// One case of a broken claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// What is wrong, a sentence with names and numbers, without a full stop.
    pub says: String,
    /// What shows it, in the order of time.
    pub evidence: Vec<Evidence>,
}

impl Breaches {
    /// Reports one.
    pub fn report(&mut self, says: impl Into<String>, evidence: Vec<Evidence>) {
        self.found.push(Breach { says: says.into(), evidence });
    }

    /// What was reported since the last call.
    pub fn take(&mut self) -> Vec<Breach> {
        std::mem::take(&mut self.found)
    }
}

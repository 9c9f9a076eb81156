//! Defects planted on purpose.
//!
//! A harness that finds nothing proves nothing. The defects that the field's sample code shows again and again (effects
//! without an inbox, fresh keys on every try) can be switched on for one service in a scenario
//! (`[services.payment] naive = ["no_inbox"]`), and the harness must then find what they break. All are off by
//! default, and a service that has one on says so in its trace at every start.

use std::collections::BTreeSet;
use std::fmt;

use context::Context;

/// One defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NaiveSwitch {
    /// The inbox is neither read nor written: every delivery is handled as if it were the first (D0.9, D3.10, D4.11).
    NoInbox,
    /// Every call to the outside carries a fresh idempotency key, so the outside cannot know a repeat (D0.15).
    FreshKeys,
}

impl NaiveSwitch {
    /// All defects.
    pub const ALL: [NaiveSwitch; 2] = [NaiveSwitch::NoInbox, NaiveSwitch::FreshKeys];

    /// Its name in scenario files.
    pub fn name(self) -> &'static str {
        match self {
            NaiveSwitch::NoInbox => "no_inbox",
            NaiveSwitch::FreshKeys => "fresh_keys",
        }
    }
}

/// A name that is none of the defects.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no defect `{name}` to plant; there are {}", names())]
pub struct UnknownNaive {
    /// What was asked for.
    pub name: String,
}

fn names() -> String {
    NaiveSwitch::ALL.map(|switch| format!("`{}`", switch.name())).join(", ")
}

/// The defects that are on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Naive(BTreeSet<NaiveSwitch>);

impl Naive {
    /// None: what a service should be.
    pub fn none() -> Naive {
        Naive::default()
    }

    /// Reads the names of a scenario.
    ///
    /// # Errors
    /// The first name that is none.
    pub fn parse<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Result<Naive, UnknownNaive> {
        let switch = |name: S| {
            let name = name.as_ref();
            let found = NaiveSwitch::ALL.into_iter().find(|switch| switch.name() == name);
            found.ok_or_else(|| UnknownNaive { name: name.to_owned() })
        };
        names.into_iter().map(switch).collect::<Result<_, _>>().map(Naive)
    }

    /// With `switch` on.
    #[must_use]
    pub fn with(mut self, switch: NaiveSwitch) -> Naive {
        self.0.insert(switch);
        self
    }

    /// Whether `switch` is on.
    pub fn is_on(&self, switch: NaiveSwitch) -> bool {
        self.0.contains(&switch)
    }

    /// Says in the trace what is on.
    pub(crate) fn announce(&self, context: &Context) {
        if !self.0.is_empty() {
            context.trouble(format_args!("PLANTED DEFECTS: this service runs with {self}"));
        }
    }
}

impl fmt::Display for Naive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|switch| switch.name()).collect();
        f.write_str(&names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_defect_is_found_by_its_name() {
        for switch in NaiveSwitch::ALL {
            let naive = Naive::parse([switch.name()]).unwrap();
            assert!(naive.is_on(switch));
            assert_eq!(naive, Naive::none().with(switch));
        }
        assert_eq!(Naive::parse::<&str>([]), Ok(Naive::none()));
    }

    #[test]
    fn an_unknown_defect_is_refused_with_those_there_are() {
        let error = Naive::parse(["no_inbox", "no_outbox"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no defect `no_outbox` to plant; there are `no_inbox`, `fresh_keys`"
        );
    }
}

//! The engines by name, and what each can do to a world.

use std::fmt;
use std::str::FromStr;

use crate::{Change, Refusal};

/// Which engine drives the world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Engine {
    /// Our own driver over turmoil's network stack: jumps from event to event, and refuses no change.
    #[default]
    Jump,
    /// turmoil's own `Sim`, the reference: ticks every millisecond, and its links hold in both directions or in none.
    Turmoil,
}

/// A word that names no engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no engine `{0}`; there are `jump` and `turmoil`")]
pub struct NoSuchEngine(pub String);

impl Engine {
    /// Every engine, the default first.
    pub const ALL: [Engine; 2] = [Engine::Jump, Engine::Turmoil];

    /// Its word on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Engine::Jump => "jump",
            Engine::Turmoil => "turmoil",
        }
    }

    /// Whether these changes, made at one instant, can be expressed; known without a world, so that a scenario can be
    /// refused before it runs. The hosts need not exist.
    ///
    /// # Errors
    /// [`Refusal::Unsupported`] for the first that cannot.
    pub fn can(self, changes: &[Change]) -> Result<(), Refusal> {
        let refused = changes.iter().find(|change| match self {
            Engine::Jump => false,
            Engine::Turmoil => !turmoil_can(change, changes),
        });
        match refused {
            None => Ok(()),
            Some(change) => Err(Refusal::Unsupported { engine: self.name(), change: change.to_string() }),
        }
    }
}

/// turmoil holds, releases and slows a pair of hosts, not a direction, and it cannot stop a process without killing it.
fn turmoil_can(change: &Change, together: &[Change]) -> bool {
    match change {
        Change::Kill { .. } | Change::Restart { .. } => true,
        Change::PowerOff { .. } | Change::Pause { .. } | Change::Resume { .. } => false,
        Change::Hold { .. } | Change::Release { .. } | Change::Latency { .. } => {
            change.reversed().is_some_and(|reversed| together.contains(&reversed))
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Engine {
    type Err = NoSuchEngine;

    fn from_str(word: &str) -> Result<Engine, NoSuchEngine> {
        Engine::ALL.into_iter().find(|engine| engine.name() == word).ok_or_else(|| NoSuchEngine(word.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LatencyRange;

    #[test]
    fn an_engine_is_found_by_its_name_only() {
        for engine in Engine::ALL {
            assert_eq!(engine.to_string().parse(), Ok(engine));
        }
        let wrong = "tumoil".parse::<Engine>().unwrap_err();
        assert_eq!(wrong.to_string(), "there is no engine `tumoil`; there are `jump` and `turmoil`");
    }

    #[test]
    fn turmoil_takes_a_link_change_only_in_both_directions() {
        let hold = |from: &str, to: &str| Change::Hold { from: from.into(), to: to.into() };
        assert_eq!(Engine::Turmoil.can(&[hold("a", "b"), hold("b", "a")]), Ok(()));
        let refusal = Engine::Turmoil.can(&[hold("a", "b"), hold("a", "c")]).unwrap_err();
        assert_eq!(refusal.to_string(), "the engine `turmoil` cannot hold a -> b; use the engine `jump`");

        let slow = |from: &str, to: &str, max| Change::Latency {
            from: from.into(),
            to: to.into(),
            range: Some(LatencyRange::millis(1, max)),
        };
        assert_eq!(Engine::Turmoil.can(&[slow("a", "b", 9), slow("b", "a", 9)]), Ok(()));
        assert!(Engine::Turmoil.can(&[slow("a", "b", 9), slow("b", "a", 8)]).is_err());
        assert_eq!(Engine::Jump.can(&[hold("a", "b"), slow("a", "c", 9)]), Ok(()));
    }
}

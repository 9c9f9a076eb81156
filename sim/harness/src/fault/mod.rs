//! What goes wrong in a run: when, to whom, what it did, and how it heals.
//!
//! [`crate::scenario::Fault`] says what a file asks for. [`Plan`] fixes what the seed draws; [`Wounds`] keeps who hurts
//! what, so that faults may overlap and the last to heal is the one that heals; [`Faults`] brings it all to the world and
//! counts what it did there. A fault without effect is inert, and its report says so.
//!
//! Absent: faults inside a service or a broker. They are planted flaws, and belong to the system under test.

mod describe;
mod driver;
mod plan;
mod wounds;

pub use driver::{Faults, RECORDS_LOST, Scene, wounds_of};
pub use plan::{Occurrence, Plan};
pub use wounds::{Wound, Wounds};

use std::path::PathBuf;

use world::{Change, Engine, Refusal};

use crate::scenario::{BrokerChoice, FaultKind, Scenario};

/// Something that a backend cannot bring, and where the file asks for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why} ({}{})", fault.as_ref().map(|(word, _)| format!("`{word}` in ")).unwrap_or_default(), self.place())]
pub struct Unsupported {
    /// The scenario's file.
    pub file: PathBuf,
    /// The fault as files name it, and its line; `None` if it is not a fault that is asked for.
    pub fault: Option<(&'static str, usize)>,
    /// What the backend says.
    pub why: String,
}

impl Unsupported {
    fn place(&self) -> String {
        match self.fault {
            Some((_, line)) => format!("{}, line {line}", self.file.display()),
            None => self.file.display().to_string(),
        }
    }
}

/// Whether an engine can bring every fault of a scenario; known before anything runs.
///
/// # Errors
/// [`Unsupported`] names the first fault, and of that the first change, that it cannot make.
pub fn supported(scenario: &Scenario, engine: Engine) -> Result<(), Unsupported> {
    for fault in &scenario.faults {
        let unsupported = |refusal: Refusal| Unsupported {
            file: scenario.file.clone(),
            fault: Some((fault.kind.word(), fault.line)),
            why: refusal.to_string(),
        };
        let wounds = match &fault.kind {
            // Which broker it is does not matter to an engine.
            FaultKind::CrashBroker { broker: BrokerChoice::LeaderOf { .. }, power_loss } => {
                vec![Wound::Down { host: "broker-1".to_owned(), power_loss: *power_loss }]
            }
            kind => driver::wounds_of(kind),
        };
        let mut state = Wounds::default();
        let hurt: Vec<Change> = wounds.iter().flat_map(|wound| state.hurt(0, wound)).collect();
        engine.can(&hurt).map_err(unsupported)?;
        let healed: Vec<Change> = wounds.iter().flat_map(|wound| state.heal(0, wound)).collect();
        engine.can(&healed).map_err(unsupported)?;
    }
    Ok(())
}

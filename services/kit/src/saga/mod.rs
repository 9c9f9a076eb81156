//! A persistent saga: steps forward, and if one is refused or has no answer, compensation in reverse.
//!
//! The saga's state is a row in the store, its deadline another. Both change in the transaction that handles a reply, so
//! a crashed orchestrator goes on where it was (D0.7, D1.4), and no reply can come before the saga waits for it (D3.6).
//!
//! # Who does what
//! - [`Definition`] names the steps, with a timeout for each and what a timeout means ([`Kind`]).
//! - [`Instance`] is the core without IO: [`Instance::handle`] takes what happened and says what must be done.
//! - [`Logic`] is the service's: it publishes the command or the compensation of a step, and what the end means.
//! - [`Sagas`] is the shell: it loads an instance, hands it the input, lets the logic do what comes out, and saves it.
//!   It is also the [`crate::timer::Timer`] of the deadlines.
//!
//! # How a service uses it
//! In `Handler::apply` of the command that begins it: `sagas.start(unit, &saga_id, key)`. In `apply` of the replies:
//! `sagas.reply(unit, message, Reply::Succeeded)`; saga and step come from the message's headers, which participants
//! carry over by themselves ([`crate::Unit::publish`]). A logic publishes with `unit.publish_for(saga.id, step, &command)`.
//! And once: `Service::timer(sagas)`.
//!
//! # What participants must do
//! Commands and compensations are repeated (with new message ids), and a compensation can arrive for something that was
//! never done, or is done later: a participant answers every one of them, and remembers the compensation of something
//! unknown as a tombstone, which refuses what comes after it (D0.8).
//!
//! Absent on purpose: parallel steps, sagas within sagas, and more than one definition in one store at a time.

mod instance;
mod sagas;

use std::time::Duration;

pub use instance::{Cancellation, Cause, Input, Instance, Output, Reason, Status, StepRecord, StepState};
pub use sagas::{Answer, Logic, Reply, Saga, Sagas, all, get, open, started};

/// The steps of a saga, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name, for traces.
    pub name: &'static str,
    /// Its steps.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its name, the header `step` of its messages; another one for each step.
    pub name: &'static str,
    /// How long an answer may take: to the command, and to the compensation.
    pub timeout: Duration,
    /// What a timeout or a refusal means.
    pub kind: Kind,
}

/// What a timeout or a refusal of a step means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It can be undone. A refusal undoes the steps before it; a timeout undoes it too, since it may have happened.
    Compensatable,
    /// The point of no return: its command is repeated until there is an answer, since it cannot be undone once it
    /// happened. A refusal still undoes the steps before it. From its command on, a cancellation is too late.
    Pivot,
    /// After the pivot: its command is repeated until there is an answer. A refusal is noted, and the saga goes on.
    Retriable,
}

impl Definition {
    /// A definition without steps.
    pub fn new(name: &'static str) -> Definition {
        Definition { name, steps: Vec::new() }
    }

    /// With one more step at the end.
    ///
    /// # Panics
    /// If the name is taken, or a step that can be undone follows one that cannot.
    #[must_use]
    pub fn step(mut self, name: &'static str, kind: Kind, timeout: Duration) -> Definition {
        assert!(self.steps.iter().all(|step| step.name != name), "two steps are called `{name}`");
        let past_pivot = self.steps.iter().any(|step| step.kind != Kind::Compensatable);
        assert!(
            !past_pivot || kind == Kind::Retriable,
            "after its pivot a saga has retriable steps only: `{name}`"
        );
        self.steps.push(Step { name, timeout, kind });
        self
    }
}

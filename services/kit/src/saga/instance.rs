//! One saga: the core without IO.

use std::fmt;

use context::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Definition, Kind};

/// The state of one saga. It is stored as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// The name of its definition.
    pub definition: String,
    /// What it is about: an order's id, say.
    pub key: String,
    /// Where it is.
    pub status: Status,
    /// Its steps, in order.
    pub steps: Vec<StepRecord>,
    /// Why it is being undone, if it is or was.
    pub reason: Option<Reason>,
    /// When it started, in Unix milliseconds.
    pub started_at_ms: u64,
    /// When it reached its end, in Unix milliseconds.
    pub ended_at_ms: Option<u64>,
    /// When it wants to be woken, in Unix milliseconds.
    pub deadline_ms: Option<u64>,
    /// The request that began it, as text.
    pub correlation_id: Option<String>,
    /// How often the present command or compensation was sent: 1 after the first time.
    pub tries: u32,
}

/// Where a saga is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// The step of this index has its command out.
    Forward(usize),
    /// The step of this index has its compensation out.
    Backward(usize),
    /// All steps are done.
    Completed,
    /// All that was done, or may have been, is undone.
    Compensated,
}

impl Status {
    /// Nothing will happen any more.
    pub fn is_terminal(self) -> bool {
        matches!(self, Status::Completed | Status::Compensated)
    }
}

/// One step of a saga.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Its name.
    pub name: String,
    /// What became of it.
    pub state: StepState,
    /// When its command was first sent, in Unix milliseconds.
    pub sent_at_ms: Option<u64>,
    /// When its answer came, in Unix milliseconds.
    pub answered_at_ms: Option<u64>,
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepState {
    /// Its command was never sent.
    Untouched,
    /// Its command is out.
    Sent,
    /// It is done.
    Succeeded,
    /// It was refused: nothing was done.
    Refused,
    /// It had no answer in its time, or was given up: it may or may not be done.
    Unknown,
    /// It is undone, or was never done.
    Compensated,
}

/// Why a saga is undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The step at which it turned round.
    pub step: String,
    /// What happened there.
    pub cause: Cause,
    /// For people.
    pub detail: String,
}

/// What turned a saga round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// A participant refused the step.
    Refused,
    /// The step had no answer in its time.
    TimedOut,
    /// Someone cancelled it.
    Cancelled,
}

/// What happens to a saga.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// It begins.
    Start,
    /// A participant did the step.
    Succeeded {
        /// The step.
        step: String,
    },
    /// A participant refused the step: nothing was done.
    Refused {
        /// The step.
        step: String,
        /// Why, for people.
        detail: String,
    },
    /// A participant undid the step, or remembers that it must not be done.
    Compensated {
        /// The step.
        step: String,
    },
    /// Time has moved; the deadline may have passed.
    Wake,
    /// Someone wants it undone.
    Cancel {
        /// Why, for people.
        detail: String,
    },
}

/// What must now be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send the command of a step; `try_number` is 1 the first time.
    Command {
        /// The index of the step.
        step: usize,
        /// How often it was sent, this time included.
        try_number: u32,
    },
    /// Send the compensation of a step.
    Compensate {
        /// The index of the step.
        step: usize,
        /// How often it was sent, this time included.
        try_number: u32,
    },
    /// It has ended: [`Instance::status`] says how.
    Ended,
    /// The input changed nothing; why, for the trace.
    Ignored(&'static str),
}

/// What became of a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancellation {
    /// The saga is being undone now.
    Begun,
    /// It was being undone already, or had been.
    AlreadyUndone,
    /// The point of no return is behind it.
    TooLate,
    /// There is no such saga.
    Unknown,
}

impl Instance {
    /// A saga that has not begun: hand it [`Input::Start`].
    pub fn new(definition: &Definition, key: impl Into<String>, now: Timestamp) -> Instance {
        assert!(!definition.steps.is_empty(), "the saga `{}` has no steps", definition.name);
        let record = |name: &str| StepRecord {
            name: name.to_owned(),
            state: StepState::Untouched,
            sent_at_ms: None,
            answered_at_ms: None,
        };
        Instance {
            definition: definition.name.to_owned(),
            key: key.into(),
            status: Status::Forward(0),
            steps: definition.steps.iter().map(|step| record(step.name)).collect(),
            reason: None,
            started_at_ms: now.as_millis(),
            ended_at_ms: None,
            deadline_ms: None,
            correlation_id: None,
            tries: 0,
        }
    }

    /// Applies one input; what must now be done is appended to `out`. [`Instance::deadline_ms`] is when to come back with
    /// [`Input::Wake`].
    pub fn handle(&mut self, definition: &Definition, now: Timestamp, input: Input, out: &mut Vec<Output>) {
        assert!(self.fits(definition), "a saga `{}` runs by the definition it began with", self.definition);
        match input {
            Input::Start => self.begin(definition, now, out),
            Input::Succeeded { step } => self.succeeded(definition, now, &step, out),
            Input::Refused { step, detail } => self.refused(definition, now, &step, detail, out),
            Input::Compensated { step } => self.compensated(definition, now, &step, out),
            Input::Wake => self.wake(definition, now, out),
            Input::Cancel { detail } => self.cancel(definition, now, detail, out),
        }
        assert_eq!(
            self.deadline_ms.is_none(),
            self.status.is_terminal(),
            "a saga waits with a deadline until its end: {self}"
        );
    }

    /// Whether it began with this definition.
    pub fn fits(&self, definition: &Definition) -> bool {
        self.definition == definition.name
            && self
                .steps
                .iter()
                .map(|step| step.name.as_str())
                .eq(definition.steps.iter().map(|step| step.name))
    }

    /// What a cancellation would now become.
    pub fn cancellation(&self, definition: &Definition) -> Cancellation {
        match self.status {
            Status::Forward(step) if definition.steps[step].kind == Kind::Compensatable => {
                Cancellation::Begun
            }
            Status::Forward(_) | Status::Completed => Cancellation::TooLate,
            Status::Backward(_) | Status::Compensated => Cancellation::AlreadyUndone,
        }
    }

    fn begin(&mut self, definition: &Definition, now: Timestamp, out: &mut Vec<Output>) {
        if self.tries > 0 || self.status != Status::Forward(0) {
            return out.push(Output::Ignored("it has begun already"));
        }
        self.forward(definition, now, 0, out);
    }

    fn succeeded(&mut self, definition: &Definition, now: Timestamp, step: &str, out: &mut Vec<Output>) {
        let Some(at) = self.waits_for(step, out) else { return };
        self.answer(at, now, StepState::Succeeded);
        self.next(definition, now, at, out);
    }

    fn refused(
        &mut self,
        definition: &Definition,
        now: Timestamp,
        step: &str,
        detail: String,
        out: &mut Vec<Output>,
    ) {
        let Some(at) = self.waits_for(step, out) else { return };
        self.answer(at, now, StepState::Refused);
        match definition.steps[at].kind {
            Kind::Retriable => self.next(definition, now, at, out),
            Kind::Compensatable | Kind::Pivot => {
                self.reason = Some(self.reason_at(at, Cause::Refused, detail));
                self.back_from(definition, now, at, out);
            }
        }
    }

    fn compensated(&mut self, definition: &Definition, now: Timestamp, step: &str, out: &mut Vec<Output>) {
        match self.status {
            Status::Backward(at) if self.steps[at].name == step => {
                self.steps[at].state = StepState::Compensated;
                self.back_from(definition, now, at, out);
            }
            _ => out.push(Output::Ignored("it does not wait for this compensation")),
        }
    }

    fn wake(&mut self, definition: &Definition, now: Timestamp, out: &mut Vec<Output>) {
        if self.deadline_ms.is_none_or(|deadline| now.as_millis() < deadline) {
            return out.push(Output::Ignored("its deadline is not yet"));
        }
        match self.status {
            Status::Forward(at) if definition.steps[at].kind == Kind::Compensatable => {
                let detail = format!("no answer within {:?}", definition.steps[at].timeout);
                self.turn(definition, now, at, Cause::TimedOut, detail, out);
            }
            Status::Forward(at) => self.command(definition, now, at, out),
            Status::Backward(at) => self.compensate(definition, now, at, out),
            Status::Completed | Status::Compensated => unreachable!("an ended saga has no deadline"),
        }
    }

    fn cancel(&mut self, definition: &Definition, now: Timestamp, detail: String, out: &mut Vec<Output>) {
        match (self.cancellation(definition), self.status) {
            (Cancellation::Begun, Status::Forward(at)) => {
                self.turn(definition, now, at, Cause::Cancelled, detail, out);
            }
            (Cancellation::TooLate, _) => out.push(Output::Ignored("it cannot be undone any more")),
            _ => out.push(Output::Ignored("it is being undone already")),
        }
    }

    /// The index of `step`, if its answer is awaited.
    fn waits_for(&self, step: &str, out: &mut Vec<Output>) -> Option<usize> {
        match self.status {
            Status::Forward(at) if self.steps[at].name == step => Some(at),
            Status::Forward(_) => {
                out.push(Output::Ignored("it does not wait for this step"));
                None
            }
            // The compensation follows the command on the same key, so what was done late is undone too.
            Status::Backward(_) | Status::Compensated => {
                out.push(Output::Ignored("the answer is late: the saga has turned round"));
                None
            }
            Status::Completed => {
                out.push(Output::Ignored("it has ended"));
                None
            }
        }
    }

    fn answer(&mut self, at: usize, now: Timestamp, state: StepState) {
        self.steps[at].state = state;
        self.steps[at].answered_at_ms = Some(now.as_millis());
    }

    fn next(&mut self, definition: &Definition, now: Timestamp, done: usize, out: &mut Vec<Output>) {
        if done + 1 < self.steps.len() {
            self.forward(definition, now, done + 1, out);
        } else {
            self.end(Status::Completed, now, out);
        }
    }

    fn forward(&mut self, definition: &Definition, now: Timestamp, at: usize, out: &mut Vec<Output>) {
        self.status = Status::Forward(at);
        self.tries = 0;
        self.steps[at].state = StepState::Sent;
        self.steps[at].sent_at_ms = Some(now.as_millis());
        self.command(definition, now, at, out);
    }

    fn command(&mut self, definition: &Definition, now: Timestamp, at: usize, out: &mut Vec<Output>) {
        self.tries += 1;
        self.deadline_ms = Some((now + definition.steps[at].timeout).as_millis());
        out.push(Output::Command { step: at, try_number: self.tries });
    }

    /// The present step may have happened: it is the first to be undone.
    fn turn(
        &mut self,
        definition: &Definition,
        now: Timestamp,
        at: usize,
        cause: Cause,
        detail: String,
        out: &mut Vec<Output>,
    ) {
        self.reason = Some(self.reason_at(at, cause, detail));
        self.steps[at].state = StepState::Unknown;
        self.backward(definition, now, at, out);
    }

    /// The step `at` needs no (more) undoing: on to the one before it that does.
    fn back_from(&mut self, definition: &Definition, now: Timestamp, at: usize, out: &mut Vec<Output>) {
        match at.checked_sub(1) {
            Some(before) => self.backward(definition, now, before, out),
            None => self.end(Status::Compensated, now, out),
        }
    }

    fn backward(&mut self, definition: &Definition, now: Timestamp, at: usize, out: &mut Vec<Output>) {
        self.status = Status::Backward(at);
        self.tries = 0;
        self.compensate(definition, now, at, out);
    }

    fn compensate(&mut self, definition: &Definition, now: Timestamp, at: usize, out: &mut Vec<Output>) {
        self.tries += 1;
        self.deadline_ms = Some((now + definition.steps[at].timeout).as_millis());
        out.push(Output::Compensate { step: at, try_number: self.tries });
    }

    fn end(&mut self, status: Status, now: Timestamp, out: &mut Vec<Output>) {
        self.status = status;
        self.deadline_ms = None;
        self.ended_at_ms = Some(now.as_millis());
        out.push(Output::Ended);
    }

    fn reason_at(&self, at: usize, cause: Cause, detail: String) -> Reason {
        Reason { step: self.steps[at].name.clone(), cause, detail }
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}: ", self.definition, self.key)?;
        match self.status {
            Status::Forward(at) => write!(f, "{} sent {}x", self.steps[at].name, self.tries),
            Status::Backward(at) => write!(f, "undo {} sent {}x", self.steps[at].name, self.tries),
            Status::Completed => f.write_str("completed"),
            Status::Compensated => f.write_str("compensated"),
        }
    }
}

#[cfg(test)]
mod tests;

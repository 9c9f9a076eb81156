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
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn definition() -> Definition {
        let second = Duration::from_secs(1);
        Definition::new("order")
            .step("reserve", Kind::Compensatable, second)
            .step("charge", Kind::Compensatable, 2 * second)
            .step("confirm", Kind::Pivot, second)
            .step("notify", Kind::Retriable, second)
    }

    /// Plays a story, one input a line (`+MS` moves time and wakes), and writes what comes out beside it.
    fn play(story: &str) -> String {
        let definition = definition();
        let mut now = Timestamp::ZERO;
        let mut saga = Instance::new(&definition, "o-7", now);
        let mut transcript = String::new();
        for line in story.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let step = rest.to_owned();
            let input = match word {
                "start" => Input::Start,
                "done" => Input::Succeeded { step },
                "refused" => Input::Refused { step, detail: "no".into() },
                "undone" => Input::Compensated { step },
                "cancel" => Input::Cancel { detail: "changed my mind".into() },
                _ => {
                    now += Duration::from_millis(word.trim_start_matches('+').parse().unwrap());
                    Input::Wake
                }
            };
            let mut out = Vec::new();
            saga.handle(&definition, now, input, &mut out);
            let said = |output: &Output| match output {
                Output::Command { step, try_number } => {
                    format!("do {} ({try_number})", definition.steps[*step].name)
                }
                Output::Compensate { step, try_number } => {
                    format!("undo {} ({try_number})", definition.steps[*step].name)
                }
                Output::Ended => format!("ended {:?}", saga.status),
                Output::Ignored(why) => format!("ignored: {why}"),
            };
            let said: Vec<_> = out.iter().map(said).collect();
            transcript.push_str(&format!("{line:<16} -> {}\n", said.join(", ")));
        }
        let states: Vec<_> = saga.steps.iter().map(|step| format!("{:?}", step.state)).collect();
        transcript.push_str(&states.join(" "));
        transcript
    }

    #[test]
    fn a_saga_without_trouble_goes_forward_to_its_end() {
        insta::assert_snapshot!(play("start\ndone reserve\ndone charge\ndone confirm\ndone notify"), @r"
        start            -> do reserve (1)
        done reserve     -> do charge (1)
        done charge      -> do confirm (1)
        done confirm     -> do notify (1)
        done notify      -> ended Completed
        Succeeded Succeeded Succeeded Succeeded
        ");
    }

    #[test]
    fn a_refusal_undoes_what_was_done_in_reverse_and_not_what_was_refused() {
        insta::assert_snapshot!(play("start\ndone reserve\ndone charge\nrefused confirm\nundone charge\nundone reserve"), @r"
        start            -> do reserve (1)
        done reserve     -> do charge (1)
        done charge      -> do confirm (1)
        refused confirm  -> undo charge (1)
        undone charge    -> undo reserve (1)
        undone reserve   -> ended Compensated
        Compensated Compensated Refused Untouched
        ");
    }

    #[test]
    fn a_refusal_of_the_first_step_ends_it_at_once() {
        insta::assert_snapshot!(play("start\nrefused reserve\ndone reserve"), @r"
        start            -> do reserve (1)
        refused reserve  -> ended Compensated
        done reserve     -> ignored: the answer is late: the saga has turned round
        Refused Untouched Untouched Untouched
        ");
    }

    #[test]
    fn a_timeout_undoes_the_silent_step_too_and_a_late_answer_changes_nothing() {
        insta::assert_snapshot!(
            play("start\ndone reserve\n+1999\n+1\ndone charge\nundone reserve\nundone charge\nundone reserve"),
            @r"
            start            -> do reserve (1)
            done reserve     -> do charge (1)
            +1999            -> ignored: its deadline is not yet
            +1               -> undo charge (1)
            done charge      -> ignored: the answer is late: the saga has turned round
            undone reserve   -> ignored: it does not wait for this compensation
            undone charge    -> undo reserve (1)
            undone reserve   -> ended Compensated
            Compensated Compensated Untouched Untouched
            "
        );
    }

    #[test]
    fn a_compensation_is_repeated_until_it_is_acknowledged() {
        insta::assert_snapshot!(play("start\n+1000\n+1000\n+999\n+1\nundone reserve\nundone reserve"), @r"
        start            -> do reserve (1)
        +1000            -> undo reserve (1)
        +1000            -> undo reserve (2)
        +999             -> ignored: its deadline is not yet
        +1               -> undo reserve (3)
        undone reserve   -> ended Compensated
        undone reserve   -> ignored: it does not wait for this compensation
        Compensated Untouched Untouched Untouched
        ");
    }

    #[test]
    fn from_the_pivot_on_a_command_is_repeated_and_a_cancellation_is_too_late() {
        insta::assert_snapshot!(
            play("start\ndone reserve\ndone charge\ncancel\n+1000\ndone confirm\n+1000\nrefused notify\ncancel"),
            @r"
            start            -> do reserve (1)
            done reserve     -> do charge (1)
            done charge      -> do confirm (1)
            cancel           -> ignored: it cannot be undone any more
            +1000            -> do confirm (2)
            done confirm     -> do notify (1)
            +1000            -> do notify (2)
            refused notify   -> ended Completed
            cancel           -> ignored: it cannot be undone any more
            Succeeded Succeeded Succeeded Refused
            "
        );
    }

    #[test]
    fn a_cancellation_undoes_the_step_that_is_out_and_those_before_it() {
        insta::assert_snapshot!(play("start\ndone reserve\ncancel\ncancel\nundone charge\nundone reserve\ncancel"), @r"
        start            -> do reserve (1)
        done reserve     -> do charge (1)
        cancel           -> undo charge (1)
        cancel           -> ignored: it is being undone already
        undone charge    -> undo reserve (1)
        undone reserve   -> ended Compensated
        cancel           -> ignored: it is being undone already
        Compensated Compensated Untouched Untouched
        ");
    }

    #[test]
    fn an_answer_to_another_step_and_a_second_start_change_nothing() {
        insta::assert_snapshot!(play("start\nstart\ndone charge\nundone reserve\ndone reserve\ndone reserve"), @r"
        start            -> do reserve (1)
        start            -> ignored: it has begun already
        done charge      -> ignored: it does not wait for this step
        undone reserve   -> ignored: it does not wait for this compensation
        done reserve     -> do charge (1)
        done reserve     -> ignored: it does not wait for this step
        Succeeded Sent Untouched Untouched
        ");
    }

    #[test]
    #[should_panic(expected = "retriable steps only")]
    fn a_step_that_can_be_undone_does_not_follow_the_pivot() {
        let _ = definition().step("late", Kind::Compensatable, Duration::from_secs(1));
    }

    proptest! {
        /// Whatever answers come in whatever order: at its end a saga has done all of its effects or undone all of
        /// them, and while it waits it has a deadline.
        #[test]
        fn at_its_end_a_saga_is_done_or_undone(moves in prop::collection::vec((0..6u8, 0..4usize), 0..60)) {
            let definition = definition();
            let mut now = Timestamp::ZERO;
            let mut saga = Instance::new(&definition, "o-7", now);
            let mut out = Vec::new();
            saga.handle(&definition, now, Input::Start, &mut out);
            for (kind, step) in moves {
                let step = definition.steps[step].name.to_owned();
                now += Duration::from_millis(700);
                let input = match kind {
                    0 => Input::Succeeded { step },
                    1 => Input::Refused { step, detail: String::new() },
                    2 => Input::Compensated { step },
                    3 => Input::Cancel { detail: String::new() },
                    _ => Input::Wake,
                };
                saga.handle(&definition, now, input, &mut out);
            }
            let states = saga.steps.iter().map(|step| step.state);
            match saga.status {
                Status::Completed => {
                    for (state, step) in states.zip(&definition.steps) {
                        let noted = step.kind == Kind::Retriable && state == StepState::Refused;
                        prop_assert!(state == StepState::Succeeded || noted);
                    }
                }
                Status::Compensated => {
                    for state in states {
                        prop_assert!(!matches!(state, StepState::Succeeded | StepState::Sent | StepState::Unknown));
                    }
                }
                Status::Forward(_) | Status::Backward(_) => prop_assert!(saga.deadline_ms.is_some()),
            }
            let ends = out.iter().filter(|output| **output == Output::Ended).count();
            prop_assert_eq!(ends, usize::from(saga.status.is_terminal()));
        }
    }
}

//! The order's saga as a core without IO: which step next, what to undo, when to try again.
//!
//! Inventory first: reserve, charge, ship, commit, then the order is confirmed and the customer told. The commit is the
//! last step that can be undone; its answer is the pivot, after which the saga only goes forward.
//!
//! Each step has a time. A refusal, a step without an answer, an expired reservation or the customer's own wish sends
//! the saga back: what was done is undone in reverse, one at a time, each sent again until it is acknowledged. A step
//! without an answer is undone too, since it may have happened, or may yet happen: participants remember an undo of
//! something they never saw and refuse it when it comes. So a late reply changes nothing.
//!
//! State is small and serialisable; the caller keeps it in the same transaction as the messages in `out`, and an
//! orchestrator that crashes goes on where its store is. Start reading at [`Saga::handle`]. Absent on purpose:
//! messages, topics and stores, which are [`crate::service`]'s.

use std::fmt;
use std::time::Duration;

use context::Timestamp;
use proto::order::CancelReason;
use serde::{Deserialize, Serialize};

/// What the saga does for an order, each by one participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Step {
    /// Inventory sets the goods aside. Undone by a release.
    Reserve,
    /// Payment captures the total. Undone by a refund.
    Charge,
    /// Shipping books a carrier. Undone by a cancellation.
    Ship,
    /// Inventory lets the goods go. Undone by the release of the reservation, which takes back what was committed.
    Commit,
}

/// How a saga ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// All of its effects.
    Confirmed,
    /// None of them.
    Cancelled,
}

/// Where a saga is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Waits for the answer to a step.
    Doing(Step),
    /// Waits for the acknowledgement that a step is undone.
    Undoing(Step),
    /// Waits until the customer was told.
    Notifying(Outcome),
    /// Nothing is left to do.
    Ended(Outcome),
}

/// The order of the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    /// First to last; the answer to the last is the pivot.
    pub steps: &'static [Step],
}

/// Reserve, charge, ship, commit: stock is held before money moves.
pub const INVENTORY_FIRST: Definition =
    Definition { steps: &[Step::Reserve, Step::Charge, Step::Ship, Step::Commit] };

/// How long the saga waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// For the answer to a reservation or its commit.
    pub inventory: Duration,
    /// For the answer to a charge.
    pub payment: Duration,
    /// For the answer to a shipment.
    pub shipping: Duration,
    /// Before an undo or a notice without acknowledgement is sent a second time; doubled each time.
    pub resend_after: Duration,
    /// The longest wait between two sends.
    pub resend_after_max: Duration,
}

/// All that can happen to a saga.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A participant did its step.
    Done(Step),
    /// A participant refused, and did nothing.
    Refused(Step, String),
    /// A participant acknowledged that there is nothing left of a step.
    Undone(Step),
    /// Inventory gave the reservation up at its end.
    Expired,
    /// The customer was told.
    Notified(Outcome),
    /// The customer wants it no more.
    CancelRequested(String),
    /// Time has passed: if the saga's deadline is over, it acts.
    Woken,
}

/// What the outside must do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask a participant to do a step.
    Do(Step),
    /// Tell a participant to undo a step; the number counts the sends, from 1.
    Undo(Step, u32),
    /// Have the customer told; the number counts the sends, from 1.
    Notify(Outcome, u32),
    /// The order came past this step.
    Passed(Step),
    /// The order is on its way back.
    TurnedBack,
    /// The order is confirmed.
    Confirm,
    /// The order is cancelled, all is undone.
    Cancel(CancelReason, String),
    /// Nothing is left to do.
    End(Outcome),
    /// The input was late or double and changed nothing.
    Stray,
}

/// One saga.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saga {
    /// Where it is.
    pub state: State,
    /// How often the present message was sent.
    pub sends: u32,
    /// When it acts by itself, in Unix milliseconds; `None` once it has ended.
    pub deadline_ms: Option<u64>,
    /// Why it turned back, if it did: a [`CancelReason`] and words for people.
    pub turned_back: Option<(i32, String)>,
    /// When it started, in Unix milliseconds.
    pub started_ms: u64,
    /// When it ended, in Unix milliseconds.
    pub ended_ms: Option<u64>,
}

impl Definition {
    fn first(&self) -> Step {
        self.steps[0]
    }

    fn place(&self, step: Step) -> usize {
        self.steps
            .iter()
            .position(|other| *other == step)
            .expect("a saga does only the steps of its definition")
    }

    fn after(&self, step: Step) -> Option<Step> {
        self.steps.get(self.place(step) + 1).copied()
    }

    /// The last step before `step` that needs an undo of its own; with `step` itself if it is `included`.
    fn to_undo(&self, step: Step, included: bool) -> Option<Step> {
        let end = self.place(step) + usize::from(included);
        self.steps[..end].iter().rev().copied().find(|step| step.has_undo())
    }
}

impl Step {
    fn has_undo(self) -> bool {
        match self {
            Step::Reserve | Step::Charge | Step::Ship => true,
            // The release of the reservation takes back what was committed.
            Step::Commit => false,
        }
    }

    /// Why an order is cancelled when this step is refused.
    fn refusal(self) -> CancelReason {
        match self {
            Step::Reserve | Step::Commit => CancelReason::OutOfStock,
            Step::Charge => CancelReason::PaymentDeclined,
            Step::Ship => CancelReason::ShipmentRefused,
        }
    }
}

impl Timing {
    fn of(&self, step: Step) -> Duration {
        match step {
            Step::Reserve | Step::Commit => self.inventory,
            Step::Charge => self.payment,
            Step::Ship => self.shipping,
        }
    }

    /// The wait after so many sends: doubled each time, never beyond the longest.
    fn resend(&self, sends: u32) -> Duration {
        let doubled = self.resend_after.saturating_mul(1_u32.checked_shl(sends - 1).unwrap_or(u32::MAX));
        doubled.min(self.resend_after_max)
    }
}

impl Default for Timing {
    /// 30 s for each step, which outlasts a broker's session of 9 s and a consumer's of 45 s only in part: what takes
    /// longer is compensated. Undos and notices again after 10 s, at most a minute apart.
    fn default() -> Timing {
        Timing {
            inventory: Duration::from_secs(30),
            payment: Duration::from_secs(30),
            shipping: Duration::from_secs(30),
            resend_after: Duration::from_secs(10),
            resend_after_max: Duration::from_secs(60),
        }
    }
}

impl Saga {
    /// Starts a saga with its first step.
    pub fn start(definition: &Definition, timing: &Timing, now: Timestamp, out: &mut Vec<Output>) -> Saga {
        let mut saga = Saga {
            state: State::Doing(definition.first()),
            sends: 0,
            deadline_ms: None,
            turned_back: None,
            started_ms: now.as_millis(),
            ended_ms: None,
        };
        saga.enter(saga.state, timing, now, out);
        saga
    }

    /// Applies one input; what the outside must now do is appended to `out`.
    pub fn handle(
        &mut self,
        definition: &Definition,
        timing: &Timing,
        now: Timestamp,
        input: Input,
        out: &mut Vec<Output>,
    ) {
        match (self.state, input) {
            (State::Doing(step), Input::Done(done)) if done == step => match definition.after(step) {
                Some(next) => {
                    out.push(Output::Passed(step));
                    self.enter(State::Doing(next), timing, now, out);
                }
                None => {
                    out.push(Output::Confirm);
                    self.enter(State::Notifying(Outcome::Confirmed), timing, now, out);
                }
            },
            (State::Doing(step), Input::Refused(refused, why)) if refused == step => {
                let undo = definition.to_undo(step, false);
                self.turn_back(undo, step.refusal(), why, timing, now, out);
            }
            (State::Doing(step), Input::Expired) => {
                let undo = definition.to_undo(step, true);
                self.turn_back(
                    undo,
                    CancelReason::OutOfStock,
                    "the reservation expired".into(),
                    timing,
                    now,
                    out,
                );
            }
            (State::Doing(step), Input::CancelRequested(why)) => {
                let undo = definition.to_undo(step, true);
                self.turn_back(undo, CancelReason::Customer, why, timing, now, out);
            }
            (State::Doing(step), Input::Woken) if self.is_due(now) => {
                let why = format!("no answer to {step} within {:?}", timing.of(step));
                let undo = definition.to_undo(step, true);
                self.turn_back(undo, CancelReason::StepTimedOut, why, timing, now, out);
            }
            (State::Undoing(step), Input::Undone(undone)) if undone == step => {
                match definition.to_undo(step, false) {
                    Some(next) => self.enter(State::Undoing(next), timing, now, out),
                    None => self.cancel(timing, now, out),
                }
            }
            (State::Notifying(outcome), Input::Notified(told)) if told == outcome => {
                self.enter(State::Ended(outcome), timing, now, out);
            }
            (State::Undoing(_) | State::Notifying(_), Input::Woken) if self.is_due(now) => {
                self.send(timing, now, out);
            }
            // A deadline that was moved since.
            (_, Input::Woken) => {}
            _ => out.push(Output::Stray),
        }
    }

    /// Whether it waits for nothing any more.
    pub fn outcome(&self) -> Option<Outcome> {
        match self.state {
            State::Ended(outcome) => Some(outcome),
            _ => None,
        }
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.deadline_ms.is_some_and(|deadline| now.as_millis() >= deadline)
    }

    fn turn_back(
        &mut self,
        undo: Option<Step>,
        reason: CancelReason,
        why: String,
        timing: &Timing,
        now: Timestamp,
        out: &mut Vec<Output>,
    ) {
        assert!(self.turned_back.is_none(), "a saga turns back once");
        self.turned_back = Some((reason.into(), why));
        match undo {
            Some(step) => {
                out.push(Output::TurnedBack);
                self.enter(State::Undoing(step), timing, now, out);
            }
            None => self.cancel(timing, now, out),
        }
    }

    fn cancel(&mut self, timing: &Timing, now: Timestamp, out: &mut Vec<Output>) {
        let (reason, why) = self.turned_back.clone().expect("a saga that cancels knows why");
        let reason = CancelReason::try_from(reason).expect("it was made from one");
        out.push(Output::Cancel(reason, why));
        self.enter(State::Notifying(Outcome::Cancelled), timing, now, out);
    }

    fn enter(&mut self, state: State, timing: &Timing, now: Timestamp, out: &mut Vec<Output>) {
        self.state = state;
        self.sends = 0;
        self.send(timing, now, out);
    }

    /// Sends what the present state sends, and sets when to look again.
    fn send(&mut self, timing: &Timing, now: Timestamp, out: &mut Vec<Output>) {
        self.sends = self.sends.saturating_add(1);
        let wait = match self.state {
            State::Doing(step) => {
                out.push(Output::Do(step));
                timing.of(step)
            }
            State::Undoing(step) => {
                out.push(Output::Undo(step, self.sends));
                timing.resend(self.sends)
            }
            State::Notifying(outcome) => {
                out.push(Output::Notify(outcome, self.sends));
                timing.resend(self.sends)
            }
            State::Ended(outcome) => {
                out.push(Output::End(outcome));
                self.deadline_ms = None;
                self.ended_ms = Some(now.as_millis());
                return;
            }
        };
        self.deadline_ms = Some((now + wait).as_millis());
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Reserve => "reserve",
            Step::Charge => "charge",
            Step::Ship => "ship",
            Step::Commit => "commit",
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Confirmed => "confirmed",
            Outcome::Cancelled => "cancelled",
        })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Doing(step) => write!(f, "waits for {step}"),
            State::Undoing(step) => write!(f, "waits for the undo of {step}"),
            State::Notifying(outcome) => write!(f, "{outcome}, waits for the notice"),
            State::Ended(outcome) => write!(f, "{outcome}"),
        }
    }
}

#[cfg(test)]
mod tests;

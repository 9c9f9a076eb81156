use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const TIMING: Timing = Timing {
    inventory: Duration::from_secs(30),
    payment: Duration::from_secs(30),
    shipping: Duration::from_secs(30),
    resend_after: Duration::from_secs(10),
    resend_after_max: Duration::from_secs(60),
};

/// A saga at 0 s, and what it did first.
fn started() -> (Saga, Vec<Output>) {
    let mut out = Vec::new();
    let saga = Saga::start(&INVENTORY_FIRST, &TIMING, Timestamp::ZERO, &mut out);
    (saga, out)
}

/// Applies inputs one after the other; gives what the last one led to.
fn after(inputs: impl IntoIterator<Item = (u64, Input)>) -> (Saga, Vec<Output>) {
    let (mut saga, mut out) = started();
    for (second, input) in inputs {
        out.clear();
        let now = Timestamp::from_millis(second * 1_000);
        saga.handle(&INVENTORY_FIRST, &TIMING, now, input, &mut out);
    }
    (saga, out)
}

fn done_until(last: Step) -> Vec<(u64, Input)> {
    let steps = INVENTORY_FIRST.steps.iter().copied();
    steps.take(INVENTORY_FIRST.place(last) + 1).map(|step| (1, Input::Done(step))).collect()
}

fn no(step: Step) -> Input {
    Input::Refused(step, "no".into())
}

#[test]
fn an_order_goes_through_its_steps_and_ends_when_the_customer_knows() {
    assert_eq!(started().1, [Output::Do(Step::Reserve)]);
    assert_eq!(after(done_until(Step::Reserve)).1, [Output::Passed(Step::Reserve), Output::Do(Step::Charge)]);
    let mut inputs = done_until(Step::Commit);
    assert_eq!(after(inputs.clone()).1, [Output::Confirm, Output::Notify(Outcome::Confirmed, 1)]);
    inputs.push((2, Input::Notified(Outcome::Confirmed)));
    let (saga, out) = after(inputs);
    assert_eq!(out, [Output::End(Outcome::Confirmed)]);
    assert_eq!((saga.started_ms, saga.ended_ms, saga.deadline_ms), (0, Some(2_000), None));
}

#[test]
fn a_refusal_undoes_what_was_done_before_it_in_reverse() {
    let mut inputs = done_until(Step::Charge);
    inputs.push((1, no(Step::Ship)));
    assert_eq!(after(inputs.clone()).1, [Output::TurnedBack, Output::Undo(Step::Charge, 1)]);
    inputs.push((2, Input::Undone(Step::Charge)));
    assert_eq!(after(inputs.clone()).1, [Output::Undo(Step::Reserve, 1)]);
    inputs.push((2, Input::Undone(Step::Reserve)));
    let cancelled = Output::Cancel(CancelReason::ShipmentRefused, "no".into());
    assert_eq!(after(inputs).1, [cancelled, Output::Notify(Outcome::Cancelled, 1)]);
}

#[test]
fn a_refusal_of_the_first_step_leaves_nothing_to_undo() {
    let (saga, out) = after([(1, no(Step::Reserve))]);
    let cancelled = Output::Cancel(CancelReason::OutOfStock, "no".into());
    assert_eq!(out, [cancelled, Output::Notify(Outcome::Cancelled, 1)]);
    assert_eq!(saga.state, State::Notifying(Outcome::Cancelled));
}

#[test]
fn a_step_without_an_answer_is_undone_too_since_it_may_have_happened() {
    let mut inputs = done_until(Step::Reserve);
    inputs.push((30, Input::Woken));
    let (_, out) = after(inputs.clone());
    assert_eq!(out, [], "30 s after the start the charge has waited for 29 s only");
    inputs.push((31, Input::Woken));
    let (saga, out) = after(inputs);
    assert_eq!(out, [Output::TurnedBack, Output::Undo(Step::Charge, 1)]);
    assert_eq!(saga.turned_back.unwrap().1, "no answer to charge within 30s");
}

#[test]
fn a_commit_that_may_have_happened_is_undone_with_the_reservation() {
    let mut inputs = done_until(Step::Ship);
    inputs.push((31, Input::Woken));
    assert_eq!(after(inputs).1, [Output::TurnedBack, Output::Undo(Step::Ship, 1)]);
}

#[test]
fn an_undo_is_sent_again_until_it_is_acknowledged_at_growing_distances() {
    let (mut saga, _) = after([(1, Input::CancelRequested("changed my mind".into()))]);
    let mut sent = Vec::new();
    for second in 2..200 {
        let mut out = Vec::new();
        let now = Timestamp::from_millis(second * 1_000);
        saga.handle(&INVENTORY_FIRST, &TIMING, now, Input::Woken, &mut out);
        sent.extend(out.into_iter().map(|output| (second, output)));
    }
    let undo = |second, sends| (second, Output::Undo(Step::Reserve, sends));
    assert_eq!(sent, [undo(11, 2), undo(31, 3), undo(71, 4), undo(131, 5), undo(191, 6)]);
}

#[test]
fn a_late_or_double_reply_changes_nothing() {
    let mut inputs = done_until(Step::Reserve);
    inputs.push((31, Input::Woken));
    let (before, _) = after(inputs.clone());
    for late in [Input::Done(Step::Charge), no(Step::Charge), Input::Done(Step::Reserve), Input::Expired] {
        let mut inputs = inputs.clone();
        inputs.push((32, late));
        assert_eq!(after(inputs), (before.clone(), vec![Output::Stray]));
    }
}

#[test]
fn after_the_pivot_a_saga_only_goes_forward() {
    for late in [Input::CancelRequested("too late".into()), Input::Expired, no(Step::Commit)] {
        let mut inputs = done_until(Step::Commit);
        inputs.push((2, late));
        assert_eq!(after(inputs).1, [Output::Stray]);
    }
}

#[test]
fn an_expired_reservation_turns_the_saga_back() {
    let mut inputs = done_until(Step::Reserve);
    inputs.push((2, Input::Expired));
    let (saga, out) = after(inputs);
    assert_eq!(out, [Output::TurnedBack, Output::Undo(Step::Charge, 1)]);
    assert_eq!(saga.turned_back.unwrap().0, CancelReason::OutOfStock as i32);
}

#[test]
fn waits_do_not_overflow_however_often_a_message_is_sent() {
    assert_eq!(TIMING.resend(1), Duration::from_secs(10));
    assert_eq!(TIMING.resend(3), Duration::from_secs(40));
    assert_eq!(TIMING.resend(33), Duration::from_secs(60));
    assert_eq!(TIMING.resend(u32::MAX), Duration::from_secs(60));
}

// The saga against a model of its participants, with a mail service that loses, doubles and reorders.

/// What there is of one order at one participant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Effect {
    #[default]
    None,
    Done,
    Committed,
    /// Undone, and never to be done again.
    Gone,
}

/// What the outside carries to a participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Do(Step),
    Undo(Step),
    Notify(Outcome),
}

/// All participants: correct ones, each idempotent, with undos that commute.
#[derive(Debug, Default)]
struct Participants {
    refuses: BTreeSet<Step>,
    effects: BTreeMap<Step, Effect>,
    notices: BTreeSet<Outcome>,
}

impl Participants {
    fn handle(&mut self, command: Command) -> Input {
        match command {
            Command::Do(Step::Commit) => {
                let stock = self.effects.entry(Step::Reserve).or_default();
                match *stock {
                    Effect::Done if !self.refuses.contains(&Step::Commit) => *stock = Effect::Committed,
                    Effect::Committed => {}
                    _ => return no(Step::Commit),
                }
                Input::Done(Step::Commit)
            }
            Command::Do(step) => {
                let effect = self.effects.entry(step).or_default();
                match *effect {
                    Effect::None if self.refuses.contains(&step) => return no(step),
                    Effect::None => *effect = Effect::Done,
                    Effect::Done | Effect::Committed => {}
                    Effect::Gone => return no(step),
                }
                Input::Done(step)
            }
            Command::Undo(step) => {
                self.effects.insert(step, Effect::Gone);
                Input::Undone(step)
            }
            Command::Notify(outcome) => {
                self.notices.insert(outcome);
                Input::Notified(outcome)
            }
        }
    }

    fn effect(&self, step: Step) -> Effect {
        self.effects.get(&step).copied().unwrap_or_default()
    }
}

/// What chance does next.
#[derive(Clone, Copy, Debug)]
enum Act {
    Deliver(usize),
    Duplicate(usize),
    Lose(usize),
    Answer(usize),
    AnswerTwice(usize),
    LoseAnswer(usize),
    Wait(u64),
    CustomerCancels,
    OrchestratorCrashes,
    ReservationExpires,
}

fn act() -> impl Strategy<Value = Act> {
    let any = any::<prop::sample::Index>().prop_map(|index| index.index(1 << 16));
    prop_oneof![
        6 => any.clone().prop_map(Act::Deliver),
        1 => any.clone().prop_map(Act::Duplicate),
        1 => any.clone().prop_map(Act::Lose),
        6 => any.clone().prop_map(Act::Answer),
        1 => any.clone().prop_map(Act::AnswerTwice),
        1 => any.prop_map(Act::LoseAnswer),
        3 => (1_u64..40).prop_map(Act::Wait),
        1 => Just(Act::CustomerCancels),
        2 => Just(Act::OrchestratorCrashes),
        1 => Just(Act::ReservationExpires),
    ]
}

/// One order, its saga and everything around it.
struct Play {
    now: Timestamp,
    saga: Saga,
    participants: Participants,
    commands: Vec<Command>,
    answers: Vec<Input>,
    confirmed: bool,
    cancelled: bool,
}

impl Play {
    fn new(refuses: BTreeSet<Step>) -> Play {
        let mut out = Vec::new();
        let now = Timestamp::from_millis(1_000);
        let saga = Saga::start(&INVENTORY_FIRST, &TIMING, now, &mut out);
        let mut play = Play {
            now,
            saga,
            participants: Participants { refuses, ..Participants::default() },
            commands: Vec::new(),
            answers: Vec::new(),
            confirmed: false,
            cancelled: false,
        };
        play.carry_out(out);
        play
    }

    fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.saga.handle(&INVENTORY_FIRST, &TIMING, self.now, input, &mut out);
        self.carry_out(out);
    }

    fn carry_out(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Do(step) => self.commands.push(Command::Do(step)),
                Output::Undo(step, _) => self.commands.push(Command::Undo(step)),
                Output::Notify(outcome, _) => self.commands.push(Command::Notify(outcome)),
                Output::Confirm => {
                    assert!(!self.confirmed && !self.cancelled, "an order ends once");
                    self.confirmed = true;
                }
                Output::Cancel(..) => {
                    assert!(!self.confirmed && !self.cancelled, "an order ends once");
                    self.cancelled = true;
                }
                Output::Passed(_) | Output::TurnedBack | Output::End(_) | Output::Stray => {}
            }
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Deliver(at) => {
                if let Some(at) = place(&self.commands, at) {
                    let command = self.commands.remove(at);
                    let answer = self.participants.handle(command);
                    self.answers.push(answer);
                }
            }
            Act::Duplicate(at) => {
                if let Some(at) = place(&self.commands, at) {
                    self.commands.push(self.commands[at]);
                }
            }
            Act::Lose(at) => {
                if let Some(at) = place(&self.commands, at) {
                    self.commands.remove(at);
                }
            }
            Act::Answer(at) => {
                if let Some(at) = place(&self.answers, at) {
                    let answer = self.answers.remove(at);
                    self.input(answer);
                }
            }
            Act::AnswerTwice(at) => {
                if let Some(at) = place(&self.answers, at) {
                    let answer = self.answers[at].clone();
                    self.input(answer);
                }
            }
            Act::LoseAnswer(at) => {
                if let Some(at) = place(&self.answers, at) {
                    self.answers.remove(at);
                }
            }
            Act::Wait(seconds) => {
                self.now += Duration::from_secs(seconds);
                self.input(Input::Woken);
            }
            Act::CustomerCancels => self.input(Input::CancelRequested("changed my mind".into())),
            Act::OrchestratorCrashes => {
                let stored = serde_json::to_string(&self.saga).unwrap();
                self.saga = serde_json::from_str(&stored).unwrap();
            }
            Act::ReservationExpires => {
                if self.participants.effect(Step::Reserve) == Effect::Done {
                    self.participants.effects.insert(Step::Reserve, Effect::Gone);
                    self.answers.push(Input::Expired);
                }
            }
        }
    }

    /// The world is well again: everything arrives, time goes on.
    fn heal(&mut self) {
        for _ in 0..200 {
            while let Some(command) = (!self.commands.is_empty()).then(|| self.commands.remove(0)) {
                let answer = self.participants.handle(command);
                self.input(answer);
            }
            while let Some(answer) = (!self.answers.is_empty()).then(|| self.answers.remove(0)) {
                self.input(answer);
            }
            if self.saga.outcome().is_some() && self.commands.is_empty() {
                return;
            }
            self.act(Act::Wait(10));
        }
    }
}

fn place<T>(queue: &[T], at: usize) -> Option<usize> {
    at.checked_rem(queue.len())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn every_saga_ends_with_all_of_its_effects_or_none(
        refuses in prop::collection::btree_set(
            prop::sample::select(vec![Step::Reserve, Step::Charge, Step::Ship, Step::Commit]), 0..2),
        acts in prop::collection::vec(act(), 0..60),
    ) {
        let mut play = Play::new(refuses);
        for act in acts {
            play.act(act);
        }
        play.heal();
        let outcome = play.saga.outcome();
        prop_assert!(outcome.is_some(), "stuck: {:?}", play.saga);
        let effects = [Step::Reserve, Step::Charge, Step::Ship].map(|step| play.participants.effect(step));
        if outcome == Some(Outcome::Confirmed) {
            prop_assert!(play.confirmed && !play.cancelled);
            prop_assert_eq!(effects, [Effect::Committed, Effect::Done, Effect::Done]);
        } else {
            prop_assert!(play.cancelled && !play.confirmed);
            prop_assert!(effects.iter().all(|effect| matches!(effect, Effect::None | Effect::Gone)), "{:?}", effects);
        }
        prop_assert_eq!(play.participants.notices, BTreeSet::from([outcome.unwrap()]));
    }
}

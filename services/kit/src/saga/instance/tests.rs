//! A saga's stories, and random ones against what must always hold.

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

//! A naive log with honest clients: whatever they do, no check may complain. And with one thing wrong, one must.

use std::collections::BTreeMap;

use broker::ErrorCode;
use proptest::prelude::*;

use super::story::{Story, partition};
use super::{
    CommitsFollowReads, NoAcknowledgedLoss, NoIdempotentDuplicate, NoSkippedPoll, OneOffsetOneValue,
    OrderPerKey,
};
use crate::check::Check;
use crate::check::client::ClientAct;

const OBSERVER: u64 = 99;
const PRODUCERS: std::ops::Range<u64> = 1..3;
const MEMBERS: std::ops::Range<u64> = 10..13;

/// One thing that a client does. Numbers choose among what there is.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// A producer sends a new record, or one that was sent before; it is appended or lost.
    Send { producer: u64, again: bool, appended: bool },
    /// One send that waits hears of its fate.
    Answer { which: usize },
    /// One send that waits is given up, whether or not it was appended.
    GiveUp { which: usize },
    /// A member is given the partition anew, and starts where its group has committed.
    Assign { member: u64 },
    /// A member is given the next records.
    Poll { member: u64, count: usize },
    /// A member commits where it is; the answer may be lost, with or without the effect.
    Commit { member: u64, takes_effect: bool },
    /// A member goes elsewhere.
    Seek { member: u64, to: usize },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (PRODUCERS, any::<bool>(), any::<bool>()).prop_map(|(producer, again, appended)| Op::Send {
            producer,
            again,
            appended
        }),
        any::<usize>().prop_map(|which| Op::Answer { which }),
        any::<usize>().prop_map(|which| Op::GiveUp { which }),
        MEMBERS.prop_map(|member| Op::Assign { member }),
        (MEMBERS, 1..4_usize).prop_map(|(member, count)| Op::Poll { member, count }),
        (MEMBERS, any::<bool>()).prop_map(|(member, takes_effect)| Op::Commit { member, takes_effect }),
        (MEMBERS, any::<usize>()).prop_map(|(member, to)| Op::Seek { member, to }),
    ]
}

/// The partition `t/0` and what its clients know.
#[derive(Default)]
struct Model {
    log: Vec<String>,
    sent: Vec<String>,
    /// Sends without an answer: producer, send, offset if it was appended.
    waiting: Vec<(u64, u64, Option<usize>)>,
    sends: u64,
    positions: BTreeMap<u64, usize>,
    committed: usize,
}

impl Model {
    fn apply<C: Check>(&mut self, op: Op, story: &mut Story<C>) {
        match op {
            Op::Send { producer, again, appended } => {
                let old = self.sent.last().filter(|_| again).cloned();
                let value = old.unwrap_or_else(|| format!("value {}", self.sent.len()));
                self.sends += 1;
                story.sent(producer, self.sends, &value);
                let offset = appended.then_some(self.log.len());
                if appended {
                    self.log.push(value.clone());
                }
                self.sent.push(value);
                self.waiting.push((producer, self.sends, offset));
            }
            Op::Answer { which } if !self.waiting.is_empty() => {
                let (producer, send, offset) = self.waiting.remove(which % self.waiting.len());
                match offset {
                    Some(offset) => story.acked(producer, send, offset as i64),
                    None => story.given_up(producer, send, ErrorCode::QueueFull),
                };
            }
            Op::GiveUp { which } if !self.waiting.is_empty() => {
                let (producer, send, _) = self.waiting.remove(which % self.waiting.len());
                story.given_up(producer, send, ErrorCode::MessageTimedOut);
            }
            Op::Assign { member } => {
                self.positions.insert(member, self.committed);
                story.member(member);
            }
            Op::Poll { member, count } => {
                let Some(position) = self.positions.get_mut(&member) else { return };
                let records: Vec<(i64, &str)> = (*position..self.log.len().min(*position + count))
                    .map(|offset| (offset as i64, self.log[offset].as_str()))
                    .collect();
                *position += records.len();
                if !records.is_empty() {
                    story.polled(member, &records);
                }
            }
            Op::Commit { member, takes_effect } => {
                let Some(position) = self.positions.get(&member) else { return };
                story.commits(member, *position as i64);
                if takes_effect {
                    self.committed = *position;
                }
            }
            Op::Seek { member, to } => {
                let Some(position) = self.positions.get_mut(&member) else { return };
                *position = to % (self.log.len() + 1);
                let offset = *position as i64;
                story.act(member, ClientAct::Sought { partition: &partition(), offset });
            }
            Op::Answer { .. } | Op::GiveUp { .. } => {}
        }
    }

    /// The observer reads the log from its start.
    fn read<C: Check>(&self, story: &mut Story<C>) {
        let records: Vec<(i64, &str)> =
            self.log.iter().enumerate().map(|(at, value)| (at as i64, value.as_str())).collect();
        story.act(OBSERVER, ClientAct::Assigned(&[partition()]));
        if !records.is_empty() {
            story.polled(OBSERVER, &records);
        }
        story.read_to_end(OBSERVER, records.len() as i64);
    }
}

fn told<C: Check + Default>(ops: &[Op]) -> (Model, Story<C>) {
    let (mut model, mut story) = (Model::default(), Story::new());
    PRODUCERS.for_each(|producer| {
        story.producer(producer, true);
    });
    ops.iter().for_each(|op| model.apply(*op, &mut story));
    (model, story)
}

fn honest<C: Check + Default>(ops: &[Op]) -> Vec<String> {
    let (model, mut story) = told::<C>(ops);
    model.read(&mut story);
    story.end()
}

proptest! {
    #[test]
    fn honest_clients_of_an_honest_log_break_nothing(ops in prop::collection::vec(op(), 0..60)) {
        let nothing = Vec::<String>::new();
        prop_assert_eq!(honest::<NoAcknowledgedLoss>(&ops), nothing.clone());
        prop_assert_eq!(honest::<OneOffsetOneValue>(&ops), nothing.clone());
        prop_assert_eq!(honest::<NoIdempotentDuplicate>(&ops), nothing.clone());
        prop_assert_eq!(honest::<OrderPerKey>(&ops), nothing.clone());
        prop_assert_eq!(honest::<NoSkippedPoll>(&ops), nothing.clone());
        prop_assert_eq!(honest::<CommitsFollowReads>(&ops), nothing);
    }

    #[test]
    fn a_log_that_loses_its_last_acknowledged_record_is_found_out(ops in prop::collection::vec(op(), 0..60)) {
        let (mut model, mut story) = told::<NoAcknowledgedLoss>(&ops);
        model.apply(Op::Send { producer: 1, again: false, appended: true }, &mut story);
        let last = model.waiting.len() - 1;
        model.apply(Op::Answer { which: last }, &mut story);
        model.log.pop();
        model.read(&mut story);
        prop_assert_eq!(story.end().len(), 1);
    }

    #[test]
    fn a_log_that_takes_a_record_twice_is_found_out(ops in prop::collection::vec(op(), 0..60)) {
        let (mut model, mut story) = told::<NoIdempotentDuplicate>(&ops);
        model.apply(Op::Send { producer: 1, again: false, appended: true }, &mut story);
        let twice = model.log.last().cloned().expect("one was appended");
        model.log.push(twice);
        model.read(&mut story);
        prop_assert_eq!(story.end().len(), 1);
    }

    #[test]
    fn a_consumer_that_leaves_out_a_record_is_found_out(ops in prop::collection::vec(op(), 0..60)) {
        let (mut model, mut story) = told::<NoSkippedPoll>(&ops);
        for _ in 0..3 {
            model.apply(Op::Send { producer: 1, again: false, appended: true }, &mut story);
        }
        let at = model.log.len() as i64 - 3;
        story.member(50).act(50, ClientAct::Sought { partition: &partition(), offset: at });
        story.polled(50, &[(at, model.log[at as usize].as_str()), (at + 2, model.log[at as usize + 2].as_str())]);
        model.read(&mut story);
        prop_assert_eq!(story.end().len(), 1);
    }
}

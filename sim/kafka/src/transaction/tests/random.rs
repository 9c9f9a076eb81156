//! Random clients, appends that fail or wait, markers that fail, crashes. What must hold however it went: epochs never go
//! back, and once all is well again every transaction ends.

use proptest::prelude::*;

use super::*;
use TransactionState::{Ongoing, PrepareAbort, PrepareCommit};

#[derive(Clone, Debug)]
enum Step {
    Init,
    /// With what the `n`-th producer was told.
    Resume(usize),
    Add(usize, i32),
    End(usize, bool),
    HoldAppends,
    FailAppends(bool),
    Release,
    /// A crash while appends wait: those up to here are in the log.
    Crash(usize),
    Mark(bool),
    AnswerMarkers(u8),
    Advance(i64),
    Leader(i32, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Init),
        2 => (0..4_usize).prop_map(Step::Resume),
        6 => (0..4_usize, 0..3).prop_map(|(who, index)| Step::Add(who, index)),
        6 => (0..4_usize, any::<bool>()).prop_map(|(who, commit)| Step::End(who, commit)),
        1 => Just(Step::HoldAppends),
        1 => any::<bool>().prop_map(Step::FailAppends),
        3 => Just(Step::Release),
        1 => (0..3_usize).prop_map(Step::Crash),
        1 => any::<bool>().prop_map(Step::Mark),
        2 => any::<u8>().prop_map(Step::AnswerMarkers),
        2 => (1..40_000_i64).prop_map(Step::Advance),
        1 => (0..3, 0..4_u8).prop_map(|(index, where_to)| Step::Leader(index, where_to)),
    ]
}

struct Run {
    rig: Rig,
    /// What producers were told, latest last.
    told: Vec<Producer>,
    /// Initializations and ends that have no answer yet.
    open: Vec<Ticket>,
    highest: Producer,
}

impl Run {
    fn who(&self, back: usize) -> Producer {
        let index = self.told.len().saturating_sub(1 + back);
        self.told.get(index).copied().unwrap_or(at(1_000, 0))
    }

    fn hear(&mut self) {
        let (rig, told) = (&mut self.rig, &mut self.told);
        self.open.retain(|ticket| match rig.answers.remove(ticket) {
            None => true,
            Some(Ok(producer)) if producer != Producer::NONE => {
                told.push(producer);
                false
            }
            Some(_) => false,
        });
    }

    fn take(&mut self, step: Step) {
        let rig = &mut self.rig;
        match step {
            Step::Init => {
                let ticket = rig.begin_init(None);
                self.open.push(ticket);
            }
            Step::Resume(back) => {
                let who = self.who(back);
                let ticket = self.rig.begin_init(Some(who));
                self.open.push(ticket);
            }
            Step::Add(back, index) => {
                let who = self.who(back);
                self.rig.begin_add(who, &[index]);
            }
            Step::End(back, commit) => {
                let who = self.who(back);
                let ticket = self.rig.begin_end(who, commit);
                self.open.push(ticket);
            }
            Step::HoldAppends => rig.holding = true,
            Step::FailAppends(fail) => rig.failing = fail.then_some(ResponseError::NotEnoughReplicas),
            Step::Release => rig.release(),
            Step::Crash(committed) => {
                rig.failing = None;
                rig.held.truncate(committed);
                let records: Vec<_> = rig.held.iter().flat_map(Append::records).collect();
                rig.log.extend(records.iter().map(|record| record.encode(rig.version)));
                rig.holding = false;
                self.open.clear();
                rig.answers.clear();
                rig.fail_over();
            }
            Step::Mark(marking) => {
                rig.marking = marking;
                rig.settle();
            }
            Step::AnswerMarkers(fate) => {
                rig.answer_markers(|node, of| match (fate as usize + node as usize + of.1 as usize) % 4 {
                    0 => Err(ResponseError::NotLeaderOrFollower),
                    1 => Err(ResponseError::NotEnoughReplicasAfterAppend),
                    _ => Ok(()),
                })
            }
            Step::Advance(ms) => rig.advance(ms),
            Step::Leader(index, where_to) => {
                let leader = if where_to == 3 { Leader::Away } else { Leader::At(i32::from(where_to) + 1) };
                rig.leaders.insert(partition(index), leader);
                rig.ask(|core, _, _| core.retry_markers(false));
            }
        }
        self.hear();
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        // A fence that is not in the log yet has raised the epoch in memory, below level 2; nobody was told.
        let logged =
            self.rig.log.iter().rev().find_map(|(key, value)| {
                TransactionRecord::decode(key.clone(), value.clone()).unwrap().value
            });
        let Some(logged) = logged else { return Ok(()) };
        let now = at(logged.producer_id, logged.producer_epoch);
        let goes_on =
            now.id > self.highest.id || (now.id == self.highest.id && now.epoch >= self.highest.epoch);
        prop_assert!(goes_on, "{:?} came after {:?}", now, self.highest);
        self.highest = now;
        let Some(id) = self.rig.core.transaction(ID) else { return Ok(()) };
        let current = id.current();
        let ends = matches!(current.state, PrepareCommit | PrepareAbort);
        if ends {
            prop_assert!(id.pending().is_some(), "nobody completes a prepared transaction: {:?}", current);
        }
        for marker in &self.rig.written {
            prop_assert!(marker.producer.epoch <= now.epoch || marker.producer.id < now.id);
        }
        Ok(())
    }

    /// Everything heals; then every transaction ends by itself.
    fn heal(&mut self) -> Result<(), TestCaseError> {
        self.rig.failing = None;
        self.rig.leaders.clear();
        self.rig.marking = true;
        self.rig.release();
        self.rig.ask(|core, _, _| core.retry_markers(false));
        self.rig.advance(2 * i64::from(TIMEOUT_MS) + 60_000);
        self.hear();
        if let Some(id) = self.rig.core.transaction(ID) {
            prop_assert!(!matches!(id.current().state, Ongoing | PrepareCommit | PrepareAbort), "{:?}", id);
            prop_assert!(id.pending().is_none());
        }
        prop_assert_eq!(self.rig.core.completing(), 0);
        prop_assert!(self.open.is_empty(), "somebody was never answered");
        prop_assert!(self.rig.init().is_ok());
        Ok(())
    }
}

proptest! {
    #[test]
    fn every_transaction_ends_and_epochs_never_go_back(
        level in 0..3_i16,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let highest = at(0, NO_EPOCH);
        let mut run = Run { rig: Rig::new(level), told: Vec::new(), open: Vec::new(), highest };
        for step in steps {
            run.take(step);
            run.check()?;
        }
        run.heal()?;
    }
}

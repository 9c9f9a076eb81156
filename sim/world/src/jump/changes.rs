//! What the harness does to the world: the changes, made on hosts, links and the network stack.

use turmoil_net::NetstatState;

use super::wire::{self, Ends, address};
use super::{Jump, State};
use crate::{Change, Refusal};

/// What a change is about, by number.
#[derive(Clone, Copy)]
pub(super) enum Target {
    Host(usize),
    Link(usize, usize),
}

impl Jump {
    /// What a change is about, if it fits.
    pub(super) fn target(&self, change: &Change) -> Result<Target, Refusal> {
        let states: &[State] = match change {
            Change::Kill { .. } => &[State::Running, State::Paused],
            Change::PowerOff { .. } => &[State::Running, State::Paused, State::Down],
            Change::Restart { .. } => &[State::Down, State::Dark],
            Change::Pause { .. } => &[State::Running],
            Change::Resume { .. } => &[State::Paused],
            Change::Hold { from, to } | Change::Release { from, to } | Change::Latency { from, to, .. } => {
                let (from, to) = (self.number(from)?, self.number(to)?);
                // What a host says to itself does not leave it.
                return match from == to {
                    true => Err(Refusal::Unfit { change: change.to_string(), state: "at both ends" }),
                    false => Ok(Target::Link(from, to)),
                };
            }
        };
        let number = self.number(change.host().expect("a change that is not of a link is of a host"))?;
        let state = self.machines[number].state;
        match states.contains(&state) {
            true => Ok(Target::Host(number)),
            false => Err(Refusal::Unfit { change: change.to_string(), state: state.word() }),
        }
    }

    pub(super) fn make(&mut self, change: &Change, target: Target) {
        let now = self.shared.clock.millis();
        match (change, target) {
            (Change::Kill { .. }, Target::Host(number)) => {
                self.end(number);
                self.machines[number].state = State::Down;
            }
            (Change::PowerOff { .. }, Target::Host(number)) => {
                // What was sent before goes its way; what is sent from here on does not.
                self.collect();
                self.machines[number].state = State::Dark;
                self.end(number);
                self.forget_connections(number, |_| true);
                assert!(self.connections(number).is_empty(), "a machine without power keeps no connection");
            }
            (Change::Restart { .. }, Target::Host(number)) => {
                if self.machines[number].state == State::Dark {
                    self.links.deliver_unheard(now, number);
                }
                // The old process has said all, and been heard; only its peer has not closed. Linux forgets such a
                // connection after a minute (`tcp_fin_timeout`), the stack never would.
                self.forget_connections(number, |state| state == NetstatState::FinWait2);
                self.machines[number].stats.incarnation += 1;
                self.start(number);
            }
            (Change::Pause { .. }, Target::Host(number)) => self.set_paused(number, true),
            (Change::Resume { .. }, Target::Host(number)) => self.set_paused(number, false),
            (Change::Hold { .. }, Target::Link(from, to)) => self.links.hold(from, to),
            (Change::Release { .. }, Target::Link(from, to)) => self.links.release(now, from, to),
            (Change::Latency { range, .. }, Target::Link(from, to)) => {
                self.links.set_latency(from, to, *range)
            }
            _ => unreachable!("`target` gives a host or a link as the change has one"),
        }
    }

    fn set_paused(&mut self, number: usize, paused: bool) {
        let machine = &mut self.machines[number];
        machine.state = if paused { State::Paused } else { State::Running };
        machine.stats.paused = paused;
        self.shared.tasks.set_paused(number, paused);
    }

    /// The process ends: its tasks are dropped, and its sockets with them.
    fn end(&mut self, number: usize) {
        let live = |&(_, state)| matches!(state, NetstatState::Established | NetstatState::CloseWait);
        let cut = self.connections(number).iter().filter(|connection| live(connection)).count() as u64;
        let machine = &mut self.machines[number];
        if let Some(incarnation) = machine.incarnation.take() {
            incarnation.end();
        }
        self.shared.directory().hosts[number].ports.clear();
        let tasks = self.shared.tasks.take(number);
        machine.stats.running = false;
        machine.stats.paused = false;
        machine.stats.tasks_killed += tasks.len() as u64;
        machine.stats.connections_cut += cut;
        drop(tasks);
    }

    /// Takes the connections in these states from the stack, which would wind them down. Nobody is told.
    fn forget_connections(&mut self, number: usize, which: impl Fn(NetstatState) -> bool) {
        for ((local, remote), state) in self.connections(number) {
            if which(state) {
                self.guard().deliver(wire::reset(remote, local, 0));
                self.shared.closed().remove(&(local, remote));
                self.handshakes.remove(&(local, remote));
            }
        }
        // The stack drops what has ended when it is asked for packets.
        self.collect();
    }

    /// The connections of a host, as its own end sees them.
    fn connections(&self, number: usize) -> Vec<(Ends, NetstatState)> {
        let entries = turmoil_net::netstat(address(number, 0)).entries.into_iter();
        entries.filter_map(|entry| Some(((entry.local, entry.peer?), entry.state?))).collect()
    }
}

//! What a test does to the nodes of a bench and to the ways between them.

use context::{Seed, Timestamp};
use shakedown_kafka::NodeId;
use shakedown_kafka::core::{ConnectionId, Input};
use uuid::Uuid;

use super::{Bench, Host, Node, Parcel, peer_host};

impl Node {
    /// Off, and not even refusing: its machine lost power.
    pub(super) fn is_silent(&self) -> bool {
        !self.up && self.paused.is_some()
    }
}

impl Bench {
    /// Starts a broker that was killed.
    pub fn start(&mut self, node: NodeId) {
        self.reset_connections_to(node);
        let incarnation = self.nodes[node as usize - 1].incarnation + 1;
        let core = self.new_core(node, incarnation);
        let at = &mut self.nodes[node as usize - 1];
        assert!(!at.up, "broker {node} runs");
        (at.core, at.up, at.listening, at.incarnation, at.paused) = (core, true, false, incarnation, None);
        let incarnation = Uuid::from_u128(incarnation << 32 | node as u128);
        self.queue.push_back((Host::Broker(node), Input::Start { incarnation }));
        self.settle();
    }

    /// The process dies; its disk stays. Its peers see their connections break.
    pub fn kill(&mut self, node: NodeId) {
        self.turn_off(node);
        self.reset_connections_to(node);
        self.note("", &format!("broker {node} is killed"));
        self.settle();
    }

    /// The process is asked to end: it does when its leaderships have moved, which takes time.
    pub fn shut_down(&mut self, node: NodeId) {
        self.queue.push_back((Host::Broker(node), Input::Shutdown));
        self.settle();
    }

    pub(super) fn stopped(&mut self, host: Host) {
        let Host::Broker(node) = host else { panic!("a controller is not asked to end") };
        self.turn_off(node);
        self.reset_connections_to(node);
        self.note("", &format!("broker {node} has stopped"));
    }

    /// The machine of a broker dies: its disk loses what it had not flushed, and its peers hear nothing until it is
    /// started again.
    pub fn lose_power(&mut self, node: NodeId) {
        self.turn_off(node);
        let (now, at) = (self.now, &mut self.nodes[node as usize - 1]);
        at.disk.lose_power(now, &mut Seed(7).stream(&format!("power#{node}#{}", at.incarnation)));
        at.paused = Some(Vec::new());
        self.note("", &format!("broker {node} loses power"));
    }

    fn turn_off(&mut self, node: NodeId) {
        let at = &mut self.nodes[node as usize - 1];
        (at.up, at.listening, at.wake_at, at.paused) = (false, false, Timestamp::FAR_FUTURE, None);
        self.queue.retain(|(host, _)| *host != Host::Broker(node));
        self.behind.retain(|(from, _), _| *from != node as usize - 1);
        let own = self.links.extract_if(.., |_, asked| asked.from == node as usize - 1);
        self.given_up.extend(own.map(|(connection, _)| connection));
    }

    /// Whoever waits for an answer of this broker hears that there is none.
    fn reset_connections_to(&mut self, node: NodeId) {
        let held: Vec<ConnectionId> = self.held.values().flatten().map(Parcel::connection).collect();
        let waits = self.links.iter().filter(|(connection, asked)| {
            peer_host(asked.link.peer) == Host::Broker(node) && !held.contains(connection)
        });
        let waits: Vec<_> = waits.map(|(&connection, _)| connection).collect();
        for connection in waits {
            self.answer_link(connection, None);
        }
    }

    /// The process stands still: what comes waits, timers are late.
    pub fn pause(&mut self, node: NodeId) {
        self.nodes[node as usize - 1].paused = Some(Vec::new());
        self.note("", &format!("broker {node} is paused"));
    }

    /// It goes on, with what came meanwhile first.
    pub fn resume(&mut self, node: NodeId) {
        let waiting = self.nodes[node as usize - 1].paused.take().expect("a paused broker");
        self.note("", &format!("broker {node} goes on"));
        self.queue.extend(waiting.into_iter().map(|input| (Host::Broker(node), input)));
        self.wake();
        self.settle();
    }

    /// The controller dies; its log stays.
    pub fn kill_controller(&mut self) {
        (self.controller_up, self.controller_wake_at) = (false, Timestamp::FAR_FUTURE);
        let asked = self.links.iter().filter(|(_, asked)| peer_host(asked.link.peer) == Host::Controller);
        let asked: Vec<_> = asked.map(|(&connection, _)| connection).collect();
        for connection in asked {
            self.answer_link(connection, None);
        }
        self.note("", "the controller is killed");
        self.settle();
    }

    /// Another controller takes over.
    pub fn start_controller(&mut self) {
        self.controller = self.new_controller();
        self.controller_up = true;
        self.queue.push_back((Host::Controller, Input::Start { incarnation: Uuid::nil() }));
        for parcel in std::mem::take(&mut self.for_controller) {
            self.deliver(parcel);
        }
        self.settle();
    }

    /// What `from` sends to `to` waits from now on.
    pub fn hold(&mut self, from: Host, to: Host) {
        self.held.entry((from, to)).or_default();
    }

    /// What waited arrives, and the way is free again.
    pub fn release(&mut self, from: Host, to: Host) {
        for parcel in self.held.remove(&(from, to)).unwrap_or_default() {
            self.deliver(parcel);
        }
        self.settle();
    }

    /// Nothing arrives between the two, either way.
    pub fn cut(&mut self, one: Host, other: Host) {
        self.hold(one, other);
        self.hold(other, one);
    }

    /// Mends a [`Bench::cut`].
    pub fn mend(&mut self, one: Host, other: Host) {
        self.release(one, other);
        self.release(other, one);
    }

    /// Cuts a broker off from all other nodes; clients still reach it.
    pub fn isolate(&mut self, node: NodeId) {
        for other in self.others(node) {
            self.cut(Host::Broker(node), other);
        }
        self.note("", &format!("broker {node} is cut off"));
    }

    /// Mends a [`Bench::isolate`].
    pub fn rejoin(&mut self, node: NodeId) {
        self.note("", &format!("broker {node} is no longer cut off"));
        for other in self.others(node) {
            self.mend(Host::Broker(node), other);
        }
    }

    fn others(&self, node: NodeId) -> Vec<Host> {
        let brokers = (1..=self.nodes.len() as NodeId).filter(|&other| other != node);
        brokers.map(Host::Broker).chain([Host::Controller]).collect()
    }
}

impl Parcel {
    fn connection(&self) -> ConnectionId {
        match self {
            Parcel::Request { connection, .. } | Parcel::Answer { connection, .. } => *connection,
        }
    }
}

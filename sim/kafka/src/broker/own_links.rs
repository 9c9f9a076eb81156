//! Links of a broker to itself: a coordinator's markers for a partition that its own broker leads, a leader's question to
//! its own coordinator. Kafka sends them over the network to itself; here the request is handled in the same turn, by the
//! same handler, and its answer comes back as any other's.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::{Broker, Turn};
use crate::core::{ConnectionId, Lane, Link, Output};

/// What a broker asked itself. One request at a time on each lane, as on every link.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnLinks {
    waiting: BTreeMap<Lane, VecDeque<Bytes>>,
    busy: BTreeMap<ConnectionId, Lane>,
}

impl OwnLinks {
    pub(super) fn ask(&mut self, lane: Lane, frame: Bytes) {
        self.waiting.entry(lane).or_default().push_back(frame);
    }

    /// The next request, on a connection that no shell gives out.
    fn next(&mut self) -> Option<(ConnectionId, Bytes)> {
        for (&lane, frames) in &mut self.waiting {
            let connection = ConnectionId(u64::MAX - lane as u64);
            if !self.busy.contains_key(&connection)
                && let Some(frame) = frames.pop_front()
            {
                self.busy.insert(connection, lane);
                return Some((connection, frame));
            }
        }
        None
    }
}

impl Broker {
    /// Handles what this broker asked itself, and gives it the answers that are there.
    pub(super) fn serve_itself(&mut self, turn: &mut Turn<'_>) {
        loop {
            while let Some((connection, frame)) = self.own_links.next() {
                let peer = self.endpoint.name.as_str().into();
                self.request(turn, connection, &peer, &frame);
            }
            if self.own_links.busy.is_empty() {
                return;
            }
            let answers = self.own_answers(turn);
            if answers.is_empty() {
                return;
            }
            for (lane, frame) in answers {
                self.answered(turn, Link::broker(self.node, lane), frame);
            }
        }
    }

    fn own_answers(&mut self, turn: &mut Turn<'_>) -> Vec<(Lane, Option<Bytes>)> {
        let busy = &mut self.own_links.busy;
        let mut answers = Vec::new();
        turn.out.retain(|output| {
            let (connection, frame) = match output {
                Output::Respond { connection, frame } => (connection, Some(frame.clone())),
                Output::Close { connection, .. } => (connection, None),
                _ => return true,
            };
            let Some(lane) = busy.remove(connection) else { return true };
            answers.push((lane, frame));
            false
        });
        answers
    }
}
